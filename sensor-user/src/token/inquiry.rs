//! Questions about tokens that only somebody outside can answer: was it revoked? Pure: what is asked, when, and what
//! becomes of the answer; [`ask`](crate::token::ask) does the asking.
//!
//! A distinct token is asked about at its first use, and again at a use after the answer has grown old. Never for
//! long: a token whose form, keys or times refute it is not worth a question, and a budget bounds the others.

use std::collections::VecDeque;

use hashbrown::HashMap;
use zeroize::Zeroizing;

use crate::capture::Time;
use crate::token::facts::{Fingerprint, Form, Standing, StatusRef, Token};
use crate::token::settings::{Issuer, RevocationSettings};
use crate::token::verifier::Bucket;

/// Questions that wait to be taken: their texts are at most 16 KiB each by default, so 16 MiB, commonly 1 MiB.
const MAX_WAITING: usize = 1024;

/// Questions asked and not answered: 64 bytes each. Every question taken is answered sooner or later.
const MAX_OPEN: usize = 8192;

/// Questions a second that a status list answers: a microsecond each, and what the way there and back takes.
const NEARBY_PER_S: u32 = 2000;

/// One question.
pub struct Inquiry {
    /// About which token.
    pub fingerprint: Fingerprint,
    /// Its `jti`, if the deny list is to be asked.
    pub id: Option<Box<str>>,
    /// The issuer's place in the settings and the token's text, if its issuer is to be asked.
    pub introspect: Option<(usize, Zeroizing<Box<[u8]>>)>,
    /// The place of its status, if its issuer publishes lists.
    pub status: Option<StatusAsk>,
    /// Whether the issuer's keys vouch for the token, so that "inactive" cannot mean "never heard of it".
    pub verified: bool,
}

/// A question to a status list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAsk {
    /// The issuer's place in the settings.
    pub issuer: usize,
    /// The list, and the place in it.
    pub status: StatusRef,
    /// Now, in seconds since the epoch.
    pub at_s: i64,
}

impl std::fmt::Debug for Inquiry {
    /// Never the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inquiry").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// One answer; `standing` is none if nobody could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// About which token.
    pub fingerprint: Fingerprint,
    /// How it stands.
    pub standing: Option<Standing>,
    /// When it ends, as its issuer says: known of opaque tokens in no other way.
    pub expires: Option<i64>,
}

/// What was asked and answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InquiryCounters {
    /// Questions put.
    pub asked: u64,
    /// Questions not put: over budget, or too many open. They are put at a later use.
    pub skipped: u64,
    /// Answers: the token is good.
    pub good: u64,
    /// Answers: it is not.
    pub bad: u64,
    /// Nobody could tell.
    pub unanswered: u64,
}

/// What an issuer can be asked.
struct Asked {
    name: String,
    /// It answers questions.
    answers: bool,
    /// It publishes status lists.
    lists: bool,
}

impl Asked {
    fn of(issuer: &Issuer) -> Self {
        let (answers, lists) = (issuer.introspection.is_some(), !issuer.status_lists.is_empty());
        Self { name: issuer.issuer.clone(), answers, lists }
    }
}

/// The questions of one token stage.
pub(super) struct Inquiries {
    waiting: VecDeque<Inquiry>,
    /// The cache's key of each token that was asked about.
    open: HashMap<Fingerprint, u128, foldhash::fast::RandomState>,
    budget: Bucket,
    /// For those that ask nobody but a status list, which is at hand once it was fetched.
    nearby: Bucket,
    ttl_s: u32,
    by_list: bool,
    issuers: Vec<Asked>,
    opaque_issuer: Option<usize>,
    pub(super) counters: InquiryCounters,
}

impl Inquiries {
    /// None if nobody is to be asked.
    pub(super) fn new(settings: &RevocationSettings, issuers: &[Issuer]) -> Option<Self> {
        let asked: Vec<_> = issuers.iter().map(Asked::of).collect();
        if settings.list.is_none() && !asked.iter().any(|issuer| issuer.answers || issuer.lists) {
            return None;
        }
        let named = settings.opaque_issuer.as_ref();
        let opaque_issuer = asked.iter().position(|issuer| issuer.answers && Some(&issuer.name) == named);
        Some(Self {
            waiting: VecDeque::new(),
            open: HashMap::default(),
            budget: Bucket::new(settings.per_s),
            nearby: Bucket::new(NEARBY_PER_S),
            ttl_s: u32::try_from(settings.cache.as_secs()).unwrap_or(u32::MAX),
            by_list: settings.list.is_some(),
            issuers: asked,
            opaque_issuer,
            counters: InquiryCounters::default(),
        })
    }

    /// Whether a use of the token now is worth a question. Cheap: asked at every use.
    pub(super) fn is_due(&self, token: &Token, at: Time) -> bool {
        let due = token.asked_s == 0 || second(at) >= token.asked_s.saturating_add(self.ttl_s);
        due && token.is_settled() && self.is_worthwhile(token)
    }

    fn is_worthwhile(&self, token: &Token) -> bool {
        match token.form {
            Form::Opaque => self.opaque_issuer.is_some(),
            Form::Jws => {
                (token.is_verified() || (token.policy.is_none() && token.flaws.is_empty()))
                    && (self.list_knows(token)
                        || self.issuer_of(token).is_some()
                        || self.lists_of(token).is_some())
            }
            Form::Jwe | Form::Malformed => false,
        }
    }

    fn list_knows(&self, token: &Token) -> bool {
        self.by_list && token.id.is_some()
    }

    /// Who can tell about the token. A verified one goes to nobody but its issuer: a question shows the token.
    fn issuer_of(&self, token: &Token) -> Option<usize> {
        match token.form {
            Form::Opaque => self.opaque_issuer,
            Form::Jws if token.is_verified() => {
                let name = token.issuer.as_deref()?;
                self.issuers.iter().position(|issuer| issuer.answers && issuer.name == name)
            }
            _ => None,
        }
    }

    /// Whose status list says how the token stands: its issuer's, as the issuer has signed it.
    fn lists_of(&self, token: &Token) -> Option<usize> {
        let name = token.issuer.as_deref().filter(|_| token.status().is_some() && token.is_verified())?;
        self.issuers.iter().position(|issuer| issuer.lists && issuer.name == name)
    }

    /// Puts a question about a token whose use is worth one; changes the token accordingly. Without the text only the
    /// list can be asked; then the token stays as it is if its issuer should be.
    pub(super) fn put(&mut self, key: u128, text: Option<&[u8]>, token: &mut Token, at: Time) -> bool {
        let issuer = self.issuer_of(token);
        if issuer.is_some() && text.is_none() {
            return false;
        }
        let open = self.open.contains_key(&token.fingerprint);
        let full = self.waiting.len() >= MAX_WAITING || self.open.len() >= MAX_OPEN;
        let remote = issuer.is_some() || self.list_knows(token);
        let budget = if remote { &mut self.budget } else { &mut self.nearby };
        if open || full || !budget.has(at) {
            self.counters.skipped += u64::from(!open);
            return false;
        }
        budget.take();
        self.counters.asked += 1;
        self.open.insert(token.fingerprint, key);
        self.waiting.push_back(Inquiry {
            fingerprint: token.fingerprint,
            id: token.id.as_ref().filter(|_| self.by_list).map(|id| id.text().into()),
            status: self.lists_of(token).zip(token.status()).map(|(issuer, status)| StatusAsk {
                issuer,
                status: status.clone(),
                at_s: i64::try_from(at.secs()).unwrap_or(i64::MAX),
            }),
            introspect: issuer.zip(text.map(|text| Zeroizing::new(text.into()))),
            verified: token.is_verified(),
        });
        token.asked_s = second(at).max(1);
        if token.standing == Standing::Unknown {
            token.standing = Standing::Asked;
        }
        true
    }

    /// The next question, to be answered by [`Self::take`].
    pub(super) fn next(&mut self) -> Option<Inquiry> {
        self.waiting.pop_front()
    }

    /// Takes an answer: the cache's key of the token, if it was asked about.
    pub(super) fn take(&mut self, answer: &Answer) -> Option<u128> {
        let key = self.open.remove(&answer.fingerprint)?;
        match answer.standing {
            Some(Standing::Good) => self.counters.good += 1,
            Some(Standing::Listed | Standing::Inactive) => self.counters.bad += 1,
            Some(Standing::Unknown | Standing::Asked) | None => self.counters.unanswered += 1,
        }
        Some(key)
    }
}

/// Changes a token by an answer.
pub(super) fn apply(token: &mut Token, answer: &Answer) {
    if let Some(standing) = answer.standing {
        token.was_good |= standing == Standing::Good;
        token.standing = standing;
    } else if token.standing == Standing::Asked {
        token.standing = Standing::Unknown;
    }
    if token.form == Form::Opaque && answer.expires.is_some() {
        token.expires = answer.expires.into();
    }
}

fn second(at: Time) -> u32 {
    u32::try_from(at.secs()).unwrap_or(u32::MAX)
}
