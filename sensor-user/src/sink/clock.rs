//! The time of day, for what a receiver judges by it: signatures, tokens that expire, alerts that end.
//!
//! No event takes its time from here, and no delivery its patience.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The clock on the wall.
#[must_use]
pub fn wall() -> Clock {
    #[allow(
        clippy::disallowed_methods,
        reason = "receivers compare what a signature says with their own clock"
    )]
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Arc::new(move || u64::try_from(now().as_millis()).unwrap_or(u64::MAX))
}
