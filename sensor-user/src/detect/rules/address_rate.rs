//! `address-rate`: one address that asks faster than its callers do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::roster::stable_hash;
use crate::detect::sketch::{Crowd, get_used};
use crate::detect::statement::Statement;
use crate::detect::window::Buckets;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Threshold,
};

/// The card.
pub static ABOUT: About = About {
    id: "address-rate",
    title: "Address asks at a high rate",
    version: "1.1.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1499"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Counts the requests of one address (IPv6 by /64) in a sliding minute. Fires above 100 for each caller that \
was seen there within the hour, and above three times what the address is used to. From ten times the limit it is \
medium.\n\nScrapers, guessers and floods come from few addresses and are faster than people.\n\nBenign sources: NAT, \
gateways and other services. Their callers are counted, and their usual rate is learned: its largest minute but for the newest two, which \
fades by an eighth each quiet minute that it was seen, and not below an eighth of the largest. Probes of health routes \
and addresses in `lists.trusted_addresses` do not count. It costs 64 bytes an address.",
    cooling_s: 300,
    thresholds: &[
        Threshold {
            key: "per_minute",
            default: 100.0,
            min: 1.0,
            max: 60_000.0,
            doc: "Requests within a minute for each caller above which it fires.",
        },
        Threshold {
            key: "medium_times",
            default: 10.0,
            min: 1.0,
            max: 1000.0,
            doc: "How many times the limit make it medium.",
        },
    ],
};

/// Six buckets make a minute.
const BUCKET_S: u32 = 10;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(AddressRate {
        limit: settings.count(&ABOUT, "per_minute"),
        times: settings.count(&ABOUT, "medium_times"),
        addresses: Column::default(),
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Pace {
    counts: Buckets<6>,
    callers: Crowd,
    hour: u32,
    before: Crowd,
    minute: u32,
    in_minute: u32,
    last: u32,
    usual: u32,
    largest: u32,
    quiet_until_s: u32,
    told_medium: bool,
}

struct AddressRate {
    limit: u32,
    times: u32,
    addresses: Column<Pace>,
}

impl Pace {
    fn count(&mut self, second: u32, caller: Option<u64>) -> u32 {
        let minute = second / 60;
        if minute > self.minute {
            // A minute late: the first minute of a flood must not make the second one usual.
            let learned = std::mem::replace(&mut self.last, self.in_minute);
            get_used(&mut self.usual, learned);
            self.largest = self.largest.max(learned);
            self.usual = self.usual.max(self.largest / 8);
            (self.minute, self.in_minute) = (minute, 0);
            if minute / 60 > self.hour {
                (self.hour, self.before, self.callers) = (minute / 60, self.callers, Crowd::default());
            }
        }
        self.in_minute = self.in_minute.saturating_add(1);
        if let Some(caller) = caller {
            self.callers.add(caller);
        }
        let bucket = u64::from(second / BUCKET_S);
        self.counts.add(bucket);
        self.counts.sum(bucket, 6)
    }
}

impl Rule for AddressRate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.addresses)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if case.who.trusted_address || case.route.kind == RouteKind::Health {
            return;
        }
        let second = case.second();
        let pace = self.addresses.of(case.who.address.slot);
        let caller = case.who.actor.map(|actor| stable_hash(&actor.known.slot));
        let count = pace.count(second, caller);
        if count <= self.limit {
            return;
        }
        let callers = Crowd(pace.callers.0 | pace.before.0).size().max(1);
        let limit = self.limit.saturating_mul(callers).max(pace.usual.saturating_mul(3));
        let is_medium = count > limit.saturating_mul(self.times);
        if count <= limit || (second < pace.quiet_until_s && (pace.told_medium || !is_medium)) {
            return;
        }
        pace.quiet_until_s = second.saturating_add(60);
        pace.told_medium = is_medium;
        let of = if callers == 1 { "its one caller".to_owned() } else { format!("its {callers} callers") };
        let statement = Statement {
            severity: if is_medium { Severity::Medium } else { ABOUT.severity },
            confidence: 70,
            message: format!(
                "One address made {count} requests within a minute, where {limit} are to be expected of {of}; \
                 the newest to {}.",
                case.route.name
            ),
            brief: format!("{count} requests in 1 min"),
            facts: vec![("requests", count.into()), ("limit", limit.into()), ("callers", callers.into())],
        };
        report.push(statement.into_address_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, held_by};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    /// `n` requests, `gap_ms` apart, by callers in turn.
    fn requests(play: &mut Play, n: u64, gap_ms: u64, callers: u64, from_s: u64) -> Vec<(u64, Severity)> {
        let ask = |i: u64| {
            let held = held_by(&format!("user-{}", i % callers));
            play.ask(&Stage::new().status(200).after_ms(from_s * 1000 + i * gap_ms), [held])
        };
        (0..n).map(ask).zip(1..).flat_map(|(f, i)| f.into_iter().map(move |f| (i, f.severity))).collect()
    }

    #[test]
    fn fires_at_the_hundred_and_first_and_is_medium_at_ten_times_that() {
        let found = requests(&mut play(), 1100, 5, 1, 0);
        assert_eq!(found, [(101, Severity::Low), (1001, Severity::Medium)]);
        assert_eq!(requests(&mut play(), 3000, 700, 1, 0), [], "85 a minute are nothing");
    }

    #[test]
    fn a_flood_is_told_whenever_in_a_minute_it_begins() {
        for from_s in 0..60 {
            assert!(!requests(&mut play(), 300, 400, 1, from_s).is_empty(), "{from_s}");
        }
    }

    #[test]
    fn an_address_of_many_callers_may_ask_more() {
        let mut play = play();
        requests(&mut play, 60, 1000, 30, 0);
        assert_eq!(requests(&mut play, 10_000, 50, 30, 60), []);
    }

    #[test]
    fn a_busy_service_becomes_usual() {
        let mut play = play();
        let found = requests(&mut play, 20_000, 100, 1, 0);
        assert!(found.len() <= 2, "{found:?}");
        assert_eq!(requests(&mut play, 2000, 100, 1, 86_400), [], "the next day");
    }

    #[test]
    fn trusted_addresses_and_probes_do_not_count() {
        let settings = DetectSettings {
            trusted_addresses: vec!["10.0.0.0/8".parse().unwrap()],
            ..DetectSettings::default()
        };
        let mut trusted = Play::with(rule(&Arc::default()), &settings);
        assert_eq!(requests(&mut trusted, 1000, 5, 1, 0), []);
        let mut play = play();
        for i in 0..1000 {
            assert!(
                play.ask(&Stage::to("GET", "/healthz").kind(RouteKind::Health).after_ms(i), []).is_empty()
            );
        }
    }

    #[test]
    fn a_restart_keeps_the_count() {
        let mut play = play();
        requests(&mut play, 100, 1, 1, 0);
        play.restart(rule(&Arc::default()));
        assert_eq!(requests(&mut play, 1, 1, 1, 1), [(1, Severity::Low)]);
    }
}
