//! No event shows who somebody is or where they come from, once that is to be hidden: the golden capture of every rule,
//! and every other golden capture, replayed with everything hidden.
//!
//! Clients and subjects are taken from the capture itself and not from what the sensor says of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::golden::cases;
use tests::golden::rules::CASES;
use tests::mint::{GOLDEN_NOW, Mint};
use tests::sensor::{Config, events, replay};

/// Whom and what a capture may give away.
#[derive(Debug, Default)]
struct People {
    clients: BTreeSet<IpAddr>,
    subjects: BTreeSet<String>,
}

impl People {
    fn of(capture: &[u8]) -> Self {
        let mut people = Self::default();
        let mut rest = capture.get(24..).unwrap_or_default();
        while let Some((header, after)) = rest.split_at_checked(16) {
            let length = header.get(8..12).and_then(|n| n.try_into().ok()).map_or(0, u32::from_le_bytes);
            let (frame, next) = after.split_at_checked(length as usize).unwrap_or((after, &[]));
            people.clients.extend(client(frame));
            people.read(&String::from_utf8_lossy(frame));
            rest = next;
        }
        people
    }

    /// What a packet's text says: proxies name clients, tokens and logins name subjects.
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("x-forwarded-for")
            {
                self.clients.extend(value.split(',').filter_map(|part| part.trim().parse::<IpAddr>().ok()));
            }
        }
        for (at, _) in text.match_indices("eyJ") {
            let token = text.get(at..).unwrap_or_default();
            let payload = token.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).nth(1);
            let claims = payload.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            let claims: Option<Value> = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let subject = claims.and_then(|claims| Some(claims.get("sub")?.as_str()?.to_owned()));
            self.subjects.extend(subject);
        }
        for (at, found) in text.match_indices("\"username\":\"") {
            let name = text.get(at + found.len()..).and_then(|rest| rest.split('"').next());
            self.subjects.extend(name.map(str::to_owned));
        }
    }
}

/// Who opens a connection with this frame of Ethernet (RFC 9293: SYN without ACK), or asks in it.
fn client(frame: &[u8]) -> Option<IpAddr> {
    let mut at = 12;
    while frame.get(at..at + 2)? == [0x81, 0x00] {
        at += 4;
    }
    let packet = frame.get(at + 2..)?;
    let (source, tcp) = if packet.first()? >> 4 == 4 {
        let bytes: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        let header = usize::from(packet.first()? & 15) * 4;
        (IpAddr::from(Ipv4Addr::from(bytes)), packet.get(header..)?)
    } else {
        let bytes: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
        (IpAddr::from(Ipv6Addr::from(bytes)), packet.get(40..)?)
    };
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    let asks = payload.starts_with(b"GET ") || payload.starts_with(b"POST ");
    (asks || tcp.get(13)? & 0x12 == 0x02).then_some(source)
}

/// Whether a text holds this as a whole word.
fn holds(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text.get(..at).and_then(|part| part.chars().next_back());
        let after = text.get(at + name.len()..).and_then(|part| part.chars().next());
        let joins = before.is_some_and(|c| c.is_alphanumeric() || c == '.');
        !joins && !after.is_some_and(char::is_alphanumeric)
    })
}

/// What is shown of anybody: unless it is hidden, in how many lines; and in words once it is.
fn given_away(name: &str, config: &mut Config, capture: &[u8]) -> Result<(usize, Vec<String>)> {
    let plain = replay(config, capture)?;
    let plain_events = events(&plain)?;
    let server = |event: &Value| {
        let ip = event.pointer("/evidences/0/dst_endpoint/ip")?.as_str()?;
        ip.parse::<IpAddr>().ok()
    };
    let servers: BTreeSet<IpAddr> = plain_events.iter().filter_map(server).collect();
    config.set("/privacy/mask_addresses", json!(true));
    config.set("/privacy/pseudonymise", json!(true));
    let hidden = replay(config, capture)?;
    ensure!(
        plain.lines().count() == hidden.lines().count(),
        "{name}: hiding changes what is found:\n{plain}\n{hidden}"
    );
    let people = People::of(capture);
    ensure!(plain.is_empty() || !people.clients.is_empty(), "{name}: no client was read from the capture");
    let clients = people.clients.difference(&servers).map(ToString::to_string);
    let (mut open, mut shown) = (0, Vec::new());
    for secret in clients.chain(people.subjects) {
        open += plain.lines().filter(|line| holds(line, &secret)).count();
        for line in hidden.lines().filter(|line| holds(line, &secret)) {
            shown.push(format!("{name} shows {secret} in {line}"));
        }
    }
    Ok((open, shown))
}

#[test]
fn no_rule_says_who_or_whence() -> Result<()> {
    let (mut shown, mut open) = (Vec::new(), 0);
    for case in CASES {
        let dir = tempfile::tempdir()?;
        let (mut config, capture) = case.make(dir.path())?;
        let (lines, found) = given_away(case.rule, &mut config, &capture).context(case.rule)?;
        open += lines;
        shown.extend(found);
    }
    ensure!(open > CASES.len(), "people are in {open} lines only while nothing is hidden: the test is blind");
    ensure!(shown.is_empty(), "{}", shown.join("\n"));
    Ok(())
}

#[test]
fn no_golden_capture_shows_who_or_whence() -> Result<()> {
    let (mut shown, mut open) = (Vec::new(), 0);
    for (name, capture) in cases()? {
        let mut config = Config::new(&Mint::at(GOLDEN_NOW)?)?;
        let found = given_away(&name, &mut config, &capture.bytes()).with_context(|| name.clone())?;
        open += found.0;
        shown.extend(found.1);
    }
    ensure!(open > 50, "people are in {open} lines only while nothing is hidden: the test is blind");
    ensure!(shown.is_empty(), "{}", shown.join("\n"));
    Ok(())
}
