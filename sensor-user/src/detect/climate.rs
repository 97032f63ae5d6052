//! Whether a login service fails for those whom it knows: an outage, a bad deployment, a dead identity provider.
//!
//! Then thousands of honest clients fail over and over, and every rule about failures would cry out for each. What
//! tells an outage from an attack is *who* fails: accounts at addresses from which they have logged in before. Only a
//! success makes such a pair known, so nobody can fake an outage without accounts of his own at several addresses.
//!
//! Memory: two bit fields of 256 KiB for the known pairs, made at the first success, and 140 bytes a service.

use serde::{Deserialize, Serialize};

use crate::capture::Time;
use crate::detect::login::Login;
use crate::detect::window::Buckets;
use crate::detect::{Column, RouteKind, Slot};
use crate::http::Exchange;

/// Bits of a field. 100,000 pairs, three bits each, make a stranger look known once in 400 times.
const BITS: u64 = 1 << 21;

/// Seconds after which the older field is forgotten: who logs in once a month stays known.
const TURN_S: u32 = 30 * 86_400;

/// Seconds of a bucket; ten make the five minutes that are looked at.
const BUCKET_S: u64 = 30;

/// Failures of known pairs from which it may be an outage, and by how many pairs.
const MIN_FAILURES: u32 = 10;
const MIN_PAIRS: u32 = 5;

/// Which accounts have logged in from where: a Bloom filter in two generations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    since_s: u32,
    now: Vec<u64>,
    before: Vec<u64>,
}

/// How logins at one service went of late.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Weather {
    good: Buckets<10>,
    known_failures: Buckets<10>,
    other_failures: Buckets<10>,
    /// Known pairs that failed, a bit of 64 each: in these five minutes, and in those before.
    pairs: (u64, u64),
    turned: u64,
    streak: Streak,
}

/// What happened since anybody got in last.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Streak {
    known: u32,
    other: u32,
    pairs: u64,
}

/// What is known of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sky {
    /// The service fails for those whom it knows.
    pub outage: bool,
    /// This account has logged in from this address before; without an account, anybody has.
    pub known: bool,
}

/// An attempt to log in, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct LoginSeen {
    /// The attempt.
    pub login: Login,
    /// What is known of it.
    pub sky: Sky,
}

/// Every service's weather. One serves all rules: the detector notes each attempt once, before they are asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Climate {
    known: Known,
    services: Column<Weather>,
}

impl Climate {
    /// Notes a new exchange on a route of this kind, if it is an attempt to log in.
    #[inline]
    pub fn see(&mut self, exchange: &Exchange, kind: RouteKind, service: Slot) -> Option<LoginSeen> {
        let login = Login::of(exchange, kind, false)?;
        Some(LoginSeen { login, sky: self.note(&login, exchange.at, service) })
    }

    fn note(&mut self, login: &Login, at: Time, service: Slot) -> Sky {
        let pair = login.pair();
        let known = self.known.has(pair);
        if !login.failed {
            self.known.add(pair, u32::try_from(at.secs()).unwrap_or(u32::MAX));
        }
        let weather = self.services.of(service);
        let bucket = at.secs() / BUCKET_S;
        weather.note(bucket, pair, login.failed, known);
        Sky { outage: weather.is_outage(bucket), known }
    }
}

impl Weather {
    fn note(&mut self, bucket: u64, pair: u64, failed: bool, known: bool) {
        if !failed {
            self.good.add(bucket);
            self.streak = Streak::default();
        } else if known {
            self.known_failures.add(bucket);
            self.streak.known = self.streak.known.saturating_add(1);
            self.streak.pairs |= 1 << (pair >> 58);
            if bucket / 10 > self.turned {
                self.pairs = (0, if bucket / 10 == self.turned + 1 { self.pairs.0 } else { 0 });
                self.turned = bucket / 10;
            }
            self.pairs.0 |= 1 << (pair >> 58);
        } else {
            self.other_failures.add(bucket);
            self.streak.other = self.streak.other.saturating_add(1);
        }
    }

    /// Nearly nobody gets in, and most who fail have got in before: nobody since some time, or few in five minutes.
    fn is_outage(&self, bucket: u64) -> bool {
        let Streak { known, other, pairs } = self.streak;
        if known >= MIN_FAILURES && known >= other && pairs.count_ones() >= MIN_PAIRS {
            return true;
        }
        let known = self.known_failures.sum(bucket, 10);
        known >= MIN_FAILURES
            && (self.pairs.0 | self.pairs.1).count_ones() >= MIN_PAIRS
            && known >= self.other_failures.sum(bucket, 10)
            && self.good.sum(bucket, 10).saturating_mul(10) <= known
    }
}

impl Known {
    fn places(name: u64) -> [(usize, u64); 3] {
        [name, name >> 21, name >> 42].map(|part| {
            let bit = part % BITS;
            (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
        })
    }

    fn has(&self, name: u64) -> bool {
        let in_field = |field: &[u64]| {
            Self::places(name).iter().all(|(at, bit)| field.get(*at).is_some_and(|word| word & bit != 0))
        };
        in_field(&self.now) || in_field(&self.before)
    }

    fn add(&mut self, name: u64, at_s: u32) {
        if self.now.is_empty() || at_s.saturating_sub(self.since_s) > TURN_S {
            self.before = std::mem::take(&mut self.now);
            self.now.resize(usize::try_from(BITS / 64).unwrap_or_default(), 0);
            self.since_s = at_s;
        }
        for (at, bit) in Self::places(name) {
            if let Some(word) = self.now.get_mut(at) {
                *word |= bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::roster::stable_hash;

    #[test]
    fn who_has_logged_in_is_known_for_a_month_or_two() {
        let mut known = Known::default();
        for name in 0..50_000_u64 {
            known.add(stable_hash(&name), 1000);
        }
        assert!((0..50_000_u64).all(|name| known.has(stable_hash(&name))));
        let strangers = (50_000..100_000_u64).filter(|name| known.has(stable_hash(name))).count();
        assert!(strangers < 100, "{strangers}");
        known.add(1, 1000 + TURN_S + 1);
        assert!(known.has(stable_hash(&7_u64)));
        known.add(1, 1000 + 2 * (TURN_S + 1));
        assert!(!known.has(stable_hash(&7_u64)));
    }

    #[test]
    fn an_outage_is_when_the_known_fail_and_nobody_gets_in() {
        let mut weather = Weather::default();
        for pair in 0..12_u64 {
            weather.note(100, stable_hash(&pair), true, true);
        }
        assert!(weather.is_outage(100));
        let mut attacked = weather.clone();
        for pair in 0..30_u64 {
            attacked.note(100, stable_hash(&pair), true, false);
        }
        assert!(!attacked.is_outage(100), "strangers outnumber them");
        weather.note(101, 1, false, true);
        assert!(weather.is_outage(101), "one got in");
        weather.note(101, 2, false, true);
        assert!(!weather.is_outage(101), "others get in");
        for pair in 0..12_u64 {
            weather.note(102, stable_hash(&pair), true, true);
        }
        assert!(weather.is_outage(102), "nobody since");
        assert!(!Weather::default().is_outage(0));
    }

    #[test]
    fn a_few_pairs_are_no_outage() {
        let mut weather = Weather::default();
        for _ in 0..100 {
            weather.note(100, 7, true, true);
        }
        assert!(!weather.is_outage(100));
    }
}
