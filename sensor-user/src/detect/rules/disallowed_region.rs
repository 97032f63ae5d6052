//! `disallowed-region`: a success from a country that may not be used.

use std::sync::Arc;

use crate::detect::knowledge::letters;
use crate::detect::statement::{Statement, is_guardable};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, RouteKind, Rule, Severity,
    Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "disallowed-region",
    title: "Success from a country that is not allowed",
    version: "1.0.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1078"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a login succeeds, or a token that nothing refutes is answered 2xx, from a country outside \
`geo.allowed_countries`. One success is enough. Strangers without a token, refusals and routes that are open to all do \
not count.\n\nThe list says from where your users are meant to come; what comes from elsewhere is an attack, or the \
list is not complete. Benign sources: travellers, and addresses that the database places wrongly. \
`lists.trusted_addresses` are allowed wherever they are.\n\nSilent without a city or country database (`geo.city`) and \
with an empty list. It does not see who hides behind a proxy in an allowed country. One finding a minute of each \
principal, and of each address where nobody is named. 8 bytes a principal and an address.",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "repeat_s",
        default: 60.0,
        min: 0.0,
        max: 86_400.0,
        doc: "Seconds for which one principal or address is told of once.",
    }],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(DisallowedRegion {
        repeat_s: settings.count(&ABOUT, "repeat_s"),
        memory: (Column::default(), Column::default()),
    })
}

struct DisallowedRegion {
    repeat_s: u32,
    /// When each actor and each address was told of, in seconds since the epoch.
    memory: (Column<u32>, Column<u32>),
}

impl Rule for DisallowedRegion {
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
        let allowed = &case.knowledge.allowed_countries;
        if allowed.is_empty() || !case.exchange.is_success() || case.who.trusted_address {
            return;
        }
        let Some(country) = case.place().and_then(|place| place.country) else { return };
        if allowed.contains(&country) {
            return;
        }
        let login = !case.again && matches!(case.route.kind, RouteKind::Login | RouteKind::Token);
        let told = match case.who.actor {
            Some(actor) if is_guardable(case.route.kind) => self.memory.0.of(actor.known.slot),
            _ if login => self.memory.1.of(case.who.address.slot),
            _ => return,
        };
        let at_s = case.second();
        if *told == 0 || at_s.abs_diff(*told) >= self.repeat_s {
            *told = at_s;
            report.push(finding(case, country));
        }
    }
}

fn finding(case: &Case<'_>, country: [u8; 2]) -> Finding {
    let country = letters(country);
    let route = &case.route.name;
    let what = if is_guardable(case.route.kind) { "A token was accepted" } else { "A login succeeded" };
    let statement = Statement {
        severity: ABOUT.severity,
        confidence: 85,
        message: format!("{what} from {country}, which is not among the allowed countries, on {route}."),
        brief: format!("success from {country}"),
        facts: vec![("country", country.into())],
    };
    if case.who.actor.is_some() {
        statement.into_actor_finding(&ABOUT, case)
    } else {
        statement.into_address_finding(&ABOUT, case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Place;
    use crate::detect::knowledge::Geo;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Signature, Token, Unchecked};

    struct World;

    impl Geo for World {
        fn place(&self, address: std::net::IpAddr) -> Place {
            let country = match address.to_string().split('.').next() {
                Some("1") => Some(*b"DE"),
                Some("2") => Some(*b"XX"),
                _ => None,
            };
            Place { country, ..Place::default() }
        }
    }

    fn play() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        play.knowledge.geo = Some(Arc::new(World));
        play.knowledge.allowed_countries = [*b"DE", *b"FR"].into();
        play
    }

    fn from(address: &str) -> Stage {
        Stage::new().status(200).client(address)
    }

    #[test]
    fn one_success_is_enough_and_is_told_once_a_minute() {
        let mut play = play();
        let found = play.ask(&from("2.0.0.1"), [token(1)]);
        assert_eq!((found[0].severity, found[0].brief.as_str()), (Severity::High, "success from XX"));
        assert!(play.ask(&from("2.0.0.1").after_ms(59_000), [token(1)]).is_empty());
        assert_eq!(play.ask(&from("2.0.0.1").after_ms(60_000), [token(1)]).len(), 1);
    }

    #[test]
    fn a_login_counts_without_a_token() {
        let login =
            |status| Stage::to("POST", "/login").kind(RouteKind::Login).status(status).client("2.0.0.1");
        let found = play().ask(&login(200), []);
        assert!(found[0].message.starts_with("A login succeeded") && found[0].principal.is_none());
        assert!(play().ask(&login(401), []).is_empty());
    }

    #[test]
    fn a_token_that_nobody_can_check_counts_when_it_is_believed() {
        let opaque = Token { signature: Signature::Unchecked(Unchecked::NoIssuer), policy: None, ..token(1) };
        assert_eq!(play().ask(&from("2.0.0.1"), [opaque]).len(), 1);
    }

    #[test]
    fn allowed_unknown_and_refused_are_benign() {
        let forged = || Token { signature: Signature::Invalid, ..token(1) };
        let mut play = play();
        assert!(play.ask(&from("1.0.0.1"), [token(1)]).is_empty());
        assert!(play.ask(&from("9.0.0.1"), [token(1)]).is_empty(), "nobody knows where");
        assert!(play.ask(&from("2.0.0.1").status(403), [token(1)]).is_empty());
        assert!(play.ask(&from("2.0.0.1"), []).is_empty(), "a stranger");
        assert!(play.ask(&from("2.0.0.1"), [forged()]).is_empty(), "left to the rules that name it");
        assert!(play.ask(&from("2.0.0.1").kind(RouteKind::Public), [token(1)]).is_empty());
    }

    #[test]
    fn an_empty_list_allows_everything_and_so_does_no_database() {
        let mut all = play();
        all.knowledge.allowed_countries.clear();
        assert!(all.ask(&from("2.0.0.1"), [token(1)]).is_empty());
        let mut blind = play();
        blind.knowledge.geo = None;
        assert!(blind.ask(&from("2.0.0.1"), [token(1)]).is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = play();
        play.ask(&from("2.0.0.1"), [token(1)]);
        play.restart(rule(&Arc::default()));
        assert!(play.ask(&from("2.0.0.1").after_ms(1000), [token(1)]).is_empty());
    }
}
