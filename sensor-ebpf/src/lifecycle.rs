//! Birth and death of connections (`sock_ops`).
//!
//! Tells the two ends of a connection apart, so that one between local processes is recorded once, at its
//! server. An opening is reported with the first byte (`request::announce`), except when the last segment of
//! the handshake carries data: then the agent holds a record without a socket and waits for this one.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::SockOpsContext;
use sensor_ebpf::counter::Counter;
use sensor_ebpf::wire::{FLAG_IPV4, FLAG_RCV_NXT, Header, KIND_CLOSE, KIND_OPEN, SIDE_REQUEST, VERSION};

use crate::emit;
use crate::flow::{
    self, Flow, MARK_EMITTED, MARK_FIRST, MARK_OPENED, MODE_HTTP1, ROLE_CLIENT, ROLE_SERVER, TURN_REQUEST,
};
use crate::maps::{NETNS_SOCKETS, count, is_round, watched};

/// `AF_INET`.
const AF_INET: u32 = 2;

/// Judges one event of a socket.
#[inline(always)]
pub(crate) fn on_event(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => on_accept(ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => {
            if let Some(flow) = socket(ctx).and_then(flow::of) {
                flow.assume(ROLE_CLIENT);
            }
        }
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => on_close(ctx),
        _ => {}
    }
}

/// The socket of the event.
#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    // SAFETY: a field of the context; the verifier types it as full socket or null.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    (!sk.is_null()).then_some(sk)
}

#[inline(always)]
fn on_accept(ctx: &SockOpsContext) {
    let Some(sk) = socket(ctx) else { return };
    let Some(flow) = flow::of(sk) else {
        if is_round(Counter::NoStorage) {
            aya_log_ebpf::warn!(ctx, "no memory for the state of an accepted connection");
        }
        return;
    };
    flow.assume(ROLE_SERVER);
    if !watched(ctx.local_port() as u16) {
        return flow.mute(Counter::MutedPort);
    }
    // SAFETY: fields of the context and helpers on it; the second helper is behind its flag.
    unsafe {
        flow.first_seq.set((*ctx.ops).rcv_nxt);
        flow.cookie.set(bpf_get_socket_cookie(ctx.ops.cast()));
        if NETNS_SOCKETS.load() != 0 {
            flow.netns.set(bpf_get_netns_cookie(ctx.ops.cast()));
        }
    }
    flow.mark(MARK_FIRST);
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    if brought_data(ctx) {
        flow.mark(MARK_OPENED | MARK_EMITTED);
        flow.mode.set(MODE_HTTP1);
        flow.turn.set(TURN_REQUEST);
        flow.credit_from.set(flow.first_seq.get());
        report(ctx, flow, KIND_OPEN);
    }
}

/// Whether the segment that made the connection carries more than its TCP header.
#[inline(always)]
fn brought_data(ctx: &SockOpsContext) -> bool {
    // SAFETY: fields of the context; `skb_data` points at the TCP header.
    let (start, end, len) = unsafe {
        ((*ctx.ops).__bindgen_anon_3.skb_data, (*ctx.ops).__bindgen_anon_4.skb_data_end, (*ctx.ops).skb_len)
    };
    if start.is_null() || start as usize + 13 > end as usize {
        return false;
    }
    // SAFETY: byte 12 lies before `end`.
    let offset = unsafe { start.cast::<u8>().add(12).read() } >> 4;
    len > u32::from(offset) * 4
}

#[inline(always)]
fn on_close(ctx: &SockOpsContext) {
    let Some(flow) = socket(ctx).and_then(flow::existing) else { return };
    if flow.marked(MARK_EMITTED) {
        report(ctx, flow, KIND_CLOSE);
    }
}

/// Writes a record about the connection itself.
#[inline(always)]
fn report(ctx: &SockOpsContext, flow: &Flow, kind: u8) {
    let v4 = ctx.family() == AF_INET;
    // SAFETY: a field of the context.
    let rcv_nxt = unsafe { (*ctx.ops).rcv_nxt };
    let mut header = Header {
        // SAFETY: a helper without arguments.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        cookie: flow.cookie.get(),
        cgroup: flow.cgroup.get(),
        netns: flow.netns.get(),
        client: [0; 16],
        server: [0; 16],
        client_port: u32::from_be(ctx.remote_port()) as u16,
        server_port: ctx.local_port() as u16,
        seq: flow.first_seq.get(),
        ack: 0,
        rcv_nxt,
        wire_len: 0,
        captured: 0,
        pid: flow.pid.get(),
        version: VERSION,
        kind,
        side: SIDE_REQUEST,
        flags: FLAG_RCV_NXT | if v4 { FLAG_IPV4 } else { 0 },
    };
    if v4 {
        ends_v4(ctx.ops, &mut header)
    } else {
        ends_v6(ctx.ops, &mut header)
    }
    if emit::bare(core::ptr::null_mut(), &header).is_err() {
        count(Counter::RingFullEvent, 1);
    }
}

/// Not inlined: the compiler would merge these reads with those of the other family into one at a computed
/// offset, and the verifier rejects that: "dereference of modified ctx ptr".
#[inline(never)]
fn ends_v4(ops: *mut bpf_sock_ops, header: &mut Header) {
    // SAFETY: fields of the context.
    unsafe {
        header.client = emit::mapped((*ops).remote_ip4);
        header.server = emit::mapped((*ops).local_ip4);
    }
}

/// See [`ends_v4`].
#[inline(never)]
fn ends_v6(ops: *mut bpf_sock_ops, header: &mut Header) {
    // SAFETY: fields of the context, read one by one, as the verifier wants them.
    unsafe {
        header.client = joined([
            (&raw const (*ops).remote_ip6[0]).read_volatile(),
            (&raw const (*ops).remote_ip6[1]).read_volatile(),
            (&raw const (*ops).remote_ip6[2]).read_volatile(),
            (&raw const (*ops).remote_ip6[3]).read_volatile(),
        ]);
        header.server = joined([
            (&raw const (*ops).local_ip6[0]).read_volatile(),
            (&raw const (*ops).local_ip6[1]).read_volatile(),
            (&raw const (*ops).local_ip6[2]).read_volatile(),
            (&raw const (*ops).local_ip6[3]).read_volatile(),
        ]);
    }
}

/// Four words in network order as an address.
#[inline(always)]
fn joined(words: [u32; 4]) -> [u8; 16] {
    zerocopy::transmute!(words)
}
