//! Where connections put finished exchanges, and where they get buffers: shared by all connections of a pipeline.
//!
//! In steady state nothing is allocated for a request: exchanges come back through [`Exchanges::recycle`] and lend
//! their buffers to the next ones.

use std::collections::VecDeque;
use std::time::Duration;

use ipnet::IpNet;

use super::body::Bodies;
use super::body::issued::Reply;
use super::exchange::{Coverage, Exchange, RequestHead, ResponseHead};
use super::work::Work;
use crate::capture::Time;
use crate::reassembly::View;

/// Bounds and trust of the HTTP stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Longest head that is read; of a longer one the start is kept. The default covers every common server but those
    /// configured for huge cookies (nginx 32 KiB, Node 16 KiB, Tomcat 8 KiB; Go takes 1 MiB).
    pub max_head_bytes: usize,
    /// How long a request waits for its response.
    pub exchange_timeout: Duration,
    /// Peers whose word on the client's address is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Which bodies are read, and what for.
    pub bodies: Bodies,
}

impl Default for HttpLimits {
    fn default() -> Self {
        let exchange_timeout = Duration::from_secs(30);
        Self {
            max_head_bytes: 64 * 1024,
            exchange_timeout,
            trusted_proxies: Vec::new(),
            bodies: Bodies::default(),
        }
    }
}

/// What the HTTP stage did, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpCounters {
    /// Requests whose head was read.
    pub requests: u64,
    /// Requests whose response was never seen, whatever the reason.
    pub unanswered: u64,
    /// Responses to no request that is known.
    pub unpaired_responses: u64,
    /// Requests that waited too long.
    pub timeouts: u64,
    /// Requests beyond the longest queue of one connection.
    pub queue_full: u64,
    /// Requests not paired because a loss made it uncertain which response is whose.
    pub ambiguous: u64,
    /// Heads longer than the limit.
    pub overlong_heads: u64,
    /// Heads that no strict parser takes.
    pub malformed_heads: u64,
    /// Times that a connection's requests were found again after a gap.
    pub resyncs: u64,
    /// Times that bytes stood where a request should and were none.
    pub not_http: u64,
    /// Bodies that were read for what they name.
    pub bodies_read: u64,
    /// Of these, those that were longer than what is kept, or of which bytes were missed.
    pub bodies_cut: u64,
    /// Of these, those that named two accounts where one belongs.
    pub bodies_ambiguous: u64,
    /// Bodies that would have been read but for their encoding.
    pub bodies_unreadable: u64,
    /// Answers that were read for the tokens that they issue.
    pub answers_read: u64,
    /// Of these, those that were longer than what is kept, or of which bytes were missed.
    pub answers_cut: u64,
    /// Of these, those that issued tokens.
    pub answers_issuing: u64,
    /// Answers that would have been read but for their encoding or type.
    pub answers_unreadable: u64,
}

impl HttpCounters {
    /// Each counter with its name as a metric label.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("requests", self.requests),
            ("unanswered", self.unanswered),
            ("unpaired_responses", self.unpaired_responses),
            ("timeouts", self.timeouts),
            ("queue_full", self.queue_full),
            ("ambiguous", self.ambiguous),
            ("overlong_heads", self.overlong_heads),
            ("malformed_heads", self.malformed_heads),
            ("resyncs", self.resyncs),
            ("not_http", self.not_http),
            ("bodies_read", self.bodies_read),
            ("bodies_cut", self.bodies_cut),
            ("bodies_ambiguous", self.bodies_ambiguous),
            ("bodies_unreadable", self.bodies_unreadable),
            ("answers_read", self.answers_read),
            ("answers_cut", self.answers_cut),
            ("answers_issuing", self.answers_issuing),
            ("answers_unreadable", self.answers_unreadable),
        ]
        .into_iter()
    }
}

/// Buffers of heads that grew beyond this are given back to the allocator. Bearer tokens and cookies make heads of
/// 1 to 4 KiB usual.
const KEEP_HEAD_BYTES: usize = 8 * 1024;

/// Exchanges kept for reuse: as many as may be parked for a verdict at one time would be too many; those in flight
/// between two stages are few.
const MAX_SPARE: usize = 256;

/// Finished exchanges, and the buffers for new ones.
#[derive(Debug, Default)]
pub struct Exchanges {
    pub(super) limits: HttpLimits,
    pub(super) counters: HttpCounters,
    ready: VecDeque<Box<Exchange>>,
    #[expect(
        clippy::vec_box,
        reason = "exchanges pass from stage to stage by box; the box is what is reused"
    )]
    spare: Vec<Box<Exchange>>,
    spare_answers: Vec<ResponseHead>,
    #[expect(clippy::vec_box, reason = "connections own their work by box; the box is what is reused")]
    spare_work: Vec<Box<Work>>,
}

impl Exchanges {
    /// Nothing finished yet.
    #[must_use]
    pub fn new(limits: HttpLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The next finished exchange, in the order in which they finished.
    pub fn take(&mut self) -> Option<Box<Exchange>> {
        self.ready.pop_front()
    }

    /// Gives back an exchange whose contents nobody needs any more.
    pub fn recycle(&mut self, mut exchange: Box<Exchange>) {
        if let Some(answer) = exchange.response.take() {
            self.recycle_answer(answer);
        }
        if self.spare.len() < MAX_SPARE {
            exchange.request.bytes.clear();
            exchange.request.bytes.shrink_to(KEEP_HEAD_BYTES);
            self.spare.push(exchange);
        }
    }

    /// What was done since the beginning.
    #[must_use]
    pub fn counters(&self) -> &HttpCounters {
        &self.counters
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    pub(super) fn recycle_answer(&mut self, mut answer: ResponseHead) {
        if self.spare_answers.len() < MAX_SPARE {
            answer.bytes.clear();
            answer.bytes.shrink_to(KEEP_HEAD_BYTES);
            self.spare_answers.push(answer);
        }
    }

    /// An empty exchange for a request whose first byte was seen at `at`.
    pub(super) fn fresh(&mut self, view: View<'_>, at: Time) -> Box<Exchange> {
        let begun = |request| Exchange::begun(at, view.socket, *view.endpoints, *view.origin, request);
        let Some(mut exchange) = self.spare.pop() else {
            return Box::new(begun(RequestHead { minor_version: 1, ..RequestHead::default() }));
        };
        let mut request = std::mem::take(&mut exchange.request);
        request.bytes.clear();
        request.headers.clear();
        *exchange = begun(RequestHead { method: 0..0, target: 0..0, minor_version: 1, ..request });
        exchange
    }

    /// An empty response head.
    pub(super) fn fresh_answer(&mut self) -> ResponseHead {
        let mut answer = self.spare_answers.pop().unwrap_or_default();
        answer.bytes.clear();
        answer.headers.clear();
        answer
    }

    pub(super) fn fresh_work(&mut self) -> Box<Work> {
        self.spare_work.pop().unwrap_or_default()
    }

    /// Takes back what a connection worked with; it must be idle.
    pub(super) fn recycle_work(&mut self, mut work: Box<Work>) {
        if self.spare_work.len() < MAX_SPARE {
            work.reading = None;
            work.shrink();
            self.spare_work.push(work);
        }
    }

    /// Hands on an exchange that has waited for the body of its answer.
    pub(super) fn emit_reply(&mut self, view: View<'_>, reply: Reply, cut: bool) {
        let (exchange, at, long) = reply.end(&self.limits.bodies);
        self.counters.answers_read += 1;
        self.counters.answers_cut += u64::from(cut || long);
        self.counters.answers_issuing += u64::from(exchange.issued().is_some());
        self.emit(view, exchange, at);
    }

    /// Hands a finished exchange on.
    pub(super) fn emit(&mut self, view: View<'_>, mut exchange: Box<Exchange>, at: Time) {
        exchange.ended_at = at;
        exchange.origin = *view.origin;
        if exchange.response.is_none() {
            exchange.coverage = exchange.coverage.max(Coverage::Truncated);
            self.counters.unanswered += 1;
        }
        self.ready.push_back(exchange);
    }
}
