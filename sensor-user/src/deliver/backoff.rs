//! When to try again, and whether the other end is worth a whole batch.
//!
//! Delays double from half a second to five minutes. Each is drawn from its upper half, so that a thousand nodes whose
//! receiver comes back do not come back all at once. After [`TRIPS`] failures in a row the circuit is open: a single
//! event probes the other end, at the same delays, until one is taken.

use std::time::Duration;

/// The first delay.
const FIRST: Duration = Duration::from_millis(500);
/// The longest delay that we choose ourselves.
const LONGEST: Duration = Duration::from_mins(5);
/// The longest delay that the other end may ask for: beyond an hour it is broken or hostile.
const LONGEST_ASKED: Duration = Duration::from_hours(1);
/// Failures in a row that open the circuit.
const TRIPS: u32 = 5;
/// Failures in a row after which another event is tried instead: perhaps this one alone is at fault.
const DOUBTS: u32 = 10;

/// How a sink has done lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait. `asked` is the other end's wish, `chance` is drawn anew each time.
    pub fn failed(&mut self, asked: Option<Duration>, chance: u16) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let own = whole / 2 + whole / 2 * u32::from(chance) / u32::from(u16::MAX);
        // All who were asked to wait for one time come a little apart as well.
        let asked = asked.map(|asked| asked.min(LONGEST_ASKED) + own / 4);
        asked.map_or(own, |asked| asked.max(own))
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether only a probe is sent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.failures >= TRIPS
    }

    /// Whether the first event may be what the other end stumbles over, so that the second is tried in its place.
    /// Every other time, so that neither waits for the other.
    #[must_use]
    pub const fn doubts_the_first(&self) -> bool {
        self.failures >= DOUBTS && self.failures.is_multiple_of(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_end_at_five_minutes() {
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = (0..12).map(|_| backoff.failed(None, u16::MAX)).collect();
        assert_eq!(delays[..3], [500, 1_000, 2_000].map(Duration::from_millis));
        assert!(delays.is_sorted());
        assert_eq!(delays[11], LONGEST);
        assert_eq!(backoff.failed(None, 0), LONGEST / 2, "chance takes at most half");
        backoff.succeeded();
        assert_eq!(backoff.failed(None, u16::MAX), FIRST);
    }

    #[test]
    fn the_other_ends_wish_is_obeyed_within_reason() {
        let wait = |asked| Backoff::default().failed(Some(asked), 7);
        assert!(wait(Duration::from_secs(30)) >= Duration::from_secs(30));
        assert!(wait(Duration::from_secs(30)) < Duration::from_secs(31));
        assert!(wait(Duration::MAX) <= LONGEST_ASKED + FIRST);
        assert!(wait(Duration::ZERO) >= FIRST / 2, "nobody may make us hammer");
    }

    #[test]
    fn five_failures_in_a_row_open_the_circuit() {
        let mut backoff = Backoff::default();
        for failures in 0..20 {
            assert_eq!(backoff.is_open(), failures >= 5);
            assert_eq!(backoff.doubts_the_first(), [10, 12, 14, 16, 18].contains(&failures));
            backoff.failed(None, 0);
        }
        backoff.succeeded();
        assert!(!backoff.is_open());
    }
}
