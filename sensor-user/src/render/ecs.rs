//! Events of the Elastic Common Schema 8.17, for `-o ecs`, made of the OCSF object.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::render::compact::{ADDRESS, TOKEN, USER};
use crate::render::{Kind, Told, json_line, ocsf, shown};

/// The version of the schema that events follow.
pub const VERSION: &str = "8.17.0";

/// Appends the event with the newline that ends it.
pub fn line(told: &Told, out: &mut String) {
    match told.kind {
        Kind::Alert => json_line(&EcsAlert::of(told), out),
        Kind::Incident => json_line(&incident(told), out),
    }
}

/// One alert. Members follow ECS field sets; what ECS has no field for is under `tokenscope`.
#[derive(Debug, Serialize)]
struct EcsAlert<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    ecs: Version,
    event: EventFields<'a>,
    message: &'a str,
    rule: Rule<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threat: Option<Threat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Id<'a>>,
    #[serde(flatten)]
    scene: Option<SceneFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
    tokenscope: Own<'a>,
}

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Id<'a> {
    id: &'a str,
}

#[derive(Debug, Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Debug, Serialize)]
struct EventFields<'a> {
    id: &'a str,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Rule<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
}

#[derive(Debug, Serialize)]
struct Threat<'a> {
    framework: &'static str,
    technique: Technique<'a>,
}

#[derive(Debug, Serialize)]
struct Technique<'a> {
    id: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct SceneFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Endpoint<'a>>,
    http: Http<'a>,
    url: Url<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<UserAgent<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orchestrator: Option<Orchestrator<'a>>,
    service: Named<'a>,
}

#[derive(Debug, Serialize)]
struct Container<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image<'a>>,
}

#[derive(Debug, Serialize)]
struct Image<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tag: Box<[&'a str]>,
}

/// Where a pod runs, by the cluster's word.
#[derive(Debug, Serialize)]
struct Orchestrator<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    namespace: &'a str,
    resource: Resource<'a>,
}

#[derive(Debug, Serialize)]
struct Resource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    label: Box<[&'a str]>,
}

impl<'a> Container<'a> {
    fn of(told: &'a Told) -> Option<Self> {
        let text = |place: &str| told.text(place);
        let image = text("/evidences/0/container/image/name");
        Some(Self {
            id: text("/evidences/0/container/uid")?,
            name: text("/evidences/0/container/name"),
            image: image.map(|name| Image {
                name,
                tag: text("/evidences/0/container/image/tag").into_iter().collect(),
            }),
        })
    }
}

impl<'a> Orchestrator<'a> {
    fn of(told: &'a Told) -> Option<Self> {
        let label = told.texts("/evidences/0/container/labels").collect();
        let name = told.text("/unmapped/kubernetes/pod")?;
        let namespace = told.text("/unmapped/kubernetes/namespace")?;
        Some(Self { kind: "kubernetes", namespace, resource: Resource { kind: "pod", name, label } })
    }
}

#[derive(Debug, Serialize)]
struct Endpoint<'a> {
    ip: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u64>,
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
    status_code: u64,
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
struct Own<'a> {
    severity: &'static str,
    confidence: u64,
    count: u64,
    priority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    entity_risk: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
    facts: BTreeMap<&'a str, &'a Value>,
}

impl<'a> EcsAlert<'a> {
    fn of(told: &'a Told) -> Self {
        let text = |place: &str| told.text(place).unwrap_or_default();
        let techniques: Vec<&str> = told.techniques().collect();
        Self {
            timestamp: shown::timestamp_ms(told.time_ms),
            ecs: Version { version: VERSION },
            event: EventFields::of(told),
            message: told.message(),
            rule: Rule {
                id: told.rule(),
                name: text("/finding_info/analytic/name"),
                version: text("/finding_info/analytic/version"),
            },
            threat: (!techniques.is_empty())
                .then_some(Threat { framework: "MITRE ATT&CK", technique: Technique { id: techniques } }),
            user: told.principal().map(|id| Id { id }),
            scene: told.at("/evidences/0").map(|_| SceneFields::of(told)),
            host: told.node().map(|name| Named { name }),
            tags: told.texts("/metadata/labels").collect(),
            tokenscope: Own::of(told),
        }
    }
}

impl<'a> Own<'a> {
    fn of(told: &'a Told) -> Self {
        let number = |place: &str| told.number(place).unwrap_or(0);
        Self {
            severity: told.severity.as_str(),
            confidence: number("/confidence_score"),
            count: number("/count"),
            priority: told.text("/unmapped/priority").unwrap_or_default(),
            due: told.number("/unmapped/due").map(shown::timestamp_ms),
            incident: told.text("/metadata/correlation_uid"),
            entity_risk: number("/unmapped/entity_risk"),
            route: told.text("/evidences/0/api/operation"),
            token: told.token(),
            issuer: told.text("/evidences/0/actor/session/issuer"),
            verified: told.at("/unmapped/verified").and_then(Value::as_bool),
            coverage: told.text("/unmapped/coverage"),
            identity: told.text("/unmapped/identity"),
            facts: facts(told).collect(),
        }
    }
}

/// What a rule says of its own finding.
pub(super) fn facts(told: &Told) -> impl Iterator<Item = (&str, &Value)> {
    let all = told.at("/unmapped").and_then(Value::as_object).into_iter().flatten();
    all.map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| !ocsf::NO_FACTS.contains(name))
}

impl<'a> EventFields<'a> {
    fn of(told: &'a Told) -> Self {
        let time = |place: &str| shown::timestamp_ms(told.number(place).unwrap_or(told.time_ms));
        Self {
            id: told.id(),
            kind: "alert",
            category: ["intrusion_detection"],
            kinds: ["info"],
            action: told.activity(),
            dataset: "tokenscope.alerts",
            module: "tokenscope",
            severity: told.severity.id(),
            risk_score: told.number("/risk_score").unwrap_or(0),
            start: time("/finding_info/first_seen_time"),
            end: time("/finding_info/last_seen_time"),
            reason: told.text("/finding_info/desc").unwrap_or_default(),
            sequence: told.number("/metadata/sequence"),
        }
    }
}

impl<'a> SceneFields<'a> {
    fn of(told: &'a Told) -> Self {
        let endpoint =
            |ip: &str, port: &str| told.text(ip).map(|ip| Endpoint { ip, port: told.number(port) });
        let text = |place: &str| told.text(place);
        let route = text("/evidences/0/api/operation").unwrap_or_default();
        // OCSF names few methods; any other is the route's first word.
        let method = text("/evidences/0/http_request/http_method");
        let method = method.unwrap_or_else(|| route.split(' ').next().unwrap_or_default());
        let status = told.number("/evidences/0/http_response/code");
        Self {
            source: endpoint("/evidences/0/src_endpoint/ip", "/evidences/0/src_endpoint/port"),
            destination: endpoint("/evidences/0/dst_endpoint/ip", "/evidences/0/dst_endpoint/port"),
            http: Http {
                request: Request { method },
                response: status.map(|status_code| Response { status_code }),
            },
            url: Url {
                path: text("/evidences/0/http_request/url/path").unwrap_or_default(),
                domain: text("/evidences/0/http_request/url/domain"),
            },
            user_agent: text("/evidences/0/http_request/user_agent").map(|original| UserAgent { original }),
            container: Container::of(told),
            orchestrator: Orchestrator::of(told),
            service: Named { name: told.workload().unwrap_or_default() },
        }
    }
}

fn incident(told: &Told) -> Value {
    let time = |place: &str| shown::timestamp_ms(told.number(place).unwrap_or(told.time_ms));
    let mut event = json!({
        "id": told.id(),
        "kind": "alert",
        "category": ["intrusion_detection"],
        "type": [if told.activity() == "close" { "end" } else { "info" }],
        "action": told.activity(),
        "dataset": "tokenscope.incidents",
        "module": "tokenscope",
        "severity": told.severity.id(),
        "risk_score": told.number("/risk_score"),
        "start": time("/start_time"),
        "end": time("/end_time"),
        "reason": told.title(),
    });
    if let (Some(sequence), Some(members)) = (told.number("/metadata/sequence"), event.as_object_mut()) {
        members.insert("sequence".into(), sequence.into());
    }
    let mut whole = json!({
        "@timestamp": shown::timestamp_ms(told.time_ms),
        "ecs": {"version": VERSION},
        "event": event,
        "message": told.message(),
        "threat": {
            "framework": "MITRE ATT&CK",
            "technique": {"id": told.techniques().collect::<Vec<_>>()},
        },
        "related": {
            "user": told.observables(USER).collect::<Vec<_>>(),
            "ip": told.observables(ADDRESS).collect::<Vec<_>>(),
        },
        "tokenscope": of_incident(told),
    });
    let Some(members) = whole.as_object_mut() else { return whole };
    if let Some(name) = told.node() {
        members.insert("host".into(), json!({"name": name}));
    }
    if let Some(labels) = told.at("/metadata/labels") {
        members.insert("tags".into(), labels.clone());
    }
    whole
}

/// What ECS has no field for.
fn of_incident(told: &Told) -> Value {
    let alerts = told.at("/finding_info_list").and_then(Value::as_array).into_iter().flatten();
    json!({
        "severity": told.severity.as_str(),
        "priority": told.text("/unmapped/deadline"),
        "due": told.number("/unmapped/due").map(shown::timestamp_ms),
        "alerts": alerts.filter_map(|alert| alert["uid"].as_str()).collect::<Vec<_>>(),
        "alert_count": told.number("/unmapped/alerts"),
        "count": told.number("/count"),
        "accepted": told.number("/unmapped/accepted"),
        "response_bytes": told.number("/unmapped/response_bytes"),
        "rules": told.at("/unmapped/rules"),
        "routes": told.at("/unmapped/routes"),
        "tokens": told.observables(TOKEN).collect::<Vec<_>>(),
        "merged_into": told.text("/unmapped/merged_into"),
    })
}
