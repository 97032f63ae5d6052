//! `unknown-critical`: a token that demands something of its reader that no reader knows.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "unknown-critical",
    title: "Unknown critical extension",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when the header's `crit` names an extension that is not known, names a member that is absent, or is \
no array, and when `b64` is false (RFC 7515 section 4.1.11, RFC 7797).\n\nA reader that does not know a critical \
extension must refuse the token. One that ignores `crit` takes a token whose meaning its issuer had narrowed, and \
with `b64: false` two readers verify different payloads.\n\nBenign source: an extension that issuer and services \
have agreed on in private; switch the rule off there. It says nothing of tokens whose signature is refuted: that is \
`signature-invalid`.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::UnknownCritical) {
        return None;
    }
    let outcome = subject.outcome();
    let detail = subject.token.flaw_detail().unwrap_or("crit names an unknown extension");
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: 85,
        message: format!(
            "A token with a critical extension that nobody knows ({detail}) {}. Correct readers refuse it.",
            subject.told()
        ),
        brief: format!("unknown critical extension {}", outcome.verb()),
        facts: vec![("flaw", detail.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};
    use crate::token::facts::Flaws;
    use crate::token::{Signature, Token, Unchecked};

    fn critical() -> Token {
        let signature = Signature::Unchecked(Unchecked::Unreadable);
        Token {
            flaws: Flaws::UNKNOWN_CRITICAL,
            signature,
            ..token(1).with_extras(|e| e.flaw_detail = Some("b64 is false"))
        }
    }

    #[test]
    fn is_high_when_accepted() {
        for (status, severity) in [(401, Severity::Medium), (200, Severity::High)] {
            let found = Stage::new().status(status).ask(&mut *rule(&Arc::default()), [critical()]);
            assert_eq!(found[0].severity, severity, "{status}");
            assert!(found[0].facts.contains(&("flaw", "b64 is false".into())));
        }
    }

    #[test]
    fn leaves_forgeries_to_the_rule_that_names_them() {
        let forged = Token { signature: Signature::Invalid, ..critical() };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [forged]).is_empty());
    }

    #[test]
    fn says_nothing_of_good_tokens() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
