//! The process itself: no core dumps, and the time that things may take.

use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// SIGTERM means stopped within 5 s; this is what each of the last steps may take of it.
pub(super) const LAST_VERDICTS: Duration = Duration::from_secs(1);

/// See [`LAST_VERDICTS`].
pub(super) const LAST_ALERTS: Duration = Duration::from_secs(1);

/// See [`LAST_VERDICTS`]. What is not delivered by then is in the spool.
pub(super) const LAST_DELIVERIES: Duration = Duration::from_millis(1500);

/// See [`LAST_VERDICTS`]. Alerts that are not in the store by then are in the spool.
pub(super) const LAST_RECORDS: Duration = Duration::from_millis(700);

/// Keeps raw tokens out of core dumps and away from debuggers of the same user: they live in this memory for a moment.
pub(super) fn keep_memory_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!("cannot forbid core dumps: {error}");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("cannot forbid core dumps: {error}");
    }
}
