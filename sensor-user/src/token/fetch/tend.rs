//! Looks after one issuer's keys for ever: fetches when they are due, publishes when they have changed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, rand};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::schedule::Schedule;
use super::{FetchError, Fetched, Fetcher, keys};
use crate::token::keys::KeyRing;
use crate::token::settings::{Issuer, KeySource};

/// Shortest pause between two looks at a file on demand: a forger decides when they are due.
const FILE_PAUSE: Duration = Duration::from_millis(250);

/// One issuer and what was last published of it.
pub(super) struct Tended<'a> {
    fetcher: &'a Fetcher,
    index: usize,
    issuer: &'a Issuer,
    publish: &'a watch::Sender<Arc<KeyRing>>,
    /// The digest of the last text that gave keys.
    published: Option<Vec<u8>>,
    /// Why there are none now; logged when it changes.
    failing: Option<FetchError>,
}

impl<'a> Tended<'a> {
    pub(super) fn new(
        fetcher: &'a Fetcher,
        index: usize,
        issuer: &'a Issuer,
        publish: &'a watch::Sender<Arc<KeyRing>>,
    ) -> Self {
        Self { fetcher, index, issuer, publish, published: None, failing: None }
    }

    pub(super) async fn run(mut self, demands: mpsc::Receiver<Box<str>>) {
        match &self.issuer.keys {
            KeySource::File(path) => self.watch_file(path, demands).await,
            KeySource::Url(_) | KeySource::Discovery => self.watch_server(demands).await,
        }
    }

    /// Reads a file whenever its time or size has changed; tries again at every look after a failure. Whoever asks for a
    /// key is told of the next look.
    async fn watch_file(&mut self, path: &Path, mut demands: mpsc::Receiver<Box<str>>) {
        let (mut seen, mut asked) = (None, false);
        loop {
            let now = stamp(path);
            if now != seen || now.is_none() || self.failing.is_some() {
                seen = now;
                let fetched = self.fetcher.fetch(self.issuer).await;
                let _ = self.take(fetched);
            } else if asked {
                self.looked();
            }
            asked = tokio::select! {
                () = sleep(self.fetcher.limits.file_poll) => false,
                Some(_) = demands.recv() => true,
            };
            if asked {
                // Those who ask at the same time are answered together.
                sleep(FILE_PAUSE.min(self.fetcher.limits.file_poll)).await;
                while demands.try_recv().is_ok() {}
            }
        }
    }

    async fn watch_server(&mut self, mut demands: mpsc::Receiver<Box<str>>) {
        let start = Instant::now();
        let mut schedule = Schedule::new(self.fetcher.refresh);
        loop {
            tokio::select! {
                Some(kid) = demands.recv() => schedule.want(start.elapsed(), &kid),
                () = sleep_until(start + schedule.next()) => {
                    let fetched = self.fetcher.fetch(self.issuer).await;
                    let max_age = fetched.as_ref().ok().and_then(|fetched| fetched.max_age);
                    let taken = self.take(fetched);
                    let now = start.elapsed();
                    if taken {
                        schedule.succeeded(now, max_age, jitter());
                    } else {
                        schedule.failed(now, jitter());
                    }
                }
            }
        }
    }

    /// Publishes what is new. Says whether the fetch gave keys at all.
    fn take(&mut self, fetched: Result<Fetched, FetchError>) -> bool {
        let (index, name) = (self.index, self.issuer.issuer.as_str());
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return self.fail(error),
        };
        let digest = digest::digest(&digest::SHA256, &fetched.text).as_ref().to_vec();
        if self.published.as_ref() == Some(&digest) {
            self.failing = None;
            self.looked();
            return true;
        }
        match keys(&fetched.text, self.issuer) {
            Ok(set) => {
                tracing::info!(
                    issuer = name,
                    keys = set.keys.len(),
                    unusable = set.refused.len(),
                    "keys are ready"
                );
                let mut keys = Some(set.keys);
                self.publish.send_modify(|ring| {
                    let keys = keys.take().unwrap_or_default();
                    *ring = Arc::new(ring.with_keys(index, keys, fetched.url.clone()));
                });
                self.published = Some(digest);
                self.failing = None;
                true
            }
            Err(error) => self.fail(error.into()),
        }
    }

    /// Tells that the keys are still what they were.
    fn looked(&self) {
        let index = self.index;
        self.publish.send_modify(|ring| *ring = Arc::new(ring.with_look(index)));
    }

    fn fail(&mut self, error: FetchError) -> bool {
        if self.failing.as_ref() != Some(&error) {
            let kept = self.published.is_some();
            tracing::warn!(issuer = %self.issuer.issuer, %error, kept, "keys could not be fetched");
        }
        self.failing = Some(error);
        if self.published.is_none() {
            let index = self.index;
            self.publish.send_modify(|ring| *ring = Arc::new(ring.with_failure(index)));
        }
        false
    }
}

/// What changes when a file does.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// A number from 0 to 1; without randomness, 1.
fn jitter() -> f64 {
    let mut bytes = [0xff; 2];
    let _ = rand::fill(&mut bytes);
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}
