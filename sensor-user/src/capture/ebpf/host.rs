//! What the host offers: where cgroup v2 is, which kernel runs, what this process may do.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

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

/// The root of cgroup v2, wherever it is mounted.
pub(super) fn root() -> Result<PathBuf, SourceError> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")
        .map_err(|cause| SourceError::Io { what: "read /proc/self/mounts".to_owned(), cause })?;
    mount_point(&mounts).ok_or_else(|| SourceError::Kernel {
        step: "find cgroup v2".to_owned(),
        problem: "/proc/self/mounts has no file system of type cgroup2".to_owned(),
        remedy: "mount one: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
    })
}

/// The first cgroup2 mount in the text of /proc/self/mounts.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let at = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(unescaped(at)))
    })
}

/// Undoes the octal escapes that the kernel puts in place of blanks and backslashes (`proc_pid_mounts(5)`).
fn unescaped(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

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
    fn finds_cgroup2_beside_version_one() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("none /odd\\040place cgroup2 rw 0 0"), Some(PathBuf::from("/odd place")));
        assert_eq!(mount_point("tmpfs /run tmpfs rw 0 0\n\n"), None);
    }

    #[test]
    fn reads_releases_of_distributions() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!(version("linux"), None);
    }
}
