//! The sink of NATS against a real server, and against servers that lie.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

mod brokers;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brokers::operator::Signer;
use brokers::{
    Liar, SOCKETS, Server, Then, assert_done, authority, deliver, deliver_at_last, deliver_within, events,
    free_port, here, id, node, reason, secret, with_message,
};
use sensor_user::sink::client::TlsSettings;
use sensor_user::sink::nats::{Auth, Settings, Subject, open};
use sensor_user::sink::wire::Place;
use sensor_user::sink::{Outcome, Sink};
use serde_json::{Value, json};

/// A pair of keys that the documentation of NATS publishes.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

fn server(dir: &Path, more: &str) -> Server {
    let port = free_port();
    let store = dir.join("store").display().to_string();
    let config = format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{store}\" }}\n{more}\n");
    std::fs::write(dir.join("nats.conf"), config).unwrap();
    Server::start(dir, port, "nats-server", &["nats-server", "-c", "nats.conf"])
}

fn settings(port: u16) -> Settings {
    Settings {
        servers: vec![here(port)],
        encrypted: false,
        tls: TlsSettings::default(),
        auth: Auth::None,
        subject: Subject::parse("tokenscope.alerts.{severity}.{rule}").unwrap(),
        jetstream: true,
        inbox: "_INBOX".into(),
    }
}

fn sink(settings: &Settings) -> Box<dyn Sink> {
    open(settings, &node()).unwrap()
}

/// A client as simple as can be.
struct Client(BufReader<TcpStream>);

impl Client {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self(BufReader::new(stream));
        client.line();
        client.say("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n");
        client
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next message: its subject, and headers and body as one.
    fn message(&mut self) -> (String, String) {
        loop {
            let line = self.line();
            assert!(!line.starts_with("-ERR") && !line.is_empty(), "{line}");
            if line.starts_with("MSG ") || line.starts_with("HMSG ") {
                let words: Vec<&str> = line.split(' ').collect();
                let mut body = vec![0; words.last().unwrap().parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut body).unwrap();
                return (words[1].to_owned(), String::from_utf8(body).unwrap());
            }
        }
    }
}

/// Asks JetStream.
fn ask(port: u16, what: &str, body: &Value) -> Value {
    let mut client = Client::open(port);
    let body = body.to_string();
    client.say(&format!("SUB answer 1\r\nPUB $JS.API.{what} answer {}\r\n{body}\r\n", body.len()));
    let (_, answer) = client.message();
    let start = answer.find('{').unwrap_or_default();
    let answer: Value = serde_json::from_str(answer[start..].trim()).unwrap();
    assert!(answer.get("error").is_none(), "{what}: {answer}");
    answer
}

fn add_stream(port: u16, more: &Value) {
    let mut stream = json!({
        "name": "TOKENSCOPE", "subjects": ["tokenscope.>"], "storage": "file", "retention": "limits",
        "num_replicas": 1, "discard": "new", "max_msgs": -1, "max_bytes": -1,
    });
    stream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(port, "STREAM.CREATE.TOKENSCOPE", &stream);
}

/// The events in the stream, in its order: subject, headers, body.
fn stored(port: u16) -> Vec<(String, String, Value)> {
    let info = ask(port, "STREAM.INFO.TOKENSCOPE", &json!({}));
    let last = info["state"]["last_seq"].as_u64().unwrap();
    let decode =
        |value: &Value| String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap();
    let get = |seq: u64| {
        let message = ask(port, "STREAM.MSG.GET.TOKENSCOPE", &json!({"seq": seq}))["message"].clone();
        let body = serde_json::from_str(&decode(&message["data"])).unwrap();
        (message["subject"].as_str().unwrap().to_owned(), decode(&message["hdrs"]), body)
    };
    (1..=last).map(get).collect()
}

fn ids(port: u16) -> Vec<String> {
    stored(port).iter().map(|(_, _, body)| body["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn each_event_is_stored_once_under_its_subject() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), "");
    let mut first = sink(&settings(server.port));
    let why = reason(deliver(&mut first, &events(1..=3)).await);
    assert!(why.contains("nats stream add TOKENSCOPE --subjects 'tokenscope.alerts.>'"), "{why}");
    add_stream(server.port, &json!({}));
    assert_done(&deliver(&mut first, &events(1..=100)).await);
    let all = stored(server.port);
    assert_eq!(all[0].0, "tokenscope.alerts.high.alg-none");
    let headers = format!(
        "NATS/1.0\r\nNats-Msg-Id: {}\r\nTokenscope-Severity: high\r\nTokenscope-Rule: alg-none\r\n\
         Tokenscope-Node: node-1\r\nTokenscope-Sequence: 1\r\nTokenscope-Schema: ocsf/1.8.0\r\n\r\n",
        id(1)
    );
    assert_eq!(all[0].1, headers);
    assert_eq!(all[0].2, *brokers::told(1).value());
    // The same again, by the same sink and by one that remembers nothing.
    assert_done(&deliver(&mut first, &events(50..=110)).await);
    assert_done(&deliver(&mut sink(&settings(server.port)), &events(1..=110)).await);
    assert_eq!(ids(server.port), (1..=110).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "current_thread")]
async fn a_crash_of_the_server_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), "");
    add_stream(server.port, &json!({}));
    let mut sink = sink(&settings(server.port));
    assert_done(&deliver(&mut sink, &events(1..=50)).await);
    server.kill();
    let why = reason(deliver(&mut sink, &events(40..=90)).await);
    assert!(why.contains("cannot connect"), "{why}");
    server.start_again();
    deliver_at_last(&mut sink, &events(40..=90)).await;
    assert_eq!(ids(server.port), (1..=90).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_too_large_is_refused_and_the_rest_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), "max_payload: 8192");
    add_stream(server.port, &json!({"max_msg_size": 4000}));
    let mut sink = sink(&settings(server.port));
    let batch = [
        brokers::told(1),
        with_message(2, &"x".repeat(5000)),
        brokers::told(3),
        with_message(4, &"x".repeat(9000)),
    ];
    let Outcome::Done { refused, .. } = deliver(&mut sink, &batch).await else { panic!("not taken") };
    assert_eq!(refused.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [1, 3]);
    assert!(refused[1].reason.as_str().contains("takes 8192"), "{refused:?}");
    assert_eq!(ids(server.port), [id(1), id(3)]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_full_stream_takes_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), "");
    add_stream(server.port, &json!({"max_msgs": 5}));
    let mut sink = sink(&settings(server.port));
    let why = reason(deliver(&mut sink, &events(1..=8)).await);
    assert!(why.contains("maximum messages exceeded"), "{why}");
    ask(server.port, "STREAM.PURGE.TOKENSCOPE", &json!({}));
    assert_done(&deliver(&mut sink, &events(1..=8)).await);
    let info = ask(server.port, "STREAM.INFO.TOKENSCOPE", &json!({}));
    assert_eq!(info["state"]["messages"], 3, "what was acknowledged is not sent again");
}

#[tokio::test(flavor = "current_thread")]
async fn core_nats_reaches_who_listens() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), "");
    let mut client = Client::open(server.port);
    client.say("SUB tokenscope.> 1\r\nPING\r\n");
    while client.line() != "PONG" {}
    let mut sink = sink(&Settings { jetstream: false, ..settings(server.port) });
    assert_done(&deliver(&mut sink, &events(1..=20)).await);
    for number in 1..=20 {
        let (subject, text) = client.message();
        assert_eq!(subject, "tokenscope.alerts.high.alg-none");
        assert!(text.contains(&format!("Nats-Msg-Id: {}\r\n", id(number))), "{text}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn each_way_to_present_oneself_is_accepted_and_wrong_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let users = format!(
        "authorization {{ users = [ {{user: ada, password: \"hunter2\"}}, {{nkey: {PUBLIC}}}, {{user: weak, \
         password: pw, permissions: {{publish: \"nothing.>\", subscribe: \">\"}}}} ] }}"
    );
    let server = server(dir.path(), &users);
    let with = |auth: Auth| Settings { auth, jetstream: false, ..settings(server.port) };
    for auth in [Auth::User("ada".into(), secret("hunter2")), Auth::Nkey(secret(SEED))] {
        assert_done(&deliver(&mut sink(&with(auth)), &events(1..=3)).await);
    }
    let wrong = [Auth::None, Auth::User("ada".into(), secret("swordfish")), Auth::Token(secret("swordfish"))];
    for auth in wrong {
        let why = reason(deliver(&mut sink(&with(auth)), &events(1..=3)).await);
        assert!(why.contains("Authorization Violation") && !why.contains("swordfish"), "{why}");
    }
    let weak = with(Auth::User("weak".into(), secret("pw")));
    let why = reason(deliver(&mut sink(&weak), &events(1..=3)).await);
    assert!(why.contains("Permissions Violation"), "{why}");
    assert!(
        open(&with(Auth::Nkey(secret("SUNONE"))), &node()).err().unwrap().to_string().contains("nkey seed")
    );
}

/// A file of credentials: what `nsc` writes for a user.
fn credentials(jwt: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test(flavor = "current_thread")]
async fn credentials_of_an_operator_are_accepted_and_those_of_strangers_are_not() {
    let (operator, account, stranger) = (Signer::new(b'O', 1), Signer::new(b'A', 2), Signer::new(b'A', 3));
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let of_operator = operator.issue(&operator.public, &json!({"type": "operator", "version": 2}));
    let account_claims = json!({"type": "account", "version": 2, "limits": limits, "default_permissions": {"pub": {}, "sub": {}}});
    let of_account = operator.issue(&account.public, &account_claims);
    let user = json!({
        "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
    });
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\noperator: \"{of_operator}\"\nresolver: MEMORY\nresolver_preload: {{ {}: \"{of_account}\" }}\n",
        account.public
    );
    std::fs::write(dir.path().join("nats.conf"), config).unwrap();
    let _server = Server::start(dir.path(), port, "nats-server", &["nats-server", "-c", "nats.conf"]);
    let with = |issuer: &Signer| {
        let auth = Auth::Creds(secret(&credentials(&issuer.issue(PUBLIC, &user))));
        Settings { auth, jetstream: false, ..settings(port) }
    };
    assert_done(&deliver(&mut sink(&with(&account)), &events(1..=3)).await);
    let why = reason(deliver(&mut sink(&with(&stranger)), &events(1..=3)).await);
    assert!(why.contains("Authorization Violation"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_token_opens_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), "authorization { token: \"hunter2\" }");
    let auth = Auth::Token(secret("hunter2"));
    let settings = Settings { auth, jetstream: false, ..settings(server.port) };
    assert_done(&deliver(&mut sink(&settings), &events(1..=3)).await);
}

#[tokio::test(flavor = "current_thread")]
async fn tls_is_used_where_either_side_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let tls =
        "tls { cert_file: \"server.pem\", key_file: \"server.key\", ca_file: \"ca.pem\", verify: true }";
    let server = server(dir.path(), tls);
    let at = |name: &str| Some(dir.path().join(name));
    let both = TlsSettings { ca: at("ca.pem"), cert: at("client.pem"), key: at("client.key"), only_ca: true };
    for encrypted in [false, true] {
        let settings = Settings { encrypted, tls: both.clone(), jetstream: false, ..settings(server.port) };
        assert_done(&deliver(&mut sink(&settings), &events(1..=3)).await);
    }
    let stranger = Settings { jetstream: false, ..settings(server.port) };
    let why = reason(deliver(&mut sink(&stranger), &events(1..=3)).await);
    assert!(why.contains("UnknownIssuer"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn the_first_server_that_answers_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), "");
    let servers =
        vec![here(free_port()), Place { host: "no.such.host.invalid".into(), port: 1 }, here(server.port)];
    let mut sink = sink(&Settings { servers, jetstream: false, ..settings(server.port) });
    assert_done(&deliver(&mut sink, &events(1..=3)).await);
}

#[tokio::test(flavor = "current_thread")]
async fn servers_that_lie_cost_time_and_nothing_else() {
    let flood = |text: &[u8]| Then::Flood(text.to_vec());
    let hello = |rest: &str| format!("INFO {{\"headers\":true}}\r\n{rest}").into_bytes();
    let cases: [(Vec<u8>, Then); 12] = [
        (b"INFO ".to_vec(), flood(b"{")),
        (b"".to_vec(), flood(b"x")),
        (b"INFO []\r\n".to_vec(), Then::Hang),
        (b"INFO {\"max_payload\":1e400}\r\n".to_vec(), Then::Cut),
        (hello("-ERR\r\n"), Then::Cut),
        (hello("-ERR 'no'\r\n"), Then::Hang),
        (hello("PONG\r\nMSG _INBOX.x 1 99999999999\r\n"), flood(b"x")),
        (hello("PONG\r\nMSG\r\n"), Then::Hang),
        (hello("PONG\r\nHMSG _INBOX.x 1 12 10\r\n"), Then::Hang),
        (hello("PONG\r\nMSG _INBOX.x 1 18446744073709551615\r\n"), Then::Hang),
        (hello("HTTP/1.1 400\r\n"), Then::Cut),
        (hello("PONG\r\n"), Then::Cut),
    ];
    for (greeting, then) in cases {
        let text = String::from_utf8_lossy(&greeting).into_owned();
        let liar = Liar::start(&greeting, then);
        let why = reason(deliver(&mut sink(&settings(liar.port)), &events(1..=200)).await);
        assert_ne!(why, "broken off", "after {text}");
        let sent = liar.sent.load(Ordering::SeqCst);
        assert!(sent < SOCKETS, "{sent} bytes were taken after {text}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn endless_chatter_ends_with_the_delivery_and_is_not_kept() {
    // Each is sound by itself; acknowledgements never come. Nothing of it is kept, so time is all that it costs.
    for chatter in ["INFO {}\r\n", "PING\r\n", "MSG other 1 2\r\nok\r\n", "+OK\r\n"] {
        let greeting = b"INFO {\"headers\":true}\r\nPONG\r\n";
        let liar = Liar::start(greeting, Then::Flood(chatter.as_bytes().to_vec()));
        let mut sink = sink(&settings(liar.port));
        let before = resident_kib();
        let outcome = deliver_within(&mut sink, &events(1..=10), Duration::from_millis(500)).await;
        reason(outcome);
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 64 << 10, "{grown} KiB more after {chatter}");
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_that_takes_tls_away_gets_no_password() {
    let liar = Liar::start(b"INFO {\"headers\":true}\r\nPONG\r\n", Then::Hang);
    let auth = Auth::User("ada".into(), secret("hunter2"));
    let mut sink = sink(&Settings { encrypted: true, auth, ..settings(liar.port) });
    let why = reason(deliver(&mut sink, &events(1..=1)).await);
    assert!(why.contains("does not offer TLS"), "{why}");
}
