//! The counters of the kernel half: read, compared, turned into losses, and shown to other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Map, MapData, PerCpuArray};
use sensor_ebpf::counter::{COUNTERS, Counter, Meaning};

use super::load;
use crate::capture::{Input, Loss, LossKind, SourceError, Time};

/// Figures of the reader itself, behind those of the kernel half.
const OWN: [&str; 2] = ["ring_found_bytes", "grants_failed"];

/// What both threads see: totals of the kernel half, then [`OWN`].
type Shared = [AtomicU64; COUNTERS + OWN.len()];

/// The counters, as another thread may read them.
#[derive(Clone, Debug)]
pub struct Gauges(Arc<Shared>);

impl Gauges {
    /// Label and value of every counter. `ring_found_bytes` is the most that was found in the ring since
    /// the last call of this: its high-water mark.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let labels = Counter::ALL.iter().map(|counter| counter.label()).chain(OWN);
        labels.zip(self.0.iter()).map(|(label, value)| (label, Self::take(label, value))).collect()
    }

    fn take(label: &str, value: &AtomicU64) -> u64 {
        if label == OWN[0] { value.swap(0, Ordering::Relaxed) } else { value.load(Ordering::Relaxed) }
    }
}

/// What was taken from the ring so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) records: u64,
    /// Of their payloads.
    pub(super) bytes: u64,
}

impl Taken {
    const fn of(self, counter: Counter) -> u64 {
        match counter {
            Counter::Records => self.records,
            Counter::CapturedBytes => self.bytes,
            _ => 0,
        }
    }
}

/// The kernel's counters and what they were when last reported.
pub(super) struct Counts {
    map: PerCpuArray<MapData, [u64; COUNTERS]>,
    reported: [u64; COUNTERS],
    shared: Arc<Shared>,
}

impl Counts {
    pub(super) fn new(map: Map) -> Result<Self, SourceError> {
        let map = PerCpuArray::try_from(map).map_err(load::unusable)?;
        let shared = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Ok(Self { map, reported: [0; COUNTERS], shared })
    }

    pub(super) fn gauges(&self) -> Gauges {
        Gauges(Arc::clone(&self.shared))
    }

    /// Label and value of every counter of the kernel half, now.
    pub(super) fn read(&self, taken: Taken) -> Vec<(&'static str, u64)> {
        Counter::ALL.iter().map(|counter| counter.label()).zip(self.totals(taken)).collect()
    }

    /// Sums over the CPUs, and what was taken; what was reported last if the map cannot be read.
    fn totals(&self, taken: Taken) -> [u64; COUNTERS] {
        let Ok(cpus) = self.map.get(&0, 0) else { return self.reported };
        let mut totals = [0_u64; COUNTERS];
        for (total, counter) in totals.iter_mut().zip(Counter::ALL) {
            *total = taken.of(counter);
        }
        for cpu in cpus.iter() {
            for (total, value) in totals.iter_mut().zip(cpu) {
                *total = total.wrapping_add(*value);
            }
        }
        totals
    }

    /// Hands on what was lost since the last call.
    pub(super) fn report(&mut self, taken: Taken, at: Time, sink: &mut dyn FnMut(Input<'_>)) {
        let totals = self.totals(taken);
        for (((counter, total), reported), shared) in
            Counter::ALL.iter().zip(totals).zip(&mut self.reported).zip(self.shared.iter())
        {
            let records = total.wrapping_sub(*reported);
            *reported = total;
            shared.store(total, Ordering::Relaxed);
            let kind = match counter.meaning() {
                Meaning::Fact => continue,
                Meaning::Loss => LossKind::Other,
                Meaning::RequestLoss => LossKind::Request,
                Meaning::Shed => LossKind::Shed,
            };
            if records > 0 {
                sink(Input::Loss(Loss { at, reason: counter.label(), records, kind }));
            }
        }
    }

    /// Notes how many bytes were found in the ring, by one look or by several without a pause.
    pub(super) fn found(&self, bytes: usize) {
        let [.., found, _] = &*self.shared;
        found.fetch_max(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Notes a grant that the kernel refused.
    pub(super) fn grant_failed(&self) {
        let [.., failed] = &*self.shared;
        failed.fetch_add(1, Ordering::Relaxed);
    }
}
