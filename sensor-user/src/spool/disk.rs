//! The files that are written: one open segment a lane, the head, and the reserve.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::spool::record::{self, Entry, u64_at};
use crate::spool::segment::{self, Mark, START};
use crate::spool::shared::Placed;
use crate::spool::slots::Slots;
use crate::spool::{LANES, Settings, Sync, files};
use crate::telemetry::Histogram;

/// Numbers that are set apart by one sync: after a loss of power so many may be skipped at most.
pub(super) const BLOCK: u64 = 4096;

/// Bytes of a segment: evicting one gives up a small part of the spool.
pub(super) fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 64).clamp(256 << 10, 8 << 20)
}

/// Which boot of the machine this is; what was written in the same boot is in the kernel's memory at least.
pub(super) type Boot = [u8; 16];

/// What the file `head` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// When it was written.
    pub boot: Boot,
    /// The last number that was given.
    pub given: u64,
    /// No number beyond this one was ever given: it lasts through a loss of power, as the rest may not.
    pub reserved: u64,
    /// Whether events may have been shown that a loss of power takes away.
    pub shaky: bool,
    /// The last number in each lane.
    pub last: [u64; LANES],
    /// How many there were in each lane.
    pub ordinal: [u64; LANES],
}

impl Head {
    pub(super) fn write(&self) -> Vec<u8> {
        let words = [self.given, self.reserved, u64::from(self.shaky)];
        let words = words.into_iter().chain(self.last).chain(self.ordinal);
        self.boot.into_iter().chain(words.flat_map(u64::to_le_bytes)).collect()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (boot, rest) = bytes.split_first_chunk::<16>()?;
        (rest.len() == 8 * (3 + 2 * LANES)).then(|| Self {
            boot: *boot,
            given: u64_at(rest, 0),
            reserved: u64_at(rest, 8),
            shaky: u64_at(rest, 16) != 0,
            last: std::array::from_fn(|lane| u64_at(rest, 24 + lane * 8)),
            ordinal: std::array::from_fn(|lane| u64_at(rest, 24 + (LANES + lane) * 8)),
        })
    }
}

/// The segment of a lane that grows.
#[derive(Debug)]
pub(super) struct Active {
    pub file: File,
    /// The first number in it.
    pub name: u64,
    /// Where the next record goes.
    pub len: u64,
    /// Whether there is something to sync.
    pub dirty: bool,
    /// Whether the directory must be synced, too, for the file to last.
    pub fresh: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Disk {
    pub dir: PathBuf,
    pub settings: Settings,
    pub active: [Option<Active>; LANES],
    pub head: Option<Slots>,
    pub boot: Boot,
    pub reserved: u64,
    /// Whether the reserve has its room.
    pub reserve: bool,
    pub syncs: Histogram,
    /// Whether directories are to be made again.
    removed: bool,
    /// What `head` says.
    kept: Head,
    buffer: Vec<u8>,
}

impl Disk {
    pub(super) fn new(dir: &Path, settings: Settings, boot: Boot) -> Self {
        let dir = dir.to_owned();
        let (active, syncs) = (Default::default(), Histogram::default());
        let (kept, buffer) = (Head::default(), Vec::new());
        Self {
            dir,
            settings,
            active,
            head: None,
            boot,
            reserved: 0,
            reserve: false,
            syncs,
            removed: false,
            kept,
            buffer,
        }
    }

    pub(super) fn lane_dir(&self, lane: usize) -> PathBuf {
        self.dir.join(format!("lane-{lane}"))
    }

    /// Makes the directories.
    pub(super) fn make(&self) -> io::Result<()> {
        for lane in 0..LANES {
            files::make_dir(&self.lane_dir(lane))?;
        }
        files::make_dir(&self.dir.join("cursors"))?;
        files::sync_dir(&self.dir)
    }

    /// Appends records to the segment of a lane, or to a new one if they do not fit. All of them or none.
    pub(super) fn write(&mut self, lane: usize, entries: &[Entry]) -> io::Result<Vec<Placed>> {
        let size: u64 = entries.iter().map(Entry::size).sum();
        let limit = segment_bytes(self.settings.max_bytes);
        if self.length(lane).is_some_and(|length| length + size > limit) {
            self.seal(lane)?;
        }
        let name = entries.first().map_or(0, |entry| entry.told.sequence);
        if self.length(lane).is_none() {
            self.begin(lane, name)?;
        }
        let Some(active) = self.active.get_mut(lane).and_then(Option::as_mut) else { return Ok(Vec::new()) };
        let start = active.len;
        self.buffer.clear();
        if start == 0 {
            self.buffer.extend(segment::preamble(lane, name));
        }
        let mut placed = Vec::with_capacity(entries.len());
        for entry in entries {
            let offset = start + self.buffer.len() as u64;
            record::encode(entry, &mut self.buffer);
            let told = &entry.told;
            let (sequence, ordinal, time_ms) = (told.sequence, entry.ordinal, told.time_ms);
            let mark = Mark { sequence, ordinal, time_ms, offset };
            placed.push(Placed { lane, segment: active.name, mark, size: entry.size() });
        }
        match active.file.write_all_at(&self.buffer, start) {
            Ok(()) => {
                active.len = start + self.buffer.len() as u64;
                active.dirty = true;
                Ok(placed)
            }
            Err(error) => {
                self.undo(lane, start);
                Err(error)
            }
        }
    }

    /// Where the next record of a lane goes.
    pub(super) fn length(&self, lane: usize) -> Option<u64> {
        self.active.get(lane)?.as_ref().map(|active| active.len)
    }

    /// Opens a new segment.
    fn begin(&mut self, lane: usize, name: u64) -> io::Result<()> {
        let path = segment::path(&self.dir, lane, name);
        // A file of this name holds nothing that anybody was shown.
        files::remove(&path)?;
        let file = segment::open(&path, true)?;
        if let Some(active) = self.active.get_mut(lane) {
            *active = Some(Active { file, name, len: 0, dirty: false, fresh: true });
        }
        Ok(())
    }

    /// Ends the segment of a lane; what is in it lasts then.
    fn seal(&mut self, lane: usize) -> io::Result<()> {
        if self.settings.sync != Sync::Never {
            self.sync(lane)?;
        }
        self.abandon(lane);
        Ok(())
    }

    /// Appends no more to the segment of a lane.
    pub(super) fn abandon(&mut self, lane: usize) {
        if let Some(active) = self.active.get_mut(lane) {
            *active = None;
        }
    }

    /// Takes back what was appended to a lane behind this place.
    pub(super) fn undo(&mut self, lane: usize, length: u64) {
        let Some(slot) = self.active.get_mut(lane) else { return };
        let Some(active) = slot else { return };
        if length < START {
            let path = segment::path(&self.dir, lane, active.name);
            *slot = None;
            // If it stays, it holds repeats of what is written elsewhere.
            let _ = fs::remove_file(path);
            return;
        }
        match active.file.set_len(length) {
            Ok(()) => active.len = length,
            // Nothing may be appended behind what is half written.
            Err(_) => *slot = None,
        }
    }

    /// Makes the segment of a lane last.
    pub(super) fn sync(&mut self, lane: usize) -> io::Result<()> {
        let dir = self.lane_dir(lane);
        let Some(active) = self.active.get_mut(lane).and_then(Option::as_mut) else { return Ok(()) };
        if !active.dirty {
            return Ok(());
        }
        #[allow(clippy::disallowed_methods, reason = "how long the disk takes is not in the data")]
        let start = Instant::now();
        active.file.sync_data()?;
        if active.fresh {
            files::sync_dir(&dir)?;
        }
        (active.dirty, active.fresh) = (false, false);
        self.syncs.observe(start.elapsed());
        Ok(())
    }

    /// Keeps what is known of numbers; makes it last, if they leave the block that was set apart, or if asked to.
    pub(super) fn keep_head(&mut self, head: &mut Head, sync: bool) -> io::Result<()> {
        let beyond = head.given > self.reserved;
        if beyond {
            self.reserved = head.given + BLOCK;
        }
        (head.boot, head.reserved) = (self.boot, self.reserved);
        if self.head.is_some() && !sync && *head == self.kept {
            return Ok(());
        }
        if self.head.is_none() {
            self.head = Some(Slots::open(&self.dir.join("head"))?.0);
        }
        let Some(slots) = &mut self.head else { return Ok(()) };
        slots.write(&head.write())?;
        self.kept = head.clone();
        if beyond || sync { slots.sync() } else { Ok(()) }
    }

    /// Whether somebody has removed what is open, and it was not made again since.
    pub(super) fn was_removed(&self) -> bool {
        let unlinked = |file: &File| file.metadata().is_ok_and(|meta| meta.nlink() == 0);
        let lacks_head = || self.dir.join("head").try_exists().is_ok_and(|exists| !exists);
        self.removed
            || self.active.iter().flatten().any(|active| unlinked(&active.file))
            || (self.head.is_some() && lacks_head())
    }

    /// Lets go of all that is open, and makes the directories again.
    pub(super) fn make_again(&mut self) -> io::Result<()> {
        // Nothing may be written to files that have no name any more, even if this fails.
        (self.active, self.head, self.reserve, self.removed) = (Default::default(), None, false, true);
        self.make()?;
        self.removed = false;
        Ok(())
    }

    /// Takes room that is given back when the disk is full.
    pub(super) fn take_reserve(&mut self) {
        if self.reserve {
            return;
        }
        let path = self.dir.join("reserve");
        let size = segment_bytes(self.settings.max_bytes).min(4 << 20);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let taken = file.and_then(|file| {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
                // A file system without it: zeros are blocks everywhere but where they are packed.
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    file.write_all_at(&vec![0; usize::try_from(size).unwrap_or(0)], 0)
                }
                other => Ok(other?),
            }
        });
        self.reserve = taken.is_ok();
        if !self.reserve {
            let _ = fs::remove_file(path);
        }
    }

    /// Gives the room back; whether there was any.
    pub(super) fn free_reserve(&mut self) -> bool {
        let had = self.reserve && fs::remove_file(self.dir.join("reserve")).is_ok();
        self.reserve = false;
        had
    }
}
