//! What the configuration says of Kafka, Redis, NATS and S3: what is enough, what is wrong, and that no secret shows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

use std::path::Path;
use std::time::Duration;

use sensor_user::config::{self, Environment, Secrets, show};
use sensor_user::sink::kafka::Key;
use sensor_user::sink::kafka::producer::{Compression, Mechanism};
use sensor_user::sink::nats::Auth;
use sensor_user::sink::s3::Encryption;
use sensor_user::sink::{Node, Target, open};

const SECRETS: [(&str, &str); 3] =
    [("PASSWORD", "hunter2"), ("KEY_ID", "AKIAhunter2"), ("SECRET", "hunter2hunter2")];

fn load(sink: &str) -> Result<config::Loaded, config::Report> {
    let environment = Environment::from(SECRETS);
    let text = format!("sinks:\n  - {sink}\n");
    config::parse("test", &text, Path::new("/etc/x"), &environment, &[], Secrets::Needed)
}

/// The one sink of a configuration without errors; how many warnings there are.
fn target(sink: &str) -> (Target, usize) {
    let loaded = load(sink).unwrap_or_else(|report| panic!("{sink}: {}", report.render(false)));
    let shown = format!("{:?} {:?} {:?}", loaded.config.sinks, loaded.entries, loaded.warnings);
    assert!(!shown.contains("hunter2"), "{shown}");
    (loaded.config.sinks[0].target.clone(), loaded.warnings.problems.len())
}

/// What is wrong with it, as people read it.
fn wrong(sink: &str) -> String {
    let report = load(sink).err().unwrap_or_else(|| panic!("nothing is wrong with {sink}"));
    let messages = report.problems.iter().map(|problem| problem.message.as_str());
    let text = messages.collect::<Vec<_>>().join("\n");
    let rendered = report.render(false);
    assert!(!rendered.contains("hunter2"), "{rendered}");
    text
}

#[test]
fn little_is_enough() {
    let Target::Kafka(kafka) = target("{type: kafka, brokers: [k1:9092, k2]}").0 else { panic!() };
    assert_eq!(kafka.client.brokers, ["k1:9092", "k2:9092"]);
    assert_eq!((kafka.topic.as_str(), kafka.key), ("tokenscope.alerts", Key::AlertId));
    assert_eq!(
        (kafka.client.compression, kafka.client.timeout),
        (Compression::Zstd, Duration::from_secs(10))
    );
    let Target::Redis(redis) = target("{type: redis, url: \"redis://127.0.0.1\"}").0 else { panic!() };
    assert_eq!((redis.stream.as_str(), redis.place.port, redis.tls), ("tokenscope:alerts", 6379, None));
    let Target::Nats(nats) = target("{type: nats, servers: [\"nats://127.0.0.1\"]}").0 else { panic!() };
    assert_eq!(nats.subject.as_str(), "tokenscope.alerts.{severity}.{rule}");
    assert!(nats.jetstream && !nats.encrypted);
    let Target::S3(s3) = target("{type: s3, bucket: b}").0 else { panic!() };
    assert_eq!((s3.prefix.as_str(), s3.path_style, s3.keys), ("tokenscope", false, None));
}

#[test]
fn everything_can_be_said() {
    let kafka = "{type: kafka, brokers: [k], topic: t, key: principal, compression: lz4, timeout_s: 5, \
                 tls: {ca: ca.pem}, sasl: scram-sha-512, user: me, password: \"env:PASSWORD\", \
                 options: {linger.ms: 50, socket.keepalive.enable: true}}";
    let (Target::Kafka(kafka), 0) = target(kafka) else { panic!() };
    assert_eq!(kafka.client.tls.unwrap().ca.unwrap(), Path::new("/etc/x/ca.pem"));
    assert_eq!(kafka.client.sasl.unwrap().mechanism, Mechanism::ScramSha512);
    let options = [("linger.ms", "50"), ("socket.keepalive.enable", "true")];
    assert_eq!(kafka.client.options, options.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let redis = "{type: redis, url: \"rediss://r:1/2\", user: me, password: \"env:PASSWORD\", stream: s, max_len: 5, \
                 dedupe_s: 0, tls: {ca: ca.pem, only_ca: true}}";
    let (Target::Redis(redis), 0) = target(redis) else { panic!() };
    assert_eq!((redis.database, redis.max_len, redis.dedupe_s), (2, 5, 0));
    assert!(redis.tls.unwrap().only_ca);
    let nats = "{type: nats, servers: [\"tls://a\", \"tls://b:1\"], subject: \"x.{node}\", jetstream: false, \
                inbox: _IN.x, user: me, password: \"env:PASSWORD\"}";
    let (Target::Nats(nats), 0) = target(nats) else { panic!() };
    assert!(nats.encrypted && matches!(nats.auth, Auth::User(..)) && nats.inbox == "_IN.x");
    let s3 = "{type: s3, bucket: b, prefix: a/b, region: eu-central-1, endpoint: \"https://m:9000\", gather_s: 60, \
              access_key: \"env:KEY_ID\", secret_key: \"env:SECRET\", encryption: \"aws:kms\", kms_key: k, proxy: none}";
    let (Target::S3(s3), 0) = target(s3) else { panic!() };
    assert!(s3.path_style && s3.keys.is_some());
    assert_eq!((s3.encryption, s3.gather), (Encryption::Kms(Some("k".into())), Duration::from_mins(1)));
}

#[test]
fn what_is_wrong_is_said_without_what_may_be_secret() {
    let cases = [
        ("{type: kafka}", "`brokers` is missing"),
        ("{type: kafka, brokers: [\"me:hunter2@k:1\"]}", "no HOST:PORT"),
        ("{type: kafka, brokers: [k], options: {acks: 1}}", "`acks` is not to be set here"),
        ("{type: kafka, brokers: [k], options: {ssl.key.password: hunter2}}", "is not to be set here"),
        ("{type: kafka, brokers: [k], options: {lingerms: 1}}", "lingerms"),
        ("{type: kafka, brokers: [k], user: me}", "need each other"),
        ("{type: kafka, brokers: [k], encrypt: false, tls: {ca: x}}", "means nothing"),
        ("{type: kafka, brokers: [k], sasl: gssapi}", "must be one of"),
        ("{type: redis}", "`sinks.url` is missing"),
        ("{type: redis, url: \"redis://:hunter2@r\"}", "holds a user name or password"),
        ("{type: redis, url: \"redis://r\", tls: {ca: x}}", "means nothing without TLS"),
        ("{type: redis, url: \"redis://r\", user: me}", "`user` needs `password`"),
        ("{type: redis, url: \"redis://r\", password: hunter2}", "never written"),
        ("{type: nats}", "`servers` is missing"),
        ("{type: nats, servers: [\"nats://hunter2@n\"]}", "holds a user name or password"),
        ("{type: nats, servers: [\"nats://n\", \"tls://m\"]}", "by TLS, or none"),
        ("{type: nats, servers: [\"nats://n\"], subject: \"a.>\"}", "is no subject"),
        ("{type: nats, servers: [\"nats://n\"], user: me, token: \"env:PASSWORD\"}", "only one of"),
        ("{type: s3}", "`sinks.bucket` is missing"),
        ("{type: s3, bucket: b, access_key: \"env:KEY_ID\"}", "need each other"),
        ("{type: s3, bucket: b, endpoint: \"https://me:hunter2@m\"}", "holds a user name or password"),
        ("{type: s3, bucket: b, kms_key: k}", "needs `encryption: aws:kms`"),
        ("{type: s3, bucket: b, session_token: \"env:SECRET\"}", "needs `access_key`"),
    ];
    for (sink, expected) in cases {
        let text = wrong(sink);
        assert!(text.contains(expected), "{sink}: {text}");
    }
}

#[test]
fn a_secret_in_the_clear_over_a_network_is_worth_a_warning() {
    let cases = [
        ("{type: kafka, brokers: [k], sasl: plain, user: me, password: \"env:PASSWORD\"}", 1),
        ("{type: kafka, brokers: [\"127.0.0.1:1\"], sasl: plain, user: me, password: \"env:PASSWORD\"}", 0),
        ("{type: redis, url: \"redis://r\", password: \"env:PASSWORD\"}", 1),
        ("{type: redis, url: \"redis://localhost\", password: \"env:PASSWORD\"}", 0),
        ("{type: nats, servers: [\"nats://n\"], token: \"env:PASSWORD\"}", 1),
        ("{type: s3, bucket: b, endpoint: \"http://m:9000\"}", 1),
    ];
    for (sink, warnings) in cases {
        assert_eq!(target(sink).1, warnings, "{sink}");
    }
}

#[test]
fn opening_needs_nobody_to_be_there() {
    let node = Node::named("n");
    let sinks = [
        "{type: kafka, brokers: [\"127.0.0.1:1\"], tls: {ca: nonexistent.pem}}",
        "{type: redis, url: \"rediss://127.0.0.1:1\", tls: {ca: nonexistent.pem}}",
        "{type: nats, servers: [\"tls://127.0.0.1:1\"], tls: {ca: nonexistent.pem}}",
        "{type: s3, bucket: b, tls: {ca: nonexistent.pem}}",
    ];
    for sink in sinks {
        assert!(open(&target(sink).0, &node).is_ok(), "{sink}");
    }
}

#[test]
fn what_is_shown_reads_back() {
    let environment = Environment::from(SECRETS);
    let texts = [
        "sinks:\n  - {type: kafka, brokers: [\"[::1]:1\"], key: rule, options: {linger.ms: 7}}\n",
        "sinks:\n  - {type: kafka, brokers: [k], encrypt: true}\n",
        "sinks:\n  - {type: redis, url: \"rediss://r/1\", password: \"env:PASSWORD\"}\n",
        "sinks:\n  - {type: nats, servers: [\"tls://n\"], creds: \"env:SECRET\"}\n",
        "sinks:\n  - {type: s3, bucket: b, encryption: AES256, proxy: \"http://p:1\"}\n",
    ];
    for text in texts {
        let read = |text: &str| {
            let loaded = config::parse("t", text, Path::new(""), &environment, &[], Secrets::Needed);
            loaded.unwrap_or_else(|report| panic!("{text}: {}", report.render(false)))
        };
        let first = read(text);
        let shown = show::yaml(&first.entries);
        assert_eq!(read(&shown).config.sinks, first.config.sinks, "{shown}");
    }
}
