//! How rules with a history say what they found: about an actor, an address, or a service.

use std::net::{IpAddr, Ipv4Addr};

use crate::detect::cause::must_refuse;
use crate::detect::statement::{Statement, Subject, VERIFIERS_LEEWAY_S};
use crate::detect::{About, Case, Finding, scene};
use crate::token::TokenUse;

/// The token that names the actor, chosen as the roster does.
#[must_use]
pub fn acting<'a>(case: &Case<'a>) -> Option<&'a TokenUse> {
    let good = |held: &&TokenUse| must_refuse(&held.token, case.exchange.at, VERIFIERS_LEEWAY_S).is_none();
    case.tokens.iter().filter(|held| held.token.is_settled()).find(good)
}

/// About who acts.
#[must_use]
pub fn of_actor(about: &'static About, case: &Case<'_>, statement: Statement) -> Finding {
    match acting(case) {
        Some(held) => statement.into_finding(about, &Subject::new(case, held)),
        None => of_address(about, case, statement),
    }
}

/// About the client's address.
#[must_use]
pub fn of_address(about: &'static About, case: &Case<'_>, statement: Statement) -> Finding {
    Finding {
        rule: about,
        at: case.exchange.ended_at,
        severity: statement.severity,
        confidence: statement.confidence,
        principal: None,
        token: None,
        message: statement.message,
        brief: statement.brief,
        facts: statement.facts,
        scene: Some(Box::new(scene::of(case))),
    }
}

/// About the service: no client stands for it, and no route.
#[must_use]
pub fn of_service(about: &'static About, case: &Case<'_>, statement: Statement) -> Finding {
    let mut finding = of_address(about, case, statement);
    if let Some(scene) = &mut finding.scene {
        scene.client = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        scene.endpoints.client.set_ip(scene.client);
        scene.endpoints.client.set_port(0);
        scene.route = "-".into();
    }
    finding
}

/// So many of so many, in whole percent.
#[must_use]
pub fn percent(part: u32, whole: u32) -> u32 {
    let share = u64::from(part) * 100 / u64::from(whole.max(1));
    u32::try_from(share).unwrap_or(u32::MAX)
}
