//! `kid-injection`: a key id that is a path, a query or a command.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};
use crate::token::facts::Proof;

/// The card.
pub static ABOUT: About = About {
    id: "kid-injection",
    title: "Key id that injects",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606", "T1190"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a `kid` with path traversal, quotes, pipes, semicolons or control characters. It is proof \
when the HMAC verifies under what such a `kid` makes a verifier read: nothing (`/dev/null`), a NUL byte, `1` \
and the like.\n\nVerifiers that put the key id into a file name or an SQL query let the sender choose the \
key.\n\nThere is no benign source: issuers' key ids are digests, numbers, dates, or URLs. A token that verifies \
under its issuer's keys never fires.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::KidInjection) {
        return None;
    }
    let outcome = subject.outcome();
    let key = match subject.token.proof() {
        Some(Proof::HmacUnderInjectedKey(key)) => Some(key),
        _ => None,
    };
    let known = if key.is_some() { ", and which verifies under the key that it injects," } else { "" };
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: if key.is_some() { 100 } else { 90 },
        message: format!("A token whose key id is an injection{known} {}.", subject.told()),
        brief: format!("kid injection {}", outcome.verb()),
        facts: key.map(|key| ("injected_key", key.into())).into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};
    use crate::token::facts::Flaws;
    use crate::token::{Signature, Token};

    fn injecting(proof: Option<Proof>) -> Token {
        let kid = Some("../../dev/null".into());
        Token {
            flaws: Flaws::KID_INJECTION,
            signature: Signature::Invalid,
            ..token(1)
                .of_profile(|p| {
                    p.alg = Some("HS256".into());
                    p.kid = kid;
                })
                .with_extras(|e| e.proof = proof)
        }
    }

    #[test]
    fn fires_once_and_shows_the_kid() {
        let found = Stage::new().status(401).ask(&mut *rule(&Arc::default()), [injecting(None)]);
        assert_eq!((found.len(), found[0].severity, found[0].confidence), (1, Severity::High, 90));
        assert!(found[0].facts.contains(&("kid", "../../dev/null".into())));
    }

    #[test]
    fn proof_names_the_injected_key() {
        let found = Stage::new()
            .status(200)
            .ask(&mut *rule(&Arc::default()), [injecting(Some(Proof::HmacUnderInjectedKey("empty")))]);
        assert_eq!((found[0].severity, found[0].confidence), (Severity::Critical, 100));
        assert!(found[0].facts.contains(&("injected_key", "empty".into())));
    }

    #[test]
    fn an_issuer_may_sign_odd_key_ids() {
        let odd = Token { signature: Signature::Verified, ..injecting(None) };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [odd]).is_empty());
    }
}
