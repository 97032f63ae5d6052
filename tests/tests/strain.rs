//! What attackers and clocks do to the history: floods of every kind of name, and time that jumps.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::attack::Attack;
use tests::bench::weigh;
use tests::capture::{Conversation, Pcap};
use tests::client::get;
use tests::golden::START;
use tests::lab::quality::record;
use tests::lab::{Plan, rng::Rng};
use tests::mint::{GOLDEN_NOW, Mint};
use tests::sensor::{Config, alerts, command, replay};

/// Exchanges of the flood: above the caps of tokens (1,000 here), routes (10,000) and addresses (20,000).
const FLOOD: u32 = 24_000;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const NO: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

/// Peak resident memory of a replay, in MiB, and what it said.
fn weighed(config: &Config, capture: &Pcap) -> Result<(f64, String)> {
    let dir = tempfile::tempdir()?;
    let (file, pcap) = (config.write(dir.path())?, dir.path().join("flood.pcap"));
    fs::write(&pcap, capture.bytes())?;
    let mut child = command()?;
    child.arg("replay").arg(&pcap).arg("-c").arg(&file).args(["-o", "json"]);
    let out = dir.path().join("out");
    let mut child = child.stdout(fs::File::create(&out)?).stderr(Stdio::null()).spawn()?;
    let (status, peak) = weigh(&mut child)?;
    ensure!(status.success(), "replay ended with {status}");
    Ok((peak, fs::read_to_string(out)?))
}

/// One exchange on a connection of its own.
fn exchange(capture: &mut Pcap, at_ms: u64, mut client: SocketAddr, request: &[u8], answer: &[u8]) {
    client.set_port(u16::try_from(4000 + at_ms % 50_000).unwrap_or(4000));
    let mut talk = Conversation::open(client, SocketAddr::from(([10, 0, 0, 1], 8080)));
    talk.request(request).response(answer).close();
    capture.add(START + at_ms * 1_000_000, &talk);
}

/// A victim's token, learned at her address; then a flood in which every request brings another token, principal,
/// address, host and path, and is answered as a careless service would; then a thief with her token.
fn flooded(mint: &Mint, flood: u32) -> Result<Pcap> {
    let mut capture = Pcap::default();
    let owner = mint.good("alice")?;
    let (home, thief) =
        (SocketAddr::from(([192, 0, 2, 7], 4000)), SocketAddr::from(([203, 0, 113, 9], 4000)));
    let alice = |agent: &str| {
        let text = String::from_utf8(get("/orders/7", Some(&owner)))?;
        anyhow::Ok(text.replace("lab/1.0", agent).into_bytes())
    };
    for i in 0..5 {
        exchange(&mut capture, i * 1000, home, &alice("okhttp/4.12")?, OK);
    }
    for n in 0..flood {
        let [_, a, b, c] = n.to_be_bytes();
        let client = SocketAddr::from(([100, 64 + a, b, c], 5000));
        let token = mint.eddsa_named(&format!("nobody-{n}"), &format!("id-{n}"));
        let request = String::from_utf8(get(&format!("/w{n}rd/x{n}y"), Some(&token)))?;
        let request = request.replace("shop.test", &format!("h{n}.test"));
        exchange(&mut capture, 6000 + u64::from(n), client, request.as_bytes(), OK);
        // She goes on meanwhile, as people do.
        if n % 500 == 0 {
            exchange(&mut capture, 6000 + u64::from(n), home, &alice("okhttp/4.12")?, OK);
        }
    }
    let end = 7000 + u64::from(flood);
    exchange(&mut capture, end, thief, &alice("python-requests/2.32")?, OK);
    exchange(
        &mut capture,
        end + 10,
        thief,
        &get("/orders/8", Some(&Attack::AlgNone.token(mint, "bob")?)),
        NO,
    );
    Ok(capture)
}

#[test]
fn floods_of_all_names_at_once_take_bounded_memory_and_hide_nothing() -> Result<()> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let mut config = Config::new(&mint)?;
    config.set("/tokens/max_tokens", json!(1000));
    let (half, _) = weighed(&config, &flooded(&mint, FLOOD / 2)?)?;
    let (peak, said) = weighed(&config, &flooded(&mint, FLOOD)?)?;
    let found = alerts(&said)?;
    for rule in ["token-many-sources", "alg-none"] {
        ensure!(
            found.iter().any(|alert| alert.rule() == rule && alert.client() == "203.0.113.9"),
            "{rule} is hidden"
        );
    }
    // Principals alone may grow here: below a kilobyte each in the history.
    ensure!(peak < 120.0 && peak - half < 25.0, "{peak} MiB, {half} after half of it");
    Ok(())
}

#[test]
fn time_that_jumps_hurts_nobody() -> Result<()> {
    let dir = tempfile::tempdir()?;
    record(Plan { seed: 5, exchanges: 12_000, attacks: 1 }, dir.path())?;
    let mut capture = fs::read(dir.path().join("lab.pcap"))?;
    jumble(&mut capture, &mut Rng::new(9)).context("a whole capture")?;
    let pcap = dir.path().join("jumbled.pcap");
    fs::write(&pcap, &capture)?;
    let run = || {
        let mut replay = command()?;
        replay.arg("replay").arg(&pcap).arg("-c").arg(dir.path().join("config.yaml")).args(["-o", "json"]);
        anyhow::Ok(replay.env("LAB_FINGERPRINT_KEY", "a key that is fixed for tests only").output()?)
    };
    let (first, second) = (run()?, run()?);
    let said = String::from_utf8_lossy(&first.stderr);
    ensure!(first.status.success(), "replay ended with {}:\n{said}", first.status);
    ensure!(first.stdout == second.stdout, "two replays differ");
    let found = alerts(&String::from_utf8(first.stdout)?)?;
    for rule in ["alg-none", "signature-invalid", "kid-injection", "injection"] {
        ensure!(
            found.iter().any(|alert| alert.rule() == rule),
            "{rule} does not depend on the time and is missing"
        );
    }
    Ok(())
}

/// Moves the time of one record in fifty, and of all that follow: hours or months, on or back, to 1970 and to the last
/// second that the format has.
fn jumble(capture: &mut [u8], rng: &mut Rng) -> Option<()> {
    let (mut at, mut shift) = (24, 0_i64);
    while at < capture.len() {
        let second = u32::from_le_bytes(capture.get(at..at + 4)?.try_into().ok()?);
        let length = u32::from_le_bytes(capture.get(at + 8..at + 12)?.try_into().ok()?);
        if rng.chance(0.02) {
            let far = i64::try_from(rng.below(8_000_000)).ok()?;
            shift = match rng.below(6) {
                0 => -i64::from(second),
                1 => i64::from(u32::MAX - second),
                2 => 0,
                3 => -far,
                4 => far,
                _ => i64::try_from(rng.below(7200)).ok()? - 3600,
            };
        }
        let moved = (i64::from(second) + shift).clamp(0, i64::from(u32::MAX));
        capture.get_mut(at..at + 4)?.copy_from_slice(&u32::try_from(moved).ok()?.to_le_bytes());
        at += 16 + usize::try_from(length).ok()?;
    }
    Some(())
}

/// What one claim may hold: 1 MB of subject, lists where text belongs, one member twice.
#[test]
fn monstrous_claims_get_a_verdict() -> Result<()> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let config = Config::new(&mint)?;
    let mut capture = Pcap::default();
    let claims = |text: String| mint.rs256_text(r#"{"alg":"RS256","typ":"JWT","kid":"rsa-1"}"#, &text);
    let exp = GOLDEN_NOW + 600;
    let good = format!(r#""iss":"https://idp.example/","aud":"orders-api","exp":{exp}"#);
    let odd = [
        claims(format!(r#"{{{good},"sub":"{}"}}"#, "a".repeat(1 << 20)))?,
        claims(format!(r#"{{{good},"sub":["alice"],"roles":{{"a":1}}}}"#))?,
        claims(format!(r#"{{{good},"sub":"alice","sub":"admin"}}"#))?,
    ];
    for (n, token) in (0..).zip(&odd) {
        let client = SocketAddr::from(([192, 0, 2, 7], 4000 + n));
        exchange(&mut capture, u64::from(n) * 1000, client, &get("/orders/7", Some(token)), NO);
    }
    let found = alerts(&replay(&config, &capture.bytes())?)?;
    let told =
        |port: u64| found.iter().any(|a| a.rule() == "malformed-token" && a.client_port() == Some(port));
    // The head with the megabyte is longer than any that is read; what follows it is judged all the same.
    ensure!(told(5000) && told(6000), "{found:?}");
    Ok(())
}
