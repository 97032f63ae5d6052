//! Sinks: where alerts go. One file a sink, one variant of [`Target`], one arm of [`open`].
//!
//! A sink delivers a batch of events and says what became of it. It keeps nothing: the spool holds every event until
//! the sink has said that the other end took it, and delivery decides when to try again. So a sink has no queue,
//! no retry and no clock of its own.

pub mod alertmanager;
pub mod client;
pub mod clock;
mod exchange;
pub mod file;
mod halves;
pub mod http;
pub mod kafka;
pub mod nats;
pub mod otlp;
pub mod redis;
pub mod s3;
pub mod sample;
pub mod settings;
pub mod smtp;
pub mod stdout;
pub mod syslog;
mod taken;
pub mod trial;
pub mod wire;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::detect::Severity;
use crate::render::Told;
use crate::spool::Cursor;

pub use crate::render::Node;
pub use settings::{Hours, Picks, Settings, Target};

/// Longest reason and answer that are kept, in bytes: what a line of a log holds.
const MAX_WORDS: usize = 300;

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other end took every event, except those that it will never take.
    Done {
        /// Events that the other end refuses for good: they are dead letters.
        refused: Vec<Refusal>,
        /// What it answered, for `sinks test`.
        answer: Words,
    },
    /// Nothing is known to have been taken: the same batch must come again.
    Later {
        /// Why.
        reason: Words,
        /// Not before this has passed, if the other end says so (`Retry-After`).
        after: Option<Duration>,
    },
}

/// An event that the other end refuses for good.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub reason: Words,
}

/// A few words from the other end or about it: bounded and printable, as they come from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Box<str>);

impl Words {
    /// The start of these words.
    #[must_use]
    pub fn new(words: &str) -> Self {
        Self(crate::detect::text::printable(words.as_bytes(), MAX_WORDS).into_boxed_str())
    }

    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Words {
    fn from(words: &str) -> Self {
        Self::new(words)
    }
}

impl From<String> for Words {
    fn from(words: String) -> Self {
        Self::new(&words)
    }
}

impl Outcome {
    /// Everything was taken.
    #[must_use]
    pub fn done(answer: impl Into<Words>) -> Self {
        Self::Done { refused: Vec::new(), answer: answer.into() }
    }

    /// Nothing of `events` will ever be taken.
    #[must_use]
    pub fn refused(events: usize, reason: impl Into<Words>) -> Self {
        let reason = reason.into();
        let refused = (0..events).map(|index| Refusal { index, reason: reason.clone() }).collect();
        Self::Done { refused, answer: reason }
    }

    /// It must come again.
    #[must_use]
    pub fn later(reason: impl Into<Words>) -> Self {
        Self::Later { reason: reason.into(), after: None }
    }
}

/// What a delivery comes to in the end.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// How much a sink takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Events, at least 1.
    pub events: usize,
    /// Bytes of their OCSF JSON; a single larger event comes alone.
    pub bytes: usize,
}

impl Batch {
    /// One event at a time: for sinks where each is a message of its own.
    pub const ONE: Self = Self { events: 1, bytes: usize::MAX };
}

/// Where alerts go.
pub trait Sink: Send {
    /// How much it takes at once.
    fn batch(&self) -> Batch;

    /// Delivers events, in order, at least one. Dropped when it takes longer than the sink's timeout; then it must not
    /// matter whether the other end took them.
    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a>;

    /// How long delivery may gather events of this severity before it hands them over as one batch.
    fn patience(&self, _severity: Severity) -> Duration {
        Duration::ZERO
    }

    /// Opens again what has to be opened again, a rotated file, renewed certificates: SIGHUP and SIGUSR1.
    fn reopen(&mut self) {}

    /// The newest event of each lane that the other end is known to hold, if it can tell by itself (a file): after a crash
    /// delivery goes on behind it. 0: it cannot tell.
    fn holds(&mut self) -> Cursor {
        Cursor::default()
    }
}

/// Why a sink cannot be opened at all. What may heal by itself is no such error but [`Outcome::Later`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// Opens a sink. What is not there now may come: only what can never work is an error.
///
/// # Errors
/// When it can never work as configured.
pub fn open(target: &Target, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    match target {
        Target::Stdout(settings) => {
            Ok(Box::new(stdout::Stdout::new(std::io::stdout(), settings.format, settings.colour)))
        }
        Target::File(settings) => file::open(settings, node),
        Target::Http(settings) => http::open(settings, node),
        Target::Alertmanager(settings) => alertmanager::open(settings, node),
        Target::Otlp(settings) => otlp::open(settings, node),
        Target::Kafka(settings) => kafka::open(settings, node),
        Target::Redis(settings) => redis::open(settings, node),
        Target::Nats(settings) => nats::open(settings, node),
        Target::S3(settings) => s3::open(settings, node),
        Target::Syslog(settings) => syslog::open(settings, node),
        Target::Smtp(settings) => smtp::open(settings, node),
    }
}
