//! The ways in which a request can hide from a sensor at the socket, each on a live kernel.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use tests::attack::Attack;
use tests::client::{Client, Setup, get, post};
use tests::expect::{Expected, exactly};
use tests::mint::Mint;
use tests::sensor::{Alert, Config, Sensor};
use tests::server::{Kind, Options, Server, sample_file};
use tests::{clock, raw, sensor, skip};

/// A service, its sensor, and tokens.
struct Bench {
    server: Server,
    sensor: Sensor,
    good: String,
    forged: String,
}

fn bench(test: &str, kind: Kind, options: Options) -> Result<Option<Bench>> {
    if let Some(why) = sensor::missing().or_else(|| kind.missing()) {
        skip(&format!("capture_cases::{test}"), &why);
        return Ok(None);
    }
    let mint = Mint::at(clock::now())?;
    let (good, forged) = (mint.good("alice")?, Attack::AlgNone.token(&mint, "mallory")?);
    let server = Server::start(kind, &mint, &Options { allow: vec![good.clone()], ..options })?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    Ok(Some(Bench { server, sensor, good, forged }))
}

fn told(client: &Client, status: u16) -> Result<Vec<Expected>> {
    Ok(vec![Expected::new("alg-none", "High", client.local()?.port(), status)])
}

#[test]
fn head_of_one_byte_segments_is_read() -> Result<()> {
    let Some(b) = bench("head_of_one_byte_segments_is_read", Kind::Go, Options::default())? else {
        return Ok(());
    };
    let mut client = Client::connect(b.server.address)?;
    client.send_bytewise(&get("/orders/1", Some(&b.good)))?;
    ensure!(client.answer()?.status == 200, "honest");
    client.send_bytewise(&get("/orders/2", Some(&b.forged)))?;
    let status = client.answer()?.status;
    exactly(b.sensor, told(&client, status)?).map(drop)
}

#[test]
fn authorization_at_the_end_of_a_60_kib_head_is_read() -> Result<()> {
    let name = "authorization_at_the_end_of_a_60_kib_head_is_read";
    let Some(b) = bench(name, Kind::Nginx, Options::default())? else { return Ok(()) };
    let mut expected = Vec::new();
    for kib in [16, 40, 60] {
        let filler = format!("X-Filler: {}\r\n", "f".repeat(1012)).repeat(kib);
        let head = format!(
            "GET /orders/{kib} HTTP/1.1\r\nHost: h\r\n{filler}Authorization: Bearer {}\r\n\r\n",
            Attack::AlgNone.token(&Mint::at(clock::now())?, &format!("mallory{kib}"))?
        );
        let mut client = Client::connect(b.server.address)?;
        let status = client.ask(head.as_bytes())?.status;
        expected.extend(told(&client, status)?);
    }
    exactly(b.sensor, expected).map(drop)
}

#[test]
fn hundred_pipelined_requests_are_a_hundred_exchanges() -> Result<()> {
    let name = "hundred_pipelined_requests_are_a_hundred_exchanges";
    let Some(b) = bench(name, Kind::Nginx, Options::default())? else { return Ok(()) };
    let mint = Mint::at(clock::now())?;
    let mut client = Client::connect(b.server.address)?;
    let mut requests = Vec::new();
    for id in 0..100 {
        // One in five is forged: more alerts of one rule from one address would be folded into one.
        let forged = Attack::AlgNone.token(&mint, &format!("mallory{id}"))?;
        let token = if id % 5 == 2 { &forged } else { &b.good };
        requests.extend(get(&format!("/orders/{id}"), Some(token)));
    }
    client.send(&requests)?;
    for id in 0..100 {
        let status = client.answer()?.status;
        ensure!(status == if id % 5 == 2 { 401 } else { 200 }, "request {id} was answered {status}");
    }
    let mut sensor = b.sensor;
    let mut alerts = Vec::new();
    while alerts.len() < 20 {
        alerts.push(sensor.next_alert()?);
    }
    let ended = sensor.stop()?;
    alerts.extend(ended.alerts);
    ensure!(ended.stderr.contains("watched: 100 exchanges"), "{}", ended.stderr);
    // One good token a hundred times in a moment is worth a word, too.
    let forged: Vec<&Alert> = alerts.iter().filter(|a| a.rule() != "token-rate").collect();
    ensure!(
        forged.len() == 20 && forged.iter().all(|a| a.rule() == "alg-none" && a.count() == 1),
        "{alerts:#?}"
    );
    // nginx answers many pipelined requests in one segment.
    ensure!(forged.iter().all(|a| a.status() == Some(401)), "a wrong status: {alerts:#?}");
    Ok(())
}

/// Requests sent at once, so that their responses share segments, behind bodies of these sizes.
fn answered_behind(test: &str, sizes: &[usize]) -> Result<()> {
    let files = sizes.iter().map(|size| (format!("f{size}"), sample_file(*size))).collect();
    let Some(b) = bench(test, Kind::Nginx, Options { files, ..Options::default() })? else { return Ok(()) };
    let mint = Mint::at(clock::now())?;
    let mut expected = Vec::new();
    for size in sizes {
        let mut client = Client::connect(b.server.address)?;
        let forged = Attack::AlgNone.token(&mint, &format!("mallory{size}"))?;
        let first = get(&format!("/files/f{size}"), Some(&b.good));
        client.send(&[first, get("/orders/2", Some(&forged))].concat())?;
        ensure!(client.answer()?.status == 200, "file");
        let status = client.answer()?.status;
        ensure!(status == 401, "{status}");
        expected.extend(told(&client, status)?);
    }
    exactly(b.sensor, expected).map(drop)
}

#[test]
fn pipelined_responses_behind_small_bodies_are_seen() -> Result<()> {
    answered_behind(
        "pipelined_responses_behind_small_bodies_are_seen",
        &[400, 1000, 3000, 17_000, 40_000, 64_000],
    )
}

#[test]
fn pipelined_responses_behind_large_bodies_are_seen() -> Result<()> {
    answered_behind("pipelined_responses_behind_large_bodies_are_seen", &[100_000, 1_000_000, 30_000_000])
}

#[test]
fn request_sent_into_an_unfinished_response_is_paired() -> Result<()> {
    let name = "request_sent_into_an_unfinished_response_is_paired";
    let files = vec![("big".to_owned(), sample_file(12_000_000))];
    let Some(b) = bench(name, Kind::Nginx, Options { files, ..Options::default() })? else { return Ok(()) };
    let mut client = Client::connect(b.server.address)?;
    // Nothing is read before both are sent: the first response fills the window and waits.
    client.send(&get("/files/big", Some(&b.good)))?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    client.send(&get("/orders/2", Some(&b.forged)))?;
    let big = client.answer()?;
    ensure!((big.status, big.body.len()) == (200, 12_000_000), "download");
    let status = client.answer()?.status;
    exactly(b.sensor, told(&client, status)?).map(drop)
}

#[test]
fn uploads_hide_nothing_that_follows_and_nothing_inside() -> Result<()> {
    let name = "uploads_hide_nothing_that_follows_and_nothing_inside";
    let Some(b) = bench(name, Kind::Python, Options::default())? else { return Ok(()) };
    let inside = get("/orders/99", Some(&Attack::AlgNone.token(&Mint::at(clock::now())?, "inside")?));
    let mut body = inside.repeat(20);
    body.resize(20_000_000, b'x');
    body.extend_from_slice(&inside);
    let mut client = Client::connect(b.server.address)?;
    ensure!(client.ask(&post("/upload", Some(&b.good), &body))?.status == 200, "upload");
    let status = client.ask(&get("/orders/2", Some(&b.forged)))?.status;
    exactly(b.sensor, told(&client, status)?).map(drop)
}

#[test]
fn chunked_uploads_are_followed_to_their_end() -> Result<()> {
    let Some(b) = bench("chunked_uploads_are_followed_to_their_end", Kind::Go, Options::default())? else {
        return Ok(());
    };
    let inside = get("/orders/99", Some(&Attack::AlgNone.token(&Mint::at(clock::now())?, "inside")?));
    let mut client = Client::connect(b.server.address)?;
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        b.good
    );
    client.send(head.as_bytes())?;
    for filler in [0, 10, 70_000, 1_000_000] {
        let mut chunk = inside.clone();
        chunk.resize(inside.len() + filler, b'x');
        client.send(format!("{:x}\r\n", chunk.len()).as_bytes())?;
        client.send(&chunk)?;
        client.send(b"\r\n")?;
    }
    ensure!(client.ask(b"0\r\n\r\n")?.status == 200, "upload");
    let status = client.ask(&get("/orders/2", Some(&b.forged)))?.status;
    exactly(b.sensor, told(&client, status)?).map(drop)
}

#[test]
fn expect_continue_does_not_confuse_the_pairing() -> Result<()> {
    let name = "expect_continue_does_not_confuse_the_pairing";
    let Some(b) = bench(name, Kind::Python, Options::default())? else { return Ok(()) };
    let mut client = Client::connect(b.server.address)?;
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nExpect: 100-continue\r\n\
         Content-Length: 10\r\n\r\n",
        b.good
    );
    client.send(head.as_bytes())?;
    ensure!(client.interim()? == 100, "no 100 Continue");
    ensure!(client.ask(b"0123456789")?.status == 200, "upload");
    let status = client.ask(&get("/orders/2", Some(&b.forged)))?.status;
    exactly(b.sensor, told(&client, status)?).map(drop)
}

#[test]
fn upgraded_connection_is_left_alone() -> Result<()> {
    let Some(b) = bench("upgraded_connection_is_left_alone", Kind::Node, Options::default())? else {
        return Ok(());
    };
    let mut socket = Client::connect(b.server.address)?;
    socket.send(b"GET /live HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    ensure!(socket.answer()?.status == 101, "no upgrade");
    let inside = Attack::AlgNone.token(&Mint::at(clock::now())?, "inside")?;
    socket.send(&get("/inside", Some(&inside)))?;
    let mut client = Client::connect(b.server.address)?;
    let status = client.ask(&get("/orders/2", Some(&b.forged)))?.status;
    exactly(b.sensor, told(&client, status)?).map(drop)
}

#[test]
fn downloads_by_sendfile_keep_the_connection_readable() -> Result<()> {
    let name = "downloads_by_sendfile_keep_the_connection_readable";
    let files = vec![("big".to_owned(), sample_file(10_000_000))];
    let Some(b) = bench(name, Kind::Nginx, Options { files, ..Options::default() })? else { return Ok(()) };
    let mut client = Client::connect(b.server.address)?;
    let big = client.ask(&get("/files/big", Some(&b.good)))?;
    ensure!((big.status, big.body.len()) == (200, 10_000_000), "download");
    let status = client.ask(&get("/orders/2", Some(&b.forged)))?.status;
    exactly(b.sensor, told(&client, status)?).map(drop)
}

fn over_address(test: &str, host: &str, connect: fn(u16) -> SocketAddr, seen_as: &str) -> Result<()> {
    let options = Options { host: Some(host.to_owned()), ..Options::default() };
    let Some(b) = bench(test, Kind::Python, options)? else { return Ok(()) };
    let mut client = Client::connect(connect(b.server.address.port()))?;
    let status = client.ask(&get("/orders/2", Some(&b.forged)))?.status;
    let (alerts, _) = exactly(b.sensor, told(&client, status)?)?;
    ensure!(alerts.iter().all(|a| a.client() == seen_as), "seen as {:?}", alerts.first().map(Alert::client));
    Ok(())
}

#[test]
fn ipv6_is_read() -> Result<()> {
    over_address("ipv6_is_read", "::1", |port| SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)), "::1")
}

#[test]
fn ipv4_on_a_dual_stack_socket_is_shown_as_ipv4() -> Result<()> {
    let test = "ipv4_on_a_dual_stack_socket_is_shown_as_ipv4";
    over_address(test, "::", |port| SocketAddr::from(([127, 0, 0, 1], port)), "127.0.0.1")
}

#[test]
fn connection_older_than_the_sensor_is_read() -> Result<()> {
    if let Some(why) = sensor::missing().or_else(|| Kind::Python.missing()) {
        skip("capture_cases::connection_older_than_the_sensor_is_read", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let server = Server::start(Kind::Python, &mint, &Options::default())?;
    let mut client = Client::connect(server.address)?;
    ensure!(client.ask(&get("/health", None))?.status == 200, "health");
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[server.address.port()]))?;
    let token = Attack::AlgNone.token(&mint, "mallory")?;
    let status = client.ask(&get("/orders/2", Some(&token)))?.status;
    exactly(sensor, told(&client, status)?).map(drop)
}

#[test]
fn both_ends_on_this_host_are_recorded_once() -> Result<()> {
    if let Some(why) = sensor::missing().or_else(|| Kind::Python.missing()) {
        skip("capture_cases::both_ends_on_this_host_are_recorded_once", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let server = Server::start(Kind::Python, &mint, &Options::default())?;
    // No filter by port: the client's end is as visible as the server's.
    let mut sensor = Sensor::start(&Config::new(&mint)?)?;
    // From an address of its own: beyond twenty alerts of one rule and address the rest is folded, whoever made them.
    let from = Some(IpAddr::from([127, 0, 66, 1]));
    let mut client = Client::connect_with(server.address, Setup { from, ..Setup::default() })?;
    for id in 0..20 {
        let token = Attack::AlgNone.token(&mint, &format!("mallory{id}"))?;
        client.ask(&get("/orders/2", Some(&token)))?;
    }
    // Other tests may run beside this one: only alerts about our own server count.
    let port = u64::from(server.address.port());
    let mut ours = Vec::new();
    while ours.len() < 20 {
        let alert = sensor.next_alert()?;
        if alert.server_port() == Some(port) {
            ours.push(alert);
        }
    }
    ours.extend(sensor.stop()?.alerts.into_iter().filter(|a| a.server_port() == Some(port)));
    ensure!(ours.len() == 20 && ours.iter().all(|a| a.count() == 1), "{} alerts for 20 requests", ours.len());
    Ok(())
}

#[test]
fn port_reused_by_another_server_is_another_server() -> Result<()> {
    let name = "port_reused_by_another_server_is_another_server";
    if let Some(why) = sensor::missing() {
        skip(&format!("capture_cases::{name}"), &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let plain = raw::listen(raw::refuse_in_chunks)?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[plain.port()]))?;
    let mut expected = Vec::new();
    // The same client port again and again: each connection is a socket of its own. Below the ports that the kernel
    // gives to others.
    let from = 20_000 + u16::try_from(std::process::id() % 10_000)?;
    for id in 0..5 {
        let mut client = Client::connect_from(plain, from)?;
        let token = Attack::AlgNone.token(&mint, &format!("mallory{id}"))?;
        let status = client.ask(&get("/orders/2", Some(&token)))?.status;
        expected.extend(told(&client, status)?);
        client.reset()?;
    }
    exactly(sensor, expected).map(drop)
}
