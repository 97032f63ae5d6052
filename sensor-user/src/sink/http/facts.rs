//! What a template sees of an event: facts by short names, made when they are asked for.

use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::value::{Enumerator, Object, Serde, Value};
use ulid::Ulid;

use crate::alert::Priority;
use crate::capture::Time;
use crate::render::{Format, Kind, Told, shown};

/// Names of facts, as docs/sinks.md explains them.
pub(super) const NAMES: [&str; 33] = [
    "activity",
    "address",
    "brief",
    "compact",
    "confidence",
    "count",
    "created",
    "created_ms",
    "ecs",
    "event",
    "event_id",
    "falco",
    "id",
    "incident",
    "json",
    "kind",
    "message",
    "namespace",
    "node",
    "operation",
    "principal",
    "priority",
    "risk",
    "rule",
    "sequence",
    "severity",
    "severity_id",
    "status",
    "time",
    "time_ms",
    "title",
    "token",
    "workload",
];

/// One event, and who tells it. What it does not have is `none`; what has no name is undefined.
pub(super) struct Facts {
    told: Arc<Told>,
    node: Arc<str>,
    event: OnceLock<Value>,
    ecs: OnceLock<Value>,
}

impl Facts {
    pub(super) fn new(told: Arc<Told>, node: Arc<str>) -> Self {
        Self { told, node, event: OnceLock::new(), ecs: OnceLock::new() }
    }

    /// The fact of this name.
    pub(super) fn fact(&self, name: &str) -> Option<Value> {
        let told = &*self.told;
        let maybe = |text: Option<&str>| text.map_or_else(|| Value::from(()), Value::from);
        let number = |pointer| told.number(pointer).map_or_else(|| Value::from(()), Value::from);
        Some(match name {
            "activity" => Value::from(activity(told)),
            "address" => maybe(told.address().or_else(|| observed(told, 2))),
            "brief" => Value::from(brief(told)),
            "compact" => Value::from(line(told, Format::Compact)),
            "confidence" => number("/confidence_score"),
            "count" => Value::from(told.number("/count").unwrap_or(1)),
            "created" => Value::from(date(created(told))),
            "created_ms" => Value::from(created(told)),
            "ecs" => self.ecs.get_or_init(|| ecs(told)).clone(),
            "event" => self.event.get_or_init(|| Value::from(Serde(told.value()))).clone(),
            "event_id" => Value::from(told.event_id()),
            "falco" => Value::from(line(told, Format::Falco)),
            "id" => Value::from(told.id()),
            "incident" => maybe(told.text("/metadata/correlation_uid")),
            "json" => Value::from(told.json()),
            "kind" => Value::from(kind(told)),
            "message" => Value::from(told.message()),
            "namespace" => maybe(told.namespace().or_else(|| Some(workload(told)?.split_once('/')?.0))),
            "node" => Value::from(&*self.node),
            "operation" => maybe(operation(told)),
            "principal" => maybe(told.principal().or_else(|| observed(told, 4))),
            "priority" => Value::from(Priority::of(told.severity).as_str()),
            "risk" => number("/risk_score"),
            "rule" => Value::from(told.rule()),
            "sequence" => Value::from(told.sequence),
            "severity" => Value::from(told.severity.as_str()),
            "severity_id" => Value::from(told.severity.id()),
            "status" => number("/evidences/0/http_response/code"),
            "time" => Value::from(date(told.time_ms)),
            "time_ms" => Value::from(told.time_ms),
            "title" => Value::from(told.title()),
            "token" => maybe(told.token().or_else(|| observed(told, 99))),
            "workload" => maybe(workload(told)),
            _ => return None,
        })
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Facts").field(&self.told.id()).finish()
    }
}

impl Object for Facts {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.fact(key.as_str()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&NAMES)
    }
}

pub(in crate::sink) fn activity(told: &Told) -> &'static str {
    match told.number("/activity_id") {
        Some(1) => "create",
        Some(3) => "close",
        _ => "update",
    }
}

fn kind(told: &Told) -> &'static str {
    match told.kind {
        Kind::Alert => "alert",
        Kind::Incident => "incident",
    }
}

/// RFC 3339 with milliseconds.
pub(in crate::sink) fn date(ms: u64) -> String {
    shown::timestamp(Time(ms.saturating_mul(1_000_000)))
}

/// A few words about what happened.
pub(in crate::sink) fn brief(told: &Told) -> &str {
    let place = match told.kind {
        Kind::Alert => "/finding_info/desc",
        Kind::Incident => "/desc",
    };
    told.text(place).unwrap_or_default()
}

/// When the alert or incident was raised: its id says so, the same in every event of it.
fn created(told: &Told) -> u64 {
    Ulid::from_string(told.id()).map_or(told.time_ms, |id| id.timestamp_ms())
}

/// The first thing of this OCSF type that an incident is about.
pub(in crate::sink) fn observed(told: &Told, kind: u64) -> Option<&str> {
    let all = told.value().get("observables")?.as_array()?;
    all.iter().find(|one| one.get("type_id").and_then(serde_json::Value::as_u64) == Some(kind))?["value"]
        .as_str()
}

pub(in crate::sink) fn workload(told: &Told) -> Option<&str> {
    told.workload().or_else(|| told.text("/unmapped/services/0"))
}

pub(in crate::sink) fn operation(told: &Told) -> Option<&str> {
    told.text("/evidences/0/api/operation").or_else(|| told.text("/unmapped/routes/0"))
}

fn line(told: &Told, format: Format) -> String {
    let mut out = String::new();
    format.told(told, false, &mut out);
    out.truncate(out.trim_end().len());
    out
}

fn ecs(told: &Told) -> Value {
    let object: serde_json::Value = serde_json::from_str(&line(told, Format::Ecs)).unwrap_or_default();
    Value::from(Serde(object))
}
