//! Two hosts with a bad network between them: every request is recorded once, whatever the network does or forges.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tests::attack::Attack;
use tests::client::{Client, Setup, get};
use tests::expect::{Expected, exactly};
use tests::mint::Mint;
use tests::netns::{CLIENT, Host, Network, SERVER};
use tests::sensor::{Config, Sensor};
use tests::server::{Kind, Options, Server};
use tests::{clock, sensor, skip};

/// Forged requests a wire must carry. Each has its own token, so each is an alert; from the 21st of one rule and
/// address on, the sensor would fold them into one.
const FORGERIES: usize = 20;

fn missing(test: &str) -> bool {
    let why = sensor::missing().or_else(Network::missing).or_else(|| Kind::Python.missing());
    if let Some(why) = &why {
        skip(&format!("netns::{test}"), why);
    }
    why.is_some()
}

fn serve(network: &Network, mint: &Mint) -> Result<Server> {
    let options = Options { host: Some(SERVER.to_string()), ..Options::default() };
    network.on(Host::Server, || Server::start(Kind::Python, mint, &options))
}

/// A forged token that spans several segments, so that the wire has something to cut.
fn forgeries(mint: &Mint, count: usize) -> Result<Vec<String>> {
    let name = |i: usize| format!("mallory{i}-{}", "of-a-very-long-name-".repeat(150));
    (0..count).map(|i| Attack::AlgNone.token(mint, &name(i))).collect()
}

/// Sends forged requests on keep-alive connections; returns what must be told of them.
fn attack(server: SocketAddr, tokens: &[String], setup: Setup) -> Result<Vec<Expected>> {
    let mut expected = Vec::new();
    for batch in tokens.chunks(5) {
        let mut client = Client::connect_with(server, setup)?;
        let port = client.local()?.port();
        for token in batch {
            let status = client.ask(&get("/orders/7", Some(token)))?.status;
            ensure!(status == 401, "answered {status}");
            expected.push(Expected::new("alg-none", "High", port, status));
        }
    }
    Ok(expected)
}

fn every_request_is_recorded_once(mode: &str) -> Result<()> {
    let mint = Mint::at(clock::now())?;
    let network = Network::new(mode)?;
    let server = serve(&network, &mint)?;
    let mut config = Config::new(&mint)?.ports(&[server.address.port()]);
    // A wire that lies is rightly suspected; here it matters what is made of the requests.
    config.set("/rules/request-smuggling", serde_json::json!({"enabled": false}));
    let sensor = Sensor::start(&config)?;
    let tokens = forgeries(&mint, FORGERIES)?;
    let expected = network.on(Host::Client, || attack(server.address, &tokens, Setup::default()))?;
    let (alerts, _) = exactly(sensor, expected)?;
    let names: BTreeSet<String> = alerts
        .iter()
        .filter_map(|a| Some(a.0.pointer("/evidences/0/actor/session/uid")?.to_string()))
        .collect();
    ensure!(names.len() == FORGERIES, "{} distinct tokens of {FORGERIES}", names.len());
    ensure!(alerts.iter().all(|a| a.count() == 1), "a request was counted twice");
    ensure!(alerts.iter().all(|a| a.client() == CLIENT.to_string()), "the client's address");
    Ok(())
}

macro_rules! wires {
    ($($name:ident $mode:literal;)*) => { $(
        #[test]
        fn $name() -> Result<()> {
            if missing(stringify!($name)) { return Ok(()) }
            every_request_is_recorded_once($mode)
        }
    )* };
}

wires! {
    clean_wire_records_every_request_once "clean";
    loss_and_reordering_lose_no_request "lossy";
    decoys_with_a_bad_checksum_fool_nobody "bad-checksum";
    decoys_out_of_window_fool_nobody "window";
    reset_decoys_end_nothing "rst";
    overlapping_segments_read_as_one "overlap";
    overlapping_segments_back_to_front_read_as_one "overlap-back";
    conflicting_segments_read_as_the_server_reads_them "conflict";
}

#[test]
fn token_in_a_copy_that_the_server_dropped_is_not_seen() -> Result<()> {
    if missing("token_in_a_copy_that_the_server_dropped_is_not_seen") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let network = Network::new("conflict-won")?;
    let server = serve(&network, &mint)?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    let tokens = forgeries(&mint, 3)?;
    // The server saw requests without a token, and refused them for that.
    network.on(Host::Client, || attack(server.address, &tokens, Setup::default()))?;
    let ended = sensor.stop()?;
    ensure!(ended.stderr.contains("watched: 3 exchanges"), "{}", ended.stderr);
    ensure!(ended.alerts.iter().all(|a| a.rule() != "alg-none"), "{:?}", ended.alerts);
    Ok(())
}

#[test]
fn request_on_the_handshake_ack_is_recorded() -> Result<()> {
    if missing("request_on_the_handshake_ack_is_recorded") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let network = Network::new("clean")?;
    let server = serve(&network, &mint)?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    let tokens = forgeries(&mint, 10)?;
    let lazy = Setup { lazy_ack: true, ..Setup::default() };
    let expected = network.on(Host::Client, || attack(server.address, &tokens, lazy))?;
    exactly(sensor, expected).map(drop)
}

#[test]
fn request_under_syn_cookies_is_recorded() -> Result<()> {
    if missing("request_under_syn_cookies_is_recorded") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let network = Network::new("clean")?;
    // 2: always, as if the backlog were full.
    network.sysctl(Host::Server, "net.ipv4.tcp_syncookies", "2")?;
    let server = serve(&network, &mint)?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    let tokens = forgeries(&mint, 10)?;
    for lazy_ack in [false, true] {
        let setup = Setup { lazy_ack, ..Setup::default() };
        network.on(Host::Client, || attack(server.address, &tokens[..1], setup))?;
    }
    let expected = network.on(Host::Client, || attack(server.address, &tokens[1..], Setup::default()))?;
    let mut alerts = Vec::new();
    let mut sensor = sensor;
    // The first token came twice; its second use is a repeat of an open alert.
    while alerts.len() < expected.len() + 1 {
        alerts.push(sensor.next_alert()?);
    }
    ensure!(alerts.iter().all(|a| a.rule() == "alg-none"), "{alerts:?}");
    sensor.stop().map(drop)
}

#[test]
fn request_inside_a_fast_open_syn_is_recorded() -> Result<()> {
    if missing("request_inside_a_fast_open_syn_is_recorded") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let network = Network::new("clean")?;
    // Client and server, without cookies and for every listener: bits 1, 2, 4, 0x200, 0x400 of ip-sysctl.rst.
    for host in [Host::Client, Host::Server] {
        network.sysctl(host, "net.ipv4.tcp_fastopen", "1543")?;
    }
    let server = serve(&network, &mint)?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    let token = Attack::AlgNone.token(&mint, "mallory")?;
    let expected = network.on(Host::Client, || {
        let mut client = Client::fast_open(server.address, &get("/orders/7", Some(&token)))?;
        let status = client.answer()?.status;
        Ok(vec![Expected::new("alg-none", "High", client.local()?.port(), status)])
    })?;
    exactly(sensor, expected).map(drop)
}
