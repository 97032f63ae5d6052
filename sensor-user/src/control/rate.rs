//! How often one client may ask what costs much.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Questions at once: a person who looks into an incident, or a dashboard that opens.
const BURST: u32 = 20;
/// One more question each so long.
const EACH: Duration = Duration::from_millis(500);
/// Clients that are remembered: there are never more connections, and one that was forgotten starts anew.
const CLIENTS: usize = 256;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A user of this host.
    Local(u32),
    /// A host.
    Remote(IpAddr),
}

/// The rates of all clients.
#[derive(Debug, Default)]
pub struct Rate(Mutex<HashMap<Peer, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Rate {
    /// Whether this client may ask now; if not, when it may.
    ///
    /// # Errors
    /// With the time that it has to wait.
    pub fn take(&self, peer: Peer, now: Instant) -> Result<(), Duration> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !clients.contains_key(&peer) && clients.len() >= CLIENTS {
            let oldest = clients.iter().min_by_key(|(_, bucket)| bucket.since).map(|(peer, _)| *peer);
            oldest.and_then(|peer| clients.remove(&peer));
        }
        let bucket = clients.entry(peer).or_insert(Bucket { left: BURST, since: now });
        let waited = now.saturating_duration_since(bucket.since);
        let more = u32::try_from(waited.as_millis() / EACH.as_millis()).unwrap_or(BURST).min(BURST);
        if more > 0 {
            bucket.left = (bucket.left + more).min(BURST);
            bucket.since = if bucket.left == BURST { now } else { bucket.since + EACH * more };
        }
        match bucket.left.checked_sub(1) {
            Some(left) => {
                bucket.left = left;
                Ok(())
            }
            None => Err(EACH.saturating_sub(now.saturating_duration_since(bucket.since))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_burst_and_then_its_rate() {
        let (rate, now) = (Rate::default(), Instant::now());
        let peer = Peer::Local(0);
        for _ in 0..BURST {
            assert_eq!(rate.take(peer, now), Ok(()));
        }
        assert_eq!(rate.take(peer, now), Err(EACH));
        assert_eq!(rate.take(Peer::Local(1), now), Ok(()), "another client is another");
        assert_eq!(rate.take(peer, now + EACH), Ok(()));
        assert!(rate.take(peer, now + EACH).is_err());
        let later = now + Duration::from_hours(1);
        let many = (0..100).filter(|_| rate.take(peer, later).is_ok()).count();
        assert_eq!(many, BURST as usize);
    }

    #[test]
    fn so_many_clients_are_remembered_and_no_more() {
        let (rate, now) = (Rate::default(), Instant::now());
        for client in 0..10_000 {
            assert_eq!(rate.take(Peer::Local(client), now), Ok(()));
        }
        assert!(rate.0.lock().unwrap().len() <= CLIENTS);
    }
}
