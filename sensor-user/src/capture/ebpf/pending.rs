//! Request bytes that came before their socket: held until the connection is known.
//!
//! Such records name the listening socket (`FLAG_LISTENER`). The connection's own first record follows at
//! once if the handshake was real. Anyone can send the packets that end up here, so all is bounded.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::capture::{Endpoints, Origin, Time};

/// Records that may wait at once. A handshake is completed within the same softirq, so even at 200,000
/// connections a second few wait; the rest are forgeries.
const MAX_RECORDS: usize = 1024;

/// Payload bytes that may wait at once: 1 KiB a record.
const MAX_BYTES: usize = 1 << 20;

/// How long a record may wait: a SYN with data (TCP Fast Open) is answered at once or never.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A record that waits.
#[derive(Debug)]
pub(super) struct Held {
    /// When it was seen.
    pub at: Time,
    /// Where its listener lives.
    pub origin: Origin,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Payload bytes on the wire.
    pub wire_len: u32,
    /// The captured start of the payload.
    pub payload: Box<[u8]>,
    /// Whether the client said that it will send no more.
    pub fin: bool,
}

/// The records that wait, by connection.
///
/// Invariant: `order` holds the endpoints of every held record, oldest first, and perhaps of taken ones.
#[derive(Debug, Default)]
pub(super) struct Pending {
    held: HashMap<Endpoints, Vec<Held>, RandomState>,
    order: VecDeque<(Time, Endpoints)>,
    bytes: usize,
}

impl Pending {
    /// Whether nothing waits: the usual case, and then records need no lookup.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Keeps a record and returns how many others had to go for it.
    pub(super) fn hold(&mut self, endpoints: Endpoints, record: Held) -> u64 {
        self.bytes += record.payload.len();
        self.order.push_back((record.at, endpoints));
        self.held.entry(endpoints).or_default().push(record);
        let mut evicted = 0;
        while self.bytes > MAX_BYTES || self.order.len() > MAX_RECORDS {
            evicted += self.evict();
        }
        evicted
    }

    /// What waits for a connection, in the order of its arrival.
    pub(super) fn take(&mut self, endpoints: &Endpoints) -> Vec<Held> {
        let taken = self.held.remove(endpoints).unwrap_or_default();
        self.bytes -= taken.iter().map(|record| record.payload.len()).sum::<usize>();
        if self.held.is_empty() {
            self.order.clear();
        }
        taken
    }

    /// Drops what waited too long and returns how many records that were.
    pub(super) fn expire(&mut self, now: Time) -> u64 {
        let mut expired = 0;
        while self.order.front().is_some_and(|(at, _)| now.since(*at) > MAX_WAIT) {
            expired += self.evict();
        }
        expired
    }

    /// Drops the connection that waits longest.
    fn evict(&mut self) -> u64 {
        let Some((_, endpoints)) = self.order.pop_front() else { return 0 };
        let dropped = self.held.remove(&endpoints).unwrap_or_default();
        self.bytes -= dropped.iter().map(|record| record.payload.len()).sum::<usize>();
        u64::try_from(dropped.len()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(port: u16) -> Endpoints {
        Endpoints { client: ([10, 0, 0, 1], port).into(), server: ([10, 0, 0, 2], 80).into() }
    }

    fn record(at: u64, len: usize) -> Held {
        Held {
            at: Time(at),
            origin: Origin::default(),
            seq: 1,
            wire_len: 0,
            payload: vec![0; len].into(),
            fin: false,
        }
    }

    #[test]
    fn gives_back_what_it_held_in_order() {
        let mut pending = Pending::default();
        assert_eq!(pending.hold(endpoints(1), record(1, 10)), 0);
        assert_eq!(pending.hold(endpoints(2), record(2, 10)), 0);
        assert_eq!(pending.hold(endpoints(1), record(3, 10)), 0);
        let taken: Vec<u64> = pending.take(&endpoints(1)).iter().map(|held| held.at.0).collect();
        assert_eq!(taken, [1, 3]);
        assert!(pending.take(&endpoints(1)).is_empty());
        assert_eq!(pending.bytes, 10);
    }

    #[test]
    fn is_bounded_in_records_and_bytes() {
        let mut pending = Pending::default();
        let evicted: u64 = (0..5000).map(|port| pending.hold(endpoints(port), record(0, 1))).sum();
        assert_eq!(evicted, 5000 - MAX_RECORDS as u64);
        let evicted: u64 = (0..100).map(|port| pending.hold(endpoints(port), record(0, 64 << 10))).sum();
        assert!(evicted > 0 && pending.bytes <= MAX_BYTES, "{}", pending.bytes);
    }

    #[test]
    fn forgets_what_nobody_claims() {
        let mut pending = Pending::default();
        pending.hold(endpoints(1), record(0, 10));
        assert_eq!(pending.expire(Time::from_secs(1)), 0);
        assert_eq!(pending.expire(Time::from_secs(3)), 1);
        assert!(pending.is_empty() && pending.bytes == 0 && pending.order.is_empty());
    }
}
