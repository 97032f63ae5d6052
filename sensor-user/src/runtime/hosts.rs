//! Which workload answered: one look-up for all who ask, so that capture and the pipeline know nothing of the host.
//!
//! The host is looked at when somebody asks, and no more of it than the answer needs ([`Host::find`]): an idle sensor looks
//! at nothing, and a service that has just started has a name in its first alert. Names of pods come from what the
//! cluster has told already; nobody waits for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::alert::{Identity, Place, Process};
use crate::capture::Origin;
use crate::detect::Scene;
use crate::enrich::cluster::{Answer, Cluster};
use crate::enrich::watch::{Subject, Wishes};
use crate::enrich::{Host, Workload, cgroup};

/// What is known of the host and of the cluster, shared.
#[derive(Clone)]
pub(super) struct Hosts {
    host: Arc<Mutex<Host>>,
    pub(super) cluster: Arc<Cluster>,
}

/// What a look at the host has cost.
pub(super) struct Costs {
    pub(super) walks: [u64; 2],
    pub(super) cgroups: (usize, usize),
    pub(super) refused: u64,
}

impl Hosts {
    /// Nothing is known yet. `cgroups` is the root of the cgroup v2 tree.
    pub(super) fn new(cgroups: PathBuf) -> Self {
        Self::of(Path::new("/proc"), cgroups)
    }

    /// The same with another `/proc`.
    pub(super) fn of(procfs: &Path, cgroups: PathBuf) -> Self {
        let host = Host::new(procfs.to_owned(), cgroups);
        Self { host: Arc::new(Mutex::new(host)), cluster: Arc::default() }
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workload behind the server of a scene.
    pub(super) fn place(&self, scene: &Scene) -> Place {
        self.place_of(&scene.origin, scene.endpoints.server)
    }

    /// The workload behind a server.
    pub(super) fn place_of(&self, origin: &Origin, server: SocketAddr) -> Place {
        let now = Instant::now();
        let found = self.host().find(origin, server, now);
        found.map_or_else(Place::default, |workload| self.named(workload, now))
    }

    fn named(&self, workload: Workload, now: Instant) -> Place {
        let (uid, container) = (workload.pod_uid.as_deref(), workload.container_id.as_deref());
        let answer = self.cluster.find(uid, container, now);
        let identity = match &answer {
            Answer::Pod { gone: true, .. } => Identity::Gone,
            Answer::Pod { .. } => Identity::Known,
            // Its cgroup is no more, and the cluster does not know it.
            Answer::Pending if workload.gone => Identity::Gone,
            Answer::Pending => Identity::Pending,
            Answer::Unknown if uid.is_some() => Identity::Unknown,
            Answer::Unknown if container.is_some() => Identity::Known,
            Answer::Unknown => Identity::Host,
        };
        let process =
            workload.pid.zip(workload.comm).map(|(pid, name)| Process { pid, name: name.to_string() });
        let mut place = Place {
            name: workload.name,
            container_id: workload.container_id.map(|id| id.to_string()),
            pod_uid: workload.pod_uid.map(|id| id.to_string()),
            process,
            identity,
            ..Place::default()
        };
        if let Answer::Pod { pod, container, .. } = answer {
            place.name = pod.full_name();
            place.pod_uid.get_or_insert_with(|| pod.uid.to_string());
            (place.pod, place.container) = (Some(pod), container);
        }
        place
    }

    /// Looks for these cgroups, so that they are known when they are asked for.
    pub(super) fn look_for(&self, cgroups: &[u64], now: Instant) {
        let mut host = self.host();
        host.tree.look_for(cgroups, now);
        host.tree.tend(now);
    }

    /// The cgroups that are there and are to be left out, as far as that is known, met or not; none if the tree was
    /// walked just now and cannot be walked again. The tree is not walked if nobody is to be left out.
    pub(super) fn left_out(&self, wishes: &Wishes, now: Instant) -> Option<Vec<u64>> {
        let is_unwanted = |answer: &Answer| !wishes.want(Subject::Pod(answer));
        if !wishes.is_about_units() && !self.cluster.has_pod(is_unwanted) {
            return Some(Vec::new());
        }
        let mut host = self.host();
        if !host.tree.refresh(now) {
            return None;
        }
        let is_left_out = |place: &cgroup::Place| {
            let (uid, container) = (place.pod_uid.as_deref(), place.container_id.as_deref());
            match (uid, container, place.unit.as_deref()) {
                (None, None, Some(unit)) => !wishes.want(Subject::Unit(unit)),
                (None, None, None) => false,
                _ => self.cluster.known(uid, container).as_ref().is_some_and(is_unwanted),
            }
        };
        Some(host.tree.live().filter(|(_, place)| is_left_out(place)).map(|(id, _)| id).collect())
    }

    /// Whether a cgroup was seen to go.
    pub(super) fn is_gone(&self, cgroup: u64) -> bool {
        self.host().tree.is_gone(cgroup)
    }

    /// Whether the servers of a cgroup are to be watched.
    pub(super) fn is_wanted(&self, cgroup: u64, wishes: &Wishes, now: Instant) -> bool {
        let place = self.host().tree.known(cgroup).cloned().unwrap_or_default();
        let (uid, container) = (place.pod_uid.as_deref(), place.container_id.as_deref());
        if uid.is_some() || container.is_some() {
            return wishes.want(Subject::Pod(&self.cluster.find(uid, container, now)));
        }
        wishes.want(place.unit.as_deref().map_or(Subject::Other, Subject::Unit))
    }

    /// Whether a cgroup is known.
    pub(super) fn knows(&self, cgroup: u64) -> bool {
        self.host().tree.known(cgroup).is_some()
    }

    /// What looking has cost, and what is kept.
    pub(super) fn costs(&self) -> Costs {
        let host = self.host();
        Costs { walks: host.tree.walks, cgroups: host.tree.len(), refused: host.tree.refused }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::time::Duration;

    use super::*;
    use crate::alert::place::{Container, Pod};
    use crate::enrich::cluster::Described;

    const UID: &str = "0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42";
    const ID: &str = "3f2a1b4c5d6e7f80913f2a1b4c5d6e7f80913f2a1b4c5d6e7f80913f2a1b4c5d";

    struct Bench {
        dir: tempfile::TempDir,
        hosts: Hosts,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let hosts = Hosts::of(Path::new("/nowhere"), dir.path().to_owned());
            Self { dir, hosts }
        }

        fn cgroup(&self, path: &str) -> u64 {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::metadata(path).unwrap().ino()
        }

        fn pod(&self) -> u64 {
            self.cgroup(&format!("kubepods/burstable/pod{UID}/{ID}"))
        }

        fn place(&self, cgroup: u64) -> Place {
            self.hosts.place_of(&Origin { cgroup, ..Origin::default() }, "10.0.0.1:8080".parse().unwrap())
        }

        fn tell(&self, watched: bool) {
            let pod = Pod {
                uid: UID.into(),
                namespace: "shop".into(),
                name: "orders-7f9c".into(),
                ..Pod::default()
            };
            let container = Container { name: "main".into(), image: None, image_id: None };
            let containers = vec![(ID.into(), container)];
            self.hosts.cluster.apply(Described { pod: Arc::new(pod), containers, mirror_of: None, watched });
        }
    }

    #[test]
    fn a_pod_has_its_ids_at_once_and_its_name_when_it_comes() {
        let bench = Bench::new();
        let pod = bench.pod();
        bench.hosts.cluster.begin();
        let place = bench.place(pod);
        assert_eq!((place.identity, place.name.as_str()), (Identity::Pending, "3f2a1b4c5d6e:8080"));
        assert_eq!((place.pod_uid.as_deref(), place.container_id.as_deref()), (Some(UID), Some(ID)));
        bench.tell(true);
        let place = bench.place(pod);
        assert_eq!((place.identity, place.name.as_str()), (Identity::Known, "shop/orders-7f9c"));
        assert_eq!(place.container.map(|container| container.name), Some("main".into()));
    }

    #[test]
    fn a_deleted_pod_keeps_its_name_for_a_while() {
        let bench = Bench::new();
        let pod = bench.pod();
        bench.tell(true);
        bench.place(pod);
        bench.hosts.cluster.delete(UID, Instant::now());
        std::fs::remove_dir_all(bench.dir.path().join("kubepods")).unwrap();
        let place = bench.place(pod);
        assert_eq!((place.identity, place.name.as_str()), (Identity::Gone, "shop/orders-7f9c"));
    }

    #[test]
    fn what_no_cluster_knows_is_told_for_what_it_is() {
        let bench = Bench::new();
        let (pod, container) = (bench.pod(), bench.cgroup(&format!("docker/{ID}")));
        let unit = bench.cgroup("system.slice/nginx.service");
        assert_eq!(bench.place(pod).identity, Identity::Unknown, "nobody asks the cluster");
        let place = bench.place(container);
        assert_eq!((place.identity, place.pod_uid), (Identity::Known, None));
        let place = bench.place(unit);
        assert_eq!((place.identity, place.name.as_str()), (Identity::Host, "nginx"));
        let nobody = bench.place(u64::MAX);
        assert_eq!((nobody.identity, nobody.name.as_str()), (Identity::Unknown, ""));
    }

    #[test]
    fn wishes_are_asked_with_what_is_known() {
        let bench = Bench::new();
        let (pod, unit) = (bench.pod(), bench.cgroup("system.slice/nginx.service"));
        let now = Instant::now();
        bench.hosts.look_for(&[pod, unit], now);
        let wishes = Wishes { not_units: vec!["nginx.service".into()], ..Wishes::default() };
        let wanted = |cgroup| bench.hosts.is_wanted(cgroup, &wishes, now);
        assert!(wanted(pod) && !wanted(unit) && wanted(u64::MAX));
        bench.tell(false);
        assert!(!wanted(pod));
        assert!(bench.hosts.knows(pod) && !bench.hosts.knows(u64::MAX));
    }

    #[test]
    fn who_is_left_out_is_known_before_anybody_asks() {
        let bench = Bench::new();
        let (pod, unit) = (bench.pod(), bench.cgroup("system.slice/nginx.service"));
        let inner = bench.cgroup(&format!("kubepods/burstable/pod{UID}"));
        let (now, all) = (Instant::now(), Wishes::default());
        let left_out = |wishes: &Wishes, after: u64| {
            let found = bench.hosts.left_out(wishes, now + Duration::from_secs(after));
            found.map(std::collections::BTreeSet::from_iter)
        };
        bench.tell(true);
        assert_eq!((left_out(&all, 0), bench.hosts.costs().walks), (Some([].into()), [0, 0]), "nobody is");
        bench.tell(false);
        assert_eq!(left_out(&all, 1), Some([pod, inner].into()));
        assert_eq!(left_out(&all, 1), None, "not twice at once");
        let wishes = Wishes { not_units: vec!["nginx.service".into()], opt_out: false, ..Wishes::default() };
        assert_eq!(left_out(&wishes, 2), Some([unit].into()));
        bench.hosts.cluster.delete(UID, now);
        assert_eq!(left_out(&all, 3), Some([].into()), "no pod that is there");
    }
}
