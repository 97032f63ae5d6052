//! What a sensor that waits to take over keeps of its ring: the newest records, until it is known where the one before
//! it ended.

use std::collections::VecDeque;

/// How long records are kept, in nanoseconds: twice what a sensor may take to end.
const KEPT_NS: u64 = 10_000_000_000;

/// Bytes that are kept: two rings of the usual size.
const MOST_BYTES: usize = 32 << 20;

/// The newest records, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Kept {
    records: VecDeque<(u64, Box<[u8]>)>,
    bytes: usize,
    /// Records that had no room, and when the newest of them was made.
    crowded_out: (u64, u64),
}

impl Kept {
    /// Keeps a record that was made at `boot_ns`.
    pub(super) fn push(&mut self, boot_ns: u64, record: &[u8]) {
        self.bytes += record.len();
        self.records.push_back((boot_ns, record.into()));
        while self.bytes > MOST_BYTES
            && let Some((boot_ns, record)) = self.records.pop_front()
        {
            self.bytes -= record.len();
            self.crowded_out = (self.crowded_out.0 + 1, self.crowded_out.1.max(boot_ns));
        }
    }

    /// Forgets what is so old that the sensor before must have handled it.
    pub(super) fn expire(&mut self, now_ns: u64) {
        let oldest = now_ns.saturating_sub(KEPT_NS);
        while let Some((_, record)) = self.records.pop_front_if(|(boot_ns, _)| *boot_ns < oldest) {
            self.bytes -= record.len();
        }
        if self.crowded_out.1 < oldest {
            self.crowded_out = (0, 0);
        }
    }

    /// Forgets what was made before: that was handled. Gives how many records behind it may have been lost.
    pub(super) fn begin(&mut self, boot_ns: u64) -> u64 {
        self.records.retain(|(at, _)| *at >= boot_ns);
        self.bytes = self.records.iter().map(|(_, record)| record.len()).sum();
        let (lost, newest) = std::mem::take(&mut self.crowded_out);
        if newest >= boot_ns { lost } else { 0 }
    }

    /// The oldest that is left.
    pub(super) fn pop(&mut self) -> Option<Box<[u8]>> {
        let (_, record) = self.records.pop_front()?;
        self.bytes -= record.len();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handled_is_forgotten_and_the_rest_comes_in_order() {
        let mut kept = Kept::default();
        // Records of two processors may trade places.
        for at in [10, 30, 20, 40] {
            kept.push(at, &at.to_le_bytes());
        }
        assert_eq!(kept.begin(25), 0);
        let rest: Vec<u8> = std::iter::from_fn(|| kept.pop()).map(|record| record[0]).collect();
        assert_eq!((rest, kept.bytes), (vec![30, 40], 0));
    }

    #[test]
    fn old_records_go_and_what_had_no_room_is_told_of() {
        let mut kept = Kept::default();
        kept.push(5, b"old");
        kept.push(KEPT_NS + 1, b"new");
        kept.expire(KEPT_NS + 6);
        assert_eq!(kept.records.len(), 1);
        let large = vec![0; MOST_BYTES];
        kept.push(KEPT_NS + 2, &large);
        assert_eq!((kept.records.len(), kept.bytes), (1, MOST_BYTES));
        assert_eq!(kept.begin(KEPT_NS + 1), 1, "one record behind the beginning was crowded out");
        kept.push(KEPT_NS + 3, &large);
        assert_eq!(kept.begin(KEPT_NS + 3), 0, "the one that was crowded out had been handled");
    }
}
