//! A file of lines, one event each: appended to, turned over by size, by time and from outside, and never left with half
//! a line.
//!
//! A batch is written whole or not at all: if the disk is full the file is cut back to where it was, and the batch comes
//! again. The name's day is that of the events, never going back, so that the same events give the same files. Links
//! are not followed, and nobody else may write to the file meanwhile.

pub mod name;
mod old;
mod tail;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use jiff::tz::TimeZone;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::render::{Format, Told};
use crate::sink::{Batch, Delivery, Node, Outcome, Sink, Unusable};
use crate::spool::Cursor;
use name::{Grain, Pattern, Stamp};

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the file is.
    pub path: Pattern,
    /// The form of its lines.
    pub format: Format,
    /// Largest file, in bytes; none for any size.
    pub max_bytes: Option<u64>,
    /// How often a file whose name says no time is turned over.
    pub every: Grain,
    /// How many old files are kept.
    pub keep: usize,
    /// How those but the newest are packed.
    pub packing: Packing,
    /// Whether each batch is made to last through a loss of power.
    pub sync: bool,
    /// Where days and hours begin.
    pub zone: TimeZone,
}

/// How old files are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    #[default]
    None,
    /// As `.gz`.
    Gzip,
    /// As `.zst`.
    Zstd,
}

impl Packing {
    const fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// The flag by which a link is not followed.
fn nofollow() -> i32 {
    i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits()).unwrap_or(0)
}

/// Opens it.
///
/// # Errors
/// Never: whatever is wrong with a path may heal.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    Ok(Box::new(Lines::new(settings.clone(), Arc::clone(&node.name))))
}

/// The file and those that it was.
#[derive(Debug)]
struct Lines {
    settings: Settings,
    node: Arc<str>,
    open: Option<Open>,
    /// The newest stamp that was written.
    at: Option<Stamp>,
    /// Lines that are not written yet.
    text: String,
    /// Numbers of events of `text`.
    pending: Vec<u64>,
    /// Numbers of events of a batch that failed later on: they are written already. At most a batch.
    written: Vec<u64>,
    /// Up to this length the file could not be turned over.
    stuck: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Lines {
    fn new(settings: Settings, node: Arc<str>) -> Self {
        let (text, pending, written) = (String::new(), Vec::new(), Vec::new());
        Self { settings, node, open: None, at: None, text, pending, written, stuck: 0 }
    }

    fn grain(&self) -> Grain {
        self.settings.path.grain().max(self.settings.every)
    }

    fn stamp(&self, time_ms: u64) -> Stamp {
        Stamp::of(time_ms, &self.settings.zone, self.grain())
    }

    /// The name of a file shows as much of the stamp as it can; the rest tells when it is turned over.
    fn path(&self, at: Stamp) -> PathBuf {
        self.settings.path.path(at)
    }

    fn write(&mut self, events: &[Arc<Told>]) -> io::Result<()> {
        self.text.clear();
        self.pending.clear();
        self.leave_what_was_moved()?;
        for event in events {
            if event.sequence != 0 && self.written.contains(&event.sequence) {
                continue;
            }
            let at = self.stamp(event.time_ms).max(self.at.unwrap_or_default());
            let before = self.text.len();
            self.settings.format.told(event, false, &mut self.text);
            let line = self.text.split_off(before);
            self.ready(at)?;
            if self.is_full(line.len()) || self.at.is_some_and(|last| last < at) {
                self.flush()?;
                self.turn(at);
                self.ready(at)?;
            }
            self.text.push_str(&line);
            self.pending.push(event.sequence);
        }
        self.flush()?;
        self.written.clear();
        Ok(())
    }

    /// Opens the file of this time, if none is open.
    fn ready(&mut self, at: Stamp) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let at = self.at.unwrap_or(at);
        let path = self.path(at);
        let open = Open::at(path, self.settings.format)?;
        // A file without a time in its name is of the time when it was last written.
        let begun =
            if open.length > 0 && self.at.is_none() && self.settings.every > self.settings.path.grain() {
                let modified =
                    open.file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                self.stamp(u64::try_from(modified.as_millis()).unwrap_or(u64::MAX)).min(at)
            } else {
                at
            };
        self.at = Some(begun);
        self.open = Some(open);
        Ok(())
    }

    /// Whether a line more would be too much.
    fn is_full(&self, line: usize) -> bool {
        let written = self.open.as_ref().map_or(0, |open| open.length) + self.text.len() as u64;
        let new = written.saturating_sub(self.stuck);
        new > 0 && self.settings.max_bytes.is_some_and(|max| new + line as u64 > max)
    }

    /// Goes on in another file.
    ///
    /// That old files cannot be renamed, packed or removed is no reason to keep alerts from the file.
    fn turn(&mut self, at: Stamp) {
        let pattern = &self.settings.path;
        let tell = |error: io::Error| {
            tracing::warn!("old files of {}: {error}", pattern.as_written().display());
        };
        let (last, length) = (self.at.unwrap_or(at), self.open.as_ref().map_or(0, |open| open.length));
        let same = pattern.path(last) == pattern.path(at);
        let counted = if same && length > 0 { old::count_up(pattern, shown(last, pattern)) } else { Ok(()) };
        self.stuck = if counted.is_err() { length } else { 0 };
        self.open = None;
        self.at = Some(at);
        let (keep, packing) = (self.settings.keep, self.settings.packing);
        if let Err(error) = counted.and_then(|()| old::tidy(pattern, shown(at, pattern), keep, packing)) {
            tell(error);
        }
    }

    /// Writes what is pending, all of it or nothing.
    fn flush(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|_| !self.text.is_empty()) else { return Ok(()) };
        let mut wrote = open.file.write_all(self.text.as_bytes());
        if self.settings.sync && wrote.is_ok() {
            wrote = open.file.sync_data();
        }
        if let Err(error) = wrote {
            if open.file.set_len(open.length).is_err() {
                // It is mended when it is opened again.
                self.open = None;
            }
            return Err(error);
        }
        open.length += self.text.len() as u64;
        self.text.clear();
        self.written.append(&mut self.pending);
        Ok(())
    }

    /// Lets go of a file that was renamed or removed, and sees whether it was cut.
    fn leave_what_was_moved(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let ours = open.file.metadata()?;
        match fs::symlink_metadata(&open.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => open.length = ours.len(),
            _ => self.open = None,
        }
        Ok(())
    }

    fn held(&self) -> io::Result<Cursor> {
        let pattern = &self.settings.path;
        let mut held = Cursor::default();
        // Newest first: the file that is written, and the one before, if it is too young to be packed.
        let olds = old::list(pattern, Stamp::default())?;
        let mut paths: Vec<PathBuf> = olds
            .iter()
            .filter(|old| old.packed.is_empty())
            .take(2)
            .map(|old| pattern.old_path(old))
            .collect();
        if pattern.grain() == Grain::None {
            paths.truncate(1);
            paths.insert(0, pattern.path(Stamp::default()));
        }
        for path in paths.iter().rev() {
            match OpenOptions::new().read(true).custom_flags(nofollow()).open(path) {
                Ok(file) if file.metadata()?.is_file() => tail::held(&file, &self.node, &mut held)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }
}

/// What of a stamp the names of files show.
fn shown(at: Stamp, pattern: &Pattern) -> Stamp {
    at.down_to(pattern.grain())
}

impl Open {
    fn at(path: PathBuf, format: Format) -> io::Result<Self> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(nofollow());
        let mut file = options.open(&path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no regular file"));
        }
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_taken| {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another process writes to it, as a running sensor does",
            )
        })?;
        let length = tail::mend(&mut file, format)?;
        Ok(Self { file, path, length })
    }
}

impl Sink for Lines {
    fn batch(&self) -> Batch {
        Batch { events: 512, bytes: 1 << 20 }
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(async move {
            match self.write(events) {
                Ok(()) => {
                    let path = self.open.as_ref().map_or(self.settings.path.as_written(), |open| &open.path);
                    Outcome::done(format!("written to {}", path.display()))
                }
                Err(error) => {
                    let path = self.path(self.at.unwrap_or_default());
                    let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
                    let why = if is_link {
                        "is a link, which is not followed".to_owned()
                    } else {
                        error.to_string()
                    };
                    Outcome::later(format!("{}: {why}", path.display()))
                }
            }
        })
    }

    fn reopen(&mut self) {
        self.open = None;
    }

    fn holds(&mut self) -> Cursor {
        self.held().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
