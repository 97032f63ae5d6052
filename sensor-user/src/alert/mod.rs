//! Alerts: findings after dedup and cooling, with an identity.

use ulid::Ulid;

use crate::capture::Time;
use crate::detect::{Finding, Severity};

/// Where an alert is in its life: OCSF `activity_id` of a Detection Finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// First seen.
    Create,
    /// Repeated or worse than before.
    Update,
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
    /// First finding.
    pub first_seen: Time,
    /// Newest finding.
    pub last_seen: Time,
    /// Findings so far.
    pub count: u64,
    /// The finding that made it worst, newest of equals.
    pub finding: Finding,
}
