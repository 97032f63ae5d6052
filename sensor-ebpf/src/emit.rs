//! Writing records into the ring: reserve, fill, submit.
//!
//! The verifier wants the size of a reservation to be a constant, so records come in size classes; the agent
//! reads `captured` bytes and ignores the rest. A reservation comes before the copy: a full ring costs none,
//! and a scratch buffer a CPU could be overwritten by a softirq that interrupts egress.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes};
use sensor_ebpf::counter::Counter;
use sensor_ebpf::ends::{BLOCK, Ends};
use sensor_ebpf::wire::{FLAG_IPV4, FLAG_RCV_NXT, HEADER_LEN, Header, VERSION};

use crate::flow::Flow;
use crate::maps::{RECORDS, REQUEST_HEADER, count, count_bytes, wakeup};
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
    let ignore = |_: *const u8| ();
    match len {
        0 => bare(skb, header),
        1..=256 => sized::<256, 0, _>(skb, header, at, len, ignore),
        257..=512 => sized::<512, 0, _>(skb, header, at, len, ignore),
        513..=1024 => sized::<1024, 0, _>(skb, header, at, len, ignore),
        1025..=2048 => sized::<2048, 0, _>(skb, header, at, len, ignore),
        2049..=4096 => sized::<4096, 0, _>(skb, header, at, len, ignore),
        _ => sized::<{ LARGE as usize }, 0, _>(skb, header, at, len, ignore),
    }
}

/// [`record`], for bytes of requests: also counts the ends of heads among them. `known` is what the turn's earlier
/// bytes gave, and the result what it is now: [`ENDS_ONE`], [`ENDS_SEVERAL`] and [`ENDS_FEED`].
#[inline(always)]
pub(crate) fn request(
    skb: *mut __sk_buff,
    header: &Header,
    at: u32,
    len: u32,
    known: u8,
) -> Result<u8, Miss> {
    if len == 0 {
        return bare(skb, header).map(|()| known);
    }
    let Some(scratch) = REQUEST_HEADER.get_ptr_mut(0) else { return Err(Miss::Full) };
    // SAFETY: a value of the map, as large as a header. Ingress runs with softirqs held off, so nobody else on this CPU
    // uses it before the call returns.
    unsafe { scratch.write(*header) };
    match tokenscope_request(skb, at, len, u32::from(known)) {
        FULL => Err(Miss::Full),
        UNREADABLE => Err(Miss::Unreadable),
        ends => Ok(ends as u8),
    }
}

/// [`tokenscope_request`]: no room.
const FULL: u32 = 1 << 8;

/// [`tokenscope_request`]: the packet does not hold what its headers promise.
const UNREADABLE: u32 = 1 << 9;

/// Writes the record of which [`REQUEST_HEADER`] holds the header; the rest as in [`request`].
///
/// Verifier: a global function is verified once, for any arguments, and not once for every state in which it is called
/// (5.6 and later). Its loops would take 5.10 beyond a million instructions.
///
/// Records of the largest size are not searched: their loop would be too long. They count as several heads. Most of
/// them hold the start of a body; where one holds a single long head instead, its responses are forwarded whole, which
/// costs bytes and hides nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokenscope_request(skb: *mut __sk_buff, at: u32, len: u32, known: u32) -> u32 {
    let Some(header) = REQUEST_HEADER.get_ptr(0) else { return FULL };
    // SAFETY: a value of the map, written by the caller.
    let header = unsafe { &*header };
    let known = known as u8;
    let ends = match len {
        0..=256 => sized::<256, BLOCK, _>(skb, header, at, len, |start| ends::<256>(start, known)),
        257..=1024 => sized::<1024, BLOCK, _>(skb, header, at, len, |start| ends::<1024>(start, known)),
        1025..=1536 => sized::<1536, BLOCK, _>(skb, header, at, len, |start| ends::<1536>(start, known)),
        1537..=2048 => sized::<2048, BLOCK, _>(skb, header, at, len, |start| ends::<2048>(start, known)),
        2049..=4096 => sized::<4096, BLOCK, _>(skb, header, at, len, |start| ends::<4096>(start, known)),
        _ => sized::<{ LARGE as usize }, 0, _>(skb, header, at, len, |_| ENDS_SEVERAL),
    };
    match ends {
        Ok(ends) => u32::from(ends),
        Err(Miss::Full) => FULL,
        Err(Miss::Unreadable) => UNREADABLE,
    }
}

/// In what a turn knows of its heads: one has ended.
const ENDS_ONE: u8 = 1;

/// Another has ended.
pub(crate) const ENDS_SEVERAL: u8 = 1 << 1;

/// The last byte was LF.
const ENDS_FEED: u8 = 1 << 7;

/// Counts the ends of heads in the payload at `start`, after which a block of zeros follows. Its length is `captured`
/// of the record's header.
#[inline(always)]
fn ends<const N: usize>(start: *const u8, known: u8) -> u8 {
    let mut ends = Ends {
        one: u64::from(known & ENDS_ONE),
        two: u64::from(known >> 1 & 1),
        feed: u64::from(known & ENDS_FEED),
    };
    // Verifier: what it learns of the length by leaving the loop at each place must not outlive the loop, or it walks
    // the rest of the program once a place. Of memory it knows nothing.
    // SAFETY: the header precedes the payload.
    let len = unsafe { (&raw const (*start.sub(HEADER_LEN).cast::<Header>()).captured).read_volatile() };
    for block in 0..N / BLOCK {
        if (block * BLOCK) as u32 >= len {
            break;
        }
        // SAFETY: the block begins before `len <= N`, and a block follows the N bytes. A payload begins at a
        // multiple of 8, as records and their headers do.
        ends = ends.then(unsafe { start.add(block * BLOCK).cast::<[u64; BLOCK / 8]>().read() });
    }
    // SAFETY: as above.
    let len = unsafe { (&raw const (*start.sub(HEADER_LEN).cast::<Header>()).captured).read_volatile() };
    let last = last_of::<N>(len) as usize;
    // SAFETY: `last` is below N.
    let feed = if unsafe { start.add(last).read() } == b'\n' { ENDS_FEED } else { 0 };
    (ends.one | ends.two << 1) as u8 | feed
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

/// Writes a record of the size class `N`, at least `len`, and lets `look` see its payload, after which `ZEROS` zero
/// bytes follow (none, or a [`BLOCK`]).
#[inline(always)]
fn sized<const N: usize, const ZEROS: usize, R>(
    skb: *mut __sk_buff,
    header: &Header,
    at: u32,
    len: u32,
    look: impl FnOnce(*const u8) -> R,
) -> Result<R, Miss> {
    let mut slot = RECORDS.reserve_bytes(HEADER_LEN + N + ZEROS, 0).ok_or(Miss::Full)?;
    let start = slot.as_mut_ptr();
    let len = last_of::<N>(len) + 1;
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
    if ZEROS != 0 {
        // SAFETY: `len <= N`, and the slot holds N + ZEROS bytes of payload.
        unsafe {
            start.add(HEADER_LEN + len as usize).cast::<[u64; BLOCK / 8]>().write_unaligned([0; BLOCK / 8])
        };
    }
    // SAFETY: the payload lies inside the slot.
    let seen = look(unsafe { start.add(HEADER_LEN) });
    slot.submit(wakeup());
    count_bytes(Counter::Records, Counter::CapturedBytes, len);
    Ok(seen)
}

/// Copies `len` bytes of the packet, from 1 to `N`, which is a power of two.
#[inline(always)]
pub(crate) fn copy<const N: usize>(skb: *mut __sk_buff, at: u32, to: &mut [u8; N], len: u32) -> bool {
    let len = last_of::<N>(len) + 1;
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

/// Where the last of `len` bytes lies in a size class that holds them, for the verifier, which must see 0..N: else "R4 invalid
/// zero-sized read". The compiler would drop a test, and 5.10 forgets what a test said of a copy; of a mask it keeps. A class
/// between two powers of two holds no fewer bytes than the lower one.
#[inline(always)]
fn last_of<const N: usize>(len: u32) -> u32 {
    let least = const { if N.is_power_of_two() { 0 } else { N.next_power_of_two() as u32 / 2 } };
    least + (launder(len.wrapping_sub(1 + least)) & (N as u32 - least - 1))
}

/// Hides from the compiler what it knows of a value, so that it keeps the bounds the verifier asks for.
#[inline(always)]
fn launder(value: u32) -> u32 {
    // SAFETY: a valid reference; reading it is always sound.
    unsafe { core::ptr::read_volatile(&value) }
}
