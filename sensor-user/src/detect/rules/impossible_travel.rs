//! `impossible-travel`: one person in two places that nobody can travel between in the time.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::crowd::{FadingCrowd, SHARED_AFTER};
use crate::detect::holder::egress;
use crate::detect::knowledge::letters;
use crate::detect::learning::{Gate, LEARN_DAYS, LEARN_LOGINS, Learning, day};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Place, Report, Rule, Severity, Slot,
    Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "impossible-travel",
    title: "Impossible travel",
    version: "1.0.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1078", "T1550.001"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when the tokens of one verified principal are used at one service from two places that are 500 km or \
more apart, within an hour, and faster than 900 km/h. On two continents within five minutes it is critical. The \
distance is the least that the database allows: what both positions may be wrong by is taken off.\n\nA thief and the \
owner of an account are rarely in one town, and tokens travel faster than people.\n\nIt needs a city database \
(`geo.city`), and keeps silent without one. A principal must be known for 14 days or 10 logins first; only two \
continents within five minutes are told of anybody. Silent for `lists.trusted_addresses`, for addresses that eight or \
more principals use (VPN, gateways: they are learned), and for networks (autonomous systems with `geo.asn`, else /16 \
and IPv6 /32) that the principal has used on two earlier days: telephones and VPNs leave the internet far from where they are. \
A network that was told of needs 14 days. A gateway that passes tokens on to other services is no second place.\n\nIt \
does not see a thief near the owner, behind the same provider, or one who waits for an hour. 180 bytes a principal, 32 an address.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "min_km",
            default: 500.0,
            min: 50.0,
            max: 20_000.0,
            doc: "Kilometres below which it is no travel: positions of addresses are vague.",
        },
        Threshold {
            key: "max_kmh",
            default: 900.0,
            min: 100.0,
            max: 100_000.0,
            doc: "Kilometres an hour that people may travel: airliners do.",
        },
        Threshold {
            key: "window_s",
            default: 3_600.0,
            min: 60.0,
            max: 86_400.0,
            doc: "Seconds within which two places are compared.",
        },
        Threshold {
            key: "critical_s",
            default: 300.0,
            min: 0.0,
            max: 86_400.0,
            doc: "Seconds within which two continents are critical, and told of principals that are not learned too.",
        },
        LEARN_DAYS,
        LEARN_LOGINS,
        SHARED_AFTER,
    ],
};

/// Places remembered of one principal: its own two, and a thief's.
const MAX_VISITS: usize = 3;
/// Networks remembered of one principal: home, work, telephone, VPN, and two more.
const MAX_EGRESSES: usize = 6;
/// Earlier days of use after which a network is a principal's own.
const OWN_DAYS: u8 = 2;
/// The same of a network that was told of.
const OWN_AGAIN_DAYS: u8 = 14;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(ImpossibleTravel {
        limits: Limits {
            km: settings.threshold(&ABOUT, "min_km"),
            kmh: settings.threshold(&ABOUT, "max_kmh"),
            window_s: settings.count(&ABOUT, "window_s"),
            critical_s: settings.count(&ABOUT, "critical_s"),
            gate: Gate {
                days: settings.count(&ABOUT, "learn_days"),
                logins: settings.count(&ABOUT, "learn_logins"),
            },
            shared_after: settings.count(&ABOUT, "shared_after"),
        },
        memory: (Column::default(), Column::default()),
    })
}

struct Limits {
    km: f64,
    kmh: f64,
    window_s: u32,
    critical_s: u32,
    gate: Gate,
    shared_after: u32,
}

/// A place in which a principal was.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Visit {
    position: (f32, f32),
    radius_km: u16,
    country: [u8; 2],
    continent: [u8; 2],
    network: u32,
    service: Slot,
    /// Newest use, seconds since the epoch.
    at_s: u32,
}

/// A network from which a principal comes.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Egress {
    network: u32,
    /// Newest day of use.
    day: u16,
    /// Days of use; saturates.
    days: u8,
    told: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Trail {
    learning: Learning,
    visits: ArrayVec<Visit, MAX_VISITS>,
    egresses: ArrayVec<Egress, MAX_EGRESSES>,
}

struct ImpossibleTravel {
    limits: Limits,
    /// Of each principal where it was, of each address who was there.
    memory: (Column<Trail>, Column<FadingCrowd>),
}

/// A journey that nobody makes.
#[derive(Clone, Copy)]
struct Journey {
    from: [u8; 2],
    to: [u8; 2],
    /// The network that was left.
    network: u32,
    km: f64,
    seconds: u32,
    continents: bool,
}

impl Limits {
    /// The journey between two visits, if nobody can make it.
    fn journey(&self, from: &Visit, to: &Visit) -> Option<Journey> {
        let seconds = to.at_s.abs_diff(from.at_s);
        if from.service != to.service || from.network == to.network || seconds > self.window_s {
            return None;
        }
        let km = from.place().distance_km(&to.place())?;
        if km < self.km || km * 3600.0 <= self.kmh * f64::from(seconds) {
            return None;
        }
        let known = from.continent != [0; 2] && to.continent != [0; 2];
        let continents = known && from.continent != to.continent && seconds <= self.critical_s;
        Some(Journey { from: from.country, to: to.country, network: from.network, km, seconds, continents })
    }
}

impl Visit {
    const fn place(&self) -> Place {
        Place {
            position: Some(self.position),
            radius_km: Some(self.radius_km),
            country: None,
            continent: None,
            asn: None,
        }
    }
}

impl Trail {
    /// Notes a use from a network.
    fn come_by(&mut self, network: u32, day: u16) {
        if let Some(egress) = self.egresses.iter_mut().find(|e| e.network == network) {
            if egress.day != day {
                (egress.day, egress.days) = (day, egress.days.saturating_add(1));
            }
            return;
        }
        let new = Egress { network, day, days: 1, told: false };
        if let Err(full) = self.egresses.try_push(new)
            && let Some(oldest) = self.egresses.iter_mut().min_by_key(|e| (e.days >= OWN_DAYS, e.day))
        {
            *oldest = full.element();
        }
    }

    /// Whether a network was one of the principal's own before this day.
    fn is_own(&self, network: u32, today: u16) -> bool {
        let earlier = |e: &Egress| e.days.saturating_sub(u8::from(e.day == today));
        let own = |e: &Egress| earlier(e) >= if e.told { OWN_AGAIN_DAYS } else { OWN_DAYS };
        self.egresses.iter().any(|e| e.network == network && own(e))
    }

    /// The longest journey to an arrival that nobody can make. Between two networks of its own a principal only seems
    /// to travel.
    fn journey(&self, limits: &Limits, to: &Visit) -> Option<Journey> {
        let today = day(to.at_s);
        let own = self.is_own(to.network, today);
        let strange = |from: &&Visit| !(own && self.is_own(from.network, today));
        let journeys = self.visits.iter().filter(strange).filter_map(|from| limits.journey(from, to));
        journeys.max_by(|a, b| a.km.total_cmp(&b.km))
    }

    /// Notes a visit: in the place of the same, of the oldest, or of none.
    fn stay(&mut self, visit: Visit) {
        let same = |v: &&mut Visit| v.network == visit.network && v.service == visit.service;
        if let Some(known) = self.visits.iter_mut().find(same) {
            *known = visit;
        } else if let Err(full) = self.visits.try_push(visit)
            && let Some(oldest) = self.visits.iter_mut().min_by_key(|v| v.at_s)
        {
            *oldest = full.element();
        }
    }
}

impl Rule for ImpossibleTravel {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(place) = case.place() else { return };
        let (Some(position), Some(actor)) = (place.position, case.who.principal()) else { return };
        if case.exchange.is_refused() || case.who.trusted_address {
            return;
        }
        let at_s = case.second();
        let (trails, crowds) = &mut self.memory;
        let trail = trails.of(actor.slot);
        if trail.learning.note(case.who.first_token(), at_s) {
            *trail = Trail { learning: trail.learning, ..Trail::default() };
        }
        let visit = Visit {
            position,
            radius_km: place.radius_km.unwrap_or(0),
            country: place.country.unwrap_or_default(),
            continent: place.continent.unwrap_or_default(),
            network: egress(Some(place), case.exchange.client),
            service: case.who.service.slot,
            at_s,
        };
        trail.come_by(visit.network, day(at_s));
        let crowd = crowds.of(case.who.address.slot);
        crowd.note(actor.slot, at_s);
        if crowd.size() >= self.limits.shared_after {
            return;
        }
        let stayed = |v: &Visit| {
            v.network == visit.network
                && v.service == visit.service
                && at_s.saturating_sub(v.at_s) <= self.limits.window_s
        };
        let arrives = !trail.visits.iter().any(stayed);
        let worst = arrives.then(|| trail.journey(&self.limits, &visit)).flatten();
        trail.stay(visit);
        let learned = trail.learning.is_learned(self.limits.gate, at_s);
        let Some(journey) = worst.filter(|journey| learned || journey.continents) else { return };
        let strange = if trail.is_own(visit.network, day(at_s)) { journey.network } else { visit.network };
        for egress in trail.egresses.iter_mut().filter(|e| e.network == strange) {
            egress.told = true;
        }
        report.extend(finding(case, journey, learned));
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "kilometres on Earth, and their speed"
)]
fn finding(case: &Case<'_>, journey: Journey, learned: bool) -> Option<Finding> {
    let subject = Subject::new(case, case.acting()?);
    let Journey { from, to, km, seconds, continents, .. } = journey;
    let kmh = km * 3600.0 / f64::from(seconds.max(1));
    let name = |code: [u8; 2]| if code == [0; 2] { "an unknown country".to_owned() } else { letters(code) };
    let statement = Statement {
        severity: if continents { Severity::Critical } else { ABOUT.severity },
        confidence: if learned { 85 } else { 65 },
        message: format!(
            "One principal was in {} and {seconds} s later at least {km:.0} km away in {}: {}.",
            name(from),
            name(to),
            subject.told()
        ),
        brief: format!("{km:.0} km in {seconds} s"),
        facts: vec![
            ("distance_km", (km as u32).into()),
            ("elapsed_s", seconds.into()),
            ("speed_kmh", (kmh as u64).into()),
            ("from_country", letters(from).trim_matches('\0').into()),
            ("to_country", letters(to).trim_matches('\0').into()),
            ("learned", learned.into()),
        ],
    };
    Some(statement.into_finding(&ABOUT, &subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::knowledge::Geo;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::Token;

    /// Berlin, Munich, Paris (a vague one too) and New York by the first octet.
    struct World;

    impl Geo for World {
        fn place(&self, address: std::net::IpAddr) -> Place {
            let std::net::IpAddr::V4(v4) = address else { return Place::default() };
            let at = |country: &[u8; 2], continent: &[u8; 2], position, radius_km| Place {
                country: Some(*country),
                continent: Some(*continent),
                position: Some(position),
                radius_km: Some(radius_km),
                asn: Some(u32::from(v4.octets()[0]) * 256 + u32::from(v4.octets()[1])),
            };
            match v4.octets()[0] {
                1 => at(b"DE", b"EU", (52.52, 13.405), 10),
                2 => at(b"DE", b"EU", (48.137, 11.575), 10),
                3 => at(b"FR", b"EU", (48.857, 2.352), 10),
                4 => at(b"FR", b"EU", (48.857, 2.352), 900),
                5 => at(b"US", b"NA", (40.713, -74.006), 20),
                _ => Place::default(),
            }
        }
    }

    fn play() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        play.knowledge.geo = Some(Arc::new(World));
        play
    }

    const DAY_MS: u64 = 86_400_000;

    fn used(ms: u64, address: &str) -> Stage {
        Stage::new().status(200).client(address).after_ms(ms)
    }

    /// A token that is good for a month.
    fn lasting(number: u64) -> Token {
        let token = token(number);
        Token { expires: token.expires.get().map(|t| t + 90 * 86_400).into(), ..token }
    }

    /// A principal at home in Berlin for 14 days.
    fn learned() -> Play {
        let mut play = play();
        for day in 0..=14 {
            assert!(play.ask(&used(day * DAY_MS, "1.1.0.1"), [lasting(1)]).is_empty());
        }
        play
    }

    fn severity(play: &mut Play, ms: u64, address: &str) -> Option<Severity> {
        play.ask(&used(14 * DAY_MS + ms, address), [lasting(1)]).first().map(|f| f.severity)
    }

    #[test]
    fn a_learned_principal_far_away_too_soon_is_high_once() {
        let mut play = learned();
        assert_eq!(severity(&mut play, 1_800_000, "3.1.0.1"), Some(Severity::High));
        assert_eq!(severity(&mut play, 1_900_000, "3.1.0.1"), None);
        assert_eq!(severity(&mut play, 1_901_000, "1.1.0.1"), None, "home is home");
    }

    #[test]
    fn two_continents_within_five_minutes_are_critical_for_anybody() {
        let mut play = play();
        assert!(play.ask(&used(0, "1.1.0.1"), [lasting(1)]).is_empty());
        let found = play.ask(&used(299_000, "5.1.0.1"), [lasting(2)]);
        assert_eq!((found[0].severity, found[0].confidence), (Severity::Critical, 65));
        assert_eq!(severity(&mut learned(), 301_000, "5.1.0.1"), Some(Severity::High));
    }

    #[test]
    fn aeroplanes_neighbours_and_vague_positions_are_benign() {
        assert_eq!(severity(&mut learned(), 3_601_000, "5.1.0.1"), None, "an hour later nothing is compared");
        assert_eq!(severity(&mut learned(), 1000, "2.1.0.1"), None, "Munich is 484 km away at least");
        assert_eq!(severity(&mut learned(), 1000, "4.1.0.1"), None, "somewhere in France");
        assert_eq!(severity(&mut learned(), 3_599_000, "3.1.0.1"), None, "857 km in an hour is a flight");
        assert_eq!(severity(&mut learned(), 1000, "9.1.0.1"), None, "nowhere");
    }

    #[test]
    fn newcomers_are_learned_and_not_judged() {
        let mut play = play();
        for (ms, address) in [(0, "1.1.0.1"), (1000, "3.1.0.1"), (2000, "1.1.0.1"), (3000, "3.2.0.1")] {
            assert!(play.ask(&used(ms, address), [lasting(1)]).is_empty());
        }
    }

    #[test]
    fn a_network_of_two_days_is_the_principals_own() {
        let mut play = play();
        for day in 0..=14 {
            play.ask(&used(day * DAY_MS, "1.1.0.1"), [lasting(1)]);
            play.ask(&used(day * DAY_MS + 7_200_000, "3.1.0.1"), [lasting(1)]);
        }
        assert_eq!(severity(&mut play, 7_201_000, "1.1.0.1"), None);
        assert_eq!(severity(&mut play, 7_202_000, "3.1.0.1"), None);
        assert_eq!(severity(&mut play, 7_203_000, "5.1.0.1"), Some(Severity::Critical));
    }

    #[test]
    fn a_network_of_one_earlier_day_is_not_the_principals_own() {
        let mut play = learned();
        assert_eq!(severity(&mut play, 20_000_000, "5.1.0.1"), None, "nobody was there for hours");
        assert_eq!(severity(&mut play, DAY_MS, "1.1.0.1"), None);
        assert_eq!(severity(&mut play, DAY_MS + 60_000, "5.1.0.1"), Some(Severity::Critical));
    }

    #[test]
    fn the_owner_who_comes_after_the_thief_reveals_him() {
        let mut play = learned();
        assert_eq!(severity(&mut play, 20_000_000, "5.1.0.1"), None, "nobody was there for hours");
        assert_eq!(severity(&mut play, 20_200_000, "1.1.0.1"), Some(Severity::Critical));
    }

    #[test]
    fn shared_and_trusted_addresses_are_benign() {
        let mut play = learned();
        for person in 0..12 {
            let other = Token { subject: Some(format!("user-{person}").into()), ..lasting(100 + person) };
            play.ask(&used(14 * DAY_MS, "5.1.0.1"), [other]);
        }
        assert_eq!(severity(&mut play, 1000, "5.1.0.1"), None);
        let settings = DetectSettings {
            trusted_addresses: vec!["5.0.0.0/8".parse().unwrap()],
            ..DetectSettings::default()
        };
        let mut play = Play::with(rule(&Arc::default()), &settings);
        play.knowledge.geo = Some(Arc::new(World));
        play.ask(&used(0, "1.1.0.1"), [lasting(1)]);
        assert!(play.ask(&used(1000, "5.1.0.1"), [lasting(1)]).is_empty());
        assert!(play.ask(&used(2000, "1.1.0.1"), [lasting(1)]).is_empty());
    }

    #[test]
    fn a_gateway_in_another_country_is_no_second_place() {
        let mut play = learned();
        let mut inside = used(14 * DAY_MS + 1000, "5.1.0.1");
        inside.exchange.endpoints.server = "10.0.0.9:9090".parse().unwrap();
        assert!(play.ask(&inside, [lasting(1)]).is_empty());
    }

    #[test]
    fn unverified_tokens_name_nobody() {
        let mut play = learned();
        let forged = Token { signature: crate::token::Signature::Invalid, ..lasting(2) };
        assert!(play.ask(&used(14 * DAY_MS + 1000, "5.1.0.1"), [forged]).is_empty());
    }

    #[test]
    fn is_silent_without_a_database() {
        let mut play = Play::new(rule(&Arc::default()));
        for (ms, address) in [(0, "1.1.0.1"), (1000, "5.1.0.1")] {
            assert!(play.ask(&used(ms, address), [lasting(1)]).is_empty());
        }
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        assert_eq!(severity(&mut play, 1000, "5.1.0.1"), Some(Severity::Critical));
    }

    #[test]
    fn many_places_stay_bounded() {
        let mut play = play();
        for i in 0..5000_u64 {
            let address = format!("{}.{}.0.1", i % 5 + 1, i % 250);
            play.ask(&used(i * 60_000, &address), [lasting(i % 7)]);
        }
        let saved = play.rule.memory().unwrap().save().unwrap();
        assert!(saved.len() < 60_000, "{}", saved.len());
    }
}
