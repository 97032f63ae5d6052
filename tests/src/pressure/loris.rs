//! Slow-loris: many connections, each with a head that has begun and does not end.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SendFlags, SocketType, sockopt};

/// The connections. Dropping it hangs up.
#[derive(Debug)]
pub struct Loris {
    sockets: Vec<OwnedFd>,
}

impl Loris {
    /// Opens `count` connections from 127.0.1.`host`, which has some 64,000 ports, and says on each what `begins` gives
    /// for its number.
    ///
    /// # Errors
    /// When sockets, ports or descriptors run out.
    pub fn open(to: SocketAddr, count: usize, host: u8, begins: impl Fn(usize) -> Vec<u8>) -> Result<Self> {
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, host), 0));
        let mut sockets = Vec::with_capacity(count);
        for number in 0..count {
            let one = connect(from, to).with_context(|| format!("connection {number}"))?;
            rustix::net::send(&one, &begins(number), SendFlags::NOSIGNAL)?;
            sockets.push(one);
        }
        Ok(Self { sockets })
    }

    /// Says something on every `step`-th connection. Gives on how many.
    ///
    /// # Errors
    /// When one was hung up on.
    pub fn say(&self, step: usize, what: &[u8]) -> Result<usize> {
        let mut said = 0;
        for socket in self.sockets.iter().step_by(step.max(1)) {
            rustix::net::send(socket, what, SendFlags::NOSIGNAL)
                .context("a connection that should be open")?;
            said += 1;
        }
        Ok(said)
    }
}

fn connect(from: SocketAddr, to: SocketAddr) -> Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}

/// A head that has begun with a bearer token: more header lines may follow, and the empty line is missing.
#[must_use]
pub fn half_head(token: &str) -> Vec<u8> {
    let mut head = crate::client::get("/orders/7", Some(token));
    head.truncate(head.len() - 2);
    head.extend(b"X-Slow: ");
    head
}
