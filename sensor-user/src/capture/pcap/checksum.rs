//! TCP checksums (RFC 9293 section 3.1): telling decoys, which no receiver accepts, from captures in which the network
//! card computes checksums after the packet was captured.

use super::packet::Packet;

/// What a segment's checksum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    /// It is right.
    Right,
    /// It is the sum of the pseudo-header alone: to be finished by hardware, or merged on reception (GRO). Says nothing.
    Partial,
    /// It is wrong.
    Wrong,
    /// Not all was captured.
    Unknown,
}

/// Checks a segment.
pub(super) fn check(packet: &Packet<'_>) -> Sum {
    let Some(segment) = packet.whole else { return Sum::Unknown };
    let pseudo = pseudo_header(packet, segment.len());
    let field = segment.get(16..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u16::from_be_bytes);
    if fold(pseudo + sum(segment)) == 0xffff {
        Sum::Right
    } else if fold(pseudo) == field {
        Sum::Partial
    } else {
        Sum::Wrong
    }
}

fn pseudo_header(packet: &Packet<'_>, len: usize) -> u64 {
    // A mapped prefix would add ffff, which changes nothing in ones' complement arithmetic: 0 and ffff are equal.
    let halves = |half: u64| (half >> 32) + (half & 0xffff_ffff);
    #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
    let address = |address: u128| halves((address >> 64) as u64) + halves(address as u64);
    address(packet.from.address) + address(packet.to.address) + 6 + len as u64
}

/// The sum of big-endian 16-bit words, folded. Added up in the processor's own order, many at a time, and turned over in
/// the end: the sum does not mind the order of its bytes (RFC 1071 section 2).
fn sum(bytes: &[u8]) -> u64 {
    const BLOCK: usize = 32;
    let mut lanes = [0_u64; BLOCK / 4];
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<4>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let words = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word)));
    u64::from(u16::from_be(fold(lanes.into_iter().chain(words).sum())))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Wrong segments in a row after which a sender is believed to leave its checksums to hardware after all.
const MAX_WRONG: u8 = 16;

/// What is known of one sender's checksums. The first segment decides: if it is right, the capture shows real checksums
/// and a wrong one later is a decoy; if it is not, checksums mean nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing yet.
    #[default]
    Unknown,
    /// They are real; so many wrong ones came in a row.
    Real(u8),
    /// They mean nothing.
    Meaningless,
}

impl Trust {
    /// Learns from a segment. Says whether it is a decoy.
    pub(super) fn is_decoy(&mut self, sum: Sum) -> bool {
        let (next, decoy) = match (*self, sum) {
            (Self::Meaningless, _) | (_, Sum::Unknown | Sum::Partial) => return false,
            (_, Sum::Right) => (Self::Real(0), false),
            (Self::Real(wrong), Sum::Wrong) if wrong < MAX_WRONG => (Self::Real(wrong + 1), true),
            (_, Sum::Wrong) => (Self::Meaningless, false),
        };
        *self = next;
        decoy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::pcap::packet::decode;
    use etherparse::PacketBuilder;

    fn built(v6: bool, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 9).tcp(1, 2, 3, 4).write(&mut out, payload).unwrap();
        } else {
            PacketBuilder::ipv4([1; 4], [2; 4], 9).tcp(1, 2, 3, 4).write(&mut out, payload).unwrap();
        }
        out
    }

    fn checked(data: &[u8]) -> Sum {
        check(&decode(101, data, u32::try_from(data.len()).unwrap()).unwrap())
    }

    #[test]
    fn knows_right_wrong_and_partial() {
        for v6 in [false, true] {
            for len in 0..9 {
                let mut data = built(v6, &vec![0xa5; len]);
                assert_eq!(checked(&data), Sum::Right);
                let at = if v6 { 40 } else { 20 } + 16;
                let segment = decode(101, &data, u32::try_from(data.len()).unwrap()).unwrap();
                let partial = fold(pseudo_header(&segment, 20 + len));
                data[at..at + 2].copy_from_slice(&partial.to_be_bytes());
                assert_eq!(checked(&data), Sum::Partial);
                data[at] ^= 0x55;
                assert_eq!(checked(&data), Sum::Wrong);
            }
        }
    }

    #[test]
    fn a_wrong_sum_is_a_decoy_only_among_right_ones() {
        let mut trust = Trust::default();
        assert!(!trust.is_decoy(Sum::Right));
        assert!(trust.is_decoy(Sum::Wrong));
        assert!(!trust.is_decoy(Sum::Partial));
        let mut offloaded = Trust::default();
        assert!(!offloaded.is_decoy(Sum::Wrong));
        assert!(!offloaded.is_decoy(Sum::Right));
        assert!(!offloaded.is_decoy(Sum::Wrong));
    }

    #[test]
    fn nothing_but_wrong_sums_means_offload() {
        let mut trust = Trust::default();
        trust.is_decoy(Sum::Right);
        let decoys = (0..100).filter(|_| trust.is_decoy(Sum::Wrong)).count();
        assert_eq!(decoys, usize::from(MAX_WRONG));
    }
}
