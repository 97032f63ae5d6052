//! Incidents as OCSF 1.8 Incident Findings (class 2005).
//!
//! An incident names its alerts in `finding_info_list`; their events name it in `metadata.correlation_uid`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::alert::incident::Member;
use crate::alert::{Activity, Incident, Priority};
use crate::detect::{Principal, Severity, text};
use crate::render::ocsf::{Attack, Metadata, Stamp};
use crate::render::shown;

const CATEGORY_FINDINGS: u32 = 2;
const CLASS_INCIDENT_FINDING: u32 = 2005;

/// An Incident Finding. The schema wants an assignee: nobody has been assigned yet.
#[derive(Debug, Serialize)]
pub struct IncidentFinding {
    activity_id: u32,
    activity_name: &'static str,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    type_uid: u32,
    type_name: &'static str,
    time: u64,
    start_time: u64,
    end_time: u64,
    severity_id: u8,
    severity: &'static str,
    status_id: u8,
    status: &'static str,
    is_alert: bool,
    is_suspected_breach: bool,
    priority_id: u8,
    priority: &'static str,
    impact_id: u8,
    impact: &'static str,
    risk_score: u8,
    count: i64,
    desc: String,
    message: String,
    assignee: Assignee,
    attacks: Vec<Attack>,
    metadata: Metadata,
    finding_info_list: Vec<Info>,
    observables: Vec<Observable>,
    unmapped: Unmapped,
}

#[derive(Debug, Serialize)]
struct Assignee {
    name: &'static str,
}

#[derive(Debug, Serialize)]
struct Info {
    uid: String,
    title: &'static str,
    analytic: Analytic,
    first_seen_time: u64,
}

#[derive(Debug, Serialize)]
struct Analytic {
    uid: &'static str,
    type_id: u8,
}

/// OCSF observable types: 2 an address, 4 a user's name, 99 anything else.
#[derive(Debug, Serialize)]
struct Observable {
    name: &'static str,
    type_id: u8,
    #[serde(rename = "type")]
    kind: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
struct Unmapped {
    alerts: u64,
    accepted: u64,
    response_bytes: u64,
    deadline: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<u64>,
    rules: Vec<&'static str>,
    routes: Vec<String>,
    services: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_into: Option<String>,
}

impl IncidentFinding {
    /// The event for an incident, or for news of one.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        Self::stamped(incident, Stamp::default())
    }

    /// The same with a number and a node.
    #[must_use]
    pub fn stamped(incident: &Incident, stamp: Stamp<'_>) -> Self {
        let (activity_id, activity_name, type_name, status_id, status) = match incident.activity {
            Activity::Create => (1, "Create", "Incident Finding: Create", 1, "New"),
            Activity::Update => (2, "Update", "Incident Finding: Update", 2, "In Progress"),
            Activity::Close => (3, "Close", "Incident Finding: Close", 5, "Closed"),
        };
        let priority = Priority::of(incident.severity);
        let (impact_id, impact) = impact(incident);
        Self {
            activity_id,
            activity_name,
            category_uid: CATEGORY_FINDINGS,
            category_name: "Findings",
            class_uid: CLASS_INCIDENT_FINDING,
            class_name: "Incident Finding",
            type_uid: CLASS_INCIDENT_FINDING * 100 + activity_id,
            type_name,
            time: incident.last_seen.millis(),
            start_time: incident.first_seen.millis(),
            end_time: incident.last_seen.millis(),
            severity_id: incident.severity.id(),
            severity: incident.severity.as_str(),
            status_id,
            status,
            is_alert: true,
            is_suspected_breach: incident.accepted > 0 && incident.severity >= Severity::High,
            priority_id: priority.id(),
            priority: incident.severity.as_str(),
            impact_id,
            impact,
            risk_score: incident.risk,
            // The schema counts in 32 bits.
            count: i64::from(i32::try_from(incident.findings).unwrap_or(i32::MAX)),
            desc: summary(incident),
            message: message(incident),
            assignee: Assignee { name: "unassigned" },
            attacks: attacks(incident),
            metadata: Metadata::of("incidents").correlated(incident.id).stamped(incident.id, stamp),
            finding_info_list: incident.members.iter().map(Info::of).collect(),
            observables: observables(incident),
            unmapped: Unmapped {
                alerts: incident.alerts,
                accepted: incident.accepted,
                response_bytes: incident.bytes,
                deadline: priority.as_str(),
                due: priority.due(incident.raised).map(crate::capture::Time::millis),
                rules: incident.rules(),
                routes: incident.routes.iter().map(|route| text::printable(route.as_bytes(), 512)).collect(),
                services: services(incident),
                merged_into: incident.merged_into.map(|id| id.to_string()),
            },
        }
    }
}

impl Info {
    fn of(member: &Member) -> Self {
        let type_id = if member.rule.behavioural { 2 } else { 1 };
        Self {
            uid: member.id.to_string(),
            title: member.rule.title,
            analytic: Analytic { uid: member.rule.id, type_id },
            first_seen_time: member.first_seen.millis(),
        }
    }
}

/// What was not answered 2xx has had little impact, however bad it was meant.
fn impact(incident: &Incident) -> (u8, &'static str) {
    if incident.accepted == 0 {
        return (1, "Low");
    }
    (incident.severity.id().saturating_sub(1).max(1), incident.severity.as_str())
}

/// The names of its services, and the addresses of those that have none.
fn services(incident: &Incident) -> Vec<String> {
    let mut all = Vec::new();
    for server in &incident.services {
        let mut named = incident.workloads.iter().filter(|(other, _)| other == server).peekable();
        if named.peek().is_none() {
            all.push(server.to_string());
        }
        for (_, name) in named {
            let name = text::printable(name.as_bytes(), 128);
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    all
}

fn attacks(incident: &Incident) -> Vec<Attack> {
    let mut ids: Vec<&'static str> = Vec::new();
    for id in incident.members.iter().flat_map(|member| member.rule.attack) {
        if !ids.contains(id) {
            ids.push(id);
        }
    }
    ids.into_iter().map(Attack::of).collect()
}

fn observables(incident: &Incident) -> Vec<Observable> {
    let users = principals(incident).map(|value| Observable {
        name: "evidences.actor.user.uid",
        type_id: 4,
        kind: "User Name",
        value,
    });
    let addresses = incident.addresses.iter().map(|address| Observable {
        name: "evidences.src_endpoint.ip",
        type_id: 2,
        kind: "IP Address",
        value: address.to_string(),
    });
    let tokens = incident.tokens.iter().map(|token| Observable {
        name: "evidences.actor.session.uid",
        type_id: 99,
        kind: "Other",
        value: token.to_string(),
    });
    users.chain(addresses).chain(tokens).collect()
}

/// Subjects of the principals, masked as everywhere.
fn principals(incident: &Incident) -> impl Iterator<Item = String> + '_ {
    incident.principals.iter().map(|(subject, issuer)| {
        shown::subject(&Principal { subject: subject.clone(), issuer: issuer.clone(), verified: true })
    })
}

fn many(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `3 alerts of alg-none, key-url`.
fn summary(incident: &Incident) -> String {
    let rules = incident.rules();
    let mut out = format!(
        "{} of {}",
        many(incident.alerts, "alert"),
        rules.iter().take(4).copied().collect::<Vec<_>>().join(", ")
    );
    if let Some(more @ 1..) = rules.len().checked_sub(4) {
        let _ = write!(out, " and {more} more");
    }
    out
}

fn message(incident: &Incident) -> String {
    let bytes = if incident.bytes > 0 {
        format!(" with {} of answers", many(incident.bytes, "byte"))
    } else {
        String::new()
    };
    let end = match (incident.activity, incident.merged_into) {
        (Activity::Close, Some(_)) => " It goes on in an older incident.",
        (Activity::Close, None) => " It is over.",
        _ => "",
    };
    format!(
        "{} about {} and {} belong together: {}, and {} answered 2xx{bytes}.{end}",
        many(incident.alerts, "alert"),
        many(incident.principals.len() as u64, "verified principal"),
        many(incident.addresses.len() as u64, "client"),
        many(incident.findings, "finding"),
        many(incident.accepted, "request"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::alert::Event;
    use crate::alert::staging::incident;
    use crate::render::validator::Schema;
    use crate::render::{Format, Privacy};

    fn json(incident: &Incident) -> Value {
        serde_json::to_value(IncidentFinding::of(incident)).unwrap()
    }

    #[test]
    fn every_moment_of_its_life_is_valid() {
        let Some(schema) = Schema::find() else { return };
        for activity in [Activity::Create, Activity::Update, Activity::Close] {
            for accepted in [0, 2] {
                let mut told = Incident { activity, accepted, ..incident() };
                assert_eq!(schema.problems(&json(&told)), Vec::<String>::new());
                told.merged_into = Some(told.id);
                told.principals.clear();
                (told.findings, told.bytes) = (u64::MAX, u64::from(u32::MAX));
                assert_eq!(schema.problems(&json(&told)), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn the_facts_are_in_their_places() {
        let event = json(&incident());
        let at = |pointer: &str| event.pointer(pointer).cloned().unwrap_or_default();
        for (pointer, value) in [
            ("/class_uid", Value::from(2005)),
            ("/activity_id", 1.into()),
            ("/severity", "High".into()),
            ("/priority_id", 3.into()),
            ("/impact_id", 3.into()),
            ("/is_suspected_breach", true.into()),
            ("/count", 2.into()),
            ("/attacks/0/technique/uid", "T1606".into()),
            ("/finding_info_list/1/analytic/uid", "alg-none".into()),
            ("/observables/0/value", "alice".into()),
            ("/observables/1/value", "10.0.3.7".into()),
            ("/unmapped/alerts", 2.into()),
            ("/unmapped/accepted", 1.into()),
            ("/unmapped/response_bytes", 1000.into()),
            ("/unmapped/deadline", "P1".into()),
            ("/unmapped/routes/1", "GET /invoices/{id}".into()),
        ] {
            assert_eq!(at(pointer), value, "{pointer}");
        }
        assert_eq!(at("/metadata/correlation_uid").as_str().map(str::len), Some(26));
        assert_eq!(event["finding_info_list"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn privacy_reaches_incidents_too() {
        let privacy = Privacy::new(true, Some(b"key"));
        for format in Format::ALL {
            let mut out = String::new();
            format.render(&privacy.event(&Event::Incident(Box::new(incident()))), false, &mut out);
            assert!(!out.contains("alice") && !out.contains("10.0.3.7"), "{out}");
        }
    }
}
