//! Who takes part in an exchange: its address, service, client family, tokens and actor, each looked up once.
//!
//! A rule that keeps a history does not keep a map: it keeps a [`Column`], which holds one value for each
//! entry of the roster and is reached by index. One lookup an entity and exchange serves every rule. When the roster
//! forgets an entity, its place gets another *life*, and what columns hold of the old one is void.
//!
//! Memory: an address takes about 60 bytes here, a token 70, an actor 70 and its name; a column adds the size of
//! its value and four bytes for each place up to the highest used. `max_tokens` and its like bound the places.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::detect::DetectSettings;
use crate::detect::cause::{cause, must_refuse};
use crate::detect::family::{Families, Family};
use crate::detect::holder::holder;
use crate::detect::knowledge::Place;
use crate::detect::statement::VERIFIERS_LEEWAY_S;
use crate::detect::table::Table;
use crate::http::Exchange;
use crate::token::{Fingerprint, Signature, TokenUse};

/// A place in the roster, during one life of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The place: below the cap of its table.
    pub at: u32,
    /// Which entity holds the place: counts up, and is never 0 but for no entity at all.
    pub life: u32,
}

/// One value for each entity of one kind. What a new entity has is the default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column<T>(Vec<(u32, T)>);

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> Column<T> {
    /// The value of an entity.
    ///
    /// Grows to the entity's place, which the cap of its table bounds.
    #[inline]
    #[allow(clippy::indexing_slicing, reason = "the resize above makes the index valid")]
    pub fn of(&mut self, slot: Slot) -> &mut T {
        let at = slot.at as usize;
        if at >= self.0.len() {
            self.grow(at + 1);
        }
        let (life, value) = &mut self.0[at];
        if *life != slot.life {
            *life = slot.life;
            *value = T::default();
        }
        value
    }

    /// Grows by an eighth and not by half: tables of a million places must not hold half a million empty ones.
    #[cold]
    fn grow(&mut self, len: usize) {
        if len > self.0.capacity() {
            self.0.reserve_exact(len + len / 8 + 16 - self.0.len());
        }
        self.0.resize_with(len, || (0, T::default()));
    }

    /// The value of an entity that has one.
    #[inline]
    #[must_use]
    pub fn peek(&self, slot: Slot) -> Option<&T> {
        self.0.get(slot.at as usize).filter(|(life, _)| *life == slot.life).map(|(_, value)| value)
    }

    /// Every value, of entities known and forgotten.
    pub fn values(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Bytes that the values take, without what they own elsewhere.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u32, T)>()
    }
}

/// An entity as the roster knows it at an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its place.
    pub slot: Slot,
    /// When it was first seen: data time, seconds since the epoch.
    pub first_s: u32,
    /// When it was seen last before this exchange; `first_s` at its first.
    pub last_s: u32,
    /// Exchanges before this one; saturates.
    pub uses: u32,
}

impl Known {
    /// Whether this exchange is the first.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.uses == 0
    }
}

/// Who acts: what object and data rules count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The actor's entry.
    pub known: Known,
    /// Whether a verified signature names it. Otherwise it is a token that nobody has refuted, counted by its
    /// fingerprint, which no one else can produce.
    pub verified: bool,
}

/// Who takes part in an exchange.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// The holder of the client's address ([`holder`]).
    pub address: Known,
    /// Whether the address is known to be shared by many callers.
    pub trusted_address: bool,
    /// Where the address is, as far as it is known; none without a database of places.
    pub place: Option<Place>,
    /// Whether the address is on the list of known attackers.
    pub bad_address: bool,
    /// The server's socket address.
    pub service: Known,
    /// What kind of client it says it is.
    pub family: Family,
    /// Every token of the request.
    pub tokens: SmallVec<[(Fingerprint, Known); 2]>,
    /// Who acts, where that is known: for rules that need verdicts, the actor named by the tokens that are judged now.
    pub actor: Option<Actor>,
}

impl Who {
    /// A token's entry.
    #[must_use]
    pub fn token(&self, fingerprint: Fingerprint) -> Option<Known> {
        self.tokens.iter().find(|(name, _)| *name == fingerprint).map(|(_, known)| *known)
    }

    /// The place of the request's first token.
    #[must_use]
    pub fn first_token(&self) -> Slot {
        self.tokens.first().map(|(_, known)| known.slot).unwrap_or_default()
    }

    /// The actor, if a verified signature names it.
    #[must_use]
    pub fn principal(&self) -> Option<Known> {
        self.actor.filter(|actor| actor.verified).map(|actor| actor.known)
    }
}

/// What names an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Name {
    /// Issuer and subject.
    Principal(Box<str>, Box<str>),
    Token(Fingerprint),
}

/// As its parts are hashed, so that an actor is found without making its name.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Principal(issuer, subject) => (&**issuer, &**subject).hash(state),
            Self::Token(name) => name.hash(state),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Entry {
    life: u32,
    first_s: u32,
    last_s: u32,
    uses: u32,
}

/// Entities of one kind.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "K: Serialize", deserialize = "K: Deserialize<'de> + Hash + Eq"))]
struct Kind<K> {
    table: Table<K, Entry>,
    lives: u32,
}

impl<K> Kind<K> {
    fn new(cap: usize) -> Self {
        Self { table: Table::new(cap), lives: 0 }
    }

    /// Notes a sight of the entity under `hash`.
    #[inline]
    fn see(&mut self, hash: u64, is: impl Fn(&K) -> bool, at_s: u32, make: impl FnOnce() -> K) -> Known {
        let at = if let Some(at) = self.table.position(hash, is) {
            at
        } else {
            self.lives = self.lives.wrapping_add(1).max(1);
            let entry = Entry { life: self.lives, first_s: at_s, last_s: at_s, uses: 0 };
            self.table.place(hash, make(), entry).0
        };
        let Some(entry) = self.table.at(at) else { return Known::default() };
        let slot = Slot { at: u32::try_from(at).unwrap_or(u32::MAX), life: entry.life };
        let known = Known { slot, first_s: entry.first_s, last_s: entry.last_s, uses: entry.uses };
        entry.last_s = entry.last_s.max(at_s);
        entry.uses = entry.uses.saturating_add(1);
        known
    }

    /// The entity under `hash` as it is, without a sight of it.
    fn look(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<Known> {
        let at = self.table.position(hash, is)?;
        let entry = self.table.at(at)?;
        let slot = Slot { at: u32::try_from(at).unwrap_or(u32::MAX), life: entry.life };
        let uses = entry.uses.saturating_sub(1);
        Some(Known { slot, first_s: entry.first_s, last_s: entry.last_s, uses })
    }
}

/// Everybody known.
#[derive(Debug, Serialize, Deserialize)]
pub struct Roster {
    addresses: Kind<IpAddr>,
    services: Kind<SocketAddr>,
    tokens: Kind<Fingerprint>,
    actors: Kind<Name>,
    #[serde(skip)]
    families: Families,
    #[serde(skip)]
    trusted: Vec<ipnet::IpNet>,
}

/// More lives than can begin while a snapshot is taken.
pub(super) const LATER_LIVES: u32 = 1 << 20;

/// Servers of one node: pods and their ports.
const MAX_SERVICES: usize = 4096;

impl Roster {
    /// Knows nobody.
    #[must_use]
    pub fn new(settings: &DetectSettings) -> Self {
        Self {
            addresses: Kind::new(settings.max_addresses),
            services: Kind::new(MAX_SERVICES),
            tokens: Kind::new(settings.max_tokens),
            actors: Kind::new(settings.max_principals),
            families: Families::default(),
            trusted: settings.trusted_addresses.clone(),
        }
    }

    /// Takes over what an earlier run knew, within the caps of this one.
    pub fn resume(&mut self, earlier: Self) {
        let Self { addresses, services, tokens, actors, .. } = earlier;
        self.addresses.resume(addresses);
        self.services.resume(services);
        self.tokens.resume(tokens);
        self.actors.resume(actors);
    }

    /// Entities of each kind now, and how many had to be forgotten: addresses, services, tokens, actors.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize, u64); 4] {
        let size = |len: usize, evicted: u64, kind| (kind, len, evicted);
        [
            size(self.addresses.table.len(), self.addresses.table.evicted(), "addresses"),
            size(self.services.table.len(), self.services.table.evicted(), "services"),
            size(self.tokens.table.len(), self.tokens.table.evicted(), "tokens"),
            size(self.actors.table.len(), self.actors.table.evicted(), "actors"),
        ]
    }

    /// Who takes part in a new exchange.
    pub fn see(&mut self, exchange: &Exchange, tokens: &[TokenUse], who: &mut Who) {
        let at_s = seconds(exchange);
        let client = holder(exchange.client);
        let hash = self.addresses.table.hash_of(&client);
        who.address = self.addresses.see(hash, |a| *a == client, at_s, || client);
        who.trusted_address = self.trusted.iter().any(|net| net.contains(&exchange.client));
        let server = exchange.endpoints.server;
        let hash = self.services.table.hash_of(&server);
        who.service = self.services.see(hash, |s| *s == server, at_s, || server);
        who.family = self.families.of(exchange.request.value("user-agent").unwrap_or_default());
        who.tokens.clear();
        for held in tokens {
            let name = held.token.fingerprint;
            let hash = self.tokens.table.hash_of(&name);
            let known = self.tokens.see(hash, |t| *t == name, at_s, || name);
            who.tokens.push((name, known));
        }
        who.actor = self.actor(exchange, tokens.iter().filter(|held| held.token.is_settled()), at_s);
    }

    /// Who takes part in an exchange that is judged again, for a token whose verdict has come.
    pub fn see_late(&mut self, exchange: &Exchange, all: &[TokenUse], judged: &[TokenUse], who: &mut Who) {
        let client = holder(exchange.client);
        let hash = self.addresses.table.hash_of(&client);
        who.address = self.addresses.look(hash, |a| *a == client).unwrap_or_default();
        who.trusted_address = self.trusted.iter().any(|net| net.contains(&exchange.client));
        let server = exchange.endpoints.server;
        let hash = self.services.table.hash_of(&server);
        who.service = self.services.look(hash, |s| *s == server).unwrap_or_default();
        who.family = self.families.of(exchange.request.value("user-agent").unwrap_or_default());
        who.tokens.clear();
        for held in all {
            let name = held.token.fingerprint;
            let hash = self.tokens.table.hash_of(&name);
            let known = self.tokens.look(hash, |t| *t == name).unwrap_or_default();
            who.tokens.push((name, known));
        }
        who.actor = self.actor(exchange, judged.iter(), seconds(exchange));
    }

    /// The first of these tokens that names an actor decides.
    fn actor<'a>(
        &mut self,
        exchange: &Exchange,
        mut tokens: impl Iterator<Item = &'a TokenUse>,
        at_s: u32,
    ) -> Option<Actor> {
        let good = |held: &&TokenUse| must_refuse(&held.token, exchange.at, VERIFIERS_LEEWAY_S).is_none();
        let held = tokens.find(good)?;
        let token = &*held.token;
        let actors = &mut self.actors;
        if let Some(subject) = token.subject.as_deref().filter(|_| token.is_verified()) {
            let issuer = token.issuer.as_deref().unwrap_or_default();
            let hash = actors.table.hash_of(&(issuer, subject));
            let same = |n: &Name| matches!(n, Name::Principal(i, s) if **i == *issuer && **s == *subject);
            let known = actors.see(hash, same, at_s, || Name::Principal(issuer.into(), subject.into()));
            return Some(Actor { known, verified: true });
        }
        // A token that nobody can check is only as good as the application's word for it.
        if cause(token).is_some() || !matches!(token.signature, Signature::Unchecked(_)) {
            return None;
        }
        let believed = exchange.is_success()
            || (token.policy.is_none() && !matches!(exchange.status(), None | Some(401)));
        if !believed {
            return None;
        }
        let name = token.fingerprint;
        let hash = actors.table.hash_of(&name);
        let same = |n: &Name| matches!(n, Name::Token(t) if *t == name);
        let known = actors.see(hash, same, at_s, || Name::Token(name));
        Some(Actor { known, verified: false })
    }
}

impl<K: Hash + Eq> Kind<K> {
    fn resume(&mut self, earlier: Self) {
        let cap = self.table.cap();
        // Columns may have been saved a little later than this, with lives that began in between.
        self.lives = earlier.lives.wrapping_add(LATER_LIVES);
        self.table = earlier.table;
        self.table.limit(cap);
    }
}

fn seconds(exchange: &Exchange) -> u32 {
    u32::try_from(exchange.at.secs()).unwrap_or(u32::MAX)
}

/// A hash that is the same in every run: for values that are kept in snapshots.
#[must_use]
pub fn stable_hash(value: &(impl Hash + ?Sized)) -> u64 {
    foldhash::quality::FixedState::with_seed(0x746f_6b65_6e73_636f).hash_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token, uses};
    use crate::token::{Token, Unchecked};

    fn roster() -> Roster {
        Roster::new(&DetectSettings { max_addresses: 50, ..DetectSettings::default() })
    }

    fn seen(roster: &mut Roster, stage: &Stage, tokens: Vec<Token>) -> Who {
        let mut who = Who::default();
        roster.see(&stage.exchange, &uses(tokens), &mut who);
        who
    }

    #[test]
    fn a_principal_is_one_over_many_tokens_and_addresses() {
        let mut roster = roster();
        let first = seen(&mut roster, &Stage::new().status(200), vec![token(1)]);
        let again =
            seen(&mut roster, &Stage::new().client("10.9.9.9").after_ms(5000).status(200), vec![token(2)]);
        let (first, again) = (first.principal().unwrap(), again.principal().unwrap());
        assert_eq!(first.slot, again.slot);
        assert_eq!((first.is_new(), again.uses, again.last_s), (true, 1, first.first_s));
        let other = Token { subject: Some("bob".into()), ..token(3) };
        assert_ne!(seen(&mut roster, &Stage::new(), vec![other]).principal().unwrap().slot, first.slot);
    }

    #[test]
    fn forged_and_expired_tokens_name_nobody() {
        let mut roster = roster();
        let forged = Token { signature: Signature::Invalid, ..token(1) };
        assert_eq!(seen(&mut roster, &Stage::new().status(200), vec![forged]).actor, None);
        let expired = Token { expires: Some(1), ..token(1) };
        assert_eq!(seen(&mut roster, &Stage::new().status(200), vec![expired]).actor, None);
    }

    #[test]
    fn a_token_that_nobody_can_check_acts_for_itself_once_it_is_believed() {
        let mut roster = roster();
        let opaque =
            || Token { signature: Signature::Unchecked(Unchecked::NoIssuer), policy: None, ..token(1) };
        assert_eq!(seen(&mut roster, &Stage::new().status(401), vec![opaque()]).actor, None);
        let actor = seen(&mut roster, &Stage::new().status(403), vec![opaque()]).actor.unwrap();
        assert!(!actor.verified);
        let same = seen(&mut roster, &Stage::new().status(200), vec![opaque()]).actor.unwrap();
        assert_eq!(same.known.slot, actor.known.slot);
    }

    #[test]
    fn a_column_forgets_with_the_roster() {
        let mut roster = roster();
        let mut column = Column::<u32>::default();
        let who = seen(&mut roster, &Stage::new(), vec![]);
        *column.of(who.address.slot) = 7;
        for i in 0..5000_u32 {
            let flood = Stage::new().client(&format!("172.{}.{}.1", i / 250, i % 250));
            let other = seen(&mut roster, &flood, vec![]);
            *column.of(other.address.slot) += 1;
            assert_eq!(column.peek(other.address.slot), Some(&1), "a new life begins at nothing");
        }
        assert!(column.0.len() <= 50);
        assert_eq!(column.peek(who.address.slot), None);
    }

    #[test]
    fn a_restart_keeps_places_and_lives() {
        let mut old = roster();
        let before = seen(&mut old, &Stage::new().status(200), vec![token(1)]);
        let saved = postcard::to_allocvec(&old).unwrap();
        let mut fresh = roster();
        fresh.resume(postcard::from_bytes(&saved).unwrap());
        let after = seen(&mut fresh, &Stage::new().status(200), vec![token(1)]);
        assert_eq!(before.principal().unwrap().slot, after.principal().unwrap().slot);
        assert_eq!(before.address.slot, after.address.slot);
        assert_eq!(before.tokens[0].1.slot, after.tokens[0].1.slot);
        assert_eq!(after.tokens[0].1.uses, 1);
    }
}
