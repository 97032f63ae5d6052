//! Fetches issuers' keys: from files, key set URLs, OpenID Connect discovery. The token stage's only I/O.
//!
//! Bias: towards the keys we have. Whatever a server does, keys that were good stay in use until better ones come;
//! what changes is published as a whole new [`KeyRing`], which nobody has to lock.

pub mod http;
mod schedule;

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::token::jose::json::{self, Value};
use crate::token::keys::{KeyRing, KeySet, KeysError};
use crate::token::settings::{Issuer, KeySource, TokenSettings};
use crate::token::stage::Wanted;
use http::Limits;
use schedule::Schedule;

/// Why an issuer's keys could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL may not be fetched.
    #[error("{url} is not fetched: {problem}")]
    Url {
        /// The URL without its query.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No client could be made: no trusted certificates, for example.
    #[error("no https client: {0}")]
    Client(String),
    /// Not reached, or broken off.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// It took too long.
    #[error("no whole answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Another status than 200.
    #[error("the answer has status {0}")]
    Status(u16),
    /// A redirect that is not followed.
    #[error("a redirect to {to} is refused: {why}")]
    Redirect {
        /// Where to, without query.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// Too many of them.
    #[error("more than {0} redirects")]
    Redirects(usize),
    /// The body is compressed, which was not asked for.
    #[error("the answer is compressed although that was not asked for")]
    Encoded,
    /// The body is too long.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The discovery document is no good.
    #[error("the discovery document {0}")]
    Discovery(&'static str),
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// There are no keys in it.
    #[error("the answer {0}")]
    Keys(#[from] KeysError),
}

/// How often a key file is looked at.
const FILE_POLL: Duration = Duration::from_secs(5);

/// Most demands for one issuer that wait to be looked at; the schedule ignores all but a few anyway.
const MAX_DEMANDS: usize = 64;

/// What one fetch gave.
struct Fetched {
    text: Vec<u8>,
    url: Option<Arc<str>>,
    max_age: Option<Duration>,
}

/// Fetches the keys of all issuers.
#[derive(Debug)]
pub struct Fetcher {
    issuers: Vec<Issuer>,
    refresh: Duration,
    limits: Limits,
    client: Option<reqwest::Client>,
}

impl Fetcher {
    /// A fetcher for the issuers of these settings.
    ///
    /// # Errors
    /// When a URL is needed and no https client can be made.
    pub fn new(settings: &TokenSettings) -> Result<Self, FetchError> {
        Self::with_limits(settings, Limits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_limits(settings: &TokenSettings, limits: Limits) -> Result<Self, FetchError> {
        let remote = settings.issuers.iter().any(|issuer| !matches!(issuer.keys, KeySource::File(_)));
        let client = if remote { Some(http::client()?) } else { None };
        Ok(Self { issuers: settings.issuers.clone(), refresh: settings.keys_refresh, limits, client })
    }

    /// Fetches every issuer's keys once, all at the same time. For replay.
    pub async fn once(&self) -> (KeyRing, Vec<(usize, FetchError)>) {
        let mut ring = KeyRing::empty(self.issuers.len());
        let mut failures = Vec::new();
        let fetches = self.issuers.iter().map(|issuer| self.fetch(issuer)).collect();
        for (index, (issuer, fetched)) in self.issuers.iter().zip(all(fetches).await).enumerate() {
            match fetched.and_then(|fetched| Ok((keys(&fetched.text, issuer)?, fetched.url))) {
                Ok((keys, url)) => ring = ring.with_keys(index, keys.keys, url),
                Err(error) => {
                    ring = ring.with_failure(index);
                    failures.push((index, error));
                }
            }
        }
        (ring, failures)
    }

    /// Keeps every issuer's keys fresh until nobody listens to `publish` any more. `wanted` brings what
    /// [`Tokens::take_wanted`](crate::token::Tokens::take_wanted) found missing. To be spawned by the runtime.
    pub async fn run(self, publish: watch::Sender<Arc<KeyRing>>, mut wanted: mpsc::Receiver<Wanted>) {
        let mut demands = Vec::new();
        let mut tending = Vec::new();
        for (index, issuer) in self.issuers.iter().enumerate() {
            let (sender, receiver) = mpsc::channel(MAX_DEMANDS);
            demands.push(sender);
            tending.push(self.tend(index, issuer, &publish, receiver));
        }
        let route = async {
            while let Some(wanted) = wanted.recv().await {
                if let Some(sender) = demands.get(wanted.issuer) {
                    // A full queue means that a fetch is under way already.
                    let _ = sender.try_send(wanted.kid);
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = publish.closed() => {}
            () = route => {}
            _ = all(tending) => {}
        }
    }

    /// Looks after one issuer for ever.
    async fn tend(
        &self,
        index: usize,
        issuer: &Issuer,
        publish: &watch::Sender<Arc<KeyRing>>,
        mut demands: mpsc::Receiver<Box<str>>,
    ) {
        let start = Instant::now();
        let mut schedule = Schedule::new(self.refresh);
        let mut known = Known::default();
        loop {
            tokio::select! {
                Some(kid) = demands.recv() => schedule.want(start.elapsed(), &kid),
                () = tokio::time::sleep_until(start + schedule.next()) => {
                    if let KeySource::File(path) = &issuer.keys
                        && !known.file_changed(path)
                    {
                        schedule.succeeded(start.elapsed(), None, jitter());
                    } else {
                        let fetched = self.fetch(issuer).await;
                        let now = start.elapsed();
                        match known.publish(index, issuer, fetched, publish) {
                            Ok(max_age) => schedule.succeeded(now, max_age, jitter()),
                            Err(()) => schedule.failed(now, jitter()),
                        }
                    }
                }
                () = tokio::time::sleep(FILE_POLL), if known.should_look(issuer) => {
                    schedule.want_now(start.elapsed());
                }
            }
        }
    }

    async fn fetch(&self, issuer: &Issuer) -> Result<Fetched, FetchError> {
        match &issuer.keys {
            KeySource::File(path) => {
                let text = read_file(path, self.limits.bytes)?;
                Ok(Fetched { text, url: None, max_age: None })
            }
            KeySource::Url(url) => self.fetch_url(url).await,
            KeySource::Discovery => {
                let base = issuer.issuer.trim_end_matches('/');
                let document = self.fetch_url(&format!("{base}/.well-known/openid-configuration")).await?;
                let url = keys_url(&document.text, &issuer.issuer)?;
                self.fetch_url(&url).await
            }
        }
    }

    async fn fetch_url(&self, url: &str) -> Result<Fetched, FetchError> {
        let client = self.client.as_ref().ok_or(FetchError::Client("none was made".into()))?;
        let body = http::get(client, url, self.limits).await?;
        Ok(Fetched { text: body.bytes, url: Some(url.into()), max_age: body.max_age })
    }
}

/// Fetches every issuer's keys once and waits for it: for callers without a runtime of their own.
///
/// # Errors
/// When no client or runtime can be made. Failures of single issuers are in the list, by their place.
pub fn fetch_all_once(settings: &TokenSettings) -> Result<(KeyRing, Vec<(usize, FetchError)>), FetchError> {
    let fetcher = Fetcher::new(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| FetchError::Client(error.to_string()))?;
    Ok(runtime.block_on(fetcher.once()))
}

/// What was last published for an issuer.
#[derive(Default)]
struct Known {
    text: Option<digest::Digest>,
    file: Option<(SystemTime, u64)>,
}
