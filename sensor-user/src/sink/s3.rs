//! An archive in an S3 bucket: objects of JSON lines, compressed, by the hour of what they tell.
//!
//! An object is called `PREFIX/YYYY/MM/DD/HH/NODE-FIRST-LAST.ndjson.zst` by the numbers of its first and last event. A
//! repeat of a batch writes the same objects again. After a crash a batch may be cut elsewhere: an event is then in two
//! objects whose numbers overlap, with the same id in both. Times are UTC. Nothing is refused for good: what S3 minds
//! (a bucket, a right, a clock) an operator can mend, and an archive should have no holes.

mod client;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore as _, PutOptions, RetryConfig};

use crate::detect::Severity;
use crate::render::Told;
use crate::sink::client::ClientSettings;
use crate::sink::{Batch, Delivery, Node, Outcome, Sink, Unusable, Words};
use crate::token::settings::Secret;
use client::{Connector, Last, Seen};

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The bucket.
    pub bucket: String,
    /// What the objects' names begin with; may be empty.
    pub prefix: String,
    /// The region.
    pub region: String,
    /// Where it is, if not at Amazon: `https://HOST[:PORT]`.
    pub endpoint: Option<String>,
    /// Whether the bucket is in the path and not in the host's name.
    pub path_style: bool,
    /// The keys; none: those that the environment or the instance gives.
    pub keys: Option<Keys>,
    /// How objects are encrypted where they lie.
    pub encryption: Encryption,
    /// How events are gathered.
    pub gather: Duration,
    /// How the server is reached.
    pub client: ClientSettings,
}

/// Access keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The id.
    pub id: Secret,
    /// The secret.
    pub secret: Secret,
    /// The token of temporary ones.
    pub token: Option<Secret>,
}

/// How objects are encrypted where they lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket does by itself.
    #[default]
    Bucket,
    /// By keys of S3 (`AES256`).
    S3,
    /// By the key management service, with this key or its own (`aws:kms`).
    Kms(Option<String>),
}

/// One object's worth: large enough that objects are few, small enough to be held in memory twice.
const BATCH: Batch = Batch { events: 20_000, bytes: 8 << 20 };

/// The level at which zstd is nearly as small as at higher ones, and quick.
const LEVEL: i32 = 3;

/// A bucket.
pub struct S3 {
    settings: Settings,
    node: String,
    store: Option<AmazonS3>,
    last: Last,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Opens it.
///
/// # Errors
/// When keys are no text.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    let is_text = |secret: &Secret| str::from_utf8(&secret.0).is_ok();
    if let Some(Keys { id, secret, token }) = &settings.keys
        && !(is_text(id) && is_text(secret) && token.as_ref().is_none_or(is_text))
    {
        return Err(Unusable("the access keys are no text".into()));
    }
    Ok(Box::new(S3 {
        settings: settings.clone(),
        node: plain(&node.name),
        store: None,
        last: Last::default(),
    }))
}

impl Sink for S3 {
    fn batch(&self) -> Batch {
        BATCH
    }

    fn patience(&self, _severity: Severity) -> Duration {
        self.settings.gather
    }

    fn reopen(&mut self) {
        // Certificates may be new.
        self.store = None;
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(self.archive(events))
    }
}

impl S3 {
    async fn archive(&mut self, events: &[Arc<Told>]) -> Outcome {
        let store = match self.store.take().map_or_else(|| self.make(), Ok) {
            Ok(store) => store,
            Err(why) => return Outcome::later(why),
        };
        let mut outcome = None;
        let mut names = Vec::new();
        for (hour, events) in by_hour(events) {
            let name = self.name(&hour, &events);
            self.last.forget();
            if let Err(error) = put(&store, &name, &events).await {
                outcome = Some(self.explain(&error));
                break;
            }
            names.push(name);
        }
        self.store = Some(store);
        outcome.unwrap_or_else(|| Outcome::done(format!("written: {}", names.join(", "))))
    }

    fn make(&self) -> Result<AmazonS3, String> {
        let Settings { bucket, region, endpoint, path_style, keys, encryption, client, .. } = &self.settings;
        let connector = Connector::new(client, &self.last).map_err(|unusable| unusable.to_string())?;
        let text = |secret: &Secret| String::from_utf8_lossy(&secret.0).into_owned();
        let mut builder = match keys {
            Some(Keys { id, secret, token }) => {
                let builder = AmazonS3Builder::new();
                let builder = builder.with_access_key_id(text(id)).with_secret_access_key(text(secret));
                token.iter().fold(builder, |builder, token| builder.with_token(text(token)))
            }
            // A pod's or an instance's role is told by variables that are not ours to name.
            None => AmazonS3Builder::from_env(),
        };
        builder = builder
            .with_bucket_name(bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(!path_style)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(connector);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(hosted(endpoint, bucket, *path_style));
        }
        let wrong = |error: object_store::Error| error.to_string();
        let kind: AmazonS3ConfigKey = "aws_server_side_encryption".parse().map_err(wrong)?;
        builder = match encryption {
            Encryption::Bucket => builder,
            Encryption::S3 => builder.with_config(kind, "AES256"),
            Encryption::Kms(None) => builder.with_config(kind, "aws:kms"),
            Encryption::Kms(Some(key)) => builder.with_sse_kms_encryption(key),
        };
        // Its errors are about settings and hold none of the keys.
        builder.build().map_err(wrong)
    }

    /// The name of the object that holds these.
    fn name(&self, hour: &str, events: &[&Told]) -> String {
        let (first, last) = (events.first(), events.last());
        let number = |event: Option<&&Told>| match event {
            // A sample that was never in the spool.
            Some(event) if event.sequence == 0 => plain(event.event_id()),
            Some(event) => format!("{:012}", event.sequence),
            None => String::new(),
        };
        let prefix = self.settings.prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{prefix}{slash}{hour}/{}-{}-{}.ndjson.zst", self.node, number(first), number(last))
    }

    /// Why an object was not written, and what to do about it.
    fn explain(&self, error: &object_store::Error) -> Outcome {
        let Settings { bucket, prefix, region, .. } = &self.settings;
        let Some(Seen { host, status, code, after, trouble }) = self.last.seen() else {
            // Nothing was asked: there are no credentials, or a setting is wrong.
            return Outcome::later(error.to_string());
        };
        let reason = match (status, code.as_str()) {
            (0, _) => format!("{host}: {trouble}"),
            (_, "NoSuchBucket") => format!("there is no bucket `{bucket}` at {host}: create it"),
            (_, "RequestTimeTooSkewed") => format!("{host} finds that this host's clock is wrong"),
            (_, "ExpiredToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => {
                format!("{host} refuses the keys: {code}")
            }
            (301 | 307 | 308, _) | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") => {
                format!("{host}: the bucket `{bucket}` is not in the region `{region}`")
            }
            (403, code) => {
                format!("{host} refuses ({code}): s3:PutObject on {bucket}/{prefix}/* is needed")
            }
            (404, code) => format!("{host} has no bucket `{bucket}` ({code}): `endpoint`, `path_style`?"),
            (status, code) => format!("{host} answers {status} {code}"),
        };
        Outcome::Later { reason: Words::new(&reason), after }
    }
}

async fn put(store: &AmazonS3, name: &str, events: &[&Told]) -> Result<(), object_store::Error> {
    let mut lines = Vec::with_capacity(events.iter().map(|event| event.json().len() + 1).sum());
    for event in events {
        lines.extend_from_slice(event.json().as_bytes());
        lines.push(b'\n');
    }
    let wrong =
        |error: std::io::Error| object_store::Error::Generic { store: "zstd", source: Box::new(error) };
    let object = zstd::bulk::compress(&lines, LEVEL).map_err(wrong)?;
    drop(lines);
    let attributes = Attributes::from_iter([(Attribute::ContentType, "application/zstd")]);
    let options = PutOptions { attributes, ..PutOptions::default() };
    store.put_opts(&Path::from(name), object.into(), options).await.map(drop)
}

/// Events by the hour in which they happened, in the order of their numbers in each.
fn by_hour(events: &[Arc<Told>]) -> BTreeMap<String, Vec<&Told>> {
    let mut hours = BTreeMap::<String, Vec<&Told>>::new();
    for event in events {
        // A time beyond the calendar is damaged: 1970 is where such things lie.
        let time = i64::try_from(event.time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let hour = time.unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y/%m/%d/%H").to_string();
        hours.entry(hour).or_default().push(event);
    }
    hours
}

/// A bucket that is in the host's name is written there.
fn hosted(endpoint: &str, bucket: &str, path_style: bool) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) if !path_style => format!("{scheme}://{bucket}.{rest}"),
        _ => endpoint.to_owned(),
    }
}

/// A part of a name that needs no escapes and adds no folder.
fn plain(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    text.chars().take(128).map(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Kind;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn told(sequence: u64, time_ms: u64) -> Arc<Told> {
        Arc::new(Told::new(sequence, time_ms, Severity::Low, Kind::Alert, "{}".into()))
    }

    fn secret(text: &str) -> Secret {
        Secret(Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn settings() -> Settings {
        Settings {
            bucket: "b".into(),
            prefix: "/alerts/".into(),
            region: "us-east-1".into(),
            endpoint: Some("https://s3.example:9000".into()),
            path_style: true,
            keys: Some(Keys { id: secret("id"), secret: secret("hunter2"), token: None }),
            encryption: Encryption::Bucket,
            gather: Duration::from_mins(5),
            client: ClientSettings::default(),
        }
    }

    fn names(events: &[Arc<Told>], node: &str) -> Vec<String> {
        let sink = S3 { settings: settings(), node: plain(node), store: None, last: Last::default() };
        assert!(!format!("{sink:?}").contains("hunter2"));
        by_hour(events).iter().map(|(hour, events)| sink.name(hour, events)).collect()
    }

    #[test]
    fn objects_lie_by_the_hour_and_are_called_by_their_numbers() {
        // 2026-11-21T23:59:59.999Z and the millisecond after it.
        let midnight = 1_795_305_600_000;
        let events = [told(8, midnight - 1), told(9, midnight), told(11, midnight)];
        let expected = [
            "alerts/2026/11/21/23/node_1-000000000008-000000000008.ndjson.zst",
            "alerts/2026/11/22/00/node_1-000000000009-000000000011.ndjson.zst",
        ];
        assert_eq!(names(&events, "node/1"), expected);
        assert_eq!(names(&[told(1, u64::MAX)], "n")[0].split("/n-").next(), Some("alerts/1970/01/01/00"));
    }

    #[test]
    fn a_bucket_in_the_hosts_name_is_written_there() {
        assert_eq!(hosted("https://s3.example", "b", false), "https://b.s3.example");
        assert_eq!(hosted("https://s3.example", "b", true), "https://s3.example");
    }

    proptest! {
        #[test]
        fn every_event_is_in_one_object(times in prop::collection::vec(any::<u64>(), 1..50)) {
            let events: Vec<_> = times.iter().zip(1..).map(|(ms, number)| told(number, *ms)).collect();
            let hours = by_hour(&events);
            prop_assert_eq!(hours.values().map(Vec::len).sum::<usize>(), events.len());
            prop_assert!(hours.values().all(|hour| hour.is_sorted_by_key(|event| event.sequence)));
        }

        #[test]
        fn a_node_adds_no_folder(node in "\\PC{0,40}") {
            prop_assert_eq!(names(&[told(1, 0)], &node)[0].matches('/').count(), 5);
        }
    }
}
