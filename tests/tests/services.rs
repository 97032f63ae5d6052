//! The sample services do what they promise, without any sensor: otherwise the other tests would prove nothing.

use anyhow::{Result, ensure};
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
