//! `brute-force`: one address that fails to log in again and again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::climate::{LoginSeen, Sky};
use crate::detect::login::Login;
use crate::detect::recent::{Before, Recent};
use crate::detect::statement::Statement;
use crate::detect::window::Buckets;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "brute-force",
    title: "Passwords are being guessed",
    version: "1.1.0",
    severity: Severity::Medium,
    accepted: Some(Severity::Critical),
    attack: &["T1110.001"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Counts failed logins for each client address; IPv6 clients by /64, which one of them owns. A failure is an \
answer of 401, 403 or 423 on a login route, a redirect back to it or to an error, and 400 or 422 where the request \
names an account (with `count_400_422` everywhere). Sliding windows of ten-second buckets.\n\nMore than 10 failures \
within a minute are medium; 10 within ten minutes that outnumber those who log in two to one, or more than 20 within \
five minutes with more than 10 within one, are high; more than 50 within a minute are critical. A successful login \
while more than 10 failures of the last minute are fresh is critical, unless the account has logged in from there \
before: something was guessed. The fact `risk_score` is 0.7 · min(failures/100, 1) + 0.3 · min(accounts/10, 1) of the \
last ten minutes, as a percentage.\n\nBenign sources: many people behind one address, of whom eight or more log in \
and outnumber the failures; people who mistype, as five failures are forgiven to an account that succeeds after them or has \
logged in from there before; an outage, in which those fail who have logged in before and nearly nobody gets in: then only the critical \
number counts, as it does for `lists.trusted_addresses`. It does not see guessing spread over many addresses: \
`account-guessing` and `credential-stuffing` do; nor failures that are told in a page answered 200. About 600 bytes an address that logs in, 16 for each of its \
accounts, at most 64.",
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

/// Accounts remembered of one address: ten decide the risk, eight make a crowd.
const MAX_ACCOUNTS: usize = 64;

/// Failures after which a success is no honest correction any more.
const FORGIVEN: u16 = 5;

/// Seconds of the longest window.
const WINDOW_S: u32 = 600;

/// Accounts that log in at one address which make it many people's.
const CROWD: u32 = 8;

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
        memory: Column::default(),
    })
}

struct Limits {
    minute: u32,
    critical_minute: u32,
    five: u32,
    ten: u32,
    lax: bool,
}

/// What one address tried.
#[derive(Default, Serialize, Deserialize)]
struct Tries {
    failures: Buckets<60>,
    successes: Buckets<60>,
    /// Failures that a success of the same account made good.
    forgiven: Buckets<60>,
    /// Accounts that got in, each once.
    entered: Buckets<60>,
    accounts: Recent<MAX_ACCOUNTS>,
}

struct BruteForce {
    limits: Limits,
    memory: Column<Option<Box<Tries>>>,
}

/// What the windows hold.
#[derive(Clone, Copy, Debug)]
struct Counts {
    minute: u32,
    five: u32,
    ten: u32,
    successes: u32,
    accounts: u32,
    /// Failures of one, five and ten minutes that are not forgiven.
    held: [u32; 3],
    /// Those who got in: by account where accounts are named.
    entered: u32,
}

impl Tries {
    fn note(&mut self, login: &Login, known: bool, bucket: u64, at_s: u32) -> Counts {
        if login.failed {
            self.failures.add(bucket);
        } else {
            self.successes.add(bucket);
        }
        if let Some(account) = login.account {
            let before = self.accounts.note(account, login.address, at_s, login.failed, WINDOW_S);
            self.make_good(login, known, before, bucket);
        }
        let held = |last| self.failures.sum(bucket, last).saturating_sub(self.forgiven.sum(bucket, last));
        let (ten, successes) = (self.failures.sum(bucket, 60), self.successes.sum(bucket, 60));
        let named = login.account.is_some();
        Counts {
            minute: self.failures.sum(bucket, 6),
            five: self.failures.sum(bucket, 30),
            ten,
            successes,
            accounts: self.accounts.tally(at_s, WINDOW_S).failing.max(u32::from(ten > 0)),
            held: [held(6), held(30), held(60)],
            entered: if named { self.entered.sum(bucket, 60) } else { successes },
        }
    }

    /// Who has logged in from here before may mistype; who gets in after a few failures has done so.
    fn make_good(&mut self, login: &Login, known: bool, before: Before, bucket: u64) {
        if login.failed {
            if known && before.failures < FORGIVEN {
                self.forgiven.add(bucket);
            }
            return;
        }
        if !before.succeeded {
            self.entered.add(bucket);
        }
        if !known && before.failures <= FORGIVEN {
            (0..before.failures).for_each(|_| self.forgiven.add(bucket));
        }
    }
}

impl Limits {
    /// How bad the counts are after a failure; `only_critical` for those whose failures prove little.
    fn judge(&self, counts: Counts, only_critical: bool) -> Option<Severity> {
        let [minute, five, ten] = counts.held;
        let fast = minute > self.minute && !counts.is_crowd();
        let slow = ten >= self.ten && ten >= counts.entered.saturating_mul(2);
        if minute > self.critical_minute && !counts.is_crowd() {
            Some(Severity::Critical)
        } else if only_critical {
            None
        } else if slow || (fast && five > self.five) {
            Some(Severity::High)
        } else {
            fast.then_some(Severity::Medium)
        }
    }
}

impl Counts {
    /// Many people log in here, and more than fail.
    const fn is_crowd(&self) -> bool {
        self.entered >= CROWD && self.held[2] <= self.entered
    }
}

/// 0 to 100.
fn risk(failures: u32, accounts: u32) -> u32 {
    (failures.min(100) * 70 / 100) + (accounts.min(10) * 30 / 10)
}

impl BruteForce {
    /// The attempt as this rule counts it. An answer of 400 or 422 that only its own setting makes a failure has no
    /// account, so nobody is known there.
    #[inline]
    fn login(&self, case: &Case<'_>) -> Option<LoginSeen> {
        match case.login {
            Some(seen) => Some(*seen),
            None if self.limits.lax && !case.again => {
                let login = Login::of(case.exchange, case.route.kind, true)?;
                Some(LoginSeen { login, sky: Sky::default() })
            }
            None => None,
        }
    }
}

impl Rule for BruteForce {
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
        let Some(LoginSeen { login, sky }) = self.login(case) else { return };
        let Sky { outage, known } = sky;
        let tries = self.memory.of(case.who.address.slot).get_or_insert_default();
        let counts = tries.note(&login, known, case.exchange.at.secs() / BUCKET_S, case.second());
        let shared = case.who.trusted_address;
        let severity = if login.failed {
            self.limits.judge(counts, shared || outage)
        } else {
            let expected = shared || counts.is_crowd() || (known && login.account.is_some());
            (counts.held[0] > self.limits.minute && !expected).then_some(Severity::Critical)
        };
        report.extend(severity.map(|severity| finding(case, severity, counts, login.failed)));
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
    let facts = vec![
        ("failures_1m", counts.minute.into()),
        ("failures_5m", counts.five.into()),
        ("failures_10m", counts.ten.into()),
        ("successes_10m", counts.successes.into()),
        ("accounts_10m", counts.accounts.into()),
        ("risk_score", risk(counts.ten, counts.accounts).into()),
    ];
    let confidence = if failed { 85 } else { 75 };
    Statement { severity, confidence, message, brief, facts }.into_address_finding(&ABOUT, case)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Play, Stage};

    fn login(ms: u64, status: u16) -> Stage {
        Stage::to("POST", "/login").kind(RouteKind::Login).status(status).after_ms(ms)
    }

    fn severities(play: &mut Play, tries: impl IntoIterator<Item = (u64, u16)>) -> Vec<Option<Severity>> {
        let ask = |(ms, status)| play.ask(&login(ms, status), []).first().map(|f| f.severity);
        tries.into_iter().map(ask).collect()
    }

    #[test]
    fn ten_failures_in_ten_minutes_are_high() {
        let found = severities(&mut Play::new(rule(&Arc::default())), (0..10).map(|i| (i * 50_000, 401)));
        assert_eq!(found[..9], [None; 9]);
        assert_eq!(found[9], Some(Severity::High));
    }

    #[test]
    fn an_office_where_people_mostly_log_in_is_medium_at_most() {
        let tries = (0..60).map(|i| (i * 900, if i % 3 == 0 { 403 } else { 200 }));
        let found = severities(&mut Play::new(rule(&Arc::default())), tries);
        let failures = found.iter().zip(0..).filter(|(_, i)| i % 3 == 0).filter_map(|(f, _)| *f);
        assert!(failures.max() <= Some(Severity::Medium));
    }

    #[test]
    fn more_than_fifty_a_minute_are_critical() {
        let found = severities(&mut Play::new(rule(&Arc::default())), (0..60).map(|i| (i * 500, 401)));
        assert_eq!(found[50], Some(Severity::Critical));
        assert!(found[..50].iter().all(|s| *s < Some(Severity::Critical)));
    }

    #[test]
    fn success_after_fast_failures_is_critical() {
        let mut play = Play::new(rule(&Arc::default()));
        let mut tries: Vec<_> = (0..11).map(|i| (i * 1000, 401)).collect();
        tries.push((11_500, 200));
        assert_eq!(severities(&mut play, tries)[11], Some(Severity::Critical));
        assert_eq!(severities(&mut play, [(300_000, 200)]), [None], "a minute later nobody is guessing");
    }

    #[test]
    fn a_person_who_mistypes_is_left_alone() {
        let tries = [(0, 401), (3000, 401), (9000, 401), (20_000, 200)];
        assert_eq!(severities(&mut Play::new(rule(&Arc::default())), tries), [None; 4]);
    }

    #[test]
    fn shared_addresses_need_the_critical_number() {
        let settings = DetectSettings {
            trusted_addresses: vec!["10.0.0.0/8".parse().unwrap()],
            ..DetectSettings::default()
        };
        let mut play = Play::with(rule(&Arc::default()), &settings);
        let found: Vec<_> =
            (0..52).map(|i| play.ask(&login(i * 500, 401), []).first().map(|f| f.severity)).collect();
        assert_eq!((found[49], found[50]), (None, Some(Severity::Critical)));
    }

    #[test]
    fn an_ipv6_guesser_owns_its_network() {
        let mut play = Play::new(rule(&Arc::default()));
        let ask = |i: u64| play.ask(&login(i * 1000, 401).client(&format!("2001:db8::{i:x}")), []).len();
        assert_eq!((0..12).map(ask).sum::<usize>(), 3);
    }

    #[test]
    fn only_login_routes_count() {
        let mut play = Play::new(rule(&Arc::default()));
        for i in 0..100 {
            assert!(play.ask(&Stage::new().status(401).after_ms(i), []).is_empty());
        }
    }

    #[test]
    fn bad_requests_count_only_if_asked() {
        let tries = || (0..10).map(|i| (i * 1000, 422));
        assert_eq!(severities(&mut Play::new(rule(&Arc::default())), tries())[9], None);
        let thresholds = crate::detect::Thresholds(vec![("count_400_422", 1.0)]);
        let own = crate::detect::RuleSettings { thresholds, ..crate::detect::RuleSettings::default() };
        let settings =
            DetectSettings { rules: [("brute-force".to_owned(), own)].into(), ..DetectSettings::default() };
        assert_eq!(severities(&mut Play::new(rule(&Arc::new(settings))), tries())[9], Some(Severity::High));
    }

    #[test]
    fn risk_follows_its_formula() {
        let cases =
            [((0, 0), 0), ((10, 1), 10), ((100, 1), 73), ((1000, 1), 73), ((50, 5), 50), ((100, 40), 100)];
        for ((failures, accounts), expected) in cases {
            assert_eq!(risk(failures, accounts), expected);
        }
    }

    #[test]
    fn accounts_raise_the_risk() {
        let mut play = Play::new(rule(&Arc::default()));
        let risk_of = |i: u64| {
            let found = play.ask(&login(i * 1000, 401).account(&format!("user{i}")), []);
            found.first().map(|f| f.facts.last().unwrap().1.clone())
        };
        assert_eq!((0..20).filter_map(risk_of).last(), Some(44.into()));
    }

    #[test]
    fn an_office_in_the_morning_is_left_alone() {
        let mut play = Play::new(rule(&Arc::default()));
        let mut found = Vec::new();
        for person in 0..300_u64 {
            let name = format!("user{person}");
            if person % 5 == 0 {
                found.extend(play.ask(&login(person * 200, 401).account(&name), []));
                found.extend(play.ask(&login(person * 200 + 90, 401).account(&name), []));
            }
            found.extend(play.ask(&login(person * 200 + 150, 200).account(&name), []));
        }
        assert!(found.is_empty(), "{:?}", found.first().map(|f| &f.message));
    }

    #[test]
    fn logging_in_between_does_not_hide_guesses() {
        let mut play = Play::new(rule(&Arc::default()));
        let mut worst = None;
        for i in 0..60_u64 {
            let stage = if i % 3 == 2 {
                login(i * 1000, 200).account("mallory")
            } else {
                login(i * 1000, 401).account("alice")
            };
            worst = worst.max(play.ask(&stage, []).first().map(|f| f.severity));
        }
        assert!(worst >= Some(Severity::High));
    }

    #[test]
    fn an_outage_is_not_everybodys_attack() {
        let mut play = Play::new(rule(&Arc::default()));
        let at = |ms, person: u64, status| {
            login(ms, status).account(&format!("user{person}")).client(&format!("10.7.0.{person}"))
        };
        for person in 0..20 {
            assert!(play.ask(&at(person, person, 200), []).is_empty());
        }
        let mut found = 0;
        for round in 0..15_u64 {
            for person in 0..20 {
                found += play.ask(&at(3_600_000 + round * 20_000 + person, person, 401), []).len();
            }
        }
        assert_eq!(found, 0);
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(rule(&Arc::default()));
        let ask = |play: &mut Play, i: u64| play.ask(&login(i * 1000, 401).account("alice"), []).len();
        assert_eq!((0..9).map(|i| ask(&mut play, i)).sum::<usize>(), 0);
        play.restart(rule(&Arc::default()));
        assert_eq!(ask(&mut play, 9), 1);
    }
}
