//! A host that a real systemd runs: our Debian package on it, from its installation to its purge.
//!
//! The steps are in the order of such a life; each leaves the service running, but for the last. What is told of is
//! asked of the running sensor (`tokenscope tail`) as an administrator would.

mod host;
mod refusals;
mod upgrade;

use std::path::Path;
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};

use self::host::{CONFIG, UNIT};
pub(super) use self::refusals::{apparmor, seccomp};
pub(super) use self::upgrade::{upgrade, wrong_configuration};
use super::tell::{Told, cell};
use super::{SYSTEMD, doctor, run_program};
use crate::bpf::Held;
use crate::client::get;
use crate::{raw, sensor};

/// The packages that the machine was made with: the same program under two versions.
const OLD: &str = "/packages/old.deb";
/// See [`OLD`].
const NEW: &str = "/packages/new.deb";

/// Where the service listens that is watched: a systemd unit of its own, with systemd's IP accounting.
const SHOP: u16 = 8081;
/// Its name.
const SHOP_UNIT: &str = "shop-orders.service";
/// The same, as alerts name it.
const SHOP_NAME: &str = "shop-orders";

/// What `lab serve-at` does: listens there, refuses everybody, and stays.
///
/// # Errors
/// When the port is taken.
pub fn serve_at(port: u16) -> Result<()> {
    raw::listen_at(port, raw::refuse_in_chunks)?;
    loop {
        thread::park();
    }
}

/// dpkg puts it there and systemd starts it; it says itself that it is ready.
pub(super) fn install() -> Result<Told> {
    host::dpkg(&["--install", OLD])?;
    ensure!(host::state(UNIT) == "active", "{}", host::journal(UNIT));
    ensure!(host::property(UNIT, "UnitFileState")? == "enabled");
    ensure!(host::property(UNIT, "StatusText")? == "watching", "{}", host::property(UNIT, "StatusText")?);
    host::be_patient()?;
    host::configure()?;
    run_program("systemctl", &["reload", UNIT])?;
    let shop = format!("[Service]\nExecStart=/lab serve-at {SHOP}\nIPAccounting=yes\n");
    fs::write(Path::new("/run/systemd/system").join(SHOP_UNIT), shop)?;
    run_program("systemctl", &["daemon-reload"])?;
    run_program("systemctl", &["start", SHOP_UNIT])?;
    host::until("the service listens", || crate::client::Client::connect(host::shop()).is_ok())?;
    Ok(Told::Done)
}

/// Nothing fails beside the running service; how exposed it is.
pub(super) fn all_is_well() -> Result<Told> {
    let checks = doctor::checks(sensor::command()?)?;
    let bad: Vec<_> = checks.iter().filter(|check| check.failed()).collect();
    ensure!(bad.is_empty(), "{bad:?}");
    let said = run_program("systemd-analyze", &["security", "--no-pager", UNIT])?;
    let figure =
        said.lines().rev().find_map(|line| line.split_once("exposure level for ")?.1.split(": ").nth(1));
    let figure = figure.with_context(|| format!("no figure in: {said}"))?;
    let plain: String = figure.chars().filter(char::is_ascii).collect();
    cell(SYSTEMD, "exposure of the unit, by `systemd-analyze security`", plain.trim());
    let version = run_program("systemctl", &["--version"])?;
    let version = version.split_whitespace().nth(1).context("no version")?;
    cell(SYSTEMD, "systemd", version);
    Ok(Told::Done)
}

/// An attack on a unit's service is told of under the unit's name; systemd counts its bytes as ever.
pub(super) fn named_by_unit() -> Result<Told> {
    let before = accounted()?;
    let alert = host::attack([127, 0, 1, 1])?;
    ensure!(alert.workload() == SHOP_NAME, "it names {:?}: {:?}", alert.workload(), alert.0);
    let name = alert.0.pointer("/evidences/0/process/name").and_then(serde_json::Value::as_str);
    ensure!(name == Some("lab"), "the process is {name:?}");
    let bytes = accounted()? - before;
    ensure!(bytes > get("/orders/1", None).len() as u64, "systemd counted {bytes} bytes");
    Ok(Told::Done)
}

fn accounted() -> Result<u64> {
    let bytes = host::property(SHOP_UNIT, "IPIngressBytes")?;
    bytes.parse().with_context(|| format!("IP accounting says {bytes:?}"))
}

/// A wrong configuration is refused and the sensor goes on; a right one is taken by the same process.
pub(super) fn reload() -> Result<Told> {
    let (pid, good) = (host::main_pid()?, fs::read_to_string(CONFIG)?);
    fs::write(CONFIG, "captur: {}\n")?;
    let refused = run_program("systemctl", &["reload", UNIT]);
    fs::write(CONFIG, good)?;
    ensure!(refused.is_err(), "a wrong configuration was taken");
    ensure!(host::journal(UNIT).contains("captur"), "{}", host::journal(UNIT));
    let before = reloads();
    run_program("systemctl", &["reload", UNIT])?;
    host::until("it says so", || reloads() > before)?;
    ensure!(host::state(UNIT) == "active" && host::main_pid()? == pid, "it was started again");
    Ok(Told::Done)
}

/// How often the sensor has said that it took a configuration over.
fn reloads() -> usize {
    host::journal(UNIT).matches("configuration reloaded").count()
}

/// Restarted: nothing of the old process stays in the kernel, and what was told of is still there.
pub(super) fn restart() -> Result<Told> {
    let (pid, told) = (host::main_pid()?, host::told()?.len());
    let held = Held::by(pid)?;
    run_program("systemctl", &["restart", UNIT])?;
    held.until_gone()?;
    ensure!(host::main_pid()? != pid && host::state(UNIT) == "active");
    ensure!(told > 0 && host::told()?.len() >= told, "alerts are gone");
    Ok(Told::Done)
}

/// Killed by force: systemd starts it again.
pub(super) fn killed() -> Result<Told> {
    let pid = host::main_pid()?;
    let held = Held::by(pid)?;
    run_program("kill", &["-KILL", &pid.to_string()])?;
    held.until_gone()?;
    host::until_again(pid)?;
    host::attack([127, 0, 1, 2])?;
    Ok(Told::Done)
}

/// Silent: systemd notices by the watchdog, and starts it again.
pub(super) fn watchdog() -> Result<Told> {
    // As the unit has it, sooner.
    let drop_in = host::DropIn::new("[Service]\nWatchdogSec=8\nTimeoutAbortSec=5\n")?;
    run_program("systemctl", &["restart", UNIT])?;
    let pid = host::main_pid()?;
    run_program("kill", &["-STOP", &pid.to_string()])?;
    host::until_again(pid)?;
    ensure!(host::journal(UNIT).to_lowercase().contains("watchdog timeout"), "{}", host::journal(UNIT));
    drop(drop_in);
    run_program("systemctl", &["restart", UNIT])?;
    Ok(Told::Done)
}

/// Removed, the package keeps configuration and what was told of; installed again, the sensor goes on with both.
pub(super) fn removed() -> Result<Told> {
    let (held, kept, told) = (Held::by(host::main_pid()?)?, fs::read_to_string(CONFIG)?, host::told()?.len());
    host::dpkg(&["--remove", "tokenscope"])?;
    held.until_gone()?;
    ensure!(host::state(UNIT) == "inactive" && !Path::new("/usr/bin/tokenscope").exists());
    host::dpkg(&["--install", NEW])?;
    ensure!(host::state(UNIT) == "active", "{}", host::journal(UNIT));
    ensure!(fs::read_to_string(CONFIG)? == kept && host::told()?.len() >= told, "it began anew");
    Ok(Told::Done)
}

/// Purged: no file, no unit, no user, nothing in the kernel.
pub(super) fn purge() -> Result<Told> {
    let held = Held::by(host::main_pid()?)?;
    host::forget_patience()?;
    host::dpkg(&["--purge", "tokenscope"])?;
    held.until_gone()?;
    ensure!(host::state(UNIT) == "inactive", "{}", host::state(UNIT));
    ensure!(host::property(UNIT, "LoadState")? == "not-found", "the unit is still known");
    let left = run_program(
        "find",
        &[
            "/",
            "-ignore_readdir_race",
            "-xdev",
            "-path",
            "/proc",
            "-prune",
            "-o",
            "-name",
            "*tokenscope*",
            "-print",
        ],
    )?;
    let run = run_program("find", &["/run", "-ignore_readdir_race", "-name", "*tokenscope*"])?;
    ensure!(left.trim().is_empty() && run.trim().is_empty(), "left behind: {left}{run}");
    for file in ["/etc/passwd", "/etc/group"] {
        ensure!(!fs::read_to_string(file)?.contains("tokenscope"), "{file} names it");
    }
    run_program("systemctl", &["stop", SHOP_UNIT])?;
    Ok(Told::Done)
}
