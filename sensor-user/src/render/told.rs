//! An event as it is told: the OCSF object as one line of JSON, made once, with what routing asks of it.
//!
//! Everything behind the spool works on these: sinks, the store, the control socket. An event that was written by
//! another version reads the same. What privacy hides is hidden before one is made.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::detect::Severity;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A Detection Finding, or news of one.
    Alert,
    /// An Incident Finding, or news of one.
    Incident,
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

impl Told {
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

    /// The name of the workload that answered: `shop/orders-7f9c`, a unit, or an address.
    #[must_use]
    pub fn workload(&self) -> Option<&str> {
        self.text("/evidences/0/dst_endpoint/name")
    }

    /// The namespace of the workload, where its name has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        Some(self.workload()?.split_once('/')?.0)
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
