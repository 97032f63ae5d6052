//! Learn before you judge: how well a principal is known.
//!
//! A rule that says "never seen before" needs a before. A principal is *learned* after so many days, or after so many
//! logins; a new token counts as a login, but refreshing one every few minutes does not. After a long silence
//! learning begins anew.

use serde::{Deserialize, Serialize};

use crate::detect::Threshold;
use crate::detect::roster::Slot;

/// Tokens that follow each other faster are refreshed ones. Access tokens live for 5 to 60 minutes.
const LOGIN_APART_S: u32 = 600;

/// Silence after which what was learned is out of date.
const STALE_S: u32 = 60 * DAY_S;

/// Seconds of a day.
pub const DAY_S: u32 = 86_400;

/// The day of a second: good until the year 2149.
#[must_use]
pub fn day(at_s: u32) -> u16 {
    u16::try_from(at_s / DAY_S).unwrap_or(u16::MAX)
}

/// What a rule knows of one principal's past. 24 bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Learning {
    token: Slot,
    first_s: u32,
    last_s: u32,
    login_s: u32,
    logins: u8,
}

/// When a principal counts as learned.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Days since it was first seen.
    pub days: u32,
    /// Or logins.
    pub logins: u32,
}

/// The threshold for [`Gate::days`].
pub const LEARN_DAYS: Threshold = Threshold {
    key: "learn_days",
    default: 14.0,
    min: 0.0,
    max: 365.0,
    doc: "Days for which a principal must be known.",
};

/// The threshold for [`Gate::logins`].
pub const LEARN_LOGINS: Threshold = Threshold {
    key: "learn_logins",
    default: 10.0,
    min: 0.0,
    max: 200.0,
    doc: "Logins after which it is known well enough before that.",
};

impl Learning {
    /// Notes a use of a token. True if the principal was silent for so long that what was learned is void.
    pub fn note(&mut self, token: Slot, at_s: u32) -> bool {
        let stale = self.last_s > 0 && at_s.saturating_sub(self.last_s) > STALE_S;
        if stale || self.first_s == 0 {
            *self = Self { first_s: at_s.max(1), ..Self::default() };
        }
        self.last_s = self.last_s.max(at_s);
        if token != self.token {
            self.token = token;
            if self.logins == 0 || at_s.saturating_sub(self.login_s) >= LOGIN_APART_S {
                self.logins = self.logins.saturating_add(1);
                self.login_s = at_s;
            }
        }
        stale
    }

    /// Whether it is known well enough, not counting the login of now.
    #[must_use]
    pub fn is_learned(&self, gate: Gate, at_s: u32) -> bool {
        u32::from(self.logins) > gate.logins
            || at_s.saturating_sub(self.first_s) >= gate.days.saturating_mul(DAY_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate { days: 14, logins: 10 };

    fn token(number: u32) -> Slot {
        Slot { at: number, life: 1 }
    }

    #[test]
    fn ten_logins_or_fourteen_days_are_enough() {
        let mut learning = Learning::default();
        for login in 0..10 {
            learning.note(token(login), 1000 + login * 3600);
            assert!(!learning.is_learned(GATE, 1000 + login * 3600), "{login}");
        }
        learning.note(token(10), 40_000);
        assert!(learning.is_learned(GATE, 40_000));
        let mut slow = Learning::default();
        slow.note(token(1), 1000);
        assert!(!slow.is_learned(GATE, 1000 + 14 * DAY_S - 1));
        assert!(slow.is_learned(GATE, 1000 + 14 * DAY_S));
    }

    #[test]
    fn refreshing_is_no_login() {
        let mut learning = Learning::default();
        for refresh in 0..50 {
            learning.note(token(refresh), 1000 + refresh * 60);
        }
        assert!(!learning.is_learned(GATE, 4000));
    }

    #[test]
    fn silence_begins_it_anew() {
        let mut learning = Learning::default();
        assert!(!learning.note(token(1), 1000));
        assert!(!learning.note(token(1), 1000 + STALE_S));
        assert!(learning.note(token(1), 1001 + 2 * STALE_S));
        assert!(!learning.is_learned(GATE, 1001 + 2 * STALE_S));
    }
}
