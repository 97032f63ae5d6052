//! Every way in which HTTP/1.1 says where a message ends, and which response belongs to which request.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

mod wire;

use sensor_user::capture::{Event, Segment, Side, SocketId};
use sensor_user::http::{Coverage, HttpLimits, Suspicions};
use sensor_user::reassembly::FlowLimits;
use wire::Wire;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn many(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect::<Vec<_>>().concat()
}

#[test]
fn a_request_and_its_response_are_one_exchange() {
    let mut wire = Wire::new();
    wire.open();
    wire.client(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    wire.server(OK);
    let all = wire.taken();
    assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), ["GET /a 200"]);
    assert_eq!(all[0].coverage, Coverage::Whole);
    assert_eq!(all[0].response_body_bytes, Some(2));
    assert_eq!(all[0].request_body_bytes, Some(0));
    assert_eq!(all[0].latency.unwrap().as_millis(), 1);
}

#[test]
fn nothing_is_believed_before_the_server_accepted_it() {
    let mut wire = Wire::new();
    wire.client(b"GET /a HTTP/1.1\r\n\r\n");
    wire.wait(60);
    assert!(wire.lines().is_empty());
    wire.ack();
    wire.wait(60);
    assert_eq!(wire.lines(), ["GET /a 0"]);
}

#[test]
fn keep_alive_goes_on_after_every_kind_of_body() {
    let mut wire = Wire::new();
    let bodies: [&[u8]; 4] = [
        b"Content-Length: 5\r\n\r\nGET /",
        b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\nT: v\r\n\r\n",
        b"\r\n",
        b"Content-Length: 0\r\n\r\n",
    ];
    for (n, body) in bodies.iter().enumerate() {
        wire.client(&[format!("POST /{n} HTTP/1.1\r\n").as_bytes(), body].concat());
        wire.server(OK);
    }
    assert_eq!(wire.lines(), ["POST /0 200", "POST /1 200", "POST /2 200", "POST /3 200"]);
}

#[test]
fn responses_of_every_kind_are_followed() {
    let mut wire = Wire::new();
    let responses: [(&str, &[u8], u16); 7] = [
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n", 304),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (
            "GET",
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            201,
        ),
        ("GET", b"\r\nHTTP/1.1 404 No\r\nContent-Length: 12\r\n\r\nHTTP/1.1 200", 404),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 500 No\r\n\r\n", 200),
    ];
    for (method, response, status) in responses {
        wire.client(format!("{method} / HTTP/1.1\r\n\r\n").as_bytes());
        wire.server(response);
        assert_eq!(wire.lines(), [format!("{method} / {status}")]);
    }
}

#[test]
fn a_hundred_pipelined_requests_in_one_segment_are_a_hundred_exchanges() {
    let mut wire = Wire::new();
    let requests: String = many(100, |n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n"));
    wire.client(requests.as_bytes());
    let responses: String = many(100, |n| format!("HTTP/1.1 {} x\r\nContent-Length: 1\r\n\r\nx", 400 + n));
    wire.server(responses.as_bytes());
    let expected: Vec<String> = (0..100).map(|n| format!("GET /{n} {}", 400 + n)).collect();
    assert_eq!(wire.lines(), expected);
}

#[test]
fn one_byte_a_segment_is_enough() {
    let mut wire = Wire::new();
    for byte in b"\r\nGET /a HTTP/1.1\r\nAuthorization: Bearer t\r\n\r\n" {
        wire.client(&[*byte]);
        wire.ack();
    }
    for byte in OK {
        wire.server(&[*byte]);
    }
    let all = wire.taken();
    assert_eq!(all[0].request.value("authorization"), Some(&b"Bearer t"[..]));
    assert_eq!(all[0].status(), Some(200));
}

#[test]
fn a_long_head_keeps_its_last_line() {
    let mut wire = Wire::new();
    let filler = format!("X-Filler: {}\r\n", "y".repeat(60_000));
    wire.client(format!("GET /a HTTP/1.1\r\n{filler}Authorization: Bearer t\r\n\r\n").as_bytes());
    wire.server(OK);
    let all = wire.taken();
    assert_eq!(all[0].request.value("authorization"), Some(&b"Bearer t"[..]));
    assert_eq!(all[0].coverage, Coverage::Whole);
}

#[test]
fn of_a_head_beyond_the_limit_the_start_is_kept() {
    let http = HttpLimits { max_head_bytes: 1000, ..HttpLimits::default() };
    let mut wire = Wire::with(FlowLimits::default(), http);
    let filler = "X: y\r\n".repeat(500);
    wire.client(format!("GET /a HTTP/1.1\r\nAuthorization: Bearer t\r\n{filler}\r\n").as_bytes());
    wire.server(b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n");
    wire.client(b"GET /b HTTP/1.1\r\n\r\n");
    wire.server(OK);
    let all = wire.taken();
    assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), ["GET /a 431", "GET /b 200"]);
    assert_eq!(all[0].coverage, Coverage::Truncated);
    assert_eq!(all[0].request.value("authorization"), Some(&b"Bearer t"[..]));
    assert_eq!(all[1].coverage, Coverage::Gap);
}

#[test]
fn expect_continue_is_followed_whether_the_body_comes_or_not() {
    let mut wire = Wire::new();
    let head = b"PUT /a HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    wire.client(head);
    wire.server(b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.client(b"hello");
    wire.server(OK);
    wire.client(head);
    wire.server(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    wire.client(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    wire.server(OK);
    assert_eq!(wire.lines(), ["PUT /a 200", "PUT /a 401", "GET /next 200"]);
}

#[test]
fn after_an_upgrade_nothing_is_http() {
    for request in
        ["GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"]
    {
        let mut wire = Wire::new();
        wire.client(request.as_bytes());
        wire.server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
        wire.client(b"GET /no HTTP/1.1\r\n\r\n");
        wire.server(OK);
        let lines = wire.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].ends_with("101"));
        assert_eq!(wire.grants.len(), 1, "the rest of the connection need not be captured");
    }
}

#[test]
fn a_refused_upgrade_changes_nothing() {
    let mut wire = Wire::new();
    wire.client(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    wire.server(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    wire.client(b"GET /b HTTP/1.1\r\n\r\n");
    wire.server(OK);
    assert_eq!(wire.lines(), ["GET /ws 401", "GET /b 200"]);
}

#[test]
fn a_tunnel_begins_with_a_2xx_to_connect_only() {
    let mut wire = Wire::new();
    wire.client(b"CONNECT h:443 HTTP/1.1\r\n\r\n");
    wire.server(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
    wire.client(b"CONNECT h:443 HTTP/1.1\r\n\r\n");
    wire.server(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
    wire.client(b"GET /no HTTP/1.1\r\n\r\n");
    wire.server(OK);
    assert_eq!(wire.lines(), ["CONNECT h:443 407", "CONNECT h:443 200"]);
}

#[test]
fn other_protocols_cost_nothing_and_yield_nothing() {
    for first in
        [&b"\x16\x03\x01\x02\x00\x01"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n", b"{}"]
    {
        let mut wire = Wire::new();
        wire.client(first);
        wire.server(b"whatever");
        wire.client(&vec![0x42; 50_000]);
        wire.ack();
        wire.close();
        assert!(wire.lines().is_empty(), "{}", String::from_utf8_lossy(first));
        assert_eq!(wire.flows.held_bytes(), 0);
    }
}

#[test]
fn ambiguous_framing_is_noted_and_still_read() {
    let cases: [(&str, Suspicions); 5] = [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Suspicions::LENGTH_AND_CHUNKED),
        ("Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", Suspicions::DUPLICATE_LENGTH),
        ("Content-Length: +1\r\n\r\n", Suspicions::BAD_LENGTH),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Suspicions::BAD_ENCODING),
        ("Transfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n", Suspicions::BAD_CHUNK),
    ];
    for (rest, expected) in cases {
        let mut wire = Wire::new();
        wire.client(format!("POST /a HTTP/1.1\r\n{rest}").as_bytes());
        wire.server(OK);
        wire.client(b"GET /b HTTP/1.1\r\n\r\n");
        wire.server(OK);
        let all = wire.taken();
        assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), ["POST /a 200", "GET /b 200"], "{rest}");
        assert_eq!(all[0].suspicions, expected, "{rest}");
        assert!(all[1].suspicions.is_empty(), "{rest}");
    }
}

#[test]
fn a_response_to_half_a_head_yields_what_there_is() {
    let mut wire = Wire::new();
    wire.client(b"GET /a HTTP/1.1\r\nAuthorization: Bearer t\r\nX: ");
    wire.server(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n");
    let all = wire.taken();
    assert_eq!(wire::line(&all[0]), "GET /a 408");
    assert_eq!(all[0].coverage, Coverage::Truncated);
    assert_eq!(all[0].request.value("authorization"), Some(&b"Bearer t"[..]));
}

#[test]
fn a_request_without_response_is_told_at_the_end() {
    let mut wire = Wire::new();
    wire.client(b"GET /a HTTP/1.1\r\n\r\nGET /b HTT");
    wire.ack();
    wire.close();
    let all = wire.taken();
    assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), ["GET /a 0", "GET /b 0"]);
    assert!(all.iter().all(|exchange| exchange.coverage == Coverage::Truncated));
}

#[test]
fn a_late_response_is_not_given_to_the_next_request() {
    let mut wire = Wire::new();
    wire.client(b"GET /slow HTTP/1.1\r\n\r\n");
    wire.ack();
    wire.wait(31);
    assert_eq!(wire.lines(), ["GET /slow 0"]);
    wire.client(b"GET /b HTTP/1.1\r\n\r\n");
    wire.ack();
    wire.server(b"HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n");
    wire.server(OK);
    assert_eq!(wire.lines(), ["GET /b 200"]);
}

#[test]
fn beyond_the_queue_requests_stay_unanswered_and_order_holds() {
    let mut wire = Wire::new();
    let requests: String = many(200, |n| format!("GET /{n} HTTP/1.1\r\n\r\n"));
    wire.client(requests.as_bytes());
    wire.ack();
    let none = b"HTTP/1.1 204 No\r\n\r\n".repeat(200);
    wire.server(&none);
    wire.client(b"GET /after HTTP/1.1\r\n\r\n");
    wire.server(OK);
    let lines = wire.lines();
    assert_eq!(lines.len(), 201);
    assert_eq!(lines.iter().filter(|line| line.ends_with(" 0")).count(), 72);
    assert_eq!(lines.last().unwrap(), "GET /after 200");
}

#[test]
fn a_live_response_is_known_by_its_start() {
    let mut wire = Wire::new();
    wire.in_order = true;
    let big = [b"HTTP/1.1 200 OK\r\nX: y\r\n".as_slice(), &[b'z'; 4000]].concat();
    for n in 0..3 {
        wire.client(format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes());
        wire.server_cut(&big, 512);
        wire.lose(Side::Response, 100_000);
    }
    assert_eq!(wire.lines(), ["GET /0 200", "GET /1 200", "GET /2 200"]);
}

#[test]
fn a_lost_response_leaves_only_its_own_request_unanswered() {
    let mut wire = Wire::new();
    wire.in_order = true;
    for n in 0..4 {
        wire.client(format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes());
        if n == 1 {
            wire.lose(Side::Response, OK.len());
        } else {
            wire.server(OK);
        }
    }
    let mut lines = wire.lines();
    lines.sort();
    assert_eq!(lines, ["GET /0 200", "GET /1 0", "GET /2 200", "GET /3 200"]);
}

#[test]
fn a_lost_request_does_not_shift_the_responses() {
    let mut wire = Wire::new();
    wire.in_order = true;
    let statuses = [200, 201, 202, 203];
    for (n, status) in statuses.iter().enumerate() {
        let request = format!("GET /{n} HTTP/1.1\r\n\r\n");
        if n == 1 {
            wire.lose(Side::Request, request.len());
        } else {
            wire.client(request.as_bytes());
        }
        wire.server(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }
    let all = wire.taken();
    assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), ["GET /0 200", "GET /2 202", "GET /3 203"]);
    assert_eq!(all[1].coverage, Coverage::Gap);
    assert_eq!(all[2].coverage, Coverage::Whole);
}

#[test]
fn a_pipelined_loss_attributes_nothing() {
    let mut wire = Wire::new();
    wire.in_order = true;
    wire.client(b"GET /0 HTTP/1.1\r\n\r\nGET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    wire.ack();
    wire.lose(Side::Response, OK.len());
    wire.server(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    wire.server(OK);
    wire.client(b"GET /3 HTTP/1.1\r\n\r\n");
    wire.server(OK);
    assert!(wire.lines().iter().all(|line| line.ends_with(" 0")));
    wire.wait(40);
    wire.client(b"GET /4 HTTP/1.1\r\n\r\n");
    wire.server(OK);
    assert_eq!(wire.lines(), ["GET /4 200"]);
}

#[test]
fn a_hole_inside_a_known_body_costs_nothing() {
    let mut wire = Wire::new();
    wire.client(b"POST /a HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc");
    wire.ack();
    assert_eq!(wire.grants.len(), 1);
    assert_eq!(wire.grants[0].skip_until, wire.client_seq.wrapping_add(99_997));
    wire.lose(Side::Request, 99_997);
    wire.client(b"GET /b HTTP/1.1\r\n\r\n");
    wire.server(&[OK, OK].concat());
    let all = wire.taken();
    assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), ["POST /a 200", "GET /b 200"]);
    assert!(all.iter().all(|exchange| exchange.coverage == Coverage::Whole));
}

#[test]
fn a_hole_inside_a_head_is_told_and_reading_goes_on_with_the_next() {
    let mut wire = Wire::new();
    wire.client(b"GET /a HTTP/1.1\r\nX: y\r\nAuthor");
    wire.lose(Side::Request, 30);
    wire.client(b"tail\r\n\r\n");
    wire.server(OK);
    wire.client(b"GET /b HTTP/1.1\r\n\r\n");
    wire.server(OK);
    let all = wire.taken();
    assert_eq!(all.iter().map(wire::line).collect::<Vec<_>>(), ["GET /a 200", "GET /b 200"]);
    assert_eq!(all[0].coverage, Coverage::Gap);
    assert_eq!(all[1].coverage, Coverage::Gap);
}

#[test]
fn a_connection_joined_midway_is_read_from_its_next_request() {
    let mut wire = Wire::new();
    wire.server(b"the tail of some response");
    wire.client(b"and of a body");
    wire.server(OK);
    wire.client(b"GET /a HTTP/1.1\r\n\r\n");
    wire.server(OK);
    assert_eq!(wire.lines(), ["GET /a 200"]);
}

#[test]
fn conflicting_copies_are_a_suspicion() {
    let mut wire = Wire::new();
    let first = wire.segment(Side::Request, wire.client_seq, b"GET /a HTTP/1.1\r\n\r\n");
    let second = wire.segment(Side::Request, wire.client_seq, b"GET /b HTTP/1.1\r\n\r\n");
    wire.frame(Event::Segment(first));
    wire.frame(Event::Segment(second));
    wire.lose(Side::Request, 19);
    wire.server(OK);
    let all = wire.taken();
    assert_eq!(wire::line(&all[0]), "GET /a 200");
    assert_eq!(all[0].suspicions, Suspicions::CONFLICTING_SEGMENTS);
}

#[test]
fn a_decoy_that_the_server_refused_is_replaced() {
    let mut wire = Wire::new();
    let accepted = Some(wire.client_seq);
    let decoy = wire.segment(Side::Request, wire.client_seq, b"GET /decoy HTTP/1.1\r\n\r\n");
    let real = wire.segment(Side::Request, wire.client_seq, b"GET /real! HTTP/1.1\r\n\r\n");
    wire.frame(Event::Segment(Segment { rcv_nxt: accepted, ..decoy }));
    wire.frame(Event::Segment(Segment { rcv_nxt: accepted, ..real }));
    wire.lose(Side::Request, 23);
    wire.server(OK);
    let all = wire.taken();
    assert_eq!(wire::line(&all[0]), "GET /real! 200");
    assert_eq!(all[0].suspicions, Suspicions::CONFLICTING_SEGMENTS);
}

#[test]
fn a_flood_of_unfinished_heads_stays_bounded_and_spares_the_proven() {
    let limits = FlowLimits { max_buffered_total: 1 << 20, ..FlowLimits::default() };
    let mut wire = Wire::with(limits, HttpLimits::default());
    let victim = wire.socket;
    wire.client(b"GET /a HTTP/1.1\r\n\r\n");
    wire.server(OK);
    wire.client(b"GET /b HTTP/1.1\r\nX: y");
    wire.ack();
    let (client_seq, server_seq) = (wire.client_seq, wire.server_seq);
    let head = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'y'; 10_000]].concat();
    for n in 2..2000 {
        wire.socket = SocketId(n);
        wire.client(&head);
        wire.ack();
        assert!(wire.flows.held_bytes() <= 1 << 20);
    }
    assert!(wire.flows.counters().evicted_bytes > 1000);
    wire.taken();
    (wire.socket, wire.client_seq, wire.server_seq) = (victim, client_seq, server_seq);
    wire.client(b"\r\n\r\n");
    wire.server(OK);
    assert_eq!(wire.lines(), ["GET /b 200"]);
}

#[test]
fn an_upload_may_be_silent_for_longer_than_a_response() {
    let mut wire = Wire::new();
    wire.client(b"PUT /big HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n");
    wire.ack();
    wire.wait(100);
    assert!(wire.lines().is_empty());
    wire.lose(Side::Request, 100_000_000);
    wire.server(OK);
    assert_eq!(wire.lines(), ["PUT /big 200"]);
}
