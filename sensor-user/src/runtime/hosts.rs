//! Which workload answered: looked up by the alert writer, so that capture and the pipeline know nothing of the host.
//!
//! The host is looked at when an alert needs it and what is known is old, or does not know the server: an idle sensor
//! scans nothing, and a service that has just started has a name in its first alert.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::alert::{Place, Process};
use crate::capture::Origin;
use crate::detect::Scene;
use crate::enrich::{self, Host, INTERVAL, Workload};

/// How often a server that nobody knows may cause another look.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of the host, and since when.
pub(super) struct Hosts {
    cgroups: PathBuf,
    host: Host,
    scanned: Instant,
}

impl Hosts {
    /// Looks at the host for the first time. `cgroups` is the root of the cgroup v2 tree.
    pub(super) fn new(cgroups: PathBuf) -> Self {
        Self { host: scan(&cgroups), cgroups, scanned: Instant::now() }
    }

    /// The workload behind the server of a scene.
    pub(super) fn place(&mut self, scene: &Scene) -> Option<Place> {
        self.place_of(&scene.origin, scene.endpoints.server)
    }

    /// The workload behind a server.
    pub(super) fn place_of(&mut self, origin: &Origin, server: SocketAddr) -> Option<Place> {
        if self.scanned.elapsed() >= INTERVAL {
            self.look_again();
        }
        let known = self.host.workload(origin, server).filter(|workload| workload.comm.is_some());
        if known.is_none() && self.scanned.elapsed() >= AGAIN {
            self.look_again();
        }
        known.or_else(|| self.host.workload(origin, server)).map(place)
    }

    fn look_again(&mut self) {
        self.host = scan(&self.cgroups);
        self.scanned = Instant::now();
    }
}

fn scan(cgroups: &std::path::Path) -> Host {
    enrich::scan(std::path::Path::new("/proc"), cgroups)
}

fn place(workload: Workload) -> Place {
    let process = workload.pid.zip(workload.comm).map(|(pid, name)| Process { pid, name: name.to_string() });
    Place {
        name: workload.name,
        container_id: workload.container_id.map(|id| id.to_string()),
        pod_uid: workload.pod_uid.map(|id| id.to_string()),
        process,
    }
}
