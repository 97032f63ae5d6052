//! The stopwatch of the live pipeline: one in [`EVERY`] of all segments and batches of exchanges is timed, so that the clock
//! costs nothing that shows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::telemetry::stopwatch::{Stage, Stopwatch};
use crate::telemetry::{Histogram, Metric, catalogue as of};

/// Reading the clock takes some 30 ns, twice a segment and four times an exchange: below 1 % of a core at 100,000 of each a
/// second.
const EVERY: u32 = 64;

/// What stages cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Stages(Arc<Mutex<[Histogram; Stage::ALL.len()]>>);

impl Stages {
    /// A stopwatch that counts here.
    pub(super) fn stopwatch(&self) -> Timer {
        Timer { stages: self.clone(), starts: 0, since: None }
    }

    /// A histogram a stage.
    pub(super) fn metrics(&self) -> impl Iterator<Item = Metric> + use<> {
        let costs = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Stage::ALL
            .into_iter()
            .zip(costs)
            .map(|(stage, costs)| of::STAGE_SECONDS.durations(costs).with(&[stage.as_str().into()]))
    }
}

/// Times some of the segments.
#[derive(Debug)]
pub(super) struct Timer {
    stages: Stages,
    /// Segments and batches.
    starts: u32,
    /// When the stage began, for one that is timed.
    since: Option<Instant>,
}

impl Stopwatch for Timer {
    fn start(&mut self) {
        self.starts = self.starts.wrapping_add(1);
        self.since = self.starts.is_multiple_of(EVERY).then(Instant::now);
    }

    fn lap(&mut self, stage: Stage) {
        let Some(since) = self.since else { return };
        let now = Instant::now();
        self.since = Some(now);
        let mut costs = self.stages.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(costs) = costs.get_mut(stage as usize) {
            costs.observe(now - since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Sample;

    #[test]
    fn one_in_so_many_is_timed() {
        let stages = Stages::default();
        let mut timer = stages.stopwatch();
        for _ in 0..EVERY * 3 {
            timer.start();
            timer.lap(Stage::Http);
            timer.lap(Stage::Alert);
        }
        let counts: Vec<_> = stages
            .metrics()
            .map(|metric| match metric.sample {
                Sample::Histogram(costs) => (metric.labels[0].1.to_string(), costs.count()),
                other => panic!("{other:?}"),
            })
            .collect();
        let wanted = [("http", 3), ("token", 0), ("detect", 0), ("alert", 3)];
        assert_eq!(counts, wanted.map(|(stage, count)| (stage.to_owned(), count)));
    }
}
