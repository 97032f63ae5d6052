//! `token-many-sources`: one token that several clients use at the same time.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::detect::cause::cause;
use crate::detect::crowd::FadingCrowd;
use crate::detect::family::Family;
use crate::detect::holder::egress;
use crate::detect::learning::day;
use crate::detect::mostly::{Mostly, Small};
use crate::detect::pairs::Pairs;
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Slot, Threshold,
    When,
};
use crate::token::{Form, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "token-many-sources",
    title: "One token from several places",
    version: "3.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1550.001", "T1528"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when one token is used at one service by two or more clients within five minutes: by two client \
families (Firefox, curl, okhttp, ...; versions do not count), or from different networks (autonomous systems with \
`geo.asn`, else /16 of IPv4 and /32 of IPv6).\n\nA stolen token is used beside its owner. Two families are medium, \
and high from two networks. One family from two countries, or from three networks, is medium. One family from two \
networks of a country is told, high, when they take turns: the token has come back to a network within a minute for \
the third time. A telephone that leaves the house changes its network once, and comes home later.\n\nSilent for \
`lists.trusted_addresses`, for addresses at which eight or more tokens have been seen (NAT, gateways: they are \
learned), for networks that the same principal or key used on two earlier days, for an IPv4 and an IPv6 network \
(browsers use both at once) unless both systems are known and differ, for two families that are one application (a \
native client and its web view: learned at a service when five callers at three addresses have used both, each from \
one address; their networks still count), and for requests that were refused or carry a token that is wrong in \
itself. A gateway that passes tokens on to other services is no second place: only uses at one server address are \
compared.\n\nIt does not see a thief with the owner's kind of client in the owner's country who does not use the \
token while the owner does. It compares the newest four places of a token. 32 bytes a token, 28 an address, 40 a \
principal, 120 a service.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "window_s",
            default: 300.0,
            min: 1.0,
            max: 86_400.0,
            doc: "Seconds within which the uses of a token are compared.",
        },
        Threshold {
            key: "return_s",
            default: 60.0,
            min: 1.0,
            max: 86_400.0,
            doc: "Seconds within which a token comes back to a network it has left, if two clients take turns.",
        },
        Threshold {
            key: "returns",
            default: 3.0,
            min: 1.0,
            max: 200.0,
            doc: "Such returns of one token that are no coincidence.",
        },
        Threshold {
            key: "shared_after",
            default: 8.0,
            min: 2.0,
            max: 64.0,
            doc: "Tokens seen at one address after which it counts as shared by many callers.",
        },
        Threshold {
            key: "app_after",
            default: 5.0,
            min: 2.0,
            max: 48.0,
            doc: "Callers that used the same two families from one address, after which these are one application.",
        },
    ],
};

/// Places remembered of one token. The owner and a thief need two; two more are for a little roaming.
const MAX_PLACES: usize = 4;
/// Networks remembered of one actor: home, work, telephone, and one more.
const MAX_NETWORKS: usize = 4;
/// Earlier days of use after which a network is an actor's own.
const OWN_DAYS: u8 = 2;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(TokenManySources {
        window_s: settings.count(&ABOUT, "window_s"),
        return_s: settings.count(&ABOUT, "return_s"),
        returns: settings.count(&ABOUT, "returns"),
        shared_after: settings.count(&ABOUT, "shared_after"),
        app_after: settings.count(&ABOUT, "app_after"),
        memory: Memories::default(),
    })
}

/// A way into the internet.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Network {
    egress: u32,
    country: [u8; 2],
    v4: bool,
    /// Whether the autonomous system is known.
    system: bool,
}

impl Network {
    /// Whether one client with two stacks may be in both at once.
    const fn is_twin(self, other: Self) -> bool {
        self.v4 != other.v4 && !(self.system && other.system)
    }

    fn differs(self, other: Self) -> bool {
        self.egress != other.egress && !self.is_twin(other)
    }

    fn is_abroad(self, other: Self) -> bool {
        self.country != other.country && self.country != [0; 2] && other.country != [0; 2]
    }
}

/// Where and by what a token was used.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    address: Slot,
    service: Slot,
    network: Network,
    family: Family,
    /// Known to be shared by many callers.
    trusted: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Visit {
    place: Place,
    /// Newest use, in seconds since the epoch.
    at_s: u32,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Trail {
    /// At most [`MAX_PLACES`]; most tokens are used in one.
    visits: SmallVec<[Visit; 1]>,
    newest: u8,
    /// Quick returns to a network; saturates.
    returns: u8,
}

/// The trail of a token that was in one place or none, as most are, in half of the room.
#[derive(Clone, Copy, Default)]
struct Sole {
    address: Slot,
    /// Of the service.
    life: u32,
    egress: u32,
    at_s: u32,
    family: Family,
    country: [u8; 2],
    /// The service's place, which is below 4,096, and three answers above it.
    service: u16,
    returns: u8,
    visits: u8,
}

const _: () = assert!(size_of::<(u32, Sole)>() == 32, "one for each live token");

const V4: u16 = 1 << 15;
const SYSTEM: u16 = 1 << 14;
const TRUSTED: u16 = 1 << 13;

impl Sole {
    fn place(&self) -> Place {
        let has = |answer: u16| self.service & answer != 0;
        let Self { address, life, egress, family, country, .. } = *self;
        Place {
            address,
            service: Slot { at: u32::from(self.service & (TRUSTED - 1)), life },
            network: Network { egress, country, v4: has(V4), system: has(SYSTEM) },
            family,
            trusted: has(TRUSTED),
        }
    }
}

impl Small<Trail> for Sole {
    const ELSEWHERE: Self = Self {
        address: Slot { at: 0, life: 0 },
        life: 0,
        egress: 0,
        at_s: 0,
        family: Family(0),
        country: [0; 2],
        service: 0,
        returns: 0,
        visits: u8::MAX,
    };

    fn is_elsewhere(&self) -> bool {
        self.visits == u8::MAX
    }

    fn of(trail: &Trail) -> Option<Self> {
        let Trail { visits, newest: 0, returns } = trail else { return None };
        let returns = *returns;
        match visits.as_slice() {
            [] => Some(Self { returns, ..Self::default() }),
            [Visit { place: Place { address, service, network, family, trusted }, at_s }] => {
                let at = u16::try_from(service.at).ok().filter(|at| *at < TRUSTED)?;
                let Network { egress, country, v4, system } = *network;
                let answer = |is: bool, answer: u16| if is { answer } else { 0 };
                Some(Self {
                    address: *address,
                    life: service.life,
                    egress,
                    at_s: *at_s,
                    family: *family,
                    country,
                    service: at | answer(v4, V4) | answer(system, SYSTEM) | answer(*trusted, TRUSTED),
                    returns,
                    visits: 1,
                })
            }
            _ => None,
        }
    }

    fn whole(&self) -> Trail {
        let visit = (self.visits == 1).then(|| Visit { place: self.place(), at_s: self.at_s });
        Trail { visits: visit.into_iter().collect(), newest: 0, returns: self.returns }
    }
}

/// A network of an actor.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Known {
    egress: u32,
    /// Newest day of use.
    day: u16,
    /// Days of use; saturates.
    days: u8,
}

#[derive(Default, Serialize, Deserialize)]
struct Memories {
    /// Where each token was.
    tokens: Mostly<Sole, Trail>,
    /// What used each address.
    addresses: Column<FadingCrowd>,
    /// From where each actor comes.
    /// At most [`MAX_NETWORKS`] of each.
    actors: Column<SmallVec<[Known; 1]>>,
    /// Which families are one application at each service.
    services: Column<Pairs>,
}

struct TokenManySources {
    window_s: u32,
    return_s: u32,
    returns: u32,
    shared_after: u32,
    app_after: u32,
    memory: Memories,
}

/// How a use differs from those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Differs {
    networks: u32,
    families: u32,
    abroad: bool,
    /// The networks take turns.
    turns: bool,
}

impl Differs {
    /// Whether it is more than a telephone that changes its network.
    const fn is_telling(self) -> bool {
        self.families > 0 || self.networks > 1 || self.abroad || self.turns
    }
}

impl TokenManySources {
    /// Notes a use; how it differs if it is not where the newest use was.
    fn visit(&mut self, token: Slot, actor: Option<Slot>, place: Place, at_s: u32) -> Option<Differs> {
        let sole = self.memory.tokens.small(token);
        if sole.visits == 1 && sole.place() == place {
            sole.at_s = at_s;
            return None;
        }
        let mut trail = self.memory.tokens.take(token);
        let differs = self.go(&mut trail, token, actor, place, at_s);
        self.memory.tokens.put(token, trail);
        differs
    }

    /// The same, with the token's trail at hand.
    fn go(
        &mut self,
        visits: &mut Trail,
        token: Slot,
        actor: Option<Slot>,
        place: Place,
        at_s: u32,
    ) -> Option<Differs> {
        let Memories { addresses, actors, services, .. } = &mut self.memory;
        let newest = visits.visits.get_mut(usize::from(visits.newest));
        if let Some(same) = newest.filter(|v| v.place == place) {
            same.at_s = at_s;
            return None;
        }
        let is_first = visits.visits.is_empty();
        let others: ArrayVec<Place, MAX_PLACES> = visits.others(place, at_s, self.window_s);
        if visits.go_to(place, at_s, self.return_s) {
            addresses.of(place.address).note(token, at_s);
        }
        let own = actor.map(|actor| actors.of(actor));
        let own: &[Known] = own.map_or(&[], |own| {
            come_by(own, place.network.egress, day(at_s));
            own.as_slice()
        });
        let shared = |place: &Place| {
            let crowd = addresses.peek(place.address);
            place.trusted || crowd.is_some_and(|crowd| crowd.size() >= self.shared_after)
        };
        if is_first || others.is_empty() || shared(&place) {
            return None;
        }
        let mut differs = Differs::default();
        let pairs = services.of(place.service);
        let mut seen = ArrayVec::<u32, MAX_PLACES>::new();
        for other in others.iter().filter(|other| !shared(other)) {
            if other.family.differs(place.family) {
                let known = pairs.are_one(other.family, place.family, self.app_after);
                differs.families += u32::from(!known);
                if !known && other.address == place.address {
                    pairs.note(other.family, place.family, actor.unwrap_or(token), place.address);
                }
            }
            let (here, there) = (place.network, other.network);
            let is_usual = is_own(own, here.egress, day(at_s)) && is_own(own, there.egress, day(at_s));
            if here.differs(there) && !is_usual && !seen.contains(&there.egress) {
                seen.push(there.egress);
                differs.networks += 1;
                differs.abroad |= here.is_abroad(there);
            }
        }
        differs.turns = differs.networks > 0 && u32::from(visits.returns) >= self.returns;
        differs.is_telling().then_some(differs)
    }
}

/// Notes that an actor came by a network.
fn come_by(own: &mut SmallVec<[Known; 1]>, egress: u32, day: u16) {
    if let Some(known) = own.iter_mut().find(|known| known.egress == egress) {
        if known.day != day {
            (known.day, known.days) = (day, known.days.saturating_add(1));
        }
        return;
    }
    let new = Known { egress, day, days: 1 };
    if own.len() < MAX_NETWORKS {
        own.push(new);
    } else if let Some(oldest) = own.iter_mut().min_by_key(|known| (known.days > OWN_DAYS, known.day)) {
        *oldest = new;
    }
}

/// Whether an actor used a network on enough days before this one.
fn is_own(own: &[Known], egress: u32, day: u16) -> bool {
    own.iter().any(|known| {
        known.egress == egress && known.days.saturating_sub(u8::from(known.day == day)) >= OWN_DAYS
    })
}

impl Trail {
    /// Makes `place` the newest. Whether the address is new to the token.
    fn go_to(&mut self, place: Place, at_s: u32, return_s: u32) -> bool {
        let is_new = !self.visits.iter().any(|v| v.place.address == place.address);
        let left = self.visits.get(usize::from(self.newest)).map(|v| v.place.network);
        if left.is_some_and(|left| left.differs(place.network)) {
            let there = self.visits.iter().filter(|v| v.place.network.egress == place.network.egress);
            let since_s = there.map(|v| at_s.saturating_sub(v.at_s)).min();
            if since_s.is_some_and(|s| s <= return_s) {
                self.returns = self.returns.saturating_add(1);
            } else if since_s.is_some() {
                self.returns = 0;
            }
        }
        let at = self.visits.iter().position(|v| v.place == place).unwrap_or_else(|| {
            let new = Visit { place, at_s };
            if self.visits.len() >= MAX_PLACES {
                let oldest = (0..).zip(&self.visits).min_by_key(|(_, v)| v.at_s).map_or(0, |(i, _)| i);
                if let Some(visit) = self.visits.get_mut(oldest) {
                    *visit = new;
                }
                return oldest;
            }
            self.visits.push(new);
            self.visits.len() - 1
        });
        if let Some(visit) = self.visits.get_mut(at) {
            visit.at_s = at_s;
        }
        self.newest = u8::try_from(at).unwrap_or(0);
        is_new
    }

    /// The other places at the same service within the window.
    fn others(&self, place: Place, at_s: u32, window_s: u32) -> ArrayVec<Place, MAX_PLACES> {
        let comparable = |v: &&Visit| {
            v.place != place && v.place.service == place.service && at_s.saturating_sub(v.at_s) <= window_s
        };
        self.visits.iter().filter(comparable).map(|v| v.place).collect()
    }
}

impl Rule for TokenManySources {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if case.tokens.is_empty() || case.exchange.is_refused() {
            return;
        }
        let where_from = case.place();
        let place = Place {
            address: case.who.address.slot,
            service: case.who.service.slot,
            network: Network {
                egress: egress(where_from, case.exchange.client),
                country: where_from.and_then(|place| place.country).unwrap_or_default(),
                v4: case.exchange.client.to_canonical().is_ipv4(),
                system: where_from.is_some_and(|place| place.asn.is_some()),
            },
            family: case.who.family,
            trusted: case.who.trusted_address,
        };
        // Of one credential it is known whose it is.
        let actor = case.who.actor.filter(|_| case.all.len() == 1).map(|actor| actor.known.slot);
        for held in case.tokens {
            if held.token.form == Form::Malformed || cause(&held.token).is_some() {
                continue;
            }
            let Some(token) = case.who.token(held.token.fingerprint) else { continue };
            if let Some(differs) = self.visit(token.slot, actor, place, case.second()) {
                report.push(finding(case, held, differs, self.window_s));
            }
        }
    }
}

fn finding(case: &Case<'_>, held: &TokenUse, differs: Differs, window_s: u32) -> Finding {
    let Differs { networks, families, abroad, turns } = differs;
    let grave = networks > 0 && families > 0 || turns;
    let how = match (networks > 0, families > 0) {
        (true, true) => "several networks and client families",
        (true, false) if abroad => "several countries",
        (true, false) => "several networks",
        _ => "several client families",
    };
    let taking = if turns { ", which take turns" } else { "" };
    let statement = Statement {
        severity: if grave { Severity::High } else { ABOUT.severity },
        confidence: if grave { 85 } else { 60 },
        message: format!(
            "One token was used from {how} within {window_s} s{taking}, the newest on {}.",
            case.route.name
        ),
        brief: format!("token in {how}"),
        facts: vec![
            ("other_networks", networks.into()),
            ("other_families", families.into()),
            ("other_country", abroad.into()),
            ("take_turns", turns.into()),
        ],
    };
    statement.into_finding(&ABOUT, &Subject::new(case, held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::knowledge::Geo;
    use crate::detect::staging::{Play, Stage, held_by, token};

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
    const FIREFOX_OLD: &str = "Mozilla/5.0 (Windows NT 10.0; rv:128.0) Gecko/20100101 Firefox/128.0";

    fn used(ms: u64, address: &str, agent: &str) -> Stage {
        Stage::new().status(200).client(address).header("User-Agent", agent).after_ms(ms)
    }

    fn severities(uses: &[(u64, &str, &str)]) -> Vec<Option<Severity>> {
        let mut rule = rule(&Arc::default());
        let ask = |(ms, address, agent): &(u64, &str, &str)| {
            used(*ms, address, agent).ask(&mut *rule, [token(1)]).first().map(|f| f.severity)
        };
        uses.iter().map(ask).collect()
    }

    #[test]
    fn a_telephone_that_leaves_the_house_and_comes_home_is_benign() {
        let (home, cell) = ("192.0.2.1", "203.0.113.5");
        assert_eq!(severities(&[(0, home, FIREFOX), (1000, cell, FIREFOX)]), [None; 2]);
        assert_eq!(
            severities(&[(0, home, FIREFOX), (9000, cell, FIREFOX), (20_000, home, FIREFOX)]),
            [None; 3]
        );
        let slow: Vec<_> =
            (0..40).map(|n| (n * 61_000, if n % 2 == 0 { home } else { cell }, FIREFOX)).collect();
        assert!(severities(&slow).iter().all(Option::is_none), "there for a minute each time");
    }

    #[test]
    fn taking_turns_is_high() {
        let uses: Vec<_> = (0..6)
            .map(|n| (n * 20_000, if n % 2 == 0 { "192.0.2.1" } else { "203.0.113.5" }, FIREFOX))
            .collect();
        let told = [None, None, None, None, Some(Severity::High), Some(Severity::High)];
        assert_eq!(severities(&uses), told);
    }

    #[test]
    fn three_networks_are_medium() {
        let uses = [(0, "10.0.0.1", FIREFOX), (1, "203.0.113.5", FIREFOX), (2, "198.51.100.5", FIREFOX)];
        assert_eq!(severities(&uses), [None, None, Some(Severity::Medium)]);
    }

    #[test]
    fn both_stacks_of_one_client_are_benign() {
        let uses: Vec<_> = (0..20)
            .map(|n| (n * 1000, if n % 2 == 0 { "192.0.2.1" } else { "2001:db8::1" }, FIREFOX))
            .collect();
        assert!(severities(&uses).iter().all(Option::is_none));
    }

    /// A system for each first octet; a country for each fifty of them.
    struct World;

    impl Geo for World {
        fn place(&self, address: std::net::IpAddr) -> crate::detect::Place {
            let std::net::IpAddr::V4(v4) = address else { return crate::detect::Place::default() };
            let first = v4.octets()[0];
            crate::detect::Place {
                country: Some([b'A', b'A' + first / 50]),
                asn: Some(u32::from(first)),
                ..crate::detect::Place::default()
            }
        }
    }

    #[test]
    fn another_country_is_medium_and_another_city_of_one_system_nothing() {
        let told = |other: &str| {
            let mut play = Play::new(rule(&Arc::default()));
            play.knowledge.geo = Some(Arc::new(World));
            play.ask(&used(0, "10.0.0.1", FIREFOX), [token(1)]);
            let found = play.ask(&used(1000, other, FIREFOX), [token(1)]);
            (found.first().map(|f| f.severity), play.ask(&used(2000, "10.0.0.1", "curl/8"), [token(1)]).len())
        };
        assert_eq!(told("203.0.113.5"), (Some(Severity::Medium), 1));
        assert_eq!(told("20.0.113.5"), (None, 1));
        assert_eq!(told("10.77.0.5"), (None, 1));
    }

    #[test]
    fn networks_of_two_earlier_days_are_the_owners() {
        let mut play = Play::new(rule(&Arc::default()));
        play.knowledge.geo = Some(Arc::new(World));
        let mut told =
            |ms: u64, address: &str| play.ask(&used(ms, address, FIREFOX), [held_by("anna")]).len();
        for (day, found) in [(0, 1), (1, 1), (2, 0), (3, 0)] {
            told(day * 86_400_000, "10.0.0.1");
            assert_eq!(told(day * 86_400_000 + 5000, "203.0.113.5"), found, "{day}");
        }
    }

    const OKHTTP: &str = "okhttp/4.12.0";

    /// What is told of a client at an address that uses one token with both families.
    fn mixed(play: &mut Play, number: u64, addresses: [&str; 2], agents: [&str; 2]) -> Vec<Severity> {
        let mut found = Vec::new();
        for (ms, address, agent) in [(0, addresses[0], agents[0]), (1000, addresses[1], agents[1])] {
            let stage = used(number * 10_000 + ms, address, agent);
            found.extend(play.ask(&stage, [held_by(&format!("user-{number}"))]));
        }
        found.iter().map(|f| f.severity).collect()
    }

    #[test]
    fn a_native_client_and_its_web_view_are_learned() {
        let mut play = Play::new(rule(&Arc::default()));
        let mut told = Vec::new();
        for n in 0..200 {
            let address = format!("198.51.{n}.7");
            told.push(mixed(&mut play, n, [&address, &address], [OKHTTP, FIREFOX]).len());
            if n == 100 {
                play.restart(rule(&Arc::default()));
            }
        }
        let last = told.iter().rposition(|n| *n > 0).unwrap();
        assert!(last < 8 && told.iter().sum::<usize>() <= 8, "{told:?}");
        assert_eq!(mixed(&mut play, 300, ["10.0.0.1", "203.0.113.5"], [OKHTTP, FIREFOX]), [], "roaming");
        let other = mixed(&mut play, 301, ["10.0.0.1", "10.0.0.1"], ["curl/8", FIREFOX]);
        assert_eq!(other, [Severity::Medium]);
    }

    #[test]
    fn many_thefts_are_no_application() {
        let mut play = Play::new(rule(&Arc::default()));
        for n in 0..100 {
            let (owner, thief) = (format!("198.51.{n}.7"), format!("203.0.113.{n}"));
            assert_eq!(mixed(&mut play, n, [&owner, &thief], [FIREFOX, "curl/8"]), [Severity::High], "{n}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut play = Play::new(rule(&Arc::default()));
        for n in 0..2000_u64 {
            let address = format!("{}.{}.0.1", n % 200 + 1, n % 7);
            play.ask(&used(n * 1000, &address, FIREFOX), [held_by("anna")]);
        }
        assert!(play.rule.memory().unwrap().save().unwrap().len() < 60_000);
    }

    #[test]
    fn a_second_client_family_is_medium_and_from_elsewhere_high() {
        assert_eq!(
            severities(&[(0, "10.0.0.1", FIREFOX), (1, "10.0.0.1", "curl/8.5")])[1],
            Some(Severity::Medium)
        );
        assert_eq!(
            severities(&[(0, "10.0.0.1", FIREFOX), (1, "203.0.113.5", "curl/8.5")])[1],
            Some(Severity::High)
        );
    }

    #[test]
    fn neighbours_versions_and_later_moves_are_benign() {
        assert_eq!(severities(&[(0, "10.0.0.1", FIREFOX), (1, "10.0.9.9", FIREFOX)]), [None, None]);
        assert_eq!(severities(&[(0, "10.0.0.1", FIREFOX), (1, "10.0.0.1", FIREFOX_OLD)]), [None, None]);
        assert_eq!(severities(&[(0, "10.0.0.1", FIREFOX), (301_000, "203.0.113.5", FIREFOX)]), [None, None]);
        assert_eq!(
            severities(&[(0, "2001:db8::1", FIREFOX), (1, "2001:db8:ffff::1", FIREFOX)]),
            [None, None]
        );
    }

    #[test]
    fn addresses_with_many_tokens_are_shared() {
        let mut rule = rule(&Arc::default());
        for number in 0..40 {
            assert!(used(0, "192.0.2.1", "").ask(&mut *rule, [token(number)]).is_empty());
        }
        for number in 0..40 {
            assert!(used(10, "10.0.0.1", "").ask(&mut *rule, [token(number)]).is_empty());
        }
    }

    #[test]
    fn trusted_addresses_are_shared() {
        let settings = DetectSettings {
            trusted_addresses: vec!["192.0.2.0/24".parse().unwrap()],
            ..DetectSettings::default()
        };
        let mut play = Play::with(rule(&Arc::default()), &settings);
        for (ms, address) in [(0, "10.0.0.1"), (1, "192.0.2.7"), (2, "10.0.0.1")] {
            assert!(play.ask(&used(ms, address, ""), [token(1)]).is_empty());
        }
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(rule(&Arc::default()));
        assert!(play.ask(&used(0, "10.0.0.1", FIREFOX), [token(1)]).is_empty());
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&used(1, "203.0.113.5", "curl/8"), [token(1)]).len(), 1);
    }

    #[test]
    fn a_gateway_that_passes_tokens_on_is_no_second_place() {
        let mut rule = rule(&Arc::default());
        used(0, "203.0.113.5", FIREFOX).ask(&mut *rule, [token(1)]);
        let mut inside = used(1, "10.0.0.2", "Go-http-client/1.1");
        inside.exchange.endpoints.server = "10.0.0.9:9090".parse().unwrap();
        assert!(inside.ask(&mut *rule, [token(1)]).is_empty());
    }

    #[test]
    fn refused_and_broken_tokens_do_not_count() {
        let mut rule = rule(&Arc::default());
        for (ms, address) in [(0, "10.0.0.1"), (1, "203.0.113.5"), (2, "198.51.100.5")] {
            assert!(used(ms, address, "").status(401).ask(&mut *rule, [token(1)]).is_empty());
            let forged = crate::token::Token { signature: crate::token::Signature::Invalid, ..token(2) };
            assert!(used(ms, address, "").ask(&mut *rule, [forged]).is_empty());
        }
    }
}
