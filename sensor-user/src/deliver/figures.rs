//! What deliveries come to, sink by sink: read by metrics, `top` and `sinks`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::sink::Words;
use crate::telemetry::Histogram;

/// Counters of one sink. Only its own thread writes them.
#[derive(Debug, Default)]
pub struct Figures {
    /// Events that the other end took.
    pub delivered: AtomicU64,
    /// Events that became dead letters.
    pub dead: AtomicU64,
    /// Events that the spool gave up before this sink came to them.
    pub lost: AtomicU64,
    /// Events that the sink does not get by its configuration.
    pub filtered: AtomicU64,
    /// Deliveries that the other end took.
    pub ok: AtomicU64,
    /// Deliveries that have to come again.
    pub later: AtomicU64,
    /// Deliveries that took too long, and have to come again.
    pub timeout: AtomicU64,
    /// Whether only probes are sent.
    pub open: AtomicBool,
    took: Mutex<Histogram>,
    trouble: Mutex<Option<Words>>,
}

impl Figures {
    /// Adds to a counter.
    pub(super) fn add(counter: &AtomicU64, many: usize) {
        counter.fetch_add(many as u64, Ordering::Relaxed);
    }

    /// A delivery took so long.
    pub(super) fn took(&self, time: Duration) {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).observe(time);
    }

    /// What is wrong now; none once it works.
    pub(super) fn trouble(&self, words: Option<Words>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    /// How long deliveries took.
    #[must_use]
    pub fn times(&self) -> Histogram {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is wrong now.
    #[must_use]
    pub fn newest_trouble(&self) -> Option<Words> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
