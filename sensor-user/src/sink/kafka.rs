//! Apache Kafka and what speaks its protocol: each event a record, acknowledged by every replica in sync.
//!
//! The producer is idempotent, so that what it sends again by itself is stored once and in order. What a failed batch
//! had acknowledged is remembered and not sent again. A repeat is left where an acknowledgement was lost for good, or
//! after a crash: the header `tokenscope-event` tells it. After a delivery that was broken off, the producer is made
//! anew, so that nothing of it is sent behind our back.

pub mod producer;

use std::sync::Arc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureRecord, Producer as _};

use crate::render::Told;
use crate::sink::taken::Taken;
use crate::sink::{Batch, Delivery, Node, Outcome, Refusal, Sink, Unusable, Words};
use producer::{Client, Producer, Reporter};

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster, and how it is reached.
    pub client: Client,
    /// The topic.
    pub topic: String,
    /// What decides on a record's partition, and what compaction keeps the newest of.
    pub key: Key,
}

/// What the key of a record is. An event without it has its id for a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// The id of the alert or incident: all news of one are in order.
    #[default]
    AlertId,
    /// The principal.
    Principal,
    /// The fingerprint of the token.
    Token,
    /// The client's address.
    Address,
    /// The rule.
    Rule,
}

impl Key {
    /// The key of an event.
    #[must_use]
    pub fn of(self, event: &Told) -> &str {
        let own = match self {
            Self::AlertId => None,
            Self::Principal => event.principal(),
            Self::Token => event.token(),
            Self::Address => event.address(),
            Self::Rule => Some(event.rule()),
        };
        own.filter(|key| !key.is_empty()).unwrap_or_else(|| event.id())
    }
}

/// Records at once.
const BATCH: Batch = Batch { events: 512, bytes: 1 << 20 };

/// A topic.
pub struct Kafka {
    settings: Settings,
    node: Node,
    producer: Option<Producer>,
    reporter: Reporter,
    /// A delivery began and did not end: the producer may hold records of it.
    is_broken_off: bool,
    taken: Taken,
}

/// Opens it.
///
/// # Errors
/// When a property is wrong.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    settings.client.check().map_err(Unusable)?;
    Ok(Box::new(Kafka {
        settings: settings.clone(),
        node: node.clone(),
        producer: None,
        reporter: Reporter::default(),
        is_broken_off: false,
        taken: Taken::default(),
    }))
}

/// What became of some records.
#[derive(Default)]
struct Tally {
    stored: usize,
    /// Records that the cluster does not want as they are, and why.
    unwanted: Vec<(usize, String)>,
    /// Why the rest failed.
    trouble: Option<Words>,
    /// Where the last one is.
    place: String,
}

impl Sink for Kafka {
    fn batch(&self) -> Batch {
        BATCH
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(self.produce(events))
    }

    fn reopen(&mut self) {
        // The next producer reads its certificates again.
        self.producer = None;
    }
}

impl Kafka {
    async fn produce(&mut self, events: &[Arc<Told>]) -> Outcome {
        if self.is_broken_off {
            self.producer = None;
        }
        self.is_broken_off = true;
        let outcome = self.attempt(events).await;
        self.is_broken_off = false;
        let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error());
        if fatal.is_some() {
            // It lost its place in the order of records: only a new one can go on.
            self.producer = None;
        }
        outcome
    }

    async fn attempt(&mut self, events: &[Arc<Told>]) -> Outcome {
        let producer = match self.producer.take().map_or_else(|| self.make(), Ok) {
            Ok(producer) => producer,
            Err(why) => return Outcome::later(why),
        };
        self.producer = Some(producer.clone());
        let rest: Vec<usize> = (0..events.len()).collect();
        let mut tally = Tally::default();
        self.send(&producer, events, &rest, &mut tally).await;
        // The limit on size is one on batches, and one bad record spoils a batch: each is tried alone.
        let suspects = std::mem::take(&mut tally.unwanted);
        for (index, why) in suspects {
            if tally.trouble.is_some() {
                break;
            }
            if events.len() == 1 {
                tally.unwanted.push((index, why));
            } else {
                self.send(&producer, events, &[index], &mut tally).await;
            }
        }
        if let Some(reason) = tally.trouble {
            return Outcome::later(reason);
        }
        self.reporter.forget();
        self.taken.forget(events.iter().map(AsRef::as_ref));
        let refusal = |(index, why): (usize, String)| Refusal { index, reason: why.into() };
        let refused = tally.unwanted.into_iter().map(refusal).collect();
        let answer = format!("{} stored{}", tally.stored, tally.place).into();
        Outcome::Done { refused, answer }
    }

    fn make(&self) -> Result<Producer, String> {
        self.settings.client.producer(&self.reporter)
    }

    /// Sends those of these that were not taken yet, and waits for what becomes of each.
    async fn send(&mut self, producer: &Producer, events: &[Arc<Told>], which: &[usize], tally: &mut Tally) {
        let mut pending = Vec::with_capacity(which.len());
        for (index, event) in which.iter().filter_map(|index| Some((*index, events.get(*index)?))) {
            if self.taken.has(event) {
                continue;
            }
            match self.enqueue(producer, event) {
                Ok(future) => pending.push((index, event, future)),
                Err(error) => self.judge(index, &error, tally),
            }
        }
        for (index, event, future) in pending {
            match future.await {
                Ok(Ok(delivery)) => {
                    self.taken.add(event);
                    tally.stored += 1;
                    tally.place = format!(", the last at {}/{}", delivery.partition, delivery.offset);
                }
                Ok(Err((error, _record))) => self.judge(index, &error, tally),
                Err(_ended) => {
                    tally.trouble.get_or_insert_with(|| "the producer ended".into());
                }
            }
        }
    }

    fn enqueue(&self, producer: &Producer, event: &Told) -> Result<DeliveryFuture, KafkaError> {
        let severity = event.severity.as_str().to_ascii_lowercase();
        let sequence = event.sequence.to_string();
        let headers = [
            ("tokenscope-event", event.event_id()),
            ("tokenscope-severity", &severity),
            ("tokenscope-rule", event.rule()),
            ("tokenscope-node", &self.node.name),
            ("tokenscope-sequence", &sequence),
            ("tokenscope-schema", "ocsf/1.8.0"),
        ];
        let all = OwnedHeaders::new_with_capacity(headers.len());
        let all =
            headers.into_iter().fold(all, |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let record = FutureRecord::to(&self.settings.topic)
            .key(self.settings.key.of(event))
            .payload(event.json())
            .timestamp(i64::try_from(event.time_ms).unwrap_or_default())
            .headers(all);
        producer.send_result(record).map_err(|(error, _record)| error)
    }

    fn judge(&self, index: usize, error: &KafkaError, tally: &mut Tally) {
        let code = error.rdkafka_error_code();
        if code.is_some_and(is_about_the_record) {
            let why = code.map_or_else(|| "refused".to_owned(), |code| code.to_string());
            tally.unwanted.push((index, why));
        } else {
            tally.trouble.get_or_insert_with(|| self.explain(code));
        }
    }

    /// Why a record was not stored, and what to do about it.
    fn explain(&self, code: Option<RDKafkaErrorCode>) -> Words {
        use RDKafkaErrorCode as Code;
        let Settings { topic, .. } = &self.settings;
        let Some(code) = code else { return "the producer failed".into() };
        let newest = self.reporter.newest();
        match (code, newest) {
            (Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition, _) => {
                format!("there is no topic `{topic}`: create it").into()
            }
            (Code::TopicAuthorizationFailed, _) => format!("no right to write to `{topic}`").into(),
            (Code::ClusterAuthorizationFailed, _) => {
                "no right to write idempotently: grant IDEMPOTENT_WRITE on the cluster".into()
            }
            (Code::MessageTimedOut | Code::AllBrokersDown | Code::BrokerTransportFailure, Some(words)) => {
                words
            }
            (code, Some(words)) => format!("{code}: {words}").into(),
            (Code::MessageTimedOut, None) => "no acknowledgement in time".into(),
            (code, None) => code.to_string().into(),
        }
    }
}

/// Whether a record will be refused however often it comes: it is too large, or not what the topic takes.
fn is_about_the_record(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidRecord | Code::InvalidTimestamp
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Severity;
    use crate::render::Kind;

    #[test]
    fn an_event_without_its_key_has_its_id() {
        let json = serde_json::json!({
            "finding_info": {"uid": "A", "analytic": {"uid": "alg-none"}},
            "evidences": [{"actor": {"user": {"uid": "alice"}}, "src_endpoint": {"ip": "10.0.0.1"}}],
        });
        let event = Told::new(1, 0, Severity::Low, Kind::Alert, json.to_string().into());
        let keys = [Key::AlertId, Key::Principal, Key::Address, Key::Rule, Key::Token];
        assert_eq!(keys.map(|key| key.of(&event)), ["A", "alice", "10.0.0.1", "alg-none", "A"]);
    }
}
