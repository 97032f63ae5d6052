//! `malformed-token`: a token that a strict and a lax reader read differently.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, cautious_severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "malformed-token",
    title: "Token that readers may read differently",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: Some(Severity::Medium),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires on a JWT with duplicate members, padded or otherwise bad base64url, bad JSON or UTF-8, \
registered members of the wrong type (`exp` as a string, `1e999`), the wrong number of parts, a signature of \
impossible length, nesting beyond 32 levels, or more than 16 KiB.\n\nTwo parsers that disagree about one token \
are a way around the stricter one: the gateway checks one `sub`, the service obeys the other. Mostly it is a \
broken client; hence low, and medium when it was accepted on a route that is known to refuse strangers.\n\nNot \
judged: opaque tokens, and tokens whose issuer's signature verifies.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::Malformed) {
        return None;
    }
    let outcome = subject.outcome();
    let detail = subject.token.flaw_detail().unwrap_or("not readable as a JWT");
    Some(Statement {
        severity: cautious_severity(&ABOUT, subject),
        confidence: 80,
        message: format!(
            "A malformed token ({detail}) {}. Lax readers may see other claims than strict ones.",
            subject.told()
        ),
        brief: format!("malformed token {}: {detail}", outcome.verb()),
        facts: vec![("flaw", detail.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Guard;
    use crate::detect::staging::{Stage, token};
    use crate::token::facts::Flaws;
    use crate::token::{Form, Signature, Token, Unchecked};

    fn broken() -> Token {
        Token {
            flaws: Flaws::DUPLICATE_MEMBERS,
            signature: Signature::Unchecked(Unchecked::NoIssuer),
            ..token(1).with_extras(|e| e.flaw_detail = Some("duplicate member in payload"))
        }
    }

    #[test]
    fn says_what_is_malformed() {
        let found = Stage::new().status(401).ask(&mut *rule(&Arc::default()), [broken()]);
        assert_eq!(
            (found[0].severity, found[0].brief.as_str()),
            (Severity::Low, "malformed token refused: duplicate member in payload")
        );
    }

    #[test]
    fn is_worse_where_strangers_are_refused() {
        let found =
            Stage::new().status(200).guard(Guard::Refuses).ask(&mut *rule(&Arc::default()), [broken()]);
        assert_eq!(found[0].severity, Severity::Medium);
        let found = Stage::new().status(200).ask(&mut *rule(&Arc::default()), [broken()]);
        assert_eq!(found[0].severity, Severity::Low);
    }

    #[test]
    fn opaque_tokens_are_not_malformed() {
        let opaque =
            Token { form: Form::Opaque, signature: Signature::Unchecked(Unchecked::Unreadable), ..token(1) };
        assert!(Stage::new().status(401).ask(&mut *rule(&Arc::default()), [opaque]).is_empty());
    }
}
