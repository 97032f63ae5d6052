//! The wall clock and deadlines: the only place of the tests that reads a clock.

use std::time::{Duration, Instant, SystemTime};

/// Seconds since the Unix epoch.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "live tests mint tokens that are valid now")]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A reading of the monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "measuring and waiting need a clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// When to give up waiting.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// This far from now.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self(instant() + wait)
    }

    /// What is left, zero once it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(instant())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }
}
