//! What streams hold, and what becomes of those who read them too slowly.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::sensor::{DEADLINE, Sensor, until};

fn sequences(lines: &str) -> Vec<u64> {
    let of =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["metadata"]["sequence"].as_u64().unwrap();
    lines.lines().filter(|line| !line.is_empty()).map(of).collect()
}

#[test]
fn history_is_cut_as_it_is_asked_for() {
    let sensor = Sensor::start();
    sensor.append(100);
    for (query, expected) in [
        ("", (1..=100).collect::<Vec<u64>>()),
        ("?last=3", vec![98, 99, 100]),
        ("?after=97", vec![98, 99, 100]),
        ("?limit=2", vec![1, 2]),
        ("?after=10&limit=2", vec![11, 12]),
        ("?min_severity=critical&last=2", vec![96, 100]),
        ("?rule=rule-7&last=2", vec![87, 97]),
        ("?address=10.0.0.64/31", vec![64, 65]),
        ("?address=10.0.0.64/31&rule=rule-4", vec![64]),
        ("?kind=incident", vec![]),
        ("?since=1h&until=1m", vec![]),
        ("?since=1h&last=1", vec![100]),
        ("?namespace=shop", vec![]),
    ] {
        let (status, body) = sensor.get(&format!("/v1/alerts{query}"));
        assert_eq!((status, sequences(&body)), (200, expected), "{query}");
    }
}

#[test]
fn a_stream_goes_on_with_what_comes_and_ends_with_the_sensor() {
    let mut sensor = Sensor::start();
    sensor.append(5);
    let mut lines = sensor.follow("/v1/alerts?follow=true&envelope=true&last=2");
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    assert_eq!(next()["sequence"], 4);
    assert_eq!(next()["event"]["metadata"]["sequence"], 5);
    assert_eq!(next()["position"], 5);
    sensor.append(1);
    assert_eq!(next()["sequence"], 6);
    sensor.append(3);
    sensor.stop();
    let rest: Vec<_> = [next(), next(), next()].iter().map(|record| record["sequence"].clone()).collect();
    assert_eq!(rest, [7, 8, 9], "what was told before it stopped");
    assert_eq!(lines.next(), None);
}

/// Readers who never read cost the sensor nothing: appending goes on, and what they cannot have any more is told to them.
#[test]
fn whoever_reads_too_slowly_is_told_what_it_has_missed() {
    const MANY: u64 = 100_000;
    let sensor = Sensor::start();
    let slow: Vec<_> =
        (0..10).map(|_| sensor.follow("/v1/alerts?follow=true&envelope=true&after=0")).collect();
    sensor.append(MANY);
    assert_eq!(*sensor.spool.head().borrow(), MANY);
    for mut lines in slow {
        let (mut next, mut gaps) = (1, 0);
        while next <= MANY {
            let record: Value = match lines.next().unwrap() {
                line if line.is_empty() => continue,
                line => serde_json::from_str(&line).unwrap(),
            };
            if let Some(sequence) = record["sequence"].as_u64() {
                assert_eq!(sequence, next, "neither twice nor without a word");
                next += 1;
            } else if let Some(from) = record["gap"]["from"].as_u64() {
                let to = record["gap"]["to"].as_u64().unwrap();
                assert!(from <= next && next <= to, "{record} at {next}");
                next = to + 1;
                gaps += 1;
            }
        }
        assert!(gaps > 0, "16 MiB of memory do not hold them all");
    }
}

#[test]
fn exchanges_are_told_to_whoever_is_there_and_what_is_missed_is_counted() {
    const MANY: u64 = 50_000;
    let sensor = Sensor::start();
    let mut lines = sensor.follow("/v1/exchanges?follow=true&address=10.0.0.3");
    until("it follows", || sensor.exchanges.receiver_count() == 1);
    sensor.publish(5);
    let event: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(
        (event["class_uid"].as_u64(), event["http_request"]["url"]["path"].as_str()),
        (Some(6003), Some("/orders/3"))
    );
    drop(lines);
    until("it is gone", || sensor.exchanges.receiver_count() == 0);

    // It does not read: what its socket and the ring do not hold is missed, and counted.
    let mut lines = sensor.follow("/v1/exchanges?follow=true");
    until("it follows", || sensor.exchanges.receiver_count() == 1);
    sensor.publish(MANY);
    sensor.publish(1);
    let (mut seen, mut missed) = (0, 0);
    while seen + missed <= MANY {
        let record: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        match record["gap"]["missed"].as_u64() {
            Some(count) => missed += count,
            None => seen += 1,
        }
    }
    assert_eq!(seen + missed, MANY + 1);
    assert!(missed > 0 && seen > 0, "{seen} {missed}");
}

#[test]
fn a_look_at_exchanges_ends_by_itself() {
    let sensor = Sensor::start();
    let lines = sensor.follow("/v1/exchanges?limit=2");
    until("it follows", || sensor.exchanges.receiver_count() == 1);
    sensor.publish(5);
    assert_eq!(lines.count(), 2);
    assert_eq!(sensor.get("/v1/exchanges?for=0s"), (200, String::new()));
}

#[test]
fn the_state_is_told_once_and_again() {
    let sensor = Sensor::start();
    sensor.append(7);
    let (status, body) = sensor.get("/v1/status");
    let state: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &state["node"], &state["ready"]), (200, &"node-1".into(), &true.into()));
    assert_eq!(state["sequence"], serde_json::json!({"oldest": 1, "head": 7}));
    assert_eq!(state["figures"]["tokenscope_exchanges_total"], 12);
    assert_eq!(state["sinks"][0]["name"], "siem");
    let mut lines = sensor.follow("/v1/top?interval_ms=200");
    for _ in 0..3 {
        let state: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!(state["sequence"]["head"], 7);
    }
    let (status, body) = sensor.get("/v1/sinks");
    assert!(status == 200 && body.contains("siem"), "{body}");
}

#[test]
fn a_reader_that_leaves_is_forgotten() {
    let sensor = Sensor::start();
    let mut stream = UnixStream::connect(sensor.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /v1/exchanges?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    until("it follows", || sensor.exchanges.receiver_count() == 1);
    drop(stream);
    until("it is gone", || sensor.exchanges.receiver_count() == 0);
}
