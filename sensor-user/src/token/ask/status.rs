//! The status lists of issuers, as they were fetched last: one GET for millions of tokens.
//!
//! Fetched is only what a verified token of the issuer names, and only below one of the URLs that are configured for it
//! (or what stands in a file): a list is never a way to make the sensor call somewhere. One fetch at a time, five a
//! second at most; the questions about a list that is on its way wait for it. A list holds for its `ttl`. One that
//! cannot be fetched again still says who was revoked for good, until it expires; of the others nothing is said.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use reqwest::Url;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Word;
use crate::token::fetch::{FetchError, http, read_file};
use crate::token::inquiry::StatusAsk;
use crate::token::keys::KeyRing;
use crate::token::settings::{Issuer, StatusSource};
use crate::token::status::{MAX_TEXT, Status, StatusError, StatusList};

/// Most lists remembered; an issuer of a hundred million tokens has a hundred.
const MAX_LISTS: usize = 256;

/// Most bytes of them: sixteen of the largest.
const MAX_BYTES: usize = 64 << 20;

/// How long a list holds, whatever it says: not so briefly that its server is hammered, not so long that a revocation
/// is news of yesterday.
const AGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_hours(12);

/// How long one holds that does not say: section 13.7 advises minutes to hours.
const USUAL_AGE: Duration = Duration::from_mins(5);

/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// Shortest time between two fetches.
const PAUSE: Duration = Duration::from_millis(200);

/// Time that one fetch may take: a list of 4 MiB over a slow line.
const TIME: Duration = Duration::from_secs(10);

/// Which list: the issuer's place, and the URI.
type Name = (usize, Arc<str>);

/// A list on its way.
pub(super) type Fetch = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// What has come.
pub(super) struct Fetched {
    name: Name,
    result: Result<Texts, FetchError>,
}

struct Texts {
    /// One, or those of all files that might hold it.
    texts: Vec<Vec<u8>>,
    max_age: Option<Duration>,
}

/// Why a list does not count.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no status list is configured below that URL")]
    Elsewhere,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the status list {0}")]
    List(#[from] StatusError),
}

/// A list as it is known.
#[derive(Default)]
struct Entry {
    list: Option<StatusList>,
    /// When it is to be fetched again; none before the first time.
    due: Option<Instant>,
    failures: u32,
    /// For forgetting the one that was used longest ago.
    used: u64,
}

/// What is known of a token's status now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// This, or that nothing can be said.
    Said(Option<Word>),
    /// Its list is to be fetched.
    Wanted,
}

/// The lists of all issuers.
pub(super) struct Lists {
    issuers: Vec<Issuer>,
    keys: Option<watch::Receiver<Arc<KeyRing>>>,
    client: Option<reqwest::Client>,
    known: HashMap<Name, Entry, foldhash::fast::RandomState>,
    uses: u64,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lists").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Lists {
    /// None if no issuer has any.
    pub(super) fn new(issuers: &[Issuer], client: Option<reqwest::Client>) -> Option<Self> {
        issuers.iter().any(|issuer| !issuer.status_lists.is_empty()).then(|| Self {
            issuers: issuers.to_vec(),
            keys: None,
            client,
            known: HashMap::default(),
            uses: 0,
            not_before: None,
        })
    }

    /// Verifies with these keys from now on.
    pub(super) fn verify_with(&mut self, keys: watch::Receiver<Arc<KeyRing>>) {
        self.keys = Some(keys);
    }

    /// What the lists say now.
    pub(super) fn look(&mut self, ask: &StatusAsk, now: Instant) -> Known {
        self.uses += 1;
        let uses = self.uses;
        let Some(entry) = self.known.get_mut(&(ask.issuer, Arc::clone(&ask.status.uri))) else {
            return Known::Wanted;
        };
        entry.used = uses;
        let expired = |list: &StatusList| list.expires.is_some_and(|expires| expires <= ask.at_s);
        let list = entry.list.as_ref().filter(|list| !expired(list));
        let is_due = entry.due.is_none_or(|due| due <= now);
        if is_due || (list.is_none() && entry.failures == 0) {
            return Known::Wanted;
        }
        let status = list.and_then(|list| list.status(ask.status.index));
        let word = |good| Some(Word { good, expires: None });
        Known::Said(match status {
            Some(Status::Invalid) => word(false),
            Some(Status::Suspended) if entry.failures == 0 => word(false),
            Some(Status::Valid) if entry.failures == 0 => word(true),
            _ => None,
        })
    }

    /// Begins to fetch a list. The caller runs it, and brings what comes to [`Self::take`].
    pub(super) fn fetch(&mut self, ask: &StatusAsk, now: Instant) -> Fetch {
        let name = (ask.issuer, Arc::clone(&ask.status.uri));
        let start = self.not_before.map_or(now, |not_before| not_before.max(now));
        self.not_before = Some(start + PAUSE);
        let sources =
            self.issuers.get(ask.issuer).map(|issuer| issuer.status_lists.as_slice()).unwrap_or_default();
        let url = sources.iter().any(|source| covers(source, &ask.status.uri));
        let files: Vec<PathBuf> = sources.iter().filter_map(file).collect();
        let client = self.client.clone().filter(|_| url);
        Box::pin(async move {
            sleep_until(start).await;
            let result = match client {
                Some(client) => by_url(&client, &name.1).await,
                None => from_files(&files),
            };
            Fetched { name, result }
        })
    }

    /// Takes what has come, at `now_s` of the data's time.
    pub(super) fn take(&mut self, fetched: Fetched, now: Instant, now_s: i64) {
        let Fetched { name, result } = fetched;
        let read = result.map_err(Refusal::from).and_then(|texts| self.read(&name, &texts, now_s));
        if !self.known.contains_key(&name) {
            self.make_room();
        }
        let entry = self.known.entry(name.clone()).or_default();
        entry.used = self.uses;
        match read {
            Ok((list, age)) => {
                if entry.failures > 0 || entry.list.is_none() {
                    tracing::info!(uri = %name.1, bytes = list.bytes(), "status list is ready");
                }
                (entry.list, entry.failures, entry.due) = (Some(list), 0, Some(now + age));
            }
            Err(error) => {
                if entry.failures == 0 {
                    tracing::warn!(uri = %name.1, %error, kept = entry.list.is_some(), "no new status list");
                }
                let pause = Duration::from_secs(1 << entry.failures.min(10)).min(MAX_PAUSE);
                entry.failures += 1;
                entry.due = Some(now + pause);
            }
        }
        self.shrink(&name);
    }

    fn read(&self, name: &Name, texts: &Texts, now_s: i64) -> Result<(StatusList, Duration), Refusal> {
        let keys = self.keys.as_ref().map(|keys| Arc::clone(&keys.borrow()));
        let keys = keys.as_ref().and_then(|ring| ring.issuer(name.0)).ok_or(StatusError::NoKeys)?;
        let algorithms =
            self.issuers.get(name.0).map(|issuer| issuer.algorithms.as_slice()).unwrap_or_default();
        let mut refusal = Refusal::Elsewhere;
        for text in &texts.texts {
            match StatusList::read(text, &name.1, keys, algorithms, now_s) {
                Ok(list) => {
                    let said = list.ttl_s.map(Duration::from_secs).or(texts.max_age).unwrap_or(USUAL_AGE);
                    return Ok((list, said.clamp(*AGE.start(), *AGE.end())));
                }
                // Of several files the one that is this list tells what is wrong with it.
                Err(StatusError::Subject) if texts.texts.len() > 1 => {}
                Err(error) => refusal = error.into(),
            }
        }
        Err(refusal)
    }

    /// Forgets the list that was used longest ago, if there are as many as there may be.
    fn make_room(&mut self) {
        if self.known.len() >= MAX_LISTS {
            self.forget_oldest(None);
        }
    }

    fn shrink(&mut self, newest: &Name) {
        let bytes = |all: &HashMap<Name, Entry, _>| -> usize {
            all.values().filter_map(|entry| entry.list.as_ref()).map(StatusList::bytes).sum()
        };
        while self.known.len() > 1 && bytes(&self.known) > MAX_BYTES {
            self.forget_oldest(Some(newest));
        }
    }

    fn forget_oldest(&mut self, but: Option<&Name>) {
        let others = self.known.iter().filter(|(name, _)| Some(*name) != but);
        let oldest = others.min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }
}

/// Whether the list of this URI may be fetched: the same scheme, host and port, and a path that is this one or lies below
/// it.
fn covers(source: &StatusSource, uri: &str) -> bool {
    let StatusSource::Below(base) = source else { return false };
    let (Ok(base), Ok(uri)) = (Url::parse(base), Url::parse(uri)) else { return false };
    let plain = uri.username().is_empty() && uri.password().is_none();
    let same = base.scheme() == uri.scheme()
        && base.host_str() == uri.host_str()
        && base.port_or_known_default() == uri.port_or_known_default();
    let below = uri.path().strip_prefix(base.path().trim_end_matches('/'));
    plain && same && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn file(source: &StatusSource) -> Option<PathBuf> {
    match source {
        StatusSource::File(path) => Some(path.clone()),
        StatusSource::Below(_) => None,
    }
}

async fn by_url(client: &reqwest::Client, url: &str) -> Result<Texts, FetchError> {
    let limits = http::Limits { total: TIME, bytes: MAX_TEXT, ..http::Limits::default() };
    let body = http::get_as(client, url, "application/statuslist+jwt", limits).await?;
    Ok(Texts { texts: vec![body.bytes], max_age: body.max_age })
}

/// Files are few and local; one that cannot be read is passed over if another can.
fn from_files(files: &[PathBuf]) -> Result<Texts, FetchError> {
    let mut texts = Vec::new();
    let mut failure = None;
    for path in files {
        match read_file(path, MAX_TEXT) {
            Ok(text) => texts.push(text),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if texts.is_empty() => Err(error),
        _ => Ok(Texts { texts, max_age: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::forge::{self, Signer};
    use crate::token::settings::Algorithm;
    use crate::token::status::StatusRef;
    use crate::token::status::tests::{URI, list};

    const NOW_S: i64 = 1_795_284_245;

    fn lists(sources: &[&str], signer: &Signer) -> Lists {
        let place = |text: &&str| match text.strip_prefix("file:") {
            Some(path) => StatusSource::File(path.into()),
            None => StatusSource::Below((*text).to_owned()),
        };
        let status_lists = sources.iter().map(place).collect();
        let issuer = Issuer { status_lists, ..forge::issuer(&[signer.algorithm]) };
        let mut lists = Lists::new(&[issuer], None).unwrap();
        lists.verify_with(watch::channel(signer.ring()).1);
        lists
    }

    fn ask(uri: &str, index: u64) -> StatusAsk {
        StatusAsk { issuer: 0, status: StatusRef { uri: uri.into(), index }, at_s: NOW_S }
    }

    fn come(uri: &str, text: &str) -> Fetched {
        let texts = Texts { texts: vec![text.as_bytes().to_vec()], max_age: None };
        Fetched { name: (0, uri.into()), result: Ok(texts) }
    }

    fn gone(uri: &str) -> Fetched {
        Fetched { name: (0, uri.into()), result: Err(FetchError::Status(503)) }
    }

    fn said(good: bool) -> Known {
        Known::Said(Some(Word { good, expires: None }))
    }

    fn signer() -> &'static Signer {
        Signer::shared(Algorithm::ES256)
    }

    #[test]
    fn lists_are_fetched_below_what_is_configured_only() {
        let covers = |base: &str, uri: &str| covers(&StatusSource::Below(base.to_owned()), uri);
        for uri in [
            "https://idp.example/lists/1",
            "https://idp.example/lists",
            "https://IDP.example:443/lists/a/2?x=1",
        ] {
            assert!(
                covers("https://idp.example/lists/", uri) && covers("https://idp.example/lists", uri),
                "{uri}"
            );
        }
        for uri in [
            "https://idp.example/",
            "https://idp.example/lists2/1",
            "https://idp.example/lists/../admin",
            "https://idp.example/lists/%2e%2e/admin",
            "http://idp.example/lists/1",
            "https://idp.example:8443/lists/1",
            "https://idp.example.evil.example/lists/1",
            "https://user@idp.example/lists/1",
            "https://evil.example/https://idp.example/lists/1",
            "file:///etc/passwd",
            "urn:lists",
            "",
        ] {
            assert!(!covers("https://idp.example/lists", uri), "{uri}");
        }
        assert!(covers("https://idp.example", "https://idp.example/anything"));
        assert!(!super::covers(&StatusSource::File("/lists/1".into()), "file:/lists/1"));
    }

    #[test]
    fn a_list_holds_for_its_ttl() {
        let mut lists = lists(&["https://idp.example/statuslists/"], signer());
        let now = Instant::now();
        assert_eq!(lists.look(&ask(URI, 0), now), Known::Wanted);
        lists.take(come(URI, &list(signer(), URI, 2, &[0b1110_0100], &[])), now, NOW_S);
        let later = |s| now + Duration::from_secs(s);
        let all: Vec<_> = (0..5).map(|index| lists.look(&ask(URI, index), later(599))).collect();
        assert_eq!(all, [said(true), said(false), said(false), Known::Said(None), Known::Said(None)]);
        assert_eq!(lists.look(&ask(URI, 0), later(600)), Known::Wanted);
        let brief = list(signer(), URI, 1, &[0], &[("ttl", 0.into())]);
        lists.take(come(URI, &brief), now, NOW_S);
        assert_eq!(lists.look(&ask(URI, 1), later(29)), said(true), "half a minute at least");
        let other = ask("https://idp.example/statuslists/2", 0);
        assert_eq!(lists.look(&other, now), Known::Wanted);
    }

    #[test]
    fn a_list_that_cannot_be_fetched_again_says_only_what_stays_true() {
        let mut lists = lists(&["https://idp.example/"], signer());
        let now = Instant::now();
        lists.take(gone(URI), now, NOW_S);
        assert_eq!(lists.look(&ask(URI, 1), now), Known::Said(None), "never seen, and not hammered");
        assert_eq!(lists.look(&ask(URI, 1), now + Duration::from_secs(1)), Known::Wanted);
        lists.take(come(URI, &list(signer(), URI, 2, &[0b1110_0100], &[])), now, NOW_S);
        lists.take(gone(URI), now, NOW_S);
        let all: Vec<_> = (0..3).map(|index| lists.look(&ask(URI, index), now)).collect();
        assert_eq!(all, [Known::Said(None), said(false), Known::Said(None)]);
        let expired = StatusAsk { at_s: NOW_S + 3600, ..ask(URI, 1) };
        assert_eq!(lists.look(&expired, now), Known::Said(None));
        lists.take(come(URI, "<html>"), now, NOW_S);
        assert_eq!(lists.look(&ask(URI, 1), now), said(false), "nonsense replaces nothing");
    }

    #[test]
    fn an_expired_list_is_fetched_again_before_its_ttl_is_over() {
        let mut lists = lists(&["https://idp.example/"], signer());
        let now = Instant::now();
        lists.take(come(URI, &list(signer(), URI, 1, &[0], &[("exp", (NOW_S + 10).into())])), now, NOW_S);
        assert_eq!(lists.look(&ask(URI, 0), now), said(true));
        assert_eq!(lists.look(&StatusAsk { at_s: NOW_S + 10, ..ask(URI, 0) }, now), Known::Wanted);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut lists = lists(&["https://idp.example/"], signer());
        let now = Instant::now();
        for n in 0..MAX_LISTS + 50 {
            lists.look(&ask(URI, 0), now);
            lists.take(gone(&format!("https://idp.example/{n}")), now, NOW_S);
        }
        assert_eq!(lists.known.len(), MAX_LISTS);
        let large = vec![0; 4 << 20];
        for n in 0..18 {
            let uri = format!("https://idp.example/large/{n}");
            lists.look(&ask(&uri, 0), now);
            lists.take(come(&uri, &list(signer(), &uri, 1, &large, &[])), now, NOW_S);
        }
        let held: usize = lists.known.values().filter_map(|e| e.list.as_ref()).map(StatusList::bytes).sum();
        assert_eq!(held, MAX_BYTES);
        assert_eq!(lists.look(&ask("https://idp.example/large/17", 0), now), said(true), "the newest stays");
    }

    #[test]
    fn files_are_lists_too_and_nothing_is_fetched_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("one"), list(signer(), URI, 1, &[2], &[])).unwrap();
        std::fs::write(path("two"), list(signer(), "urn:two", 1, &[1], &[])).unwrap();
        let sources = ["one", "two", "missing"].map(|name| format!("file:{}", path(name).display()));
        let mut lists = lists(&sources.each_ref().map(String::as_str), signer());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let now = runtime.block_on(async { Instant::now() });
        let mut look = |uri: &str, index| {
            let fetched = runtime.block_on(lists.fetch(&ask(uri, index), now));
            lists.take(fetched, now, NOW_S);
            lists.look(&ask(uri, index), now)
        };
        assert_eq!(look(URI, 1), said(false));
        assert_eq!(look("urn:two", 1), said(true));
        assert_eq!(look("https://evil.example/list", 0), Known::Said(None));
    }
}
