//! An event as it is told: the OCSF object as one line of JSON, made once, with what routing asks of it.
//!
//! Everything behind the spool works on these: sinks, the store, the control socket. An event that was written by
//! another version reads the same. What privacy hides is hidden before one is made.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::alert::Event;
use crate::detect::Severity;
use crate::render::incident::IncidentFinding;
use crate::render::ocsf::{DetectionFinding, Stamp};
use crate::render::shown;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A Detection Finding, or news of one.
    Alert,
    /// An Incident Finding, or news of one.
    Incident,
}

/// The node that tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name: the host's, or what the configuration says.
    pub name: Arc<str>,
    /// What its events are labelled with, `name=value`.
    pub labels: Arc<[String]>,
}

impl Node {
    /// A node without labels.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), labels: Arc::default() }
    }
}

/// One event as it is told.
#[derive(Debug)]
pub struct Told {
    /// Its number on this node, from 1; consecutive, so that a reader can prove a gap. 0: none was given.
    pub sequence: u64,
    /// When what it tells happened, in milliseconds.
    pub time_ms: u64,
    /// The worst severity so far.
    pub severity: Severity,
    /// What it is.
    pub kind: Kind,
    json: Box<str>,
    value: OnceLock<Value>,
}

/// Shared between the spool and whoever reads it.
pub type Shared = Arc<Told>;

/// The OCSF object of an event, as one line of JSON without its end. With a number and a node it says both; without,
/// as of a replay, neither.
#[must_use]
pub fn json(event: &Event, sequence: Option<u64>, node: Option<&Node>) -> String {
    let stamp = Stamp { sequence, node };
    // Our event types have string keys and no fallible parts: they always serialise.
    match event {
        Event::Alert(alert) => serde_json::to_string(&DetectionFinding::stamped(alert, stamp)),
        Event::Incident(incident) => serde_json::to_string(&IncidentFinding::stamped(incident, stamp)),
    }
    .unwrap_or_default()
}

impl Told {
    /// An event as it is told, with its number and the node that tells it, or, as of a replay, without.
    #[must_use]
    pub fn of(event: &Event, sequence: Option<u64>, node: Option<&Node>) -> Self {
        let (time, severity, kind) = match event {
            Event::Alert(alert) => (alert.last_seen, alert.severity, Kind::Alert),
            Event::Incident(incident) => (incident.last_seen, incident.severity, Kind::Incident),
        };
        let json = json(event, sequence, node).into_boxed_str();
        Self::new(sequence.unwrap_or(0), time.millis(), severity, kind, json)
    }

    /// An event of which the JSON is at hand: one object, without a line break.
    #[must_use]
    pub fn new(sequence: u64, time_ms: u64, severity: Severity, kind: Kind, json: Box<str>) -> Self {
        Self { sequence, time_ms, severity, kind, json, value: OnceLock::new() }
    }

    /// The OCSF object, without a line break at its end.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The OCSF object, read at the first call. Null if it is damaged.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| serde_json::from_str(&self.json).unwrap_or_default())
    }

    /// What is at this place, as a JSON pointer (RFC 6901). Null counts as nothing.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.value().pointer(pointer).filter(|value| !value.is_null())
    }

    /// Text at this place, as a JSON pointer (RFC 6901).
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.value().pointer(pointer)?.as_str()
    }

    /// A number at this place.
    #[must_use]
    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.value().pointer(pointer)?.as_u64()
    }

    /// The id of the alert or incident, the same for every event of it: a ULID.
    #[must_use]
    pub fn id(&self) -> &str {
        let place = match self.kind {
            Kind::Alert => "/finding_info/uid",
            Kind::Incident => "/metadata/correlation_uid",
        };
        self.text(place).unwrap_or_default()
    }

    /// The id of this very event, the same however often it is sent: the key by which receivers recognise repeats.
    #[must_use]
    pub fn event_id(&self) -> &str {
        self.text("/metadata/uid").unwrap_or_else(|| self.id())
    }

    /// The rule of an alert; `incident` for an incident.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self.kind {
            Kind::Alert => self.text("/finding_info/analytic/uid").unwrap_or_default(),
            Kind::Incident => "incident",
        }
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        self.text("/message").unwrap_or_default()
    }

    /// A title: that of the rule, or what the incident holds.
    #[must_use]
    pub fn title(&self) -> &str {
        match self.kind {
            Kind::Alert => self.text("/finding_info/title").unwrap_or_default(),
            Kind::Incident => self.text("/desc").unwrap_or_default(),
        }
    }

    /// The node that tells it.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.text("/metadata/reporter/name")
    }

    /// `create`, `update` or `close`.
    #[must_use]
    pub fn activity(&self) -> &'static str {
        match self.number("/activity_id") {
            Some(1) => "create",
            Some(3) => "close",
            _ => "update",
        }
    }

    /// Texts of a list at this place.
    pub fn texts(&self, pointer: &str) -> impl Iterator<Item = &str> {
        self.at(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Ids of ATT&CK techniques.
    pub fn techniques(&self) -> impl Iterator<Item = &str> {
        let place = match self.kind {
            Kind::Alert => "/finding_info/attacks",
            Kind::Incident => "/attacks",
        };
        let all = self.at(place).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|attack| attack.pointer("/technique/uid")?.as_str())
    }

    /// Values of an incident's observables of this name.
    pub fn observables(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let all = self.at("/observables").and_then(Value::as_array).into_iter().flatten();
        all.filter(move |one| one["name"] == name).filter_map(|one| one["value"].as_str())
    }

    /// The principal as people read it: `alice@idp`, or `alice?` if it is only a claim.
    #[must_use]
    pub fn principal_name(&self) -> Option<String> {
        let verified = self.at("/unmapped/verified").and_then(Value::as_bool) == Some(true);
        Some(shown::name(self.principal()?, self.text("/evidences/0/actor/session/issuer"), verified))
    }

    /// The name of the workload that answered: `shop/orders-7f9c`, a unit, or an address.
    #[must_use]
    pub fn workload(&self) -> Option<&str> {
        self.text("/evidences/0/dst_endpoint/name")
    }

    /// The namespace of the workload: the cluster's word, else that of its name.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.text("/unmapped/kubernetes/namespace").or_else(|| Some(self.workload()?.split_once('/')?.0))
    }

    /// The namespaces that it is about: of an alert one at most, of an incident those of its services.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        let services = self.texts("/unmapped/services").filter_map(|name| Some(name.split_once('/')?.0));
        self.namespace().into_iter().chain(services.filter(|_| self.kind == Kind::Incident))
    }

    /// Labels, `name=value`: those of the node, and those of the pod that are kept.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.texts("/metadata/labels").chain(self.texts("/evidences/0/container/labels"))
    }

    /// The client's address.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.text("/evidences/0/src_endpoint/ip")
    }

    /// The principal.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.text("/evidences/0/actor/user/uid")
    }

    /// The token's fingerprint.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.text("/evidences/0/actor/session/uid")
    }
}
