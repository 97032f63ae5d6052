//! The differential oracle: services that make one classic mistake each, and the sensor beside them. What such a service
//! believes and no correct one would is `forged-token-accepted`, every time; what a correct one believes never is.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::attack::{Attack, tampered_pair};
use tests::client::{Client, get, post};
use tests::mint::{Mint, set};
use tests::sensor::{Alert, Config, Sensor};
use tests::server::{Kind, Options, Server};
use tests::{clock, sensor, skip};

/// The mistakes, and how many of the forgeries each must let in, so that the oracle is not empty.
const HOLES: [(&str, usize); 13] = [
    ("", 0),
    ("none", 2),
    ("confusion", 1),
    ("audience", 1),
    ("issuer", 0),
    ("expiry", 2),
    ("secret", 1),
    ("key", 1),
    ("kid", 1),
    ("signature", 5),
    ("revocation", 0),
    ("bola", 0),
    ("bfla", 0),
];

/// Asks on a connection of its own: its port names the request.
fn ask(server: SocketAddr, request: &[u8]) -> Result<(u16, u16)> {
    let mut client = Client::connect(server)?;
    let answer = client.ask(request)?;
    Ok((client.local()?.port(), answer.status))
}

/// The rules that say that a token was believed which must not be. A token for another service is genuine, and so is one
/// under the weak secret that the service really has: the rules that hold policy and secrets say so instead.
fn says_so(alert: &Alert) -> bool {
    let own = matches!(alert.rule(), "audience-mismatch" | "weak-secret");
    let accepted = alert.severity() == "Critical" && alert.status().is_some_and(|s| (200..300).contains(&s));
    alert.rule() == "forged-token-accepted" || own && accepted
}

/// Everything that no correct service believes. Twice named members and padding are read by careless decoders, and
/// signed by the issuer: another rule's.
fn forgeries(mint: &Mint) -> Result<Vec<String>> {
    let lax = |a: &Attack| matches!(a, Attack::Padding | Attack::DuplicateMembers);
    let mut tokens = Vec::new();
    // Alerts about one verified subject merge: each has its own, and all own order 3.
    for (number, attack) in Attack::ALL.iter().filter(|a| !lax(a)).enumerate() {
        tokens.push(attack.token(mint, &format!("user{number}3"))?);
    }
    tokens.push(tampered_pair(mint, "user993")?.1);
    // Under a key whose name the issuer does not have.
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "mine"});
    tokens.push(mint.attacker_rs256(&header, &mint.claims("user983"))?);
    Ok(tokens)
}

/// Honest use of every kind, with every right token that there is; the ports that it came from.
fn honest(server: SocketAddr, mint: &Mint) -> Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    let mut admin = mint.claims("user5");
    set(&mut admin, "roles", json!(["USER", "ADMIN"]));
    let admin = mint.rs256(&json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}), &admin)?;
    for user in ["user3", "user4", "user7"] {
        let token = mint.good(user)?;
        let id = user.trim_start_matches("user");
        for path in
            [format!("/orders/{id}"), format!("/orders/1{id}"), "/orders/2".into(), "/admin/users".into()]
        {
            ports.insert(ask(server, &get(&path, Some(&token)))?.0);
        }
    }
    ensure!(ask(server, &get("/orders/3", Some(&mint.good("user3")?)))?.1 == 200, "a good token is believed");
    ports.insert(ask(server, &get("/admin/users", Some(&admin)))?.0);
    let leaver = mint.good("user9")?;
    ports.insert(ask(server, &post("/logout", Some(&leaver), b""))?.0);
    Ok(ports)
}

fn check(kind: Kind, hole: &'static str, fewest: usize) -> Result<()> {
    let mint = Mint::at(clock::now())?;
    let holes = if hole.is_empty() { Vec::new() } else { vec![hole] };
    let server = Server::start(kind, &mint, &Options { holes, ..Options::default() })?;
    let mut sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    ensure!(ask(server.address, &get("/orders/3", None))?.1 == 401, "strangers are refused");
    let right = honest(server.address, &mint)?;
    let mut believed = BTreeSet::new();
    for token in forgeries(&mint)? {
        let (port, status) = ask(server.address, &get("/orders/3", Some(&token)))?;
        if (200..300).contains(&status) {
            believed.insert(port);
        }
    }
    ensure!(believed.len() >= fewest, "{kind:?} {hole}: only {} forgeries were believed", believed.len());
    // A last forgery that nobody believes tells that everything before it was judged. Its alert comes in order.
    let last = ask(server.address, &get("/orders/4", Some(&Attack::AlgNone.token(&mint, "last")?)))?;
    let mut told = BTreeSet::new();
    let mut seen = Vec::new();
    loop {
        let alert = sensor.next_alert()?;
        if says_so(&alert) {
            told.extend(alert.client_port().and_then(|p| u16::try_from(p).ok()));
        }
        let done = alert.rule() == "alg-none" && alert.client_port() == Some(last.0.into());
        seen.push(format!("{} {:?} {:?}", alert.rule(), alert.client_port(), alert.status()));
        if done {
            break;
        }
    }
    for alert in sensor.stop()?.alerts {
        if says_so(&alert) && alert.is_new() {
            told.extend(alert.client_port().and_then(|p| u16::try_from(p).ok()));
        }
    }
    told.remove(&last.0);
    let context = || format!("{kind:?} with {hole:?}: believed {believed:?}, told {told:?}\n{seen:#?}");
    ensure!(told.is_disjoint(&right), "a right token was told as forged: {}", context());
    ensure!(told == believed, "{}", context());
    Ok(())
}

fn every_hole(kind: Kind) -> Result<()> {
    if let Some(why) = sensor::missing().or_else(|| kind.missing()) {
        skip(&format!("oracle::{kind:?}"), &why);
        return Ok(());
    }
    let mut wrong = Vec::new();
    for (hole, least) in HOLES {
        if let Err(error) = check(kind, hole, least) {
            wrong.push(format!("{hole}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

#[test]
fn gin_with_every_hole() -> Result<()> {
    every_hole(Kind::WeakGin)
}

#[test]
fn python_with_every_hole() -> Result<()> {
    every_hole(Kind::WeakPython)
}
