//! `key-url`: a token that says where to fetch the key to check it with.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity, show};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "key-url",
    title: "Token that names a key server",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a token with `jku` or `x5u` in its header that is not the issuer's own.\n\nA verifier that \
follows the address trusts whoever runs that server, and can be made to call internal hosts (RFC 8725 section \
3.10).\n\nBenign source: issuers that name their own key set, which are recognised once the issuer is \
configured with that address. A token that verifies under its issuer's keys never fires.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::KeyUrl) {
        return None;
    }
    let outcome = subject.outcome();
    let url = subject.token.key_url.as_deref().map(show);
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: 85,
        message: format!(
            "A token that names a key server which is not its issuer's {}. A verifier that asks there trusts the sender.",
            subject.told()
        ),
        brief: format!("foreign key URL {}", outcome.verb()),
        facts: url.map(|url| ("key_url", url.into())).into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, policy, token};
    use crate::token::facts::Flaws;
    use crate::token::{Policy, Signature, Token, Unchecked};

    fn pointing() -> Token {
        let policy = Some(Policy { key_url_ok: false, ..policy() });
        let url = Some("http://169.254.169.254/keys".into());
        Token {
            flaws: Flaws::KEY_URL,
            signature: Signature::Unchecked(Unchecked::NoIssuer),
            policy,
            ..token(1).of_profile(|p| p.key_url = url)
        }
    }

    #[test]
    fn fires_on_a_foreign_key_server() {
        let found = Stage::new().status(401).ask(&mut *rule(&Arc::default()), [pointing()]);
        assert_eq!(found[0].severity, Severity::High);
        assert!(found[0].facts.contains(&("key_url", "http://169.254.169.254/keys".into())));
        let found = Stage::new().status(200).ask(&mut *rule(&Arc::default()), [pointing()]);
        assert_eq!(found[0].severity, Severity::Critical);
    }

    #[test]
    fn the_issuers_own_key_server_is_welcome() {
        let own = Token { policy: Some(policy()), ..pointing() };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [own]).is_empty());
    }
}
