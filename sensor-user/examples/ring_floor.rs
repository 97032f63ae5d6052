//! What reading the ring costs an agent that does next to nothing with it: the floor of the live figures.
//!
//! `ring_floor plain|drain|copy|read PORT`, as root, attaches the kernel half as the sensor does. It says `watching`, reads until
//! its standard input ends, and then says how many requests it saw.
//!
//! * `plain` attaches other programs instead, which copy the same bytes and do nothing else (`sensor-ebpf/src/floor.rs`), and
//!   takes them out of their ring: the floor of the kernel half.
//! * `drain` takes each record out of the ring and lets it go.
//! * `copy` copies what was captured.
//! * `read` reads heads with httparse, looks the bearer token up by the sensor's hash, and counts the answer's status beside it.
//!   It trusts that each head is whole in one record: no reassembly, no limits, no verdicts, no rules.
//!
//! `cargo build --release -p sensor-user --example ring_floor`, and `LAB_RING_FLOOR=PATH cargo xtask bench --live`.

#![allow(clippy::print_stdout, reason = "the bench reads it")]

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::EbpfLoader;
use aya::maps::RingBuf;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType};
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

/// Reads what the sensor's kernel half writes, until `ended`.
fn watch(work: Work, port: u16, ended: &AtomicBool) -> Result<()> {
    let mut source = EbpfSource::open(&Options { ports: vec![port], ..Options::default() })?;
    let mut reader = Reader {
        work,
        copied: Vec::with_capacity(1 << 16),
        hash: TextHash::random()?,
        tokens: HashMap::default(),
        asked: HashMap::default(),
        requests: 0,
    };
    println!("watching");
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

/// Programs that copy the same bytes and do nothing else.
static PLAIN: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/floor.bpf.o"));

/// Takes what they copy out of their ring every millisecond, as the sensor does under load, until `ended`.
fn plain(port: u16, ended: &AtomicBool) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').skip(1));
    let at = mounts.find_map(|mut fields| Some(fields.next()?).filter(|_| fields.next() == Some("cgroup2")));
    let cgroup = File::open(at.context("no cgroup v2 is mounted")?)?;
    let mut programs = EbpfLoader::new().override_global("PORT", &port, true).load(PLAIN)?;
    for (name, way) in
        [("floor_ingress", CgroupSkbAttachType::Ingress), ("floor_egress", CgroupSkbAttachType::Egress)]
    {
        let program: &mut CgroupSkb = programs.program_mut(name).context(name)?.try_into()?;
        program.load()?;
        program.attach(&cgroup, way, CgroupAttachMode::Single)?;
    }
    let mut ring = RingBuf::try_from(programs.take_map("BYTES").context("BYTES")?)?;
    println!("watching");
    let (mut last, mut requests) = (false, 0_u64);
    while !last {
        last = ended.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
        while let Some(record) = ring.next() {
            // The fifth byte says whose they are.
            requests += u64::from(record.get(4) == Some(&0));
        }
    }
    println!("{requests}");
    Ok(())
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [work, port] = words.as_slice() else { bail!("usage: ring_floor plain|drain|copy|read PORT") };
    let port = port.parse().context("the port")?;
    let ended = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&ended);
    std::thread::spawn(move || {
        _ = std::io::stdin().read(&mut [0]);
        ends.store(true, Ordering::Relaxed);
    });
    match work.as_str() {
        "plain" => plain(port, &ended),
        "drain" => watch(Work::Drain, port, &ended),
        "copy" => watch(Work::Copy, port, &ended),
        "read" => watch(Work::Read, port, &ended),
        other => bail!("{other} is none of plain, drain, copy, read"),
    }
}
