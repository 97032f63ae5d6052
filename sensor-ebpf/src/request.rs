//! Ingress of a server: which request bytes go to the agent.
//!
//! Runs before TCP has judged the segment, so what passes here may still be refused: bad checksums, bytes out
//! of the window, forgeries. Hence nothing is skipped but what TCP has accepted already (`end <= rcv_nxt`)
//! and what the agent said it does not want; retransmissions that fill a hole go through.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_tcp_sock;
use sensor_ebpf::counter::Counter;
use sensor_ebpf::probe::{self, LOOK, Protocol};
use sensor_ebpf::seq::{MAX_WINDOW, ahead};
use sensor_ebpf::wire::{FLAG_FIN, FLAG_RST, FLAG_TURN, KIND_OPEN, KIND_SEGMENT};

use crate::emit::{self, ENDS_SEVERAL, LARGE, Method, Miss};
use crate::flow::{
    self, Flow, MARK_BURST, MARK_EMITTED, MARK_FIRST, MARK_OPENED, MARK_SKIP, MODE_DOUBT, MODE_HTTP1,
    MODE_MUTED, ROLE_CLIENT, ROLE_SERVER, ROLE_UNKNOWN, TURN_REQUEST,
};
use crate::listener;
use crate::maps::{GRANTS, count, count_bytes, fuller_than, press, shed, watched};
use crate::packet::{self, FIN, Packet, RST, URG};

/// Request bytes that a turn may forward before the agent says more: twice the largest head, so that a head
/// of 64 KiB and a burst of pipelined requests fit. A grant renews it, even one that skips nothing.
const CREDIT: u32 = 128 << 10;

/// Request bytes of a turn that count as head when the ring runs full; later ones are shed first.
const HEAD: u32 = 16 << 10;

/// `BPF_TCP_LISTEN`.
const LISTEN: u32 = 10;

/// A segment of payload that is on its way out, cut down as it goes.
struct Piece {
    at: u32,
    seq: u32,
    len: u32,
    rcv_nxt: u32,
    turn: bool,
}

/// Judges one packet towards a socket.
#[inline(always)]
pub(crate) fn on_ingress(skb: *mut __sk_buff) {
    let Some(sk) = flow::socket(skb) else { return };
    // SAFETY: a full socket has the field.
    if unsafe { (*sk).state } == LISTEN {
        if flow::is_tcp(sk) {
            listener::on_data(skb);
        }
        return;
    }
    let Some(flow) = flow::of(sk) else { return };
    if flow.role.get() == ROLE_CLIENT || flow.mode.get() == MODE_MUTED {
        return;
    }
    let Some(packet) = packet::parse(skb) else { return };
    if packet.len != 0 {
        if flow.role.get() == ROLE_UNKNOWN && !recognise(skb, flow, &packet) {
            return;
        }
        on_payload(skb, sk, flow, &packet);
    } else if packet.flags & (FIN | RST) != 0 || is_owed(sk, flow) {
        on_end(skb, sk, flow, &packet);
    }
}

/// Whether the server has accepted everything that was forwarded and no record says so: the one that should have found no
/// room. What the client acknowledges of the answer is the next chance, and may be the last for long.
#[inline(always)]
fn is_owed(sk: *mut bpf_sock, flow: &Flow) -> bool {
    let forwarded = flow.forwarded.get();
    flow.ack_owed.get() != 0 && ahead(rcv_nxt(sk, forwarded.wrapping_sub(1)), forwarded) >= 0
}

/// Tells the role of a socket older than the sensor: requests arrive at servers, responses at clients.
#[inline(always)]
fn recognise(skb: *mut __sk_buff, flow: &Flow, packet: &Packet) -> bool {
    match packet::load::<[u8; 4]>(skb, packet.payload) {
        Some(start) if Method::of(start).is_some() => {
            flow.assume(ROLE_SERVER);
            flow.mode.set(MODE_HTTP1);
            if !watched(packet.to_port) {
                flow.mute(Counter::MutedPort);
            }
            true
        }
        Some(start) if start == *b"HTTP" => {
            flow.assume(ROLE_CLIENT);
            false
        }
        _ => false,
    }
}

#[inline(always)]
fn on_payload(skb: *mut __sk_buff, sk: *mut bpf_sock, flow: &Flow, packet: &Packet) {
    if flow.mode.get() == MODE_MUTED {
        return;
    }
    count_bytes(Counter::RequestSegments, Counter::RequestBytes, packet.len);
    if packet.flags & URG != 0 {
        count(Counter::Urgent, 1);
    }
    let rcv_nxt = rcv_nxt(sk, packet.seq);
    let end = packet.seq.wrapping_add(packet.len);
    if ahead(end, rcv_nxt) <= 0 {
        return count(Counter::Retransmitted, 1);
    }
    if ahead(packet.seq, rcv_nxt) > MAX_WINDOW {
        return count(Counter::OutOfWindow, 1);
    }
    if flow.mode.get() != MODE_HTTP1 && !admit(skb, flow, packet, rcv_nxt) {
        return;
    }
    let turn = start_turn(flow, rcv_nxt);
    let mut piece = Piece { at: packet.payload, seq: packet.seq, len: packet.len, rcv_nxt, turn };
    flow.identify(skb);
    if trim_granted(flow, &mut piece) && trim_credit(flow, &mut piece) {
        return forward(skb, flow, packet, piece);
    }
    if turn {
        note_method(flow, read_method(skb, packet.payload));
    }
    if packet.flags & (FIN | RST) != 0 {
        on_end(skb, sk, flow, packet);
    }
}

/// What the server's TCP has accepted, or `otherwise`.
#[inline(always)]
pub(crate) fn rcv_nxt(sk: *mut bpf_sock, otherwise: u32) -> u32 {
    // SAFETY: `sk` is a full TCP socket.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    // SAFETY: not null, then a TCP socket's view; read unlocked, hence a lower bound.
    if tcp.is_null() { otherwise } else { unsafe { (*tcp).rcv_nxt } }
}

/// Whether a connection that is not yet known to be HTTP/1 goes on, and in which mode.
///
/// A segment that looks like something else only raises a doubt: it may be a forgery that TCP will refuse, sent
/// to make the sensor look away. Once TCP has accepted the first byte, the doubt is settled, for every copy of
/// that byte came by here.
#[inline(always)]
fn admit(skb: *mut __sk_buff, flow: &Flow, packet: &Packet, rcv_nxt: u32) -> bool {
    let first = flow.first_seq.get();
    let doubted = flow.mode.get() == MODE_DOUBT;
    if doubted && ahead(rcv_nxt, first) > 0 {
        settle(flow);
        return false;
    }
    if packet.seq != first {
        return true;
    }
    let Some(protocol) = first_bytes(skb, packet) else { return false };
    if protocol == Protocol::Http1 {
        flow.mode.set(MODE_HTTP1);
        return true;
    }
    flow.suspect.set(protocol as u8);
    flow.mode.set(MODE_DOUBT);
    false
}

/// Mutes a connection that is what it looked like.
#[inline(always)]
pub(crate) fn settle(flow: &Flow) {
    let suspect = flow.suspect.get();
    flow.mute(if suspect == Protocol::Tls as u8 {
        Counter::MutedTls
    } else if suspect == Protocol::Http2 as u8 {
        Counter::MutedHttp2
    } else {
        Counter::MutedOpaque
    });
}

/// What the first bytes of a segment look like; `None` if they cannot be read.
#[inline(always)]
pub(crate) fn first_bytes(skb: *mut __sk_buff, packet: &Packet) -> Option<Protocol> {
    let mut bytes = [0; LOOK];
    let len = if packet.len as usize >= LOOK { LOOK } else { packet.len as usize };
    if !emit::copy(skb, packet.payload, &mut bytes, len as u32) {
        return None;
    }
    Some(probe::classify(&bytes, len))
}

/// Begins a request turn if the other side, or nobody, spoke last. Its credit counts from the first byte that
/// is due, which an early segment lies beyond.
#[inline(always)]
fn start_turn(flow: &Flow, rcv_nxt: u32) -> bool {
    if flow.turn.get() == TURN_REQUEST {
        return false;
    }
    flow.turn.set(TURN_REQUEST);
    flow.ends.set(0);
    flow.credit_from.set(rcv_nxt);
    true
}

/// Notes whether a turn is a POST. The body that a client sends once it was told to continue begins a turn as well,
/// and is the same request's.
#[inline(always)]
fn note_method(flow: &Flow, method: Option<Method>) {
    if let Some(method) = method {
        flow.posts.set(u8::from(method == Method::Post));
    }
}

/// The method that the bytes at `at` begin with.
#[inline(always)]
fn read_method(skb: *mut __sk_buff, at: u32) -> Option<Method> {
    Method::of(packet::load::<[u8; 4]>(skb, at)?)
}

/// Cuts off what the agent does not want; false if that is all of it.
///
/// The first segment of a turn is not looked up: no body can be known before its head was read.
#[inline(always)]
fn trim_granted(flow: &Flow, piece: &mut Piece) -> bool {
    if !piece.turn {
        refresh_grant(flow, piece.seq);
    }
    if !flow.marked(MARK_SKIP) {
        return true;
    }
    let until = flow.skip_until.get();
    let cut = ahead(until, piece.seq);
    if cut <= 0 {
        if ahead(piece.rcv_nxt, until) >= 0 {
            flow.unmark(MARK_SKIP);
        }
        return true;
    }
    let cut = cut.cast_unsigned();
    if cut >= piece.len {
        count(Counter::GrantedBytes, u64::from(piece.len));
        return false;
    }
    count(Counter::GrantedBytes, u64::from(cut));
    piece.at += cut;
    piece.seq = until;
    piece.len -= cut;
    true
}

/// Takes over a grant that is new: it renews the credit from where the agent wants to read on.
#[inline(always)]
fn refresh_grant(flow: &Flow, seq: u32) {
    let Some(grant) = GRANTS.get_ptr(flow.cookie.get()) else { return };
    // SAFETY: an aligned word of the map; the agent may write it meanwhile.
    let until = unsafe { grant.read_volatile() };
    if until == flow.skip_until.get() {
        return;
    }
    flow.skip_until.set(until);
    flow.mark(MARK_SKIP);
    flow.credit_from.set(if ahead(until, seq) > 0 { until } else { seq });
}

/// Cuts off what exceeds the credit; false if that is all of it.
#[inline(always)]
fn trim_credit(flow: &Flow, piece: &mut Piece) -> bool {
    let used = ahead(piece.seq, flow.credit_from.get());
    let used = if used < 0 { 0 } else { used.cast_unsigned() };
    // Beyond its credit a turn may use what nobody else needs: a grant is probably on its way.
    if used >= CREDIT && fuller_than(shed::EXTRAS) {
        count(Counter::CreditBytes, u64::from(piece.len));
        return false;
    }
    if used >= HEAD && fuller_than(shed::BODIES) {
        count(Counter::ShedBody, 1);
        return false;
    }
    true
}

/// Sends a piece off, in records of at most [`LARGE`] bytes.
#[inline(always)]
fn forward(skb: *mut __sk_buff, flow: &Flow, packet: &Packet, mut piece: Piece) {
    announce(skb, flow, packet);
    let mut known = ends_before(flow, &piece);
    let header = |piece: &Piece, len: u32, flags: u8| {
        let mut header = emit::header(flow, packet, true, KIND_SEGMENT);
        emit::accepted(&mut header, piece.rcv_nxt);
        header.seq = piece.seq;
        header.wire_len = len;
        header.flags |= flags | if piece.turn { FLAG_TURN } else { 0 };
        header
    };
    if piece.turn && piece.len > LARGE {
        note_method(flow, read_method(skb, piece.at));
    }
    // A packet holds 64 KiB, or as much as the credit of BIG TCP.
    for _ in 0..(CREDIT / LARGE) {
        if piece.len <= LARGE {
            break;
        }
        if emit::record(skb, piece.at, LARGE, || header(&piece, LARGE, 0)).is_err() {
            return count(Counter::RingFullRequest, 1);
        }
        known = ENDS_SEVERAL;
        sent(flow, piece.seq.wrapping_add(LARGE));
        piece.turn = false;
        piece.at += LARGE;
        piece.seq = piece.seq.wrapping_add(LARGE);
        piece.len -= LARGE;
    }
    let captured = if piece.len > LARGE { LARGE } else { piece.len };
    let ends = end_flags(packet);
    match emit::request(skb, piece.at, captured, known, || header(&piece, piece.len, ends)) {
        Ok(found) => {
            flow.ends.set(found.ends);
            if found.ends & ENDS_SEVERAL != 0 {
                flow.mark(MARK_BURST);
            }
            if piece.turn {
                note_method(flow, found.method);
            }
            sent(flow, piece.seq.wrapping_add(captured));
        }
        Err(Miss::Full) => {
            if piece.turn {
                note_method(flow, read_method(skb, piece.at));
            }
            press();
            count(Counter::RingFullRequest, 1);
        }
        Err(_) => count(Counter::Unreadable, 1),
    }
}

/// What the turn's earlier bytes say of the ends of its heads. Bytes that do not follow those forwarded before, or that
/// the agent asked for, leave open what is between.
#[inline(always)]
fn ends_before(flow: &Flow, piece: &Piece) -> u8 {
    let follows =
        piece.seq == flow.forwarded.get() || (flow.marked(MARK_SKIP) && piece.seq == flow.skip_until.get());
    if piece.turn || follows { flow.ends.get() } else { ENDS_SEVERAL }
}

/// Remembers that request bytes up to `end` are with the agent, which now waits for their acknowledgement.
#[inline(always)]
fn sent(flow: &Flow, end: u32) {
    if flow.ack_owed.get() == 0 || ahead(end, flow.forwarded.get()) > 0 {
        flow.forwarded.set(end);
    }
    flow.ack_owed.set(1);
    flow.mark(MARK_EMITTED);
}

/// Reports the opening of a connection, just before the first record about it: a scan that never sends a
/// byte costs the ring nothing.
#[inline(always)]
fn announce(skb: *mut __sk_buff, flow: &Flow, packet: &Packet) {
    if !flow.marked(MARK_FIRST) || flow.marked(MARK_OPENED) {
        return;
    }
    flow.mark(MARK_OPENED);
    let mut header = emit::header(flow, packet, true, KIND_OPEN);
    let first = flow.first_seq.get();
    header.seq = first;
    emit::accepted(&mut header, first);
    if emit::bare(skb, &header).is_err() {
        count(Counter::RingFullEvent, 1);
    }
}

/// Reports the client's FIN or RST, behind whatever came with it, if the agent knows the connection; or what is owed.
#[inline(always)]
fn on_end(skb: *mut __sk_buff, sk: *mut bpf_sock, flow: &Flow, packet: &Packet) {
    if !flow.marked(MARK_EMITTED) {
        return;
    }
    let mut header = emit::header(flow, packet, true, KIND_SEGMENT);
    emit::accepted(&mut header, rcv_nxt(sk, packet.seq));
    header.seq = packet.seq.wrapping_add(packet.len);
    header.flags |= end_flags(packet);
    if emit::bare(skb, &header).is_err() {
        return count(Counter::RingFullEvent, 1);
    }
    if ahead(header.rcv_nxt, flow.forwarded.get()) >= 0 {
        flow.ack_owed.set(0);
    }
}

/// FIN and RST as the wire has them.
#[inline(always)]
pub(crate) fn end_flags(packet: &Packet) -> u8 {
    let fin = if packet.flags & FIN != 0 { FLAG_FIN } else { 0 };
    let rst = if packet.flags & RST != 0 { FLAG_RST } else { 0 };
    fin | rst
}
