//! `missing-id`: a token without a name of its own.

use std::sync::Arc;

use crate::detect::remarks::PerIssuer;
use crate::detect::statement::{Statement, Subject};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "missing-id",
    title: "Token without id",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &[],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a token without `jti`. Told once a day for each subject and \
address; where it is the norm of a service (one use in ten), once a day for the issuer.\n\nDeny lists name tokens by `jti`: \
without one, a stolen token cannot be revoked before it expires, a replay cannot be told from a use, and what a \
thief did is harder to find in logs (here it is not: the fingerprint names every token).\n\nBenign source: many \
issuers leave it out, as RFC 7519 allows; RFC 9068 requires it of access tokens. It is a remark on how tokens are \
made, and no sign of an attack. Judged are tokens that their issuer's keys verify, and any where no issuer is \
configured.",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "again_s",
        default: 86_400.0,
        min: 60.0,
        max: 2_592_000.0,
        doc: "Seconds after which an issuer is told of again.",
    }],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerIssuer::new(&ABOUT, settings, check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    subject.token.id.is_none().then(|| Statement {
        severity: ABOUT.severity,
        confidence: if subject.token.is_verified() { 100 } else { 70 },
        message: format!("A token without an id, which no deny list can name, {}.", subject.told()),
        brief: "token without id".to_owned(),
        facts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, policy, token};
    use crate::token::{Form, Policy, Signature, Token, Unchecked};

    fn without() -> Token {
        Token { id: None, ..token(1) }
    }

    fn found(token: Token) -> usize {
        Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).len()
    }

    #[test]
    fn fires_on_verified_tokens_and_where_no_issuer_is_configured() {
        let unchecked = Signature::Unchecked(Unchecked::NoIssuer);
        assert_eq!(found(without()), 1);
        assert_eq!(found(Token { signature: unchecked, policy: None, ..without() }), 1);
    }

    #[test]
    fn is_silent_on_forged_foreign_opaque_and_good_tokens() {
        let stranger = Some(Policy { issuer_known: false, ..policy() });
        let unchecked = Signature::Unchecked(Unchecked::NoIssuer);
        for token in [
            token(1),
            Token { signature: Signature::Invalid, ..without() },
            Token { signature: unchecked, policy: stranger, ..without() },
            Token { form: Form::Opaque, signature: Signature::Unchecked(Unchecked::Unreadable), ..without() },
        ] {
            assert_eq!(found(token), 0);
        }
    }

    #[test]
    fn tells_a_norm_once_a_day_for_the_issuer_also_over_a_restart() {
        let mut play = Play::new(rule(&Arc::default()));
        assert_eq!(play.ask(&Stage::new(), [without()]).len(), 1);
        play.restart(rule(&Arc::default()));
        let mut found = 0;
        for number in 2..1000_u64 {
            let token = Token { id: None, subject: Some(format!("s{number}").into()), ..token(number) };
            found += play.ask(&Stage::new().after_ms(number), [token]).len();
        }
        assert_eq!(found, 19, "until it is known to be the norm, and the norm");
        let mut elsewhere = Stage::new();
        elsewhere.exchange.endpoints.server = "10.0.0.2:8080".parse().unwrap();
        assert_eq!(play.ask(&elsewhere, [without()]).len(), 1);
        assert_eq!(play.ask(&Stage::new().after_ms(86_400_000), [without()]).len(), 1);
    }
}
