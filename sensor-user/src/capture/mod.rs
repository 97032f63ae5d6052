//! Where segments come from: a live kernel, or a capture file.
//!
//! A source delivers [`Frame`]s: TCP segments seen *at the server's socket*, with its role already
//! decided. Whatever differs between kernels and file formats ends here; nothing downstream knows
//! which source it reads.

pub mod ebpf;
pub mod pcap;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since the Unix epoch, from the data and never from a clock of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// The time `secs` seconds after the Unix epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Whole seconds since the Unix epoch: the `NumericDate` of RFC 7519 section 2.
    #[must_use]
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Whole milliseconds since the Unix epoch: OCSF's `timestamp_t`.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero when it is before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This time moved forward by `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// One connection for as long as the sensor runs: the socket cookie, or a number that a file source counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Which way bytes go, named by what they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Response,
}

/// Both ends of a connection as its server sees them. IPv4-mapped addresses are unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoints {
    /// The peer that connected.
    pub client: SocketAddr,
    /// The local end.
    pub server: SocketAddr,
}

/// Where on the host the server's socket lives. Zero means unknown, as in every capture file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Inode of the cgroup's directory.
    pub cgroup: u64,
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Thread group id of the server.
    pub pid: u32,
}

/// Something that happened on one connection.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When the source saw it.
    pub at: Time,
    /// The connection.
    pub socket: SocketId,
    /// Its ends.
    pub endpoints: Endpoints,
    /// Its place on the host.
    pub origin: Origin,
    /// What happened.
    pub event: Event<'a>,
}

/// What can happen on a connection.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The handshake was seen. The client's first byte is `first_seq`.
    Open {
        /// Initial sequence number of the client plus one.
        first_seq: u32,
    },
    /// A TCP segment, or an acknowledgement without payload.
    Segment(Segment<'a>),
    /// The server's socket is gone.
    Close {
        /// Final `rcv_nxt` where the source knows it: everything before it was accepted.
        rcv_nxt: Option<u32>,
    },
}

/// One TCP segment. Sequence numbers count bytes modulo 2^32 (RFC 9293 section 3.4).
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a segment")]
pub struct Segment<'a> {
    /// Which way it went.
    pub side: Side,
    /// Sequence number of the first payload byte.
    pub seq: u32,
    /// What it acknowledges of the other side, if it carries ACK.
    pub ack: Option<u32>,
    /// What the server's TCP had accepted when this was seen: a lower bound; live only.
    pub rcv_nxt: Option<u32>,
    /// Payload bytes on the wire.
    pub wire_len: u32,
    /// The captured start of the payload: `payload.len() <= wire_len`.
    pub payload: &'a [u8],
    /// The source forwards this side whole until a grant says what is not wanted (live, while requests are pipelined).
    pub whole: bool,
    /// Segments of this side arrive in the order of the first transmission, so that a jump forward means bytes
    /// that were not captured (live egress), and not reordering.
    pub in_order: bool,
    /// The sender will send no more (FIN).
    pub fin: bool,
    /// The connection was reset.
    pub rst: bool,
}

/// Bytes or records that a source lost, told apart by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When it was noticed.
    pub at: Time,
    /// Why, as a metric label: `ring_full_request`, `shed_response`, `unreadable`, `snaplen`, ...
    pub reason: &'static str,
    /// How many records were lost since the last report.
    pub records: u64,
    /// What that means.
    pub kind: LossKind,
}

/// What a loss means for what is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossKind {
    /// A request head may have been among what was lost: a coverage gap.
    Request,
    /// No request was.
    Other,
    /// Something was left out on purpose, under more load than can be handled, so that more important things are not
    /// lost.
    Shed,
}

/// What a source hands to the pipeline.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Something on a connection.
    Frame(Frame<'a>),
    /// Something was lost before it could be framed.
    Loss(Loss),
    /// Nothing happened, but time has passed: live sources say so at least every 200 ms.
    Tick(Time),
    /// More arrives than is read: the source is about to lose something.
    Pressed(Time),
}

/// Permission for a source to withhold bytes that nobody will read: the rest of a long body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The connection.
    pub socket: SocketId,
    /// Which of its sides.
    pub side: Side,
    /// First sequence number of that side that is wanted again.
    pub skip_until: u32,
}

/// How far a call of [`Source::poll`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Inputs were delivered and there may be more at once.
    More,
    /// Nothing is left right now.
    Idle,
    /// There will never be more: the end of a file.
    End,
}

/// Why a source stopped.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// {what}: {cause}
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not what it claims to be.
    #[error("{file}: {problem}")]
    Format {
        /// The file as the user named it.
        file: String,
        /// What is wrong, with the remedy.
        problem: String,
    },
    /// The kernel refused.
    #[error("{step}: {problem}; {remedy}")]
    Kernel {
        /// What was tried: "attach `cgroup_skb` ingress".
        step: String,
        /// The kernel's answer.
        problem: String,
        /// What the user can do about it.
        remedy: String,
    },
}

/// A live kernel or a capture file.
pub trait Source {
    /// Delivers what there is, in order, waiting at most `wait` for the first input.
    ///
    /// # Errors
    /// When the source cannot go on; malformed packets are counted losses, not errors.
    fn poll(&mut self, wait: Duration, sink: &mut dyn FnMut(Input<'_>)) -> Result<Progress, SourceError>;

    /// Tells the source which bytes nobody will read. File sources ignore it.
    fn grant(&mut self, _grant: Grant) {}
}
