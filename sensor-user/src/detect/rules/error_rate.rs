//! `error-rate`: a service that fails more often than it may.

use std::sync::Arc;

use crate::detect::lasting_share::{LEAST_ANSWERS, LastingShare, Tally};
use crate::detect::statement::Statement;
use crate::detect::{About, Case, Column, DetectSettings, Memory, Needs, Report, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "error-rate",
    title: "Service answers with errors",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1499"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Counts the answers of each service (a server address and port) over five whole minutes. Fires when more \
than 1 % are 5xx for two minutes in a row, with at least 10 errors among at least 200 answers; above 5 % it is \
medium.\n\nErrors are what an attack looks like that breaks something: malformed input, exhausted pools, floods. They \
are also what outages look like.\n\nBenign source: deployments, if they take minutes. While it lasts it is told once \
an hour, or when it becomes worse. It costs 96 bytes a service.",
    cooling_s: 300,
    thresholds: &[
        Threshold {
            key: "percent",
            default: 1.0,
            min: 0.01,
            max: 100.0,
            doc: "Share of 5xx above which it fires.",
        },
        Threshold {
            key: "medium_percent",
            default: 5.0,
            min: 0.01,
            max: 100.0,
            doc: "Share above which it is medium.",
        },
        LEAST_ANSWERS,
        Threshold {
            key: "least_errors",
            default: 10.0,
            min: 1.0,
            max: 1_000_000.0,
            doc: "Errors within five minutes below which nothing is said.",
        },
    ],
};

/// Seconds until a share that stays high is told again.
const AGAIN_S: u32 = 3600;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(ErrorRate {
        low: settings.threshold(&ABOUT, "percent"),
        medium: settings.threshold(&ABOUT, "medium_percent"),
        answers: settings.count(&ABOUT, "least_answers"),
        errors: settings.count(&ABOUT, "least_errors"),
        services: Column::default(),
    })
}

struct ErrorRate {
    low: f64,
    medium: f64,
    answers: u32,
    errors: u32,
    services: Column<LastingShare>,
}

impl Rule for ErrorRate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.services)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(status) = case.exchange.status() else { return };
        let second = case.second();
        let share = self.services.of(case.who.service.slot);
        let Some(sum) = share.add(second, (500..600).contains(&status), false) else { return };
        let exceeds = |percent| sum.all >= self.answers && sum.exceeds(sum.some, percent, self.errors);
        let level = u8::from(exceeds(self.low)) + u8::from(exceeds(self.medium.max(self.low)));
        if let Some(level) = share.rises(level, second, AGAIN_S) {
            report.push(statement(case, sum, level).into_service_finding(&ABOUT, case));
        }
    }
}

fn statement(case: &Case<'_>, sum: Tally, level: u8) -> Statement {
    let tenths = u64::from(sum.some) * 1000 / u64::from(sum.all.max(1));
    let (percent, rest, service) = (tenths / 10, tenths % 10, case.exchange.endpoints.server);
    Statement {
        severity: if level > 1 { Severity::Medium } else { ABOUT.severity },
        confidence: 90,
        message: format!(
            "{service} answered {} of {} requests with 5xx within five minutes: {percent}.{rest} %.",
            sum.some, sum.all
        ),
        brief: format!("{percent}.{rest} % errors"),
        facts: vec![("answers", sum.all.into()), ("errors", sum.some.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    /// One answer each second, every so many an error.
    fn run(play: &mut Play, seconds: std::ops::Range<u64>, every: u64) -> Vec<Severity> {
        let ask = |s: u64| {
            let status = if s.is_multiple_of(every) { 503 } else { 200 };
            play.ask(&Stage::new().status(status).after_ms(s * 1000), [])
        };
        seconds.flat_map(ask).map(|f| f.severity).collect()
    }

    #[test]
    fn errors_that_last_fire_once_an_hour_and_when_they_grow() {
        let mut play = play();
        assert_eq!(run(&mut play, 0..1800, 200), [], "0.5 %");
        assert_eq!(run(&mut play, 1800..3600, 25), [Severity::Low]);
        assert_eq!(run(&mut play, 3600..4500, 10), [Severity::Medium]);
        assert_eq!(run(&mut play, 4500..9000, 10), [Severity::Medium], "once more after an hour");
    }

    #[test]
    fn one_bad_minute_is_a_deployment() {
        let mut play = play();
        run(&mut play, 0..600, 10_000);
        assert_eq!(run(&mut play, 600..606, 1), []);
        assert_eq!(run(&mut play, 606..1800, 10_000), []);
    }

    #[test]
    fn few_requests_say_nothing() {
        let mut play = play();
        for i in 0..300 {
            assert!(play.ask(&Stage::new().status(500).after_ms(i * 10_000), []).is_empty());
        }
    }

    #[test]
    fn the_finding_is_about_the_service() {
        let mut play = play();
        let mut found = Vec::new();
        for s in 0..1200_u64 {
            let client = format!("10.0.{}.1", s % 200);
            found.extend(play.ask(&Stage::new().client(&client).status(500).after_ms(s * 1000), []));
        }
        let scene = found[0].scene.as_ref().unwrap();
        assert_eq!((scene.client.to_string().as_str(), &*scene.route), ("0.0.0.0", "-"));
    }

    #[test]
    fn a_restart_keeps_the_shares() {
        let mut play = play();
        assert_eq!(run(&mut play, 0..240, 5), []);
        play.restart(rule(&Arc::default()));
        assert_eq!(run(&mut play, 240..300, 5).len(), 1);
    }
}
