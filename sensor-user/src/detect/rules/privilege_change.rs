//! `privilege-change`: a principal whose tokens suddenly give power over others.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::detect::learning::DAY_S;
use crate::detect::roster::stable_hash;
use crate::detect::statement::{Statement, Subject, show};
use crate::detect::{
    About, Case, Column, DetectSettings, Finding, Memory, Needs, Report, Rule, Severity, Slot, Threshold,
    When,
};
use crate::token::{Token, TokenUse};

/// The card.
pub static ABOUT: About = About {
    id: "privilege-change",
    title: "A principal has gained power",
    version: "1.0.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1098"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when a verified token of a principal holds one of `lists.privileged_roles` that none of its tokens held \
before, once three of its tokens, or a day, have been seen. Roles and scopes count alike, without regard to case; \
`ROLE_ADMIN` counts as `ADMIN`.\n\nWho breaks into a directory or an identity provider gives an account more power, and \
the next token shows it.\n\nBenign source: a promotion, which somebody should have asked for; and administrators who \
take up their power only when they need it, of whom each role is told once. What comes from \
`lists.trusted_addresses` is approved, and learned. It does not see power that is not in the token, and no more than \
eight such roles of one principal. 48 bytes a principal.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "min_tokens",
            default: 3.0,
            min: 1.0,
            max: 1_000.0,
            doc: "Tokens of a principal that must have been seen before.",
        },
        Threshold {
            key: "min_days",
            default: 1.0,
            min: 0.0,
            max: 365.0,
            doc: "Or days for which it must be known.",
        },
    ],
};

/// Privileged roles remembered of one principal; what comes beyond is not judged.
const MAX_ROLES: usize = 8;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(PrivilegeChange {
        min_tokens: settings.count(&ABOUT, "min_tokens"),
        min_days: settings.count(&ABOUT, "min_days"),
        memory: Column::default(),
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Power {
    token: Slot,
    first_s: u32,
    tokens: u16,
    /// Hashes of the privileged roles that it had.
    /// At most [`MAX_ROLES`].
    roles: SmallVec<[u32; 2]>,
}

struct PrivilegeChange {
    min_tokens: u32,
    min_days: u32,
    memory: Column<Power>,
}

/// The role as lists name it, if it is privileged.
fn privileged<'a>(case: &Case<'_>, role: &'a str) -> Option<&'a str> {
    let listed = &case.knowledge.privileged_roles;
    let bare = role.strip_prefix("ROLE_").unwrap_or(role);
    [role, bare].into_iter().find(|name| listed.contains(*name))
}

fn number(role: &str) -> u32 {
    u32::try_from(stable_hash(role) >> 32).unwrap_or_default()
}

impl PrivilegeChange {
    /// Notes a token. The privileged role that is new, if the principal is known well enough.
    fn gained<'a>(&mut self, case: &Case<'_>, actor: Slot, token: &'a Token) -> Option<&'a str> {
        let at_s = case.second();
        let power = self.memory.of(actor);
        if power.tokens == 0 {
            power.first_s = at_s;
        }
        let learned = u32::from(power.tokens) >= self.min_tokens
            || at_s.saturating_sub(power.first_s) >= self.min_days.saturating_mul(DAY_S).max(1);
        power.tokens = power.tokens.saturating_add(1);
        let mut gained = None;
        for role in token.roles.iter().filter_map(|role| privileged(case, role)) {
            if !power.roles.contains(&number(role)) && power.roles.len() < MAX_ROLES {
                power.roles.push(number(role));
                gained = gained.or(Some(role));
            }
        }
        gained.filter(|_| learned && !case.who.trusted_address)
    }
}

impl Rule for PrivilegeChange {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::PRINCIPAL)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(actor) = case.who.principal() else { return };
        let power = self.memory.of(actor.slot);
        let token = case.who.first_token();
        if power.tokens > 0 && power.token == token {
            return;
        }
        power.token = token;
        let Some(held) = case.acting() else { return };
        if let Some(role) = self.gained(case, actor.slot, &held.token) {
            report.push(finding(case, held, role));
        }
    }
}

fn finding(case: &Case<'_>, held: &TokenUse, role: &str) -> Finding {
    let subject = Subject::new(case, held);
    let role = show(role);
    let statement = Statement {
        severity: ABOUT.severity,
        confidence: 75,
        message: format!("A principal that never had the role {role} has it now: {}.", subject.told()),
        brief: format!("gained {role}"),
        facts: vec![("role", role.into())],
    };
    statement.into_finding(&ABOUT, &subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};

    fn play() -> Play {
        with(&DetectSettings::default())
    }

    fn with(settings: &DetectSettings) -> Play {
        let mut play = Play::with(rule(&Arc::default()), settings);
        play.knowledge.privileged_roles = ["ADMIN".into(), "SUPER_ADMIN".into()].into();
        play
    }

    fn holding(number: u64, roles: &[&str]) -> Token {
        token(number).of_profile(|p| p.roles = roles.iter().map(|role| (*role).into()).collect())
    }

    fn used(s: u64) -> Stage {
        Stage::new().status(200).after_ms(s * 1000)
    }

    /// Three tokens of a reader.
    fn reader() -> Play {
        let mut play = play();
        for number in 0..3 {
            assert!(play.ask(&used(number), [holding(number, &["ORDERS:READ"])]).is_empty());
        }
        play
    }

    #[test]
    fn a_reader_who_becomes_admin_is_told_once() {
        let mut play = reader();
        assert!(play.ask(&used(3), [holding(4, &["ORDERS:WRITE"])]).is_empty());
        let found = play.ask(&used(4), [holding(5, &["ORDERS:READ", "ROLE_ADMIN"])]);
        assert_eq!((found[0].severity, found[0].brief.as_str()), (Severity::High, "gained ADMIN"));
        assert!(play.ask(&used(5), [holding(6, &["ADMIN"])]).is_empty());
        assert_eq!(play.ask(&used(6), [holding(7, &["ADMIN", "SUPER_ADMIN"])]).len(), 1);
    }

    #[test]
    fn a_day_is_enough_too() {
        let lasting = |number, roles: &[&str]| {
            let token = holding(number, roles);
            Token { expires: token.expires.get().map(|t| t + 200_000).into(), ..token }
        };
        for (seconds, told) in [(86_399, 0), (86_400, 1)] {
            let mut play = play();
            play.ask(&used(0), [lasting(1, &[])]);
            assert_eq!(play.ask(&used(seconds), [lasting(2, &["ADMIN"])]).len(), told, "{seconds}");
        }
    }

    #[test]
    fn an_admin_from_the_start_is_no_change() {
        let mut play = play();
        for number in 0..10 {
            let roles: &[&str] = if number % 2 == 0 { &["ADMIN"] } else { &[] };
            assert!(play.ask(&used(number), [holding(number, roles)]).is_empty());
        }
    }

    #[test]
    fn approved_addresses_are_benign_and_teach() {
        let settings = DetectSettings {
            trusted_addresses: vec!["192.0.2.0/24".parse().unwrap()],
            ..DetectSettings::default()
        };
        let mut play = with(&settings);
        for number in 0..3 {
            play.ask(&used(number), [holding(number, &[])]);
        }
        assert!(play.ask(&used(4).client("192.0.2.7"), [holding(4, &["ADMIN"])]).is_empty());
        assert!(play.ask(&used(5), [holding(5, &["ADMIN"])]).is_empty());
    }

    #[test]
    fn claims_give_no_power() {
        let mut play = reader();
        let forged = Token { signature: crate::token::Signature::Invalid, ..holding(9, &["ADMIN"]) };
        assert!(play.ask(&used(4), [forged]).is_empty());
        assert_eq!(play.ask(&used(5), [holding(10, &["ADMIN"])]).len(), 1, "the forgery taught nothing");
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut play = reader();
        play.restart(rule(&Arc::default()));
        assert_eq!(play.ask(&used(4), [holding(5, &["ADMIN"])]).len(), 1);
    }

    #[test]
    fn many_roles_stay_bounded() {
        let mut play = reader();
        play.knowledge.privileged_roles = (0..100).map(|n| format!("R{n}").into()).collect();
        let told: usize =
            (0..100).map(|n| play.ask(&used(n), [holding(n + 10, &[&format!("R{n}")])]).len()).sum();
        assert_eq!(told, MAX_ROLES);
    }
}
