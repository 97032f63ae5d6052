//! Whatever events hold, what is sent has the form that it must have.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::preset::{PRESETS, Preset, Shape};
use super::template::Forms;
use crate::detect::Severity;
use crate::render::{Kind, Told};
use crate::sink::sample;

/// The preset's template for these events, as it is rendered while delivering.
fn rendered(preset: &Preset, events: &[Arc<Told>]) -> String {
    let vars = preset
        .variables
        .iter()
        .map(|known| (known.name, known.default.unwrap_or("a@b.example, c@d.example")));
    Forms::new(vars, "no\"de".into(), preset.events, false).render(preset.template, events).unwrap()
}

/// Every text of an event but its id replaced by one of these.
fn poisoned(of: &Told, texts: &[String], severity: Severity) -> Arc<Told> {
    fn fill(value: &mut Value, texts: &[String], next: &mut usize) {
        match value {
            Value::String(text) => {
                if let Some(poison) = texts.get(*next % texts.len().max(1)) {
                    poison.clone_into(text);
                }
                *next += 1;
            }
            Value::Array(all) => all.iter_mut().for_each(|one| fill(one, texts, next)),
            Value::Object(all) => all.values_mut().for_each(|one| fill(one, texts, next)),
            _ => {}
        }
    }
    let id = of.id().to_owned();
    let mut value = of.value().clone();
    fill(&mut value, texts, &mut 0);
    let place = match of.kind {
        Kind::Alert => "/finding_info/uid",
        Kind::Incident => "/metadata/correlation_uid",
    };
    *value.pointer_mut(place).unwrap() = id.into();
    Arc::new(Told::new(7, of.time_ms, severity, of.kind, value.to_string().into()))
}

/// How many events a body tells of, by the shape that its receiver wants.
fn count(preset: &Preset, body: &str) -> usize {
    let json = || serde_json::from_str::<Value>(body).unwrap();
    match preset.name {
        "elasticsearch" | "opensearch" => {
            let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(
                lines
                    .iter()
                    .step_by(2)
                    .all(|line| line["index"]["_id"].as_str().is_some_and(|id| id.len() == 26))
            );
            assert!(body.ends_with('\n'), "a bulk body ends with a line break");
            assert_eq!(lines.len() % 2, 0);
            lines.len() / 2
        }
        "splunk" | "clickhouse" => body.lines().count(),
        "loki" => json()["streams"].as_array().unwrap().len(),
        "sentinel" => json().as_array().unwrap().len(),
        "mailgun" => {
            let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
            let names: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
            assert_eq!(names.len(), 6, "{names:?}");
            1
        }
        _ => {
            assert!(json().is_object());
            1
        }
    }
}

#[test]
fn every_preset_is_right_for_the_samples() {
    for preset in &PRESETS {
        let mut all = sample::all();
        all.truncate(preset.events);
        let body = rendered(preset, &all);
        assert_eq!(preset.shape.check(&body), Ok(()), "{}: {body}", preset.name);
        assert_eq!(count(preset, &body), all.len(), "{}: {body}", preset.name);
    }
}

#[test]
fn presets_have_names_of_their_own() {
    let mut names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PRESETS.len());
}

#[test]
fn content_types_have_their_forms() {
    assert_eq!(Shape::of("application/json; charset=utf-8"), Shape::Json);
    assert_eq!(Shape::of("application/cloudevents+json"), Shape::Json);
    assert_eq!(Shape::of("application/x-ndjson"), Shape::Lines);
    assert_eq!(Shape::of("text/plain"), Shape::Free);
    assert!(Shape::Form.check("a=b&c=d%20e").is_ok() && Shape::Form.check("a=b c").is_err());
}

/// Text that breaks what is put together carelessly.
fn nasty() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "\"",
        "\\",
        "\\\"",
        "\n",
        "\r\n",
        "\u{0}",
        "\u{1b}[2J",
        "</script>",
        "{{ vars.routing_key }}",
        "{% for %}",
        "{#",
        "<!channel>",
        "<@U1>",
        "&amp;",
        "a&b=c",
        "%00",
        "\u{2028}",
        "\u{202e}",
        "${x}",
        "@{y}",
        "}}",
        "'",
        "*x* _y_ [z](w)",
        "",
    ]);
    prop::collection::vec(prop_oneof![known.prop_map(str::to_owned), "\\PC{0,20}", ".{0,8}"], 0..4)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn whatever_an_event_holds_every_body_has_its_form(
        texts in prop::collection::vec(nasty(), 1..6),
        severity in prop::sample::select(vec![Severity::Low, Severity::Medium, Severity::High, Severity::Critical]),
    ) {
        let events: Vec<_> = sample::all().iter().map(|of| poisoned(of, &texts, severity)).collect();
        for preset in &PRESETS {
            for several in [1, events.len().min(preset.events)] {
                for first in 0..events.len() {
                    let Some(batch) = events.get(first..first + several) else { continue };
                    let body = rendered(preset, batch);
                    prop_assert_eq!(preset.shape.check(&body), Ok(()), "{}: {}", preset.name, body);
                    prop_assert_eq!(count(preset, &body), several, "{}: {}", preset.name, body);
                    prop_assert!(preset.name != "slack" || !body.contains("<!"), "a command for Slack: {}", body);
                    prop_assert!(preset.name != "teams" || !body.contains("{{"), "a template in a card: {}", body);
                }
            }
        }
    }
}
