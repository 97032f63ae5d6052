//! `foreign-object`: an object that belongs to one principal is read by another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::object::mix;
use crate::detect::roster::stable_hash;
use crate::detect::sketch::Distinct;
use crate::detect::statement::Statement;
use crate::detect::table::Table;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, Rule, Severity, Slot, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "foreign-object",
    title: "An object of somebody else was read",
    version: "1.2.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1213"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Learns to whom objects belong: an object that one verified principal got with 2xx at least three times, \
over five minutes or more, and nobody else did. A route is exclusive once 30 of its objects belong to five or more \
principals, at most 5 % of them were got by others too, and few callers did that this week: at most an eighth as many as there \
are owners, and at most 16. Fires when an object of such a route is answered 2xx to another principal (OWASP \
API1:2023). It is high from the third foreign object of the same caller within an hour.\n\n\
This is what broken object authorisation looks like from outside: the application answers, and the object is not the \
caller's.\n\nBenign sources: staff and services that look after the objects of others. Callers with a privileged role \
(`lists.privileged_roles`), and callers that got foreign objects on three earlier days, are left alone; what is shared \
by many makes its route not exclusive. Exports, crawlers and other readers of everything (on three days more than 20 \
objects of one route, and five times as many as others read there) own nothing, and what they read stays its owner's; \
one that comes when owners are known is told on its first days. Handing an object over looks the same. It needs \
verified tokens. An object costs about 60 bytes from its second use on (100,000 are kept) and 16 before, an \
actor 76 to 210, a route 72 to 340.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "owner_uses",
            default: 3.0,
            min: 2.0,
            max: 1000.0,
            doc: "Answers to one principal alone from which an object is his.",
        },
        Threshold {
            key: "exclusive_objects",
            default: 30.0,
            min: 5.0,
            max: 100_000.0,
            doc: "Owned objects from which a route can be exclusive.",
        },
        Threshold {
            key: "shared_percent",
            default: 5.0,
            min: 0.0,
            max: 50.0,
            doc: "Share of a route's owned objects that others got, up to which it is exclusive.",
        },
    ],
};

/// Objects whose owner is remembered, those in use before others.
const MAX_OBJECTS: usize = 100_000;

/// Seconds between the first and the newest use from which an object can be owned.
const OWNED_S: u32 = 300;

/// Owners of a route that make it exclusive.
const OWNERS: u32 = 5;

/// Callers with foreign objects in a week from which a route has begun to share: one that is told each week of more
/// is not believed.
const OTHERS: u32 = 16;

/// Days with foreign objects from which a caller does this for a living.
const STAFF_DAYS: u8 = 3;

/// Objects of one route within a day from which a caller reads everything, and how many times
/// what callers of the route usually do that must be.
const READER: u32 = 20;
const READER_TIMES: f32 = 5.0;

/// Others who got an owned object of an exclusive route from which it is shared. Popular victims have several thieves.
const THIEVES: u8 = 4;

/// Days of that from which it is its work.
const READER_DAYS: u8 = 3;

/// Seconds for which it stays a reader of everything: a monthly job is one the next time as well.
const READER_S: u32 = 40 * DAY_S;
const DAY_S: u32 = 86_400;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(ForeignObject {
        owner_uses: u8::try_from(settings.count(&ABOUT, "owner_uses")).unwrap_or(u8::MAX),
        exclusive: settings.count(&ABOUT, "exclusive_objects"),
        shared_percent: settings.threshold(&ABOUT, "shared_percent"),
        memory: State {
            nursery: Nursery::default(),
            objects: Table::new(MAX_OBJECTS),
            routes: Column::default(),
            actors: Column::default(),
        },
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Object {
    owner: Slot,
    first_s: u32,
    /// The newest other who got it, and how many others there were.
    other: u32,
    others: u8,
    uses: u8,
    shared: bool,
    owned: bool,
}

/// Objects that were asked for once. Most never are again, so the first sight of one takes a place in a field of fixed
/// size, 1 MiB, from another first sight; the second one takes it to the table.
#[derive(Default)]
struct Nursery(Vec<First>);

#[derive(Clone, Copy, Default)]
struct First {
    name: u32,
    owner: Slot,
    at_s: u32,
}

/// Places of the nursery: a power of two.
const FIRSTS: usize = 1 << 16;

impl Nursery {
    /// Notes a sight of an object; who asked for it first, and when, if this is the second.
    fn note(&mut self, key: u64, owner: Slot, at_s: u32) -> Option<(Slot, u32)> {
        if self.0.is_empty() {
            self.0.resize(FIRSTS, First::default());
        }
        let name = u32::try_from(key >> 32).unwrap_or_default() | 1;
        let place = usize::try_from(key % FIRSTS as u64).unwrap_or_default();
        let first = self.0.get_mut(place)?;
        let known = (first.name == name).then_some((first.owner, first.at_s));
        *first = if known.is_some() { First::default() } else { First { name, owner, at_s } };
        known
    }
}

#[derive(Default, Serialize, Deserialize)]
struct OfRoute {
    owned: u32,
    shared: u32,
    owners: Distinct,
    /// Who got what others own, in this week.
    others: Distinct,
    week: u32,
    /// Objects that half of the callers' days exceed.
    usual: f32,
}

impl OfRoute {
    /// Learns how much a caller read within a day. The median climbs and falls by a tenth: an export that comes each
    /// day must not become the measure.
    fn learn(&mut self, read: u32) {
        let step = (self.usual / 10.0).max(0.1);
        self.usual += if approximate(read) > self.usual { step } else { -step };
        self.usual = self.usual.max(0.0);
    }

    fn note_other(&mut self, other: Slot, second: u32) {
        let week = second / (7 * DAY_S);
        if week != self.week {
            (self.week, self.others) = (week, Distinct::default());
        }
        self.others.add(stable_hash(&other));
    }

    /// Objects within a day beyond which a caller reads everything.
    fn most(&self) -> f32 {
        (self.usual * READER_TIMES).max(approximate(READER))
    }

    /// Whether each of its objects has one reader.
    fn is_exclusive(&self, least: u32, shared_percent: f64) -> bool {
        self.owned >= least
            && self.owners.count() >= OWNERS
            && self.others.count() <= (self.owners.count() / 8).clamp(2, OTHERS)
            && f64::from(self.shared) * 100.0 <= f64::from(self.owned) * shared_percent
    }
}

#[derive(Default, Serialize, Deserialize)]
struct OfActor {
    hour: u32,
    in_hour: u16,
    day: u32,
    days: u8,
    /// Objects on one route on the day of `read_day`.
    read_day: u32,
    read_route: Slot,
    read: Distinct,
    /// Where it read everything, the newest day of that, how many there were, and until when that counts.
    reader_route: Slot,
    reader_day: u32,
    reader_days: u8,
    reader_until_s: u32,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// Lost at a restart: what was asked for once says nothing yet.
    #[serde(skip)]
    nursery: Nursery,
    objects: Table<u64, Object>,
    routes: Column<OfRoute>,
    actors: Column<OfActor>,
}

struct ForeignObject {
    owner_uses: u8,
    exclusive: u32,
    shared_percent: f64,
    memory: State,
}

impl Rule for ForeignObject {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::OBJECT.and(When::PRINCIPAL).and(When::SUCCESS)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn glance(&self, _token: u32, actor: u32) -> bool {
        if let Some(of) = self.memory.actors.glance(actor) {
            std::hint::black_box(of.read_day);
        }
        true
    }

    fn glance_beyond(&self, actor: u32) -> bool {
        if let Some(of) = self.memory.actors.glance(actor) {
            of.read.glance();
        }
        true
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let (Some(named), Some(principal)) = (case.object, case.who.principal()) else { return };
        if !case.exchange.is_success() {
            return;
        }
        let second = case.second();
        let owner = principal.slot;
        let State { nursery, objects, routes, actors } = &mut self.memory;
        objects.keep_to(MAX_OBJECTS);
        let key = mix(stable_hash(&case.route.slot), named.id);
        let is_reader = actors.of(owner).reads_everything(second, key, case.route.slot, routes);
        let fresh = || Object { owner, first_s: second, ..Object::default() };
        if objects.get(&key).is_none() {
            // What a reader of everything came by first is nobody's.
            let first = if is_reader { None } else { nursery.note(key, owner, second) };
            let Some((owner, first_s)) = first else { return };
            objects.get_or(key, || Object { owner, first_s, uses: 1, ..Object::default() });
        }
        let Some(object) = objects.get(&key) else { return };
        let route = routes.of(case.route.slot);
        if object.owner != owner && object.is_nobodys(actors.peek(object.owner), second, case.route.slot) {
            let shared = object.shared && (object.others > 1 || object.other != short(owner));
            *object = Object { shared, ..fresh() };
        }
        if object.owner == owner {
            object.used(self.owner_uses, is_reader, second, route);
            return;
        }
        let exclusive = route.is_exclusive(self.exclusive, self.shared_percent);
        let was_owned = object.owned && !object.shared;
        let is_new = object.other != short(owner);
        if !is_reader && is_new && !object.shared {
            if object.owned {
                route.note_other(owner, second);
            }
            (object.other, object.others) = (short(owner), object.others.saturating_add(1));
            object.shared = !exclusive || object.others >= THIEVES;
            route.shared = route.shared.saturating_add(u32::from(object.owned && object.shared));
        }
        if !was_owned || !is_new {
            return;
        }
        let actor = actors.of(owner);
        let in_hour = actor.note(second);
        if !exclusive
            || actor.days > STAFF_DAYS
            || actor.is_known_reader(second, case.route.slot)
            || is_privileged(case)
        {
            return;
        }
        report.push(statement(case, in_hour, route).into_actor_finding(&ABOUT, case));
    }
}

#[allow(clippy::cast_precision_loss, reason = "a sketch says at most 7098")]
const fn approximate(count: u32) -> f32 {
    count as f32
}

/// A caller as objects remember it.
fn short(caller: Slot) -> u32 {
    u32::try_from(stable_hash(&caller) >> 32).unwrap_or_default()
}

impl Object {
    /// What a reader of everything came by first is nobody's yet, nor is what somebody had who is forgotten.
    fn is_nobodys(&self, owner: Option<&OfActor>, second: u32, route: Slot) -> bool {
        self.uses == 0 || owner.is_none_or(|owner| owner.is_known_reader(second, route))
    }

    /// Notes a use by the one whose it is, or may be.
    fn used(&mut self, owner_uses: u8, is_reader: bool, second: u32, route: &mut OfRoute) {
        if is_reader {
            self.uses = 0;
            return;
        }
        self.uses = self.uses.saturating_add(1);
        let lasting = second.saturating_sub(self.first_s) >= OWNED_S;
        if !self.owned && !self.shared && lasting && self.uses >= owner_uses {
            self.owned = true;
            route.owned = route.owned.saturating_add(1);
            route.owners.add(stable_hash(&self.owner));
        }
    }
}

fn statement(case: &Case<'_>, in_hour: u16, route: &OfRoute) -> Statement {
    let many = in_hour >= 3;
    Statement {
        severity: if many { Severity::High } else { ABOUT.severity },
        confidence: if many { 85 } else { 65 },
        message: format!(
            "An object that only another principal had used was answered {} on {}; objects of this route have \
             one reader each.",
            case.exchange.status().unwrap_or_default(),
            case.route.name
        ),
        brief: if many {
            format!("{in_hour} foreign objects in 1 h")
        } else {
            "foreign object read".to_owned()
        },
        facts: vec![
            ("foreign_objects", in_hour.into()),
            ("owned_objects", route.owned.into()),
            ("shared_objects", route.shared.into()),
        ],
    }
}

impl OfActor {
    /// Whether it reads everything of a route day after day. One day of it may be a thief's.
    fn is_known_reader(&self, second: u32, route: Slot) -> bool {
        self.reader_route == route && self.reader_days >= READER_DAYS && second < self.reader_until_s
    }

    /// Whether the caller reads everything, today or for a living. Follows one route a day, on which it reads most.
    fn reads_everything(
        &mut self,
        second: u32,
        object: u64,
        slot: Slot,
        routes: &mut Column<OfRoute>,
    ) -> bool {
        let day = second / DAY_S;
        if day != self.read_day || (slot != self.read_route && self.read.count() <= 2) {
            if day != self.read_day
                && self.reader_day != self.read_day
                && routes.peek(self.read_route).is_some()
            {
                routes.of(self.read_route).learn(self.read.count());
            }
            (self.read_day, self.read_route, self.read) = (day, slot, Distinct::default());
        }
        let is_new = slot == self.read_route && self.read.add(object);
        if is_new && approximate(self.read.count()) > routes.of(slot).most() && self.reader_day != day {
            self.read_much(second, slot);
        }
        (self.reader_day == day && self.reader_route == slot) || self.is_known_reader(second, slot)
    }

    /// Notes a day of reading everything. Another route takes the place of one that is not known yet, or was left.
    fn read_much(&mut self, second: u32, route: Slot) {
        let lapsed = second >= self.reader_until_s;
        if route != self.reader_route {
            if !lapsed && self.reader_days >= READER_DAYS {
                return;
            }
            (self.reader_route, self.reader_days) = (route, 0);
        }
        self.reader_days = if lapsed { 1 } else { self.reader_days.saturating_add(1) };
        self.reader_day = second / DAY_S;
        self.reader_until_s = second.saturating_add(READER_S);
    }

    /// Notes a foreign object; how many there were within the hour.
    fn note(&mut self, second: u32) -> u16 {
        let (hour, day) = (second / 3600, second / DAY_S);
        if hour != self.hour {
            (self.hour, self.in_hour) = (hour, 0);
        }
        if day != self.day {
            (self.day, self.days) = (day, self.days.saturating_add(1));
        }
        self.in_hour = self.in_hour.saturating_add(1);
        self.in_hour
    }
}

fn is_privileged(case: &Case<'_>) -> bool {
    let roles = case.acting().map(|held| &held.token.roles);
    roles.is_some_and(|roles| {
        roles.iter().any(|role| case.knowledge.privileged_roles.contains(role.to_ascii_uppercase().as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, held_by};
    use crate::token::{Signature, Token, Unchecked};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn held(user: u64) -> Token {
        held_by(&format!("user-{user}"))
    }

    fn ask_as(play: &mut Play, held: Token, order: u64, second: u64, status: u16) -> Vec<Severity> {
        let stage = Stage::to("GET", &format!("/orders/{order}")).route("GET /orders/{id}").status(status);
        play.ask(&stage.after_ms(second * 1000), [held]).iter().map(|f| f.severity).collect()
    }

    fn ask(play: &mut Play, user: u64, order: u64, second: u64, status: u16) -> Vec<Severity> {
        ask_as(play, held(user), order, second, status)
    }

    /// Ten users with four orders each, which they look at four times an hour apart.
    fn learned() -> Play {
        let mut play = play();
        for hour in 0..4 {
            for user in 0..10 {
                for i in 0..4 {
                    assert_eq!(ask(&mut play, user, user * 10 + i, hour * 3600 + user, 200), []);
                }
            }
        }
        play
    }

    #[test]
    fn the_first_foreign_object_fires_and_the_third_is_high() {
        let mut play = learned();
        let ask = |i: u64| ask(&mut play, 3, 70 + i, 20_000 + i, 200);
        assert_eq!(
            (0..3).flat_map(ask).collect::<Vec<_>>(),
            [Severity::Medium, Severity::Medium, Severity::High]
        );
    }

    #[test]
    fn one_thief_does_not_make_the_route_look_shared() {
        let mut play = learned();
        let ask = |i: u64| ask(&mut play, 3, (i % 10) * 10 + i / 10, 20_000 + i, 200).len();
        assert_eq!((0..40).map(ask).sum::<usize>(), 36);
    }

    #[test]
    fn refused_own_and_new_objects_are_nothing() {
        let mut play = learned();
        assert_eq!(ask(&mut play, 3, 70, 20_000, 403), []);
        assert_eq!(ask(&mut play, 3, 30, 20_000, 200), []);
        assert_eq!(ask(&mut play, 3, 999, 20_000, 200), []);
    }

    #[test]
    fn routes_of_shared_objects_are_left_alone() {
        let mut play = play();
        for hour in 0..4 {
            for user in 0..20 {
                for order in 0..40 {
                    assert_eq!(ask(&mut play, user, (order + user) % 60, hour * 3600 + user, 200), []);
                }
            }
        }
    }

    #[test]
    fn staff_is_left_alone_once_it_is_known() {
        let mut play = learned();
        let mut found = Vec::new();
        for day in 1..8 {
            for user in 0..4 {
                found.push(ask(&mut play, 50, user * 10 + day % 4, day * 86_400 + user, 200).len());
            }
        }
        assert!(found[16..].iter().all(|n| *n == 0), "{found:?}");
    }

    #[test]
    fn privileged_roles_are_left_alone() {
        let mut play = learned();
        play.knowledge.privileged_roles.insert("ADMIN".into());
        let admin = held(50).of_profile(|p| p.roles = Arc::new(["Admin".into()]));
        assert_eq!(ask_as(&mut play, admin, 70, 20_000, 200), []);
    }

    #[test]
    fn a_nightly_export_neither_owns_nor_shares_and_is_left_alone() {
        let mut play = play();
        for day in 0..10_u64 {
            let now = day * 86_400;
            let night: usize = (0..100).map(|order| ask(&mut play, 99, order, now + order, 200).len()).sum();
            assert!(night == 0 || (1..3).contains(&day), "{night} on {day}");
            for visit in 0..4 {
                for order in 0..100 {
                    let second = now + 20_000 + visit * 3600 + order;
                    assert_eq!(ask(&mut play, order / 10, order, second, 200), [], "{day}");
                }
            }
        }
        assert_eq!(ask(&mut play, 3, 70, 10 * 86_400, 200), [Severity::Medium]);
    }

    #[test]
    fn tokens_that_nobody_can_check_neither_teach_nor_fire() {
        let mut play = learned();
        let opaque = Token { signature: Signature::Unchecked(Unchecked::NoIssuer), policy: None, ..held(3) };
        assert_eq!(ask_as(&mut play, opaque, 70, 20_000, 200), []);
    }

    #[test]
    fn a_restart_keeps_owners() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        assert_eq!(ask(&mut play, 3, 70, 20_000, 200), [Severity::Medium]);
    }
}
