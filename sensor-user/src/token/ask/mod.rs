//! Asks those who can revoke tokens: a deny list in Redis, issuers by introspection (RFC 7662), and the status lists
//! that issuers publish.
//!
//! Bias: towards silence. Whoever is down, slow or not credible tells nothing, and nothing is what the rules hear;
//! each such answer is counted. A question is asked once, never repeated here: the token's next use puts it again.
//! A handful of questions is asked at once, each within its time; those about a status list that is being fetched wait
//! for it.

mod introspect;
mod list;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::token::facts::Standing;
use crate::token::fetch::{FetchError, all, http};
use crate::token::inquiry::{Answer, Inquiry};
use crate::token::keys::KeyRing;
use crate::token::settings::{Introspection, TokenSettings};
use list::List;
use status::{Fetch, Known, Lists};

/// Questions asked at once. Enough for 8,000 a second of a list that answers in a millisecond, and a load that no
/// issuer minds.
const AT_ONCE: usize = 8;

/// Questions that wait for a status list; one beyond them is answered without it, and asked again later.
const MAX_WAITING: usize = 1024;

/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// "Revoked" so many times, and more often than not, of tokens that their issuer's keys vouch for: no deny list is like
/// that. The client may not ask, or somebody answers who should not.
const INCREDIBLE: u32 = 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Not reached, refused, broken off.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// It says something that is no answer.
    #[error("the answer {0}")]
    Answer(&'static str),
    /// As for keys.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// What one of those asked says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) good: bool,
    pub(super) expires: Option<i64>,
}

/// One of those who are asked: whether it can be reached, and believed.
#[derive(Debug)]
struct Source {
    name: String,
    failures: u32,
    /// Not asked again before.
    until: Option<Instant>,
    good: u32,
    bad: u32,
    doubted: bool,
}

impl Source {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), failures: 0, until: None, good: 0, bad: 0, doubted: false }
    }

    fn may_be_asked(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Takes a result: what it says, if it can be believed. `counts` if the token is beyond doubt a real one, so that
    /// nobody can make a source incredible by asking about nonsense.
    fn hear(&mut self, result: Result<Word, AskError>, counts: bool, now: Instant) -> Option<Word> {
        let word = match result {
            Ok(word) => word,
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(source = %self.name, %error, "cannot ask whether tokens are revoked");
                }
                // Doubles from a second; a single failure costs no pause.
                let pause = Duration::from_secs(1 << self.failures.min(5)).min(MAX_PAUSE);
                self.until = (self.failures > 0).then(|| now + pause);
                self.failures += 1;
                return None;
            }
        };
        if self.failures > 0 {
            tracing::info!(source = %self.name, "can be asked again whether tokens are revoked");
        }
        (self.failures, self.until) = (0, None);
        if counts {
            self.weigh(word.good);
        }
        (word.good || !self.doubted).then_some(word)
    }

    fn weigh(&mut self, good: bool) {
        if self.good + self.bad >= 1000 {
            (self.good, self.bad) = (self.good / 2, self.bad / 2);
        }
        *(if good { &mut self.good } else { &mut self.bad }) += 1;
        let doubted = self.bad >= INCREDIBLE && self.bad > self.good;
        if doubted && !self.doubted {
            tracing::warn!(source = %self.name, "says that most tokens are revoked, and is not believed");
        }
        self.doubted = doubted;
    }
}

/// Asks whoever the settings name.
#[derive(Debug)]
pub struct Asker {
    list: Option<(List, Source)>,
    issuers: Vec<Option<(Introspection, String, Source)>>,
    client: Option<reqwest::Client>,
    timeout: Duration,
    lists: Option<Lists>,
    /// For each issuer whether its lists are believed.
    credit: Vec<Source>,
}

impl Asker {
    /// None if nobody is to be asked.
    ///
    /// # Errors
    /// When no https client can be made.
    pub fn new(settings: &TokenSettings) -> Result<Option<Self>, FetchError> {
        let revocation = &settings.revocation;
        let list = revocation.list.clone().map(|list| {
            let source = Source::new(&list.address);
            (List::new(list), source)
        });
        let issuers: Vec<_> = settings
            .issuers
            .iter()
            .map(|issuer| {
                let own = issuer.introspection.clone()?;
                let source = Source::new(&own.url);
                Some((own, issuer.issuer.clone(), source))
            })
            .collect();
        let remote = issuers.iter().any(Option::is_some);
        let fetches = settings.issuers.iter().any(|issuer| !issuer.status_lists.is_empty());
        if list.is_none() && !remote && !fetches {
            return Ok(None);
        }
        let client = if remote || fetches { Some(http::client()?) } else { None };
        let lists = Lists::new(&settings.issuers, client.clone());
        let credit = settings.issuers.iter().map(|issuer| Source::new(&issuer.issuer)).collect();
        Ok(Some(Self { list, issuers, client, timeout: revocation.timeout, lists, credit }))
    }

    /// Verifies status lists with these keys; without any it believes none.
    #[must_use]
    pub fn with_keys(mut self, keys: watch::Receiver<Arc<KeyRing>>) -> Self {
        if let Some(lists) = &mut self.lists {
            lists.verify_with(keys);
        }
        self
    }

    /// Answers questions until nobody asks or listens any more. To be spawned by the runtime.
    pub async fn run(mut self, mut inquiries: mpsc::Receiver<Inquiry>, answers: mpsc::Sender<Answer>) {
        let mut batch = Vec::with_capacity(AT_ONCE);
        let mut waiting: Vec<Inquiry> = Vec::new();
        let mut fetch: Option<Fetch> = None;
        loop {
            tokio::select! {
                count = inquiries.recv_many(&mut batch, AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                }
                fetched = on_its_way(&mut fetch), if fetch.is_some() => {
                    fetch = None;
                    // The newest question knows the time best.
                    let now_s = waiting.iter().filter_map(|inquiry| Some(inquiry.status.as_ref()?.at_s)).max();
                    if let Some(lists) = &mut self.lists {
                        lists.take(fetched, Instant::now(), now_s.unwrap_or_default());
                    }
                    batch.append(&mut waiting);
                }
            }
            self.put_off(&mut batch, &mut waiting);
            if let (None, Some(lists), Some(first)) = (&fetch, &mut self.lists, waiting.first()) {
                fetch = first.status.as_ref().map(|ask| lists.fetch(ask, Instant::now()));
            }
            for some in batch.chunks(AT_ONCE) {
                for answer in self.answer(some).await {
                    if answers.send(answer).await.is_err() {
                        return;
                    }
                }
            }
            batch.clear();
        }
    }

    /// Sets those questions apart whose status list has to be fetched first.
    fn put_off(&mut self, batch: &mut Vec<Inquiry>, waiting: &mut Vec<Inquiry>) {
        let Some(lists) = &mut self.lists else { return };
        let now = Instant::now();
        let mut room = MAX_WAITING.saturating_sub(waiting.len());
        waiting.extend(batch.extract_if(.., |inquiry| {
            let wanted = inquiry.status.as_ref().is_some_and(|ask| lists.look(ask, now) == Known::Wanted);
            let waits = wanted && room > 0;
            room -= usize::from(waits);
            waits
        }));
    }

    /// What the status lists say.
    fn look_up(&mut self, batch: &[Inquiry]) -> Vec<Option<Word>> {
        let Some(lists) = &mut self.lists else { return vec![None; batch.len()] };
        let now = Instant::now();
        let looked = batch.iter().map(|inquiry| {
            let ask = inquiry.status.as_ref()?;
            let Known::Said(Some(word)) = lists.look(ask, now) else { return None };
            self.credit.get_mut(ask.issuer)?.hear(Ok(word), inquiry.verified, now)
        });
        looked.collect()
    }

    /// Answers every question of a batch.
    async fn answer(&mut self, batch: &[Inquiry]) -> Vec<Answer> {
        let listed = self.ask_list(batch).await;
        let introspected = self.ask_issuers(batch).await;
        let looked = self.look_up(batch);
        let words = listed.into_iter().zip(introspected).zip(looked);
        let each = batch.iter().zip(words);
        each.map(|(inquiry, ((list, issuer), status))| combined(inquiry, [list, issuer, status])).collect()
    }

    async fn ask_list(&mut self, batch: &[Inquiry]) -> Vec<Option<Word>> {
        let mut words = vec![None; batch.len()];
        let Some((list, source)) = &mut self.list else { return words };
        let ids: Vec<&str> = batch.iter().filter_map(|inquiry| inquiry.id.as_deref()).collect();
        if ids.is_empty() || !source.may_be_asked(Instant::now()) {
            return words;
        }
        let asked = timeout(self.timeout, list.holds(&ids)).await.unwrap_or(Err(AskError::Timeout));
        let held = match asked {
            Ok(held) => held,
            Err(error) => {
                list.hang_up();
                source.hear(Err(error), false, Instant::now());
                return words;
            }
        };
        let askers = words.iter_mut().zip(batch).filter(|(_, inquiry)| inquiry.id.is_some());
        for ((word, inquiry), held) in askers.zip(held) {
            let said = Ok(Word { good: !held, expires: None });
            *word = source.hear(said, inquiry.verified, Instant::now());
        }
        words
    }

    async fn ask_issuers(&mut self, batch: &[Inquiry]) -> Vec<Option<Word>> {
        let (issuers, client, limit) = (&self.issuers, self.client.as_ref(), self.timeout);
        let now = Instant::now();
        let questions = batch.iter().map(|inquiry| async move {
            let (issuer, text) = inquiry.introspect.as_ref()?;
            let (endpoint, name, source) = issuers.get(*issuer)?.as_ref()?;
            if !source.may_be_asked(now) {
                return None;
            }
            let asked = introspect::ask(client?, endpoint, name, text);
            Some((*issuer, timeout(limit, asked).await.unwrap_or(Err(AskError::Timeout))))
        });
        let results = all(questions.collect()).await;
        let heard = results.into_iter().zip(batch).map(|(result, inquiry)| {
            let (issuer, result) = result?;
            let (_, _, source) = self.issuers.get_mut(issuer)?.as_mut()?;
            source.hear(result, inquiry.verified, Instant::now())
        });
        heard.collect()
    }
}

/// What has come of a fetch; only asked where there is one.
async fn on_its_way(fetch: &mut Option<Fetch>) -> status::Fetched {
    match fetch {
        Some(fetch) => fetch.await,
        None => std::future::pending().await,
    }
}

/// One answer of the words of the deny list, the issuer and its status list: what any says against the token counts;
/// it is good if all who were asked say so.
fn combined(inquiry: &Inquiry, words: [Option<Word>; 3]) -> Answer {
    let [list, issuer, status] = words;
    let asked = [
        (inquiry.id.is_some(), list),
        (inquiry.introspect.is_some(), issuer),
        (inquiry.status.is_some(), status),
    ];
    let against = |word: Option<Word>| word.is_some_and(|word| !word.good);
    let standing = if against(list) {
        Some(Standing::Listed)
    } else if against(issuer) || against(status) {
        Some(Standing::Inactive)
    } else {
        let silent = asked.iter().any(|(asked, word)| *asked && word.is_none());
        (!silent).then_some(Standing::Good)
    };
    Answer { fingerprint: inquiry.fingerprint, standing, expires: issuer.and_then(|word| word.expires) }
}
