//! `alg-none`: a token that asks to be trusted without a signature.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{PerToken, Statement, Subject, severity, show};
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};
use crate::token::facts::Flaws;

/// The card.
pub static ABOUT: About = About {
    id: "alg-none",
    title: "Token without a signature",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires on a JWT whose header's `alg` is `none` in any spelling (capitals, white space, NUL), or whose signature \
part is empty whatever `alg` says.\n\nWhoever strips the signature can write any claims; a verifier that obeys the \
token's own header accepts them (RFC 8725 section 2.1). Capitals are ignored here because some libraries ignore them. An \
answer of 2xx means that the application took the token for good.\n\nBenign source: unsecured JWTs inside a trusted \
mesh. It does not see tokens inside request bodies.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PerToken::new(&ABOUT, Arc::clone(settings), check))
}

fn check(subject: &Subject<'_>, _: &DetectSettings) -> Option<Statement> {
    if cause(subject.token) != Some(Cause::AlgNone) {
        return None;
    }
    let outcome = subject.outcome();
    let alg = show(subject.token.alg.as_deref().unwrap_or_default());
    let trick = if subject.token.flaws.intersects(Flaws::ALG_NONE) {
        format!("alg \"{alg}\"")
    } else {
        format!("empty signature, alg \"{alg}\",")
    };
    Some(Statement {
        severity: severity(&ABOUT, outcome),
        confidence: 100,
        message: format!(
            "A token without a signature ({}) {}. Anyone can write such a token with any claims.",
            trick.trim_end_matches(','),
            subject.told()
        ),
        brief: format!("{trick} {}", outcome.verb()),
        facts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Guard;
    use crate::detect::staging::{Stage, token};
    use crate::token::{Signature, Token};

    fn none(alg: &str, flaw: Flaws) -> Token {
        Token {
            flaws: flaw,
            signature: Signature::Absent,
            ..token(1).of_profile(|p| p.alg = Some(alg.into()))
        }
    }

    #[test]
    fn fires_on_every_spelling_and_on_empty_signatures() {
        for (alg, flaw) in
            [("none", Flaws::ALG_NONE), ("NoNe", Flaws::ALG_NONE), ("RS256", Flaws::EMPTY_SIGNATURE)]
        {
            let found = Stage::new().status(401).ask(&mut *rule(&Arc::default()), [none(alg, flaw)]);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].severity, Severity::High);
            assert!(found[0].brief.ends_with("refused"), "{}", found[0].brief);
        }
    }

    #[test]
    fn is_critical_when_accepted() {
        let found =
            Stage::new().status(200).ask(&mut *rule(&Arc::default()), [none("none", Flaws::ALG_NONE)]);
        assert_eq!(
            (found[0].severity, found[0].brief.as_str()),
            (Severity::Critical, "alg \"none\" accepted")
        );
        assert!(!found[0].principal.as_ref().unwrap().verified);
    }

    #[test]
    fn a_2xx_on_an_open_route_is_only_an_attempt() {
        let stage = Stage::new().status(200).guard(Guard::Open);
        let found = stage.ask(&mut *rule(&Arc::default()), [none("none", Flaws::ALG_NONE)]);
        assert_eq!((found[0].severity, found[0].brief.as_str()), (Severity::High, "alg \"none\" tried"));
    }

    #[test]
    fn another_good_token_may_be_what_was_accepted() {
        let found = Stage::new()
            .status(200)
            .ask(&mut *rule(&Arc::default()), [none("none", Flaws::ALG_NONE), token(2)]);
        assert_eq!(found[0].severity, Severity::High);
    }

    #[test]
    fn ignores_real_algorithms() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
