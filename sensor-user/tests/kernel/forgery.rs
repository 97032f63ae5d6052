//! Segments that TCP refuses, sent to make the sensor look away.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};
use sensor_user::capture::Side;

use super::lab::{ANSWER, ASK, Lab, Pair, What};

const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const PSH_ACK: u8 = 1 << 3 | 1 << 4;

/// Reads and writes packets on loopback as they are.
struct Wire {
    heard: OwnedFd,
    sent: OwnedFd,
}

/// Where a connection stands: what a forger has to know.
struct Standing {
    from: u16,
    to: u16,
    seq: u32,
    ack: u32,
}

impl Wire {
    fn new() -> Self {
        let heard = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::TCP)).unwrap();
        sockopt::set_socket_timeout(&heard, Timeout::Recv, Some(Duration::from_secs(2))).unwrap();
        Self { heard, sent: socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap() }
    }

    /// A connection and its sequence numbers. A raw socket drops what it has no room for, so on a busy loopback a
    /// handshake may go by unheard; then the next one is tried.
    fn tap() -> (Self, Pair, Standing) {
        let tapped = (0..20).find_map(|_| {
            let (wire, pair) = (Self::new(), Pair::v4());
            wire.overhear(&pair).map(|standing| (wire, pair, standing))
        });
        tapped.unwrap()
    }

    /// Learns the sequence numbers of a connection from its handshake.
    #[expect(clippy::disallowed_methods, reason = "waiting for a real network needs a clock")]
    fn overhear(&self, pair: &Pair) -> Option<Standing> {
        let patience = Instant::now() + Duration::from_secs(2);
        let (from, to) = (pair.client.local_addr().unwrap().port(), pair.port());
        let (mut seq, mut ack) = (None, None);
        let mut packet = vec![0; 65536];
        while seq.is_none() || ack.is_none() {
            let (len, _) = recv(&self.heard, &mut packet, RecvFlags::empty()).ok()?;
            let tcp = &packet[20..len];
            let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
            let first = u32::from_be_bytes(tcp[4..8].try_into().unwrap()).wrapping_add(1);
            match (port(0), port(2), tcp[13] & SYN != 0) {
                (source, target, true) if (source, target) == (from, to) => seq = Some(first),
                (source, target, true) if (source, target) == (to, from) => ack = Some(first),
                _ if Instant::now() > patience => return None,
                _ => {}
            }
        }
        Some(Standing { from, to, seq: seq.unwrap(), ack: ack.unwrap() })
    }

    /// Sends a segment of the client with a wrong checksum, and waits until it was on the wire: on a busy host what is sent
    /// later by another core may come earlier.
    fn forge(&self, at: &Standing, ahead: u32, flags: u8, payload: &[u8]) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
        packet.extend(at.from.to_be_bytes());
        packet.extend(at.to.to_be_bytes());
        packet.extend(at.seq.wrapping_add(ahead).to_be_bytes());
        packet.extend(at.ack.to_be_bytes());
        packet.extend([0x50, flags, 0x20, 0, 0xba, 0xad, 0, 0]);
        packet.extend(payload);
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        sendto(&self.sent, &packet, SendFlags::empty(), &to).unwrap();
        self.hear(&packet[20..]);
    }

    /// Waits for this segment. A raw socket that had no room for it never tells.
    #[expect(clippy::disallowed_methods, reason = "waiting for a real network needs a clock")]
    fn hear(&self, segment: &[u8]) {
        let patience = Instant::now() + Duration::from_secs(2);
        let mut packet = vec![0; 65536];
        while Instant::now() < patience {
            match recv(&self.heard, &mut packet, RecvFlags::empty()) {
                Ok((len, _)) if packet.get(20..len) == Some(segment) => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// Without the check a forged greeting in TLS would mute the connection before its first request.
#[test]
fn a_forged_first_segment_mutes_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    for forged in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"PRI * HTTP/2.0\r\n\r\n", b"\0\0\0\0"] {
        let (wire, mut pair, standing) = Wire::tap();
        lab.port = pair.port();
        lab.seen.clear();
        wire.forge(&standing, 0, PSH_ACK, forged);
        pair.ask(ASK);
        pair.answer(ANSWER);
        pair.ask(ASK);
        lab.expect_request(&ASK.repeat(2));
    }
    assert_eq!(lab.counter("muted_tls") + lab.counter("muted_h2") + lab.counter("muted_opaque"), 0);
}

/// Forgeries go through, marked by nothing, for only TCP knows; the true bytes must go through as well.
#[test]
fn forged_bytes_do_not_replace_true_ones() {
    let Some(mut lab) = Lab::new() else { return };
    let (wire, mut pair, standing) = Wire::tap();
    lab.port = pair.port();
    wire.forge(&standing, 0, PSH_ACK, b"GET /decoy HTTP/1.1\r\n\r\n");
    wire.forge(&standing, 0, RST, b"");
    wire.forge(&standing, 0, FIN, b"");
    wire.forge(&standing, 1 << 31, PSH_ACK, b"far beyond any window");
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.watch(|lab| lab.records(Side::Response) > 0);
    assert!(lab.seen.iter().any(|seen| seen.is_request(ASK)), "{:?}", lab.seen);
    // What comes before the handshake is over shows the listener, which has no window; the agent judges that.
    let opened = lab.seen.iter().find(|seen| matches!(seen.what, What::Open { .. })).map(|seen| seen.socket);
    let mut own = lab.seen.iter().filter(|seen| Some(seen.socket) == opened);
    assert!(!own.any(|seen| seen.is_request(b"far beyond any window")), "{:?}", lab.seen);
}
