//! `weak-secret`: an HMAC token whose secret is in every word list.

use std::sync::Arc;

use std::time::Duration;

use crate::capture::Time;
use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{Statement, Subject};
use crate::detect::table::Table;
use crate::detect::{About, Case, DetectSettings, Needs, Report, Rule, Severity, When};
use crate::token::facts::Proof;

/// The card.
pub static ABOUT: About = About {
    id: "weak-secret",
    title: "Token signed with a guessable secret",
    version: "1.0.0",
    severity: Severity::Critical,
    accepted: None,
    attack: &["T1110.002", "T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on an HMAC token (`HS256`, `HS384`, `HS512`) that verifies under a list of well-known secrets: \
`secret`, `changeme`, the examples of documentation.\n\nWhoever has one token can find such a secret offline in \
seconds, and then make tokens for anybody. The finding names the number of the secret in the list, never the \
secret.\n\nAsked once a verification, told once an hour for each issuer and key id: the fault is the issuer's, \
not each user's. Benign source: test systems. Without a configured issuer nobody knows whether the token was \
the issuer's or an attempt; where the issuer's keys refute it, it is a forgery as well.",
    cooling_s: 600,
    thresholds: &[],
};

/// Issuers and key ids that are remembered as told. A node has a handful.
const MAX_TOLD: usize = 1024;

/// How long one issuer and key id is not told again.
const QUIET: Duration = Duration::from_hours(1);

pub(super) fn rule(_: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(WeakSecret { told: Table::new(MAX_TOLD) })
}

type Signer = (Option<Arc<str>>, Option<Arc<str>>);

struct WeakSecret {
    told: Table<Signer, Time>,
}

impl WeakSecret {
    fn is_news(&mut self, subject: &Subject<'_>) -> bool {
        let at = subject.case.exchange.ended_at;
        let signer = (subject.token.issuer.clone(), subject.token.kid.clone());
        if let Some(told) = self.told.get(&signer) {
            let news = at.since(*told) >= QUIET;
            if news {
                *told = at;
            }
            return news;
        }
        self.told.get_or(signer, || at);
        true
    }
}

impl Rule for WeakSecret {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let Some(Proof::WeakSecret(number)) = held.token.proof() else { continue };
            let subject = Subject::new(case, held);
            if cause(&held.token) != Some(Cause::WeakSecret) || !self.is_news(&subject) {
                continue;
            }
            let statement = Statement {
                severity: ABOUT.severity,
                confidence: 100,
                message: format!(
                    "A token that is signed with a well-known secret {}. Anyone can sign such tokens.",
                    subject.told()
                ),
                brief: format!("weak secret {}", subject.outcome().verb()),
                facts: vec![("secret_number", number.into())],
            };
            report.push(statement.into_finding(&ABOUT, &subject));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};
    use crate::token::{Signature, Token, Unchecked};

    fn weak(number: u64, kid: &str) -> Token {
        let proof = Some(Proof::WeakSecret(7));
        Token {
            signature: Signature::Unchecked(Unchecked::NoIssuer),
            policy: None,
            ..token(number)
                .of_profile(|p| {
                    p.alg = Some("HS256".into());
                    p.kid = Some(kid.into());
                })
                .with_extras(|e| e.proof = proof)
        }
    }

    #[test]
    fn tells_each_signer_once_an_hour() {
        let mut rule = rule(&Arc::default());
        let mut ask = |ms, token| Stage::new().status(200).after_ms(ms).ask(&mut *rule, [token]).len();
        assert_eq!([ask(0, weak(1, "a")), ask(10, weak(2, "a")), ask(20, weak(3, "b"))], [1, 0, 1]);
        assert_eq!([ask(3_599_999, weak(4, "a")), ask(3_600_000, weak(5, "a"))], [0, 1]);
    }

    #[test]
    fn an_issuer_with_a_weak_secret_is_told_although_it_verifies() {
        let token = Token { signature: Signature::Verified, ..weak(1, "a") };
        let found = Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]);
        assert_eq!(found[0].severity, Severity::Critical);
        assert!(found[0].facts.contains(&("secret_number", 7.into())));
    }

    #[test]
    fn says_nothing_of_good_tokens() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
