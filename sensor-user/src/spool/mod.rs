//! The spool: every event is in it before anybody sees it, and stays until every sink has delivered it.
//!
//! Readers go by sequence numbers, which are consecutive on a node: who misses one can prove it. Events lie in a lane
//! each by severity, so that what is given up first under pressure is the least severe.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::detect::Severity;
use crate::render::{Kind, Told};

/// Lanes: low, medium, high, critical.
pub const LANES: usize = 4;

/// The lane of a severity.
#[must_use]
pub const fn lane(severity: Severity) -> usize {
    severity as usize
}

/// How far a reader has come, in each lane: the last sequence number that it needs no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub [u64; LANES]);

/// Some events in the order of their numbers.
#[derive(Debug, Default)]
pub struct Read {
    /// The events.
    pub events: Vec<Arc<Told>>,
    /// Numbers that this reader asked for and that were given up before it came.
    pub lost: Vec<Range<u64>>,
    /// Where to go on; beyond events that were passed over too.
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

/// The spool. Cloning it gives another handle.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

struct Inner {
    kept: Mutex<VecDeque<Arc<Told>>>,
    cursors: Mutex<HashMap<String, Cursor>>,
    head: watch::Sender<u64>,
}

impl Spool {
    /// A spool that outlives nothing.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::new(Inner { kept: Mutex::default(), cursors: Mutex::default(), head: watch::channel(0).0 }))
    }

    /// Appends events, makes them last, then shows them to readers. Gives their numbers.
    ///
    /// # Errors
    /// When they cannot be made to last. They are shown all the same.
    pub fn append(&self, drafts: &mut [Draft<'_>]) -> std::io::Result<Range<u64>> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *self.0.head.borrow() + 1;
        let mut next = first;
        for draft in drafts {
            let json = (draft.json)(next).into_boxed_str();
            kept.push_back(Arc::new(Told::new(next, draft.time_ms, draft.severity, draft.kind, json)));
            next += 1;
        }
        drop(kept);
        self.0.head.send_replace(next - 1);
        Ok(first..next)
    }

    /// Time has passed.
    pub fn tick(&self, _now_ms: u64) {}

    /// Whether events outlive this process.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        false
    }

    /// How far a reader had come.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Cursor {
        let cursors = self.0.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.get(name).copied().unwrap_or_default()
    }

    /// Keeps how far a reader has come.
    pub fn keep_cursor(&self, name: &str, cursor: &Cursor) {
        let mut cursors = self.0.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.insert(name.to_owned(), *cursor);
    }

    /// The number of the newest event, whenever it changes.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.0.head.subscribe()
    }

    /// Events behind a cursor in those lanes that are wanted, in the order of their numbers: at most so many, and so
    /// many bytes unless the first is larger.
    #[must_use]
    pub fn read(&self, from: &Cursor, wanted: [bool; LANES], events: usize, bytes: usize) -> Read {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = Read { next: *from, ..Read::default() };
        let mut size = 0;
        for told in kept.iter() {
            let lane = lane(told.severity);
            let seen = from.0.get(lane).is_none_or(|seen| told.sequence <= *seen);
            if seen || !wanted.get(lane).copied().unwrap_or(false) {
                continue;
            }
            size += told.json().len();
            if read.events.len() >= events || (size > bytes && !read.events.is_empty()) {
                break;
            }
            if let Some(next) = read.next.0.get_mut(lane) {
                *next = told.sequence;
            }
            read.events.push(Arc::clone(told));
        }
        read
    }
}
