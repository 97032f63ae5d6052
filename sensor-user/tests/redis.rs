//! The sink of Redis against a real server, and against servers that lie.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

mod brokers;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use brokers::{
    Liar, SOCKETS, Server, Then, assert_done, authority, deliver, deliver_at_last, deliver_within, events,
    free_port, here, id, node, output, reason, secret,
};
use sensor_user::sink::Sink;
use sensor_user::sink::client::TlsSettings;
use sensor_user::sink::redis::{Settings, open};
use serde_json::Value;

fn server(dir: &Path, more: &[&str]) -> Server {
    let port = free_port();
    let number = port.to_string();
    let mut command = vec!["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"];
    command.extend(["--appendfsync", "always"]);
    if more.contains(&"--tls-cert-file") {
        command.extend(["--port", "0", "--tls-port", &number]);
    } else {
        command.extend(["--port", &number]);
    }
    command.extend(more);
    Server::start(dir, port, "redis-server", &command)
}

fn settings(port: u16) -> Settings {
    Settings {
        place: here(port),
        tls: None,
        user: None,
        password: None,
        database: 0,
        stream: "tokenscope:alerts".into(),
        max_len: 100_000,
        dedupe_s: 600,
    }
}

fn sink(settings: &Settings) -> Box<dyn Sink> {
    open(settings, &node()).unwrap()
}

fn ask(port: u16, words: &[&str]) -> Value {
    let port = port.to_string();
    let said = output(&[&["redis-cli", "-p", &port, "--json"], words].concat());
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{words:?}: {said}"))
}

fn length(port: u16) -> u64 {
    ask(port, &["XLEN", "tokenscope:alerts"]).as_u64().unwrap()
}

/// The ids of the events in the stream, in its order.
fn ids(port: u16) -> Vec<String> {
    let entries = ask(port, &["XRANGE", "tokenscope:alerts", "-", "+"]);
    let entries = entries.as_array().unwrap();
    entries.iter().map(|entry| entry[1][1].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn each_event_is_an_entry_and_a_repeat_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let mut first = sink(&settings(server.port));
    assert_done(&deliver(&mut first, &events(1..=256)).await);
    assert_done(&deliver(&mut first, &events(257..=300)).await);
    assert_eq!(ids(server.port), (1..=300).map(id).collect::<Vec<_>>());
    let entry = &ask(server.port, &["XRANGE", "tokenscope:alerts", "-", "+", "COUNT", "1"])[0][1];
    let names: Vec<&str> = entry.as_array().unwrap().iter().step_by(2).map(|n| n.as_str().unwrap()).collect();
    assert_eq!(names, ["id", "severity", "rule", "sequence", "node", "json"]);
    assert_eq!(
        (&entry[3], &entry[5], &entry[7], &entry[9]),
        (&"high".into(), &"alg-none".into(), &"1".into(), &"node-1".into())
    );
    assert_eq!(entry[11], brokers::told(1).json());
    // The same batch again, cut elsewhere, by a sink that remembers nothing.
    let mut second = sink(&settings(server.port));
    assert_done(&deliver(&mut second, &events(200..=310)).await);
    assert_done(&deliver(&mut second, &events(1..=50)).await);
    assert_eq!(ids(server.port), (1..=310).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "current_thread")]
async fn without_recognition_no_script_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &["--rename-command", "EVAL", ""]);
    let mut plain = sink(&Settings { dedupe_s: 0, ..settings(server.port) });
    assert_done(&deliver(&mut plain, &events(1..=3)).await);
    assert_eq!(length(server.port), 3);
    let why = reason(deliver(&mut sink(&settings(server.port)), &events(4..=4)).await);
    assert!(why.contains("unknown command"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_crash_of_the_server_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), &[]);
    let mut sink = sink(&settings(server.port));
    assert_done(&deliver(&mut sink, &events(1..=100)).await);
    server.kill();
    let why = reason(deliver(&mut sink, &events(101..=200)).await);
    assert!(why.contains("cannot connect"), "{why}");
    server.start_again();
    deliver_at_last(&mut sink, &events(50..=200)).await;
    assert_eq!(ids(server.port), (1..=200).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "current_thread")]
async fn an_idle_connection_that_the_server_closed_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let mut sink = sink(&settings(server.port));
    assert_done(&deliver(&mut sink, &events(1..=1)).await);
    ask(server.port, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_done(&deliver(&mut sink, &events(2..=2)).await);
    assert_eq!(length(server.port), 2);
}

#[tokio::test(flavor = "current_thread")]
async fn the_stream_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let mut sink = sink(&Settings { max_len: 100, ..settings(server.port) });
    for start in 0..10 {
        assert_done(&deliver(&mut sink, &events(start * 256 + 1..=start * 256 + 256)).await);
    }
    // Redis trims whole nodes of the stream, of 100 entries each.
    let length = length(server.port);
    assert!((100..=200).contains(&length), "{length}");
    assert_eq!(ids(server.port).last(), Some(&id(2560)));
}

#[tokio::test(flavor = "current_thread")]
async fn users_need_what_the_reason_says_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let rights = "+eval +xadd +exists +set ~tokenscope:alerts ~{tokenscope:alerts}:seen:*";
    let users = format!(
        "user default off\nuser full on >hunter2 {rights}\nuser poor on >hunter2 +eval ~tokenscope:alerts\n"
    );
    std::fs::write(dir.path().join("users"), users).unwrap();
    let server = server(dir.path(), &["--aclfile", "users"]);
    let as_user = |user: &str, password: &str| Settings {
        user: Some(user.into()),
        password: Some(secret(password)),
        ..settings(server.port)
    };
    assert_done(&deliver(&mut sink(&as_user("full", "hunter2")), &events(1..=10)).await);
    let why = reason(deliver(&mut sink(&as_user("poor", "hunter2")), &events(1..=1)).await);
    assert!(why.contains(rights), "{why}");
    let why = reason(deliver(&mut sink(&as_user("full", "swordfish")), &events(1..=1)).await);
    assert!(why.contains("WRONGPASS") && !why.contains("swordfish"), "{why}");
    let why = reason(deliver(&mut sink(&settings(server.port)), &events(1..=1)).await);
    assert!(why.contains("set `password`"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn tls_trusts_whom_it_should_and_shows_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let options =
        ["--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem"];
    let server = server(dir.path(), &options);
    let at = |name: &str| Some(dir.path().join(name));
    let with = |tls: TlsSettings| Settings { tls: Some(tls), ..settings(server.port) };
    let both = TlsSettings { ca: at("ca.pem"), cert: at("client.pem"), key: at("client.key"), only_ca: true };
    assert_done(&deliver(&mut sink(&with(both.clone())), &events(1..=100)).await);
    // The same server by a name that its certificate does not have.
    let other = Settings { place: brokers::here(server.port), ..with(both.clone()) };
    let other = Settings {
        place: sensor_user::sink::wire::Place { host: "127.0.0.2".into(), ..other.place },
        ..other
    };
    let why = reason(deliver(&mut sink(&other), &events(1..=1)).await);
    assert!(why.contains("cannot connect") || why.contains("certificate"), "{why}");
    let stranger = TlsSettings { ca: None, only_ca: false, ..both.clone() };
    let why = reason(deliver(&mut sink(&with(stranger)), &events(1..=1)).await);
    assert!(why.contains("UnknownIssuer"), "{why}");
    let nobody = TlsSettings { cert: None, key: None, ..both.clone() };
    reason(deliver(&mut sink(&with(nobody)), &events(1..=1)).await);
    let missing = TlsSettings { ca: at("nonexistent.pem"), ..both };
    let why = reason(deliver(&mut sink(&with(missing)), &events(1..=1)).await);
    assert!(why.contains("nonexistent.pem"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_server_cannot_do_now_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let mut sink = sink(&Settings { database: 0, ..settings(server.port) });
    ask(server.port, &["CONFIG", "SET", "maxmemory", "1"]);
    let why = reason(deliver(&mut sink, &events(1..=5)).await);
    assert!(why.contains("OOM"), "{why}");
    ask(server.port, &["CONFIG", "SET", "maxmemory", "0"]);
    ask(server.port, &["REPLICAOF", "127.0.0.1", "1"]);
    let why = reason(deliver(&mut sink, &events(1..=5)).await);
    assert!(why.contains("READONLY"), "{why}");
    ask(server.port, &["REPLICAOF", "NO", "ONE"]);
    ask(server.port, &["SET", "tokenscope:alerts", "x"]);
    let why = reason(deliver(&mut sink, &events(1..=5)).await);
    assert!(why.contains("WRONGTYPE") && why.contains("another `stream`"), "{why}");
    ask(server.port, &["DEL", "tokenscope:alerts"]);
    // What failed before was not marked as done.
    assert_done(&deliver(&mut sink, &events(1..=5)).await);
    assert_eq!(length(server.port), 5);
}

#[tokio::test(flavor = "current_thread")]
async fn servers_that_lie_cost_time_and_nothing_else() {
    let flood = |text: &[u8]| Then::Flood(text.to_vec());
    let cases: [(&[u8], Then); 9] = [
        (b"$99999999999\r\n", flood(b"x")),
        (b"$18446744073709551616\r\n", Then::Hang),
        (b"$-2\r\n", Then::Hang),
        (b"", flood(b"x")),
        (b"-", flood(b"ERR ")),
        (b"*1000000000\r\n", flood(b"*1\r\n")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Then::Cut),
        (b"$5\r\nabcdefgh\r\n", Then::Hang),
        (b"\xff\xfe\r\n", Then::Cut),
    ];
    for (greeting, then) in cases {
        let liar = Liar::start(greeting, then);
        let mut sink = sink(&settings(liar.port));
        let outcome = deliver(&mut sink, &events(1..=200)).await;
        let why = reason(outcome);
        assert_ne!(why, "broken off", "after {greeting:?}");
        let sent = liar.sent.load(Ordering::SeqCst);
        assert!(sent < SOCKETS, "{sent} bytes were taken after {greeting:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_delivery_that_was_broken_off_leaves_no_answers_to_the_next() {
    let liar = Liar::start(b"", Then::Hang);
    let mut sink = sink(&settings(liar.port));
    for calls in 1..=3 {
        let outcome = deliver_within(&mut sink, &events(1..=2), Duration::from_millis(200)).await;
        assert_eq!(reason(outcome), "broken off");
        assert_eq!(liar.calls.load(Ordering::SeqCst), calls, "each delivery has a connection of its own");
    }
}
