//! What readers see: the newest events in memory, where older ones are on disk, and what is gone.

use std::collections::VecDeque;

use crate::spool::gone::{ANY, Gone, Lost, Run};
use crate::spool::record::Entry;
use crate::spool::segment::{Mark, Segment};
use crate::spool::{Cursor, LANES, lane};
use crate::telemetry::Histogram;

/// Newest events that are kept in memory, so that whoever follows never reads the disk.
const RECENT_EVENTS: usize = 4096;
/// Their bytes: a second of events at the rate that the spool is built for, and a bit.
const RECENT_BYTES: usize = 4 << 20;

/// Events that wait in memory until they can be written, or for ever if there is no disk.
const PENDING_EVENTS: usize = 16_384;
/// Their bytes.
const PENDING_BYTES: u64 = 16 << 20;

/// Places behind which readers will go on: more than there are sinks.
const HINTS: usize = 64;

/// One lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// On disk, oldest first.
    pub segments: VecDeque<Segment>,
    /// What could not be written yet; all of it newer than what is on disk.
    pub pending: VecDeque<Entry>,
    /// The last number that was given in it.
    pub last: u64,
    /// How many were given in it.
    pub ordinal: u64,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub appended: [u64; LANES],
    pub evicted: [u64; LANES],
    pub expired: [u64; LANES],
    pub torn: u64,
    pub corrupt: u64,
    pub refused: u64,
    pub not_durable: u64,
    pub sync: Histogram,
}

/// Where a reader goes on.
#[derive(Clone, Copy, Debug)]
struct Hint {
    lane: usize,
    after: u64,
    segment: u64,
    mark: Mark,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub recent: VecDeque<Entry>,
    recent_bytes: usize,
    pub lanes: [Lane; LANES],
    pub gone: Gone,
    /// The newest number.
    pub head: u64,
    /// Bytes on disk.
    pub bytes: u64,
    pending_bytes: u64,
    hints: VecDeque<Hint>,
    pub tally: Tally,
    /// Whether the list of what is gone has changed since it was kept.
    pub gone_changed: bool,
}

/// A record that was appended to a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub lane: usize,
    pub segment: u64,
    pub mark: Mark,
    pub size: u64,
}

/// A part of a segment that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub segment: u64,
    pub mark: Mark,
    pub end: u64,
    pub last: u64,
    pub last_ordinal: u64,
}

impl Shared {
    /// Nothing yet; numbers go on behind this one.
    pub(super) fn empty(head: u64) -> Self {
        Self { head, ..Self::default() }
    }

    /// The lowest number from which on everything is in memory.
    pub(super) fn floor(&self) -> u64 {
        self.recent.front().map_or(self.head + 1, |entry| entry.told.sequence)
    }

    /// Shows events to readers. They were placed or are pending.
    pub(super) fn show(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let told = &entry.told;
            self.head = self.head.max(told.sequence);
            if let Some(lane) = self.lanes.get_mut(lane(told.severity)) {
                (lane.last, lane.ordinal) = (told.sequence, entry.ordinal);
            }
            if let Some(count) = self.tally.appended.get_mut(lane(told.severity)) {
                *count += 1;
            }
            self.recent_bytes += told.json().len();
            self.recent.push_back(entry);
        }
        while self.recent.len() > RECENT_EVENTS || (self.recent_bytes > RECENT_BYTES && self.recent.len() > 1)
        {
            let Some(old) = self.recent.pop_front() else { break };
            self.recent_bytes -= old.told.json().len();
        }
    }

    /// Takes note of what was written.
    pub(super) fn place(&mut self, placed: &[Placed]) {
        for at in placed {
            let Some(lane) = self.lanes.get_mut(at.lane) else { continue };
            match lane.segments.back_mut() {
                Some(segment) if segment.first == at.segment => {
                    self.bytes += (at.mark.offset + at.size).saturating_sub(segment.end);
                    segment.note(at.mark, at.size);
                }
                _ => {
                    self.bytes += at.mark.offset + at.size;
                    lane.segments.push_back(Segment::new(at.segment, at.mark, at.size));
                }
            }
        }
    }

    /// Keeps events that could not be written. What is beyond the bound is given up, the least severe first; only those
    /// that somebody (`acknowledged`, by lane) still needs count as lost.
    pub(super) fn wait(
        &mut self,
        at: usize,
        entries: impl IntoIterator<Item = Entry>,
        acknowledged: [u64; LANES],
    ) {
        if let Some(lane) = self.lanes.get_mut(at) {
            for entry in entries {
                self.pending_bytes += entry.size();
                lane.pending.push_back(entry);
            }
        }
        while self.pending_bytes > PENDING_BYTES || self.pending() > PENDING_EVENTS {
            let acked = |(at, lane): (usize, &Lane)| {
                let front = lane.pending.front()?.told.sequence;
                (acknowledged.get(at).is_some_and(|seen| front <= *seen)).then_some(at)
            };
            let first = self.lanes.iter().enumerate().find_map(acked);
            let least = || self.lanes.iter().position(|lane| !lane.pending.is_empty());
            let Some(from) = first.or_else(least) else { break };
            let Some(entry) = self.written(from) else { break };
            self.gone.add_one(from, entry.told.sequence);
            self.gone_changed = true;
            if let (None, Some(count)) = (first, self.tally.evicted.get_mut(from)) {
                *count += 1;
            }
        }
    }

    /// Takes the oldest of the events that wait in a lane.
    pub(super) fn written(&mut self, lane: usize) -> Option<Entry> {
        let entry = self.lanes.get_mut(lane)?.pending.pop_front()?;
        self.pending_bytes = self.pending_bytes.saturating_sub(entry.size());
        Some(entry)
    }

    /// How many events wait to be written.
    pub(super) fn pending(&self) -> usize {
        self.lanes.iter().map(|lane| lane.pending.len()).sum()
    }

    /// Drops the oldest segment of a lane, all of which is gone then: as these runs say. Gives it.
    pub(super) fn evict(&mut self, at: usize, runs: Vec<Run>) -> Option<Segment> {
        let segment = self.lanes.get_mut(at)?.segments.pop_front()?;
        self.bytes = self.bytes.saturating_sub(segment.end);
        for run in runs {
            self.gone.add(at, run);
        }
        self.gone.evict(at, segment.last);
        self.gone_changed = true;
        Some(segment)
    }

    /// Drops a segment whose file is not there any more, unless it was evicted meanwhile.
    pub(super) fn missing(&mut self, at: usize, first: u64) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let Some(index) = lane.segments.iter().position(|segment| segment.first == first) else { return };
        if let Some(segment) = lane.segments.remove(index) {
            self.bytes = self.bytes.saturating_sub(segment.end);
            self.gone.ensure(at, segment.first - 1, segment.last, segment.events);
            self.gone_changed = true;
            self.tally.corrupt += 1;
        }
    }

    /// Drops the segments of a lane that are not there any more. What of them is in memory waits to be written again.
    pub(super) fn rescue(&mut self, at: usize, acknowledged: [u64; LANES], exists: impl Fn(u64) -> bool) {
        let Some(lane_of) = self.lanes.get_mut(at) else { return };
        let (kept, vanished): (Vec<_>, Vec<_>) =
            lane_of.segments.drain(..).partition(|segment| exists(segment.first));
        let left = kept.last().map_or(0, |segment| segment.last);
        let last = vanished.last().map_or(0, |segment| segment.last);
        lane_of.segments = kept.into();
        let waiting: Vec<Entry> = lane_of.pending.drain(..).collect();
        self.pending_bytes -= waiting.iter().map(Entry::size).sum::<u64>();
        let of_lane = self.recent.iter().filter(|entry| lane(entry.told.severity) == at);
        let again = of_lane.filter(|entry| (left + 1..=last).contains(&entry.told.sequence));
        let again: Vec<Entry> = again.cloned().collect();
        let from = again.first().map_or(u64::MAX, |entry| entry.told.sequence);
        for segment in vanished {
            self.bytes = self.bytes.saturating_sub(segment.end);
            let in_memory =
                again.iter().filter(|e| (segment.first..=segment.last).contains(&e.told.sequence));
            let events = segment.events.saturating_sub(in_memory.count() as u64);
            if events > 0 {
                self.gone.ensure(at, segment.first - 1, segment.last.min(from - 1), events);
                self.gone_changed = true;
                self.tally.corrupt += 1;
            }
        }
        self.wait(at, again.into_iter().chain(waiting), acknowledged);
    }

    /// The parts of segments that hold what comes behind `after` and before `floor` in a lane, for about so many bytes,
    /// and before which number they end.
    pub(super) fn pieces(&self, at: usize, after: u64, floor: u64, bytes: u64) -> (VecDeque<Piece>, u64) {
        let mut pieces = VecDeque::new();
        let Some(lane) = self.lanes.get(at) else { return (pieces, floor) };
        let start = lane.segments.partition_point(|segment| segment.last <= after);
        let mut sum = 0;
        for segment in lane.segments.range(start..) {
            let Some(first) = segment.marks.first().filter(|mark| mark.sequence < floor) else { break };
            if sum > bytes {
                return (pieces, first.sequence);
            }
            let hinted = self.hint(at, after, segment.first);
            let mark = hinted.or_else(|| segment.mark_for(after)).unwrap_or(*first);
            sum += segment.end - mark.offset;
            let (end, last, last_ordinal) = (segment.end, segment.last, segment.last_ordinal);
            pieces.push_back(Piece { segment: segment.first, mark, end, last, last_ordinal });
        }
        (pieces, floor)
    }

    /// What waits in a lane behind `after` and before `floor`, at most so many, and before which number they end.
    pub(super) fn waiting(&self, at: usize, after: u64, floor: u64, most: usize) -> (VecDeque<Entry>, u64) {
        let Some(lane) = self.lanes.get(at) else { return (VecDeque::new(), floor) };
        let start = lane.pending.partition_point(|entry| entry.told.sequence <= after);
        let end = lane.pending.partition_point(|entry| entry.told.sequence < floor).max(start);
        let stop = end.min(start.saturating_add(most));
        let floor =
            if stop < end { lane.pending.get(stop).map_or(floor, |e| e.told.sequence) } else { floor };
        (lane.pending.range(start..stop).cloned().collect(), floor)
    }

    fn hint(&self, lane: usize, after: u64, segment: u64) -> Option<Mark> {
        let fits = |hint: &&Hint| (hint.lane, hint.after, hint.segment) == (lane, after, segment);
        self.hints.iter().rev().find(fits).map(|hint| hint.mark)
    }

    /// Remembers that the first record behind `after` in a lane is here.
    pub(super) fn remember(&mut self, lane: usize, after: u64, segment: u64, mark: Mark) {
        if self.hints.len() >= HINTS {
            self.hints.pop_front();
        }
        self.hints.push_back(Hint { lane, after, segment, mark });
    }

    /// What a reader has lost on its way.
    pub(super) fn lost(&self, from: &Cursor, next: &Cursor, wanted: [bool; LANES], got: &[u64]) -> Lost {
        let mut lost = Lost::default();
        let (mut low, mut high) = (u64::MAX, 0);
        for (lane, ((from, next), wanted)) in from.0.into_iter().zip(next.0).zip(wanted).enumerate() {
            if wanted && next > from {
                self.gone.collect(lane, from, next, &mut lost);
                (low, high) = (low.min(from), high.max(next));
            }
        }
        if low < high {
            self.gone.collect(ANY, low, high, &mut lost);
        }
        lost.settle(got);
        lost
    }

    /// About how many events of a lane a reader has still before it, and when the first of them was.
    pub(super) fn behind(&self, at: usize, after: u64) -> (u64, Option<u64>) {
        let Some(lane) = self.lanes.get(at).filter(|lane| lane.last > after) else { return (0, None) };
        let start = lane.segments.partition_point(|segment| segment.last <= after);
        if let Some(mark) = lane.segments.get(start).and_then(|segment| segment.mark_for(after)) {
            return ((lane.ordinal + 1).saturating_sub(mark.ordinal), Some(mark.time_ms));
        }
        let next = lane.pending.get(lane.pending.partition_point(|entry| entry.told.sequence <= after));
        next.map_or((0, None), |entry| ((lane.ordinal + 1) - entry.ordinal, Some(entry.told.time_ms)))
    }
}
