//! `frequent-login`: one account that logs in again and again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::accounts::Accounts;
use crate::detect::climate::LoginSeen;
use crate::detect::login::shown_account;
use crate::detect::roster::stable_hash;
use crate::detect::statement::Statement;
use crate::detect::told::Told;
use crate::detect::window::Buckets;
use crate::detect::{
    About, Case, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "frequent-login",
    title: "One account logs in unusually often",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when one account logs in successfully more than five times within ten minutes at one service, and \
more than twice as often as it ever did in earlier windows. From three or more addresses it is medium: several \
people, or programs, use one account.\n\nShared and stolen accounts, and scripts that harvest fresh tokens, log in \
over and over.\n\nBenign sources: programs that log in for every call. Their usual number is learned, so each is \
told of once, when it begins or grows; it fades by half in a month without such a burst. It does not see logins \
whose requests name no account. About 80 bytes for each of 100,000 accounts.",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "per_10_minutes",
        default: 5.0,
        min: 1.0,
        max: 10_000.0,
        doc: "Successful logins of one account at one service above which it fires.",
    }],
};

/// Seconds of a bucket; ten make the window.
const BUCKET_S: u64 = 60;

/// Addresses that make it several people's.
const MANY: u32 = 3;

/// Seconds after which what was usual is worth half.
const FADE_S: u32 = 30 * 86_400;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(FrequentLogin { limit: settings.count(&ABOUT, "per_10_minutes"), memory: Accounts::default() })
}

/// How often one account logs in at one service.
#[derive(Default, Serialize, Deserialize)]
struct Logins {
    successes: Buckets<10>,
    /// Addresses of this window and the one before, a bit of 16 each.
    addresses: (u16, u16),
    window: u32,
    /// The most in any earlier window, and in this one.
    usual: u16,
    most: u16,
    usual_at_s: u32,
    told: Told,
}

struct FrequentLogin {
    limit: u32,
    memory: Accounts<Logins>,
}

impl Logins {
    /// Notes a login: how many there were in the window, and from how many addresses.
    fn note(&mut self, at_s: u32, address: u64) -> (u32, u32) {
        let window = at_s / 600;
        if window > self.window {
            let next = window == self.window + 1;
            self.addresses = (0, if next { self.addresses.0 } else { 0 });
            // The window before may still be the same burst: it becomes usual a window later.
            if !next {
                self.learn(at_s);
            }
            self.window = window;
        }
        self.addresses.0 |= 1 << (address >> 60);
        let bucket = u64::from(at_s) / BUCKET_S;
        self.successes.add(bucket);
        let count = self.successes.sum(bucket, 10);
        self.most = self.most.max(u16::try_from(count).unwrap_or(u16::MAX));
        (count, (self.addresses.0 | self.addresses.1).count_ones())
    }

    fn learn(&mut self, at_s: u32) {
        let halvings = at_s.saturating_sub(self.usual_at_s) / FADE_S;
        let faded = self.usual.checked_shr(halvings).unwrap_or(0);
        if self.most >= faded {
            self.usual_at_s = at_s;
            self.usual = self.most;
        }
        self.most = 0;
    }
}

impl Rule for FrequentLogin {
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
        let Some(LoginSeen { login, .. }) = case.login else { return };
        let Some(account) = login.account.filter(|_| !login.failed) else { return };
        let target = stable_hash(&(account, case.exchange.endpoints.server));
        let Some((logins, _)) = self.memory.of(target, false) else { return };
        let at_s = case.second();
        let (count, addresses) = logins.note(at_s, login.address);
        if count <= self.limit || count <= u32::from(logins.usual).saturating_mul(2) {
            return;
        }
        let severity = if addresses >= MANY { Severity::Medium } else { ABOUT.severity };
        if logins.told.again(at_s, severity, 600) {
            report.push(finding(case, severity, count, addresses));
        }
    }
}

fn finding(case: &Case<'_>, severity: Severity, count: u32, addresses: u32) -> Finding {
    let route = &case.route.name;
    let mut facts = vec![("logins_10m", count.into()), ("addresses", addresses.into())];
    facts.extend(shown_account(case).map(|account| ("account", account.into())));
    let statement = Statement {
        severity,
        confidence: 60,
        message: format!("One account logged in {count} times within ten minutes, on {route}."),
        brief: format!("{count} logins in 10 min"),
        facts,
    };
    statement.into_address_finding(&ABOUT, case).of_account(case.login.and_then(|login| login.login.account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Play, Stage};

    fn login(s: u64, account: &str, address: &str) -> Stage {
        Stage::to("POST", "/login")
            .kind(RouteKind::Login)
            .status(200)
            .after_ms(s * 1000)
            .account(account)
            .client(address)
    }

    fn fresh() -> Box<dyn Rule> {
        rule(&Arc::default())
    }

    fn found(play: &mut Play, times: impl IntoIterator<Item = u64>) -> Vec<Severity> {
        let ask = |s| play.ask(&login(s, "alice", "10.0.0.1"), []);
        times.into_iter().flat_map(ask).map(|f| f.severity).collect()
    }

    #[test]
    fn the_sixth_login_is_one_too_many() {
        assert_eq!(found(&mut Play::new(fresh()), (0..5).map(|i| i * 60)), []);
        assert_eq!(found(&mut Play::new(fresh()), (0..6).map(|i| i * 60)), [Severity::Low]);
        assert_eq!(found(&mut Play::new(fresh()), (0..100).map(|i| i * 150)), [], "four in ten minutes");
    }

    #[test]
    fn from_many_addresses_it_is_medium() {
        let mut play = Play::new(fresh());
        let severities: Vec<_> = (0..30_u64)
            .flat_map(|i| play.ask(&login(i, "alice", &format!("203.0.113.{i}")), []))
            .map(|f| f.severity)
            .collect();
        assert_eq!(severities.iter().max(), Some(&Severity::Medium));
        assert!(severities.len() <= 2);
    }

    #[test]
    fn accounts_and_failures_are_kept_apart() {
        let mut play = Play::new(fresh());
        for i in 0..50_u64 {
            assert!(play.ask(&login(i, &format!("user{i}"), "10.0.0.1"), []).is_empty());
            assert!(play.ask(&login(i, "alice", "10.0.0.1").status(401), []).is_empty());
        }
    }

    #[test]
    fn a_program_that_always_does_it_is_told_of_once() {
        let mut play = Play::new(fresh());
        let nightly = |day: u64| (0..20).map(move |i| day * 86_400 + i * 10);
        assert_eq!(found(&mut play, nightly(0)).len(), 1);
        for day in 1..10 {
            assert_eq!(found(&mut play, nightly(day)), []);
        }
        assert_eq!(found(&mut play, (0..60).map(|i| 10 * 86_400 + i * 5)).len(), 1, "it has grown");
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..5 {
            assert!(play.ask(&login(i, "alice", "10.0.0.1"), []).is_empty());
        }
        play.restart(fresh());
        assert_eq!(play.ask(&login(6, "alice", "10.0.0.1"), []).len(), 1);
    }
}
