//! Fetches issuers' keys: from files, key set URLs, OpenID Connect discovery. The token stage's only I/O.
//!
//! Bias: towards the keys we have. Whatever a server does, keys that were good stay in use until better ones come;
//! what changes is published as a whole new [`KeyRing`], which nobody has to lock.

pub mod http;
mod schedule;
mod tend;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::token::jose::json::{self, Value};
use crate::token::keys::{KeyRing, KeySet, KeysError};
use crate::token::settings::{Issuer, KeySource, TokenSettings};
use crate::token::stage::Wanted;
use http::Limits;
use tend::Tended;

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
            tending.push(Tended::new(&self, index, issuer, &publish).run(receiver));
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

/// Reads an issuer's keys out of what was fetched. Logs keys that cannot be used.
fn keys(text: &[u8], issuer: &Issuer) -> Result<KeySet, KeysError> {
    let set = KeySet::read(text, &issuer.algorithms)?;
    for (place, error) in &set.refused {
        tracing::debug!(issuer = %issuer.issuer, place, %error, "a key is not used");
    }
    Ok(set)
}

/// The key set's URL out of a discovery document that is the issuer's own (OpenID Connect Discovery section 4.3).
fn keys_url(text: &[u8], issuer: &str) -> Result<String, FetchError> {
    let (mut named, mut url) = (None, None);
    let report = json::members(text, &mut |name, value| match (&*name, value) {
        ("issuer", Value::Text(text)) => named = Some(text),
        ("jwks_uri", Value::Text(text)) => url = Some(text),
        _ => {}
    });
    if !report.is_strict() {
        return Err(FetchError::Discovery("is not strict JSON"));
    }
    if named.as_deref() != Some(issuer) {
        return Err(FetchError::Discovery("is that of another issuer"));
    }
    url.map(std::borrow::Cow::into_owned).ok_or(FetchError::Discovery("names no jwks_uri"))
}

/// Reads a regular file up to a limit. Blocks, as a local disk does; a pipe or device would block for good.
pub(in crate::token) fn read_file(path: &Path, max_bytes: usize) -> Result<Vec<u8>, FetchError> {
    let failed = |error: std::io::Error| FetchError::File(format!("{}: {error}", path.display()));
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FetchError::File(format!("{}: not a regular file", path.display())));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(max_bytes as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > max_bytes { Err(FetchError::TooLarge(max_bytes)) } else { Ok(text) }
}

/// Runs all of them at once in this task, and gives their results in order. Whenever one of them can go on, each is
/// asked: that is nothing for the few issuers that a sensor has.
pub(in crate::token) async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut ready = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *output = Some(done),
                    Poll::Pending => ready = false,
                }
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
