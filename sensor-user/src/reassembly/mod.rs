//! Reassembly: segments in any order in, each direction's bytes in order out, with every gap explicit.
//!
//! **Commit rule.** A segment seen on its way into the server's socket is not yet a segment that the server accepted:
//! checksums, windows and duplicates are judged later. So request bytes are held until the server's TCP has passed
//! them, shown by its `rcv_nxt` or by the acknowledgement in a segment that it sent. What it accepted and we do not
//! hold is a gap of exactly that length. Response bytes are the server's own and need no proof.
//!
//! Sources: RFC 9293 (sequence numbers, acknowledgements), RFC 5961 (which resets count), and Linux' receive queue for
//! the copy that wins when two differ. Not seen: urgent bytes (RFC 6093) are read as part of the stream.

mod flow;
mod held;
mod seq;
mod stream;
mod table;

use std::time::Duration;

pub use flow::Flows;
pub use seq::Seq;

use crate::capture::{Endpoints, Origin, Side, SocketId, Time};

/// The connection that bytes belong to.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its number.
    pub socket: SocketId,
    /// Its ends.
    pub endpoints: &'a Endpoints,
    /// Its place on the host, as far as it is known by now.
    pub origin: &'a Origin,
    /// Whether its beginning was seen: then its first byte is a message's first byte.
    pub from_start: bool,
}

/// Bytes of one direction, next in order.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The direction.
    pub side: Side,
    /// When the bytes were seen; for held bytes that is earlier than now.
    pub at: Time,
    /// The bytes; not empty.
    pub data: &'a [u8],
    /// Whether a segment began with them: the only place to take up a stream again after a gap.
    pub starts_segment: bool,
}

/// What reads the bytes of one connection: a protocol.
///
/// The default value is a conversation of which nothing was seen yet.
pub trait Conversation: Default {
    /// Where its results go.
    type Out;

    /// The next bytes of one direction.
    fn bytes(&mut self, view: View<'_>, chunk: Chunk<'_>, out: &mut Self::Out);

    /// `len` bytes of one direction passed unseen.
    fn gap(&mut self, view: View<'_>, side: Side, at: Time, len: u64, out: &mut Self::Out);

    /// Two copies of a range of the client's bytes differ.
    fn conflict(&mut self, view: View<'_>, at: Time, out: &mut Self::Out);

    /// Time has passed while the conversation was [waiting](Self::waiting).
    fn tick(&mut self, view: View<'_>, now: Time, out: &mut Self::Out);

    /// Nothing more will come.
    fn close(&mut self, view: View<'_>, at: Time, out: &mut Self::Out);

    /// How many of the client's next bytes nobody needs to see; none if it does not care for what follows either.
    fn skippable(&self) -> Option<u64>;

    /// How many of the server's next bytes nobody needs to see.
    fn skippable_response(&self) -> u64;

    /// Whether something is owed that time can run out for.
    fn waiting(&self) -> bool;

    /// Whether it ever produced a result: such flows are evicted last.
    fn productive(&self) -> bool;

    /// Bytes that it keeps beyond its own size. They count against the bound on held bytes.
    fn weight(&self) -> usize;

    /// How long a [waiting](Self::waiting) conversation may stay silent before it is told.
    fn patience(out: &Self::Out) -> Duration;
}

/// Bounds on what reassembly keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Connections known at once. The default is what a busy node holds (a million idle clients), some 250 MB.
    pub max_flows: u32,
    /// Bytes held uncommitted for one connection. The default is four times what a source forwards of a turn.
    pub max_buffered_bytes_per_flow: usize,
    /// Bytes held in all: uncommitted ones, and what conversations keep of unfinished messages.
    pub max_buffered_total: usize,
    /// A connection without any segment for so long is forgotten.
    pub idle_timeout: Duration,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            max_flows: 1 << 20,
            max_buffered_bytes_per_flow: 256 * 1024,
            max_buffered_total: 64 * 1024 * 1024,
            idle_timeout: Duration::from_mins(5),
        }
    }
}

/// What reassembly did, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Connections begun.
    pub opened: u64,
    /// Connections ended by a close, or a reset that counts.
    pub closed: u64,
    /// Connections forgotten after the idle timeout.
    pub expired: u64,
    /// Connections evicted because there were too many.
    pub evicted_flows: u64,
    /// Connections evicted because too many bytes were held in all.
    pub evicted_bytes: u64,
    /// Segments whose bytes found no room.
    pub refused_segments: u64,
    /// Segments outside any window that TCP allows.
    pub out_of_window: u64,
    /// Resets whose sequence number does not fit (RFC 5961 section 3.2).
    pub ignored_resets: u64,
    /// Ranges of which two copies differ.
    pub conflicts: u64,
    /// Bytes of requests that were accepted by the server unseen.
    pub request_gap_bytes: u64,
    /// Bytes of responses that passed unseen; live sources leave out bodies on purpose.
    pub response_gap_bytes: u64,
    /// Bytes taken as accepted without proof, because only one direction was captured.
    pub assumed_bytes: u64,
}

impl FlowCounters {
    /// Each counter with its name as a metric label.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("opened", self.opened),
            ("closed", self.closed),
            ("expired", self.expired),
            ("evicted_flows", self.evicted_flows),
            ("evicted_bytes", self.evicted_bytes),
            ("refused_segments", self.refused_segments),
            ("out_of_window", self.out_of_window),
            ("ignored_resets", self.ignored_resets),
            ("conflicts", self.conflicts),
            ("request_gap_bytes", self.request_gap_bytes),
            ("response_gap_bytes", self.response_gap_bytes),
            ("assumed_bytes", self.assumed_bytes),
        ]
        .into_iter()
    }
}
