//! IPv4 (RFC 791), IPv6 (RFC 8200) and TCP (RFC 9293) headers, as far as the socket layer needs them.
//!
//! A packet at the socket starts with its IP header. Lengths come from the packet buffer and not from the IP
//! header, which says 0 for BIG TCP. Fragments were put together before, or are not yet cut.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use sensor_ebpf::counter::Counter;

use crate::maps::count;

/// TCP flag bits, in the order of the header's 14th byte.
pub(crate) const FIN: u8 = 1;
/// Synchronise sequence numbers.
pub(crate) const SYN: u8 = 1 << 1;
/// Reset.
pub(crate) const RST: u8 = 1 << 2;
/// The acknowledgement number counts.
pub(crate) const ACK: u8 = 1 << 4;
/// The urgent pointer counts.
pub(crate) const URG: u8 = 1 << 5;

/// Extension headers that are followed. RFC 8200 section 4.1 recommends each at most once, six in all.
const MAX_EXTENSIONS: u32 = 6;

/// What the headers of one TCP segment say.
pub(crate) struct Packet {
    /// Where the payload starts.
    pub(crate) payload: u32,
    /// Payload bytes.
    pub(crate) len: u32,
    /// Sequence number of the first byte.
    pub(crate) seq: u32,
    /// Acknowledgement number.
    pub(crate) ack: u32,
    /// Source port, host order.
    pub(crate) from_port: u16,
    /// Destination port, host order.
    pub(crate) to_port: u16,
    /// Source address if IPv4, in the packet's order.
    pub(crate) from: u32,
    /// Destination address if IPv4, in the packet's order.
    pub(crate) to: u32,
    /// TCP flags.
    pub(crate) flags: u8,
    /// Whether it is IPv4; addresses of IPv6 are read when they are needed.
    pub(crate) v4: bool,
}

/// Reads a `T` of plain integers at `at`.
#[inline(always)]
pub(crate) fn load<T: Copy>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the buffer is as long as the length says; the helper fills it wholly or fails.
    let failed =
        unsafe { bpf_skb_load_bytes(skb.cast(), at, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
    // SAFETY: filled, and any bytes make a valid `T`, for `T` is used with integers only.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// Parses the headers of a packet of a TCP socket; counts what it cannot follow.
#[inline(always)]
pub(crate) fn parse(skb: *mut __sk_buff) -> Option<Packet> {
    let packet = try_parse(skb);
    if packet.is_none() {
        count(Counter::Headers, 1);
    }
    packet
}

/// The first ten words of the packet, straight from its buffer where they lie in one piece, as headers mostly do: a call of
/// a helper costs more than all of this.
#[inline(always)]
fn start(skb: *mut __sk_buff) -> Option<[u32; 10]> {
    // SAFETY: fields of the context, which the verifier types as pointers.
    let (data, end) = unsafe { ((*skb).data as usize as *const u8, (*skb).data_end as usize as *const u8) };
    if data.wrapping_add(40) > end {
        return load(skb, 0);
    }
    Some([
        word::<0>(data),
        word::<4>(data),
        word::<8>(data),
        word::<12>(data),
        word::<16>(data),
        word::<20>(data),
        word::<24>(data),
        word::<28>(data),
        word::<32>(data),
        word::<36>(data),
    ])
}

/// The word at `data + AT`, which need not be aligned: by hand, for of such a word the compiler reads each byte.
#[inline(always)]
fn word<const AT: i16>(data: *const u8) -> u32 {
    let word: u64;
    // SAFETY: reads what the caller has compared with the end of the packet, as the verifier checks.
    unsafe {
        core::arch::asm!("{word} = *(u32 *)({data} + {at})", word = lateout(reg) word, data = in(reg) data, at = const AT, options(nostack, readonly, pure));
    }
    word as u32
}

#[inline(always)]
fn try_parse(skb: *mut __sk_buff) -> Option<Packet> {
    // Both families have at least 40 bytes: 20 + 20 of IPv4 and TCP, or the fixed header of IPv6.
    let words = start(skb)?;
    match words[0] >> 4 & 0xf {
        4 => {
            let header = (words[0] & 0xf) * 4;
            let tcp =
                if header == 20 { [words[5], words[6], words[7], words[8]] } else { load(skb, header)? };
            segment(skb, header, tcp, (words[3], words[4]), true)
        }
        6 => {
            let at = transport(skb, words[1] >> 16 & 0xff)?;
            segment(skb, at, load(skb, at)?, (0, 0), false)
        }
        _ => None,
    }
}

#[inline(always)]
fn segment(skb: *mut __sk_buff, at: u32, tcp: [u32; 4], ends: (u32, u32), v4: bool) -> Option<Packet> {
    let payload = at + (tcp[3] >> 4 & 0xf) * 4;
    // SAFETY: a field of the context.
    let len = unsafe { (*skb).len }.checked_sub(payload)?;
    Some(Packet {
        payload,
        len,
        seq: u32::from_be(tcp[1]),
        ack: u32::from_be(tcp[2]),
        from_port: u16::from_be(tcp[0] as u16),
        to_port: u16::from_be((tcp[0] >> 16) as u16),
        from: ends.0,
        to: ends.1,
        flags: (tcp[3] >> 8) as u8,
        v4,
    })
}

/// Where TCP starts in an IPv6 packet whose fixed header names `next`.
#[inline(always)]
fn transport(skb: *mut __sk_buff, mut next: u32) -> Option<u32> {
    const TCP: u32 = 6;
    const HOP_BY_HOP: u32 = 0;
    const ROUTING: u32 = 43;
    const FRAGMENT: u32 = 44;
    const AUTHENTICATION: u32 = 51;
    const DESTINATION: u32 = 60;
    let mut at: u32 = 40;
    for _ in 0..=MAX_EXTENSIONS {
        if next == TCP {
            return Some(at);
        }
        let extension: [u8; 2] = load(skb, at)?;
        let units = u32::from(extension[1]);
        at += match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (units + 1) * 8,
            FRAGMENT => 8,
            AUTHENTICATION => (units + 2) * 4,
            _ => return None,
        };
        next = u32::from(extension[0]);
    }
    None
}
