//! The sink of Kafka against librdkafka's own mock cluster: brokers on real sockets that can be broken on purpose.
//!
//! Where `TOKENSCOPE_TEST_TANSU` names a tansu binary, a broker by other people is asked as well, and read with kcat.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

mod brokers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use brokers::{
    Liar, SOCKETS, Server, Then, assert_done, authority, deadline, deliver, deliver_at_last, deliver_within,
    events, free_port, id, node, output, reason, secret, told, with_message,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sensor_user::render::Told;
use sensor_user::sink::client::TlsSettings;
use sensor_user::sink::kafka::producer::{Client, Compression, Mechanism, Sasl};
use sensor_user::sink::kafka::{Key, Settings, open};
use sensor_user::sink::{Outcome, Sink};

const TOPIC: &str = "tokenscope.alerts";

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(brokers: i32, partitions: i32) -> Cluster {
    let cluster = MockCluster::new(brokers).unwrap();
    cluster.create_topic(TOPIC, partitions, brokers.min(3)).unwrap();
    cluster
}

fn settings(brokers: &str) -> Settings {
    Settings {
        client: Client {
            brokers: brokers.split(',').map(str::to_owned).collect(),
            tls: None,
            sasl: None,
            compression: Compression::Zstd,
            options: Vec::new(),
            timeout: Duration::from_secs(3),
        },
        topic: TOPIC.into(),
        key: Key::AlertId,
    }
}

fn sink(brokers: &str) -> Box<dyn Sink> {
    open(&settings(brokers), &node()).unwrap()
}

/// The first `most` records of a topic with so many partitions, or what there is when nothing more comes.
fn records(brokers: &str, partitions: i32, most: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tests")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let (mut records, mut ends) = (Vec::new(), 0);
    let deadline = deadline(30);
    while ends < partitions || records.len() < most {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => records.push(record.detach()),
            Some(Err(_end_or_trouble)) => ends += 1,
            None => {}
        }
        assert!(!deadline.is_over(), "{} of {most} records", records.len());
    }
    records
}

fn header(record: &OwnedMessage, name: &str) -> String {
    let headers = record.headers().unwrap();
    let header = headers.iter().find(|header| header.key == name).unwrap();
    String::from_utf8(header.value.unwrap().to_vec()).unwrap()
}

fn ids(records: &[OwnedMessage]) -> Vec<String> {
    records.iter().map(|record| header(record, "tokenscope-event")).collect()
}

fn every(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn records_are_in_order_with_their_keys_and_headers() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    assert_done(&deliver(&mut sink, &events(1..=512)).await);
    assert_done(&deliver(&mut sink, &events(513..=600)).await);
    let records = records(&brokers, 1, 600);
    assert_eq!(ids(&records), every(1..=600));
    let first = &records[0];
    assert_eq!(first.key(), Some(&b"alert-1"[..]));
    assert_eq!(first.payload(), Some(told(1).json().as_bytes()));
    assert_eq!(first.timestamp().to_millis(), i64::try_from(told(1).time_ms).ok());
    let expected = [
        ("severity", "high"),
        ("rule", "alg-none"),
        ("node", "node-1"),
        ("sequence", "1"),
        ("schema", "ocsf/1.8.0"),
    ];
    for (name, value) in expected {
        assert_eq!(header(first, &format!("tokenscope-{name}")), value);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_key_keeps_what_belongs_together_in_one_partition() {
    let cluster = cluster(1, 4);
    let brokers = cluster.bootstrap_servers();
    let by_principal = Settings { key: Key::Principal, ..settings(&brokers) };
    let mut sink = open(&by_principal, &node()).unwrap();
    assert_done(&deliver(&mut sink, &events(1..=100)).await);
    let records = records(&brokers, 4, 100);
    let partitions: BTreeSet<i32> = records.iter().map(OwnedMessage::partition).collect();
    assert_eq!((partitions.len(), records.len()), (1, 100));
    assert!(records.iter().all(|record| record.key() == Some(b"alice@idp")));
}

#[tokio::test(flavor = "current_thread")]
async fn a_broker_that_is_down_delays_and_neither_loses_nor_repeats() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    assert_done(&deliver(&mut sink, &events(1..=10)).await);
    cluster.broker_down(-1).unwrap();
    let why = reason(deliver(&mut sink, &events(11..=30)).await);
    assert!(!why.is_empty() && why != "broken off", "{why}");
    reason(deliver(&mut sink, &events(11..=30)).await);
    cluster.broker_up(-1).unwrap();
    deliver_at_last(&mut sink, &events(11..=30)).await;
    assert_done(&deliver(&mut sink, &events(31..=40)).await);
    assert_eq!(ids(&records(&brokers, 1, 40)), every(1..=40));
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_listens_and_then_somebody_does() {
    let port = free_port();
    let why = reason(deliver(&mut sink(&format!("127.0.0.1:{port}")), &events(1..=3)).await);
    assert!(why.contains("Connection refused"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn errors_that_pass_are_tried_again_at_once() {
    use RDKafkaRespErr as Error;
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    let passing = [
        Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Error::RD_KAFKA_RESP_ERR__TRANSPORT,
        Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    ];
    cluster.request_errors(RDKafkaApiKey::Produce, &passing);
    deliver_at_last(&mut sink, &events(1..=50)).await;
    assert_eq!(ids(&records(&brokers, 1, 50)), every(1..=50));
}

#[tokio::test(flavor = "current_thread")]
async fn a_right_that_is_missing_is_no_dead_letter() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
    cluster.request_errors(RDKafkaApiKey::Produce, &denied);
    let why = reason(deliver(&mut sink, &events(1..=5)).await);
    assert!(why.contains("no right to write to `tokenscope.alerts`"), "{why}");
    deliver_at_last(&mut sink, &events(1..=5)).await;
    assert_eq!(ids(&records(&brokers, 1, 5)), every(1..=5));
}

#[tokio::test(flavor = "current_thread")]
async fn a_batch_that_is_too_large_is_sent_one_by_one() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    let too_large = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE];
    cluster.request_errors(RDKafkaApiKey::Produce, &too_large);
    deliver_at_last(&mut sink, &events(1..=20)).await;
    assert_eq!(ids(&records(&brokers, 1, 20)), every(1..=20));
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_too_large_by_itself_is_refused_and_the_rest_is_stored() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    let batch = [told(1), with_message(2, &"x".repeat(2 << 20)), told(3)];
    let Outcome::Done { refused, .. } = deliver(&mut sink, &batch).await else { panic!("not taken") };
    assert_eq!(refused.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [1]);
    assert_eq!(ids(&records(&brokers, 1, 2)), every([1, 3]));
    // A record that the broker does not want, alone.
    let invalid = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD];
    cluster.request_errors(RDKafkaApiKey::Produce, &invalid);
    let Outcome::Done { refused, .. } = deliver(&mut sink, &events(4..=4)).await else { panic!("not taken") };
    assert_eq!(refused.len(), 1);
    assert_done(&deliver(&mut sink, &events(5..=5)).await);
}

#[tokio::test(flavor = "current_thread")]
async fn slow_brokers_are_waited_for() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    cluster.broker_round_trip_time(-1, Duration::from_millis(300)).unwrap();
    let mut sink = sink(&brokers);
    assert_done(&deliver(&mut sink, &events(1..=50)).await);
    assert_eq!(ids(&records(&brokers, 1, 50)), every(1..=50));
}

#[tokio::test(flavor = "current_thread")]
async fn one_of_three_brokers_is_lost() {
    let cluster = cluster(3, 1);
    let brokers = cluster.bootstrap_servers();
    cluster.partition_leader(TOPIC, 0, Some(1)).unwrap();
    let mut sink = sink(&brokers);
    assert_done(&deliver(&mut sink, &events(1..=20)).await);
    cluster.broker_down(1).unwrap();
    cluster.partition_leader(TOPIC, 0, Some(2)).unwrap();
    deliver_at_last(&mut sink, &events(21..=60)).await;
    assert_eq!(ids(&records(&brokers, 1, 60)), every(1..=60));
}

#[tokio::test(flavor = "current_thread")]
async fn a_delivery_that_was_broken_off_loses_nothing() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    assert_done(&deliver(&mut sink, &events(1..=5)).await);
    cluster.broker_round_trip_time(-1, Duration::from_millis(1500)).unwrap();
    let outcome = deliver_within(&mut sink, &events(6..=30), Duration::from_millis(100)).await;
    assert_eq!(reason(outcome), "broken off");
    cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    deliver_at_last(&mut sink, &events(6..=30)).await;
    let records = records(&brokers, 1, 30);
    let unique: BTreeSet<String> = ids(&records).into_iter().collect();
    assert_eq!(unique.into_iter().collect::<Vec<_>>(), every(1..=30));
}

#[tokio::test(flavor = "current_thread")]
async fn a_producer_that_lost_its_place_is_made_anew() {
    let cluster = cluster(1, 1);
    let brokers = cluster.bootstrap_servers();
    let mut sink = sink(&brokers);
    assert_done(&deliver(&mut sink, &events(1..=5)).await);
    let lost = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH; 2];
    cluster.request_errors(RDKafkaApiKey::Produce, &lost);
    deliver_at_last(&mut sink, &events(6..=20)).await;
    let unique: BTreeSet<String> = ids(&records(&brokers, 1, 20)).into_iter().collect();
    assert_eq!(unique.into_iter().collect::<Vec<_>>(), every(1..=20));
}

#[tokio::test(flavor = "current_thread")]
async fn brokers_that_lie_cost_time_and_nothing_else() {
    let flood = |text: &[u8]| Then::Flood(text.to_vec());
    let cases: [(&[u8], Then); 6] = [
        (b"\xff\xff\xff\xff", flood(b"x")),
        (b"\x7f\xff\xff\xff", flood(b"x")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Then::Cut),
        (b"\x00\x00\x00\x00", flood(b"\0")),
        (b"", Then::Cut),
        (b"", Then::Hang),
    ];
    for (greeting, then) in cases {
        let liar = Liar::start(greeting, then);
        let mut short = settings(&format!("127.0.0.1:{}", liar.port));
        short.client.timeout = Duration::from_secs(1);
        let mut sink = open(&short, &node()).unwrap();
        reason(deliver_within(&mut sink, &events(1..=20), Duration::from_secs(3)).await);
        // It is tried several times within a second.
        let (sent, calls) = (liar.sent.load(Ordering::SeqCst), liar.calls.load(Ordering::SeqCst));
        assert!(calls > 0 && sent < SOCKETS * calls, "{sent} bytes in {calls} calls after {greeting:?}");
    }
}

/// The mock cluster speaks neither: what counts is that the first word is said by TLS, verified, and that no secret
/// is in what is said of the failure.
#[tokio::test(flavor = "current_thread")]
async fn tls_verifies_and_secrets_stay_secret() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let port = free_port();
    let number = port.to_string();
    let command = [
        "openssl",
        "s_server",
        "-accept",
        &number,
        "-cert",
        "server.pem",
        "-key",
        "server.key",
        "-CAfile",
        "ca.pem",
        "-Verify",
        "1",
        "-verify_return_error",
        "-quiet",
    ];
    let server = Server::start(dir.path(), port, "openssl", &command);
    let at = |name: &str| Some(dir.path().join(name));
    let ours =
        TlsSettings { ca: at("ca.pem"), cert: at("client.pem"), key: at("client.key"), only_ca: false };
    let with = |tls: TlsSettings| {
        let mut settings = settings(&format!("127.0.0.1:{}", server.port));
        settings.client.tls = Some(tls);
        settings.client.timeout = Duration::from_secs(2);
        let (mechanism, user) = (Mechanism::Plain, "ada".to_owned());
        settings.client.sasl = Some(Sasl { mechanism, user, password: secret("hunter2") });
        open(&settings, &node()).unwrap()
    };
    // TLS comes about, and then nobody speaks Kafka.
    let why = reason(deliver(&mut with(ours.clone()), &events(1..=2)).await);
    assert!(!why.contains("certificate verify failed") && !why.contains("hunter2"), "{why}");
    let stranger = TlsSettings { ca: None, ..ours };
    let why = reason(deliver(&mut with(stranger), &events(1..=2)).await);
    assert!(why.contains("certificate verify failed") && !why.contains("hunter2"), "{why}");
}

/// Any broker by other people: what it stores is what kcat reads.
#[tokio::test(flavor = "current_thread")]
async fn tansu_stores_what_kcat_reads() {
    let Some(tansu) = std::env::var_os("TOKENSCOPE_TEST_TANSU") else {
        println!("SKIPPED kafka::tansu_stores_what_kcat_reads: TOKENSCOPE_TEST_TANSU names no binary");
        return;
    };
    let tansu = tansu.into_string().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let address = format!("tcp://127.0.0.1:{port}");
    let command = [
        tansu.as_str(),
        "broker",
        "--listener-url",
        &address,
        "--advertised-listener-url",
        &address,
        "--storage-engine",
        "memory://tokenscope/",
    ];
    let _server = Server::start(dir.path(), port, "tansu", &command);
    let create = [tansu.as_str(), "topic", "create", "--broker", &address, TOPIC, "--partitions", "1"];
    output(&create);
    let brokers = format!("127.0.0.1:{port}");
    let mut sink = sink(&brokers);
    let batch: Vec<Arc<Told>> = events(1..=100);
    deliver_at_last(&mut sink, &batch).await;
    assert_done(&deliver(&mut sink, &events(101..=150)).await);
    let said =
        output(&["kcat", "-C", "-b", &brokers, "-t", TOPIC, "-o", "beginning", "-e", "-q", "-f", "%k %s\\n"]);
    let expected: Vec<String> =
        events(1..=150).iter().map(|event| format!("{} {}", event.id(), event.json())).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}
