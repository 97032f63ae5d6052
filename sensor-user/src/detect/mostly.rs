//! A value for each entity of one kind, most of which are small: those lie in a column, the others in a table beside.
//!
//! The small form tells all that the whole one would, or is not taken. So nothing is lost by it, and a snapshot holds a
//! column of whole values, as if there were no other form.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::detect::table::Table;
use crate::detect::{Column, Slot};

/// A small form of `W`. The default stands for `W`'s.
pub trait Small<W>: Copy + Default {
    /// Stands for a value that is kept elsewhere.
    const ELSEWHERE: Self;

    /// Whether it stands for that.
    fn is_elsewhere(&self) -> bool;

    /// The form, if it can tell everything.
    fn of(whole: &W) -> Option<Self>;

    /// The value, of one that is not kept elsewhere.
    fn whole(&self) -> W;
}

/// The values.
pub struct Mostly<S, W> {
    small: Column<S>,
    /// By place. Invariant: holds exactly the places whose small form is [`Small::ELSEWHERE`], so what bounds those bounds it.
    others: Table<u32, W>,
}

impl<S, W> Default for Mostly<S, W> {
    fn default() -> Self {
        Self { small: Column::default(), others: Table::new(u32::MAX as usize) }
    }
}

impl<S: Small<W>, W: Clone + Default> Mostly<S, W> {
    /// The small form of an entity's value, for what can be done with that alone.
    #[inline]
    pub fn small(&mut self, slot: Slot) -> &mut S {
        if self.small.renew(slot).is_some_and(|old| old.is_elsewhere()) {
            self.forget(slot.at);
        }
        self.small.of(slot)
    }

    /// What is in a place, once for the processor's sake ([`Column::glance`]).
    #[inline]
    pub fn glance(&self, at: u32) {
        _ = self.small.glance(at);
    }

    /// The value of an entity whose small form is elsewhere.
    #[inline]
    pub fn other(&mut self, slot: Slot) -> Option<&mut W> {
        if self.small(slot).is_elsewhere() { self.others.get(&slot.at) } else { None }
    }

    /// An entity's value, to be changed and [`put`](Self::put) back.
    pub fn take(&mut self, slot: Slot) -> W {
        let small = *self.small(slot);
        if small.is_elsewhere() {
            return self.others.get(&slot.at).map(std::mem::take).unwrap_or_default();
        }
        small.whole()
    }

    /// Sets an entity's value.
    pub fn put(&mut self, slot: Slot, whole: W) {
        let Some(form) = S::of(&whole) else { return self.put_whole(slot, whole) };
        if std::mem::replace(self.small(slot), form).is_elsewhere() {
            self.forget(slot.at);
        }
    }

    /// Sets an entity's value, and keeps it elsewhere however small it is.
    pub fn put_whole(&mut self, slot: Slot, whole: W) {
        *self.small(slot) = S::ELSEWHERE;
        if let Some(place) = self.others.get_or(slot.at, W::default) {
            *place = whole;
        }
    }

    #[cold]
    fn forget(&mut self, at: u32) {
        let hash = self.others.hash_of(&at);
        self.others.remove(hash, |known| *known == at);
    }
}

impl<S: Small<W>, W: Clone + Default + Serialize> Serialize for Mostly<S, W> {
    fn serialize<O: Serializer>(&self, out: O) -> Result<O::Ok, O::Error> {
        out.collect_seq(self.small.places().zip(0..).map(|((life, small), at)| {
            let elsewhere = || self.others.look(&at).cloned().unwrap_or_default();
            (life, if small.is_elsewhere() { elsewhere() } else { small.whole() })
        }))
    }
}

impl<'de, S: Small<W>, W: Clone + Default + Deserialize<'de>> Deserialize<'de> for Mostly<S, W> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let saved = Column::<W>::deserialize(from)?;
        let mut all = Self::default();
        for ((life, whole), at) in saved.places().zip(0..).filter(|((life, _), _)| *life != 0) {
            all.put(Slot { at, life }, whole.clone());
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One byte of a number; 255 stands for a larger one.
    #[derive(Clone, Copy, Default)]
    struct Byte(u8);

    impl Small<u32> for Byte {
        const ELSEWHERE: Self = Self(u8::MAX);

        fn is_elsewhere(&self) -> bool {
            self.0 == u8::MAX
        }

        fn of(whole: &u32) -> Option<Self> {
            u8::try_from(*whole).ok().filter(|byte| *byte != u8::MAX).map(Self)
        }

        fn whole(&self) -> u32 {
            self.0.into()
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_column_and_is_saved_as_one(
            steps in prop::collection::vec((0_u32..8, 1_u32..4, 0_u32..400, any::<bool>()), 0..80),
        ) {
            let (mut mostly, mut column) = (Mostly::<Byte, u32>::default(), Column::<u32>::default());
            for (at, life, more, restart) in steps {
                let slot = Slot { at, life };
                *column.of(slot) = column.of(slot).wrapping_add(more) % 1000;
                let value = mostly.take(slot).wrapping_add(more) % 1000;
                mostly.put(slot, value);
                prop_assert_eq!(mostly.take(slot), *column.of(slot));
                mostly.put(slot, value);
                let saved = postcard::to_allocvec(&mostly).unwrap();
                prop_assert_eq!(&saved, &postcard::to_allocvec(&column).unwrap());
                if restart {
                    mostly = postcard::from_bytes(&saved).unwrap();
                }
            }
            let large = mostly.small.places().filter(|(_, small)| small.is_elsewhere()).count();
            prop_assert_eq!(mostly.others.len(), large, "nothing of the forgotten stays");
        }
    }
}
