//! Samples of events: what templates are tried on before there is an alert.
//!
//! One alert with everything in it, one with nothing that can be missing, and an incident. Their texts hold what breaks
//! careless templates: quotes, a line break, markup and another template's syntax.

use std::sync::Arc;

use crate::detect::Severity;
use crate::render::{Kind, Told};

const ALERT: &str = include_str!("sample/alert.json");
const BARE: &str = include_str!("sample/bare.json");
const INCIDENT: &str = include_str!("sample/incident.json");

/// An alert with everything.
#[must_use]
pub fn alert() -> Told {
    told(ALERT, Severity::High, Kind::Alert)
}

/// An alert with nothing that can be missing.
#[must_use]
pub fn bare() -> Told {
    told(BARE, Severity::Low, Kind::Alert)
}

/// An incident.
#[must_use]
pub fn incident() -> Told {
    told(INCIDENT, Severity::Critical, Kind::Incident)
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Arc<Told>> {
    [alert(), bare(), incident()].map(Arc::new).into()
}

/// The line breaks of the file are none of the event's.
fn told(json: &str, severity: Severity, kind: Kind) -> Told {
    let line: String = json.lines().map(str::trim_start).collect();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
    let time = value.get("time").and_then(serde_json::Value::as_u64).unwrap_or_default();
    Told::new(0, time, severity, kind, line.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::validator::Schema;

    #[test]
    fn samples_are_events_as_any_other() {
        for told in all() {
            assert!(!told.id().is_empty() && !told.rule().is_empty() && !told.title().is_empty());
            assert_eq!(told.number("/severity_id"), Some(told.severity.id().into()));
            assert!(told.time_ms > 0 && !told.json().contains('\n'));
            if let Some(schema) = Schema::find() {
                assert_eq!(schema.problems(told.value()), Vec::<String>::new());
            }
        }
    }
}
