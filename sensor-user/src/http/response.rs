//! The server's direction: response heads, the bodies between them, and what passes unseen.
//!
//! Live, only the start of a response is captured. The status is what matters; a body that cannot be followed is
//! passed over until a segment begins with the next response.

use super::body::issued::{self, Reply};
use super::chunk::{Chunks, Step};
use super::connection::{Connection, Responses};
use super::exchange::{Coverage, ResponseHead};
use super::exchanges::Exchanges;
use super::framing::{self, Body, Kind};
use super::head::{self, EndOfHead};
use super::plain;
use super::work::{Answering, Pending};
use crate::capture::Time;
use crate::reassembly::{Chunk, View};

/// How every response of HTTP/1 begins.
const START: &[u8] = b"HTTP/1.";

/// Whether bytes begin like a response, as far as there are any.
fn begins_response(bytes: &[u8]) -> bool {
    let len = bytes.len().min(START.len());
    bytes.get(..len) == START.get(..len)
}

impl Connection {
    pub(super) fn read_responses(&mut self, view: View<'_>, chunk: Chunk<'_>, out: &mut Exchanges) {
        let mut rest = chunk.data;
        while !rest.is_empty() {
            let starts_segment = chunk.starts_segment && rest.len() == chunk.data.len();
            let due = self.due();
            let used = match &mut self.responses {
                Responses::Head => self.read_answer(view, chunk.at, rest, out),
                Responses::Body(left) => {
                    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= used as u64;
                    let ended = *left == 0;
                    if ended {
                        self.responses = Responses::Head;
                    }
                    self.read_reply(view, rest.get(..used).unwrap_or_default(), ended, out);
                    used
                }
                Responses::Chunked(_) => self.read_reply_chunks(view, rest, out),
                Responses::Unknown if starts_segment && begins_response(rest) => {
                    if due > 0 {
                        self.responses = Responses::Head;
                        continue;
                    }
                    out.counters.unpaired_responses += 1;
                    self.passed_response();
                    return;
                }
                Responses::ToTheEnd => return self.read_reply(view, rest, false, out),
                Responses::Unknown => return,
            };
            rest = rest.get(used.max(1)..).unwrap_or_default();
        }
    }

    /// Hands bytes of an answer's body to whom reads it.
    fn read_reply(&mut self, view: View<'_>, bytes: &[u8], ended: bool, out: &mut Exchanges) {
        let Some(reply) = self.work.as_mut().and_then(|work| work.reply.as_mut()) else { return };
        if !reply.feed(bytes) || ended {
            self.end_reply(view, !ended, out);
        }
    }

    /// Reads on in a chunked body. The result is how many bytes were used.
    fn read_reply_chunks(&mut self, view: View<'_>, bytes: &[u8], out: &mut Exchanges) -> usize {
        let Responses::Chunked(chunks) = &mut self.responses else { return 0 };
        let reply = self.work.as_mut().and_then(|work| work.reply.as_mut());
        let (step, room) = match reply {
            Some(reply) => reply.feed_chunked(chunks, bytes),
            None => (chunks.feed(bytes), true),
        };
        if !room || step != Step::More {
            self.end_reply(view, !matches!(step, Step::Done(_)), out);
        }
        match step {
            Step::More => bytes.len(),
            Step::Done(used) => {
                self.responses = Responses::Head;
                used
            }
            Step::Broken => {
                self.responses = Responses::Unknown;
                bytes.len()
            }
        }
    }

    /// Bytes of the server passed unseen.
    pub(super) fn miss_responses(&mut self, view: View<'_>, at: Time, len: u64, out: &mut Exchanges) {
        self.end_reply(view, true, out);
        if self.end_answer(view, at, out) {
            // The rest of that head and some of its body are what was missed. Other requests may have been answered
            // in the hole as well.
            self.responses = match self.responses {
                Responses::ToTheEnd => Responses::ToTheEnd,
                _ => Responses::Unknown,
            };
            if self.due() > 0 {
                self.lose_responses(view, at, true, out);
            }
            return;
        }
        match &mut self.responses {
            Responses::Body(left) if *left > len => *left -= len,
            Responses::Body(left) if *left == len => self.responses = Responses::Head,
            Responses::Chunked(chunks) if chunks.skippable() >= len => {
                chunks.skip(len);
            }
            Responses::ToTheEnd => {}
            _ => self.lose_responses(view, at, false, out),
        }
    }

    /// Reads on in a head. The result is how many bytes were used.
    fn read_answer(&mut self, view: View<'_>, at: Time, bytes: &[u8], out: &mut Exchanges) -> usize {
        let work = self.work.get_or_insert_with(|| out.fresh_work());
        let blank = match work.answering {
            Some(_) => 0,
            None => bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count(),
        };
        let Some(bytes) = bytes.get(blank..).filter(|bytes| !bytes.is_empty()) else { return blank };
        let begins = work.answering.is_none();
        let answering = work.answering.get_or_insert_with(|| Answering {
            head: out.fresh_answer(),
            end: EndOfHead::default(),
            at,
            read: false,
        });
        if begins && let Some(used) = plain::response(bytes, out.limits.max_head_bytes, &mut answering.head) {
            answering.read = true;
            if let Some(answering) = work.answering.take() {
                self.answer(view, at, answering, true, out);
            }
            return blank + used;
        }
        let end = answering.end.feed(bytes);
        let upto = end.unwrap_or(bytes.len());
        let head = &mut answering.head.bytes;
        let room = out.limits.max_head_bytes.saturating_sub(head.len());
        head.extend_from_slice(bytes.get(..upto.min(room)).unwrap_or_default());
        if !begins_response(head) {
            self.drop_answer(out);
            self.responses = Responses::Unknown;
            return blank + bytes.len();
        }
        if upto > room {
            self.end_answer(view, at, out);
        } else if end.is_some()
            && let Some(answering) = work.answering.take()
        {
            self.answer(view, at, answering, true, out);
        }
        blank + upto
    }

    /// Takes the response head that is being read as it is: no more of it will come. Says whether there was one.
    pub(super) fn end_answer(&mut self, view: View<'_>, at: Time, out: &mut Exchanges) -> bool {
        let Some(answering) = self.work.as_mut().and_then(|work| work.answering.take()) else { return false };
        self.answer(view, at, answering, false, out)
    }

    fn drop_answer(&mut self, out: &mut Exchanges) {
        if let Some(answering) = self.work.as_mut().and_then(|work| work.answering.take()) {
            out.recycle_answer(answering.head);
        }
    }

    /// A response head is read: gives it to the request that it answers. Says whether it could be read.
    fn answer(
        &mut self,
        view: View<'_>,
        at: Time,
        answering: Answering,
        whole: bool,
        out: &mut Exchanges,
    ) -> bool {
        let Answering { mut head, at: first_at, read, .. } = answering;
        if !read && !head::read_response(&mut head) {
            out.recycle_answer(head);
            self.responses = Responses::Unknown;
            return false;
        }
        if head.status < 200 && head.status != 101 {
            // Interim responses announce the final one (RFC 9110 section 15.2).
            out.recycle_answer(head);
            if !whole {
                self.responses = Responses::Unknown;
            }
            return true;
        }
        let owner = self.owner(view, first_at, out);
        let kind = owner.as_ref().map(|pending| pending.kind);
        let body = framing::of_response(&head, kind.unwrap_or(Kind::Other));
        self.follow(head.status, body, kind, whole, out);
        if let Some(pending) = owner {
            self.complete(view, at, pending, (head, body), (first_at, whole), out);
        } else {
            out.counters.unpaired_responses += 1;
            out.recycle_answer(head);
        }
        self.passed_response();
        true
    }

    /// Which request the response at hand answers.
    fn owner(&mut self, view: View<'_>, at: Time, out: &mut Exchanges) -> Option<Pending> {
        let work = self.work.as_mut()?;
        if work.pending.len() == 1 {
            // Its body, if that is still being read, is the last one's. Whoever answers has read enough of it.
            if let Some(reading) = work.reading.as_mut() {
                reading.cut();
            }
            work.end_body(&out.limits.bodies, &mut out.counters);
        }
        if let Some(pending) = work.pending.pop_front() {
            return Some(pending);
        }
        if self.beyond > 0 {
            self.beyond -= 1;
            return None;
        }
        // The server answers a request whose head has not ended for us: it gave up on it, or reads it otherwise.
        let asking = work.asking.take()?;
        self.end_request(view, at, asking, Coverage::Truncated, out);
        self.work.as_mut()?.pending.pop_front()
    }

    /// Decides how the bytes after a response head are read. `kind` is none if the request is not known.
    fn follow(&mut self, status: u16, body: Body, kind: Option<Kind>, whole: bool, out: &mut Exchanges) {
        let tunnel = kind == Some(Kind::Connect) && (200..300).contains(&status);
        if status == 101 || tunnel {
            self.become_opaque(out);
            return;
        }
        self.responses = match body {
            _ if !whole => Responses::Unknown,
            Body::None | Body::Length(0) => Responses::Head,
            // Without the request nobody knows whether a body follows: it may have been HEAD.
            Body::Length(_) | Body::Chunked if kind.is_none() => Responses::Unknown,
            Body::Length(left) => Responses::Body(left),
            Body::Chunked => Responses::Chunked(Chunks::default()),
            Body::UntilClose => Responses::ToTheEnd,
        };
    }

    /// Hands on an exchange with its response, unless it is to wait for the body.
    fn complete(
        &mut self,
        view: View<'_>,
        at: Time,
        pending: Pending,
        (head, body): (ResponseHead, Body),
        (first_at, whole): (Time, bool),
        out: &mut Exchanges,
    ) {
        let Some(mut exchange) = pending.exchange else {
            out.recycle_answer(head);
            return;
        };
        exchange.latency = Some(first_at.since(pending.head_at));
        exchange.response_body_bytes = match body {
            Body::Length(bytes) => Some(bytes),
            Body::None => Some(0),
            Body::Chunked | Body::UntilClose => None,
        };
        if !whole {
            exchange.coverage = exchange.coverage.max(Coverage::Truncated);
        }
        exchange.response = Some(head);
        match issued::room(&out.limits.bodies, &exchange, body) {
            Ok(Some(room)) if whole => {
                let reply = Box::new(Reply::new(exchange, at, room));
                self.work.get_or_insert_with(|| out.fresh_work()).reply = Some(reply);
            }
            read => {
                out.counters.answers_unreadable += u64::from(read.is_err());
                out.emit(view, exchange, at);
            }
        }
    }
}
