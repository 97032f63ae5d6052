//! `embedded-key`: a token that brings the key to check it with.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};
use crate::token::facts::Proof;

/// The card.
pub static ABOUT: About = About {
    id: "embedded-key",
    title: "Token that brings its own key",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a token with `jwk` or `x5c` in its header that is not one of the issuer's own keys. It is \
proof when the signature verifies under that key.\n\nA verifier that takes the key from the token \
(CVE-2018-0114) accepts whatever the sender signed.\n\nBenign source: issuers that attach their certificate \
chain; their own keys are recognised once the issuer is configured, and a token that verifies under its \
issuer's keys never fires.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::EmbeddedKey) {
        return None;
    }
    let outcome = subject.outcome();
    let proven = matches!(subject.token.proof(), Some(Proof::OwnKey));
    let known =
        if proven { "is signed with the key in its own header" } else { "carries a key in its header" };
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: if proven { 100 } else { 70 },
        message: format!("A token that {known} {}. Anyone can make such a key.", subject.told()),
        brief: format!("own key {}", outcome.verb()),
        facts: vec![("proven", proven.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, policy, token};
    use crate::token::facts::Flaws;
    use crate::token::{Policy, Signature, Token, Unchecked};

    fn bringing(proof: Option<Proof>) -> Token {
        let policy = Some(Policy { embedded_key_ok: false, ..policy() });
        Token {
            flaws: Flaws::EMBEDDED_KEY,
            signature: Signature::Invalid,
            policy,
            ..token(1).with_extras(|e| e.proof = proof)
        }
    }

    #[test]
    fn proof_makes_it_sure() {
        for (proof, confidence) in [(None, 70), (Some(Proof::OwnKey), 100)] {
            let found = Stage::new().status(401).ask(&mut *rule(&Arc::default()), [bringing(proof)]);
            assert_eq!((found[0].severity, found[0].confidence), (Severity::High, confidence));
        }
        let found = Stage::new().status(204).ask(&mut *rule(&Arc::default()), [bringing(None)]);
        assert_eq!(found[0].severity, Severity::Critical);
    }

    #[test]
    fn the_issuers_own_key_is_welcome() {
        let verified = Token { flaws: Flaws::EMBEDDED_KEY, ..token(1) };
        let unchecked = Token { signature: Signature::Unchecked(Unchecked::OverBudget), ..verified.clone() };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [verified]).is_empty());
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [unchecked]).is_empty());
    }
}
