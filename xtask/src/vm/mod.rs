//! `cargo xtask vm`: the sensor on kernels of the past, each booted in a machine of its own, and on this host's.
//!
//! What runs inside is the lab's `guest` (`tests/src/guest/`): the capture tests, `doctor`, which capability is needed
//! for what, and what the sensor says where something is missing. What it measures is compared with the tables of
//! docs/kernels.md. Machines are emulated (QEMU's TCG), so that it works without nested virtualisation. One more is a whole
//! Debian, for what only a real systemd shows ([`debian`]).

mod boot;
mod debian;
mod initramfs;
pub(crate) mod kernel;
mod report;
mod tables;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::boot::Machine;
use self::kernel::{KERNELS, Source};
use self::report::Report;
use self::tables::Tables;
use crate::packages;
use crate::setup;
use crate::step::{cargo, now, root, say, step, target};

/// What the packages are for, as [`packages`] says it.
const PURPOSE: &str = "virtual machines";

/// The page with the tables.
const PAGE: &str = "docs/kernels.md";

/// What the user asks for.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to boot: 5.10, 6.1, 6.12, `systemd` for a whole Debian, or `host` for what runs here; all of them if none
    /// is named, with --quick but for systemd
    #[arg(value_name = "VERSION")]
    versions: Vec<String>,
    /// Of the capture tests, run only those that a kernel is most likely to fail, as the ordinary test command does
    #[arg(long)]
    quick: bool,
    /// Run these steps alone: names as they are shown, with hyphens for blanks and commas between them
    #[arg(long, value_name = "STEPS", default_value = "", hide_default_value = true)]
    only: String,
    /// Write what was measured into docs/kernels.md
    #[arg(long)]
    bless: bool,
    /// Fetch the newest packages of the kernels, even if there are some already
    #[arg(long)]
    update: bool,
    /// Fetch them from here instead of where this host's apt fetches from: releases of the past move to other servers
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

impl Arguments {
    /// What the ordinary test command asks for: every kernel, and `whole` every capture test.
    pub(crate) fn ordinary(whole: bool) -> Self {
        Self { quick: !whole, ..Self::default() }
    }
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    fn skip(&mut self, what: &str, why: &str) {
        say(&format!("  SKIPPED {what}: {why}"));
        self.skipped += 1;
    }
}

/// Runs the verb.
///
/// # Errors
/// When something failed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::install(PURPOSE)?;
    let count = matrix(arguments)?;
    say(&format!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped));
    if count.failed > 0 {
        bail!("{} failed", count.failed);
    }
    Ok(())
}

/// Boots what was asked for, all at once. What cannot be had here is skipped, loudly.
///
/// # Errors
/// When the version is unknown, or a program cannot be started.
pub(crate) fn matrix(arguments: &Arguments) -> Result<Count> {
    let chosen = chosen(&arguments.versions, arguments.quick)?;
    let mut count = Count::default();
    if !setup::is_done() {
        count.skip("the kernel matrix", "this build has no kernel half (`cargo xtask setup`)");
        return Ok(count);
    }
    let programs = Programs::build()?;
    let mut tables = Tables::read(&root().join(PAGE), arguments.bless)?;
    if !chosen.guests.is_empty() || chosen.systemd {
        match missing() {
            Some(why) => count.skip("the kernel matrix", &why),
            None => machines(&chosen, &programs, arguments, &mut tables, &mut count)?,
        }
    }
    if chosen.host {
        if packages::is_root() {
            let report = natively(&programs, &arguments.only)?;
            take(&report, &mut tables, &mut count);
        } else {
            count.skip("this host's kernel", "it takes root");
        }
    }
    tables.write()?;
    Ok(count)
}

/// Which machines, and whether this host too.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    guests: Vec<&'static Source>,
    systemd: bool,
    host: bool,
}

fn chosen(versions: &[String], quick: bool) -> Result<Chosen> {
    let known = |version: &&String| {
        *version == HOST || *version == debian::NAME || KERNELS.iter().any(|k| k.series == *version)
    };
    if let Some(unknown) = versions.iter().find(|version| !known(version)) {
        let all: Vec<&str> = KERNELS.iter().map(|kernel| kernel.series).collect();
        bail!("no kernel {unknown}: there are {}, `systemd` and `host`", all.join(", "));
    }
    let named = |name: &str| versions.iter().any(|version| version == name);
    let wanted = |name: &str| versions.is_empty() || named(name);
    let guests = KERNELS.iter().filter(|kernel| wanted(kernel.series)).collect();
    let systemd = if quick { named(debian::NAME) } else { wanted(debian::NAME) };
    Ok(Chosen { guests, systemd, host: wanted(HOST) })
}

/// How the kernel that runs here is asked for.
const HOST: &str = "host";

/// Why no machine can be booted here; none if one can.
fn missing() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("the kernels are those of x86-64".to_owned());
    }
    let needed = [boot::QEMU, initramfs::BUSYBOX, "ldd", "apt-get", "dpkg-deb"];
    let lacking = needed.into_iter().find(|program| !packages::is_there(program))?;
    Some(format!("{lacking} is missing (apt-get install qemu-system-x86 busybox-static)"))
}

/// Memory of a machine for a kernel, in MiB.
const MEMORY: u32 = 1536;

fn machines(
    chosen: &Chosen,
    programs: &Programs,
    arguments: &Arguments,
    tables: &mut Tables,
    count: &mut Count,
) -> Result<()> {
    let home = target().join("vm");
    std::fs::create_dir_all(&home)?;
    let disk = home.join("initramfs.cpio");
    initramfs::write(&disk, programs).context("make the initramfs")?;
    let mut machines = Vec::new();
    for source in &chosen.guests {
        match source.fetch(&home, arguments.update, arguments.mirror.as_deref()) {
            Ok(kernel) => {
                machines.push(Machine { name: source.series, kernel, disk: disk.clone(), memory: MEMORY });
            }
            Err(error) => count.skip(&format!("kernel {}", source.series), &format!("{error:#}")),
        }
    }
    if chosen.systemd {
        let made = match debian::missing() {
            Some(why) => Err(anyhow::Error::msg(why)),
            None => debian::machine(&home, programs, arguments),
        };
        match made {
            Ok(machine) => machines.push(machine),
            Err(error) => count.skip("the machine of systemd", &format!("{error:#}")),
        }
    }
    for (machine, report) in machines.iter().zip(boot_all(&machines, &home, arguments)) {
        let (report, took) = report?;
        report.show(&machine.kernel.release, took);
        take(&report, tables, count);
    }
    Ok(())
}

/// Boots them, as many at once as there are processors; gives what they told and how long they took, in their order.
fn boot_all(machines: &[Machine], home: &Path, arguments: &Arguments) -> Vec<Result<(Report, Duration)>> {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let boot = |machine: &Machine| {
        let began = now();
        boot::run(machine, home, arguments).map(|report| (report, began.elapsed()))
    };
    let mut reports = Vec::new();
    for together in machines.chunks(at_once) {
        std::thread::scope(|scope| {
            let booted: Vec<_> = together.iter().map(|machine| scope.spawn(move || boot(machine))).collect();
            for (machine, thread) in together.iter().zip(booted) {
                let joined = thread.join();
                reports.push(joined.unwrap_or_else(|_| bail!("the thread of {} ended", machine.name)));
            }
        });
    }
    reports
}

/// The same on the kernel that runs here.
fn natively(programs: &Programs, only: &str) -> Result<Report> {
    let began = now();
    let mut lab = Command::new(&programs.lab);
    lab.args(["guest", "--native"]);
    lab.env("TOKENSCOPE_BIN", &programs.sensor).env("TOKENSCOPE_GUEST_ONLY", only);
    let outcome = step("this host's kernel", &mut lab)?;
    let report = Report::read(&outcome.output);
    report.show("this host", began.elapsed());
    Ok(report)
}

/// Counts what a kernel showed and compares it with the page.
fn take(report: &Report, tables: &mut Tables, count: &mut Count) {
    count.passed += report.passed();
    count.failed += report.failed();
    count.skipped += report.skipped();
    let Some(series) = report.series() else { return };
    for difference in tables.take(&series, report.cells()) {
        say(&format!("  FAILED {PAGE}, kernel {series}: {difference}"));
        count.failed += 1;
    }
}

/// What runs in the machines.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The sensor.
    sensor: PathBuf,
    /// The capture tests.
    tests: PathBuf,
    /// The lab, whose `guest` runs it all.
    lab: PathBuf,
}

impl Programs {
    /// Builds them as the test suite does, so that nothing is built twice.
    fn build() -> Result<Self> {
        // Tests of these names, and with them every program of their packages.
        let arguments = ["test", "--workspace", "--no-run", "--test", "kernel", "--test", "host_life"];
        let built = step("build for machines", cargo(&arguments).args(["--message-format", "json"]))?;
        if !built.ok {
            bail!("the build failed");
        }
        let find = |name, kind| {
            let found = executable(&built.output, name, kind);
            found.with_context(|| format!("cargo names no {kind} called {name}"))
        };
        Ok(Self {
            sensor: find("tokenscope", "bin")?,
            tests: find("kernel", "test")?,
            lab: find("lab", "bin")?,
        })
    }

    fn all(&self) -> [(&'static str, &Path); 3] {
        [("tokenscope", &self.sensor), ("kernel", &self.tests), ("lab", &self.lab)]
    }
}

/// Where cargo put a program of this name and kind, by its messages.
fn executable(messages: &str, name: &str, kind: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|m| {
        let target = m.get("target")?;
        let fits = target.get("kind")?.as_array()?.iter().any(|is| is == kind) && target.get("name")? == name;
        fits.then(|| m.get("executable")?.as_str().map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_nobody_knows_is_refused() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(chosen(&names(&["4.19"]), false).unwrap_err().to_string().contains("5.10, 6.1, 6.12"));
        let one = chosen(&names(&["6.1"]), false).unwrap();
        assert_eq!((one.guests.len(), one.systemd, one.host), (1, false, false));
        let all = chosen(&[], false).unwrap();
        assert_eq!((all.guests.len(), all.systemd, all.host), (KERNELS.len(), true, true));
    }

    #[test]
    fn a_quick_run_leaves_systemd_out_unless_it_is_named() {
        assert!(!chosen(&[], true).unwrap().systemd);
        let named = chosen(&["systemd".to_owned()], true).unwrap();
        assert_eq!((named.guests.len(), named.systemd, named.host), (0, true, false));
    }

    #[test]
    fn the_test_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"kernel","kind":["lib"]},"executable":null}
   Compiling kernel
{"reason":"compiler-artifact","target":{"name":"kernel","kind":["test"]},"executable":"/t/kernel-1"}"#;
        assert_eq!(executable(messages, "kernel", "test"), Some(PathBuf::from("/t/kernel-1")));
        assert_eq!(executable(messages, "kernel", "bin"), None);
    }
}
