//! `costly-token`: a token that makes its reader work absurdly hard.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "costly-token",
    title: "Token made to exhaust its reader",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1499"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when the header asks for more than 1,200,000 rounds of PBKDF2 (`p2c`), when a compressed payload \
inflates to more than 64 KiB, and when an encrypted token of more than 8 KiB is compressed (`zip`): deflate packs a \
thousand bytes into one, so that such a token may become 8 MiB.\n\nOne request keeps a core busy for seconds or \
fills the memory (CVE-2023-51775, CVE-2024-28176, CVE-2024-21319), before any key is checked.\n\nWhat inflates is \
counted and thrown away here, 64 KiB at most. There is no benign source for `p2c`; a compressed and encrypted token \
of more than 8 KiB is unheard of, as most servers take no header of that size.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::Costly) {
        return None;
    }
    let outcome = subject.outcome();
    let detail = subject.token.flaw_detail().unwrap_or("p2c asks for absurd work");
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: 90,
        message: format!("A token that exhausts whoever reads it ({detail}) {}.", subject.told()),
        brief: format!("costly token {}", outcome.verb()),
        facts: vec![("flaw", detail.into()), ("bytes", subject.token.length.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};
    use crate::token::facts::Flaws;
    use crate::token::{Form, Signature, Token, Unchecked};

    fn costly(form: Form) -> Token {
        let signature = Signature::Unchecked(Unchecked::Unreadable);
        Token { form, flaws: Flaws::COSTLY, signature, policy: None, ..token(1) }
    }

    #[test]
    fn fires_on_signed_and_encrypted_tokens() {
        for form in [Form::Jws, Form::Jwe, Form::Malformed] {
            for (status, severity) in [(401, Severity::Medium), (200, Severity::High)] {
                let found = Stage::new().status(status).ask(&mut *rule(&Arc::default()), [costly(form)]);
                assert_eq!(found[0].severity, severity, "{form:?} {status}");
            }
        }
    }

    #[test]
    fn says_nothing_of_good_tokens() {
        let encrypted = Token { flaws: Flaws::default(), ..costly(Form::Jwe) };
        for token in [token(1), encrypted] {
            assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).is_empty());
        }
    }
}
