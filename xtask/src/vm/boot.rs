//! One machine: started, waited for, ended.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Arguments;
use super::kernel::Kernel;
use super::report::Report;
use crate::step::{now, say};

/// The emulator.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// Memory of a machine: half of it is the initramfs, twice, while it is unpacked.
const MEMORY: &str = "1536";

/// Longest a machine may run. On two idle cores it takes about one minute; on busy ones, as long as they let it.
const PATIENCE: Duration = Duration::from_mins(20);

/// How often it is looked whether the machine has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Lines of the console that are shown when a machine does not end as it should.
const SHOWN: usize = 30;

/// Boots the kernel and returns what the guest told. Logs stay beside the archive.
pub(super) fn run(kernel: &Kernel, disk: &Path, home: &Path, arguments: &Arguments) -> Result<Report> {
    let log = |what: &str| home.join(format!("{}.{what}.log", kernel.series));
    let (console, told) = (log("console"), log("told"));
    let serial = |file: &Path| format!("file:{}", file.display());
    let (only, quick) = (&arguments.only, u8::from(arguments.quick));
    let wishes = format!("TOKENSCOPE_GUEST_ONLY={only} TOKENSCOPE_GUEST_QUICK={quick}");
    let mut qemu = Command::new(QEMU);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY])
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
    let ended = wait(qemu.spawn().context(QEMU)?, PATIENCE)?;
    let text = String::from_utf8_lossy(&fs::read(&told).unwrap_or_default()).into_owned();
    let report = Report::read(&text);
    if !(ended && report.is_whole()) {
        say(&format!("         kernel {} did not end as it should:", kernel.release));
        let shown = fs::read(&console).unwrap_or_default();
        let shown = String::from_utf8_lossy(&shown);
        let lines: Vec<&str> = shown.lines().collect();
        say(&lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n"));
        say(&format!("         all of it: {}", console.display()));
    }
    Ok(report)
}

/// Waits until the machine ends; ends it when it takes too long.
fn wait(mut machine: Child, patience: Duration) -> Result<bool> {
    let began = now();
    loop {
        if machine.try_wait()?.is_some() {
            return Ok(true);
        }
        if began.elapsed() > patience {
            machine.kill()?;
            machine.wait()?;
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}
