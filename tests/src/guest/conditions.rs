//! Hosts that lack something or forbid something: a clear refusal with its remedy, or no difference.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::scene::Scene;
use super::tell::{Told, cell};
use super::{CGROUPS, CONDITIONS, doctor, mount, run_program};
use crate::clock;
use crate::mint::Mint;
use crate::sensor::{self, Config, Sensor};

/// Nothing is mounted there yet.
pub(super) fn no_cgroup2() -> Result<Told> {
    refused(&["cgroup v2", "mount -t cgroup2"])?;
    cell(CONDITIONS, "no cgroup v2 mounted", "refused, with the remedy");
    Ok(Told::Done)
}

/// Version 1 alone, as old distributions mount it.
pub(super) fn cgroup1_alone() -> Result<Told> {
    let cpu = Path::new(CGROUPS).join("cpu");
    mount(&["-t", "tmpfs", "tmpfs", CGROUPS])?;
    fs::create_dir(&cpu)?;
    mount(&["-t", "cgroup", "-o", "cpu", "cgroup", &cpu.to_string_lossy()])?;
    let told = refused(&["cgroup v1", "mount -t cgroup2", "systemd.unified_cgroup_hierarchy"]);
    run_program("umount", &[&cpu.to_string_lossy()])?;
    run_program("umount", &[CGROUPS])?;
    told?;
    cell(CONDITIONS, "cgroup v1 alone", "refused, with the remedy");
    Ok(Told::Done)
}

/// The sensor does not start and says these words; doctor says what to do.
fn refused(words: &[&str]) -> Result<()> {
    let config = Config::new(&Mint::at(clock::now())?)?;
    let Err(error) = Sensor::start_by(sensor::command()?, &config, &["-o", "json"]) else {
        bail!("it starts")
    };
    let said = format!("{error:#}");
    for word in words {
        ensure!(said.contains(word), "no {word:?} in: {said}");
    }
    let check = doctor::check("cgroup v2")?;
    ensure!(check.failed() && check.remedy().contains("mount -t cgroup2"), "{check:?}");
    Ok(())
}

/// The sensor reads no layout of the kernel's, so it needs no description of it.
pub(super) fn no_btf() -> Result<Told> {
    const BTF: &str = "/sys/kernel/btf";
    mount(&["-t", "tmpfs", "tmpfs", BTF])?;
    let seen = Scene::new()?.play(sensor::command()?);
    run_program("umount", &[BTF])?;
    seen?;
    cell(CONDITIONS, "no /sys/kernel/btf/vmlinux", "works");
    Ok(Told::Done)
}

/// What hardening guides ask for; neither can be taken back before the next boot.
pub(super) fn unprivileged() -> Result<Told> {
    fs::write("/proc/sys/kernel/unprivileged_bpf_disabled", "1")?;
    fs::write("/proc/sys/net/core/bpf_jit_harden", "2")?;
    Scene::new()?.play(sensor::command()?)?;
    cell(CONDITIONS, "kernel.unprivileged_bpf_disabled=1, net.core.bpf_jit_harden=2", "works");
    Ok(Told::Done)
}

pub(super) fn lockdown_integrity() -> Result<Told> {
    lockdown("integrity")
}

pub(super) fn lockdown_confidentiality() -> Result<Told> {
    lockdown("confidentiality")
}

/// As the kernel's parameter `lockdown=` does it.
fn lockdown(level: &str) -> Result<Told> {
    const SWITCH: &str = "/sys/kernel/security/lockdown";
    if !Path::new(SWITCH).exists() {
        return Ok(Told::Skipped("this kernel has no lockdown".to_owned()));
    }
    fs::write(SWITCH, level)?;
    ensure!(fs::read_to_string(SWITCH)?.contains(&format!("[{level}]")), "it is not locked down");
    Scene::new()?.play(sensor::command()?)?;
    cell(CONDITIONS, &format!("lockdown={level}"), "works");
    Ok(Told::Done)
}
