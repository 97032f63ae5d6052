//! `account-guessing`: one account that fails to log in from many addresses.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::accounts::Accounts;
use crate::detect::climate::{LoginSeen, Sky};
use crate::detect::login::shown_account;
use crate::detect::recent::Recent;
use crate::detect::statement::Statement;
use crate::detect::told::Told;
use crate::detect::{
    About, Case, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "account-guessing",
    title: "One account is tried from many addresses",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::Critical),
    attack: &["T1110.001"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when logins to one account fail at least eight times within an hour from five or more addresses from \
which it has never logged in. High if the account has ever logged in; medium if it has not, as for names like \
`admin` that the whole internet tries. A login from a new address while that goes on is critical: somebody has \
found the password.\n\nBotnets guess slowly and from everywhere, so that no address fails often.\n\nBenign source: a \
telephone with an old password that changes networks; it rarely meets five addresses in an hour. Silent for \
`lists.trusted_addresses` and in an outage. One alert an account, masked in part; it is told again after an hour. \
Accounts that have logged in are remembered apart from those that have only failed (100,000 and 20,000), so that \
invented names push out no real one. About 40 bytes each, and 16 for each address of at most twelve.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "addresses",
            default: 5.0,
            min: 2.0,
            max: 12.0,
            doc: "Addresses from which the account fails.",
        },
        Threshold {
            key: "failures",
            default: 8.0,
            min: 2.0,
            max: 1000.0,
            doc: "Failures from these addresses.",
        },
    ],
};

/// Addresses compared of one account.
const MAX_ADDRESSES: usize = 12;

const WINDOW_S: u32 = 3600;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(AccountGuessing {
        addresses: settings.count(&ABOUT, "addresses"),
        failures: settings.count(&ABOUT, "failures"),
        memory: Accounts::default(),
    })
}

/// Where one account failed: made at its first failure.
#[derive(Default, Serialize, Deserialize)]
struct Guesses {
    from: Recent<MAX_ADDRESSES>,
    told: Told,
}

struct AccountGuessing {
    addresses: u32,
    failures: u32,
    memory: Accounts<Option<Box<Guesses>>>,
}

impl Rule for AccountGuessing {
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
        let Some((guesses, real)) = self.memory.of(account, login.failed) else { return };
        if known || case.who.trusted_address {
            return;
        }
        let at_s = case.second();
        // A success is noted only where failures are: an account that never fails takes no more than its place.
        let guesses = match guesses {
            Some(guesses) => guesses,
            None if !login.failed => return,
            none @ None => none.insert(Box::default()),
        };
        let before = guesses.from.tally(at_s, WINDOW_S);
        guesses.from.note(login.address, account, at_s, login.failed, WINDOW_S);
        let tally = if login.failed { guesses.from.tally(at_s, WINDOW_S) } else { before };
        if outage || tally.failing < self.addresses || tally.failures < self.failures {
            return;
        }
        let severity = match (login.failed, real) {
            (false, _) => Severity::Critical,
            (true, true) => Severity::High,
            (true, false) => Severity::Medium,
        };
        if guesses.told.again(at_s, severity, WINDOW_S) {
            report.push(finding(case, severity, tally.failing, tally.failures));
        }
    }
}

fn finding(case: &Case<'_>, severity: Severity, addresses: u32, failures: u32) -> Finding {
    let route = &case.route.name;
    let (message, brief) = if severity == Severity::Critical {
        (
            format!(
                "One account was logged in to from a new address on {route}, after it had failed {failures} times \
                 from {addresses} others."
            ),
            format!("login after failures from {addresses} addresses"),
        )
    } else {
        (
            format!("Logins to one account failed {failures} times from {addresses} addresses, on {route}."),
            format!("account failed from {addresses} addresses"),
        )
    };
    let mut facts = vec![("addresses", addresses.into()), ("failures", failures.into())];
    facts.extend(shown_account(case).map(|account| ("account", account.into())));
    Statement { severity, confidence: 80, message, brief, facts }
        .into_service_finding(&ABOUT, case)
        .of_account(case.login.and_then(|login| login.login.account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Play, Stage};

    fn login(s: u64, account: &str, address: u64, status: u16) -> Stage {
        Stage::to("POST", "/login")
            .kind(RouteKind::Login)
            .status(status)
            .after_ms(s * 1000)
            .account(account)
            .client(&format!("198.51.100.{address}"))
    }

    fn fresh() -> Box<dyn Rule> {
        rule(&Arc::default())
    }

    fn severities(play: &mut Play, tries: impl IntoIterator<Item = (u64, u64, u16)>) -> Vec<Severity> {
        let ask = |(s, address, status)| play.ask(&login(s, "alice@shop.example", address, status), []);
        tries.into_iter().flat_map(ask).map(|f| f.severity).collect()
    }

    #[test]
    fn an_invented_account_is_medium_a_real_one_high_and_a_hit_critical() {
        let tries = || (0..8_u64).map(|i| (i * 400, i % 6 + 10, 401));
        let mut play = Play::new(fresh());
        assert_eq!(severities(&mut play, tries()), [Severity::Medium]);
        let mut play = Play::new(fresh());
        assert_eq!(severities(&mut play, [(0, 1, 200)]), []);
        assert_eq!(severities(&mut play, tries()), [Severity::High]);
        assert_eq!(severities(&mut play, [(3000, 1, 200)]), [], "its owner, at home");
        assert_eq!(severities(&mut play, [(3001, 99, 200)]), [Severity::Critical]);
    }

    #[test]
    fn the_account_is_named_for_privacy_to_mask() {
        let mut play = Play::new(fresh());
        let found: Vec<_> =
            (0..8_u64).flat_map(|i| play.ask(&login(i, "alice@shop.example", i, 401), [])).collect();
        let scene = found[0].scene.as_ref().unwrap();
        assert!(found[0].facts.contains(&("account", "alice@shop.example".into())));
        assert!(scene.names.iter().any(|name| &**name == "alice@shop.example"), "{:?}", scene.names);
    }

    #[test]
    fn few_addresses_or_slow_failures_are_benign() {
        assert_eq!(severities(&mut Play::new(fresh()), (0..100_u64).map(|i| (i, i % 4, 401))), []);
        assert_eq!(severities(&mut Play::new(fresh()), (0..100_u64).map(|i| (i * 900, i, 401))), []);
        let mut play = Play::new(fresh());
        severities(&mut play, (0..20).map(|i| (i, i, 200)));
        assert_eq!(severities(&mut play, (0..20).map(|i| (100 + i, i, 401))), [], "places it is known at");
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = Play::new(fresh());
        for i in 0..7 {
            assert!(play.ask(&login(i, "alice", i, 401), []).is_empty());
        }
        play.restart(fresh());
        assert_eq!(play.ask(&login(8, "alice", 8, 401), []).len(), 1);
    }
}
