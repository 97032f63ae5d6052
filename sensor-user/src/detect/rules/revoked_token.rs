//! `revoked-token`: a token that was good until somebody took it back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::cause::{cause, lateness_s};
use crate::detect::family::Family;
use crate::detect::statement::{Outcome, Statement, Subject, cautious_severity};
use crate::detect::table::Table;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Slot, Threshold,
    When,
};
use crate::token::{Form, Standing, Token};

/// The card.
pub static ABOUT: About = About {
    id: "revoked-token",
    title: "Revoked token",
    version: "1.1.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1550.001"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a token is used whose `jti` is in `lists.revoked_ids` or in the deny list in Redis, that its \
issuer calls inactive before its time (RFC 7662) or revoked or suspended in its status list \
(draft-ietf-oauth-status-list), or that was accepted after a logout with it was seen to succeed.\n\nSomebody took the \
token back, and somebody still uses it: often a thief. An application that accepts it does not check. An answer of \
2xx counts as accepted, and is critical, where the route is known to refuse strangers.\n\nAfter a logout, requests \
within the grace are benign (they were on their way), and so are refused ones (another tab has not noticed); one that \
is accepted from the same address and client is medium: the application forgets nothing at logout. An opaque token \
that was never seen to be active is told only if it was accepted, because it may be nothing but old. Lists and \
issuers are asked in the background: a token's first use waits two seconds for the answer, and a later use is judged \
by the newest. A status list is fetched once for all tokens and holds for its `ttl`; one that cannot be fetched again \
still tells who was revoked for good, until it expires. Whoever is down or not credible tells nothing. Remembers \
logouts by 8 bytes a token, and the newest 20,000 in full (60 bytes).",
    cooling_s: 600,
    thresholds: &[Threshold {
        key: "grace_s",
        default: 10.0,
        min: 0.0,
        max: 3_600.0,
        doc: "Seconds after a logout in which requests may still come.",
    }],
};

/// Logouts remembered with where they came from.
const MAX_LOGOUTS: usize = 20_000;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(RevokedToken {
        grace_s: settings.count(&ABOUT, "grace_s"),
        memory: Logouts { at_s: Column::default(), by: Table::new(MAX_LOGOUTS) },
    })
}

#[derive(Serialize, Deserialize)]
#[serde(from = "SavedLogouts")]
struct Logouts {
    /// When each token logged out; 0 if it did not.
    at_s: Column<u32>,
    /// From where and by what.
    by: Table<Slot, (Slot, Family)>,
}

#[derive(Deserialize)]
struct SavedLogouts {
    at_s: Column<u32>,
    by: Table<Slot, (Slot, Family)>,
}

impl From<SavedLogouts> for Logouts {
    fn from(SavedLogouts { at_s, mut by }: SavedLogouts) -> Self {
        by.limit(MAX_LOGOUTS);
        Self { at_s, by }
    }
}

struct RevokedToken {
    grace_s: u32,
    memory: Logouts,
}

/// How a token is known to be revoked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    List,
    Issuer,
    /// After a logout: whether by the one who logged out, as far as that can be told.
    Logout {
        same: bool,
    },
}

impl By {
    const fn as_str(self) -> &'static str {
        match self {
            Self::List => "it is in the deny list",
            Self::Issuer => "its issuer says that it is not active",
            Self::Logout { .. } => "its owner has logged out",
        }
    }
}

impl RevokedToken {
    /// Notes a logout; says whether the token was used after one.
    fn after_logout(&mut self, subject: &Subject<'_>) -> Option<By> {
        let case = subject.case;
        let slot = case.who.token(subject.token.fingerprint)?.slot;
        if case.route.kind == RouteKind::Logout {
            if case.exchange.is_success() {
                *self.memory.at_s.of(slot) = case.second().max(1);
                let place = (case.who.address.slot, case.who.family);
                if let Some(by) = self.memory.by.get_or(slot, || place) {
                    *by = place;
                }
            }
            return None;
        }
        let at_s = *self.memory.at_s.peek(slot).filter(|at_s| **at_s > 0)?;
        if case.second() <= at_s.saturating_add(self.grace_s) || subject.outcome() != Outcome::Accepted {
            return None;
        }
        let same = self.memory.by.get(&slot).is_none_or(|(address, family)| {
            *address == case.who.address.slot && !family.differs(case.who.family)
        });
        Some(By::Logout { same })
    }
}

/// What those say who were asked.
fn by_standing(subject: &Subject<'_>) -> Option<By> {
    let token = subject.token;
    match token.standing {
        Standing::Listed => Some(By::List),
        Standing::Inactive => {
            let over = lateness_s(token, subject.case.exchange.at).is_some_and(|late| late >= 0);
            let known = if token.form == Form::Opaque {
                token.was_good || subject.outcome() == Outcome::Accepted
            } else {
                token.is_verified()
            };
            (known && !over).then_some(By::Issuer)
        }
        Standing::Unknown | Standing::Asked | Standing::Good => None,
    }
}

/// Whether nothing else is wrong with the token, so that taking it back mattered.
fn mattered(token: &Token) -> bool {
    matches!(token.form, Form::Jws | Form::Opaque) && cause(token).is_none()
}

fn is_listed(case: &Case<'_>, token: &Token) -> bool {
    !case.knowledge.revoked_ids.is_empty()
        && token.id.as_ref().is_some_and(|id| case.knowledge.revoked_ids.contains(&*id.text()))
}

impl Rule for RevokedToken {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let subject = Subject::new(case, held);
            if !mattered(&held.token) {
                continue;
            }
            let after_logout = self.after_logout(&subject);
            let listed = is_listed(case, &held.token).then_some(By::List);
            if let Some(by) = listed.or_else(|| by_standing(&subject)).or(after_logout) {
                report.push(statement(&subject, by).into_finding(&ABOUT, &subject));
            }
        }
    }

    fn judge_standing(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let subject = Subject::new(case, held);
            // What the list says was told when the exchange was judged.
            if !mattered(&held.token) || is_listed(case, &held.token) {
                continue;
            }
            if let Some(by) = by_standing(&subject) {
                report.push(statement(&subject, by).into_finding(&ABOUT, &subject));
            }
        }
    }
}

fn statement(subject: &Subject<'_>, by: By) -> Statement {
    let same = by == By::Logout { same: true };
    Statement {
        severity: if same { Severity::Medium } else { cautious_severity(&ABOUT, subject) },
        confidence: match by {
            By::List => 95,
            By::Issuer => 90,
            By::Logout { .. } => 75,
        },
        message: format!("A token that was taken back ({}) {}.", by.as_str(), subject.told()),
        brief: format!("revoked token {}", subject.outcome().verb()),
        facts: vec![("revoked_by", by.as_str().into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage, token};
    use crate::detect::{Guard, Knowledge};
    use crate::token::{Signature, Unchecked};

    fn guarded() -> Stage {
        Stage::new().status(200).guard(Guard::Refuses)
    }

    fn severities(stage: &Stage, token: Token) -> Vec<Severity> {
        stage.ask(&mut *rule(&Arc::default()), [token]).iter().map(|f| f.severity).collect()
    }

    fn opaque(standing: Standing, was_good: bool) -> Token {
        Token {
            form: Form::Opaque,
            signature: Signature::Unchecked(Unchecked::Unreadable),
            policy: None,
            expires: None::<i64>.into(),
            id: None,
            standing,
            was_good,
            ..token(1)
        }
    }

    #[test]
    fn a_listed_id_is_high_and_critical_when_accepted() {
        let mut play = Play::new(rule(&Arc::default()));
        play.knowledge = Knowledge { revoked_ids: ["id-1".into()].into(), ..Knowledge::default() };
        assert_eq!(play.ask(&Stage::new().status(401), [token(1)])[0].severity, Severity::High);
        assert_eq!(play.ask(&guarded(), [token(1)])[0].severity, Severity::Critical);
        assert!(play.ask(&guarded(), [token(2)]).is_empty());
        let forged = Token { signature: Signature::Invalid, ..token(1) };
        assert!(play.ask(&guarded(), [forged]).is_empty(), "left to the rule that names the forgery");
    }

    #[test]
    fn what_those_say_who_were_asked_counts() {
        for standing in [Standing::Listed, Standing::Inactive] {
            assert_eq!(severities(&guarded(), Token { standing, ..token(1) }), [Severity::Critical]);
        }
        for standing in [Standing::Good, Standing::Unknown, Standing::Asked] {
            assert!(severities(&guarded(), Token { standing, ..token(1) }).is_empty());
        }
    }

    #[test]
    fn an_old_token_is_inactive_and_not_revoked() {
        let now = i64::try_from(NOW_S).unwrap();
        let old = Token { standing: Standing::Inactive, expires: Some(now).into(), ..token(1) };
        assert!(severities(&guarded(), old).is_empty());
        let refused = Stage::new().status(401);
        assert!(severities(&refused, opaque(Standing::Inactive, false)).is_empty(), "perhaps only old");
        assert_eq!(severities(&refused, opaque(Standing::Inactive, true)), [Severity::High]);
        assert_eq!(severities(&guarded(), opaque(Standing::Inactive, false)), [Severity::Critical]);
    }

    fn logged_out() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        let logout = Stage::to("POST", "/logout").kind(RouteKind::Logout);
        assert!(play.ask(&logout.clone().status(500), [token(2)]).is_empty());
        assert!(play.ask(&logout.status(204), [token(1)]).is_empty());
        play
    }

    #[test]
    fn after_a_logout_a_stranger_who_is_accepted_is_critical() {
        let mut play = logged_out();
        let later = guarded().after_ms(11_000);
        assert_eq!(play.ask(&later, [token(1)])[0].severity, Severity::Medium, "the owner's own");
        let thief = later.clone().client("203.0.113.5");
        assert_eq!(play.ask(&thief, [token(1)])[0].severity, Severity::Critical);
        assert!(play.ask(&thief, [token(2)]).is_empty(), "its logout failed");
    }

    #[test]
    fn requests_on_their_way_and_refused_ones_are_benign() {
        let mut play = logged_out();
        for stage in [
            guarded().after_ms(10_000),
            guarded().after_ms(60_000).status(401),
            guarded().after_ms(60_000).guard(Guard::Open),
            Stage::to("POST", "/logout").kind(RouteKind::Logout).status(204).after_ms(60_000),
        ] {
            assert!(play.ask(&stage, [token(1)]).is_empty());
        }
    }

    #[test]
    fn a_restart_keeps_logouts() {
        let mut play = logged_out();
        play.restart(rule(&Arc::default()));
        let thief = guarded().after_ms(11_000).client("203.0.113.5");
        assert_eq!(play.ask(&thief, [token(1)]).len(), 1);
    }
}
