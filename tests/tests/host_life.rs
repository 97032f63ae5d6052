//! The sensor among others on a host: whatever ends it, nothing stays in the kernel and nothing is lost; who was there
//! before it or comes after it is watched; who else attaches programs is left alone; and a second sensor is a choice.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::attack::Attack;
use tests::bpf::{self, Foreign, Held, Mode};
use tests::client::{Client, get};
use tests::guest::{Service, cgroup_root};
use tests::mint::Mint;
use tests::sensor::{self, Alert, Config, Sensor};
use tests::{clock, raw, skip};

/// Why nothing can be looked at here; then it is said loudly.
fn skipped(test: &str) -> bool {
    let why = sensor::missing().or_else(bpf::missing);
    if let Some(why) = &why {
        skip(&format!("host_life::{test}"), why);
    }
    why.is_some()
}

fn config(mint: &Mint, service: SocketAddr, state: &Path) -> Result<Config> {
    let mut config = Config::new(mint)?.ports(&[service.port()]);
    config.set("/state/dir", json!(state));
    Ok(config)
}

/// Attacks the service, at a path of its own, and returns the alert.
fn alert(sensor: &mut Sensor, mint: &Mint, service: SocketAddr, attack: Attack) -> Result<Alert> {
    let path = format!("/{}/1", attack.name());
    Client::connect(service)?.ask(&get(&path, Some(&attack.token(mint, "mallory")?)))?;
    sensor.until(attack.rule())?.pop().context("an alert")
}

fn number(Alert(event): &Alert) -> Option<u64> {
    event.pointer("/metadata/sequence").and_then(Value::as_u64)
}

/// Killed, restarted, killed again, and replaced in good order: each time the kernel is rid of the old programs, alerts
/// are numbered on, and what the first one told can still be read.
#[test]
fn neither_programs_nor_alerts_are_left_behind() -> Result<()> {
    if skipped("neither_programs_nor_alerts_are_left_behind") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let state = tempfile::tempdir()?;
    let config = config(&mint, service, state.path())?;
    let mut numbers = Vec::new();
    for (attack, killed) in [(Attack::AlgNone, true), (Attack::Psychic, true), (Attack::BadSignature, false)]
    {
        let mut sensor = Sensor::start(&config)?;
        let held = Held::by(sensor.pid())?;
        ensure!(held.links.len() == 3, "a link a program: {held:?}");
        let told = alert(&mut sensor, &mint, service, attack)?;
        numbers.push(number(&told).context("an alert without a number")?);
        if killed {
            sensor.kill();
        } else {
            sensor.stop()?;
        }
        held.until_gone()?;
    }
    ensure!(numbers.is_sorted_by(|a, b| a < b), "numbers start anew: {numbers:?}");
    let last = Sensor::start(&config)?;
    let path = last.config();
    let all = sensor::run(&["tail", "-n", "20", "-o", "json", "-c", &path.to_string_lossy()])?;
    let all = sensor::alerts(&String::from_utf8(all.stdout)?)?;
    let rules = sensor::rules(&all);
    ensure!(
        ["alg-none", "psychic-signature", "signature-invalid"].iter().all(|r| rules.contains(r)),
        "{rules:?}"
    );
    last.stop()?;
    Ok(())
}

/// A connection that is older than the sensor, and a service that is younger, are both watched.
#[test]
fn it_does_not_matter_who_starts_first() -> Result<()> {
    if skipped("it_does_not_matter_who_starts_first") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let old = raw::listen(raw::refuse_in_chunks)?;
    let mut connection = Client::connect(old)?;
    connection.ask(&get("/health", None))?;
    // Its port is to be known before the sensor starts, and to be free until then.
    let young_port = tests::server::free_port()?;
    let mut sensor = Sensor::start(&Config::new(&mint)?.ports(&[old.port(), young_port]))?;
    connection.ask(&get("/orders/1", Some(&Attack::AlgNone.token(&mint, "mallory")?)))?;
    let told = sensor.until("alg-none")?;
    ensure!(told.iter().any(|alert| alert.server_port() == Some(u64::from(old.port()))), "{told:?}");
    let young = raw::listen_at(young_port, raw::refuse_in_chunks)?;
    let told = alert(&mut sensor, &mint, young, Attack::Psychic)?;
    ensure!(told.server_port() == Some(u64::from(young_port)), "{told:?}");
    sensor.stop()?;
    Ok(())
}

/// A cgroup of a test's own, removed at the end.
struct Group(std::path::PathBuf);

impl Group {
    fn new(name: &str) -> Result<Self> {
        let path = cgroup_root()?.join(format!("tokenscope-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// systemd counts the bytes of a service by programs at the service's own cgroup; others attach theirs at the root.
/// Both stay, before, while and after the sensor runs, and the sensor sees what they see.
#[test]
fn programs_of_others_stay_where_they_are() -> Result<()> {
    if skipped("programs_of_others_stay_where_they_are") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let group = Group::new("accounted")?;
    let service = Service::start(Path::new(env!("CARGO_BIN_EXE_lab")), &group.0, 0)?;
    let accounting = Foreign::attach(&group.0, Mode::Multi)?;
    let at_root = Foreign::attach(&cgroup_root()?, Mode::Multi)?;
    let mut sensor = Sensor::start(&Config::new(&mint)?.ports(&[service.address.port()]))?;
    alert(&mut sensor, &mint, service.address, Attack::AlgNone)?;
    // And one that comes later than the sensor.
    let late = Foreign::attach(&cgroup_root()?, Mode::Multi)?;
    alert(&mut sensor, &mint, service.address, Attack::Psychic)?;
    for foreign in [&accounting, &at_root, &late] {
        ensure!(foreign.is_attached()?, "gone beside the sensor");
    }
    sensor.stop()?;
    for foreign in [&accounting, &at_root, &late] {
        ensure!(foreign.is_attached()?, "gone with the sensor");
    }
    drop(service);
    Ok(())
}

/// A program that wants its cgroup alone keeps the sensor out, and the message says who is in the way.
#[test]
fn who_wants_a_cgroup_alone_is_named() -> Result<()> {
    if skipped("who_wants_a_cgroup_alone_is_named") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let group = Group::new("held")?;
    let _foreign = Foreign::attach(&group.0, Mode::Exclusive)?;
    let mut config = Config::new(&mint)?;
    config.set("/capture/cgroup", json!(group.0));
    let Err(error) = Sensor::start(&config) else { bail!("it starts") };
    let said = format!("{error:#}");
    ensure!(said.contains(&format!("bpftool cgroup show {}", group.0.display())), "{said}");
    Ok(())
}

/// With the state of the first it is refused, before it attaches anything; with a state of its own it runs beside it.
#[test]
fn a_second_sensor_is_refused_or_chosen() -> Result<()> {
    if skipped("a_second_sensor_is_refused_or_chosen") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let (state, other): (TempDir, TempDir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut first = Sensor::start(&config(&mint, service, state.path())?)?;
    let Err(error) = Sensor::start(&config(&mint, service, state.path())?) else { bail!("two of one state") };
    let said = format!("{error:#}");
    for word in ["another sensor", "state.dir", "control.socket", "metrics.listen"] {
        ensure!(said.contains(word), "{said}");
    }
    ensure!(said.contains(&state.path().display().to_string()), "{said}");
    let mut second = Sensor::start(&config(&mint, service, other.path())?)?;
    Client::connect(service)?.ask(&get("/orders/1", Some(&Attack::AlgNone.token(&mint, "mallory")?)))?;
    ensure!(first.until("alg-none")?.len() == 1 && second.until("alg-none")?.len() == 1, "one alert each");
    let gone = Held::by(second.pid())?;
    second.kill();
    gone.until_gone()?;
    alert(&mut first, &mint, service, Attack::Psychic)?;
    first.stop()?;
    Ok(())
}
