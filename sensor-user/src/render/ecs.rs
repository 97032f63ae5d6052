//! Alerts as events of the Elastic Common Schema 8.17, for `-o ecs`.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::alert::{Activity, Alert, Priority};
use crate::detect::Scene;
use crate::render::shown;

/// The version of the schema that events follow.
pub const VERSION: &str = "8.17.0";

/// One event. Members follow ECS field sets; what ECS has no field for is under `tokenscope`.
#[derive(Debug, Serialize)]
pub struct EcsAlert<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    ecs: Version,
    event: EventFields<'a>,
    message: &'a str,
    rule: Rule,
    #[serde(skip_serializing_if = "Option::is_none")]
    threat: Option<Threat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Id>,
    #[serde(flatten)]
    scene: Option<SceneFields<'a>>,
    tokenscope: Own<'a>,
}

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Id {
    id: String,
}

#[derive(Debug, Serialize)]
struct EventFields<'a> {
    id: String,
    kind: &'static str,
    category: [&'static str; 1],
    #[serde(rename = "type")]
    kinds: [&'static str; 1],
    action: &'static str,
    dataset: &'static str,
    module: &'static str,
    severity: u8,
    risk_score: u64,
    start: String,
    end: String,
    reason: &'a str,
}

#[derive(Debug, Serialize)]
struct Rule {
    id: &'static str,
    name: &'static str,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Threat {
    framework: &'static str,
    technique: Technique,
}

#[derive(Debug, Serialize)]
struct Technique {
    id: &'static [&'static str],
}

#[derive(Debug, Serialize)]
struct SceneFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Endpoint>,
    destination: Endpoint,
    http: Http<'a>,
    url: Url<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<UserAgent<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Id>,
    service: Service,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Http<'a> {
    request: Request<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
}

#[derive(Debug, Serialize)]
struct Request<'a> {
    method: &'a str,
}

#[derive(Debug, Serialize)]
struct Response {
    status_code: u16,
}

#[derive(Debug, Serialize)]
struct Url<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct UserAgent<'a> {
    original: &'a str,
}

#[derive(Debug, Serialize)]
struct Service {
    name: String,
}

#[derive(Debug, Serialize)]
struct Own<'a> {
    severity: &'static str,
    confidence: u8,
    count: u64,
    priority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<String>,
    entity_risk: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<&'static str>,
    facts: Map<String, Value>,
}

impl<'a> EcsAlert<'a> {
    /// The event for an alert, or for news of one.
    #[must_use]
    pub fn of(alert: &'a Alert) -> Self {
        let finding = &alert.finding;
        let about = finding.rule;
        Self {
            timestamp: shown::timestamp(alert.last_seen),
            ecs: Version { version: VERSION },
            event: EventFields::of(alert),
            message: &finding.message,
            rule: Rule { id: about.id, name: about.title, version: about.version },
            threat: (!about.attack.is_empty())
                .then_some(Threat { framework: "MITRE ATT&CK", technique: Technique { id: about.attack } }),
            user: finding.principal.as_ref().map(|p| Id { id: shown::subject(p) }),
            scene: finding.scene.as_deref().map(|scene| SceneFields::of(alert, scene)),
            tokenscope: Own {
                severity: alert.severity.as_str(),
                confidence: finding.confidence,
                count: alert.count,
                priority: Priority::of(alert.severity).as_str(),
                due: Priority::of(alert.severity).due(alert.raised).map(shown::timestamp),
                incident: alert.incident.map(|id| id.to_string()),
                entity_risk: alert.entity_risk,
                route: finding.scene.as_ref().map(|s| &*s.route),
                token: finding.token.map(|token| token.to_string()),
                issuer: finding.principal.as_ref().and_then(|p| p.issuer.as_deref()),
                verified: finding.principal.as_ref().map(|p| p.verified),
                coverage: finding.scene.as_ref().map(|s| s.coverage.as_str()),
                facts: finding
                    .facts
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.clone()))
                    .collect(),
            },
        }
    }
}

impl<'a> EventFields<'a> {
    fn of(alert: &'a Alert) -> Self {
        Self {
            id: alert.id.to_string(),
            kind: "alert",
            category: ["intrusion_detection"],
            kinds: ["info"],
            action: match alert.activity {
                Activity::Create => "create",
                Activity::Update => "update",
                Activity::Close => "close",
            },
            dataset: "tokenscope.alerts",
            module: "tokenscope",
            severity: alert.severity.id(),
            risk_score: shown::risk(alert),
            start: shown::timestamp(alert.first_seen),
            end: shown::timestamp(alert.last_seen),
            reason: &alert.finding.brief,
        }
    }
}

impl<'a> SceneFields<'a> {
    fn of(alert: &'a Alert, scene: &'a Scene) -> Self {
        let server = scene.endpoints.server;
        let container = alert.place.as_ref().and_then(|place| place.container_id.clone());
        Self {
            source: shown::client(scene)
                .map(|client| Endpoint { ip: client.to_string(), port: shown::client_port(scene) }),
            destination: Endpoint { ip: server.ip().to_string(), port: Some(server.port()) },
            http: Http {
                request: Request { method: &scene.method },
                response: scene.status.map(|status_code| Response { status_code }),
            },
            url: Url { path: &scene.path, domain: scene.host.as_deref() },
            user_agent: scene.user_agent.as_deref().map(|original| UserAgent { original }),
            container: container.map(|id| Id { id }),
            service: Service { name: shown::server(alert, scene) },
        }
    }
}
