//! Kernel programs from outside: which of them a process holds, whether they are still there, and programs of somebody
//! else beside them. All through `bpftool` and `/proc/PID/fdinfo`.

mod object;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::clock::Deadline;
use crate::server::find_program;

/// How long the kernel may take to free what nobody holds any more: it does so in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why this cannot be looked at here; none if it can.
#[must_use]
pub fn missing() -> Option<String> {
    find_program("bpftool").is_none().then(|| "bpftool is missing (apt-get install bpftool)".into())
}

/// Runs `bpftool` and returns what it printed.
fn bpftool(arguments: &[&str]) -> Result<String> {
    let program = find_program("bpftool").context("no bpftool")?;
    let done = Command::new(program).args(arguments).output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "bpftool {}: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What a process holds, by the kernel's own numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Programs.
    pub programs: BTreeSet<u64>,
    /// What attaches them.
    pub links: BTreeSet<u64>,
    /// Maps.
    pub maps: BTreeSet<u64>,
}

impl Held {
    /// What this process holds now: at least one program and one link.
    ///
    /// # Errors
    /// When it holds none, or nobody may look.
    pub fn by(pid: u32) -> Result<Self> {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be closed between the listing and the reading.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let number = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                line.trim().parse::<u64>().ok()
            };
            held.links.extend(number("link_id"));
            held.programs.extend(number("prog_id"));
            held.maps.extend(number("map_id"));
        }
        ensure!(!held.programs.is_empty() && !held.links.is_empty(), "{pid} holds {held:?}");
        Ok(held)
    }

    /// Waits until the kernel has freed it all.
    ///
    /// # Errors
    /// When something stays.
    pub fn until_gone(&self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let left = Self {
                programs: &self.programs & &all("prog")?,
                links: &self.links & &all("link")?,
                maps: &self.maps & &all("map")?,
            };
            if left == Self::default() {
                return Ok(());
            }
            ensure!(!deadline.is_over(), "still there: {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The numbers of everything of a kind that the kernel holds.
fn all(kind: &str) -> Result<BTreeSet<u64>> {
    let listed: Value = serde_json::from_str(&bpftool(&["--json", kind, "list"])?)?;
    let entries = listed.as_array().context("bpftool lists nothing")?;
    Ok(entries.iter().filter_map(|entry| entry.get("id")?.as_u64()).collect())
}

/// How somebody else attaches a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Beside others, as systemd does for its IP accounting (`BPF_F_ALLOW_MULTI`).
    Multi,
    /// Alone: nobody may attach another, not even below.
    Exclusive,
}

/// A program of somebody else's at a cgroup: it lets every packet pass. Attached without a link, as systemd does.
#[derive(Debug)]
pub struct Foreign {
    cgroup: PathBuf,
    mode: Mode,
    /// The directions that it sees.
    ways: &'static [&'static str],
    /// A BPF file system of its own.
    home: TempDir,
}

impl Foreign {
    /// Attaches it on ingress.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(cgroup: &Path, mode: Mode) -> Result<Self> {
        Self::attach_on(cgroup, mode, &["ingress"])
    }

    /// Attaches it on ingress and on egress, beside others.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_both(cgroup: &Path) -> Result<Self> {
        Self::attach_on(cgroup, Mode::Multi, &["ingress", "egress"])
    }

    fn attach_on(cgroup: &Path, mode: Mode, ways: &'static [&'static str]) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let object = home.path().join("pass.o");
        fs::write(&object, object::pass())?;
        let pins = home.path().join("pins");
        fs::create_dir(&pins)?;
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&pins).status()?;
        ensure!(mounted.success(), "mount -t bpf: {mounted}");
        let foreign = Self { cgroup: cgroup.to_owned(), mode, ways, home };
        bpftool(&["prog", "load", &text(&object), &foreign.pin()])?;
        foreign.command("attach")?;
        Ok(foreign)
    }

    fn command(&self, verb: &str) -> Result<()> {
        let (at, pin) = (text(&self.cgroup), self.pin());
        for way in self.ways {
            let mut arguments = vec!["cgroup", verb, &at, way, "pinned", &pin];
            arguments.extend((verb == "attach" && self.mode == Mode::Multi).then_some("multi"));
            bpftool(&arguments)?;
        }
        Ok(())
    }

    fn pin(&self) -> String {
        text(&self.home.path().join("pins/pass"))
    }

    /// Whether it still is: it can be taken off then, and is put back. To list what is attached takes a newer kernel
    /// than the oldest one.
    ///
    /// # Errors
    /// When it cannot be put back.
    pub fn is_attached(&self) -> Result<bool> {
        let there = self.command("detach").is_ok();
        self.command("attach")?;
        Ok(there)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.command("detach");
        let _ = Command::new("umount").arg(self.home.path().join("pins")).status();
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
