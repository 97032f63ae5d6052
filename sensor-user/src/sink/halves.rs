//! Finding the event that a receiver refuses: a batch that is refused is split in halves until one event is left.
//!
//! With `n` events at most `2n - 1` requests are needed. What was found out is remembered until the batch is done: when
//! it comes again, because the receiver went away or the time was up, only what is still open is asked about. So every
//! answer is a step forward, however slow they come, and what was taken is not sent again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::render::Told;
use crate::sink::exchange::Verdict;
use crate::sink::{Outcome, Refusal, Words};

/// What is known of a batch. Shared, as a delivery may be dropped at any time and what it found must not be lost with
/// it. No larger than the batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Poison(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    /// Events still to ask about together, by number; the next are the last.
    parts: Vec<Vec<u64>>,
    /// Events that were taken, or why not.
    settled: Vec<(u64, Option<Words>)>,
}

impl Poison {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One batch on its way.
pub(super) struct Halves<'a> {
    events: &'a [Arc<Told>],
    /// Their numbers.
    numbers: Vec<u64>,
    poison: Poison,
    answer: Words,
}

impl<'a> Halves<'a> {
    /// Begins with all that `wanted` wants and of which nothing is known yet.
    pub(super) fn new(events: &'a [Arc<Told>], poison: &Poison, wanted: impl Fn(&Told) -> bool) -> Self {
        // Samples have no numbers to be remembered by.
        let numbered = events.iter().all(|event| event.sequence > 0);
        let poison = if numbered { poison.clone() } else { Poison::default() };
        let number = |(event, place): (&Arc<Told>, u64)| if numbered { event.sequence } else { place };
        let numbers: Vec<u64> = events.iter().zip(1..).map(number).collect();
        {
            let mut progress = poison.progress();
            progress.parts.retain(|part| part.iter().all(|number| numbers.contains(number)));
            progress.settled.retain(|(number, _)| numbers.contains(number));
            let known = |number: &u64| {
                progress.settled.iter().any(|(other, _)| other == number)
                    || progress.parts.iter().any(|part| part.contains(number))
            };
            let new = events.iter().zip(&numbers).filter(|(event, number)| wanted(event) && !known(number));
            let new: Vec<u64> = new.map(|(_, number)| *number).collect();
            if !new.is_empty() {
                progress.parts.insert(0, new);
            }
        }
        Self { events, numbers, poison, answer: Words::default() }
    }

    /// What is to be asked about next.
    pub(super) fn next(&self) -> Option<Part> {
        let numbers = self.poison.progress().parts.last()?.clone();
        let all = self.events.iter().zip(&self.numbers);
        let events = all.filter(|(_, number)| numbers.contains(number)).map(|(event, _)| Arc::clone(event));
        Some(Part { events: events.collect(), numbers })
    }

    /// Takes in what was said about a part.
    ///
    /// # Errors
    /// With the outcome of the whole batch, if that is known now.
    pub(super) fn tell(&mut self, part: &Part, verdict: Verdict) -> Result<(), Outcome> {
        if let Verdict::Later { reason, after } = verdict {
            return Err(Outcome::Later { reason, after });
        }
        let mut progress = self.poison.progress();
        progress.parts.pop();
        match verdict {
            Verdict::Taken { refused, answer } => {
                let why =
                    |place| refused.iter().find(|(other, _)| *other == place).map(|(_, why)| why.clone());
                let settled = part.numbers.iter().enumerate().map(|(place, number)| (*number, why(place)));
                progress.settled.extend(settled);
                self.answer = answer;
            }
            Verdict::Refused(reason) => match part.numbers.as_slice() {
                [one] => {
                    progress.settled.push((*one, Some(reason.clone())));
                    self.answer = reason;
                }
                many => {
                    let (first, second) = many.split_at(many.len() / 2);
                    progress.parts.extend([second.to_vec(), first.to_vec()]);
                }
            },
            Verdict::Later { .. } => {}
        }
        Ok(())
    }

    /// When nothing is left to ask about.
    pub(super) fn finish(self) -> Outcome {
        let mut progress = self.poison.progress();
        let mut refused: Vec<Refusal> = Vec::new();
        for (number, why) in std::mem::take(&mut *progress).settled {
            let index = self.numbers.iter().position(|other| *other == number);
            refused.extend(index.zip(why).map(|(index, reason)| Refusal { index, reason }));
        }
        refused.sort_by_key(|refusal| refusal.index);
        Outcome::Done { refused, answer: self.answer.clone() }
    }
}

/// A part of a batch.
pub(super) struct Part {
    numbers: Vec<u64>,
    /// Its events, at least one, in their order.
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
    fn run(
        events: &[Arc<Told>],
        poison: &Poison,
        bad: &[u64],
        mut time: usize,
        taken: &mut Vec<u64>,
    ) -> Outcome {
        let mut halves = Halves::new(events, poison, |_| true);
        while let Some(part) = halves.next() {
            if time == 0 {
                return Outcome::later("time is up");
            }
            time -= 1;
            let verdict = if part.events.iter().any(|event| bad.contains(&event.sequence)) {
                Verdict::Refused("bad".into())
            } else {
                taken.extend(part.events.iter().map(|event| event.sequence));
                Verdict::taken("ok")
            };
            if let Err(outcome) = halves.tell(&part, verdict) {
                return outcome;
            }
        }
        halves.finish()
    }

    proptest! {
        #[test]
        fn exactly_the_bad_ones_are_refused_and_the_rest_is_sent_once(
            n in 1_u64..60,
            bad in prop::collection::vec(1_u64..60, 0..10),
            time in prop_oneof![Just(usize::MAX), 1_usize..8],
        ) {
            let (events, poison, mut taken) = (events(n), Poison::default(), Vec::new());
            // Each delivery has time for so many requests only; then the batch comes again.
            let outcome = (0..2 * n).map(|_| run(&events, &poison, &bad, time, &mut taken));
            let outcome = outcome.into_iter().find(|outcome| matches!(outcome, Outcome::Done { .. }));
            let Some(Outcome::Done { refused, .. }) = outcome else { panic!("it never ends") };
            let refused: Vec<u64> = refused.iter().map(|r| r.index as u64 + 1).collect();
            prop_assert_eq!(refused, (1..=n).filter(|n| bad.contains(n)).collect::<Vec<_>>());
            taken.sort_unstable();
            prop_assert_eq!(taken, (1..=n).filter(|n| !bad.contains(n)).collect::<Vec<_>>());
            prop_assert!(poison.progress().settled.is_empty(), "what is done with is forgotten");
        }
    }

    #[test]
    fn a_batch_that_comes_again_may_have_grown_or_shrunk() {
        let (all, poison, mut taken) = (events(6), Poison::default(), Vec::new());
        assert_eq!(run(&all[..4], &poison, &[1], 3, &mut taken), Outcome::later("time is up"));
        let Outcome::Done { refused, .. } = run(&all[1..], &poison, &[1], usize::MAX, &mut taken) else {
            panic!()
        };
        assert!(refused.is_empty());
        taken.sort_unstable();
        assert_eq!(taken, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn samples_without_numbers_are_told_apart() {
        let sample = || Arc::new(Told::new(0, 0, Severity::Low, Kind::Alert, "{}".into()));
        let samples = [sample(), sample()];
        let mut halves = Halves::new(&samples, &Poison::default(), |_| true);
        let part = halves.next().unwrap();
        assert_eq!(part.events.len(), 2);
        assert!(halves.tell(&part, Verdict::Refused("x".into())).is_ok());
        assert_eq!(halves.next().unwrap().events.len(), 1);
    }

    #[test]
    fn a_receiver_that_is_away_ends_it() {
        let events = events(3);
        let mut halves = Halves::new(&events, &Poison::default(), |_| true);
        let part = halves.next().unwrap();
        let outcome = halves.tell(&part, Verdict::later("gone")).unwrap_err();
        assert_eq!(outcome, Outcome::later("gone"));
    }
}
