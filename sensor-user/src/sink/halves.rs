//! Finding the event that a receiver refuses: a batch that is refused is split in halves until one event is left.
//!
//! What was found is remembered, so that a batch that comes again (because the time was up) gets further than before:
//! with `n` events at most `2n - 1` requests are needed in all, and each delivery knows at least one more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::render::Told;
use crate::sink::exchange::Verdict;
use crate::sink::{Outcome, Refusal, Words};

/// Most refusals that are remembered: larger than any batch.
const MAX_KNOWN: usize = 4096;

/// Events that the receiver refuses, by sequence number, until the batch that they are in is done. Shared, as a
/// delivery may be dropped at any time and what it found must not be lost with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Poison(Arc<Mutex<Vec<(u64, Words)>>>);

impl Poison {
    fn known(&self) -> MutexGuard<'_, Vec<(u64, Words)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, event: &Told) -> Option<Words> {
        let known = self.known();
        let found = known.iter().find(|(sequence, _)| *sequence == event.sequence && *sequence > 0);
        found.map(|(_, why)| why.clone())
    }

    fn add(&self, event: &Told, why: &Words) {
        let mut known = self.known();
        if known.len() < MAX_KNOWN {
            known.push((event.sequence, why.clone()));
        }
    }
}

/// One batch on its way.
pub(super) struct Halves<'a> {
    events: &'a [Arc<Told>],
    poison: Poison,
    /// Parts still to ask about, by places in the batch; the next is the last.
    parts: Vec<Vec<usize>>,
    refused: Vec<Refusal>,
    answer: Words,
}

impl<'a> Halves<'a> {
    /// Begins with all that are not known to be refused and that `wanted` wants.
    pub(super) fn new(events: &'a [Arc<Told>], poison: &Poison, wanted: impl Fn(&Told) -> bool) -> Self {
        let (mut refused, mut all) = (Vec::new(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            match poison.of(event) {
                Some(reason) => refused.push(Refusal { index, reason }),
                None if wanted(event) => all.push(index),
                None => {}
            }
        }
        Self { events, poison: poison.clone(), parts: vec![all], refused, answer: Words::default() }
    }

    /// What is to be asked about next.
    pub(super) fn next(&mut self) -> Option<Part> {
        loop {
            let places = self.parts.pop()?;
            if !places.is_empty() {
                let events = places.iter().filter_map(|place| self.events.get(*place).cloned()).collect();
                return Some(Part { places, events });
            }
        }
    }

    /// Takes in what was said about a part.
    ///
    /// # Errors
    /// With the outcome of the whole batch, if that is known now.
    pub(super) fn tell(&mut self, part: Part, verdict: Verdict) -> Result<(), Outcome> {
        match verdict {
            Verdict::Taken { refused, answer } => {
                for (place, reason) in refused {
                    if let Some(index) = part.places.get(place) {
                        self.refuse(*index, reason);
                    }
                }
                self.answer = answer;
            }
            Verdict::Refused(reason) => match part.places.as_slice() {
                [one] => self.refuse(*one, reason),
                many => {
                    let (first, second) = many.split_at(many.len() / 2);
                    self.parts.push(second.to_vec());
                    self.parts.push(first.to_vec());
                }
            },
            Verdict::Later { reason, after } => return Err(Outcome::Later { reason, after }),
        }
        Ok(())
    }

    fn refuse(&mut self, index: usize, reason: Words) {
        if let Some(event) = self.events.get(index) {
            self.poison.add(event, &reason);
        }
        self.answer = reason.clone();
        self.refused.push(Refusal { index, reason });
    }

    /// When nothing is left to ask about.
    pub(super) fn finish(mut self) -> Outcome {
        self.poison.known().clear();
        self.refused.sort_by_key(|refusal| refusal.index);
        Outcome::Done { refused: self.refused, answer: self.answer }
    }
}

/// A part of a batch.
pub(super) struct Part {
    places: Vec<usize>,
    /// Its events, at least one.
    pub(super) events: Vec<Arc<Told>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::detect::Severity;
    use crate::render::Kind;

    fn events(n: u64) -> Vec<Arc<Told>> {
        (1..=n).map(|n| Arc::new(Told::new(n, 0, Severity::Low, Kind::Alert, "{}".into()))).collect()
    }

    /// A receiver that refuses whatever holds one of these, and has time for so many requests.
    fn run(events: &[Arc<Told>], poison: &Poison, bad: &[u64], mut time: usize) -> (Outcome, Vec<u64>) {
        let mut taken = Vec::new();
        let mut halves = Halves::new(events, poison, |_| true);
        while let Some(part) = halves.next() {
            if time == 0 {
                return (Outcome::later("time is up"), taken);
            }
            time -= 1;
            let verdict = if part.events.iter().any(|event| bad.contains(&event.sequence)) {
                Verdict::Refused("bad".into())
            } else {
                taken.extend(part.events.iter().map(|event| event.sequence));
                Verdict::taken("ok")
            };
            if let Err(outcome) = halves.tell(part, verdict) {
                return (outcome, taken);
            }
        }
        (halves.finish(), taken)
    }

    proptest! {
        #[test]
        fn exactly_the_bad_ones_are_refused(n in 1_u64..60, bad in prop::collection::vec(1_u64..60, 0..10)) {
            let events = events(n);
            let (outcome, mut taken) = run(&events, &Poison::default(), &bad, usize::MAX);
            let Outcome::Done { refused, .. } = outcome else { panic!() };
            let refused: Vec<u64> = refused.iter().map(|r| r.index as u64 + 1).collect();
            let expected: Vec<u64> = (1..=n).filter(|n| bad.contains(n)).collect();
            prop_assert_eq!(refused, expected);
            taken.sort_unstable();
            prop_assert_eq!(taken, (1..=n).filter(|n| !bad.contains(n)).collect::<Vec<_>>());
        }

        #[test]
        fn a_receiver_that_is_slow_is_done_with_in_the_end(bad in prop::collection::vec(1_u64..32, 0..32)) {
            // Time for the way down to one event, and no more.
            let (events, poison) = (events(32), Poison::default());
            let tries = (0..64).position(|_| {
                matches!(run(&events, &poison, &bad, 6).0, Outcome::Done { .. })
            });
            prop_assert!(tries.is_some());
            prop_assert!(poison.known().is_empty(), "what is done with is forgotten");
        }
    }

    #[test]
    fn a_receiver_that_is_away_ends_it() {
        let events = events(3);
        let mut halves = Halves::new(&events, &Poison::default(), |_| true);
        let part = halves.next().unwrap();
        assert_eq!(part.events.len(), 3);
        let outcome = halves.tell(part, Verdict::later("gone")).unwrap_err();
        assert_eq!(outcome, Outcome::later("gone"));
    }
}
