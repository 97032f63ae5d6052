//! How many different names something has carried of late, roughly: what tells a shared address from a person's, and a
//! route that refuses everybody from one that refuses somebody.

use serde::{Deserialize, Serialize};

use crate::detect::Threshold;
use crate::detect::roster::{Slot, stable_hash};
use crate::detect::sketch::Crowd;

/// Names of an hour.
pub const HOUR_S: u32 = 3600;

/// Names of a day.
pub const DAY_S: u32 = 86_400;

/// The threshold of rules that leave shared addresses alone.
pub const SHARED_AFTER: Threshold = Threshold {
    key: "shared_after",
    default: 8.0,
    min: 2.0,
    max: 64.0,
    doc: "Principals seen at one address after which it counts as shared by many.",
};

/// A crowd that forgets: those who were noted within the gathering at hand, and those of the one before, however long
/// ago that was. A gathering lasts so many seconds from its first name on. 24 bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct FadingCrowd<const GATHERING_S: u32 = HOUR_S> {
    since_s: u32,
    now: Crowd,
    before: Crowd,
}

impl<const GATHERING_S: u32> FadingCrowd<GATHERING_S> {
    /// Notes a name.
    pub fn note(&mut self, name: Slot, at_s: u32) {
        if self.since_s == 0 || at_s.saturating_sub(self.since_s) >= GATHERING_S {
            *self = Self { since_s: at_s, now: Crowd::default(), before: self.now };
        }
        self.now.add(stable_hash(&name));
    }

    /// At least so many names were noted within the last gathering or two.
    #[must_use]
    pub const fn size(&self) -> u32 {
        Crowd(self.now.0 | self.before.0).size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_names_and_not_their_uses() {
        let mut crowd = FadingCrowd::<HOUR_S>::default();
        for use_ in 0..1000 {
            crowd.note(Slot { at: use_ % 3, life: 1 }, 1000 + use_);
        }
        assert_eq!(crowd.size(), 3);
        for name in 0..1000 {
            crowd.note(Slot { at: name, life: 1 }, 2000);
        }
        assert_eq!(crowd.size(), 64);
    }

    #[test]
    fn forgets_after_two_gatherings() {
        let mut crowd = FadingCrowd::<HOUR_S>::default();
        crowd.note(Slot { at: 1, life: 1 }, 1000);
        crowd.note(Slot { at: 2, life: 1 }, 5000);
        assert_eq!(crowd.size(), 2);
        crowd.note(Slot { at: 2, life: 1 }, 9000);
        assert_eq!(crowd.size(), 1);
    }
}
