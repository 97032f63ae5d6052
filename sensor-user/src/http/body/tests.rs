//! Bodies as whole connections send them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::capture::{Endpoints, Event, Frame, Origin, Segment, Side, SocketId, Time};
use crate::http::{Connection, Exchanges, HttpLimits};
use crate::reassembly::{FlowLimits, Flows};

/// What one request with this body says, sent in pieces of this length.
fn facts_in(head: &str, body: &[u8], piece: usize, limits: &HttpLimits) -> (Option<BodyFacts>, [u64; 4]) {
    let mut flows = Flows::<Connection>::new(FlowLimits::default());
    let mut exchanges = Exchanges::new(limits.clone());
    let (mut client, mut server) = (1_u32, 1_u32);
    let mut at = Time::from_secs(1);
    let mut push = |side: Side, payload: &[u8], exchanges: &mut Exchanges| {
        at = at.plus(Duration::from_millis(1));
        let (seq, ack) = if side == Side::Request { (client, server) } else { (server, client) };
        let wire_len = u32::try_from(payload.len()).unwrap();
        let next = if side == Side::Request { &mut client } else { &mut server };
        *next += wire_len;
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let segment = Segment {
            side,
            seq,
            ack: Some(ack),
            rcv_nxt: None,
            wire_len,
            payload,
            whole: false,
            in_order: false,
            fin: false,
            rst: false,
        };
        let event = if wire_len == 0 { Event::Open { first_seq: 1 } } else { Event::Segment(segment) };
        let frame = Frame {
            at,
            socket: SocketId(1),
            endpoints: Endpoints { client: nowhere, server: nowhere },
            origin: Origin::default(),
            event,
        };
        flows.push(&frame, exchanges, &mut Vec::new());
    };
    push(Side::Request, b"", &mut exchanges);
    let bytes = [head.as_bytes(), body].concat();
    for piece in bytes.chunks(piece) {
        push(Side::Request, piece, &mut exchanges);
    }
    push(Side::Response, b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n", &mut exchanges);
    let c = *exchanges.counters();
    let counts = [c.bodies_read, c.bodies_cut, c.bodies_ambiguous, c.bodies_unreadable];
    (exchanges.take().unwrap().body.map(|body| *body), counts)
}

fn post(path: &str, more: &str, body: &[u8]) -> Option<BodyFacts> {
    let head = format!("POST {path} HTTP/1.1\r\n{more}Content-Length: {}\r\n\r\n", body.len());
    facts_in(&head, body, 1000, &HttpLimits::default()).0
}

fn account(body: &str) -> Option<String> {
    post("/login", "", body.as_bytes())?.account.map(String::from)
}

#[test]
fn finds_the_account_in_json() {
    for (body, found) in [
        (r#"{"username":"alice","password":"secret"}"#, Some("alice")),
        (r#"{"password":"secret","user":{"email":"a@b.example","password":"x"}}"#, Some("a@b.example")),
        (r#"{"email":"e","User_Name":"u","device":{"user":"d"}}"#, Some("u")),
        (r#"{"client_id":"app","login":"bob"}"#, Some("bob")),
        (r#"{"client_id":"app"}"#, Some("app")),
        (r#"{"userId":4711}"#, Some("4711")),
        ("{\"user\":\" \\u0041\\u202e\u{e9} \"}", Some("A\u{fffd}\u{e9}")),
        (r#"{"username":["x"],"password":"p"}"#, None),
        (r#"{"username":null,"email":""}"#, None),
        (r#"{"username":"ali"#, None),
        ("", None),
        ("\u{feff}{\"username\":\"alice\"}", Some("alice")),
    ] {
        assert_eq!(account(body).as_deref(), found, "{body}");
    }
}

#[test]
fn finds_the_account_in_forms_whatever_the_type_says() {
    assert_eq!(account("password=x&username=a%40b+c").as_deref(), Some("a@b c"));
    assert_eq!(account("user%5Bemail%5D=a&user%5Bpassword%5D=x").as_deref(), Some("a"));
    let form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n";
    assert_eq!(post("/login", form, b"{=&username=u").unwrap().account.as_deref(), Some("u"));
    let plain = "Content-Type: text/plain\r\n";
    assert_eq!(post("/login", plain, br#"{"username":"u"}"#).unwrap().account.as_deref(), Some("u"));
}

#[test]
fn the_user_of_http_basic_logs_in_unless_the_body_says_otherwise() {
    // alice:secret
    let basic = "Authorization: basic  YWxpY2U6c2VjcmV0\r\n";
    assert_eq!(post("/login", basic, b"").unwrap().account.as_deref(), Some("alice"));
    assert_eq!(
        post("/oauth/token", basic, b"grant_type=password&username=bob").unwrap().account.as_deref(),
        Some("bob")
    );
    let long = LENIENT.encode(format!("{}:secret", "a".repeat(100_000)));
    assert_eq!(post("/login", &format!("Authorization: Basic {}\r\n", &long[..40_000]), b""), None);
    for broken in ["YWxpY2U", "YWxpY2U=", "%%%%", "", "YWxpY2U6c2VjcmV0"] {
        let found = post("/login", &format!("Authorization: Basic {broken}\r\n"), b"");
        assert_eq!(found.is_some(), broken.len() == 16, "{broken}");
    }
}

#[test]
fn two_accounts_are_ambiguous_and_the_last_counts() {
    let facts = post("/login", "", br#"{"username":"a","username":"b"}"#).unwrap();
    assert_eq!((facts.account.as_deref(), facts.ambiguous), (Some("b"), true));
    let facts = post("/login", "", br#"{"username":"a","Username":"a"}"#).unwrap();
    assert!(!facts.ambiguous);
    let facts = post("/login", "", b"username=a&username=b").unwrap();
    assert_eq!((facts.account.as_deref(), facts.ambiguous), (Some("b"), true));
}

#[test]
fn refresh_tokens_are_known_by_a_keyed_hash() {
    let hash = |path, body: &[u8]| post(path, "", body).and_then(|facts| facts.refresh_token);
    let form = hash("/oauth/token", b"grant_type=refresh_token&refresh_token=ab%2Bc");
    assert!(form.is_some());
    assert_eq!(form, hash("/token/refresh", br#"{"refreshToken":"ab\u002bc"}"#));
    assert_ne!(form, hash("/oauth/token", b"refresh_token=abc"));
    assert_eq!(hash("/login", b"refresh_token=abc"), None);
    let limits = HttpLimits { bodies: Bodies::new([], [], BodyKey::new([7; 32])), ..HttpLimits::default() };
    let head = "POST /oauth/token HTTP/1.1\r\nContent-Length: 21\r\n\r\n";
    let other = facts_in(head, b"refresh_token=ab%2Bc&", 1000, &limits).0.unwrap();
    assert_ne!(other.refresh_token, form);
    assert!(!format!("{limits:?}").contains("[7"));
}

#[test]
fn other_routes_methods_and_encodings_are_not_read() {
    let body = br#"{"username":"alice"}"#;
    assert_eq!(post("/orders", "", body), None);
    assert_eq!(post("/login", "Content-Encoding: gzip\r\n", body), None);
    assert_eq!(post("/login", "Content-Type: multipart/form-data; boundary=x\r\n", body), None);
    assert!(post("/login", "Content-Encoding: identity\r\n", body).is_some());
    let put = format!("PUT /login HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(facts_in(&put, body, 100, &HttpLimits::default()), (None, [0; 4]));
    let gzip =
        format!("POST /login HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(facts_in(&gzip, body, 100, &HttpLimits::default()), (None, [0, 0, 0, 1]));
}

#[test]
fn configuration_says_where_accounts_are() {
    let source = |source| (Some("POST"), "/enter", BodyUse::Account(source));
    let ask = |from: AccountSource, more: &str, body: &str| {
        let bodies = Bodies::new([source(from)], [], BodyKey::default());
        let limits = HttpLimits { bodies, ..HttpLimits::default() };
        let head = format!("POST /enter?u=q%41 HTTP/1.1\r\n{more}Content-Length: {}\r\n\r\n", body.len());
        facts_in(&head, body.as_bytes(), 1000, &limits).0.and_then(|facts| facts.account).map(String::from)
    };
    let body = r#"{"username":"no","who":{"name":"deep"},"name":"flat"}"#;
    assert_eq!(ask(AccountSource::Body("name".into()), "", body).as_deref(), Some("flat"));
    assert_eq!(ask(AccountSource::Body("who.name".into()), "", body).as_deref(), Some("deep"));
    assert_eq!(ask(AccountSource::Body("none".into()), "", body), None);
    assert_eq!(ask(AccountSource::Query("u".into()), "", body).as_deref(), Some("qA"));
    assert_eq!(ask(AccountSource::Header("x-user".into()), "X-User: h\r\n", body).as_deref(), Some("h"));
    let ignored = Bodies::new([(None, "/login", BodyUse::Ignored)], [], BodyKey::default());
    let head = "POST /login HTTP/1.1\r\nContent-Length: 53\r\n\r\n";
    let limits = HttpLimits { bodies: ignored, ..HttpLimits::default() };
    assert_eq!(facts_in(head, body.as_bytes(), 1000, &limits).0, None);
}

#[test]
fn graphql_is_read_where_it_is_served() {
    let body = br#"{"query":"query Orders { orders { id } }"}"#;
    let operation = |path, more: &str, body: &[u8]| post(path, more, body).and_then(|f| f.operation);
    assert_eq!(operation("/api/graphql", "", body).as_deref(), Some("query Orders"));
    assert_eq!(operation("/query", "", body), None);
    let typed = "Content-Type: application/graphql\r\n";
    assert_eq!(operation("/query", typed, b"mutation { pay }").as_deref(), Some("mutation"));
    let typed = "Content-Type: application/graphql+json\r\n";
    assert_eq!(operation("/query", typed, body).as_deref(), Some("query Orders"));
}

#[test]
fn absurd_bodies_are_read_to_the_limit() {
    let head = |len: usize| format!("POST /login HTTP/1.1\r\nContent-Length: {len}\r\n\r\n");
    let huge = format!(r#"{{"username":"{}","password":"x"}}"#, "a".repeat(1 << 20));
    let (facts, counts) = facts_in(&head(huge.len()), huge.as_bytes(), 1400, &HttpLimits::default());
    assert_eq!((facts, counts), (None, [1, 1, 0, 0]));
    let padded = format!(r#"{{"username":"alice","padding":"{}"}}"#, "a".repeat(1 << 20));
    let (facts, counts) = facts_in(&head(padded.len()), padded.as_bytes(), 1400, &HttpLimits::default());
    assert_eq!((facts.unwrap().account.as_deref(), counts), (Some("alice"), [1, 1, 0, 0]));
    let long = format!(r#"{{"username":"{}"}}"#, "\u{e9}".repeat(1000));
    assert_eq!(account(&long).unwrap().len(), MAX_ACCOUNT);
    assert_eq!(account(&"[".repeat(8000)), None);
    assert_eq!(
        post("/login", "", b"{\"username\":\"a\xff\xfe\"}").unwrap().account.as_deref(),
        Some("a\u{fffd}\u{fffd}")
    );
}

fn operation_of(head: &str, body: &[u8], limits: &HttpLimits) -> Option<String> {
    facts_in(head, body, 1000, limits).0?.operation.map(String::from)
}

#[test]
fn graphql_comes_by_get_too() {
    let usual = HttpLimits::default();
    let got = |target: &str| operation_of(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), b"", &usual);
    for target in [
        "/graphql?query=query+Orders%7Ba%7D",
        "/api/GraphQL/?query=query+Orders%7Ba%7D",
        "/graphql;v=1?query=query+Orders%7Ba%7D",
        "http://h/graphql?operationName=Orders&query=query+Orders%7Ba%7D",
    ] {
        assert_eq!(got(target).as_deref(), Some("query Orders"), "{target}");
    }
    for target in ["/graphql", "/graphql?", "/search?query=query+Orders%7Ba%7D", "/graphql/x?query={a}"] {
        assert_eq!(got(target), None, "{target}");
    }
    let own = HttpLimits { bodies: Bodies::new([], ["/q/*"], BodyKey::default()), ..HttpLimits::default() };
    let head = "GET /q/shop?query={a} HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(operation_of(head, b"", &own).as_deref(), Some("query"));
    let head = "DELETE /graphql?query={a} HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(operation_of(head, b"", &usual), None);
}

#[test]
fn the_body_of_a_post_counts_before_its_url() {
    let limits = HttpLimits::default();
    let body = br#"{"query":"mutation Pay { pay }"}"#;
    let head = |length: usize| {
        format!("POST /graphql?query=query+A%7Ba%7D HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
    };
    assert_eq!(operation_of(&head(body.len()), body, &limits).as_deref(), Some("mutation Pay"));
    assert_eq!(operation_of(&head(0), b"", &limits).as_deref(), Some("query A"));
    assert_eq!(operation_of(&head(2), b"{}", &limits).as_deref(), Some("query A"));
}

#[test]
fn an_answer_ends_the_reading() {
    let head = "POST /login HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
    let (facts, counts) = facts_in(head, br#"{"username":"alice","pass"#, 7, &HttpLimits::default());
    assert_eq!((facts.unwrap().account.as_deref(), counts), (Some("alice"), [1, 1, 0, 0]));
}

/// Bodies that reach deep, and what surrounds them.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(r#"{"username":"alice","user":{"email":"e"},"refresh_token":"r"}"#.to_owned()),
        Just("username=a&email=b&refresh_token=%41".to_owned()),
        "[{}\\[\\]\",:=&%a-e0\\\\ ]{0,30}",
        Just(r#""username":"x\u00e9","#.to_owned()),
    ];
    proptest::collection::vec(part, 0..4).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn cuts_do_not_matter(body in bodies(), piece in 1_usize..40, chunk in 1_usize..20, path in prop::sample::select(vec!["/login", "/oauth/token", "/graphql"])) {
        let limits = HttpLimits::default();
        let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        let whole = facts_in(&head, &body, usize::MAX, &limits);
        prop_assert_eq!(&facts_in(&head, &body, piece, &limits), &whole);
        let mut chunked = Vec::new();
        for data in body.chunks(chunk) {
            chunked.extend(format!("{:x}\r\n", data.len()).bytes());
            chunked.extend(data);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        let head = format!("POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        prop_assert_eq!(facts_in(&head, &chunked, piece, &limits).0, whole.0);
    }

    #[test]
    fn any_body_is_survived(body in proptest::collection::vec(any::<u8>(), 0..9000)) {
        post("/oauth/token", "", &body);
    }
}
