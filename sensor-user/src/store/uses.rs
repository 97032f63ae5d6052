//! Uses: exchanges folded by token, service, route, client and hour, so that a day of traffic is few rows.
//!
//! Whoever likes can make up tokens and addresses, so those that nobody vouches for may take a bounded share only:
//! beyond it clients are kept by network, then not at all, and their tokens are not told apart. Uses of tokens that are
//! verified, or that were accepted, are always kept as they are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::capture::{Origin, Time};
use crate::seen::Seen;
use crate::store::totals::Totals;
use crate::store::veil::{From, Veil};
use crate::token::{Fingerprint, Token};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

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
    /// The token; none for requests without one, or by strangers that are too many.
    pub token: Option<Fingerprint>,
    /// Whether the request is counted at another of its tokens already.
    pub beside: bool,
    /// Who asked.
    pub from: From,
    /// Its place in [`Gathered::routes`].
    pub route: u32,
    /// Its place in [`Gathered::services`].
    pub service: u32,
    /// The hour since the epoch.
    pub hour: u32,
}

/// Uses that were gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The uses.
    pub uses: Map<Key, Totals>,
    /// The tokens that were used, as they were known last.
    pub tokens: Map<Fingerprint, Arc<Token>>,
    /// The routes.
    pub routes: Vec<Arc<str>>,
    /// The services, and where the server of the first request lived.
    pub services: Vec<(Service, Origin)>,
}

/// Gathers uses.
#[derive(Debug, Default)]
pub struct Gathering {
    open: Gathered,
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
        let key = |token, beside| Key { token, beside, from: From::Address(client), route, service, hour };
        if seen.tokens.is_empty() {
            self.count_stranger(key(None, false), client, &totals);
        }
        for (place, token) in seen.tokens.iter().enumerate() {
            let key = key(Some(token.fingerprint), place > 0);
            if token.is_verified() || totals.ok > 0 {
                self.count(key, &totals);
            } else if !self.count_stranger(key, client, &totals) {
                continue;
            }
            self.remember(token);
        }
    }

    fn remember(&mut self, token: &Arc<Token>) {
        let known = self.open.tokens.entry(token.fingerprint).or_insert_with(|| Arc::clone(token));
        if !Arc::ptr_eq(known, token) {
            *known = Arc::clone(token);
        }
    }

    fn count(&mut self, key: Key, totals: &Totals) {
        self.open.uses.entry(key).or_default().add(totals);
    }

    /// Counts what nobody vouches for. Says whether it is kept with its token.
    fn count_stranger(&mut self, key: Key, client: IpAddr, totals: &Totals) -> bool {
        if let Some(known) = self.open.uses.get_mut(&key) {
            known.add(totals);
            return true;
        }
        if !self.crowded && self.strangers < MOST_STRANGERS {
            self.strangers += 1;
            self.count(key, totals);
            return true;
        }
        self.blurred += 1;
        if key.beside {
            // The request is counted at its first token.
            return false;
        }
        let network = Key { token: None, from: From::around(client), ..key };
        if let Some(known) = self.open.uses.get_mut(&network) {
            known.add(totals);
        } else if !self.crowded && self.strangers < 2 * MOST_STRANGERS {
            self.strangers += 1;
            self.count(network, totals);
        } else {
            self.count(Key { from: From::Anywhere, ..network }, totals);
        }
        false
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
        self.uses.iter().filter(|(key, _)| !key.beside).map(|(_, totals)| totals.count).sum()
    }
}
