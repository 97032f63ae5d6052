//! `traffic-spike`: a service is asked far more than at this hour of the week.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::statement::Statement;
use crate::detect::{About, Case, Column, DetectSettings, Memory, Needs, Report, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "traffic-spike",
    title: "Far more requests than usual",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1498", "T1499"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Learns for each service (a server address and port) how many requests five minutes have in each hour of the \
week, and how far that varies. After a week it fires when two times five minutes in a row have more than three times \
what this hour and its neighbours have, and more than that by eight times the usual deviation, and at least 1000. From \
ten times the usual it is medium.\n\nFloods, scrapers and guessing campaigns that are spread over many addresses show in \
the sum only.\n\nBenign sources: campaigns, news, retries after an outage. What was a spike counts no more than twice \
the usual when it is learned. Hours are those of UTC; the neighbours make room for summer time. It costs 1.4 KiB a \
service.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "times",
            default: 3.0,
            min: 1.1,
            max: 1000.0,
            doc: "How many times the usual it takes.",
        },
        Threshold {
            key: "deviations",
            default: 8.0,
            min: 1.0,
            max: 100.0,
            doc: "How many usual deviations above it.",
        },
        Threshold {
            key: "least",
            default: 1000.0,
            min: 10.0,
            max: 1_000_000_000.0,
            doc: "Requests within five minutes below which nothing is said.",
        },
        Threshold { key: "learn_days", default: 7.0, min: 1.0, max: 60.0, doc: "Days of learning." },
    ],
};

/// Seconds of a slice.
const SLICE_S: u32 = 300;

/// Hours of a week.
const HOURS: usize = 168;

/// The weight of a new slice: an hour has twelve, so that four weeks count most.
const WEIGHT: f32 = 0.02;

/// Seconds between two findings.
const QUIET_S: u32 = 3600;

/// From so many times the usual it is medium.
const MEDIUM_TIMES: f32 = 10.0;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(TrafficSpike {
        times: narrow(settings.threshold(&ABOUT, "times")),
        deviations: narrow(settings.threshold(&ABOUT, "deviations")),
        least: settings.count(&ABOUT, "least"),
        learn_s: settings.count(&ABOUT, "learn_days").saturating_mul(86_400),
        services: Column::default(),
    })
}

#[allow(clippy::cast_possible_truncation, reason = "thresholds and counts need no more than 24 bits")]
const fn narrow(number: f64) -> f32 {
    number as f32
}

/// What an hour of the week has in five minutes.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Hour {
    mean: f32,
    deviation: f32,
    slices: u16,
}

#[derive(Default, Serialize, Deserialize)]
struct Line {
    since_s: u32,
    slice: u32,
    count: u32,
    above: bool,
    quiet_until_s: u32,
    told_medium: bool,
    hours: Vec<Hour>,
}

struct TrafficSpike {
    times: f32,
    deviations: f32,
    least: u32,
    learn_s: u32,
    services: Column<Line>,
}

impl Hour {
    fn learn(&mut self, count: f32) {
        self.slices = self.slices.saturating_add(1);
        let weight = WEIGHT.max(1.0 / f32::from(self.slices));
        // A spike must not become the usual at once.
        let count = if self.slices > 6 { count.min(self.mean * 2.0 + 10.0) } else { count };
        let distance = (count - self.mean).abs();
        self.mean += (count - self.mean) * weight;
        self.deviation += (distance - self.deviation) * weight;
    }
}

impl Line {
    /// What is usual at this hour, with its neighbours: the largest mean and deviation of those that are known.
    fn usual(&self, slice: u32) -> Option<(f32, f32)> {
        let hour = (slice / 12) as usize % HOURS;
        let near = [hour, (hour + 1) % HOURS, (hour + HOURS - 1) % HOURS];
        let known = near.into_iter().filter_map(|at| self.hours.get(at)).filter(|hour| hour.slices >= 6);
        known.map(|hour| (hour.mean, hour.deviation)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    }

    /// Learns the slice that has ended, and those without any request since.
    fn end(&mut self, slice: u32) -> u32 {
        let count = std::mem::take(&mut self.count);
        if self.hours.is_empty() {
            self.hours = vec![Hour::default(); HOURS];
        }
        let whole_week = u32::try_from(HOURS * 12).unwrap_or(u32::MAX);
        let first = self.slice.max(slice.saturating_sub(whole_week));
        for ended in first..slice {
            let count = if ended == self.slice { count } else { 0 };
            if let Some(hour) = self.hours.get_mut((ended / 12) as usize % HOURS) {
                hour.learn(narrow(f64::from(count)));
            }
        }
        self.slice = slice;
        count
    }
}

impl Rule for TrafficSpike {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.services)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let second = case.second();
        let slice = second / SLICE_S;
        let line = self.services.of(case.who.service.slot);
        if slice <= line.slice {
            line.count = line.count.saturating_add(1);
            return;
        }
        if line.since_s == 0 {
            (line.since_s, line.slice) = (second, slice);
        }
        let usual = line.usual(line.slice);
        let adjoins = slice == line.slice.saturating_add(1);
        let count = line.end(slice);
        line.count = 1;
        let learned = second.saturating_sub(line.since_s) >= self.learn_s;
        let Some((mean, deviation)) = usual.filter(|_| learned && count >= self.least) else {
            line.above = false;
            return;
        };
        let seen = narrow(f64::from(count));
        let deviation = deviation.max(mean.max(1.0).sqrt()).max(mean * 0.1);
        let above = seen > mean * self.times && seen > mean + deviation * self.deviations;
        let lasting = above && line.above && adjoins;
        let is_medium = seen > mean * MEDIUM_TIMES;
        line.above = above;
        if !lasting || (second < line.quiet_until_s && (line.told_medium || !is_medium)) {
            return;
        }
        line.quiet_until_s = second.saturating_add(QUIET_S);
        line.told_medium = is_medium;
        let service = case.exchange.endpoints.server;
        let statement = Statement {
            severity: if is_medium { Severity::Medium } else { ABOUT.severity },
            confidence: 65,
            message: format!(
                "{service} was asked {count} times within five minutes; about {mean:.0} are usual at this hour."
            ),
            brief: format!("{count} requests in 5 min"),
            facts: vec![("requests", count.into()), ("usual", f64::from(mean.round()).into())],
        };
        report.push(statement.into_service_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::DetectSettings;
    use crate::detect::staging::{Play, Stage};

    /// The same with a tenth of the traffic: requests are what this test costs.
    fn small() -> Arc<DetectSettings> {
        let thresholds = crate::detect::Thresholds(vec![("least", 50.0)]);
        let own = crate::detect::RuleSettings { thresholds, ..crate::detect::RuleSettings::default() };
        Arc::new(DetectSettings {
            rules: [("traffic-spike".to_owned(), own)].into(),
            ..DetectSettings::default()
        })
    }

    /// Five minutes with so many requests, away from their ends.
    fn slice(play: &mut Play, number: u64, n: u64) -> Vec<Severity> {
        let ask =
            |i: u64| play.ask(&Stage::new().after_ms((number * 300 + 60 + i * 230 / n.max(1)) * 1000), []);
        (0..n).flat_map(ask).map(|f| f.severity).collect()
    }

    /// Ten requests in five minutes by day, two by night; ten days.
    fn learned() -> Play {
        let mut play = Play::new(rule(&small()));
        for number in 0..2880 {
            let by_day = (number / 144) % 2 == 0;
            assert_eq!(slice(&mut play, number, if by_day { 10 } else { 2 }), [], "{number}");
        }
        play
    }

    #[test]
    fn a_spike_that_lasts_fires_once() {
        let mut play = learned();
        let found: Vec<_> = (2880..2890).flat_map(|number| slice(&mut play, number, 90)).collect();
        assert_eq!(found, [Severity::Low]);
    }

    #[test]
    fn ten_times_the_usual_is_medium() {
        let mut play = learned();
        let found: Vec<_> = (2880..2890).flat_map(|number| slice(&mut play, number, 200)).collect();
        assert_eq!(found, [Severity::Medium]);
    }

    #[test]
    fn short_and_small_spikes_are_left_alone() {
        let mut play = learned();
        assert_eq!(slice(&mut play, 2880, 400), []);
        assert_eq!((2881..2900).flat_map(|number| slice(&mut play, number, 25)).count(), 0);
    }

    #[test]
    fn nothing_is_said_in_the_first_week() {
        let mut play = Play::new(rule(&small()));
        for number in 0..2000 {
            assert_eq!(slice(&mut play, number, if number > 1500 { 100 } else { 5 }), []);
        }
    }

    #[test]
    fn a_restart_keeps_the_line() {
        let mut play = learned();
        play.restart(rule(&small()));
        assert_eq!((2880..2890).flat_map(|number| slice(&mut play, number, 90)).count(), 1);
    }
}
