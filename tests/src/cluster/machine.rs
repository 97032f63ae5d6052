//! A machine of a cluster: a network namespace, PIDs, and for a node mounts and a part of the cgroup trees.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::clock::Deadline;
use crate::node::{Driver, OUTSIDE};
use crate::server::find_program;

/// Longest for a namespace to come or go.
const PATIENCE: Duration = Duration::from_mins(1);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running machine; it ends with the thread that started it, if not before.
#[derive(Debug)]
pub(super) struct Machine {
    /// `unshare`, which is in the namespaces itself, but for that of PIDs.
    child: Child,
    /// Its part of every cgroup tree.
    cgroup: Option<String>,
}

impl Machine {
    /// The control plane's, at 192.0.2.2.
    pub(super) fn control(dir: &Path, programs: &Path) -> Result<Self> {
        let mut machine = Self::boot(include_str!("control.sh"), dir, programs, None)?;
        machine.go()?;
        Ok(machine)
    }

    /// A node, at 192.0.2.1, joined to the control plane. By systemd's driver, systemd is its first process.
    pub(super) fn node(dir: &Path, programs: &Path, control: &Self, driver: Driver) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("lab-{}-{number}", std::process::id());
        make_cgroups(&cgroup)?;
        let script = match driver {
            Driver::Cgroupfs => concat!(include_str!("node.sh"), include_str!("node-cgroupfs.sh")),
            Driver::Systemd => concat!(
                include_str!("own-cgroups.sh"),
                include_str!("node.sh"),
                include_str!("node-systemd.sh")
            ),
        };
        let mut machine = Self::boot(script, dir, programs, Some(cgroup))?;
        let (here, there) = (machine.child.id(), control.child.id());
        let inside = |pid: u32, words: &str| run(&mut within(pid, "ip")?, words);
        // The wire of a node that was here before: the kernel takes it away in the background.
        let _ = inside(there, "link del eth0");
        inside(here, &format!("link add eth0 type veth peer name eth0 netns {there}"))?;
        for (pid, address, gateway) in
            [(here, crate::node::NODE, OUTSIDE), (there, OUTSIDE, crate::node::NODE)]
        {
            inside(pid, &format!("addr add {address}/24 dev eth0"))?;
            inside(pid, "link set eth0 up")?;
            inside(pid, &format!("route add default via {gateway}"))?;
        }
        machine.go()?;
        Ok(machine)
    }

    /// Makes the namespaces, with a script as their first process, which waits for a line.
    fn boot(script: &str, dir: &Path, programs: &Path, cgroup: Option<String>) -> Result<Self> {
        let log = fs::File::create(dir.join("log/machine.log"))?;
        let child = Command::new("setpriv")
            .args([
                // systemd does not look at its stdin.
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "bash",
                "-c",
                script,
            ])
            .env("DIR", dir)
            .env("PROGRAMS", programs)
            .env("CGROUP", format!("/{}", cgroup.as_deref().unwrap_or_default()))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start unshare")?;
        let mut machine = Self { child, cgroup };
        machine.await_namespaces()?;
        run(&mut within(machine.child.id(), "ip")?, "link set lo up")?;
        Ok(machine)
    }

    fn await_namespaces(&mut self) -> Result<()> {
        let own = fs::read_link("/proc/self/ns/net")?;
        let deadline = Deadline::after(PATIENCE);
        while self.first().is_none() || fs::read_link(format!("/proc/{}/ns/net", self.child.id()))? == own {
            if let Some(status) = self.child.try_wait()? {
                bail!("unshare ended at once ({status})");
            }
            ensure!(!deadline.is_over(), "no namespaces");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn go(&mut self) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("the machine's stdin")?.write_all(b"go\n")?)
    }

    /// The first process of the machine.
    fn first(&self) -> Option<u32> {
        let pid = self.child.id();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// A process in its part of the cgroup trees.
    pub(super) fn pid_of(&self, name: &str) -> Option<u32> {
        let ours = format!("/{}/", self.cgroup.as_deref()?);
        let of = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let pids = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|pid| of(*pid, "comm").trim() == name && of(*pid, "cgroup").contains(&ours))
    }

    /// A program on this machine.
    pub(super) fn command(&self, name: &str) -> Result<Command> {
        let program = find_program(name).unwrap_or_else(|| PathBuf::from(name));
        let first = self.first().context("the machine has ended")?;
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--pid", "--target", &first.to_string()]).arg(program);
        Ok(command)
    }

    /// Ends every process of it at once, and waits for their end.
    pub(super) fn end(&mut self) -> Result<()> {
        // The kernel ends all others of its PID namespace with the first one.
        let _ = self.child.kill();
        self.child.wait()?;
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        let deadline = Deadline::after(PATIENCE);
        while !remove_cgroups(cgroup) {
            ensure!(!deadline.is_over(), "something still runs in {cgroup}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A program in the network namespace of a process.
fn within(pid: u32, name: &str) -> Result<Command> {
    let mut command = Command::new("nsenter");
    let program = find_program(name).with_context(|| format!("{name} is not installed"))?;
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg(program);
    Ok(command)
}

fn run(command: &mut Command, words: &str) -> Result<()> {
    let done = command.args(words.split(' ')).output()?;
    ensure!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// Where cgroup trees are mounted, of either version.
fn roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let cgroups = fields.filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")));
    cgroups.filter_map(|fields| fields.get(1).map(PathBuf::from)).collect()
}

/// The kubelet wants its part of the trees to be there.
fn make_cgroups(name: &str) -> Result<()> {
    for root in roots() {
        let cgroup = root.join(name);
        fs::create_dir_all(&cgroup)?;
        // A set of processors begins empty, in version 1.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(root.join(file)) {
                fs::write(cgroup.join(file), value)?;
            }
        }
    }
    Ok(())
}

/// Whether nothing is left of it.
fn remove_cgroups(name: &str) -> bool {
    let mut left = false;
    for root in roots() {
        remove_below(&root.join(name));
        left |= root.join(name).exists();
    }
    !left
}

/// A cgroup is removed as a directory, once it is empty of processes and others.
fn remove_below(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
