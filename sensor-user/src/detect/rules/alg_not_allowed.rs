//! `alg-not-allowed`: a token with an algorithm that its issuer may not use.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity, show};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "alg-not-allowed",
    title: "Algorithm that the issuer may not use",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a token of a configured issuer whose `alg` is not in `issuers[].algorithms`.\n\nA verifier that takes the algorithm from the token lets the attacker choose: a weaker one, one \
with a broken implementation, one for which a key of another purpose will do (RFC 8725 section 3.1). The signature \
was not tried, so that the token may be the issuer's own: medium, and high when it was accepted.\n\nBenign source: an \
issuer that changes its algorithm before the configuration says so; then every new token is reported, verified by \
nobody. An HMAC in the name of an issuer with key pairs is `alg-confusion`; a token that breaks in another way is \
left to the rule that names it. Where `kid` names a key of another kind than the algorithm needs, the token is a \
forgery beyond doubt, and counts for `forged-token-accepted`.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::AlgNotAllowed) {
        return None;
    }
    let outcome = subject.outcome();
    let alg = show(subject.token.alg.as_deref().unwrap_or_default());
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: 80,
        message: format!("A token with an algorithm ({alg}) that its issuer may not use {}.", subject.told()),
        brief: format!("algorithm {alg} not allowed, {}", outcome.verb()),
        facts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, policy, token};
    use crate::token::{Policy, Signature, Token};

    fn foreign() -> Token {
        let policy = Some(Policy { algorithm_ok: false, ..policy() });
        Token {
            signature: Signature::Invalid,
            policy,
            ..token(1).of_profile(|p| p.alg = Some("ES256".into()))
        }
    }

    #[test]
    fn is_high_when_accepted() {
        for (status, severity) in [(401, Severity::Medium), (404, Severity::Medium), (200, Severity::High)] {
            let found = Stage::new().status(status).ask(&mut *rule(&Arc::default()), [foreign()]);
            assert_eq!(found[0].severity, severity, "{status}");
        }
    }

    #[test]
    fn leaves_confusion_and_bad_signatures_to_their_rules() {
        let confused = foreign().of_profile(|p| p.alg = Some("HS256".into()));
        let invalid = Token { policy: Some(policy()), ..foreign() };
        for token in [confused, invalid] {
            assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
        }
    }

    #[test]
    fn says_nothing_of_good_tokens() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
