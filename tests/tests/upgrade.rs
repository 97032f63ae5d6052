//! One sensor after the other over the same state, under load: nothing is missed and nothing is told twice.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::client::{Client, Setup, get};
use tests::clock::Deadline;
use tests::mint::Mint;
use tests::sensor::{Config, PATIENCE, Sensor};
use tests::{clock, raw, sensor, skip};

/// Attacks once from each of so many new addresses in turn; gives how many were answered.
fn attack(service: SocketAddr, token: &str, stop: &AtomicBool) -> Result<u32> {
    let request = get("/orders/1", Some(token));
    let mut number = 0_u32;
    while !stop.load(Ordering::SeqCst) && number < 900 {
        number += 1;
        let [_, _, high, low] = number.to_be_bytes();
        let setup = Setup { from: Some(IpAddr::from([127, 78, high, low])), ..Setup::default() };
        Client::connect_with(service, setup)?.ask(&request)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(number)
}

/// How often each address has a new alert in these lines, and every number of theirs.
fn tally(lines: &[String]) -> Result<(BTreeMap<String, u32>, Vec<u64>)> {
    let (mut alerts, mut numbers) = (BTreeMap::new(), Vec::new());
    for line in lines {
        let event: Value = serde_json::from_str(line).with_context(|| line.clone())?;
        numbers.push(event.pointer("/metadata/sequence").and_then(Value::as_u64).context("no number")?);
        let address = event.pointer("/evidences/0/src_endpoint/ip").and_then(Value::as_str);
        let is = |place: &str, what: Value| event.pointer(place) == Some(&what);
        if is("/class_uid", json!(2004))
            && is("/activity_id", json!(1))
            && is("/finding_info/analytic/uid", json!("alg-none"))
        {
            *alerts.entry(address.context("no address")?.to_owned()).or_insert(0) += 1;
        }
    }
    Ok((alerts, numbers))
}

#[test]
fn an_upgrade_misses_nothing_and_tells_nothing_twice() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("upgrade::an_upgrade_misses_nothing_and_tells_nothing_twice", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let state = tempfile::tempdir()?;
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/state/dir", json!(state.path()));
    let token = Attack::AlgNone.token(&mint, "mallory")?;
    let stop = AtomicBool::new(false);
    let (lines, attacks) = std::thread::scope(|scope| -> Result<_> {
        let mut now = Sensor::start(&config)?;
        let attacker = scope.spawn(|| attack(service, &token, &stop));
        let mut lines = Vec::new();
        let upgrades = (0..3).try_for_each(|_| -> Result<()> {
            let next = Sensor::stand_by(&config)?;
            let deadline = Deadline::after(PATIENCE);
            while next.metric("tokenscope_standby", "").ok() != Some(1.0) {
                ensure!(!deadline.is_over(), "it does not stand by");
                std::thread::sleep(Duration::from_millis(20));
            }
            let old = std::mem::replace(&mut now, next);
            lines.extend(old.stop()?.lines);
            now.await_words("takes over")?;
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        });
        stop.store(true, Ordering::SeqCst);
        let attacks = attacker.join().ok().context("the attacker ended")?;
        upgrades?;
        std::thread::sleep(Duration::from_millis(500));
        lines.extend(now.stop()?.lines);
        Ok((lines, attacks?))
    })?;
    let (alerts, numbers) = tally(&lines)?;
    let wrong: Vec<_> = alerts.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(wrong.is_empty(), "told more than once: {wrong:?}");
    ensure!(alerts.len() == attacks as usize, "{} alerts of {attacks} attacks", alerts.len());
    ensure!(numbers.iter().zip(1..).all(|(number, n)| *number == n), "numbers have gaps: {numbers:?}");
    Ok(())
}

/// A sensor that waits ends at once when it is told to.
#[test]
fn whoever_waits_can_be_stopped() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("upgrade::whoever_waits_can_be_stopped", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let state = tempfile::tempdir()?;
    let mut config = Config::new(&mint)?.ports(&[1]);
    config.set("/state/dir", json!(state.path()));
    let first = Sensor::start(&config)?;
    Sensor::stand_by(&config)?.stop()?;
    first.stop()?;
    Ok(())
}
