//! `not-yet-valid`: a token before its time.

use std::sync::Arc;

use crate::detect::cause::{cause, earliness_s};
use crate::detect::statement::{PerToken, Statement, Subject, cautious_severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "not-yet-valid",
    title: "Token before its time",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a token is used before its `nbf` by more than the leeway. Clocks that differ explain \
seconds, not minutes; hoarded or forged tokens explain the rest.\n\nClients send old tokens to routes that \
check none. So an answer of 2xx counts as accepted only where the route is known to refuse strangers; where \
that is not known yet it is medium at most.\n\nThe time is that of the request, not of the verdict. Claims of a \
token that nobody can verify (no issuer configured) are judged too, and marked as unverified; a token that is \
forged is left to the rule that names the forgery. Some platforms allow five minutes (`leeway_s: 300`).",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "leeway_s",
        default: 60.0,
        min: 0.0,
        max: 86_400.0,
        doc: "Seconds before `nbf` that are forgiven.",
    }],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, settings: &DetectSettings) -> Option<Statement> {
    let off = earliness_s(subject.token, subject.case.exchange.at)?;
    if off <= 0 || off <= i64::from(settings.count(&ABOUT, "leeway_s")) || cause(subject.token).is_some() {
        return None;
    }
    let outcome = subject.outcome();
    Some(Statement {
        severity: cautious_severity(&ABOUT, subject),
        confidence: if subject.token.is_verified() { 100 } else { 70 },
        message: format!("A token that was not valid for another {off} s {}.", subject.told()),
        brief: format!("not yet valid token {}", outcome.verb()),
        facts: vec![("early_s", off.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, judges_times_with_care, token};
    use crate::token::Token;

    #[test]
    fn judges_times_with_care_and_leaves_forgeries() {
        judges_times_with_care(rule, |seconds| {
            let now = i64::try_from(NOW_S).unwrap();
            Token { not_before: Some(now + seconds).into(), ..token(1) }
        });
    }
}
