//! What the tests of the control socket are made of, and those of the server as a whole.

use serde_json::json;

use crate::detect::Severity;
use crate::render::{Kind, Told};
use crate::spool::{Draft, Spool};

/// The JSON of the event with this number.
fn json_of(number: u64, rule: &str) -> String {
    let severity = severity(number).as_str();
    json!({
        "finding_info": {"uid": format!("{number}"), "analytic": {"uid": rule}},
        "severity": severity,
        "time": number,
        "evidences": [{"src_endpoint": {"ip": format!("10.0.0.{}", number % 256)}}],
    })
    .to_string()
}

fn severity(number: u64) -> Severity {
    match number % 4 {
        0 => Severity::Low,
        1 => Severity::Medium,
        2 => Severity::High,
        _ => Severity::Critical,
    }
}

/// An alert of its own rule.
pub(super) fn told(number: u64) -> Told {
    let json = json_of(number, &format!("rule-{number}"));
    Told::new(number, number, severity(number), Kind::Alert, json.into())
}

/// Appends an alert of this rule.
pub(super) fn append(spool: &Spool, rule: &str) -> u64 {
    let number = *spool.head().borrow() + 1;
    let mut json = |number| json_of(number, rule);
    let draft = Draft { time_ms: number, severity: severity(number), kind: Kind::Alert, json: &mut json };
    spool.append(&mut [draft]).unwrap().start
}

/// A spool of so many alerts, each of its own rule.
pub(super) fn spool_of(count: u64) -> Spool {
    let spool = Spool::in_memory(0);
    for number in 1..=count {
        append(&spool, &format!("rule-{number}"));
    }
    spool
}
