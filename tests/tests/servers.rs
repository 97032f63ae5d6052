//! The sensor on real, unmodified servers: silence on honest traffic, and for each attack exactly its own alerts.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tests::attack::Attack;
use tests::client::{Client, get, login, post};
use tests::expect::{Expected, exactly};
use tests::mint::Mint;
use tests::sensor::{Alert, Config, Sensor};
use tests::server::{Kind, Options, Server};
use tests::{clock, sensor, skip};

/// Why a test cannot run here.
fn missing(kind: Kind) -> Option<String> {
    sensor::missing().or_else(|| kind.missing())
}

/// Asks once on a connection of its own. The client's port and the status tell the request apart later.
fn ask(server: SocketAddr, request: &[u8]) -> Result<(u16, u16)> {
    let mut client = Client::connect(server)?;
    let answer = client.ask(request)?;
    Ok((client.local()?.port(), answer.status))
}

/// What honest clients do, well below every threshold.
fn honest(server: SocketAddr, token: &str, kind: Kind) -> Result<()> {
    let mut client = Client::connect(server)?;
    let orders = |id: u32| get(&format!("/orders/{id}?verbose=1"), Some(token));
    ensure!(client.ask(&get("/health", None))?.status == 200, "health");
    ensure!(client.ask(&login("alice", "correct horse"))?.status == 200, "login");
    for id in 1..6 {
        ensure!(client.ask(&orders(id))?.status == 200, "order {id}");
    }
    if kind != Kind::Uring {
        ensure!(client.ask(&post("/upload", Some(token), &vec![b'x'; 200_000]))?.status == 200, "upload");
    }
    ensure!(client.ask(&orders(6))?.status == 200, "an order after an upload");
    ensure!(ask(server, &get("/orders/7", None))?.1 == 401, "no token");
    Ok(())
}

/// The alerts that one attack must raise, given how the service answered.
fn expected(attack: Attack, (port, status): (u16, u16)) -> Vec<Expected> {
    let accepted = status == 200;
    let severity = match (attack.rule(), accepted) {
        ("malformed-token", true) => "Medium",
        (_, true) => "Critical",
        (_, false) => attack.severity(),
    };
    let mut all = vec![Expected::new(attack.rule(), severity, port, status)];
    if accepted && attack.rule() != "malformed-token" {
        all.push(Expected::new("forged-token-accepted", "Critical", port, status));
    }
    all
}

fn check(alerts: &[Alert], server: SocketAddr, process: &str) -> Result<()> {
    for alert in alerts {
        ensure!(alert.client() == "127.0.0.1", "client {} in {alert:?}", alert.client());
        ensure!(alert.server_port() == Some(server.port().into()), "server port in {alert:?}");
        ensure!(alert.route() == "GET /orders/{id}", "route {} in {alert:?}", alert.route());
        ensure!(alert.workload().contains(process), "workload {} in {alert:?}", alert.workload());
    }
    Ok(())
}

/// A careful service: honest traffic, then every attack.
fn refuses(kind: Kind) -> Result<()> {
    if let Some(why) = missing(kind) {
        skip(&format!("servers::{kind:?}_refuses"), &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let good = mint.good("alice")?;
    let server = Server::start(kind, &mint, &Options { allow: vec![good.clone()], ..Options::default() })?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    honest(server.address, &good, kind)?;
    let mut all = Vec::new();
    for attack in Attack::ALL {
        let token = attack.token(&mint, "mallory")?;
        all.extend(expected(attack, ask(server.address, &get("/orders/13", Some(&token)))?));
    }
    let (alerts, _) = exactly(sensor, all)?;
    check(&alerts, server.address, kind.process())
}

/// A service with the classic hole: the forgery is accepted, and that is what is told.
fn accepts(kind: Kind) -> Result<()> {
    if let Some(why) = missing(kind) {
        skip(&format!("servers::{kind:?}_accepts"), &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let good = mint.good("alice")?;
    let options = Options { accept_none: true, allow: vec![good.clone()], ..Options::default() };
    let server = Server::start(kind, &mint, &options)?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    honest(server.address, &good, kind)?;
    let token = Attack::AlgNone.token(&mint, "mallory")?;
    let outcome = ask(server.address, &get("/orders/13", Some(&token)))?;
    ensure!(outcome.1 == 200, "the hole is not there");
    let (alerts, _) = exactly(sensor, expected(Attack::AlgNone, outcome))?;
    check(&alerts, server.address, kind.process())
}

/// Both ends of a proxied request are on this host: the proxy's side and the service's side are two exchanges.
#[test]
fn nginx_proxies_to_python() -> Result<()> {
    if let Some(why) = missing(Kind::Nginx).or_else(|| missing(Kind::Python)) {
        skip("servers::nginx_proxies_to_python", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let behind = Server::start(Kind::Python, &mint, &Options::default())?;
    let front =
        Server::start(Kind::Nginx, &mint, &Options { upstream: Some(behind.address), ..Options::default() })?;
    let proxy = front.proxy.unwrap_or(front.address);
    // Behind a trusted proxy the client is who the proxy says; both alerts then name the same address.
    let mut config = Config::new(&mint)?.ports(&[proxy.port(), behind.address.port()]);
    config.set("/http/trusted_proxies", serde_json::json!(["127.0.0.1/32"]));
    let mut sensor = Sensor::start(&config)?;
    honest(proxy, &mint.good("alice")?, Kind::Python)?;
    let token = Attack::BadSignature.token(&mint, "mallory")?;
    ensure!(ask(proxy, &get("/orders/13", Some(&token)))?.1 == 401, "the service behind refuses");
    let mut seen = vec![sensor.next_alert()?];
    seen.extend(sensor.stop()?.alerts);
    ensure!(seen.iter().all(|a| a.rule() == "signature-invalid" && a.status() == Some(401)), "{seen:?}");
    ensure!(seen.iter().all(|a| a.client() == "127.0.0.1"), "{seen:?}");
    Ok(())
}

macro_rules! servers {
    ($($refuses:ident $accepts:ident $kind:ident;)*) => { $(
        #[test]
        fn $refuses() -> Result<()> { refuses(Kind::$kind) }
        #[test]
        fn $accepts() -> Result<()> { accepts(Kind::$kind) }
    )* };
}

servers! {
    python_refuses_every_attack python_accepts_alg_none Python;
    node_refuses_every_attack node_accepts_alg_none Node;
    java_refuses_every_attack java_accepts_alg_none Java;
    go_refuses_every_attack go_accepts_alg_none Go;
    gin_refuses_every_attack gin_accepts_alg_none Gin;
    nginx_refuses_every_attack nginx_accepts_alg_none Nginx;
    uring_refuses_every_attack uring_accepts_alg_none Uring;
}
