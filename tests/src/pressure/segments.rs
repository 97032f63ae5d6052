//! Requests in crumbs: each cut into segments of one to eight bytes, many connections in turn.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Rate, in_threads};
use crate::client::{Client, get};
use crate::clock::Deadline;
use crate::lab::rng::Rng;

/// Most bytes of a segment.
const MOST: u64 = 8;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Crumbs<'a> {
    /// To whom.
    pub to: SocketAddr,
    /// Threads, each with its own connections.
    pub threads: usize,
    /// Keep-alive connections of a thread.
    pub connections: usize,
    /// Requests bring these in turn.
    pub tokens: &'a [String],
}

/// What was sent, whole and answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Requests.
    pub requests: u64,
    /// What was given to the kernel to send: as many segments, unless a window was full.
    pub segments: Rate,
}

impl Crumbs<'_> {
    /// Sends for this long, in the network namespace of the calling thread, and to the end of what was begun.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn run(&self, time: Duration) -> Result<Sent> {
        let deadline = Deadline::after(time);
        let requests: Vec<Vec<u8>> = self.tokens.iter().map(|token| get("/orders/7", Some(token))).collect();
        let (sent, seconds) = in_threads(self.threads, |thread| {
            let mut clients = Vec::new();
            for _ in 0..self.connections {
                clients.push(Client::connect(self.to)?);
            }
            let mut rng = Rng::new(u64::try_from(thread)?);
            let (mut whole, mut segments) = (0, 0);
            let mut turns = requests.iter().cycle().skip(thread * self.connections);
            while !deadline.is_over() {
                segments += round(&mut clients, &mut turns, &mut rng)?;
                for client in &mut clients {
                    client.answer().context("a request in crumbs")?;
                    whole += 1;
                }
            }
            Ok((whole, segments))
        })?;
        let (requests, segments) = sent.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        Ok(Sent { requests, segments: Rate { count: segments, seconds } })
    }
}

/// One request on each connection, a segment of each in turn. Gives how many there were.
fn round<'a>(
    clients: &mut [Client],
    requests: &mut impl Iterator<Item = &'a Vec<u8>>,
    rng: &mut Rng,
) -> Result<u64> {
    let mut left: Vec<(&mut Client, &[u8])> = clients.iter_mut().zip(requests.map(Vec::as_slice)).collect();
    let mut segments = 0;
    while !left.is_empty() {
        for (client, rest) in &mut left {
            let len = usize::try_from(rng.below(MOST) + 1)?.min(rest.len());
            let (now, later) = rest.split_at(len);
            client.send(now)?;
            *rest = later;
            segments += 1;
        }
        left.retain(|(_, rest)| !rest.is_empty());
    }
    Ok(segments)
}
