//! Events as Falco writes them (`json_output`), so that falcosidekick and what else reads Falco takes them.
//!
//! Fields that Falco has a name for bear it (`fd.cip`, `container.id`, `k8s.ns.name`); ours begin with `tokenscope.`.
//! Every value is text, a number or a truth value: receivers make labels of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::detect::{Severity, text};
use crate::render::compact::{ADDRESS, TOKEN, USER};
use crate::render::{Kind, Told, ecs, json_line, shown};

/// Longest text of a list that becomes one field, in bytes: what a label may reasonably hold.
const MAX_LIST: usize = 1024;

/// One event. Receivers want `output`, `priority`, `rule` and `time`.
#[derive(Debug, Serialize)]
struct Falco<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    output: String,
    output_fields: BTreeMap<Cow<'a, str>, Value>,
    priority: &'static str,
    rule: &'a str,
    source: &'static str,
    tags: Vec<&'a str>,
    time: String,
    uuid: &'a str,
}

/// Falco's word for a severity.
#[must_use]
pub const fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "Critical",
        Severity::High => "Error",
        Severity::Medium => "Warning",
        Severity::Low => "Notice",
    }
}

/// Appends the event with the newline that ends it.
pub fn line(told: &Told, out: &mut String) {
    let time = shown::timestamp_ms(told.time_ms);
    let mut fields = Fields(BTreeMap::new());
    fields.common(told);
    match told.kind {
        Kind::Alert => fields.alert(told),
        Kind::Incident => fields.incident(told),
    }
    let tags = ["tokenscope", told.rule()].into_iter().chain(told.techniques());
    let tags = tags.chain(told.texts("/metadata/labels"));
    let event = Falco {
        hostname: told.node(),
        output: output(told, &time, &fields.0),
        output_fields: fields.0,
        priority: priority(told.severity),
        rule: told.rule(),
        source: "tokenscope",
        tags: tags.collect(),
        // Falco writes nanoseconds; who reads them takes any number of digits (RFC 3339 section 5.6).
        time,
        uuid: told.event_id(),
    };
    json_line(&event, out);
}

/// `18:04:05.123: Critical message (user=... client=...)`, printable.
fn output(told: &Told, time: &str, fields: &BTreeMap<Cow<'_, str>, Value>) -> String {
    let clock = time.split_once('T').map_or(time, |(_, clock)| clock.trim_end_matches('Z'));
    let mut out = format!("{clock}: {} ", priority(told.severity));
    told.message().chars().for_each(|c| text::push_char(&mut out, c));
    let named = [
        ("user", "tokenscope.principal"),
        ("client", "fd.cip"),
        ("service", "tokenscope.workload"),
        ("request", "tokenscope.route"),
        ("status", "tokenscope.status"),
        ("count", "tokenscope.count"),
    ];
    let mut before = " (";
    for (name, field) in named {
        let Some(value) = fields.get(field) else { continue };
        let value = value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
        let _ = write!(out, "{before}{name}=");
        value.chars().for_each(|c| text::push_char(&mut out, c));
        before = " ";
    }
    out.push(')');
    out
}

struct Fields<'a>(BTreeMap<Cow<'a, str>, Value>);

impl<'a> Fields<'a> {
    fn put(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(name.into(), value.into());
        }
    }

    fn list<'b>(&mut self, name: &'static str, items: impl Iterator<Item = &'b str>) {
        let text = items.collect::<Vec<_>>().join(", ");
        self.put(name, (!text.is_empty()).then(|| cut(&text).to_owned()));
    }

    fn common(&mut self, told: &Told) {
        self.put("evt.time", Some(told.time_ms.saturating_mul(1_000_000)));
        self.put("tokenscope.activity", Some(told.activity()));
        self.put("tokenscope.count", told.number("/count"));
        self.put("tokenscope.id", Some(told.id()));
        self.put("tokenscope.risk", told.number("/risk_score"));
        self.put("tokenscope.sequence", told.number("/metadata/sequence"));
        self.put("tokenscope.severity", Some(told.severity.as_str()));
        self.put("tokenscope.title", Some(told.title()));
    }

    fn alert(&mut self, told: &'a Told) {
        for (name, place) in [
            ("fd.cip", "/evidences/0/src_endpoint/ip"),
            ("fd.sip", "/evidences/0/dst_endpoint/ip"),
            ("container.id", "/evidences/0/container/uid"),
            ("container.image.repository", "/evidences/0/container/image/name"),
            ("container.image.tag", "/evidences/0/container/image/tag"),
            ("container.name", "/evidences/0/container/name"),
            ("k8s.pod.uid", "/evidences/0/container/pod_uuid"),
            ("proc.name", "/evidences/0/process/name"),
            ("tokenscope.brief", "/finding_info/desc"),
            ("tokenscope.coverage", "/unmapped/coverage"),
            ("tokenscope.host", "/evidences/0/http_request/url/domain"),
            ("tokenscope.incident", "/metadata/correlation_uid"),
            ("tokenscope.issuer", "/evidences/0/actor/session/issuer"),
            ("tokenscope.path", "/evidences/0/http_request/url/path"),
            ("tokenscope.priority", "/unmapped/priority"),
            ("tokenscope.route", "/evidences/0/api/operation"),
            ("tokenscope.user_agent", "/evidences/0/http_request/user_agent"),
        ] {
            self.put(name, told.text(place));
        }
        for (name, place) in [
            ("fd.cport", "/evidences/0/src_endpoint/port"),
            ("fd.sport", "/evidences/0/dst_endpoint/port"),
            ("proc.pid", "/evidences/0/process/pid"),
            ("tokenscope.confidence", "/confidence_score"),
            ("tokenscope.status", "/evidences/0/http_response/code"),
        ] {
            self.put(name, told.number(place));
        }
        self.put("tokenscope.principal", told.principal_name());
        self.put("tokenscope.token", told.token());
        self.put("tokenscope.verified", told.at("/unmapped/verified").and_then(Value::as_bool));
        self.put("tokenscope.workload", told.workload());
        let named = || told.workload()?.split_once('/').map(|(_, pod)| pod);
        self.put("k8s.ns.name", told.namespace());
        self.put("k8s.pod.name", told.text("/unmapped/kubernetes/pod").or_else(named));
        self.put("tokenscope.identity", told.text("/unmapped/identity"));
        for (name, value) in ecs::facts(told) {
            self.0.insert(format!("tokenscope.fact.{name}").into(), flat(value));
        }
    }

    fn incident(&mut self, told: &Told) {
        self.put("fd.cip", told.observables(ADDRESS).next());
        self.put("tokenscope.accepted", told.number("/unmapped/accepted"));
        self.put("tokenscope.alerts", told.number("/unmapped/alerts"));
        self.put("tokenscope.priority", told.text("/unmapped/deadline"));
        self.put("tokenscope.response_bytes", told.number("/unmapped/response_bytes"));
        self.put("tokenscope.merged_into", told.text("/unmapped/merged_into"));
        self.list("tokenscope.addresses", told.observables(ADDRESS));
        self.list("tokenscope.principals", told.observables(USER));
        self.list("tokenscope.tokens", told.observables(TOKEN));
        self.list("tokenscope.routes", told.texts("/unmapped/routes"));
        self.list("tokenscope.rules", told.texts("/unmapped/rules"));
        self.list("tokenscope.services", told.texts("/unmapped/services"));
    }
}

/// A value that is neither list nor map; lists of text are joined, anything else is JSON.
fn flat(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            cut(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")).into()
        }
        Value::Array(_) | Value::Object(_) => cut(&value.to_string()).into(),
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_LIST)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Event;
    use crate::alert::staging::{event, incident};
    use crate::render::Node;

    fn falco(event: &Event) -> Value {
        let mut out = String::new();
        line(&Told::of(event, Some(3), Some(&Node::named("node-1"))), &mut out);
        serde_json::from_str(&out).unwrap()
    }

    #[test]
    fn an_alert_has_what_receivers_of_falco_want() {
        let said = falco(&event());
        for (place, value) in [
            ("/hostname", Value::from("node-1")),
            ("/priority", "Critical".into()),
            ("/rule", "alg-none".into()),
            ("/source", "tokenscope".into()),
            ("/tags/2", "T1606".into()),
            ("/time", "2026-11-21T18:04:05.123Z".into()),
            ("/output_fields/fd.cip", "10.0.3.7".into()),
            ("/output_fields/fd.sport", 8080.into()),
            ("/output_fields/k8s.ns.name", "shop".into()),
            ("/output_fields/tokenscope.principal", "alice@idp".into()),
            ("/output_fields/tokenscope.fact.alg", "none".into()),
            ("/output_fields/evt.time", 1_795_284_245_123_000_000_u64.into()),
        ] {
            assert_eq!(said.pointer(place), Some(&value), "{place}");
        }
        let output = said["output"].as_str().unwrap();
        assert!(output.starts_with("18:04:05.123: Critical A token without a signature"), "{output}");
        assert!(output.ends_with("(user=alice@idp client=10.0.3.7 service=shop/orders-7f9c request=GET /orders/{id} status=200 count=1)"), "{output}");
    }

    #[test]
    fn an_incident_has_them_too_and_every_field_is_flat() {
        for event in [event(), Event::Incident(Box::new(incident()))] {
            let said = falco(&event);
            assert!(["output", "priority", "rule", "time"].iter().all(|name| said[name].is_string()));
            let fields = said["output_fields"].as_object().unwrap();
            assert!(fields.values().all(|value| !value.is_object() && !value.is_array()), "{fields:?}");
        }
    }
}
