//! `audience-mismatch`: a token that was issued for somebody else.

use std::sync::Arc;

use crate::detect::cause::cause;
use crate::detect::statement::{PerToken, Statement, Subject, cautious_severity, show};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "audience-mismatch",
    title: "Token for another audience",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::Critical),
    attack: &["T1550.001"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a token of a configured issuer whose `aud` holds none of the audiences that the \
configuration allows.\n\nA service that does not check the audience takes tokens that a user gave to another, \
perhaps hostile, service (RFC 8725 section 3.9). Clients send old tokens to routes that check none. So an \
answer of 2xx counts as accepted only where the route is known to refuse strangers; where that is not known yet \
it is medium at most.\n\nBenign source: an audience that nobody configured. A token that is forged is left to \
the rule that names the forgery.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    let policy = subject.token.policy?;
    if !policy.issuer_known || policy.audience_ok || cause(subject.token).is_some() {
        return None;
    }
    let outcome = subject.outcome();
    let audiences: Vec<String> = subject.token.audiences.iter().map(|aud| show(aud)).collect();
    Some(Statement {
        severity: cautious_severity(&ABOUT, subject),
        confidence: if subject.token.is_verified() { 95 } else { 60 },
        message: format!("A token that was issued for another audience {}.", subject.told()),
        brief: format!("wrong audience {}", outcome.verb()),
        facts: vec![("audiences", audiences.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Guard;
    use crate::detect::staging::{Stage, policy, token};
    use crate::token::{Policy, Signature, Token};

    fn misdirected() -> Token {
        Token {
            policy: Some(Policy { audience_ok: false, ..policy() }),
            ..token(1).of_profile(|p| p.audiences = ["billing".into()].into_iter().collect())
        }
    }

    #[test]
    fn fires_on_a_token_for_somebody_else() {
        let found = Stage::new().status(403).ask(&mut *rule(&Arc::default()), [misdirected()]);
        assert_eq!((found[0].severity, found[0].confidence), (Severity::Medium, 95));
        assert!(found[0].principal.as_ref().unwrap().verified);
        let found =
            Stage::new().status(200).guard(Guard::Refuses).ask(&mut *rule(&Arc::default()), [misdirected()]);
        assert_eq!(found[0].severity, Severity::Critical);
    }

    #[test]
    fn leaves_forgeries_to_the_rule_that_names_them() {
        let forged = Token { signature: Signature::Invalid, ..misdirected() };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [forged]).is_empty());
    }

    #[test]
    fn says_nothing_of_good_tokens() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
