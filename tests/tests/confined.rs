//! The sensor in surroundings like a pod's: which cgroup tree it takes, what it says of a state directory that it cannot
//! have, and a configuration that changes as the kubelet changes it.

#![allow(clippy::indexing_slicing, reason = "a JSON value answers null for what it has not")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::client::{Client, get};
use tests::manifests::render;
use tests::mint::Mint;
use tests::sensor::{self, Config, PATIENCE, Sensor, rules};
use tests::{clock, raw, skip};

/// The root of cgroup v2 here.
fn tree() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut all = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = all.find(|fields| fields.get(2) == Some(&"cgroup2")).context("no cgroup v2")?;
    Ok(PathBuf::from(*found.get(1).context("no place")?))
}

/// A cgroup of the test's own, gone when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let path = tree()?.join(format!("tokenscope-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// What `doctor` says of one thing, run by a script in a mount namespace of its own; `$doctor` is its command.
fn doctor(script: &str, config: &Value, check: &str, variables: &[(&str, &Path)]) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yaml");
    fs::write(&file, config.to_string())?;
    let mut command = sensor::command()?;
    let doctor = format!("{} doctor -o json -c {}", command.get_program().display(), file.display());
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-ec", script]).env("doctor", doctor).env("dir", dir.path());
    for (name, value) in command.env("NO_COLOR", "1").get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    for (name, value) in variables {
        shell.env(name, value);
    }
    let done = shell.output().context("run unshare")?;
    let said = String::from_utf8_lossy(&done.stderr);
    let checks: Value = serde_json::from_slice(&done.stdout).with_context(|| said.into_owned())?;
    let mut all = checks.as_array().context("checks")?.iter();
    all.find(|found| found["check"] == check).cloned().with_context(|| format!("{check} in {checks}"))
}

/// As in a pod with a cgroup namespace: the runtime's mount comes first and begins at the container, the host's comes
/// later and begins higher.
#[test]
fn the_hosts_tree_is_told_from_the_containers() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("confined::the_hosts_tree_is_told_from_the_containers", &why);
        return Ok(());
    }
    let (own, tree) = (Cgroup::new("pod")?, tree()?);
    let enter = r#"
        echo $$ > "$own/cgroup.procs"
        mkdir "$dir/container" "$dir/host"
        unshare --cgroup --mount sh -ec '
            mount -t cgroup2 none "$dir/container"
            mount --rbind "$tree" "$dir/host"
            umount --lazy "$tree"
            WHAT
            exec $doctor' || true
        # Out of the cgroup again, so that it can go.
        echo $$ > "$tree/cgroup.procs"
        if [ -d "$own/pod" ]; then rmdir "$own/pod"; fi
    "#;
    let variables = [("own", own.0.as_path()), ("tree", tree.as_path())];
    let config = json!({"state": {"dir": "off"}});
    let found = doctor(&enter.replace("WHAT", ""), &config, "cgroup v2", &variables)?;
    ensure!(found["status"] == "ok", "{found}");
    ensure!(found["text"].as_str().is_some_and(|text| text.ends_with("/host")), "{found}");

    let alone = enter.replace("WHAT", r#"umount --lazy "$dir/host""#);
    let found = doctor(&alone, &config, "cgroup v2", &variables)?;
    ensure!(found["status"] == "warn", "{found}");
    ensure!(
        found["text"].as_str().is_some_and(|text| text.ends_with("/container shows this container alone")),
        "{found}"
    );
    ensure!(
        found["remedy"].as_str().is_some_and(|text| text.contains("mount the host's /sys/fs/cgroup")),
        "{found}"
    );

    // A pod without a namespace of its own, on a node that is a container: what that is shown is the whole node.
    let below = r#"umount --lazy "$dir/host"
            mkdir "$dir/container/pod"
            echo $$ > "$dir/container/pod/cgroup.procs""#;
    let found = doctor(&enter.replace("WHAT", below), &config, "cgroup v2", &variables)?;
    ensure!(found["status"] == "ok", "{found}");
    ensure!(found["text"].as_str().is_some_and(|text| text.ends_with("/container")), "{found}");
    Ok(())
}

#[test]
fn a_state_directory_that_cannot_be_had_is_told_with_a_remedy() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("confined::a_state_directory_that_cannot_be_had_is_told_with_a_remedy", &why);
        return Ok(());
    }
    let place = tempfile::tempdir()?;
    let variables = [("place", place.path())];
    let config = json!({"state": {"dir": place.path().join("tokenscope")}});
    for (script, status, text, remedy) in [
        (
            r#"mount -t tmpfs -o ro none "$place"; $doctor || true"#,
            "warn",
            "Read-only file system",
            "writable volume",
        ),
        (
            r#"mkdir -m 777 "$place/tokenscope"; touch "$place/tokenscope/x"; $doctor || true"#,
            "warn",
            "mode 777",
            "chmod 700",
        ),
        (r#"chown 1234 "$place/tokenscope"; $doctor || true"#, "warn", "belongs to user 1234", "chown"),
        (
            r#"rm -r "$place/tokenscope"; touch "$place/tokenscope"; $doctor || true"#,
            "warn",
            "Not a directory",
            "a file is there",
        ),
        (r#"rm "$place/tokenscope"; $doctor || true"#, "ok", "is made at the start", ""),
    ] {
        let found = doctor(script, &config, "state", &variables)?;
        ensure!(found["status"] == status, "{script}: {found}");
        ensure!(found["text"].as_str().is_some_and(|said| said.contains(text)), "{script}: {found}");
        ensure!(found["remedy"].as_str().unwrap_or_default().contains(remedy), "{script}: {found}");
    }
    Ok(())
}

/// A sensor that starts says the same, and runs.
#[test]
fn a_sensor_without_a_good_place_for_its_state_says_so_and_runs() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("confined::a_sensor_without_a_good_place_for_its_state_says_so_and_runs", &why);
        return Ok(());
    }
    for (script, text, remedy) in [
        (r#"mount -t tmpfs -o ro none "$place""#, "Read-only file system", "put a writable volume there"),
        (r#"mkdir -m 777 "$place/tokenscope"; touch "$place/tokenscope/x""#, "has mode 777", "chmod 700"),
        (r#"touch "$place/tokenscope""#, "cannot make", "a file is there"),
    ] {
        let place = tempfile::tempdir()?;
        let mut config = Config::new(&Mint::at(clock::now())?)?.ports(&[1]);
        config.set("/state/dir", json!(place.path().join("tokenscope")));
        let mut launcher = Command::new("unshare");
        launcher.args(["--mount", "sh", "-ec", &format!(r#"{script}; exec "$0" "$@""#)]);
        launcher.env("place", place.path());
        let ended = Sensor::start_by(sensor::behind(launcher)?, &config, &["-o", "json"])?.stop()?;
        ensure!(ended.stderr.contains(text) && ended.stderr.contains(remedy), "{script}: {}", ended.stderr);
    }
    Ok(())
}

/// The probes that the chart renders find the sensor that it configures, at the address and port where it listens; the
/// state directory that the kubelet made is closed to others.
#[test]
fn the_probes_find_the_sensor() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("confined::the_probes_find_the_sensor", &why);
        return Ok(());
    }
    let port = tests::server::free_port()?;
    let rendered = render(&json!({"metrics": {"port": port}}))?;
    let container = rendered.container()?;
    let named = &container["ports"][0];
    ensure!(named["containerPort"] == port, "{named}");
    let dir = tempfile::tempdir()?;
    let (state, socket) = (dir.path().join("state"), dir.path().join("control.sock"));
    fs::create_dir(&state)?;
    fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let text = rendered.config()?.replace("/var/lib/tokenscope", &state.display().to_string());
    let file = dir.path().join("config.yaml");
    fs::write(&file, text)?;
    let arguments: Vec<&str> =
        container["args"].as_array().context("args")?.iter().filter_map(Value::as_str).collect();
    let mut child = sensor::command()?
        .args(arguments)
        .env("TOKENSCOPE_CONFIG", &file)
        .env("TOKENSCOPE_CONTROL__SOCKET", &socket)
        .env("TOKENSCOPE_CAPTURE__PORTS", "1")
        .env("TOKENSCOPE_NODE", "node-7.example")
        .spawn()?;
    let outcome = probe(container, port);
    let closed = fs::metadata(&state)
        .map(|about| std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777);
    sensor::signal(child.id())?;
    let ended = child.wait()?;
    outcome?;
    ensure!(ended.success(), "{ended}");
    ensure!(closed? == 0o700, "the state directory is open");
    Ok(())
}

/// Asks each probe until it is content.
fn probe(container: &Value, port: u16) -> Result<()> {
    for name in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &container[name]["httpGet"];
        ensure!(get["port"] == container["ports"][0]["name"], "{name}: {get}");
        let path = get["path"].as_str().context("path")?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
        let deadline = clock::Deadline::after(PATIENCE);
        let status =
            || anyhow::Ok(Client::connect(([127, 0, 0, 1], port).into())?.ask(request.as_bytes())?.status);
        while !status().is_ok_and(|status| status == 200) {
            ensure!(!deadline.is_over(), "{name} was never content");
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }
    Ok(())
}

/// What the kubelet does with a `ConfigMap`: a fresh directory, and a link to it that replaces the one before.
fn publish(dir: &Path, version: &str, text: &str) -> Result<()> {
    fs::create_dir(dir.join(version))?;
    fs::write(dir.join(version).join("config.yaml"), text)?;
    symlink(version, dir.join("..data_tmp"))?;
    fs::rename(dir.join("..data_tmp"), dir.join("..data"))?;
    Ok(())
}

#[test]
fn a_config_map_that_changes_is_taken_over_and_a_bad_one_is_refused() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("confined::a_config_map_that_changes_is_taken_over_and_a_bad_one_is_refused", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let config = Config::new(&mint)?.ports(&[service.port()]);
    let mut sensor = Sensor::start_with(&config, &["-o", "json", "--watch-config"])?;
    let file = sensor.config();
    let (dir, good) = (file.parent().context("dir")?.to_owned(), fs::read_to_string(&file)?);
    let attack = |attack: Attack, path: &str| -> Result<()> {
        Client::connect(service)?.ask(&get(path, Some(&attack.token(&mint, "mallory")?)))?;
        Ok(())
    };
    // The plain file gives way to the kubelet's links.
    publish(&dir, "..1", &good)?;
    symlink("..data/config.yaml", dir.join("link"))?;
    fs::rename(dir.join("link"), &file)?;
    sensor.await_words("configuration reloaded")?;

    publish(&dir, "..2", "capture: {prots: []}")?;
    sensor.await_words("did you mean `ports`")?;
    attack(Attack::AlgNone, "/orders/1")?;
    sensor.until("alg-none")?;

    publish(&dir, "..3", &good.replacen(r#""rules":{"#, r#""rules":{"alg-none":{"enabled":false},"#, 1))?;
    sensor.await_words("configuration reloaded")?;
    attack(Attack::AlgNone, "/invoices/1")?;
    attack(Attack::Psychic, "/invoices/2")?;
    let seen = sensor.until("psychic-signature")?;
    ensure!(!rules(&seen).contains(&"alg-none"), "a rule that was turned off: {:?}", rules(&seen));
    sensor.stop()?;
    Ok(())
}

/// Root without `CAP_DAC_OVERRIDE`, as in a pod, may not read what belongs to somebody else.
#[test]
fn a_closed_configuration_is_told_with_its_owner() -> Result<()> {
    if !tests::is_root() {
        skip("confined::a_closed_configuration_is_told_with_its_owner", "giving files away needs root");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yaml");
    fs::write(&file, "labels: [a=1]")?;
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    std::os::unix::fs::chown(&file, Some(1234), None)?;
    let done = Command::new("setpriv")
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(sensor::binary()?)
        .args(["config", "check", "-c"])
        .arg(&file)
        .output()
        .context("run setpriv")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.code() == Some(2), "{}: {said}", done.status);
    ensure!(said.contains("it belongs to user 1234 with mode 600, and this is user 0"), "{said}");
    Ok(())
}

/// What a container runtime's filter forbids is told as such, by `doctor` and at the start.
#[test]
fn a_filter_that_forbids_bpf_is_named() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("confined::a_filter_that_forbids_bpf_is_named", &why);
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    for arguments in [&["doctor"][..], &["run"]] {
        let done = Command::new("python3")
            .arg(tests::service("no_bpf.py"))
            .arg(sensor::binary()?)
            .args(arguments)
            .env("TOKENSCOPE_STATE__DIR", dir.path())
            .env("TOKENSCOPE_CONTROL__SOCKET", "off")
            .env("TOKENSCOPE_METRICS__LISTEN", "off")
            .output()
            .context("run python3")?;
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        ensure!(done.status.code() == Some(1), "{arguments:?}: {}: {said}", done.status);
        ensure!(said.contains("Operation not permitted"), "{arguments:?}: {said}");
        ensure!(said.contains("the seccomp profile must allow bpf(2)"), "{arguments:?}: {said}");
    }
    Ok(())
}
