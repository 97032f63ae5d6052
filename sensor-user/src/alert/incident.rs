//! One incident: what it holds of its alerts, and how it grows and takes in another. [`Incidents`] keeps them all.
//!
//! [`Incidents`]: crate::alert::incidents::Incidents

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ulid::Ulid;

use crate::alert::entity::Entity;
use crate::alert::{Activity, Alert};
use crate::capture::Time;
use crate::detect::rules::entity_risk;
use crate::detect::{About, Finding, Scene, Severity};
use crate::token::Fingerprint;

/// The longest that one incident lasts: beyond a day nobody reads it as one story.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Alerts shown of one incident, the first ones: they tell how it began. Others are counted.
pub const MAX_MEMBERS: usize = 50;

/// Principals, tokens, addresses, routes and services of one incident, each: what a person can read.
pub const MAX_NAMES: usize = 32;

/// People named in the exchanges of one incident: as many as its routes can bring. A route that brings more is not shown.
pub const MAX_PEOPLE: usize = MAX_NAMES * Scene::MAX_NAMES;

/// Entities by which alerts join one incident.
pub(super) const MAX_KEYS: usize = 64;

/// Incidents that one incident may have swallowed and is still known by.
pub(super) const MAX_MERGED: usize = 16;

/// An alert as its incident knows it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The alert.
    pub id: Ulid,
    /// Its rule.
    pub rule: &'static About,
    /// Its worst severity.
    pub severity: Severity,
    /// Its first finding.
    pub first_seen: Time,
}

/// One incident, or news of one.
#[derive(Clone, Debug)]
pub struct Incident {
    /// The same for every event of one incident and for every replay: made of its first alert.
    pub id: Ulid,
    /// Where it is in its life.
    pub activity: Activity,
    /// The worst severity of its alerts.
    pub severity: Severity,
    /// When it became that bad.
    pub raised: Time,
    /// First finding.
    pub first_seen: Time,
    /// Newest finding.
    pub last_seen: Time,
    /// Its first alerts, at most [`MAX_MEMBERS`].
    pub members: Vec<Member>,
    /// Alerts.
    pub alerts: u64,
    /// Findings.
    pub findings: u64,
    /// Requests with findings that were answered 2xx.
    pub accepted: u64,
    /// Bytes of answers to those, where framing tells.
    pub bytes: u64,
    /// The highest risk of anybody involved, 0 to 100.
    pub risk: u8,
    /// Verified principals, at most [`MAX_NAMES`], as all lists here.
    pub principals: Vec<(Box<str>, Option<Box<str>>)>,
    /// Tokens.
    pub tokens: Vec<Fingerprint>,
    /// Who holds the clients' addresses.
    pub addresses: Vec<IpAddr>,
    /// Route templates.
    pub routes: Vec<Arc<str>>,
    /// Servers.
    pub services: Vec<SocketAddr>,
    /// What they are called. The runtime, which may look at the host, fills it in.
    pub workloads: Vec<(SocketAddr, String)>,
    /// Names of people in the exchanges that the routes are of, for privacy to hide: at most [`MAX_PEOPLE`].
    pub people: Vec<Box<str>>,
    /// The older incident that goes on in its place, when it closes for that.
    pub merged_into: Option<Ulid>,
}

/// What an incident counts of one finding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    at: Time,
    accepted: bool,
    bytes: u64,
    /// Tells requests apart: several findings may be about one.
    request: Option<(Time, SocketAddr)>,
    /// Whether it only sums up what others have found.
    summary: bool,
}

impl Seen {
    pub(super) fn of(finding: &Finding) -> Self {
        let scene = finding.scene.as_deref();
        let accepted = scene.and_then(|s| s.status).is_some_and(|status| (200..300).contains(&status));
        let bytes = scene.filter(|_| accepted).and_then(|s| s.response_bytes).unwrap_or(0);
        let request = scene.map(|s| (s.at, s.endpoints.client));
        let summary = finding.rule.id == entity_risk::ABOUT.id;
        Self { at: finding.at, accepted, bytes, request, summary }
    }
}

/// An incident that is not over.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) incident: Incident,
    pub(super) keys: Vec<Entity>,
    pub(super) merged: Vec<Ulid>,
    /// Whether anybody has heard of it: it has two alerts.
    pub(super) told: bool,
    /// The request that was counted last.
    pub(super) request: Option<(Time, SocketAddr)>,
}

impl Open {
    pub(super) fn ends(&self, window: Duration) -> (bool, Time, Ulid) {
        let idle = self.incident.last_seen.plus(window);
        (self.told, idle.min(self.incident.first_seen.plus(LONGEST)), self.incident.id)
    }

    pub(super) fn tell(&self, activity: Activity, out: &mut Vec<Incident>) {
        out.push(Incident { activity, ..self.incident.clone() });
    }

    /// Whether the alert makes it worse.
    pub(super) fn add(&mut self, alert: &Alert, entities: &[Entity], seen: Seen) -> bool {
        for entity in entities {
            note(&mut self.keys, MAX_KEYS, entity.clone());
            self.incident.name(entity);
        }
        let incident = &mut self.incident;
        if let Some(scene) = &alert.finding.scene {
            incident.take_route(&scene.route, &scene.names);
            note(&mut incident.services, MAX_NAMES, scene.endpoints.server);
        }
        if incident.members.len() < MAX_MEMBERS {
            let Alert { id, severity, first_seen, .. } = *alert;
            incident.members.push(Member { id, rule: alert.finding.rule, severity, first_seen });
        }
        incident.alerts += 1;
        self.count(seen);
        self.grow(alert)
    }

    pub(super) fn count(&mut self, seen: Seen) {
        let incident = &mut self.incident;
        incident.first_seen = incident.first_seen.min(seen.at);
        incident.last_seen = incident.last_seen.max(seen.at);
        if seen.summary {
            return;
        }
        incident.findings += 1;
        if seen.request.is_none() || seen.request != self.request {
            incident.accepted += u64::from(seen.accepted);
            incident.bytes = incident.bytes.saturating_add(seen.bytes);
            self.request = seen.request;
        }
    }

    pub(super) fn grow(&mut self, alert: &Alert) -> bool {
        let incident = &mut self.incident;
        incident.risk = incident.risk.max(alert.entity_risk).max(alert.own_risk());
        if let Some(member) = incident.members.iter_mut().find(|member| member.id == alert.id) {
            member.severity = member.severity.max(alert.severity);
        }
        let worse = alert.severity > incident.severity;
        if worse {
            incident.severity = alert.severity;
            incident.raised = alert.raised;
        }
        worse
    }

    pub(super) fn absorb(&mut self, other: Self) {
        let Self { incident: from, keys, merged, .. } = other;
        for key in keys {
            note(&mut self.keys, MAX_KEYS, key);
        }
        for id in merged.into_iter().chain([from.id]) {
            note(&mut self.merged, MAX_MERGED, id);
        }
        let into = &mut self.incident;
        into.first_seen = into.first_seen.min(from.first_seen);
        into.last_seen = into.last_seen.max(from.last_seen);
        if from.severity > into.severity {
            (into.severity, into.raised) = (from.severity, from.raised);
        }
        into.alerts += from.alerts;
        into.findings += from.findings;
        into.accepted += from.accepted;
        into.bytes = into.bytes.saturating_add(from.bytes);
        into.risk = into.risk.max(from.risk);
        let room = MAX_MEMBERS.saturating_sub(into.members.len());
        into.members.extend(from.members.into_iter().take(room));
        from.principals.into_iter().for_each(|p| note(&mut into.principals, MAX_NAMES, p));
        from.tokens.into_iter().for_each(|t| note(&mut into.tokens, MAX_NAMES, t));
        from.addresses.into_iter().for_each(|a| note(&mut into.addresses, MAX_NAMES, a));
        from.routes.iter().for_each(|route| into.take_route(route, &from.people));
        from.services.into_iter().for_each(|s| note(&mut into.services, MAX_NAMES, s));
    }
}

impl Incident {
    fn name(&mut self, entity: &Entity) {
        match entity {
            Entity::Principal(subject, issuer) => {
                note(&mut self.principals, MAX_NAMES, (subject.clone(), issuer.clone()));
            }
            Entity::Token(token) => note(&mut self.tokens, MAX_NAMES, *token),
            Entity::Address(address) => note(&mut self.addresses, MAX_NAMES, *address),
        }
    }

    /// Notes a route, if there is room for it and for whoever may be named in it.
    fn take_route(&mut self, route: &Arc<str>, people: &[Box<str>]) {
        if self.routes.len() >= MAX_NAMES || self.routes.contains(route) {
            return;
        }
        let new = people.iter().filter(|name| !self.people.contains(name)).count();
        if self.people.len() + new <= MAX_PEOPLE {
            for name in people {
                note(&mut self.people, MAX_PEOPLE, name.clone());
            }
            self.routes.push(Arc::clone(route));
        }
    }

    /// Ids of the rules of its alerts, each once, in the order of their coming.
    #[must_use]
    pub fn rules(&self) -> Vec<&'static str> {
        let mut rules = Vec::new();
        for member in &self.members {
            note(&mut rules, MAX_MEMBERS, member.rule.id);
        }
        rules
    }
}

/// Adds what is new, while there is room.
fn note<T: PartialEq>(list: &mut Vec<T>, room: usize, item: T) {
    if list.len() < room && !list.contains(&item) {
        list.push(item);
    }
}
