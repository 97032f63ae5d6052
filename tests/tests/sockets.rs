//! Sockets of unusual kinds, live: what is sent over them is seen like anything else.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::attack::Attack;
use tests::expect::{Expected, exactly};
use tests::mint::Mint;
use tests::sensor::{Config, Sensor};
use tests::server::{Kind, free_port};
use tests::{clock, sensor, skip};

/// One forged token over a socket of this kind must be one alert with the answer's status.
fn is_seen(kind: &str) -> Result<()> {
    if let Some(why) = sensor::missing().or_else(|| Kind::Python.missing()) {
        skip(&format!("sockets::{kind}"), &why);
        return Ok(());
    }
    let port = free_port()?;
    let mint = Mint::at(clock::now())?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[port]))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/sockets.py");
    let token = Attack::AlgNone.token(&mint, "mallory")?;
    let done = Command::new("python3").arg(script).args([kind, &port.to_string(), &token]).output()?;
    if done.status.code() == Some(77) {
        skip(&format!("sockets::{kind}"), "this kernel has no such sockets");
        return Ok(());
    }
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let client = String::from_utf8_lossy(&done.stdout).trim().parse().context("the client's port")?;
    exactly(sensor, vec![Expected::new("alg-none", "High", client, 401)]).map(drop)
}

#[test]
fn sees_what_is_sent_without_copying() -> Result<()> {
    is_seen("zero-copy")
}

#[test]
fn sees_connections_that_are_passed_on_to_another_process() -> Result<()> {
    is_seen("passed-on")
}

#[test]
fn sees_multipath_tcp() -> Result<()> {
    is_seen("mptcp")
}

#[test]
fn sees_requests_behind_urgent_data() -> Result<()> {
    is_seen("urgent")
}

#[test]
fn sees_through_ipv6_extension_headers() -> Result<()> {
    is_seen("ipv6-options")
}

#[test]
fn sees_beyond_64_kib_of_a_big_tcp_packet() -> Result<()> {
    is_seen("big-tcp")
}
