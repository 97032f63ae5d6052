//! What users and attackers get wrong: each a clear message, the right exit status, and a sensor that works on.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::attack::Attack;
use tests::client::{Client, get};
use tests::expect::{Expected, exactly};
use tests::golden::{START, answer, cases};
use tests::mint::{GOLDEN_NOW, ISSUER, Mint};
use tests::sensor::{Config, Sensor, alerts, binary};
use tests::{clock, is_root, raw, sensor, skip};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the program; checks the exit status and that stderr holds all the words.
fn fails(arguments: &[&str], status: i32, words: &[&str]) -> Result<()> {
    let done = sensor::run(arguments)?;
    let text = said(&done);
    ensure!(done.status.code() == Some(status), "{arguments:?} ended with {}: {text}", done.status);
    for word in words {
        ensure!(text.contains(word), "{arguments:?} does not say {word:?}: {text}");
    }
    Ok(())
}

#[test]
fn every_error_of_a_config_is_told_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("bad.yaml");
    fs::write(&file, "capture:\n  prots: [80]\n  max_head_bytes: -1\nissuers:\n  - issuer: 7\nalerts: no\n")?;
    let path = file.to_string_lossy().into_owned();
    let words = ["prots", "ports", "max_head_bytes", "bad.yaml", "issuer", "alerts"];
    fails(&["config", "check", &path], 2, &words)?;
    fails(&["replay", "-c", &path, "whatever.pcap"], 2, &words)?;
    fails(&["run", "-c", &path], 2, &words)
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    fails(&["replay"], 2, &["Usage"])?;
    fails(&["replay", "x.pcap", "-o", "nonsense"], 2, &["nonsense"])?;
    fails(&["no-such-command"], 2, &["no-such-command"])?;
    fails(&["run", "-c", "/nonexistent/config.yaml"], 2, &["/nonexistent/config.yaml"])
}

#[test]
fn unreadable_captures_end_with_1_and_a_reason() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    fails(&["replay", &path("absent.pcap")], 1, &["absent.pcap"])?;
    fs::write(dir.path().join("text.pcap"), "this is no capture")?;
    fails(&["replay", &path("text.pcap")], 1, &["text.pcap"])?;
    fs::write(dir.path().join("empty.pcap"), "")?;
    fails(&["replay", &path("empty.pcap")], 1, &["empty.pcap"])
}

#[test]
fn what_comes_before_the_damage_is_not_lost() -> Result<()> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let dir = tempfile::tempdir()?;
    let config = Config::new(&mint)?.write(dir.path())?;
    let all = cases()?;
    let mut capture = all.iter().find(|(name, _)| name == "attempt-alg-none").map(|(_, c)| c.bytes());
    let bytes = capture.get_or_insert_default();
    // A record that says it is four gigabytes long.
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3]);
    let file = dir.path().join("damaged.pcap");
    fs::write(&file, bytes)?;
    let arguments = ["replay", "-o", "json", "-c"].map(str::to_owned);
    let paths = [&config, &file].map(|p| p.to_string_lossy().into_owned());
    let done = sensor::command()?.args(arguments).args(paths).output()?;
    ensure!(done.status.code() == Some(1), "ended with {}: {}", done.status, said(&done));
    let told = alerts(&String::from_utf8(done.stdout.clone())?)?;
    ensure!(told.iter().any(|a| a.rule() == "alg-none"), "{}", said(&done));
    Ok(())
}

#[test]
fn random_bytes_in_a_capture_hurt_nobody() -> Result<()> {
    let config = Config::new(&Mint::at(GOLDEN_NOW)?)?;
    for (name, capture) in cases()?.iter().step_by(7) {
        let mut bytes = capture.bytes();
        // A linear congruential generator: the same damage every time.
        let mut seed: u64 = START;
        for _ in 0..50 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(seed >> 33)? % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at.max(24)) {
                *byte ^= 0x41;
            }
        }
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("noise.pcap");
        fs::write(&file, &bytes)?;
        let done = sensor::command()?
            .args(["replay", "-o", "json", "-c"])
            .args([&config.write(dir.path())?, &file])
            .output()?;
        ensure!(matches!(done.status.code(), Some(0 | 1)), "{name}: {} {}", done.status, said(&done));
        ensure!(!said(&done).contains("panicked"), "{name}: {}", said(&done));
    }
    Ok(())
}

#[test]
fn without_privileges_run_says_what_is_missing() -> Result<()> {
    if !is_root() {
        return fails(&["run"], 1, &["CAP_"]);
    }
    let done = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(binary()?)
        .arg("run")
        .output()?;
    let text = said(&done);
    if text.contains("Permission denied") && text.contains("setpriv") {
        skip("bad_input::without_privileges_run_says_what_is_missing", "nobody may not execute the build");
        return Ok(());
    }
    ensure!(done.status.code() == Some(1), "ended with {}: {text}", done.status);
    ensure!(text.contains("CAP_") || text.contains("root"), "no remedy: {text}");
    Ok(())
}

#[test]
fn without_cgroup_v2_run_says_so() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("bad_input::without_cgroup_v2_run_says_so", &why);
        return Ok(());
    }
    let script = "for m in $(awk '$3 == \"cgroup2\" {print $2}' /proc/self/mounts); do umount -l $m; done; exec \"$0\" run";
    let done = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(binary()?).output()?;
    let text = said(&done);
    ensure!(done.status.code() == Some(1), "ended with {}: {text}", done.status);
    ensure!(text.contains("cgroup"), "{text}");
    Ok(())
}

/// A sensor whose key server misbehaves still sees what needs no key, and stops when told.
fn works_on_beside(test: &str, keys: raw::Script) -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip(&format!("bad_input::{test}"), &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let (keys, service) = (raw::listen(keys)?, raw::listen(raw::refuse_in_chunks)?);
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set(
        "/issuers",
        json!([{
            "issuer": ISSUER, "jwks": format!("http://{keys}/jwks.json"), "algorithms": ["RS256"],
        }]),
    );
    let sensor = Sensor::start(&config)?;
    let mut client = Client::connect(service)?;
    // This one waits for keys that never come; the next needs none.
    client.ask(&get("/orders/1", Some(&mint.good("alice")?)))?;
    let status = client.ask(&get("/orders/2", Some(&Attack::AlgNone.token(&mint, "mallory")?)))?.status;
    let port = client.local()?.port();
    let (_, said) = exactly(sensor, vec![Expected::new("alg-none", "High", port, status)])?;
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

#[test]
fn keys_that_never_come_stop_nothing() -> Result<()> {
    works_on_beside("keys_that_never_come_stop_nothing", raw::swallow)
}

#[test]
fn keys_behind_a_redirect_loop_stop_nothing() -> Result<()> {
    works_on_beside("keys_behind_a_redirect_loop_stop_nothing", raw::redirect)
}

#[test]
fn keys_of_100_megabytes_stop_nothing() -> Result<()> {
    works_on_beside("keys_of_100_megabytes_stop_nothing", raw::flood)
}

#[test]
fn keys_that_lie_stop_nothing() -> Result<()> {
    works_on_beside("keys_that_lie_stop_nothing", raw::lie)
}

#[test]
fn head_of_ten_megabytes_takes_bounded_memory() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("bad_input::head_of_ten_megabytes_takes_bounded_memory", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let (endless, service) = (raw::listen(raw::swallow)?, raw::listen(raw::refuse_in_chunks)?);
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[endless.port(), service.port()]))?;
    let before = sensor.peak_mib().unwrap_or_default();
    let mut huge = Client::connect(endless)?;
    huge.send(b"GET /orders/1 HTTP/1.1\r\nHost: h\r\n")?;
    let line = format!("X-Filler: {}\r\n", "f".repeat(4084)).repeat(256);
    for _ in 0..10 {
        huge.send(line.as_bytes())?;
    }
    let mut client = Client::connect(service)?;
    let status = client.ask(&get("/orders/2", Some(&Attack::AlgNone.token(&mint, "mallory")?)))?.status;
    let expected = vec![Expected::new("alg-none", "High", client.local()?.port(), status)];
    let after = sensor.peak_mib().unwrap_or_default();
    // 10 MB went by; 64 KiB of a head are kept. 5 MiB allow for the allocator and the other request.
    ensure!(after - before < 5.0, "grew from {before} to {after} MiB");
    exactly(sensor, expected).map(drop)
}

#[test]
fn many_half_open_connections_push_nobody_out() -> Result<()> {
    use tests::capture::{Conversation, Pcap};
    let mint = Mint::at(GOLDEN_NOW)?;
    let server = std::net::SocketAddr::from(([10, 0, 0, 1], 8080));
    let mut file = Pcap::default();
    let mut victim = Conversation::open(std::net::SocketAddr::from(([10, 0, 3, 7], 40_000)), server);
    victim.request(&get("/orders/1", None)).response(&answer(401));
    victim.pause(2_000_000_000);
    victim.request(&get("/orders/2", Some(&Attack::AlgNone.token(&mint, "mallory")?))).response(&answer(401));
    file.add(START, &victim);
    for n in 0..150_000_u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let scan = Conversation::open(std::net::SocketAddr::from(([11, b, c, d], 40_000)), server);
        file.add(START + 1_000_000_000 + u64::from(n) * 5_000, &scan);
    }
    let told = alerts(&sensor::replay(&Config::new(&mint)?, &file.bytes())?)?;
    ensure!(told.iter().filter(|a| a.rule() == "alg-none").count() == 1, "{told:?}");
    Ok(())
}
