//! `alg-confusion`: a token that makes the issuer's public key its secret.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{Outcome, PerToken, Statement, Subject};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};
use crate::token::facts::Proof;

/// The card.
pub static ABOUT: About = About {
    id: "alg-confusion",
    title: "HMAC in the name of an asymmetric issuer",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on an HMAC token (`HS256`, `HS384`, `HS512`) in the name of an issuer that signs with \
asymmetric keys only. It is proof when the HMAC verifies under the issuer's public key, taken as a secret in \
one of the forms that libraries hold it in: PEM with and without the final newline, DER, the text of the JWK, \
the modulus.\n\nA verifier that lets the header choose the algorithm computes the HMAC with what it has, the \
public key, which everybody knows (RFC 8725 section 2.1).\n\nWithout proof an attempt is medium: a service may \
use a secret of its own under the same issuer name. With proof it is high. Accepted it is critical either way. \
It needs the issuer's keys in the configuration.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::AlgConfusion) {
        return None;
    }
    let outcome = subject.outcome();
    let alg = subject.token.alg.as_deref().unwrap_or("HMAC");
    let (form, confidence, known) = match subject.token.proof() {
        Some(Proof::HmacUnderPublicKey(form)) => (Some(form), 100, "verifies under the issuer's public key"),
        _ => (None, 70, "names an issuer that signs with asymmetric keys only"),
    };
    let severity = match (outcome, form) {
        (Outcome::Accepted, _) => Severity::Critical,
        (_, Some(_)) => Severity::High,
        (_, None) => Severity::Medium,
    };
    Some(Statement {
        severity,
        confidence,
        message: format!("An {alg} token that {known} {}. The public key is no secret.", subject.told()),
        brief: format!("{alg} under public key {}", outcome.verb()),
        facts: form.map(|form| ("public_key_form", form.into())).into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, policy, token};
    use crate::token::{Policy, Signature, Token, Unchecked};

    fn confused(proof: Option<Proof>) -> Token {
        let policy = Some(Policy { algorithm_ok: false, ..policy() });
        Token {
            signature: Signature::Invalid,
            policy,
            ..token(1).of_profile(|p| p.alg = Some("HS256".into())).with_extras(|e| e.proof = proof)
        }
    }

    #[test]
    fn proof_is_worse_than_suspicion() {
        for (proof, severity, confidence) in
            [(None, Severity::Medium, 70), (Some(Proof::HmacUnderPublicKey("PEM")), Severity::High, 100)]
        {
            let found = Stage::new().status(401).ask(&mut *rule(&Arc::default()), [confused(proof)]);
            assert_eq!((found[0].severity, found[0].confidence), (severity, confidence));
            let found = Stage::new().status(200).ask(&mut *rule(&Arc::default()), [confused(proof)]);
            assert_eq!(found[0].severity, Severity::Critical);
        }
    }

    #[test]
    fn an_issuer_with_secrets_may_use_hmac() {
        let policy = Some(Policy { issuer_asymmetric: false, ..policy() });
        let token = Token {
            signature: Signature::Unchecked(Unchecked::OverBudget),
            policy,
            ..token(1).of_profile(|p| p.alg = Some("HS256".into()))
        };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
    }

    #[test]
    fn without_a_policy_there_is_no_confusion() {
        let token = Token {
            signature: Signature::Unchecked(Unchecked::NoIssuer),
            policy: None,
            ..token(1).of_profile(|p| p.alg = Some("HS256".into()))
        };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
    }
}
