//! Somebody who comes on business while others press: a known number of requests, each with a token, each answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::client::{Client, get};

/// Whom to visit, and how.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Where.
    pub to: SocketAddr,
    /// Requests bring these in turn.
    pub tokens: &'a [String],
    /// Whether each request has a connection of its own.
    pub afresh: bool,
    /// What lies between two requests.
    pub pause: Duration,
}

impl Visitor<'_> {
    /// Visits from the network namespace of the calling thread, beside something else and until that has ended. Gives
    /// how many requests were answered, and what the other gave.
    ///
    /// # Errors
    /// When a request is not answered, or what the other says.
    pub fn beside<T: Send>(&self, other: impl FnOnce() -> Result<T> + Send) -> Result<(u64, T)> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let result = other();
                over.store(true, Ordering::Relaxed);
                result
            });
            let answered = self.visit(|_| over.load(Ordering::Relaxed));
            let result = other.join().map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
            Ok((answered?, result))
        })
    }

    /// Makes this many requests.
    ///
    /// # Errors
    /// When one is not answered.
    pub fn times(&self, many: u64) -> Result<u64> {
        self.visit(|so_far| so_far >= many)
    }

    fn visit(&self, over: impl Fn(u64) -> bool) -> Result<u64> {
        let mut answered = 0;
        let mut client = Client::connect(self.to)?;
        for token in self.tokens.iter().cycle() {
            if over(answered) {
                break;
            }
            if self.afresh && answered > 0 {
                client.reset()?;
                client = Client::connect(self.to).context("a visitor")?;
            }
            client.ask(&get("/orders/7", Some(token))).context("a visitor's request")?;
            answered += 1;
            std::thread::sleep(self.pause);
        }
        Ok(answered)
    }
}
