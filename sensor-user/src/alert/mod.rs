//! Alerts: findings after dedup and cooling, with an identity.

pub mod desk;

#[cfg(test)]
pub(crate) mod staging;

pub use desk::{AlertSettings, Desk};
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
    /// Which workload answered. The pipeline does not know; the runtime, which may look at the host, fills it in.
    pub place: Option<Place>,
}

/// The workload at the server's end, as far as the host tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What people call it: `shop/orders-7f9c`, a unit, a process.
    pub name: String,
    /// The container.
    pub container_id: Option<String>,
    /// The pod.
    pub pod_uid: Option<String>,
    /// The process.
    pub process: Option<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id on the host.
    pub pid: u32,
    /// Its name.
    pub name: String,
}
