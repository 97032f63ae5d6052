//! The state of the sensor as one JSON object: for `/v1/status`, and once an interval for `/v1/top`.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value, json};

use crate::control::{Sources, feed};
use crate::telemetry::Metric;
use crate::telemetry::metrics::Sample;

/// The state of the sensor now.
#[must_use]
pub fn status(sources: &Sources) -> Value {
    let now = (sources.clock)();
    let figures = sources.overview.figures();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": &*sources.node.name,
        "time": now.millis(),
        "started": sources.started.millis(),
        "uptime_s": now.secs().saturating_sub(sources.started.secs()),
        "ready": sources.overview.is_ready(),
        "sequence": {"oldest": feed::oldest(&sources.spool), "head": *sources.spool.head().borrow()},
        "observers": sources.exchanges.receiver_count(),
        "sinks": sinks(&figures),
        "figures": flat(&figures),
    })
}

/// What figures say of each sink: `{"name": …, "lag_events": 3, "events": {"delivered": 7, …}, …}`.
#[must_use]
pub fn sinks(figures: &[Metric]) -> Value {
    let mut all: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for metric in figures {
        let Some((_, sink)) = metric.labels.iter().find(|(label, _)| *label == "sink") else { continue };
        let short = metric.name.trim_start_matches("tokenscope_").trim_start_matches("sink_");
        let short = short.trim_end_matches("_total").to_owned();
        let state = all.entry(sink).or_insert_with(|| Map::from_iter([("name".to_owned(), json!(sink))]));
        match metric.labels.iter().find(|(label, _)| *label != "sink") {
            None => _ = state.insert(short, value(metric)),
            Some((_, label)) => {
                let inner = state.entry(short).or_insert_with(|| json!({}));
                if let Some(inner) = inner.as_object_mut() {
                    inner.insert(label.clone().into_owned(), value(metric));
                }
            }
        }
    }
    all.into_values().map(Value::Object).collect()
}

/// Figures by name and labels, as they are written at `/metrics`. Durations are an object of their own.
#[must_use]
pub fn flat(figures: &[Metric]) -> Value {
    figures.iter().map(|metric| (name(metric), value(metric))).collect::<Map<_, _>>().into()
}

fn value(metric: &Metric) -> Value {
    match &metric.sample {
        Sample::Counter(count) => Value::from(*count),
        Sample::Spent(time) => Value::from(time.as_secs_f64()),
        Sample::Gauge(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        Sample::Histogram(histogram) => json!({
            "count": histogram.count(),
            "sum_s": histogram.sum().as_secs_f64(),
            "p50_s": histogram.quantile(0.5).map(|time| time.as_secs_f64()),
            "p99_s": histogram.quantile(0.99).map(|time| time.as_secs_f64()),
        }),
    }
}

fn name(metric: &Metric) -> String {
    if metric.labels.is_empty() {
        return metric.name.to_owned();
    }
    let label =
        |(key, value): &(&str, std::borrow::Cow<'_, str>)| format!("{key}={}", Value::from(value.as_ref()));
    format!("{}{{{}}}", metric.name, metric.labels.iter().map(label).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Histogram;

    #[test]
    fn every_kind_of_figure_has_its_form() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|ms| histogram.observe(Duration::from_millis(ms)));
        let figures = [
            Metric::counter("a_total", "", 3).label("rule", "x\"y"),
            Metric::gauge("b", "", 1.5),
            Metric::gauge("c", "", f64::NAN),
            Metric::histogram("d_seconds", "", histogram),
        ];
        let flat = flat(&figures);
        assert_eq!(flat["a_total{rule=\"x\\\"y\"}"], 3);
        assert_eq!(flat["b"], 1.5);
        assert_eq!(flat["c"], Value::Null);
        assert_eq!(flat["d_seconds"]["count"], 100);
        let p99 = flat["d_seconds"]["p99_s"].as_f64().unwrap();
        assert!((0.099..=0.132).contains(&p99), "{p99}");
    }

    #[test]
    fn the_figures_of_a_sink_are_told_together() {
        let figures = [
            Metric::counter("tokenscope_exchanges_total", "", 9),
            Metric::counter("tokenscope_sink_events_total", "", 7)
                .label("sink", "siem")
                .label("result", "delivered"),
            Metric::counter("tokenscope_sink_events_total", "", 1)
                .label("sink", "siem")
                .label("result", "dead"),
            Metric::gauge("tokenscope_sink_lag_events", "", 3.0).label("sink", "siem"),
            Metric::gauge("tokenscope_dead_letters", "", 1.0).label("sink", "siem"),
            Metric::gauge("tokenscope_sink_lag_events", "", 0.0).label("sink", "pager"),
        ];
        let siem = json!({"name": "siem", "events": {"delivered": 7, "dead": 1}, "lag_events": 3.0, "dead_letters": 1.0});
        assert_eq!(sinks(&figures), json!([{"name": "pager", "lag_events": 0.0}, siem]));
    }
}
