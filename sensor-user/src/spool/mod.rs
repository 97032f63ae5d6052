//! The spool: every event is in it before anybody sees it, and stays until every sink has delivered it.
//!
//! Readers go by sequence numbers, which are consecutive on a node: who misses one can prove it. Events lie in a lane
//! each by severity, so that what is given up first under pressure is the least severe. A lane is a series of append-only
//! segments ([`segment`], [`record`]); the newest events are in memory too, so that whoever follows never reads the disk.
//!
//! What cannot be written is shown all the same, waits in memory until there is room, and is counted: the sensor never
//! stops for a disk. Decision 8 says why the spool is neither a database nor a library.

mod cursors;
pub mod dead;
mod disk;
mod files;
mod gone;
mod read;
mod record;
mod recover;
mod segment;
mod shared;
mod slots;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::detect::Severity;
use crate::render::{Kind, Told};

pub use stats::{Lag, Stats};

use cursors::Cursors;
use shared::Shared;
use writer::Writer;

/// The directory's name in `state.dir`.
pub const DIR: &str = "spool";

/// Lanes: low, medium, high, critical.
pub const LANES: usize = 4;

/// Bytes that are written and made to last at once, unless one event is larger.
const CHUNK: u64 = 1 << 20;

/// The lane of a severity.
#[must_use]
pub const fn lane(severity: Severity) -> usize {
    severity as usize
}

/// How much is kept, for how long, and how surely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes on disk at most.
    pub max_bytes: u64,
    /// How long an event is kept at most.
    pub max_age: Duration,
    /// When it is made to last.
    pub sync: Sync,
}

/// When what was written is made to last through a loss of power. A crash of the sensor alone loses nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before anybody sees it, once for all that came meanwhile.
    Always,
    /// Once a second.
    Second,
    /// When the kernel likes.
    Never,
}

/// How far a reader has come, in each lane: the last sequence number that it needs no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub [u64; LANES]);

/// Some events in the order of their numbers.
#[derive(Debug, Default)]
pub struct Read {
    /// The events.
    pub events: Vec<Arc<Told>>,
    /// Numbers that this reader asked for and that were given up before it came: in order, apart from each other. After
    /// very many losses a range may span numbers of other lanes too.
    pub lost: Vec<Range<u64>>,
    /// How many events were lost. After a loss of power an upper bound.
    pub lost_events: u64,
    /// Where to go on; beyond events that were passed over too. Lanes that were not asked for stay as they were.
    pub next: Cursor,
}

/// What is to be told next.
pub struct Draft<'a> {
    /// When what it tells happened, in milliseconds.
    pub time_ms: u64,
    /// The worst severity so far.
    pub severity: Severity,
    /// What it is.
    pub kind: Kind,
    /// Writes its JSON, given its number.
    pub json: &'a mut dyn FnMut(u64) -> String,
}

/// Events that are shown, but wait in memory because they cannot be written.
#[derive(Debug)]
pub struct NotDurable {
    /// Their numbers, with those that could be written.
    pub numbers: Range<u64>,
    /// The spool's directory.
    pub dir: PathBuf,
    /// What the system said.
    pub cause: io::Error,
    /// Whether all was well before: tell it once.
    pub news: bool,
}

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.cause.kind() {
            _ if files::is_full(&self.cause) => "make room, or lower `spool.max_bytes`",
            io::ErrorKind::ReadOnlyFilesystem => "mount it for writing",
            io::ErrorKind::PermissionDenied => "let the sensor's user write there",
            io::ErrorKind::NotFound => "it was removed, and is made again as soon as that is possible",
            _ => "look at the kernel's log for what is wrong with the disk",
        };
        let dir = self.dir.display();
        write!(f, "cannot write the spool in {dir}: {}; {remedy}. Alerts wait in memory", self.cause)
    }
}

impl std::error::Error for NotDurable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<NotDurable> for io::Error {
    fn from(error: NotDurable) -> Self {
        Self::new(error.cause.kind(), error)
    }
}

/// The spool. Cloning it gives another handle.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

struct Inner {
    /// Locked first.
    writer: Mutex<Writer>,
    /// Locked second, and never while the disk is waited for.
    shared: Mutex<Shared>,
    /// Locked last.
    cursors: Mutex<Cursors>,
    head: watch::Sender<u64>,
    dir: Option<PathBuf>,
    read_only: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl Spool {
    /// A spool that outlives nothing, and holds what fits in 16 MiB of memory. Numbers go on behind this one: since
    /// nobody remembers it, who wants a number never to come twice gives the time in milliseconds.
    #[must_use]
    pub fn in_memory(behind: u64) -> Self {
        let shared = Shared::empty(behind);
        Self::build(Writer::behind(&shared, 0), shared, Cursors::default(), None, false)
    }

    fn build(
        writer: Writer,
        shared: Shared,
        cursors: Cursors,
        dir: Option<PathBuf>,
        read_only: bool,
    ) -> Self {
        let head = watch::channel(shared.head).0;
        let (writer, shared, cursors) = (Mutex::new(writer), Mutex::new(shared), Mutex::new(cursors));
        Self(Arc::new(Inner { writer, shared, cursors, head, dir, read_only }))
    }

    /// Opens the spool in a directory, and makes it if need be: finds what is there, sets aside what is not ours, and
    /// repairs what a crash has left. Whoever calls it makes sure that no other process does.
    ///
    /// # Errors
    /// When the directory cannot be made, read or written.
    pub fn open(dir: &Path, settings: Settings, now_ms: u64) -> io::Result<Self> {
        recover::open(dir, settings, now_ms, recover::boot())
    }

    /// Opens the spool of a directory as it is now, without changing anything; a sensor may be using it. Nothing can be
    /// appended.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open_read_only(dir: &Path) -> io::Result<Self> {
        recover::look(dir)
    }

    /// Whether events outlive this process.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.0.dir.is_some()
    }

    /// Appends events, makes them last, then shows them to readers. Gives their numbers.
    ///
    /// # Errors
    /// When they cannot be made to last. They are shown all the same, and written as soon as that is possible.
    pub fn append(&self, drafts: &mut [Draft<'_>]) -> Result<Range<u64>, NotDurable> {
        self.0.append(drafts)
    }

    /// The number of the newest event, whenever it changes.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.0.head.subscribe()
    }

    /// Events behind a cursor in those lanes that are wanted, in the order of their numbers: at most so many, and so
    /// many bytes unless the first is larger. Nothing although [`head`](Self::head) is ahead means that the disk cannot
    /// be read now, or that nothing of those lanes is there: `next` tells which.
    #[must_use]
    pub fn read(&self, from: &Cursor, wanted: [bool; LANES], events: usize, bytes: usize) -> Read {
        self.0.read(from, wanted, events, bytes)
    }

    /// Registers a reader that acknowledges by [`keep_cursor`](Self::keep_cursor), and gives how far it has come. One that
    /// is new starts at the head, so that a new sink is not flooded with what is old.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Cursor {
        self.register(name, [true; LANES])
    }

    /// Like [`cursor`](Self::cursor), for a reader that asks for these lanes only: the others need not wait for it.
    #[allow(
        clippy::must_use_candidate,
        reason = "who keeps its place elsewhere registers only to be waited for"
    )]
    pub fn register(&self, name: &str, wanted: [bool; LANES]) -> Cursor {
        let head = *self.0.head.borrow();
        lock(&self.0.cursors).register(name, wanted, head)
    }

    /// Keeps how far a reader has come. This costs one small write and no sync: after a loss of power the newest
    /// deliveries may be repeated.
    pub fn keep_cursor(&self, name: &str, cursor: &Cursor) {
        let head = *self.0.head.borrow();
        lock(&self.0.cursors).keep(name, cursor, head);
    }

    /// Forgets a reader. Those that nobody registers are forgotten by themselves when they are older than anything that
    /// the spool keeps.
    pub fn forget_cursor(&self, name: &str) {
        lock(&self.0.cursors).forget(name);
    }

    /// What is due by the clock: call it about once a second. Syncs, writes what waits in memory, drops what is too old,
    /// notices a directory that was removed.
    ///
    /// # Errors
    /// While events wait that cannot be written.
    pub fn tick(&self, now_ms: u64) -> Result<(), NotDurable> {
        self.0.tick(now_ms)
    }

    /// Makes everything last, as before the end of the process.
    ///
    /// # Errors
    /// When some of it cannot be written.
    pub fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    /// What is in it and what became of what was.
    #[must_use]
    pub fn stats(&self) -> Stats {
        stats::of(&self.0)
    }
}
