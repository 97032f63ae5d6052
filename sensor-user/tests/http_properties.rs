//! However the network cuts, reorders and repeats a conversation, the same exchanges come out; and whatever it brings,
//! nothing panics and memory stays bounded.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

mod wire;

use proptest::prelude::*;
use sensor_user::capture::{Event, Segment, Side, SocketId};
use sensor_user::http::{Coverage, HttpLimits};
use sensor_user::reassembly::FlowLimits;
use wire::Wire;
use wire::file::{self, Tcp};

/// A message's body.
#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

/// Messages that are sent in one go: pipelined requests, then their responses.
#[derive(Clone, Debug)]
struct Turn {
    exchanges: Vec<(Body, u16, Body)>,
    /// How the segments of either side are cut: lengths, and an order.
    request_cuts: Vec<(usize, u32)>,
    response_cuts: Vec<(usize, u32)>,
    /// Repeats every so-manieth segment.
    repeat: usize,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Bodies that imitate what matters to the parsers.
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..40),
        Just(b"GET /evil HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 599 evil\r\n\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::None),
        bytes().prop_map(Body::Length),
        proptest::collection::vec(bytes(), 0..4).prop_map(Body::Chunked),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    let cuts = || proptest::collection::vec((1_usize..60, any::<u32>()), 1..30);
    let exchange = (body(), prop_oneof![Just(200_u16), Just(401), Just(500)], body());
    (proptest::collection::vec(exchange, 1..5), cuts(), cuts(), 2_usize..6).prop_map(
        |(exchanges, request_cuts, response_cuts, repeat)| Turn {
            exchanges,
            request_cuts,
            response_cuts,
            repeat,
        },
    )
}

fn write_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::None => out.extend(b"Content-Length: 0\r\n\r\n"),
        Body::Length(bytes) => {
            out.extend(format!("Content-Length: {}\r\n\r\n", bytes.len()).bytes());
            out.extend(bytes);
        }
        Body::Chunked(chunks) => {
            out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in chunks {
                out.extend(format!("{:x};e\r\n", chunk.len()).bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\nT: v\r\n\r\n");
        }
    }
}

impl Turn {
    fn written(&self, first: usize) -> (Vec<u8>, Vec<u8>, Vec<String>) {
        let (mut requests, mut responses, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for (n, (request, status, response)) in self.exchanges.iter().enumerate() {
            let n = n + first;
            requests.extend(format!("POST /{n} HTTP/1.1\r\nAuthorization: Bearer {n}\r\n").bytes());
            write_body(&mut requests, request);
            responses.extend(format!("HTTP/1.1 {status} x\r\n").bytes());
            write_body(&mut responses, response);
            lines.push(format!("POST /{n} {status}"));
        }
        (requests, responses, lines)
    }
}

/// Cuts bytes into segments, in the order in which the network delivers them: offset and bytes.
fn segments(bytes: &[u8], cuts: &[(usize, u32)], repeat: usize) -> Vec<(u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut at = 0;
    for (len, order) in cuts.iter().cycle() {
        if at >= bytes.len() {
            break;
        }
        let end = (at + len).min(bytes.len());
        all.push((*order, u32::try_from(at).unwrap(), bytes[at..end].to_vec()));
        at = end;
    }
    let repeated: Vec<_> =
        all.iter().step_by(repeat).map(|(o, at, b)| (o.rotate_left(7), *at, b.clone())).collect();
    all.extend(repeated);
    all.sort_by_key(|(order, _, _)| *order);
    all.into_iter().map(|(_, at, bytes)| (at, bytes)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn segmentation_order_and_repetition_do_not_matter(turns in proptest::collection::vec(turn(), 1..4)) {
        let mut wire = Wire::new();
        let mut expected = Vec::new();
        wire.open();
        for turn in &turns {
            let (requests, responses, lines) = turn.written(expected.len());
            expected.extend(lines);
            let both = [
                (Side::Request, &requests, &turn.request_cuts),
                (Side::Response, &responses, &turn.response_cuts),
            ];
            for (side, bytes, cuts) in both {
                for (at, payload) in segments(bytes, cuts, turn.repeat) {
                    let base = if side == Side::Request { wire.client_seq } else { wire.server_seq };
                    let wire_len = u32::try_from(payload.len()).unwrap();
                    let segment = Segment { payload: &payload, wire_len, ..wire.bare(side, base.wrapping_add(at)) };
                    wire.frame(Event::Segment(segment));
                }
                wire.lose(side, bytes.len());
            }
        }
        let all = wire.taken();
        prop_assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), expected);
        prop_assert!(all.iter().all(|exchange| exchange.coverage == Coverage::Whole));
        prop_assert_eq!(wire.flows.held_bytes(), 0);
    }

    #[test]
    fn a_file_gives_the_same_exchanges_as_the_conversation(turns in proptest::collection::vec(turn(), 1..4)) {
        let (mut client_seq, mut server_seq) = (u32::MAX - 40, 77);
        let mut frames = vec![
            Tcp { from_client: true, seq: client_seq - 1, syn: true, ..Tcp::default() }.frame(),
            Tcp { seq: server_seq - 1, ack: Some(client_seq), syn: true, ..Tcp::default() }.frame(),
        ];
        let mut expected = Vec::new();
        for turn in &turns {
            let (requests, responses, lines) = turn.written(expected.len());
            expected.extend(lines);
            for (at, payload) in segments(&requests, &turn.request_cuts, turn.repeat) {
                let (seq, ack) = (client_seq.wrapping_add(at), Some(server_seq));
                frames.push(Tcp { from_client: true, seq, ack, payload, ..Tcp::default() }.frame());
            }
            client_seq = client_seq.wrapping_add(u32::try_from(requests.len()).unwrap());
            for (at, payload) in segments(&responses, &turn.response_cuts, turn.repeat) {
                let (seq, ack) = (server_seq.wrapping_add(at), Some(client_seq));
                frames.push(Tcp { seq, ack, payload, ..Tcp::default() }.frame());
            }
            server_seq = server_seq.wrapping_add(u32::try_from(responses.len()).unwrap());
        }
        let read = file::read(file::pcap(&frames));
        prop_assert_eq!(read.lines(), expected);
        prop_assert!(read.exchanges.iter().all(|exchange| exchange.coverage == Coverage::Whole));
        prop_assert!(read.error.is_none());
    }

    #[test]
    fn any_frames_are_survived_in_bounded_memory(frames in proptest::collection::vec(any_frame(), 0..200)) {
        let limits = FlowLimits {
            max_flows: 8,
            max_buffered_bytes_per_flow: 4096,
            max_buffered_total: 16_384,
            ..FlowLimits::default()
        };
        let mut wire = Wire::with(limits, HttpLimits { max_head_bytes: 256, ..HttpLimits::default() });
        for frame in frames {
            wire.socket = SocketId(frame.socket);
            let (side, payload) = (frame.side, frame.payload.as_slice());
            let event = match frame.kind {
                0 => Event::Open { first_seq: frame.seq },
                1 => Event::Close { rcv_nxt: frame.rcv_nxt },
                _ => Event::Segment(Segment {
                    side,
                    seq: frame.seq,
                    ack: frame.ack,
                    rcv_nxt: frame.rcv_nxt,
                    wire_len: u32::try_from(payload.len()).unwrap() + frame.unseen,
                    payload,
                    whole: false,
                    in_order: frame.kind % 2 == 0,
                    fin: frame.kind == 3,
                    rst: frame.kind == 4,
                }),
            };
            wire.frame(event);
            prop_assert!(wire.flows.len() <= 8);
            prop_assert!(wire.flows.held_bytes() <= 16_384 + 4096);
            for exchange in wire.taken() {
                prop_assert!(exchange.request.bytes.len() <= 256);
            }
        }
        wire.flows.finish(wire.now, &mut wire.exchanges);
        prop_assert_eq!(wire.flows.held_bytes(), 0);
    }

    #[test]
    fn any_bytes_are_survived_as_a_file(
        magic in prop_oneof![Just(0xa1b2_c3d4_u32), Just(0x0a0d_0d0a), Just(0xa1b2_3c4d), any::<u32>()],
        rest in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = magic.to_le_bytes().to_vec();
        bytes.extend(rest);
        let _ = file::read(bytes);
    }
}

#[derive(Clone, Debug)]
struct AnyFrame {
    socket: u64,
    kind: u8,
    side: Side,
    seq: u32,
    ack: Option<u32>,
    rcv_nxt: Option<u32>,
    unseen: u32,
    payload: Vec<u8>,
}

fn any_frame() -> impl Strategy<Value = AnyFrame> {
    let near = || prop_oneof![0_u32..200, 0_u32..5000, any::<u32>()];
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec()),
    ];
    let side = prop_oneof![Just(Side::Request), Just(Side::Response)];
    let maybe = || proptest::option::of(near());
    (0_u64..20, 0_u8..12, side, near(), maybe(), maybe(), 0_u32..50, payload).prop_map(
        |(socket, kind, side, seq, ack, rcv_nxt, unseen, payload)| AnyFrame {
            socket,
            kind,
            side,
            seq,
            ack,
            rcv_nxt,
            unseen,
            payload,
        },
    )
}

/// A connection whose frames get lost: what is said of an exchange must be true all the same.
#[derive(Clone, Debug)]
struct Lossy {
    /// Requests sent in one go, each turn.
    turns: Vec<usize>,
    /// Which segments are not captured.
    lost: Vec<bool>,
    in_order: bool,
    rcv_nxt: bool,
    /// Longest part of a response that is captured.
    captured: usize,
}

fn lossy(pipelined: usize) -> impl Strategy<Value = Lossy> {
    let lost = prop_oneof![3 => Just(false), 1 => Just(true)];
    let turns = proptest::collection::vec(1..=pipelined, 1..12);
    let lost = proptest::collection::vec(lost, 40);
    (turns, lost, any::<bool>(), any::<bool>(), prop_oneof![Just(20_usize), Just(60), Just(4000)]).prop_map(
        |(turns, lost, in_order, rcv_nxt, captured)| Lossy { turns, lost, in_order, rcv_nxt, captured },
    )
}

impl Lossy {
    /// Plays it. Exchange `n` has status `200 + n`, and a body that may hide a response.
    fn play(&self) -> Vec<(usize, Option<u16>)> {
        let mut wire = Wire::new();
        wire.in_order = self.in_order;
        wire.open();
        let mut lost = self.lost.iter().cycle();
        let mut count = 0;
        for turn in &self.turns {
            for n in count..count + turn {
                let request = format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n");
                let rcv_nxt = self.rcv_nxt.then_some(wire.client_seq);
                if !lost.next().unwrap() {
                    let payload = request.as_bytes();
                    let wire_len = u32::try_from(payload.len()).unwrap();
                    let bare = wire.bare(Side::Request, wire.client_seq);
                    wire.frame(Event::Segment(Segment { rcv_nxt, payload, wire_len, ..bare }));
                }
                wire.lose(Side::Request, request.len());
            }
            for n in count..count + turn {
                let framing = ["Content-Length: 30\r\n", "Transfer-Encoding: chunked\r\n"][n % 2];
                let body = if n % 2 == 0 {
                    "x".repeat(30)
                } else {
                    format!("1e\r\n{}\r\n0\r\n\r\n", "y".repeat(30))
                };
                let response = format!("HTTP/1.1 {} x\r\n{framing}\r\n{body}", 400 + n);
                let (first, second) = response.split_at(response.len() - 20);
                for part in [first, second] {
                    if *lost.next().unwrap() {
                        wire.lose(Side::Response, part.len());
                    } else {
                        wire.server_cut(part.as_bytes(), self.captured);
                    }
                }
            }
            count += turn;
        }
        wire.close();
        let id = |target: &[u8]| std::str::from_utf8(&target[1..]).unwrap().parse().unwrap();
        wire.taken().iter().map(|exchange| (id(exchange.request.target()), exchange.status())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_loss_never_gives_a_request_the_response_of_another(lossy in lossy(1)) {
        for (n, status) in lossy.play() {
            prop_assert!(status.is_none_or(|status| usize::from(status) == 400 + n), "request {n} got {status:?}");
        }
    }

    #[test]
    fn nor_does_it_among_pipelined_requests(lossy in lossy(4)) {
        for (n, status) in lossy.play() {
            prop_assert!(status.is_none_or(|status| usize::from(status) == 400 + n), "request {n} got {status:?}");
        }
    }

    #[test]
    fn without_a_loss_everything_is_answered(lossy in lossy(1)) {
        let lossy = Lossy { lost: vec![false], ..lossy };
        let played = lossy.play();
        prop_assert_eq!(played.len(), lossy.turns.len());
        prop_assert!(played.iter().all(|(_, status)| status.is_some()));
    }
}
