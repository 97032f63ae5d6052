//! `psychic-signature`: an ECDSA signature that no key can make.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "psychic-signature",
    title: "Signature with a zero",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires on an ECDSA signature whose r or s is zero, or not below the order of the group.\n\nVerifiers \
that forget this check accept such a signature for every message and every key (CVE-2022-21449, \"psychic \
signatures\", in Java 15 to 18). No signer makes one.\n\nThere is no benign source.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::Psychic) {
        return None;
    }
    let outcome = subject.outcome();
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: 100,
        message: format!(
            "A token with an ECDSA signature that no key can make {}. Verifiers without a range check take it for any claims.",
            subject.told()
        ),
        brief: format!("psychic signature {}", outcome.verb()),
        facts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};
    use crate::token::facts::Flaws;
    use crate::token::{Signature, Token};

    #[test]
    fn fires_on_a_signature_out_of_range() {
        for (status, severity) in [(401, Severity::High), (200, Severity::Critical)] {
            let token = Token {
                flaws: Flaws::PSYCHIC,
                signature: Signature::Absent,
                ..token(1).of_profile(|p| p.alg = Some("ES256".into()))
            };
            let found = Stage::new().status(status).ask(&mut *rule(&Arc::default()), [token]);
            assert_eq!(found[0].severity, severity);
        }
    }

    #[test]
    fn says_nothing_of_good_tokens() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
