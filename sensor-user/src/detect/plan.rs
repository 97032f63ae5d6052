//! Which seats are asked about which exchanges, worked out once for each set of what may hold of one.
//!
//! A usual exchange concerns a part of the rules only. A list of these is shorter to walk than all seats, and leaves the
//! others out of the processor's cache.

use crate::detect::When;

/// Lists of seats. At most [`When::SETS`] of them, each of at most as many numbers as there are seats: 70 KiB in all if
/// everything that can hold together once did.
#[derive(Debug, Default)]
pub(super) struct Plan(Vec<Option<Box<[u16]>>>);

impl Plan {
    /// The seats to ask about an exchange of which this holds, in order; none if that is all of them. `whens` is what
    /// each seat asks for, the same at every call.
    #[inline]
    pub(super) fn of(&mut self, holds: When, whens: impl Iterator<Item = When>) -> Option<&[u16]> {
        let number = holds.number()?;
        if self.0.is_empty() {
            self.0.resize(When::SETS, None);
        }
        let list = self.0.get_mut(number)?;
        Some(list.get_or_insert_with(|| asked(holds, whens)))
    }
}

#[cold]
fn asked(holds: When, whens: impl Iterator<Item = When>) -> Box<[u16]> {
    let numbered = whens.zip(0..=u16::MAX);
    numbered.filter(|(when, _)| holds.meets(*when)).map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_less_than_holds_is_asked() {
        let seats = [When::EVERY, When::TOKEN, When::TOKEN.and(When::NEWS), When::LOGIN];
        let mut plan = Plan::default();
        let mut asked = |holds| plan.of(holds, seats.into_iter()).map(<[u16]>::to_vec);
        assert_eq!(asked(When::EVERY), Some(vec![0]));
        assert_eq!(asked(When::TOKEN), Some(vec![0, 1]));
        assert_eq!(asked(When::TOKEN.and(When::NEWS)), Some(vec![0, 1, 2]));
        assert_eq!(asked(When::TOKEN), Some(vec![0, 1]));
        assert_eq!(asked(When::ALL), None);
    }
}
