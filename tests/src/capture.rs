//! Capture files made by hand: TCP conversations cut, shuffled, repeated and overlapped as a test wants them.
//!
//! Every field is fixed by the caller, so one program gives one file, byte for byte. Checksums are right unless a
//! test spoils them. Format: the classic libpcap file, nanosecond variant, link type Ethernet.

use std::net::{IpAddr, SocketAddr};

/// TCP's SYN bit.
pub const SYN: u8 = 0x02;
/// TCP's ACK bit.
pub const ACK: u8 = 0x10;
/// TCP's PSH bit.
pub const PSH: u8 = 0x08;
/// TCP's FIN bit.
pub const FIN: u8 = 0x01;
/// TCP's RST bit.
pub const RST: u8 = 0x04;

/// One segment, not yet on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sends it.
    pub from_client: bool,
    /// Sequence number of its first byte.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
    /// The payload.
    pub payload: Vec<u8>,
    /// Nanoseconds since the segment before it.
    pub after_ns: u64,
    /// Send it with a wrong TCP checksum.
    pub bad_checksum: bool,
}

/// A connection under construction: what both sides sent so far.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end.
    pub server: SocketAddr,
    /// The segments in the order that a capture saw them; tests rearrange them as they like.
    pub segments: Vec<Segment>,
    /// The client's next sequence number.
    pub client_seq: u32,
    /// The server's next sequence number.
    pub server_seq: u32,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    mss: usize,
}

impl Conversation {
    /// A connection between these two, handshake included. They must be of one address family.
    #[must_use]
    pub fn open(client: SocketAddr, server: SocketAddr) -> Self {
        Self::open_at(client, server, 1_000, 900_000)
    }

    /// The same with chosen initial sequence numbers, to see them wrap.
    #[must_use]
    pub fn open_at(client: SocketAddr, server: SocketAddr, client_isn: u32, server_isn: u32) -> Self {
        let mut this = Self::midway(client, server, client_isn.wrapping_add(1), server_isn.wrapping_add(1));
        let shake = |from_client, seq, ack, flags| Segment {
            from_client,
            seq,
            ack,
            flags,
            payload: Vec::new(),
            after_ns: 20_000,
            bad_checksum: false,
        };
        this.segments.push(shake(true, client_isn, 0, SYN));
        this.segments.push(shake(false, server_isn, this.client_seq, SYN | ACK));
        this.segments.push(shake(true, this.client_seq, this.server_seq, ACK));
        this
    }

    /// A connection whose handshake happened before the capture began.
    #[must_use]
    pub fn midway(client: SocketAddr, server: SocketAddr, client_seq: u32, server_seq: u32) -> Self {
        Self { client, server, segments: Vec::new(), client_seq, server_seq, vlan: None, mss: 1448 }
    }

    /// Cuts what follows into segments of at most this many bytes.
    #[must_use]
    pub fn cut_at(mut self, mss: usize) -> Self {
        self.mss = mss.max(1);
        self
    }

    /// The client sends bytes; the server acknowledges the last of them.
    pub fn request(&mut self, bytes: &[u8]) -> &mut Self {
        self.say(true, bytes)
    }

    /// The server sends bytes; the client acknowledges the last of them.
    pub fn response(&mut self, bytes: &[u8]) -> &mut Self {
        self.say(false, bytes)
    }

    /// Lets time pass before the next segment.
    pub fn pause(&mut self, ns: u64) -> &mut Self {
        let ack = self.segment(false, Vec::new(), ACK);
        self.segments.push(Segment { after_ns: ns, ..ack });
        self
    }

    /// Both sides finish.
    pub fn close(&mut self) -> &mut Self {
        let fin = self.segment(true, Vec::new(), FIN | ACK);
        self.segments.push(fin);
        self.client_seq = self.client_seq.wrapping_add(1);
        let fin = self.segment(false, Vec::new(), FIN | ACK);
        self.segments.push(fin);
        self.server_seq = self.server_seq.wrapping_add(1);
        let last = self.segment(true, Vec::new(), ACK);
        self.segments.push(last);
        self
    }

    /// The next segment of a side as it would be sent now.
    #[must_use]
    pub fn segment(&self, from_client: bool, payload: Vec<u8>, flags: u8) -> Segment {
        let (seq, ack) =
            if from_client { (self.client_seq, self.server_seq) } else { (self.server_seq, self.client_seq) };
        Segment { from_client, seq, ack, flags, payload, after_ns: 50_000, bad_checksum: false }
    }

    fn say(&mut self, from_client: bool, bytes: &[u8]) -> &mut Self {
        for part in bytes.chunks(self.mss) {
            let next = self.segment(from_client, part.to_vec(), ACK | PSH);
            self.segments.push(next);
            let sent = u32::try_from(part.len()).unwrap_or_default();
            let seq = if from_client { &mut self.client_seq } else { &mut self.server_seq };
            *seq = seq.wrapping_add(sent);
        }
        let ack = self.segment(!from_client, Vec::new(), ACK);
        self.segments.push(ack);
        self
    }

    /// Appends the frame that carries one of this connection's segments.
    pub fn frame(&self, segment: &Segment, frame: &mut Vec<u8>) {
        let (from, to) =
            if segment.from_client { (self.client, self.server) } else { (self.server, self.client) };
        let tcp = tcp(from, to, segment);
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        if let Some(tag) = self.vlan {
            frame.extend_from_slice(&[0x81, 0x00]);
            frame.extend_from_slice(&tag.to_be_bytes());
        }
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend_from_slice(&[0x08, 0x00]);
                let length = u16::try_from(tcp.len() + 20).unwrap_or(u16::MAX);
                let mut ip = vec![0x45, 0];
                ip.extend_from_slice(&length.to_be_bytes());
                ip.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
                ip.extend_from_slice(&from.octets());
                ip.extend_from_slice(&to.octets());
                let sum = checksum(&[&ip]).to_be_bytes();
                frame.extend_from_slice(ip.get(..10).unwrap_or_default());
                frame.extend_from_slice(&sum);
                frame.extend_from_slice(ip.get(12..).unwrap_or_default());
            }
            (from, to) => {
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend_from_slice(&u16::try_from(tcp.len()).unwrap_or(u16::MAX).to_be_bytes());
                frame.extend_from_slice(&[6, 64]);
                frame.extend_from_slice(&octets6(from));
                frame.extend_from_slice(&octets6(to));
            }
        }
        frame.extend_from_slice(&tcp);
    }
}

/// A capture file in memory, frames of several connections merged by time.
#[derive(Clone, Debug, Default)]
pub struct Pcap {
    frames: Vec<(u64, Vec<u8>)>,
}

impl Pcap {
    /// Adds a connection whose first segment comes `start_ns` after the Unix epoch.
    pub fn add(&mut self, start_ns: u64, conversation: &Conversation) -> &mut Self {
        let mut at = start_ns;
        for segment in &conversation.segments {
            at = at.saturating_add(segment.after_ns);
            let mut frame = Vec::new();
            conversation.frame(segment, &mut frame);
            self.frames.push((at, frame));
        }
        self
    }

    /// Adds another file's frames, moved by `later_ns`.
    pub fn append(&mut self, other: &Self, later_ns: u64) -> &mut Self {
        let moved = |(at, frame): &(u64, Vec<u8>)| (at.saturating_add(later_ns), frame.clone());
        self.frames.extend(other.frames.iter().map(moved));
        self
    }

    /// The file, frames in the order of time; equal times keep the order of adding.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frames: Vec<&(u64, Vec<u8>)> = self.frames.iter().collect();
        frames.sort_by_key(|(at, _)| *at);
        let mut file = file_header().to_vec();
        for (at, frame) in frames {
            file.extend_from_slice(&record_header(*at, frame.len()));
            file.extend_from_slice(frame);
        }
        file
    }
}

/// The header of a nanosecond pcap file of Ethernet frames, little-endian.
#[must_use]
pub fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    let fields = [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1];
    for (place, field) in header.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    header
}

/// The header of one record.
#[must_use]
pub fn record_header(at_ns: u64, length: usize) -> [u8; 16] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let secs = u32::try_from(at_ns / 1_000_000_000).unwrap_or(u32::MAX);
    let nanos = u32::try_from(at_ns % 1_000_000_000).unwrap_or_default();
    let mut header = [0; 16];
    for (place, field) in header.chunks_exact_mut(4).zip([secs, nanos, length, length]) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    header
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// A TCP header with its payload (RFC 9293 section 3.1).
fn tcp(from: SocketAddr, to: SocketAddr, segment: &Segment) -> Vec<u8> {
    let mut head = Vec::with_capacity(20 + segment.payload.len());
    head.extend_from_slice(&from.port().to_be_bytes());
    head.extend_from_slice(&to.port().to_be_bytes());
    head.extend_from_slice(&segment.seq.to_be_bytes());
    head.extend_from_slice(&if segment.flags & ACK == 0 { 0 } else { segment.ack }.to_be_bytes());
    head.extend_from_slice(&[0x50, segment.flags, 0xff, 0xff]);
    let length = u32::try_from(20 + segment.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let ends = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => [octets6(from), octets6(to)].concat(),
    };
    let mut sum = checksum(&[&ends, &length, &[0, 6], &head, &[0, 0, 0, 0], &segment.payload]);
    if segment.bad_checksum {
        sum ^= 0x5555;
    }
    head.extend_from_slice(&sum.to_be_bytes());
    head.extend_from_slice(&[0, 0]);
    head.extend_from_slice(&segment.payload);
    head
}

/// The Internet checksum (RFC 1071) over parts of which all but the last have even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            let high = u64::from(pair.first().copied().unwrap_or_default());
            sum += high << 8 | u64::from(pair.get(1).copied().unwrap_or_default());
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (SocketAddr, SocketAddr) {
        ("10.0.3.7:40000".parse().unwrap(), "10.0.0.1:8080".parse().unwrap())
    }

    #[test]
    fn checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    #[test]
    fn sequence_numbers_run_on_across_cuts() {
        let (client, server) = ends();
        let mut whole = Conversation::open(client, server);
        let mut cut = Conversation::open(client, server).cut_at(1);
        whole.request(b"GET / HTTP/1.1\r\n\r\n").response(b"HTTP/1.1 200 OK\r\n\r\n");
        cut.request(b"GET / HTTP/1.1\r\n\r\n").response(b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!((whole.client_seq, whole.server_seq), (cut.client_seq, cut.server_seq));
        assert_eq!(cut.segments.len(), 3 + 18 + 1 + 19 + 1);
    }

    #[test]
    fn file_is_headers_and_frames_and_nothing_else() {
        let (client, server) = ends();
        let mut file = Pcap::default();
        file.add(0, Conversation::open(client, server).request(b"x"));
        let frames = 3 * 54 + 55 + 54;
        assert_eq!(file.bytes().len(), 24 + 5 * 16 + frames);
    }
}
