//! What the spool says of itself, for metrics.

use crate::spool::{Inner, LANES, lock};
use crate::telemetry::Histogram;

/// Numbers of the spool; lanes are low, medium, high, critical.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Bytes on disk.
    pub bytes: u64,
    /// Events that it holds, by lane.
    pub events: [u64; LANES],
    /// When the oldest of them happened, in milliseconds, by lane.
    pub oldest_ms: [Option<u64>; LANES],
    /// Events that were appended in this run, by lane.
    pub appended: [u64; LANES],
    /// Events that were given up for want of room before every sink had them, by lane.
    pub evicted: [u64; LANES],
    /// Events that became too old before every sink had them, by lane.
    pub expired: [u64; LANES],
    /// Segments that a crash had cut short.
    pub torn: u64,
    /// Places in segments that were damaged, and segments that were not there.
    pub corrupt: u64,
    /// Files that were set aside as not ours.
    pub refused: u64,
    /// Events that were shown before they could be written.
    pub not_durable: u64,
    /// Events that wait in memory to be written.
    pub pending: usize,
    /// Times that a cursor could not be written.
    pub cursor_failures: u64,
    /// How long it took to make a file last.
    pub sync: Histogram,
    /// How far behind each sink is.
    pub cursors: Vec<Lag>,
}

/// How far behind a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Its name.
    pub name: String,
    /// Events before it, to within some twenty.
    pub events: u64,
    /// When about the oldest of them happened, in milliseconds.
    pub oldest_ms: Option<u64>,
}

pub(super) fn of(inner: &Inner) -> Stats {
    let shared = lock(&inner.shared);
    let cursors = lock(&inner.cursors);
    let tally = shared.tally.clone();
    let mut stats = Stats {
        bytes: shared.bytes,
        appended: tally.appended,
        evicted: tally.evicted,
        expired: tally.expired,
        torn: tally.torn,
        corrupt: tally.corrupt,
        refused: tally.refused,
        not_durable: tally.not_durable,
        pending: if inner.dir.is_some() { shared.pending() } else { 0 },
        cursor_failures: cursors.failed,
        sync: tally.sync,
        ..Stats::default()
    };
    for ((lane, events), oldest) in shared.lanes.iter().zip(&mut stats.events).zip(&mut stats.oldest_ms) {
        *events = lane.segments.iter().map(|segment| segment.events).sum::<u64>() + lane.pending.len() as u64;
        let on_disk =
            lane.segments.front().and_then(|segment| segment.marks.first()).map(|mark| mark.time_ms);
        *oldest = on_disk.or_else(|| lane.pending.front().map(|entry| entry.told.time_ms));
    }
    for (name, cursor, wanted) in cursors.registered() {
        let lanes = cursor.0.into_iter().zip(wanted).enumerate().filter(|(_, (_, wanted))| *wanted);
        let (mut events, mut oldest_ms) = (0, None);
        for (lane, (after, _)) in lanes {
            let (behind, oldest) = shared.behind(lane, after);
            events += behind;
            oldest_ms = [oldest_ms, oldest].into_iter().flatten().min();
        }
        stats.cursors.push(Lag { name: name.to_owned(), events, oldest_ms });
    }
    stats
}
