//! `credential-stuffing`: stolen name and password pairs tried at one service from many addresses.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::climate::{LoginSeen, Sky};
use crate::detect::login::Login;
use crate::detect::recent::Recent;
use crate::detect::statement::Statement;
use crate::detect::told::Told;
use crate::detect::window::Buckets;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "credential-stuffing",
    title: "Stolen passwords are being tried",
    version: "1.0.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1110.004"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when logins to 10 or more accounts fail at one service within ten minutes from 5 or more addresses, \
with at most three tries each on average and no more than half of the accounts by one address, and they are many for \
that service: no fewer than succeed, or ten more than four times what usually fails beside so many successes.\n\nLists of stolen passwords are tried by botnets, each address a few \
times: no address and no account stands out, the service does. One alert a service; it is told again after ten \
minutes.\n\nFailures of an account at an address from which it has logged in before do not count, nor do accounts \
that succeed in the meantime. Benign sources: people who mistype, which a large service has all day and which is \
what is usual there; an outage, told by who fails in it. What is usual is learned as a share from the first 200 \
successes on, ten minutes at a time; an attack teaches no more than twice what was usual before. It does not see logins whose requests name no account. At \
most 256 accounts are compared: 4 KiB a service that logs in.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "accounts",
            default: 10.0,
            min: 2.0,
            max: 256.0,
            doc: "Accounts failing at one service from which it fires.",
        },
        Threshold {
            key: "addresses",
            default: 5.0,
            min: 2.0,
            max: 256.0,
            doc: "Addresses from which they fail.",
        },
        Threshold {
            key: "times_usual",
            default: 4.0,
            min: 1.0,
            max: 100.0,
            doc: "Failures are many at ten more than so many times what is usual.",
        },
    ],
};

/// Accounts compared of one service.
const MAX_ACCOUNTS: usize = 256;

/// The window, and its buckets.
const WINDOW_S: u32 = 600;
const BUCKET_S: u64 = 30;
const BUCKETS: u64 = 20;

/// Failures each, on average, above which it is no list of pairs.
const MAX_TRIES_EACH: u32 = 3;

/// Successes after which what is usual is believed, and by how many it fades.
const LEARNED: f32 = 200.0;
const FADE: f32 = 20_000.0;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(CredentialStuffing {
        accounts: settings.count(&ABOUT, "accounts"),
        addresses: settings.count(&ABOUT, "addresses"),
        times_usual: settings.count(&ABOUT, "times_usual"),
        memory: Column::default(),
    })
}

/// Logins at one service.
#[derive(Default, Serialize, Deserialize)]
struct Service {
    tried: Recent<MAX_ACCOUNTS>,
    good: Buckets<20>,
    failed: Buckets<20>,
    /// Failures and successes of the past, faded.
    past: (f32, f32),
    window: u64,
    told: Told,
}

struct CredentialStuffing {
    accounts: u32,
    addresses: u32,
    times_usual: u32,
    memory: Column<Option<Box<Service>>>,
}

impl Service {
    fn note(&mut self, login: &Login, account: u64, known: bool, at_s: u32) {
        let bucket = u64::from(at_s) / BUCKET_S;
        if bucket / BUCKETS > self.window {
            self.learn();
            self.window = bucket / BUCKETS;
        }
        if !login.failed {
            self.good.add(bucket);
            self.tried.note(account, login.address, at_s, false, WINDOW_S);
        } else if !known {
            self.failed.add(bucket);
            self.tried.note(account, login.address, at_s, true, WINDOW_S);
        }
    }

    /// Takes the window that has ended into the average.
    fn learn(&mut self) {
        let last = self.window * BUCKETS + BUCKETS - 1;
        let (mut failed, good) =
            (number(self.failed.sum(last, BUCKETS)), number(self.good.sum(last, BUCKETS)));
        if let Some(usual) = self.usual() {
            failed = failed.min(2.0 * usual * good + 1.0);
        }
        self.past = (self.past.0 + failed, self.past.1 + good);
        if self.past.1 > FADE {
            self.past = (self.past.0 / 2.0, self.past.1 / 2.0);
        }
    }

    /// Failures for one success, once that is known.
    fn usual(&self) -> Option<f32> {
        (self.past.1 >= LEARNED).then(|| self.past.0 / self.past.1)
    }

    /// Whether so many failures are many here.
    fn is_unusual(&self, failed: u32, good: u32, times: u32) -> bool {
        let many = |usual| number(failed) >= usual * number(good) * number(times) + 10.0;
        failed >= good || self.usual().is_some_and(many)
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of some buckets are exact enough in an f32")]
const fn number(count: u32) -> f32 {
    count as f32
}

impl Rule for CredentialStuffing {
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
        let at_s = case.second();
        let service = self.memory.of(case.who.service.slot).get_or_insert_default();
        service.note(&login, account, known, at_s);
        if !login.failed || known || outage || case.who.trusted_address {
            return;
        }
        let tally = service.tried.tally(at_s, WINDOW_S);
        let bucket = u64::from(at_s) / BUCKET_S;
        let (failed, good) = (service.failed.sum(bucket, BUCKETS), service.good.sum(bucket, BUCKETS));
        if tally.failing < self.accounts
            || tally.failures > tally.failing.saturating_mul(MAX_TRIES_EACH)
            || !service.is_unusual(failed, good, self.times_usual)
        {
            return;
        }
        let (addresses, most) = service.tried.failing_by(at_s, WINDOW_S);
        let spread = addresses >= self.addresses && most <= tally.failing / 2;
        if spread && service.told.again(at_s, ABOUT.severity, WINDOW_S) {
            report.push(finding(case, (tally.failing, addresses), (failed, good)));
        }
    }
}

fn finding(case: &Case<'_>, (accounts, addresses): (u32, u32), (failed, good): (u32, u32)) -> Finding {
    let statement = Statement {
        severity: ABOUT.severity,
        confidence: 80,
        message: format!(
            "Logins to {accounts} accounts failed from {addresses} addresses within ten minutes, on {}; {good} \
             logins succeeded meanwhile.",
            case.route.name
        ),
        brief: format!("{accounts} accounts failed from {addresses} addresses"),
        facts: vec![
            ("failing_accounts", accounts.into()),
            ("addresses", addresses.into()),
            ("failures_10m", failed.into()),
            ("successes_10m", good.into()),
        ],
    };
    statement.into_service_finding(&ABOUT, case)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Play, Stage};

    fn login(s: u64, account: u64, address: u64, status: u16) -> Stage {
        Stage::to("POST", "/login")
            .kind(RouteKind::Login)
            .status(status)
            .after_ms(s * 1000)
            .account(&format!("user{account}"))
            .client(&format!("198.51.{}.{}", address / 250, address % 250))
    }

    fn fresh() -> Box<dyn Rule> {
        rule(&Arc::default())
    }

    #[test]
    fn ten_accounts_from_five_addresses_are_one_alert() {
        let mut play = Play::new(fresh());
        let found: Vec<_> = (0..200_u64).map(|i| play.ask(&login(i, i, i % 50, 401), []).len()).collect();
        assert_eq!(found.iter().position(|n| *n == 1), Some(9));
        assert_eq!(found.iter().sum::<usize>(), 1);
        assert_eq!(play.ask(&login(700, 1, 1, 401), []).len(), 1, "told again after ten minutes");
    }

    #[test]
    fn few_addresses_or_accounts_or_many_tries_are_other_rules() {
        let mut play = Play::new(fresh());
        for i in 0..100_u64 {
            assert!(play.ask(&login(i, i, i % 4, 401), []).is_empty(), "four addresses");
        }
        let mut play = Play::new(fresh());
        for i in 0..100_u64 {
            assert!(play.ask(&login(i, i % 9, i, 401), []).is_empty(), "nine accounts");
        }
    }

    #[test]
    fn a_large_service_has_mistakes_all_day_and_an_attack_stands_out() {
        let mut play = Play::new(fresh());
        let mut found = 0;
        for i in 0..40_000_u64 {
            let (s, person) = (i / 2, i % 5000);
            if i % 12 == 0 {
                found += play.ask(&login(s, person + 100_000, person, 401), []).len();
            } else {
                found += play.ask(&login(s, person, person, 200), []).len();
            }
        }
        assert_eq!(found, 0);
        for i in 0..1200_u64 {
            let s = 20_000 + i / 2;
            play.ask(&login(s, i % 5000, i % 5000, 200), []);
            found += play.ask(&login(s, i + 200_000, i % 300, 401), []).len();
        }
        assert!(found >= 1);
    }

    #[test]
    fn an_outage_is_no_attack() {
        let mut play = Play::new(fresh());
        for person in 0..50 {
            play.ask(&login(person, person, person, 200), []);
        }
        for i in 0..500_u64 {
            assert!(play.ask(&login(7200 + i, i % 50, i % 50, 401), []).is_empty());
        }
    }

    #[test]
    fn an_attack_does_not_become_usual_at_once() {
        let mut service = Service { past: (100.0, 10_000.0), window: 1, ..Service::default() };
        for bucket in 20..40 {
            (0..500).for_each(|_| service.failed.add(bucket));
            (0..50).for_each(|_| service.good.add(bucket));
        }
        service.learn();
        assert!(service.usual() < Some(0.012), "{:?}", service.usual());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..9 {
            assert!(play.ask(&login(i, i, i, 401), []).is_empty());
        }
        play.restart(fresh());
        assert_eq!(play.ask(&login(9, 9, 9, 401), []).len(), 1);
    }
}
