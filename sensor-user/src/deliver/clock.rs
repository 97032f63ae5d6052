//! Time and chance, as delivery needs them: tests bring their own.

#![allow(clippy::disallowed_methods, reason = "delays, quiet hours and dead letters are about real time")]

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What a worker knows of time and chance.
#[derive(Clone)]
pub struct Clock {
    /// Now, for delays.
    pub instant: fn() -> Instant,
    /// Now, in milliseconds since the epoch.
    pub now_ms: fn() -> u64,
    /// The minute of the day where quiet hours are measured.
    pub minute: Arc<dyn Fn() -> u16 + Send + Sync>,
    /// A number that nobody can guess.
    pub chance: fn() -> u16,
}

impl Clock {
    /// The host's. Quiet hours are measured in this zone.
    #[must_use]
    pub fn of_host(zone: TimeZone) -> Self {
        Self { instant: Instant::now, now_ms, minute: Arc::new(move || minute(&zone)), chance }
    }
}

/// Milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn minute(zone: &TimeZone) -> u16 {
    let now = Timestamp::now().to_zoned(zone.clone());
    u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0)
}

fn chance() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness delays are merely less spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}
