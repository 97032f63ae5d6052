//! `token-many-sources`: one token that several clients use at the same time.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::cause::cause;
use crate::detect::crowd::Crowd;
use crate::detect::family::Family;
use crate::detect::holder::network;
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, Rule, Severity, Slot, Threshold,
};
use crate::token::{Form, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "token-many-sources",
    title: "One token from several places",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1550.001", "T1528"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when one token is used at one service from two or more addresses in different networks (/16 of \
IPv4, /32 of IPv6), or by two or more client families (Firefox, curl, okhttp, ...; versions do not count), \
within five minutes.\n\nA stolen token is used beside its owner. A change of place alone is medium: a telephone \
that leaves the house does it. It is high when the places take turns, or when place and client family change \
together.\n\nSilent for `lists.trusted_addresses`, for addresses at which eight or more tokens have been seen \
(NAT, gateways: they are learned), and for requests that were refused or carry a token that is wrong in itself. \
A gateway that passes tokens on to other services is no second place: only uses at one server address are \
compared. It compares the newest four places of a token.",
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
            key: "shared_after",
            default: 8.0,
            min: 2.0,
            max: 64.0,
            doc: "Tokens seen at one address after which it counts as shared by many callers.",
        },
    ],
};

/// Places remembered of one token. The owner and a thief need two; two more are for a little roaming.
const MAX_PLACES: usize = 4;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(TokenManySources {
        window_s: settings.count(&ABOUT, "window_s"),
        shared_after: settings.count(&ABOUT, "shared_after"),
        memory: (Column::default(), Column::default()),
    })
}

/// Where and by what a token was used.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    address: Slot,
    network: (bool, u32),
    /// Known to be shared by many callers.
    trusted: bool,
    service: Slot,
    family: Family,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Visit {
    place: Place,
    /// Newest use, in seconds since the epoch.
    at_s: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Visits {
    visits: ArrayVec<Visit, MAX_PLACES>,
    newest: u8,
}

struct TokenManySources {
    window_s: u32,
    shared_after: u32,
    /// Of each token where it was, of each address what used it.
    memory: (Column<Visits>, Column<Crowd>),
}

/// How a use differs from those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Differs {
    networks: u32,
    families: u32,
    returned: bool,
}

impl TokenManySources {
    /// Notes a use; how it differs if it is not where the newest use was.
    fn visit(&mut self, token: Slot, place: Place, at_s: u32) -> Option<Differs> {
        let (window_s, shared_after) = (self.window_s, self.shared_after);
        let (tokens, addresses) = &mut self.memory;
        let visits = tokens.of(token);
        let newest = visits.visits.get_mut(usize::from(visits.newest));
        if let Some(same) = newest.filter(|v| v.place == place) {
            same.at_s = at_s;
            return None;
        }
        let is_first = visits.visits.is_empty();
        let (returned, is_new) = visits.go_to(place, at_s);
        let others: ArrayVec<Place, MAX_PLACES> = visits.others(place, at_s, window_s);
        if is_new {
            addresses.of(place.address).note(token, at_s);
        }
        let shared = |place: &Place| {
            place.trusted || addresses.peek(place.address).is_some_and(|crowd| crowd.size() >= shared_after)
        };
        if is_first || others.is_empty() || shared(&place) {
            return None;
        }
        let mut differs = Differs { returned, ..Differs::default() };
        for other in others.iter().filter(|other| !shared(other)) {
            differs.networks += u32::from(other.network != place.network);
            differs.families += u32::from(other.family.differs(place.family));
        }
        (differs.networks + differs.families > 0).then_some(differs)
    }
}

impl Visits {
    /// Makes `place` the newest. Whether the token was there before, and whether the address is new to it.
    fn go_to(&mut self, place: Place, at_s: u32) -> (bool, bool) {
        let is_new = !self.visits.iter().any(|v| v.place.address == place.address);
        let at = self.visits.iter().position(|v| v.place == place);
        let returned = at.is_some();
        let at = at.unwrap_or_else(|| {
            if let Err(full) = self.visits.try_push(Visit { place, at_s }) {
                let oldest = (0..).zip(&self.visits).min_by_key(|(_, v)| v.at_s).map_or(0, |(i, _)| i);
                if let Some(visit) = self.visits.get_mut(oldest) {
                    *visit = full.element();
                }
                return oldest;
            }
            self.visits.len() - 1
        });
        if let Some(visit) = self.visits.get_mut(at) {
            visit.at_s = at_s;
        }
        self.newest = u8::try_from(at).unwrap_or(0);
        (returned, is_new)
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

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if case.tokens.is_empty() || case.exchange.is_refused() {
            return;
        }
        let place = Place {
            address: case.who.address.slot,
            network: network(case.exchange.client),
            trusted: case.who.trusted_address,
            service: case.who.service.slot,
            family: case.who.family,
        };
        for held in case.tokens {
            if held.token.form == Form::Malformed || cause(&held.token).is_some() {
                continue;
            }
            let Some(token) = case.who.token(held.token.fingerprint) else { continue };
            if let Some(differs) = self.visit(token.slot, place, case.second()) {
                report.push(finding(case, held, differs, self.window_s));
            }
        }
    }
}

fn finding(case: &Case<'_>, held: &TokenUse, differs: Differs, window_s: u32) -> crate::detect::Finding {
    let both = differs.networks > 0 && differs.families > 0;
    let how = match (differs.networks > 0, differs.families > 0) {
        (true, true) => "several networks and client families",
        (true, false) => "several networks",
        _ => "several client families",
    };
    let turns = if differs.returned { ", which take turns" } else { "" };
    let statement = Statement {
        severity: if both || differs.returned { Severity::High } else { ABOUT.severity },
        confidence: if both || differs.returned { 85 } else { 60 },
        message: format!(
            "One token was used from {how} within {window_s} s{turns}, the newest on {}.",
            case.route.name
        ),
        brief: format!("token in {how}"),
        facts: vec![
            ("other_networks", differs.networks.into()),
            ("other_families", differs.families.into()),
            ("take_turns", differs.returned.into()),
        ],
    };
    statement.into_finding(&ABOUT, &Subject::new(case, held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};

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
    fn a_second_network_is_medium_and_taking_turns_high() {
        let uses = [(0, "10.0.0.1", FIREFOX), (1000, "203.0.113.5", FIREFOX), (2000, "10.0.0.1", FIREFOX)];
        assert_eq!(severities(&uses), [None, Some(Severity::Medium), Some(Severity::High)]);
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
        assert_eq!(play.ask(&used(1, "203.0.113.5", FIREFOX), [token(1)]).len(), 1);
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
