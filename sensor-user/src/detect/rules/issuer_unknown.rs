//! `issuer-unknown`: a token of an issuer that nobody here trusts.

use std::sync::Arc;

use crate::detect::cause::cause;
use crate::detect::statement::{PerToken, Statement, Subject, cautious_severity, show};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};
use crate::token::Form;

/// The card.
pub static ABOUT: About = About {
    id: "issuer-unknown",
    title: "Token of an unknown issuer",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a token whose `iss` is missing or is none of the configured issuers. It is silent until at \
least one issuer is configured.\n\nAn application that takes tokens of any issuer lets everybody be their own \
identity provider. Clients send old tokens to routes that check none. So an answer of 2xx counts as accepted \
only where the route is known to refuse strangers; where that is not known yet it is medium at most.\n\nBenign \
source: a service on this host whose issuer nobody configured. Name every issuer in use. A token that is \
refutable by its text is left to the rule that names the trick.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    let readable = matches!(subject.token.form, Form::Jws);
    if !readable || subject.token.policy.is_none_or(|p| p.issuer_known) || cause(subject.token).is_some() {
        return None;
    }
    let outcome = subject.outcome();
    let issuer = subject.token.issuer.as_deref().map(show);
    let named = issuer.as_ref().map_or_else(|| "no issuer".to_owned(), |iss| format!("issuer \"{iss}\""));
    Some(Statement {
        severity: cautious_severity(&ABOUT, subject),
        confidence: 80,
        message: format!("A token with {named}, which is not configured, {}.", subject.told()),
        brief: format!("unknown issuer {}", outcome.verb()),
        facts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Guard;
    use crate::detect::staging::{Stage, token};
    use crate::token::{Policy, Signature, Token, Unchecked};

    fn foreign() -> Token {
        let policy = Some(Policy { issuer_known: false, ..Policy::default() });
        Token {
            policy,
            signature: Signature::Unchecked(Unchecked::NoIssuer),
            ..token(1).of_profile(|p| p.issuer = Some("https://evil.example/".into()))
        }
    }

    #[test]
    fn fires_on_foreign_and_missing_issuers() {
        for issuer in [Some("https://evil.example/".into()), None] {
            let found = Stage::new()
                .status(401)
                .ask(&mut *rule(&Arc::default()), [foreign().of_profile(|p| p.issuer = issuer)]);
            assert_eq!(found[0].severity, Severity::Medium);
        }
        let found =
            Stage::new().status(200).guard(Guard::Refuses).ask(&mut *rule(&Arc::default()), [foreign()]);
        assert_eq!(found[0].severity, Severity::Critical);
    }

    #[test]
    fn is_silent_without_configured_issuers() {
        let token = Token { policy: None, ..foreign() };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
    }

    #[test]
    fn opaque_tokens_have_no_issuer_to_know() {
        let token = Token { form: Form::Opaque, ..foreign() };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
    }
}
