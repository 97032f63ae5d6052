//! Appending: numbers are given, records written and made to last, and only then shown.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::render::Told;
use crate::spool::disk::{Disk, Head};
use crate::spool::gone::Run;
use crate::spool::record::{Entry, MAX_JSON};
use crate::spool::segment::{self, START, Scanner, Segment};
use crate::spool::shared::Shared;
use crate::spool::{CHUNK, Draft, Inner, LANES, NotDurable, Sync, files, lane, lock};

/// How often `Sync::Second` syncs.
const SECOND_MS: u64 = 1000;
/// How long cursors of earlier runs count without being registered: until the sinks have started.
const SETTLE_MS: u64 = 60_000;
/// How often what is old and rare is looked for.
const HOUR_MS: u64 = 3_600_000;
/// How often room is taken for the reserve again.
const RESERVE_MS: u64 = 60_000;
/// Every so many appends to a lane that waits, the disk is tried again.
const PATIENCE: u64 = 64;

/// Whoever appends.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The last number that was given.
    pub given: u64,
    /// The same in each lane.
    pub last: [u64; LANES],
    /// How many were given in each lane.
    pub ordinal: [u64; LANES],
    /// Where it writes; nowhere, if everything stays in memory.
    pub disk: Option<Disk>,
    /// The time of the newest event.
    clock_ms: u64,
    /// When it was opened.
    opened_ms: u64,
    /// Why events wait.
    trouble: Option<(io::ErrorKind, String)>,
    held: u64,
    synced_ms: u64,
    reserved_ms: u64,
    swept_ms: u64,
}

type ByLane = [Vec<Entry>; LANES];

impl Writer {
    /// Goes on behind what is there.
    pub(super) fn behind(shared: &Shared, now_ms: u64) -> Self {
        Self {
            given: shared.head,
            last: shared.lanes.each_ref().map(|lane| lane.last),
            ordinal: shared.lanes.each_ref().map(|lane| lane.ordinal),
            clock_ms: now_ms,
            opened_ms: now_ms,
            ..Self::default()
        }
    }

    /// Gives the next number to what is told.
    fn number(&mut self, draft: &mut Draft<'_>) -> Entry {
        self.given += 1;
        self.clock_ms = draft.time_ms;
        let json = (draft.json)(self.given).into_boxed_str();
        let told = Told::new(self.given, draft.time_ms, draft.severity, draft.kind, json);
        let lane = lane(draft.severity);
        let mut entry = Entry { told: Arc::new(told), before: 0, ordinal: 0 };
        if let (Some(last), Some(ordinal)) = (self.last.get_mut(lane), self.ordinal.get_mut(lane)) {
            *ordinal += 1;
            (entry.before, entry.ordinal) = (*last, *ordinal);
            *last = self.given;
        }
        entry
    }

    pub(super) fn head(&self, shaky: bool) -> Head {
        Head { given: self.given, shaky, last: self.last, ordinal: self.ordinal, ..Head::default() }
    }

    /// Whether a loss of power may take away what is shown.
    fn is_shaky(&self, pending: bool) -> bool {
        pending || self.disk.as_ref().is_some_and(|disk| disk.settings.sync != Sync::Always)
    }

    /// Remembers why events wait; whether that is new.
    fn blame(&mut self, cause: &io::Error) -> bool {
        self.trouble.replace((cause.kind(), cause.to_string())).is_none()
    }
}

impl Inner {
    pub(super) fn append(&self, drafts: &mut [Draft<'_>]) -> Result<Range<u64>, NotDurable> {
        let mut writer = lock(&self.writer);
        let first = writer.given + 1;
        if self.read_only {
            let cause = io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it was opened to be read only");
            return Err(self.not_durable(first..first, cause, false));
        }
        let (mut chunk, mut size, mut failed) = (Vec::new(), 0, None);
        for draft in drafts {
            let entry = writer.number(draft);
            if size + entry.size() > CHUNK && !chunk.is_empty() {
                failed = self.store(&mut writer, std::mem::take(&mut chunk)).err().or(failed);
                size = 0;
            }
            size += entry.size();
            chunk.push(entry);
        }
        if !chunk.is_empty() {
            failed = self.store(&mut writer, chunk).err().or(failed);
        }
        let numbers = first..writer.given + 1;
        match failed {
            None => Ok(numbers),
            Some(cause) => {
                let news = writer.blame(&cause);
                Err(self.not_durable(numbers, cause, news))
            }
        }
    }

    fn not_durable(&self, numbers: Range<u64>, cause: io::Error, news: bool) -> NotDurable {
        NotDurable { numbers, dir: self.dir.clone().unwrap_or_default(), cause, news }
    }

    /// Writes numbered events and shows them.
    fn store(&self, writer: &mut Writer, entries: Vec<Entry>) -> io::Result<()> {
        let mut by_lane = ByLane::default();
        for entry in &entries {
            // What no segment may hold stays in memory for as long as it is new.
            let fits = entry.told.json().len() <= MAX_JSON;
            if let Some(list) = by_lane.get_mut(lane(entry.told.severity)).filter(|_| fits) {
                list.push(entry.clone());
            }
        }
        let waiting = self.waiting();
        if waiting.contains(&true) && writer.disk.is_some() {
            writer.held += 1;
            if writer.held.is_multiple_of(PATIENCE) {
                let _ = self.catch_up(writer);
            }
        }
        let (waits, failed) = match writer.disk.take() {
            None => (by_lane, None),
            Some(mut disk) => {
                let stored = self.write(&mut disk, by_lane, self.waiting());
                writer.disk = Some(disk);
                stored
            }
        };
        let failed = failed.or_else(|| {
            let still = waits.iter().any(|list| !list.is_empty()) && writer.disk.is_some();
            let (kind, text) = writer.trouble.clone().filter(|_| still)?;
            Some(io::Error::new(kind, text))
        });
        let first_trouble = failed.is_some() && writer.trouble.is_none();
        let mut head = writer.head(writer.is_shaky(failed.is_some()));
        let due = writer.clock_ms.abs_diff(writer.synced_ms) >= SECOND_MS;
        let mut failed = failed;
        if let Some(disk) = &mut writer.disk {
            // A head that cannot be written costs nothing unless the power fails before the next that can.
            let _ = disk.keep_head(&mut head, first_trouble);
            if due && disk.settings.sync == Sync::Second {
                writer.synced_ms = writer.clock_ms;
                failed = sync_all(disk).err().or(failed);
            }
        }
        self.show(writer, entries, waits);
        failed.map_or(Ok(()), Err)
    }

    /// Which lanes have events that wait.
    fn waiting(&self) -> [bool; LANES] {
        let shared = lock(&self.shared);
        std::array::from_fn(|lane| shared.lanes.get(lane).is_some_and(|lane| !lane.pending.is_empty()))
    }

    /// Writes what it can, the most severe first. Gives what must wait, and why.
    fn write(
        &self,
        disk: &mut Disk,
        mut by_lane: ByLane,
        waiting: [bool; LANES],
    ) -> (ByLane, Option<io::Error>) {
        let (mut waits, mut failed) = (ByLane::default(), None);
        for lane in (0..LANES).rev() {
            let entries = by_lane.get_mut(lane).map(std::mem::take).unwrap_or_default();
            if entries.is_empty() {
                continue;
            }
            let waits_already = waiting.get(lane) == Some(&true);
            let written = if waits_already { Ok(()) } else { self.put(disk, lane, &entries) };
            if let (true, Some(list)) = (waits_already || written.is_err(), waits.get_mut(lane)) {
                *list = entries;
            }
            failed = written.err().or(failed);
        }
        (waits, failed)
    }

    /// Writes the records of a lane and makes them last, as the settings say. All of them or none. Readers see nothing of
    /// them yet, as they look only below the newest number that was shown.
    fn put(&self, disk: &mut Disk, lane: usize, entries: &[Entry]) -> io::Result<()> {
        let size = entries.iter().map(Entry::size).sum::<u64>() + START;
        while lock(&self.shared).bytes + size > disk.settings.max_bytes {
            if !self.evict(disk, lane + 1) {
                let text = "more severe events take all of `spool.max_bytes`";
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
        }
        loop {
            let before =
                disk.active.get(lane).and_then(Option::as_ref).map(|active| (active.name, active.len));
            let written = disk.write(lane, entries).and_then(|placed| {
                if disk.settings.sync == Sync::Always {
                    disk.sync(lane).inspect_err(|_| {
                        let name = placed.first().map(|at| at.segment);
                        let kept = before.filter(|(before, _)| Some(*before) == name);
                        disk.undo(lane, kept.map_or(0, |(_, length)| length));
                        // The kernel may have dropped what it could not write: nothing goes behind it.
                        disk.abandon(lane);
                    })?;
                }
                Ok(placed)
            });
            match written {
                Err(error) if files::is_full(&error) && (disk.free_reserve() || self.evict(disk, lane)) => {}
                Err(error) => return Err(error),
                Ok(placed) => {
                    lock(&self.shared).place(&placed);
                    return Ok(());
                }
            }
        }
    }

    /// Shows events to readers.
    fn show(&self, writer: &mut Writer, entries: Vec<Entry>, waits: ByLane) {
        let mut shared = lock(&self.shared);
        let acknowledged = self.acknowledged();
        for (lane, list) in waits.into_iter().enumerate() {
            if writer.disk.is_some() {
                shared.tally.not_durable += list.len() as u64;
            }
            if !list.is_empty() {
                shared.wait(lane, list, acknowledged);
            }
        }
        for entry in entries.iter().filter(|entry| entry.told.json().len() > MAX_JSON) {
            shared.gone.add_one(lane(entry.told.severity), entry.told.sequence);
            shared.tally.not_durable += 1;
        }
        shared.show(entries);
        if let Some(disk) = &mut writer.disk {
            shared.tally.sync.merge(&std::mem::take(&mut disk.syncs));
        }
        let head = shared.head;
        drop(shared);
        self.head.send_replace(head);
    }

    fn acknowledged(&self) -> [u64; LANES] {
        let cursors = lock(&self.cursors);
        std::array::from_fn(|lane| cursors.acknowledged(lane))
    }

    /// Drops a segment: the oldest that everybody has read, else the oldest of the least severe lane below this one.
    fn evict(&self, disk: &mut Disk, below: usize) -> bool {
        let acknowledged = self.acknowledged();
        let shared = lock(&self.shared);
        let fronts =
            || shared.lanes.iter().enumerate().filter_map(|(at, lane)| Some((at, lane.segments.front()?)));
        let read =
            fronts().filter(|(at, segment)| acknowledged.get(*at).is_some_and(|seen| segment.last <= *seen));
        let oldest = read.min_by_key(|(_, segment)| segment.last).map(|(at, _)| at);
        let Some(at) = oldest.or_else(|| fronts().map(|(at, _)| at).find(|at| *at < below)) else {
            return false;
        };
        drop(shared);
        self.drop_oldest(disk, at, |shared, lane, unread| {
            if let Some(count) = shared.tally.evicted.get_mut(lane) {
                *count += unread;
            }
        });
        true
    }

    /// Drops the oldest segment of a lane, and lets `count` count what of it was not read by everybody.
    fn drop_oldest(&self, disk: &mut Disk, at: usize, count: impl FnOnce(&mut Shared, usize, u64)) {
        let front = lock(&self.shared).lanes.get(at).and_then(|lane| lane.segments.front().cloned());
        let Some(segment) = front else { return };
        let seen = self.acknowledged().get(at).copied().unwrap_or(u64::MAX);
        let path = segment::path(&disk.dir, at, segment.first);
        let (runs, unread) = contents(disk, at, &segment, seen);
        if disk.active.get(at).and_then(Option::as_ref).is_some_and(|active| active.name == segment.first) {
            disk.abandon(at);
        }
        let mut shared = lock(&self.shared);
        shared.evict(at, runs);
        count(&mut shared, at, unread);
        drop(shared);
        // First what is gone, then the file. If the first fails, the next segment still tells what is missing.
        self.keep_gone(disk);
        let _ = files::remove(&path);
    }

    /// Writes what waits in memory.
    fn catch_up(&self, writer: &mut Writer) -> io::Result<()> {
        let Some(mut disk) = writer.disk.take() else { return Ok(()) };
        let mut result = Ok(());
        for lane in (0..LANES).rev() {
            while let Some(entries) = self.oldest_waiting(lane) {
                match self.put(&mut disk, lane, &entries) {
                    Ok(()) => {
                        let mut shared = lock(&self.shared);
                        for _ in entries {
                            shared.written(lane);
                        }
                    }
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
        }
        writer.disk = Some(disk);
        result
    }

    /// As many of the events that wait in a lane as are written at once.
    fn oldest_waiting(&self, lane: usize) -> Option<Vec<Entry>> {
        let shared = lock(&self.shared);
        let (mut some, mut size) = (Vec::new(), 0);
        for entry in &shared.lanes.get(lane)?.pending {
            size += entry.size();
            if size > CHUNK && !some.is_empty() {
                break;
            }
            some.push(entry.clone());
        }
        (!some.is_empty()).then_some(some)
    }

    pub(super) fn tick(&self, now_ms: u64) -> Result<(), NotDurable> {
        let mut writer = lock(&self.writer);
        if writer.disk.is_none() {
            return Ok(());
        }
        let result = self.tend(&mut writer, now_ms);
        let mut head = writer.head(writer.is_shaky(result.is_err()));
        if let Some(disk) = &mut writer.disk {
            let _ = disk.keep_head(&mut head, false);
            lock(&self.shared).tally.sync.merge(&std::mem::take(&mut disk.syncs));
            self.keep_gone(disk);
        }
        let next = writer.given + 1;
        result.map_err(|cause| {
            let news = writer.blame(&cause);
            self.not_durable(next..next, cause, news)
        })
    }

    fn tend(&self, writer: &mut Writer, now_ms: u64) -> io::Result<()> {
        if writer.disk.as_ref().is_some_and(Disk::was_removed) {
            self.start_over(writer)?;
        }
        self.catch_up(writer)?;
        // Only here, so that a disk that is full and not full in turns is told of once.
        writer.trouble = None;
        // Clocks may jump either way.
        let due = now_ms.abs_diff(writer.synced_ms) >= SECOND_MS;
        let reserve = now_ms.abs_diff(writer.reserved_ms) >= RESERVE_MS;
        let sweep = now_ms.abs_diff(writer.swept_ms) >= HOUR_MS;
        let opened_ms = writer.opened_ms;
        let Some(disk) = &mut writer.disk else { return Ok(()) };
        if due && disk.settings.sync == Sync::Second {
            writer.synced_ms = now_ms;
            sync_all(disk)?;
        }
        self.expire(disk, now_ms);
        if reserve {
            writer.reserved_ms = now_ms;
            disk.take_reserve();
        }
        if now_ms >= opened_ms.saturating_add(SETTLE_MS) {
            let mut cursors = lock(&self.cursors);
            cursors.settle();
            if sweep {
                writer.swept_ms = now_ms;
                cursors.forget_old(now_ms, disk.settings.max_age);
            }
        }
        Ok(())
    }

    /// Drops segments in which everything is too old.
    fn expire(&self, disk: &mut Disk, now_ms: u64) {
        let max_age = u64::try_from(disk.settings.max_age.as_millis()).unwrap_or(u64::MAX);
        for lane in 0..LANES {
            let old = || {
                let shared = lock(&self.shared);
                let front = shared.lanes.get(lane)?.segments.front()?;
                (front.newest_ms.saturating_add(max_age) < now_ms).then_some(())
            };
            while old().is_some() {
                self.drop_oldest(disk, lane, |shared, lane, unread| {
                    if let Some(count) = shared.tally.expired.get_mut(lane) {
                        *count += unread;
                    }
                });
            }
        }
    }

    /// Somebody has removed the directory or what is in it: what is in memory is written again.
    fn start_over(&self, writer: &mut Writer) -> io::Result<()> {
        let Some(disk) = &mut writer.disk else { return Ok(()) };
        disk.make_again()?;
        lock(&self.cursors).write_again();
        let acknowledged = self.acknowledged();
        let mut shared = lock(&self.shared);
        for lane in 0..LANES {
            shared.rescue(lane, acknowledged, |first| segment::path(&disk.dir, lane, first).exists());
        }
        Ok(())
    }

    /// Keeps the list of what is gone, if it has changed. It is not synced: segments tell by themselves what is missing
    /// between them.
    fn keep_gone(&self, disk: &Disk) {
        let mut shared = lock(&self.shared);
        if !std::mem::take(&mut shared.gone_changed) {
            return;
        }
        let gone = shared.gone.write();
        drop(shared);
        if files::replace(&disk.dir.join("gone"), &gone, false).is_err() {
            lock(&self.shared).gone_changed = true;
        }
    }

    pub(super) fn close(&self) -> io::Result<()> {
        let mut writer = lock(&self.writer);
        if writer.disk.is_none() {
            return Ok(());
        }
        self.catch_up(&mut writer)?;
        let mut head = writer.head(false);
        let Some(disk) = &mut writer.disk else { return Ok(()) };
        sync_all(disk)?;
        self.keep_gone(disk);
        // Nothing is set apart any more: the next run goes on without a gap, whatever happens to the machine.
        disk.reserved = head.given;
        disk.keep_head(&mut head, true)
    }
}

fn sync_all(disk: &mut Disk) -> io::Result<()> {
    let mut result = Ok(());
    for lane in 0..LANES {
        if let Err(error) = disk.sync(lane) {
            // The kernel may have dropped what it could not write: nothing goes behind it.
            disk.abandon(lane);
            result = Err(error);
        }
    }
    result
}

/// What a segment holds, as runs, and how many of its events are newer than what everybody has read.
fn contents(disk: &Disk, lane: usize, segment: &Segment, seen: u64) -> (Vec<Run>, u64) {
    let (mut runs, mut unread, mut events): (Vec<Run>, u64, u64) = (Vec::new(), 0, 0);
    if let Ok(file) = std::fs::File::open(segment::path(&disk.dir, lane, segment.first)) {
        let mut scanner = Scanner::new(file, START, segment.end);
        while let Ok(Some((header, _))) = scanner.next() {
            let sequence = header.sequence;
            unread += u64::from(sequence > seen);
            events += 1;
            match runs.last_mut() {
                Some(run) if run.last + 1 == sequence => {
                    run.last = sequence;
                    run.events += 1;
                }
                _ => runs.push(Run { first: sequence, last: sequence, events: 1 }),
            }
        }
    }
    if events < segment.events {
        // Some of it cannot be read: all that is known is how many there were.
        let run = Run { first: segment.first, last: segment.last, events: segment.events };
        return (vec![run], if segment.last > seen { segment.events } else { 0 });
    }
    (runs, unread)
}
