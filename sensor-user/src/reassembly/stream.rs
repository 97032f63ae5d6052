//! One connection's two streams: what was delivered, what is held, and the commit rule between them.

use super::held::{Held, Inserted, NewBytes, Piece, Spare};
use super::seq::Seq;
use super::{Chunk, Conversation, FlowCounters, FlowLimits, View};
use crate::capture::{Endpoints, Grant, Origin, Segment, Side, SocketId, Time};

/// The largest window (RFC 7323 section 2.3): bytes further ahead cannot be acceptable.
const MAX_WINDOW: u32 = 1 << 30;

/// How far behind a live response segment may be and still be a retransmission: twice Linux' largest send buffer by
/// default settings of busy servers. Anything "further behind" is a jump forward of more than 2 GiB: a download that
/// was left out of the capture.
const MAX_REPEAT: u32 = 64 << 20;

/// Below this a source's own credit covers the rest of a body, so that a grant would save nothing.
const GRANT_FROM: u64 = 16 * 1024;

/// A live source forwards 128 KiB of a turn, and as much again after any new grant. Half of that leaves time for the
/// grant to get there.
const RENEW_AFTER: u32 = 64 * 1024;

/// Furthest grant, so that positions stay comparable in 2^32.
const MAX_GRANT: u32 = 1 << 30;

/// What a flow needs from its table while it works.
pub(super) struct Context<'a, C: Conversation> {
    pub(super) id: SocketId,
    pub(super) now: Time,
    pub(super) limits: &'a FlowLimits,
    pub(super) counters: &'a mut FlowCounters,
    pub(super) spare: &'a mut Spare,
    pub(super) out: &'a mut C::Out,
}

/// One direction.
#[derive(Debug, Default)]
struct Stream {
    /// Everything before this was delivered or passed as a gap.
    next: Seq,
    /// Whether `next` means anything yet.
    known: bool,
    /// Where the sender's FIN is, if it was seen: it takes a sequence number without being a byte.
    fin: Option<Seq>,
    /// Bytes at or after `next`; absent rather than empty.
    held: Option<Box<Held>>,
}

impl Stream {
    fn begin(&mut self, at: Seq) {
        if !self.known {
            self.next = at;
            self.known = true;
        }
    }

    fn front(&self) -> Option<Piece> {
        self.held.as_ref().and_then(|held| held.front())
    }

    fn held_end(&self) -> Option<Seq> {
        self.held.as_ref().and_then(|held| held.end())
    }

    fn weight(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.weight())
    }
}

/// What a conversation may know of its connection.
#[derive(Debug)]
pub(super) struct About {
    endpoints: Endpoints,
    pub(super) origin: Origin,
    /// Whether the handshake was told before any byte.
    from_start: bool,
}

impl About {
    fn view(&self, socket: SocketId) -> View<'_> {
        View { socket, endpoints: &self.endpoints, origin: &self.origin, from_start: self.from_start }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Flow<C> {
    pub(super) about: About,
    request: Stream,
    response: Stream,
    /// The grant that was given last.
    granted: Option<Seq>,
    /// The same for the server's bytes.
    granted_response: Option<Seq>,
    /// Where the source's credit was last renewed: by a grant, or by the server's turn.
    renewed: Seq,
    /// Whether the server's acceptance was ever visible.
    proof: bool,
    pub(super) conversation: C,
}

impl<C: Conversation> Default for Flow<C> {
    fn default() -> Self {
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        Self::new(Endpoints { client: nowhere, server: nowhere }, Origin::default())
    }
}

impl<C: Conversation> Flow<C> {
    pub(super) fn new(endpoints: Endpoints, origin: Origin) -> Self {
        Self {
            about: About { endpoints, origin, from_start: false },
            request: Stream::default(),
            response: Stream::default(),
            granted: None,
            granted_response: None,
            renewed: Seq::default(),
            proof: false,
            conversation: C::default(),
        }
    }

    /// Bytes held, and what it costs to know of them.
    pub(super) fn weight(&self) -> usize {
        self.request.weight() + self.response.weight() + self.conversation.weight()
    }

    /// The handshake was seen.
    pub(super) fn open(&mut self, first_seq: Seq) {
        if !self.request.known {
            self.about.from_start = true;
            self.request.begin(first_seq);
            self.renewed = first_seq;
        }
    }

    /// Takes a segment in. Says whether it ends the connection.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, cx: &mut Context<'_, C>) -> bool {
        let seq = Seq(segment.seq);
        let accepted = segment.rcv_nxt.map(Seq);
        match segment.side {
            Side::Request => {
                if !self.request.known {
                    self.request.begin(first_wanted(seq, accepted));
                    self.renewed = self.request.next;
                }
                if let (Some(ack), Some(seen)) = (segment.ack, self.response.held_end()) {
                    // Unproven as this segment is, it may confirm only what the server is known to have sent.
                    self.commit(Side::Response, Seq(ack).earlier(seen), cx);
                }
                self.accept(accepted, cx);
                self.take_request(segment, cx);
            }
            Side::Response => {
                self.accept(accepted.or(segment.ack.map(Seq)), cx);
                self.accept(segment.ack.map(Seq), cx);
                self.take_response(segment, cx);
            }
        }
        if segment.fin {
            self.stream(segment.side).fin = Some(seq.plus(segment.wire_len));
        }
        segment.rst && self.reset_counts(segment, cx)
    }

    /// The connection is over.
    pub(super) fn close(&mut self, rcv_nxt: Option<u32>, cx: &mut Context<'_, C>) {
        if let Some(accepted) = rcv_nxt {
            self.accept(Some(Seq(accepted)), cx);
        } else {
            self.assume(cx);
        }
        if let Some(end) = self.response.held_end() {
            self.commit(Side::Response, end, cx);
        }
        for stream in [&mut self.request, &mut self.response] {
            if let Some(held) = stream.held.take() {
                cx.spare.give(held);
            }
        }
        let view = self.about.view(cx.id);
        self.conversation.close(view, cx.now, cx.out);
    }

    /// Tells the conversation that time has passed.
    pub(super) fn tick(&mut self, cx: &mut Context<'_, C>) {
        let view = self.about.view(cx.id);
        self.conversation.tick(view, cx.now, cx.out);
    }

    /// A grant about the server's bytes, if one is worth giving and was not given yet.
    pub(super) fn grant_response(&mut self, id: SocketId) -> Option<Grant> {
        let skippable = self.conversation.skippable_response();
        if skippable <= GRANT_FROM || !self.response.known {
            return None;
        }
        let next = self.response.next;
        let len = u32::try_from(skippable).unwrap_or(MAX_GRANT).min(MAX_GRANT);
        let left = self.granted_response.and_then(|granted| granted.since(next)).unwrap_or(0);
        if left >= len || (len == MAX_GRANT && left > MAX_GRANT / 2) {
            return None;
        }
        let until = next.plus(len);
        self.granted_response = Some(until);
        Some(Grant { socket: id, side: Side::Response, skip_until: until.0 })
    }

    /// A grant about the client's bytes, if one is worth giving and was not given yet.
    pub(super) fn grant(&mut self, id: SocketId) -> Option<Grant> {
        let skippable = self.conversation.skippable().filter(|_| self.request.known)?;
        let next = self.request.next;
        let until = if skippable > GRANT_FROM {
            let len = u32::try_from(skippable).unwrap_or(MAX_GRANT).min(MAX_GRANT);
            let left = self.granted.and_then(|granted| granted.since(next)).unwrap_or(0);
            if left >= len || (len == MAX_GRANT && left > MAX_GRANT / 2) {
                return None;
            }
            next.plus(len)
        } else if next.since(self.renewed).is_some_and(|used| used >= RENEW_AFTER) {
            next
        } else {
            return None;
        };
        self.granted = Some(until);
        self.renewed = until;
        Some(Grant { socket: id, side: Side::Request, skip_until: until.0 })
    }

    fn stream(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    /// The server has shown that it accepted everything before `upto`.
    fn accept(&mut self, upto: Option<Seq>, cx: &mut Context<'_, C>) {
        let Some(upto) = upto else { return };
        self.proof = true;
        self.request.begin(upto);
        self.commit(Side::Request, upto, cx);
    }

    /// Delivers what is contiguous although nobody has shown that it was accepted.
    fn assume(&mut self, cx: &mut Context<'_, C>) {
        let base = self.request.next;
        let Some(end) = self.request.held.as_ref().map(|held| held.contiguous_end(base)) else { return };
        cx.counters.assumed_bytes += u64::from(end.since(base).unwrap_or(0));
        self.commit(Side::Request, end, cx);
    }

    /// Delivers everything before `upto`, with gaps where nothing is held.
    fn commit(&mut self, side: Side, upto: Seq, cx: &mut Context<'_, C>) {
        let stream = self.stream(side);
        stream.begin(upto);
        let upto = stream.fin.filter(|fin| fin.plus(1) == upto).unwrap_or(upto);
        let Some(mut left) = upto.since(stream.next) else { return };
        while left > 0 {
            let next = self.stream(side).next;
            let front = self.stream(side).front();
            // What the client had received when it sent a segment comes before the segment, and before what was lost in
            // front of it: so a response from before a loss is never taken for one from after it.
            if let (Side::Request, Some(ack)) = (side, front.and_then(|piece| piece.ack)) {
                self.commit(Side::Response, ack, cx);
            }
            let done = match front {
                Some(piece) if piece.seq == next => {
                    let len = piece.len.min(left);
                    self.deliver(side, &piece, len, cx);
                    len
                }
                // One number beyond everything that was seen is the sender's FIN, which need not be captured. If it
                // is a lost byte after all, whatever follows it shows the hole.
                None if left == 1 => return,
                front => {
                    let len = front.and_then(|p| p.seq.since(next)).unwrap_or(left).min(left);
                    self.gap(side, len, cx);
                    len
                }
            };
            left -= done;
        }
    }

    fn deliver(&mut self, side: Side, piece: &Piece, len: u32, cx: &mut Context<'_, C>) {
        let Self { about, request, response, conversation, .. } = self;
        let stream = match side {
            Side::Request => request,
            Side::Response => response,
        };
        let Some(held) = stream.held.as_mut() else { return };
        let view = about.view(cx.id);
        let data = held.bytes(piece, len);
        let chunk = Chunk { side, at: piece.at, data, starts_segment: piece.starts_segment };
        conversation.bytes(view, chunk, cx.out);
        stream.next = stream.next.plus(len);
        held.consume(len);
        if held.is_empty() {
            cx.spare.give(stream.held.take().unwrap_or_default());
        }
    }

    fn gap(&mut self, side: Side, len: u32, cx: &mut Context<'_, C>) {
        let lost = u64::from(len);
        match side {
            Side::Request => cx.counters.request_gap_bytes += lost,
            Side::Response => cx.counters.response_gap_bytes += lost,
        }
        let stream = self.stream(side);
        stream.next = stream.next.plus(len);
        let view = self.about.view(cx.id);
        self.conversation.gap(view, side, cx.now, lost, cx.out);
    }

    fn take_request(&mut self, segment: &Segment<'_>, cx: &mut Context<'_, C>) {
        let Some((seq, bytes)) = beyond(segment, self.request.next) else { return };
        if seq.since(self.request.next).is_none_or(|ahead| ahead > MAX_WINDOW) {
            cx.counters.out_of_window += 1;
            return;
        }
        let new = NewBytes {
            seq,
            bytes,
            at: cx.now,
            ack: segment.ack.map(Seq),
            rcv_nxt: segment.rcv_nxt.map(Seq),
            starts_segment: seq.0 == segment.seq,
        };
        let mut inserted = self.hold(Side::Request, &new, cx);
        if inserted.refused && !self.proof {
            self.assume(cx);
            inserted.refused = self.hold(Side::Request, &new, cx).refused;
        }
        cx.counters.refused_segments += u64::from(inserted.refused);
        if inserted.conflict {
            cx.counters.conflicts += 1;
            let view = self.about.view(cx.id);
            self.conversation.conflict(view, cx.now, cx.out);
        }
    }

    fn take_response(&mut self, segment: &Segment<'_>, cx: &mut Context<'_, C>) {
        if segment.wire_len == 0 {
            return;
        }
        let seq = Seq(segment.seq);
        self.response.begin(seq);
        self.renewed = self.request.next;
        let ahead = seq.0.wrapping_sub(self.response.next.0);
        if segment.in_order && ahead > 0 && ahead < u32::MAX - MAX_REPEAT {
            self.gap(Side::Response, ahead, cx);
        }
        let Some((seq, bytes)) = beyond(segment, self.response.next) else { return };
        if seq != self.response.next {
            let starts_segment = true;
            let new = NewBytes { seq, bytes, at: cx.now, ack: None, rcv_nxt: None, starts_segment };
            if !self.hold(Side::Response, &new, cx).refused {
                return;
            }
            // No room to wait for the hole to fill: what is missing stays missing.
            cx.counters.refused_segments += 1;
            self.commit(Side::Response, seq, cx);
            if self.response.next != seq {
                return;
            }
        }
        self.pass_response(segment, seq, bytes, cx);
    }

    /// Delivers response bytes that are next in order straight from the segment, then what had waited for them.
    fn pass_response(&mut self, segment: &Segment<'_>, seq: Seq, bytes: &[u8], cx: &mut Context<'_, C>) {
        let view = self.about.view(cx.id);
        let starts_segment = seq.0 == segment.seq;
        let chunk = Chunk { side: Side::Response, at: cx.now, data: bytes, starts_segment };
        if !bytes.is_empty() {
            self.conversation.bytes(view, chunk, cx.out);
        }
        self.response.next = seq.plus(u32::try_from(bytes.len()).unwrap_or(0));
        let unseen = Seq(segment.seq).plus(segment.wire_len).since(self.response.next).unwrap_or(0);
        if unseen > 0 {
            self.gap(Side::Response, unseen, cx);
        }
        while let Some(piece) = self.response.front() {
            let Some(passed) = self.response.next.since(piece.seq) else { return };
            if passed == 0 {
                self.deliver(Side::Response, &piece, piece.len, cx);
            } else if let Some(held) = self.response.held.as_mut() {
                held.consume(passed);
                if held.is_empty() {
                    cx.spare.give(self.response.held.take().unwrap_or_default());
                }
            }
        }
    }

    fn hold(&mut self, side: Side, new: &NewBytes<'_>, cx: &mut Context<'_, C>) -> Inserted {
        let stream = match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        };
        let base = stream.next;
        let held = stream.held.get_or_insert_with(|| cx.spare.take());
        let inserted = held.insert(base, new, cx.limits.max_buffered_bytes_per_flow);
        if held.is_empty() {
            cx.spare.give(stream.held.take().unwrap_or_default());
        }
        inserted
    }

    /// Whether a reset is one that the receiver obeys: exactly the next number (RFC 5961 section 3.2).
    fn reset_counts(&mut self, segment: &Segment<'_>, cx: &mut Context<'_, C>) -> bool {
        let seq = Seq(segment.seq);
        let stream = self.stream(segment.side);
        let contiguous = stream.held.as_ref().map_or(stream.next, |held| held.contiguous_end(stream.next));
        let counts = seq == stream.next || seq == contiguous || segment.rcv_nxt == Some(segment.seq);
        if !counts {
            cx.counters.ignored_resets += 1;
        }
        counts
    }
}

/// Where to begin reading a client whose start was missed.
fn first_wanted(seq: Seq, accepted: Option<Seq>) -> Seq {
    // If bytes before this segment are still on their way, they are wanted too. A wild value is not believed.
    let near = |accepted: &Seq| seq.since(*accepted).or(accepted.since(seq)).is_some_and(|d| d < 1 << 20);
    accepted.filter(near).unwrap_or(seq)
}

/// The part of a segment's captured bytes that is not before `next`, unless there is none.
fn beyond<'a>(segment: &Segment<'a>, next: Seq) -> Option<(Seq, &'a [u8])> {
    let seq = Seq(segment.seq);
    let Some(behind) = next.since(seq).filter(|behind| *behind > 0) else {
        return (segment.wire_len > 0).then_some((seq, segment.payload));
    };
    let left = segment.payload.get(behind as usize..).filter(|left| !left.is_empty())?;
    Some((next, left))
}
