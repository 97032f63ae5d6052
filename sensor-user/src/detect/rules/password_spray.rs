//! `password-spray`: few passwords tried on many accounts, from one address or by one client.

use std::hash::BuildHasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::accounts::limited;
use crate::detect::climate::{LoginSeen, Sky};
use crate::detect::login::Login;
use crate::detect::recent::{Recent, Tally};
use crate::detect::statement::Statement;
use crate::detect::table::Table;
use crate::detect::told::Told;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold, When,
};
use crate::http::RequestHead;

/// The card.
pub static ABOUT: About = About {
    id: "password-spray",
    title: "One password tried on many accounts",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1110.003"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when logins to 15 or more accounts fail within 30 minutes from one address, or by one client program \
from several addresses, with no more than ten tries each on average. Accounts come from the login request. A client \
program is known by its user agent and the order of its headers.\n\nSpraying stays below every limit on a single \
account. A successful login in the middle of it is critical, unless that account has logged in from there before: \
it is the one that was found.\n\nAccounts that succeed within the 30 minutes do not count, nor do those that have \
logged in from the same address before. Benign sources: an office or mobile network behind one address, which is \
silent while at least half as many accounts get in as fail; a program that everybody uses, which is judged only if \
four times as many of its accounts fail as get in; an outage, told by who fails in it; \
`lists.trusted_addresses`. It does not see logins whose requests name no account. At most 64 accounts are compared, \
16 bytes each, of an address that logs in and of the 1,024 client programs seen last.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "accounts",
            default: 15.0,
            min: 2.0,
            max: 64.0,
            doc: "Accounts failing from which it fires.",
        },
        Threshold {
            key: "window_s",
            default: 1800.0,
            min: 60.0,
            max: 86_400.0,
            doc: "Seconds within which they fail.",
        },
        Threshold {
            key: "max_tries_each",
            default: 10.0,
            min: 1.0,
            max: 10_000.0,
            doc: "Failures of each account, on average, above which it is plain guessing.",
        },
    ],
};

/// Accounts compared of one address or program.
const MAX_ACCOUNTS: usize = 64;

/// Client programs remembered. A few hundred are live at a time, and an invented one has nothing to lose.
const MAX_PROGRAMS: usize = 1024;

/// Seconds after which a program is told of again. Its clients have many addresses and no alert of their own.
const AGAIN_S: u32 = 900;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PasswordSpray {
        accounts: settings.count(&ABOUT, "accounts"),
        window_s: settings.count(&ABOUT, "window_s"),
        max_tries_each: settings.count(&ABOUT, "max_tries_each"),
        memory: Spray::default(),
    })
}

type Tried = Recent<MAX_ACCOUNTS>;

#[derive(Serialize, Deserialize)]
struct Spray {
    addresses: Column<Option<Box<Tried>>>,
    #[serde(deserialize_with = "programs")]
    programs: Table<u64, (Tried, Told)>,
}

fn programs<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Table<u64, (Tried, Told)>, D::Error> {
    limited(from, MAX_PROGRAMS)
}

impl Default for Spray {
    fn default() -> Self {
        Self { addresses: Column::default(), programs: Table::new(MAX_PROGRAMS) }
    }
}

struct PasswordSpray {
    accounts: u32,
    window_s: u32,
    max_tries_each: u32,
    memory: Spray,
}

impl PasswordSpray {
    /// Whether so many failing accounts are a spray where so many of them may get in.
    const fn is_spray(&self, tally: &Tally, ratio: u32) -> bool {
        tally.failing >= self.accounts
            && tally.failures <= tally.failing.saturating_mul(self.max_tries_each)
            && tally.failing >= tally.succeeded.saturating_mul(ratio)
    }

    /// By its address, where people of one household or office fail.
    fn by_address(&mut self, case: &Case<'_>, login: &Login, sky: Sky) -> Option<Finding> {
        let (at_s, window_s) = (case.second(), self.window_s);
        let tried = self.memory.addresses.of(case.who.address.slot).get_or_insert_default();
        note(tried, login, sky, at_s, window_s);
        let tally = tried.tally(at_s, window_s);
        if !self.is_spray(&tally, 2) || case.who.trusted_address {
            return None;
        }
        let severity = severity(login, sky)?;
        Some(finding(case, severity, tally, None))
    }

    /// By its program, where one address fails too seldom to be told.
    fn by_program(&mut self, case: &Case<'_>, login: &Login, sky: Sky) -> Option<Finding> {
        let (at_s, window_s) = (case.second(), self.window_s);
        let program = program(&case.exchange.request);
        let (tried, _) = self.memory.programs.get_or(program, Default::default)?;
        note(tried, login, sky, at_s, window_s);
        let tally = tried.tally(at_s, window_s);
        let addresses = if tally.failing >= self.accounts { tried.failing_by(at_s, window_s).0 } else { 0 };
        if addresses < 2 || !self.is_spray(&tally, 4) || case.who.trusted_address {
            return None;
        }
        let severity = severity(login, sky)?;
        let (_, told) = self.memory.programs.get(&program)?;
        told.again(at_s, severity, AGAIN_S).then(|| finding(case, severity, tally, Some(addresses)))
    }
}

/// An account that has got in from there before may be mistyped; it is no sign of a spray, but a success is one of
/// honesty.
fn note(tried: &mut Tried, login: &Login, sky: Sky, at_s: u32, window_s: u32) {
    if let Some(account) = login.account.filter(|_| !(login.failed && sky.known)) {
        tried.note(account, login.address, at_s, login.failed, window_s);
    }
}

fn severity(login: &Login, sky: Sky) -> Option<Severity> {
    match (login.failed, sky.known) {
        (true, false) => Some(Severity::High),
        (false, false) => Some(Severity::Critical),
        (_, true) => None,
    }
}

/// Names a client program: its user agent, and its headers' names in order without those that come and go.
fn program(request: &RequestHead) -> u64 {
    const FLEETING: [&[u8]; 6] =
        [b"cookie", b"authorization", b"content-length", b"x-forwarded-for", b"forwarded", b"referer"];
    let hasher = foldhash::quality::FixedState::with_seed(0x7370_7261_7900);
    let mut hash = hasher.hash_one(request.value("user-agent").unwrap_or_default());
    for header in request.headers.iter().take(32) {
        let name = request.slice(&header.name);
        if !FLEETING.iter().any(|fleeting| name.eq_ignore_ascii_case(fleeting)) {
            hash = hasher.hash_one((hash, name));
        }
    }
    hash
}

impl Rule for PasswordSpray {
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
        let Some(&LoginSeen { login, sky }) = case.login.filter(|seen| seen.login.account.is_some()) else {
            return;
        };
        let by_address = self.by_address(case, &login, sky);
        let by_program = self.by_program(case, &login, sky);
        if !sky.outage {
            report.extend(by_address.or(by_program));
        }
    }
}

fn finding(case: &Case<'_>, severity: Severity, tally: Tally, addresses: Option<u32>) -> Finding {
    let who = match addresses {
        None => "One address".to_owned(),
        Some(addresses) => format!("One client program, at {addresses} addresses,"),
    };
    let Tally { failing, failures, succeeded, .. } = tally;
    let route = &case.route.name;
    let (message, brief) = if severity == Severity::Critical {
        (
            format!("{who} logged in on {route} while it failed on {failing} other accounts: it found one."),
            format!("login after {failing} accounts failed"),
        )
    } else {
        (
            format!("{who} failed to log in to {failing} accounts with {failures} tries, on {route}."),
            format!("{failing} accounts failed"),
        )
    };
    let mut facts = vec![
        ("failing_accounts", failing.into()),
        ("failures", failures.into()),
        ("succeeding_accounts", succeeded.into()),
    ];
    facts.extend(addresses.map(|addresses| ("addresses", addresses.into())));
    let statement = Statement { severity, confidence: 85, message, brief, facts };
    if addresses.is_some() {
        statement.into_service_finding(&ABOUT, case)
    } else {
        statement.into_address_finding(&ABOUT, case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage};
    use crate::detect::{Knowledge, RouteKind, Who};

    fn login(s: u64, account: &str, status: u16) -> Stage {
        Stage::to("POST", "/login").kind(RouteKind::Login).status(status).after_ms(s * 1000).account(account)
    }

    fn fresh() -> Box<dyn Rule> {
        rule(&Arc::default())
    }

    #[test]
    fn fifteen_accounts_from_one_address_are_high_and_a_hit_critical() {
        let mut play = Play::new(fresh());
        let ask = |play: &mut Play, i: u64| play.ask(&login(i * 60, &format!("user{i}"), 401), []);
        let found: Vec<_> = (0..15).map(|i| ask(&mut play, i).len()).collect();
        assert_eq!(found, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let hit = play.ask(&login(900, "user99", 200), []);
        assert_eq!(hit[0].severity, Severity::Critical);
        let said = format!("{} {} {:?}", hit[0].message, hit[0].brief, hit[0].facts);
        assert!(!said.contains("user99"), "no account is named: {said}");
    }

    #[test]
    fn one_program_at_many_addresses_is_one_alert() {
        let mut play = Play::new(fresh());
        let mut found = 0;
        for i in 0..40_u64 {
            let stage = login(i * 10, &format!("user{i}"), 401).client(&format!("203.0.113.{i}"));
            found += play.ask(&stage.header("User-Agent", "sprayer/1"), []).len();
        }
        assert_eq!(found, 1);
    }

    #[test]
    fn slow_or_repeated_failures_are_no_spray() {
        let mut play = Play::new(fresh());
        for i in 0..100_u64 {
            assert!(play.ask(&login(i * 150, &format!("user{i}"), 401), []).is_empty(), "slow");
        }
        let mut play = Play::new(fresh());
        for i in 0..1000_u64 {
            assert!(play.ask(&login(i, &format!("user{}", i % 14), 401), []).is_empty(), "few");
        }
    }

    #[test]
    fn an_office_and_a_popular_program_are_benign() {
        let mut play = Play::new(fresh());
        for i in 0..600_u64 {
            let name = format!("user{i}");
            if i % 4 == 0 {
                assert!(play.ask(&login(i, &name, 401), []).is_empty());
            }
            if i % 8 != 0 {
                assert!(play.ask(&login(i, &name, 200), []).is_empty());
            }
        }
    }

    #[test]
    fn those_who_have_logged_in_there_are_not_sprayed() {
        let mut play = Play::new(fresh());
        for i in 0..30_u64 {
            assert!(play.ask(&login(i, &format!("user{i}"), 200), []).is_empty());
        }
        for i in 0..30_u64 {
            assert!(play.ask(&login(86_400 + i, &format!("user{i}"), 401), []).is_empty());
        }
    }

    #[test]
    fn trusted_addresses_are_left_alone() {
        let settings = DetectSettings {
            trusted_addresses: vec!["10.0.0.0/8".parse().unwrap()],
            ..DetectSettings::default()
        };
        let mut play = Play::with(fresh(), &settings);
        for i in 0..60_u64 {
            assert!(play.ask(&login(i, &format!("user{i}"), 401), []).is_empty());
        }
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..14_u64 {
            assert!(play.ask(&login(i, &format!("user{i}"), 401), []).is_empty());
        }
        play.restart(fresh());
        assert_eq!(play.ask(&login(20, "user20", 401), []).len(), 1);
    }

    #[test]
    fn made_up_programs_are_bounded() {
        let mut rule =
            PasswordSpray { accounts: 15, window_s: 1800, max_tries_each: 10, memory: Spray::default() };
        for i in 0..3000_u64 {
            let stage = login(i, "user", 401).header("User-Agent", &format!("x/{i}"));
            stage.ask_as(&mut rule, &[], &Who::default(), &Knowledge::default());
        }
        assert_eq!(rule.memory.programs.len(), MAX_PROGRAMS);
    }
}
