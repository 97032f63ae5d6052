//! Tokens learned from what login and token routes answer: live, from a server that issues them, and in replay.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::capture::{Conversation, Pcap};
use tests::client::{Client, get, login, post};
use tests::clock::Deadline;
use tests::golden::{SECOND, START, answer};
use tests::mint::{GOLDEN_NOW, Mint, set};
use tests::sensor::{Alert, Config, PATIENCE, Sensor, alerts, replay};
use tests::server::{Kind, Options, Server};
use tests::{clock, sensor, skip};

fn config(mint: &Mint, learn: bool) -> Result<Config> {
    let mut config = Config::new(mint)?;
    config.set("/tokens/learn_issued", json!(learn));
    Ok(config)
}

/// Logs in and asks for news with the token that comes of it; returns every secret that passed.
fn visit(server: SocketAddr, user: &str) -> Result<Vec<String>> {
    let mut client = Client::connect(server)?;
    let text = |answer: &Value, name: &str| -> Result<String> {
        Ok(answer.get(name).and_then(Value::as_str).context("a token")?.to_owned())
    };
    let tokens: Value = serde_json::from_slice(&client.ask(&login(user, "correct horse"))?.body)?;
    let (access, refresh) = (text(&tokens, "access_token")?, text(&tokens, "refresh_token")?);
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let renewed = client.ask(&post("/oauth/token", None, form.as_bytes()))?;
    ensure!(renewed.status == 200, "refresh");
    let renewed: Value = serde_json::from_slice(&renewed.body)?;
    ensure!(client.ask(&get("/news", Some(&access)))?.status == 200, "news");
    Ok(vec![access, refresh, text(&renewed, "refresh_token")?])
}

/// What the sensor made of an issuer.
struct Watched {
    alerts: Vec<Alert>,
    /// Tokens that it saw issued.
    issued: f64,
    /// Bytes that the kernel half forwarded.
    bytes: f64,
    /// Secrets that it kept or printed.
    leaked: Vec<String>,
}

/// The sensor beside an issuer while five people log in.
fn watched(learn: bool) -> Result<Option<Watched>> {
    if let Some(why) = sensor::missing().or_else(|| Kind::Issuer.missing()) {
        skip("issued::live", &why);
        return Ok(None);
    }
    let mint = Mint::at(clock::now())?;
    let server = Server::start(Kind::Issuer, &mint, &Options::default())?;
    let state = tempfile::tempdir()?;
    let mut config = config(&mint, learn)?.ports(&[server.address.port()]);
    config.set("/state/dir", json!(state.path()));
    let mut sensor = Sensor::start(&config)?;
    let mut secrets = Vec::new();
    for user in ["ann", "bea", "cid", "dan", "eve"] {
        secrets.extend(visit(server.address, user)?);
    }
    // The last thing that is told.
    let mut client = Client::connect(server.address)?;
    client.ask(&get("/orders/1", Some(&Attack::AlgNone.token(&mint, "mallory")?)))?;
    let alerts = sensor.until("alg-none")?;
    let deadline = Deadline::after(PATIENCE);
    while sensor.metric("tokenscope_token_uses_total", "")? < 6.0 && !deadline.is_over() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let issued = sensor.metric("tokenscope_tokens_issued_total", "")?;
    let bytes = sensor.metric("tokenscope_kernel_events_total", "\"captured_bytes\"")?;
    let ended = sensor.stop()?;
    let printed = format!("{alerts:?}{:?}{}", ended.lines, ended.stderr).into_bytes();
    secrets.retain(|secret| holds(&printed, secret) || kept(state.path(), secret));
    Ok(Some(Watched { alerts, issued, bytes, leaked: secrets }))
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// Whether a file below the directory holds a secret.
fn kept(dir: &Path, secret: &str) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() { kept(&path, secret) } else { holds(&fs::read(&path).unwrap_or_default(), secret) }
    })
}

#[test]
fn tokens_at_the_end_of_a_live_answer_are_learned_and_told_of_when_they_are_numbers() -> Result<()> {
    let Some(Watched { alerts: seen, issued, bytes, leaked }) = watched(true)? else { return Ok(()) };
    ensure!(seen.iter().filter(|a| a.rule() == "guessable-token").count() == 1, "{seen:?}");
    ensure!(seen.len() == 2, "{seen:?}");
    ensure!((issued - 10.0).abs() < 0.5, "{issued} tokens issued, of five logins and five refreshes");
    ensure!(bytes > 5.0 * 4096.0, "{bytes} bytes forwarded");
    ensure!(leaked.is_empty(), "{} secrets were kept or printed", leaked.len());
    Ok(())
}

#[test]
fn without_the_option_nothing_is_learned_and_bodies_stay_in_the_kernel() -> Result<()> {
    let Some(Watched { alerts: seen, issued, bytes, leaked }) = watched(false)? else { return Ok(()) };
    ensure!(seen.iter().map(Alert::rule).eq(["alg-none"]), "{seen:?}");
    ensure!(issued < 0.5 && bytes < 5.0 * 4096.0, "{issued} issued, {bytes} bytes forwarded");
    ensure!(leaked.is_empty(), "{} secrets were kept or printed", leaked.len());
    Ok(())
}

fn client(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 3, last], 40_000 + u16::from(last)))
}

fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8080))
}

/// An answer that issues this.
fn tokens(access: &str, refresh: &str) -> Vec<u8> {
    let body = json!({"access_token": access, "expires_in": 900, "refresh_token": refresh}).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

fn refresh(with: &str, agent: &str) -> Vec<u8> {
    let form = format!("grant_type=refresh_token&refresh_token={with}");
    let request = post("/oauth/token", None, form.as_bytes());
    String::from_utf8_lossy(&request).replace("lab/1.0", agent).into_bytes()
}

fn token(mint: &Mint, subject: &str, number: u32) -> Result<String> {
    let mut claims = mint.claims(subject);
    set(&mut claims, "jti", json!(format!("{subject}-{number}")));
    mint.rs256(&json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}), &claims)
}

/// Alice logs in and refreshes twice; then whoever `then` says refreshes or asks.
fn after_two_refreshes(mint: &Mint, from: SocketAddr, then: &[(Vec<u8>, Vec<u8>)]) -> Result<Pcap> {
    let mut file = Pcap::default();
    let agent = "okhttp/4.12";
    let steps = [
        (login("alice", "correct horse"), tokens(&token(mint, "alice", 1)?, "rt-1-secret")),
        (refresh("rt-1-secret", agent), tokens(&token(mint, "alice", 2)?, "rt-2-secret")),
        (get("/orders/1", Some(&token(mint, "alice", 2)?)), answer(200)),
        (refresh("rt-2-secret", agent), tokens(&token(mint, "alice", 3)?, "rt-3-secret")),
    ];
    for (turn, (request, reply)) in (0_u64..).zip(&steps) {
        let mut talk = Conversation::open(client(7 + u8::try_from(turn)?), server());
        talk.request(request).response(reply).close();
        file.add(START + turn * 60 * SECOND, &talk);
    }
    for (turn, (request, reply)) in (10_u64..).zip(then) {
        let port = 50_000 + u16::try_from(turn)?;
        let mut talk = Conversation::open(SocketAddr::new(from.ip(), port), server());
        talk.request(request).response(reply).close();
        file.add(START + turn * 60 * SECOND, &talk);
    }
    Ok(file)
}

/// The rules and severities that a replay raises, with and without the option.
fn raised(mint: &Mint, capture: &Pcap) -> Result<[Vec<(String, String)>; 2]> {
    let mut both = [Vec::new(), Vec::new()];
    for (learn, raised) in [true, false].into_iter().zip(&mut both) {
        let said = replay(&config(mint, learn)?, &capture.bytes())?;
        ensure!(!said.contains("-secret") && !said.contains("eyJ"), "a secret was printed");
        raised.extend(alerts(&said)?.iter().map(|a| (a.rule().to_owned(), a.severity().to_owned())));
    }
    Ok(both)
}

#[test]
fn the_theft_of_a_refresh_token_that_was_left_behind_is_certain() -> Result<()> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let thief = (refresh("rt-1-secret", "curl/8.5"), tokens(&token(&mint, "alice", 9)?, "rt-9-secret"));
    let from = SocketAddr::from(([203, 0, 113, 9], 40_000));
    let capture = after_two_refreshes(&mint, from, std::slice::from_ref(&thief))?;
    let [with, without] = raised(&mint, &capture)?;
    // The thief's network is another's as well: told without the option, but less sure.
    ensure!(with == [("refresh-reuse".into(), "Critical".into())], "{with:?}");
    ensure!(without == [("refresh-reuse".into(), "High".into())], "{without:?}");
    let said = alerts(&replay(&config(&mint, true)?, &capture.bytes())?)?;
    let owner = said.first().and_then(|a| a.0.pointer("/evidences/0/actor/user/uid")?.as_str());
    ensure!(owner == Some("alice"), "{owner:?} is named, whose login it was");
    Ok(())
}

#[test]
fn a_refresh_that_gives_the_token_of_another_is_told_when_it_is_used() -> Result<()> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let others = token(&mint, "bob", 1)?;
    let then = [
        (refresh("rt-3-secret", "okhttp/4.12"), tokens(&others, "rt-4-secret")),
        (get("/orders/2", Some(&others)), answer(200)),
    ];
    let [with, without] = raised(&mint, &after_two_refreshes(&mint, client(7), &then)?)?;
    ensure!(with == [("subject-switch".into(), "High".into())], "{with:?}");
    ensure!(without.is_empty(), "{without:?}");
    Ok(())
}

#[test]
fn honest_refreshing_is_silent() -> Result<()> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let third = token(&mint, "alice", 3)?;
    let then = [
        (get("/orders/2", Some(&third)), answer(200)),
        (refresh("rt-3-secret", "okhttp/4.12"), tokens(&token(&mint, "alice", 4)?, "rt-4-secret")),
        (login("bob", "correct horse"), tokens(&token(&mint, "bob", 1)?, "rt-5-secret")),
        (get("/orders/3", Some(&token(&mint, "bob", 1)?)), answer(200)),
    ];
    let [with, without] = raised(&mint, &after_two_refreshes(&mint, client(7), &then)?)?;
    ensure!(with.is_empty() && without.is_empty(), "{with:?} {without:?}");
    Ok(())
}
