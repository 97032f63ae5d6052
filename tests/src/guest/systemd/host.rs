//! The host's own tools, and the sensor as they show it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::super::run_program;
use super::SHOP;
use crate::attack::Attack;
use crate::client::{Client, Setup, get};
use crate::clock::{self, Deadline};
use crate::mint::Mint;
use crate::sensor::{self, Alert, Config, PATIENCE};

/// The sensor's unit.
pub(super) const UNIT: &str = "tokenscope.service";

/// Its configuration, which the package brings.
pub(super) const CONFIG: &str = "/etc/tokenscope/config.yaml";

/// Where transient drop-ins of the unit lie.
const DROP_INS: &str = "/run/systemd/system/tokenscope.service.d";

/// Between two looks at something that takes its time.
const LOOK: Duration = Duration::from_millis(100);

/// Runs dpkg as `apt-get -y` does.
pub(super) fn dpkg(arguments: &[&str]) -> Result<()> {
    let done = Command::new("dpkg").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "dpkg {}: {said}", arguments.join(" "));
    Ok(())
}

/// `active`, `failed`, ...
pub(super) fn state(unit: &str) -> String {
    property(unit, "ActiveState").unwrap_or_default()
}

pub(super) fn property(unit: &str, name: &str) -> Result<String> {
    Ok(run_program("systemctl", &["show", "--value", "--property", name, unit])?.trim().to_owned())
}

/// The sensor's process.
pub(super) fn main_pid() -> Result<u32> {
    let pid: u32 = property(UNIT, "MainPID")?.parse()?;
    ensure!(pid > 0, "it does not run: {}", journal(UNIT));
    Ok(pid)
}

/// What a unit has said since the boot, and systemd of it.
pub(super) fn journal(unit: &str) -> String {
    run_program("journalctl", &["--no-pager", "--quiet", "-o", "cat", "-u", unit]).unwrap_or_default()
}

/// Waits until something is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    while !is_so() {
        if deadline.is_over() {
            bail!("never: {what}; {}", journal(UNIT));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until the service runs in another process than this one.
pub(super) fn until_again(pid: u32) -> Result<()> {
    until("systemd starts it again", || state(UNIT) == "active" && main_pid().is_ok_and(|now| now != pid))
}

/// Writes a configuration over the package's: an issuer, and everything else where it is by default.
pub(super) fn configure() -> Result<()> {
    let mut config = Config::new(&Mint::at(clock::now())?)?;
    config.set("/privacy", json!({}));
    config.set("/state/dir", json!("/var/lib/tokenscope"));
    config.set("/control/socket", json!("/run/tokenscope/control.sock"));
    config.write(Path::new(CONFIG).parent().context("a directory")?)?;
    Ok(())
}

/// Where the watched service listens.
pub(super) fn shop() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], SHOP))
}

/// Sends an unsigned token from this address.
pub(super) fn forge(mint: &Mint, from: [u8; 4]) -> Result<()> {
    let setup = Setup { from: Some(IpAddr::from(from)), ..Setup::default() };
    let token = Attack::AlgNone.token(mint, "mallory")?;
    Client::connect_with(shop(), setup)?.ask(&get("/orders/1", Some(&token)))?;
    Ok(())
}

/// The same, and the alert that the running sensor tells of it.
pub(super) fn attack(from: [u8; 4]) -> Result<Alert> {
    forge(&Mint::at(clock::now())?, from)?;
    let address = IpAddr::from(from).to_string();
    let deadline = Deadline::after(PATIENCE);
    loop {
        if let Some(alert) = told()?.into_iter().find(|alert| alert.client() == address) {
            return Ok(alert);
        }
        ensure!(!deadline.is_over(), "no alert about {address}: {}", journal(UNIT));
        std::thread::sleep(LOOK);
    }
}

/// Every alert that the sensor has told of, opened or continued.
pub(super) fn told() -> Result<Vec<Alert>> {
    let done = sensor::command()?.args(["tail", "--since", "1d", "-o", "json"]).output()?;
    ensure!(done.status.success(), "tail: {}", String::from_utf8_lossy(&done.stderr));
    sensor::alerts(&String::from_utf8_lossy(&done.stdout))
}

/// Gives the sensor more time to end than the unit does: on a busy host an emulated one needs it, and who is killed hands
/// nothing over.
pub(super) fn be_patient() -> Result<()> {
    fs::create_dir_all(DROP_INS)?;
    fs::write(Path::new(DROP_INS).join("patience.conf"), "[Service]\nTimeoutStopSec=300\n")?;
    run_program("systemctl", &["daemon-reload"]).map(|_| ())
}

/// Takes that back.
pub(super) fn forget_patience() -> Result<()> {
    Ok(fs::remove_dir_all(DROP_INS)?)
}

/// A change of the unit until it is dropped.
pub(super) struct DropIn(PathBuf);

impl DropIn {
    pub(super) fn new(text: &str) -> Result<Self> {
        fs::create_dir_all(DROP_INS)?;
        let file = Path::new(DROP_INS).join("test.conf");
        fs::write(&file, text)?;
        let drop_in = Self(file);
        run_program("systemctl", &["daemon-reload"])?;
        Ok(drop_in)
    }
}

impl Drop for DropIn {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir(DROP_INS);
        let _ = run_program("systemctl", &["daemon-reload"]);
    }
}
