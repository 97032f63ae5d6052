//! `function-escalation`: a caller succeeds at a function that its group does not have.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::roster::{roles_of, stable_hash};
use crate::detect::sketch::Crowd;
use crate::detect::statement::Statement;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Slot, Threshold,
    When,
};
use crate::token::Token;

/// The card.
pub static ABOUT: About = About {
    id: "function-escalation",
    title: "A function beyond the caller's rights was used",
    version: "1.0.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1068", "T1548"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires at the first 2xx of a verified principal on a route (method and path) that nobody with the same roles \
and scopes was ever answered on, if (a) this principal was refused there with 403 within a day, under the same roles, \
and so was its group, at least three times; or (b) the route is for administration (`kind: admin`, or `admin` in its \
path), principals of another group use it, at least five times so far, and this one has no privileged role \
(OWASP API5:2023).\n\nAn application that checks rights in its pages and not in its functions answers whoever knows \
the URL.\n\nBenign sources: new rights under old role names; a refusal that was a mistake and was repaired. Without \
roles in tokens all callers are one group, and only (a) can tell: then its confidence is lower. It needs verified \
tokens. An actor costs 56 bytes, a route 88.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "group_refusals",
            default: 3.0,
            min: 1.0,
            max: 10_000.0,
            doc: "Refusals of the group on the route from which a success is odd.",
        },
        Threshold {
            key: "other_uses",
            default: 5.0,
            min: 1.0,
            max: 10_000.0,
            doc: "Successes of other groups on an administrative route from which a first one is odd.",
        },
    ],
};

/// Refusals remembered of one principal.
const MAX_REFUSALS: usize = 3;

/// Groups told apart of one route. Beyond them the route is open to many and nothing is said of it.
const MAX_GROUPS: usize = 6;

const DAY_S: u32 = 86_400;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(FunctionEscalation {
        refusals: settings.count(&ABOUT, "group_refusals"),
        others: settings.count(&ABOUT, "other_uses"),
        memory: (Column::default(), Column::default()),
    })
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Refusal {
    route: Slot,
    group: u32,
    at_s: u32,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Group {
    name: u32,
    answered: u16,
    refused: u16,
}

#[derive(Default, Serialize, Deserialize)]
struct OfRoute {
    groups: ArrayVec<Group, MAX_GROUPS>,
    many: bool,
    /// Who succeeded.
    callers: Crowd,
}

struct FunctionEscalation {
    refusals: u32,
    others: u32,
    memory: (Column<ArrayVec<Refusal, MAX_REFUSALS>>, Column<OfRoute>),
}

impl OfRoute {
    fn group(&mut self, name: u32) -> Option<&mut Group> {
        let at = self.groups.iter().position(|group| group.name == name).or_else(|| {
            if self.groups.try_push(Group { name, ..Group::default() }).is_err() {
                self.many = true;
                return None;
            }
            Some(self.groups.len() - 1)
        })?;
        self.groups.get_mut(at)
    }
}

/// Everybody with the same roles and scopes from the same issuer. Their order does not matter.
fn group_of(token: &Token) -> u32 {
    let issuer = token.issuer.as_deref().map_or(0, stable_hash);
    u32::try_from((issuer ^ roles_of(token).rotate_left(7)) >> 32).unwrap_or_default()
}

impl Rule for FunctionEscalation {
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
        let Some(principal) = case.who.principal() else { return };
        let success = case.exchange.is_success();
        if !success && case.exchange.status() != Some(403) {
            return;
        }
        let Some(held) = case.acting() else { return };
        let (name, second) = (group_of(&held.token), case.second());
        let route = self.memory.1.of(case.route.slot);
        let others = route.groups.iter().filter(|group| group.name != name);
        let others: u32 = others.map(|group| u32::from(group.answered)).sum();
        let Some(group) = route.group(name) else { return };
        if !success {
            group.refused = group.refused.saturating_add(1);
            let refusals = self.memory.0.of(principal.slot);
            note(refusals, Refusal { route: case.route.slot, group: name, at_s: second });
            return;
        }
        group.answered = group.answered.saturating_add(1);
        let group = *group;
        route.callers.add(stable_hash(&principal.slot));
        if group.answered > 1 || route.many {
            return;
        }
        let same = |r: &Refusal| {
            r.route == case.route.slot && r.group == name && second.saturating_sub(r.at_s) <= DAY_S
        };
        let refused_before = self.memory.0.peek(principal.slot).is_some_and(|all| all.iter().any(same));
        let after_refusal = refused_before && u32::from(group.refused) >= self.refusals;
        let on_admin = is_admin(case) && others >= self.others && !is_privileged(case, &held.token);
        if !after_refusal && !on_admin {
            return;
        }
        let sure = others >= self.others;
        let why = if after_refusal { "after refusals" } else { "which others administer with" };
        let statement = Statement {
            severity: ABOUT.severity,
            confidence: if sure { 80 } else { 55 },
            message: format!(
                "{} answered a principal whose group was never answered there, {why}.",
                case.route.name
            ),
            brief: "first use by this group".to_owned(),
            facts: vec![
                ("group_refusals", group.refused.into()),
                ("successes_of_other_groups", others.into()),
                ("after_refusal", after_refusal.into()),
            ],
        };
        report.push(statement.into_actor_finding(&ABOUT, case));
    }
}

fn note(refusals: &mut ArrayVec<Refusal, MAX_REFUSALS>, new: Refusal) {
    if let Some(same) = refusals.iter_mut().find(|r| r.route == new.route) {
        *same = new;
        return;
    }
    if refusals.is_full() {
        refusals.remove(0);
    }
    refusals.push(new);
}

fn is_admin(case: &Case<'_>) -> bool {
    case.route.kind == RouteKind::Admin
        || case.route.name.split('/').any(|word| word.eq_ignore_ascii_case("admin"))
}

fn is_privileged(case: &Case<'_>, token: &Token) -> bool {
    let listed = |role: &str| case.knowledge.privileged_roles.contains(role.to_ascii_uppercase().as_str());
    token.roles.iter().any(|role| listed(role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn held(user: &str, roles: &[&str]) -> Token {
        let number = stable_hash(user) >> 8;
        Token {
            subject: Some(user.into()),
            ..token(number).of_profile(|p| p.roles = roles.iter().map(|role| Box::from(*role)).collect())
        }
    }

    fn ask(play: &mut Play, path: &str, held: Token, status: u16) -> usize {
        play.ask(&Stage::to("DELETE", path).status(status), [held]).len()
    }

    fn administered() -> Play {
        let mut play = play();
        for _ in 0..5 {
            assert_eq!(ask(&mut play, "/admin/users", held("root", &["OPS"]), 200), 0);
        }
        play
    }

    #[test]
    fn success_after_refusal_fires_once() {
        let mut play = play();
        for _ in 0..3 {
            assert_eq!(ask(&mut play, "/reports", held("bob", &["USER"]), 403), 0);
        }
        assert_eq!(ask(&mut play, "/reports", held("bob", &["USER"]), 200), 1);
        assert_eq!(ask(&mut play, "/reports", held("bob", &["USER"]), 200), 0);
    }

    #[test]
    fn a_first_success_on_an_administrative_route_fires() {
        let mut play = administered();
        assert_eq!(ask(&mut play, "/admin/users", held("bob", &["USER"]), 200), 1);
        assert_eq!(ask(&mut play, "/admin/users", held("carol", &["USER"]), 200), 0, "her group has it now");
    }

    #[test]
    fn ordinary_routes_and_first_users_are_left_alone() {
        let mut play = play();
        assert_eq!(ask(&mut play, "/orders", held("bob", &["USER"]), 200), 0);
        assert_eq!(ask(&mut play, "/admin/users", held("root", &["OPS"]), 200), 0);
    }

    #[test]
    fn new_rights_come_with_new_roles() {
        let mut play = play();
        for _ in 0..3 {
            ask(&mut play, "/reports", held("bob", &["USER"]), 403);
        }
        assert_eq!(ask(&mut play, "/reports", held("bob", &["USER", "REPORTER"]), 200), 0);
    }

    #[test]
    fn one_refusal_among_peers_that_have_the_function_is_nothing() {
        let mut play = play();
        ask(&mut play, "/reports", held("carol", &["USER"]), 200);
        for _ in 0..5 {
            ask(&mut play, "/reports", held("bob", &["USER"]), 403);
        }
        assert_eq!(ask(&mut play, "/reports", held("bob", &["USER"]), 200), 0);
    }

    #[test]
    fn privileged_roles_are_left_alone() {
        let mut play = administered();
        play.knowledge.privileged_roles.insert("ADMIN".into());
        assert_eq!(ask(&mut play, "/admin/users", held("eve", &["admin"]), 200), 0);
    }

    #[test]
    fn the_order_of_roles_does_not_matter() {
        assert_eq!(group_of(&held("a", &["X", "Y"])), group_of(&held("b", &["Y", "X"])));
        assert_ne!(group_of(&held("a", &["X"])), group_of(&held("a", &[])));
    }

    #[test]
    fn groups_are_bounded() {
        let mut play = administered();
        let told: usize =
            (0..100).map(|i| ask(&mut play, "/admin/users", held("x", &[&format!("R{i}")]), 200)).sum();
        assert_eq!(told, MAX_GROUPS - 1);
    }

    #[test]
    fn a_restart_keeps_what_was_learned() {
        let mut play = administered();
        play.restart(rule(&Arc::default()));
        assert_eq!(ask(&mut play, "/admin/users", held("bob", &["USER"]), 200), 1);
    }
}
