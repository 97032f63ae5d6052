//! Dead letters as delivery sees them: one is added at a time, and those that somebody wants to be tried again come one
//! by one, out of the batches in which they lie on disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Letters;
use crate::render::Told;
use crate::sink::Words;
use crate::spool::dead::{Dead, Filter, Replay};

/// Dead letters on disk.
#[derive(Debug)]
pub struct Drawer {
    dead: Dead,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By sink, the batch that is tried again, and how many of it were.
    open: HashMap<String, (Replay, usize)>,
    /// By sink, how many letters there are in how many bytes.
    counts: HashMap<String, (u64, u64)>,
}

impl Drawer {
    /// Keeps them there.
    #[must_use]
    pub fn new(dead: Dead) -> Self {
        Self { dead, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Letters for Drawer {
    fn add(&self, sink: &str, told: &Told, reason: &Words, attempts: u32, now_ms: u64) {
        match self.dead.add(sink, told, reason.as_str(), attempts, now_ms) {
            Ok(0) => {}
            Ok(count) => {
                tracing::warn!("sink {sink}: the {count} oldest dead letters are given up for newer ones");
            }
            Err(error) => {
                let id = told.event_id();
                tracing::error!("sink {sink}: {id} is refused, and cannot be kept as a dead letter: {error}");
            }
        }
    }

    /// Whoever has had letters is looked after: a command can want them to be tried at any time.
    fn any_waiting(&self, sink: &str) -> bool {
        self.dead.knows(sink)
    }

    fn next_replay(&self, sink: &str) -> Option<Arc<Told>> {
        let mut state = self.state();
        if let Some((replay, tried)) = state.open.get(sink) {
            return replay.letters.get(*tried).map(|letter| Arc::clone(&letter.event));
        }
        let replay = self.dead.next_replay(sink).unwrap_or_else(|error| {
            tracing::warn!("sink {sink}: dead letters cannot be read to be tried again: {error}");
            None
        })?;
        let first = replay.letters.first().map(|letter| Arc::clone(&letter.event));
        state.open.insert(sink.to_owned(), (replay, 0));
        first
    }

    fn replayed(&self, sink: &str) {
        let mut state = self.state();
        let Some((replay, tried)) = state.open.get_mut(sink) else { return };
        *tried += 1;
        if *tried < replay.letters.len() {
            return;
        }
        if let Err(error) = self.dead.done(replay) {
            tracing::warn!("sink {sink}: dead letters that were tried again will be once more: {error}");
        }
        state.open.remove(sink);
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let mut state = self.state();
        let mut counts = Vec::new();
        for sink in self.dead.sinks().unwrap_or_default() {
            let bytes = self.dead.bytes(&sink).unwrap_or(0);
            let known = state.counts.get(&sink).filter(|(_, of)| *of == bytes).map(|(count, _)| *count);
            // Files are read only when they have changed.
            let count = known.unwrap_or_else(|| {
                let (filter, mut count) = (Filter { sink: Some(sink.clone()), numbers: Vec::new() }, 0);
                let _ = self.dead.each(&filter, |_, _| count += 1);
                count
            });
            state.counts.insert(sink.clone(), (count, bytes));
            counts.push((sink, count));
        }
        counts
    }
}

/// No place for dead letters: they are only told of.
#[derive(Debug)]
pub struct Nowhere;

impl Letters for Nowhere {
    fn add(&self, _: &str, _: &Told, _: &Words, _: u32, _: u64) {}

    fn any_waiting(&self, _: &str) -> bool {
        false
    }

    fn next_replay(&self, _: &str) -> Option<Arc<Told>> {
        None
    }

    fn replayed(&self, _: &str) {}

    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Severity;
    use crate::render::Kind;

    #[test]
    fn letters_are_tried_again_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Dead::open(dir.path());
        let drawer = Drawer::new(dead.clone());
        assert!(!drawer.any_waiting("siem") && drawer.next_replay("siem").is_none());
        for number in 1..=40 {
            let told = Told::new(number, 5, Severity::Low, Kind::Alert, "{}".into());
            drawer.add("siem", &told, &Words::new("no"), 1, 5);
        }
        assert!(drawer.any_waiting("siem") && !drawer.any_waiting("mail"));
        assert_eq!(drawer.counts(), [("siem".to_owned(), 40)]);
        dead.replay(&Filter::default()).unwrap();
        assert_eq!(drawer.counts(), [("siem".to_owned(), 0)]);
        let mut tried = Vec::new();
        while let Some(told) = drawer.next_replay("siem") {
            // Refused again.
            if told.sequence == 7 {
                drawer.add("siem", &told, &Words::new("still no"), 2, 6);
            }
            tried.push(told.sequence);
            drawer.replayed("siem");
        }
        assert_eq!(tried, (1..=40).collect::<Vec<_>>());
        assert_eq!(drawer.counts(), [("siem".to_owned(), 1)]);
        assert!(Drawer::new(dead).next_replay("siem").is_none());
    }
}
