//! One machine: started, waited for, ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Arguments;
use super::kernel::Kernel;
use super::report::Report;
use crate::step::{now, say};

/// The emulator.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// Longest a machine may run: half an hour more than the whole takes on two idle cores that two of them share. Most of
/// that goes to verifiers: each capture test loads programs of its own, which takes an emulated kernel before 6.12 five
/// to ten seconds.
const PATIENCE: Duration = Duration::from_mins(45);

/// Longest a machine may be silent: it tells of every step, and of every test in one, and none takes a minute on idle
/// cores.
const SILENCE: Duration = Duration::from_mins(10);

/// How often it is looked whether the machine has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Lines of the console that are shown when a machine does not end as it should.
const SHOWN: usize = 30;

/// What to boot.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its name, as it is asked for and as its logs are called.
    pub(super) name: &'static str,
    /// What runs it.
    pub(super) kernel: Kernel,
    /// Its first file system.
    pub(super) disk: PathBuf,
    /// Its memory in MiB: at first the file system is there twice, packed and unpacked.
    pub(super) memory: u32,
}

/// Boots the machine and returns what the guest told. Logs lie in `home`.
pub(super) fn run(machine: &Machine, home: &Path, arguments: &Arguments) -> Result<Report> {
    let Machine { name, kernel, disk, memory } = machine;
    let log = |what: &str| home.join(format!("{name}.{what}.log"));
    let (console, told) = (log("console"), log("told"));
    let serial = |file: &Path| format!("file:{}", file.display());
    let (only, quick) = (&arguments.only, u8::from(arguments.quick));
    let wishes = format!("TOKENSCOPE_GUEST_ONLY={only} TOKENSCOPE_GUEST_QUICK={quick}");
    let mut qemu = Command::new(QEMU);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", &memory.to_string()])
        .args(["-display", "none", "-nic", "none", "-no-reboot", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(disk)
        // What the kernel does not know, it gives to the first process as its environment.
        .args(["-append", &format!("console=ttyS0 quiet panic=-1 rdinit=/init {wishes}")])
        .args(["-serial", &serial(&console), "-serial", &serial(&told)])
        .stdin(Stdio::null())
        .stdout(File::create(log("qemu"))?)
        .stderr(File::create(log("qemu-errors"))?);
    let _ = fs::remove_file(&told);
    let ended = wait(qemu.spawn().context(QEMU)?, &[&console, &told])?;
    let text = String::from_utf8_lossy(&fs::read(&told).unwrap_or_default()).into_owned();
    let report = Report::read(&text);
    if !(ended && report.is_whole()) {
        say(&format!("         machine {name} did not end as it should:"));
        let shown = fs::read(&console).unwrap_or_default();
        let shown = String::from_utf8_lossy(&shown);
        let lines: Vec<&str> = shown.lines().collect();
        say(&lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n"));
        say(&format!("         all of it: {}", console.display()));
    }
    Ok(report)
}

/// Waits until the machine ends; ends it when it takes too long, or adds nothing to these logs for too long.
fn wait(mut machine: Child, logs: &[&Path]) -> Result<bool> {
    let said = || logs.iter().map(|log| fs::metadata(log).map_or(0, |log| log.len())).sum::<u64>();
    let (began, mut heard, mut told) = (now(), now(), said());
    loop {
        if machine.try_wait()?.is_some() {
            return Ok(true);
        }
        let told_now = said();
        if told_now != told {
            (heard, told) = (now(), told_now);
        }
        if began.elapsed() > PATIENCE || heard.elapsed() > SILENCE {
            machine.kill()?;
            machine.wait()?;
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}
