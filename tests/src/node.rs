//! A node of a cluster, without a cluster: containerd of its own, a bridge by CNI plugins, and pods as the kubelet makes
//! them, in cgroups and network namespaces of their own.
//!
//! All of its network is inside one namespace, bridge and NAT rules too, so that nothing of the host's is touched and
//! nothing is left. Containers see the host's `/usr`; no image is fetched.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock::Deadline;
use crate::server::find_program;
use crate::workspace;

/// Where Debian keeps the plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";

/// The node's own address, as a machine outside sees it.
pub const NODE: &str = "192.0.2.1";
/// The node's address on the bridge of its pods.
pub const BRIDGE: &str = "10.213.0.1";
/// A machine outside of the node.
pub const OUTSIDE: &str = "192.0.2.2";

/// Longest that containerd and containers may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// How the kubelet names cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods.slice/.../cri-containerd-ID.scope`
    Systemd,
    /// `kubepods/besteffort/podUID/ID`
    Cgroupfs,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running node. Dropping it takes all of it away.
#[derive(Debug)]
pub struct Node {
    dir: TempDir,
    containerd: Child,
    /// Which of this process's nodes it is.
    number: u32,
    /// What makes names on this host its own.
    tag: String,
    spaces: Mutex<Vec<String>>,
    containers: Mutex<Vec<(String, String)>>,
    pods: Mutex<u32>,
}

/// A pod: a network namespace with an address, and a place for the cgroups of its containers.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its UID.
    pub uid: String,
    /// Its address on the bridge.
    pub address: IpAddr,
    space: String,
    driver: Driver,
}

/// What a container runs.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Files that lie in `/data`.
    pub files: Vec<(String, String)>,
}

impl Node {
    /// Why there can be none here; none if there can.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !crate::is_root() {
            return Some("a node needs root".into());
        }
        let programs =
            [("ip", "iproute2"), ("iptables", "iptables"), ("runc", "runc"), ("containerd", "containerd")];
        let plugin = Path::new(PLUGINS).join("bridge");
        let package =
            programs.iter().find(|(program, _)| find_program(program).is_none()).map(|(_, package)| *package);
        let package = package.or_else(|| (!plugin.exists()).then_some("containernetworking-plugins"));
        package.map(|package| format!("{package} is not installed (apt-get install {package})"))
    }

    /// Starts containerd and builds the node's network.
    ///
    /// # Errors
    /// When a step fails, with what it said.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("node-").tempdir()?;
        let place = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
            place("root"),
            place("state"),
            place("socket"),
            place("socket.ttrpc"),
            place("opt"),
        );
        fs::write(dir.path().join("config.toml"), config)?;
        let log = fs::File::create(dir.path().join("log"))?;
        let containerd = Command::new(program("containerd")?)
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed) % 0x100;
        let tag = format!("{}-{number}", std::process::id());
        let mut node = Self {
            number,
            dir,
            containerd,
            tag,
            spaces: Mutex::default(),
            containers: Mutex::default(),
            pods: Mutex::default(),
        };
        node.await_containerd()?;
        node.build_network()?;
        Ok(node)
    }

    fn await_containerd(&mut self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        while self.ctr(&["version"]).is_err() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if let Some(status) = self.containerd.try_wait()? {
                bail!("containerd ended at once ({status}): {}", log());
            }
            ensure!(!deadline.is_over(), "containerd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The node's namespace, and a machine outside that is joined to it by a wire.
    fn build_network(&self) -> Result<()> {
        let (node, outside) = (self.space("node")?, self.space("outside")?);
        ip(&format!("-n {node} link add out type veth peer name eth0 netns {outside}"))?;
        for (space, end, address) in [(&node, "out", NODE), (&outside, "eth0", OUTSIDE)] {
            ip(&format!("-n {space} addr add {address}/24 dev {end}"))?;
            ip(&format!("-n {space} link set {end} up"))?;
        }
        ip(&format!("-n {outside} route add default via {NODE}"))
    }

    /// Makes a network namespace with loopback up and returns its name.
    fn space(&self, what: &str) -> Result<String> {
        let name = format!("lab-{what}-{}", self.tag);
        ip(&format!("netns add {name}"))?;
        lock(&self.spaces)?.push(name.clone());
        ip(&format!("-n {name} link set lo up"))?;
        Ok(name)
    }

    /// Loads an image from an archive and returns the name by which containerd knows it.
    ///
    /// # Errors
    /// When it is refused.
    pub fn load(&self, archive: &Path) -> Result<String> {
        self.ctr(&["images", "import", "--snapshotter", "native", &archive.to_string_lossy()])?;
        let names = self.ctr(&["images", "list", "--quiet"])?;
        names.lines().next().map(str::to_owned).context("the archive holds no image")
    }

    /// Makes a pod; of each pair, the node forwards the first port to the second in the pod.
    ///
    /// # Errors
    /// When a plugin fails, with what it said.
    pub fn pod(&self, driver: Driver, ports: &[(u16, u16)]) -> Result<Pod> {
        let number = {
            let mut pods = lock(&self.pods)?;
            *pods += 1;
            *pods
        };
        let space = self.space(&format!("pod{number}"))?;
        let bridge = json!({
            "cniVersion": "0.4.0", "name": "lab", "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipMasq": true,
            "ipam": {"type": "host-local", "subnet": "10.213.0.0/24", "dataDir": self.dir.path().join("cni"),
                "routes": [{"dst": "0.0.0.0/0"}]},
        });
        let made = self.plugin(&space, &bridge)?;
        let text = made.pointer("/ips/0/address").and_then(Value::as_str).unwrap_or_default();
        let address = text.split('/').next().unwrap_or_default().parse().context("a pod's address")?;
        if !ports.is_empty() {
            let mapping =
                |(host, pod): &(u16, u16)| json!({"hostPort": host, "containerPort": pod, "protocol": "tcp"});
            let map = json!({
                "cniVersion": "0.4.0", "name": "lab", "type": "portmap", "prevResult": made,
                "runtimeConfig": {"portMappings": ports.iter().map(mapping).collect::<Vec<_>>()},
            });
            self.plugin(&space, &map)?;
        }
        let uid =
            format!("0f3c2a1e-9b7d-4c55-8f10-{:08x}{:02x}{number:02x}", std::process::id(), self.number);
        Ok(Pod { uid, address, space, driver })
    }

    /// Runs a CNI plugin's ADD on the node (CNI specification 0.4.0, section "Parameters").
    fn plugin(&self, space: &str, config: &Value) -> Result<Value> {
        let kind = config.get("type").and_then(Value::as_str).unwrap_or_default();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &format!("lab-node-{}", self.tag)])
            .arg(Path::new(PLUGINS).join(kind))
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", space)
            .env("CNI_NETNS", format!("/run/netns/{space}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("the plugin's stdin")?.write_all(config.to_string().as_bytes())?;
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        ensure!(done.status.success(), "{kind}: {said}{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_str(&said).with_context(|| said.into_owned())
    }

    /// Starts a container in a pod and returns its id; the program sees the host's `/usr`, the sample services in
    /// `/srv`, and its files in `/data`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(&self, pod: &Pod, what: &Program) -> Result<String> {
        let id = self.next_id(pod)?;
        let root = self.dir.path().join("roots").join(&id);
        skeleton(&root)?;
        for (name, text) in &what.files {
            fs::write(root.join("data").join(name), text)?;
        }
        let mut words: Vec<String> = ["run", "--detach", "--rootfs"].map(str::to_owned).into();
        words.extend(self.places(pod, &id));
        words.push(format!("--log-uri=file://{}", self.log(&id).display()));
        words.push("--mount=type=bind,src=/usr,dst=/usr,options=rbind:ro".to_owned());
        let services = workspace().join("tests/services");
        words.push(format!("--mount=type=bind,src={},dst=/srv,options=rbind:ro", services.display()));
        words.extend(what.environment.iter().map(|pair| format!("--env={pair}")));
        words.extend([root.to_string_lossy().into_owned(), id.clone()]);
        words.extend(what.words.iter().cloned());
        self.ctr(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(id)
    }

    /// A command that runs a container of an image in a pod and passes its output on, with these more flags.
    ///
    /// # Errors
    /// When no command can be made.
    pub fn foreground(&self, pod: &Pod, image: &str, flags: &[String], words: &[&str]) -> Result<Command> {
        let id = self.next_id(pod)?;
        let mut command = self.client()?;
        command.args(["run", "--snapshotter", "native"]).args(self.places(pod, &id)).args(flags);
        command.arg(image).arg(&id).args(words);
        Ok(command)
    }

    /// What a container printed.
    #[must_use]
    pub fn said(&self, id: &str) -> String {
        fs::read_to_string(self.log(id)).unwrap_or_default()
    }

    fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    /// An id as containerd's CRI makes them: 64 hexadecimal digits.
    fn next_id(&self, pod: &Pod) -> Result<String> {
        let mut containers = lock(&self.containers)?;
        let (process, count) = (std::process::id(), containers.len());
        let id = format!("{:048x}{process:08x}{:04x}{count:04x}", 0x7e57_u32, self.number);
        containers.push((id.clone(), pod.cgroup(&id)));
        Ok(id)
    }

    /// The flags that put a container into its pod.
    fn places(&self, pod: &Pod, id: &str) -> [String; 3] {
        [
            format!("--with-ns=network:/run/netns/{}", pod.space),
            format!("--cgroup={}", pod.cgroup(id)),
            format!("--fifo-dir={}", self.dir.path().join("fifo").display()),
        ]
    }

    /// Does something in a pod's network namespace.
    ///
    /// # Errors
    /// When it cannot be entered, or what `run` says.
    pub fn inside<T: Send>(&self, pod: &Pod, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&pod.space, run)
    }

    /// Does something on the node, as the kubelet does.
    ///
    /// # Errors
    /// As [`Node::inside`].
    pub fn here<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&format!("lab-node-{}", self.tag), run)
    }

    /// Does something on the machine outside.
    ///
    /// # Errors
    /// As [`Node::inside`].
    pub fn outside<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&format!("lab-outside-{}", self.tag), run)
    }

    fn client(&self) -> Result<Command> {
        let mut ctr = Command::new(program("ctr")?);
        ctr.arg("--address").arg(self.dir.path().join("socket"));
        Ok(ctr)
    }

    fn ctr(&self, words: &[&str]) -> Result<String> {
        let done = self.client()?.args(words).stdin(Stdio::null()).output().context("run ctr")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "ctr {}: {}", words.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

impl Pod {
    /// Where the kubelet would put this container.
    fn cgroup(&self, id: &str) -> String {
        match self.driver {
            Driver::Systemd => {
                let uid = self.uid.replace('-', "_");
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice/cri-containerd-{id}.scope"
                )
            }
            Driver::Cgroupfs => format!("/kubepods/besteffort/pod{}/{id}", self.uid),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let containers = self.containers.get_mut().map(std::mem::take).unwrap_or_default();
        for (id, _) in &containers {
            let _ = self.ctr(&["tasks", "delete", "--force", id]);
            let _ = self.ctr(&["containers", "delete", id]);
        }
        let _ = crate::sensor::signal(self.containerd.id());
        let deadline = Deadline::after(Duration::from_secs(10));
        while matches!(self.containerd.try_wait(), Ok(None)) {
            if deadline.is_over() {
                let _ = self.containerd.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for (_, cgroup) in &containers {
            forget(cgroup);
        }
        for space in self.spaces.get_mut().map(std::mem::take).unwrap_or_default() {
            let _ = ip(&format!("netns del {space}"));
        }
        // The shims' sockets lay there, beside those of the host's own containerd if there is one.
        let shared = Path::new("/run/containerd");
        if !shared.join("containerd.sock").exists() {
            for dir in ["s", "fifo", "runc/default", "runc", ""] {
                let _ = fs::remove_dir(shared.join(dir));
            }
        }
    }
}

/// Removes what is empty of a cgroup's path, in every hierarchy: runc removes the last part only.
pub(crate) fn forget(cgroup: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let roots = fields.filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")));
    for root in roots.filter_map(|fields| fields.get(1).map(PathBuf::from)) {
        let mut path = cgroup.trim_start_matches('/');
        while !path.is_empty()
            && !matches!(fs::remove_dir(root.join(path)), Err(e) if e.kind() != std::io::ErrorKind::NotFound)
        {
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
}

/// The directories of a container that sees the host's programs.
pub(crate) fn skeleton(root: &Path) -> Result<()> {
    for name in ["usr", "proc", "dev", "sys", "tmp", "srv", "etc", "data", "run"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    Ok(fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?)
}

/// Runs something on a thread in a network namespace.
pub(crate) fn within<T: Send>(space: &str, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = fs::File::open(format!("/run/netns/{space}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            run()
        });
        thread.join().map_err(|_panic| anyhow!("a thread in {space} panicked"))?
    })
}

pub(crate) fn program(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("{name} is not installed"))
}

fn lock<T>(mutex: &Mutex<T>) -> Result<std::sync::MutexGuard<'_, T>> {
    mutex.lock().map_err(|_poisoned| anyhow!("another thread panicked"))
}

pub(crate) fn ip(words: &str) -> Result<()> {
    let done = Command::new("ip").args(words.split(' ')).output().context("run ip")?;
    ensure!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
