//! From a cgroup's path to a unit, a container and a pod. [`tree`](super::tree) finds the path of an id.
//!
//! Paths are named by systemd (systemd.slice(5)), the kubelet's cgroup drivers, containerd, CRI-O, Docker and Podman.
//! Their forms are held by the golden list below.

use std::sync::Arc;

/// What a path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The systemd unit.
    pub unit: Option<Arc<str>>,
    /// The container's id.
    pub container_id: Option<Arc<str>>,
    /// The pod's UID, with hyphens.
    pub pod_uid: Option<Arc<str>>,
}

impl Place {
    /// The unit's name without its type, if it is a service outside a container: a scope names a session or a
    /// container and says nothing to people.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        if self.container_id.is_some() {
            return None;
        }
        self.unit.as_deref()?.strip_suffix(".service")
    }
}

/// What a path says: the innermost unit, the innermost container, the innermost pod.
#[must_use]
pub fn place(path: &str) -> Place {
    let mut place = Place::default();
    let mut above = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        // containerd under a mistaken driver: `SLICE:cri-containerd:ID`.
        for piece in part.split(':') {
            read(&mut place, above, piece);
        }
        above = part;
    }
    place
}

fn read(place: &mut Place, above: &str, part: &str) {
    if let Some(uid) = pod_uid(part) {
        place.pod_uid = Some(uid.into());
        place.container_id = None;
        place.unit = None;
    } else if let Some(id) = container_id(above, part) {
        place.container_id = Some(id.into());
        // Units outside say where the runtime put it; units inside are its own.
        place.unit = None;
    } else if let Some(unit) = unit(part) {
        place.unit = Some(unescape(unit).into());
    }
}

/// `nginx.service`, `session-3.scope`; slices hold units and are none.
fn unit(part: &str) -> Option<&str> {
    let named = |suffix| part.strip_suffix(suffix).is_some_and(|name: &str| !name.is_empty());
    [".service", ".scope", ".socket"].into_iter().any(named).then_some(part)
}

/// systemd writes unusual bytes of a unit's name as `\xNN` (systemd.unit(5)). What is not text stays as it is.
fn unescape(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.push_str(before);
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte.filter(u8::is_ascii_graphic) {
            out.push(char::from(byte));
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push_str("\\x");
            rest = after;
        }
    }
    out.push_str(rest);
    crate::telemetry::printable(&out)
}

/// `kubepods-burstable-pod1234_....slice` (systemd driver) or `pod1234-...` (cgroupfs driver).
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.rsplit_once("-pod") {
        Some((before, uid)) if before.contains("kubepods") => uid,
        _ => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // A UID, or for static pods the hash of their file: 32 hexadecimal digits.
    let digits = uid.bytes().filter(|b| *b != b'-').count();
    let only_hex = uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    (digits == 32 && only_hex).then_some(uid)
}

/// Prefixes that runtimes put before the id in a scope's name.
const RUNTIMES: [&str; 6] = ["cri-containerd-", "crio-", "docker-", "libpod-payload-", "libpod-", "nerdctl-"];
/// Directories below which runtimes without systemd put a container by its bare id.
const PARENTS: [&str; 6] = ["docker", "buildkit", "libpod_parent", "containerd", "ecs", "cri-containerd"];

fn container_id<'a>(above: &str, part: &'a str) -> Option<&'a str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some(name).filter(|name| !name.is_empty());
    }
    let id = RUNTIMES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    // `crio-conmon-ID` and `libpod-conmon-ID` hold the container's monitor and not the container.
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let by_runtime = id.len() < name.len() || PARENTS.contains(&above) || pod_uid(above).is_some();
    let bare = id.len() == name.len() && name.len() == part.len();
    (is_id && (by_runtime || bare)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "3f2a1b4c5d6e7f80913f2a1b4c5d6e7f80913f2a1b4c5d6e7f80913f2a1b4c5d";
    /// The container that is a node.
    const OUTER: &str = "c0ffee0d5e6f7a8b9c0dc0ffee0d5e6f7a8b9c0dc0ffee0d5e6f7a8b9c0dc0ff";
    /// A static pod is named by the hash of its file.
    const STATIC: &str = "0123456789abcdef0123456789abcdef";
    const UID: &str = "0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42";

    /// Unit, container, pod of a path in which `ID`, `UID` and `U_D` (the UID with underscores) are filled in.
    fn read(path: &str) -> (Option<String>, bool, bool) {
        let path = path.replace("U_D", &UID.replace('-', "_")).replace("UID", UID).replace("OUT", OUTER);
        let place = place(&path.replace("ID", ID));
        assert!(
            place.container_id.as_deref().is_none_or(|id| id == ID || place.pod_uid.is_none()),
            "{place:?}"
        );
        assert!(place.pod_uid.as_deref().is_none_or(|uid| uid == UID || uid == STATIC), "{place:?}");
        (place.unit.as_deref().map(str::to_owned), place.container_id.is_some(), place.pod_uid.is_some())
    }

    #[test]
    fn reads_the_paths_of_every_runtime() {
        let cases = [
            // systemd
            ("/", None, false, false),
            ("/init.scope", Some("init.scope"), false, false),
            ("/system.slice/nginx.service", Some("nginx.service"), false, false),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service"), false, false),
            ("/system.slice/my\\x2dapp.service", Some("my-app.service"), false, false),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"), false, false),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service",
                Some("app-x.service"),
                false,
                false,
            ),
            ("/system.slice/php-fpm.service/pool-a", Some("php-fpm.service"), false, false),
            // Docker
            ("/system.slice/docker-ID.scope", None, true, false),
            ("/docker/ID", None, true, false),
            ("/docker/ID/system.slice/nginx.service", Some("nginx.service"), true, false),
            ("/system.slice/docker.service", Some("docker.service"), false, false),
            // Podman
            ("/machine.slice/libpod-ID.scope", None, true, false),
            ("/machine.slice/libpod-ID.scope/container", None, true, false),
            (
                "/machine.slice/libpod-conmon-ID.scope",
                Some(&*format!("libpod-conmon-{ID}.scope")),
                false,
                false,
            ),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", None, true, false),
            ("/libpod_parent/libpod-ID", None, true, false),
            // Kubernetes, systemd driver
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_D.slice/cri-containerd-ID.scope",
                None,
                true,
                true,
            ),
            ("/kubepods.slice/kubepods-podU_D.slice/crio-ID.scope", None, true, true),
            ("/kubepods.slice/kubepods-podU_D.slice/crio-ID.scope/container", None, true, true),
            ("/kubepods.slice/kubepods-podU_D.slice/docker-ID.scope", None, true, true),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podU_D.slice/cri-containerd-ID.scope",
                None,
                true,
                true,
            ),
            (
                "/system.slice/docker-ID.scope/kubepods.slice/kubepods-podU_D.slice/cri-containerd-ID.scope",
                None,
                true,
                true,
            ),
            (
                "/system.slice/containerd.service/kubepods-besteffort-podU_D.slice:cri-containerd:ID",
                None,
                true,
                true,
            ),
            ("/kubepods.slice/kubepods-podU_D.slice", None, false, true),
            // Kubernetes, cgroupfs driver
            ("/kubepods/besteffort/podUID/ID", None, true, true),
            ("/kubepods/podUID/ID", None, true, true),
            ("/kubepods/burstable/podUID/crio-ID", None, true, true),
            // Kubernetes, cgroupfs driver: guaranteed, CRI-O, and Docker's own prefix
            ("/kubepods/podUID/crio-ID", None, true, true),
            ("/kubepods/pod0123456789abcdef0123456789abcdef/ID", None, true, true),
            // kind: a node is a container, and its kubelet has a root of its own
            (
                "/docker/OUT/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podU_D.slice/cri-containerd-ID.scope",
                None,
                true,
                true,
            ),
            (
                "/system.slice/docker-OUT.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_D.slice/cri-containerd-ID.scope",
                None,
                true,
                true,
            ),
            ("/docker/OUT/kubelet/kubepods/besteffort/podUID/ID", None, true, true),
            ("/docker/OUT/system.slice/kubelet.service", Some("kubelet.service"), true, false),
            (
                "/machine.slice/libpod-OUT.scope/container/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_D.slice/cri-containerd-ID.scope",
                None,
                true,
                true,
            ),
            // k3s: the agent holds containerd, and pods are at the root
            ("/system.slice/k3s.service", Some("k3s.service"), false, false),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_D.slice/cri-containerd-ID.scope/init.scope",
                Some("init.scope"),
                true,
                true,
            ),
            // k3d: k3s in a container, cgroupfs
            ("/docker/OUT/kubepods/burstable/podUID/ID", None, true, true),
            // Talos: no systemd; services of its own beside the pods
            ("/kubepods/burstable/podUID/ID", None, true, true),
            ("/podruntime/kubelet", None, false, false),
            ("/podruntime/runtime", None, false, false),
            ("/system/apid", None, false, false),
            // nerdctl and containerd without Kubernetes
            ("/system.slice/nerdctl-ID.scope", None, true, false),
            ("/default/ID", None, true, false),
            // Podman: a pod's slice, a Quadlet, without systemd
            ("/machine.slice/machine-libpod_pod_OUT.slice/libpod-ID.scope/container", None, true, false),
            ("/system.slice/web.service/libpod-payload-ID", None, true, false),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-ID",
                None,
                true,
                false,
            ),
            ("/libpod_parent/libpod-ID/init.scope", Some("init.scope"), true, false),
            // CRI-O's monitor is not the container
            (
                "/kubepods.slice/kubepods-podU_D.slice/crio-conmon-ID.scope",
                Some(&*format!("crio-conmon-{ID}.scope")),
                false,
                true,
            ),
            // others
            ("/ecs/task/ID", None, true, false),
        ];
        for (path, unit, container, pod) in cases {
            assert_eq!(read(path), (unit.map(str::to_owned), container, pod), "{path}");
        }
        // LXC names containers by words.
        let lxc = place("/lxc.payload.web/system.slice/nginx.service");
        assert_eq!((lxc.unit.as_deref(), lxc.container_id.as_deref()), (Some("nginx.service"), Some("web")));
    }

    #[test]
    fn services_have_names_and_containers_have_none() {
        assert_eq!(place("/system.slice/nginx.service").service(), Some("nginx"));
        assert_eq!(place("/user.slice/session-3.scope").service(), None);
        assert_eq!(place(&format!("/docker/{ID}/system.slice/nginx.service")).service(), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in "(/?(pod|kubepods|-pod|\\.scope|\\.slice|\\\\x|:|[a-f0-9]{32}|[a-f0-9_]{64}|\\PC{1,3})){0,8}") {
            let _ = place(&path);
        }
    }
}
