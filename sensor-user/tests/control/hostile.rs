//! Those who mean no good, and those who are only wrong.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sensor_user::control::Settings;
use sensor_user::control::server::{Patience, SEATS};
use serde_json::Value;

use crate::sensor::{DEADLINE, Sensor, answer};

fn impatient() -> Sensor {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { socket: Some(dir.path().join("control.sock")), listen: None };
    let patience = Patience { head: Duration::from_millis(100), reading: Duration::from_millis(100) };
    Sensor::with(dir, &settings, patience)
}

#[test]
fn wrong_questions_are_answered_with_what_would_be_right() {
    let sensor = Sensor::start();
    let long = format!("/v1/alerts?principal={}", "x".repeat(600));
    for (target, expected) in [
        ("/v1/alerts?colour=red", 400),
        ("/v1/alerts?min_severity=awful", 400),
        ("/v1/alerts?after=1&last=2", 400),
        ("/v1/alerts?after=-1", 400),
        ("/v1/alerts?last=10001", 400),
        ("/v1/alerts?follow=perhaps", 400),
        ("/v1/alerts?since=1h&since=2h", 400),
        ("/v1/alerts?address=%ff%fe", 400),
        ("/v1/alerts?rule=%00%1b%5b2J&since=x", 400),
        (&long, 400),
        ("/v1/exchanges?rule=x", 400),
        ("/v1/exchanges?for=ever", 400),
        ("/v1/top?interval_ms=0", 400),
        ("/v1/trace", 400),
        ("/v1/trace?what=eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", 400),
        ("/v1/query", 405),
        ("/v2", 404),
        ("/", 404),
    ] {
        let (status, body) = sensor.get(target);
        assert_eq!(status, expected, "{target}: {body}");
        let said: Value = serde_json::from_str(&body).unwrap();
        assert!(said["error"].is_string() && said["remedy"].is_string(), "{body}");
        assert!(!body.contains('\u{1b}') && body.len() < 2_000, "{body:?}");
    }
}

#[test]
fn questions_about_the_past_are_passed_on_and_not_without_end() {
    let sensor = Sensor::start();
    let post = |target: &str, body: &str| {
        sensor.ask(&format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    assert_eq!(
        sensor.get("/v1/trace?what=alice&since=2h"),
        (200, "{\"since\":true,\"what\":\"alice\"}\n".into())
    );
    assert_eq!(post("/v1/trace", " a.b.c\n"), (200, "{\"since\":false,\"what\":\"5 bytes\"}\n".into()));
    assert_eq!(post("/v1/trace", "").0, 400);
    assert_eq!(post("/v1/query", "SELECT 1"), (200, "[\"SELECT 1\"]\n".into()));
    assert_eq!(post("/v1/query", "DROP").0, 400);
    assert_eq!(post("/v1/query", &"x".repeat(70_000)).0, 413);
    let (status, body) =
        (0..100).map(|_| sensor.get("/v1/trace?what=a")).find(|(status, _)| *status != 200).unwrap();
    assert_eq!(status, 429);
    assert!(body.contains("ask again in"), "{body}");
    assert_eq!(sensor.get("/v1/status").0, 200, "what costs little is always answered");
}

#[test]
fn nonsense_is_cut_short() {
    let sensor = Sensor::start();
    let huge_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let huge_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    let smuggled = "POST /v1/query HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/status HTTP/1.1\r\n\r\n";
    for request in [
        &huge_line,
        &huge_header,
        &many_headers,
        smuggled,
        "\0\0\0\0",
        "GET\r\n\r\n",
        "\r\n\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(sensor.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "it waits for ever"),
        }
        assert!(
            bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&bytes)
        );
        assert!(bytes.len() < 4_000);
    }
    assert_eq!(sensor.get("/v1/status").0, 200);
}

#[test]
fn a_thousand_that_say_nothing_or_only_half_delay_others_and_no_more() {
    let sensor = impatient();
    let mut silent = Vec::new();
    for number in 0..1_000 {
        // The kernel's queue is short: who finds no room there would have to wait.
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK,
            None,
        );
        let socket = socket.unwrap();
        let address = rustix::net::SocketAddrUnix::new(sensor.socket()).unwrap();
        if rustix::net::connect(&socket, &address).is_ok() {
            let mut stream = UnixStream::from(socket);
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nX-Slow: ");
            }
            silent.push(stream);
        }
    }
    assert!(silent.len() > SEATS, "{}", silent.len());
    assert_eq!(sensor.get("/v1/status").0, 200);
    drop(silent);
}

#[test]
fn a_reader_that_takes_nothing_is_given_up() {
    let sensor = impatient();
    sensor.append(3_000);
    let mut stream = UnixStream::connect(sensor.socket()).unwrap();
    stream.write_all(b"GET /v1/alerts?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // Every other seat is taken by one like it, and still there is room in the end.
    let others: Vec<_> = (1..SEATS)
        .map(|_| {
            let mut stream = UnixStream::connect(sensor.socket()).unwrap();
            stream.write_all(b"GET /v1/alerts?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    assert_eq!(sensor.get("/v1/status").0, 200);
    drop(others);
    let (status, body) = {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        (all.starts_with(b"HTTP/1.1 200"), all)
    };
    assert!(status && !body.ends_with(b"0\r\n\r\n"), "it was cut, and can see that it was");
}

#[test]
fn one_connection_is_one_request() {
    let sensor = Sensor::start();
    let twice = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let mut stream = UnixStream::connect(sensor.socket()).unwrap();
    stream.write_all(twice.as_bytes()).unwrap();
    let (status, body) = answer(stream);
    assert_eq!((status, body.matches("uptime_s").count()), (200, 1));
}
