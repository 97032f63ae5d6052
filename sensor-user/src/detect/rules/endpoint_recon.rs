//! `endpoint-recon`: one address that tries paths to see which exist.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::challenge::asks_for_nonce;
use crate::detect::crowd::{DAY_S, FadingCrowd};
use crate::detect::roster::stable_hash;
use crate::detect::sketch::Distinct;
use crate::detect::statement::Statement;
use crate::detect::statement::percent;
use crate::detect::window::Buckets;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Threshold,
};

/// The card.
pub static ABOUT: About = About {
    id: "endpoint-recon",
    title: "Paths are being tried",
    version: "1.2.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1595.003"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Counts the requests of one address (IPv6 by /64) in two minutes. Fires when there are more than 20, at \
least 10 of them, and 40 %, were answered 4xx, and at least 15 different routes are among those. From 100 answers of \
4xx it is high.\n\nScanners ask for what many products have; almost nothing of it exists here. A route is a path with \
its ids taken out, so that missing objects count once.\n\nBenign sources: a web page whose files are gone. A route on \
which four or more addresses got 4xx within a day or two is the service's fault and does not count; four scanners \
within that time hide what they have in common, and are told by what they have not. Login routes, 429, and addresses in \
`lists.trusted_addresses` do not count. Requests are counted from an address's first 4xx on. It does not see scans \
that are spread over many addresses or slower than this. It costs 16 bytes an address, 200 to 350 for those with \
errors, and 24 a route.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "calls",
            default: 20.0,
            min: 1.0,
            max: 10_000.0,
            doc: "Requests above which it can fire.",
        },
        Threshold {
            key: "errors",
            default: 10.0,
            min: 1.0,
            max: 10_000.0,
            doc: "Answers of 4xx from which it can.",
        },
        Threshold {
            key: "error_percent",
            default: 40.0,
            min: 1.0,
            max: 100.0,
            doc: "Share of 4xx from which it can.",
        },
        Threshold {
            key: "paths",
            default: 15.0,
            min: 1.0,
            max: 1000.0,
            doc: "Different routes from which it can.",
        },
        Threshold {
            key: "high_errors",
            default: 100.0,
            min: 1.0,
            max: 60_000.0,
            doc: "Answers of 4xx from which it is high.",
        },
    ],
};

/// Twelve buckets make two minutes.
const BUCKET_S: u32 = 10;
const BUCKETS: u64 = 12;

/// Addresses from which on a route's errors are its own fault, within this day and the one before: the same word lists
/// are tried again every few days.
const COMMON: u32 = 4;

/// Seconds between two findings about one address.
const QUIET_S: u32 = 300;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    let limit = |key| settings.count(&ABOUT, key);
    Box::new(EndpointRecon {
        limits: [
            limit("calls"),
            limit("errors"),
            limit("error_percent"),
            limit("paths"),
            limit("high_errors"),
        ],
        memory: (Column::default(), Column::default()),
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Tries {
    calls: Buckets<12>,
    errors: Buckets<12>,
    /// Routes with errors in this minute and the one before.
    minute: u32,
    now: Distinct,
    before: Distinct,
    quiet_until_s: u32,
    told_high: bool,
}

struct EndpointRecon {
    limits: [u32; 5],
    memory: (Column<Option<Box<Tries>>>, Column<FadingCrowd<DAY_S>>),
}

impl Tries {
    fn note_route(&mut self, minute: u32, route: u64) -> u32 {
        if minute > self.minute {
            let old = std::mem::take(&mut self.now);
            self.before = if minute - self.minute == 1 { old } else { Distinct::default() };
            self.minute = minute;
        }
        self.now.add(route);
        self.now.count().max(self.before.count()).max((self.now.count() + self.before.count()) * 3 / 4)
    }
}

impl Rule for EndpointRecon {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(status) = case.exchange.status() else { return };
        let failed = (400..500).contains(&status)
            && status != 429
            && case.route.kind != RouteKind::Login
            && !asks_for_nonce(case.exchange);
        let address = case.who.address.slot;
        let second = case.second();
        let bucket = u64::from(second / BUCKET_S);
        if !failed {
            // Most addresses never fail: they cost a look.
            if self.memory.0.peek(address).is_some_and(Option::is_some)
                && let Some(tries) = self.memory.0.of(address)
            {
                tries.calls.add(bucket);
            }
            return;
        }
        if case.who.trusted_address {
            return;
        }
        let crowd = self.memory.1.of(case.route.slot);
        crowd.note(address, second);
        let is_common = crowd.size() >= COMMON;
        let tries = self.memory.0.of(address).get_or_insert_default();
        tries.calls.add(bucket);
        if is_common {
            return;
        }
        tries.errors.add(bucket);
        let routes = tries.note_route(second / 60, stable_hash(&case.route.slot));
        let (calls, errors) = (tries.calls.sum(bucket, BUCKETS), tries.errors.sum(bucket, BUCKETS));
        let [least_calls, least_errors, share, paths, high] = self.limits;
        let is_high = errors >= high;
        if calls <= least_calls
            || errors < least_errors
            || percent(errors, calls) < share
            || routes < paths
            || (second < tries.quiet_until_s && (tries.told_high || !is_high))
        {
            return;
        }
        tries.quiet_until_s = second.saturating_add(QUIET_S);
        tries.told_high = is_high;
        let statement = Statement {
            severity: if is_high { Severity::High } else { ABOUT.severity },
            confidence: 85,
            message: format!(
                "One address made {calls} requests within two minutes, {errors} of which were answered 4xx, on at \
                 least {routes} different routes."
            ),
            brief: format!("{errors} of {calls} requests failed in 2 min"),
            facts: vec![("requests", calls.into()), ("errors", errors.into()), ("routes", routes.into())],
        };
        report.push(statement.into_address_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn word(n: u64) -> String {
        let letter = |n: u64| char::from(b'a' + u8::try_from(n % 26).unwrap());
        [letter(n), letter(n / 26), 'x'].iter().collect()
    }

    fn ask(play: &mut Play, client: &str, path: &str, status: u16, ms: u64) -> Vec<Severity> {
        let stage = Stage::to("GET", path).client(client).status(status).after_ms(ms);
        play.ask(&stage, []).iter().map(|f| f.severity).collect()
    }

    #[test]
    fn a_scan_fires_at_its_twenty_first_call_and_is_high_at_a_hundred() {
        let mut play = play();
        let found: Vec<_> = (0..150)
            .map(|i| ask(&mut play, "10.0.0.9", &format!("/{}", word(i)), 404, i * 200))
            .zip(1..)
            .flat_map(|(f, i)| f.into_iter().map(move |s| (i, s)))
            .collect();
        assert_eq!(found, [(21, Severity::Medium), (100, Severity::High)]);
    }

    #[test]
    fn objects_that_are_missing_are_one_route() {
        let mut play = play();
        for i in 0..100 {
            let stage =
                Stage::to("GET", &format!("/o/{i}")).route("GET /o/{id}").status(404).after_ms(i * 100);
            assert!(play.ask(&stage, []).is_empty());
        }
    }

    #[test]
    fn a_page_whose_files_are_gone_is_not_a_scan() {
        let mut play = play();
        let mut found = 0;
        for visitor in 0..40 {
            for i in 0..25 {
                let client = format!("10.0.1.{visitor}");
                found +=
                    ask(&mut play, &client, &format!("/static/{}", word(i)), 404, visitor * 60_000 + i).len();
            }
        }
        assert!(found <= 3, "{found}");
    }

    #[test]
    fn scanners_with_the_same_list_are_told_each_if_they_come_on_other_days() {
        let mut play = play();
        for scanner in 0..12_u64 {
            let client = format!("10.0.2.{scanner}");
            let scan =
                |i| ask(&mut play, &client, &format!("/{}", word(i)), 404, scanner * 86_400_000 + i * 200);
            assert_eq!((0..40).flat_map(scan).collect::<Vec<_>>(), [Severity::Medium], "{scanner}");
        }
    }

    #[test]
    fn mostly_good_requests_slow_ones_and_throttled_ones_are_left_alone() {
        let mut play = play();
        for i in 0..200 {
            assert_eq!(
                ask(
                    &mut play,
                    "10.0.0.1",
                    &format!("/{}", word(i)),
                    if i % 3 == 0 { 404 } else { 200 },
                    i * 100
                ),
                []
            );
            assert_eq!(ask(&mut play, "10.0.0.2", &format!("/{}", word(i)), 404, i * 10_000), []);
            assert_eq!(ask(&mut play, "10.0.0.3", &format!("/{}", word(i)), 429, i * 100), []);
        }
    }

    #[test]
    fn a_restart_keeps_the_count() {
        let mut play = play();
        for i in 0..20 {
            ask(&mut play, "10.0.0.9", &format!("/{}", word(i)), 404, i);
        }
        play.restart(rule(&Arc::default()));
        assert_eq!(ask(&mut play, "10.0.0.9", "/wp-admin", 404, 21).len(), 1);
    }
}
