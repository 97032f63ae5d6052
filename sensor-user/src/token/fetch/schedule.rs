//! When to fetch an issuer's keys: by age, after failures, on demand. Pure: time is handed in.

use std::time::Duration;

use hashbrown::HashMap;

/// Bounds of how long keys are used before they are fetched again, whatever configuration and issuer say: a minute,
/// so that nobody is hammered; a day, so that a withdrawn key does not live for weeks.
pub(super) const AGE: std::ops::RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24);

/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_mins(10);

/// How long a `kid` that was asked for is not asked for again.
const NEGATIVE: Duration = Duration::from_mins(1);

/// Shortest pause between two fetches on demand: a forger decides when they are due.
const FORCED_PAUSE: Duration = Duration::from_secs(30);

/// Most `kid`s remembered; beyond it demands are ignored until some expire. 1024 of 256 bytes.
const MAX_KIDS: usize = 1024;

/// One issuer's timetable. Times count from any fixed start.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    next: Duration,
    failures: u32,
    forced: Option<Duration>,
    asked: HashMap<Box<str>, Duration, foldhash::fast::RandomState>,
}

impl Schedule {
    /// Due at once.
    pub(super) fn new(refresh: Duration) -> Self {
        Self { refresh, next: Duration::ZERO, failures: 0, forced: None, asked: HashMap::default() }
    }

    /// When the next fetch is due.
    pub(super) const fn next(&self) -> Duration {
        self.next
    }

    /// Keys were fetched; their server says how long they keep. Up to a tenth is taken off by `jitter` (0 to 1),
    /// so that a fleet of sensors does not come all at once.
    pub(super) fn succeeded(&mut self, now: Duration, max_age: Option<Duration>, jitter: f64) {
        let age = max_age.map_or(self.refresh, |age| age.min(self.refresh)).clamp(*AGE.start(), *AGE.end());
        self.failures = 0;
        self.next = now + age.mul_f64(1.0 - 0.1 * jitter.clamp(0.0, 1.0));
    }

    /// The fetch failed: the pause doubles from a second to ten minutes, half of it by `jitter` (0 to 1).
    pub(super) fn failed(&mut self, now: Duration, jitter: f64) {
        let pause = Duration::from_secs(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures += 1;
        self.next = now + pause.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    }

    /// A token asks for a `kid` that is not there. Brings the next fetch forward, unless this one was asked for
    /// lately, fetches are failing, or the last one on demand was less than half a minute ago.
    pub(super) fn want(&mut self, now: Duration, kid: &str) {
        self.asked.retain(|_, until| *until > now);
        if self.asked.contains_key(kid) || self.asked.len() >= MAX_KIDS {
            return;
        }
        self.asked.insert(kid.into(), now + NEGATIVE);
        if self.failures > 0 {
            return;
        }
        let due = self.forced.map_or(now, |last| now.max(last + FORCED_PAUSE));
        if due < self.next {
            self.forced = Some(due);
            self.next = due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn age_is_the_shorter_of_both_within_bounds() {
        let cases = [
            (600, None, 600),
            (600, Some(120), 120),
            (600, Some(86_400), 600),
            (600, Some(0), 60),
            (1, None, 60),
            (1_000_000, Some(10_000_000), 86_400),
        ];
        for (refresh, max_age, expected) in cases {
            let mut schedule = Schedule::new(s(refresh));
            assert_eq!(schedule.next(), s(0), "due at once");
            schedule.succeeded(s(5), max_age.map(s), 0.0);
            assert_eq!(schedule.next(), s(5 + expected));
            schedule.succeeded(s(5), max_age.map(s), 1.0);
            assert_eq!(schedule.next(), s(5) + s(expected).mul_f64(0.9));
        }
    }

    #[test]
    fn failures_back_off_to_ten_minutes_and_success_forgets_them() {
        let mut schedule = Schedule::new(s(600));
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.failed(s(0), 1.0);
            pauses.push(schedule.next().as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        schedule.failed(s(0), 0.0);
        assert_eq!(schedule.next(), s(300));
        schedule.succeeded(s(0), None, 0.0);
        schedule.failed(s(0), 1.0);
        assert_eq!(schedule.next(), s(1));
    }

    #[test]
    fn demands_are_rare_however_many_kids_are_made_up() {
        let mut schedule = Schedule::new(s(600));
        schedule.succeeded(s(0), None, 0.0);
        schedule.want(s(10), "a");
        assert_eq!(schedule.next(), s(10), "the first one at once");
        schedule.succeeded(s(10), None, 0.0);
        schedule.want(s(11), "a");
        assert_eq!(schedule.next(), s(610), "asked for lately");
        schedule.want(s(11), "b");
        assert_eq!(schedule.next(), s(40), "half a minute after the last");
        for at in 0..10_000 {
            schedule.want(s(12), &format!("kid-{at}"));
        }
        assert_eq!(schedule.next(), s(40));
        assert!(schedule.asked.len() <= MAX_KIDS);
        schedule.succeeded(s(40), None, 0.0);
        schedule.want(s(80), "a");
        assert_eq!(schedule.next(), s(80), "after a minute it may be asked for again");
    }

    #[test]
    fn demands_do_not_break_into_back_off() {
        let mut schedule = Schedule::new(s(600));
        for _ in 0..8 {
            schedule.failed(s(0), 1.0);
        }
        schedule.want(s(1), "a");
        assert_eq!(schedule.next(), s(128));
    }
}
