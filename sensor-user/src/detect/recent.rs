//! Who tried lately: a small exact set of names with their failures, that forgets the oldest.
//!
//! A sketch would be smaller, but the numbers that matter are tens, and an alert should not rest on an estimate.

use serde::{Deserialize, Serialize};

/// One name that tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    name: u32,
    /// By whom, last.
    by: u32,
    /// Its newest attempt, in seconds since the epoch.
    at_s: u32,
    /// Failures since it last succeeded or was forgotten; saturates.
    failures: u16,
    /// It succeeded within the window.
    succeeded: bool,
}

/// At most `N` names, 16 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent<const N: usize>(Vec<Seen>);

/// What a set holds within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Names that failed and did not succeed.
    pub failing: u32,
    /// Failures of these.
    pub failures: u32,
    /// Names that succeeded.
    pub succeeded: u32,
}

/// What was known of a name before an attempt, within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Failures since it last succeeded.
    pub failures: u16,
    /// Whether it had succeeded.
    pub succeeded: bool,
}

impl<const N: usize> Recent<N> {
    /// Notes an attempt under a name, made by somebody.
    pub fn note(&mut self, name: u64, by: u64, at_s: u32, failed: bool, window_s: u32) -> Before {
        let (name, by) = (short(name), short(by));
        let at = match self.0.iter().position(|seen| seen.name == name) {
            Some(at) => at,
            None => self.make(name, at_s),
        };
        let Some(seen) = self.0.get_mut(at) else { return Before::default() };
        if at_s.saturating_sub(seen.at_s) > window_s {
            *seen = Seen { name, by, at_s, failures: 0, succeeded: false };
        }
        let before = Before { failures: seen.failures, succeeded: seen.succeeded };
        seen.by = by;
        seen.at_s = seen.at_s.max(at_s);
        if failed {
            seen.failures = seen.failures.saturating_add(1);
        } else {
            seen.succeeded = true;
            seen.failures = 0;
        }
        before
    }

    /// A place for a new name: an unused one, or the oldest's.
    fn make(&mut self, name: u32, at_s: u32) -> usize {
        let fresh = Seen { name, by: 0, at_s, failures: 0, succeeded: false };
        if self.0.len() < N {
            self.0.push(fresh);
            return self.0.len() - 1;
        }
        let oldest = (0..).zip(&self.0).min_by_key(|(_, seen)| seen.at_s).map_or(0, |(at, _)| at);
        if let Some(seen) = self.0.get_mut(oldest) {
            *seen = fresh;
        }
        oldest
    }

    /// Counts what the window holds.
    #[must_use]
    pub fn tally(&self, at_s: u32, window_s: u32) -> Tally {
        let mut tally = Tally::default();
        for seen in self.within(at_s, window_s) {
            if seen.succeeded {
                tally.succeeded += 1;
            } else {
                tally.failing += 1;
                tally.failures += u32::from(seen.failures);
            }
        }
        tally
    }

    /// By whom the failing names were tried last: by how many, and how many names by the busiest of them.
    #[must_use]
    pub fn failing_by(&self, at_s: u32, window_s: u32) -> (u32, u32) {
        let mut by: Vec<u32> =
            self.within(at_s, window_s).filter(|seen| !seen.succeeded).map(|seen| seen.by).collect();
        by.sort_unstable();
        let (mut parties, mut most) = (0, 0);
        for names in by.chunk_by(|one, other| one == other) {
            parties += 1;
            most = most.max(u32::try_from(names.len()).unwrap_or(u32::MAX));
        }
        (parties, most)
    }

    fn within(&self, at_s: u32, window_s: u32) -> impl Iterator<Item = &Seen> {
        self.0.iter().filter(move |seen| at_s.saturating_sub(seen.at_s) <= window_s)
    }
}

/// Half of a hash: two of a few hundred names share it once in ten million sets.
#[allow(clippy::cast_possible_truncation, reason = "half of the hash is what is wanted")]
const fn short(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_succeeds_is_no_longer_failing() {
        let mut set = Recent::<4>::default();
        set.note(1, 9, 100, true, 60);
        set.note(1, 9, 101, true, 60);
        set.note(2, 8, 102, true, 60);
        assert_eq!(set.tally(102, 60), Tally { failing: 2, failures: 3, succeeded: 0 });
        assert_eq!(set.failing_by(102, 60), (2, 1));
        assert_eq!(set.note(1, 9, 103, false, 60), Before { failures: 2, succeeded: false });
        assert_eq!(set.tally(103, 60), Tally { failing: 1, failures: 1, succeeded: 1 });
    }

    #[test]
    fn what_slid_out_is_forgotten() {
        let mut set = Recent::<4>::default();
        set.note(1, 9, 100, true, 60);
        assert_eq!(set.tally(161, 60), Tally::default());
        set.note(1, 9, 161, true, 60);
        assert_eq!(set.tally(161, 60).failures, 1);
    }

    proptest! {
        #[test]
        fn never_holds_more_than_it_may(names in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<bool>()), 0..100)) {
            let mut set = Recent::<8>::default();
            for (name, at_s, failed) in names {
                set.note(name, name, at_s, failed, 600);
                prop_assert!(set.0.len() <= 8);
                prop_assert!(set.tally(at_s, 600).failing <= 8);
            }
        }
    }
}
