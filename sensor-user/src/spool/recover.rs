//! Opening: finding what is there, repairing what a crash has left, and the number to go on with.
//!
//! Segments are read whole, at about a second a GiB, so that damage is known before anybody reads. Within one boot of the
//! machine all that was written is there, and `head` tells the last number exactly. After a loss of power numbers that may
//! have been given to events which are lost are skipped: a gap that every reader is told of.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::spool::cursors::Cursors;
use crate::spool::disk::{Active, BLOCK, Boot, Disk, Head, segment_bytes};
use crate::spool::gone::{ANY, Gone, Run};
use crate::spool::segment::{self, MAX_SEGMENT, START, Segment};
use crate::spool::shared::Shared;
use crate::spool::slots::Slots;
use crate::spool::writer::Writer;
use crate::spool::{LANES, Settings, Spool, Sync, files};

/// Most files that are set aside; the oldest go.
const MAX_REFUSED: usize = 8;

/// Most numbers behind the last that `head` knows: an append writes a mebibyte before it says so, and no event has less
/// than a hundred bytes.
const MAX_FRESH: usize = 1 << 16;

/// This boot of the machine; zeros, if it cannot be told from others.
pub(super) fn boot() -> Boot {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// What the files hold.
struct Found {
    shared: Shared,
    /// The newest number of any event that is known.
    newest: u64,
    /// The numbers that are there behind the last that `head` knows: what the last append before a crash has written.
    fresh: BTreeSet<u64>,
}

/// Opens to write.
pub(super) fn open(dir: &Path, settings: Settings, now_ms: u64, boot: Boot) -> io::Result<Spool> {
    files::make_dir(dir)?;
    let mut disk = Disk::new(dir, settings, boot);
    disk.make()?;
    let cursors = Cursors::open(&dir.join("cursors"), true)?;
    let (slots, head) = match Slots::open(&dir.join("head")) {
        Ok((slots, kept)) => (Some(slots), kept.as_deref().and_then(Head::read)),
        // It is made as soon as there is room.
        Err(error) if files::is_full(&error) => (None, None),
        Err(error) => return Err(error),
    };
    disk.head = slots;
    disk.reserve = dir.join("reserve").exists();
    let Found { mut shared, newest, fresh } = survey(dir, head.as_ref(), true)?;
    if let Some(head) = &head {
        skip_unwritten(&mut shared, head.given, &fresh);
    }
    go_on(&mut shared, head.as_ref(), newest.max(cursors.newest()), boot);
    for (lane, state) in shared.lanes.iter().enumerate() {
        if let Some(last) = state.segments.back() {
            continue_segment(&mut disk, lane, last)?;
        }
    }
    let mut writer = Writer::behind(&shared, now_ms);
    match disk.keep_head(&mut writer.head(true), true) {
        Err(error) if !files::is_full(&error) => return Err(error),
        _ => {}
    }
    if std::mem::take(&mut shared.gone_changed) {
        // Nothing else tells of numbers that were skipped, so this must last.
        let kept = files::replace(&dir.join("gone"), &shared.gone.write(), true);
        shared.gone_changed = kept.is_err();
    }
    disk.take_reserve();
    writer.disk = Some(disk);
    Ok(Spool::build(writer, shared, cursors, Some(dir.to_owned()), false))
}

/// Opens to read only.
pub(super) fn look(dir: &Path) -> io::Result<Spool> {
    fs::read_dir(dir)?;
    let cursors = Cursors::open(&dir.join("cursors"), false)?;
    let head = Slots::peek(&dir.join("head"))?.as_deref().and_then(Head::read);
    let Found { mut shared, newest, .. } = survey(dir, head.as_ref(), false)?;
    shared.head = head.map_or(0, |head| head.given).max(newest);
    Ok(Spool::build(Writer::default(), shared, cursors, Some(dir.to_owned()), true))
}

/// A crash in the middle of an append leaves what is in one lane and not what was to be in another. Nobody has seen the
/// numbers that are missing, but a later one was written, so they are not given again: they are gone.
fn skip_unwritten(shared: &mut Shared, given: u64, fresh: &BTreeSet<u64>) {
    let mut next = given + 1;
    for &number in fresh {
        if number > next {
            shared.gone.add(ANY, Run { first: next, last: number - 1, events: number - next });
            shared.gone_changed = true;
        }
        next = number + 1;
    }
}

/// Finds the number to go on with.
fn go_on(shared: &mut Shared, head: Option<&Head>, newest: u64, boot: Boot) {
    let known = shared.lanes.iter().map(|lane| lane.last).max().unwrap_or(0);
    let given = match head {
        None if newest == 0 => 0,
        None => newest + BLOCK,
        Some(head) => {
            let same = head.boot == boot && boot != Boot::default();
            let sure = same || !(head.shaky || shared.tally.torn > 0);
            newest.max(head.given).max(if sure { 0 } else { head.reserved })
        }
    };
    shared.head = given;
    if given > known {
        shared.gone.add(ANY, Run { first: known + 1, last: given, events: given - known });
        shared.gone_changed = true;
    }
}

/// Reads everything.
fn survey(dir: &Path, head: Option<&Head>, repair: bool) -> io::Result<Found> {
    let mut shared = Shared::default();
    if let Some(bytes) = files::read(&dir.join("gone"), Gone::MAX_FILE)? {
        shared.gone = Gone::read(&bytes).unwrap_or_default();
    }
    let mut newest = (0..=ANY).map(|list| shared.gone.last(list)).max().unwrap_or(0);
    let (given, mut fresh) = (head.map_or(u64::MAX, |head| head.given), BTreeSet::new());
    for lane in 0..LANES {
        let mut last = survey_lane(dir, lane, repair, &mut shared, |number| {
            if number > given && fresh.len() < MAX_FRESH {
                fresh.insert(number);
            }
        })?;
        if let Some(head) = head {
            let (given, count) = (head.last.get(lane).copied(), head.ordinal.get(lane).copied());
            let given = (given.unwrap_or(0), count.unwrap_or(0));
            if given.0 > last.0 {
                shared.gone_changed |=
                    shared.gone.ensure(lane, last.0, given.0, given.1.saturating_sub(last.1));
                last = given;
            }
        }
        last.0 = last.0.max(shared.gone.last(lane));
        newest = newest.max(last.0);
        if let Some(lane) = shared.lanes.get_mut(lane) {
            (lane.last, lane.ordinal) = last;
        }
    }
    Ok(Found { shared, newest, fresh })
}

/// Reads a lane. Gives the number and the ordinal of its last event.
fn survey_lane(
    dir: &Path,
    lane: usize,
    repair: bool,
    shared: &mut Shared,
    mut seen: impl FnMut(u64),
) -> io::Result<(u64, u64)> {
    let mut segments: VecDeque<Segment> = VecDeque::new();
    let mut last = (0, 0);
    for (name, path) in names(dir, lane, repair, &mut shared.tally.refused)? {
        let file = fs::File::open(&path)?;
        let length = file.metadata()?.len();
        if length < START {
            // A crash came between the making of the file and its first record.
            shared.tally.torn += 1;
            discard(&path, repair)?;
            continue;
        }
        if length > MAX_SEGMENT || !segment::is_sound(&file, lane, name)? {
            refuse(dir, &path, repair, &mut shared.tally.refused)?;
            continue;
        }
        let mut missing = Vec::new();
        let before = last;
        let (segment, damaged) = segment::survey(file, name, length, last.0, |header| {
            if header.ordinal > last.1 + 1 {
                missing.push((last.0, header.before, header.ordinal - last.1 - 1));
            }
            last = (header.sequence, header.ordinal);
            seen(header.sequence);
        })?;
        let end = segment.as_ref().map_or(START, |segment| segment.end);
        let tail = end < length;
        shared.tally.torn += u64::from(tail);
        shared.tally.corrupt += damaged.saturating_sub(u64::from(tail));
        let evicted = |segment: &Segment| shared.gone.was_evicted(lane, segment.last);
        if segment.as_ref().is_none_or(evicted) {
            // There is nothing in it, or a crash came before its file was removed.
            last = before;
            discard(&path, repair)?;
            continue;
        }
        for (after, before, events) in missing {
            shared.gone_changed |= shared.gone.ensure(lane, after, before, events);
        }
        if tail && repair {
            segment::open(&path, false)?.set_len(end)?;
        }
        shared.bytes += end;
        segments.extend(segment);
    }
    if let Some(lane) = shared.lanes.get_mut(lane) {
        lane.segments = segments;
    }
    Ok(last)
}

/// The segments of a lane in order. What is none is set aside.
fn names(dir: &Path, lane: usize, repair: bool, refused: &mut u64) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(dir.join(format!("lane-{lane}"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !repair => return Ok(names),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_name().to_str().and_then(segment::first_of) {
            Some(first) if first > 0 && entry.file_type()?.is_file() => names.push((first, entry.path())),
            _ => refuse(dir, &entry.path(), repair, refused)?,
        }
    }
    names.sort();
    Ok(names)
}

fn discard(path: &Path, repair: bool) -> io::Result<()> {
    if repair { files::remove(path) } else { Ok(()) }
}

/// Sets a file aside, among a few.
fn refuse(dir: &Path, path: &Path, repair: bool, refused: &mut u64) -> io::Result<()> {
    *refused += 1;
    if !repair {
        return Ok(());
    }
    let aside = dir.join("refused");
    files::make_dir(&aside)?;
    let lane = path.parent().and_then(Path::file_name).unwrap_or_default();
    let mut name = lane.to_owned();
    name.push("-");
    name.push(path.file_name().unwrap_or_default());
    let _ = fs::remove_file(aside.join(&name));
    fs::rename(path, aside.join(name))?;
    let mut all: Vec<_> = fs::read_dir(&aside)?.filter_map(Result::ok).collect();
    all.sort_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    for entry in all.iter().take(all.len().saturating_sub(MAX_REFUSED)) {
        let _ = fs::remove_file(entry.path());
    }
    Ok(())
}

/// Goes on in the last segment of a lane, if it has room.
fn continue_segment(disk: &mut Disk, lane: usize, last: &Segment) -> io::Result<()> {
    if last.end >= segment_bytes(disk.settings.max_bytes) {
        return Ok(());
    }
    let file = segment::open(&segment::path(&disk.dir, lane, last.first), false)?;
    if let Some(active) = disk.active.get_mut(lane) {
        // What the run before has written may not have been made to last.
        *active = Some(Active { file, name: last.first, len: last.end, dirty: true, fresh: true });
    }
    if disk.settings.sync == Sync::Always { disk.sync(lane) } else { Ok(()) }
}
