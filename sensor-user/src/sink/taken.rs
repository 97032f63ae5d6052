//! What the other end took of a batch that failed, so that only the rest is sent again.

use std::collections::HashSet;

use crate::render::Told;

/// Most numbers that are remembered: several batches of any sink that uses this. Beyond it all are forgotten, and sent
/// again.
const MOST: usize = 4096;

/// Numbers of events that were taken while their batch failed.
#[derive(Debug, Default)]
pub(super) struct Taken(HashSet<u64>);

impl Taken {
    /// Whether the other end has it already.
    pub(super) fn has(&self, event: &Told) -> bool {
        self.0.contains(&event.sequence)
    }

    /// The other end has it. An event without a number cannot be recognised later.
    pub(super) fn add(&mut self, event: &Told) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        if event.sequence > 0 {
            self.0.insert(event.sequence);
        }
    }

    /// The whole batch is done: it does not come again.
    pub(super) fn forget<'a>(&mut self, events: impl IntoIterator<Item = &'a Told>) {
        for event in events {
            self.0.remove(&event.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Severity;
    use crate::render::Kind;

    fn told(sequence: u64) -> Told {
        Told::new(sequence, 0, Severity::Low, Kind::Alert, "{}".into())
    }

    #[test]
    fn what_was_taken_is_known_until_its_batch_is_done() {
        let mut taken = Taken::default();
        taken.add(&told(7));
        taken.add(&told(0));
        assert!(taken.has(&told(7)) && !taken.has(&told(8)));
        assert!(!taken.has(&told(0)), "events without a number are all alike");
        taken.forget([&told(7)]);
        assert!(!taken.has(&told(7)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut taken = Taken::default();
        for sequence in 1..100_000 {
            taken.add(&told(sequence));
            assert!(taken.has(&told(sequence)));
        }
        assert!(taken.0.len() <= MOST);
    }
}
