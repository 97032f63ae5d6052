//! `cargo xtask vm`: the sensor on kernels of the past, each booted in a machine of its own, and on this host's.
//!
//! What runs inside is the lab's `guest` (`tests/src/guest/`): the capture tests, `doctor`, which capability is needed
//! for what, and what the sensor says where something is missing. What it measures is compared with the tables of
//! docs/kernels.md. Machines are emulated (QEMU's TCG), so that it works without nested virtualisation.

mod boot;
mod initramfs;
pub(crate) mod kernel;
mod report;
mod tables;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

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
    /// Kernels to boot: 5.10, 6.1, 6.12, or `host` for the one that runs here; all of them if none is named
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
    let chosen = chosen(&arguments.versions)?;
    let mut count = Count::default();
    if !setup::is_done() {
        count.skip("the kernel matrix", "this build has no kernel half (`cargo xtask setup`)");
        return Ok(count);
    }
    let programs = Programs::build()?;
    let mut tables = Tables::read(&root().join(PAGE), arguments.bless)?;
    if !chosen.guests.is_empty() {
        match missing() {
            Some(why) => count.skip("the kernel matrix", &why),
            None => machines(&chosen.guests, &programs, arguments, &mut tables, &mut count)?,
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
    host: bool,
}

fn chosen(versions: &[String]) -> Result<Chosen> {
    let known = |version: &&String| *version == "host" || KERNELS.iter().any(|k| k.series == *version);
    if let Some(unknown) = versions.iter().find(|version| !known(version)) {
        let all: Vec<&str> = KERNELS.iter().map(|kernel| kernel.series).collect();
        bail!("no kernel {unknown}: there are {} and `host`", all.join(", "));
    }
    let wanted = |name: &str| versions.is_empty() || versions.iter().any(|version| version == name);
    let guests = KERNELS.iter().filter(|kernel| wanted(kernel.series)).collect();
    Ok(Chosen { guests, host: wanted("host") })
}

/// Why no machine can be booted here; none if one can.
fn missing() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("the kernels are those of x86-64".to_owned());
    }
    let needed = [boot::QEMU, initramfs::BUSYBOX, "ldd", "apt-get", "dpkg-deb"];
    let lacking = needed.into_iter().find(|program| !packages::is_there(program))?;
    Some(format!("{lacking} is missing (apt-get install qemu-system-x86 busybox-static)"))
}

fn machines(
    sources: &[&Source],
    programs: &Programs,
    arguments: &Arguments,
    tables: &mut Tables,
    count: &mut Count,
) -> Result<()> {
    let home = target().join("vm");
    std::fs::create_dir_all(&home)?;
    let disk = home.join("initramfs.cpio");
    initramfs::write(&disk, programs).context("make the initramfs")?;
    let mut kernels = Vec::new();
    for source in sources {
        match source.fetch(&home, arguments.update, arguments.mirror.as_deref()) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => count.skip(&format!("kernel {}", source.series), &format!("{error:#}")),
        }
    }
    // Emulated machines keep less than one processor busy each.
    let reports = std::thread::scope(|scope| {
        let boot = |kernel| {
            let (disk, home) = (&disk, &home);
            scope.spawn(move || {
                let began = now();
                boot::run(kernel, disk, home, arguments).map(|report| (report, began.elapsed()))
            })
        };
        let booted: Vec<_> = kernels.iter().map(boot).collect();
        booted.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for (kernel, report) in kernels.iter().zip(reports) {
        let (report, took) = report.unwrap_or_else(|_| bail!("the thread of {} ended", kernel.release))?;
        report.show(&kernel.release, took);
        take(&report, tables, count);
    }
    Ok(())
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
        assert!(chosen(&names(&["4.19"])).unwrap_err().to_string().contains("5.10, 6.1, 6.12"));
        let one = chosen(&names(&["6.1"])).unwrap();
        assert_eq!((one.guests.len(), one.host), (1, false));
        let all = chosen(&[]).unwrap();
        assert_eq!((all.guests.len(), all.host), (KERNELS.len(), true));
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
