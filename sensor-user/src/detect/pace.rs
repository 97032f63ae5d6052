//! How fast each token is used: a count for each of the last seconds, of every live token.
//!
//! Nearly all tokens are used less than 256 times a second and are never told of twice, so a byte a second will do. What
//! does not fit is kept as it was counted before, in a table beside, until it is quiet again; the numbers are the same.

use serde::{Deserialize, Serialize};

use crate::detect::Slot;
use crate::detect::mostly::{Mostly, Small};
use crate::detect::window::Buckets;

/// Seconds that are counted: the longest window and one.
const SECONDS: usize = SPAN as usize;

/// The same, of seconds.
const SPAN: u32 = 16;

/// The whole of it, and the form in which it is saved.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Pace {
    /// Uses by second.
    pub counts: Buckets<SECONDS>,
    /// Until when nothing more is said of a rate that stays.
    pub quiet_until_s: u32,
    /// Whether the higher rate was told.
    pub told_medium: bool,
}

/// What most tokens need of it.
#[derive(Clone, Copy, Default)]
pub struct Calm {
    /// The newest second; [`BUSY`] for those that are kept elsewhere.
    newest: u32,
    counts: [u8; SECONDS],
    /// Until when nothing more is said of a rate that stays.
    pub quiet_until_s: u32,
}

const _: () = assert!(size_of::<(u32, Calm)>() == 28, "one for each live token");

/// No second of the data: what is later than 2106 counts as the second before.
const BUSY: u32 = u32::MAX;

impl Calm {
    /// Counts one use; false if it does not fit.
    #[inline]
    fn add(&mut self, second: u32) -> bool {
        let age = self.newest.saturating_sub(second) as usize;
        if age >= SECONDS {
            return true;
        }
        let gone = second.saturating_sub(self.newest).min(SPAN);
        for gone in 0..gone {
            if let Some(count) = self.counts.get_mut(place(second - gone)) {
                *count = 0;
            }
        }
        self.newest = self.newest.max(second);
        let count = self.counts.get_mut(place(second));
        let more = count.as_ref().and_then(|count| count.checked_add(1));
        count.zip(more).map(|(count, more)| *count = more).is_some()
    }

    /// Uses in the `last` seconds that end with `second`.
    #[inline]
    #[must_use]
    pub fn sum(&self, second: u64, last: u64) -> u32 {
        let second = seconds(second);
        let first = (u64::from(second) + 1).saturating_sub(last.min(SECONDS as u64));
        let oldest = (u64::from(self.newest) + 1).saturating_sub(SECONDS as u64);
        let held = first.max(oldest)..u64::from(second.min(self.newest)) + 1;
        held.map(|second| self.counts.get(place(seconds(second))).map_or(0, |count| u32::from(*count))).sum()
    }
}

impl Small<Pace> for Calm {
    const ELSEWHERE: Self = Self { newest: BUSY, counts: [0; SECONDS], quiet_until_s: 0 };

    #[inline]
    fn is_elsewhere(&self) -> bool {
        self.newest == BUSY
    }

    fn of(pace: &Pace) -> Option<Self> {
        let (newest, counts) = pace.counts.parts();
        let few = counts.iter().all(|count| u8::try_from(*count).is_ok());
        let counts = counts.map(|count| u8::try_from(count).unwrap_or(u8::MAX));
        let calm = Self { newest, counts, quiet_until_s: pace.quiet_until_s };
        (few && !pace.told_medium && !calm.is_elsewhere()).then_some(calm)
    }

    fn whole(&self) -> Pace {
        let Self { newest, counts, quiet_until_s } = *self;
        Pace { counts: Buckets::of(newest, counts.map(u16::from)), quiet_until_s, told_medium: false }
    }
}

/// The pace of each token.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Paces(Mostly<Calm, Pace>);

impl Paces {
    /// Counts a use if the token is one of most, which it is again once it has been quiet.
    #[inline]
    pub fn note(&mut self, token: Slot, second: u64) -> Option<&mut Calm> {
        let now = seconds(second);
        if self.0.small(token).is_elsewhere() && !self.calms_down(token, now) {
            return None;
        }
        if !self.0.small(token).add(now) {
            self.hurry(token);
            return None;
        }
        Some(self.0.small(token))
    }

    /// The pace of a token that is none of most.
    #[inline]
    pub fn busy(&mut self, token: Slot) -> Option<&mut Pace> {
        self.0.other(token)
    }

    /// Asks for a place that is needed later.
    #[inline]
    pub fn glance(&self, at: u32) {
        self.0.glance(at);
    }

    /// Keeps a token's pace as a whole from now on.
    #[cold]
    pub fn hurry(&mut self, token: Slot) {
        let pace = self.0.take(token);
        self.0.put_whole(token, pace);
    }

    /// Whether a token of the others has been quiet for longer than anything of it counts.
    #[cold]
    fn calms_down(&mut self, token: Slot, now: u32) -> bool {
        let Some(pace) = self.0.other(token) else { return true };
        let (newest, _) = pace.counts.parts();
        let silent = now.saturating_sub(newest) as usize >= SECONDS;
        if silent && now.saturating_sub(pace.quiet_until_s) as usize > SECONDS {
            self.0.put(token, Pace::default());
            return true;
        }
        false
    }
}

const fn place(second: u32) -> usize {
    second as usize % SECONDS
}

fn seconds(second: u64) -> u32 {
    u32::try_from(second).unwrap_or(u32::MAX).min(BUSY - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::detect::Column;

    const TOKEN: Slot = Slot { at: 2, life: 7 };

    /// Counts a use, and the uses in the window.
    fn count(paces: &mut Paces, second: u64, last: u64) -> u32 {
        if let Some(calm) = paces.note(TOKEN, second) {
            return calm.sum(second, last);
        }
        let pace = paces.busy(TOKEN).unwrap();
        pace.counts.add(second);
        pace.counts.sum(second, last)
    }

    proptest! {
        /// Bursts, pauses, and answers that come late, some of them saved in between.
        #[test]
        fn counts_as_whole_counts_do(
            uses in prop::collection::vec((0_u64..40, 1_u32..300, 0_u8..10), 0..60), last in 1_u64..16,
        ) {
            let (mut paces, mut whole) = (Paces::default(), Buckets::<SECONDS>::default());
            let mut base = 1_000_000_000;
            for (second, burst, what) in uses {
                base += if what == 0 { 30 } else { 0 };
                for _ in 0..burst {
                    whole.add(base + second);
                    prop_assert_eq!(count(&mut paces, base + second, last), whole.sum(base + second, last));
                }
                if what == 1 {
                    paces = postcard::from_bytes(&postcard::to_allocvec(&paces).unwrap()).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_burst_needs_a_place_of_its_own_until_it_is_over() {
        let mut paces = Paces::default();
        (0..300).for_each(|_| _ = count(&mut paces, 1000, 5));
        assert!(paces.busy(TOKEN).is_some());
        assert_eq!(count(&mut paces, 1001, 5), 301);
        assert_eq!(count(&mut paces, 1100, 5), 1);
        assert!(paces.busy(TOKEN).is_none());
    }

    #[test]
    fn is_saved_as_a_column_was() {
        let (mut paces, mut column) = (Paces::default(), Column::<Pace>::default());
        for second in [1000, 1001, 1001, 1007] {
            count(&mut paces, second, 5);
            column.of(TOKEN).counts.add(second);
        }
        let saved = postcard::to_allocvec(&column).unwrap();
        assert_eq!(postcard::to_allocvec(&paces).unwrap(), saved);
    }
}
