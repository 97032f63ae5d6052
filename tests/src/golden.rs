//! The golden captures: every detection and every trick of TCP and HTTP/1.1 that replay can show, made by hand.
//!
//! One case is one capture; `tests/data/golden/NAME.jsonl` holds what the sensor must say about it, byte for byte.
//! What it takes to show the other rules is in [`rules`].

#[allow(clippy::unnecessary_wraps, reason = "the table takes functions of one type; most of them sign")]
pub mod rules;

use std::net::SocketAddr;

use anyhow::Result;

use crate::attack::{Attack, tampered_pair};
use crate::capture::{ACK, Conversation, PSH, Pcap, RST, Segment};
use crate::client::{get, login, post};
use crate::mint::{GOLDEN_NOW, Mint};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// When the captures begin, in nanoseconds since the epoch.
pub const START: u64 = GOLDEN_NOW.unsigned_abs() * SECOND;

/// A case: its name and its capture.
pub type Case = (String, Pcap);

/// An answer of this status with a small body.
#[must_use]
pub fn answer(status: u16) -> Vec<u8> {
    let body = if status == 200 { r#"{"total":42}"# } else { r#"{"error":"invalid_token"}"# };
    format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8080))
}

fn client(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 3, last], 40_000 + u16::from(last)))
}

/// A connection on which each request gets its answer.
fn talk(client: SocketAddr, turns: &[(Vec<u8>, u16)]) -> Conversation {
    let mut talk = Conversation::open(client, server());
    for (request, status) in turns {
        talk.request(request).response(&answer(*status));
    }
    talk.close();
    talk
}

fn only(talk: &Conversation) -> Pcap {
    let mut file = Pcap::default();
    file.add(START, talk);
    file
}

/// Every case, in the order of their names' making.
///
/// # Errors
/// When a token cannot be signed.
pub fn cases() -> Result<Vec<Case>> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let mut cases = attacks(&mint)?;
    cases.extend(behaviour(&mint)?);
    cases.extend(transport(&mint)?);
    cases.extend(framing(&mint)?);
    Ok(cases)
}

/// The capture of `deploy/samples`: an hour at a small shop, with most of what the sensor can tell.
///
/// # Errors
/// When a token cannot be signed.
pub fn sample() -> Result<Pcap> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let wanted = ["benign", "accepted-alg-none", "attempt-bad-signature", "attempt-hmac-under-public-key"];
    let more =
        ["attempt-kid-traversal", "attempt-psychic", "claims-tampered", "token-many-sources", "brute-force"];
    let mut file = Pcap::default();
    let mut minute = 0;
    for (name, capture) in [attacks(&mint)?, behaviour(&mint)?].concat() {
        if wanted.contains(&name.as_str()) || more.contains(&name.as_str()) {
            file.append(&capture, minute * 60 * SECOND);
            minute += 1;
        }
    }
    Ok(file)
}

/// Each attack refused; one accepted on a route that refuses strangers.
fn attacks(mint: &Mint) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for attack in Attack::ALL {
        let token = attack.token(mint, "mallory")?;
        let refused =
            talk(client(7), &[(get("/orders/7", None), 401), (get("/orders/7", Some(&token)), 401)]);
        cases.push((format!("attempt-{}", attack.name()), only(&refused)));
        let accepted =
            talk(client(7), &[(get("/orders/7", None), 401), (get("/orders/7", Some(&token)), 200)]);
        cases.push((format!("accepted-{}", attack.name()), only(&accepted)));
    }
    let forged = Attack::AlgNone.token(mint, "mallory")?;
    let later = talk(client(7), &[(get("/orders/7", Some(&forged)), 200), (get("/orders/8", None), 401)]);
    cases.push(("accepted-before-the-guard-is-known".into(), only(&later)));
    let open = talk(client(7), &[(get("/news/7", None), 200), (get("/news/7", Some(&forged)), 200)]);
    cases.push(("accepted-on-an-open-route".into(), only(&open)));
    Ok(cases)
}

/// What takes more than one request.
fn behaviour(mint: &Mint) -> Result<Vec<Case>> {
    let good = mint.good("alice")?;
    let (first, second) = tampered_pair(mint, "alice")?;
    let tampered =
        talk(client(7), &[(get("/orders/1", Some(&first)), 200), (get("/orders/1", Some(&second)), 401)]);

    let mut sources = Pcap::default();
    // They take turns: a telephone that changes its network once or twice is no thief.
    let places = [[10, 0, 3, 7], [198, 51, 100, 9]];
    for (turn, from) in (0_u16..).zip(places.into_iter().cycle().take(5)) {
        let from = SocketAddr::from((from, 50_000 + turn));
        let at = START + u64::from(turn) * 20 * SECOND;
        sources.add(at, &talk(from, &[(get("/orders/1", Some(&good)), 200)]));
    }

    let mut rate = Conversation::open(client(7), server());
    for id in 0..300 {
        rate.request(&get(&format!("/orders/{id}"), Some(&good))).response(&answer(200));
        rate.pause(20_000_000);
    }
    let mut brute = Conversation::open(client(7), server());
    for attempt in 0..60 {
        brute.request(&login(&format!("user{}", attempt % 3), "wrong")).response(&answer(401));
        brute.pause(300_000_000);
    }
    let benign: Vec<(Vec<u8>, u16)> = (0..20)
        .map(|id| (get(&format!("/orders/{id}"), Some(&good)), 200))
        .chain([(login("alice", "correct horse"), 200), (get("/health", None), 200)])
        .collect();
    let mut patient = Conversation::open(client(7), server());
    for (request, status) in benign {
        patient.request(&request).response(&answer(status)).pause(SECOND);
    }
    Ok(vec![
        ("benign".into(), only(&patient)),
        ("claims-tampered".into(), only(&tampered)),
        ("token-many-sources".into(), sources),
        ("token-rate".into(), only(&rate)),
        ("brute-force".into(), only(&brute)),
    ])
}

/// The turns that every transport trick carries: one forged token among good ones.
fn turns(mint: &Mint) -> Result<Vec<(Vec<u8>, u16)>> {
    let (good, forged) = (mint.good("alice")?, Attack::AlgNone.token(mint, "mallory")?);
    Ok(vec![
        (get("/orders/1", Some(&good)), 200),
        (get("/orders/2", Some(&forged)), 401),
        (post("/orders/3", Some(&good), &[b'x'; 5000]), 200),
    ])
}

fn told(mut talk: Conversation, turns: &[(Vec<u8>, u16)]) -> Conversation {
    for (request, status) in turns {
        talk.request(request).response(&answer(*status));
    }
    talk.close();
    talk
}

/// One conversation under every trick of TCP. All of them must read the same.
fn transport(mint: &Mint) -> Result<Vec<Case>> {
    let turns = turns(mint)?;
    let (from, to) = (client(7), server());
    let plain = told(Conversation::open(from, to), &turns);
    let mut vlan = plain.clone();
    vlan.vlan = Some(42);
    let six = |host: &str| host.parse::<std::net::Ipv6Addr>().map(|ip| SocketAddr::from((ip, 8080)));
    let cases = [
        ("tcp-plain", plain.clone()),
        ("tcp-vlan", vlan),
        ("tcp-ipv6", told(Conversation::open(six("fd00::7")?, six("fd00::1")?), &turns)),
        ("tcp-one-byte-segments", told(Conversation::open(from, to).cut_at(1), &turns)),
        ("tcp-sequence-wrap", told(Conversation::open_at(from, to, u32::MAX - 300, u32::MAX - 100), &turns)),
        ("tcp-joined-midway", told(Conversation::midway(from, to, 5000, 9000), &turns)),
        ("tcp-swapped", rearranged(told(Conversation::open(from, to).cut_at(200), &turns), |all| swap(all))),
        ("tcp-repeated", rearranged(told(Conversation::open(from, to).cut_at(200), &turns), repeat)),
        ("tcp-overlapping", rearranged(told(Conversation::open(from, to).cut_at(200), &turns), overlap)),
        ("tcp-bad-checksum-decoys", rearranged(plain.clone(), spoiled_decoys)),
        ("tcp-reset-decoys", rearranged(plain, reset_decoys)),
    ];
    Ok(cases.into_iter().map(|(name, talk)| (name.to_owned(), only(&talk))).collect())
}

fn rearranged(mut talk: Conversation, how: impl Fn(&mut Vec<Segment>)) -> Conversation {
    how(&mut talk.segments);
    talk
}

/// Every two neighbouring segments of the client with payload change places.
fn swap(segments: &mut [Segment]) {
    let mut at = 3;
    while let Some([one, two]) = segments.get_mut(at..at + 2) {
        if one.from_client && two.from_client && !one.payload.is_empty() && !two.payload.is_empty() {
            std::mem::swap(one, two);
            at += 1;
        }
        at += 1;
    }
}

/// Every segment with payload comes twice.
fn repeat(segments: &mut Vec<Segment>) {
    let all = std::mem::take(segments);
    for segment in all {
        if !segment.payload.is_empty() {
            segments.push(segment.clone());
        }
        segments.push(segment);
    }
}

/// Every segment of the client begins 50 bytes earlier, inside the one before.
fn overlap(segments: &mut Vec<Segment>) {
    let mut before: Option<Segment> = None;
    for segment in segments {
        let whole = segment.clone();
        if let Some(last) =
            before.filter(|last| last.seq.wrapping_add(200) == segment.seq && segment.from_client)
        {
            let tail = last.payload.get(150..).unwrap_or_default();
            segment.payload.splice(..0, tail.iter().copied());
            segment.seq = segment.seq.wrapping_sub(u32::try_from(tail.len()).unwrap_or_default());
        }
        before = (whole.from_client && whole.payload.len() == 200).then_some(whole);
    }
}

/// Before every request comes one that no server accepts: another method, a wrong checksum.
fn spoiled_decoys(segments: &mut Vec<Segment>) {
    let all = std::mem::take(segments);
    for segment in all {
        if segment.from_client && !segment.payload.is_empty() {
            let payload = segment.payload.iter().map(|b| if *b == b'.' { b'x' } else { *b }).collect();
            segments.push(Segment { payload, bad_checksum: true, ..segment.clone() });
        }
        segments.push(segment);
    }
}

/// Before every request comes a reset far outside the window (RFC 5961 section 3).
fn reset_decoys(segments: &mut Vec<Segment>) {
    let all = std::mem::take(segments);
    for segment in all {
        if segment.from_client && !segment.payload.is_empty() {
            let seq = segment.seq.wrapping_add(1 << 30);
            segments.push(Segment { seq, flags: RST, payload: Vec::new(), ..segment.clone() });
        }
        segments.push(segment);
    }
}

/// Everything that HTTP/1.1 does with the end of a message.
fn framing(mint: &Mint) -> Result<Vec<Case>> {
    let good = mint.good("alice")?;
    let forged = Attack::AlgNone.token(mint, "mallory")?;
    let inside = String::from_utf8_lossy(&get("/inside", Some(&forged))).into_owned();
    let attack = (get("/orders/2", Some(&forged)), 401);
    let chunked = format!(
        "POST /orders HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {good}\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x};note=1\r\n{inside}\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
        inside.len()
    );
    let cases = [
        (
            "http-request-inside-a-body",
            talk(client(7), &[(post("/orders", Some(&good), inside.as_bytes()), 200), attack.clone()]),
        ),
        ("http-request-inside-a-chunk", talk(client(7), &[(chunked.into_bytes(), 200), attack.clone()])),
        ("http-expect-continue", expect_continue(&good, &attack)),
        ("http-upgrade", upgrade(&good, &forged)),
        ("http-pipelined-100", pipelined(&good, &forged)),
        ("http-head-of-60-kib", big_head(&forged)),
        ("http-lost-segment-in-head", lost_segment(&good, &forged)),
    ];
    Ok(cases.into_iter().map(|(name, talk)| (name.to_owned(), only(&talk))).collect())
}

fn expect_continue(good: &str, attack: &(Vec<u8>, u16)) -> Conversation {
    let mut talk = Conversation::open(client(7), server());
    let head = format!(
        "POST /orders HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {good}\r\nExpect: 100-continue\r\n\
         Content-Length: 10\r\n\r\n"
    );
    talk.request(head.as_bytes()).response(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.request(b"0123456789").response(&answer(200));
    talk.request(&attack.0).response(&answer(attack.1)).close();
    talk
}

/// After 101 the connection speaks something else: what looks like a request there is none.
fn upgrade(good: &str, forged: &str) -> Conversation {
    let mut talk = Conversation::open(client(7), server());
    let head = format!(
        "GET /live HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {good}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\n\r\n"
    );
    talk.request(head.as_bytes());
    talk.response(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    talk.request(&get("/inside", Some(forged))).response(b"\x81\x02ok").close();
    talk
}

/// A hundred requests in one go, their answers in one go; number 57 is forged.
fn pipelined(good: &str, forged: &str) -> Conversation {
    let mut talk = Conversation::open(client(7), server()).cut_at(60_000);
    let request = |id| get(&format!("/orders/{id}"), if id == 57 { Some(forged) } else { None });
    let requests: Vec<u8> = (0..100).flat_map(request).collect();
    let answers: Vec<u8> = (0..100).flat_map(|id| answer(if id == 57 { 401 } else { 404 })).collect();
    talk.request(&get("/orders/0", Some(good))).response(&answer(200));
    talk.request(&requests).response(&answers).close();
    talk
}

/// A head of almost the limit whose last line is the one that matters.
fn big_head(forged: &str) -> Conversation {
    let filler = format!("X-Filler: {}\r\n", "f".repeat(1000)).repeat(59);
    let head = format!("GET /orders/2 HTTP/1.1\r\nHost: h\r\n{filler}Authorization: Bearer {forged}\r\n\r\n");
    talk(client(7), &[(head.into_bytes(), 401)])
}

/// One segment in the middle of a head is missing; the next request is whole again.
fn lost_segment(good: &str, forged: &str) -> Conversation {
    let mut talk = Conversation::open(client(7), server()).cut_at(300);
    let before = talk.segments.len();
    talk.request(&get("/orders/1", Some(good))).response(&answer(200));
    if talk.segments.get(before + 1).is_some_and(|s| s.flags == ACK | PSH) {
        talk.segments.remove(before + 1);
    }
    talk.request(&get("/orders/2", Some(forged))).response(&answer(401)).close();
    talk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_the_same_every_time() {
        let (one, two) = (cases().unwrap(), cases().unwrap());
        for ((name, a), (_, b)) in one.iter().zip(&two) {
            assert_eq!(a.bytes(), b.bytes(), "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = cases().unwrap().into_iter().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn loss_takes_one_segment_of_the_head() {
        let mint = Mint::at(GOLDEN_NOW).unwrap();
        let talk = lost_segment(&mint.good("a").unwrap(), "x.y.z");
        let seqs: Vec<(u32, usize)> =
            talk.segments.iter().filter(|s| s.from_client).map(|s| (s.seq, s.payload.len())).collect();
        assert!(seqs.windows(2).any(|w| w[1].0 == w[0].0 + 600), "{seqs:?}");
    }
}
