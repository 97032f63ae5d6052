//! What happens to a running sensor: keys that come late, and configurations that change.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::attack::Attack;
use tests::client::{Client, get, login};
use tests::clock::Deadline;
use tests::mint::{ISSUER, Mint};
use tests::sensor::{Config, PATIENCE, Sensor, rules};
use tests::{clock, raw, sensor, skip};

/// A token that needs keys to be judged is used before there are any; its verdict comes when they do.
#[test]
fn tokens_seen_before_the_keys_are_judged_when_they_come() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("life::tokens_seen_before_the_keys_are_judged_when_they_come", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let dir = tempfile::tempdir()?;
    let keys = dir.path().join("keys.json");
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    let source = format!("file:{}", keys.display());
    config.set("/issuers", json!([{"issuer": ISSUER, "jwks": source, "algorithms": ["RS256"]}]));
    let mut sensor = Sensor::start(&config)?;
    let mut client = Client::connect(service)?;
    client.ask(&get("/orders/1", Some(&Attack::BadSignature.token(&mint, "mallory")?)))?;
    // This one needs no key; its alert shows that the request before it was judged as far as it could be.
    client.ask(&get("/orders/2", Some(&Attack::AlgNone.token(&mint, "mallory")?)))?;
    let before = sensor.until("alg-none")?;
    ensure!(before.len() == 1, "{:?} without keys", rules(&before));
    fs::write(&keys, mint.jwks()?.to_string())?;
    let after = sensor.until("signature-invalid")?;
    ensure!(after.len() == 1 && after.iter().all(|alert| alert.route() == "GET /orders/{id}"), "{after:?}");
    sensor.stop()?;
    Ok(())
}

/// SIGHUP takes a good configuration and refuses a bad one; either way the sensor goes on watching.
#[test]
fn a_reload_takes_what_is_good_and_refuses_what_is_bad() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("life::a_reload_takes_what_is_good_and_refuses_what_is_bad", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let config = Config::new(&mint)?.ports(&[service.port()]);
    let mut sensor = Sensor::start(&config)?;
    let good = fs::read_to_string(sensor.config())?;
    let attack = |attack: Attack, path: &str| -> Result<()> {
        Client::connect(service)?.ask(&get(path, Some(&attack.token(&mint, "mallory")?)))?;
        Ok(())
    };

    sensor.reload("capture: {prots: []}")?;
    sensor.await_words("did you mean `ports`")?;
    attack(Attack::AlgNone, "/orders/1")?;
    sensor.until("alg-none")?;

    let quieter = good.replacen(r#""rules":{"#, r#""rules":{"alg-none":{"enabled":false},"#, 1);
    sensor.reload(&quieter)?;
    sensor.await_words("configuration reloaded")?;
    attack(Attack::AlgNone, "/invoices/1")?;
    attack(Attack::Psychic, "/invoices/2")?;
    let seen = sensor.until("psychic-signature")?;
    ensure!(!rules(&seen).contains(&"alg-none"), "a rule that was turned off: {:?}", rules(&seen));
    sensor.stop()?;
    Ok(())
}

/// Failed logins before and after a restart are one guessing.
#[test]
fn what_was_counted_before_a_restart_counts_after_it() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("life::what_was_counted_before_a_restart_counts_after_it", &why);
        return Ok(());
    }
    let service = raw::listen(raw::refuse_in_chunks)?;
    let state = tempfile::tempdir()?;
    let mut config = Config::new(&Mint::at(clock::now())?)?.ports(&[service.port()]);
    config.set("/state/dir", json!(state.path()));
    let fail = |times: u32| -> Result<()> {
        for _ in 0..times {
            Client::connect(service)?.ask(&login("alice", "wrong"))?;
        }
        Ok(())
    };
    let first = Sensor::start(&config)?;
    fail(6)?;
    let ended = first.stop()?;
    ensure!(ended.alerts.is_empty(), "{:?} after six failures", rules(&ended.alerts));
    let mut second = Sensor::start(&config)?;
    fail(4)?;
    let found = second.until("brute-force")?;
    ensure!(found.len() == 1, "{:?}", rules(&found));
    second.stop()?;
    Ok(())
}

/// A crash costs what came after the last snapshot, and no more: what was counted before it counts, and an alert that
/// was open is the same alert.
#[test]
fn what_was_saved_before_a_crash_counts_after_it() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("life::what_was_saved_before_a_crash_counts_after_it", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let state = tempfile::tempdir()?;
    let history = state.path().join("history.bin");
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/state", json!({"dir": state.path(), "save_every_s": 1}));
    let forged = Attack::AlgNone.token(&mint, "mallory")?;
    let fail = |times: u32| -> Result<()> {
        for _ in 0..times {
            Client::connect(service)?.ask(&login("alice", "wrong"))?;
        }
        Client::connect(service)?.ask(&get("/orders/1", Some(&forged)))?;
        Ok(())
    };

    let mut first = Sensor::start(&config)?;
    fail(6)?;
    let open = first.until("alg-none")?.pop().context("an alert")?.id().to_owned();
    // The one that is being written may not have seen it all; the one after that has.
    for _ in 0..2 {
        renewed(&history, service)?;
    }
    ensure!(
        first.metric("tokenscope_history_saved_bytes", "part=\"roster\"")? > 0.0,
        "no size of the history"
    );
    ensure!(first.metric("process_resident_memory_bytes", "")? > 1e6, "no memory");
    first.kill();
    fs::write(history.with_extension("new"), "what a writer had written when it was killed")?;

    let mut second = Sensor::start(&config)?;
    fail(4)?;
    Client::connect(service)?.ask(&get("/orders/1", Some(&Attack::Psychic.token(&mint, "mallory")?)))?;
    let found = second.until("psychic-signature")?;
    ensure!(rules(&found) == ["brute-force", "psychic-signature"], "{:?}", rules(&found));
    let ended = second.stop()?;
    let mut repeated = ended.alerts.iter().filter(|alert| alert.rule() == "alg-none");
    ensure!(repeated.all(|alert| alert.id() == open && !alert.is_new()), "{:?}", ended.alerts);
    ensure!(!history.with_extension("new").exists(), "a half of a file is left");
    Ok(())
}

/// Waits until the file is another one. A part of the history is saved at each turn of the sensor's loop; requests
/// keep it turning.
fn renewed(file: &Path, service: SocketAddr) -> Result<()> {
    let stamp = || fs::metadata(file).ok().and_then(|about| Some((about.ino(), about.modified().ok()?)));
    let (before, deadline) = (stamp(), Deadline::after(PATIENCE));
    let mut client = Client::connect(service)?;
    while stamp().is_none() || stamp() == before {
        client.ask(&get("/", None))?;
        ensure!(!deadline.is_over(), "{} is not written", file.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A damaged history is named, set aside, and costs nothing but itself.
#[test]
fn a_damaged_history_does_not_keep_the_sensor_from_watching() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("life::a_damaged_history_does_not_keep_the_sensor_from_watching", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let state = tempfile::tempdir()?;
    let history = state.path().join("history.bin");
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/state/dir", json!(state.path()));
    Sensor::start(&config)?.stop()?;
    let mut bytes = fs::read(&history)?;
    let middle = bytes.len() / 2;
    bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 0xff);
    fs::write(&history, bytes)?;
    let mut sensor = Sensor::start(&config)?;
    Client::connect(service)?.ask(&get("/orders/1", Some(&Attack::AlgNone.token(&mint, "mallory")?)))?;
    sensor.until("alg-none")?;
    let ended = sensor.stop()?;
    ensure!(ended.stderr.contains("is damaged; it was set aside as"), "{}", ended.stderr);
    ensure!(state.path().join("history.bin.refused").exists() && history.exists(), "not set aside");
    Ok(())
}
