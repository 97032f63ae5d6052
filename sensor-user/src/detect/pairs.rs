//! Pairs of client families that belong to one application: a native client and its web view share a token.
//!
//! What counts is who was seen to use both from one address: a thief's client is elsewhere than its victim's, so that
//! many thefts do not look like an application. It takes several callers at several addresses; whoever holds as many
//! accounts and addresses of his own can teach a pair.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::family::Family;
use crate::detect::roster::{Slot, stable_hash};
use crate::detect::sketch::Crowd;

/// Pairs remembered of one service: an application has a handful of parts.
const MAX_PAIRS: usize = 6;

/// Addresses at which a pair must have been seen: one office that tries things out is no application.
const MIN_ADDRESSES: u32 = 3;

/// A pair, who used it, and where.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Mixed {
    families: (Family, Family),
    callers: Crowd,
    addresses: Crowd,
}

/// The pairs of one service: 120 bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pairs(ArrayVec<Mixed, MAX_PAIRS>);

const fn ordered(one: Family, other: Family) -> (Family, Family) {
    if one.0 < other.0 { (one, other) } else { (other, one) }
}

impl Pairs {
    /// Notes that a caller has used both families from one address.
    pub fn note(&mut self, one: Family, other: Family, caller: Slot, address: Slot) {
        let families = ordered(one, other);
        let at = self.0.iter().position(|mixed| mixed.families == families).unwrap_or_else(|| {
            if self.0.is_full() {
                // Made-up families push out one another, and never a pair that many use.
                let rarest = (0..).zip(&self.0).min_by_key(|(_, mixed)| mixed.callers.size());
                let rarest = rarest.map_or(0, |(at, _)| at);
                self.0.swap_remove(rarest);
            }
            self.0.push(Mixed { families, callers: Crowd::default(), addresses: Crowd::default() });
            self.0.len() - 1
        });
        if let Some(mixed) = self.0.get_mut(at) {
            mixed.callers.add(stable_hash(&caller));
            mixed.addresses.add(stable_hash(&address));
        }
    }

    /// Whether at least so many callers have used both.
    #[must_use]
    pub fn are_one(&self, one: Family, other: Family, callers: u32) -> bool {
        let families = ordered(one, other);
        self.0.iter().any(|mixed| {
            mixed.families == families
                && mixed.callers.size() >= callers
                && mixed.addresses.size() >= MIN_ADDRESSES
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn slot(at: u32) -> Slot {
        Slot { at, life: 1 }
    }

    #[test]
    fn a_pair_is_one_application_after_several_callers_at_several_addresses() {
        let (mut pairs, native, view) = (Pairs::default(), Family(9), Family(5));
        for caller in 0..20 {
            pairs.note(native, view, slot(caller), slot(100));
        }
        assert!(!pairs.are_one(native, view, 5), "one office");
        for caller in 0..20 {
            pairs.note(view, native, slot(caller), slot(caller));
        }
        assert!(pairs.are_one(native, view, 5) && pairs.are_one(view, native, 5));
        assert!(!pairs.are_one(native, Family(7), 5));
        let mut one = Pairs::default();
        for time in 0..100 {
            one.note(native, view, slot(1), slot(time));
        }
        assert!(!one.are_one(native, view, 2), "one caller");
    }

    #[test]
    fn made_up_families_do_not_push_out_a_pair_of_many() {
        let mut pairs = Pairs::default();
        for caller in 0..20 {
            pairs.note(Family(2), Family(3), slot(caller), slot(caller));
        }
        for made_up in 100..5000 {
            pairs.note(Family(2), Family(made_up), slot(1), slot(1));
        }
        assert!(pairs.are_one(Family(2), Family(3), 5));
        assert!(pairs.0.len() <= MAX_PAIRS);
    }
}
