//! What a connection needs while it is busy: the heads being read, and the requests waiting for a response.
//!
//! An idle connection has none, which is what makes a million idle connections affordable.

use std::collections::VecDeque;

use super::body::issued::Reply;
use super::body::{Bodies, Reading};
use super::exchange::{Exchange, ResponseHead};
use super::exchanges::HttpCounters;
use super::framing::Kind;
use super::head::EndOfHead;
use crate::capture::Time;

/// Longest queue of unanswered requests. Pipelining clients send tens; nobody needs more than the 100 of the test
/// that every peer fails.
pub(super) const MAX_PENDING: usize = 128;

/// Most bytes of heads that wait in one queue: a hundred usual ones, or four as long as they may be.
pub(super) const MAX_PENDING_BYTES: usize = 256 * 1024;

/// A request that waits for its response.
#[derive(Debug)]
pub(super) struct Pending {
    /// The exchange so far; none if it was handed on unanswered, and only its turn in the queue is left.
    pub(super) exchange: Option<Box<Exchange>>,
    /// When the head's last byte was seen.
    pub(super) head_at: Time,
    /// What decides how the response is framed.
    pub(super) kind: Kind,
}

/// A request head being read.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) exchange: Box<Exchange>,
    pub(super) end: EndOfHead,
    /// Whether the first line is known to be a request's.
    pub(super) plausible: bool,
    /// Whether all of it was read already ([`super::plain`]).
    pub(super) read: bool,
}

/// A response head being read.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) head: ResponseHead,
    pub(super) end: EndOfHead,
    /// When its first byte was seen.
    pub(super) at: Time,
    /// Whether all of it was read already ([`super::plain`]).
    pub(super) read: bool,
}

/// The state of a busy connection.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) asking: Option<Asking>,
    pub(super) answering: Option<Answering>,
    /// At most [`MAX_PENDING`], in the order of the requests.
    pub(super) pending: VecDeque<Pending>,
    /// The body of the last of these, while it is read. Invariant: that one still has its exchange.
    pub(super) reading: Option<Box<Reading>>,
    /// The exchange that waits for the body of its answer.
    pub(super) reply: Option<Box<Reply>>,
}

impl Pending {
    /// Bytes kept for it.
    pub(super) fn weight(&self) -> usize {
        let exchange = self.exchange.as_ref();
        size_of::<Self>() + exchange.map_or(0, |one| size_of::<Exchange>() + one.request.bytes.len())
    }
}

impl Work {
    /// Bytes kept.
    pub(super) fn weight(&self) -> usize {
        let asking = self.asking.as_ref();
        let asking = asking.map_or(0, |asking| size_of::<Exchange>() + asking.exchange.request.bytes.len());
        let answering = self.answering.as_ref().map_or(0, |answering| answering.head.bytes.len());
        let reading = self.reading.as_ref().map_or(0, |reading| reading.weight());
        let reply = self.reply.as_ref().map_or(0, |reply| reply.weight());
        size_of::<Self>()
            + asking
            + answering
            + reading
            + reply
            + self.pending.iter().map(Pending::weight).sum::<usize>()
    }

    /// Ends the reading of a body: what it says goes to its request, the last one that waits.
    pub(super) fn end_body(&mut self, bodies: &Bodies, counters: &mut HttpCounters) {
        let Some(reading) = self.reading.take() else { return };
        let Some(exchange) = self.pending.back_mut().and_then(|pending| pending.exchange.as_mut()) else {
            return;
        };
        let ended = reading.end(bodies, &mut exchange.body);
        counters.bodies_read += 1;
        counters.bodies_cut += u64::from(ended.cut);
        counters.bodies_ambiguous += u64::from(ended.ambiguous);
    }

    /// Gives back what a long queue took.
    pub(super) fn shrink(&mut self) {
        self.pending.shrink_to(MAX_PENDING / 16);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.asking.is_none() && self.answering.is_none() && self.pending.is_empty() && self.reply.is_none()
    }
}
