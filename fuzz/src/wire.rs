//! Targets for what comes from the network: packets in a file, heads, chunked bodies.
//!
//! Each takes any bytes, must not panic, and asserts that it makes no difference how the bytes were cut.

use std::io::Cursor;
use std::time::Duration;

use sensor_user::capture::pcap::PcapSource;
use sensor_user::capture::{
    Endpoints, Event, Frame, Input, Origin, Progress, Segment, Side, SocketId, Source, Time,
};
use sensor_user::http::parse::{Chunks, Step};
use sensor_user::http::{Bodies, BodyKey, Connection, Exchanges, HttpLimits};
use sensor_user::reassembly::{FlowLimits, Flows};

/// Packets of any link type in a capture file. The first byte chooses the link type; of the rest, each packet begins with
/// its length.
pub fn packet(data: &[u8]) {
    const LINKS: [u32; 8] = [1, 101, 0, 108, 113, 276, 228, 229];
    let Some((link, mut rest)) = data.split_first() else { return };
    let link = LINKS[usize::from(*link) % LINKS.len()];
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link] {
        file.extend(word.to_le_bytes());
    }
    while let Some((len, after)) = rest.split_first() {
        let (packet, after) = after.split_at(usize::from(*len).min(after.len()));
        let len = packet.len() as u32;
        for word in [0, 0, len, len + len % 7] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
        rest = after;
    }
    read(file);
    // The same bytes as a file of whatever format they claim to be.
    read(data.to_vec());
}

fn read(file: Vec<u8>) {
    let Ok(mut source) = PcapSource::from_reader("fuzz", Box::new(Cursor::new(file))) else { return };
    let mut flows = Flows::<Connection>::new(FlowLimits { max_flows: 16, ..FlowLimits::default() });
    let mut exchanges = Exchanges::new(limits());
    let mut grants = Vec::new();
    loop {
        let progress = source.poll(Duration::ZERO, &mut |input| match input {
            Input::Frame(frame) => flows.push(&frame, &mut exchanges, &mut grants),
            Input::Tick(now) => flows.expire(now, &mut exchanges),
            Input::Loss(_) | Input::Pressed(_) => {}
        });
        if !matches!(progress, Ok(Progress::More)) {
            break;
        }
    }
    flows.finish(source.now(), &mut exchanges);
    assert_eq!(flows.held_bytes(), 0, "what was held must be given back");
}

/// Everything that can be read is read.
fn limits() -> HttpLimits {
    let bodies =
        Bodies::new([], [], BodyKey::default()).with_issued(["access_token", "refresh_token", "token"]);
    HttpLimits { bodies, ..HttpLimits::default() }
}

/// A client's bytes, and a server that answers. The first two bytes say where to cut.
pub fn head(data: &[u8]) {
    let Some((cuts, data)) = data.split_first_chunk::<2>() else { return };
    let (requests, responses) = data.split_at(data.iter().position(|b| *b == 0xff).unwrap_or(data.len()));
    let whole = converse(&[requests], &[responses]);
    let [first, second] = cuts.map(usize::from);
    let (a, b) = requests.split_at(first.min(requests.len()));
    let (c, d) = responses.split_at(second.min(responses.len()));
    // Only where a stream starts is known beyond doubt may the cut not matter: finding it again after nonsense depends
    // on where segments begin.
    if whole.iter().all(|line| line.1) {
        let parts = converse(&[a, b], &[c, d]);
        if parts.iter().all(|line| line.1) {
            for (one, other) in whole.iter().zip(&parts) {
                assert_eq!(one.0, other.0, "a head must not depend on how it was cut");
            }
        }
    }
}

/// The heads that come out, and whether each was whole.
fn converse(requests: &[&[u8]], responses: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
    let mut flows = Flows::<Connection>::new(FlowLimits::default());
    let limits = HttpLimits { max_head_bytes: 4096, ..limits() };
    let mut exchanges = Exchanges::new(limits);
    let mut next = [1_u32, 1];
    let mut push = |event: Event<'_>| {
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let endpoints = Endpoints { client: nowhere, server: nowhere };
        let (at, socket) = (Time::from_secs(1), SocketId(1));
        flows.push(
            &Frame { at, socket, endpoints, origin: Origin::default(), event },
            &mut exchanges,
            &mut Vec::new(),
        );
    };
    push(Event::Open { first_seq: 1 });
    let sides = [(Side::Request, requests), (Side::Response, responses)];
    for (side, payload) in
        sides.into_iter().flat_map(|(side, all)| all.iter().map(move |payload| (side, *payload)))
    {
        let [client, server] = &mut next;
        let (seq, ack) = if side == Side::Request { (client, *server) } else { (server, *client) };
        let wire_len = payload.len() as u32;
        let (ack, seq_now) = (Some(ack), *seq);
        *seq += wire_len;
        let segment = Segment {
            side,
            seq: seq_now,
            ack,
            rcv_nxt: None,
            wire_len,
            payload,
            whole: false,
            in_order: false,
            fin: false,
            rst: false,
        };
        push(Event::Segment(segment));
    }
    flows.finish(Time::from_secs(2), &mut exchanges);
    let mut out = Vec::new();
    while let Some(exchange) = exchanges.take() {
        assert!(exchange.request.bytes.len() <= 4096, "heads are bounded");
        for header in &exchange.request.headers {
            assert!(header.value.end as usize <= exchange.request.bytes.len(), "ranges lie inside");
        }
        let whole = exchange.request.bytes.ends_with(b"\n");
        out.push((exchange.request.bytes, whole));
    }
    out
}

/// A chunked body. The first byte says where to cut.
pub fn chunk(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(usize::from(*cut).min(data.len()));
    let (mut whole, mut parts) = (Chunks::default(), Chunks::default());
    let expected = whole.feed(data);
    let got = match parts.feed(first) {
        Step::More => match parts.feed(second) {
            Step::Done(used) => Step::Done(first.len() + used),
            other => other,
        },
        other => other,
    };
    assert_eq!(got, expected, "a body must not depend on how it was cut");
    assert_eq!(whole.total(), parts.total());
    assert_eq!(whole.is_odd(), parts.is_odd());
    let mut skipped = whole;
    let unseen = skipped.skippable();
    assert!(
        skipped.skip(unseen) && !whole.skip(unseen.saturating_add(1)),
        "data and nothing else may be skipped"
    );
}
