//! What the spool no longer has: the proof of every gap.
//!
//! Numbers are consecutive, so a reader could tell a gap by itself; this tells which events of *its lanes* are missing,
//! also after a restart. Exact as long as the list is; beyond its bound the oldest entries of a lane are joined, and then
//! span numbers of other lanes too, but still count only what was lost.

use std::ops::Range;

use crate::spool::LANES;
use crate::spool::record::{u32_at, u64_at};

/// Most entries a lane. An entry is 24 bytes, so the file stays below 128 KiB.
const MAX_RUNS: usize = 1024;

/// Most ranges that one reader is told at once.
const MAX_TOLD: usize = 1024;

/// Lists: one a lane, and one for numbers of which nobody knows the lane.
pub(super) const LISTS: usize = LANES + 1;

/// The list of numbers whose lane is unknown.
pub(super) const ANY: usize = LANES;

const MAGIC: &[u8; 8] = b"TSGONE\x01\n";

/// Some events that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first of their numbers.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// How many events: at most as many as numbers.
    pub events: u64,
}

impl Run {
    fn exact(self) -> bool {
        self.events == self.last - self.first + 1
    }
}

/// Everything that is gone, by lane, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    runs: [Vec<Run>; LISTS],
    /// The last number of each lane that was in an evicted segment: segments go in order.
    evicted: [u64; LANES],
}

/// What one reader has lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// The numbers.
    pub ranges: Vec<Range<u64>>,
    /// How many events.
    pub events: u64,
}

impl Gone {
    /// Adds events of a list. Numbers that are in it already stay as they are.
    pub(super) fn add(&mut self, lane: usize, run: Run) {
        let Some(runs) = self.runs.get_mut(lane) else { return };
        if run.first > run.last || run.events == 0 {
            return;
        }
        let at = runs.partition_point(|other| other.last < run.first);
        if runs.get(at).is_some_and(|next| next.first <= run.last) {
            return replace(runs, at, run);
        }
        let before = at.checked_sub(1).and_then(|before| runs.get_mut(before));
        match before {
            Some(before) if before.last + 1 == run.first && before.exact() && run.exact() => {
                before.last = run.last;
                before.events += run.events;
            }
            _ => runs.insert(at, run),
        }
        if runs.len() > MAX_RUNS {
            join(runs);
        }
    }

    /// Adds one event.
    pub(super) fn add_one(&mut self, lane: usize, number: u64) {
        self.add(lane, Run { first: number, last: number, events: 1 });
    }

    /// Makes sure that so many events behind `after` up to `last` are known to be gone; whether they were not.
    pub(super) fn ensure(&mut self, lane: usize, after: u64, last: u64, events: u64) -> bool {
        let events = events.min(last.saturating_sub(after));
        let known = self.events(lane, after, last);
        if known < events {
            self.add(lane, Run { first: after + 1, last, events });
        }
        known < events
    }

    /// How many events of a list behind `after` up to `last` are known to be gone.
    fn events(&self, lane: usize, after: u64, last: u64) -> u64 {
        self.within(lane, after, last).map(|run| run.events).sum()
    }

    /// The last number of a list.
    pub(super) fn last(&self, lane: usize) -> u64 {
        self.runs.get(lane).and_then(|runs| runs.last()).map_or(0, |run| run.last)
    }

    /// What a list holds behind `after` up to `last`. Of an entry that is only partly in there, all that may be.
    fn within(&self, lane: usize, after: u64, last: u64) -> impl Iterator<Item = Run> {
        let runs = self.runs.get(lane).map(Vec::as_slice).unwrap_or_default();
        let start = runs.partition_point(|run| run.last <= after);
        let runs = runs.get(start..).unwrap_or_default().iter();
        runs.take_while(move |run| run.first <= last).map(move |run| {
            let (first, last) = (run.first.max(after + 1), run.last.min(last));
            Run { first, last, events: run.events.min(last - first + 1) }
        })
    }

    /// What a reader of a lane has lost on its way from one number to another.
    pub(super) fn collect(&self, lane: usize, after: u64, last: u64, all: &mut Lost) {
        for run in self.within(lane, after, last) {
            all.ranges.push(run.first..run.last + 1);
            all.events += run.events;
        }
    }

    /// The file.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for runs in &self.runs {
            out.extend(u32::try_from(runs.len()).unwrap_or(0).to_le_bytes());
            for run in runs {
                out.extend([run.first, run.last, run.events].iter().flat_map(|word| word.to_le_bytes()));
            }
        }
        out.extend(self.evicted.iter().flat_map(|number| number.to_le_bytes()));
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Largest file.
    pub(super) const MAX_FILE: u64 = (8 + LISTS * (4 + MAX_RUNS * 24) + LANES * 8 + 4) as u64;

    /// Reads a file; none if it is damaged.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..bytes.len().checked_sub(4)?)?;
        if !body.starts_with(MAGIC) || crc32fast::hash(body) != u32_at(bytes, body.len()) {
            return None;
        }
        let (mut gone, mut at) = (Self::default(), MAGIC.len());
        for lane in 0..LISTS {
            let runs = u32_at(body, at) as usize;
            at += 4;
            for _ in 0..runs.min(MAX_RUNS) {
                let [first, last, events] = [0, 8, 16].map(|word| u64_at(body, at + word));
                gone.add(lane, Run { first, last, events });
                at += 24;
            }
        }
        gone.evicted = std::array::from_fn(|lane| u64_at(body, at + lane * 8));
        Some(gone)
    }

    /// Takes note that a segment is evicted of which this is the last number.
    pub(super) fn evict(&mut self, lane: usize, last: u64) {
        if let Some(number) = self.evicted.get_mut(lane) {
            *number = last.max(*number);
        }
    }

    /// Whether a segment that ends with this number was evicted.
    pub(super) fn was_evicted(&self, lane: usize, last: u64) -> bool {
        self.evicted.get(lane).is_some_and(|number| last <= *number)
    }
}

/// Puts an entry where others are that it overlaps: what they span together is one entry then.
fn replace(runs: &mut Vec<Run>, at: usize, run: Run) {
    let mut all = run;
    let mut known = 0;
    while let Some(next) = runs.get(at).filter(|next| next.first <= run.last) {
        (all.first, all.last) = (all.first.min(next.first), all.last.max(next.last));
        known += next.events;
        runs.remove(at);
    }
    all.events = run.events.max(known).min(all.last - all.first + 1);
    runs.insert(at, all);
}

/// Halves the number of the older half of entries.
fn join(runs: &mut Vec<Run>) {
    let half = runs.len() / 2;
    let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
    for (index, run) in runs.drain(..).enumerate() {
        match joined.last_mut() {
            Some(last) if index < half && index % 2 == 1 => {
                last.last = run.last;
                last.events += run.events;
            }
            _ => joined.push(run),
        }
    }
    *runs = joined;
}

impl Lost {
    /// Puts the ranges in order, without those that the reader got all the same, and not more than a reader is told.
    pub(super) fn settle(&mut self, got: &[u64]) {
        self.ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(self.ranges.len());
        for range in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        for range in merged {
            let mut start = range.start;
            let from = got.partition_point(|number| *number < range.start);
            for number in got.get(from..).unwrap_or_default().iter().take_while(|n| **n < range.end) {
                if start < *number {
                    self.ranges.push(start..*number);
                }
                start = number + 1;
            }
            if start < range.end {
                self.ranges.push(start..range.end);
            }
        }
        while self.ranges.len() > MAX_TOLD {
            let (Some(second), Some(first)) = (self.ranges.get(1).cloned(), self.ranges.first_mut()) else {
                break;
            };
            first.end = second.end;
            self.ranges.remove(1);
        }
        let numbers: u64 = self.ranges.iter().map(|range| range.end - range.start).sum();
        self.events = self.events.min(numbers);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lost(gone: &Gone, lane: usize, after: u64, last: u64) -> Lost {
        let mut all = Lost::default();
        gone.collect(lane, after, last, &mut all);
        all.settle(&[]);
        all
    }

    #[test]
    fn neighbours_become_one_range() {
        let mut gone = Gone::default();
        for number in [3, 4, 5, 9] {
            gone.add_one(0, number);
        }
        assert_eq!(lost(&gone, 0, 0, 20), Lost { ranges: vec![3..6, 9..10], events: 4 });
        assert_eq!(lost(&gone, 0, 3, 5), Lost { ranges: std::iter::once(4..6).collect(), events: 2 });
        assert_eq!(lost(&gone, 1, 0, 20), Lost::default());
        gone.ensure(0, 2, 5, 3);
        assert_eq!(lost(&gone, 0, 0, 20).events, 4);
    }

    #[test]
    fn what_came_all_the_same_is_not_lost() {
        let mut lost = Lost { ranges: vec![8..12, 1..5, 4..6], events: 9 };
        lost.settle(&[2, 5, 11]);
        assert_eq!(lost, Lost { ranges: vec![1..2, 3..5, 8..11], events: 6 });
    }

    proptest! {
        #[test]
        fn counts_stay_true_beyond_the_bound(steps in prop::collection::vec(1_u64..4, 0..5000)) {
            let (mut gone, mut number) = (Gone::default(), 0);
            for step in &steps {
                number += step;
                gone.add_one(2, number);
            }
            prop_assert!(gone.runs[2].len() <= MAX_RUNS);
            prop_assert_eq!(lost(&gone, 2, 0, number).events, steps.len() as u64);
            prop_assert_eq!(gone.last(2), number);
            let bytes = gone.write();
            prop_assert!(bytes.len() as u64 <= Gone::MAX_FILE);
            prop_assert_eq!(Gone::read(&bytes), Some(gone));
        }

        #[test]
        fn entries_never_overlap(runs in prop::collection::vec((1_u64..200, 0_u64..30, 1_u64..30), 0..60)) {
            let mut gone = Gone::default();
            for (first, length, events) in runs {
                gone.add(1, Run { first, last: first + length, events: events.min(length + 1) });
            }
            for pair in gone.runs[1].windows(2) {
                prop_assert!(pair[0].last < pair[1].first);
            }
            for run in &gone.runs[1] {
                prop_assert!(run.events <= run.last - run.first + 1);
            }
        }

        #[test]
        fn damage_is_noticed(at in any::<prop::sample::Index>(), by in 1_u8..) {
            let mut gone = Gone::default();
            gone.add_one(0, 7);
            let mut bytes = gone.write();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert_eq!(Gone::read(&bytes), None);
        }
    }
}
