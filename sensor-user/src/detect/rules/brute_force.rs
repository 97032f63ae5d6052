//! `brute-force`: one address that fails to log in again and again.

use std::sync::Arc;

use std::net::IpAddr;

use crate::detect::holder::holder;
use crate::detect::table::Table;
use crate::detect::window::Buckets;
use crate::detect::{
    About, Case, DetectSettings, Finding, Needs, Report, RouteKind, Rule, Severity, Threshold, scene,
};
use crate::http::Exchange;

/// The card.
pub static ABOUT: About = About {
    id: "brute-force",
    title: "Passwords are being guessed",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::Critical),
    attack: &["T1110.001"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Counts answers of 401 and 403 (with `count_400_422` also 400 and 422) on login routes, for each \
client address; IPv6 clients by /64, which one of them owns. Sliding windows of ten-second buckets.\n\nMore \
than 10 failures within a minute are medium; 10 within ten minutes that outnumber successes two to one, or more \
than 20 within five minutes with more than 10 within one, are high; more than 50 within a minute are critical. \
A successful login while more than 10 failures of the last minute are fresh is critical: something was guessed. \
The fact `risk_score` is 0.7 · min(failures/100, 1) + 0.3 · min(accounts/10, 1) of the last ten minutes, as a \
percentage; accounts are in request bodies, which are not read, so they count as one.\n\nBenign source: many \
people behind one address. Name such addresses in `lists.trusted_addresses`: for these only the critical number \
counts. It does not see which accounts were tried, nor guessing spread over many addresses.",
    cooling_s: 900,
    thresholds: &[
        Threshold {
            key: "per_minute",
            default: 10.0,
            min: 1.0,
            max: 100_000.0,
            doc: "Failures within a minute above which it fires.",
        },
        Threshold {
            key: "critical_per_minute",
            default: 50.0,
            min: 1.0,
            max: 100_000.0,
            doc: "Failures within a minute above which it is critical.",
        },
        Threshold {
            key: "per_5_minutes",
            default: 20.0,
            min: 1.0,
            max: 100_000.0,
            doc: "Failures within five minutes above which it is high, if the last minute is above `per_minute` too.",
        },
        Threshold {
            key: "per_10_minutes",
            default: 10.0,
            min: 1.0,
            max: 100_000.0,
            doc: "Failures within ten minutes from which it is high.",
        },
        Threshold {
            key: "count_400_422",
            default: 0.0,
            min: 0.0,
            max: 1.0,
            doc: "1 if answers of 400 and 422 are failures too.",
        },
    ],
};

/// Seconds of a bucket: six make a minute, sixty the longest window.
const BUCKET_S: u64 = 10;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    let limit = |key| settings.count(&ABOUT, key);
    Box::new(BruteForce {
        limits: Limits {
            minute: limit("per_minute"),
            critical_minute: limit("critical_per_minute"),
            five: limit("per_5_minutes"),
            ten: limit("per_10_minutes"),
            lax: limit("count_400_422") > 0,
        },
        settings: Arc::clone(settings),
        addresses: Table::new(settings.max_addresses),
    })
}

struct Limits {
    minute: u32,
    critical_minute: u32,
    five: u32,
    ten: u32,
    lax: bool,
}

#[derive(Default)]
struct Tries {
    failures: Buckets<60>,
    successes: Buckets<60>,
}

struct BruteForce {
    limits: Limits,
    settings: Arc<DetectSettings>,
    addresses: Table<IpAddr, Tries>,
}

/// What the windows hold.
#[derive(Clone, Copy, Debug)]
struct Counts {
    minute: u32,
    five: u32,
    ten: u32,
    successes: u32,
}

impl Tries {
    fn counts(&self, bucket: u64) -> Counts {
        Counts {
            minute: self.failures.sum(bucket, 6),
            five: self.failures.sum(bucket, 30),
            ten: self.failures.sum(bucket, 60),
            successes: self.successes.sum(bucket, 60),
        }
    }
}

impl Limits {
    fn is_failure(&self, exchange: &Exchange) -> bool {
        exchange.is_refused() || (self.lax && matches!(exchange.status(), Some(400 | 422)))
    }

    /// How bad the counts are after a failure.
    fn judge(&self, counts: Counts, shared: bool) -> Option<Severity> {
        let fast = counts.minute > self.minute;
        let slow = counts.ten >= self.ten && counts.ten >= counts.successes.saturating_mul(2);
        if counts.minute > self.critical_minute {
            Some(Severity::Critical)
        } else if shared {
            None
        } else if slow || (fast && counts.five > self.five) {
            Some(Severity::High)
        } else {
            fast.then_some(Severity::Medium)
        }
    }
}

/// 0 to 100.
fn risk(counts: Counts) -> u32 {
    let accounts = u32::from(counts.ten > 0);
    (counts.ten.min(100) * 70 / 100) + (accounts.min(10) * 30 / 10)
}

impl Rule for BruteForce {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if case.route.kind != RouteKind::Login {
            return;
        }
        let exchange = case.exchange;
        let failed = self.limits.is_failure(exchange);
        if !failed && !exchange.is_success() {
            return;
        }
        let bucket = exchange.at.secs() / BUCKET_S;
        let Some(tries) = self.addresses.get_or(holder(exchange.client), Tries::default) else { return };
        if failed {
            tries.failures.add(bucket);
        } else {
            tries.successes.add(bucket);
        }
        let counts = tries.counts(bucket);
        let shared = self.settings.is_trusted(exchange.client);
        let severity = if failed {
            self.limits.judge(counts, shared)
        } else {
            (counts.minute > self.limits.minute && !shared).then_some(Severity::Critical)
        };
        report.extend(severity.map(|severity| finding(case, severity, counts, failed)));
    }
}

fn finding(case: &Case<'_>, severity: Severity, counts: Counts, failed: bool) -> Finding {
    let route = &case.route.name;
    let (message, brief) = if failed {
        (
            format!(
                "One address failed to log in {} times within a minute and {} within ten, on {route}.",
                counts.minute, counts.ten
            ),
            format!("{} failed logins in 10 min", counts.ten),
        )
    } else {
        (
            format!(
                "One address logged in on {route} after {} failures within a minute: a guess was right.",
                counts.minute
            ),
            format!("login after {} failures", counts.minute),
        )
    };
    Finding {
        rule: &ABOUT,
        at: case.exchange.ended_at,
        severity,
        confidence: if failed { 85 } else { 75 },
        principal: None,
        token: None,
        message,
        brief,
        facts: vec![
            ("failures_1m", counts.minute.into()),
            ("failures_5m", counts.five.into()),
            ("failures_10m", counts.ten.into()),
            ("successes_10m", counts.successes.into()),
            ("risk_score", risk(counts).into()),
        ],
        scene: Some(Box::new(scene::of(case))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;

    fn login(ms: u64, status: u16) -> Stage {
        Stage::to("POST", "/login").kind(RouteKind::Login).status(status).after_ms(ms)
    }

    fn severities(rule: &mut dyn Rule, tries: impl IntoIterator<Item = (u64, u16)>) -> Vec<Option<Severity>> {
        let ask = |(ms, status)| login(ms, status).ask(rule, []).first().map(|f| f.severity);
        tries.into_iter().map(ask).collect()
    }

    #[test]
    fn ten_failures_in_ten_minutes_are_high() {
        let found = severities(&mut *rule(&Arc::default()), (0..10).map(|i| (i * 50_000, 401)));
        assert_eq!(found[..9], [None; 9]);
        assert_eq!(found[9], Some(Severity::High));
    }

    #[test]
    fn an_office_where_people_mostly_log_in_is_medium_at_most() {
        let tries = (0..60).map(|i| (i * 900, if i % 3 == 0 { 403 } else { 200 }));
        let found = severities(&mut *rule(&Arc::default()), tries);
        let failures = found.iter().zip(0..).filter(|(_, i)| i % 3 == 0).filter_map(|(f, _)| *f);
        assert!(failures.max() <= Some(Severity::Medium));
    }

    #[test]
    fn more_than_fifty_a_minute_are_critical() {
        let found = severities(&mut *rule(&Arc::default()), (0..60).map(|i| (i * 500, 401)));
        assert_eq!(found[50], Some(Severity::Critical));
        assert!(found[..50].iter().all(|s| *s < Some(Severity::Critical)));
    }

    #[test]
    fn success_after_fast_failures_is_critical() {
        let mut rule = rule(&Arc::default());
        let mut tries: Vec<_> = (0..11).map(|i| (i * 1000, 401)).collect();
        tries.push((11_500, 200));
        assert_eq!(severities(&mut *rule, tries)[11], Some(Severity::Critical));
        assert_eq!(severities(&mut *rule, [(300_000, 200)]), [None], "a minute later nobody is guessing");
    }

    #[test]
    fn a_person_who_mistypes_is_left_alone() {
        let tries = [(0, 401), (3000, 401), (9000, 401), (20_000, 200)];
        assert_eq!(severities(&mut *rule(&Arc::default()), tries), [None; 4]);
    }

    #[test]
    fn shared_addresses_need_the_critical_number() {
        let settings = DetectSettings {
            trusted_addresses: vec!["10.0.0.0/8".parse().unwrap()],
            ..DetectSettings::default()
        };
        let found = severities(&mut *rule(&Arc::new(settings)), (0..52).map(|i| (i * 500, 401)));
        assert_eq!((found[49], found[50]), (None, Some(Severity::Critical)));
    }

    #[test]
    fn an_ipv6_guesser_owns_its_network() {
        let mut rule = rule(&Arc::default());
        let ask = |i: u64| login(i * 1000, 401).client(&format!("2001:db8::{i:x}")).ask(&mut *rule, []).len();
        assert_eq!((0..12).map(ask).sum::<usize>(), 3);
    }

    #[test]
    fn only_login_routes_count() {
        let mut rule = rule(&Arc::default());
        for i in 0..100 {
            assert!(Stage::new().status(401).after_ms(i).ask(&mut *rule, []).is_empty());
        }
    }

    #[test]
    fn bad_requests_count_only_if_asked() {
        let tries = || (0..10).map(|i| (i * 1000, 422));
        assert_eq!(severities(&mut *rule(&Arc::default()), tries())[9], None);
        let thresholds = crate::detect::Thresholds(vec![("count_400_422", 1.0)]);
        let own = crate::detect::RuleSettings { thresholds, ..crate::detect::RuleSettings::default() };
        let settings =
            DetectSettings { rules: [("brute-force".to_owned(), own)].into(), ..DetectSettings::default() };
        assert_eq!(severities(&mut *rule(&Arc::new(settings)), tries())[9], Some(Severity::High));
    }

    #[test]
    fn risk_follows_its_formula() {
        let counts = |ten| Counts { minute: 0, five: 0, ten, successes: 0 };
        assert_eq!([0, 10, 100, 1000].map(|ten| risk(counts(ten))), [0, 10, 73, 73]);
    }
}
