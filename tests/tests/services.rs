//! The sample services do what they promise, without any sensor: otherwise the other tests would prove nothing.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::attack::Attack;
use tests::client::{Client, get, login, post};
use tests::clock;
use tests::mint::Mint;
use tests::server::{Kind, Options, Server};

fn status(server: &Server, request: &[u8]) -> Result<u16> {
    Ok(Client::connect(server.address)?.ask(request)?.status)
}

fn keeps_its_promises(kind: Kind) -> Result<()> {
    if let Some(missing) = kind.missing() {
        tests::skip(&format!("services::{kind:?}"), &missing);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let good = mint.good("alice")?;
    let forged = Attack::AlgNone.token(&mint, "alice")?;
    let allow = vec![good.clone()];
    let server = Server::start(kind, &mint, &Options { allow: allow.clone(), ..Options::default() })?;
    let orders = |token: Option<&str>| status(&server, &get("/orders/7", token));
    ensure!(status(&server, &get("/health", None))? == 200, "health");
    ensure!(orders(None)? == 401, "no token");
    ensure!(orders(Some(&good))? == 200, "a good token");
    for attack in Attack::ALL {
        // What a lax decoder cannot tell from a good token.
        let token = attack.token(&mint, "alice")?;
        let answer = orders(Some(&token))?;
        let lax = matches!(attack, Attack::Padding | Attack::DuplicateMembers);
        ensure!(answer == 401 || lax, "{attack:?} was answered {answer}");
    }
    ensure!(status(&server, &login("alice", "wrong"))? == 401, "a wrong password");
    ensure!(status(&server, &login("alice", "correct horse"))? == 200, "the right password");
    if kind != Kind::Uring {
        ensure!(status(&server, &post("/upload", Some(&good), &vec![b'x'; 50_000]))? == 200, "an upload");
    }
    drop(server);
    let open = Server::start(kind, &mint, &Options { accept_none: true, allow, ..Options::default() })?;
    ensure!(status(&open, &get("/orders/7", Some(&forged)))? == 200, "alg none with the hole");
    ensure!(status(&open, &get("/orders/7", None))? == 401, "no token with the hole");
    Ok(())
}

#[test]
fn python() -> Result<()> {
    keeps_its_promises(Kind::Python)
}

#[test]
fn node() -> Result<()> {
    keeps_its_promises(Kind::Node)
}

#[test]
fn java() -> Result<()> {
    keeps_its_promises(Kind::Java)
}

#[test]
fn go() -> Result<()> {
    keeps_its_promises(Kind::Go)
}

#[test]
fn gin() -> Result<()> {
    keeps_its_promises(Kind::Gin)
}

#[test]
fn nginx() -> Result<()> {
    keeps_its_promises(Kind::Nginx)
}

#[test]
fn uring() -> Result<()> {
    keeps_its_promises(Kind::Uring)
}

/// What it issues is good, what it did not issue is not, and an old refresh token stays good: its hole.
#[test]
fn issuer() -> Result<()> {
    if let Some(missing) = Kind::Issuer.missing() {
        tests::skip("services::issuer", &missing);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let server = Server::start(Kind::Issuer, &mint, &Options::default())?;
    let ask = |request: &[u8]| -> Result<Value> {
        let answer = Client::connect(server.address)?.ask(request)?;
        ensure!(answer.status == 200, "answered {}", answer.status);
        Ok(serde_json::from_slice(&answer.body)?)
    };
    let text =
        |answer: &Value, name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(status(&server, &login("alice", "wrong"))? == 401, "a wrong password");
    let first = ask(&login("alice", "correct horse"))?;
    let refresh =
        post("/oauth/token", None, format!("refresh_token={}", text(&first, "refresh_token")).as_bytes());
    let second = ask(&refresh)?;
    ensure!(text(&first, "refresh_token") != text(&second, "refresh_token"), "it rotates");
    ask(&refresh)?;
    for answer in [first, second] {
        ensure!(status(&server, &get("/orders/7", Some(&text(&answer, "access_token"))))? == 200, "issued");
    }
    ensure!(status(&server, &get("/orders/7", Some("shop-1")))? == 401, "not issued");
    ensure!(status(&server, &post("/oauth/token", None, b"refresh_token=x"))? == 400, "no refresh token");
    Ok(())
}
