//! From a captured packet to its TCP segment: link layer, VLAN tags, IPv4, IPv6 with extension headers, TCP.
//!
//! Decoded in place, a few loads a packet. What a general decoder would refuse is usual here and must be read:
//! packets cut by the snaplen, and lengths of 0 as segmentation offload and BIG TCP leave them. A property test holds
//! this against etherparse.

/// A TCP segment as it was captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// Who sent it.
    pub(super) from: End,
    /// Who it is for.
    pub(super) to: End,
    /// Sequence number.
    pub(super) seq: u32,
    /// Acknowledgement number, if the flag is set.
    pub(super) ack: Option<u32>,
    /// The flags: FIN, SYN, RST and so on.
    pub(super) flags: u8,
    /// Payload bytes on the wire.
    pub(super) wire_len: u32,
    /// The captured start of the payload.
    pub(super) payload: &'a [u8],
    /// Header and payload, for the checksum; none if not all was captured or addresses were rewritten on the way.
    pub(super) whole: Option<&'a [u8]>,
}

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;

/// One end of a connection. IPv4 addresses are mapped into IPv6 (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct End {
    pub(super) address: u128,
    pub(super) port: u16,
}

/// Why a packet yields no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Another protocol.
    NotTcp,
    /// A part of a fragmented packet. Its bytes reappear as a gap if the server accepts them.
    Fragment,
    /// Lengths that cannot be.
    Malformed,
    /// So much was cut off that the TCP header is not whole.
    Snaplen,
    /// A link layer that is not known here.
    Link,
}

const MAPPED: u128 = 0xffff_0000_0000;
const TCP: u8 = 6;

/// Longest chain of IPv6 extension headers; Linux' own limit for options in one header is 8.
const MAX_EXTENSIONS: usize = 8;

/// Most VLAN tags: two are usual, three exist.
const MAX_TAGS: usize = 4;

/// Finds the TCP segment in a packet. `wire_len` is the packet's length before it was cut.
pub(super) fn decode(link: u16, data: &[u8], wire_len: u32) -> Result<Packet<'_>, Miss> {
    let (skip, protocol) = match link {
        // Ethernet.
        1 => (14, Some(be16(data, 12).ok_or(Miss::Malformed)?)),
        // Raw IP, under its registered number and under those of the BSDs.
        101 | 12 | 14 | 228 | 229 => (0, None),
        // BSD loopback: a protocol family in the host's or in network order.
        0 | 108 => (4, None),
        // Linux cooked capture, both versions.
        113 => (16, Some(be16(data, 14).ok_or(Miss::Malformed)?)),
        276 => (20, Some(be16(data, 0).ok_or(Miss::Malformed)?)),
        _ => return Err(Miss::Link),
    };
    let mut rest = data.get(skip..).ok_or(Miss::Malformed)?;
    let mut protocol = protocol;
    for _ in 0..MAX_TAGS {
        let Some(0x8100 | 0x88a8 | 0x9100) = protocol else { break };
        protocol = Some(be16(rest, 2).ok_or(Miss::Malformed)?);
        rest = rest.get(4..).unwrap_or_default();
    }
    if protocol == Some(0x8864) {
        // PPPoE (RFC 2516): its header, then a PPP protocol number.
        protocol = match be16(rest, 6) {
            Some(0x0021) => Some(0x0800),
            Some(0x0057) => Some(0x86dd),
            _ => return Err(Miss::NotTcp),
        };
        rest = rest.get(8..).unwrap_or_default();
    }
    let before = u32::try_from(data.len() - rest.len()).unwrap_or(u32::MAX);
    let on_wire = wire_len.saturating_sub(before) as usize;
    match (protocol, rest.first().map(|b| b >> 4)) {
        (Some(0x0800) | None, Some(4)) => ipv4(rest, on_wire),
        (Some(0x86dd) | None, Some(6)) => ipv6(rest, on_wire),
        (Some(0x0800 | 0x86dd), _) => Err(Miss::Malformed),
        _ => Err(Miss::NotTcp),
    }
}

fn ipv4(packet: &[u8], on_wire: usize) -> Result<Packet<'_>, Miss> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(Miss::Malformed)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[9] != TCP {
        return Err(Miss::NotTcp);
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(Miss::Fragment);
    }
    // Segmentation offload leaves 0 for packets that are too long to say it.
    let total = match u16::from_be_bytes([header[2], header[3]]) {
        0 => on_wire,
        total => usize::from(total),
    };
    if header_len < 20 || total < header_len {
        return Err(Miss::Malformed);
    }
    let address = |at: usize| MAPPED | u128::from(be32(packet, at));
    tcp(packet.get(header_len..).unwrap_or_default(), total - header_len, address(12), address(16), true)
}

fn ipv6(packet: &[u8], on_wire: usize) -> Result<Packet<'_>, Miss> {
    let header: &[u8; 40] = packet.first_chunk().ok_or(Miss::Malformed)?;
    let address = |at: usize| {
        packet.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u128::from_be_bytes)
    };
    let (from, to) = (address(8), address(24));
    // BIG TCP and jumbograms (RFC 2675) leave 0.
    let mut left = match u16::from_be_bytes([header[4], header[5]]) {
        0 => on_wire.saturating_sub(40),
        len => usize::from(len),
    };
    let mut next = header[6];
    let mut rest = packet.get(40..).unwrap_or_default();
    let mut direct = true;
    for _ in 0..MAX_EXTENSIONS {
        let len = match (next, rest.get(1)) {
            (TCP, _) => return tcp(rest, left, from, to, direct),
            (0 | 43 | 60, Some(len)) => (usize::from(*len) + 1) * 8,
            (51, Some(len)) => (usize::from(*len) + 2) * 4,
            (44, Some(_)) => {
                if rest.first() != Some(&TCP) {
                    return Err(Miss::NotTcp);
                }
                // An offset and "more fragments" of 0: a fragment that is the whole (RFC 6946).
                if be16(rest, 2).is_none_or(|field| field & 0xfff9 != 0) {
                    return Err(Miss::Fragment);
                }
                8
            }
            _ => return Err(Miss::NotTcp),
        };
        // A routing header changes the destination on the way, and with it the checksum.
        direct &= next != 43;
        next = rest.first().copied().unwrap_or_default();
        left = left.checked_sub(len).ok_or(Miss::Malformed)?;
        rest = rest.get(len..).ok_or(Miss::Snaplen)?;
    }
    Err(Miss::NotTcp)
}

fn tcp(segment: &[u8], len: usize, from: u128, to: u128, direct: bool) -> Result<Packet<'_>, Miss> {
    // Short Ethernet frames are padded.
    let segment = segment.get(..len).unwrap_or(segment);
    let Some(header) = segment.first_chunk::<20>() else {
        return Err(if len < 20 { Miss::Malformed } else { Miss::Snaplen });
    };
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 || header_len > len {
        return Err(Miss::Malformed);
    }
    let flags = header[13];
    Ok(Packet {
        from: End { address: from, port: u16::from_be_bytes([header[0], header[1]]) },
        to: End { address: to, port: u16::from_be_bytes([header[2], header[3]]) },
        seq: be32(header, 4),
        ack: (flags & 0x10 != 0).then(|| be32(header, 8)),
        flags,
        wire_len: u32::try_from(len - header_len).map_err(|_too_long| Miss::Malformed)?,
        payload: segment.get(header_len..).unwrap_or_default(),
        whole: (direct && segment.len() == len).then_some(segment),
    })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    fn ethernet(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(4000, 80, 7, 100);
        let mut out = Vec::new();
        builder.write(&mut out, payload).unwrap();
        out
    }

    fn wire_len(data: &[u8]) -> u32 {
        u32::try_from(data.len()).unwrap()
    }

    #[test]
    fn reads_ethernet_with_padding() {
        let mut data = ethernet(b"x");
        data.extend([0; 5]);
        let packet = decode(1, &data, wire_len(&data)).unwrap();
        assert_eq!((packet.payload, packet.wire_len, packet.seq), (&b"x"[..], 1, 7));
        assert_eq!((packet.from.port, packet.to.port), (4000, 80));
        assert_eq!(packet.from.address, MAPPED | 0x0a00_0001);
    }

    #[test]
    fn a_cut_packet_knows_its_length() {
        let data = ethernet(&[7; 100]);
        let packet = decode(1, &data[..64], wire_len(&data)).unwrap();
        assert_eq!((packet.payload.len(), packet.wire_len, packet.whole), (10, 100, None));
        assert_eq!(decode(1, &data[..40], wire_len(&data)).unwrap_err(), Miss::Snaplen);
    }

    #[test]
    fn a_total_length_of_0_means_the_packet() {
        let mut data = ethernet(&[7; 100]);
        data[16] = 0;
        data[17] = 0;
        assert_eq!(decode(1, &data, wire_len(&data)).unwrap().payload.len(), 100);
    }

    #[test]
    fn reads_every_link_type_and_tag() {
        let data = ethernet(b"hello");
        let ip = &data[14..];
        let wrap = |header: &[u8]| [header, ip].concat();
        let mut cooked = vec![0; 14];
        cooked.extend([8, 0]);
        let mut cooked2 = vec![8, 0];
        cooked2.extend([0; 18]);
        let tagged = [&data[..12], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0]].concat();
        let pppoe = [&data[..12], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 9, 0, 0x21]].concat();
        let cases = [
            (101, ip.to_vec()),
            (228, ip.to_vec()),
            (0, wrap(&[2, 0, 0, 0])),
            (108, wrap(&[0, 0, 0, 2])),
            (113, wrap(&cooked)),
            (276, wrap(&cooked2)),
            (1, wrap(&tagged)),
            (1, wrap(&pppoe)),
        ];
        for (link, data) in cases {
            assert_eq!(decode(link, &data, wire_len(&data)).unwrap().payload, b"hello", "{link}");
        }
        assert_eq!(decode(147, &data, wire_len(&data)).unwrap_err(), Miss::Link);
    }

    #[test]
    fn fragments_are_told_from_other_packets() {
        let mut data = ethernet(b"hello");
        data[20] = 0x20;
        assert_eq!(decode(1, &data, wire_len(&data)).unwrap_err(), Miss::Fragment);
        data[23] = 17;
        assert_eq!(decode(1, &data, wire_len(&data)).unwrap_err(), Miss::NotTcp);
    }

    #[test]
    fn passes_ipv6_extension_headers() {
        let mut tcp = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(1, 2, 3, 4).write(&mut tcp, b"hi").unwrap();
        let (header, segment) = tcp.split_at(40);
        let hop = [60, 0, 1, 4, 0, 0, 0, 0];
        let dest = [44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let atomic = [6, 0, 0, 0, 0, 0, 0, 9];
        let mut data = [header, &hop, &dest, &atomic, segment].concat();
        data[6] = 0;
        data[5] += 32;
        assert_eq!(decode(101, &data, wire_len(&data)).unwrap().payload, b"hi");
        let at = 40 + 8 + 16 + 3;
        data[at] = 1;
        assert_eq!(decode(101, &data, wire_len(&data)).unwrap_err(), Miss::Fragment);
    }

    proptest! {
        #[test]
        fn never_panics(link in 0_u16..300, data in proptest::collection::vec(any::<u8>(), 0..120), more in 0_u32..100) {
            let _ = decode(link, &data, wire_len(&data) + more);
        }

        #[test]
        fn agrees_with_etherparse(
            flip in proptest::collection::vec((0_usize..80, any::<u8>()), 0..4),
            payload in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let mut data = ethernet(&payload);
            for (at, value) in flip {
                if let Some(byte) = data.get_mut(at) {
                    *byte = value;
                }
            }
            let Ok(theirs) = SlicedPacket::from_ethernet(&data) else { return Ok(()) };
            let Some(TransportSlice::Tcp(tcp)) = &theirs.transport else { return Ok(()) };
            if theirs.net.as_ref().is_some_and(|net| net.ip_payload_ref().is_some_and(|p| p.ip_number != IpNumber::TCP)) {
                return Ok(());
            }
            let ours = decode(1, &data, wire_len(&data)).unwrap();
            prop_assert_eq!(ours.payload, tcp.payload());
            prop_assert_eq!(ours.seq, tcp.sequence_number());
            prop_assert_eq!(ours.from.port, tcp.source_port());
        }
    }
}
