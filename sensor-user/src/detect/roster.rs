//! Who takes part in an exchange: its address, service, client family, tokens and actor, each looked up once.
//!
//! A rule that keeps a history does not keep a map: it keeps a [`Column`], which holds one value for each
//! entry of the roster and is reached by index. One lookup an entity and exchange serves every rule. When the roster
//! forgets an entity, its place gets another *life*, and what columns hold of the old one is void.
//!
//! Memory: an address or an actor takes about 45 bytes here, a token 90 with its habit; a column adds the size of
//! its value and four bytes for each place up to the highest used. `max_tokens` and its like bound the places.

use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::capture::Time;
use crate::detect::DetectSettings;
use crate::detect::Route;
use crate::detect::cause::{cause, must_refuse};
use crate::detect::family::{Families, Family};
use crate::detect::habit::Habit;
use crate::detect::holder::holder;
use crate::detect::knowledge::Place;
use crate::detect::statement::{VERIFIERS_LEEWAY_S, is_guardable};
use crate::detect::table::Table;
use crate::http::Exchange;
use crate::token::hash::sha256;
use crate::token::{Carrier, Fingerprint, Policy, Purpose, Signature, Token, TokenUse};

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
            grow(&mut self.0, at + 1, || (0, T::default()));
        }
        let (life, value) = &mut self.0[at];
        if *life != slot.life {
            *life = slot.life;
            *value = T::default();
        }
        value
    }

    /// Makes an entity's place its own, if it is another's now: what that had.
    #[inline]
    pub fn renew(&mut self, slot: Slot) -> Option<T> {
        let (life, value) = self.0.get_mut(slot.at as usize)?;
        if *life == slot.life {
            return None;
        }
        *life = slot.life;
        Some(std::mem::take(value))
    }

    /// Every place in its order: whose life it is for, and the value. For snapshots of another form.
    #[must_use]
    pub fn places(&self) -> impl ExactSizeIterator<Item = (u32, &T)> {
        self.0.iter().map(|(life, value)| (*life, value))
    }

    /// The value of an entity that has one.
    #[inline]
    #[must_use]
    pub fn peek(&self, slot: Slot) -> Option<&T> {
        self.0.get(slot.at as usize).filter(|(life, _)| *life == slot.life).map(|(_, value)| value)
    }

    /// What is in a place, whoever has it, once for the processor's sake: it is asked for here and needed later, and
    /// meanwhile other places can be asked for.
    #[inline]
    #[must_use]
    pub fn glance(&self, at: u32) -> Option<&T> {
        let (life, value) = self.0.get(at as usize)?;
        std::hint::black_box(*life);
        Some(value)
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

/// Whether entities of one kind have a mark: four bytes a place.
#[derive(Clone, Debug, Default)]
pub struct Marks(Vec<u32>);

impl Marks {
    /// Marks an entity.
    pub fn set(&mut self, slot: Slot) {
        let at = slot.at as usize;
        if slot.life != 0 && at >= self.0.len() {
            grow(&mut self.0, at + 1, || 0);
        }
        if let Some(life) = self.0.get_mut(at).filter(|_| slot.life != 0) {
            *life = slot.life;
        }
    }

    /// Whether an entity has the mark.
    #[inline]
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        slot.life != 0 && self.0.get(slot.at as usize) == Some(&slot.life)
    }
}

/// A snapshot holds what a column of marks would hold.
impl Serialize for Marks {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.0.iter().map(|life| (*life, *life != 0)))
    }
}

impl<'de> Deserialize<'de> for Marks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Column(places) = Column::<bool>::deserialize(from)?;
        Ok(Self(places.into_iter().map(|(life, mark)| if mark { life } else { 0 }).collect()))
    }
}

/// Grows by an eighth and not by half: tables of a million places must not hold half a million empty ones.
#[cold]
fn grow<T>(places: &mut Vec<T>, len: usize, empty: impl FnMut() -> T) {
    if len > places.capacity() {
        places.reserve_exact(len + len / 8 + 16 - places.len());
    }
    places.resize_with(len, empty);
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
    /// Whether this use of a good token was answered, and repeats one of a moment ago in every respect ([`Habit`]).
    pub repeats: bool,
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

/// Names an actor: a hash of issuer and subject, or a token's fingerprint. The text of names stays out of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Name([u8; 16]);

impl Name {
    /// Collisions take 2^64 accounts to find, which is more than an issuer gives out.
    fn of_principal(issuer: &str, subject: &str) -> Self {
        let length = u64::try_from(issuer.len()).unwrap_or(u64::MAX).to_le_bytes();
        let hash = sha256(&[&length, issuer.as_bytes(), subject.as_bytes()].concat());
        Self(hash.first_chunk().copied().unwrap_or_default())
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

impl<K: Hash + Eq> Kind<K> {
    fn new(cap: usize) -> Self {
        Self { table: Table::new(cap), lives: 0 }
    }

    /// Notes a sight of an entity.
    #[inline]
    fn see(&mut self, key: K, at_s: u32) -> Known {
        let at = self.place(key, at_s);
        self.sight(at, at_s)
    }

    /// The place of an entity, made if it has none.
    #[inline]
    fn place(&mut self, key: K, at_s: u32) -> usize {
        let hash = self.table.hash_of(&key);
        if let Some(at) = self.table.position(hash, |k| *k == key) {
            return at;
        }
        self.lives = self.lives.wrapping_add(1).max(1);
        let entry = Entry { life: self.lives, first_s: at_s, last_s: at_s, uses: 0 };
        self.table.place(hash, key, entry).0
    }

    /// Notes a sight of the entity that may be in this place: only if it `is` there.
    #[inline]
    fn see_at(&mut self, at: usize, is: impl Fn(&K, &Entry) -> bool, at_s: u32) -> Option<Known> {
        self.table.touch(at, is).then(|| self.sight(at, at_s))
    }

    #[inline]
    fn sight(&mut self, at: usize, at_s: u32) -> Known {
        let Some(entry) = self.table.at(at) else { return Known::default() };
        if entry.uses == 0 {
            // It may have been expected.
            (entry.first_s, entry.last_s) = (at_s, at_s);
        }
        let slot = Slot { at: u32::try_from(at).unwrap_or(u32::MAX), life: entry.life };
        let known = Known { slot, first_s: entry.first_s, last_s: entry.last_s, uses: entry.uses };
        entry.last_s = entry.last_s.max(at_s);
        entry.uses = entry.uses.saturating_add(1);
        known
    }

    /// The place of an entity that will be seen, if ever, later.
    fn expect(&mut self, key: K, at_s: u32) -> Slot {
        let at = self.place(key, at_s);
        let life = self.table.at(at).map_or(0, |entry| entry.life);
        Slot { at: u32::try_from(at).unwrap_or(u32::MAX), life }
    }

    /// An entity as it is, without a sight of it.
    fn look(&mut self, key: &K) -> Option<Known> {
        let at = self.table.position(self.table.hash_of(key), |k| k == key)?;
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
    habits: Column<Habit>,
    #[serde(skip)]
    families: Families,
    /// Where the newest service is: most often the next exchange has the same.
    #[serde(skip)]
    newest_service: usize,
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
            habits: Column::default(),
            families: Families::default(),
            newest_service: 0,
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

    /// Who takes part in a new exchange. `revision` counts changes of what is known from outside.
    pub fn see(
        &mut self,
        exchange: &Exchange,
        tokens: &[TokenUse],
        route: &Route,
        revision: u32,
        who: &mut Who,
    ) {
        let at_s = seconds(exchange);
        who.address = self.addresses.see(holder(exchange.client), at_s);
        who.trusted_address = self.trusted.iter().any(|net| net.contains(&exchange.client));
        let server = exchange.endpoints.server;
        let same = self.services.see_at(self.newest_service, |known, _| *known == server, at_s);
        who.service = same.unwrap_or_else(|| self.services.see(server, at_s));
        self.newest_service = who.service.slot.at as usize;
        who.family = self.families.of(exchange.request.value("user-agent").unwrap_or_default());
        who.tokens.clear();
        for held in tokens {
            let name = held.token.fingerprint;
            let seat = held.token.seat.get();
            let known = self.tokens.see_at(seat, |t, _| *t == name, at_s);
            let known = known.unwrap_or_else(|| self.tokens.see(name, at_s));
            held.token.seat.set(known.slot.at);
            who.tokens.push((name, known));
        }
        who.actor = self.actor(exchange, tokens.iter().filter(|held| held.token.is_settled()), at_s, who);
        who.repeats = self.repeats(exchange, tokens, route, revision, who);
    }

    /// Where the first of these tokens and who acts by it are likely to be found. For [`Rule::glance`].
    ///
    /// [`Rule::glance`]: crate::detect::Rule::glance
    #[inline]
    #[must_use]
    pub fn glance(&self, tokens: &[TokenUse]) -> Option<(u32, u32)> {
        let seat = tokens.first()?.token.seat.get();
        self.tokens.table.glance(seat);
        let at = u32::try_from(seat).ok()?;
        let actor = self.habits.glance(at)?.actor.at;
        self.actors.table.glance(actor as usize);
        Some((at, actor))
    }

    /// The place of a token that was issued and may come to be used.
    pub fn expect(&mut self, name: Fingerprint, at_s: u32) -> Slot {
        self.tokens.expect(name, at_s)
    }

    /// Who takes part in an exchange that is judged again, for a token whose verdict has come.
    pub fn see_late(&mut self, exchange: &Exchange, all: &[TokenUse], judged: &[TokenUse], who: &mut Who) {
        who.address = self.addresses.look(&holder(exchange.client)).unwrap_or_default();
        who.trusted_address = self.trusted.iter().any(|net| net.contains(&exchange.client));
        who.service = self.services.look(&exchange.endpoints.server).unwrap_or_default();
        who.family = self.families.of(exchange.request.value("user-agent").unwrap_or_default());
        who.tokens.clear();
        for held in all {
            let name = held.token.fingerprint;
            who.tokens.push((name, self.tokens.look(&name).unwrap_or_default()));
        }
        who.actor = self.actor(exchange, judged.iter(), seconds(exchange), who);
        who.repeats = false;
    }

    /// The first of these tokens that names an actor decides.
    fn actor<'a>(
        &mut self,
        exchange: &Exchange,
        mut tokens: impl Iterator<Item = &'a TokenUse>,
        at_s: u32,
        who: &Who,
    ) -> Option<Actor> {
        let good = |held: &&TokenUse| must_refuse(&held.token, exchange.at, VERIFIERS_LEEWAY_S).is_none();
        let token = &*tokens.find(good)?.token;
        let verified = token.is_verified() && token.subject.is_some();
        if !verified && !is_believed(token, exchange) {
            return None;
        }
        // A token names the same actor each time: hashing names is for its first use.
        let habit = self.habits.of(who.token(token.fingerprint)?.slot);
        let (at, life) = (habit.actor.at as usize, habit.actor.life);
        let same = |_: &Name, entry: &Entry| entry.life == life && life != 0;
        if habit.verified == verified
            && let Some(known) = self.actors.see_at(at, same, at_s)
        {
            return Some(Actor { known, verified });
        }
        let name = match token.subject.as_deref().filter(|_| verified) {
            Some(subject) => Name::of_principal(token.issuer.as_deref().unwrap_or_default(), subject),
            None => Name(token.fingerprint.0),
        };
        let known = self.actors.see(name, at_s);
        (habit.actor, habit.verified) = (known.slot, verified);
        Some(Actor { known, verified })
    }

    /// Whether the exchange is a plain repeat: of one good token, in its usual place, answered as usual.
    fn repeats(
        &mut self,
        exchange: &Exchange,
        tokens: &[TokenUse],
        route: &Route,
        revision: u32,
        who: &Who,
    ) -> bool {
        let plain = who.actor.is_some()
            && exchange.is_success()
            && is_guardable(route.kind)
            && tokens.iter().all(|held| {
                matches!(held.carrier, Carrier::Authorization) && is_in_order(&held.token, exchange.at)
            });
        let ([held], [(_, known)], true) = (tokens, who.tokens.as_slice(), plain) else {
            // Whatever else is done with a token, what comes after it is news.
            who.tokens.iter().for_each(|(_, known)| self.habits.of(known.slot).end());
            return false;
        };
        let (token, habit) = (&held.token, self.habits.of(known.slot));
        let place = (who.address.slot, who.service.slot, who.family, who.trusted_address);
        let worth = (token.signature, token.standing, habit.actor);
        habit.repeats(stable_hash(&(place, worth, revision)), route.slot, seconds(exchange))
    }
}

/// Whether nothing at all can be said against a token, now and without history.
#[must_use]
pub fn is_in_order(token: &Token, at: Time) -> bool {
    let at = i64::try_from(at.secs()).unwrap_or(i64::MAX);
    let fits = |p: Policy| p.issuer_known && p.audience_ok && p.algorithm_ok && p.type_ok;
    token.flaws.is_empty()
        && token.proof().is_none()
        && token.policy.is_none_or(fits)
        && matches!(token.purpose, None | Some(Purpose::Access))
        && token.expires.get().is_none_or(|end| at < end)
        && token.not_before.get().is_none_or(|begin| begin <= at)
        && token.issued.get().is_none_or(|issued| issued <= at)
}

/// A token that nobody can check is only as good as the application's word for it.
fn is_believed(token: &Token, exchange: &Exchange) -> bool {
    cause(token).is_none()
        && matches!(token.signature, Signature::Unchecked(_))
        && (exchange.is_success()
            || (token.policy.is_none() && !matches!(exchange.status(), None | Some(401))))
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

/// A hash of a token's roles and scopes, whatever their order.
#[must_use]
pub fn roles_of(token: &Token) -> u64 {
    token.roles.iter().fold(0, |sum, role| sum.wrapping_add(stable_hash(&**role)))
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
        roster.see(&stage.exchange, &uses(tokens), &Route::default(), 0, &mut who);
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
        let expired = Token { expires: Some(1).into(), ..token(1) };
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
    fn marks_are_of_one_life_and_are_saved_as_a_column_was() {
        let (mut marks, mut column) = (Marks::default(), Column::<bool>::default());
        let slots = [Slot { at: 3, life: 9 }, Slot { at: 7, life: 4 }];
        for slot in slots {
            marks.set(slot);
            *column.of(slot) = true;
        }
        let other = |slot: Slot| Slot { life: slot.life + 1, ..slot };
        assert!(slots.iter().all(|slot| marks.has(*slot) && !marks.has(other(*slot))));
        assert!(!marks.has(Slot::default()) && !marks.has(Slot { at: 99, life: 1 }));
        let saved = postcard::to_allocvec(&column).unwrap();
        assert_eq!(postcard::to_allocvec(&marks).unwrap(), saved);
        let back: Marks = postcard::from_bytes(&saved).unwrap();
        assert!(slots.iter().all(|slot| back.has(*slot) && !back.has(other(*slot))));
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
