//! `type-confusion`: a token of one kind used as another.

use std::sync::Arc;

use crate::detect::cause::cause;
use crate::detect::statement::{PerToken, Statement, Subject, is_guardable, severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};
use crate::token::{Carrier, Purpose, Token};

/// The card.
pub static ABOUT: About = About {
    id: "type-confusion",
    title: "Token of another kind",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1550.001"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a token that is no access token is used as one: an ID token (`at_hash` or `c_hash`, or `nonce` \
with `auth_time`, `acr` or `amr`, and no scope; or its issuer says so), a refresh token, a logout or event token, a \
DPoP proof; and when a configured issuer's `token_types` do not hold its `typ`.\n\nOne key signs them all. A service \
that checks the signature alone lets a client that was only told who logged in act for the user, and a refresh \
token that leaks works for weeks (RFC 8725 sections 3.11 and 3.12, RFC 9068 section 5).\n\nWhere no issuer is \
configured an ID token is low: Kubernetes and some gateways take ID tokens on purpose. Where they do for a \
configured issuer, put `ID` into its `token_types` (also `Refresh`, `Logout`). Silent on login, logout, token, \
public and health routes, where other kinds of tokens belong, for kinds that come in cookies, which browsers send \
everywhere, and for tokens that are wrong in another way.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    let kind = foreign(subject.token)?;
    let by_claims = !matches!(kind, Kind::Typ);
    let in_cookie = matches!(subject.carrier, Carrier::Cookie(_));
    if (by_claims && in_cookie) || !is_guardable(subject.case.route.kind) || cause(subject.token).is_some() {
        return None;
    }
    let outcome = subject.outcome();
    let unconfigured = !subject.token.policy.is_some_and(|p| p.issuer_known);
    let mild = unconfigured && kind == Kind::Purpose(Purpose::Id);
    let what = match kind {
        Kind::Purpose(purpose) => purpose.as_str(),
        Kind::Typ => "token of a type that its issuer does not use",
    };
    Some(Statement {
        severity: if mild { Severity::Low } else { severity(&ABOUT, outcome) },
        confidence: if subject.token.is_verified() { 90 } else { 60 },
        message: format!("A token that is no access token ({what}) {}.", subject.told()),
        brief: format!("{what} used for access, {}", outcome.verb()),
        facts: vec![("kind", what.into())],
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Purpose(Purpose),
    Typ,
}

/// What the token is instead of an access token. What a policy allows is none of it.
fn foreign(token: &Token) -> Option<Kind> {
    let purpose = token.purpose.filter(|purpose| *purpose != Purpose::Access);
    match token.policy {
        Some(policy) if policy.issuer_known && policy.type_ok => None,
        Some(policy) if policy.issuer_known => Some(purpose.map_or(Kind::Typ, Kind::Purpose)),
        _ => purpose.map(Kind::Purpose),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Stage, policy, token, uses};
    use crate::detect::{Knowledge, Who};
    use crate::token::{Policy, Signature, Unchecked};

    fn of(purpose: Purpose, policy: impl Into<Option<Policy>>) -> Token {
        Token { purpose: Some(purpose), policy: policy.into(), ..token(1) }
    }

    fn wrong() -> Policy {
        Policy { type_ok: false, ..policy() }
    }

    fn ask(stage: &Stage, token: Token) -> Vec<Severity> {
        stage.ask(&mut *rule(&Arc::default()), [token]).iter().map(|f| f.severity).collect()
    }

    #[test]
    fn fires_on_every_other_kind() {
        for purpose in [Purpose::Id, Purpose::Refresh, Purpose::Event, Purpose::Proof] {
            assert_eq!(ask(&Stage::new().status(403), of(purpose, wrong())), [Severity::Medium]);
            assert_eq!(ask(&Stage::new().status(200), of(purpose, wrong())), [Severity::High]);
        }
        let foreign_typ = Token { policy: Some(wrong()), ..token(1) };
        assert_eq!(ask(&Stage::new().status(200), foreign_typ), [Severity::High]);
    }

    #[test]
    fn what_the_policy_allows_is_benign() {
        for purpose in [Purpose::Id, Purpose::Refresh, Purpose::Access] {
            assert!(ask(&Stage::new().status(200), of(purpose, policy())).is_empty());
        }
    }

    #[test]
    fn without_a_policy_an_id_token_is_low_and_a_refresh_token_is_not() {
        let unchecked = Signature::Unchecked(Unchecked::NoIssuer);
        for (purpose, severity) in [(Purpose::Id, Severity::Low), (Purpose::Refresh, Severity::High)] {
            let token = Token { signature: unchecked, ..of(purpose, None) };
            assert_eq!(ask(&Stage::new().status(200), token), [severity]);
        }
        assert!(ask(&Stage::new().status(200), of(Purpose::Access, None)).is_empty());
    }

    #[test]
    fn other_kinds_belong_on_token_and_logout_routes() {
        for kind in [RouteKind::Token, RouteKind::Logout, RouteKind::Login] {
            assert!(ask(&Stage::new().status(200).kind(kind), of(Purpose::Refresh, wrong())).is_empty());
        }
    }

    #[test]
    fn browsers_send_cookies_everywhere() {
        let mut held = uses([of(Purpose::Refresh, wrong())]);
        held[0].carrier = Carrier::Cookie("token".into());
        let found = Stage::new().status(200).ask_as(
            &mut *rule(&Arc::default()),
            &held,
            &Who::default(),
            &Knowledge::default(),
        );
        assert!(found.is_empty());
    }

    #[test]
    fn leaves_forgeries_to_the_rule_that_names_them() {
        let forged = Token { signature: Signature::Invalid, ..of(Purpose::Id, wrong()) };
        assert!(ask(&Stage::new().status(200), forged).is_empty());
    }
}
