//! What a sink may get now: quiet hours, gathering, and how many a minute.

use std::time::Duration;

use crate::detect::Severity;
use crate::sink::{Hours, Settings, Sink};
use crate::spool::LANES;

/// The severities, lane by lane.
pub const SEVERITIES: [Severity; LANES] =
    [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

/// When each lane is delivered.
#[derive(Clone, Debug)]
pub struct Plan {
    picked: [bool; LANES],
    patience: [Duration; LANES],
    quiet: Option<Hours>,
}

impl Plan {
    /// As the configuration and the sink itself want it.
    #[must_use]
    pub fn new(settings: &Settings, sink: &dyn Sink) -> Self {
        Self {
            picked: settings.picks.severities,
            patience: SEVERITIES.map(|severity| sink.patience(severity)),
            quiet: settings.quiet.clone(),
        }
    }

    /// Lanes that are delivered as soon as there is something, at this minute of the day.
    #[must_use]
    pub fn prompt(&self, minute: u16) -> [bool; LANES] {
        self.lanes(minute, |patience| patience.is_zero())
    }

    /// Lanes that are gathered.
    #[must_use]
    pub fn patient(&self, minute: u16) -> [bool; LANES] {
        self.lanes(minute, |patience| !patience.is_zero())
    }

    fn lanes(&self, minute: u16, fits: impl Fn(Duration) -> bool) -> [bool; LANES] {
        let quiet = self.quiet.as_ref().filter(|hours| hours.has(minute));
        let mut lanes = self.picked;
        for ((lane, severity), patience) in lanes.iter_mut().zip(SEVERITIES).zip(self.patience) {
            let waits = quiet.is_some_and(|hours| severity < hours.unless);
            *lane = *lane && !waits && fits(patience);
        }
        lanes
    }

    /// How long events of this severity are gathered.
    #[must_use]
    pub fn patience(&self, severity: Severity) -> Duration {
        self.patience.get(severity as usize).copied().unwrap_or_default()
    }

    /// How long the quiet hours last from this minute on; none if it is not quiet.
    #[must_use]
    pub fn quiet_for(&self, minute: u16) -> Option<Duration> {
        let hours = self.quiet.as_ref().filter(|hours| hours.has(minute))?;
        let left = (hours.until_min + DAY_MIN - minute) % DAY_MIN;
        Some(Duration::from_mins(left.max(1).into()))
    }
}

const DAY_MIN: u16 = 24 * 60;

impl Hours {
    /// Whether it is quiet at this minute of the day.
    #[must_use]
    pub const fn has(&self, minute: u16) -> bool {
        if self.from_min <= self.until_min {
            self.from_min <= minute && minute < self.until_min
        } else {
            self.from_min <= minute || minute < self.until_min
        }
    }
}

/// So many a minute at most: what is not used in one minute is not saved for the next.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_minute: Option<u32>,
    left: f64,
    at_ms: u64,
}

impl Rate {
    /// This many a minute; none: as many as there are.
    #[must_use]
    pub fn new(per_minute: Option<u32>) -> Self {
        Self { per_minute, left: per_minute.unwrap_or(0).into(), at_ms: 0 }
    }

    /// How many may go now.
    pub fn allowance(&mut self, now_ms: u64) -> usize {
        let Some(most) = self.per_minute else { return usize::MAX };
        #[allow(clippy::cast_precision_loss, reason = "milliseconds between two looks")]
        let passed = now_ms.saturating_sub(self.at_ms) as f64;
        self.at_ms = now_ms;
        self.left = (self.left + passed * f64::from(most) / 60_000.0).min(most.into());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
        let whole = self.left as usize;
        whole
    }

    /// So many went.
    pub fn spend(&mut self, events: usize) {
        if self.per_minute.is_some() {
            self.left -= f64::from(u32::try_from(events).unwrap_or(u32::MAX));
        }
    }

    /// How long until one more may go.
    #[must_use]
    pub fn until_one(&self) -> Duration {
        let Some(most) = self.per_minute else { return Duration::ZERO };
        let missing = (1.0 - self.left).max(0.0);
        Duration::from_secs_f64((missing * 60.0 / f64::from(most.max(1))).min(60.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: u16, until: u16) -> Hours {
        Hours { from_min: from * 60, until_min: until * 60, unless: Severity::High }
    }

    fn plan(quiet: Option<Hours>) -> Plan {
        let minute = Duration::from_mins(1);
        Plan {
            picked: [true, true, true, false],
            patience: [minute, Duration::ZERO, Duration::ZERO, minute],
            quiet,
        }
    }

    #[test]
    fn each_lane_is_prompt_or_gathered() {
        let plan = plan(None);
        assert_eq!(plan.prompt(0), [false, true, true, false]);
        assert_eq!(plan.patient(0), [true, false, false, false], "what is not picked is neither");
    }

    #[test]
    fn quiet_hours_hold_back_what_can_wait() {
        let plan = plan(Some(hours(22, 7)));
        for (hour, is_quiet) in [(21, false), (22, true), (0, true), (6, true), (7, false)] {
            assert_eq!(plan.prompt(hour * 60), [false, !is_quiet, true, false], "{hour}");
            assert_eq!(plan.patient(hour * 60)[0], !is_quiet);
            assert_eq!(plan.quiet_for(hour * 60).is_some(), is_quiet);
        }
        assert_eq!(plan.quiet_for(23 * 60), Some(Duration::from_hours(8)));
        assert!(hours(9, 17).has(12 * 60));
        assert!(!hours(9, 17).has(17 * 60));
    }

    #[test]
    fn no_more_than_so_many_go_in_a_minute() {
        let mut rate = Rate::new(Some(60));
        let mut sent = 0;
        for second in 0..120 {
            let now = rate.allowance(1_000_000 + second * 1_000).min(5);
            rate.spend(now);
            sent += now;
        }
        assert!((60 + 119..=60 + 120).contains(&sent), "{sent}");
        assert!(rate.until_one() <= Duration::from_secs(1));
        assert_eq!(Rate::new(None).allowance(5), usize::MAX);
    }
}
