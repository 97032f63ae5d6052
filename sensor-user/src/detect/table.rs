//! A bounded map with fair eviction: what every history of every rule is kept in.
//!
//! Eviction is the CLOCK algorithm (Corbató 1968) with a small use count: an entry that is used again survives
//! a flood of entries that are used once, so nobody can push a victim's history out by inventing names.
//! Iteration goes by slot, which depends on the data only and never on the hash seed.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;

use hashbrown::HashTable;
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Uses that are remembered: an entry survives this many turns of the hand without being used.
const MAX_USES: u8 = 3;

/// Slots looked at for one eviction. Bounds the cost of an insertion when everything is in use.
const LOOK: usize = 64;

/// The hash of a key is not kept: it is made anew where the index grows or an entry goes, and an index finds the wrong
/// entry once in 128 times, which comparing keys tells as well.
#[derive(Debug)]
struct Slot<K, V> {
    uses: u8,
    key: K,
    value: V,
}

impl<K, V> Slot<K, V> {
    /// Notes a use; writes only what changes, as most slots are marked already.
    #[inline]
    fn mark(&mut self) {
        if self.uses < MAX_USES {
            self.uses += 1;
        }
    }
}

/// A map of at most `cap` entries.
///
/// Invariant: `index` holds exactly the positions of `slots`, each under its slot's hash.
#[derive(Debug)]
pub struct Table<K, V> {
    index: HashTable<u32>,
    slots: Vec<Slot<K, V>>,
    seed: foldhash::fast::RandomState,
    hand: usize,
    cap: usize,
    evicted: u64,
}

impl<K, V> Table<K, V> {
    /// An empty table that will hold `cap` entries at most, and at least one.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            seed: foldhash::fast::RandomState::default(),
            hand: 0,
            cap: cap.clamp(1, u32::MAX as usize),
            evicted: 0,
        }
    }

    /// Entries now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Entries evicted so far.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Entries at most.
    #[must_use]
    pub const fn cap(&self) -> usize {
        self.cap
    }

    /// The hash of anything, under this table's seed.
    pub fn hash_of(&self, key: &(impl Hash + ?Sized)) -> u64 {
        self.seed.hash_one(key)
    }

    /// The value under `hash` whose key `is` the one, marked as used.
    #[inline]
    pub fn find(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&mut V> {
        let at = self.position(hash, is)?;
        self.at(at)
    }

    /// The slot under `hash` whose key `is` the one, marked as used. Good until the next insertion or removal.
    #[inline]
    pub fn position(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<usize> {
        let slots = &self.slots;
        let same = |at: &u32| slots.get(*at as usize).is_some_and(|s| is(&s.key));
        let at = *self.index.find(hash, same)? as usize;
        self.slots.get_mut(at)?.mark();
        Some(at)
    }

    /// Marks a slot as used if what it holds `is` the one.
    #[inline]
    pub fn touch(&mut self, slot: usize, is: impl Fn(&K, &V) -> bool) -> bool {
        let found = self.slots.get_mut(slot).filter(|s| is(&s.key, &s.value));
        if let Some(slot) = found {
            slot.mark();
            return true;
        }
        false
    }

    /// The value in a slot.
    #[inline]
    pub fn at(&mut self, slot: usize) -> Option<&mut V> {
        self.slots.get_mut(slot).map(|slot| &mut slot.value)
    }

    /// The value in a slot, without a mark.
    #[must_use]
    pub fn peek(&self, slot: usize) -> Option<&V> {
        self.slots.get(slot).map(|slot| &slot.value)
    }

    /// Asks for a slot that is needed later, for the processor's sake.
    #[inline]
    pub fn glance(&self, slot: usize) {
        if let Some(slot) = self.slots.get(slot) {
            std::hint::black_box(slot.uses);
        }
    }

    /// Every entry, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|s| (&s.key, &s.value))
    }

    /// Every entry, by slot, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.slots.iter_mut().map(|s| (&s.key, &mut s.value))
    }

    /// The slot to reuse: the first unused one that the hand meets, or the least used of those it looked at.
    fn victim(&mut self) -> usize {
        let mut best = (u8::MAX, self.hand);
        for _ in 0..LOOK {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if slot.uses < best.0 {
                best = (slot.uses, at);
            }
            if slot.uses == 0 {
                break;
            }
            slot.uses -= 1;
        }
        best.1
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// Adds an entry that is known to be absent, under its key's own hash. Returns the one that had to go.
    pub fn insert(&mut self, hash: u64, key: K, value: V) -> Option<(K, V)> {
        self.place(hash, key, value).1
    }

    /// [`Self::insert`], and the slot that the entry got.
    pub fn place(&mut self, hash: u64, key: K, value: V) -> (usize, Option<(K, V)>) {
        let slot = Slot { uses: 0, key, value };
        let (at, evicted) = if self.slots.len() < self.cap {
            if self.slots.len() == self.slots.capacity() {
                // By an eighth and not by half, as columns grow.
                self.slots.reserve_exact(self.slots.len() / 8 + 16);
            }
            self.slots.push(slot);
            (self.slots.len() - 1, None)
        } else {
            let at = self.victim();
            self.unlink(at);
            let old = self.slots.get_mut(at).map(|old| std::mem::replace(old, slot));
            self.evicted += 1;
            (at, old.map(|old| (old.key, old.value)))
        };
        let (slots, seed) = (&self.slots, &self.seed);
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        let again = |at: &u32| slots.get(*at as usize).map_or(0, |s| seed.hash_one(&s.key));
        self.index.insert_unique(hash, number, again);
        (at, evicted)
    }

    /// Removes the entry under `hash` whose key `is` the one.
    pub fn remove(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<(K, V)> {
        let slots = &self.slots;
        let found = |at: &u32| slots.get(*at as usize).is_some_and(|s| is(&s.key));
        let at = *self.index.find(hash, found)? as usize;
        self.unlink(at);
        let last = self.slots.len() - 1;
        if at != last {
            let moved = self.slots.get(last).map_or(0, |s| self.seed.hash_one(&s.key));
            if let Some(place) = self.index.find_mut(moved, |p| *p as usize == last) {
                *place = u32::try_from(at).unwrap_or(u32::MAX);
            }
        }
        let slot = self.slots.swap_remove(at);
        Some((slot.key, slot.value))
    }

    fn unlink(&mut self, at: usize) {
        let Some(hash) = self.slots.get(at).map(|s| self.seed.hash_one(&s.key)) else { return };
        if let Ok(entry) = self.index.find_entry(hash, |p| *p as usize == at) {
            entry.remove();
        }
    }

    /// Sets the cap; entries in places beyond it go.
    pub fn limit(&mut self, cap: usize) {
        self.cap = cap.clamp(1, u32::MAX as usize);
        while self.slots.len() > self.cap {
            self.unlink(self.slots.len() - 1);
            self.slots.pop();
        }
        self.hand = 0;
    }

    /// [`Self::limit`] if the cap is another: for tables that may have come out of a snapshot, which has none.
    #[inline]
    pub fn keep_to(&mut self, cap: usize) {
        if self.cap != cap.clamp(1, u32::MAX as usize) {
            self.limit(cap);
        }
    }

    /// The value of `key`, marked as used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hash_of(key);
        self.find(hash, |k| k == key)
    }

    /// The value of `key`, without a mark.
    #[must_use]
    pub fn look(&self, key: &K) -> Option<&V> {
        let slots = &self.slots;
        let same = |at: &u32| slots.get(*at as usize).is_some_and(|s| s.key == *key);
        let at = *self.index.find(self.hash_of(key), same)?;
        self.peek(at as usize)
    }

    /// The value of `key`, made if it is missing. Never `None`.
    pub fn get_or(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V> {
        let hash = self.hash_of(&key);
        let at = match self.position(hash, |k| *k == key) {
            Some(at) => at,
            None => self.place(hash, key, make()).0,
        };
        self.at(at)
    }
}

/// A snapshot holds the entries in the order of their places, so that columns keep fitting.
impl<K: Serialize, V: Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut seq = out.serialize_seq(Some(self.slots.len()))?;
        for slot in &self.slots {
            seq.serialize_element(&(slot.uses, &slot.key, &slot.value))?;
        }
        seq.end()
    }
}

/// The table that is read has no cap of its own: [`Table::limit`] sets it. Its seed is a new one.
impl<'de, K: Deserialize<'de> + Hash + Eq, V: Deserialize<'de>> Deserialize<'de> for Table<K, V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de> + Hash + Eq, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Table<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the entries of a table")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut table = Table::new(u32::MAX as usize);
                while let Some((uses, key, value)) = seq.next_element::<(u8, K, V)>()? {
                    let hash = table.hash_of(&key);
                    if table.position(hash, |k| *k == key).is_some() {
                        return Err(serde::de::Error::custom("one key twice"));
                    }
                    let at = table.place(hash, key, value).0;
                    if let Some(slot) = table.slots.get_mut(at) {
                        slot.uses = MAX_USES.min(uses);
                    }
                }
                Ok(table)
            }
        }

        from.deserialize_seq(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flood_of_names_does_not_evict_what_is_in_use() {
        let mut table = Table::new(100);
        for victim in 0..50_u32 {
            table.get_or(victim, || 0);
            table.get(&victim);
        }
        for name in 1000..100_000_u32 {
            table.get_or(name, || 1);
            if name % 40 == 0 {
                for victim in 0..50_u32 {
                    assert_eq!(table.get(&victim), Some(&mut 0), "after {name}");
                }
            }
        }
        assert_eq!(table.len(), 100);
        assert_eq!(table.evicted(), 99_000 - 50);
    }

    #[test]
    fn holds_one_entry_even_when_asked_for_none() {
        let mut table = Table::new(0);
        table.get_or("a", || 1);
        table.get_or("b", || 2);
        assert_eq!(table.len(), 1);
        assert_eq!(table.get(&"a"), None);
        assert_eq!(table.get(&"b"), Some(&mut 2));
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_until_it_is_full(ops in prop::collection::vec((0_u8..3, 0_u16..40, any::<u8>()), 0..300)) {
            let mut table = Table::new(64);
            let mut model = std::collections::BTreeMap::new();
            for (op, key, value) in ops {
                match op {
                    0 => { *table.get_or(key, || 0).unwrap() = value; model.insert(key, value); }
                    1 => {
                        let hash = table.hash_of(&key);
                        prop_assert_eq!(table.remove(hash, |k| *k == key).map(|(_, v)| v), model.remove(&key));
                    }
                    _ => prop_assert_eq!(table.get(&key).copied(), model.get(&key).copied()),
                }
                prop_assert_eq!(table.len(), model.len());
            }
        }

        #[test]
        fn never_holds_more_than_its_cap(keys in prop::collection::vec(any::<u16>(), 0..500), cap in 1_usize..20) {
            let mut table = Table::new(cap);
            for key in keys {
                table.get_or(key, || key);
                prop_assert!(table.len() <= cap);
                prop_assert_eq!(table.get(&key).copied(), Some(key));
            }
        }
    }
}
