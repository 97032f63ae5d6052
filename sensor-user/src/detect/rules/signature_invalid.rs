//! `signature-invalid`: a token whose signature is not its issuer's.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "signature-invalid",
    title: "Signature does not verify",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when the keys of the token's issuer are known and the signature verifies under none that the \
issuer may use.\n\nThe claims were changed, or somebody else made the token. A 2xx in answer means that the \
application does not check signatures: whoever reaches it can be anyone.\n\nBenign sources: a key rotation that \
the sensor has not fetched yet (the token then waits for the new keys first), and test environments that share \
an issuer name. It does not fire where another rule names the trick: `alg-none`, `alg-confusion`, \
`embedded-key`, `kid-injection`, `psychic-signature`, `weak-secret`, `claims-tampered`, nor where the algorithm \
is not one that the issuer may use (`alg-not-allowed`): then the signature was not tried.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::SignatureInvalid) {
        return None;
    }
    let outcome = subject.outcome();
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: 95,
        message: if subject.token.key_asked().is_some() {
            format!(
                "A token {} whose key id no key of its issuer has, looked up since. Its claims are not the issuer's word.",
                subject.told()
            )
        } else {
            format!(
                "A token whose signature does not verify under its issuer's keys {}. Its claims are not the issuer's word.",
                subject.told()
            )
        },
        brief: format!(
            "{} {}",
            if subject.token.key_asked().is_some() { "unknown key" } else { "bad signature" },
            outcome.verb()
        ),
        facts: vec![("key_unknown", subject.token.key_asked().is_some().into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, policy, token};
    use crate::token::{Policy, Signature, Token, Unchecked};

    fn forged() -> Token {
        Token { signature: Signature::Invalid, ..token(1) }
    }

    #[test]
    fn fires_on_a_signature_that_does_not_verify() {
        for (status, severity) in [(401, Severity::High), (404, Severity::High), (200, Severity::Critical)] {
            let found = Stage::new().status(status).ask(&mut *rule(&Arc::default()), [forged()]);
            assert_eq!(found[0].severity, severity, "{status}");
        }
    }

    #[test]
    fn says_nothing_when_nobody_could_check() {
        for why in [Unchecked::NoIssuer, Unchecked::OverBudget, Unchecked::KeyUnknown] {
            let token = Token { signature: Signature::Unchecked(why), ..token(1) };
            assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
        }
    }

    #[test]
    fn leaves_tricks_with_a_name_to_their_rules() {
        let confused = Token {
            policy: Some(Policy { algorithm_ok: false, ..policy() }),
            ..forged().of_profile(|p| p.alg = Some("HS256".into()))
        };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [confused]).is_empty());
    }

    #[test]
    fn leaves_algorithms_that_were_not_tried_to_their_rule() {
        let policy = Some(Policy { algorithm_ok: false, ..policy() });
        let token = Token { policy, ..forged().of_profile(|p| p.alg = Some("ES256".into())) };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
    }

    #[test]
    fn says_nothing_of_good_tokens() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
