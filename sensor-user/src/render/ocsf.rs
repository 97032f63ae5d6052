//! Alerts as OCSF 1.8 Detection Findings (class 2004), in the profile `security_control`.
//!
//! The places of facts are a promise of docs/events.md. Exchanges as API Activity (6003) will share [`Metadata`] and
//! [`Evidence`].

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use ulid::Ulid;

use crate::alert::event::RISK;
use crate::alert::place::{self, Pod};
use crate::alert::{Activity, Alert, Place, Priority};
use crate::capture::Time;
use crate::detect::Scene;
use crate::render::{Node, shown};
use crate::token::Fingerprint;

/// The version of the schema that events follow.
pub const VERSION: &str = "1.8.0";

const CATEGORY_FINDINGS: u32 = 2;
const CLASS_DETECTION_FINDING: u32 = 2004;

/// The methods that `http_request.http_method` may be; any other shows in `api.operation` only.
pub(super) const METHODS: [&str; 9] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// A Detection Finding.
#[derive(Debug, Serialize)]
pub struct DetectionFinding<'a> {
    activity_id: u32,
    activity_name: &'static str,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    type_uid: u32,
    type_name: &'static str,
    time: u64,
    severity_id: u8,
    severity: &'static str,
    status_id: u8,
    status: &'static str,
    is_alert: bool,
    confidence_score: u8,
    risk_score: u64,
    count: u64,
    message: &'a str,
    metadata: Metadata,
    finding_info: FindingInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidences: Option<[Evidence<'a>; 1]>,
    unmapped: Unmapped<'a>,
}

/// Who made the event.
#[derive(Debug, Serialize)]
pub struct Metadata {
    version: &'static str,
    profiles: &'static [&'static str],
    product: Product,
    log_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reporter: Option<Reporter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
}

/// What an event gets when it is told: its number, and who tells it. Neither is known of a replay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamp<'a> {
    /// Its number on the node.
    pub sequence: Option<u64>,
    /// The node.
    pub node: Option<&'a Node>,
}

/// The node. The schema wants a name or uid; a name that no host can have is no `hostname`.
#[derive(Debug, Serialize)]
struct Reporter {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    name: String,
}

impl Reporter {
    fn of(node: &str) -> Self {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let hostname =
            (!node.is_empty() && node.len() <= 253 && node.chars().all(fits)).then(|| node.to_owned());
        Self { hostname, name: node.to_owned() }
    }
}

#[derive(Debug, Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

impl Metadata {
    /// For events of one log: `alerts`.
    #[must_use]
    pub const fn of(log_name: &'static str) -> Self {
        let product =
            Product { name: "Tokenscope", vendor_name: "Tokenscope", version: env!("CARGO_PKG_VERSION") };
        Self {
            version: VERSION,
            profiles: &["security_control"],
            product,
            log_name,
            correlation_uid: None,
            uid: None,
            sequence: None,
            reporter: None,
            labels: Vec::new(),
        }
    }

    /// For API Activity, which has its actor from the profile `host` and its operation from `cloud`.
    #[must_use]
    pub const fn about_calls(mut self) -> Self {
        self.profiles = &["cloud", "host", "security_control"];
        self
    }

    /// For the event of this alert or incident that is told now: its uid is the same however often it is sent.
    #[must_use]
    pub fn stamped(self, id: Ulid, stamp: Stamp<'_>) -> Self {
        Self {
            uid: stamp.sequence.map(|sequence| format!("{id}-{sequence}")),
            sequence: stamp.sequence,
            reporter: stamp.node.map(|node| Reporter::of(&node.name)),
            labels: stamp.node.map(|node| node.labels.to_vec()).unwrap_or_default(),
            ..self
        }
    }

    /// For events that belong to this incident.
    #[must_use]
    pub fn correlated(self, incident: Ulid) -> Self {
        Self { correlation_uid: Some(incident.to_string()), ..self }
    }
}

#[derive(Debug, Serialize)]
struct FindingInfo<'a> {
    uid: String,
    title: &'static str,
    desc: &'a str,
    analytic: Analytic,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attacks: Vec<Attack>,
    created_time: u64,
    first_seen_time: u64,
    last_seen_time: u64,
    data_sources: [&'static str; 1],
}

#[derive(Debug, Serialize)]
struct Analytic {
    uid: &'static str,
    name: &'static str,
    version: &'static str,
    type_id: u8,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// An ATT&CK technique.
#[derive(Debug, Serialize)]
pub struct Attack {
    technique: Technique,
}

impl Attack {
    /// The technique with this id.
    #[must_use]
    pub const fn of(uid: &'static str) -> Self {
        Self { technique: Technique { uid } }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        self.technique.uid
    }
}

#[derive(Debug, Serialize)]
struct Technique {
    uid: &'static str,
}

/// One exchange as evidence.
#[derive(Debug, Serialize)]
pub struct Evidence<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Actor<'a>>,
    api: Api<'a>,
    http_request: HttpRequest<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_response: Option<HttpResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<Endpoint>,
    dst_endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
}

#[derive(Debug, Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Session<'a>>,
}

#[derive(Debug, Serialize)]
struct User {
    uid: String,
}

#[derive(Debug, Serialize)]
struct Session<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Api<'a> {
    operation: &'a str,
}

#[derive(Debug, Serialize)]
struct HttpRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<&'a str>,
    url: Url<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Url<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct HttpResponse {
    code: u16,
}

/// The schema wants a name or uid on every endpoint; without a better one it is the address.
#[derive(Debug, Serialize)]
struct Endpoint {
    name: String,
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Container<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orchestrator: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
}

/// The schema wants an image's id.
#[derive(Debug, Serialize)]
struct Image<'a> {
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
}

/// What the schema has no place for.
#[derive(Debug, Serialize)]
struct Kubernetes<'a> {
    namespace: &'a str,
    pod: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    host_network: bool,
}

#[derive(Debug, Serialize)]
struct Owner<'a> {
    kind: &'a str,
    name: &'a str,
}

impl<'a> Kubernetes<'a> {
    fn of(pod: &'a Pod) -> Self {
        Self {
            namespace: &pod.namespace,
            pod: &pod.name,
            owner: pod.owner.as_ref().map(|owner| Owner { kind: &owner.kind, name: &owner.name }),
            node: pod.node.as_deref(),
            host_network: pod.host_network,
        }
    }
}

#[derive(Debug, Serialize)]
struct Process<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// Members of `unmapped` that are no facts of the rule.
pub(super) const NO_FACTS: [&str; 9] = [
    "verified",
    "coverage",
    "identity",
    "pod_uid",
    "kubernetes",
    "priority",
    "due",
    "alert_risk",
    "entity_risk",
];

/// What has no place of its own: coverage, verification, priority, risks, and the rule's facts in the rule's order.
#[derive(Debug)]
struct Unmapped<'a> {
    verified: Option<bool>,
    coverage: Option<&'static str>,
    place: Option<&'a Place>,
    priority: Priority,
    due: Option<Time>,
    own_risk: u8,
    entity_risk: u8,
    facts: &'a [(&'static str, Value)],
}

impl Serialize for Unmapped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(verified) = self.verified {
            map.serialize_entry("verified", &verified)?;
        }
        if let Some(coverage) = self.coverage {
            map.serialize_entry("coverage", coverage)?;
        }
        if let Some(place) = self.place {
            map.serialize_entry("identity", place.identity.as_str())?;
            if let (Some(uid), false) =
                (&place.pod_uid, container(place).is_some_and(|c| c.pod_uuid.is_some()))
            {
                map.serialize_entry("pod_uid", uid)?;
            }
            if let Some(pod) = &place.pod {
                map.serialize_entry("kubernetes", &Kubernetes::of(pod))?;
            }
        }
        map.serialize_entry("priority", self.priority.as_str())?;
        if let Some(due) = self.due {
            map.serialize_entry("due", &due.millis())?;
        }
        map.serialize_entry("alert_risk", &self.own_risk)?;
        map.serialize_entry("entity_risk", &self.entity_risk)?;
        for (name, value) in self.facts.iter().filter(|(name, _)| *name != RISK) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'a> DetectionFinding<'a> {
    /// The event for an alert, or for news of one.
    #[must_use]
    pub fn of(alert: &'a Alert) -> Self {
        Self::stamped(alert, Stamp::default())
    }

    /// The same with a number and a node.
    #[must_use]
    pub fn stamped(alert: &'a Alert, stamp: Stamp<'_>) -> Self {
        let finding = &alert.finding;
        let (activity_id, activity_name, type_name, status_id, status) = match alert.activity {
            Activity::Create => (1, "Create", "Detection Finding: Create", 1, "New"),
            Activity::Update => (2, "Update", "Detection Finding: Update", 2, "In Progress"),
            Activity::Close => (3, "Close", "Detection Finding: Close", 4, "Resolved"),
        };
        Self {
            activity_id,
            activity_name,
            category_uid: CATEGORY_FINDINGS,
            category_name: "Findings",
            class_uid: CLASS_DETECTION_FINDING,
            class_name: "Detection Finding",
            type_uid: CLASS_DETECTION_FINDING * 100 + activity_id,
            type_name,
            time: alert.last_seen.millis(),
            severity_id: alert.severity.id(),
            severity: alert.severity.as_str(),
            status_id,
            status,
            is_alert: true,
            confidence_score: finding.confidence.min(100),
            risk_score: shown::risk(alert),
            count: alert.count,
            message: &finding.message,
            metadata: metadata(alert).stamped(alert.id, stamp),
            finding_info: FindingInfo::of(alert),
            evidences: finding.scene.as_deref().map(|scene| [Evidence::of(alert, scene)]),
            unmapped: Unmapped {
                verified: finding.principal.as_ref().map(|p| p.verified),
                coverage: finding.scene.as_ref().map(|s| s.coverage.as_str()),
                place: alert.place.as_ref(),
                priority: Priority::of(alert.severity),
                due: Priority::of(alert.severity).due(alert.raised),
                own_risk: alert.own_risk(),
                entity_risk: alert.entity_risk,
                facts: &finding.facts,
            },
        }
    }
}

fn metadata(alert: &Alert) -> Metadata {
    let metadata = Metadata::of("alerts");
    match alert.incident {
        Some(incident) => metadata.correlated(incident),
        None => metadata,
    }
}

impl<'a> FindingInfo<'a> {
    fn of(alert: &'a Alert) -> Self {
        let about = alert.finding.rule;
        let (type_id, kind) = if about.behavioural { (2, "Behavioral") } else { (1, "Rule") };
        Self {
            uid: alert.id.to_string(),
            title: about.title,
            desc: &alert.finding.brief,
            analytic: Analytic { uid: about.id, name: about.title, version: about.version, type_id, kind },
            attacks: about.attack.iter().map(|uid| Attack::of(uid)).collect(),
            created_time: Time(alert.id.timestamp_ms().saturating_mul(1_000_000)).millis(),
            first_seen_time: alert.first_seen.millis(),
            last_seen_time: alert.last_seen.millis(),
            data_sources: ["http"],
        }
    }
}

impl<'a> Evidence<'a> {
    fn of(alert: &'a Alert, scene: &'a Scene) -> Self {
        let finding = &alert.finding;
        let issuer = finding.principal.as_ref().and_then(|p| p.issuer.as_deref());
        let user = finding.principal.as_ref().map(|p| User { uid: shown::subject(p) });
        let session = (finding.token.is_some() || issuer.is_some()).then(|| session(finding.token, issuer));
        let server = scene.endpoints.server;
        Self {
            actor: (user.is_some() || session.is_some()).then_some(Actor { user, session }),
            api: Api { operation: &scene.route },
            http_request: HttpRequest {
                http_method: METHODS.contains(&&*scene.method).then_some(&*scene.method),
                url: Url { path: &scene.path, domain: scene.host.as_deref() },
                user_agent: scene.user_agent.as_deref(),
            },
            http_response: scene.status.map(|code| HttpResponse { code }),
            src_endpoint: shown::client(scene).map(|client| Endpoint {
                name: client.to_string(),
                ip: client.to_string(),
                port: shown::client_port(scene),
            }),
            dst_endpoint: Endpoint {
                name: shown::server(alert, scene),
                ip: server.ip().to_string(),
                port: Some(server.port()),
            },
            container: alert.place.as_ref().and_then(container),
            process: process(alert.place.as_ref(), scene.origin.pid),
        }
    }
}

fn session(token: Option<Fingerprint>, issuer: Option<&str>) -> Session<'_> {
    Session { uid: token.map(|token| token.to_string()), issuer }
}

fn container(place: &Place) -> Option<Container<'_>> {
    // The schema wants an id or a name.
    if place.container_id.is_none() && place.container.is_none() {
        return None;
    }
    let labels =
        place.pod.as_ref().map(|pod| pod.labels.iter().map(|(name, value)| format!("{name}={value}")));
    Some(Container {
        uid: place.container_id.as_deref(),
        name: place.container.as_ref().map(|container| &*container.name),
        image: place.container.as_ref().and_then(image),
        pod_uuid: pod_uuid(place),
        orchestrator: place.pod_uid.as_ref().map(|_| "kubernetes"),
        labels: labels.map(Iterator::collect).unwrap_or_default(),
    })
}

fn image(container: &place::Container) -> Option<Image<'_>> {
    let uid = container.image_id.as_deref()?;
    let (name, tag) = container.image().unzip();
    Some(Image { uid, name, tag: tag.flatten() })
}

/// The pod's UID. A static pod's cgroup is named by the hash of its file, which is none; the cluster may know better.
fn pod_uuid(place: &Place) -> Option<&str> {
    let by_cluster = place.pod.as_ref().map(|pod| &*pod.uid);
    let is_uuid = |uid: &&str| uid.len() == 36 && uid.bytes().filter(|byte| *byte == b'-').count() == 4;
    by_cluster.or(place.pod_uid.as_deref()).filter(is_uuid)
}

fn process(place: Option<&Place>, pid: u32) -> Option<Process<'_>> {
    match place.and_then(|place| place.process.as_ref()) {
        Some(process) => Some(Process { pid: process.pid, name: Some(&process.name) }),
        None => (pid != 0).then_some(Process { pid, name: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Identity;
    use crate::alert::staging::{alert, alert_of_a_pod};
    use crate::detect::{Finding, Scene};
    use crate::render::validator;

    fn json(alert: &Alert) -> Value {
        serde_json::to_value(DetectionFinding::of(alert)).unwrap()
    }

    #[test]
    fn a_number_and_a_node_are_in_their_places() {
        let node = |name: &str| Node { name: name.into(), labels: ["env=test".to_owned()].into() };
        let (plain, odd) = (node("node-1.example"), node("the node\n"));
        let stamp = Stamp { sequence: Some(7), node: Some(&plain) };
        let alert = alert();
        let event = serde_json::to_value(DetectionFinding::stamped(&alert, stamp)).unwrap();
        let id = alert.id.to_string();
        assert_eq!(event["metadata"]["uid"], Value::from(format!("{id}-7")));
        assert_eq!(event["metadata"]["sequence"], Value::from(7));
        assert_eq!(event["metadata"]["reporter"]["hostname"], Value::from("node-1.example"));
        assert_eq!(event["metadata"]["labels"], Value::from(vec!["env=test"]));
        let odd = Stamp { node: Some(&odd), ..stamp };
        let odd = serde_json::to_value(DetectionFinding::stamped(&alert, odd)).unwrap();
        assert!(odd["metadata"]["reporter"]["hostname"].is_null());
        let Some(schema) = validator::Schema::find() else { return };
        for event in [event, odd] {
            assert_eq!(schema.problems(&event), Vec::<String>::new());
        }
    }

    #[test]
    fn an_issuer_is_told_without_a_token() {
        let mut alert = alert();
        alert.finding.token = None;
        let session = json(&alert).pointer("/evidences/0/actor/session").cloned();
        assert_eq!(session, Some(serde_json::json!({"issuer": "https://idp.example/"})));
    }

    fn bare() -> Alert {
        let full = alert();
        let finding =
            Finding { principal: None, token: None, scene: None, facts: Vec::new(), ..full.finding.clone() };
        Alert { finding, place: None, activity: Activity::Update, ..full }
    }

    #[test]
    fn every_event_is_valid() {
        let Some(schema) = validator::Schema::find() else { return };
        let mut odd = alert();
        odd.finding.scene.as_mut().unwrap().method = "PURGE".into();
        odd.finding.scene.as_mut().unwrap().status = None;
        odd.finding.principal = None;
        let mut proxied = alert();
        proxied.finding.scene.as_mut().unwrap().client = "2001:db8::1".parse().unwrap();
        proxied.finding.token = None;
        let mut of_service = alert();
        of_service.finding.scene.as_mut().unwrap().endpoints.client = Scene::NOBODY;
        assert!(json(&of_service).pointer("/evidences/0/src_endpoint").is_none());
        for alert in [alert(), bare(), odd, proxied, of_service] {
            assert_eq!(schema.problems(&json(&alert)), Vec::<String>::new());
        }
    }

    #[test]
    fn facts_are_in_their_places() {
        let event = json(&alert());
        let at = |pointer: &str| event.pointer(pointer).cloned().unwrap_or_default();
        for (pointer, value) in [
            ("/finding_info/analytic/uid", Value::from("alg-none")),
            ("/finding_info/analytic/type_id", 1.into()),
            ("/severity_id", 5.into()),
            ("/severity", "Critical".into()),
            ("/finding_info/attacks/0/technique/uid", "T1606".into()),
            ("/time", 1_795_284_245_123_u64.into()),
            ("/count", 1.into()),
            ("/risk_score", 100.into()),
            ("/confidence_score", 100.into()),
            ("/evidences/0/actor/user/uid", "alice".into()),
            ("/evidences/0/actor/session/issuer", "https://idp.example/".into()),
            ("/evidences/0/api/operation", "GET /orders/{id}".into()),
            ("/evidences/0/http_request/http_method", "GET".into()),
            ("/evidences/0/http_request/url/path", "/orders/7".into()),
            ("/evidences/0/http_response/code", 200.into()),
            ("/evidences/0/src_endpoint/ip", "10.0.3.7".into()),
            ("/evidences/0/src_endpoint/port", 50_000.into()),
            ("/evidences/0/dst_endpoint/name", "shop/orders-7f9c".into()),
            ("/evidences/0/container/uid", "4f5a".into()),
            ("/unmapped/verified", true.into()),
            ("/unmapped/coverage", "whole".into()),
            ("/unmapped/alg", "none".into()),
        ] {
            assert_eq!(at(pointer), value, "{pointer}");
        }
        assert_eq!(at("/finding_info/uid").as_str().map(str::len), Some(26));
        assert_eq!(at("/evidences/0/actor/session/uid").as_str().map(str::len), Some(32));
    }

    #[test]
    fn a_pod_is_in_its_places() {
        let mut of_file = alert_of_a_pod();
        // A static pod of which the cluster has not told.
        let hash = Some("0123456789abcdef0123456789abcdef".to_owned());
        let pending = Place { pod_uid: hash, identity: Identity::Pending, ..Place::default() };
        let event = json(&of_file);
        of_file.place = Some(pending);
        let bare = json(&of_file);
        for (pointer, value) in [
            ("/evidences/0/dst_endpoint/name", Value::from("shop/orders-7f9c")),
            ("/evidences/0/container/name", "main".into()),
            ("/evidences/0/container/image/name", "registry.example/orders".into()),
            ("/evidences/0/container/image/tag", "1.2".into()),
            ("/evidences/0/container/pod_uuid", "0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42".into()),
            ("/evidences/0/container/labels", vec!["app=orders"].into()),
            ("/unmapped/identity", "known".into()),
            ("/unmapped/kubernetes/owner/kind", "Deployment".into()),
            ("/unmapped/kubernetes/node", "node-1".into()),
        ] {
            assert_eq!(event.pointer(pointer), Some(&value), "{pointer}");
        }
        assert_eq!(bare.pointer("/unmapped/identity"), Some(&Value::from("pending")));
        assert_eq!(bare.pointer("/evidences/0/container"), None);
        assert_eq!(bare.pointer("/unmapped/pod_uid"), Some(&Value::from("0123456789abcdef0123456789abcdef")));
        assert_eq!(event.pointer("/unmapped/pod_uid"), None, "it has its place");
        let Some(schema) = validator::Schema::find() else { return };
        for event in [event, bare] {
            assert_eq!(schema.problems(&event), Vec::<String>::new());
        }
    }

    #[test]
    fn behind_a_proxy_the_port_is_not_the_clients() {
        let mut alert = alert();
        alert.finding.scene.as_mut().unwrap().client = "203.0.113.5".parse().unwrap();
        assert_eq!(json(&alert).pointer("/evidences/0/src_endpoint/port"), None);
    }
}
