//! `missing-id`: a token without a name of its own.

use std::sync::Arc;

use crate::detect::remarks::{AGAIN, PerIssuer};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

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
    thresholds: &[AGAIN],
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
    use crate::detect::remarks::tests::is_a_remark;
    use crate::token::Token;

    #[test]
    fn remarks_on_genuine_tokens_and_on_a_norm_once() {
        is_a_remark(|| rule(&Arc::default()), |token| Token { id: None, ..token });
    }
}
