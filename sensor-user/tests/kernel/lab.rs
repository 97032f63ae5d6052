//! A place to try the kernel half: a cgroup, a source, and pairs of sockets.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use sensor_user::capture::ebpf::{EbpfSource, Options, Status, probe};
use sensor_user::capture::{Event, Input, Side, Source};

/// A frame, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) socket: u64,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) cgroup: u64,
    pub(crate) netns: u64,
    pub(crate) pid: u32,
    pub(crate) what: What,
}

impl Seen {
    pub(crate) fn is_request(&self, bytes: &[u8]) -> bool {
        matches!(&self.what, What::Bytes { side: Side::Request, payload, .. } if payload == bytes)
    }
}

/// What a frame told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Open {
        first_seq: u32,
    },
    Bytes {
        side: Side,
        seq: u32,
        wire_len: u32,
        payload: Vec<u8>,
        ack: Option<u32>,
        rcv_nxt: Option<u32>,
        fin: bool,
    },
    Close,
}

/// A source and what it has shown of one server port.
pub(crate) struct Lab {
    pub(crate) source: EbpfSource,
    pub(crate) seen: Vec<Seen>,
    pub(crate) losses: Vec<(&'static str, u64)>,
    /// How often the kernel half said that the reader falls behind.
    pub(crate) pressed: usize,
    /// Server ports of the frames that were not of this one.
    pub(crate) strangers: Vec<u16>,
    pub(crate) port: u16,
}

/// Looks at the source, at most this often, until what a test waits for is there: 10 s on an idle machine.
const LOOKS: usize = 100;

impl Lab {
    /// A source on the cgroup of this process; `None`, loudly, where that cannot be.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Option<Self> {
        let cgroup = cgroup()?;
        let source = EbpfSource::open(&Options { cgroup: Some(cgroup), ..options }).unwrap();
        Some(Self {
            source,
            seen: Vec::new(),
            losses: Vec::new(),
            pressed: 0,
            strangers: Vec::new(),
            port: 0,
        })
    }

    /// Takes in what there is until `done`, or a long time has passed.
    pub(crate) fn watch(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..LOOKS {
            if done(self) {
                return;
            }
            self.look(Duration::from_millis(100));
        }
    }

    /// Takes in what there is.
    pub(crate) fn look(&mut self, wait: Duration) {
        let Self { source, seen, losses, pressed, strangers, .. } = self;
        let port = self.port;
        source
            .poll(wait, &mut |input| match input {
                Input::Frame(frame) if frame.endpoints.server.port() == port => seen.push(Seen {
                    socket: frame.socket.0,
                    client: frame.endpoints.client,
                    server: frame.endpoints.server,
                    cgroup: frame.origin.cgroup,
                    netns: frame.origin.netns,
                    pid: frame.origin.pid,
                    what: what(frame.event),
                }),
                Input::Frame(frame) => strangers.push(frame.endpoints.server.port()),
                Input::Loss(loss) => losses.push((loss.reason, loss.records)),
                Input::Pressed(_) => *pressed += 1,
                Input::Tick(_) => {}
            })
            .unwrap();
    }

    /// The bytes of one side, put in order; a gap ends them.
    pub(crate) fn stream(&self, wanted: Side) -> Vec<u8> {
        let mut pieces: Vec<(u32, &[u8])> = Vec::new();
        for seen in &self.seen {
            if let What::Bytes { side, seq, payload, .. } = &seen.what
                && *side == wanted
                && !payload.is_empty()
            {
                pieces.push((*seq, payload));
            }
        }
        let Some(first) = pieces.first().map(|piece| piece.0) else { return Vec::new() };
        pieces.sort_by_key(|piece| piece.0.wrapping_sub(first));
        let mut stream: Vec<u8> = Vec::new();
        for (seq, payload) in pieces {
            let at = seq.wrapping_sub(first) as usize;
            if at > stream.len() {
                break;
            }
            if at + payload.len() > stream.len() {
                stream.extend_from_slice(&payload[stream.len() - at..]);
            }
        }
        stream
    }

    /// How many records told of one side.
    pub(crate) fn records(&self, wanted: Side) -> usize {
        self.seen
            .iter()
            .filter(|seen| matches!(&seen.what, What::Bytes { side, .. } if *side == wanted))
            .count()
    }

    pub(crate) fn counter(&self, label: &str) -> u64 {
        self.source.counters().into_iter().find(|(name, _)| *name == label).unwrap().1
    }

    /// Waits until the request side holds `bytes`, and fails if it never does.
    pub(crate) fn expect_request(&mut self, bytes: &[u8]) {
        self.watch(|lab| lab.stream(Side::Request).len() >= bytes.len());
        let stream = self.stream(Side::Request);
        assert_eq!(String::from_utf8_lossy(&stream), String::from_utf8_lossy(bytes));
    }
}

fn what(event: Event<'_>) -> What {
    match event {
        Event::Open { first_seq } => What::Open { first_seq },
        Event::Close { .. } => What::Close,
        Event::Segment(segment) => What::Bytes {
            side: segment.side,
            seq: segment.seq,
            wire_len: segment.wire_len,
            payload: segment.payload.to_vec(),
            ack: segment.ack,
            rcv_nxt: segment.rcv_nxt,
            fin: segment.fin,
        },
    }
}

/// The cgroup of this process, made once. `None` where the kernel half cannot run. Sockets stay where they were born,
/// so whoever makes one before its [`Lab`] calls this first.
pub(crate) fn cgroup() -> Option<PathBuf> {
    static CGROUP: OnceLock<Option<PathBuf>> = OnceLock::new();
    CGROUP
        .get_or_init(|| {
            let checks = probe(None);
            if let Some(check) = checks.iter().find(|check| check.status == Status::Fail) {
                eprintln!("SKIPPED kernel tests: {}: {} ({})", check.name, check.found, check.remedy);
                return None;
            }
            let root = &checks.iter().find(|check| check.name == "cgroup v2")?.found;
            sweep(Path::new(root));
            let dir = PathBuf::from(root).join(format!("{PREFIX}{}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("cgroup.procs"), std::process::id().to_string()).unwrap();
            Some(dir)
        })
        .clone()
}

/// Cgroups of these tests are called so, with a process id behind.
const PREFIX: &str = "tokenscope-test-";

/// Removes what earlier test processes left: no process can remove the cgroup that it lives in. Those of living ones
/// are busy, and stay.
fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Both ends of a connection between sockets of this process.
pub(crate) struct Pair {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Pair {
    pub(crate) fn v4() -> Self {
        Self::between(&listen(Ipv4Addr::LOCALHOST.into()))
    }

    pub(crate) fn between(listener: &TcpListener) -> Self {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        Self { client, server }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.local_addr().unwrap().port()
    }

    /// The client sends and the server reads all of it.
    pub(crate) fn ask(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
        let mut read = vec![0; bytes.len()];
        self.server.read_exact(&mut read).unwrap();
    }

    /// The server sends and the client reads all of it.
    pub(crate) fn answer(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).unwrap();
        let mut read = vec![0; bytes.len()];
        self.client.read_exact(&mut read).unwrap();
    }

    pub(crate) fn finish(&mut self) {
        self.client.shutdown(Shutdown::Write).unwrap();
        self.server.read_to_end(&mut Vec::new()).unwrap();
        self.server.shutdown(Shutdown::Write).unwrap();
        self.client.read_to_end(&mut Vec::new()).unwrap();
    }
}

pub(crate) fn listen(address: IpAddr) -> TcpListener {
    TcpListener::bind((address, 0)).unwrap()
}

pub(crate) const ASK: &[u8] =
    b"GET /orders/7 HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer abc.def.ghi\r\n\r\n";
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
