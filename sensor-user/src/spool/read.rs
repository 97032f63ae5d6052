//! Reading behind a cursor: from memory if it is near, from segments otherwise, and on over what is damaged.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::detect::Severity;
use crate::render::Told;
use crate::render::told::Shared as Event;
use crate::spool::gone::Lost;
use crate::spool::record::{Entry, Header};
use crate::spool::segment::{self, Mark, Scanner};
use crate::spool::shared::{Piece, Shared};
use crate::spool::{Cursor, Inner, LANES, Read, lane, lock};

/// What is taken, up to its bounds.
struct Taking {
    events: Vec<Event>,
    most: usize,
    size: usize,
    bytes: usize,
}

impl Taking {
    /// Whether an event of this size has room.
    fn fits(&self, size: usize) -> bool {
        self.events.len() < self.most && (self.events.is_empty() || self.size + size <= self.bytes)
    }

    fn push(&mut self, event: Event) {
        self.size += event.json().len();
        self.events.push(event);
    }

    fn last(&self) -> u64 {
        self.events.last().map_or(0, |event| event.sequence)
    }
}

/// What reading the disk has taught.
#[derive(Default)]
struct Learned {
    /// In a lane, behind a number up to another, so many events cannot be read.
    damage: Vec<(usize, u64, u64, u64)>,
    /// Segments that are not there.
    missing: Vec<(usize, u64)>,
    /// Where the next record of a lane is.
    ahead: Vec<(usize, u64, Mark)>,
}

/// What is next in a lane.
enum Ahead {
    Disk(Header, Mark),
    Memory(Entry),
}

/// A lane that is read.
struct Track {
    lane: usize,
    after: u64,
    pieces: VecDeque<Piece>,
    pending: VecDeque<Entry>,
    open: Option<(Scanner, Piece)>,
    /// Number and ordinal of the record before, if there is a piece at all.
    previous: (u64, u64),
    ahead: Option<Ahead>,
}

impl Track {
    fn sequence(&self) -> Option<u64> {
        match self.ahead.as_ref()? {
            Ahead::Disk(header, _) => Some(header.sequence),
            Ahead::Memory(entry) => Some(entry.told.sequence),
        }
    }

    fn size(&self) -> usize {
        match &self.ahead {
            Some(Ahead::Disk(header, _)) => header.length,
            Some(Ahead::Memory(entry)) => entry.told.json().len(),
            None => 0,
        }
    }

    /// Goes to the next event.
    fn advance(&mut self, dir: &Path, learned: &mut Learned) -> io::Result<()> {
        self.ahead = None;
        loop {
            let Some((scanner, piece)) = &mut self.open else {
                let Some(piece) = self.pieces.pop_front() else {
                    self.ahead = self.pending.pop_front().map(Ahead::Memory);
                    return Ok(());
                };
                self.enter(piece, dir, learned)?;
                continue;
            };
            // What cannot be read any more is damaged to its end.
            let Ok(Some((header, offset))) = scanner.next() else {
                let missing = piece.last_ordinal.saturating_sub(self.previous.1);
                if missing > 0 {
                    learned.damage.push((self.lane, self.previous.0, piece.last, missing));
                }
                self.previous = (piece.last, piece.last_ordinal);
                self.open = None;
                continue;
            };
            let Header { sequence, before, ordinal, time_ms, .. } = header;
            if sequence <= self.previous.0 {
                continue;
            }
            let missing = ordinal.saturating_sub(self.previous.1 + 1);
            if missing > 0 {
                learned.damage.push((self.lane, self.previous.0, before, missing));
            }
            self.previous = (sequence, ordinal);
            if sequence > self.after {
                self.ahead = Some(Ahead::Disk(header, Mark { sequence, ordinal, time_ms, offset }));
                return Ok(());
            }
        }
    }

    /// Opens a part of a segment.
    fn enter(&mut self, piece: Piece, dir: &Path, learned: &mut Learned) -> io::Result<()> {
        if self.previous == (0, 0) {
            self.previous = (piece.mark.sequence - 1, piece.mark.ordinal - 1);
        }
        match File::open(segment::path(dir, self.lane, piece.segment)) {
            Ok(file) => self.open = Some((Scanner::new(file, piece.mark.offset, piece.end), piece)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                learned.missing.push((self.lane, piece.segment));
                self.previous = (piece.last, piece.last_ordinal);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The event that is next.
    fn take(&mut self) -> Option<Event> {
        match self.ahead.take()? {
            Ahead::Memory(entry) => Some(entry.told),
            Ahead::Disk(header, _) => {
                let json = self.open.as_ref()?.0.json()?.into();
                let severity = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
                let severity = severity.get(self.lane).copied().unwrap_or(Severity::Critical);
                Some(Arc::new(Told::new(header.sequence, header.time_ms, severity, header.kind, json)))
            }
        }
    }
}

/// What is to be read from outside the newest events.
struct Plan {
    tracks: Vec<Track>,
    /// Where the newest events began when the plan was made.
    floor: u64,
    /// The plan says nothing from this number on.
    until: u64,
}

impl Plan {
    /// What a reader needs besides the newest events. None if nothing.
    fn of(shared: &Shared, from: &Cursor, wanted: [bool; LANES], taking: &Taking) -> Option<Self> {
        let floor = shared.floor();
        let (mut tracks, mut until) = (Vec::new(), floor);
        for (index, (after, wanted)) in from.0.into_iter().zip(wanted).enumerate() {
            let last = shared.lanes.get(index).map_or(0, |lane| lane.last);
            if !wanted || after + 1 >= floor || last <= after {
                continue;
            }
            let (pieces, stop) = shared.pieces(index, after, floor, taking.bytes as u64);
            let (pending, end) = shared.waiting(index, after, floor, taking.most);
            until = until.min(stop).min(end);
            if !pieces.is_empty() || !pending.is_empty() {
                let (open, previous, ahead) = (None, (0, 0), None);
                tracks.push(Track { lane: index, after, pieces, pending, open, previous, ahead });
            }
        }
        (!tracks.is_empty()).then_some(Self { tracks, floor, until })
    }

    /// Takes the events in order; whether it came to its end.
    fn walk(&mut self, dir: &Path, taking: &mut Taking, learned: &mut Learned) -> io::Result<bool> {
        for track in &mut self.tracks {
            track.advance(dir, learned)?;
        }
        loop {
            let next = self.tracks.iter_mut().filter_map(|track| Some((track.sequence()?, track)));
            let next =
                next.filter(|(sequence, _)| *sequence < self.until).min_by_key(|(sequence, _)| *sequence);
            let Some((sequence, track)) = next else { return Ok(true) };
            if !taking.fits(track.size()) {
                return Ok(false);
            }
            let (lane, before) = (track.lane, sequence - 1);
            match track.take() {
                Some(event) => taking.push(event),
                None => learned.damage.push((lane, before, sequence, 1)),
            }
            track.advance(dir, learned)?;
        }
    }

    fn ahead(&self) -> Vec<(usize, u64, Mark)> {
        let ahead = |track: &Track| match (&track.ahead, &track.open) {
            (Some(Ahead::Disk(_, mark)), Some((_, piece))) => Some((track.lane, piece.segment, *mark)),
            _ => None,
        };
        self.tracks.iter().filter_map(ahead).collect()
    }
}

/// Takes the newest events behind the cursor; whether it came to the end.
fn walk_recent(
    shared: &Shared,
    from: &Cursor,
    wanted: [bool; LANES],
    taking: &mut Taking,
    start: u64,
) -> bool {
    let at = shared.recent.partition_point(|entry| entry.told.sequence < start);
    for entry in shared.recent.range(at..) {
        let told = &entry.told;
        let lane = lane(told.severity);
        let seen = from.0.get(lane).is_none_or(|seen| told.sequence <= *seen);
        if seen || wanted.get(lane) != Some(&true) {
            continue;
        }
        if !taking.fits(told.json().len()) {
            return false;
        }
        taking.push(Arc::clone(told));
    }
    true
}

impl Inner {
    pub(super) fn read(&self, from: &Cursor, wanted: [bool; LANES], events: usize, bytes: usize) -> Read {
        let mut read = Read { next: *from, ..Read::default() };
        if events == 0 || !wanted.contains(&true) {
            return read;
        }
        let mut taking = Taking { events: Vec::new(), most: events, size: 0, bytes };
        let mut shared = lock(&self.shared);
        let lowest = from.0.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(after, _)| *after).min();
        let lowest = lowest.unwrap_or(0);
        // Up to where everything that is wanted was taken.
        let upto = match Plan::of(&shared, from, wanted, &taking) {
            None => {
                let all = walk_recent(&shared, from, wanted, &mut taking, lowest + 1);
                if all { shared.head } else { taking.last() }
            }
            Some(mut plan) => {
                drop(shared);
                let mut learned = Learned::default();
                let dir = self.dir.as_deref().unwrap_or(Path::new(""));
                let whole = plan.walk(dir, &mut taking, &mut learned);
                learned.ahead = plan.ahead();
                shared = lock(&self.shared);
                let still = plan.until == plan.floor && shared.floor() == plan.floor;
                let upto = match whole {
                    // What could not be opened now may be later.
                    Err(_) | Ok(false) => taking.last(),
                    Ok(true) if !still => plan.until - 1,
                    Ok(true) if walk_recent(&shared, from, wanted, &mut taking, plan.floor) => shared.head,
                    Ok(true) => taking.last().max(plan.floor - 1),
                };
                learn(&mut shared, &learned, upto);
                upto
            }
        };
        for (next, wanted) in read.next.0.iter_mut().zip(wanted) {
            *next = if wanted { upto.max(*next) } else { *next };
        }
        let got: Vec<u64> = taking.events.iter().map(|event| event.sequence).collect();
        let Lost { ranges, events } = shared.lost(from, &read.next, wanted, &got);
        (read.lost, read.lost_events, read.events) = (ranges, events, taking.events);
        read
    }
}

fn learn(shared: &mut Shared, learned: &Learned, upto: u64) {
    for (lane, first) in &learned.missing {
        shared.missing(*lane, *first);
    }
    for (lane, after, last, events) in &learned.damage {
        if shared.gone.ensure(*lane, *after, *last, *events) {
            shared.gone_changed = true;
            shared.tally.corrupt += 1;
        }
    }
    for (lane, segment, mark) in &learned.ahead {
        if mark.sequence > upto {
            shared.remember(*lane, upto, *segment, *mark);
        }
    }
}
