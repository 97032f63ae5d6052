//! How many different names something has carried, roughly: what tells a shared address from a person's.

use serde::{Deserialize, Serialize};

use crate::detect::roster::{Slot, stable_hash};

/// Seconds in which names are gathered; the gathering before still counts.
const GATHERING_S: u32 = 3600;

/// Names as two sketches: one bit of 64 a name, so that `n` set bits mean at least `n` names. 24 bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Crowd {
    since_s: u32,
    now: u64,
    before: u64,
}

impl Crowd {
    /// Notes a name.
    pub fn note(&mut self, name: Slot, at_s: u32) {
        if self.since_s == 0 || at_s.saturating_sub(self.since_s) > GATHERING_S {
            *self = Self { since_s: at_s, now: 0, before: self.now };
        }
        self.now |= 1 << (stable_hash(&(name.at, name.life)) >> 58);
    }

    /// At least so many names were noted within the last hour or two.
    #[must_use]
    pub const fn size(&self) -> u32 {
        (self.now | self.before).count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_names_and_not_their_uses() {
        let mut crowd = Crowd::default();
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
        let mut crowd = Crowd::default();
        crowd.note(Slot { at: 1, life: 1 }, 1000);
        crowd.note(Slot { at: 2, life: 1 }, 5000);
        assert_eq!(crowd.size(), 2);
        crowd.note(Slot { at: 2, life: 1 }, 9000);
        assert_eq!(crowd.size(), 1);
    }
}
