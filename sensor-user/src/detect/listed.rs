//! The frame of rules that look an account up in a list: who left, who is denied.
//!
//! An account is a verified principal's subject, the name in a login, or the name in the login that a token came of, if
//! that was seen. A name in a login that fails is anybody's
//! claim: it is told of as low, and names nobody.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::detect::cause::must_refuse;
use crate::detect::lineage;
use crate::detect::login::shown;
use crate::detect::statement::{Outcome, Statement, Subject, VERIFIERS_LEEWAY_S, severity};
use crate::detect::{
    About, Case, Column, Finding, Knowledge, Memory, Report, RouteKind, Rule, Severity, When,
};
use crate::token::TokenUse;

/// Seconds for which one account is told of once, unless it gets worse. The desk counts repeats; this keeps a busy
/// account from costing more than others.
const REPEAT_S: u32 = 60;

/// What is known of a principal: 16 bytes.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// The knowledge that it was looked up in, plus one.
    revision: u32,
    listed: bool,
    told_s: u32,
    worst: Option<Severity>,
}

/// A rule about accounts of one list.
pub struct Listed {
    about: &'static About,
    /// What the account is, for sentences: `of somebody who has left`.
    what: &'static str,
    list: fn(&Knowledge) -> &BTreeSet<Box<str>>,
    /// Looked up once a principal and list; a restart only costs looking again.
    principals: Column<Entry>,
    /// The list by [`lineage::account`], sorted, and the knowledge that it is of, plus one.
    names: (u32, Vec<u64>),
    /// When each token was told of that came of a listed account's login.
    told_s: Column<u32>,
}

impl Listed {
    /// A rule about accounts of one list.
    #[must_use]
    pub fn new(
        about: &'static About,
        what: &'static str,
        list: fn(&Knowledge) -> &BTreeSet<Box<str>>,
    ) -> Self {
        Self {
            about,
            what,
            list,
            principals: Column::default(),
            names: (0, Vec::new()),
            told_s: Column::default(),
        }
    }

    fn is_listed(&self, knowledge: &Knowledge, account: &str) -> bool {
        (self.list)(knowledge).contains(&*knowledge.spelling.of(account))
    }

    fn principal(&mut self, case: &Case<'_>) -> Option<Finding> {
        let slot = case.who.principal()?.slot;
        let revision = case.knowledge.revision.wrapping_add(1);
        let entry = *self.principals.of(slot);
        if entry.revision == revision && !entry.listed {
            return None;
        }
        let held = case.acting()?;
        let listed = entry.revision == revision
            || held.token.subject.as_deref().is_some_and(|subject| self.is_listed(case.knowledge, subject));
        let entry = self.principals.of(slot);
        (entry.revision, entry.listed) = (revision, listed);
        let subject = Subject::new(case, held);
        let outcome = subject.outcome();
        let severity = severity(self.about, outcome);
        let at_s = case.second();
        let is_old = entry.told_s == 0 || at_s.abs_diff(entry.told_s) >= REPEAT_S;
        if !listed || (!is_old && Some(severity) <= entry.worst) {
            return None;
        }
        (entry.told_s, entry.worst) = (at_s, Some(severity));
        let statement = Statement {
            severity,
            confidence: 95,
            message: format!("A token of an account {} {}.", self.what, subject.told()),
            brief: format!("{} {}", self.about.id.replace('-', " "), outcome.verb()),
            facts: Vec::new(),
        };
        Some(statement.into_finding(self.about, &subject))
    }

    /// A token that came of the login of a listed account, whatever it says itself.
    fn issued(&mut self, case: &Case<'_>) -> Option<Finding> {
        if case.lineage.is_empty() {
            return None;
        }
        let known = case.who.principal().and_then(|principal| self.principals.peek(principal.slot));
        if known.is_some_and(|entry| entry.listed) {
            return None;
        }
        let good =
            |held: &&TokenUse| must_refuse(&held.token, case.exchange.at, VERIFIERS_LEEWAY_S).is_none();
        let held = case.tokens.iter().filter(good).find(|held| {
            let account = case.birth(held.token.fingerprint).map_or(0, |birth| birth.account);
            account != 0 && self.holds(case.knowledge, account)
        })?;
        let told_s = self.told_s.of(case.who.token(held.token.fingerprint)?.slot);
        let at_s = case.second();
        if *told_s != 0 && at_s.abs_diff(*told_s) < REPEAT_S {
            return None;
        }
        *told_s = at_s;
        let subject = Subject::new(case, held);
        let outcome = subject.outcome();
        let statement = Statement {
            severity: severity(self.about, outcome),
            confidence: 90,
            message: format!(
                "A token that came of the login of an account {} {}.",
                self.what,
                subject.told()
            ),
            brief: format!("{} {}", self.about.id.replace('-', " "), outcome.verb()),
            facts: vec![("by_login", true.into())],
        };
        Some(statement.into_finding(self.about, &subject))
    }

    fn holds(&mut self, knowledge: &Knowledge, account: u64) -> bool {
        let revision = knowledge.revision.wrapping_add(1);
        if self.names.0 != revision {
            let mut names: Vec<u64> =
                (self.list)(knowledge).iter().map(|name| lineage::account(name)).collect();
            names.sort_unstable();
            self.names = (revision, names);
        }
        self.names.1.binary_search(&account).is_ok()
    }

    fn login(&self, case: &Case<'_>) -> Option<Finding> {
        if case.again || !matches!(case.route.kind, RouteKind::Login | RouteKind::Token) {
            return None;
        }
        let account = case.exchange.account().filter(|account| self.is_listed(case.knowledge, account))?;
        let success = case.exchange.is_success();
        let outcome = if success { Outcome::Accepted } else { Outcome::Refused };
        let how = if success { "succeeded" } else { "was tried" };
        let statement = Statement {
            severity: if success { severity(self.about, outcome) } else { Severity::Low },
            confidence: if success { 95 } else { 60 },
            message: format!("A login with an account {} {how} on {}.", self.what, case.route.name),
            brief: format!("login of {} {how}", self.about.id.replace('-', " ")),
            facts: vec![("account", Value::from(shown(account)))],
        };
        Some(statement.into_address_finding(self.about, case).of_account(Some(lineage::account(account))))
    }
}

impl Rule for Listed {
    fn about(&self) -> &'static About {
        self.about
    }

    fn when(&self) -> When {
        When::NEWS
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if (self.list)(case.knowledge).is_empty() {
            return;
        }
        report.extend(self.principal(case));
        report.extend(self.issued(case));
        report.extend(self.login(case));
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        None
    }
}
