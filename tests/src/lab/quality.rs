//! `cargo xtask quality`: plays the lab to the sensor and judges what it says.

use std::fs;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::label::Label;
use super::score::{Card, Said};
use super::world::{AUDIENCE, CLUSTER, MACHINES, PEOPLE};
use super::{DENIED, DEPARTED, Plan, REVOKED_IDS, Written, places};
use crate::mint::Mint;
use crate::sensor::{Alert, command};

/// Seeds below are for tuning rules; judgements are made with seeds from here on, which nobody tunes to.
pub const JUDGING: u64 = 1_000_000;
/// Bytes between the lab and the sensor: fewer switches between the two.
const PIPE: usize = 1 << 20;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The first seed of its set.
    pub seed: u64,
    /// How many seeds.
    pub seeds: u64,
    /// Benign exchanges of all seeds together.
    pub exchanges: u64,
    /// Attacks of each kind and seed.
    pub attacks: u64,
    /// Use the tuning set.
    pub tuning: bool,
    /// Print JSON.
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        // 24 attacks of each kind: one miss is 96 %.
        Self { seed: 1, seeds: 3, exchanges: 1_000_000, attacks: 8, tuning: false, json: false }
    }
}

/// Runs, prints, and fails if the goals are not reached.
///
/// # Errors
/// When the sensor cannot be run, or is not good enough.
pub fn run(options: &Options) -> Result<()> {
    let card = judge(options)?;
    let text = if options.json { format!("{:#}", card.json()) } else { card.table() };
    crate::print(&text);
    let failures = card.failures();
    if !failures.is_empty() {
        bail!("below the goals:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

/// Runs every seed.
///
/// # Errors
/// When the sensor cannot be run.
pub fn judge(options: &Options) -> Result<Card> {
    let shipped = crate::sensor::shipped()?;
    let mut card = Card::default();
    for number in 0..options.seeds {
        let seed = options.seed + number + if options.tuning { 0 } else { JUDGING };
        let plan =
            Plan { seed, exchanges: options.exchanges / options.seeds.max(1), attacks: options.attacks };
        let (written, said) = play(plan)?;
        card.benign += written.benign;
        card.malicious += written.malicious;
        card.add(seed, &written.labels, &said, &shipped);
    }
    Ok(card)
}

/// Plays one seed to the sensor; what was done and what it said.
///
/// # Errors
/// When the sensor cannot be run, or ends badly.
pub fn play(plan: Plan) -> Result<(Written, Vec<Said>)> {
    let dir = tempfile::Builder::new().prefix("lab-").tempdir()?;
    let config = configure(dir.path())?;
    let mut child = command()?
        .args(["replay", "-", "-o", "json", "-c"])
        .arg(&config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start tokenscope")?;
    let stdin = child.stdin.take().context("stdin")?;
    let stdout = child.stdout.take().context("stdout")?;
    let mut stderr = child.stderr.take().context("stderr")?;
    let reader = std::thread::spawn(move || read(BufReader::new(stdout)));
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    // A sensor that ends early shows in its status; the broken pipe says less.
    let written = super::write(plan, BufWriter::with_capacity(PIPE, stdin));
    let status = child.wait()?;
    let said = reader.join().unwrap_or_else(|_| bail!("the reader of alerts ended"))?;
    let complaints = complaints.join().unwrap_or_default();
    ensure!(status.success(), "replay ended with {status}:\n{complaints}");
    Ok((written?, said))
}

fn read(lines: impl std::io::BufRead) -> Result<Vec<Said>> {
    let mut said = Vec::new();
    for line in lines.lines() {
        let line = line?;
        let alert = Alert(serde_json::from_str(&line).with_context(|| line.clone())?);
        said.extend(Said::of(&alert));
    }
    Ok(said)
}

/// Writes a capture and its labels beside it.
///
/// # Errors
/// When a file cannot be written.
pub fn record(plan: Plan, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    configure(dir)?;
    let file = fs::File::create(dir.join("lab.pcap"))?;
    let written = super::write(plan, BufWriter::with_capacity(PIPE, file))?;
    write_labels(&written.labels, &dir.join("labels.jsonl"))
}

fn write_labels(labels: &[Label], file: &Path) -> Result<()> {
    let mut out = BufWriter::new(fs::File::create(file)?);
    for label in labels {
        writeln!(out, "{}", label.json())?;
    }
    Ok(out.flush()?)
}

/// Writes the sensor's configuration: what the shop's operator knows of it.
fn configure(dir: &Path) -> Result<PathBuf> {
    let keys = Mint::at(0)?.jwks()?;
    fs::write(dir.join("jwks.json"), keys.to_string())?;
    fs::write(dir.join("city.mmdb"), places::city_database())?;
    fs::write(dir.join("asn.mmdb"), places::asn_database())?;
    fs::write(dir.join("bad.txt"), "# known attackers\n203.0.113.0/24\n")?;
    let path = |name: &str| dir.join(name).display().to_string();
    let mut config = base(&format!("file:{}", path("jwks.json")));
    // What newer sensors know: each part is left out where the sensor under test refuses it.
    let parts = [
        json!({"geo": {"city": path("city.mmdb"), "asn": path("asn.mmdb")}}),
        json!({"geo": {"allowed_countries": places::ALLOWED}}),
        json!({"lists": {"files": {"bad_addresses": [path("bad.txt")]}}}),
        json!({"time_zone": "UTC"}),
        json!({"tokens": {"learn_issued": true}}),
    ];
    let file = dir.join("config.yaml");
    for part in parts {
        let mut longer = config.clone();
        merge(&mut longer, &part);
        fs::write(&file, longer.to_string())?;
        let checked = command()?.args(["config", "check"]).arg(&file).output()?;
        if checked.status.success() {
            config = longer;
        }
    }
    fs::write(&file, config.to_string())?;
    Ok(file)
}

fn base(jwks: &str) -> Value {
    let issuer = |name: &str, algorithm: &str, types: Value| json!({"issuer": name, "jwks": jwks, "algorithms": [algorithm], "audiences": [AUDIENCE], "token_types": types});
    let names = |kind: &str, count: u64| (0..count).map(|n| format!("{kind}{n:04}")).collect::<Vec<_>>();
    json!({
        "issuers": [
            issuer(PEOPLE, "RS256", json!(["at+jwt"])),
            issuer(MACHINES, "ES256", json!(["JWT"])),
            issuer(CLUSTER, "RS256", json!([])),
        ],
        "http": {"trusted_proxies": ["10.0.9.0/28"]},
        "routes": [
            {"match": "/admin/**", "kind": "admin"},
            {"match": "/reports/**", "kind": "sensitive"},
            {"match": "/customers/**", "kind": "pii"},
            {"match": "/invoices/**", "kind": "financial"},
            {"match": "/payments", "kind": "financial"},
        ],
        "lists": {
            // The batch hosts and one of the two offices; the other has to be learned.
            "trusted_addresses": ["10.0.7.0/24", "198.51.100.10/32"],
            "departed_accounts": names("departed.", DEPARTED),
            "denied_accounts": names("denied.", DENIED),
            "revoked_ids": names("revoked-", REVOKED_IDS),
        },
        "privacy": {"fingerprint_key": "env:LAB_FINGERPRINT_KEY"},
    })
}

/// Adds the members of one object to another, at any depth.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
