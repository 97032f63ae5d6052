//! `device-change`: a token that changes its kind of client during its life.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::cause::cause;
use crate::detect::crowd::FadingCrowd;
use crate::detect::family::Family;
use crate::detect::holder::network;
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Known, Memory, Needs, Report, Rule, Severity, Slot,
    Threshold, When,
};
use crate::token::{Form, Token, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "device-change",
    title: "A token changes its client",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1550.001", "T1528"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when a token that one client family (Firefox, curl, okhttp, ...; versions do not count) has used is \
used by another at the same service, however much later. From another network (/16 of IPv4, /32 of IPv6) it is \
medium, from the same one low.\n\nA token is given to one client. A thief seldom takes the trouble to look like it, \
above all not with a tool.\n\nBenign sources, which are learned: applications whose parts call themselves differently \
(a pair of families that five tokens have mixed at a service, each in one network, is its habit), and people who do \
it again (the same pair of one verified principal is told once). Silent for tokens that live longer than a day, which \
are credentials of programs, for refusals, for tokens that are wrong in themselves, and for clients that do not say \
what they are. Within five minutes of the owner's use `token-many-sources` says more, and replaces it. It does not \
see a thief with the owner's kind of client. 16 bytes a token, 32 a principal, 144 a service.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "max_life_s",
            default: 86_400.0,
            min: 60.0,
            max: 31_536_000.0,
            doc: "Seconds of life above which a token is a program's and may change hands.",
        },
        Threshold {
            key: "habit_after",
            default: 5.0,
            min: 1.0,
            max: 64.0,
            doc: "Tokens that mixed two families at a service, after which that is its habit.",
        },
    ],
};

/// Pairs of families remembered of one principal.
const MAX_PAIRS: usize = 6;
/// Pairs of families remembered of one service: an application has a handful of parts.
const MAX_HABITS: usize = 4;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(DeviceChange {
        max_life_s: settings.count(&ABOUT, "max_life_s"),
        habit_after: settings.count(&ABOUT, "habit_after"),
        memory: Memories::default(),
    })
}

/// The client that a token was given to.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Owner {
    service: Slot,
    network: (bool, u32),
    family: Family,
    told: bool,
}

/// The same in half of the room, which every live token takes.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(from = "Owner", into = "Owner")]
struct Packed {
    network: u32,
    /// Of the service.
    life: u32,
    family: Family,
    /// The service's place, which is below 4,096, and two answers above it.
    place: u16,
}

const _: () = assert!(size_of::<(u32, Packed)>() == 16, "one for each live token");

const V4: u16 = 1 << 15;
const TOLD: u16 = 1 << 14;

impl From<Owner> for Packed {
    fn from(owner: Owner) -> Self {
        let Owner { service, network: (v4, network), family, told } = owner;
        let place = u16::try_from(service.at).ok().filter(|at| *at < TOLD);
        // A service that does not fit is none.
        let (place, life) = place.map_or((0, 0), |place| (place, service.life));
        let place = place | if v4 { V4 } else { 0 } | if told { TOLD } else { 0 };
        Self { network, life, family, place }
    }
}

impl From<Packed> for Owner {
    fn from(packed: Packed) -> Self {
        let Packed { network, life, family, place } = packed;
        let service = Slot { at: u32::from(place & !(V4 | TOLD)), life };
        Self { service, network: (place & V4 != 0, network), family, told: place & TOLD != 0 }
    }
}

/// Two families in either order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pair(Family, Family);

impl Pair {
    const fn of(a: Family, b: Family) -> Self {
        if a.0 < b.0 { Self(a, b) } else { Self(b, a) }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Memories {
    tokens: Column<Packed>,
    principals: Column<ArrayVec<Pair, MAX_PAIRS>>,
    services: Column<ArrayVec<(Pair, FadingCrowd), MAX_HABITS>>,
}

struct DeviceChange {
    max_life_s: u32,
    habit_after: u32,
    memory: Memories,
}

impl DeviceChange {
    /// Whether a token is a session's and not a program's.
    fn is_short(&self, token: &Token, known: Known, at_s: u32) -> bool {
        let life = match (token.expires.get(), token.issued.get().or(token.not_before.get())) {
            (Some(end), Some(start)) => end.saturating_sub(start),
            (Some(end), None) => end.saturating_sub(i64::from(known.first_s)),
            (None, _) if token.form == Form::Jws => return false,
            (None, _) => i64::from(at_s.saturating_sub(known.first_s)),
        };
        life <= i64::from(self.max_life_s)
    }

    /// Notes that a token has mixed two families. Whether that is news. What comes from elsewhere teaches no habit: many
    /// thefts would look like an application.
    fn is_news(&mut self, case: &Case<'_>, token: Slot, pair: Pair, elsewhere: bool) -> bool {
        let habits = self.memory.services.of(case.who.service.slot);
        let at = habits.iter().position(|(known, _)| *known == pair);
        let at = at.unwrap_or_else(|| {
            if habits.is_full() {
                let rarest = (0..).zip(habits.iter()).min_by_key(|(_, (_, crowd))| crowd.size());
                habits.remove(rarest.map_or(0, |(at, _)| at));
            }
            habits.push((pair, FadingCrowd::default()));
            habits.len() - 1
        });
        let Some((_, crowd)) = habits.get_mut(at) else { return false };
        let is_habit = crowd.size() >= self.habit_after;
        if !elsewhere {
            crowd.note(token, case.second());
        }
        let Some(principal) = case.who.principal() else { return !is_habit };
        let pairs = self.memory.principals.of(principal.slot);
        let is_known = pairs.contains(&pair);
        if !is_known {
            if pairs.is_full() {
                pairs.remove(0);
            }
            pairs.push(pair);
        }
        !is_habit && !is_known
    }
}

impl Rule for DeviceChange {
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
        let family = case.who.family;
        if case.tokens.is_empty() || family == Family::default() || case.exchange.is_refused() {
            return;
        }
        for held in case.tokens {
            let Some(known) = case.who.token(held.token.fingerprint) else { continue };
            let kept = self.memory.tokens.of(known.slot);
            let owner = Owner::from(*kept);
            if !owner.family.differs(family) {
                if owner.family == Family::default() && held.token.form != Form::Malformed {
                    let network = network(case.exchange.client);
                    *kept = Owner { service: case.who.service.slot, network, family, told: false }.into();
                }
                continue;
            }
            if owner.told || owner.service != case.who.service.slot || cause(&held.token).is_some() {
                continue;
            }
            *kept = Owner { told: true, ..owner }.into();
            let elsewhere = owner.network != network(case.exchange.client);
            if self.is_short(&held.token, known, case.second())
                && self.is_news(case, known.slot, Pair::of(owner.family, family), elsewhere)
            {
                report.push(finding(case, held, owner));
            }
        }
    }
}

fn finding(case: &Case<'_>, held: &TokenUse, owner: Owner) -> Finding {
    let elsewhere = owner.network != network(case.exchange.client) && !case.who.trusted_address;
    let place = if elsewhere { "another network" } else { "the same network" };
    let statement = Statement {
        severity: if elsewhere { ABOUT.severity } else { Severity::Low },
        confidence: if elsewhere { 70 } else { 50 },
        message: format!(
            "A token changed from one client family to another, from {place}, on {}.",
            case.route.name
        ),
        brief: format!("other client from {place}"),
        facts: vec![("other_network", elsewhere.into())],
    };
    statement.into_finding(&ABOUT, &Subject::new(case, held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};

    const CHROME: &str =
        "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
    const CHROME_NEXT: &str =
        "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";

    fn used(s: u64, address: &str, agent: &str) -> Stage {
        Stage::new().status(200).client(address).header("User-Agent", agent).after_ms(s * 1000)
    }

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn of(name: &str, number: u64) -> Token {
        Token { subject: Some(name.into()), ..token(number) }
    }

    #[test]
    fn another_client_is_medium_from_elsewhere_and_low_from_there() {
        for (address, severity) in [("203.0.113.5", Severity::Medium), ("10.0.7.7", Severity::Low)] {
            let mut play = play();
            assert!(play.ask(&used(0, "10.0.0.1", CHROME), [token(1)]).is_empty());
            let found = play.ask(&used(2000, address, "python-requests/2.32"), [token(1)]);
            assert_eq!(found[0].severity, severity);
            assert!(play.ask(&used(2001, address, "curl/8"), [token(1)]).is_empty(), "told once");
        }
    }

    #[test]
    fn updates_silence_and_other_services_are_benign() {
        let mut play = play();
        play.ask(&used(0, "10.0.0.1", CHROME), [token(1)]);
        assert!(play.ask(&used(10, "10.0.0.1", CHROME_NEXT), [token(1)]).is_empty());
        assert!(play.ask(&used(20, "10.0.0.1", ""), [token(1)]).is_empty());
        let mut gateway = used(30, "10.0.0.2", "Go-http-client/1.1");
        gateway.exchange.endpoints.server = "10.0.0.9:9090".parse().unwrap();
        assert!(play.ask(&gateway, [token(1)]).is_empty());
        assert!(play.ask(&used(40, "203.0.113.5", "curl/8").status(401), [token(1)]).is_empty());
    }

    #[test]
    fn an_application_of_two_parts_is_learned() {
        let mut play = play();
        let told = |play: &mut Play, number: u64| {
            let token = || of(&format!("user-{number}"), number);
            play.ask(&used(number, "10.0.0.1", "okhttp/4.12"), [token()]);
            play.ask(&used(number, "10.0.0.1", CHROME), [token()]).len()
        };
        let found: Vec<usize> = (0..40).map(|number| told(&mut play, number)).collect();
        let first = found.iter().rposition(|n| *n > 0).unwrap();
        assert!(found.iter().sum::<usize>() <= 8 && first < 12, "{found:?}");
    }

    #[test]
    fn many_thefts_are_no_habit() {
        let mut play = play();
        for number in 0..40 {
            let token = || of(&format!("user-{number}"), number);
            play.ask(&used(number * 600, "10.0.0.1", CHROME), [token()]);
            let found = play.ask(&used(number * 600 + 400, "203.0.113.5", "curl/8"), [token()]);
            assert_eq!(found[0].severity, Severity::Medium, "{number}");
        }
    }

    #[test]
    fn the_same_pair_of_a_principal_is_told_once() {
        let mut play = play();
        let told: usize = (0..4)
            .map(|number| {
                play.ask(&used(number * 600, "10.0.0.1", CHROME), [of("dev", number)]);
                play.ask(&used(number * 600, "10.0.0.1", "curl/8"), [of("dev", number)]).len()
            })
            .sum();
        assert_eq!(told, 1);
    }

    #[test]
    fn long_lived_tokens_are_programs() {
        let lasting = || Token { expires: token(1).expires.get().map(|t| t + 86_400).into(), ..token(1) };
        let mut play = play();
        play.ask(&used(0, "10.0.0.1", "curl/8"), [lasting()]);
        assert!(play.ask(&used(1, "10.0.0.1", "python/3"), [lasting()]).is_empty());
        let endless = || Token { expires: None::<i64>.into(), ..token(2) };
        play.ask(&used(0, "10.0.0.1", "curl/8"), [endless()]);
        assert!(play.ask(&used(1, "10.0.0.1", "python/3"), [endless()]).is_empty());
    }

    #[test]
    fn forgeries_are_left_to_others() {
        let forged = || Token { signature: crate::token::Signature::Invalid, ..token(1) };
        let mut play = play();
        play.ask(&used(0, "10.0.0.1", "curl/8"), [forged()]);
        assert!(play.ask(&used(1, "203.0.113.5", "python/3"), [forged()]).is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = play();
        play.ask(&used(0, "10.0.0.1", CHROME), [token(1)]);
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&used(2000, "203.0.113.5", "curl/8"), [token(1)]).len(), 1);
    }
}
