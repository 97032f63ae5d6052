//! Writing records into the ring: reserve, fill, submit.
//!
//! The verifier wants the size of a reservation to be a constant, so records come in size classes; the agent
//! reads `captured` bytes and ignores the rest. A reservation comes before the copy: a full ring costs none,
//! and a scratch buffer a CPU could be overwritten by a softirq that interrupts egress.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes};
use sensor_ebpf::counter::Counter;
use sensor_ebpf::wire::{FLAG_IPV4, FLAG_RCV_NXT, HEADER_LEN, Header, VERSION};

use crate::flow::Flow;
use crate::maps::{RECORDS, count, count_bytes, wakeup};
use crate::packet::Packet;

/// Payload of the largest record.
pub(crate) const LARGE: u32 = 16 << 10;

/// Why nothing was written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// No room.
    Full,
    /// The packet does not hold what its headers promise.
    Unreadable,
}

/// The header of a record about `packet`, which went to the server if `request`.
#[inline(always)]
pub(crate) fn header(flow: &Flow, packet: &Packet, request: bool, kind: u8) -> Header {
    let (client_port, server_port, client, server) = if request {
        (packet.from_port, packet.to_port, packet.from, packet.to)
    } else {
        (packet.to_port, packet.from_port, packet.to, packet.from)
    };
    Header {
        // SAFETY: a helper without arguments.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        cookie: flow.cookie.get(),
        cgroup: flow.cgroup.get(),
        netns: flow.netns.get(),
        client: mapped(client),
        server: mapped(server),
        client_port,
        server_port,
        seq: packet.seq,
        ack: packet.ack,
        rcv_nxt: 0,
        wire_len: 0,
        captured: 0,
        pid: flow.pid.get(),
        version: VERSION,
        kind,
        side: u8::from(!request),
        flags: if packet.v4 { FLAG_IPV4 } else { 0 },
    }
}

/// Notes what the server's TCP had accepted.
#[inline(always)]
pub(crate) fn accepted(header: &mut Header, rcv_nxt: u32) {
    header.rcv_nxt = rcv_nxt;
    header.flags |= FLAG_RCV_NXT;
}

/// An IPv4 address in the packet's order, mapped into IPv6 (RFC 4291 section 2.5.5.2).
#[inline(always)]
pub(crate) fn mapped(address: u32) -> [u8; 16] {
    let [a, b, c, d] = address.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Writes a record with `len` bytes of the packet from `at` on; `len` is at most [`LARGE`].
#[inline(always)]
pub(crate) fn record(skb: *mut __sk_buff, header: &Header, at: u32, len: u32) -> Result<(), Miss> {
    match len {
        0 => bare(skb, header),
        1..=256 => sized::<256>(skb, header, at, len),
        257..=1024 => sized::<1024>(skb, header, at, len),
        1025..=2048 => sized::<2048>(skb, header, at, len),
        2049..=4096 => sized::<4096>(skb, header, at, len),
        _ => sized::<{ LARGE as usize }>(skb, header, at, len),
    }
}

/// Writes a record without payload. `skb` may be null when the header holds its addresses already.
#[inline(always)]
pub(crate) fn bare(skb: *mut __sk_buff, header: &Header) -> Result<(), Miss> {
    let slot = RECORDS.reserve_bytes(HEADER_LEN, 0).ok_or(Miss::Full)?;
    let start = slot.as_ptr().cast_mut();
    // SAFETY: the slot holds a header and is aligned to 8.
    unsafe { start.cast::<Header>().write(*header) };
    if !addresses(skb, header, start) {
        slot.discard(wakeup());
        return Err(Miss::Unreadable);
    }
    slot.submit(wakeup());
    count(Counter::Records, 1);
    Ok(())
}

/// Writes a record of the size class `N`, a power of two.
#[inline(always)]
fn sized<const N: usize>(skb: *mut __sk_buff, header: &Header, at: u32, len: u32) -> Result<(), Miss> {
    let mut slot = RECORDS.reserve_bytes(HEADER_LEN + N, 0).ok_or(Miss::Full)?;
    let start = slot.as_mut_ptr();
    // Verifier: it must see 1..=N here, else "R4 invalid zero-sized read"; the compiler would drop a test.
    let len = (launder(len.wrapping_sub(1)) & (N as u32 - 1)) + 1;
    // SAFETY: the slot holds a header, aligned to 8, and N bytes after it.
    let copied = unsafe {
        start.cast::<Header>().write(*header);
        (*start.cast::<Header>()).captured = len;
        bpf_skb_load_bytes(skb.cast(), at, start.add(HEADER_LEN).cast(), len)
    };
    if copied != 0 || !addresses(skb, header, start) {
        // Verifier: every path must release the slot.
        slot.discard(wakeup());
        return Err(Miss::Unreadable);
    }
    slot.submit(wakeup());
    count_bytes(Counter::Records, Counter::CapturedBytes, len);
    Ok(())
}

/// Copies `len` bytes of the packet, from 1 to `N`, which is a power of two.
#[inline(always)]
pub(crate) fn copy<const N: usize>(skb: *mut __sk_buff, at: u32, to: &mut [u8; N], len: u32) -> bool {
    let len = (launder(len.wrapping_sub(1)) & (N as u32 - 1)) + 1;
    // SAFETY: `to` holds N bytes, and `len` is at most that.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, to.as_mut_ptr().cast(), len) == 0 }
}

/// Fills in the addresses of an IPv6 packet, straight from it: they are too long to carry along.
#[inline(always)]
fn addresses(skb: *mut __sk_buff, header: &Header, record: *mut u8) -> bool {
    if header.flags & FLAG_IPV4 != 0 || skb.is_null() {
        return true;
    }
    let client = core::mem::offset_of!(Header, client);
    let server = core::mem::offset_of!(Header, server);
    let (source, destination) = if header.side == 0 { (client, server) } else { (server, client) };
    // SAFETY: both fields lie inside the record and take 16 bytes, as do the addresses at 8 and 24.
    unsafe {
        bpf_skb_load_bytes(skb.cast(), 8, record.add(source).cast(), 16) == 0
            && bpf_skb_load_bytes(skb.cast(), 24, record.add(destination).cast(), 16) == 0
    }
}

/// Hides from the compiler what it knows of a value, so that it keeps the bounds the verifier asks for.
#[inline(always)]
fn launder(value: u32) -> u32 {
    // SAFETY: a valid reference; reading it is always sound.
    unsafe { core::ptr::read_volatile(&value) }
}
