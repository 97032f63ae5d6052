//! A scan by real connections: connect, perhaps say a byte, hang up with a reset.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use rustix::net::{AddressFamily, SendFlags, SocketType, sockopt};

use super::{Rate, in_threads};
use crate::clock::Deadline;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Whom to connect to.
    pub to: SocketAddr,
    /// What to say on each connection; may be nothing.
    pub says: &'static [u8],
    /// Threads that do it.
    pub threads: usize,
}

impl Scan {
    /// Scans for this long, in the network namespace of the calling thread. Gives the connections that were made.
    ///
    /// # Errors
    /// When sockets cannot be made any more.
    pub fn run(&self, time: Duration) -> Result<Rate> {
        let deadline = Deadline::after(time);
        let (made, seconds) = in_threads(self.threads, |_| {
            let mut made = 0;
            while !deadline.is_over() {
                made += u64::from(self.once()?);
            }
            Ok(made)
        })?;
        Ok(Rate { count: made.iter().sum(), seconds })
    }

    /// One connection; false if the server did not take it.
    fn once(&self) -> Result<bool> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // A reset at the end: no port is left in TIME_WAIT.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        if rustix::net::connect(&socket, &self.to).is_err() {
            return Ok(false);
        }
        if !self.says.is_empty() {
            let _ = rustix::net::send(&socket, self.says, SendFlags::NOSIGNAL);
        }
        Ok(true)
    }
}
