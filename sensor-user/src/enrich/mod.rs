//! Who a server is: from a socket's cgroup and port to a service, a container, a process.
//!
//! [`scan`] reads /proc and the cgroup tree, off the capture path and bounded; what it gives is looked at without any
//! I/O. Capture files hold no host, so in replay there is nothing to scan and every answer is none.
//!
//! Not seen: names of pods, which only the cluster knows; processes that came and went between two scans.

pub mod cgroup;
pub mod geo;
pub mod lists;
pub mod process;

#[cfg(test)]
pub(crate) mod mmdb;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::capture::Origin;

use cgroup::Place;
use process::Process;

/// How often a scan is worth its cost (about 10 ms on a host of 200 processes): a service that starts is named after
/// this long at the latest, and by its address until then.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// What runs behind a server's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// What people call it: the unit, or command and port.
    pub name: String,
    /// The systemd unit: `nginx.service`.
    pub unit: Option<Arc<str>>,
    /// The container's id, as its runtime gave it.
    pub container_id: Option<Arc<str>>,
    /// The pod's UID.
    pub pod_uid: Option<Arc<str>>,
    /// Process id, in the sensor's own namespace.
    pub pid: Option<u32>,
    /// The command's name, at most 15 bytes, printable.
    pub comm: Option<Arc<str>>,
}

/// What one scan found.
#[derive(Debug, Default)]
pub struct Host {
    /// By the inode of the cgroup's directory.
    places: HashMap<u64, Place>,
    /// Who listens, by port.
    listeners: HashMap<u16, Vec<Listener>>,
    /// By process id.
    processes: HashMap<u32, Process>,
}

/// A listening socket and its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    pid: u32,
}

/// Looks at the host. `procfs` is `/proc`, `cgroups` the root of the cgroup v2 tree.
#[must_use]
pub fn scan(procfs: &Path, cgroups: &Path) -> Host {
    let mut host = Host { places: cgroup::scan(cgroups), ..Host::default() };
    let found = process::scan(procfs, cgroups);
    for (address, pid) in found.listeners {
        host.listeners.entry(address.port()).or_default().push(Listener { address, pid });
    }
    host.processes = found.processes;
    host
}

impl Host {
    /// What runs behind a socket; none if nothing is known of it.
    #[must_use]
    pub fn workload(&self, origin: &Origin, server: SocketAddr) -> Option<Workload> {
        let pid = self.pid(origin, server);
        let process = pid.and_then(|pid| self.processes.get(&pid));
        let cgroup =
            if origin.cgroup == 0 { process.map_or(0, |process| process.cgroup) } else { origin.cgroup };
        let place = self.places.get(&cgroup);
        if process.is_none() && place.is_none() {
            return None;
        }
        let place = place.cloned().unwrap_or_default();
        let comm = process.map(|process| Arc::clone(&process.comm));
        let name = match (place.service(), &comm, &place.container_id) {
            (Some(service), ..) => service.to_owned(),
            (None, Some(comm), _) => format!("{comm}:{}", server.port()),
            (None, None, Some(id)) => format!("{}:{}", id.get(..12).unwrap_or(id), server.port()),
            (None, None, None) => return None,
        };
        Some(Workload {
            name,
            unit: place.unit,
            container_id: place.container_id,
            pod_uid: place.pod_uid,
            pid,
            comm,
        })
    }

    /// Who listens there: the kernel's word if it gave one, else the listener of this port in this cgroup.
    fn pid(&self, origin: &Origin, server: SocketAddr) -> Option<u32> {
        if origin.pid != 0 {
            return Some(origin.pid);
        }
        let same_cgroup = |listener: &&Listener| {
            let cgroup = self.processes.get(&listener.pid).map(|process| process.cgroup);
            origin.cgroup == 0 || cgroup == Some(origin.cgroup)
        };
        let here = self.listeners.get(&server.port())?.iter().filter(same_cgroup);
        let mut fitting: Vec<&Listener> = here.filter(|l| fits(l.address, server)).collect();
        // An exact address beats a wildcard; of several processes that share a socket, the first (the parent) speaks.
        fitting.sort_by_key(|listener| (listener.address.ip().is_unspecified(), listener.pid));
        let first = fitting.first()?;
        // Without a cgroup, two containers may listen on one port: then nobody is named rather than the wrong one.
        let cgroup_of = |pid: u32| self.processes.get(&pid).map(|process| process.cgroup);
        let ambiguous =
            origin.cgroup == 0 && fitting.iter().any(|l| cgroup_of(l.pid) != cgroup_of(first.pid));
        (!ambiguous).then_some(first.pid)
    }
}

/// Whether a listener takes connections to this address. `::` takes IPv4 too unless it is told not to.
fn fits(listener: SocketAddr, server: SocketAddr) -> bool {
    match listener.ip().to_canonical() {
        ip if ip.is_unspecified() => ip.is_ipv6() || server.ip().to_canonical().is_ipv4(),
        ip => ip == server.ip().to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        let process = |comm: &str, cgroup| Process { comm: comm.into(), exe: None, cgroup };
        let listen = |address: &str, pid| Listener { address: address.parse().unwrap(), pid };
        let container = Place { container_id: Some("3f2a1b4c5d6e7f80".into()), ..Place::default() };
        Host {
            places: HashMap::from([
                (10, Place { unit: Some("nginx.service".into()), ..Place::default() }),
                (20, container),
            ]),
            listeners: HashMap::from([
                (80, vec![listen("0.0.0.0:80", 100), listen("[::]:80", 101)]),
                (8080, vec![listen("[::]:8080", 200), listen("127.0.0.1:8080", 300)]),
            ]),
            processes: HashMap::from([
                (100, process("nginx", 10)),
                (101, process("nginx", 10)),
                (200, process("java", 20)),
                (300, process("node", 30)),
            ]),
        }
    }

    fn origin(cgroup: u64, pid: u32) -> Origin {
        Origin { cgroup, netns: 0, pid }
    }

    fn name(origin: Origin, server: &str) -> Option<String> {
        host().workload(&origin, server.parse().unwrap()).map(|workload| workload.name)
    }

    #[test]
    fn a_service_is_called_by_its_unit() {
        assert_eq!(name(origin(10, 0), "10.0.0.1:80").as_deref(), Some("nginx"));
        let workload = host().workload(&origin(10, 0), "10.0.0.1:80".parse().unwrap()).unwrap();
        assert_eq!((workload.pid, workload.comm.as_deref()), (Some(100), Some("nginx")));
    }

    #[test]
    fn a_container_is_called_by_its_command_and_port() {
        assert_eq!(name(origin(20, 0), "10.0.0.1:8080").as_deref(), Some("java:8080"));
        assert_eq!(name(origin(20, 0), "10.0.0.1:9").as_deref(), Some("3f2a1b4c5d6e:9"));
    }

    #[test]
    fn the_word_of_the_kernel_comes_first() {
        assert_eq!(name(origin(30, 300), "10.0.0.1:1").as_deref(), Some("node:1"));
    }

    #[test]
    fn nobody_is_named_rather_than_the_wrong_one() {
        assert_eq!(name(origin(0, 0), "127.0.0.1:8080"), None);
        assert_eq!(name(origin(0, 0), "10.0.0.1:8080").as_deref(), Some("java:8080"));
        assert_eq!(name(origin(99, 0), "10.0.0.1:80"), None);
        assert_eq!(name(origin(0, 0), "10.0.0.1:7"), None);
    }

    #[test]
    fn wildcards_take_their_family() {
        let fits = |listener: &str, server: &str| fits(listener.parse().unwrap(), server.parse().unwrap());
        assert!(
            fits("0.0.0.0:1", "10.0.0.1:1")
                && fits("[::]:1", "10.0.0.1:1")
                && fits("[::]:1", "[2001:db8::1]:1")
        );
        assert!(!fits("0.0.0.0:1", "[2001:db8::1]:1") && !fits("127.0.0.1:1", "10.0.0.1:1"));
        assert!(fits("[::ffff:10.0.0.1]:1", "10.0.0.1:1"));
    }

    #[test]
    fn finds_this_very_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = scan(Path::new("/proc"), Path::new("/nowhere"));
        let workload = host.workload(&Origin::default(), listener.local_addr().unwrap()).unwrap();
        assert_eq!(workload.pid, Some(std::process::id()));
        assert!(workload.name.ends_with(&format!(":{}", listener.local_addr().unwrap().port())));
    }
}
