//! The archive in S3 against `s3rver`, which keeps objects as files and speaks enough of S3, and against servers that
//! refuse and lie. `s3rver` asks for a signature and does not check it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

mod brokers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use brokers::{
    Liar, SOCKETS, Server, TIME_MS, Then, assert_done, authority, deliver, deliver_at_last, deliver_within,
    events, free_port, node, reason, secret,
};
use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Told};
use sensor_user::sink::client::{ClientSettings, Proxy, TlsSettings};
use sensor_user::sink::s3::{Encryption, Keys, Settings, open};
use sensor_user::sink::{Outcome, Sink};

fn server(dir: &Path, more: &[&str]) -> Server {
    let tools = std::env::var_os("TOKENSCOPE_TEST_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"), PathBuf::from);
    let program = tools.join("s3rver/node_modules/s3rver/bin/s3rver.js");
    assert!(program.exists(), "s3rver is missing: `cargo xtask test` installs it into {}", tools.display());
    let port = free_port();
    let (number, program) = (port.to_string(), program.display().to_string());
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let mut command =
        vec!["node", &program, "-d", "data", "-a", "127.0.0.1", "-p", &number, "--no-vhost-buckets"];
    command.extend(more);
    Server::start(dir, port, "nodejs and npm", &command)
}

const BUCKET: [&str; 2] = ["--configure-bucket", "alerts"];

fn settings(endpoint: &str) -> Settings {
    Settings {
        bucket: "alerts".into(),
        prefix: "tokenscope".into(),
        region: "us-east-1".into(),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        keys: Some(Keys { id: secret("S3RVER"), secret: secret("hunter2hunter2"), token: None }),
        encryption: Encryption::Bucket,
        gather: Duration::from_mins(5),
        client: ClientSettings { proxy: Proxy::None, ..ClientSettings::default() },
    }
}

fn sink(port: u16) -> Box<dyn Sink> {
    open(&settings(&format!("http://127.0.0.1:{port}")), &node()).unwrap()
}

/// Every object of the bucket by its name, unpacked.
fn objects(dir: &Path) -> BTreeMap<String, String> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if let Some(name) = path.to_str().unwrap().strip_suffix("._S3rver_object") {
                let name = Path::new(name).strip_prefix(root).unwrap().display().to_string();
                let text = zstd::stream::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
                found.insert(name, String::from_utf8(text).unwrap());
            }
        }
    }
    let root = dir.join("data/alerts");
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    found
}

fn lines(events: &[Arc<Told>]) -> String {
    events.iter().flat_map(|event| [event.json(), "\n"]).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn events_are_lines_of_objects_by_the_hour() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &BUCKET);
    let mut sink = sink(server.port);
    let mut batch = events(1..=200);
    let later = TIME_MS + 3_600_000;
    let json = r#"{"metadata":{"uid":"x"}}"#;
    batch.push(Arc::new(Told::new(201, later, Severity::Low, Kind::Alert, json.into())));
    for _ in 0..2 {
        // The second time it is the same: the same objects again.
        assert_done(&deliver(&mut sink, &batch).await);
        let expected = BTreeMap::from([
            (
                "tokenscope/2026/11/22/00/node-1-000000000001-000000000200.ndjson.zst".to_owned(),
                lines(&batch[..200]),
            ),
            (
                "tokenscope/2026/11/22/01/node-1-000000000201-000000000201.ndjson.zst".to_owned(),
                lines(&batch[200..]),
            ),
        ]);
        assert_eq!(objects(dir.path()), expected);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_whole_batch_is_one_object() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &BUCKET);
    let mut sink = sink(server.port);
    let batch = sink.batch();
    assert_eq!(sink.patience(Severity::Critical), Duration::from_mins(5));
    let message = "x".repeat(batch.bytes / 1000);
    let large: Vec<_> = (1..=1000).map(|number| brokers::with_message(number, &message)).collect();
    assert_done(&deliver(&mut sink, &large).await);
    let objects = objects(dir.path());
    assert_eq!(objects.len(), 1);
    assert_eq!(objects.into_values().next().unwrap(), lines(&large));
}

#[tokio::test(flavor = "current_thread")]
async fn a_bucket_that_is_missing_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), &[]);
    let mut sink = sink(server.port);
    let why = reason(deliver(&mut sink, &events(1..=3)).await);
    assert!(why.contains("there is no bucket `alerts`"), "{why}");
    std::fs::create_dir_all(dir.path().join("data/alerts")).unwrap();
    server.kill();
    // The connection that was kept, and then a new one.
    reason(deliver(&mut sink, &events(1..=3)).await);
    let why = reason(deliver(&mut sink, &events(1..=3)).await);
    assert!(why.contains("Connection refused"), "{why}");
    server.start_again();
    deliver_at_last(&mut sink, &events(1..=3)).await;
    assert_eq!(objects(dir.path()).len(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn keys_that_are_wrong_are_told_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &BUCKET);
    let keys = Some(Keys { id: secret("SOMEBODY"), secret: secret("swordfish"), token: None });
    let settings = Settings { keys, ..settings(&format!("http://127.0.0.1:{}", server.port)) };
    let mut sink = open(&settings, &node()).unwrap();
    let why = reason(deliver(&mut sink, &events(1..=3)).await);
    assert!(why.contains("refuses the keys: InvalidAccessKeyId"), "{why}");
    assert!(!why.contains("swordfish") && !why.contains("SOMEBODY"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn tls_trusts_a_custom_authority() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let server =
        server(dir.path(), &[&BUCKET[..], &["--key", "server.key", "--cert", "server.pem"]].concat());
    let tls = TlsSettings { ca: Some(dir.path().join("ca.pem")), ..TlsSettings::default() };
    let stranger = settings(&format!("https://127.0.0.1:{}", server.port));
    let trusting = Settings { client: ClientSettings { tls, proxy: Proxy::None }, ..stranger.clone() };
    assert_done(&deliver(&mut open(&trusting, &node()).unwrap(), &events(1..=3)).await);
    assert_eq!(objects(dir.path()).len(), 1);
    let why = reason(deliver(&mut open(&stranger, &node()).unwrap(), &events(1..=3)).await);
    assert!(why.contains("UnknownIssuer"), "{why}");
}

fn answer(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>")
}

#[tokio::test(flavor = "current_thread")]
async fn what_s3_minds_comes_later_with_a_remedy() {
    let cases = [
        ("503 Slow Down\r\nRetry-After: 7", "SlowDown", "answers 503 SlowDown", Some(7)),
        ("500 Internal Server Error", "InternalError", "answers 500 InternalError", None),
        ("403 Forbidden", "AccessDenied", "s3:PutObject on alerts/tokenscope/* is needed", None),
        ("403 Forbidden", "RequestTimeTooSkewed", "clock is wrong", None),
        ("400 Bad Request", "ExpiredToken", "refuses the keys: ExpiredToken", None),
        ("301 Moved Permanently", "PermanentRedirect", "not in the region `us-east-1`", None),
        ("404 Not Found", "NoSuchKey", "has no bucket `alerts`", None),
        ("413 Payload Too Large", "", "answers 413", None),
    ];
    for (head, code, expected, seconds) in cases {
        let liar = Liar::polite(&answer(head, &error(code)), Then::Hang);
        let outcome = deliver(&mut sink(liar.port), &events(1..=3)).await;
        let Outcome::Later { reason, after } = outcome else { panic!("{head}: taken") };
        assert!(reason.as_str().contains(expected), "{head}: {reason}");
        assert_eq!(after, seconds.map(Duration::from_secs), "{head}");
        assert_eq!(liar.calls.load(Ordering::SeqCst), 1, "{head}: delivery decides when to try again");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn servers_that_lie_cost_time_and_nothing_else() {
    let flood = |text: &[u8]| Then::Flood(text.to_vec());
    let cases: [(&[u8], Then); 7] = [
        (b"HTTP/1.1 500 No\r\n\r\n", flood(b"x")),
        (b"HTTP/1.1 403 No\r\nContent-Length: 99999999999\r\n\r\n", flood(b"<Code>")),
        (b"HTTP/1.1 500 No\r\nX: ", flood(b"x")),
        (b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", flood(b"x")),
        (b"", flood(b"x")),
        (b"SSH-2.0-x\r\n", Then::Cut),
        (b"HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nabc", Then::Cut),
    ];
    for (greeting, then) in cases {
        let liar = Liar::polite(greeting, then);
        let outcome = deliver(&mut sink(liar.port), &events(1..=20)).await;
        let why = reason(outcome);
        assert_ne!(why, "broken off", "after {greeting:?}");
        let sent = liar.sent.load(Ordering::SeqCst);
        assert!(sent < SOCKETS, "{sent} bytes were taken after {greeting:?}");
    }
    let liar = Liar::polite(b"", Then::Hang);
    let mut sink = sink(liar.port);
    let outcome = deliver_within(&mut sink, &events(1..=2), Duration::from_millis(200)).await;
    assert_eq!(reason(outcome), "broken off");
}
