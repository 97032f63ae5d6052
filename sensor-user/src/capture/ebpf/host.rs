//! What the host offers: where cgroup v2 is, which kernel runs, what this process may do.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount};
use crate::capture::SourceError;

/// `CAP_SYS_ADMIN`, which covers those that 5.8 split off from it; a bit of linux/capability.h, as those below.
const SYS_ADMIN: u32 = 21;
/// `CAP_SYS_RESOURCE`.
pub(super) const SYS_RESOURCE: u32 = 24;

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    /// Its name.
    pub(super) name: &'static str,
    /// Its bit.
    pub(super) bit: u32,
    /// Whether `CAP_SYS_ADMIN` covers it.
    split_off: bool,
}

impl Capability {
    const fn new(name: &'static str, bit: u32) -> Self {
        Self { name, bit, split_off: bit > 37 }
    }

    /// Whether the set has it.
    pub(super) const fn is_held(self, held: u64) -> bool {
        holds(held, self.bit) || (self.split_off && holds(held, SYS_ADMIN))
    }
}

/// What loading and attaching takes on every kernel (docs/kernels.md).
pub(super) const NEEDED: [Capability; 3] = [
    Capability::new("CAP_BPF", 39),
    Capability::new("CAP_PERFMON", 38),
    Capability::new("CAP_NET_ADMIN", 12),
];

/// What reading the descriptors of other users' processes takes.
pub(super) const NAMES: [Capability; 2] =
    [Capability::new("CAP_SYS_PTRACE", 19), Capability::new("CAP_DAC_READ_SEARCH", 2)];

/// The cgroup to attach to: the one asked for, or the root of cgroup v2.
///
/// # Errors
/// When there is no cgroup v2, or `asked` is none.
pub(super) fn cgroup(asked: Option<&Path>) -> Result<PathBuf, SourceError> {
    let Some(asked) = asked else { return root() };
    let inside = File::open(asked).is_ok_and(|dir| is_cgroup2(&dir));
    if inside {
        return Ok(asked.to_path_buf());
    }
    Err(SourceError::Kernel {
        step: format!("open cgroup {}", asked.display()),
        problem: "it is no directory of a cgroup v2 file system".to_owned(),
        remedy: "set capture.cgroup to `auto`".to_owned(),
    })
}

/// The root of cgroup v2, wherever it is mounted: of several mounts, the one that shows most of the host.
pub(super) fn root() -> Result<PathBuf, SourceError> {
    let text = mount_table()?;
    let seen = mounts::highest_first(&text);
    let usable = seen.iter().find(|mount| File::open(&mount.at).is_ok_and(|dir| is_cgroup2(&dir)));
    let found = usable.or(seen.first()).map(|mount| mount.at.clone());
    found.ok_or_else(|| {
        let (problem, remedy) = without_cgroup2(&text);
        SourceError::Kernel {
            step: "find cgroup v2".to_owned(),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        }
    })
}

/// What is wrong with a host that mounts no cgroup v2, and what to do. Version 2 may be mounted beside version 1: it needs
/// no controller to attach programs to.
fn without_cgroup2(mounts: &str) -> (&'static str, &'static str) {
    if mounts.lines().any(|line| line.contains(" - cgroup ")) {
        return (
            "this host mounts cgroup v1 alone, and /proc/self/mountinfo has no file system of type cgroup2",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup v2 beside it: mkdir -p /run/cgroup2 && \
             mount -t cgroup2 none /run/cgroup2",
        );
    }
    (
        "/proc/self/mountinfo has no file system of type cgroup2",
        "mount one: mount -t cgroup2 none /sys/fs/cgroup; in a container, mount the host's /sys/fs/cgroup",
    )
}

fn mount_table() -> Result<String, SourceError> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|cause| SourceError::Io { what: "read /proc/self/mountinfo".to_owned(), cause })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether the tree at `root` is no more than what the sensor's own container is given: then it would watch itself.
///
/// It begins where this process's namespace begins, and that is not the root of all: only the true root has no
/// `cgroup.type` (Documentation/admin-guide/cgroup-v2.rst). A process that is further down is in the namespace of somebody
/// above it: of a node that is itself a container, whose pods have none of their own.
pub(super) fn is_own_part(root: &Path) -> bool {
    let here = |mount: &Mount| mount.at == root && (mount.height < 0 || mount.height == 0 && is_at_the_top());
    root.join("cgroup.type").exists()
        && mount_table().is_ok_and(|text| mounts::highest_first(&text).iter().any(here))
}

/// Whether this process is where its cgroup namespace begins; as far as is known (`cgroups(7)`).
fn is_at_the_top() -> bool {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).is_none_or(|path| path == "/")
}

/// What to do then.
pub(super) const OWN_PART: &str = "mount the host's /sys/fs/cgroup into the container, read-only, for example at \
                                   /host/sys/fs/cgroup";

fn is_cgroup2(dir: impl AsFd) -> bool {
    /// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
    const MAGIC: i64 = 0x6367_7270;
    rustix::fs::fstatfs(dir).is_ok_and(|stat| stat.f_type == MAGIC)
}

/// The effective capabilities of this process, as a bit set.
pub(super) fn capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether the set `held` has capability `bit`.
pub(super) const fn holds(held: u64, bit: u32) -> bool {
    held >> bit & 1 == 1
}

/// The running kernel's release, as `uname -r` prints it.
pub(super) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Major and minor version out of a release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_version_one_alone_is_told_so() {
        assert!(
            without_cgroup2("33 24 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
                .0
                .contains("cgroup v1")
        );
        assert!(!without_cgroup2("24 1 0:22 / /proc rw - proc proc rw\n").0.contains("cgroup v1"));
    }

    #[test]
    fn one_capability_covers_those_that_were_split_off_from_it() {
        let held = 1 << SYS_ADMIN;
        let covered: Vec<&str> =
            NEEDED.iter().chain(&NAMES).filter(|one| one.is_held(held)).map(|one| one.name).collect();
        assert_eq!(covered, ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn reads_releases_of_distributions() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!(version("linux"), None);
    }
}
