//! Why the kernel refused, as far as this process can tell: the remedy that goes with the error.
//!
//! The kernel gives a number, and most often the same one, EPERM, for a capability that is missing, a limit that is
//! reached, a profile that forbids, and a program of somebody else's in the way. What this process may do and where it
//! runs tells them apart. Which capability is needed for what is measured by `cargo xtask vm` (docs/kernels.md).

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::host;

/// The first kernel that counts the memory of maps against the memory of the cgroup, and no longer against
/// `RLIMIT_MEMLOCK`.
pub(super) const COUNTS_BY_CGROUP: (u32, u32) = (5, 11);

/// What was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// To make or use maps.
    Map,
    /// To load a program.
    Load,
    /// To attach it there.
    Attach(PathBuf),
}

/// What this process may do, and what watches over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Effective capabilities.
    pub(super) held: u64,
    /// The kernel's version.
    pub(super) version: Option<(u32, u32)>,
    /// Bytes that it may lock; `None` is without limit.
    pub(super) memlock: Option<u64>,
    /// A seccomp filter is in force.
    pub(super) filtered: bool,
    /// The profile of a security module, if one confines it.
    pub(super) profile: Option<String>,
}

impl Standing {
    /// As things are.
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let profile = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        Self {
            held: host::capabilities().unwrap_or(0),
            version: host::version(&host::release()),
            memlock: getrlimit(Resource::Memlock).current,
            // 2 is SECCOMP_MODE_FILTER (proc_pid_status(5)).
            filtered: status
                .lines()
                .any(|line| line.strip_prefix("Seccomp:").is_some_and(|n| n.trim() == "2")),
            profile: confining(&profile),
        }
    }

    /// The capabilities without which nothing is captured, that are not held.
    pub(super) fn lacks(&self) -> Vec<&'static str> {
        host::NEEDED
            .into_iter()
            .filter(|needed| !needed.is_held(self.held))
            .map(|needed| needed.name)
            .collect()
    }

    /// Whether maps of the usual size are beyond what it may lock, and it cannot raise that.
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.version.is_some_and(|version| version < COUNTS_BY_CGROUP)
            && self.memlock.is_some()
            && !host::holds(self.held, host::SYS_RESOURCE)
    }
}

/// The profile in /proc/self/attr/current, if it denies anything: `cri-containerd.apparmor.d (enforce)`.
fn confining(text: &str) -> Option<String> {
    let text = text.trim_end_matches(['\0', '\n']);
    text.strip_suffix(" (enforce)").map(crate::telemetry::printable)
}

/// What to do about a refusal.
pub(super) fn remedy(act: &Act, errno: Option<Errno>, standing: &Standing) -> String {
    let lacks = standing.lacks();
    // Without CAP_PERFMON a verifier may as well find programs too complex: the number says nothing then.
    if !lacks.is_empty() && errno != Some(Errno::NOSYS) {
        let more =
            if standing.is_short_of_memory() { format!("; {}", memory(standing)) } else { String::new() };
        return format!(
            "grant {} (systemd: CapabilityBoundingSet; Kubernetes: securityContext.capabilities.add), or run as \
             root{more}",
            lacks.join(" and ")
        );
    }
    if *act == Act::Map && errno == Some(Errno::PERM) && standing.is_short_of_memory() {
        return memory(standing);
    }
    match (errno, act) {
        // A filter that lets programs be loaded lets them be attached: it is the same system call.
        (Some(Errno::PERM), Act::Attach(cgroup)) => {
            [Some(held(cgroup)), denying(standing)].into_iter().flatten().collect::<Vec<_>>().join("; or ")
        }
        (Some(Errno::NOSYS), _) => "this kernel is built without CONFIG_BPF_SYSCALL: run another".to_owned(),
        (Some(Errno::PERM | Errno::ACCESS), _) if standing.filtered || standing.profile.is_some() => {
            watched(standing)
        }
        (Some(Errno::INVAL), Act::Attach(_)) => {
            "this kernel is built without CONFIG_CGROUP_BPF, or is older than 5.7: run another".to_owned()
        }
        _ => "`tokenscope doctor` tells what this kernel offers; 5.10 or later is needed".to_owned(),
    }
}

/// What to do about the limit of locked memory.
pub(super) fn memory(standing: &Standing) -> String {
    let limit = standing.memlock.unwrap_or(0) / 1024;
    format!(
        "before Linux 5.11 maps count against RLIMIT_MEMLOCK, here {limit} KiB: grant CAP_SYS_RESOURCE, or raise the \
         limit (systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1)"
    )
}

fn watched(standing: &Standing) -> String {
    let seccomp = standing.filtered.then_some("the seccomp profile must allow bpf(2)".to_owned());
    [seccomp, denying(standing)].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What to do about a security module, if one confines this process.
fn denying(standing: &Standing) -> Option<String> {
    let name = standing.profile.as_ref()?;
    Some(format!("the security profile `{name}` may deny it (`dmesg | grep DENIED`): use one that does not"))
}

fn held(cgroup: &Path) -> String {
    format!(
        "a program of somebody else's holds this cgroup, or one above it, for itself: `bpftool cgroup show {}` names \
         it; its owner must attach it with `multi`, as systemd does",
        cgroup.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> u64 {
        host::NEEDED.iter().fold(0, |held, needed| held | 1 << needed.bit)
    }

    fn standing() -> Standing {
        Standing { held: all(), version: Some((6, 1)), memlock: Some(8 << 20), ..Standing::default() }
    }

    #[test]
    fn a_capability_that_is_missing_is_named() {
        for needed in host::NEEDED {
            let poor = Standing { held: all() & !(1 << needed.bit), ..standing() };
            for errno in [Some(Errno::PERM), Some(Errno::FAULT), None] {
                let told = remedy(&Act::Load, errno, &poor);
                assert!(told.contains(needed.name) && !told.contains(" and "), "{told}");
            }
        }
        let told = remedy(&Act::Map, Some(Errno::PERM), &Standing { held: 0, ..standing() });
        assert!(host::NEEDED.iter().all(|needed| told.contains(needed.name)), "{told}");
    }

    #[test]
    fn the_old_way_of_counting_memory_is_named_where_it_counts() {
        let old = Standing { version: Some((5, 10)), memlock: Some(64 << 10), ..standing() };
        let told = remedy(&Act::Map, Some(Errno::PERM), &old);
        assert!(told.contains("CAP_SYS_RESOURCE") && told.contains("64 KiB"), "{told}");
        let poor = Standing { held: 0, ..old.clone() };
        let told = remedy(&Act::Map, Some(Errno::PERM), &poor);
        assert!(told.contains("CAP_BPF") && told.contains("CAP_SYS_RESOURCE"), "{told}");
        for fine in [
            Standing { memlock: None, ..old.clone() },
            Standing { held: all() | 1 << host::SYS_RESOURCE, ..old.clone() },
            Standing { version: Some((5, 11)), ..old },
        ] {
            assert!(!remedy(&Act::Map, Some(Errno::PERM), &fine).contains("CAP_SYS_RESOURCE"));
        }
    }

    #[test]
    fn who_else_may_be_in_the_way_is_named() {
        let attach = Act::Attach("/sys/fs/cgroup".into());
        let told = remedy(&attach, Some(Errno::PERM), &standing());
        assert!(told.contains("bpftool cgroup show /sys/fs/cgroup"), "{told}");
        let confined = Standing { profile: Some("cri".into()), filtered: true, ..standing() };
        let told = remedy(&Act::Load, Some(Errno::PERM), &confined);
        assert!(told.contains("seccomp") && told.contains("`cri`"), "{told}");
        let told = remedy(&attach, Some(Errno::PERM), &confined);
        assert!(told.contains("bpftool") && told.contains("`cri`") && !told.contains("seccomp"), "{told}");
        assert!(remedy(&Act::Load, Some(Errno::NOSYS), &standing()).contains("CONFIG_BPF_SYSCALL"));
    }

    #[test]
    fn only_profiles_that_deny_confine() {
        assert_eq!(
            confining("cri-containerd.apparmor.d (enforce)\n").as_deref(),
            Some("cri-containerd.apparmor.d")
        );
        assert_eq!(confining("unconfined\n"), None);
        assert_eq!(confining("some (complain)\n"), None);
        assert_eq!(confining(""), None);
    }
}
