//! The client's direction: heads, bodies, and finding requests again after a loss.

use super::chunk::{Chunks, Step};
use super::connection::{Connection, Requests};
use super::exchange::{Coverage, Exchange, Suspicions};
use super::exchanges::Exchanges;
use super::framing::{self, Body};
use super::work::{Asking, Pending};
use super::{client, head, plain};
use crate::capture::Time;
use crate::reassembly::{Chunk, View};

/// As far as a method with its blank reaches, and a little more.
const PEEK: usize = 2 * head::MAX_METHOD;

impl Connection {
    pub(super) fn read_requests(&mut self, view: View<'_>, chunk: Chunk<'_>, out: &mut Exchanges) {
        let mut rest = chunk.data;
        while !rest.is_empty() {
            let starts_segment = chunk.starts_segment && rest.len() == chunk.data.len();
            let due = self.due();
            let used = match &mut self.requests {
                Requests::Head => {
                    if starts_segment && !view.from_start && self.reads_a_tail(rest) {
                        self.drop_asking(out);
                    }
                    self.read_head(view, chunk.at, rest, out)
                }
                Requests::Body { left, optional } => {
                    // Answered otherwise than by 100 (Continue), the client may leave the body out.
                    if *optional && starts_segment && due == 0 && head::begins_request_surely(rest) {
                        self.requests = Requests::Head;
                        continue;
                    }
                    *optional = false;
                    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= used as u64;
                    let ended = *left == 0;
                    if ended {
                        self.requests = Requests::Head;
                    }
                    self.read_body(rest.get(..used).unwrap_or_default(), ended, out);
                    used
                }
                Requests::Chunked(_) => self.read_chunks(rest, out),
                Requests::Lost if starts_segment && head::begins_request(rest) => {
                    out.counters.resyncs += u64::from(self.facts.gap);
                    self.requests = Requests::Head;
                    continue;
                }
                Requests::Lost | Requests::Opaque => return,
            };
            rest = rest.get(used.max(1)..).unwrap_or_default();
        }
    }

    /// Whether what is being read as a first head turns out to be the tail of something whose start was missed.
    fn reads_a_tail(&self, next: &[u8]) -> bool {
        let asking = self.work.as_ref().and_then(|work| work.asking.as_ref());
        !self.facts.productive
            && asking.is_some_and(|asking| !asking.plausible)
            && head::begins_request_surely(next)
    }

    /// Bytes of the client passed unseen.
    pub(super) fn miss_requests(&mut self, view: View<'_>, at: Time, len: u64, out: &mut Exchanges) {
        self.end_body(true, out);
        match &mut self.requests {
            Requests::Opaque => return,
            Requests::Body { left, optional } if *left >= len => {
                *optional = false;
                *left -= len;
                if *left == 0 {
                    self.requests = Requests::Head;
                }
                return;
            }
            Requests::Chunked(chunks) if chunks.skippable() >= len => {
                chunks.skip(len);
                return;
            }
            _ => self.requests = Requests::Lost,
        }
        if let Some(asking) = self.work.as_mut().and_then(|work| work.asking.take()) {
            self.end_request(view, at, asking, Coverage::Gap, out);
        }
        self.facts.gap = true;
        self.facts.uncertain = true;
    }

    /// Reads on in a head. The result is how many bytes were used.
    fn read_head(&mut self, view: View<'_>, at: Time, bytes: &[u8], out: &mut Exchanges) -> usize {
        let work = self.work.get_or_insert_with(|| out.fresh_work());
        // Clients may send an empty line between requests (RFC 9112 section 2.2).
        let blank = match work.asking {
            Some(_) => 0,
            None => bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count(),
        };
        let Some(bytes) = bytes.get(blank..).filter(|bytes| !bytes.is_empty()) else { return blank };
        let begins = work.asking.is_none();
        let asking = work.asking.get_or_insert_with(|| Asking {
            exchange: out.fresh(view, at),
            end: head::EndOfHead::default(),
            plausible: false,
            read: false,
        });
        if begins
            && let Some(used) = plain::request(bytes, out.limits.max_head_bytes, &mut asking.exchange.request)
        {
            asking.read = true;
            if let Some(asking) = work.asking.take() {
                self.end_request(view, at, asking, Coverage::Whole, out);
            }
            return blank + used;
        }
        let end = asking.end.feed(bytes);
        let head = &mut asking.exchange.request.bytes;
        let upto = end.unwrap_or(bytes.len());
        let room = out.limits.max_head_bytes.saturating_sub(head.len());
        head.extend_from_slice(bytes.get(..upto.min(room)).unwrap_or_default());
        // Asked while the method is still short, and once more when the line is whole: a long line that comes byte by
        // byte is not looked through again and again.
        let line_ended = !asking.plausible && memchr::memchr(b'\n', bytes).is_some();
        if (line_ended || head.len() <= PEEK) && !asking.plausible && !head::begins_request(head) {
            self.abandon_head(out);
            return blank + bytes.len();
        }
        asking.plausible |= line_ended;
        let coverage = if upto > room { Coverage::Truncated } else { Coverage::Whole };
        if (coverage != Coverage::Whole || end.is_some())
            && let Some(asking) = work.asking.take()
        {
            self.end_request(view, at, asking, coverage, out);
        }
        blank + upto
    }

    /// What stands where a request should is none.
    fn abandon_head(&mut self, out: &mut Exchanges) {
        self.drop_asking(out);
        out.counters.not_http += 1;
        self.facts.gap |= self.facts.productive;
        self.requests = Requests::Lost;
    }

    /// A head is read as far as it ever will be.
    pub(super) fn end_request(
        &mut self,
        view: View<'_>,
        at: Time,
        asking: Asking,
        coverage: Coverage,
        out: &mut Exchanges,
    ) {
        let mut exchange = asking.exchange;
        let known = exchange.suspicions;
        if asking.end.has_bare_line_feed() {
            exchange.suspicions.insert(Suspicions::BARE_CONTROL);
        }
        if !asking.read && !head::read_request(&mut exchange.request, &mut exchange.suspicions) {
            out.recycle(exchange);
            out.counters.not_http += 1;
            self.facts.gap |= self.facts.productive;
            self.requests = Requests::Lost;
            return;
        }
        if exchange.request.method() == b"PRI" && exchange.request.target() == b"*" {
            // The preface of HTTP/2 (RFC 9113 section 3.4).
            out.recycle(exchange);
            out.counters.not_http += 1;
            self.become_opaque(out);
            return;
        }
        out.counters.requests += 1;
        out.counters.malformed_heads += u64::from(exchange.suspicions != known);
        self.facts.productive = true;
        let framing = framing::of_request(&exchange.request, &mut exchange.suspicions);
        self.describe(view, &mut exchange, coverage, out);
        self.requests = match framing.body {
            _ if coverage != Coverage::Whole => {
                out.counters.overlong_heads += u64::from(coverage == Coverage::Truncated);
                self.facts.gap = true;
                Requests::Lost
            }
            Body::Length(left) => Requests::Body { left, optional: framing.expects },
            Body::Chunked => Requests::Chunked(Chunks::default()),
            Body::None | Body::UntilClose => Requests::Head,
        };
        exchange.request_body_bytes = match framing.body {
            Body::Length(bytes) => Some(bytes),
            Body::None if coverage == Coverage::Whole => Some(0),
            _ => None,
        };
        let pending = Pending { exchange: Some(exchange), head_at: at, kind: framing.kind };
        if self.await_response(view, pending, out) && coverage == Coverage::Whole {
            self.begin_body(framing.body, out);
        }
    }

    /// Begins to read the body of the request that was queued last, if somebody wants to know what it says.
    fn begin_body(&mut self, body: Body, out: &mut Exchanges) {
        let Some(work) = self.work.as_mut() else { return };
        let Some(exchange) = work.pending.back_mut().and_then(|last| last.exchange.as_mut()) else { return };
        match super::body::begin(&out.limits.bodies, exchange, body) {
            Ok(reading) => work.reading = reading,
            Err(super::body::Unreadable) => out.counters.bodies_unreadable += 1,
        }
    }

    /// Hands bytes of a body to whom reads it.
    fn read_body(&mut self, bytes: &[u8], ended: bool, out: &mut Exchanges) {
        let Some(reading) = self.work.as_mut().and_then(|work| work.reading.as_mut()) else { return };
        let full = !reading.feed(bytes);
        if ended || full {
            self.end_body(!ended, out);
        }
    }

    fn describe(&mut self, view: View<'_>, exchange: &mut Exchange, coverage: Coverage, out: &Exchanges) {
        let peer = view.endpoints.client.ip();
        exchange.client = client::address(peer, &exchange.request, &out.limits.trusted_proxies);
        exchange.suspicions.insert(std::mem::take(&mut self.carried));
        exchange.coverage = coverage;
        if std::mem::take(&mut self.facts.gap) {
            exchange.coverage = Coverage::Gap;
        }
    }

    /// Reads on in a chunked body. The result is how many bytes were used.
    fn read_chunks(&mut self, bytes: &[u8], out: &mut Exchanges) -> usize {
        let Requests::Chunked(chunks) = &mut self.requests else { return 0 };
        let reading = self.work.as_mut().and_then(|work| work.reading.as_mut());
        let (step, full) = match reading {
            Some(reading) => {
                let mut room = true;
                (chunks.feed_to(bytes, |data| room = reading.feed(data)), !room)
            }
            None => (chunks.feed(bytes), false),
        };
        let (odd, total) = (chunks.is_odd(), chunks.total());
        if odd && step != Step::More {
            self.suspect(Suspicions::BAD_CHUNK);
        }
        if full || step != Step::More {
            self.end_body(!matches!(step, Step::Done(_)), out);
        }
        match step {
            Step::More => bytes.len(),
            Step::Done(used) => {
                let last = self.work.as_mut().and_then(|work| work.pending.back_mut());
                if let Some(exchange) = last.and_then(|pending| pending.exchange.as_mut()) {
                    exchange.request_body_bytes = Some(total);
                }
                self.requests = Requests::Head;
                used
            }
            Step::Broken => {
                self.facts.gap = true;
                self.requests = Requests::Lost;
                bytes.len()
            }
        }
    }
}
