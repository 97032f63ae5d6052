//! A producer: how a cluster is reached, as librdkafka's properties; and what librdkafka says, to our own log.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureProducer;

use crate::sink::Words;
use crate::sink::client::TlsSettings;
use crate::token::settings::Secret;

/// A producer that answers each record by a future.
pub type Producer = FutureProducer<Reporter>;

/// How a cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Brokers to begin with, `host:port`; they name the others.
    pub brokers: Vec<String>,
    /// How it is encrypted, if it is.
    pub tls: Option<TlsSettings>,
    /// As whom, if as anybody.
    pub sasl: Option<Sasl>,
    /// How batches are compressed.
    pub compression: Compression,
    /// Further properties of librdkafka, none of those that are ours.
    pub options: Vec<(String, String)>,
    /// How long one delivery may take. Records are given up a little before it.
    pub timeout: Duration,
}

/// As whom a client presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// How a password is shown to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// By saying it: never without TLS.
    Plain,
    /// By SCRAM (RFC 5802) with SHA-256.
    ScramSha256,
    /// By SCRAM with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// The name that Kafka has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As gzip does.
    Gzip,
    /// By Snappy.
    Snappy,
    /// By LZ4.
    Lz4,
    /// By Zstandard: brokers since 2.1.
    #[default]
    Zstd,
}

impl Compression {
    /// The name that Kafka has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Properties that have a key of their own, that delivery rests on, or by which verification could be turned off, a
/// secret written down, or code loaded. A name with `.` at its end stands for all that begin so.
const OURS: [&str; 30] = [
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "transactional.id",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "queue.buffering.max.kbytes",
    "bootstrap.servers",
    "metadata.broker.list",
    "builtin.features",
    "security.protocol",
    "sasl.",
    "ssl.ca.",
    "ssl_ca",
    "ssl.certificate.",
    "ssl_certificate",
    "ssl.key.",
    "ssl_key",
    "ssl.keystore.",
    "ssl.engine.",
    "ssl.providers",
    "ssl_engine_callback_data",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "compression.",
    "plugin.library.paths",
    "test.",
    "log_level",
];

/// Bytes that wait inside librdkafka at most, in KiB: a batch is smaller by far.
const MAX_QUEUED_KIB: &str = "16384";

/// Whether a further property may be set so.
///
/// # Errors
/// In words, if it is ours, unknown, or has another range.
pub fn check_option(name: &str, value: &str) -> Result<(), String> {
    let is_ours = |ours: &&str| match ours.strip_suffix('.') {
        Some(start) => name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        None => name == *ours,
    };
    if OURS.iter().any(is_ours) {
        return Err(format!(
            "`{name}` is not to be set here: it has a key of its own, or delivery rests on it"
        ));
    }
    let mut config = ClientConfig::new();
    config.set(name, value);
    config.create_native_config().map(drop).map_err(|error| explain(&error))
}

/// What is wrong with a property. Of a value, which might be a secret, nothing is said unless it is an option's.
fn explain(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, name, _) if !why.is_empty() => format!("`{name}`: {why}"),
        KafkaError::ClientConfig(_, _, name, _) => format!("`{name}` is not what librdkafka expects"),
        KafkaError::ClientCreation(why) => why.clone(),
        other => other.to_string(),
    }
}

impl Client {
    /// Whether a producer can be made of it at all.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        self.options.iter().try_for_each(|(name, value)| check_option(name, value))
    }

    /// A producer that loses and repeats nothing while it lives.
    ///
    /// # Errors
    /// In words: a file that is missing, a property that does not go with another.
    pub fn producer(&self, reporter: &Reporter) -> Result<Producer, String> {
        let config = self.config()?;
        config.create_with_context(reporter.clone()).map_err(|error| explain(&error))
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        // Quicker than librdkafka's own, as delivery waits longer and longer by itself; may be set otherwise.
        config.set("reconnect.backoff.ms", "100").set("reconnect.backoff.max.ms", "2000");
        config.set("client.id", "tokenscope").set("log.connection.close", "false");
        for (name, value) in &self.options {
            config.set(name, value);
        }
        let timeout = (self.timeout.mul_f64(0.8).as_millis()).max(50).to_string();
        config
            .set("bootstrap.servers", self.brokers.join(","))
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", self.compression.as_str())
            .set("queue.buffering.max.kbytes", MAX_QUEUED_KIB)
            .set("message.timeout.ms", timeout);
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            encrypt(tls, &mut config)?;
        }
        if let Some(Sasl { mechanism, user, password }) = &self.sasl {
            let password =
                str::from_utf8(&password.0).map_err(|_error| "the password is no text".to_owned())?;
            config
                .set("sasl.mechanism", mechanism.as_str())
                .set("sasl.username", user.as_str())
                .set("sasl.password", password);
        }
        Ok(config)
    }
}

/// librdkafka trusts either the system's authorities or those of a file; we want both unless told otherwise.
fn encrypt(tls: &TlsSettings, config: &mut ClientConfig) -> Result<(), String> {
    // Found wanting here it says which file is wrong.
    tls.rustls().map_err(|unusable| unusable.to_string())?;
    config.set("ssl.endpoint.identification.algorithm", "https");
    config.set("enable.ssl.certificate.verification", "true");
    match &tls.ca {
        Some(path) => {
            config.set("ssl.ca.location", path.to_string_lossy());
            if !tls.only_ca {
                let system = system_authorities();
                if !system.is_empty() {
                    config.set("ssl.ca.pem", system);
                }
            }
        }
        None => {
            config.set("ssl.ca.location", "probe");
        }
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        config.set("ssl.certificate.location", cert.to_string_lossy());
        config.set("ssl.key.location", key.to_string_lossy());
    }
    Ok(())
}

/// The system's authorities as one text in PEM (RFC 7468).
fn system_authorities() -> String {
    let mut text = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let _ = writeln!(
            text,
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----",
            STANDARD.encode(&certificate)
        );
    }
    text
}

/// Hears what librdkafka says: all of it goes to our log for those who want to know everything, and the newest trouble
/// is kept for the reason of a failure.
#[derive(Clone, Debug, Default)]
pub struct Reporter(Arc<Mutex<Option<Words>>>);

impl Reporter {
    /// The newest trouble.
    #[must_use]
    pub fn newest(&self) -> Option<Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was is over.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Reporter {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!("kafka: {facility}: {}", Words::new(text));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("kafka: {}", Words::new(reason));
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all are down says less than why the last one is.
        if newest.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *newest = Some(Words::new(reason));
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn client() -> Client {
        Client {
            brokers: vec!["127.0.0.1:1".into()],
            tls: Some(TlsSettings::default()),
            sasl: Some(Sasl {
                mechanism: Mechanism::ScramSha512,
                user: "me".into(),
                password: Secret(Zeroizing::new(b"hunter2".to_vec())),
            }),
            compression: Compression::Zstd,
            options: vec![("client.id".into(), "other".into())],
            timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn what_delivery_rests_on_cannot_be_changed() {
        for name in
            ["acks", "sasl.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "compression.codec"]
        {
            assert!(check_option(name, "1").unwrap_err().contains("is not to be set here"), "{name}");
        }
        assert_eq!(check_option("socket.keepalive.enable", "true"), Ok(()));
        assert_eq!(check_option("linger.ms", "50"), Ok(()));
        assert!(check_option("linger.msec", "50").unwrap_err().contains("linger.msec"));
        assert!(check_option("linger.ms", "never").is_err());
        assert!(check_option("a\0b", "1").is_err());
    }

    #[test]
    fn every_property_is_one_of_librdkafka() {
        let config = client().config().unwrap();
        config.create_native_config().unwrap();
        assert_eq!(config.get("client.id"), Some("other"));
        assert_eq!(config.get("message.timeout.ms"), Some("8000"));
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
    }

    #[test]
    fn a_producer_is_made_without_a_broker_and_shows_no_secret() {
        let client = client();
        let producer = client.producer(&Reporter::default());
        assert!(producer.is_ok(), "{:?}", producer.err());
        assert!(!format!("{client:?}").contains("hunter2"));
        let missing = TlsSettings { ca: Some("/nonexistent/ca.pem".into()), ..TlsSettings::default() };
        let client = Client { tls: Some(missing), ..client };
        assert!(client.producer(&Reporter::default()).err().unwrap().contains("/nonexistent/ca.pem"));
    }
}
