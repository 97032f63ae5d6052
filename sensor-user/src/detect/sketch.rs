//! Distinct counts in little memory: how many different objects, paths or callers there were.
//!
//! Up to 15 are held exactly; beyond, 1024 bits by linear counting (Whang, Vander-Zanden and Taylor, 1990), which is
//! within 4 % from a hundred to two thousand and says at most 7098. An ordinary actor costs 16 bytes, a busy one 80,
//! a collector 144.

use std::sync::LazyLock;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

/// Bits of a sketch: a power of two.
const BITS: u16 = 1024;

const WORDS: usize = BITS as usize / 64;

/// A set of hashes of which only the size matters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Distinct(Seen);

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Seen {
    /// How many, and their names: in one variant, so that the whole takes 16 bytes.
    Few(u8, [u32; 3]),
    Some(Box<ArrayVec<u32, 15>>),
    /// And how many are set: outside the box, so that an addition touches one line of the processor's cache in it.
    Bits(Box<Bits>, u16),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Bits([u64; WORDS]);

impl Bits {
    /// Sets a name's bit. Whether it is new.
    #[inline]
    fn add(&mut self, name: u32) -> bool {
        // The highest ten bits of the name are the number of its bit.
        let Some(word) = self.0.get_mut((name >> 28) as usize) else { return false };
        let bit = 1 << ((name >> 22) & 63);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn set(&self) -> u16 {
        let set: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        u16::try_from(set).unwrap_or(BITS)
    }
}

/// What so many set bits say.
#[inline]
fn said_by(set: u16) -> u32 {
    COUNTS.get(usize::from(set)).map_or(LARGEST, |count| u32::from(*count))
}

/// What one bit short of all of them says.
const LARGEST: u32 = 7098;

/// What so many set bits say. Logarithms are not for every request.
static COUNTS: LazyLock<[u16; BITS as usize]> = LazyLock::new(|| {
    let bits = f64::from(BITS);
    let mut zeros = bits + 1.0;
    std::array::from_fn(|_| {
        zeros -= 1.0;
        rounded(-bits * (zeros / bits).ln())
    })
});

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the largest count is 7098, and none is negative"
)]
fn rounded(count: f64) -> u16 {
    count.round() as u16
}

impl Default for Distinct {
    fn default() -> Self {
        Self(Seen::Few(0, [0; 3]))
    }
}

impl Distinct {
    /// Asks for what adding a hash will touch, whichever it is, for the processor's sake.
    #[inline]
    pub fn glance(&self) {
        if let Seen::Bits(bits, _) = &self.0 {
            let Bits([first, .., last]) = **bits;
            std::hint::black_box((first, bits.0.get(WORDS / 2).copied(), last));
        }
    }

    /// Adds a hash. Whether it is new, as far as one can tell: one that is there is never new.
    pub fn add(&mut self, hash: u64) -> bool {
        let name = u32::try_from(hash >> 32).unwrap_or_default();
        match &mut self.0 {
            Seen::Few(len, names) => {
                let held = names.get(..usize::from(*len)).unwrap_or(names);
                if held.contains(&name) {
                    return false;
                }
                if let Some(place) = names.get_mut(usize::from(*len)) {
                    *place = name;
                    *len += 1;
                } else {
                    let mut some: Box<ArrayVec<u32, 15>> = Box::new(names.iter().copied().collect());
                    some.push(name);
                    self.0 = Seen::Some(some);
                }
                true
            }
            Seen::Some(some) => {
                if some.contains(&name) {
                    return false;
                }
                if some.try_push(name).is_err() {
                    let mut bits = Box::<Bits>::default();
                    for name in some.iter().copied().chain([name]) {
                        bits.add(name);
                    }
                    let set = bits.set();
                    self.0 = Seen::Bits(bits, set);
                }
                true
            }
            Seen::Bits(bits, set) => {
                let is_new = bits.add(name);
                *set = set.saturating_add(u16::from(is_new));
                is_new
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        match &self.0 {
            Seen::Few(len, _) => u32::from(*len),
            Seen::Some(some) => u32::try_from(some.len()).unwrap_or_default(),
            Seen::Bits(_, set) => said_by(*set),
        }
    }

    fn pour_into(&self, all: &mut Bits) {
        match &self.0 {
            Seen::Few(len, names) => {
                names.iter().take((*len).into()).for_each(|name| _ = all.add(*name));
            }
            Seen::Some(some) => some.iter().for_each(|name| _ = all.add(*name)),
            Seen::Bits(bits, _) => {
                for (word, other) in all.0.iter_mut().zip(&bits.0) {
                    *word |= other;
                }
            }
        }
    }
}

/// How many were different within the last `N` parts of a window. It holds between `N - 1` and `N` parts: it may be
/// late by one, and is never early. Parts in which nothing was added take no room.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sliding<const N: u32> {
    newest: u32,
    /// What the older parts hold together.
    older: u32,
    /// By their numbers, the newest last.
    parts: Vec<(u32, Distinct)>,
}

impl<const N: u32> Sliding<N> {
    /// Asks for the hashes of the newest part, for the processor's sake.
    #[inline]
    pub fn glance_beyond(&self) {
        if let Some((_, newest)) = self.parts.last() {
            newest.glance();
        }
    }

    /// Asks for the newest part, for the processor's sake.
    #[inline]
    pub fn glance(&self) {
        std::hint::black_box(self.parts.last().map(|(number, _)| *number));
    }

    /// Adds a hash in a part, by its number. Whether it is new to that part. What is older than the window is ignored.
    pub fn add(&mut self, part: u32, hash: u64) -> bool {
        if part > self.newest || self.parts.is_empty() {
            self.newest = part;
            self.parts.retain(|(number, _)| part - number < N);
            self.older = self.parts.iter().map(|(_, held)| held.count()).sum();
            self.parts.reserve_exact(1);
            self.parts.push((part, Distinct::default()));
        }
        match self.parts.last_mut() {
            Some((number, newest)) if *number == part => newest.add(hash),
            _ => self.add_late(part, hash),
        }
    }

    /// Adds a hash to a part that is not the newest.
    fn add_late(&mut self, part: u32, hash: u64) -> bool {
        if self.newest - part >= N {
            return false;
        }
        let at = self.parts.partition_point(|(number, _)| *number < part);
        if self.parts.get(at).is_none_or(|(number, _)| *number != part) {
            self.parts.insert(at, (part, Distinct::default()));
        }
        let is_new = self.parts.get_mut(at).is_some_and(|(_, held)| held.add(hash));
        self.older = self.parts.iter().rev().skip(1).map(|(_, held)| held.count()).sum();
        is_new
    }

    /// How many there are at most: cheap.
    #[must_use]
    pub fn at_most(&self) -> u32 {
        self.older + self.parts.last().map_or(0, |(_, newest)| newest.count())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        let mut all = Bits::default();
        for (_, part) in &self.parts {
            part.pour_into(&mut all);
        }
        said_by(all.set())
    }
}

/// A few callers by one bit of 64 each: `n` set bits mean at least `n` callers. [`FadingCrowd`] forgets them in time.
///
/// [`FadingCrowd`]: crate::detect::crowd::FadingCrowd
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crowd(pub u64);

impl Crowd {
    /// Adds a hash.
    pub const fn add(&mut self, hash: u64) {
        self.0 |= 1 << (hash >> 58);
    }

    /// Whether the hash may have been added.
    #[must_use]
    pub const fn has(self, hash: u64) -> bool {
        self.0 & (1 << (hash >> 58)) != 0
    }

    /// At least so many were added.
    #[must_use]
    pub const fn size(self) -> u32 {
        self.0.count_ones()
    }
}

/// What one is used to: rises at once, falls by an eighth of the distance.
pub const fn get_used(usual: &mut u32, seen: u32) {
    *usual = if seen >= *usual { seen } else { *usual - (*usual - seen).div_ceil(8) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::roster::stable_hash;
    use proptest::prelude::*;

    #[test]
    fn small_sets_are_exact_and_large_ones_near() {
        for n in [0_u32, 1, 3, 4, 15, 16, 50, 200, 500, 1000, 2000] {
            let mut set = Distinct::default();
            for i in 0..n {
                set.add(stable_hash(&i));
                set.add(stable_hash(&i));
            }
            let (count, slack) = (set.count(), if n <= 15 { 0 } else { n / 12 + 1 });
            assert!(count.abs_diff(n) <= slack, "{count} for {n}");
        }
    }

    #[test]
    fn no_set_counts_beyond_its_bits() {
        let mut set = Distinct::default();
        for i in 0..100_000_u32 {
            set.add(stable_hash(&i));
        }
        assert_eq!(set.count(), 7098);
    }

    #[test]
    fn ordinary_actors_are_small() {
        assert_eq!(size_of::<Distinct>(), 16);
        assert_eq!(size_of::<Bits>(), 128);
    }

    /// As snapshots have it since the first version of the rules that keep sketches.
    #[test]
    fn a_sketch_is_written_as_its_words_and_how_many_bits_are_set() {
        let mut set = Distinct::default();
        (0..100_u32).for_each(|i| _ = set.add(stable_hash(&i)));
        let Seen::Bits(bits, many) = &set.0 else { panic!("so many are bits") };
        assert_eq!(*many, bits.set());
        let plain = postcard::to_allocvec(&(2_u32, bits.0, *many)).unwrap();
        assert_eq!(postcard::to_allocvec(&set).unwrap(), plain);
        let read: Distinct = postcard::from_bytes(&plain).unwrap();
        assert_eq!(read.count(), set.count());
    }

    #[test]
    fn a_window_slides() {
        let mut window = Sliding::<4>::default();
        for part in 100..110_u32 {
            for i in 0..10_u32 {
                window.add(part, stable_hash(&(part * 5 + i)));
            }
        }
        assert!(window.count().abs_diff(25) <= 1, "{}", window.count());
        assert_eq!(window.at_most(), 40);
        assert!(!window.add(100, 7), "what is too old is ignored");
        let [one, two, three] = ["one", "two", "three"].map(stable_hash);
        assert!(window.add(107, one) && !window.add(107, one), "what is late counts");
        assert_eq!(window.at_most(), 41);
        window.add(1000, one);
        assert_eq!((window.count(), window.at_most()), (1, 1));
        assert!(window.add(998, two) && window.add(1000, three));
        assert_eq!((window.count(), window.at_most()), (3, 3));
    }

    #[test]
    fn habits_rise_at_once_and_fall_slowly() {
        let mut usual = 0;
        get_used(&mut usual, 80);
        get_used(&mut usual, 0);
        assert_eq!(usual, 70);
        for _ in 0..100 {
            get_used(&mut usual, 0);
        }
        assert_eq!(usual, 0);
    }

    proptest! {
        #[test]
        fn what_is_there_is_not_new(names in prop::collection::vec(any::<u64>(), 0..200)) {
            let mut set = Distinct::default();
            for name in &names {
                set.add(*name);
            }
            prop_assert!(names.iter().all(|name| !set.add(*name)));
        }
    }
}
