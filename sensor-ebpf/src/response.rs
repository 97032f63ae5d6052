//! Egress of a server: the heads of responses, and the acknowledgements that commit requests.
//!
//! Runs under the socket's lock, in the order in which TCP first sends the bytes; retransmissions are told by
//! their sequence numbers.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use sensor_ebpf::counter::Counter;
use sensor_ebpf::seq::ahead;
use sensor_ebpf::wire::{FLAG_TURN, FLAG_WHOLE, KIND_SEGMENT};

use crate::emit::{self, LARGE, Method, Miss};
use crate::flow::{
    self, Flow, MARK_BURST, MARK_EMITTED, MODE_DOUBT, MODE_HTTP1, MODE_MUTED, MODE_PROBE, ROLE_CLIENT,
    ROLE_SERVER, ROLE_UNKNOWN, TURN_NONE, TURN_REQUEST, TURN_RESPONSE,
};
use crate::maps::{
    ANSWERS_ON, PID_TRUE, RESPONSE_GRANTS, count, count_bytes, fuller_than, press, shed, watched,
};
use crate::packet::{self, ACK, FIN, Packet, RST};
use crate::request::{end_flags, rcv_nxt, settle};

/// Bytes of a response that are forwarded: status, the headers that matter, and often a short body.
const HEAD: u32 = 512;

/// A segment of this size that starts a response is taken whole: two heads' worth, one small record.
const WHOLE: u32 = 1024;

/// Bytes that are forwarded of a response to POST if the agent wants them: a token response is two to four thousand
/// bytes, and the agent reads no more than this of a body.
const ANSWER: u32 = 8 << 10;

/// Most bytes of one packet that are forwarded.
const MOST: u32 = 128 << 10;

/// `BPF_TCP_LISTEN`.
const LISTEN: u32 = 10;

/// What of a segment is new, and how much of that is wanted.
struct Piece {
    at: u32,
    seq: u32,
    len: u32,
    want: u32,
    turn: bool,
}

/// Judges one packet from a socket.
#[inline(always)]
pub(crate) fn on_egress(skb: *mut __sk_buff) {
    // Verifier: the stacks of nested calls add up to 512 bytes at most, so the second is not called by the first.
    if tokenscope_answer(skb) != 0 {
        tokenscope_whole(skb);
    }
}

/// Forwards what begins a response. 1 if all of the packet should be forwarded, and nothing was.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokenscope_answer(skb: *mut __sk_buff) -> u32 {
    let Some(sk) = flow::socket(skb) else { return 0 };
    // SAFETY: a full socket has the field. SYN-ACKs show the listener here.
    if unsafe { (*sk).state } == LISTEN {
        return 0;
    }
    let Some(flow) = flow::of(sk) else { return 0 };
    if flow.role.get() == ROLE_CLIENT || flow.mode.get() == MODE_MUTED {
        return 0;
    }
    let Some(packet) = packet::parse(skb) else { return 0 };
    if flow.role.get() == ROLE_UNKNOWN && !recognise(skb, flow, &packet) {
        return 0;
    }
    match flow.mode.get() {
        MODE_HTTP1
            if packet.len != 0
                && (flow.marked(MARK_BURST) || answers(flow, &packet))
                && !fuller_than(shed::EXTRAS) =>
        {
            return 1;
        }
        MODE_HTTP1 => return u32::from(respond(skb, sk, flow, &packet)),
        MODE_PROBE => on_early(flow, &packet),
        MODE_DOUBT if ahead(rcv_nxt(sk, 0), flow.first_seq.get()) > 0 => settle(flow),
        _ => {}
    }
    0
}

/// Tells the role of a socket older than the sensor: clients send requests, servers send responses.
#[inline(always)]
fn recognise(skb: *mut __sk_buff, flow: &Flow, packet: &Packet) -> bool {
    if packet.len < 4 {
        return false;
    }
    match packet::load::<[u8; 4]>(skb, packet.payload) {
        Some(start) if Method::of(start).is_some() => {
            flow.assume(ROLE_CLIENT);
            false
        }
        Some(start) if start == *b"HTTP" => {
            flow.assume(ROLE_SERVER);
            flow.mode.set(MODE_HTTP1);
            if !watched(packet.from_port) {
                flow.mute(Counter::MutedPort);
            }
            true
        }
        _ => false,
    }
}

/// A server that speaks before its client does is no HTTP/1 server.
#[inline(always)]
fn on_early(flow: &Flow, packet: &Packet) {
    if packet.len != 0 && flow.turn.get() == TURN_NONE {
        flow.mute(Counter::MutedOpaque);
    }
}

/// Forwards what begins a response, and what commits requests. True if all of the packet should be forwarded, and nothing was.
#[inline(always)]
fn respond(skb: *mut __sk_buff, sk: *mut bpf_sock, flow: &Flow, packet: &Packet) -> bool {
    let before = Said::of(flow);
    let piece = snapshot(skb, flow, packet);
    let len = piece.len;
    let again = tell(skb, sk, flow, packet, &before, piece);
    if again {
        before.put_back(flow);
    } else if len != 0 {
        count_bytes(Counter::ResponseSegments, Counter::ResponseBytes, len);
    }
    again
}

/// Writes the record that a packet is due, if any. True if the packet begins no response, though one should begin.
#[inline(always)]
fn tell(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    flow: &Flow,
    packet: &Packet,
    before: &Said,
    mut piece: Piece,
) -> bool {
    let commits =
        packet.flags & ACK != 0 && flow.ack_owed.get() != 0 && ahead(packet.ack, flow.forwarded.get()) >= 0;
    let ends = packet.flags & (FIN | RST) != 0 && flow.marked(MARK_EMITTED);
    if piece.want == 0 && !commits && !ends {
        return false;
    }
    // A ring that fills up sheds responses first: a request without one is still a request.
    // The acknowledgement stays: without it the request is not judged.
    if fuller_than(shed::RESPONSES) {
        if fuller_than(shed::PRESSED) {
            press();
        }
        if piece.want != 0 && is_spare(skb, flow, &piece) {
            count(Counter::ShedResponse, 1);
            if before.ends_at(packet) && !starts_response(skb, piece.at, piece.len) {
                flow.mark(MARK_BURST);
            }
            piece.want = 0;
            if !commits && !ends {
                return false;
            }
        }
    }
    flow.identify(skb);
    let header = || {
        let mut header = emit::header(flow, packet, false, KIND_SEGMENT);
        emit::accepted(&mut header, acknowledged(sk, packet));
        header.seq = piece.seq;
        header.wire_len = piece.len;
        header.flags |= end_flags(packet) | if piece.turn { FLAG_TURN } else { 0 };
        header
    };
    let asked = piece.want != 0 && before.ends_at(packet);
    let written = emit::record_if(skb, piece.at, piece.want, header, |start| {
        if !asked || (piece.want >= 8 && is_response(start)) {
            return true;
        }
        // The rest of a response that the client did not wait for: the next one may begin where it ends.
        flow.mark(MARK_BURST);
        fuller_than(shed::EXTRAS)
    });
    match written {
        Ok(()) => {
            flow.ack_owed.set(0);
            flow.mark(MARK_EMITTED);
        }
        Err(Miss::Unwanted) => return true,
        Err(_) => count(Counter::RingFullResponse, 1),
    }
    false
}

/// What a flow knew of its server's bytes before this packet.
struct Said {
    turn: u8,
    sent: u32,
    sent_known: u8,
    reply_from: u32,
}

impl Said {
    #[inline(always)]
    fn of(flow: &Flow) -> Self {
        Self {
            turn: flow.turn.get(),
            sent: flow.sent.get(),
            sent_known: flow.sent_known.get(),
            reply_from: flow.reply_from.get(),
        }
    }

    /// Whether a packet with payload follows it, after a request: then a response should begin.
    #[inline(always)]
    fn ends_at(&self, packet: &Packet) -> bool {
        self.turn == TURN_REQUEST
            && packet.len != 0
            && (self.sent_known == 0 || ahead(packet.seq, self.sent) >= 0)
    }

    /// As if the packet had not been looked at.
    #[inline(always)]
    fn put_back(&self, flow: &Flow) {
        flow.turn.set(self.turn);
        flow.sent.set(self.sent);
        flow.sent_known.set(self.sent_known);
        flow.reply_from.set(self.reply_from);
    }
}

/// What the server's TCP has accepted: it says so itself, under its lock, in whatever acknowledges.
#[inline(always)]
fn acknowledged(sk: *mut bpf_sock, packet: &Packet) -> u32 {
    if packet.flags & ACK != 0 { packet.ack } else { rcv_nxt(sk, packet.ack) }
}

/// Whether payload may be shed: unless it begins a failure, or what answers a POST, which may be a login.
#[inline(always)]
fn is_spare(skb: *mut __sk_buff, flow: &Flow, piece: &Piece) -> bool {
    if flow.posts.get() != 0 {
        return false;
    }
    match packet::load::<[u8; 10]>(skb, piece.at) {
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', class]) => matches!(class, b'2' | b'3'),
        Some(_) => true,
        None => !piece.turn,
    }
}

/// Whether a packet with payload is, or may be, among the first [`ANSWER`] bytes of a response to POST that the agent
/// wants.
#[inline(always)]
fn answers(flow: &Flow, packet: &Packet) -> bool {
    ANSWERS_ON.load() != 0
        && flow.posts.get() != 0
        && (flow.turn.get() != TURN_RESPONSE || packet.seq.wrapping_sub(flow.reply_from.get()) < ANSWER)
}

/// Forwards all of a packet but what the agent does not want, or does not want yet. The result says nothing.
///
/// Verifier: a global function is verified once, for any arguments, and not once for every state in which it is called.
/// This one and [`tokenscope_part`] would take 5.10 beyond a million instructions. Each finds everything anew, because
/// only scalars and the context may be passed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokenscope_whole(skb: *mut __sk_buff) -> u32 {
    let Some(sk) = flow::socket(skb) else { return 0 };
    let Some(flow) = flow::existing(sk) else { return 0 };
    let Some(packet) = packet::parse(skb) else { return 0 };
    let mut piece = fresh(flow, &packet);
    let burst = flow.marked(MARK_BURST);
    if piece.len != 0 {
        count_bytes(Counter::ResponseSegments, Counter::ResponseBytes, piece.len);
        if burst {
            pass_granted(flow, &mut piece);
        } else {
            pass_answer(flow, &mut piece);
        }
    }
    let commits =
        packet.flags & ACK != 0 && flow.ack_owed.get() != 0 && ahead(packet.ack, flow.forwarded.get()) >= 0;
    let ends = packet.flags & (FIN | RST) != 0 && flow.marked(MARK_EMITTED);
    if piece.want == 0 && !commits && !ends {
        return 0;
    }
    let mut flags = if burst { FLAG_WHOLE } else { 0 } | if piece.turn { FLAG_TURN } else { 0 };
    for _ in 0..MOST / LARGE {
        if piece.want <= LARGE {
            break;
        }
        if tokenscope_part(skb, piece.at, piece.seq, LARGE, u64::from(LARGE) << 8 | u64::from(flags)) == 0 {
            return 0;
        }
        flags &= !FLAG_TURN;
        piece.at += LARGE;
        piece.seq = piece.seq.wrapping_add(LARGE);
        piece.len -= LARGE;
        piece.want -= LARGE;
    }
    let want = if piece.want > LARGE { LARGE } else { piece.want };
    flags |= end_flags(&packet);
    if tokenscope_part(skb, piece.at, piece.seq, piece.len, u64::from(want) << 8 | u64::from(flags)) != 0 {
        flow.ack_owed.set(0);
        flow.mark(MARK_EMITTED);
    }
    0
}

/// Writes a record with the first bytes of `len` at `at`, whose sequence number is `seq`: how many is in all but the
/// last byte of `want`, the record's flags are in that. 0 if it could not.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokenscope_part(skb: *mut __sk_buff, at: u32, seq: u32, len: u32, want: u64) -> u32 {
    let Some(sk) = flow::socket(skb) else { return 0 };
    let Some(flow) = flow::existing(sk) else { return 0 };
    let Some(packet) = packet::parse(skb) else { return 0 };
    flow.identify(skb);
    let header = || {
        let mut header = emit::header(flow, &packet, false, KIND_SEGMENT);
        emit::accepted(&mut header, acknowledged(sk, &packet));
        header.seq = seq;
        header.wire_len = len;
        header.flags |= want as u8;
        header
    };
    if emit::record(skb, at, (want >> 8) as u32, header).is_err() {
        count(Counter::RingFullResponse, 1);
        return 0;
    }
    1
}

/// What of this segment was never sent before; its turn is begun if the client spoke last.
#[inline(always)]
fn fresh(flow: &Flow, packet: &Packet) -> Piece {
    let mut piece = Piece { at: packet.payload, seq: packet.seq, len: packet.len, want: 0, turn: false };
    if packet.len == 0 || !advance(flow, &mut piece) {
        return piece;
    }
    piece.turn = flow.turn.get() != TURN_RESPONSE;
    if piece.turn {
        flow.turn.set(TURN_RESPONSE);
        if PID_TRUE.load() != 0 {
            // SAFETY: a helper without arguments, which the flag says exists.
            flow.pid.set((unsafe { bpf_get_current_pid_tgid() } >> 32) as u32);
        }
    }
    piece
}

/// What of this segment was never sent before, and how much of it belongs to a head.
#[inline(always)]
fn snapshot(skb: *mut __sk_buff, flow: &Flow, packet: &Packet) -> Piece {
    let mut piece = fresh(flow, packet);
    if piece.len == 0 {
        return piece;
    }
    if piece.turn || starts_response(skb, piece.at, piece.len) {
        flow.reply_from.set(piece.seq);
        piece.want = if piece.len <= WHOLE { piece.len } else { HEAD };
        return piece;
    }
    let used = piece.seq.wrapping_sub(flow.reply_from.get());
    if used < HEAD {
        let left = HEAD - used;
        piece.want = if piece.len < left { piece.len } else { left };
    }
    piece
}

/// Wants of a response to POST what [`ANSWER`] allows.
#[inline(always)]
fn pass_answer(flow: &Flow, piece: &mut Piece) {
    if piece.turn {
        flow.reply_from.set(piece.seq);
    }
    let used = piece.seq.wrapping_sub(flow.reply_from.get());
    if used < ANSWER {
        let left = ANSWER - used;
        piece.want = if piece.len < left { piece.len } else { left };
    }
}

/// Wants all of a segment but what the agent does not.
#[inline(always)]
fn pass_granted(flow: &Flow, piece: &mut Piece) {
    if let Some(grant) = RESPONSE_GRANTS.get_ptr(flow.cookie.get()) {
        // SAFETY: an aligned word of the map; the agent may write it meanwhile.
        let cut = ahead(unsafe { grant.read_volatile() }, piece.seq);
        if cut > 0 {
            let cut = cut.cast_unsigned();
            if cut >= piece.len {
                return;
            }
            piece.at += cut;
            piece.seq = piece.seq.wrapping_add(cut);
            piece.len -= cut;
        }
    }
    piece.want = piece.len;
}

/// Cuts off what was sent before; false if that is all of it.
#[inline(always)]
fn advance(flow: &Flow, piece: &mut Piece) -> bool {
    let end = piece.seq.wrapping_add(piece.len);
    let sent = flow.sent.get();
    if flow.sent_known.get() != 0 {
        let old = ahead(sent, piece.seq);
        if old > 0 {
            let old = old.cast_unsigned();
            if old >= piece.len {
                piece.len = 0;
                return false;
            }
            piece.at += old;
            piece.seq = sent;
            piece.len -= old;
        }
    }
    flow.sent_known.set(1);
    flow.sent.set(end);
    true
}

/// Whether a response line begins here: servers send pipelined responses in segments of their own, or with others.
#[inline(always)]
fn starts_response(skb: *mut __sk_buff, at: u32, len: u32) -> bool {
    len >= 8 && packet::load::<[u8; 7]>(skb, at).is_some_and(|start| start == *b"HTTP/1.")
}

/// The same of eight bytes at `start`, a multiple of 8, which may lie beyond a packet.
#[inline(always)]
fn is_response(start: *const u8) -> bool {
    // SAFETY: as the caller says.
    unsafe { start.cast::<u64>().read() << 8 == u64::from_le_bytes(*b"\0HTTP/1.") }
}
