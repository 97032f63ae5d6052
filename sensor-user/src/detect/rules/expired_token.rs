//! `expired-token`: a token after its time.

use std::sync::Arc;

use crate::detect::cause::{cause, lateness_s};
use crate::detect::statement::{PerToken, Statement, Subject, cautious_severity};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "expired-token",
    title: "Expired token",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: Some(Severity::Critical),
    attack: &["T1550.001"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a token is used after its `exp` by more than the leeway. Repeated use of one expired token \
is one alert. A client with an old token is daily life, hence low; an application that accepts it makes every \
leaked token valid for ever, hence critical.\n\nClients send old tokens to routes that check none. So an answer \
of 2xx counts as accepted only where the route is known to refuse strangers; where that is not known yet it is \
medium at most.\n\nThe time is that of the request, not of the verdict. Claims of a token that nobody can \
verify (no issuer configured) are judged too, and marked as unverified; a token that is forged is left to the \
rule that names the forgery. Some platforms allow five minutes (`leeway_s: 300`).",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "leeway_s",
        default: 60.0,
        min: 0.0,
        max: 86_400.0,
        doc: "Seconds after `exp` that are forgiven.",
    }],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, settings: &DetectSettings) -> Option<Statement> {
    let off = lateness_s(subject.token, subject.case.exchange.at)?;
    if off <= 0 || off <= i64::from(settings.count(&ABOUT, "leeway_s")) || cause(subject.token).is_some() {
        return None;
    }
    let outcome = subject.outcome();
    Some(Statement {
        severity: cautious_severity(&ABOUT, subject),
        confidence: if subject.token.is_verified() { 100 } else { 70 },
        message: format!("A token that had expired {off} s earlier {}.", subject.told()),
        brief: format!("expired token {}", outcome.verb()),
        facts: vec![("expired_s", off.into())],
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
            Token { expires: Some(now - seconds).into(), ..token(1) }
        });
    }
}
