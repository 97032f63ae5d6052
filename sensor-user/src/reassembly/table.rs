//! The table of connections: a hash from id to slot, slots in one vector, and three lists through them by age.
//!
//! One look-up a frame; expiry and eviction look at the oldest of each list only.

use hashbrown::HashMap;

use crate::capture::{SocketId, Time};

/// No slot.
const NONE: u32 = u32::MAX;

/// Which list a slot is in. Eviction takes from the first list that has any, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Never produced anything: handshakes, scans, other protocols.
    Fresh = 0,
    /// Did produce something.
    Proven = 1,
    /// Waits for an answer.
    Waiting = 2,
}

impl Class {
    /// In the order of eviction.
    pub(super) const ALL: [Self; 3] = [Self::Fresh, Self::Proven, Self::Waiting];
}

#[derive(Debug)]
struct Slot<T> {
    id: SocketId,
    touched: Time,
    older: u32,
    newer: u32,
    class: Class,
    value: T,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    newest: u32,
}

/// Invariant: every slot is either in `index` and in exactly one list, or in `free`.
#[derive(Debug)]
pub(super) struct Table<T> {
    index: HashMap<SocketId, u32, foldhash::fast::RandomState>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    lists: [Ends; 3],
    /// What was found last: frames of one connection come in runs.
    latest: (SocketId, u32),
}

impl<T: Default> Table<T> {
    pub(super) fn new() -> Self {
        Self {
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            lists: [Ends { oldest: NONE, newest: NONE }; 3],
            latest: (SocketId(0), NONE),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&mut self, id: SocketId) -> Option<u32> {
        let (latest, slot) = self.latest;
        if latest == id && slot != NONE {
            return Some(slot);
        }
        let slot = *self.index.get(&id)?;
        self.latest = (id, slot);
        Some(slot)
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize).map(|s| &mut s.value)
    }

    pub(super) fn id(&self, slot: u32) -> Option<SocketId> {
        self.slots.get(slot as usize).map(|s| s.id)
    }

    /// Adds a connection as the newest fresh one. `id` must not be in the table.
    pub(super) fn insert(&mut self, id: SocketId, now: Time, value: T) -> u32 {
        let new = Slot { id, touched: now, older: NONE, newer: NONE, class: Class::Fresh, value };
        let slot = if let Some(slot) = self.free.pop() {
            if let Some(old) = self.slots.get_mut(slot as usize) {
                *old = new;
            }
            slot
        } else {
            self.slots.push(new);
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        };
        self.index.insert(id, slot);
        self.link(slot, Class::Fresh);
        slot
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        self.unlink(slot);
        let old = self.slots.get_mut(slot as usize)?;
        self.index.remove(&old.id)?;
        if self.latest.1 == slot {
            self.latest.1 = NONE;
        }
        self.free.push(slot);
        Some(std::mem::take(&mut old.value))
    }

    /// Notes that something happened. Times closer than a second count as one: the lists need no finer order, and
    /// a busy connection is then moved once a second instead of once a frame.
    pub(super) fn touch(&mut self, slot: u32, class: Class, now: Time) {
        let Some(s) = self.slots.get_mut(slot as usize) else { return };
        if s.class == class && now.since(s.touched).as_secs() == 0 {
            return;
        }
        s.touched = s.touched.max(now);
        self.unlink(slot);
        self.link(slot, class);
    }

    /// The slot of a class that was touched the longest ago, and when that was.
    pub(super) fn oldest(&self, class: Class) -> Option<(u32, Time)> {
        let slot = self.lists.get(class as usize)?.oldest;
        self.slots.get(slot as usize).map(|s| (slot, s.touched))
    }

    /// The first of the `most` oldest slots of a class that fits.
    pub(super) fn find_oldest(
        &self,
        class: Class,
        most: usize,
        fits: impl Fn((SocketId, &T)) -> bool,
    ) -> Option<u32> {
        let slot_at = |slot: u32| self.slots.get(slot as usize).map(|s| (slot, s));
        let first = slot_at(self.lists.get(class as usize)?.oldest);
        std::iter::successors(first, |(_, s)| slot_at(s.newer))
            .take(most)
            .find(|(_, s)| fits((s.id, &s.value)))
            .map(|(slot, _)| slot)
    }

    fn ends(&mut self, class: Class) -> &mut Ends {
        let [fresh, proven, waiting] = &mut self.lists;
        match class {
            Class::Fresh => fresh,
            Class::Proven => proven,
            Class::Waiting => waiting,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Some(&Slot { older, newer, class, .. }) = self.slots.get(slot as usize) else { return };
        match self.slots.get_mut(older as usize) {
            Some(s) => s.newer = newer,
            None => self.ends(class).oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(s) => s.older = older,
            None => self.ends(class).newest = older,
        }
    }

    fn link(&mut self, slot: u32, class: Class) {
        let newest = self.ends(class).newest;
        match self.slots.get_mut(newest as usize) {
            Some(s) => s.newer = slot,
            None => self.ends(class).oldest = slot,
        }
        self.ends(class).newest = slot;
        if let Some(s) = self.slots.get_mut(slot as usize) {
            s.class = class;
            s.older = newest;
            s.newer = NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_untouched_comes_first() {
        let mut table = Table::<u8>::new();
        let slots: Vec<u32> = (0..3).map(|n| table.insert(SocketId(n), Time::from_secs(n), 0)).collect();
        table.touch(slots[0], Class::Fresh, Time::from_secs(9));
        assert_eq!(table.oldest(Class::Fresh), Some((slots[1], Time::from_secs(1))));
        table.touch(slots[1], Class::Waiting, Time::from_secs(9));
        assert_eq!(table.oldest(Class::Fresh), Some((slots[2], Time::from_secs(2))));
        assert_eq!(table.oldest(Class::Waiting), Some((slots[1], Time::from_secs(9))));
    }

    #[test]
    fn slots_are_used_again() {
        let mut table = Table::<u8>::new();
        for n in 0..100 {
            let slot = table.insert(SocketId(n), Time(n), 0);
            assert_eq!(table.find(SocketId(n)), Some(slot));
            assert!(table.remove(slot).is_some());
            assert_eq!(table.find(SocketId(n)), None);
        }
        assert_eq!(table.slots.len(), 1);
        assert_eq!(table.len(), 0);
        assert_eq!(table.oldest(Class::Fresh), None);
    }
}
