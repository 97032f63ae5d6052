//! Writing records into the ring: reserve, fill, submit.
//!
//! The verifier wants the size of a reservation to be a constant, so records come in size classes; the agent
//! reads `captured` bytes and ignores the rest. A reservation comes before the copy: a full ring costs none,
//! and a scratch buffer a CPU could be overwritten by a softirq that interrupts egress.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes};
use sensor_ebpf::ends::{BLOCK, Ends};
use sensor_ebpf::wire::{FLAG_IPV4, FLAG_RCV_NXT, HEADER_LEN, Header, VERSION};

use crate::flow::Flow;
use crate::maps::{RECORDS, REQUEST_HEADER, wakeup};
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
    /// Who asked for it did not want it.
    Unwanted,
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

/// An IPv4 address in the packet's order, mapped into IPv6 (RFC 4291 section 2.5.5.2). By words: the compiler would call
/// `memset` for the zeros, which here writes byte by byte.
#[inline(always)]
pub(crate) fn mapped(address: u32) -> [u8; 16] {
    zerocopy::transmute!([0, u64::from(address) << 32 | 0xffff_0000])
}

/// Writes a record with `len` bytes of the packet from `at` on; `len` is at most [`LARGE`].
#[inline(always)]
pub(crate) fn record(
    skb: *mut __sk_buff,
    at: u32,
    len: u32,
    header: impl FnOnce() -> Header,
) -> Result<(), Miss> {
    record_if(skb, at, len, header, |_| true)
}

/// [`record`], unless `keep` does not want it once it sees its payload, of at least eight bytes at a multiple of 8, of which
/// `len` are the packet's.
#[inline(always)]
pub(crate) fn record_if(
    skb: *mut __sk_buff,
    at: u32,
    len: u32,
    header: impl FnOnce() -> Header,
    keep: impl FnOnce(*const u8) -> bool,
) -> Result<(), Miss> {
    let class = match len {
        0 => Class::none(),
        1..=256 => Class::of::<256>(0),
        257..=512 => Class::of::<512>(0),
        513..=1024 => Class::of::<1024>(0),
        1025..=2048 => Class::of::<2048>(0),
        2049..=4096 => Class::of::<4096>(0),
        _ => Class::of::<{ LARGE as usize }>(0),
    };
    write(skb, at, len, class, header, |start| (keep(start), ()))
}

/// What was found in the bytes of a request while they were copied.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// What the turn now knows of its heads: [`ENDS_ONE`], [`ENDS_SEVERAL`] and [`ENDS_FEED`].
    pub(crate) ends: u8,
    /// The method, if the bytes begin with one.
    pub(crate) method: Option<Method>,
}

/// A method, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Post,
    Other,
}

impl Method {
    /// The method that begins a request whose first bytes these are.
    #[inline(always)]
    pub(crate) fn of(start: [u8; 4]) -> Option<Self> {
        match &start {
            b"POST" => Some(Self::Post),
            b"GET " | b"PUT " | b"HEAD" | b"DELE" | b"OPTI" | b"PATC" | b"TRAC" | b"CONN" | b"PROP" => {
                Some(Self::Other)
            }
            _ => None,
        }
    }
}

/// [`record`], for bytes of requests: also tells what is among them. `known` is what the turn's earlier bytes gave.
#[inline(always)]
pub(crate) fn request(
    skb: *mut __sk_buff,
    at: u32,
    len: u32,
    known: u8,
    header: impl FnOnce() -> Header,
) -> Result<Found, Miss> {
    let Some(scratch) = REQUEST_HEADER.get_ptr_mut(0) else { return Err(Miss::Full) };
    // SAFETY: a value of the map, as large as a header. Ingress runs with softirqs held off, so nobody else on this CPU
    // uses it before the call returns.
    unsafe { scratch.write(header()) };
    let found = tokenscope_request(skb, at, len, u32::from(known));
    match found {
        FULL => Err(Miss::Full),
        UNREADABLE => Err(Miss::Unreadable),
        _ if found & POST != 0 => Ok(Found { ends: found as u8, method: Some(Method::Post) }),
        _ if found & METHOD != 0 => Ok(Found { ends: found as u8, method: Some(Method::Other) }),
        _ => Ok(Found { ends: found as u8, method: None }),
    }
}

/// [`tokenscope_request`]: no room.
const FULL: u32 = 1 << 8;

/// [`tokenscope_request`]: the packet does not hold what its headers promise.
const UNREADABLE: u32 = 1 << 9;

/// [`tokenscope_request`]: the bytes begin with a method,
const METHOD: u32 = 1 << 10;

/// which is POST.
const POST: u32 = 1 << 11;

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
    let class = match len {
        0 => return UNREADABLE,
        1..=256 => Class::of::<256>(BLOCK),
        257..=1024 => Class::of::<1024>(BLOCK),
        1025..=1536 => Class::of::<1536>(BLOCK),
        1537..=2048 => Class::of::<2048>(BLOCK),
        2049..=4096 => Class::of::<4096>(BLOCK),
        _ => Class::of::<{ LARGE as usize }>(BLOCK),
    };
    let found = write(
        skb,
        at,
        len,
        class,
        || *header,
        |start| {
            // SAFETY: every class holds at least four bytes, which begin at a multiple of 8.
            let method = match Method::of(unsafe { start.cast::<u32>().read() }.to_ne_bytes()) {
                None => 0,
                Some(Method::Post) => METHOD | POST,
                Some(Method::Other) => METHOD,
            };
            (true, method | u32::from(ends(start, &class, known)))
        },
    );
    match found {
        Ok(found) => found,
        Err(Miss::Full) => FULL,
        Err(Miss::Unreadable | Miss::Unwanted) => UNREADABLE,
    }
}

/// In what a turn knows of its heads: one has ended.
const ENDS_ONE: u8 = 1;

/// Another has ended.
pub(crate) const ENDS_SEVERAL: u8 = 1 << 1;

/// The last byte was LF.
const ENDS_FEED: u8 = 1 << 7;

/// Counts the ends of heads in the payload at `start`, after which zeros follow to the end of its last block. Its length is
/// `captured` of the record's header.
#[inline(always)]
fn ends(start: *const u8, class: &Class, known: u8) -> u8 {
    if class.bytes == u64::from(LARGE) {
        return ENDS_SEVERAL;
    }
    let mut ends = Ends {
        one: u64::from(known & ENDS_ONE),
        two: u64::from(known >> 1 & 1),
        feed: u64::from(known & ENDS_FEED),
    };
    // Verifier: what it learns of the length by leaving the loop at each place must not outlive the loop, or it walks
    // the rest of the program once a place. Of memory it knows nothing.
    // SAFETY: the header precedes the payload.
    let len = unsafe { (&raw const (*start.sub(HEADER_LEN).cast::<Header>()).captured).read_volatile() };
    let mut at = 0;
    while at < class.bytes && at < u64::from(len) {
        // SAFETY: the block begins before `len`, which is at most `class.bytes`, and so many bytes and a block follow. A
        // payload begins at a multiple of 8, as records and their headers do.
        ends = ends.then(unsafe { start.add(at as usize).cast::<[u64; BLOCK / 8]>().read() });
        at += BLOCK as u64;
    }
    // SAFETY: as above.
    let len = unsafe { (&raw const (*start.sub(HEADER_LEN).cast::<Header>()).captured).read_volatile() };
    // SAFETY: the last byte lies below `class.bytes`.
    let feed = if unsafe { start.add(class.last_of(len) as usize).read() } == b'\n' { ENDS_FEED } else { 0 };
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
    Ok(())
}

/// A size of records. The verifier knows each field as a constant, on each path that leads to one; the compiler knows none, so
/// that all sizes share the code that writes them: what runs once a packet finds its instructions in no cache, and the fewer
/// there are the better.
#[derive(Clone, Copy)]
struct Class {
    /// Bytes of payload.
    bytes: u64,
    /// Bytes in the ring, with the header and what follows the payload.
    size: u64,
    /// Payloads are longer than that, unless somebody lies,
    least: u64,
    /// and by at most this, a power of two less one, and one.
    mask: u64,
}

impl Class {
    /// `N` bytes of payload, more than half of them used if `N` lies between powers of two, and `after` them.
    #[inline(always)]
    fn of<const N: usize>(after: usize) -> Self {
        let least = const { if N.is_power_of_two() { 0 } else { N.next_power_of_two() as u64 / 2 } };
        Self {
            bytes: constant(N as u64),
            size: constant((HEADER_LEN + N + after) as u64),
            least: constant(least),
            mask: constant(N as u64 - least - 1),
        }
    }

    /// No payload.
    #[inline(always)]
    fn none() -> Self {
        Self { bytes: constant(0), size: constant(HEADER_LEN as u64), least: constant(0), mask: constant(0) }
    }

    /// Where the last of `len` bytes lies, below `bytes` whatever `len` says, and the verifier sees that: else "R4 invalid
    /// zero-sized read". The compiler would drop a test, and 5.10 forgets what a test said of a copy; of a mask it keeps.
    #[inline(always)]
    fn last_of(&self, len: u32) -> u64 {
        self.least + masked(u64::from(len).wrapping_sub(1 + self.least), self.mask)
    }
}

/// `value`, of which the compiler knows nothing.
#[inline(always)]
fn constant(value: u64) -> u64 {
    let known;
    // SAFETY: sets a register.
    unsafe {
        core::arch::asm!("{known} = {value}", known = lateout(reg) known, value = in(reg) value, options(nomem, nostack))
    };
    known
}

/// `value & mask`, here and nowhere else: what 5.10 knows of a value is lost where the compiler moves it away.
#[inline(always)]
fn masked(value: u64, mask: u64) -> u64 {
    let masked;
    // SAFETY: changes a register.
    unsafe {
        core::arch::asm!("{value} &= {mask}", value = inlateout(reg) value => masked, mask = in(reg) mask, options(nomem, nostack))
    };
    masked
}

/// Writes a record of the size `class`, which holds `len`, and lets `look` see its payload and say whether to keep it. Where
/// the class has room for it zeros follow the payload, to the end of its last [`BLOCK`]. The header is made once there is
/// room, so that none of it has to be put aside.
#[inline(always)]
fn write<R>(
    skb: *mut __sk_buff,
    at: u32,
    len: u32,
    class: Class,
    header: impl FnOnce() -> Header,
    look: impl FnOnce(*const u8) -> (bool, R),
) -> Result<R, Miss> {
    let mut slot = RECORDS.reserve_bytes(class.size as usize, 0).ok_or(Miss::Full)?;
    let start = slot.as_mut_ptr();
    let header = Header { captured: len, ..header() };
    // SAFETY: the slot holds a header, aligned to 8.
    unsafe { start.cast::<Header>().write(header) };
    let copied = if class.bytes == 0 {
        0
    } else {
        let len = class.last_of(len) + 1;
        // SAFETY: `class.bytes` follow the header; with zeros, a block more.
        unsafe {
            if class.size - class.bytes != HEADER_LEN as u64 {
                let zeros = start.add(HEADER_LEN + (len as usize & !7)).cast::<u64>();
                for word in 0..BLOCK / 8 {
                    // Volatile, or the compiler calls `memset`, which here writes byte by byte.
                    zeros.add(word).write_volatile(0);
                }
            }
            bpf_skb_load_bytes(skb.cast(), at, start.add(HEADER_LEN).cast(), len as u32)
        }
    };
    if copied != 0 || !addresses(skb, &header, start) {
        // Verifier: every path must release the slot.
        slot.discard(wakeup());
        return Err(Miss::Unreadable);
    }
    // SAFETY: the payload lies inside the slot.
    let (kept, seen) = look(unsafe { start.add(HEADER_LEN) });
    if !kept {
        slot.discard(wakeup());
        return Err(Miss::Unwanted);
    }
    slot.submit(wakeup());
    Ok(seen)
}

/// Copies `len` bytes of the packet, from 1 to `N`, which is a power of two.
#[inline(always)]
pub(crate) fn copy<const N: usize>(skb: *mut __sk_buff, at: u32, to: &mut [u8; N], len: u32) -> bool {
    let len = masked(u64::from(len).wrapping_sub(1), const { N as u64 - 1 }) + 1;
    // SAFETY: `to` holds N bytes, and `len` is at most that.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, to.as_mut_ptr().cast(), len as u32) == 0 }
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
