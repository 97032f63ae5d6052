//! `slow-responses`: a service whose slowest answers are slower than they may be.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::detect::lasting_share::{LEAST_ANSWERS, LastingShare, Tally};
use crate::detect::statement::Statement;
use crate::detect::{About, Case, Column, DetectSettings, Memory, Needs, Report, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "slow-responses",
    title: "Service answers slowly",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1499"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Counts, for each service (a server address and port), the answers whose first byte came later than 2 s after \
the request's head, over five whole minutes. Fires when they are more than 1 % for two minutes in a row, which is to \
say when the 99th percentile is above 2 s, with at least 10 of them among at least 200 answers. It is medium when the \
99th percentile is above 5 s.\n\nExpensive requests, time-based injection and floods make a service slow; so does \
overload.\n\nBenign source: long polls and event streams. A route of which more than half of twenty answers or more \
were slow is meant to wait and does not count. Uploads are measured from their head, and so look slow when their bodies \
are. It costs 96 bytes a service and 8 a route. While it lasts it is told once an hour, or when it becomes worse.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "p99_s",
            default: 2.0,
            min: 0.01,
            max: 600.0,
            doc: "99th percentile above which it fires.",
        },
        Threshold {
            key: "medium_p99_s",
            default: 5.0,
            min: 0.01,
            max: 600.0,
            doc: "99th percentile above which it is medium.",
        },
        LEAST_ANSWERS,
        Threshold {
            key: "least_slow",
            default: 10.0,
            min: 1.0,
            max: 1_000_000.0,
            doc: "Slow answers within five minutes below which nothing is said.",
        },
    ],
};

/// Seconds until what stays slow is told again.
const AGAIN_S: u32 = 3600;

/// Answers after which a route can be known to wait.
const KNOWN: u16 = 20;

/// The 99th percentile is above a limit if more than this share is.
const PERCENT: f64 = 1.0;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    let limit = |key| Duration::from_secs_f64(settings.threshold(&ABOUT, key));
    Box::new(SlowResponses {
        slow: limit("p99_s"),
        slower: limit("medium_p99_s"),
        answers: settings.count(&ABOUT, "least_answers"),
        least: settings.count(&ABOUT, "least_slow"),
        memory: (Column::default(), Column::default()),
    })
}

/// Answers of one route; halved when they become many.
#[derive(Default, Serialize, Deserialize)]
struct Waits {
    all: u16,
    slow: u16,
}

impl Waits {
    fn note(&mut self, slow: bool) -> bool {
        if self.all >= 1000 {
            (self.all, self.slow) = (self.all / 2, self.slow / 2);
        }
        self.all += 1;
        self.slow += u16::from(slow);
        self.all >= KNOWN && self.slow > self.all / 2
    }
}

struct SlowResponses {
    slow: Duration,
    slower: Duration,
    answers: u32,
    least: u32,
    memory: (Column<LastingShare>, Column<Waits>),
}

impl Rule for SlowResponses {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(latency) = case.exchange.latency else { return };
        let (second, slow) = (case.second(), latency > self.slow);
        let (services, routes) = &mut self.memory;
        if routes.of(case.route.slot).note(slow) {
            return;
        }
        let share = services.of(case.who.service.slot);
        let Some(sum) = share.add(second, slow, latency > self.slower) else { return };
        let exceeds = |part| sum.all >= self.answers && sum.exceeds(part, PERCENT, self.least);
        let level = u8::from(exceeds(sum.some)) + u8::from(exceeds(sum.worse));
        if let Some(level) = share.rises(level, second, AGAIN_S) {
            let limit = if level > 1 { self.slower } else { self.slow };
            report.push(statement(case, sum, level, limit).into_service_finding(&ABOUT, case));
        }
    }
}

fn statement(case: &Case<'_>, sum: Tally, level: u8, limit: Duration) -> Statement {
    let (service, limit) = (case.exchange.endpoints.server, limit.as_secs_f64());
    Statement {
        severity: if level > 1 { Severity::Medium } else { ABOUT.severity },
        confidence: 90,
        message: format!(
            "{service} took longer than {limit} s for {} of {} answers within five minutes: its 99th percentile is \
             above that.",
            if level > 1 { sum.worse } else { sum.some },
            sum.all
        ),
        brief: format!("p99 above {limit} s"),
        facts: vec![
            ("answers", sum.all.into()),
            ("slow_answers", sum.some.into()),
            ("slower_answers", sum.worse.into()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    /// One answer each second; every twentieth takes so long.
    fn run(
        play: &mut Play,
        seconds: std::ops::Range<u64>,
        slow_ms: u64,
        path: &str,
        every: u64,
    ) -> Vec<Severity> {
        let ask = |s: u64| {
            let mut stage = Stage::to("GET", path).status(200).after_ms(s * 1000);
            stage.exchange.latency =
                Some(Duration::from_millis(if s.is_multiple_of(every) { slow_ms } else { 20 }));
            play.ask(&stage, [])
        };
        seconds.flat_map(ask).map(|f| f.severity).collect()
    }

    #[test]
    fn slow_answers_that_last_fire_and_slower_ones_are_medium() {
        let mut play = play();
        assert_eq!(run(&mut play, 0..1800, 1900, "/a", 20), []);
        assert_eq!(run(&mut play, 1800..3600, 2100, "/a", 20), [Severity::Low]);
        assert_eq!(run(&mut play, 3600..4800, 5100, "/a", 20), [Severity::Medium]);
    }

    #[test]
    fn long_polls_do_not_count() {
        let mut play = play();
        assert_eq!(run(&mut play, 0..60, 30, "/a", 1), []);
        assert_eq!(run(&mut play, 60..7200, 30_000, "/events", 1), []);
    }

    #[test]
    fn what_was_not_measured_says_nothing() {
        let mut play = play();
        assert!((0..5000).all(|i| play.ask(&Stage::new().after_ms(i * 100), []).is_empty()));
    }

    #[test]
    fn a_restart_keeps_the_shares() {
        let mut play = play();
        run(&mut play, 0..600, 20, "/a", 20);
        assert_eq!(run(&mut play, 600..660, 3000, "/a", 5), []);
        play.restart(rule(&Arc::default()));
        assert_eq!(run(&mut play, 660..780, 3000, "/a", 5).len(), 1);
    }
}
