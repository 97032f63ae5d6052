//! Data that arrives before its socket exists.
//!
//! The last segment of a handshake may carry a request already, and with TCP Fast Open (RFC 7413) the first
//! one may. Both show the *listening* socket here; so does data behind a SYN cookie. The record says so, and
//! the agent joins it by addresses and ports to the connection that opens next.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_skb_cgroup_id,
};
use sensor_ebpf::counter::Counter;
use sensor_ebpf::probe::Protocol;
use sensor_ebpf::wire::{FLAG_IPV4, FLAG_LISTENER, FLAG_TURN, Header, KIND_SEGMENT, SIDE_REQUEST, VERSION};

use crate::emit::{self, LARGE, Miss};
use crate::maps::{NETNS_PACKETS, count, fuller_than, shed, watched};
use crate::packet::{self, Packet, RST, SYN};
use crate::request::{end_flags, first_bytes};

/// Forwards the payload of a packet towards a listening socket.
///
/// Anyone can send such packets without a handshake, so they are the first to go when the ring is half full.
#[inline(always)]
pub(crate) fn on_data(skb: *mut __sk_buff) {
    let Some(packet) = packet::parse(skb) else { return };
    if packet.len == 0 || packet.flags & RST != 0 || !watched(packet.to_port) {
        return;
    }
    match first_bytes(skb, &packet) {
        Some(Protocol::Http1) => {}
        Some(_) => return,
        None => return count(Counter::Unreadable, 1),
    }
    if fuller_than(shed::RESPONSES) {
        return count(Counter::RingFullListener, 1);
    }
    let captured = if packet.len > LARGE { LARGE } else { packet.len };
    match emit::record(skb, packet.payload, captured, || header(skb, &packet)) {
        Ok(()) => {}
        Err(Miss::Full) => count(Counter::RingFullListener, 1),
        Err(_) => count(Counter::Unreadable, 1),
    }
}

#[inline(always)]
fn header(skb: *mut __sk_buff, packet: &Packet) -> Header {
    // SAFETY: helpers on the program's own context; the last is behind the flag that says it exists.
    let (boot_ns, cookie, cgroup, netns) = unsafe {
        (
            bpf_ktime_get_boot_ns(),
            bpf_get_socket_cookie(skb.cast()),
            bpf_skb_cgroup_id(skb),
            if NETNS_PACKETS.load() == 0 { 0 } else { bpf_get_netns_cookie(skb.cast()) },
        )
    };
    // SYN takes a sequence number of its own, before the data.
    let syn = u32::from(packet.flags & SYN != 0);
    Header {
        boot_ns,
        cookie,
        cgroup,
        netns,
        client: emit::mapped(packet.from),
        server: emit::mapped(packet.to),
        client_port: packet.from_port,
        server_port: packet.to_port,
        seq: packet.seq.wrapping_add(syn),
        ack: packet.ack,
        rcv_nxt: 0,
        wire_len: packet.len,
        captured: 0,
        pid: 0,
        version: VERSION,
        kind: KIND_SEGMENT,
        side: SIDE_REQUEST,
        flags: FLAG_LISTENER | FLAG_TURN | end_flags(packet) | if packet.v4 { FLAG_IPV4 } else { 0 },
    }
}
