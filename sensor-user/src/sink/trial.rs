//! Events that look like real ones and say that they are none, for `sinks test`.

use serde_json::{Value, json};
use ulid::Ulid;

use crate::capture::Time;
use crate::detect::Severity;
use crate::render::{Kind, Node, Told};

/// The rule that a sample names: no rule of the catalogue.
pub const RULE: &str = "sink-test";

const MESSAGE: &str =
    "This is a test of a sink by `tokenscope sinks test`: nothing has happened, and there is nothing to do.";

/// An alert.
#[must_use]
pub fn alert(node: &Node, severity: Severity, now: Time) -> Told {
    let id = Ulid::from_parts(now.millis(), 0);
    let event = json!({
        "activity_id": 1, "activity_name": "Create",
        "category_uid": 2, "category_name": "Findings",
        "class_uid": 2004, "class_name": "Detection Finding",
        "type_uid": 200_401, "type_name": "Detection Finding: Create",
        "time": now.millis(),
        "severity_id": severity.id(), "severity": severity.as_str(),
        "status_id": 1, "status": "New",
        "is_alert": true,
        "confidence_score": 100, "risk_score": 1, "count": 1,
        "message": MESSAGE,
        "metadata": metadata("alerts", id, node),
        "finding_info": {
            "uid": id.to_string(),
            "title": "Test of a sink",
            "desc": "only a test",
            "analytic": {"uid": RULE, "name": "Test of a sink", "version": "1", "type_id": 1, "type": "Rule"},
            "attacks": [{"technique": {"uid": "T1550.001"}}],
            "created_time": now.millis(), "first_seen_time": now.millis(), "last_seen_time": now.millis(),
            "data_sources": ["http"],
        },
        "evidences": [{
            "actor": {
                "user": {"uid": "nobody"},
                "session": {"uid": "00000000000000000000000000000000", "issuer": "https://idp.example/"},
            },
            "api": {"operation": "GET /orders/{id}"},
            "http_request": {"http_method": "GET", "url": {"path": "/orders/7", "domain": "shop.example"}, "user_agent": "none"},
            "http_response": {"code": 200},
            "src_endpoint": {"name": "192.0.2.7", "ip": "192.0.2.7", "port": 50_000},
            "dst_endpoint": {"name": "test/orders", "ip": "192.0.2.1", "port": 8080},
        }],
        "unmapped": {"verified": true, "coverage": "whole", "priority": "P3", "alert_risk": 1, "entity_risk": 0, "test": true},
    });
    told(&event, Kind::Alert, severity, now)
}

/// An incident that has just begun, or that is over.
#[must_use]
pub fn incident(node: &Node, severity: Severity, now: Time, over: bool) -> Told {
    let id = Ulid::from_parts(now.millis(), 1);
    let (activity, name, status, state) =
        if over { (3, "Close", 5, "Closed") } else { (1, "Create", 1, "New") };
    let event = json!({
        "activity_id": activity, "activity_name": name,
        "category_uid": 2, "category_name": "Findings",
        "class_uid": 2005, "class_name": "Incident Finding",
        "type_uid": 200_500 + activity, "type_name": format!("Incident Finding: {name}"),
        "time": now.millis(), "start_time": now.millis(), "end_time": now.millis(),
        "severity_id": severity.id(), "severity": severity.as_str(),
        "status_id": status, "status": state,
        "is_alert": true, "is_suspected_breach": false,
        "priority_id": 1, "priority": "Low",
        "impact_id": 1, "impact": "Low",
        "risk_score": 1, "count": 1,
        "desc": "1 alert of sink-test",
        "message": MESSAGE,
        "assignee": {"name": "unassigned"},
        "attacks": [{"technique": {"uid": "T1550.001"}}],
        "metadata": metadata("incidents", id, node),
        "finding_info_list": [{
            "uid": Ulid::from_parts(now.millis(), 0).to_string(),
            "title": "Test of a sink",
            "analytic": {"uid": RULE, "type_id": 1},
            "first_seen_time": now.millis(),
        }],
        "observables": [
            {"name": "evidences.src_endpoint.ip", "type_id": 2, "type": "IP Address", "value": "192.0.2.7"},
        ],
        "unmapped": {
            "alerts": 1, "accepted": 0, "response_bytes": 0, "deadline": "P3", "rules": [RULE],
            "routes": ["GET /orders/{id}"], "services": ["192.0.2.1:8080"], "test": true,
        },
    });
    told(&event, Kind::Incident, severity, now)
}

fn metadata(log: &str, id: Ulid, node: &Node) -> Value {
    let mut metadata = json!({
        "version": crate::render::ocsf::VERSION,
        "profiles": ["security_control"],
        "product": {"name": "Tokenscope", "vendor_name": "Tokenscope", "version": env!("CARGO_PKG_VERSION")},
        "log_name": log,
        "uid": format!("{id}-0"),
        "reporter": {"hostname": &*node.name, "name": "Tokenscope"},
    });
    if let Some(all) = metadata.as_object_mut() {
        if log == "incidents" {
            all.insert("correlation_uid".into(), id.to_string().into());
        }
        if !node.labels.is_empty() {
            all.insert("labels".into(), node.labels.to_vec().into());
        }
    }
    metadata
}

fn told(event: &Value, kind: Kind, severity: Severity, now: Time) -> Told {
    Told::new(0, now.millis(), severity, kind, event.to_string().into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::NOW_S;
    use crate::render::validator::Schema;

    #[test]
    fn samples_are_sound_and_say_what_they_are() {
        let node = Node { name: "node-1".into(), labels: ["env=test".to_owned()].into() };
        let now = Time::from_secs(NOW_S);
        let all = [
            alert(&node, Severity::Low, now),
            incident(&node, Severity::Critical, now, false),
            incident(&node, Severity::Critical, now, true),
        ];
        for told in all {
            assert!(told.message().starts_with("This is a test"));
            assert_eq!(told.value().pointer("/unmapped/test"), Some(&true.into()));
            assert_eq!(told.id().len(), 26);
            if let Some(schema) = Schema::find() {
                assert_eq!(schema.problems(told.value()), Vec::<String>::new());
            }
        }
    }
}
