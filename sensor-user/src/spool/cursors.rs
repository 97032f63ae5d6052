//! How far each sink has come: one small file a sink, so that a restart goes on where delivery was.
//!
//! A cursor is written at each acknowledgement and never synced. Losing the newest state repeats some deliveries, which
//! receivers recognise by the event's id; it never leaves one out.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::spool::record::u64_at;
use crate::spool::slots::Slots;
use crate::spool::{Cursor, LANES};

/// Most cursors: eight times as many as there can be sinks.
const MAX_CURSORS: usize = 256;

/// One sink's.
#[derive(Debug)]
struct Kept {
    cursor: Cursor,
    /// Lanes that the sink asks for at all.
    wanted: [bool; LANES],
    slots: Option<Slots>,
    /// Whether the sink is there in this run.
    registered: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    dir: Option<PathBuf>,
    all: BTreeMap<String, Kept>,
    /// Whether those of earlier runs that nobody has registered still hold back what they have not read.
    settled: bool,
    /// Times that a file could not be written.
    pub failed: u64,
}

impl Cursors {
    /// Reads what earlier runs have kept.
    pub(super) fn open(dir: &Path, make: bool) -> io::Result<Self> {
        if make {
            super::files::make_dir(dir)?;
        }
        let mut all = BTreeMap::new();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        for entry in entries.take(MAX_CURSORS) {
            let path = entry?.path();
            let (Some(name), Some(bytes)) = (name_of(&path), Slots::peek(&path)?) else { continue };
            let wanted = [true; LANES];
            all.insert(name, Kept { cursor: read(&bytes), wanted, slots: None, registered: false });
        }
        Ok(Self { dir: make.then(|| dir.to_owned()), all, settled: false, failed: 0 })
    }

    /// The newest number that any of them knows.
    pub(super) fn newest(&self) -> u64 {
        self.all.values().flat_map(|kept| kept.cursor.0).max().unwrap_or(0)
    }

    /// Registers a sink. One that is new starts at the head.
    pub(super) fn register(&mut self, name: &str, wanted: [bool; LANES], head: u64) -> Cursor {
        let known = self.all.remove(name);
        let cursor = known.map_or(Cursor([head; LANES]), |kept| kept.cursor);
        if self.all.len() < MAX_CURSORS {
            let kept = Kept { cursor, wanted, slots: None, registered: true };
            self.all.insert(name.to_owned(), kept);
            self.keep(name, &cursor, head);
        }
        cursor
    }

    /// Keeps how far a sink has come. In lanes that it does not want, it has always come to the head.
    pub(super) fn keep(&mut self, name: &str, cursor: &Cursor, head: u64) {
        let Some(kept) = self.all.get_mut(name) else { return };
        kept.cursor = *cursor;
        for (at, wanted) in kept.cursor.0.iter_mut().zip(kept.wanted) {
            *at = if wanted { *at } else { head.max(*at) };
        }
        if let Some(dir) = &self.dir
            && write(kept, &path_of(dir, name)).is_err()
        {
            kept.slots = None;
            self.failed += 1;
        }
    }

    /// Writes all files again, as somebody has removed them.
    pub(super) fn write_again(&mut self) {
        let Some(dir) = &self.dir else { return };
        for (name, kept) in self.all.iter_mut().filter(|(_, kept)| kept.registered) {
            kept.slots = None;
            self.failed += u64::from(write(kept, &path_of(dir, name)).is_err());
        }
    }

    /// Forgets a sink.
    pub(super) fn forget(&mut self, name: &str) {
        self.all.remove(name);
        if let Some(dir) = &self.dir {
            let _ = fs::remove_file(path_of(dir, name));
        }
    }

    /// From now on only those count that were registered.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Forgets sinks that were not there for so long.
    pub(super) fn forget_old(&mut self, now_ms: u64, max_age: Duration) {
        let Some(dir) = self.dir.clone() else { return };
        let is_old = |name: &str| {
            let changed = fs::metadata(path_of(&dir, name)).and_then(|meta| meta.modified()).ok()?;
            let changed = changed.duration_since(SystemTime::UNIX_EPOCH).ok()? + max_age;
            Some(changed.as_millis() < u128::from(now_ms))
        };
        let unregistered = self.all.iter().filter(|(_, kept)| !kept.registered).map(|(name, _)| name);
        let old: Vec<String> = unregistered.filter(|name| is_old(name) == Some(true)).cloned().collect();
        for name in old {
            self.forget(&name);
        }
    }

    /// The last number of a lane that nobody needs any more.
    pub(super) fn acknowledged(&self, lane: usize) -> u64 {
        let counts = self.all.values().filter(|kept| kept.registered || !self.settled);
        let wanting = counts.filter(|kept| kept.wanted.get(lane) == Some(&true));
        wanting.filter_map(|kept| kept.cursor.0.get(lane).copied()).min().unwrap_or(u64::MAX)
    }

    /// Every registered sink, with how far it has come in the lanes that it wants.
    pub(super) fn registered(&self) -> impl Iterator<Item = (&str, Cursor, [bool; LANES])> {
        let registered = self.all.iter().filter(|(_, kept)| kept.registered);
        registered.map(|(name, kept)| (name.as_str(), kept.cursor, kept.wanted))
    }
}

/// Names are those of sinks: letters, digits, `-` and `_`. Anything else becomes `_`.
fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(super::files::safe(name) + ".cursor")
}

fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".cursor")?;
    (!name.is_empty() && super::files::safe(name) == name).then(|| name.to_owned())
}

fn read(bytes: &[u8]) -> Cursor {
    Cursor(std::array::from_fn(|lane| u64_at(bytes, lane * 8)))
}

fn write(kept: &mut Kept, path: &Path) -> io::Result<()> {
    let bytes: Vec<u8> = kept.cursor.0.iter().flat_map(|at| at.to_le_bytes()).collect();
    match &mut kept.slots {
        Some(slots) => slots.write(&bytes),
        none => {
            if let Some(dir) = path.parent() {
                super::files::make_dir(dir)?;
            }
            let (mut slots, _) = Slots::open(path)?;
            slots.write(&bytes)?;
            *none = Some(slots);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_sink_starts_at_the_head_and_a_known_one_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursors = Cursors::open(dir.path(), true).unwrap();
        assert_eq!(cursors.register("siem", [true; LANES], 7), Cursor([7; LANES]));
        cursors.keep("siem", &Cursor([9, 8, 9, 9]), 12);
        drop(cursors);
        let mut cursors = Cursors::open(dir.path(), true).unwrap();
        assert_eq!(cursors.acknowledged(1), 8);
        assert_eq!(cursors.newest(), 9);
        assert_eq!(cursors.register("siem", [true; LANES], 20), Cursor([9, 8, 9, 9]));
        cursors.forget("siem");
        let mut cursors = Cursors::open(dir.path(), true).unwrap();
        assert_eq!(cursors.register("siem", [true; LANES], 20), Cursor([20; LANES]));
    }

    #[test]
    fn lanes_that_a_sink_does_not_want_hold_nothing_up() {
        let mut cursors = Cursors::default();
        cursors.register("pager", [false, false, true, true], 3);
        cursors.keep("pager", &Cursor([3, 3, 5, 5]), 9);
        assert_eq!([0, 1, 2, 3].map(|lane| cursors.acknowledged(lane)), [u64::MAX, u64::MAX, 5, 5]);
        assert_eq!(cursors.register("pager", [true; LANES], 9), Cursor([9, 9, 5, 5]));
    }

    #[test]
    fn a_sink_that_is_gone_holds_back_until_all_others_are_there() {
        let dir = tempfile::tempdir().unwrap();
        Cursors::open(dir.path(), true).unwrap().register("old", [true; LANES], 4);
        let mut cursors = Cursors::open(dir.path(), true).unwrap();
        cursors.register("new", [true; LANES], 30);
        assert_eq!(cursors.acknowledged(0), 4);
        cursors.settle();
        assert_eq!(cursors.acknowledged(0), 30);
        cursors.forget_old(0, Duration::from_mins(1));
        assert!(dir.path().join("old.cursor").exists());
        cursors.forget_old(u64::MAX, Duration::from_mins(1));
        assert!(!dir.path().join("old.cursor").exists());
        assert!(dir.path().join("new.cursor").exists());
    }
}
