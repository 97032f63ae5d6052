//! `token-failure-rate`: too many of the tokens that a service is sent are refused.

use std::sync::Arc;

use crate::detect::challenge::asks_for_nonce;
use crate::detect::rule::RouteKind;
use crate::detect::statement::Statement;
use crate::detect::unusual_share::{Capped, Excess, Limits, UnusualShare};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold,
};

/// The card.
pub static ABOUT: About = About {
    id: "token-failure-rate",
    title: "Many tokens of a service are refused",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1550.001"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Medium when more than 5 % of a service's requests with a token are refused with 401, high above 15 %, over \
five minutes with at least 200 such requests, and only if that is more than twice what is usual there and more than \
chance (three standard deviations). Of one token at most three refusals count within five minutes, and requests \
beyond these not at all.\n\nMany tokens refused at once are many forged or stolen ones being tried, or keys that were \
rotated and not published: both want somebody to look.\n\nBenign sources: clients that find out by a 401 that their \
token has expired, which is usual where it happens, and one that goes on for ever with a dead token, which counts \
three times. What is usual is learned from the first 200 requests on, before which only the higher limit counts. 403 \
does not count: the token was good and its owner not entitled. Nor does an answer that only asks for a `DPoP` nonce. \
Said again after half an hour. 100 bytes a service and 8 a token that was refused.",
    cooling_s: 300,
    thresholds: &[
        Threshold {
            key: "warn_percent",
            default: 5.0,
            min: 0.1,
            max: 100.0,
            doc: "Percentage of requests refused above which it is medium.",
        },
        Threshold {
            key: "high_percent",
            default: 15.0,
            min: 0.1,
            max: 100.0,
            doc: "Percentage of requests refused above which it is high.",
        },
        Threshold {
            key: "min_attempts",
            default: 200.0,
            min: 1.0,
            max: 1_000_000.0,
            doc: "Requests with a token within five minutes below which it says nothing.",
        },
    ],
};

/// Refusals of one token that count within five minutes.
const CAP: u8 = 3;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(TokenFailureRate { limits: Limits::of(settings, &ABOUT), memory: Default::default() })
}

struct TokenFailureRate {
    limits: Limits,
    memory: (Column<UnusualShare>, Column<Capped>),
}

impl Rule for TokenFailureRate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    #[inline]
    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some((_, token)) = case.who.tokens.first() else { return };
        let Some(status) = case.exchange.status() else { return };
        let (services, tokens) = &mut self.memory;
        let service = services.of(case.who.service.slot);
        let at_s = case.exchange.at.secs();
        if status != 401 {
            service.add(at_s, false);
            return;
        }
        if asks_for_nonce(case.exchange) {
            return;
        }
        // A wrong password beside an old token is the password's failure.
        if case.route.kind == RouteKind::Login || !tokens.of(token.slot).counts(case.second(), CAP) {
            return;
        }
        service.add(at_s, true);
        report.extend(service.judge(at_s, &self.limits).map(|found| finding(case, found)));
    }
}

fn finding(case: &Case<'_>, found: Excess) -> Finding {
    let Excess { severity, attempts, failures, usual_percent } = found;
    let percent = failures * 100 / attempts.max(1);
    let mut facts =
        vec![("attempts_5m", attempts.into()), ("failures_5m", failures.into()), ("percent", percent.into())];
    facts.extend(usual_percent.map(|usual| ("usual_percent", usual.round().into())));
    let statement = Statement {
        severity,
        confidence: 75,
        message: format!(
            "{failures} of {attempts} requests with a token were refused with 401 within five minutes, the newest on {}.",
            case.route.name
        ),
        brief: format!("{percent} % of tokens refused"),
        facts,
    };
    statement.into_service_finding(&ABOUT, case)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};

    fn fresh() -> Box<dyn Rule> {
        rule(&Arc::default())
    }

    /// Five requests a second, each with a token of its own, so many percent of which are refused.
    fn run(rule: &mut dyn Rule, from: u64, seconds: u64, percent: u64) -> Vec<Severity> {
        let ask = |i: u64| {
            let status = if i * 37 % 100 < percent { 401 } else { 200 };
            Stage::new().status(status).after_ms(i * 200).ask(rule, [token(i)])
        };
        (from * 5..(from + seconds) * 5).flat_map(ask).map(|f| f.severity).collect()
    }

    #[test]
    fn the_two_limits_are_kept_to() {
        let mut rule = fresh();
        assert_eq!(run(&mut *rule, 0, 1800, 1), []);
        assert_eq!(run(&mut *rule, 1800, 600, 9), [Severity::Medium]);
        assert_eq!(run(&mut *rule, 2400, 600, 50), [Severity::High]);
    }

    #[test]
    fn few_requests_say_nothing() {
        assert_eq!(run(&mut *fresh(), 0, 39, 100), []);
        assert_eq!(run(&mut *fresh(), 0, 41, 100), [Severity::High]);
    }

    #[test]
    fn one_dead_token_and_usual_expiry_are_benign() {
        let mut rule = fresh();
        assert_eq!(run(&mut *rule, 0, 600, 1), []);
        for i in 0..3000_u64 {
            let stage = Stage::new().status(401).after_ms(600_000 + i * 100);
            assert!(stage.ask(&mut *rule, [token(7)]).is_empty());
        }
        let mut rule = fresh();
        assert_eq!(run(&mut *rule, 0, 7200, 8), [], "every token is refused once when it has expired");
    }

    #[test]
    fn other_refusals_and_requests_without_tokens_do_not_count() {
        let mut rule = fresh();
        for i in 0..1000 {
            assert!(Stage::new().status(403).after_ms(i).ask(&mut *rule, [token(i)]).is_empty());
            assert!(Stage::new().status(401).after_ms(i).ask(&mut *rule, []).is_empty());
        }
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..199 {
            assert!(play.ask(&Stage::new().status(401).after_ms(i), [token(i)]).is_empty());
        }
        play.restart(fresh());
        assert_eq!(play.ask(&Stage::new().status(401).after_ms(200), [token(200)]).len(), 1);
    }
}
