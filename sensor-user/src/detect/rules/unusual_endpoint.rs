//! `unusual-endpoint`: a caller uses a route that neither it nor its peers ever used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::roster::{roles_of, stable_hash};
use crate::detect::statement::Statement;
use crate::detect::told::Daily;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Threshold, When,
};
use crate::token::Token;

/// The card.
pub static ABOUT: About = About {
    id: "unusual-endpoint",
    title: "Route unusual for its caller",
    version: "1.1.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1078"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when a verified principal that is known for a week and for 200 requests gets a 2xx on a route that is \
known for a week too and was used at least 50 times, and neither the principal nor anybody with the same client, \
roles and scopes was answered there before, although that group made 1000 requests to the service.\n\nAn account in \
other hands is used for other things. Taken alone it is weak evidence: it is low, and told at most three times a day \
for each service; what is beyond is learned in silence.\n\nBenign sources: new features, seasonal work, new duties. \
A route that more than 64 groups use is nobody's in particular. It costs 4 bytes an actor, 28 a route and 4 for each \
of its groups, and 200 bytes a service in use.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "learn_days",
            default: 7.0,
            min: 0.0,
            max: 90.0,
            doc: "Days for which caller and route must be known.",
        },
        Threshold {
            key: "route_uses",
            default: 50.0,
            min: 1.0,
            max: 1_000_000.0,
            doc: "Earlier requests that the route must have had.",
        },
        Threshold {
            key: "per_day",
            default: 3.0,
            min: 1.0,
            max: 1000.0,
            doc: "Findings a day for each service.",
        },
    ],
};

/// Requests that make a caller known.
const KNOWN_USES: u32 = 200;

/// Requests of a group to a service that make it known, and groups told apart.
const GROUP_USES: u16 = 1000;
const GROUPS: usize = 64;

/// Groups that are remembered of one route.
const MAX_GROUPS: usize = 64;

const DAY_S: u32 = 86_400;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(UnusualEndpoint {
        learn_s: settings.count(&ABOUT, "learn_days").saturating_mul(DAY_S),
        route_uses: settings.count(&ABOUT, "route_uses"),
        per_day: settings.count(&ABOUT, "per_day"),
        memory: (Column::default(), Column::default()),
    })
}

#[derive(Default, Serialize, Deserialize)]
struct OfService {
    /// Requests of each group, by its bit.
    groups: Vec<u16>,
    daily: Daily,
}

struct UnusualEndpoint {
    learn_s: u32,
    route_uses: u32,
    per_day: u32,
    /// Which groups were answered on each route.
    memory: (Column<Groups>, Column<OfService>),
}

/// The groups that were answered on a route, by half of their hashes.
#[derive(Default, Serialize, Deserialize)]
struct Groups(Vec<u32>);

impl Groups {
    /// Adds a group. Whether it is known to be new.
    fn add(&mut self, group: u64) -> bool {
        let name = u32::try_from(group >> 32).unwrap_or_default();
        if self.0.contains(&name) || self.0.len() >= MAX_GROUPS {
            return false;
        }
        self.0.push(name);
        true
    }
}

/// Everybody with the same client family, roles and scopes.
fn group_of(case: &Case<'_>, token: &Token) -> u64 {
    stable_hash(&(roles_of(token), case.who.family))
}

impl OfService {
    /// Counts a request of a group; how many it made before.
    fn count(&mut self, group: u64) -> u16 {
        if self.groups.is_empty() {
            self.groups = vec![0; GROUPS];
        }
        let at = usize::try_from(group >> 58).unwrap_or_default();
        let Some(count) = self.groups.get_mut(at) else { return 0 };
        *count = count.saturating_add(1);
        *count
    }
}

impl Rule for UnusualEndpoint {
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
        if !case.exchange.is_success() || matches!(case.route.kind, RouteKind::Health | RouteKind::Public) {
            return;
        }
        let Some(held) = case.acting() else { return };
        let group = group_of(case, &held.token);
        let (routes, services) = &mut self.memory;
        let service = services.of(case.who.service.slot);
        let requests = service.count(group);
        if !routes.of(case.route.slot).add(group) {
            return;
        }
        let second = case.second();
        let lasted = |first_s: u32| second.saturating_sub(first_s) >= self.learn_s;
        let known = principal.uses >= KNOWN_USES && lasted(principal.first_s) && requests >= GROUP_USES;
        let settled = case.route.uses >= self.route_uses && lasted(case.route.first_s);
        if !known || !settled || !service.daily.may_tell(second / DAY_S, self.per_day) {
            return;
        }
        let statement = Statement {
            severity: ABOUT.severity,
            confidence: 40,
            message: format!(
                "A principal used {} for the first time; nobody with the same client and roles ever did.",
                case.route.name
            ),
            brief: "route new for caller and peers".to_owned(),
            facts: vec![("route_uses", case.route.uses.into()), ("caller_requests", principal.uses.into())],
        };
        report.push(statement.into_actor_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, held_by};

    const WEEK_MS: u64 = 7 * 86_400_000;

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn of(role: &str) -> Token {
        held_by(role).of_profile(|p| p.roles = Arc::new([role.into()]))
    }

    fn ask(play: &mut Play, path: &str, role: &str, ms: u64) -> usize {
        let stage = Stage::to("GET", path).route_known(1000, 10_000_000).status(200).after_ms(ms);
        play.ask(&stage, [of(role)]).len()
    }

    /// Two groups with a route each, over more than a week.
    fn learned() -> Play {
        let mut play = play();
        for i in 0..1200 {
            assert_eq!(ask(&mut play, "/orders", "clerk", i * WEEK_MS / 1000), 0);
            assert_eq!(ask(&mut play, "/ledger", "accountant", i * WEEK_MS / 1000), 0);
        }
        play
    }

    #[test]
    fn a_route_of_another_group_fires_once() {
        let mut play = learned();
        assert_eq!(ask(&mut play, "/ledger", "clerk", 2 * WEEK_MS), 1);
        assert_eq!(ask(&mut play, "/ledger", "clerk", 2 * WEEK_MS), 0);
    }

    #[test]
    fn new_callers_and_new_routes_are_left_alone() {
        let mut play = learned();
        assert_eq!(ask(&mut play, "/ledger", "intern", 2 * WEEK_MS), 0);
        let new = Stage::to("GET", "/feature").route_known(10, 10_000_000).status(200).after_ms(2 * WEEK_MS);
        assert!(play.ask(&new, [of("clerk")]).is_empty());
    }

    #[test]
    fn a_service_has_a_budget_a_day() {
        let mut play = learned();
        let told: usize =
            (0..50).map(|i| ask(&mut play, &format!("/other/x{i}y"), "clerk", 2 * WEEK_MS + i)).sum();
        assert_eq!(told, 3);
    }

    #[test]
    fn a_restart_keeps_what_was_learned() {
        let mut play = learned();
        play.restart(rule(&Arc::default()));
        assert_eq!(ask(&mut play, "/orders", "clerk", 2 * WEEK_MS), 0);
        assert_eq!(ask(&mut play, "/ledger", "clerk", 2 * WEEK_MS), 1);
    }
}
