//! Exchanges that wait for the verdict on one of their tokens.
//!
//! Live, a new token is verified off the capture path, so its verdict comes a moment after its first exchange; while
//! an issuer's keys are missing it comes much later. Rules that need no verdict have judged these exchanges already.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::capture::Time;
use crate::http::Exchange;
use crate::seen::Seen;
use crate::token::{Fingerprint, TokenUse};

/// Exchanges kept in all: about 3 KiB each, so 12 MiB at most.
const MAX_PARKED: usize = 4096;

/// Exchanges kept for one token. The first uses tell what was tried and what was answered; more of the same add
/// a count only, and must not push out other tokens' exchanges.
const MAX_PER_TOKEN: usize = 16;

/// How long an exchange waits for a verdict. Keys that have not come within ten minutes are not worth stale alerts.
const PATIENCE: Duration = Duration::from_mins(10);

/// How long an exchange waits to hear whether its token was revoked. Whoever cannot tell within two seconds is asked
/// again, and the token's next use is judged by that.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// An exchange and its tokens as they were when it was parked.
#[derive(Debug)]
pub struct Waiting {
    /// The exchange.
    pub exchange: Box<Exchange>,
    /// Its tokens.
    pub tokens: SmallVec<[TokenUse; 1]>,
    /// What is told of it when it waits no more, if anybody wants to know.
    pub seen: Option<Seen>,
}

/// The parked exchanges, by the token that they wait for.
///
/// Invariant: `count` is the number of exchanges in `by_token`, and at most [`MAX_PARKED`].
#[derive(Debug)]
pub struct Parked {
    by_token: HashMap<Fingerprint, Vec<Waiting>, foldhash::fast::RandomState>,
    /// When the first exchange of each token was parked, oldest first; at most twice [`MAX_PARKED`] entries,
    /// of which some may be stale: their tokens are settled.
    order: VecDeque<(Time, Fingerprint)>,
    count: usize,
    patience: Duration,
    /// Exchanges whose verdict never came in time, or that found no room: judged without it.
    pub given_up: u64,
}

impl Default for Parked {
    fn default() -> Self {
        Self {
            by_token: HashMap::default(),
            order: VecDeque::new(),
            count: 0,
            patience: PATIENCE,
            given_up: 0,
        }
    }
}

impl Parked {
    /// For exchanges that wait to hear whether their token was revoked.
    #[must_use]
    pub fn impatient() -> Self {
        Self { patience: SHORT_PATIENCE, ..Self::default() }
    }

    /// Keeps an exchange until the verdict on `token`. Gives it back if there is no room.
    pub fn park(&mut self, token: Fingerprint, waiting: Waiting, now: Time) -> Option<Waiting> {
        let held = self.by_token.get(&token).map_or(0, Vec::len);
        if self.count >= MAX_PARKED || held >= MAX_PER_TOKEN {
            self.given_up += 1;
            return Some(waiting);
        }
        if held == 0 {
            if self.order.len() >= 2 * MAX_PARKED {
                self.order.retain(|(_, token)| self.by_token.contains_key(token));
            }
            self.order.push_back((now, token));
        }
        self.by_token.entry(token).or_default().push(waiting);
        self.count += 1;
        None
    }

    /// Takes what waited for `token`, in the order of parking.
    pub fn take(&mut self, token: Fingerprint) -> Vec<Waiting> {
        let waiting = self.by_token.remove(&token).unwrap_or_default();
        self.count -= waiting.len();
        waiting
    }

    /// Gives up on exchanges that have waited too long, and gives them back in the order of parking.
    pub fn expire(&mut self, now: Time) -> Vec<Waiting> {
        let mut all = Vec::new();
        while let Some((since, token)) = self.order.front().copied() {
            let settled = !self.by_token.contains_key(&token);
            if !settled && now.since(since) < self.patience {
                break;
            }
            self.order.pop_front();
            if !settled {
                all.append(&mut self.take(token));
            }
        }
        self.given_up += all.len() as u64;
        all
    }

    /// Gives back everything: nobody waits any more.
    pub fn empty(&mut self) -> Vec<Waiting> {
        let order = std::mem::take(&mut self.order);
        order.into_iter().flat_map(|(_, token)| self.take(token)).collect()
    }

    /// Exchanges that wait now.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether none wait.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;

    fn token(number: u64) -> Fingerprint {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&number.to_le_bytes());
        Fingerprint(name)
    }

    fn park(parked: &mut Parked, number: u64, at_s: u64) -> bool {
        let exchange = Stage::new().exchange;
        let waiting = Waiting { exchange: Box::new(exchange), tokens: SmallVec::new(), seen: None };
        parked.park(token(number), waiting, Time::from_secs(at_s)).is_none()
    }

    #[test]
    fn gives_back_what_waited_for_a_token_and_nothing_else() {
        let mut parked = Parked::default();
        assert!(park(&mut parked, 1, 1) && park(&mut parked, 2, 1) && park(&mut parked, 1, 1));
        assert_eq!((parked.take(token(1)).len(), parked.len()), (2, 1));
        assert!(parked.take(token(1)).is_empty());
    }

    #[test]
    fn one_token_cannot_take_all_the_room() {
        let mut parked = Parked::default();
        let kept = (0..1_000).filter(|_| park(&mut parked, 1, 1)).count();
        assert_eq!((kept, parked.given_up), (MAX_PER_TOKEN, 1_000 - MAX_PER_TOKEN as u64));
        assert!(park(&mut parked, 2, 1));
    }

    #[test]
    fn a_flood_of_tokens_is_bounded() {
        let mut parked = Parked::default();
        let kept = (0..10_000).filter(|number| park(&mut parked, *number, 1)).count();
        assert_eq!((kept, parked.len()), (MAX_PARKED, MAX_PARKED));
    }

    #[test]
    fn the_impatient_wait_two_seconds() {
        let mut parked = Parked::impatient();
        park(&mut parked, 1, 10);
        assert!(parked.expire(Time::from_secs(11)).is_empty());
        assert_eq!(parked.len(), 1);
        assert_eq!(parked.expire(Time::from_secs(12)).len(), 1);
        assert_eq!((parked.len(), parked.given_up), (0, 1));
    }

    #[test]
    fn gives_up_on_what_waits_too_long_and_forgets_what_is_settled() {
        let mut parked = Parked::default();
        park(&mut parked, 1, 0);
        for number in 2..50_000 {
            park(&mut parked, number, 1);
            parked.take(token(number));
        }
        assert!(parked.order.len() <= 2 * MAX_PARKED, "{}", parked.order.len());
        assert!(parked.expire(Time::from_secs(599)).is_empty());
        assert_eq!(parked.len(), 1);
        assert_eq!(parked.expire(Time::from_secs(600)).len(), 1);
        assert_eq!((parked.len(), parked.order.len(), parked.given_up), (0, 0, 1));
    }

    #[test]
    fn everything_comes_back_once() {
        let mut parked = Parked::default();
        assert!(park(&mut parked, 1, 1) && park(&mut parked, 2, 1) && park(&mut parked, 1, 2));
        assert_eq!((parked.empty().len(), parked.len(), parked.order.len()), (3, 0, 0));
        assert!(parked.empty().is_empty());
        assert!(park(&mut parked, 1, 3));
        assert_eq!(parked.expire(Time::from_secs(700)).len(), 1);
    }
}
