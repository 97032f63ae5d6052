//! Sliding counts: how many events fell into the last so many buckets of time.

use serde::{Deserialize, Serialize};

/// Counts in `N` buckets of equal width, the newest of which is bucket number `newest`.
///
/// The caller numbers buckets (time divided by width), so one type serves every width. Counts saturate. Numbers beyond
/// 32 bits, which are seconds after the year 2106, are one bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Buckets<const N: usize> {
    newest: u32,
    #[serde(with = "counts")]
    counts: [u16; N],
}

/// Arrays of any length, which serde itself does not know.
mod counts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        counts: &[u16; N],
        out: S,
    ) -> Result<S::Ok, S::Error> {
        counts.as_slice().serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u16; N], D::Error> {
        let read = Vec::<u16>::deserialize(from)?;
        let wrong =
            |read: Vec<u16>| serde::de::Error::invalid_length(read.len(), &"as many buckets as it has");
        read.try_into().map_err(wrong)
    }
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { newest: 0, counts: [0; N] }
    }
}

impl<const N: usize> Buckets<N> {
    /// Counts in their places, and the number of the newest bucket.
    #[must_use]
    pub const fn of(newest: u32, counts: [u16; N]) -> Self {
        Self { newest, counts }
    }

    /// What [`Self::of`] makes it of.
    #[must_use]
    pub const fn parts(&self) -> (u32, [u16; N]) {
        (self.newest, self.counts)
    }

    /// Counts one event in `bucket`. Events older than every bucket are ignored.
    #[inline]
    pub fn add(&mut self, bucket: u64) {
        let newest = u64::from(self.newest);
        if bucket > newest {
            self.advance(bucket);
        } else if newest - bucket >= N as u64 {
            return;
        }
        if let Some(count) = self.counts.get_mut(Self::place(bucket)) {
            *count = count.saturating_add(1);
        }
    }

    /// Events in the `last` buckets that end with `bucket`.
    #[must_use]
    #[inline]
    pub fn sum(&self, bucket: u64, last: u64) -> u32 {
        let first = (bucket + 1).saturating_sub(last.min(N as u64));
        let newest = u64::from(self.newest);
        let oldest = (newest + 1).saturating_sub(N as u64);
        let held = first.max(oldest)..(bucket + 1).min(newest + 1);
        held.map(|b| u32::from(self.counts.get(Self::place(b)).copied().unwrap_or_default())).sum()
    }

    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below N, which is a usize")]
    const fn place(bucket: u64) -> usize {
        (bucket % N as u64) as usize
    }

    fn advance(&mut self, bucket: u64) {
        let fresh = (bucket - u64::from(self.newest)).min(N as u64);
        for b in (bucket + 1 - fresh)..=bucket {
            if let Some(count) = self.counts.get_mut(Self::place(b)) {
                *count = 0;
            }
        }
        self.newest = u32::try_from(bucket).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forgets_what_slid_out() {
        let mut counts = Buckets::<4>::default();
        for bucket in [10, 10, 11, 13] {
            counts.add(bucket);
        }
        assert_eq!([1, 2, 3, 4].map(|n| counts.sum(13, n)), [1, 1, 2, 4]);
        assert_eq!(counts.sum(14, 4), 2);
        assert_eq!(counts.sum(100, 4), 0);
    }

    proptest! {
        #[test]
        fn counts_as_a_list_of_events_would(events in prop::collection::vec(0_u64..40, 0..100), last in 0_u64..10) {
            let mut counts = Buckets::<8>::default();
            let mut kept: Vec<u64> = Vec::new();
            let mut newest = 0;
            for bucket in events {
                newest = newest.max(bucket);
                counts.add(bucket);
                if newest - bucket < 8 {
                    kept.push(bucket);
                }
                let wanted = kept.iter().filter(|b| newest - **b < last.min(8)).count();
                prop_assert_eq!(counts.sum(newest, last) as usize, wanted);
            }
        }
    }
}
