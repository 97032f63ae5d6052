//! The systemd unit: without fault in the eyes of systemd, and no narrower than the sensor needs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says loudly what it leaves out"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

/// How exposed the unit may be in the eyes of `systemd-analyze security`, in tenths. What is left comes of the
/// capabilities, the network, and running as root.
const EXPOSURE: &str = "30";

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let done = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (done.status.success(), said)
}

fn succeeds(program: &str, arguments: &[&str]) -> String {
    let (well, said) = run(program, arguments);
    assert!(well, "{program} {arguments:?}: {said}");
    said
}

/// Why a test cannot run here; says so loudly.
fn missing(test: &str, programs: &[(&str, &str)]) -> bool {
    let absent = programs.iter().find(|(path, _)| !Path::new(path).exists());
    if let Some((path, package)) = absent {
        println!("SKIPPED unit::{test}: no {path} (apt-get install {package})");
    }
    absent.is_some()
}

const ANALYZE: (&str, &str) = ("/usr/bin/systemd-analyze", "systemd");

/// The unit as it is in the repository.
fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/tokenscope.service");
    std::fs::read_to_string(path).unwrap()
}

/// What the unit sets a key to, word by word.
fn set(key: &str) -> Vec<String> {
    let unit = unit();
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    if missing("systemd_finds_no_fault_with_the_unit", &[ANALYZE]) {
        return;
    }
    // A program that is there: the sensor itself is not installed.
    let unit = unit().replace("/usr/local/bin/tokenscope", "/usr/bin/true");
    let mut keys: Vec<&str> = unit.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    keys.retain(|key| !key.starts_with('#') && *key != "ExecReload");
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "a key is set twice");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokenscope.service");
    std::fs::write(&file, &unit).unwrap();
    let file = file.to_str().unwrap();
    let said = succeeds("systemd-analyze", &["verify", "--man=no", "--recursive-errors=no", file]);
    assert!(!said.contains("tokenscope"), "{said}");
    let threshold = format!("--threshold={EXPOSURE}");
    let (well, said) =
        run("systemd-analyze", &["security", "--offline=true", "--no-pager", &threshold, file]);
    assert!(well, "{said}");
}

/// Runs the sensor under runc with the unit's system calls, capabilities and read-only file system: the parts of systemd that
/// could stop the sensor. systemd itself is tried by `cargo xtask vm systemd`.
#[test]
fn the_sensor_works_within_what_the_unit_allows() {
    let test = "the_sensor_works_within_what_the_unit_allows";
    if missing(test, &[ANALYZE, ("/usr/sbin/runc", "runc")]) {
        return;
    }
    let near = || Some(Path::new(env!("CARGO_BIN_EXE_xtask")).parent()?.join("tokenscope"));
    let sensor = std::env::var_os("TOKENSCOPE_BIN").map(PathBuf::from).or_else(near).unwrap();
    let able = |sensor: &Path| run(sensor.to_str().unwrap(), &["doctor"]).0;
    if !sensor.exists() || !able(&sensor) {
        println!("SKIPPED unit::{test}: the sensor is not built, or this host cannot run it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("rootfs");
    for name in ["usr", "proc", "sys", "dev", "tmp", "run/tokenscope", "var/lib/tokenscope", "opt"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    for name in ["lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    std::fs::copy(&sensor, root.join("opt/tokenscope")).unwrap();
    let (well, said) = contained(dir.path(), &["doctor", "--color", "never"], None);
    assert!(well, "{said}");
    let (well, said) = contained(dir.path(), &["run", "-o", "json"], Some("watching"));
    assert!(well && said.contains("watched: "), "{said}");
    // The filter is in force: what it does not name is refused.
    let narrow = bundle_config(&["doctor"], |name| name != "bpf");
    std::fs::write(dir.path().join("config.json"), narrow.to_string()).unwrap();
    let (well, said) = started(dir.path(), None);
    assert!(!well && said.contains("FAIL"), "{said}");
}

/// Runs the program in the bundle; if it is to be ended, once it has said these words.
fn contained(bundle: &Path, arguments: &[&str], until: Option<&str>) -> (bool, String) {
    std::fs::write(bundle.join("config.json"), bundle_config(arguments, |_| true).to_string()).unwrap();
    started(bundle, until)
}

fn started(bundle: &Path, until: Option<&str>) -> (bool, String) {
    let (state, name) = (bundle.join("state"), format!("tokenscope-unit-{}", std::process::id()));
    let runc = |words: &[&str]| {
        let mut runc = Command::new("timeout");
        runc.args(["--kill-after=5", "120", "runc", "--root"]).arg(&state).args(words);
        runc
    };
    let (reader, writer) = std::io::pipe().unwrap();
    let mut running = runc(&["run", "--bundle"]);
    running.arg(bundle).arg(&name).stdin(Stdio::null());
    running.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = running.spawn().unwrap();
    // Else the pipe would never end.
    drop(running);
    let mut said = String::new();
    for line in BufReader::new(reader).lines() {
        let line = line.unwrap();
        if until.is_some_and(|words| line.contains(words)) {
            assert!(runc(&["kill", &name, "TERM"]).status().unwrap().success(), "runc kill");
        }
        said.push_str(&line);
        said.push('\n');
    }
    let well = child.wait().unwrap().success();
    let _ = runc(&["delete", "--force", &name]).output();
    (well, said)
}

/// The system calls of a set that systemd names, or the one of that name.
fn calls(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let listed = succeeds("systemd-analyze", &["syscall-filter", "--no-pager", name]);
    let names =
        listed.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.flat_map(calls).collect()
}

fn bundle_config(arguments: &[&str], keep: fn(&str) -> bool) -> serde_json::Value {
    let words: Vec<&str> = ["/opt/tokenscope"].into_iter().chain(arguments.iter().copied()).collect();
    let capabilities = set("CapabilityBoundingSet");
    let mut allowed: Vec<String> = set("SystemCallFilter").iter().flat_map(|name| calls(name)).collect();
    assert!(allowed.len() > 200 && (3..6).contains(&capabilities.len()), "{allowed:?} {capabilities:?}");
    allowed.retain(|name| keep(name));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let cgroups = fields.find(|fields| fields[2] == "cgroup2").expect("cgroup v2")[1];
    let mount = |to: &str, kind: &str, from: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": from, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": words, "env": [], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            mount("/usr", "bind", "/usr", &["rbind", "ro"]),
            mount("/proc", "proc", "proc", &["nosuid", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755"]),
            mount("/sys", "bind", "/sys", &["bind", "ro"]),
            mount("/sys/fs/cgroup", "bind", cgroups, &["rbind", "ro"]),
            mount("/run/tokenscope", "tmpfs", "tmpfs", &["mode=700"]),
            mount("/var/lib/tokenscope", "tmpfs", "tmpfs", &["mode=700"]),
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
            },
        },
    })
}
