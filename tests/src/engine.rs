//! Docker's engine, without touching one that the host has: its own containerd, directories and socket, in a network
//! namespace of its own, so that bridge and NAT rules are there and nowhere else.
//!
//! Nothing is fetched: images are loaded from archives, or made of directories that see the host's `/usr`.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::clock::Deadline;
use crate::node::{Program, forget, ip, program, skeleton, within};
use crate::server::find_program;
use crate::workspace;

/// The engine's address on the bridge of its containers.
pub const BRIDGE: &str = "10.214.0.1";

/// What it sees the host's programs in.
const BARE: &str = "bare:1";

/// Longest that the engine, containerd and a container may take to start or end on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running engine. Dropping it takes all of it away.
#[derive(Debug)]
pub struct Engine {
    dir: TempDir,
    space: String,
    /// containerd, then dockerd.
    children: Vec<Child>,
}

/// A container that runs.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its whole id.
    pub id: String,
    /// Its address on the bridge.
    pub address: IpAddr,
}

impl Engine {
    /// Why there can be none here; none if there can.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !crate::is_root() {
            return Some("Docker's engine needs root".into());
        }
        let programs = [
            ("dockerd", "docker.io"),
            ("docker", "docker.io"),
            ("containerd", "containerd"),
            ("runc", "runc"),
            ("ip", "iproute2"),
            ("iptables", "iptables"),
        ];
        let missing =
            |(program, package): (&str, &'static str)| find_program(program).is_none().then_some(package);
        let package = programs.into_iter().find_map(missing)?;
        Some(format!("{package} is not installed (apt-get install {package})"))
    }

    /// Starts containerd and the engine, and makes the image of the host's programs.
    ///
    /// # Errors
    /// When one does not start, with what it said.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("docker-").tempdir()?;
        let space = format!("lab-docker-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {space}"))?;
        let mut engine = Self { dir, space, children: Vec::new() };
        ip(&format!("-n {} link set lo up", engine.space))?;
        engine.start_containerd()?;
        engine.start_dockerd()?;
        engine.await_answer()?;
        let root = engine.dir.path().join("bare");
        skeleton(&root)?;
        let archive = engine.at("bare.tar");
        let packed = Command::new("tar").arg("-C").arg(&root).args(["-cf", &archive, "."]).status()?;
        ensure!(packed.success(), "tar: {packed}");
        engine.docker(&["import", &archive, BARE])?;
        Ok(engine)
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn start_containerd(&mut self) -> Result<()> {
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            self.at("containerd"),
            self.at("state"),
            self.at("containerd.sock"),
            self.at("containerd.ttrpc"),
        );
        fs::write(self.at("containerd.toml"), config)?;
        let mut containerd = Command::new(program("containerd")?);
        containerd.args(["--config", &self.at("containerd.toml")]);
        self.keep(containerd)?;
        let deadline = Deadline::after(PATIENCE);
        while !Path::new(&self.at("containerd.sock")).exists() {
            self.is_alive(&deadline)?;
        }
        Ok(())
    }

    fn start_dockerd(&mut self) -> Result<()> {
        let mut dockerd = Command::new(program("dockerd")?);
        // The directory of plain copies works on every file system.
        dockerd.args(["--storage-driver", "vfs", "--config-file", &self.at("daemon.json")]);
        fs::write(self.at("daemon.json"), "{}")?;
        dockerd.args(["--bip", &format!("{BRIDGE}/24"), "--host", &self.host()]);
        for (flag, name) in [
            ("--containerd", "containerd.sock"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            dockerd.args([flag, &self.at(name)]);
        }
        self.keep(dockerd)
    }

    /// Starts a daemon in the namespace.
    fn keep(&mut self, mut daemon: Command) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.at("log"))?;
        daemon.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = within(&self.space, || daemon.spawn().with_context(|| format!("start {daemon:?}")))?;
        self.children.push(child);
        Ok(())
    }

    fn await_answer(&mut self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        while self.docker(&["version"]).is_err() {
            self.is_alive(&deadline)?;
        }
        Ok(())
    }

    /// Waits a little for daemons that have not ended.
    fn is_alive(&mut self, deadline: &Deadline) -> Result<()> {
        let log = fs::read_to_string(self.at("log")).unwrap_or_default();
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!("a daemon ended at once ({status}): {log}");
            }
        }
        ensure!(!deadline.is_over(), "no answer: {log}");
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    fn host(&self) -> String {
        format!("unix://{}", self.at("docker.sock"))
    }

    /// Docker's client with these words.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn client(&self, words: &[&str]) -> Result<Command> {
        let mut docker = Command::new(program("docker")?);
        // Nothing of a user's own settings.
        docker.env("DOCKER_CONFIG", self.at("client")).args(["--host", &self.host()]).args(words);
        Ok(docker)
    }

    /// Runs the client and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn docker(&self, words: &[&str]) -> Result<String> {
        let done = self.client(words)?.stdin(Stdio::null()).output().context("run docker")?;
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "docker {}: {out}{err}", words.join(" "));
        Ok(out.trim().to_owned())
    }

    /// Starts a container that sees the host's `/usr`, the sample services in `/srv`, and its files in `/data`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(&self, name: &str, what: &Program) -> Result<Container> {
        let data = self.dir.path().join("files").join(name);
        fs::create_dir_all(&data)?;
        for (file, text) in &what.files {
            fs::write(data.join(file), text)?;
        }
        let bind = |from: PathBuf, to: &str| format!("--volume={}:{to}:ro", from.display());
        let mut words: Vec<String> = ["run", "--detach", "--name", name].map(str::to_owned).into();
        words.extend([bind("/usr".into(), "/usr"), bind(workspace().join("tests/services"), "/srv")]);
        words.push(bind(data, "/data"));
        words.extend(what.environment.iter().map(|pair| format!("--env={pair}")));
        words.push(BARE.to_owned());
        words.extend(what.words.iter().cloned());
        let id = self.docker(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Container { address: self.address(&id)?, id })
    }

    /// A container's address on the bridge.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self, container: &str) -> Result<IpAddr> {
        let format = "--format={{.NetworkSettings.IPAddress}}";
        let said = self.docker(&["inspect", format, container])?;
        said.parse().with_context(|| format!("the address of {container} is {said:?}"))
    }

    /// Does something where the engine is.
    ///
    /// # Errors
    /// When its namespace cannot be entered, or what `run` says.
    pub fn here<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&self.space, run)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = self.docker(&["ps", "--all", "--quiet", "--no-trunc"]).unwrap_or_default();
        for id in ids.lines() {
            let _ = self.docker(&["rm", "--force", "--volumes", id]);
        }
        // The engine before its containerd, so that it can end what it has there.
        while let Some(mut child) = self.children.pop() {
            let _ = crate::sensor::signal(child.id());
            let deadline = Deadline::after(PATIENCE);
            while matches!(child.try_wait(), Ok(None)) {
                if deadline.is_over() {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for id in ids.lines() {
            forget(&format!("/docker/{id}"));
        }
        // What it keeps mounted: the name of its own network namespace.
        let _ = Command::new("umount").args(["--lazy", &self.at("exec/netns/default")]).output();
        let _ = ip(&format!("netns del {}", self.space));
    }
}
