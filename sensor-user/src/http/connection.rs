//! One HTTP/1.1 connection: the states of its two directions, and which response belongs to which request.
//!
//! **Pairing.** Responses come in the order of the requests (RFC 9112 section 9.3). A response is never given to a
//! request that might not be its own: where a loss makes that uncertain, requests stay unanswered.
//! - A response head lost while one request waits leaves that one unanswered; while several wait, all of them, and
//!   the connection stays unpaired until it has been quiet for the exchange timeout: nobody can tell how many
//!   responses were in the hole.
//! - Requests lost leave their neighbours unanswered until the next response has passed.
//!
//! What remains, live and under pressure only: a client that pipelines into a response of which the source has shed the
//! body, and a body that at a segment's start imitates a response.

use std::time::Duration;

use super::chunk::Chunks;
use super::exchange::{Coverage, Suspicions};
use super::exchanges::Exchanges;
use super::work::{MAX_PENDING, MAX_PENDING_BYTES, Pending, Work};
use crate::capture::{Side, Time};
use crate::reassembly::{Chunk, Conversation, View};

/// Where the client's bytes are.
#[derive(Debug, Default)]
pub(super) enum Requests {
    /// At or in a head.
    #[default]
    Head,
    /// In a body of known length.
    Body {
        /// Bytes still to come.
        left: u64,
        /// The client may leave the body out: it waits for 100 (Continue), and no byte has come yet.
        optional: bool,
    },
    /// In a chunked body.
    Chunked(Chunks),
    /// After a gap or nonsense: until a segment begins like a request.
    Lost,
    /// In another protocol, for good.
    Opaque,
}

/// Where the server's bytes are.
#[derive(Debug, Default)]
pub(super) enum Responses {
    /// At or in a head.
    #[default]
    Head,
    /// In a body of known length.
    Body(u64),
    /// In a chunked body.
    Chunked(Chunks),
    /// In bytes of unknown length: until a segment begins like a response while one is due.
    Unknown,
    /// In a body that ends with the connection, or in another protocol.
    ToTheEnd,
}

/// Facts about a connection that outlive its exchanges.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
pub(super) struct Facts {
    /// A request was seen.
    pub(super) productive: bool,
    /// Requests may have been lost since the last exchange: it goes on the next one.
    pub(super) gap: bool,
    /// Requests may have been lost whose responses are still to come.
    pub(super) uncertain: bool,
    /// Responses to several requests were lost: no telling whose the next one is.
    pub(super) unpaired: bool,
}

/// One HTTP/1.1 connection.
#[derive(Debug, Default)]
pub struct Connection {
    pub(super) requests: Requests,
    pub(super) responses: Responses,
    /// Present while there is something to remember.
    pub(super) work: Option<Box<Work>>,
    pub(super) facts: Facts,
    /// Suspicions that belong to the next request, or came too late for the last.
    pub(super) carried: Suspicions,
    /// Requests beyond the queue whose responses are still due.
    pub(super) beyond: u32,
    /// When the server was heard last.
    heard: Time,
}

impl Connection {
    /// Requests whose response is due.
    pub(super) fn due(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.pending.len()) + self.beyond as usize
    }

    /// Queues a request for its response, unless nobody could tell which response that is. Says whether it did.
    pub(super) fn await_response(&mut self, view: View<'_>, pending: Pending, out: &mut Exchanges) -> bool {
        self.give_up(view, pending.head_at, out.limits.exchange_timeout, out);
        if self.facts.unpaired && pending.head_at.since(self.heard) >= out.limits.exchange_timeout {
            self.facts.unpaired = false;
            self.beyond = 0;
        }
        let queue = &mut self.work.get_or_insert_with(|| out.fresh_work()).pending;
        let waiting: usize = queue.iter().map(Pending::weight).sum();
        let full = self.beyond > 0 || queue.len() >= MAX_PENDING || waiting > MAX_PENDING_BYTES;
        if full || self.facts.unpaired || self.facts.uncertain {
            if full {
                out.counters.queue_full += 1;
                self.beyond = self.beyond.saturating_add(1);
            } else {
                out.counters.ambiguous += 1;
            }
            if let Some(exchange) = pending.exchange {
                out.emit(view, exchange, pending.head_at);
            }
            return false;
        }
        queue.push_back(pending);
        true
    }

    /// Hands on, unanswered, what has waited since before `now - patience`. Their turns in the queue remain.
    fn give_up(&mut self, view: View<'_>, now: Time, patience: Duration, out: &mut Exchanges) {
        let Some(work) = self.work.as_mut() else { return };
        if work.pending.back().is_some_and(|last| now.since(last.head_at) >= patience) {
            work.end_body(&out.limits.bodies, &mut out.counters);
        }
        for pending in &mut work.pending {
            if now.since(pending.head_at) < patience {
                break;
            }
            if let Some(exchange) = pending.exchange.take() {
                out.counters.timeouts += 1;
                out.emit(view, exchange, now);
            }
        }
    }

    /// The responses to everything that waits may have passed unseen.
    ///
    /// `pipelined` says that something was sent before an earlier response had ended.
    pub(super) fn lose_responses(&mut self, view: View<'_>, at: Time, pipelined: bool, out: &mut Exchanges) {
        let due = self.due();
        self.responses = Responses::Unknown;
        if due > usize::from(!pipelined) {
            self.facts.unpaired = true;
            out.counters.ambiguous += due as u64;
        }
        self.beyond = 0;
        self.drain(view, at, out);
    }

    /// Hands on everything that waits, unanswered.
    fn drain(&mut self, view: View<'_>, at: Time, out: &mut Exchanges) {
        let Some(work) = self.work.as_mut() else { return };
        work.end_body(&out.limits.bodies, &mut out.counters);
        if let Some(reply) = work.reply.take() {
            out.emit_reply(view, *reply, true);
        }
        for pending in work.pending.drain(..) {
            if let Some(exchange) = pending.exchange {
                out.emit(view, exchange, at);
            }
        }
    }

    /// Hands on the exchange that waits for the body of its answer, if there is one; `cut` says that not all of the body
    /// was seen.
    pub(super) fn end_reply(&mut self, view: View<'_>, cut: bool, out: &mut Exchanges) {
        if let Some(reply) = self.work.as_mut().and_then(|work| work.reply.take()) {
            out.emit_reply(view, *reply, cut);
        }
    }

    /// Notes a suspicion on the exchange whose body is being read, or else on the next one.
    pub(super) fn suspect(&mut self, what: Suspicions) {
        let in_body = matches!(self.requests, Requests::Body { .. } | Requests::Chunked(_));
        let last = self.work.as_mut().and_then(|work| work.pending.back_mut());
        match last.and_then(|pending| pending.exchange.as_mut()) {
            Some(exchange) if in_body => exchange.suspicions.insert(what),
            _ => self.carried.insert(what),
        }
    }

    /// Everything from here on is another protocol.
    pub(super) fn become_opaque(&mut self, out: &mut Exchanges) {
        self.requests = Requests::Opaque;
        self.responses = Responses::ToTheEnd;
        self.end_body(true, out);
        self.drop_asking(out);
    }

    /// Ends the reading of a body, if one is being read; `cut` says that there is more of it.
    pub(super) fn end_body(&mut self, cut: bool, out: &mut Exchanges) {
        let Some(work) = self.work.as_mut() else { return };
        if let Some(reading) = work.reading.as_mut().filter(|_| cut) {
            reading.cut();
        }
        work.end_body(&out.limits.bodies, &mut out.counters);
    }

    /// Whether bytes of the body at hand are wanted.
    fn is_reading(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.reading.is_some())
    }

    /// Forgets the request head that is being read.
    pub(super) fn drop_asking(&mut self, out: &mut Exchanges) {
        if let Some(asking) = self.work.as_mut().and_then(|work| work.asking.take()) {
            out.recycle(asking.exchange);
        }
    }

    /// The head of a response was seen. If nothing waits now, it was to a request that was lost, or to the last one
    /// before the loss. Body bytes prove nothing, nor do gaps: they may belong to the response before.
    pub(super) fn passed_response(&mut self) {
        self.facts.uncertain &= self.due() > 0;
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self, out: &mut Exchanges) {
        if self.work.as_ref().is_some_and(|work| work.is_idle())
            && let Some(work) = self.work.take()
        {
            out.recycle_work(work);
        }
    }
}

impl Conversation for Connection {
    type Out = Exchanges;

    fn bytes(&mut self, view: View<'_>, chunk: Chunk<'_>, out: &mut Exchanges) {
        match chunk.side {
            Side::Request => self.read_requests(view, chunk, out),
            Side::Response => {
                self.read_responses(view, chunk, out);
                self.heard = self.heard.max(chunk.at);
            }
        }
        self.rest(out);
    }

    fn gap(&mut self, view: View<'_>, side: Side, at: Time, len: u64, out: &mut Exchanges) {
        match side {
            Side::Request => self.miss_requests(view, at, len, out),
            Side::Response => {
                self.miss_responses(view, at, len, out);
                self.heard = self.heard.max(at);
            }
        }
        self.rest(out);
    }

    fn conflict(&mut self, _view: View<'_>, _at: Time, _out: &mut Exchanges) {
        self.suspect(Suspicions::CONFLICTING_SEGMENTS);
    }

    fn tick(&mut self, view: View<'_>, now: Time, out: &mut Exchanges) {
        // A response of which the status was seen is an answer, even if the rest of its head never comes.
        self.end_answer(view, now, out);
        self.end_reply(view, true, out);
        // A long upload may leave the connection silent, because its body is not captured.
        let uploading = matches!(self.requests, Requests::Body { .. } | Requests::Chunked(_));
        let patience = out.limits.exchange_timeout * if uploading { 10 } else { 1 };
        self.give_up(view, now, patience, out);
        self.rest(out);
    }

    fn close(&mut self, view: View<'_>, at: Time, out: &mut Exchanges) {
        self.end_answer(view, at, out);
        // Where nothing tells the length of a body, the end of the connection is its end.
        let ended = matches!(self.responses, Responses::ToTheEnd);
        self.end_reply(view, !ended, out);
        self.drain(view, at, out);
        if let Some(asking) = self.work.as_mut().and_then(|work| work.asking.take()) {
            self.end_request(view, at, asking, Coverage::Truncated, out);
            self.drain(view, at, out);
        }
        self.rest(out);
    }

    fn skippable(&self) -> Option<u64> {
        match &self.requests {
            Requests::Body { .. } | Requests::Chunked(_) if self.is_reading() => Some(0),
            Requests::Body { left, optional: false } => Some(*left),
            Requests::Chunked(chunks) => Some(chunks.skippable()),
            Requests::Opaque => Some(u64::MAX),
            Requests::Head | Requests::Body { optional: true, .. } => Some(0),
            Requests::Lost => None,
        }
    }

    fn skippable_response(&self) -> u64 {
        if self.work.as_ref().is_some_and(|work| work.reply.is_some()) {
            return 0;
        }
        match &self.responses {
            Responses::Body(left) => *left,
            Responses::Chunked(chunks) => chunks.skippable(),
            Responses::ToTheEnd => u64::MAX,
            Responses::Head | Responses::Unknown => 0,
        }
    }

    fn waiting(&self) -> bool {
        self.work.as_ref().is_some_and(|work| {
            work.answering.is_some()
                || work.reply.is_some()
                || work.pending.iter().any(|pending| pending.exchange.is_some())
        })
    }

    fn productive(&self) -> bool {
        self.facts.productive
    }

    fn weight(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.weight())
    }

    fn patience(out: &Exchanges) -> Duration {
        out.limits.exchange_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 80, "{}", size_of::<Connection>());
    }
}
