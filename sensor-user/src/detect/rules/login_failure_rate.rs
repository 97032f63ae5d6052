//! `login-failure-rate`: too many of a service's logins fail.

use std::sync::Arc;

use crate::detect::climate::LoginSeen;
use crate::detect::statement::Statement;
use crate::detect::unusual_share::{Capped, Excess, Limits, UnusualShare};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "login-failure-rate",
    title: "Many logins of a service fail",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1110"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Medium when more than 10 % of a service's logins fail, high above 30 %, over five minutes with at least 50 \
attempts, and only if that is more than twice what is usual there and more than chance (three standard deviations). \
Of one address at most five failures count within five minutes: who fails alone is for `brute-force`.\n\nIt sees \
what no single address or account shows: a wide attack, or a service that has stopped letting people in. The fact \
`outage` tells them apart: then those fail who have logged in before, and nearly nobody gets in. That is one alert, \
and the rules about attackers keep quiet.\n\nBenign sources: a service where many fail all the time, which becomes \
usual: it is learned from the first 200 attempts on, before which only the higher limit counts. A burst teaches no \
more than twice what was usual. Said again after half an hour. 100 bytes a service and 8 an address.",
    cooling_s: 300,
    thresholds: &[
        Threshold {
            key: "warn_percent",
            default: 10.0,
            min: 0.1,
            max: 100.0,
            doc: "Percentage of logins failing above which it is medium.",
        },
        Threshold {
            key: "high_percent",
            default: 30.0,
            min: 0.1,
            max: 100.0,
            doc: "Percentage of logins failing above which it is high.",
        },
        Threshold {
            key: "min_attempts",
            default: 50.0,
            min: 1.0,
            max: 1_000_000.0,
            doc: "Logins within five minutes below which it says nothing.",
        },
    ],
};

/// Failures of one address that count within five minutes.
const CAP: u8 = 5;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(LoginFailureRate { limits: Limits::of(settings, &ABOUT), memory: Default::default() })
}

struct LoginFailureRate {
    limits: Limits,
    memory: (Column<UnusualShare>, Column<Capped>),
}

impl Rule for LoginFailureRate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::LOGIN
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(LoginSeen { login, sky }) = case.login else { return };
        let (services, addresses) = &mut self.memory;
        if login.failed && !addresses.of(case.who.address.slot).counts(case.second(), CAP) {
            return;
        }
        let service = services.of(case.who.service.slot);
        let at_s = case.exchange.at.secs();
        service.add(at_s, login.failed);
        if login.failed {
            report.extend(service.judge(at_s, &self.limits).map(|found| finding(case, found, sky.outage)));
        }
    }
}

fn finding(case: &Case<'_>, found: Excess, outage: bool) -> Finding {
    let Excess { severity, attempts, failures, usual_percent } = found;
    let why = if outage { " Those fail who have logged in before: the service may be broken." } else { "" };
    let mut facts = vec![
        ("attempts_5m", attempts.into()),
        ("failures_5m", failures.into()),
        ("percent", (failures * 100 / attempts.max(1)).into()),
        ("outage", outage.into()),
    ];
    facts.extend(usual_percent.map(|usual| ("usual_percent", usual.round().into())));
    let statement = Statement {
        severity,
        confidence: 80,
        message: format!(
            "{failures} of {attempts} logins failed within five minutes, on {}.{why}",
            case.route.name
        ),
        brief: format!("{} % of logins fail", failures * 100 / attempts.max(1)),
        facts,
    };
    statement.into_service_finding(&ABOUT, case)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Play, Stage};

    fn login(s: u64, person: u64, status: u16) -> Stage {
        Stage::to("POST", "/login")
            .kind(RouteKind::Login)
            .status(status)
            .after_ms(s * 1000)
            .account(&format!("user{person}"))
            .client(&format!("10.{}.{}.1", person / 250, person % 250))
    }

    fn fresh() -> Box<dyn Rule> {
        rule(&Arc::default())
    }

    /// A login a second, so many percent of which fail.
    fn run(play: &mut Play, from: u64, seconds: u64, percent: u64) -> Vec<Finding> {
        let ask = |s: u64| play.ask(&login(s, s % 5000, if s * 37 % 100 < percent { 401 } else { 200 }), []);
        (from..from + seconds).flat_map(ask).collect()
    }

    fn severities(found: &[Finding]) -> Vec<Severity> {
        found.iter().map(|f| f.severity).collect()
    }

    #[test]
    fn the_two_limits_are_kept_to() {
        let mut play = Play::new(fresh());
        assert!(run(&mut play, 0, 3600, 3).is_empty());
        assert_eq!(severities(&run(&mut play, 3600, 900, 18)), [Severity::Medium]);
        assert_eq!(severities(&run(&mut play, 4500, 600, 60)), [Severity::High]);
    }

    #[test]
    fn before_anything_is_usual_only_the_higher_limit_counts() {
        assert!(run(&mut Play::new(fresh()), 0, 190, 25).is_empty());
        assert_eq!(severities(&run(&mut Play::new(fresh()), 0, 190, 60)), [Severity::High]);
    }

    #[test]
    fn quiet_services_and_single_clients_say_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..45 {
            assert!(play.ask(&login(i, i, 401), []).is_empty(), "small");
        }
        let mut play = Play::new(fresh());
        assert!(run(&mut play, 0, 1000, 3).is_empty());
        for i in 0..1000_u64 {
            assert!(play.ask(&login(1000 + i / 4, 9999, 401), []).is_empty(), "alone");
        }
    }

    #[test]
    fn an_outage_is_one_alert_that_says_so() {
        let mut play = Play::new(fresh());
        assert!(run(&mut play, 0, 5000, 0).is_empty());
        let found = run(&mut play, 10_000, 1500, 100);
        assert_eq!(found.len(), 1);
        assert!(found[0].facts.contains(&("outage", true.into())));
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..49 {
            assert!(play.ask(&login(i, i, 401), []).is_empty());
        }
        play.restart(fresh());
        assert_eq!(play.ask(&login(49, 49, 401), []).len(), 1);
    }
}
