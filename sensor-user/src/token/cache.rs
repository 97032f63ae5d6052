//! Tokens already judged, by the hash of their text, bounded, those that nobody uses out first.
//!
//! A use only marks its token; what has to go is looked for when there is no room, oldest first, and whoever was used
//! since the last look is passed over once (second chance). Keeping a list in order of use would touch the memory of
//! three other tokens at every request.
//!
//! Two segments, because the worst load is a flood of distinct forgeries: verified tokens live in the protected
//! segment, everything else in the other. What has to go always goes from the other one. The protected segment
//! holds at most three quarters; beyond that one that was not used moves over, and back if it is used after all.
//! So no flood makes the sensor verify a good token twice, unless more are in use than three quarters of the room.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::token::facts::Token;

/// A place in the cache, valid until the next insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// No slot: ends a list.
const NONE: u32 = u32::MAX;

/// What is looked at when a token is used: half a line of the processor's cache, and never a part of two.
#[derive(Debug)]
#[repr(align(32))]
struct Entry {
    key: u128,
    /// None only while the entry is on the free list.
    token: Option<Arc<Token>>,
    /// Which keys it was judged with.
    generation: u32,
    protected: bool,
    /// Used since it was last looked at.
    used: bool,
}

/// An entry's neighbours by age.
#[derive(Clone, Copy, Debug)]
struct Links {
    /// Towards the newer.
    newer: u32,
    /// Towards the older; on the free list, the next free entry.
    older: u32,
}

/// Entries passed over at most for one that goes: then the oldest goes, used or not. A microsecond's work.
const PASSED_OVER: usize = 128;

/// A list of entries by age, or by when they were last passed over.
#[derive(Debug)]
struct Segment {
    newest: u32,
    oldest: u32,
    len: usize,
}

const EMPTY: Segment = Segment { newest: NONE, oldest: NONE, len: 0 };

/// The cache.
#[derive(Debug)]
pub struct Cache {
    index: HashTable<u32>,
    /// Invariant: every index in the table, the lists and the free list is below `entries.len()`.
    entries: Vec<Entry>,
    /// Of each entry.
    links: Vec<Links>,
    free: u32,
    verified: Segment,
    others: Segment,
    max: usize,
}

impl Cache {
    /// A cache of at most `max` tokens (at least 4, at most 2^31).
    #[must_use]
    pub fn new(max: usize) -> Self {
        let max = max.clamp(4, 1 << 31);
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            links: Vec::new(),
            free: NONE,
            verified: EMPTY,
            others: EMPTY,
            max,
        }
    }

    /// Tokens held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.verified.len + self.others.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens in the protected segment.
    #[must_use]
    pub const fn verified(&self) -> usize {
        self.verified.len
    }

    /// Asks for a token that is looked for later, for the processor's sake.
    #[inline]
    pub fn glance(&self, key: u128) {
        let entry = |at: &u32| self.entries.get(*at as usize);
        let found = self.index.find(hash(key), |at| entry(at).is_some_and(|entry| entry.key == key));
        if let Some(token) = found.and_then(entry).and_then(|entry| entry.token.as_ref()) {
            std::hint::black_box(token.signature);
        }
    }

    /// Finds a token and marks it as used: the slot, the token, and which keys it was judged with.
    pub fn find(&mut self, key: u128) -> Option<(Slot, &Arc<Token>, u32)> {
        let entries = &self.entries;
        let at = *self.index.find(hash(key), |at| entries.get(*at as usize).is_some_and(|e| e.key == key))?;
        let entry = self.entries.get_mut(at as usize)?;
        if !entry.used {
            entry.used = true;
        }
        Some((Slot(at), entry.token.as_ref()?, entry.generation))
    }

    /// Adds a token that is not there yet. Returns what had to go for it.
    pub fn insert(&mut self, key: u128, token: Arc<Token>, generation: u32) -> Option<Arc<Token>> {
        let evicted = if self.len() >= self.max { self.evict() } else { None };
        let entry = Entry { key, token: Some(token), generation, protected: false, used: false };
        let at = self.place(entry);
        let entries = &self.entries;
        self.index.insert_unique(hash(key), at, |at| entries.get(*at as usize).map_or(0, |e| hash(e.key)));
        self.admit(at);
        evicted
    }

    /// Replaces a token by what is now known of it.
    pub fn replace(&mut self, slot: Slot, token: Arc<Token>, generation: u32) {
        self.unlink(slot.0);
        if let Some(entry) = self.entries.get_mut(slot.0 as usize) {
            entry.token = Some(token);
            entry.generation = generation;
        }
        self.admit(slot.0);
    }

    /// Links an entry as the newest of the segment where it belongs.
    fn admit(&mut self, at: u32) {
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        entry.protected = entry.token.as_ref().is_some_and(|token| token.is_verified());
        self.link(at);
        if self.verified.len > self.max - self.max / 4 {
            for _ in 0..PASSED_OVER {
                let oldest = self.verified.oldest;
                if !self.take_mark(oldest) {
                    break;
                }
                self.unlink(oldest);
                self.link(oldest);
            }
            let oldest = self.verified.oldest;
            self.unlink(oldest);
            if let Some(entry) = self.entries.get_mut(oldest as usize) {
                entry.protected = false;
            }
            self.link(oldest);
        }
    }

    /// Whether an entry was used since the last look; it has to be used again to be passed over again.
    fn take_mark(&mut self, at: u32) -> bool {
        self.entries.get_mut(at as usize).is_some_and(|entry| std::mem::take(&mut entry.used))
    }

    fn place(&mut self, entry: Entry) -> u32 {
        let free = self.free as usize;
        if let (Some(place), Some(links)) = (self.entries.get_mut(free), self.links.get(free)) {
            let at = self.free;
            self.free = links.older;
            *place = entry;
            return at;
        }
        if self.entries.len() == self.entries.capacity() {
            // By an eighth and not by all, and never beyond the bound.
            let more = (self.entries.len() / 8 + 16).min(self.max - self.entries.len().min(self.max));
            self.entries.reserve_exact(more);
            self.links.reserve_exact(more);
        }
        self.entries.push(entry);
        self.links.push(Links { newer: NONE, older: NONE });
        // `max` keeps the length below 2^31.
        u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
    }

    /// Removes an unprotected token. There is one: the protected segment never has all the room.
    fn evict(&mut self) -> Option<Arc<Token>> {
        for _ in 0..PASSED_OVER {
            let oldest = self.others.oldest;
            if !self.take_mark(oldest) {
                break;
            }
            self.unlink(oldest);
            self.admit(oldest);
        }
        let at = self.others.oldest;
        self.unlink(at);
        let entry = self.entries.get_mut(at as usize)?;
        let token = entry.token.take();
        self.links.get_mut(at as usize)?.older = self.free;
        let key = entry.key;
        self.free = at;
        if let Ok(found) = self.index.find_entry(hash(key), |other| *other == at) {
            found.remove();
        }
        token
    }

    fn segment(&mut self, protected: bool) -> &mut Segment {
        if protected { &mut self.verified } else { &mut self.others }
    }

    fn is_protected(&self, at: u32) -> Option<bool> {
        self.entries.get(at as usize).map(|entry| entry.protected)
    }

    fn unlink(&mut self, at: u32) {
        let (Some(protected), Some(links)) = (self.is_protected(at), self.links.get(at as usize)) else {
            return;
        };
        let Links { newer, older } = *links;
        match self.links.get_mut(newer as usize) {
            Some(neighbour) => neighbour.older = older,
            None => self.segment(protected).newest = older,
        }
        match self.links.get_mut(older as usize) {
            Some(neighbour) => neighbour.newer = newer,
            None => self.segment(protected).oldest = newer,
        }
        self.segment(protected).len -= 1;
    }

    fn link(&mut self, at: u32) {
        let Some(protected) = self.is_protected(at) else { return };
        let segment = self.segment(protected);
        segment.len += 1;
        let older = std::mem::replace(&mut segment.newest, at);
        if older == NONE {
            segment.oldest = at;
        }
        if let Some(neighbour) = self.links.get_mut(older as usize) {
            neighbour.newer = at;
        }
        if let Some(links) = self.links.get_mut(at as usize) {
            *links = Links { newer: NONE, older };
        }
    }
}

/// The key is a uniform hash already.
#[allow(clippy::cast_possible_truncation, reason = "half of a uniform hash is a uniform hash")]
const fn hash(key: u128) -> u64 {
    key as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::facts::{Form, Signature};

    fn token(verified: bool) -> Arc<Token> {
        let signature = if verified { Signature::Verified } else { Signature::Invalid };
        Arc::new(Token { signature, ..Token::blank(Form::Jws) })
    }

    #[test]
    fn a_flood_of_forgeries_evicts_no_verified_token() {
        let mut cache = Cache::new(1000);
        for key in 0..750 {
            cache.insert(key, token(true), 0);
        }
        for key in 1000..100_000 {
            cache.insert(key, token(false), 0);
        }
        assert!((0..750).all(|key| cache.find(key).is_some()));
        assert_eq!((cache.len(), cache.verified()), (1000, 750));
    }

    #[test]
    fn a_use_looks_at_half_a_line() {
        assert_eq!((size_of::<Entry>(), align_of::<Entry>()), (32, 32));
    }

    #[test]
    fn unverified_tokens_use_all_the_room_when_nobody_else_does() {
        let mut cache = Cache::new(100);
        for key in 0..100 {
            cache.insert(key, token(false), 0);
        }
        assert!((0..100).all(|key| cache.find(key).is_some()));
        cache.insert(100, token(false), 0);
        assert!(cache.find(0).is_none() && cache.find(1).is_some());
    }

    #[test]
    fn verified_tokens_make_room_among_themselves_at_last() {
        let mut cache = Cache::new(8);
        for key in 0..100 {
            cache.insert(key, token(true), 0);
        }
        assert_eq!((cache.len(), cache.verified()), (8, 6));
        assert!((92..100).all(|key| cache.find(key).is_some()));
        for key in 100..200 {
            cache.insert(key, token(false), 0);
        }
        assert_eq!((cache.len(), cache.verified()), (8, 6));
    }

    proptest! {
        /// Against a model: what was used last is there, within the bound, under its own key.
        #[test]
        fn holds_what_it_was_given(steps in proptest::collection::vec((0u8..40, any::<bool>(), 0u8..3), 0..400)) {
            let mut cache = Cache::new(10);
            for (key, verified, what) in steps {
                let key = u128::from(key);
                match (cache.find(key).map(|(slot, token, generation)| (slot, token.length, generation)), what) {
                    (None, _) => {
                        let fresh = Token { length: u32::try_from(key).unwrap(), ..Token::clone(&token(verified)) };
                        cache.insert(key, Arc::new(fresh), 7);
                    }
                    (Some((slot, length, generation)), 0) => {
                        prop_assert_eq!((u128::from(length), generation), (key, 7));
                        let changed = Token { length, ..Token::clone(&token(verified)) };
                        cache.replace(slot, Arc::new(changed), 7);
                    }
                    (Some(_), _) => {}
                }
                prop_assert!(cache.find(key).is_some());
                prop_assert!(cache.len() <= 10);
                let mut listed = 0;
                for segment in [&cache.verified, &cache.others] {
                    let mut at = segment.newest;
                    while at != NONE {
                        listed += 1;
                        at = cache.links[at as usize].older;
                    }
                }
                prop_assert_eq!(listed, cache.len());
                prop_assert_eq!(cache.index.len(), cache.len());
            }
        }
    }
}
