//! OpenTelemetry logs over HTTP (OTLP 1.x), in its JSON encoding.
//!
//! An event is a log record: its message is the body, its facts are attributes, and the OCSF object as text is the
//! attribute `tokenscope.ocsf`. What may be sent again is as the specification has it: 429, 502, 503, 504 and
//! connections that break; a partial success must not be.

use std::sync::Arc;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use serde_json::{Value, json};

use crate::detect::Severity;
use crate::render::{Kind, Told};
use crate::sink::client::ClientSettings;
use crate::sink::clock::{self, Clock};
use crate::sink::exchange::{Answer, Verdict, ask};
use crate::sink::halves::{Halves, Poison};
use crate::sink::http::{Auth, Text, activity, authorization, brief, gzip, observed, operation, workload};
use crate::sink::{Batch, Delivery, Node, Outcome, Sink, Unusable, Words};
use crate::token::settings::Secret;

/// Events a request: collectors take 4 MiB, and a record is the event twice at most.
const BATCH: Batch = Batch { events: 200, bytes: 512 << 10 };

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How it is reached.
    pub client: ClientSettings,
    /// Where it is, with its path.
    pub url: Secret,
    /// Who asks: not by `OAuth2`.
    pub auth: Auth,
    /// Headers of each request.
    pub headers: Vec<(String, Text)>,
    /// Attributes of the resource besides `service.name` and `host.name`.
    pub resource: Vec<(String, String)>,
    /// Whether bodies are compressed.
    pub gzip: bool,
}

/// Opens it.
///
/// # Errors
/// When it can never work as configured.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    Ok(Box::new(Otlp::new(settings.clone(), node, clock::wall())?))
}

/// The sink.
pub struct Otlp {
    settings: Settings,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    resource: Value,
    client: Client,
    clock: Clock,
    poison: Poison,
}

impl Otlp {
    /// A sink that takes its time from this clock.
    ///
    /// # Errors
    /// When it can never work as configured.
    pub fn new(settings: Settings, node: &Node, clock: Clock) -> Result<Self, Unusable> {
        let url = std::str::from_utf8(&settings.url.0).ok().and_then(|url| Url::parse(url).ok());
        let mut url = url.ok_or_else(|| Unusable("`url` is no URL".into()))?;
        if url.path() == "/" {
            url.set_path("/v1/logs");
        }
        let mut headers = Vec::new();
        for (name, text) in &settings.headers {
            headers.push(crate::sink::http::header(name, text)?);
        }
        let own = [
            ("service.name", "tokenscope"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("host.name", &*node.name),
        ];
        let more = settings.resource.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // An operator may name the service otherwise.
        let own =
            own.into_iter().filter(|(name, _)| settings.resource.iter().all(|(other, _)| other != name));
        let attributes: Vec<Value> = own.chain(more).map(|(name, value)| text(name, value)).collect();
        let resource = json!({"attributes": attributes});
        let client = settings.client.client()?;
        Ok(Self { settings, url, headers, resource, client, clock, poison: Poison::default() })
    }

    async fn all(&self, events: &[Arc<Told>]) -> Outcome {
        let mut halves = Halves::new(events, &self.poison, |_told| true);
        while let Some(part) = halves.next() {
            let verdict = self.once(&part.events).await;
            if let Err(outcome) = halves.tell(&part, verdict) {
                return outcome;
            }
        }
        halves.finish()
    }

    async fn once(&self, events: &[Arc<Told>]) -> Verdict {
        let now = (self.clock)();
        let mut body = self.body(events, now).to_string().into_bytes();
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers.iter().cloned());
        match authorization(&self.settings.auth) {
            Ok(header) => headers.extend(header),
            Err(why) => return Verdict::Later { reason: why, after: None },
        }
        if self.settings.gzip {
            body = gzip(&body);
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *request.body_mut() = Some(body.into());
        match ask(&self.client, request, now, &[]).await {
            Ok(answer) => judge(&answer, events.len()),
            Err(why) => Verdict::Later { reason: why, after: None },
        }
    }

    fn body(&self, events: &[Arc<Told>], now_ms: u64) -> Value {
        let records: Vec<Value> = events.iter().map(|told| record(told, now_ms)).collect();
        json!({"resourceLogs": [{
            "resource": self.resource,
            "scopeLogs": [{
                "scope": {"name": "tokenscope", "version": env!("CARGO_PKG_VERSION")},
                "logRecords": records,
            }],
        }]})
    }
}

/// 64-bit integers are text in the JSON encoding.
fn record(told: &Told, now_ms: u64) -> Value {
    // INFO, WARN, ERROR and FATAL of its own scale.
    let number = match told.severity {
        Severity::Low => 9,
        Severity::Medium => 13,
        Severity::High => 17,
        Severity::Critical => 21,
    };
    let name = match told.kind {
        Kind::Alert => "tokenscope.alert",
        Kind::Incident => "tokenscope.incident",
    };
    json!({
        "timeUnixNano": format!("{}000000", told.time_ms),
        "observedTimeUnixNano": format!("{now_ms}000000"),
        "severityNumber": number,
        "severityText": told.severity.as_str(),
        "eventName": name,
        "body": {"stringValue": if told.message().is_empty() { told.title() } else { told.message() }},
        "attributes": attributes(told),
    })
}

fn attributes(told: &Told) -> Vec<Value> {
    let texts = [
        ("tokenscope.id", Some(told.id())),
        ("tokenscope.event_id", Some(told.event_id())),
        ("tokenscope.activity", Some(activity(told))),
        ("tokenscope.rule", Some(told.rule())),
        ("tokenscope.title", Some(told.title())),
        ("tokenscope.brief", Some(brief(told))),
        ("tokenscope.incident", told.text("/metadata/correlation_uid")),
        ("tokenscope.token", told.token().or_else(|| observed(told, 99))),
        ("tokenscope.workload", workload(told)),
        ("tokenscope.identity", told.text("/unmapped/identity")),
        ("tokenscope.operation", operation(told)),
        ("k8s.namespace.name", told.namespace()),
        ("k8s.pod.name", told.text("/unmapped/kubernetes/pod")),
        ("container.id", told.text("/evidences/0/container/uid")),
        ("user.id", told.principal().or_else(|| observed(told, 4))),
        ("client.address", told.address().or_else(|| observed(told, 2))),
        ("http.request.method", told.text("/evidences/0/http_request/http_method")),
        ("url.path", told.text("/evidences/0/http_request/url/path")),
        ("tokenscope.ocsf", Some(told.json())),
    ];
    let numbers = [
        ("http.response.status_code", told.number("/evidences/0/http_response/code")),
        ("tokenscope.count", told.number("/count")),
        ("tokenscope.risk", told.number("/risk_score")),
        ("tokenscope.sequence", Some(told.sequence)),
    ];
    let texts = texts
        .into_iter()
        .filter_map(|(name, value)| Some(text(name, value.filter(|text| !text.is_empty())?)));
    let numbers = numbers
        .into_iter()
        .filter_map(|(name, value)| Some(json!({"key": name, "value": {"intValue": value?.to_string()}})));
    texts.chain(numbers).collect()
}

fn text(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

/// What a collector's answer means.
fn judge(answer: &Answer, events: usize) -> Verdict {
    match answer.status {
        200..=299 => {}
        // Not for OTLP to say, but for the operator.
        300..=399 | 401 | 403 | 404 | 405 | 407 | 408 | 410 | 429 | 502..=504 => {
            return answer.judge().unwrap_or_else(|| Verdict::later(answer.tell().as_str()));
        }
        _ => return Verdict::Refused(answer.tell()),
    }
    let partial = answer.json().and_then(|said| said.get("partialSuccess").cloned()).unwrap_or_default();
    let rejected = partial.get("rejectedLogRecords").and_then(count).unwrap_or(0);
    let said = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default();
    match rejected {
        0 => Verdict::taken(answer.tell()),
        // It does not say which, and none may be sent again: all are dead letters, so that nothing is lost.
        some => {
            let why = Words::new(&format!("{some} of {events} records were rejected: {said}"));
            Verdict::Taken { refused: (0..events).map(|place| (place, why.clone())).collect(), answer: why }
        }
    }
}

fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

impl Sink for Otlp {
    fn batch(&self) -> Batch {
        BATCH
    }

    fn reopen(&mut self) {
        self.settings.client.renew(&mut self.client);
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(self.all(events))
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::sink::sample;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: body.into(), whole: true, after: None }
    }

    #[test]
    fn a_record_has_its_facts_in_their_places() {
        let record = record(&sample::alert(), 1_795_284_300_000);
        assert_eq!(record["timeUnixNano"], "1795284245123000000");
        assert_eq!(record["observedTimeUnixNano"], "1795284300000000000");
        assert_eq!((&record["severityNumber"], &record["severityText"]), (&json!(17), &json!("High")));
        assert_eq!(record["eventName"], "tokenscope.alert");
        let attributes = record["attributes"].as_array().unwrap();
        let at =
            |name: &str| attributes.iter().find(|one| one["key"] == name).map(|one| one["value"].clone());
        assert_eq!(at("client.address"), Some(json!({"stringValue": "192.0.2.7"})));
        assert_eq!(at("http.response.status_code"), Some(json!({"intValue": "401"})));
        assert_eq!(at("tokenscope.ocsf"), Some(json!({"stringValue": sample::alert().json()})));
        assert_eq!(self::record(&sample::incident(), 1)["eventName"], "tokenscope.incident");
    }

    #[test]
    fn what_is_rejected_in_part_is_not_sent_again() {
        let body = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}"#;
        let Verdict::Taken { refused, .. } = judge(&answer(200, body), 2) else { panic!() };
        assert_eq!(refused.len(), 2);
        assert!(refused[0].1.as_str().contains("1 of 2") && refused[0].1.as_str().contains("too old"));
        let warning = r#"{"partialSuccess":{"errorMessage":"slow down"}}"#;
        assert!(
            matches!(judge(&answer(200, warning), 2), Verdict::Taken { refused, .. } if refused.is_empty())
        );
    }

    #[test]
    fn only_what_the_specification_names_comes_again() {
        for again in [429, 502, 503, 504, 401, 403, 404] {
            assert!(matches!(judge(&answer(again, ""), 1), Verdict::Later { .. }), "{again}");
        }
        for never in [400, 413, 422, 500, 501] {
            assert!(matches!(judge(&answer(never, ""), 1), Verdict::Refused(_)), "{never}");
        }
    }
}
