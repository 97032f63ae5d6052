//! Golden captures: what the sensor says about captures made by hand, byte for byte.
//!
//! `BLESS=1 cargo test -p tests --test golden` writes what it says now; read the difference before committing it.
//! `GOLDEN_RULE=ID` plays one rule's case only.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::capture::Pcap;
use tests::golden::rules::{CASES, RuleCase, shortened};
use tests::golden::{Case, cases};
use tests::mint::{GOLDEN_NOW, Mint};
use tests::ocsf::Schema;
use tests::sensor::{Alert, Config, alerts, events, replay, shipped};

fn config() -> Result<Config> {
    Config::new(&Mint::at(GOLDEN_NOW)?)
}

fn case(name: &str) -> Result<Pcap> {
    let all = cases()?;
    let found = all.into_iter().find(|(n, _): &Case| n == name);
    Ok(found.with_context(|| format!("no case {name}"))?.1)
}

/// What two replays of one conversation must have in common: everything but identity and time.
type Essence = (String, String, String, Option<u64>);

fn essence(lines: &str) -> Result<Vec<Essence>> {
    let pick =
        |a: &tests::sensor::Alert| (a.rule().into(), a.severity().into(), a.route().into(), a.status());
    Ok(alerts(lines)?.iter().map(pick).collect())
}

#[test]
fn every_case_reads_as_it_was_blessed() -> Result<()> {
    let dir = tests::data("golden");
    fs::create_dir_all(&dir)?;
    let bless = std::env::var_os("BLESS").is_some();
    let config = config()?;
    let mut wrong = Vec::new();
    for (name, capture) in cases()? {
        let said = replay(&config, &capture.bytes()).with_context(|| name.clone())?;
        let file = dir.join(format!("{name}.jsonl"));
        if bless {
            fs::write(&file, &said)?;
        } else if fs::read_to_string(&file).unwrap_or_default() != said {
            wrong.push(format!("--- {name}\n{said}"));
        }
    }
    ensure!(wrong.is_empty(), "not as blessed (BLESS=1 accepts):\n{}", wrong.join("\n"));
    Ok(())
}

/// What no event may hold: a token's first bytes, or the password of every login.
const SECRETS: [&str; 4] = ["eyJ", "correct horse", "Bearer ey", "of no importance"];

/// Replays the case of a rule; what is wrong with what is said.
fn play(case: &RuleCase, schema: Option<&Schema>, bless: bool) -> Result<Option<String>> {
    let dir = tempfile::tempdir()?;
    let (config, capture) = case.make(dir.path())?;
    let whole = replay(&config, &capture)?;
    if let Some(secret) = SECRETS.iter().find(|secret| whole.contains(*secret)) {
        return Ok(Some(format!("--- {}: {secret:?} is in\n{whole}", case.rule)));
    }
    let check = |event| schema.map(|schema| schema.problems(&event)).unwrap_or_default();
    let problems: Vec<String> = events(&whole)?.into_iter().flat_map(check).collect();
    if !problems.is_empty() {
        return Ok(Some(format!("--- {}: no OCSF: {problems:?} in\n{whole}", case.rule)));
    }
    let all = alerts(&whole)?;
    let said: String = all.iter().map(|alert| shortened(alert).to_string() + "\n").collect();
    let mut other =
        all.iter().map(Alert::rule).filter(|rule| *rule != case.rule && !case.also.contains(rule));
    let wanted = [case.rule].into_iter().chain(case.also.iter().copied());
    let missing = wanted.filter(|rule| all.iter().all(|alert| alert.rule() != *rule)).collect::<Vec<_>>();
    if other.next().is_some() || !missing.is_empty() {
        return Ok(Some(format!("--- {}: lacks {missing:?} or says too much:\n{said}", case.rule)));
    }
    let file = tests::data("golden/rules").join(format!("{}.jsonl", case.rule));
    if bless {
        fs::write(&file, &said)?;
    }
    let blessed = fs::read_to_string(&file).unwrap_or_default();
    Ok((blessed != said).then(|| format!("--- {}\n{said}", case.rule)))
}

#[test]
fn every_rule_fires_on_its_own_case_and_says_what_was_blessed() -> Result<()> {
    fs::create_dir_all(tests::data("golden/rules"))?;
    let bless = std::env::var_os("BLESS").is_some();
    let only = std::env::var("GOLDEN_RULE").ok();
    let (schema, mut wrong) = (Schema::find(), Vec::new());
    for case in CASES.iter().filter(|case| only.as_deref().is_none_or(|rule| rule == case.rule)) {
        wrong.extend(play(case, schema.as_ref(), bless).with_context(|| case.rule)?);
    }
    ensure!(wrong.is_empty(), "not as blessed (BLESS=1 accepts):\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_rule_has_a_golden_case() -> Result<()> {
    let mut shown: Vec<String> = CASES.iter().map(|case| case.rule.to_owned()).collect();
    for entry in fs::read_dir(tests::data("golden"))? {
        let path = entry?.path();
        if path.is_file() {
            shown.extend(alerts(&fs::read_to_string(path)?)?.iter().map(|alert| alert.rule().to_owned()));
        }
    }
    let rules = shipped()?;
    let missing: Vec<&String> = rules.iter().filter(|rule| !shown.contains(rule)).collect();
    ensure!(missing.is_empty(), "no golden case shows {missing:?}: add one to tests/src/golden/rules");
    for entry in fs::read_dir(tests::data("golden/rules"))? {
        let path = entry?.path();
        let owner = CASES.iter().find(|case| path.file_stem().is_some_and(|stem| stem == case.rule));
        ensure!(owner.is_some(), "{} is nobody's: remove it", path.display());
    }
    Ok(())
}

#[test]
fn same_capture_gives_the_same_bytes_twice() -> Result<()> {
    for name in ["brute-force", "accepted-alg-none", "http-pipelined-100"] {
        let capture = case(name)?.bytes();
        ensure!(replay(&config()?, &capture)? == replay(&config()?, &capture)?, "{name}");
    }
    Ok(())
}

#[test]
fn benign_traffic_is_silent() -> Result<()> {
    let said = replay(&config()?, &case("benign")?.bytes())?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

#[test]
fn no_trick_of_tcp_changes_what_is_read() -> Result<()> {
    let plain = essence(&replay(&config()?, &case("tcp-plain")?.bytes())?)?;
    ensure!(plain.iter().map(|a| a.0.as_str()).eq(["alg-none"]), "{plain:?}");
    for (name, capture) in cases()?.iter().filter(|(name, _)| name.starts_with("tcp-")) {
        let said = essence(&replay(&config()?, &capture.bytes()).context(name.clone())?)?;
        ensure!(said == plain, "{name}: {said:?}");
    }
    Ok(())
}

#[test]
fn what_is_inside_a_body_is_no_request() -> Result<()> {
    for name in ["http-request-inside-a-body", "http-request-inside-a-chunk", "http-expect-continue"] {
        let said = essence(&replay(&config()?, &case(name)?.bytes())?)?;
        let routes: Vec<&str> = said.iter().map(|a| a.2.as_str()).collect();
        ensure!(routes == ["GET /orders/{id}"], "{name}: {said:?}");
    }
    let upgraded = replay(&config()?, &case("http-upgrade")?.bytes())?;
    ensure!(upgraded.is_empty(), "{upgraded}");
    Ok(())
}

#[test]
fn every_attack_raises_its_rule_and_no_other() -> Result<()> {
    let mut wrong = Vec::new();
    for attack in tests::attack::Attack::ALL {
        let said = alerts(&replay(&config()?, &case(&format!("attempt-{}", attack.name()))?.bytes())?)?;
        let got: Vec<(&str, &str)> = said.iter().map(|a| (a.rule(), a.severity())).collect();
        if got != [(attack.rule(), attack.severity())] {
            wrong.push(format!("{attack:?} raised {got:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn acceptance_of_a_forgery_is_told_once_the_guard_is_known() -> Result<()> {
    for name in ["accepted-alg-none", "accepted-before-the-guard-is-known", "accepted-bad-signature"] {
        let said = essence(&replay(&config()?, &case(name)?.bytes())?)?;
        ensure!(said.iter().any(|a| a.0 == "forged-token-accepted" && a.1 == "Critical"), "{name}: {said:?}");
    }
    let open = essence(&replay(&config()?, &case("accepted-on-an-open-route")?.bytes())?)?;
    ensure!(open.iter().all(|a| a.0 != "forged-token-accepted"), "{open:?}");
    Ok(())
}

#[test]
fn no_golden_event_holds_a_secret() -> Result<()> {
    let dirs = [fs::read_dir(tests::data("golden"))?, fs::read_dir(tests::data("golden/rules"))?];
    for entry in dirs.into_iter().flatten() {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        for secret in SECRETS {
            ensure!(!text.contains(secret), "{} holds {secret:?}", path.display());
        }
    }
    Ok(())
}

#[test]
fn samples_are_what_the_lab_makes() -> Result<()> {
    let file = tests::workspace().join("deploy/samples/shop.pcap");
    ensure!(
        fs::read(&file)? == tests::golden::sample()?.bytes(),
        "stale: run `cargo run -p tests -- samples deploy/samples`"
    );
    Ok(())
}

#[test]
fn half_a_token_is_not_judged() -> Result<()> {
    let said = essence(&replay(&config()?, &case("http-lost-segment-in-head")?.bytes())?)?;
    let judged: Vec<_> = said.iter().filter(|a| a.0 != "coverage-gap").collect();
    ensure!(judged.iter().all(|a| a.0 == "alg-none" && a.1 == "High") && judged.len() == 1, "{said:?}");
    ensure!(said.iter().any(|a| a.0 == "coverage-gap"), "the gap is not told");
    Ok(())
}
