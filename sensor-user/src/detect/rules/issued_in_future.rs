//! `issued-in-future`: a token that says it will be issued.

use std::sync::Arc;

use crate::detect::cause::earliness_s;
use crate::detect::remarks::{AGAIN, PerIssuer};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "issued-in-future",
    title: "Token issued in the future",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &[],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when `iat` lies ahead of the request by more than the leeway. Told once a day for each issuer and \
service.\n\nA clock is wrong, at the issuer or here, and with it every judgement about expiry; or somebody makes \
tokens in stock with a stolen key. RFC 7519 gives `iat` no force, so that most verifiers take such a token.\n\nBenign \
source: clocks that drift. `doctor` tells whether the sensor's own does. Forged tokens are left to their rules.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "leeway_s",
            default: 60.0,
            min: 0.0,
            max: 86_400.0,
            doc: "Seconds that `iat` may lie ahead.",
        },
        AGAIN,
    ],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerIssuer::new(&ABOUT, settings, check))
}

fn check(subject: &Subject<'_>, settings: &DetectSettings) -> Option<Statement> {
    let now = i64::try_from(subject.case.exchange.at.secs()).unwrap_or(i64::MAX);
    let ahead = subject.token.issued.get()?.saturating_sub(now);
    // A token that is not valid yet is another rule's.
    let early = earliness_s(subject.token, subject.case.exchange.at).is_some_and(|early| early > 0);
    if early || ahead <= 0 || ahead <= i64::from(settings.count(&ABOUT, "leeway_s")) {
        return None;
    }
    Some(Statement {
        severity: ABOUT.severity,
        confidence: if subject.token.is_verified() { 95 } else { 60 },
        message: format!("A token that says it is issued {ahead} s from now {}.", subject.told()),
        brief: format!("issued {ahead} s ahead"),
        facts: vec![("ahead_s", ahead.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage, token};
    use crate::token::{Signature, Token};

    fn ahead(seconds: i64) -> Token {
        Token { issued: Some(i64::try_from(NOW_S).unwrap().saturating_add(seconds)).into(), ..token(1) }
    }

    fn found(token: Token) -> usize {
        Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token]).len()
    }

    #[test]
    fn forgives_the_leeway_and_no_more() {
        for (seconds, expected) in [(-5, 0), (60, 0), (61, 1), (i64::MAX, 1), (i64::MIN, 0)] {
            assert_eq!(found(ahead(seconds)), expected, "{seconds}");
        }
        assert_eq!(found(Token { issued: None::<i64>.into(), ..token(1) }), 0);
    }

    #[test]
    fn leaves_forgeries_to_the_rule_that_names_them() {
        assert_eq!(found(Token { signature: Signature::Invalid, ..ahead(3600) }), 0);
    }

    #[test]
    fn tells_an_issuer_once_a_day_also_over_a_restart() {
        let mut play = Play::new(rule(&Arc::default()));
        let day = 86_400_000;
        assert_eq!(play.ask(&Stage::new(), [ahead(3600)]).len(), 1);
        assert!(play.ask(&Stage::new().after_ms(1), [ahead(3600)]).is_empty());
        play.restart(rule(&Arc::default()));
        assert!(play.ask(&Stage::new().after_ms(day - 1), [ahead(200_000)]).is_empty());
        assert_eq!(play.ask(&Stage::new().after_ms(day), [ahead(200_000)]).len(), 1);
    }
}
