//! How soon people must look: P0 now, P1 within four hours, P2 within one business day, P3 with the batch.
//!
//! Business days are Monday to Friday in UTC, without holidays: the data has neither a calendar nor a place.

use std::time::Duration;

use crate::capture::Time;
use crate::detect::Severity;

/// How soon people must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Now.
    P0,
    /// Within four hours.
    P1,
    /// Within one business day.
    P2,
    /// With the batch: no deadline.
    P3,
}

const DAY_S: u64 = 86_400;

impl Priority {
    /// The priority of a severity.
    #[must_use]
    pub const fn of(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::P0,
            Severity::High => Self::P1,
            Severity::Medium => Self::P2,
            Severity::Low => Self::P3,
        }
    }

    /// `P0` to `P3`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P0 => "P0",
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
        }
    }

    /// OCSF `priority_id`: 4 critical to 1 low.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::P0 => 4,
            Self::P1 => 3,
            Self::P2 => 2,
            Self::P3 => 1,
        }
    }

    /// By when, of what was raised at this time.
    #[must_use]
    pub fn due(self, raised: Time) -> Option<Time> {
        match self {
            Self::P0 => Some(raised),
            Self::P1 => Some(raised.plus(Duration::from_hours(4))),
            Self::P2 => Some(next_business_day(raised)),
            Self::P3 => None,
        }
    }
}

/// The same hour of the next business day. What comes at a weekend counts from Monday 00:00.
fn next_business_day(at: Time) -> Time {
    let day = at.secs() / DAY_S;
    // 1970-01-01 was a Thursday: Monday is 0.
    match (day + 3) % 7 {
        0..=3 => at.plus(Duration::from_secs(DAY_S)),
        4 => at.plus(Duration::from_secs(3 * DAY_S)),
        5 => Time::from_secs((day + 3) * DAY_S),
        _ => Time::from_secs((day + 2) * DAY_S),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::NOW_S;

    #[test]
    fn each_severity_has_its_deadline() {
        // A Saturday, 18:04:05.
        let raised = Time::from_secs(NOW_S);
        let hours =
            |severity| Priority::of(severity).due(raised).map(|due| due.since(raised).as_secs_f64() / 3600.0);
        assert_eq!(hours(Severity::Critical), Some(0.0));
        assert_eq!(hours(Severity::High), Some(4.0));
        assert_eq!(hours(Severity::Low), None);
    }

    #[test]
    fn a_business_day_leaps_over_the_weekend() {
        let saturday = NOW_S / DAY_S * DAY_S;
        let noon = |day: u64| Time::from_secs(saturday + day * DAY_S + DAY_S / 2);
        let midnight = |day: u64| Time::from_secs(saturday + day * DAY_S);
        let due = |day| Priority::P2.due(noon(day)).unwrap();
        assert_eq!((due(0), due(1)), (midnight(3), midnight(3)), "Saturday and Sunday: Monday has passed");
        assert_eq!((due(2), due(5), due(6)), (noon(3), noon(6), noon(9)), "Monday, Thursday, Friday");
    }
}
