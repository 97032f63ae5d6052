//! `missing-expiry`: a token that is good for ever.

use std::sync::Arc;

use crate::detect::remarks::{AGAIN, PerIssuer};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "missing-expiry",
    title: "Token without expiry",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &[],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires on a token without `exp`. Told once a day for each subject and \
address; where it is the norm of a service (one use in ten), once a day for the issuer.\n\nA token without an end is good for \
whoever finds it, in a log, a backup, a repository, for as long as its key lives; revoking it means changing the \
key.\n\nBenign source: service tokens from before expiry was usual, such as the long-lived ones of Kubernetes \
before 1.24. Judged are tokens that their issuer's keys verify, and any where no issuer is configured; forged ones \
are left to their rules, and opaque ones cannot be read.",
    cooling_s: 600,
    thresholds: &[AGAIN],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerIssuer::new(&ABOUT, settings, check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    subject.token.expires.get().is_none().then(|| Statement {
        severity: ABOUT.severity,
        confidence: if subject.token.is_verified() { 100 } else { 70 },
        message: format!("A token that never expires {}.", subject.told()),
        brief: "token without expiry".to_owned(),
        facts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::remarks::tests::is_a_remark;
    use crate::token::Token;

    #[test]
    fn remarks_on_genuine_tokens_and_on_a_norm_once() {
        is_a_remark(|| rule(&Arc::default()), |token| Token { expires: None::<i64>.into(), ..token });
    }
}
