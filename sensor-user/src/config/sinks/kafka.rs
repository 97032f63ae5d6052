//! Keys of a sink of type `kafka`.

use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::{place, tls};
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, choose, excerpt, quote};
use crate::sink::client::TlsSettings;
use crate::sink::kafka::producer::{Client, Compression, Mechanism, Sasl, check_option};
use crate::sink::kafka::{Key, Settings};
use crate::sink::wire::Place;

/// Reads what is particular to it. `timeout` is how long one delivery may take.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>, timeout: Duration) -> Option<Settings> {
    let doc = "The topic.";
    let topic = s.word("topic", Topic("tokenscope.alerts".to_owned()), doc).0;
    let doc = "What the key of a record is: alert_id, principal, token, address or rule. Records of one key are in order.";
    let key = s.word("key", Key::AlertId, doc);
    let client = read_client(s, resolver, timeout)?;
    Some(Settings { client, topic, key })
}

/// Reads how a cluster is reached.
fn read_client(s: &mut Section<'_, '_>, resolver: Resolver<'_>, timeout: Duration) -> Option<Client> {
    let doc = "Brokers to begin with, HOST:PORT; they name the others.";
    let brokers = s.words::<Broker>("brokers", Vec::new(), doc);
    if brokers.is_empty() && !s.is_set("brokers") {
        let problem = Problem::error(s.span_of("brokers"), "`brokers` is missing");
        s.report(problem.hint("add `brokers: [HOST:9092]`"));
    }
    let doc = "How batches are compressed: zstd, lz4, snappy, gzip or none.";
    let compression = s.word("compression", Compression::Zstd, doc);
    let doc = "Whether connections are encrypted. Left out: if `tls` names something.";
    let encrypt = s.optional::<bool>("encrypt", doc);
    let keys = tls::read(s, resolver);
    let is_encrypted = encrypt.unwrap_or(keys != TlsSettings::default());
    if !is_encrypted && keys != TlsSettings::default() {
        s.report(Problem::error(s.span_of("tls"), "`tls` means nothing with `encrypt: false`"));
    }
    let sasl = read_sasl(s, resolver);
    if s.is_set("sasl") && !is_encrypted {
        for broker in &brokers {
            place::warn_of_listeners(s, "sasl", &broker.0);
        }
    }
    let doc = "Further properties of librdkafka, by their names.";
    let options = s.section("options", doc, read_options);
    if brokers.is_empty() || (s.is_set("sasl") && sasl.is_none()) {
        return None;
    }
    let brokers = brokers.into_iter().map(|broker| broker.0.to_string()).collect();
    Some(Client { brokers, tls: is_encrypted.then_some(keys), sasl, compression, options, timeout })
}

fn read_sasl(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Sasl> {
    let doc =
        "How a password is shown to be known: scram-sha-512, scram-sha-256 or plain. Left out: without one.";
    let mechanism = s.optional::<Mechanism>("sasl", doc);
    let user = s.optional::<String>("user", "The user.");
    let password = resolver.secret(s, "password", "Its password, env:NAME or file:PATH.");
    for key in ["user", "password"] {
        if s.is_set(key) != s.is_set("sasl") {
            let message = "`sasl`, `user` and `password` need each other";
            s.report(Problem::error(s.span_of(key), message));
            break;
        }
    }
    Some(Sasl { mechanism: mechanism?, user: user?, password: password? })
}

fn read_options(s: &mut Section<'_, '_>) -> Vec<(String, String)> {
    let mut options = Vec::new();
    for key in s.keys() {
        let Some(value) = s.optional::<String>(&key.text, "") else { continue };
        match check_option(&key.text, &value) {
            Ok(()) => options.push((key.text.clone(), value)),
            // Nobody knows what was meant to be there.
            Err(why) => s.report(Problem { secret: true, ..Problem::error(key.span, why) }),
        }
    }
    options
}

/// A topic's name.
struct Topic(String);

impl Word for Topic {
    const WHAT: &'static str = "a topic's name";

    fn parse(text: &str) -> Result<Self, Wrong> {
        // What a broker takes: org.apache.kafka.common.internals.Topic.
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.len() > 249 || !text.chars().all(fits) || matches!(text, "." | "..") {
            let wrong = format!("is {}; a topic has up to 249 letters, digits, ., - and _", excerpt(text));
            return Err(Wrong::new(wrong));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// A broker.
struct Broker(Place);

impl Word for Broker {
    const WHAT: &'static str = "HOST:PORT";
    const WHAT_MANY: &'static str = "HOST:PORT";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong { secret: true, ..Wrong::new("holds what is no HOST:PORT") };
        let hint = "write kafka.example:9092";
        // As a URL it is split as everywhere, and what could end a list of brokers is refused.
        let whole = format!("kafka://{text}");
        let (url, place) =
            place::url(&whole, &[("kafka", 9092)], "HOST:PORT").map_err(|_wrong| wrong().hint(hint))?;
        if !url.path().is_empty() || place.host.contains([',', '%', ' ']) {
            return Err(wrong().hint(hint));
        }
        Ok(Self(place))
    }

    fn show(&self) -> String {
        quote(&self.0.to_string())
    }
}

impl Word for Key {
    const WHAT: &'static str = "alert_id, principal, token, address or rule";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &KEYS)
    }

    fn show(&self) -> String {
        name_of(self, &KEYS)
    }
}

const KEYS: [(&str, Key); 5] = [
    ("alert_id", Key::AlertId),
    ("principal", Key::Principal),
    ("token", Key::Token),
    ("address", Key::Address),
    ("rule", Key::Rule),
];

impl Word for Mechanism {
    const WHAT: &'static str = "scram-sha-512, scram-sha-256 or plain";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(&text.to_ascii_lowercase(), &MECHANISMS)
    }

    fn show(&self) -> String {
        name_of(self, &MECHANISMS)
    }
}

const MECHANISMS: [(&str, Mechanism); 3] = [
    ("scram-sha-512", Mechanism::ScramSha512),
    ("scram-sha-256", Mechanism::ScramSha256),
    ("plain", Mechanism::Plain),
];

impl Word for Compression {
    const WHAT: &'static str = "zstd, lz4, snappy, gzip or none";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &COMPRESSIONS)
    }

    fn show(&self) -> String {
        name_of(self, &COMPRESSIONS)
    }
}

const COMPRESSIONS: [(&str, Compression); 5] = [
    ("zstd", Compression::Zstd),
    ("lz4", Compression::Lz4),
    ("snappy", Compression::Snappy),
    ("gzip", Compression::Gzip),
    ("none", Compression::None),
];

fn name_of<T: PartialEq>(value: &T, names: &[(&str, T)]) -> String {
    names.iter().find(|(_, other)| other == value).map_or_else(String::new, |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_one_place() {
        let read = |text| Broker::parse(text).map(|broker| broker.0.to_string()).ok();
        assert_eq!(read("kafka:9092"), Some("kafka:9092".into()));
        assert_eq!(read("[::1]:1"), Some("[::1]:1".into()));
        assert_eq!(read("kafka"), Some("kafka:9092".into()));
        for bad in ["", "a:1,b:2", "me:pw@a:1", "a:1/x", "a b:1", "a:99999", "PLAINTEXT://a:1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_read_back() {
        for key in ["alert_id", "principal", "token", "address", "rule"] {
            assert_eq!(Key::parse(key).unwrap().show(), key);
        }
        assert!(Topic::parse("a b").is_err() && Topic::parse("..").is_err());
        assert_eq!(Mechanism::parse("SCRAM-SHA-256").ok(), Some(Mechanism::ScramSha256));
    }
}
