//! `known-bad-address`: a client that others have named as an attacker.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::cause::{cause, must_refuse};
use crate::detect::statement::{Statement, VERIFIERS_LEEWAY_S, is_guardable};
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "known-bad-address",
    title: "A known attacker's address",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1595", "T1078"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires when a client's address is on the list of bad ones (`lists.bad_addresses`, and the plain lists and MISP \
events of `lists.files.bad_addresses`). It is high when a token that nothing refutes is answered 2xx, or a login \
succeeds.\n\nLists of scanners, botnets and anonymisers tell early what one host alone cannot know.\n\nThey age, and an \
address changes hands: benign sources are the next customer of a provider, and researchers. Nothing is told of \
`lists.trusted_addresses`. One finding a minute of each address, unless it gets worse. It does not see an attacker \
behind a proxy that is not in `http.trusted_proxies`. 12 bytes an address.",
    cooling_s: 3600,
    thresholds: &[Threshold {
        key: "repeat_s",
        default: 60.0,
        min: 0.0,
        max: 86_400.0,
        doc: "Seconds for which one address is told of once.",
    }],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(KnownBadAddress { repeat_s: settings.count(&ABOUT, "repeat_s"), memory: Column::default() })
}

/// When an address was told of, in seconds since the epoch, and whether as a success.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Notice {
    at_s: u32,
    success: bool,
}

struct KnownBadAddress {
    repeat_s: u32,
    memory: Column<Notice>,
}

/// Whether the application has taken the client for a user.
fn is_let_in(case: &Case<'_>) -> bool {
    if !case.exchange.is_success() {
        return false;
    }
    let good = |held: &crate::token::TokenUse| {
        cause(&held.token).is_none()
            && must_refuse(&held.token, case.exchange.at, VERIFIERS_LEEWAY_S).is_none()
    };
    matches!(case.route.kind, RouteKind::Login | RouteKind::Token)
        || (is_guardable(case.route.kind) && case.tokens.iter().any(good))
}

impl Rule for KnownBadAddress {
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
        if !case.who.bad_address || case.who.trusted_address {
            return;
        }
        let (at_s, success) = (case.second(), is_let_in(case));
        let told = self.memory.of(case.who.address.slot);
        let fresh = told.at_s > 0 && at_s.abs_diff(told.at_s) < self.repeat_s;
        if fresh && (told.success || !success) {
            return;
        }
        *told = Notice { at_s, success };
        let route = &case.route.name;
        let (severity, message, brief) = if success {
            let message = format!("A client whose address is on a list of attackers was let in on {route}.");
            (Severity::High, message, "known attacker let in")
        } else {
            let message = format!("A client whose address is on a list of attackers came to {route}.");
            (ABOUT.severity, message, "known attacker")
        };
        let facts = vec![("let_in", success.into())];
        let statement = Statement { severity, confidence: 70, message, brief: brief.to_owned(), facts };
        report.push(statement.into_address_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Signature, Token};

    fn play() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        play.knowledge.bad_addresses = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
        play
    }

    fn from(s: u64, address: &str) -> Stage {
        Stage::new().client(address).after_ms(s * 1000)
    }

    #[test]
    fn a_visit_is_medium_and_a_success_high() {
        let mut play = play();
        assert_eq!(play.ask(&from(0, "203.0.113.9").status(404), [])[0].severity, Severity::Medium);
        assert!(play.ask(&from(1, "203.0.113.9").status(404), []).is_empty());
        assert_eq!(play.ask(&from(2, "203.0.113.9").status(200), [token(1)])[0].severity, Severity::High);
        assert!(play.ask(&from(3, "203.0.113.9").status(404), []).is_empty());
        assert_eq!(play.ask(&from(62, "203.0.113.9").status(404), []).len(), 1);
    }

    #[test]
    fn a_login_is_a_success_and_a_stranger_is_none() {
        let login = Stage::to("POST", "/login").kind(RouteKind::Login).client("203.0.113.9");
        assert_eq!(play().ask(&login.clone().status(200), [])[0].severity, Severity::High);
        assert_eq!(play().ask(&login.status(401), [])[0].severity, Severity::Medium);
        assert_eq!(play().ask(&from(0, "203.0.113.9").status(200), [])[0].severity, Severity::Medium);
        let forged = Token { signature: Signature::Invalid, ..token(1) };
        assert_eq!(play().ask(&from(0, "203.0.113.9").status(200), [forged])[0].severity, Severity::Medium);
    }

    #[test]
    fn others_and_trusted_addresses_are_benign() {
        assert!(play().ask(&from(0, "203.0.114.9").status(200), [token(1)]).is_empty());
        let settings = DetectSettings {
            trusted_addresses: vec!["203.0.113.9/32".parse().unwrap()],
            ..DetectSettings::default()
        };
        let mut play = Play::with(rule(&Arc::default()), &settings);
        play.knowledge.bad_addresses = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
        assert!(play.ask(&from(0, "203.0.113.9").status(200), [token(1)]).is_empty());
    }

    #[test]
    fn nobody_is_named() {
        let found = play().ask(&from(0, "203.0.113.9").status(200), [token(1)]);
        assert_eq!((&found[0].principal, found[0].token), (&None, None));
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = play();
        play.ask(&from(0, "203.0.113.9"), []);
        play.restart(rule(&Arc::default()));
        assert!(play.ask(&from(1, "203.0.113.9"), []).is_empty());
    }
}
