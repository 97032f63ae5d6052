//! `many-failing-accounts`: in a day, logins to many accounts of one service fail and none succeeds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::climate::{LoginSeen, Sky};
use crate::detect::statement::Statement;
use crate::detect::told::Told;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "many-failing-accounts",
    title: "Many accounts fail to log in",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1110.003", "T1110.004"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when more than 20 accounts of one service fail to log in within a day and never succeed, and they are \
more than three times as many as on a usual day there. Before two days have been seen they must be more than one for \
every ten successful logins. Five times as many are high. A day is the running half and the one before, by the \
clock of the data (UTC).\n\nIt catches what is too slow for every other limit: an account an \
hour, from addresses that never return.\n\nAccounts are counted by two bitmaps of 16,384 bits, exact to about one in \
a hundred up to 10,000 accounts and saturating beyond 100,000. Benign sources: mistyped names, of which a large \
service has many each day, which becomes usual; an outage, told by who fails in it. Failures of an account at an address \
from which it has logged in before do not count. Once a day and service unless it grows worse. 8 KiB a service that \
logs in.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "accounts",
            default: 20.0,
            min: 1.0,
            max: 100_000.0,
            doc: "Accounts failing within a day above which it fires.",
        },
        Threshold {
            key: "share_percent",
            default: 10.0,
            min: 0.0,
            max: 1000.0,
            doc: "Before it is known what is usual, they must be more than this percentage of the successful logins.",
        },
    ],
};

/// Words of a bitmap.
const WORDS: usize = 256;

/// Bits of a bitmap.
const BITS: f64 = 16_384.0;

/// Half a day.
const HALF_S: u32 = 43_200;

/// Times what is usual above which it is unusual.
const UNUSUAL: f64 = 3.0;

/// Halves after which what is usual is believed.
const LEARNED: u16 = 4;

/// Times as many accounts that make it high.
const FAR_MORE: f64 = 5.0;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(ManyFailingAccounts {
        accounts: settings.threshold(&ABOUT, "accounts"),
        share: settings.threshold(&ABOUT, "share_percent") / 100.0,
        memory: Column::default(),
    })
}

/// Distinct names, one bit each (linear counting: Whang, Vander-Zanden, Taylor 1990).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Names(Vec<u64>);

impl Names {
    /// Says whether the bit was new.
    fn add(&mut self, name: u64) -> bool {
        if self.0.is_empty() {
            self.0.resize(WORDS, 0);
        }
        let at = usize::try_from(name >> 56).unwrap_or_default();
        let bit = 1 << ((name >> 50) & 63);
        let Some(word) = self.0.get_mut(at) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Names in any of these.
fn count(all: &[&Names]) -> f64 {
    let set: u32 =
        (0..WORDS).map(|at| all.iter().fold(0, |bits, names| bits | names.word(at)).count_ones()).sum();
    let unset = BITS - f64::from(set);
    BITS * (BITS / unset.max(1.0)).ln()
}

/// Half a day at one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Half {
    failed: Names,
    entered: Names,
    logins: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Service {
    now: Half,
    before: Half,
    half: u32,
    /// Accounts that only failed on a usual day, and from how many halves that is learned.
    usual: f64,
    halves: u16,
    told: Told,
}

struct ManyFailingAccounts {
    accounts: f64,
    share: f64,
    memory: Column<Option<Box<Service>>>,
}

impl Service {
    /// Notes an attempt; whether it may have changed the count for the worse.
    fn note(&mut self, account: u64, failed: bool, at_s: u32) -> bool {
        let half = at_s / HALF_S;
        if half > self.half {
            self.learn();
            let now = std::mem::take(&mut self.now);
            self.before = if half == self.half + 1 { now } else { Half::default() };
            self.half = half;
        }
        if failed {
            self.now.failed.add(account)
        } else {
            self.now.entered.add(account);
            self.now.logins = self.now.logins.saturating_add(1);
            false
        }
    }

    /// Takes the day that ends with this half into the average. An attack teaches no more than twice what was usual.
    fn learn(&mut self) {
        if self.half == 0 {
            return;
        }
        let mut failing = self.counts().0;
        if self.halves >= LEARNED {
            failing = failing.min(2.0 * self.usual + 1.0);
        }
        self.halves = self.halves.saturating_add(1);
        let weight = if self.halves > LEARNED { 0.1 } else { 1.0 / f64::from(self.halves) };
        self.usual += (failing - self.usual) * weight;
    }

    /// So many accounts may fail in a day.
    fn limit(&self, accounts: f64, share: f64) -> f64 {
        let logins = f64::from(self.now.logins) + f64::from(self.before.logins);
        accounts.max(if self.halves >= LEARNED { UNUSUAL * self.usual } else { share * logins })
    }

    /// Accounts that only failed, and those that got in.
    fn counts(&self) -> (f64, f64) {
        let entered = [&self.now.entered, &self.before.entered];
        let active = count(&entered);
        let all = count(&[&self.now.failed, &self.before.failed, entered[0], entered[1]]);
        ((all - active).max(0.0), active)
    }
}

impl Rule for ManyFailingAccounts {
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
        let Some(&LoginSeen { login, sky: Sky { outage, known } }) = case.login else { return };
        let Some(account) = login.account else { return };
        if login.failed && (known || outage) {
            return;
        }
        let service = self.memory.of(case.who.service.slot).get_or_insert_default();
        let at_s = case.second();
        if !service.note(account, login.failed, at_s) {
            return;
        }
        let (failing, active) = service.counts();
        let limit = service.limit(self.accounts, self.share);
        // Half an account is the estimate's rounding.
        if failing < limit + 0.5 {
            return;
        }
        let severity = if failing > limit * FAR_MORE { Severity::High } else { ABOUT.severity };
        if service.told.again(at_s, severity, 2 * HALF_S) {
            report.push(finding(case, severity, failing, active));
        }
    }
}

fn finding(case: &Case<'_>, severity: Severity, failing: f64, active: f64) -> Finding {
    let statement = Statement {
        severity,
        confidence: 70,
        message: format!(
            "Logins to about {failing:.0} accounts failed within a day and none of them succeeded, on {}; about \
             {active:.0} accounts logged in.",
            case.route.name
        ),
        brief: format!("{failing:.0} accounts fail in a day"),
        facts: vec![("failing_accounts", failing.round().into()), ("active_accounts", active.round().into())],
    };
    statement.into_service_finding(&ABOUT, case)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::roster::stable_hash;
    use crate::detect::staging::{Play, Stage};

    fn login(s: u64, account: u64, status: u16) -> Stage {
        Stage::to("POST", "/login")
            .kind(RouteKind::Login)
            .status(status)
            .after_ms(s * 1000)
            .account(&format!("user{account}"))
            .client(&format!("10.{}.{}.1", account / 250 % 250, account % 250))
    }

    fn fresh() -> Box<dyn Rule> {
        rule(&Arc::default())
    }

    #[test]
    fn more_than_twenty_accounts_a_day_are_told_once() {
        let mut play = Play::new(fresh());
        let found: Vec<_> = (0..60_u64).map(|i| play.ask(&login(i * 600, i, 401), []).len()).collect();
        assert_eq!(found.iter().position(|n| *n == 1), Some(20));
        assert_eq!(found.iter().sum::<usize>(), 1);
    }

    #[test]
    fn far_more_are_high() {
        let mut play = Play::new(fresh());
        let worst = (0..150_u64).flat_map(|i| play.ask(&login(i * 60, i, 401), [])).map(|f| f.severity).max();
        assert_eq!(worst, Some(Severity::High));
    }

    #[test]
    fn twenty_or_those_who_get_in_after_all_are_benign() {
        let mut play = Play::new(fresh());
        for i in 0..400_u64 {
            assert!(play.ask(&login(i * 60, i % 20, 401), []).is_empty());
        }
        let mut play = Play::new(fresh());
        for i in 0..400_u64 {
            assert!(play.ask(&login(i * 60, i, 401), []).is_empty());
            assert!(play.ask(&login(i * 60 + 20, i, 200), []).is_empty());
        }
    }

    #[test]
    fn a_large_service_may_have_more() {
        let mut play = Play::new(fresh());
        for i in 0..5000_u64 {
            play.ask(&login(i, i, 200), []);
            if i % 25 == 0 {
                assert!(play.ask(&login(i, i + 100_000, 401), []).is_empty());
            }
        }
    }

    #[test]
    fn what_fails_every_day_is_usual_and_an_attack_is_not() {
        let mut play = Play::new(fresh());
        let day = |play: &mut Play, day: u64, failing: u64| {
            let mut found = 0;
            for i in 0..500_u64 {
                let s = day * 86_400 + i * 170;
                found += play.ask(&login(s, i, 200), []).len();
                if i * failing % 500 < failing {
                    found += play.ask(&login(s, 1000 + day * 1000 + i, 401), []).len();
                }
            }
            found
        };
        assert_eq!(day(&mut play, 0, 24), 0);
        for number in 1..6 {
            assert_eq!(day(&mut play, number, 40), 0, "day {number}");
        }
        assert_eq!(day(&mut play, 6, 300), 1);
    }

    #[test]
    fn other_days_do_not_count() {
        let mut play = Play::new(fresh());
        for i in 0..100_u64 {
            assert!(play.ask(&login(i * 7200, i, 401), []).is_empty(), "twelve a day");
        }
    }

    #[test]
    fn bitmaps_count_well() {
        let mut names = Names::default();
        for (wanted, until) in [(10.0, 10_u64), (100.0, 100), (1000.0, 1000), (10_000.0, 10_000)] {
            (0..until).for_each(|name| {
                names.add(stable_hash(&name));
            });
            let found = count(&[&names]);
            assert!((found - wanted).abs() <= 0.03 * wanted, "{found} for {wanted}");
        }
        assert!(count(&[&Names(vec![u64::MAX; WORDS])]) > 100_000.0);
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..20 {
            assert!(play.ask(&login(i, i, 401), []).is_empty());
        }
        play.restart(fresh());
        assert_eq!(play.ask(&login(20, 20, 401), []).len(), 1);
    }
}
