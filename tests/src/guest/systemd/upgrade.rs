//! Upgrades of the package under load, and of one that does not work.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::tell::Told;
use super::host::{self, CONFIG, UNIT};
use super::{NEW, run_program};
use crate::clock;
use crate::mint::Mint;
use crate::sensor::Alert;

/// Between two attacks: a few in every second in which the sensors change.
const PAUSE: Duration = Duration::from_millis(200);

/// Attacks at most: a rule opens a thousand alerts in a window.
const MOST: u16 = 900;

/// The unit that stands by during an upgrade.
const BESIDE: &str = "tokenscope-handover.service";

/// What `dpkg --install` of a newer package does to a sensor at work: every attack is told of once, numbers have no gap,
/// the configuration is kept, and the sensor that stood by is gone.
pub(in super::super) fn upgrade() -> Result<Told> {
    let (pid, kept) = (host::main_pid()?, fs::read_to_string(CONFIG)?);
    let mint = Mint::at(clock::now())?;
    let stop = AtomicBool::new(false);
    let attacks = std::thread::scope(|scope| -> Result<u16> {
        let attacker = scope.spawn(|| attack_on(&mint, &stop));
        let upgraded = host::dpkg(&["--install", NEW]);
        std::thread::sleep(PAUSE * 10);
        stop.store(true, Ordering::SeqCst);
        let attacks = attacker.join().ok().context("the attacker ended")?;
        upgraded.and(attacks)
    })?;
    let version = run_program("dpkg-query", &["-W", "-f", "${Version}", "tokenscope"])?;
    ensure!(version.ends_with("+next"), "{version} is installed");
    ensure!(host::main_pid()? != pid && host::state(UNIT) == "active", "{}", host::journal(UNIT));
    ensure!(host::state(BESIDE) == "inactive", "{BESIDE} is {}", host::state(BESIDE));
    ensure!(!Path::new("/run/systemd/system").join(BESIDE).exists(), "{BESIDE} is left behind");
    ensure!(fs::read_to_string(CONFIG)? == kept, "the configuration was changed");
    let said = || host::journal(BESIDE) + &host::journal(UNIT);
    ensure!(said().contains("takes over"), "nobody took over: {}", said());
    host::until("every attack is told of", || {
        host::told().is_ok_and(|all| tally(&all).len() >= usize::from(attacks))
    })?;
    let all = host::told()?;
    let told = tally(&all);
    let wrong: Vec<_> = told.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(wrong.is_empty() && told.len() == usize::from(attacks), "{} of {attacks}: {wrong:?}", told.len());
    Ok(Told::Done)
}

/// Attacks once from each of so many new addresses in turn; gives how many were answered.
fn attack_on(mint: &Mint, stop: &AtomicBool) -> Result<u16> {
    let mut number = 0_u16;
    while !stop.load(Ordering::SeqCst) && number < MOST {
        number += 1;
        let [high, low] = number.to_be_bytes();
        host::forge(mint, [127, 78, high, low])?;
        std::thread::sleep(PAUSE);
    }
    Ok(number)
}

/// How often each of the attacker's addresses has a new alert.
fn tally(alerts: &[Alert]) -> BTreeMap<&str, u32> {
    let mut told = BTreeMap::new();
    let new = alerts.iter().filter(|alert| alert.is_new() && alert.rule() == "alg-none");
    for alert in new.filter(|alert| alert.client().starts_with("127.78.")) {
        *told.entry(alert.client()).or_insert(0) += 1;
    }
    told
}

/// A version that does not come up replaces nothing: here for a configuration that was made wrong since.
pub(in super::super) fn wrong_configuration() -> Result<Told> {
    let (pid, good) = (host::main_pid()?, fs::read_to_string(CONFIG)?);
    fs::write(CONFIG, "captur: {}\n")?;
    let handed = run_program("/usr/share/tokenscope/hand-over", &[]);
    fs::write(CONFIG, good)?;
    let said = format!("{:#}", handed.err().context("a wrong configuration was taken")?);
    ensure!(said.contains("the old one goes on"), "{said}");
    ensure!(host::main_pid()? == pid && host::state(UNIT) == "active", "the old one is gone");
    ensure!(!Path::new("/run/systemd/system").join(BESIDE).exists(), "{BESIDE} is left behind");
    host::attack([127, 0, 1, 3])?;
    Ok(Told::Done)
}
