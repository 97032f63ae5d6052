//! Answers of login and token routes, read for the tokens that they issue: whole connections, however they are cut.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

mod wire;

use proptest::prelude::*;
use sensor_user::capture::Side;
use sensor_user::http::{Bodies, BodyKey, Exchange, HttpLimits, Issued};
use sensor_user::reassembly::FlowLimits;
use wire::{Wire, line};

const ASK: &[u8] =
    b"POST /oauth/token HTTP/1.1\r\nContent-Length: 32\r\n\r\nrefresh_token=r1&client_id=shop1";
const GET: &[u8] = b"GET /orders HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BODY: &str =
    r#"{"access_token":"a.b.c","token_type":"Bearer","expires_in":900,"refresh_token":"r2","scope":"x"}"#;

fn limits() -> HttpLimits {
    let names = ["access_token", "refresh_token", "id_token", "token"];
    let bodies = Bodies::new([], [], BodyKey::default()).with_issued(names);
    HttpLimits { bodies, ..HttpLimits::default() }
}

fn wire() -> Wire {
    let mut wire = Wire::with(FlowLimits::default(), limits());
    wire.open();
    wire
}

fn answer(more: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The texts of the tokens that an exchange issued.
fn texts(exchange: &Exchange) -> Vec<String> {
    let of =
        |issued: &Issued| issued.tokens.iter().map(|t| String::from_utf8(t.0.to_vec()).unwrap()).collect();
    exchange.issued().map(of).unwrap_or_default()
}

/// What the answer to a token request issues.
fn issued(answer: &[u8]) -> Option<Issued> {
    let mut wire = wire();
    wire.client(ASK);
    wire.server(answer);
    wire.client(GET);
    wire.server(OK);
    let all = wire.taken();
    assert_eq!(all.len(), 2);
    all[0].issued().cloned()
}

#[test]
fn a_token_response_is_read_and_completes_its_exchange() {
    let mut wire = wire();
    wire.client(ASK);
    let reply = answer("Content-Type: application/json; charset=utf-8\r\n", BODY);
    let (first, last) = reply.split_at(reply.len() - 5);
    wire.server(first);
    wire.client(b"");
    assert_eq!(wire.lines(), [""; 0], "it waits for the rest");
    let head_at = wire.now;
    wire.server(last);
    wire.client(b"");
    let all = wire.taken();
    assert_eq!((all.len(), line(&all[0]).as_str()), (1, "POST /oauth/token 200"));
    assert_eq!(texts(&all[0]), ["a.b.c"]);
    let found = all[0].issued().unwrap();
    assert_eq!(found.expires_in_s, Some(900));
    let given = all[0].body.as_ref().unwrap().refresh_token;
    assert!(found.refresh_token.is_some() && found.refresh_token != given);
    assert!(all[0].ended_at <= head_at, "the time of an exchange is its head's");
    assert!(!format!("{:?}", all[0]).contains("a.b.c"), "never printed");
    assert_eq!(wire.exchanges.counters().answers_issuing, 1);
}

#[test]
fn the_refresh_token_has_the_same_name_in_requests_and_answers() {
    let same = answer("", r#"{"accessToken":"t","RefreshToken":"r1"}"#);
    let mut wire = wire();
    wire.client(ASK);
    wire.server(&same);
    wire.client(GET);
    let all = wire.taken();
    assert_eq!(all[0].body.as_ref().unwrap().refresh_token, all[0].issued().unwrap().refresh_token);
    assert_eq!(texts(&all[0]), ["t"]);
}

#[test]
fn only_json_that_is_not_encoded_and_accepted_is_read() {
    assert!(issued(&answer("", BODY)).is_some());
    assert!(issued(&answer("Content-Type: text/plain\r\nContent-Encoding: identity\r\n", BODY)).is_some());
    for more in ["Content-Encoding: gzip\r\n", "Content-Type: text/html\r\n"] {
        assert_eq!(issued(&answer(more, BODY)), None, "{more}");
    }
    let refused = String::from_utf8(answer("", BODY)).unwrap().replace("200 OK", "400 Bad Request");
    assert_eq!(issued(refused.as_bytes()), None);
    for body in ["", "{}", "[]", "null", r#""a.b.c""#, r#"[{"access_token":"a"}]"#, "access_token=a"] {
        assert_eq!(issued(&answer("", body)), None, "{body}");
    }
    for body in [
        r#"{"token":""}"#,
        r#"{"token":"two words"}"#,
        r#"{"token":7}"#,
        r#"{"token":["a"]}"#,
        r#"{"token":"cu"#,
    ] {
        assert_eq!(issued(&answer("", body)), None, "{body}");
    }
}

#[test]
fn members_of_an_inner_object_count_and_tokens_are_bounded() {
    let found = issued(&answer("", r#"{"ok":true,"data":{"token":"t1","id-token":"t2"}}"#)).unwrap();
    assert_eq!(found.tokens.len(), 2);
    let many: Vec<String> = (0..50).map(|n| format!(r#""d{n}":{{"token":"t{n}"}}"#)).collect();
    assert_eq!(issued(&answer("", &format!("{{{}}}", many.join(",")))).unwrap().tokens.len(), 4);
    let absurd = r#"{"token":"t","expires_in":99999999999}"#;
    assert_eq!(issued(&answer("", absurd)).unwrap().expires_in_s, None);
}

#[test]
fn nothing_is_read_unless_it_is_asked_for_and_elsewhere() {
    let mut plain = Wire::new();
    plain.open();
    plain.client(ASK);
    plain.server(&answer("", BODY)[..60]);
    plain.client(b"");
    assert_eq!(plain.lines(), ["POST /oauth/token 200"], "it waits for nothing");
    let mut other = wire();
    for head in ["GET /oauth/token", "PUT /login", "POST /orders"] {
        other.client(format!("{head} HTTP/1.1\r\n\r\n").as_bytes());
        other.server(&answer("", BODY));
    }
    other.client(b"");
    assert!(other.taken().iter().all(|exchange| exchange.issued().is_none()));
    assert_eq!(other.exchanges.counters().answers_read, 0);
}

#[test]
fn chunked_answers_and_those_without_length_are_read() {
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        30,
        &BODY[..30],
        BODY.len() - 30,
        &BODY[30..]
    );
    assert_eq!(issued(chunked.as_bytes()).unwrap().tokens.len(), 1);
    let mut wire = wire();
    wire.client(ASK);
    wire.server(format!("HTTP/1.1 200 OK\r\n\r\n{BODY}").as_bytes());
    wire.close();
    assert_eq!(texts(&wire.taken()[0]), ["a.b.c"]);
}

#[test]
fn an_answer_that_never_ends_is_given_up() {
    let mut wire = wire();
    wire.client(ASK);
    wire.server(&answer("", BODY)[..90]);
    wire.client(b"");
    assert_eq!(wire.taken().len(), 0);
    wire.wait(31);
    assert_eq!(wire.lines(), ["POST /oauth/token 200"]);
    let counters = *wire.exchanges.counters();
    assert_eq!((counters.answers_read, counters.answers_cut), (1, 1));
}

#[test]
fn what_the_kernel_half_left_out_ends_the_reading() {
    let mut wire = wire();
    wire.in_order = true;
    wire.client(ASK);
    let long = BODY.replace("\"x\"", &format!("\"{}\"", "x".repeat(2000)));
    wire.server_cut(&answer("", &long), 512);
    let all = wire.taken();
    assert_eq!(texts(&all[0]), ["a.b.c"], "whole tokens before the gap count");
    wire.client(GET);
    wire.server(OK);
    assert_eq!(wire.lines(), ["GET /orders 200"]);
    assert_eq!(wire.exchanges.counters().answers_cut, 1);
}

#[test]
fn long_answers_are_not_waited_for() {
    let mut wire = wire();
    wire.in_order = true;
    wire.client(ASK);
    wire.server_cut(&answer("", &format!("{{\"a\":\"{}\"}}", "x".repeat(10_000))), 512);
    assert_eq!(wire.lines(), ["POST /oauth/token 200"]);
    assert_eq!(wire.exchanges.counters().answers_read, 0);
    wire.client(ASK);
    let chunk = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\n{{\"a\":\"{}",
        "x".repeat(9000)
    );
    wire.server(chunk.as_bytes());
    assert_eq!(wire.lines(), ["POST /oauth/token 200"], "no more than 8 KiB");
}

#[test]
fn pipelined_logins_get_their_own_tokens() {
    let mut wire = wire();
    wire.client(&[ASK, ASK, GET, ASK].concat());
    let one = |text: &str| answer("", &format!(r#"{{"token":"{text}"}}"#));
    wire.server(&[one("t1"), one("t2"), OK.to_vec(), one("t3")].concat());
    wire.client(b"");
    let found: Vec<Vec<String>> = wire.taken().iter().map(texts).collect();
    assert_eq!(found, [vec!["t1".to_owned()], vec!["t2".to_owned()], vec![], vec!["t3".to_owned()]]);
}

#[test]
fn a_connection_that_is_lost_gives_what_it_held() {
    let mut wire = wire();
    wire.client(ASK);
    wire.server(&answer("", BODY)[..90]);
    wire.close();
    assert_eq!(wire.lines(), ["POST /oauth/token 200"]);
}

/// Answers, good and bad.
fn bodies() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(BODY.to_owned()),
        "[{}\\[\\]\",:=&%a-e0\\\\ ]{0,60}",
        "[{]\"token\":\"[a-z\\\\\"u0]{0,20}\"[}]",
        (0..9000_usize).prop_map(|n| format!(r#"{{"token":"{}"}}"#, "x".repeat(n))),
    ]
}

proptest! {
    #[test]
    fn cuts_do_not_matter(body in bodies(), piece in 1_usize..600, chunk in 1_usize..700) {
        let whole = issued(&answer("", &body));
        let mut cut = wire();
        cut.client(ASK);
        for part in answer("", &body).chunks(piece) {
            cut.server(part);
        }
        cut.client(GET);
        cut.server(OK);
        let all = cut.taken();
        prop_assert_eq!(all.len(), 2);
        prop_assert_eq!(all[0].issued(), whole.as_ref());
        let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for data in body.as_bytes().chunks(chunk) {
            chunked.extend(format!("{:x}\r\n", data.len()).bytes());
            chunked.extend(data);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        if body.len() < 8000 {
            prop_assert_eq!(issued(&chunked), whole);
        }
    }

    #[test]
    fn losses_lose_no_exchange(at in 0_usize..160, lost in 1_usize..400) {
        let mut wire = wire();
        wire.in_order = true;
        wire.client(ASK);
        let reply = answer("", BODY);
        let at = at.clamp(40, reply.len() - 1);
        wire.server(&reply[..at]);
        wire.lose(Side::Response, lost.min(reply.len() - at));
        wire.server(&reply[(at + lost).min(reply.len())..]);
        wire.client(GET);
        wire.server(OK);
        wire.close();
        let all = wire.lines();
        prop_assert_eq!(all.len(), 2);
        prop_assert_eq!(&all[0], "POST /oauth/token 200");
    }
}
