//! The control socket: what the running sensor tells those who ask, over HTTP.
//!
//! A Unix socket of mode 0600, and TCP for those who show a token or a client certificate. Followers of alerts read the
//! spool by a cursor of their own, followers of exchanges a bounded broadcast: nobody who appends or publishes ever
//! waits for a reader, and what a slow one misses is told to it as a gap. docs/stream.md describes the interface.
//!
//! Bounds: [`server`] has those on connections, [`routes`] those on requests, [`feed`] those on what is read at once.

pub mod alerts;
pub mod exchanges;
pub mod feed;
pub mod figures;
pub mod filter;
pub mod flow;
pub mod patient;
pub mod rate;
pub mod record;
pub mod refusal;
pub mod routes;
pub mod server;
pub mod settings;
pub mod socket;
pub mod tls;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::Value;
use tokio::sync::broadcast;

use crate::capture::Time;
use crate::render::exchange::Followed;
use crate::render::{Node, Privacy, Told};
use crate::spool::Spool;
use crate::telemetry::Metric;

pub use filter::Filter;
pub use record::Record;
pub use refusal::Refusal;
pub use server::Server;
pub use settings::{Listen, Settings, Tls};

/// Exchanges that wait for the slowest follower: some 1.5 KiB each with their JSON, so 6 MiB at most, and 0.4 s of
/// 10,000 a second.
pub const EXCHANGES: usize = 4096;

/// What the sensor shows of itself.
pub trait Overview: Send + Sync {
    /// Its figures, as they are at `/metrics`.
    fn figures(&self) -> Vec<Metric>;

    /// Whether capture is attached and the configuration in effect.
    fn is_ready(&self) -> bool;
}

/// Alerts that the spool no longer has.
pub trait History: Send + Sync {
    /// A page of them, in the order of their numbers. It may block.
    ///
    /// # Errors
    /// In words, when they cannot be read.
    fn alerts(&self, page: &Page<'_>) -> Result<Vec<Arc<Told>>, String>;
}

/// Which alerts are wanted of the history.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// Their numbers.
    pub sequences: Range<u64>,
    /// What they are like.
    pub filter: &'a Filter,
    /// The last ones of that, instead of the first.
    pub newest: bool,
    /// So many at most.
    pub limit: usize,
}

/// Answers to questions about the past. Both may block.
pub trait Search: Send + Sync {
    /// Where a token, id, principal or address was used.
    ///
    /// # Errors
    /// When the question is wrong, or cannot be answered.
    fn trace(&self, what: &Traced, since_ms: Option<u64>) -> Result<Value, Refusal>;

    /// The rows that a read-only SELECT gives.
    ///
    /// # Errors
    /// When the statement is wrong, or cannot be answered.
    fn query(&self, sql: &str) -> Result<Value, Refusal>;
}

/// What is traced.
#[derive(Clone, Debug)]
pub enum Traced {
    /// What somebody typed: a fingerprint, `jti:ID`, a principal, an address or a network.
    Named(String),
    /// A raw token, wiped when dropped.
    Token(crate::token::settings::Secret),
}

/// What readers of streams count up to.
#[derive(Debug, Default)]
pub struct Streams {
    /// Streams that are read now.
    pub clients: AtomicU64,
    /// Events that readers were too slow for; each was told so.
    pub missed: AtomicU64,
}

/// Where the server has everything from.
#[derive(Clone)]
pub struct Sources {
    /// The node.
    pub node: Node,
    /// When it started.
    pub started: Time,
    /// What time it is.
    pub clock: fn() -> Time,
    /// Alerts and incidents.
    pub spool: Spool,
    /// How people and addresses are shown: so they are looked for.
    pub privacy: Privacy,
    /// What the spool no longer has.
    pub history: Option<Arc<dyn History>>,
    /// Exchanges, while somebody follows them. The publisher asks for the number of receivers and makes nothing while
    /// it is zero.
    pub exchanges: broadcast::Sender<Arc<Followed>>,
    /// Counts of the server itself, for its figures.
    pub streams: Arc<Streams>,
    /// Figures and states.
    pub overview: Arc<dyn Overview>,
    /// Questions about the past.
    pub search: Option<Arc<dyn Search>>,
}
