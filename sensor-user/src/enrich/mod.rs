//! Who a server is: from a socket's cgroup and port to a service, a container, a process; [`cluster`] has names of pods.
//!
//! [`Host`] reads /proc and the cgroup tree, off the capture path and bounded: the cgroup and the processes that are asked
//! for, and everything only where nothing less will do. Capture files hold no host, so in replay nobody asks.
//!
//! Not seen: processes that came and went between two looks.

pub mod cgroup;
pub mod cluster;
pub mod geo;
pub mod lists;
pub mod process;
pub mod tree;
pub mod watch;

#[cfg(test)]
pub(crate) mod mmdb;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::Origin;

use process::Process;
use tree::Tree;

/// How long what is known of processes is true: a service that starts in a cgroup that is known is named after this long
/// at the latest. A look at every process takes about 10 ms on a host of 200.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Most cgroups of which processes are known; beyond it, all are looked at anew.
const MAX_LOOKED: usize = 4096;

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
    /// Whether its cgroup is no more.
    pub gone: bool,
}

/// What is known of this host.
#[derive(Debug)]
pub struct Host {
    procfs: PathBuf,
    cgroups: PathBuf,
    /// Cgroups by the inodes of their directories.
    pub tree: Tree,
    /// Who listens, by port.
    listeners: HashMap<u16, Vec<Listener>>,
    /// By process id.
    processes: HashMap<u32, Process>,
    /// When the processes of a cgroup were looked at.
    looked: HashMap<u64, Instant>,
    /// When all processes were.
    scanned: Option<Instant>,
}

/// A listening socket and its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    pid: u32,
}

impl Host {
    /// A host of which nothing is known yet. `procfs` is `/proc`, `cgroups` the root of the cgroup v2 tree.
    #[must_use]
    pub fn new(procfs: PathBuf, cgroups: PathBuf) -> Self {
        Self {
            procfs,
            tree: Tree::new(cgroups.clone()),
            cgroups,
            listeners: HashMap::new(),
            processes: HashMap::new(),
            looked: HashMap::new(),
            scanned: None,
        }
    }

    /// What runs behind a socket, after a look at what is not known or may have changed.
    pub fn find(&mut self, origin: &Origin, server: SocketAddr, now: Instant) -> Option<Workload> {
        let fresh = |looked: Option<&Instant>| looked.is_some_and(|at| now.duration_since(*at) < INTERVAL);
        if origin.cgroup != 0 {
            self.tree.look_for(&[origin.cgroup], now);
            if !fresh(self.looked.get(&origin.cgroup)) {
                self.look_at(origin.cgroup, now);
            }
        }
        let found = self.workload(origin, server);
        let is_whole = found.as_ref().is_some_and(|workload| workload.comm.is_some());
        // Who listens need not be in the cgroup that the socket was made in, and a process id may be all there is.
        if (is_whole && origin.cgroup != 0) || fresh(self.scanned.as_ref()) {
            return found;
        }
        self.scan(now);
        self.workload(origin, server)
    }

    /// Looks at the processes of one cgroup.
    fn look_at(&mut self, cgroup: u64, now: Instant) {
        if self.looked.len() >= MAX_LOOKED {
            self.looked.clear();
            self.forget(|_| true);
        }
        self.looked.insert(cgroup, now);
        let Some(dir) = self.tree.directory(cgroup) else { return };
        let members = process::members(&dir);
        if members.is_empty() {
            return;
        }
        self.forget(|process| process.cgroup == cgroup);
        let mut found = process::look(&self.procfs, &self.cgroups, members);
        // What /proc says of it is told from the sensor's own cgroup, where that has a namespace.
        found.processes.values_mut().for_each(|process| process.cgroup = cgroup);
        self.take(found);
    }

    /// Looks at every process.
    fn scan(&mut self, now: Instant) {
        self.forget(|_| true);
        self.take(process::scan(&self.procfs, &self.cgroups));
        self.looked.clear();
        self.scanned = Some(now);
    }

    fn take(&mut self, found: process::Found) {
        for (address, pid) in found.listeners {
            let here = self.listeners.entry(address.port()).or_default();
            let listener = Listener { address, pid };
            if !here.contains(&listener) {
                here.push(listener);
            }
        }
        self.processes.extend(found.processes);
    }

    fn forget(&mut self, which: impl Fn(&Process) -> bool) {
        self.processes.retain(|_, process| !which(process));
        let processes = &self.processes;
        self.listeners.retain(|_, here| {
            here.retain(|listener| processes.contains_key(&listener.pid));
            !here.is_empty()
        });
    }

    /// What is known to run behind a socket, without looking.
    #[must_use]
    pub fn workload(&self, origin: &Origin, server: SocketAddr) -> Option<Workload> {
        let pid = self.pid(origin, server);
        let process = pid.and_then(|pid| self.processes.get(&pid));
        let cgroup =
            if origin.cgroup == 0 { process.map_or(0, |process| process.cgroup) } else { origin.cgroup };
        let place = self.tree.known(cgroup);
        if process.is_none() && place.is_none() {
            return None;
        }
        let place = place.cloned().unwrap_or_default();
        let comm = process.map(|process| Arc::clone(&process.comm));
        let name = match (place.service(), &comm, &place.container_id, &place.pod_uid) {
            (Some(service), ..) => service.to_owned(),
            // What is before a slash would be taken for a namespace.
            (None, Some(comm), ..) => format!("{}:{}", comm.replace('/', "-"), server.port()),
            (None, None, Some(id), _) | (None, None, None, Some(id)) => {
                format!("{}:{}", id.get(..12).unwrap_or(id), server.port())
            }
            (None, None, None, None) => return None,
        };
        Some(Workload {
            name,
            unit: place.unit,
            container_id: place.container_id,
            pod_uid: place.pod_uid,
            pid,
            comm,
            gone: self.tree.is_gone(cgroup),
        })
    }

    /// Who listens there: the kernel's word if it gave one, else the listener of this port in this cgroup. The kernel
    /// counts processes of the whole machine: where `/proc` counts those of a namespace (a node that is a container
    /// itself), that number is somebody else's or nobody's.
    fn pid(&self, origin: &Origin, server: SocketAddr) -> Option<u32> {
        let meant = |process: &Process| origin.cgroup == 0 || [0, origin.cgroup].contains(&process.cgroup);
        match self.processes.get(&origin.pid) {
            Some(process) if meant(process) => Some(origin.pid),
            _ if origin.pid == 0 => self.listener(origin, server),
            found => {
                let here = self.listener(origin, server).filter(|_| origin.cgroup != 0);
                // One that is known and of another cgroup is not meant.
                here.or_else(|| found.is_none().then_some(origin.pid))
            }
        }
    }

    fn listener(&self, origin: &Origin, server: SocketAddr) -> Option<u32> {
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
    use super::cgroup::Place;
    use super::*;

    fn host() -> Host {
        let mut host = Host::new("/nowhere".into(), "/nowhere".into());
        let process = |comm: &str, cgroup| Process { comm: comm.into(), exe: None, cgroup };
        let listen = |address: &str, pid| Listener { address: address.parse().unwrap(), pid };
        let container = Place { container_id: Some("3f2a1b4c5d6e7f80".into()), ..Place::default() };
        host.tree.stage(10, Place { unit: Some("nginx.service".into()), ..Place::default() });
        host.tree.stage(20, container);
        Host {
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
            ..host
        }
    }

    fn origin(cgroup: u64, pid: u32) -> Origin {
        Origin { cgroup, netns: 0, pid }
    }

    fn name(origin: Origin, server: &str) -> Option<String> {
        host().workload(&origin, server.parse().unwrap()).map(|workload| workload.name)
    }

    #[test]
    fn a_process_id_of_another_namespace_names_nobody_else() {
        let who = |pid| host().workload(&origin(20, pid), "10.0.0.1:8080".parse().unwrap()).unwrap();
        // The kernel says 9000 of whom /proc calls 200.
        assert_eq!((who(9000).pid, who(9000).comm.as_deref()), (Some(200), Some("java")));
        // And 300, who is somebody else there.
        assert_eq!((who(300).pid, who(300).comm.as_deref()), (Some(200), Some("java")));
        let elsewhere = host().workload(&origin(10, 300), "10.0.0.1:443".parse().unwrap()).unwrap();
        assert_eq!((elsewhere.pid, elsewhere.comm), (None, None));
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

    #[allow(clippy::disallowed_methods, reason = "a test's first moment")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn finds_this_very_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut host = Host::new("/proc".into(), "/nowhere".into());
        let workload = host.find(&Origin::default(), listener.local_addr().unwrap(), now()).unwrap();
        assert_eq!(workload.pid, Some(std::process::id()));
        assert!(workload.name.ends_with(&format!(":{}", listener.local_addr().unwrap().port())));
    }

    /// A host with one service, in a directory.
    fn small_host(dir: &std::path::Path, pid: u32, comm: &str) -> u64 {
        use std::os::unix::fs::{MetadataExt as _, symlink};
        let cgroup = dir.join("cgroup/system.slice/web.service");
        let process = dir.join(format!("proc/{pid}"));
        std::fs::create_dir_all(&cgroup).unwrap();
        for dir in ["ns", "net", "fd"] {
            std::fs::create_dir_all(process.join(dir)).unwrap();
        }
        std::fs::write(cgroup.join("cgroup.procs"), format!("0\n{pid}\n")).unwrap();
        symlink("net:[1]", process.join("ns/net")).unwrap();
        symlink("socket:[7]", process.join("fd/3")).unwrap();
        std::fs::write(process.join("comm"), comm).unwrap();
        std::fs::write(process.join("cgroup"), "0::/system.slice/web.service\n").unwrap();
        let table = "  sl  local_address\n   0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 7 1\n";
        std::fs::write(process.join("net/tcp"), table).unwrap();
        std::fs::metadata(cgroup).unwrap().ino()
    }

    #[test]
    fn a_cgroup_is_asked_for_its_processes_and_not_the_whole_host() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = small_host(dir.path(), 42, "web");
        let mut host = Host::new(dir.path().join("proc"), dir.path().join("cgroup"));
        let (server, began) = ("10.0.0.1:80".parse().unwrap(), now());
        let mut find = |after: Duration| host.find(&origin(cgroup, 0), server, began + after);
        let found = find(Duration::ZERO).unwrap();
        assert_eq!((found.name.as_str(), found.pid), ("web", Some(42)));
        // The service was restarted, and the old process is gone.
        std::fs::remove_dir_all(dir.path().join("proc/42")).unwrap();
        small_host(dir.path(), 43, "web2");
        assert_eq!(find(INTERVAL / 2).unwrap().pid, Some(42), "known well enough");
        let found = find(INTERVAL).unwrap();
        assert_eq!((found.pid, found.comm.as_deref()), (Some(43), Some("web2")));
        assert_eq!(host.scanned, None);
    }

    #[test]
    fn where_processes_cannot_be_seen_the_host_is_not_searched_for_every_question() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = small_host(dir.path(), 42, "web");
        std::fs::remove_dir_all(dir.path().join("proc/42")).unwrap();
        let mut host = Host::new(dir.path().join("proc"), dir.path().join("cgroup"));
        let (server, began) = ("10.0.0.1:80".parse().unwrap(), now());
        for _ in 0..3 {
            let found = host.find(&origin(cgroup, 0), server, began).unwrap();
            assert_eq!((found.unit.as_deref(), found.pid), (Some("web.service"), None));
        }
        assert_eq!(host.scanned, Some(began));
        host.find(&origin(cgroup, 0), server, began + INTERVAL / 2);
        assert_eq!(host.scanned, Some(began));
    }
}
