//! Whether this host can run the sensor: each condition on its own, with the remedy.

use std::path::Path;

use super::blame::{self, COUNTS_BY_CGROUP, Standing};
use super::host::Capability;
use super::{EbpfSource, Features, Options, host};
use crate::capture::SourceError;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// The sensor runs, with less.
    Warn,
    /// The sensor cannot run.
    Fail,
}

/// One condition.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was looked at: "kernel", "cgroup v2".
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

/// The oldest kernel that the sensor supports.
const OLDEST: (u32, u32) = (5, 10);

/// Looks at all that capturing needs, and tries it: loads the kernel half and attaches it for a moment to a
/// fresh cgroup below `cgroup`, or to that itself where none can be made. Disturbs nothing.
#[must_use]
pub fn probe(cgroup: Option<&Path>) -> Vec<Check> {
    let root = host::cgroup(cgroup);
    let mut checks = vec![kernel(), control_groups(&root, cgroup.is_none())];
    checks.extend(capabilities(&Standing::now()));
    checks.extend(features(Features::probe()));
    if let Ok(root) = root {
        checks.push(attach(&root));
    }
    checks
}

fn check(name: &'static str, status: Status, found: impl Into<String>, remedy: &str) -> Check {
    Check { name, status, found: found.into(), remedy: remedy.to_owned() }
}

fn kernel() -> Check {
    let release = host::release();
    match host::version(&release) {
        Some(version) if version < OLDEST => {
            check("kernel", Status::Fail, release, "run a kernel of 5.10 or later")
        }
        Some(_) => check("kernel", Status::Ok, release, ""),
        None => check("kernel", Status::Warn, release, "its version cannot be read; 5.10 or later is needed"),
    }
}

/// `auto`: nobody named this tree, it was found.
fn control_groups(root: &Result<std::path::PathBuf, SourceError>, auto: bool) -> Check {
    match root {
        Ok(path) if auto && host::is_own_part(path) => {
            let found = format!("{} shows this container alone", path.display());
            check("cgroup v2", Status::Warn, found, host::OWN_PART)
        }
        Ok(path) => check("cgroup v2", Status::Ok, path.display().to_string(), ""),
        Err(SourceError::Kernel { problem, remedy, .. }) => check("cgroup v2", Status::Fail, problem, remedy),
        Err(error) => check("cgroup v2", Status::Fail, error.to_string(), "mount /proc"),
    }
}

/// A check a capability.
fn capabilities(standing: &Standing) -> Vec<Check> {
    let one = |one: Capability, without: Status, found: &str, remedy: &str| {
        if one.is_held(standing.held) {
            check(one.name, Status::Ok, "held", "")
        } else {
            check(one.name, without, found, remedy)
        }
    };
    let needed = host::NEEDED
        .into_iter()
        .map(|needed| one(needed, Status::Fail, "not held", "run as root, or grant this capability"));
    let names = host::NAMES.into_iter().map(|names| {
        let found = "not held: processes of other users are not named";
        one(names, Status::Warn, found, "grant this capability if you want their names")
    });
    needed.chain(names).chain(locked_memory(standing)).collect()
}

/// Before 5.11 maps are locked memory.
fn locked_memory(standing: &Standing) -> Option<Check> {
    let counts = standing.version.is_some_and(|version| version < COUNTS_BY_CGROUP);
    counts.then(|| match standing.memlock {
        _ if standing.is_short_of_memory() => {
            check("locked memory", Status::Fail, "limited", &blame::memory(standing))
        }
        Some(_) => check("locked memory", Status::Ok, "limited, and CAP_SYS_RESOURCE lifts it", ""),
        None => check("locked memory", Status::Ok, "without limit", ""),
    })
}

/// A check a feature: what the kernel offers, and what happens without it.
fn features(features: Features) -> [Check; 3] {
    let one = |name, there, without: &str| {
        let found = if there { "yes".to_owned() } else { format!("no: {without}") };
        check(name, Status::Ok, found, "")
    };
    [
        one(
            "kernel: process behind a response",
            features.pid,
            "the process that listens is named (6.12 tells)",
        ),
        one(
            "kernel: network namespace of new connections",
            features.netns_sockets,
            "it is not told (5.15 tells)",
        ),
        one(
            "kernel: network namespace of old connections",
            features.netns_packets,
            "it is not told (6.14 tells)",
        ),
    ]
}

fn attach(root: &Path) -> Check {
    let child = root.join(format!("tokenscope-doctor-{}", std::process::id()));
    let made = std::fs::create_dir(&child).is_ok();
    let cgroup = Some(if made { child.clone() } else { root.to_path_buf() });
    let tried = EbpfSource::open(&Options { cgroup, ring_bytes: 1 << 20, ..Options::default() });
    let result = match &tried {
        Ok(_) => check("BPF programs", Status::Ok, "loaded and attached", ""),
        Err(SourceError::Kernel { step, problem, remedy }) => {
            check("BPF programs", Status::Fail, format!("{step}: {problem}"), remedy)
        }
        Err(error) => check("BPF programs", Status::Fail, error.to_string(), "run as root"),
    };
    drop(tried);
    if made {
        // Empty again; if it cannot go now, it does no harm.
        let _ = std::fs::remove_dir(&child);
    }
    result
}
