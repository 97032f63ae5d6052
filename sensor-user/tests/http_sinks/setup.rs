//! Sinks as a configuration makes them, and events for them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sensor_user::config::{Environment, Secrets};
use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Told};
use sensor_user::sink::{self, Node, Outcome, Sink, sample};
use serde_json::Value;

/// Secrets of the tests.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("KEY", "k3y-of-the-test"),
    ("PASSWORD", "pa:ss"),
    ("SIGNING", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("PD", "R0123456789"),
];

/// The sink that these keys make. Proxies of the environment must not reach into tests.
pub(crate) fn sink(keys: &str) -> Box<dyn Sink> {
    let proxy = if keys.contains("proxy:") { "" } else { ", proxy: none" };
    let text = format!("sinks:\n  - {{{keys}{proxy}}}\n");
    let environment = Environment::from(ENVIRONMENT);
    let loaded =
        sensor_user::config::parse("test", &text, Path::new("/"), &environment, &[], Secrets::Needed);
    let loaded = loaded.unwrap_or_else(|report| panic!("{text}: {:?}", report.lines().collect::<Vec<_>>()));
    let settings = loaded.config.sinks.first().expect("a sink");
    sink::open(&settings.target, &Node::named("node-1")).unwrap()
}

/// The sample of an alert as the event of this number, changed.
pub(crate) fn alert(sequence: u64, change: impl FnOnce(&mut Value)) -> Arc<Told> {
    told(&sample::alert(), sequence, change)
}

/// The same of an incident.
pub(crate) fn incident(sequence: u64, change: impl FnOnce(&mut Value)) -> Arc<Told> {
    told(&sample::incident(), sequence, change)
}

fn told(of: &Told, sequence: u64, change: impl FnOnce(&mut Value)) -> Arc<Told> {
    let mut value = of.value().clone();
    change(&mut value);
    let severity = match value["severity_id"].as_u64() {
        Some(5) => Severity::Critical,
        Some(4) => Severity::High,
        Some(3) => Severity::Medium,
        _ => Severity::Low,
    };
    let time = value["time"].as_u64().unwrap();
    let kind = if of.kind == Kind::Alert { Kind::Alert } else { Kind::Incident };
    Arc::new(Told::new(sequence, time, severity, kind, value.to_string().into()))
}

/// Events of different alerts.
pub(crate) fn alerts(n: u64) -> Vec<Arc<Told>> {
    (1..=n).map(|n| alert(n, |value| value["finding_info"]["uid"] = id(n).into())).collect()
}

/// The id of an alert.
pub(crate) fn id(n: u64) -> String {
    format!("01M7ZMDBX8XAMP1ESAMP{n:06}")
}

/// Delivers as delivery does: with a limit on the time.
pub(crate) async fn deliver(sink: &mut dyn Sink, events: &[Arc<Told>]) -> Outcome {
    let outcome = tokio::time::timeout(Duration::from_secs(30), sink.deliver(events)).await;
    outcome.expect("every delivery ends")
}

/// It was done, and nothing was refused.
pub(crate) fn done(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Done { refused, .. } if refused.is_empty()), "{outcome:?}");
}

/// Why it must come again, and when.
pub(crate) fn later(outcome: &Outcome) -> (String, Option<Duration>) {
    let Outcome::Later { reason, after } = outcome else { panic!("{outcome:?}") };
    (reason.to_string(), *after)
}
