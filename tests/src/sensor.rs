//! The sensor as its users run it: the built `tokenscope` program, a config file, JSON lines on stdout.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock::Deadline;
use crate::mint::{AUDIENCE, ISSUER, Mint};

/// Longest a sensor may take to attach on a busy or an emulated machine, and an alert to come out.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Lines that the reader threads may hold. More than any test provokes; a full channel only makes the sensor wait.
const LINES: usize = 100_000;

/// The program under test: `TOKENSCOPE_BIN`, or what the same build made.
///
/// # Errors
/// When nobody has built it.
pub fn binary() -> Result<PathBuf> {
    if let Some(set) = std::env::var_os("TOKENSCOPE_BIN") {
        return Ok(PathBuf::from(set));
    }
    let own = std::env::current_exe()?;
    let near = own.ancestors().skip(1).take(2).map(|dir| dir.join("tokenscope")).find(|file| file.is_file());
    near.context("tokenscope is not built: run `cargo xtask test`, or `cargo build` first")
}

/// A config for the mint's issuer. Alerts are named the same in every run, since the fingerprint's key is fixed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The whole file, as JSON, which is YAML.
    pub value: Value,
    /// The issuer's keys.
    jwks: Value,
}

impl Config {
    /// The mint's issuer, its RS256, ES256 and `EdDSA` keys, one audience.
    ///
    /// # Errors
    /// When the mint has no public keys.
    pub fn new(mint: &Mint) -> Result<Self> {
        let value = json!({
            "issuers": [{
                "issuer": ISSUER, "jwks": "file:jwks.json",
                "algorithms": ["RS256", "ES256", "EdDSA"], "audiences": [AUDIENCE],
            }],
            "privacy": {"fingerprint_key": "env:LAB_FINGERPRINT_KEY"},
            // It sums up what other alerts say: one more for every few attacks from one address.
            "rules": {"entity-risk": {"enabled": false}},
        });
        Ok(Self { value, jwks: mint.jwks()? })
    }

    /// Watches these server ports only: other tests run beside this one.
    #[must_use]
    pub fn ports(mut self, ports: &[u16]) -> Self {
        self.set("/capture/ports", json!(ports));
        self
    }

    /// Sets a value by JSON pointer, making the objects on the way.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let mut place = &mut self.value;
        for name in pointer.split('/').skip(1) {
            if !place.is_object() {
                *place = json!({});
            }
            let Some(members) = place.as_object_mut() else { return };
            place = members.entry(name).or_insert(Value::Null);
        }
        *place = value;
    }

    /// Writes config and keys into a directory and returns the config's path.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        fs::write(dir.join("jwks.json"), self.jwks.to_string())?;
        let keys = format!("file:{}", dir.join("jwks.json").display());
        let mut config = self.clone();
        if config.value.pointer("/state/dir").is_none() {
            // What a sensor keeps between runs is its own, not the host's.
            config.set("/state/dir", json!(dir.join("state")));
        }
        if config.value.pointer("/control/socket").is_none() {
            config.set("/control/socket", json!(dir.join("control.sock")));
        }
        let text = config.value.to_string().replace("file:jwks.json", &keys);
        let file = dir.join("config.yaml");
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// One event that the sensor printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert(pub Value);

impl Alert {
    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Its own id, the same in every event about it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text("/finding_info/uid")
    }

    /// The rule's id.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.text("/finding_info/analytic/uid")
    }

    /// The severity's name.
    #[must_use]
    pub fn severity(&self) -> &str {
        self.text("/severity")
    }

    /// The client's address.
    #[must_use]
    pub fn client(&self) -> &str {
        self.text("/evidences/0/src_endpoint/ip")
    }

    /// The client's port.
    #[must_use]
    pub fn client_port(&self) -> Option<u64> {
        self.0.pointer("/evidences/0/src_endpoint/port").and_then(Value::as_u64)
    }

    /// The server's port.
    #[must_use]
    pub fn server_port(&self) -> Option<u64> {
        self.0.pointer("/evidences/0/dst_endpoint/port").and_then(Value::as_u64)
    }

    /// The route: `GET /orders/{id}`.
    #[must_use]
    pub fn route(&self) -> &str {
        self.text("/evidences/0/api/operation")
    }

    /// The status code of the answer.
    #[must_use]
    pub fn status(&self) -> Option<u64> {
        self.0.pointer("/evidences/0/http_response/code").and_then(Value::as_u64)
    }

    /// The workload that was asked.
    #[must_use]
    pub fn workload(&self) -> &str {
        self.text("/evidences/0/dst_endpoint/name")
    }

    /// How often it was seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.pointer("/count").and_then(Value::as_u64).unwrap_or(1)
    }

    /// Whether it opens an alert; otherwise it is news of an old one.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.0.pointer("/activity_id").and_then(Value::as_u64) == Some(1)
    }
}

/// Reads the events of JSON lines: alerts and incidents.
///
/// # Errors
/// When a line is no JSON.
pub fn events(lines: &str) -> Result<Vec<Value>> {
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Reads the alerts of JSON lines.
///
/// # Errors
/// When a line is no JSON.
pub fn alerts(lines: &str) -> Result<Vec<Alert>> {
    Ok(events(lines)?.into_iter().filter(is_alert).map(Alert).collect())
}

/// Whether an event is a Detection Finding and no incident.
fn is_alert(event: &Value) -> bool {
    event["class_uid"] != INCIDENT_FINDING
}

/// The class of incidents.
const INCIDENT_FINDING: u64 = 2005;

/// What a sensor said when it was stopped.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Lines on stdout that nobody had read before.
    pub lines: Vec<String>,
    /// Those of them that are JSON events.
    pub alerts: Vec<Alert>,
    /// Everything on stderr.
    pub stderr: String,
}

impl Ended {
    /// A number of its last line: `watched: 100 exchanges, 100 tokens, ... 0 lost in 2 s`.
    #[must_use]
    pub fn total(&self, what: &str) -> Option<f64> {
        let line = self.stderr.lines().rfind(|line| line.contains(" exchanges,"))?;
        let before = line.split(&format!(" {what}")).next()?;
        let digits = before.rsplit([' ', ':']).next()?;
        digits.replace(',', "").parse().ok()
    }
}

/// A running `tokenscope run`. Dropping it kills it.
#[derive(Debug)]
pub struct Sensor {
    child: Child,
    alerts: Receiver<String>,
    diagnostics: Receiver<String>,
    stderr: String,
    dir: TempDir,
    /// Where its metrics are.
    pub metrics: SocketAddr,
}

impl Sensor {
    /// Starts `tokenscope run` with JSON output and waits until it says that it captures.
    ///
    /// # Errors
    /// When it ends, or stays silent.
    pub fn start(config: &Config) -> Result<Self> {
        Self::start_with(config, &["-o", "json"])
    }

    /// The same with other arguments.
    ///
    /// # Errors
    /// When it ends, or stays silent.
    pub fn start_with(config: &Config, arguments: &[&str]) -> Result<Self> {
        Self::start_by(command()?, config, arguments)
    }

    /// The same by a command of the caller's that ends in the program's own name: one that restricts it first.
    ///
    /// # Errors
    /// When it ends, or stays silent.
    pub fn start_by(program: Command, config: &Config, arguments: &[&str]) -> Result<Self> {
        Self::start_until("watching", program, config, arguments)
    }

    /// Starts one that waits for another with the same state directory to end, and waits until it says so.
    ///
    /// # Errors
    /// When it ends, or stays silent.
    pub fn stand_by(config: &Config) -> Result<Self> {
        Self::start_until("waiting to take over", command()?, config, &["-o", "json", "--take-over"])
    }

    fn start_until(words: &str, mut program: Command, config: &Config, arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sensor-").tempdir()?;
        let metrics = SocketAddr::from(([127, 0, 0, 1], crate::server::free_port()?));
        let mut config = config.clone();
        config.set("/metrics/listen", json!(metrics.to_string()));
        let file = config.write(dir.path())?;
        let child = program
            .arg("run")
            .arg("-c")
            .arg(&file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start tokenscope")?;
        Self::adopt(words, child, dir, metrics)
    }

    /// Takes over a process whose output, piped, is that of `tokenscope run -o json`, and which passes signals on to it.
    /// Waits until it says these words. `dir` holds its configuration and lives as long.
    ///
    /// # Errors
    /// When it ends, or stays silent.
    pub fn adopt(words: &str, mut child: Child, dir: TempDir, metrics: SocketAddr) -> Result<Self> {
        let stdout: ChildStdout = child.stdout.take().context("stdout")?;
        let stderr: ChildStderr = child.stderr.take().context("stderr")?;
        let mut sensor = Self {
            child,
            alerts: lines(stdout),
            diagnostics: lines(stderr),
            stderr: String::new(),
            dir,
            metrics,
        };
        sensor.await_words(words)?;
        Ok(sensor)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Peak resident memory so far, in MiB.
    #[must_use]
    pub fn peak_mib(&self) -> Option<f64> {
        crate::bench::peak_mib(self.pid())
    }

    /// Where its config lies.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    /// Waits until it says these words on stderr.
    ///
    /// # Errors
    /// When it ends, or does not say them in time.
    pub fn await_words(&mut self, words: &str) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match self.diagnostics.recv_timeout(deadline.left()) {
                Ok(line) => {
                    self.note(&line);
                    if line.contains(words) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the sensor did not say {words:?} in time:\n{}", self.stderr)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the sensor ended ({:?}):\n{}", self.child.wait()?, self.stderr)
                }
            }
        }
    }

    fn note(&mut self, line: &str) {
        self.stderr.push_str(line);
        self.stderr.push('\n');
    }

    /// The next line on stdout, if it comes within `wait`.
    #[must_use]
    pub fn line(&self, wait: Duration) -> Option<String> {
        self.alerts.recv_timeout(wait).ok()
    }

    /// Waits for the next alert; incidents are passed over.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn next_alert(&mut self) -> Result<Alert> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match self.alerts.recv_timeout(deadline.left()) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
                    if is_alert(&event) {
                        return Ok(Alert(event));
                    }
                }
                Err(why) => {
                    while let Ok(line) = self.diagnostics.try_recv() {
                        self.note(&line);
                    }
                    bail!("no alert: {why}; the sensor said:\n{}", self.stderr)
                }
            }
        }
    }

    /// Waits until an event of this rule comes; returns everything up to it.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn until(&mut self, rule: &str) -> Result<Vec<Alert>> {
        let mut seen = Vec::new();
        loop {
            let alert =
                self.next_alert().with_context(|| format!("waiting for {rule} after {:?}", rules(&seen)))?;
            let found = alert.rule() == rule;
            seen.push(alert);
            if found {
                return Ok(seen);
            }
        }
    }

    /// One number from its metrics page, summed over labels that contain `label`.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let page = self.metrics_page()?;
        let line =
            |l: &&str| l.starts_with(name) && l.contains(label) && l[name.len()..].starts_with(['{', ' ']);
        Ok(page.lines().filter(line).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The whole metrics page.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn metrics_page(&self) -> Result<String> {
        let mut client = crate::client::Client::connect(self.metrics)?;
        let answer = client.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        ensure!(answer.status == 200, "metrics answered {}", answer.status);
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Replaces its configuration and sends SIGHUP.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn reload(&self, text: &str) -> Result<()> {
        fs::write(self.config(), text)?;
        send(self.pid(), Signal::HUP)
    }

    /// Waits until something else kills it.
    ///
    /// # Errors
    /// When nothing does in time, or it ends in another way.
    pub fn until_killed(mut self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.signal() == Some(Signal::KILL.as_raw()), "it ended with {status}");
                return Ok(());
            }
            ensure!(!deadline.is_over(), "nothing kills the sensor");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As [`stop`](Self::stop), for those who do not ask what it said.
    ///
    /// # Errors
    /// As there.
    pub fn stopped(self) -> Result<()> {
        self.stop().map(|_| ())
    }

    /// Ends it by SIGKILL: it can write nothing any more.
    pub fn kill(self) {
        drop(self);
    }

    /// The same; gives the lines that it had written and nobody had read.
    #[must_use]
    pub fn last_words(mut self) -> Vec<String> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.alerts.iter().collect()
    }

    /// Stops it by SIGTERM, which must end it within the contract's 5 s with status 0.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn stop(mut self) -> Result<Ended> {
        signal(self.child.id())?;
        let deadline = Deadline::after(Duration::from_secs(15));
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(!deadline.is_over(), "SIGTERM does not stop the sensor:\n{}", self.stderr);
            std::thread::sleep(Duration::from_millis(10));
        };
        let lines: Vec<String> = self.alerts.iter().collect();
        let events: Vec<&str> =
            lines.iter().map(String::as_str).filter(|line| line.starts_with('{')).collect();
        let said: Vec<String> = self.diagnostics.iter().collect();
        for line in &said {
            self.note(line);
        }
        ensure!(status.success(), "the sensor ended with {status}:\n{}", self.stderr);
        let alerts = alerts(&events.join("\n"))?;
        Ok(Ended { lines, alerts, stderr: std::mem::take(&mut self.stderr) })
    }
}

/// A running `tokenscope tail -f`. Dropping it kills it.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    /// Follows the alerts of a sensor; the newest of the past come first, so that none is missed.
    ///
    /// # Errors
    /// When it cannot be started, or does not follow in time.
    pub fn start(sensor: &Sensor) -> Result<Self> {
        let mut child = command()?
            .args(["tail", "-f", "-o", "json", "-c"])
            .arg(sensor.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start tokenscope tail")?;
        let stdout = child.stdout.take().context("stdout")?;
        Ok(Self { child, lines: lines(stdout) })
    }

    /// The next line.
    #[must_use]
    pub fn line(&self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a process to end.
///
/// # Errors
/// When it is not there.
pub fn signal(pid: u32) -> Result<()> {
    send(pid, Signal::TERM)
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}

/// The rule ids of some alerts, for messages.
#[must_use]
pub fn rules(alerts: &[Alert]) -> Vec<&str> {
    alerts.iter().map(Alert::rule).collect()
}

/// The program, in an environment that changes nothing.
///
/// # Errors
/// When nobody has built it.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOKENSCOPE_") {
            command.env_remove(name);
        }
    }
    command.env("LAB_FINGERPRINT_KEY", "a key that is fixed for tests only");
    Ok(command)
}

/// The program, started by a launcher that takes it as its last arguments, in the same environment.
///
/// # Errors
/// When nobody has built it.
pub fn behind(mut launcher: Command) -> Result<Command> {
    let plain = command()?;
    launcher.arg(plain.get_program());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => launcher.env(name, value),
            None => launcher.env_remove(name),
        };
    }
    Ok(launcher)
}

/// Why no sensor can capture here; none if one can.
#[must_use]
pub fn missing() -> Option<String> {
    if !crate::is_root() {
        return Some("loading kernel programs needs root".into());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let unified = mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    (!unified).then(|| "there is no cgroup v2".into())
}

/// Runs the program to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(arguments: &[&str]) -> Result<Output> {
    command()?.args(arguments).stdin(Stdio::null()).output().context("run tokenscope")
}

/// The ids of the rules that it knows.
///
/// # Errors
/// When it cannot be run, or prints no JSON.
pub fn shipped() -> Result<Vec<String>> {
    let output = run(&["rules", "list", "-o", "json"])?;
    let rules: Vec<Value> = serde_json::from_slice(&output.stdout).context("rules list")?;
    Ok(rules.iter().filter_map(|rule| Some(rule.get("id")?.as_str()?.to_owned())).collect())
}

/// Replays a capture under a config and returns the JSON lines.
///
/// # Errors
/// When it fails, with what it said.
pub fn replay(config: &Config, capture: &[u8]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let file = config.write(dir.path())?;
    let pcap = dir.path().join("capture.pcap");
    fs::write(&pcap, capture)?;
    let done = command()?.arg("replay").arg(&pcap).arg("-c").arg(&file).args(["-o", "json"]).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "replay ended with {}:\n{said}", done.status);
    Ok(String::from_utf8(done.stdout)?)
}

/// A thread that reads lines until the pipe ends.
fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = sync_channel(LINES);
    std::thread::spawn(move || {
        // 1 MiB a line: far above any event.
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while let Ok(1..) = reader.by_ref().take(1 << 20).read_until(b'\n', &mut line) {
            if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receive
}
