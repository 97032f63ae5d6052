//! A cluster of one node: etcd, the API server, the controller manager, the scheduler and a kubelet over containerd, all
//! of them real, from `target/cluster`, where `cargo xtask cluster` puts what it builds.
//!
//! The control plane and the node are two machines: network namespaces joined by a wire, each with PIDs of its own, and
//! the node with mounts of its own. Where systemd is the cgroup driver it is the node's first process, in a cgroup namespace,
//! and runs containerd and the kubelet. They end with the process that started them, whichever way it ends.

mod image;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::image::{APP, BUSYBOX};
use self::machine::Machine;
use crate::clock::Deadline;
use crate::node::Driver;
use crate::server::find_program;

/// Longest that anything may take to come about: a kubelet looks at some things once a minute, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_mins(4);

/// The name of the only node.
pub const NODE: &str = "node-1";

/// The programs that are built from source.
const BUILT: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];

/// What else is needed, with the package that brings it.
const INSTALLED: [(&str, &str); 10] = [
    ("etcd", "etcd-server"),
    ("kubectl", "kubernetes-client"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("systemctl", "systemd"),
    ("openssl", "openssl"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("busybox", "busybox-static"),
    ("bpftool", "bpftool"),
];

/// A running cluster. Dropping it takes all of it away.
#[derive(Debug)]
pub struct Cluster {
    control: Machine,
    node: Machine,
    driver: Driver,
    dir: TempDir,
}

impl Cluster {
    /// Why there can be none here; none if there can.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !crate::is_root() {
            return Some("a cluster needs root".into());
        }
        if let Some(name) = BUILT.iter().find(|name| !programs().join(name).is_file()) {
            return Some(format!("{name} is not built (cargo xtask cluster)"));
        }
        let absent = INSTALLED.iter().find(|(program, _)| find_program(program).is_none());
        let package = absent.map(|(_, package)| *package);
        let bridge = Path::new(crate::node::PLUGINS).join("bridge");
        let package = package.or_else(|| (!bridge.exists()).then_some("containernetworking-plugins"));
        package.map(|package| format!("{package} is not installed (apt-get install {package})"))
    }

    /// Starts all of it and waits until the node is ready; it knows the images of [`image`].
    ///
    /// # Errors
    /// When a part does not start, with what it said.
    pub fn start(driver: Driver) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cluster-").tempdir()?;
        for name in ["log", "etcd", "images", "node/lib", "node/log", "node/cni", "node/plugins"] {
            fs::create_dir_all(dir.path().join(name))?;
        }
        let mut openssl = Command::new("sh");
        openssl.args(["-c", include_str!("pki.sh"), "pki.sh"]).arg(dir.path());
        let done = openssl.output()?;
        ensure!(done.status.success(), "openssl: {}", String::from_utf8_lossy(&done.stderr));
        let control = Machine::control(dir.path(), &programs())?;
        let node = Machine::node(dir.path(), &programs(), &control, driver)?;
        let cluster = Self { control, node, driver, dir };
        let images = image::make(&cluster.dir.path().join("images"))?;
        cluster.until("containerd", || cluster.ctr(&["version"]).map(drop))?;
        for archive in images {
            cluster.import(&archive)?;
        }
        cluster.await_node()?;
        cluster.until("the account of pods", || {
            cluster.kubectl(&["get", "serviceaccount", "default"]).map(drop)
        })?;
        Ok(cluster)
    }

    /// Waits until the node says that it is ready.
    ///
    /// # Errors
    /// When it does not.
    pub fn await_node(&self) -> Result<()> {
        self.until("the node", || {
            let node = self.get(&["node", NODE])?;
            let conditions = node["status"]["conditions"].as_array().context("conditions")?;
            let ready = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
            ensure!(ready, "{}", node["status"]["conditions"]);
            Ok(())
        })
    }

    /// The node loses its power and comes back: every process ends at once, its network and its mounts are gone, its
    /// disk is as it was.
    ///
    /// # Errors
    /// When it does not start again.
    pub fn power_cycle(&mut self) -> Result<()> {
        self.node.end()?;
        self.node = Machine::node(self.dir.path(), &programs(), &self.control, self.driver)?;
        Ok(())
    }

    /// Restarts containerd and the kubelet, as an upgrade of theirs does, on a node that systemd runs.
    ///
    /// # Errors
    /// With what systemd said.
    pub fn restart_services(&self) -> Result<()> {
        let mut systemctl = self.node.command("systemctl")?;
        let done = systemctl.args(["restart", "containerd", "kubelet"]).stdin(Stdio::null()).output()?;
        ensure!(done.status.success(), "systemctl: {}", String::from_utf8_lossy(&done.stderr).trim());
        // What the node is called until then is of before.
        let health = format!("/api/v1/nodes/{NODE}/proxy/healthz");
        self.until("the kubelet", || self.kubectl(&["get", "--raw", &health]).map(drop))?;
        self.await_node()
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    /// With what it said.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut kubectl = self.kubectl_command()?;
        let done = kubectl.args(words).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "kubectl {}: {}", words.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// kubectl, as the administrator.
    ///
    /// # Errors
    /// When the control plane has ended.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut kubectl = self.control.command("kubectl")?;
        kubectl.arg("--kubeconfig").arg(self.kubeconfig());
        Ok(kubectl)
    }

    /// The administrator's access.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("conf/admin")
    }

    /// What `kubectl get` says.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let all: Vec<&str> = ["get", "-o", "json"].into_iter().chain(words.iter().copied()).collect();
        serde_json::from_str(&self.kubectl(&all)?).context("kubectl's answer")
    }

    /// Applies objects.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let file = tempfile::NamedTempFile::new_in(self.dir.path())?;
        fs::write(file.path(), json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        self.kubectl(&["apply", "-f", &file.path().to_string_lossy()]).map(drop)
    }

    /// Asks Helm, by `tests/services/manifests.py`, about a release in a namespace.
    ///
    /// # Errors
    /// With what Helm said.
    pub fn helm(&self, namespace: &str, mut question: Value) -> Result<Value> {
        question["kubeconfig"] = json!(self.kubeconfig());
        question["namespace"] = json!(namespace);
        let python = self.control.command(&crate::manifests::python()?.to_string_lossy())?;
        let answers = crate::manifests::ask_by(python, &[question])?;
        let answer = answers.into_iter().next().context("an answer")?;
        match answer["error"].as_str() {
            Some(error) => bail!("helm: {error}"),
            None => Ok(answer),
        }
    }

    /// Brings an image to the node.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.ctr(&["--namespace", "k8s.io", "images", "import", &archive.to_string_lossy()]).map(drop)
    }

    fn ctr(&self, words: &[&str]) -> Result<String> {
        let done = self.node.command("ctr")?.args(words).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "ctr {}: {}", words.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// A file of the node's `/var`: `lib/tokenscope`.
    #[must_use]
    pub fn on_node(&self, path: &str) -> PathBuf {
        self.dir.path().join("node").join(path)
    }

    /// The process of this name on the node, by this host's number.
    ///
    /// # Errors
    /// When there is none.
    pub fn pid_of(&self, name: &str) -> Result<u32> {
        self.node.pid_of(name).with_context(|| format!("no {name} on the node"))
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// With the last reason why it did not, and what the kubelet said last.
    pub fn until<T>(&self, what: &str, mut holds: impl FnMut() -> Result<T>) -> Result<T> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let last = match holds() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if deadline.is_over() {
                return Err(last.context(format!("{what} did not come about\n{}", self.logs())));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The ends of the logs of all programs.
    #[must_use]
    pub fn logs(&self) -> String {
        let files = fs::read_dir(self.dir.path().join("log")).into_iter().flatten().flatten();
        let tail = |file: fs::DirEntry| {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n");
            format!("--- {}\n{last}", file.file_name().display())
        };
        files.map(tail).collect::<Vec<_>>().join("\n")
    }
}

/// Where the programs are.
fn programs() -> PathBuf {
    let told = std::env::var_os("TOKENSCOPE_TEST_CLUSTER");
    told.map_or_else(|| crate::workspace().join("target/cluster"), PathBuf::from).join("bin")
}
