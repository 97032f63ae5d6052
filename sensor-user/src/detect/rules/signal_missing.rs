//! `signal-missing`: a service that is always asked falls silent.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::Time;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold,
};

/// The card.
pub static ABOUT: About = About {
    id: "signal-missing",
    title: "A service has fallen silent",
    version: "1.1.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1562.006", "T1489"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Learns for each service (a server address and port) the longest silence of each of the last seven days. \
Fires when no request was seen for four times the longest of them, and for at least five minutes, if the service has \
been seen on two days before and had 1000 requests in the day before. Told once a silence. What was told is no \
usual silence, unless it is the fourth within five days, or the fourth in a row that begins at the same time of day.\n\nA sensor that no longer \
sees a service may have been blinded, and a service that is no longer asked may have been stopped or bypassed.\n\n\
Benign sources: a service that is taken down or moved. Nights are silences that are learned in the first days, so a \
service that sleeps is known to sleep; longer ones, such as week-ends, after they were told three times. While the sensor itself lags or stands still no time \
passes for it, and nothing is said. It costs 110 bytes a service.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "times",
            default: 4.0,
            min: 1.5,
            max: 100.0,
            doc: "How many times the longest usual silence it takes.",
        },
        Threshold {
            key: "least_s",
            default: 300.0,
            min: 10.0,
            max: 86_400.0,
            doc: "Seconds of silence it takes at least.",
        },
        Threshold {
            key: "requests_per_day",
            default: 1000.0,
            min: 10.0,
            max: 1_000_000_000.0,
            doc: "Requests within a day that make a service steady.",
        },
    ],
};

const DAY_S: u32 = 86_400;
const DAYS: u32 = 7;

/// So many silences that were told before make another one usual: if they were all within these seconds, or all began
/// at the same time of day, give or take.
const REPEATS: usize = 3;
const IRREGULAR_S: u32 = 5 * DAY_S;
const SAME_TIME_S: u32 = 1800;

/// Whole days of history that it takes.
const LEARN_DAYS: u8 = 2;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(SignalMissing {
        times: settings.threshold(&ABOUT, "times"),
        least_s: settings.count(&ABOUT, "least_s"),
        requests: settings.count(&ABOUT, "requests_per_day"),
        services: Column::default(),
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Pulse {
    server: Option<SocketAddr>,
    newest_s: u32,
    day: u32,
    today: u32,
    yesterday: u32,
    longest: [u32; DAYS as usize],
    days: u8,
    told: bool,
    /// Whether a silence was told that ended today: such a day says little of how busy days are.
    broken: bool,
    /// When the newest silences began that were told; the oldest first.
    starts: [u32; REPEATS],
}

struct SignalMissing {
    times: f64,
    least_s: u32,
    requests: u32,
    services: Column<Pulse>,
}

impl Pulse {
    fn beat(&mut self, second: u32) {
        let silence = second.saturating_sub(self.newest_s);
        let day = second / DAY_S;
        if self.newest_s == 0 {
            self.day = day;
        } else if day > self.day {
            let next = day - self.day == 1;
            self.yesterday = match (next, self.told || self.broken) {
                (false, _) => 0,
                (true, false) => self.today,
                (true, true) => self.today.max(self.yesterday),
            };
            self.broken = false;
            self.today = 0;
            self.days = self.days.saturating_add(1);
            self.day = day;
            if let Some(longest) = self.longest.get_mut((day % DAYS) as usize) {
                *longest = 0;
            }
        }
        let usual = !self.told || self.is_repeated();
        if self.newest_s > 0
            && usual
            && let Some(longest) = self.longest.get_mut((day % DAYS) as usize)
        {
            *longest = silence.max(*longest);
        }
        self.today = self.today.saturating_add(1);
        self.newest_s = self.newest_s.max(second);
        self.broken |= self.told;
        self.told = false;
    }

    /// Whether the silence that was told and ends now is one of many. Notes it.
    fn is_repeated(&mut self) -> bool {
        let start = self.newest_s;
        let [oldest, rest @ ..] = self.starts;
        let same_time = |earlier: u32| {
            let apart = start.saturating_sub(earlier) % DAY_S;
            apart <= SAME_TIME_S || apart >= DAY_S - SAME_TIME_S
        };
        let often = start.saturating_sub(oldest) <= IRREGULAR_S;
        let known = oldest > 0 && (often || self.starts.iter().all(|earlier| same_time(*earlier)));
        let [second, third] = rest;
        self.starts = [second, third, start];
        known
    }

    /// Seconds of silence after which something is missing.
    fn limit_s(&self, times: f64, least_s: u32) -> f64 {
        let longest = self.longest.iter().max().copied().unwrap_or_default();
        (f64::from(longest) * times).max(f64::from(least_s))
    }
}

impl Rule for SignalMissing {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.services)
    }

    fn judge(&mut self, case: &Case<'_>, _report: &mut Report) {
        let pulse = self.services.of(case.who.service.slot);
        pulse.server = Some(case.exchange.endpoints.server);
        pulse.beat(case.second());
    }

    fn tick(&mut self, now: Time, report: &mut Report) {
        let second = u32::try_from(now.secs()).unwrap_or(u32::MAX);
        let (times, least_s, requests) = (self.times, self.least_s, self.requests);
        for pulse in self.services.values() {
            let silence = second.saturating_sub(pulse.newest_s);
            if pulse.told || silence < least_s || pulse.days < LEARN_DAYS {
                continue;
            }
            let steady = pulse.yesterday.max(pulse.today) >= requests;
            if steady && f64::from(silence) > pulse.limit_s(times, least_s) {
                pulse.told = true;
                report.extend(pulse.server.map(|server| finding(server, silence, pulse, now)));
            }
        }
    }
}

fn finding(server: SocketAddr, silence: u32, pulse: &Pulse, now: Time) -> Finding {
    let longest = pulse.longest.iter().max().copied().unwrap_or_default();
    Finding {
        rule: &ABOUT,
        at: now,
        severity: ABOUT.severity,
        confidence: 60,
        principal: None,
        token: None,
        group: None,
        message: format!(
            "{server} was not asked anything for {silence} s; its longest silence within a week was {longest} s."
        ),
        brief: format!("{server} is silent"),
        facts: vec![
            ("service", server.to_string().into()),
            ("silence_s", silence.into()),
            ("longest_silence_s", longest.into()),
        ],
        scene: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage};

    /// A request each minute between these hours of each day.
    fn live(play: &mut Play, days: std::ops::Range<u64>, hours: std::ops::Range<u64>) {
        for day in days {
            for minute in hours.start * 60..hours.end * 60 {
                play.ask(&Stage::new().after_ms((day * 1440 + minute) * 60_000), []);
            }
        }
    }

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn tick(play: &mut Play, minute: u64) -> Vec<String> {
        let mut report = Vec::new();
        play.rule.tick(Time::from_secs(NOW_S + minute * 60), &mut report);
        report.into_iter().map(|f| f.brief).collect()
    }

    #[test]
    fn silence_fires_once() {
        let mut play = play();
        live(&mut play, 0..3, 0..24);
        let end = 3 * 1440;
        assert_eq!(tick(&mut play, end + 3), [""; 0]);
        assert_eq!(tick(&mut play, end + 6), ["10.0.0.1:8080 is silent"]);
        assert_eq!(tick(&mut play, end + 60), [""; 0]);
        play.ask(&Stage::new().after_ms((end + 61) * 60_000), []);
        assert_eq!(tick(&mut play, end + 64), [""; 0]);
        assert_eq!(tick(&mut play, end + 70).len(), 1, "what was told once is not usual");
    }

    #[test]
    fn a_silence_that_comes_again_at_its_hour_is_usual_after_three() {
        let mut play = play();
        let mut told = Vec::new();
        for week in 0..6 {
            live(&mut play, week * 7..week * 7 + 5, 0..24);
            told.push(tick(&mut play, (week * 7 + 6) * 1440).len());
        }
        assert_eq!(told, [1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn a_silence_does_not_hide_the_next_ones_by_making_days_less_busy() {
        let thresholds = crate::detect::Thresholds(vec![("requests_per_day", 1400.0)]);
        let own = crate::detect::RuleSettings { thresholds, ..crate::detect::RuleSettings::default() };
        let mut settings = DetectSettings::default();
        settings.rules.insert(ABOUT.id.into(), own);
        let mut play = Play::new(rule(&Arc::new(settings)));
        live(&mut play, 0..3, 0..24);
        live(&mut play, 3..4, 0..12);
        assert_eq!(tick(&mut play, 3 * 1440 + 1000).len(), 1);
        live(&mut play, 3..4, 18..24);
        live(&mut play, 4..5, 0..12);
        assert_eq!(tick(&mut play, 4 * 1440 + 1000).len(), 1);
    }

    #[test]
    fn now_and_then_is_never_usual() {
        let mut play = play();
        let mut from = 0;
        for outage in 0..10 {
            live(&mut play, from..from + 2, 0..24);
            live(&mut play, from + 2..from + 3, 0..outage * 2 + 1);
            assert_eq!(
                tick(&mut play, (from + 3) * 1440).len(),
                usize::from(outage * 2 + 1 < 24),
                "{outage}"
            );
            from += 3;
        }
    }

    #[test]
    fn nights_are_usual() {
        let mut play = play();
        live(&mut play, 0..4, 0..18);
        assert_eq!(tick(&mut play, 4 * 1440 - 1), [""; 0]);
        assert_eq!(tick(&mut play, 4 * 1440 + 720), [""; 0]);
        assert_eq!(tick(&mut play, 5 * 1440).len(), 1);
    }

    #[test]
    fn new_and_idle_services_are_left_alone() {
        let mut play = play();
        live(&mut play, 0..1, 0..24);
        assert_eq!(tick(&mut play, 3000), [""; 0]);
        let mut idle = Play::new(rule(&Arc::default()));
        for day in 0..6 {
            idle.ask(&Stage::new().after_ms(day * 86_400_000), []);
        }
        assert_eq!(tick(&mut idle, 100_000), [""; 0]);
    }

    #[test]
    fn a_restart_keeps_the_pulse() {
        let mut play = play();
        live(&mut play, 0..3, 0..24);
        play.restart(rule(&Arc::default()));
        assert_eq!(tick(&mut play, 3 * 1440 + 6).len(), 1);
    }
}
