//! A flood of SYN packets from addresses that answer nobody, as scanners and attackers send it.
//!
//! Raw sockets with headers of our own (`IPPROTO_RAW`); the kernel fills in the checksum of the IP header (RFC 791),
//! that of TCP (RFC 9293 section 3.1) is ours.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};

use super::{Rate, in_threads};
use crate::clock::Deadline;
use crate::netns::ELSEWHERE;

/// Senders are drawn from as many addresses: those of 198.18.0.0/15.
const SENDERS: u32 = 1 << 17;

/// Packets between two looks at the clock.
const BURST: u32 = 64;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// To whom.
    pub to: SocketAddrV4,
    /// What each SYN carries; usually nothing. Servers without TCP Fast Open pass it over.
    pub carries: &'static [u8],
    /// Threads that do it.
    pub threads: usize,
}

impl Flood {
    /// Sends for this long, from the network namespace of the calling thread. Gives the packets that were sent.
    ///
    /// # Errors
    /// When raw sockets are not allowed.
    pub fn run(&self, time: Duration) -> Result<Rate> {
        let deadline = Deadline::after(time);
        let (sent, seconds) = in_threads(self.threads, |thread| {
            let socket = rustix::net::socket_with(
                AddressFamily::INET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(ipproto::RAW),
            )
            .context("a raw socket")?;
            let (mut sent, mut turn) = (0, u32::try_from(thread)? << 28);
            while !deadline.is_over() {
                for _ in 0..BURST {
                    turn = turn.wrapping_add(1);
                    let packet = self.packet(turn);
                    match rustix::net::sendto(&socket, &packet, SendFlags::empty(), &self.to) {
                        Ok(_) => sent += 1,
                        // The queue of the interface is full.
                        Err(Errno::NOBUFS | Errno::AGAIN) => {}
                        Err(error) => return Err(error).context("send a SYN"),
                    }
                }
            }
            Ok(sent)
        })?;
        Ok(Rate { count: sent.iter().sum(), seconds })
    }

    /// The SYN of one turn: another sender, port and number each.
    fn packet(&self, turn: u32) -> Vec<u8> {
        // Knuth's multiplicative hash: neighbours come far from each other.
        let drawn = turn.wrapping_mul(2_654_435_761);
        let from = Ipv4Addr::from(u32::from(ELSEWHERE) + drawn % SENDERS);
        let [_, _, high, low] = (drawn >> 7).to_be_bytes();
        let port = u16::from_be_bytes([high, low]) | 1024;
        let mut tcp = Vec::with_capacity(24 + self.carries.len());
        tcp.extend(port.to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(drawn.rotate_left(13).to_be_bytes());
        // No acknowledgement; 24 bytes of header; SYN; a window of 64 KiB; checksum and urgent pointer to come.
        tcp.extend([0, 0, 0, 0, 6 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
        // Option 2: segments of at most 1460 bytes.
        tcp.extend([2, 4, 0x05, 0xb4]);
        tcp.extend(self.carries);
        let sum = checksum(from, *self.to.ip(), &tcp);
        if let Some(place) = tcp.get_mut(16..18) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
        let mut packet = Vec::with_capacity(20 + tcp.len());
        // IPv4, 20 bytes of header, may not be fragmented, 64 hops, TCP. Length and checksum are the kernel's.
        packet.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend(from.octets());
        packet.extend(self.to.ip().octets());
        packet.extend(tcp);
        packet
    }
}

/// TCP's checksum over the pseudo-header and a segment whose own is zero.
fn checksum(from: Ipv4Addr, to: Ipv4Addr, tcp: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let word = |two: &[u8]| match two {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [last] => u32::from(u16::from_be_bytes([*last, 0])),
            _ => 0,
        };
        bytes.chunks(2).map(word).sum()
    };
    let length = u32::try_from(tcp.len()).unwrap_or(u32::MAX);
    let mut sum = words(&from.octets()) + words(&to.octets()) + 6 + length + words(tcp);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_with_its_checksum_sums_up_to_nothing() {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 8080);
        for carries in [&b""[..], b"odd"] {
            let flood = Flood { to, carries, threads: 1 };
            for turn in [0, 1, 77, u32::MAX] {
                let packet = flood.packet(turn);
                let from = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
                assert_eq!(checksum(from, *to.ip(), &packet[20..]), 0, "{turn}");
                assert_eq!(from.octets()[0], 198);
            }
        }
    }
}
