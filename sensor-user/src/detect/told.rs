//! When something was said last: an attack on a service is one alert and not one for every client that took part.

use serde::{Deserialize, Serialize};

use crate::detect::Severity;

/// When a finding about one thing was told last, and how bad it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    at_s: u32,
    severity: u8,
}

impl Told {
    /// Whether to say it now: if it was not said in the last `every_s` seconds, or if it has grown worse.
    pub fn again(&mut self, at_s: u32, severity: Severity, every_s: u32) -> bool {
        let fresh = self.severity > 0 && at_s.saturating_sub(self.at_s) < every_s;
        if fresh && severity.id() <= self.severity {
            return false;
        }
        *self = Self { at_s, severity: severity.id() };
        true
    }
}

/// How often something was said today: for rules that would rather say nothing than too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daily {
    day: u32,
    told: u32,
}

impl Daily {
    /// Whether it may be said once more on this day, of so many times at most. Counts it.
    pub const fn may_tell(&mut self, day: u32, most: u32) -> bool {
        if day != self.day {
            *self = Self { day, told: 0 };
        }
        self.told = self.told.saturating_add(1);
        self.told <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_a_budget() {
        let mut daily = Daily::default();
        let said = [(7, 2), (7, 2), (7, 2), (8, 2), (8, 0)].map(|(day, most)| daily.may_tell(day, most));
        assert_eq!(said, [true, true, false, true, false]);
    }

    #[test]
    fn repeats_only_what_is_worse_or_old() {
        let mut told = Told::default();
        let said = [
            (0, Severity::High),
            (1, Severity::High),
            (2, Severity::Critical),
            (3, Severity::High),
            (603, Severity::High),
        ]
        .map(|(at, severity)| told.again(at, severity, 600));
        assert_eq!(said, [true, false, true, false, true]);
    }
}
