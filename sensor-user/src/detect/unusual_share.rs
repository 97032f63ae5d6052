//! The share of attempts that fail at one service, beside what is usual there.
//!
//! Five one-minute buckets are compared with a long average of the same service, so that a service where a tenth
//! always fails does not alarm for ever, and with the noise of small numbers. Before enough has been seen to know what
//! is usual, only the serious share counts. 88 bytes.

use serde::{Deserialize, Serialize};

use crate::detect::told::Told;
use crate::detect::window::Buckets;
use crate::detect::{About, DetectSettings, Severity};

/// Attempts after which the usual share is believed.
const LEARNED: f32 = 200.0;

/// Attempts that the usual share is made of: older ones fade.
const FADE: f32 = 20_000.0;

/// Minutes that are judged together.
const MINUTES: u64 = 5;

/// Seconds after which the same is said again.
const AGAIN_S: u32 = 1800;

/// From which shares on to speak.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    warn: f32,
    serious: f32,
    attempts: u32,
}

impl Limits {
    /// From `warn_percent`, `high_percent` and `min_attempts`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "percentages need no more precision")]
    pub fn of(settings: &DetectSettings, about: &About) -> Self {
        let share = |key| settings.threshold(about, key) as f32 / 100.0;
        Self {
            warn: share("warn_percent"),
            serious: share("high_percent"),
            attempts: settings.count(about, "min_attempts"),
        }
    }
}

/// Attempts at one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UnusualShare {
    good: Buckets<8>,
    failed: Buckets<8>,
    /// Failures and attempts of the past, faded.
    past: (f32, f32),
    minute: u64,
    told: Told,
}

/// A share that is worth saying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// How bad.
    pub severity: Severity,
    /// Attempts in the window.
    pub attempts: u32,
    /// Failures in the window.
    pub failures: u32,
    /// Percent that fail usually; none if that is not known yet.
    pub usual_percent: Option<f32>,
}

impl UnusualShare {
    /// Counts an attempt.
    #[inline]
    pub fn add(&mut self, at_s: u64, failed: bool) {
        let minute = at_s / 60;
        if minute > self.minute {
            self.learn();
            self.minute = minute;
        }
        if failed { self.failed.add(minute) } else { self.good.add(minute) }
    }

    /// Takes the minute that has ended into the average. A burst counts no more than twice what is usual: an attack
    /// must not teach that failing is normal.
    fn learn(&mut self) {
        let (good, failed) = (self.good.sum(self.minute, 1), self.failed.sum(self.minute, 1));
        let (good, mut failed) = (number(good), number(failed));
        let attempts = good + failed;
        if let Some(usual) = self.usual() {
            failed = failed.min(attempts * (2.0 * usual).max(0.02));
        }
        self.past = (self.past.0 + failed, self.past.1 + attempts);
        if self.past.1 > FADE {
            self.past = (self.past.0 / 2.0, self.past.1 / 2.0);
        }
    }

    fn usual(&self) -> Option<f32> {
        (self.past.1 >= LEARNED).then(|| self.past.0 / self.past.1)
    }

    /// What is to be said after a failure.
    pub fn judge(&mut self, at_s: u64, limits: &Limits) -> Option<Excess> {
        let minute = at_s / 60;
        let failures = self.failed.sum(minute, MINUTES);
        let attempts = failures + self.good.sum(minute, MINUTES);
        if attempts < limits.attempts.max(1) {
            return None;
        }
        let share = number(failures) / number(attempts);
        let usual = self.usual();
        // Three standard deviations of a share of so few attempts.
        let expected =
            usual.map_or(0.0, |usual| 2.0 * usual + 3.0 * (usual * (1.0 - usual) / number(attempts)).sqrt());
        let severity = if share > limits.serious.max(expected) {
            Severity::High
        } else if share > limits.warn.max(expected) && usual.is_some() {
            Severity::Medium
        } else {
            return None;
        };
        let at_s = u32::try_from(at_s).unwrap_or(u32::MAX);
        if !self.told.again(at_s, severity, AGAIN_S) {
            return None;
        }
        Some(Excess { severity, attempts, failures, usual_percent: usual.map(|usual| usual * 100.0) })
    }
}

#[allow(clippy::cast_precision_loss, reason = "five buckets of 65,535 are exact in an f32")]
const fn number(count: u32) -> f32 {
    count as f32
}

/// At most so many failures of one party count within five minutes, and none beyond: neither as failure nor as
/// attempt. One client that fails over and over is no failing service.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Capped {
    window: u32,
    failures: u8,
}

impl Capped {
    /// Whether this failure counts.
    pub fn counts(&mut self, at_s: u32, cap: u8) -> bool {
        if at_s / 300 != self.window {
            *self = Self { window: at_s / 300, failures: 0 };
        }
        self.failures = self.failures.saturating_add(1);
        self.failures <= cap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { warn: 0.1, serious: 0.3, attempts: 50 };

    /// Feeds so many minutes of 100 attempts each, of which so many fail.
    fn run(share: &mut UnusualShare, from: u64, minutes: u64, failing: u64) -> Vec<Severity> {
        let mut said = Vec::new();
        for minute in from..from + minutes {
            for attempt in 0..100 {
                let failed = attempt < failing;
                share.add(minute * 60, failed);
                if failed {
                    said.extend(share.judge(minute * 60, &LIMITS).map(|f| f.severity));
                }
            }
        }
        said
    }

    #[test]
    fn warns_above_a_tenth_and_is_high_above_three() {
        let mut share = UnusualShare::default();
        assert_eq!(run(&mut share, 1000, 10, 3), []);
        assert_eq!(run(&mut share, 1010, 6, 14), [Severity::Medium]);
        assert_eq!(run(&mut share, 1100, 6, 60).last(), Some(&Severity::High));
    }

    #[test]
    fn what_is_usual_is_no_news() {
        let mut share = UnusualShare::default();
        assert_eq!(run(&mut share, 1000, 200, 15), []);
        assert_eq!(run(&mut share, 1200, 10, 20), []);
        assert_eq!(run(&mut share, 1210, 10, 50), [Severity::High]);
    }

    #[test]
    fn a_long_attack_does_not_become_usual_at_once() {
        let mut share = UnusualShare::default();
        run(&mut share, 1000, 60, 3);
        run(&mut share, 1060, 30, 90);
        assert!(share.usual().unwrap() < 0.06, "{:?}", share.usual());
    }

    #[test]
    fn small_numbers_say_nothing() {
        let mut share = UnusualShare::default();
        for _ in 0..49 {
            share.add(60_000, true);
            assert_eq!(share.judge(60_000, &LIMITS), None);
        }
        share.add(60_000, true);
        assert!(share.judge(60_000, &LIMITS).is_some());
    }

    #[test]
    fn one_party_counts_a_few_times() {
        let mut capped = Capped::default();
        let counted = |capped: &mut Capped, at| (0..10).filter(|_| capped.counts(at, 3)).count();
        assert_eq!(counted(&mut capped, 3000), 3);
        assert_eq!(counted(&mut capped, 3299), 0);
        assert_eq!(counted(&mut capped, 3300), 3);
    }
}
