//! What reading the ring costs an agent that does next to nothing with it: the floor of the live figures.
//!
//! `ring_floor drain|copy|read PORT`, as root, attaches the kernel half as the sensor does. It says `watching`, reads until its
//! standard input ends, and then says how many requests it saw.
//!
//! * `drain` takes each record out of the ring and lets it go.
//! * `copy` copies what was captured.
//! * `read` reads heads with httparse, looks the bearer token up by the sensor's hash, and counts the answer's status beside it.
//!   It trusts that each head is whole in one record: no reassembly, no limits, no verdicts, no rules.
//!
//! `cargo build --release -p sensor-user --example ring_floor`, and `LAB_RING_FLOOR=PATH cargo xtask bench --live`.

#![allow(clippy::print_stdout, reason = "the bench reads it")]

use std::hint::black_box;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hashbrown::HashMap;
use httparse::{ParserConfig, Request, Response};
use sensor_user::capture::ebpf::{EbpfSource, Options};
use sensor_user::capture::{Event, Frame, Input, Side, SocketId, Source as _};
use sensor_user::token::hash::TextHash;

/// What is done with a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Drain,
    Copy,
    Read,
}

/// What is kept of a token.
#[derive(Default)]
struct Uses {
    requests: u64,
    answers: u64,
    failures: u64,
}

struct Reader {
    work: Work,
    copied: Vec<u8>,
    hash: TextHash,
    tokens: HashMap<u128, Uses, foldhash::fast::RandomState>,
    /// The token of each connection's last request.
    asked: HashMap<SocketId, u128, foldhash::fast::RandomState>,
    requests: u64,
}

impl Reader {
    fn take(&mut self, frame: &Frame<'_>) {
        let Event::Segment(segment) = frame.event else { return };
        if segment.payload.is_empty() {
            return;
        }
        self.requests += u64::from(segment.side == Side::Request);
        match self.work {
            Work::Drain => {}
            Work::Copy => {
                self.copied.clear();
                self.copied.extend_from_slice(segment.payload);
                black_box(&self.copied);
            }
            Work::Read if segment.side == Side::Request => self.request(frame.socket, segment.payload),
            Work::Read => self.response(frame.socket, segment.payload),
        }
    }

    fn request(&mut self, socket: SocketId, bytes: &[u8]) {
        let mut fields = [const { MaybeUninit::uninit() }; 32];
        let mut request = Request::new(&mut []);
        if request.parse_with_uninit_headers(bytes, &mut fields).is_err() {
            return;
        }
        let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("authorization"));
        if let Some(token) = field.and_then(|field| field.value.strip_prefix(b"Bearer ")) {
            let key = self.hash.of(token);
            self.tokens.entry(key).or_default().requests += 1;
            self.asked.insert(socket, key);
        }
    }

    fn response(&mut self, socket: SocketId, bytes: &[u8]) {
        let mut fields = [const { MaybeUninit::uninit() }; 32];
        let mut response = Response::new(&mut []);
        let parser = ParserConfig::default();
        if parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields).is_err() {
            return;
        }
        let Some(uses) = self.asked.get(&socket).and_then(|key| self.tokens.get_mut(key)) else { return };
        uses.answers += 1;
        uses.failures += u64::from(response.code.is_some_and(|code| code >= 400));
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [work, port] = words.as_slice() else { bail!("usage: ring_floor drain|copy|read PORT") };
    let work = match work.as_str() {
        "drain" => Work::Drain,
        "copy" => Work::Copy,
        "read" => Work::Read,
        other => bail!("{other} is none of drain, copy, read"),
    };
    let port = port.parse().context("the port")?;
    let mut source = EbpfSource::open(&Options { ports: vec![port], ..Options::default() })?;
    let ended = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&ended);
    std::thread::spawn(move || {
        _ = std::io::stdin().read(&mut [0]);
        ends.store(true, Ordering::Relaxed);
    });
    println!("watching");
    let mut reader = Reader {
        work,
        copied: Vec::with_capacity(1 << 16),
        hash: TextHash::random()?,
        tokens: HashMap::default(),
        asked: HashMap::default(),
        requests: 0,
    };
    let mut last = false;
    while !last {
        last = ended.load(Ordering::Relaxed);
        source.poll(Duration::from_millis(200), &mut |input| {
            if let Input::Frame(frame) = input {
                reader.take(&frame);
            }
        })?;
    }
    println!("{}", reader.requests);
    if work == Work::Read {
        let sum = |what: fn(&Uses) -> u64| reader.tokens.values().map(what).sum::<u64>();
        let (requests, answers, failures) = (sum(|u| u.requests), sum(|u| u.answers), sum(|u| u.failures));
        println!("{} tokens, {requests} uses, {answers} answers, {failures} failures", reader.tokens.len());
    }
    Ok(())
}
