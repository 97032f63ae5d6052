//! `dormant-account`: an account that wakes up after months.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::detect::learning::DAY_S;
use crate::detect::login::shown;
use crate::detect::statement::{Statement, Subject};
use crate::detect::table::Table;
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, RouteKind, Rule, Severity,
    Threshold, When, spelling,
};

/// The card.
pub static ABOUT: About = About {
    id: "dormant-account",
    title: "An account wakes up after months",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when a verified principal, or an account that logs in, succeeds (2xx) and was last seen 60 days ago or \
longer.\n\nForgotten accounts are what attackers like best: nobody misses their password, and nobody watches.\n\nThe \
sensor must have seen the account before, and must have been watching: of the days in between, it needs traffic on \
two thirds, or it cannot tell silence of the account from its own. So nothing is told in its first two months, or after \
it was off. Benign sources: long leave, quarterly batch jobs. A clock that jumps ahead by months is its own silence. It \
does not see accounts that never were active while it watched. 32 bytes in all, 32 for each \
account that logs in by name, and 8 a principal.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "days",
            default: 60.0,
            min: 7.0,
            max: 120.0,
            doc: "Days of silence from which an account is dormant.",
        },
        Threshold {
            key: "watched_share",
            default: 0.66,
            min: 0.0,
            max: 1.0,
            doc: "Share of these days on which the sensor must have seen any traffic.",
        },
    ],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(DormantAccount {
        days: settings.count(&ABOUT, "days"),
        watched_share: settings.threshold(&ABOUT, "watched_share"),
        memory: Memories {
            watch: Watch::default(),
            logins: Table::new(settings.max_principals),
            woken: Column::default(),
        },
        cap: settings.max_principals,
    })
}

/// The days with traffic: bit 0 is the newest day.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Watch {
    newest: u32,
    days: u128,
}

impl Watch {
    fn note(&mut self, day: u32) {
        if day > self.newest {
            self.days = self.days.checked_shl(day - self.newest).unwrap_or(0);
            self.newest = day;
        }
        self.days |= 1_u128.checked_shl(self.newest - day).unwrap_or(0);
    }

    /// Of the `last` days before the newest, those with traffic.
    fn watched(&self, last: u32) -> u32 {
        let mask = 1_u128.checked_shl(last).map_or(u128::MAX, |bit| bit - 1);
        ((self.days >> 1) & mask).count_ones()
    }
}

#[derive(Serialize, Deserialize)]
struct Memories {
    watch: Watch,
    /// Of accounts that log in by name, by the hash of it, when they did last.
    logins: Table<u64, u32>,
    /// Days of silence of principals that are back and have not succeeded yet; 0 of others.
    woken: Column<u16>,
}

struct DormantAccount {
    days: u32,
    watched_share: f64,
    memory: Memories,
    cap: usize,
}

impl DormantAccount {
    /// Days of silence, if there were enough and the sensor was there to hear them.
    fn silence(&self, last_s: u32, at_s: u32) -> Option<u32> {
        let days = at_s.saturating_sub(last_s) / DAY_S;
        let watched = f64::from(self.memory.watch.watched(self.days));
        let needed = self.watched_share * f64::from(self.days);
        (days >= self.days && watched >= needed).then_some(days)
    }

    fn login(&mut self, case: &Case<'_>) -> Option<Finding> {
        if case.again || !matches!(case.route.kind, RouteKind::Login | RouteKind::Token) {
            return None;
        }
        let account = case.exchange.account()?;
        let at_s = case.second();
        self.memory.logins.keep_to(self.cap);
        let name = spelling::account(account);
        let last = self.memory.logins.get_or(name, || at_s)?;
        let before = std::mem::replace(last, at_s.max(*last));
        let days = self.silence(before, at_s)?;
        let statement = Statement {
            severity: ABOUT.severity,
            confidence: 75,
            message: format!("An account that was silent for {days} days logged in on {}.", case.route.name),
            brief: format!("login after {days} days"),
            facts: vec![("silent_days", days.into()), ("account", Value::from(shown(account)))],
        };
        Some(statement.into_address_finding(&ABOUT, case).of_account(Some(name)))
    }

    /// A principal that is back is told of at its first success: the requests before may have failed.
    fn principal(&mut self, case: &Case<'_>) -> Option<Finding> {
        let known = case.who.principal().filter(|known| !known.is_new())?;
        if let Some(days) = self.silence(known.last_s, case.second()) {
            *self.memory.woken.of(known.slot) = u16::try_from(days).unwrap_or(u16::MAX);
        }
        let days = self.memory.woken.peek(known.slot).copied().filter(|days| *days > 0)?;
        if !case.exchange.is_success() {
            return None;
        }
        *self.memory.woken.of(known.slot) = 0;
        let subject = Subject::new(case, case.acting()?);
        let statement = Statement {
            severity: ABOUT.severity,
            confidence: 75,
            message: format!("A principal that was silent for {days} days is back: {}.", subject.told()),
            brief: format!("back after {days} days"),
            facts: vec![("silent_days", days.into())],
        };
        Some(statement.into_finding(&ABOUT, &subject))
    }
}

impl Rule for DormantAccount {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        self.memory.watch.note(case.second() / DAY_S);
        report.extend(self.principal(case));
        if case.exchange.is_success() {
            report.extend(self.login(case));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Signature, Token};

    fn on(day: u64, stage: Stage) -> Stage {
        stage.after_ms(day * 86_400_000)
    }

    fn lasting(name: &str, number: u64) -> Token {
        let token = token(number);
        Token {
            subject: Some(name.into()),
            expires: token.expires.get().map(|t| t + 900 * 86_400).into(),
            ..token
        }
    }

    /// Alice on day 0, then others every day up to `days`.
    fn after(days: u64) -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        play.ask(&on(0, Stage::new().status(200)), [lasting("alice", 1)]);
        play.ask(&on(0, login("Alice")), []);
        for day in 1..days {
            assert!(play.ask(&on(day, Stage::new().status(200)), [lasting("bob", 2)]).is_empty());
        }
        play
    }

    fn login(account: &str) -> Stage {
        Stage::to("POST", "/login").kind(RouteKind::Login).status(200).account(account)
    }

    #[test]
    fn two_months_of_silence_are_told_once() {
        for (day, told) in [(59, 0), (60, 1)] {
            let mut play = after(day);
            assert_eq!(
                play.ask(&on(day, Stage::new().status(200)), [lasting("alice", 3)]).len(),
                told,
                "{day}"
            );
            assert!(play.ask(&on(day, Stage::new().status(200)), [lasting("alice", 3)]).is_empty());
        }
    }

    #[test]
    fn logins_by_name_count_too() {
        let mut play = after(60);
        assert!(play.ask(&on(60, login("alice")).status(401), []).is_empty(), "a failure wakes nobody");
        assert_eq!(play.ask(&on(60, login("alice")), [])[0].brief, "login after 60 days");
        assert!(play.ask(&on(60, login("alice")), []).is_empty());
        assert!(play.ask(&on(60, login("carol")), []).is_empty(), "never seen before");
    }

    #[test]
    fn a_sensor_that_was_off_hears_no_silence() {
        let mut play = after(10);
        assert!(play.ask(&on(200, Stage::new().status(200)), [lasting("alice", 3)]).is_empty());
        assert!(play.ask(&on(200, login("alice")), []).is_empty());
    }

    #[test]
    fn claims_and_failures_wake_nobody() {
        let mut play = after(60);
        let forged = Token { signature: Signature::Invalid, ..lasting("alice", 3) };
        assert!(play.ask(&on(60, Stage::new().status(200)), [forged]).is_empty());
        assert!(play.ask(&on(60, Stage::new().status(403)), [lasting("alice", 4)]).is_empty());
        assert_eq!(
            play.ask(&on(60, Stage::new().status(200)), [lasting("alice", 4)]).len(),
            1,
            "now it is in"
        );
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = after(60);
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&on(60, login("alice")), []).len(), 1);
        assert_eq!(play.ask(&on(60, Stage::new().status(200)), [lasting("alice", 3)]).len(), 1);
    }

    #[test]
    fn days_out_of_order_and_far_jumps_are_kept_apart() {
        let mut watch = Watch::default();
        for day in [20_000, 20_002, 20_001, 19_000, 20_003] {
            watch.note(day);
        }
        assert_eq!(watch.watched(60), 3);
        watch.note(u32::MAX);
        assert_eq!(watch.watched(120), 0);
    }
}
