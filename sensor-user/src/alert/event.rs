//! What leaves the alert stage: alerts, incidents, and news of either.

use ulid::Ulid;

use crate::alert::key::Key;
use crate::alert::{Incident, Place};
use crate::capture::Time;
use crate::detect::{Finding, Severity};

/// Where an alert or an incident is in its life: OCSF `activity_id` of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// First seen.
    Create,
    /// Repeated, or worse than before.
    Update,
    /// Over: incidents only. The last event of an alert is an update.
    Close,
}

/// One event of the stream, in the order in which things came about.
#[derive(Clone, Debug)]
pub enum Event {
    /// An alert, or news of one.
    Alert(Box<Alert>),
    /// An incident, or news of one.
    Incident(Box<Incident>),
}

impl Event {
    /// The alert, if it is one.
    #[must_use]
    pub fn alert(&self) -> Option<&Alert> {
        match self {
            Self::Alert(alert) => Some(alert),
            Self::Incident(_) => None,
        }
    }

    /// The incident, if it is one.
    #[must_use]
    pub fn incident(&self) -> Option<&Incident> {
        match self {
            Self::Incident(incident) => Some(incident),
            Self::Alert(_) => None,
        }
    }
}

/// One alert, or news of one.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Same for every event of one alert, and for every replay of one capture.
    pub id: Ulid,
    /// Whether it is new.
    pub activity: Activity,
    /// The worst severity so far.
    pub severity: Severity,
    /// When it became that bad: deadlines run from here.
    pub raised: Time,
    /// First finding.
    pub first_seen: Time,
    /// Newest finding.
    pub last_seen: Time,
    /// Findings so far.
    pub count: u64,
    /// What makes it this alert and no other.
    pub key: Key,
    /// The incident that it belongs to; none where nothing tells who is involved.
    pub incident: Option<Ulid>,
    /// 0 to 100: the risk of the riskiest entity involved, when the alert was raised.
    pub entity_risk: u8,
    /// The finding that made it worst, newest of equals.
    pub finding: Finding,
    /// Which workload answered. The pipeline does not know; the runtime, which may look at the host, fills it in.
    pub place: Option<Place>,
}

impl Alert {
    /// 0 to 100: what the rule says itself, else severity weighed with confidence.
    #[must_use]
    pub fn own_risk(&self) -> u8 {
        let said = self.finding.facts.iter().find(|(name, _)| *name == RISK);
        let weighed = u64::from(self.severity.id() - 1) * 25 * u64::from(self.finding.confidence) / 100;
        let risk = said.and_then(|(_, value)| value.as_u64()).unwrap_or(weighed);
        u8::try_from(risk.min(100)).unwrap_or(100)
    }
}

/// The fact by which a rule gives its own risk.
pub const RISK: &str = "risk_score";
