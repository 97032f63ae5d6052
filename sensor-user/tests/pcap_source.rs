//! Capture files of every kind, and what a hostile network puts into them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

mod wire;

use std::io::Write;

use sensor_user::capture::{LossKind, SourceError};
use sensor_user::http::{Coverage, Suspicions};
use wire::file::{Tcp, pcap, read};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

fn client(seq: u32, ack: u32, payload: &[u8]) -> Tcp {
    Tcp { from_client: true, seq, ack: Some(ack), payload: payload.to_vec(), ..Tcp::default() }
}

fn server(seq: u32, ack: u32, payload: &[u8]) -> Tcp {
    Tcp { seq, ack: Some(ack), payload: payload.to_vec(), ..Tcp::default() }
}

fn handshake(client_isn: u32, server_isn: u32) -> Vec<Tcp> {
    vec![
        Tcp { from_client: true, seq: client_isn, syn: true, ..Tcp::default() },
        Tcp { seq: server_isn, ack: Some(client_isn + 1), syn: true, ..Tcp::default() },
        client(client_isn + 1, server_isn + 1, b""),
    ]
}

/// One whole connection: a request, a response, and the end.
fn connection(client_isn: u32, server_isn: u32) -> Vec<Tcp> {
    let (c, s) = (client_isn + 1, server_isn + 1);
    let (c_end, s_end) = (c + len(REQUEST), s + len(OK));
    let mut all = handshake(client_isn, server_isn);
    all.extend([
        client(c, s, REQUEST),
        server(s, c_end, OK),
        Tcp { fin: true, ..client(c_end, s_end, b"") },
        Tcp { fin: true, ..server(s_end, c_end + 1, b"") },
        client(c_end + 1, s_end + 1, b""),
    ]);
    all
}

fn frames(segments: &[Tcp]) -> Vec<Vec<u8>> {
    segments.iter().map(Tcp::frame).collect()
}

/// Blocks of a pcapng file: one Ethernet interface with nanoseconds, then the frames.
fn pcapng(frames: &[Vec<u8>], big: bool) -> Vec<u8> {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let block = |kind: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = word(len(&body) + 12);
        [&word(kind)[..], &len, &body, &len].concat()
    };
    let section = [&word(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat();
    let interface =
        [&half(1)[..], &half(0), &word(0), &half(9), &half(1), &[9, 0, 0, 0], &half(0), &half(0)].concat();
    let mut out = [block(0x0a0d_0d0a, &section), block(1, &interface), block(0x0bad, &[7; 100])].concat();
    for (n, frame) in frames.iter().enumerate() {
        let nanos = 1_700_000_000_000_000_000_u64 + n as u64 * 5;
        let (high, low) = (u32::try_from(nanos >> 32).unwrap(), (nanos & 0xffff_ffff) as u32);
        let lens = [word(len(frame)), word(len(frame))].concat();
        out.extend(block(6, &[&word(0)[..], &word(high), &word(low), &lens, frame].concat()));
    }
    let dropped = [
        &word(0)[..],
        &[0; 8],
        &half(5),
        &half(8),
        &if big { 3_u64.to_be_bytes() } else { 3_u64.to_le_bytes() },
    ];
    out.extend(block(5, &dropped.concat()));
    out
}

#[test]
fn reads_pcap_pcapng_gzip_and_zstandard() {
    let frames = frames(&connection(100, 900));
    let plain = pcap(&frames);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for bytes in [plain, gzip.finish().unwrap(), zstd, pcapng(&frames, false), pcapng(&frames, true)] {
        let read = read(bytes);
        assert_eq!(read.lines(), ["GET /a 200"]);
        assert!(read.error.is_none(), "{:?}", read.error);
        assert_eq!(read.exchanges[0].client.to_string(), "192.0.2.1");
        assert_eq!(read.exchanges[0].endpoints.server.port(), 80);
    }
}

#[test]
fn pcapng_tells_nanoseconds_and_drops() {
    let read = read(pcapng(&frames(&connection(100, 900)), false));
    assert_eq!(read.exchanges[0].at.0, 1_700_000_000_000_000_015);
    assert_eq!(read.exchanges[0].latency.unwrap().as_nanos(), 5);
    assert_eq!(
        read.losses.iter().map(|l| (l.reason, l.records)).collect::<Vec<_>>(),
        [("capture_dropped", 3)]
    );
    assert_eq!(read.losses[0].kind, LossKind::Request);
}

#[test]
fn a_file_that_was_cut_off_yields_what_came_before_and_says_where() {
    let mut bytes = pcap(&frames(&connection(100, 900)));
    bytes.truncate(bytes.len() - 3);
    let read = read(bytes);
    assert_eq!(read.lines(), ["GET /a 200"]);
    let Some(SourceError::Format { problem, .. }) = read.error else { panic!("{:?}", read.error) };
    assert!(problem.contains("offset") && problem.contains("cut off"), "{problem}");
}

#[test]
fn damage_is_told_with_its_offset() {
    let good = pcap(&frames(&connection(100, 900)));
    let at = good.len();
    let mut bytes = good;
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
    let result = read(bytes);
    assert_eq!(result.lines(), ["GET /a 200"]);
    let Some(SourceError::Format { problem, .. }) = result.error else { panic!("{:?}", result.error) };
    assert!(problem.contains(&format!("offset {at}")), "{problem}");
    for bytes in [&b"hello world, this is no capture"[..], b"", b"\xd4\xc3"] {
        assert!(matches!(read(bytes.to_vec()).error, Some(SourceError::Format { .. })));
    }
}

#[test]
fn the_same_ports_again_are_another_connection() {
    let mut segments = connection(100, 900);
    segments.extend(connection(50_000, 70_000));
    let read = read(pcap(&frames(&segments)));
    assert_eq!(read.lines(), ["GET /a 200", "GET /a 200"]);
    assert_ne!(read.exchanges[0].socket, read.exchanges[1].socket);
}

#[test]
fn ports_reused_without_an_end_are_another_connection() {
    let mut segments = connection(100, 900)[..4].to_vec();
    segments.extend(connection(50_000, 70_000));
    let read = read(pcap(&frames(&segments)));
    assert_eq!(read.lines(), ["GET /a 0", "GET /a 200"]);
}

#[test]
fn a_forged_syn_or_reset_changes_nothing() {
    let all = connection(100, 900);
    let forged = [
        Tcp { from_client: true, seq: 77_777, syn: true, ..Tcp::default() },
        Tcp { from_client: true, seq: 77_778, rst: true, ..Tcp::default() },
        Tcp { from_client: true, seq: 105, rst: true, ..Tcp::default() },
    ];
    for forged in forged {
        let mut segments = all.clone();
        let (first, second) = REQUEST.split_at(10);
        segments.splice(3..4, [client(101, 901, first), forged, client(111, 901, second)]);
        let read = read(pcap(&frames(&segments)));
        assert_eq!(read.lines(), ["GET /a 200"]);
        assert_eq!(read.exchanges[0].coverage, Coverage::Whole);
    }
}

#[test]
fn a_decoy_with_a_wrong_checksum_is_left_out() {
    let mut segments = frames(&connection(100, 900));
    let mut decoy = client(101, 901, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").frame();
    decoy[50] ^= 0x5a;
    segments.insert(3, decoy);
    let read = read(pcap(&segments));
    assert_eq!(read.lines(), ["GET /a 200"]);
    assert!(read.exchanges[0].suspicions.is_empty());
    assert_eq!(read.losses[0].reason, "bad_checksum");
}

#[test]
fn a_decoy_that_no_checksum_tells_is_a_conflict() {
    let mut segments = connection(100, 900);
    segments.insert(4, client(101, 901, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
    let read = read(pcap(&frames(&segments)));
    assert_eq!(read.lines(), ["GET /a 200"]);
    assert_eq!(read.exchanges[0].suspicions, Suspicions::CONFLICTING_SEGMENTS);
}

#[test]
fn captures_before_checksum_offload_are_read() {
    let mut segments = frames(&connection(100, 900));
    for frame in &mut segments {
        frame[50] = 0x12;
        frame[51] = 0x34;
    }
    assert_eq!(read(pcap(&segments)).lines(), ["GET /a 200"]);
}

#[test]
fn connections_joined_midway_find_their_server() {
    let segments = [server(900, 500, OK), client(500, 940, REQUEST), server(940, 528, OK)];
    assert_eq!(read(pcap(&frames(&segments))).lines(), ["GET /a 200"]);
    let mut odd = frames(&segments[1..]);
    for frame in &mut odd {
        // Server port 80 becomes 60000: higher than the client's.
        let at = if frame[34..36] == [0, 80] { 34 } else { 36 };
        frame[at..at + 2].copy_from_slice(&60_000_u16.to_be_bytes());
    }
    assert_eq!(read(pcap(&odd)).lines(), ["GET /a 200"]);
}

#[test]
fn fragments_are_losses_that_may_hold_requests() {
    let mut segments = frames(&connection(100, 900));
    segments[3][20] |= 0x20;
    let read = read(pcap(&segments));
    assert!(read.exchanges.is_empty());
    assert_eq!(
        read.losses.iter().map(|l| (l.reason, l.kind)).collect::<Vec<_>>(),
        [("ip_fragment", LossKind::Request)]
    );
}

#[test]
fn a_snaplen_leaves_a_gap() {
    let mut segments = frames(&connection(100, 900));
    let full = segments[3].len();
    segments[3].truncate(full - 6);
    let mut bytes = pcap(&segments);
    let record = 24 + segments[..3].iter().map(|f| 16 + f.len()).sum::<usize>();
    bytes[record + 12..record + 16].copy_from_slice(&u32::try_from(full).unwrap().to_le_bytes());
    let read = read(bytes);
    assert_eq!(read.lines(), ["GET /a 200"]);
    assert_eq!(read.exchanges[0].coverage, Coverage::Gap);
}

#[test]
fn data_on_the_handshake_is_read() {
    let c = 101;
    let mut segments = vec![
        Tcp { from_client: true, seq: 100, syn: true, payload: REQUEST.to_vec(), ..Tcp::default() },
        Tcp { seq: 900, ack: Some(c + len(REQUEST)), syn: true, ..Tcp::default() },
    ];
    segments.push(server(901, c + len(REQUEST), OK));
    assert_eq!(read(pcap(&frames(&segments))).lines(), ["GET /a 200"]);
}

#[test]
fn one_direction_alone_still_tells_its_requests() {
    let segments: Vec<Tcp> = connection(100, 900).into_iter().filter(|s| s.from_client).collect();
    let read = read(pcap(&frames(&segments)));
    assert_eq!(read.lines(), ["GET /a 0"]);
    assert_eq!(read.exchanges[0].coverage, Coverage::Truncated);
}

#[test]
fn refused_connections_leave_nothing() {
    let segments = [
        Tcp { from_client: true, seq: 100, syn: true, ..Tcp::default() },
        Tcp { seq: 0, ack: Some(101), rst: true, ..Tcp::default() },
    ];
    let read = read(pcap(&frames(&segments)));
    assert!(read.sockets.is_empty() && read.exchanges.is_empty());
}
