//! What the host offers: where cgroup v2 is, which kernel runs, what this process may do.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount};
use crate::capture::SourceError;

/// `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF`: bits of linux/capability.h.
pub(super) const NET_ADMIN: u32 = 12;
/// Covers the two below on every kernel.
pub(super) const SYS_ADMIN: u32 = 21;
/// Since 5.8.
pub(super) const PERFMON: u32 = 38;
/// Since 5.8.
pub(super) const BPF: u32 = 39;

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
    let seen = mounts()?;
    let usable = seen.iter().find(|mount| File::open(&mount.at).is_ok_and(|dir| is_cgroup2(&dir)));
    let found = usable.or(seen.first()).map(|mount| mount.at.clone());
    found.ok_or_else(|| SourceError::Kernel {
        step: "find cgroup v2".to_owned(),
        problem: "/proc/self/mountinfo has no file system of type cgroup2".to_owned(),
        remedy: "mount one: mount -t cgroup2 none /sys/fs/cgroup; in a container, mount that of the host".to_owned(),
    })
}

fn mounts() -> Result<Vec<Mount>, SourceError> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|cause| SourceError::Io { what: "read /proc/self/mountinfo".to_owned(), cause })?;
    Ok(mounts::highest_first(&String::from_utf8_lossy(&text)))
}

/// Whether the tree at `root` is no more than what the sensor's own container is given: then it would watch itself.
///
/// It begins where this process's namespace begins, and that is not the root of all: only the true root has no
/// `cgroup.type` (Documentation/admin-guide/cgroup-v2.rst).
pub(super) fn is_own_part(root: &Path) -> bool {
    let here = |mount: &Mount| mount.at == root && mount.height <= 0;
    root.join("cgroup.type").exists() && mounts().is_ok_and(|mounts| mounts.iter().any(here))
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
    fn reads_releases_of_distributions() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!(version("linux"), None);
    }
}
