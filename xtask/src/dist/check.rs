//! Runs the image as a node would: unpacked, by runc, with a read-only root and three capabilities.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::agent::{self, Agent};
use super::home;
use super::tree::Tree;
use crate::packages::{self, is_root, is_there};
use crate::step::say;

/// What the sensor asks of a node.
const CAPABILITIES: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"];

/// Longest that a check may take before it is ended.
const PATIENCE: &str = "60";

/// Runs `--version`, `config check` and `doctor` in a container of these layers. A host that cannot run the sensor at
/// all is told and is no fault of the image.
///
/// # Errors
/// When the program does not work inside.
pub(super) fn run(agent: &Agent, layers: &[&Tree]) -> Result<()> {
    if !is_root() {
        say("SKIPPED the check of the image: only root can start a container");
        return Ok(());
    }
    packages::install("the check of the image")?;
    if !is_there("runc") {
        return Ok(());
    }
    let bundle = home().join(agent.arch.name()).join("check");
    let _ = fs::remove_dir_all(&bundle);
    for tree in layers {
        tree.unpack(&bundle.join("rootfs"))?;
    }
    let inside = |arguments: &[&str]| contain(&bundle, arguments);
    for arguments in [&["--version"][..], &["config", "check"]] {
        let done = inside(arguments)?;
        if !done.status.success() {
            bail!("in the image, tokenscope {}: {}", arguments.join(" "), everything(&done));
        }
    }
    let doctor = inside(&["doctor", "--color", "never"])?;
    say(everything(&doctor).trim_end());
    if !doctor.status.success() {
        if agent::run(agent, &["doctor"]).is_ok() {
            bail!("doctor is content outside the image and not inside");
        }
        say("SKIPPED the check of the image by doctor: this host cannot run the sensor");
    }
    fs::remove_dir_all(&bundle).context("remove the unpacked image")
}

/// Runs the program in a fresh container and waits for its end.
fn contain(bundle: &Path, arguments: &[&str]) -> Result<Output> {
    fs::write(bundle.join("config.json"), bundle_config(arguments)?.to_string())?;
    let name = format!("tokenscope-check-{}", std::process::id());
    let state = bundle.join("state");
    let mut runc = Command::new("timeout");
    runc.args(["--kill-after=5", PATIENCE, "runc", "--root"]).arg(&state).args(["run", "--bundle"]);
    let done = runc.arg(bundle).arg(&name).output().context("runc cannot be run")?;
    // Nothing is left of one that ended; one that did not is taken away.
    let _ = Command::new("runc").arg("--root").arg(&state).args(["delete", "--force", &name]).output();
    Ok(done)
}

/// The OCI runtime's configuration.
fn bundle_config(arguments: &[&str]) -> Result<Value> {
    let cgroups = cgroup2()?;
    let words: Vec<&str> = ["/usr/bin/tokenscope"].into_iter().chain(arguments.iter().copied()).collect();
    let mount = |to: &str, kind: &str, from: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": from, "options": options});
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": words, "env": ["PATH=/usr/bin"], "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "bind", &cgroups.to_string_lossy(), &["rbind", "ro"]),
            mount("/run/tokenscope", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=700"]),
            mount("/var/lib/tokenscope", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=700"]),
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}],
        },
    }))
}

/// Where this host's cgroup v2 tree is.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&"cgroup2"));
    Ok(PathBuf::from(found.and_then(|fields| fields.get(1).copied()).context("no cgroup v2 is mounted")?))
}

fn everything(done: &Output) -> String {
    [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
