//! What people change under a running sensor: rules of their own, lists in files, and marks on its alerts.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::client::{Client, Setup, get, login};
use tests::clock::Deadline;
use tests::mint::Mint;
use tests::sensor::{Alert, Config, PATIENCE, Sensor, rules};
use tests::{clock, raw, sensor, skip};

const RULE: &str = "\
id: orders-export
title: Somebody exports orders
severity: high
when: request.path.startsWith(\"/export\")
message: \"{request.route} was asked for.\"
";

/// A sensor, a service that refuses everything, and an attacker.
struct Scene {
    mint: Mint,
    service: SocketAddr,
    sensor: Sensor,
    /// Numbers routes: what repeats an alert is no new one.
    turn: u32,
}

impl Scene {
    fn new(set: &[(&str, Value)]) -> Result<Self> {
        let mint = Mint::at(clock::now())?;
        let service = raw::listen(raw::refuse_in_chunks)?;
        let mut config = Config::new(&mint)?.ports(&[service.port()]);
        for (pointer, value) in set {
            config.set(pointer, value.clone());
        }
        let sensor = Sensor::start(&config)?;
        Ok(Self { mint, service, sensor, turn: 0 })
    }

    /// What the sensor says of one request from an address of this host. A psychic signature is an alert that nothing
    /// here silences: once it has come, the request before it has been judged.
    fn said_of(&mut self, from: [u8; 4], request: &[u8]) -> Result<Vec<Alert>> {
        let fence = format!("/fence-{}", self.letter());
        let fence = get(&fence, Some(&Attack::Psychic.token(&self.mint, "mallory")?));
        for (from, request) in [(from, request), ([127, 0, 0, 77], &fence)] {
            let setup = Setup { from: Some(IpAddr::from(from)), ..Setup::default() };
            Client::connect_with(self.service, setup)?.ask(request)?;
        }
        let mut said = self.sensor.until("psychic-signature")?;
        said.pop();
        Ok(said)
    }

    /// The same of an attack on a route that nobody has asked for before.
    fn told(&mut self, from: [u8; 4], route: &str, attack: Attack) -> Result<Vec<Alert>> {
        self.turn += 1;
        let path = format!("/{route}-{}", self.letter());
        let token = attack.token(&self.mint, "mallory")?;
        self.said_of(from, &get(&path, Some(&token)))
    }

    fn letter(&self) -> char {
        char::from_u32(u32::from(b'a') + self.turn % 26).unwrap_or('a')
    }

    /// Asks until what is said pleases: a change is obeyed when the capture thread next looks.
    fn until(
        &mut self,
        route: &str,
        attack: Attack,
        pleases: impl Fn(&[Alert]) -> bool,
    ) -> Result<Vec<Alert>> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let said = self.told([127, 0, 0, 1], route, attack)?;
            if pleases(&said) {
                return Ok(said);
            }
            ensure!(!deadline.is_over(), "{route} still gives {:?}", rules(&said));
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn says(rule: &str) -> impl Fn(&[Alert]) -> bool {
    move |said| rules(said).contains(&rule)
}

/// Written beside and moved in, as editors do.
fn put(dir: &Path, text: &str) -> Result<()> {
    fs::write(dir.join("export.new"), text)?;
    Ok(fs::rename(dir.join("export.new"), dir.join("export.yaml"))?)
}

#[test]
fn rules_of_users_come_break_and_go_while_it_runs() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("changes::rules_of_users_come_break_and_go_while_it_runs", &why);
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let mut scene = Scene::new(&[("/rules_dir", json!(dir.path()))])?;
    let said = scene.told([127, 0, 0, 1], "export", Attack::Expired)?;
    ensure!(!says("orders-export")(&said), "{:?} without a rule", rules(&said));

    put(dir.path(), RULE)?;
    scene.sensor.await_words("1 user rules from")?;
    let said = scene.until("export", Attack::Expired, says("orders-export"))?;
    let alert = said.iter().find(|alert| alert.rule() == "orders-export").context("the alert")?;
    ensure!(alert.severity() == "High", "{alert:?}");

    put(dir.path(), &RULE.replace("request.path", "request.paht"))?;
    scene.sensor.await_words("rules were refused, their last good versions stay")?;
    scene.sensor.await_words("export.yaml:4:")?;
    scene.sensor.await_words("did you mean `request.path`")?;
    scene.sensor.await_words("1 user rules from")?;
    let said = scene.told([127, 0, 0, 1], "export", Attack::Expired)?;
    ensure!(says("orders-export")(&said), "the last good rule is gone: {:?}", rules(&said));

    put(dir.path(), &RULE.replace("severity: high", "severity: low"))?;
    scene.sensor.await_words("1 user rules from")?;
    let low = |said: &[Alert]| said.iter().any(|a| a.rule() == "orders-export" && a.severity() == "Low");
    scene.until("export", Attack::Expired, low)?;

    fs::remove_file(dir.path().join("export.yaml"))?;
    scene.sensor.await_words("0 user rules from")?;
    scene.until("export", Attack::Expired, |said| !says("orders-export")(said))?;
    scene.sensor.stop()?;
    Ok(())
}

#[test]
fn lists_in_files_are_read_again_when_they_change() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("changes::lists_in_files_are_read_again_when_they_change", &why);
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let leavers = dir.path().join("leavers.txt");
    fs::write(&leavers, "# nobody has left yet\n")?;
    let mut scene = Scene::new(&[("/lists/files/departed_accounts", json!([leavers]))])?;
    let carol = |scene: &mut Scene| {
        scene.turn += 1;
        scene.said_of([127, 0, 0, 1], &login("carol", "of no importance"))
    };
    let said = carol(&mut scene)?;
    ensure!(!says("departed-account")(&said), "{:?} before she left", rules(&said));
    fs::write(&leavers, "carol\n")?;
    let deadline = Deadline::after(PATIENCE);
    while !says("departed-account")(&carol(&mut scene)?) {
        ensure!(!deadline.is_over(), "the list is not read again");
        // Below what brute-force counts within the time that a list may take.
        std::thread::sleep(Duration::from_secs(1));
    }
    scene.sensor.stop()?;
    Ok(())
}

/// `tokenscope alerts` on this state; what it printed.
fn alerts(state: &Path, words: &[&str]) -> Result<String> {
    let done = sensor::command()?
        .args(["alerts", "--state-dir"])
        .arg(state)
        .args(words)
        .output()
        .context("alerts")?;
    ensure!(done.status.success(), "alerts {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?)
}

#[test]
fn marks_silence_their_scope_until_they_are_taken_back() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("changes::marks_silence_their_scope_until_they_are_taken_back", &why);
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let mut scene = Scene::new(&[("/state/dir", json!(dir.path()))])?;
    let said = scene.told([127, 0, 0, 1], "orders", Attack::AlgNone)?;
    let first =
        said.iter().find(|alert| alert.rule() == "alg-none").context("no alert to mark")?.id().to_owned();

    let line =
        ["mark", &first, "false-positive", "--scope", "rule+address", "--note", "load test", "-o", "compact"];
    let marked = alerts(dir.path(), &line)?;
    ensure!(marked.starts_with("1  false-positive  rule+address  alg-none  127.0.0.1  "), "{marked}");
    scene.sensor.await_words("1 marks of alerts are in force")?;
    scene.until("orders", Attack::AlgNone, |said| !says("alg-none")(said))?;
    scene.until("orders", Attack::KidTraversal, says("kid-injection")).context("another rule")?;
    let said = scene.told([127, 0, 0, 2], "orders", Attack::AlgNone)?;
    ensure!(says("alg-none")(&said), "another address is silenced: {:?}", rules(&said));

    let other = said.iter().find(|alert| alert.rule() == "alg-none").context("the alert")?.id().to_owned();
    alerts(dir.path(), &["mark", &other, "true-positive"])?;
    let listed = alerts(dir.path(), &["list-marks", "-o", "compact"])?;
    ensure!(listed.lines().count() == 2 && listed.starts_with(&marked), "{listed}");

    let taken = alerts(dir.path(), &["unmark", "1", "-o", "compact"])?;
    ensure!(taken == marked, "{taken}");
    let left = alerts(dir.path(), &["list-marks", "-o", "compact"])?;
    ensure!(left.lines().count() == 1 && left.starts_with("2  true-positive  exact"), "{left}");
    let again =
        sensor::command()?.args(["alerts", "--state-dir"]).arg(dir.path()).args(["unmark", "1"]).output()?;
    ensure!(again.status.code() == Some(2), "{again:?}");
    scene.until("orders", Attack::AlgNone, says("alg-none"))?;
    // The page is made anew once a second.
    let deadline = Deadline::after(PATIENCE);
    while scene.sensor.metric("tokenscope_findings_silenced_total", "alg-none")? < 1.0 {
        ensure!(!deadline.is_over(), "no finding was silenced");
        std::thread::sleep(Duration::from_millis(50));
    }
    scene.sensor.stop()?;
    Ok(())
}
