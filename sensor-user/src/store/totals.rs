//! Sums of uses: how many, from when to when, how many bytes, and how they were answered.

use serde::Serialize;

use crate::seen::Seen;

/// Most bytes that one message counts for: its length is what the sender claims, and sums must stay sums.
const MOST_BYTES: u64 = 1 << 40;

/// Where sums stop: SQLite's integers end at 2^63 - 1, and the sum of two of these does not pass it.
const MOST: u64 = 1 << 62;

/// A sum of uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests.
    pub count: u64,
    /// When the first began, in milliseconds since the epoch.
    pub first_ms: u64,
    /// When the last began.
    pub last_ms: u64,
    /// Bytes of the requests' bodies, where framing tells.
    pub request_bytes: u64,
    /// Bytes of the responses' bodies, where their heads tell.
    pub response_bytes: u64,
    /// Answered 2xx.
    pub ok: u64,
    /// Answered 1xx or 3xx.
    pub redirected: u64,
    /// Answered 401 or 403.
    pub refused: u64,
    /// Answered 4xx otherwise.
    pub failed: u64,
    /// Answered 5xx.
    pub errors: u64,
}

/// The columns of a table that holds sums. Times are milliseconds since the part began.
pub(super) const NAMES: &str =
    "count, first, last, request_bytes, response_bytes, ok, redirected, refused, failed, errors";

/// Places of values for them.
pub(super) const VALUES: &str = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10";

/// Adds values to them.
pub(super) const ADD: &str = "count = min(count + ?1, 4611686018427387904),
    first = min(first, ?2), last = max(last, ?3),
    request_bytes = min(request_bytes + ?4, 4611686018427387904),
    response_bytes = min(response_bytes + ?5, 4611686018427387904),
    ok = ok + ?6, redirected = redirected + ?7, refused = refused + ?8, failed = failed + ?9, errors = errors + ?10";

/// How many columns they are.
pub(super) const WIDTH: usize = 10;

impl Totals {
    /// The sum of one exchange.
    #[must_use]
    pub fn of(seen: &Seen) -> Self {
        let is = |class: bool| u64::from(class);
        let status = seen.status.unwrap_or_default();
        let refused = matches!(status, 401 | 403);
        Self {
            count: 1,
            first_ms: seen.at.millis(),
            last_ms: seen.at.millis(),
            request_bytes: seen.request_bytes.unwrap_or_default().min(MOST_BYTES),
            response_bytes: seen.response_bytes.unwrap_or_default().min(MOST_BYTES),
            ok: is((200..300).contains(&status)),
            redirected: is((100..200).contains(&status) || (300..400).contains(&status)),
            refused: is(refused),
            failed: is(!refused && (400..500).contains(&status)),
            errors: is((500..1000).contains(&status)),
        }
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        if self.count == 0 {
            *self = *other;
            return;
        }
        if other.count == 0 {
            return;
        }
        let sum = |a: u64, b: u64| a.saturating_add(b).min(MOST);
        *self = Self {
            count: sum(self.count, other.count),
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
            request_bytes: sum(self.request_bytes, other.request_bytes),
            response_bytes: sum(self.response_bytes, other.response_bytes),
            ok: sum(self.ok, other.ok),
            redirected: sum(self.redirected, other.redirected),
            refused: sum(self.refused, other.refused),
            failed: sum(self.failed, other.failed),
            errors: sum(self.errors, other.errors),
        };
    }

    /// Requests of which no response was seen.
    #[must_use]
    pub const fn unanswered(&self) -> u64 {
        let answered = self.ok + self.redirected + self.refused + self.failed + self.errors;
        self.count.saturating_sub(answered)
    }

    /// The values of the columns, for a part that begins at `start_ms`.
    pub(super) fn values(&self, start_ms: u64) -> [i64; WIDTH] {
        let plain = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let since = |ms: u64| plain(ms).saturating_sub(plain(start_ms));
        [
            plain(self.count),
            since(self.first_ms),
            since(self.last_ms),
            plain(self.request_bytes),
            plain(self.response_bytes),
            plain(self.ok),
            plain(self.redirected),
            plain(self.refused),
            plain(self.failed),
            plain(self.errors),
        ]
    }

    /// Reads the columns from the `at`th on.
    pub(super) fn read(row: &rusqlite::Row<'_>, at: usize, start_ms: u64) -> rusqlite::Result<Self> {
        let plain = |place: usize| {
            Ok::<u64, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at + place)?).unwrap_or(0))
        };
        let absolute = |place: usize| {
            let ms: i64 = row.get(at + place)?;
            Ok::<u64, rusqlite::Error>(start_ms.saturating_add_signed(ms))
        };
        Ok(Self {
            count: plain(0)?,
            first_ms: absolute(1)?,
            last_ms: absolute(2)?,
            request_bytes: plain(3)?,
            response_bytes: plain(4)?,
            ok: plain(5)?,
            redirected: plain(6)?,
            refused: plain(7)?,
            failed: plain(8)?,
            errors: plain(9)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals() -> impl Strategy<Value = Totals> {
        (1_u64..5, 0_u64..100, 0_u64..100, any::<u64>(), 0_u64..9).prop_map(|(count, a, b, bytes, ok)| {
            Totals {
                count,
                first_ms: a.min(b),
                last_ms: a.max(b),
                request_bytes: bytes.min(MOST_BYTES),
                ok,
                ..Totals::default()
            }
        })
    }

    proptest! {
        #[test]
        fn the_order_of_adding_does_not_matter(mut all in prop::collection::vec(totals(), 1..20)) {
            let sum = |all: &[Totals]| all.iter().fold(Totals::default(), |mut sum, one| { sum.add(one); sum });
            let forward = sum(&all);
            all.reverse();
            prop_assert_eq!(sum(&all), forward);
            prop_assert_eq!(forward.first_ms, all.iter().map(|one| one.first_ms).min().unwrap());
        }
    }

    #[test]
    fn a_claimed_length_does_not_break_the_sum() {
        let mut sum = Totals { count: 1, response_bytes: MOST, ..Totals::default() };
        sum.add(&Totals { count: 1, response_bytes: MOST, ..Totals::default() });
        assert_eq!((sum.count, sum.response_bytes), (2, MOST));
    }
}
