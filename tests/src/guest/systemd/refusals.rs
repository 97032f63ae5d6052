//! Real denials, by `AppArmor` and by a filter of system calls: what is said at the start, and by doctor.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::super::doctor;
use super::super::tell::{Told, cell};
use super::host::{DropIn, UNIT, journal, state};
use super::{SYSTEMD, run_program};

/// Allows everything but what loading takes; `CAP_SYS_ADMIN` would do in its place.
const PROFILE: &str = "\
profile tokenscope-without-bpf flags=(attach_disconnected) {
  file,
  network,
  signal,
  ptrace,
  unix,
  mount,
  capability,
  deny capability bpf,
  deny capability sys_admin,
}
";

/// Its name.
const NAME: &str = "tokenscope-without-bpf";

/// A profile that denies `bpf`: the start and doctor name it.
pub(in super::super) fn apparmor() -> Result<Told> {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if enabled.trim() != "Y" {
        return Ok(Told::Skipped("AppArmor is not enabled".to_owned()));
    }
    let file = Path::new("/tmp/profile");
    fs::write(file, PROFILE)?;
    run_program("apparmor_parser", &["--replace", "--skip-cache", &file.to_string_lossy()])?;
    refused(&format!("AppArmorProfile={NAME}"), &format!("the security profile `{NAME}` may deny it"))?;
    let mut confined = Command::new("aa-exec");
    confined.args(["-p", NAME, "--"]).arg(crate::sensor::binary()?);
    let checks = doctor::checks(confined)?;
    let failed: Vec<_> = checks.iter().filter(|check| check.failed()).collect();
    ensure!(failed.iter().any(|check| check.remedy().contains(NAME)), "{checks:?}");
    run_program("apparmor_parser", &["--remove", &file.to_string_lossy()])?;
    cell(SYSTEMD, "AppArmor profile that denies `capability bpf`", "refused, with the remedy");
    Ok(Told::Done)
}

/// A filter without bpf(2).
pub(in super::super) fn seccomp() -> Result<Told> {
    refused("SystemCallFilter=~bpf", "the seccomp profile must allow bpf(2)")?;
    cell(SYSTEMD, "system call filter without `bpf`", "refused, with the remedy");
    Ok(Told::Done)
}

/// With this line in its unit the service does not start and says these words; without it, it does.
fn refused(line: &str, words: &str) -> Result<()> {
    let drop_in = DropIn::new(&format!("[Service]\n{line}\nRestart=no\n"))?;
    let started = run_program("systemctl", &["restart", UNIT]);
    let said = journal(UNIT);
    drop(drop_in);
    let again = run_program("systemctl", &["restart", UNIT]);
    ensure!(started.is_err(), "it starts with {line}");
    ensure!(said.contains(words), "no {words:?} in: {said}");
    again.context("it does not start any more")?;
    ensure!(state(UNIT) == "active");
    Ok(())
}
