//! Capture files as a test writes them.
#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::time::Duration;

use etherparse::PacketBuilder;
use sensor_user::capture::pcap::PcapSource;
use sensor_user::capture::{Input, Loss, Progress, Source, SourceError};
use sensor_user::http::{Connection, Exchange, Exchanges, HttpLimits};
use sensor_user::reassembly::{FlowLimits, Flows};

/// One TCP segment to be written.
#[allow(clippy::struct_excessive_bools, reason = "flags of the header")]
#[derive(Clone, Debug, Default)]
pub struct Tcp {
    pub from_client: bool,
    pub client_port: u16,
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub payload: Vec<u8>,
}

impl Tcp {
    /// The Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        let (client, server) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let port = if self.client_port == 0 { 40_000 } else { self.client_port };
        let (from, to, from_port, to_port) =
            if self.from_client { (client, server, port, 80) } else { (server, client, 80, port) };
        let mut builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4(from, to, 64)
            .tcp(from_port, to_port, self.seq, 65_000);
        if let Some(ack) = self.ack {
            builder = builder.ack(ack);
        }
        if self.syn {
            builder = builder.syn();
        }
        if self.fin {
            builder = builder.fin();
        }
        if self.rst {
            builder = builder.rst();
        }
        let mut out = Vec::new();
        builder.write(&mut out, &self.payload).unwrap();
        out
    }
}

/// A pcap file of Ethernet frames, a millisecond apart.
pub fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        out.extend(word.to_le_bytes());
    }
    for (n, frame) in frames.iter().enumerate() {
        let millis = u32::try_from(n).unwrap();
        let len = u32::try_from(frame.len()).unwrap();
        for word in [1_700_000_000 + millis / 1000, millis % 1000 * 1000, len, len] {
            out.extend(word.to_le_bytes());
        }
        out.extend(frame);
    }
    out
}

/// Everything that came out of a file.
#[derive(Debug, Default)]
pub struct Read {
    pub exchanges: Vec<Exchange>,
    pub losses: Vec<Loss>,
    pub error: Option<SourceError>,
    pub sockets: std::collections::BTreeSet<u64>,
}

impl Read {
    pub fn lines(&self) -> Vec<String> {
        self.exchanges.iter().map(super::line).collect()
    }
}

/// Reads a whole capture through reassembly and HTTP.
pub fn read(bytes: Vec<u8>) -> Read {
    let mut flows = Flows::<Connection>::new(FlowLimits::default());
    let mut exchanges = Exchanges::new(HttpLimits::default());
    let mut out = Read::default();
    let mut source = match PcapSource::from_reader("test", Box::new(std::io::Cursor::new(bytes))) {
        Ok(source) => source,
        Err(error) => return Read { error: Some(error), ..out },
    };
    loop {
        let mut grants = Vec::new();
        let progress = source.poll(Duration::ZERO, &mut |input| match input {
            Input::Frame(frame) => {
                out.sockets.insert(frame.socket.0);
                flows.push(&frame, &mut exchanges, &mut grants);
            }
            Input::Tick(now) => flows.expire(now, &mut exchanges),
            Input::Loss(loss) => out.losses.push(loss),
            Input::Pressed(_) => {}
        });
        match progress {
            Ok(Progress::More | Progress::Idle) => {}
            Ok(Progress::End) => break,
            Err(error) => {
                out.error = Some(error);
                break;
            }
        }
    }
    flows.finish(source.now(), &mut exchanges);
    out.exchanges.extend(std::iter::from_fn(|| exchanges.take().map(|exchange| *exchange)));
    out
}
