//! Uses: exchanges folded by token, service, route, client and hour, so that a day of traffic is few rows.
//!
//! Whoever likes can make up tokens and addresses, so those that nobody vouches for may take a bounded share only:
//! beyond it clients are kept by network, then not at all, and their tokens are not told apart. Uses of tokens that are
//! verified, or that were accepted, are always kept as they are.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashTable};

use crate::capture::{Origin, Time};
use crate::seen::Seen;
use crate::store::totals::Totals;
use crate::store::veil::{From, Veil};
use crate::token::{Fingerprint, Token};

type Seed = foldhash::fast::RandomState;
type Map<K, V> = HashMap<K, V, Seed>;

/// How long uses are gathered before they are stored, in time of the data: what a crash loses.
const GATHER: Duration = Duration::from_secs(10);

/// Uses gathered at most: at some 200 bytes each with their names, 10 MiB.
const MOST_OPEN: usize = 50_000;

/// Uses by strangers that are gathered with their addresses; twice as many with their networks.
const MOST_STRANGERS: usize = 8_000;

/// One hour, the finest that windows of time are cut.
const HOUR_MS: u64 = 3_600_000;

/// A service: where its server's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Its address and port.
    pub address: std::net::SocketAddr,
    /// The inode of its cgroup; 0 if unknown.
    pub cgroup: u64,
}

/// What makes two exchanges one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The token's place in [`Gathered::tokens`]; none for requests without one, or by strangers that are too many.
    pub token: Option<u32>,
    /// Its place in [`Gathered::routes`].
    pub route: u32,
    /// Its place in [`Gathered::services`].
    pub service: u32,
    /// The hour since the epoch.
    pub hour: u32,
    /// Who asked.
    pub from: From,
    /// Whether the request is counted at another of its tokens already.
    pub beside: bool,
}

/// A use: 128 bytes, so that counting one touches two lines of the processor's cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Use {
    /// Whose, and of what.
    pub key: Key,
    /// How many, when, and how they were answered.
    pub totals: Totals,
}

/// Uses that were gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The uses, each key once.
    pub uses: Vec<Use>,
    /// The tokens that were used, as they were known last.
    pub tokens: Vec<Arc<Token>>,
    /// The routes.
    pub routes: Vec<Arc<str>>,
    /// The services, and where the server of the first request lived.
    pub services: Vec<(Service, Origin)>,
}

/// Gathers uses.
///
/// Nearly every request is one more use of what its token was used for last, so each token knows that one; only others
/// are looked up by their keys.
#[derive(Debug, Default)]
pub struct Gathering {
    open: Gathered,
    /// Places of uses, by key.
    places: HashTable<u32>,
    seed: Seed,
    /// Places of tokens, by fingerprint.
    token_ids: HashTable<u32>,
    /// The place of each token's newest use.
    newest: Vec<u32>,
    route_ids: Map<Arc<str>, u32>,
    service_ids: Map<Service, u32>,
    /// What was looked up last: most often it is asked for again.
    last_route: Option<(Arc<str>, u32)>,
    last_service: Option<(Service, u32)>,
    since: Option<Time>,
    strangers: usize,
    /// Whether strangers have had their share of what is stored.
    pub crowded: bool,
    /// Exchanges of strangers that were kept with less than their address.
    pub blurred: u64,
}

impl Gathering {
    /// Adds an exchange.
    pub fn add(&mut self, seen: &Seen, veil: &Veil) {
        self.since.get_or_insert(seen.at);
        let (route, service) = (self.route(&seen.route), self.service(seen));
        let hour = u32::try_from(seen.at.millis() / HOUR_MS).unwrap_or(u32::MAX);
        let (totals, client) = (Totals::of(seen), veil.address(seen.client));
        let from = From::Address(client);
        let key = |token, beside| Key { token, route, service, hour, from, beside };
        if seen.tokens.is_empty() {
            self.count_stranger(key(None, false), client, &totals);
        }
        for (place, token) in seen.tokens.iter().enumerate() {
            let known = self.token(token);
            let key = key(known, place > 0);
            if known.is_some_and(|known| self.count_again(known, &key, &totals)) {
                continue;
            }
            if token.is_verified() || totals.ok > 0 {
                let known = self.remember(known, token);
                self.count(Key { token: Some(known), ..key }, &totals);
            } else {
                self.count_token_of_stranger(token, key, client, &totals);
            }
        }
    }

    /// The place of a token that is known, which is then known as it is now.
    fn token(&mut self, token: &Arc<Token>) -> Option<u32> {
        let tokens = &mut self.open.tokens;
        let same = |at: &u32| named(tokens, *at) == Some(token.fingerprint);
        let at = *self.token_ids.find(self.seed.hash_one(token.fingerprint), same)?;
        let known = tokens.get_mut(at as usize)?;
        if !Arc::ptr_eq(known, token) {
            *known = Arc::clone(token);
        }
        Some(at)
    }

    /// The place of a token, which it gets if it has none.
    fn remember(&mut self, known: Option<u32>, token: &Arc<Token>) -> u32 {
        if let Some(known) = known {
            return known;
        }
        let tokens = &mut self.open.tokens;
        let at = u32::try_from(tokens.len()).unwrap_or(NOWHERE);
        tokens.push(Arc::clone(token));
        self.newest.push(NOWHERE);
        let seed = &self.seed;
        let rehash = |at: &u32| named(tokens, *at).map_or(0, |name| seed.hash_one(name));
        self.token_ids.insert_unique(seed.hash_one(token.fingerprint), at, rehash);
        at
    }

    /// Adds to the newest use of a token, if it is this one.
    #[inline]
    fn count_again(&mut self, token: u32, key: &Key, totals: &Totals) -> bool {
        let newest = self.newest.get(token as usize).and_then(|at| self.open.uses.get_mut(*at as usize));
        let Some(newest) = newest.filter(|newest| newest.key == *key) else { return false };
        newest.totals.add(totals);
        true
    }

    fn count(&mut self, key: Key, totals: &Totals) {
        if self.count_known(&key, totals) {
            return;
        }
        let uses = &mut self.open.uses;
        let at = u32::try_from(uses.len()).unwrap_or(NOWHERE);
        uses.push(Use { key, totals: *totals });
        let seed = &self.seed;
        let rehash = |at: &u32| uses.get(*at as usize).map_or(0, |held| seed.hash_one(held.key));
        self.places.insert_unique(seed.hash_one(key), at, rehash);
        self.note_newest(&key, at);
    }

    /// Adds to a use that is known.
    fn count_known(&mut self, key: &Key, totals: &Totals) -> bool {
        let uses = &mut self.open.uses;
        let same = |at: &u32| uses.get(*at as usize).is_some_and(|held| held.key == *key);
        let Some(at) = self.places.find(self.seed.hash_one(key), same).copied() else { return false };
        if let Some(held) = uses.get_mut(at as usize) {
            held.totals.add(totals);
        }
        self.note_newest(key, at);
        true
    }

    fn note_newest(&mut self, key: &Key, at: u32) {
        if let Some(newest) = key.token.and_then(|token| self.newest.get_mut(token as usize)) {
            *newest = at;
        }
    }

    /// Counts a use by a stranger of a token that nobody vouches for.
    fn count_token_of_stranger(&mut self, token: &Arc<Token>, key: Key, client: IpAddr, totals: &Totals) {
        if key.token.is_some() {
            self.count_stranger(key, client, totals);
        } else if self.has_room() {
            let token = Some(self.remember(None, token));
            self.strangers += 1;
            self.count(Key { token, ..key }, totals);
        } else {
            self.blur(key, client, totals);
        }
    }

    /// Counts what nobody vouches for.
    fn count_stranger(&mut self, key: Key, client: IpAddr, totals: &Totals) {
        if self.count_known(&key, totals) {
            return;
        }
        if self.has_room() {
            self.strangers += 1;
            self.count(key, totals);
        } else {
            self.blur(key, client, totals);
        }
    }

    fn has_room(&self) -> bool {
        !self.crowded && self.strangers < MOST_STRANGERS
    }

    /// Counts a stranger without its token, by its network if there is room for that.
    fn blur(&mut self, key: Key, client: IpAddr, totals: &Totals) {
        self.blurred += 1;
        if key.beside {
            // The request is counted at its first token.
            return;
        }
        let network = Key { token: None, from: From::around(client), ..key };
        if self.count_known(&network, totals) {
            return;
        }
        if !self.crowded && self.strangers < 2 * MOST_STRANGERS {
            self.strangers += 1;
            self.count(network, totals);
        } else {
            self.count(Key { from: From::Anywhere, ..network }, totals);
        }
    }

    fn route(&mut self, name: &Arc<str>) -> u32 {
        if let Some((last, id)) = &self.last_route
            && Arc::ptr_eq(last, name)
        {
            return *id;
        }
        let next = u32::try_from(self.open.routes.len()).unwrap_or(u32::MAX);
        let id = *self.route_ids.entry(Arc::clone(name)).or_insert_with(|| {
            self.open.routes.push(Arc::clone(name));
            next
        });
        self.last_route = Some((Arc::clone(name), id));
        id
    }

    fn service(&mut self, seen: &Seen) -> u32 {
        let service = Service { address: seen.endpoints.server, cgroup: seen.origin.cgroup };
        if let Some((last, id)) = self.last_service
            && last == service
        {
            return id;
        }
        let next = u32::try_from(self.open.services.len()).unwrap_or(u32::MAX);
        let id = *self.service_ids.entry(service).or_insert_with(|| {
            self.open.services.push((service, seen.origin));
            next
        });
        self.last_service = Some((service, id));
        id
    }

    /// Whether it is time to store what was gathered.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.is_full() || self.since.is_some_and(|since| now.since(since) >= GATHER)
    }

    /// Whether no more is to be gathered before it is stored.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open.uses.len() >= MOST_OPEN
    }

    /// Takes what was gathered; none if there is nothing.
    pub fn take(&mut self) -> Option<Gathered> {
        self.since.take()?;
        self.places.clear();
        self.token_ids.clear();
        self.newest.clear();
        self.route_ids.clear();
        self.service_ids.clear();
        (self.last_route, self.last_service) = (None, None);
        self.strangers = 0;
        Some(std::mem::take(&mut self.open))
    }

    /// Uses gathered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.uses.len()
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.uses.is_empty()
    }
}

impl Gathered {
    /// Exchanges in it.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.uses.iter().filter(|held| !held.key.beside).map(|held| held.totals.count).sum()
    }

    /// The token of a use, if it has one.
    #[must_use]
    pub fn token_of(&self, key: &Key) -> Option<&Token> {
        self.tokens.get(key.token? as usize).map(AsRef::as_ref)
    }
}

/// No place.
const NOWHERE: u32 = u32::MAX;

fn named(tokens: &[Arc<Token>], at: u32) -> Option<Fingerprint> {
    tokens.get(at as usize).map(|token| token.fingerprint)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::staging::{claim, seen, token, veil};

    const ROUTES: [&str; 3] = ["GET /a", "GET /b", "POST /a"];

    /// A use by names: who, beside, from where, of what, in which hour.
    type Named = (Option<Fingerprint>, bool, From, String, u32);

    fn by_name(gathered: &Gathered) -> HashMap<Named, Totals> {
        let named = |held: &Use| {
            let Key { route, from, beside, hour, .. } = held.key;
            let token = gathered.token_of(&held.key).map(|token| token.fingerprint);
            ((token, beside, from, gathered.routes[route as usize].to_string(), hour), held.totals)
        };
        let all: HashMap<_, _> = gathered.uses.iter().map(named).collect();
        assert_eq!(all.len(), gathered.uses.len(), "each use once");
        all
    }

    #[test]
    fn a_token_is_known_as_it_was_last() {
        let mut gathering = Gathering::default();
        let (claimed, proven) = (claim(1, "alice"), token(1, "alice"));
        for held in [&claimed, &proven, &proven] {
            gathering.add(&seen(1, &[held], "10.0.3.7", "GET /a", 200), &veil());
        }
        let gathered = gathering.take().unwrap();
        assert_eq!((gathered.tokens.len(), gathered.uses.len()), (1, 1));
        assert!(Arc::ptr_eq(&gathered.tokens[0], &proven));
        assert_eq!(gathered.exchanges(), 3);
    }

    #[test]
    fn nothing_is_left_of_a_set_that_was_taken() {
        let mut gathering = Gathering::default();
        for round in 1..4 {
            for number in 0..100 {
                gathering.add(&seen(round, &[&token(number, "a")], "10.0.3.7", "GET /a", 200), &veil());
            }
            let gathered = gathering.take().unwrap();
            assert_eq!((gathered.uses.len(), gathered.tokens.len(), gathered.exchanges()), (100, 100, 100));
            assert!(gathering.is_empty() && gathering.take().is_none());
        }
    }

    #[test]
    fn a_use_takes_two_lines() {
        assert_eq!(size_of::<Use>(), 128);
    }

    proptest! {
        /// Against a plain map of everything that makes a use.
        #[test]
        fn counts_as_a_plain_map_does(
            steps in prop::collection::vec((0_u64..6, 0_u64..8, 0_usize..3, 0_u8..3, any::<bool>(), 0_u64..2), 0..200),
        ) {
            let veil = veil();
            let (mut gathering, mut plain) = (Gathering::default(), HashMap::<Named, Totals>::new());
            for (first, second, route, client, good, hour) in steps {
                // The first two tokens are nobody's word but their own.
                let made = |number: u64| {
                    if number < 2 { claim(number, "bob") } else { token(number, "alice") }
                };
                let held: Vec<_> = [first, second].into_iter().filter(|n| *n < 6).map(made).collect();
                let client = format!("10.0.3.{client}");
                let status = if good { 200 } else { 401 };
                let seen = seen(hour * 3600, &held.iter().collect::<Vec<_>>(), &client, ROUTES[route], status);
                gathering.add(&seen, &veil);
                let from = From::Address(veil.address(seen.client));
                let hour = u32::try_from(seen.at.millis() / HOUR_MS).unwrap();
                let names: Vec<_> = match held.as_slice() {
                    [] => vec![(None, false)],
                    held => held.iter().zip([false, true]).map(|(t, beside)| (Some(t.fingerprint), beside)).collect(),
                };
                for (token, beside) in names {
                    let name = (token, beside, from, ROUTES[route].to_owned(), hour);
                    plain.entry(name).or_default().add(&Totals::of(&seen));
                }
            }
            let gathered = gathering.take().unwrap_or_default();
            prop_assert_eq!(by_name(&gathered), plain);
        }
    }
}
