//! The stage: from a request to its tokens, each judged once.
//!
//! The hot path is find, hash, look up, hand out: no allocation, no cryptography. Only a text never seen before is
//! read; only a text worth it is verified, by whoever the [`Verifier`] is.
//!
//! How verdicts age. A verified token keeps its verdict until it leaves the cache, also when its key is rotated
//! away: issuers withdraw keys as a matter of routine, long before the tokens signed with them expire, and expiry is
//! judged at every use by the rules. A verdict that keys may change (invalid, key unknown, keys pending) is taken
//! again at the token's next use after keys have changed; those that nobody uses again are judged from their
//! kept texts. A token over budget is tried again at every use.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::capture::Time;
use crate::http::{Exchange, IssuedText};
use crate::token::absent::{AbsentKeys, Unknown};
use crate::token::cache::{Cache, Slot};
use crate::token::extract::{Credentials, Extractor};
use crate::token::facts::{
    Carrier, Fingerprint, Flaws, Form, IssuedToken, Signature, Token, TokenUse, Unchecked,
};
use crate::token::hash::{Namer, NoRandomness, TextHash};
use crate::token::inquiry::{self, Answer, Inquiries, Inquiry, InquiryCounters};
use crate::token::jose::{Parts, Reading};
use crate::token::keys::{KeyRing, KeyState};
use crate::token::names::Names;
use crate::token::opaque::Guesser;
use crate::token::pending::Pending;
use crate::token::settings::TokenSettings;
use crate::token::verifier::{Job, Submitted, Verdict, Verifier};
use crate::token::verify::{Judge, Judgement, Look};

mod counters;
pub(crate) mod describe;

pub use counters::Counters;

/// A key that tokens ask for and that its issuer's key set does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The issuer's place in the settings.
    pub issuer: usize,
    /// The `kid`.
    pub kid: Box<str>,
}

/// Most wanted keys remembered between two collections; a forger can make up any number.
const MAX_WANTED: usize = 64;

/// Longest `kid` worth asking for: key sets with longer ones are unheard of.
const MAX_KID: usize = 256;

/// Finds and judges the tokens of exchanges.
pub struct Tokens {
    extractor: Extractor,
    hash: TextHash,
    namer: Namer,
    cache: Cache,
    judge: Judge,
    verifier: Box<dyn Verifier>,
    ring: Arc<KeyRing>,
    /// Counts up with every change of `ring`; a verdict of an older one may be stale.
    generation: u32,
    pending: Pending,
    /// How many of the pending are still to be looked at after the last change of keys.
    due: usize,
    /// What workers verify now, and with which keys: at most as many as the pool's queue holds.
    in_flight: HashMap<Fingerprint, InFlight, foldhash::fast::RandomState>,
    wanted: VecDeque<Wanted>,
    absent: AbsentKeys,
    names: Names,
    guesser: Guesser,
    inquiries: Option<Inquiries>,
    max_token_bytes: usize,
    counters: Counters,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// A token that a worker verifies.
struct InFlight {
    key: u128,
    token: Arc<Token>,
    generation: u32,
}

/// The credentials of a request: the hash of each one's text, and where it was.
#[derive(Default)]
pub struct Shown {
    list: SmallVec<[(u128, Carrier); 1]>,
    /// Whether two readers could pick different ones.
    ambiguous: bool,
}

impl std::fmt::Debug for Shown {
    /// Never the hashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("credentials", &self.list.len()).finish_non_exhaustive()
    }
}

/// A text and everything that goes with judging it.
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    key: u128,
    client: IpAddr,
    at: Time,
}

impl Tokens {
    /// The stage, with these settings and this verifier, and no keys yet.
    ///
    /// # Errors
    /// When the system has no randomness for its secrets.
    pub fn new(settings: &TokenSettings, verifier: Box<dyn Verifier>) -> Result<Self, NoRandomness> {
        Ok(Self {
            extractor: Extractor::new(settings),
            hash: TextHash::random()?,
            namer: Namer::new(settings.fingerprint_key.as_ref().map(|key| key.as_slice()))?,
            cache: Cache::new(settings.max_tokens),
            judge: Judge::new(settings.issuers.clone()),
            verifier,
            ring: Arc::new(KeyRing::empty(settings.issuers.len())),
            generation: 0,
            pending: Pending::new(settings.max_pending_bytes),
            due: 0,
            in_flight: HashMap::default(),
            wanted: VecDeque::new(),
            absent: AbsentKeys::default(),
            names: Names::default(),
            guesser: Guesser::default(),
            inquiries: Inquiries::new(&settings.revocation, &settings.issuers),
            max_token_bytes: settings.max_token_bytes,
            counters: Counters::default(),
        })
    }

    /// What a request shows, for [`Self::find`].
    #[must_use]
    pub fn read(&self, exchange: &Exchange) -> Shown {
        let found = self.extractor.find(&exchange.request);
        let mut shown = Shown { list: SmallVec::new(), ambiguous: found.ambiguous };
        for credential in &found.list {
            shown.list.push((self.hash.of(&credential.text), credential.carrier.clone()));
        }
        shown
    }

    /// Asks for what is known of these tokens ahead of time, for the processor's sake.
    pub fn glance(&self, shown: &Shown) {
        shown.list.iter().for_each(|(key, _)| self.cache.glance(*key));
    }

    /// The tokens that a request was seen to show, in order.
    pub fn find(&mut self, shown: &Shown, exchange: &Exchange, now: Time) -> SmallVec<[TokenUse; 1]> {
        let mut uses = SmallVec::new();
        self.counters.ambiguous += u64::from(shown.ambiguous);
        // The texts once more, if one is wanted: rare, for a token is new once.
        let mut again = None;
        for (at, (key, carrier)) in shown.list.iter().enumerate() {
            let (key, client) = (*key, exchange.client);
            let mut token = if let Some(token) = self.known(key) {
                token
            } else {
                let bytes = self.text(exchange, at, &mut again);
                self.judge_anew(Text { bytes, key, client, at: now })
            };
            if self.inquiries.as_ref().is_some_and(|all| all.is_due(&token, exchange.at)) {
                let text = self.text(exchange, at, &mut again);
                token = self.inquire(key, Some(text), token, exchange.at);
            }
            if shown.ambiguous {
                // Only this use is ambiguous, so the token in the cache stays as it is.
                Arc::make_mut(&mut token).flaws.insert(Flaws::AMBIGUOUS_CARRIER);
            }
            uses.push(TokenUse { token, carrier: carrier.clone() });
        }
        uses
    }

    /// The text of one of a request's credentials.
    #[cold]
    fn text<'a, 'b>(
        &self,
        exchange: &'a Exchange,
        at: usize,
        found: &'b mut Option<Credentials<'a>>,
    ) -> &'b [u8] {
        let found = found.get_or_insert_with(|| self.extractor.find(&exchange.request));
        found.list.get(at).map(|credential| &*credential.text).unwrap_or_default()
    }

    /// Names the tokens that an exchange issued, and wipes their texts.
    pub fn name_issued(&mut self, exchange: &mut Exchange) -> Vec<IssuedToken> {
        let Some(issued) = exchange.body.as_mut().and_then(|body| body.issued.as_mut()) else {
            return Vec::new();
        };
        let texts = std::mem::take(&mut issued.tokens);
        self.counters.issued += texts.len() as u64;
        let name = |text: &IssuedText| {
            let opaque = Parts::of(&text.0, self.max_token_bytes).read().form == Form::Opaque;
            let facts = if opaque { self.guesser.look(&text.0, &self.hash, exchange.at) } else { None };
            IssuedToken { fingerprint: self.namer.name(&text.0), opaque: facts }
        };
        texts.iter().map(name).collect()
    }

    /// The token under this hash, if its verdict still holds.
    fn known(&mut self, key: u128) -> Option<Arc<Token>> {
        self.counters.uses += 1;
        let (_, token, generation) = self.cache.find(key)?;
        if !is_fresh(token, generation == self.generation) {
            return None;
        }
        self.counters.hits += 1;
        Some(Arc::clone(token))
    }

    /// The token with this text, whose verdict is none yet or holds no more.
    fn judge_anew(&mut self, text: Text<'_>) -> Arc<Token> {
        let Some((slot, token, _)) = self.cache.find(text.key) else {
            self.counters.misses += 1;
            return self.learn(text);
        };
        let token = Token::clone(token);
        self.relearn(text, slot, token)
    }

    /// Reads and judges a text for the first time.
    fn learn(&mut self, text: Text<'_>) -> Arc<Token> {
        let parts = Parts::of(text.bytes, self.max_token_bytes);
        let reading = parts.read();
        let mut token = self.describe(text.bytes, &parts, &reading);
        if reading.form == Form::Opaque {
            let facts = self.guesser.look(text.bytes, &self.hash, text.at);
            token.change_extras(|extras| extras.opaque = facts);
        }
        let token = self.judged(text, &parts, &reading, token);
        let evicted = self.cache.insert(text.key, Arc::clone(&token), self.generation);
        self.counters.evictions += u64::from(evicted.is_some());
        token
    }

    /// Judges a text again that is in the cache.
    fn relearn(&mut self, text: Text<'_>, slot: Slot, token: Token) -> Arc<Token> {
        let parts = Parts::of(text.bytes, self.max_token_bytes);
        let reading = parts.read();
        self.pending.remove(text.key);
        let token = self.judged(text, &parts, &reading, token);
        self.cache.replace(slot, Arc::clone(&token), self.generation);
        token
    }

    /// `token` with what can be said of it now; what cannot is under way or kept.
    fn judged(
        &mut self,
        text: Text<'_>,
        parts: &Parts<'_>,
        reading: &Reading<'_>,
        mut token: Token,
    ) -> Arc<Token> {
        let submitted = match self.judge.look(reading, &self.ring) {
            Look::Done(judgement) => Submitted::Done(judgement),
            Look::Costly(policy) => {
                token.policy = policy;
                let Text { bytes, client, at, .. } = text;
                let (fingerprint, ring) = (token.fingerprint, &self.ring);
                self.verifier.submit(&Job { fingerprint, text: bytes, parts, reading, ring, client, at })
            }
        };
        match submitted {
            Submitted::Done(judgement) => {
                apply(&mut token, judgement);
                self.look_for_key(reading, &mut token, text.at);
                self.kept(text, token)
            }
            Submitted::Queued => {
                token.signature = Signature::Unchecked(Unchecked::Pending);
                let token = Arc::new(token);
                self.counters.queued += 1;
                let waiting =
                    InFlight { key: text.key, token: Arc::clone(&token), generation: self.generation };
                self.in_flight.insert(token.fingerprint, waiting);
                token
            }
            Submitted::OverBudget => {
                self.counters.over_budget += 1;
                token.signature = Signature::Unchecked(Unchecked::OverBudget);
                Arc::new(token)
            }
        }
    }

    /// Keeps the text of a token that waits for keys; without room for it the token is over budget.
    fn kept(&mut self, text: Text<'_>, mut token: Token) -> Arc<Token> {
        if token.is_settled() {
            self.counters.judged(token.signature);
            return Arc::new(token);
        }
        let shared = Arc::new(token);
        if self.pending.keep(text.key, text.bytes, &shared, text.at) {
            self.counters.judged(shared.signature);
            return shared;
        }
        token = Arc::unwrap_or_clone(shared);
        token.signature = Signature::Unchecked(Unchecked::OverBudget);
        self.counters.over_budget += 1;
        Arc::new(token)
    }

    /// Says what an unknown key id means, or asks for its key.
    fn look_for_key(&mut self, reading: &Reading<'_>, token: &mut Token, now: Time) {
        if token.signature != Signature::Unchecked(Unchecked::KeyUnknown) {
            return;
        }
        let ring = Arc::clone(&self.ring);
        let issuer = self.judge.issuer_of(reading);
        let keys = issuer.and_then(|index| Some((index, ring.issuer(index)?)));
        let (Some((index, keys)), Some(kid)) = (keys, reading.header.kid.as_deref()) else { return };
        match self.absent.judge(index, keys, kid, token.key_asked(), now) {
            Unknown::Waits(look) => {
                token.change_extras(|extras| _ = extras.key_asked.get_or_insert(look));
                self.want(reading);
            }
            Unknown::Withdrawn => token.signature = Signature::Unchecked(Unchecked::KeyWithdrawn),
            Unknown::Absent => {
                token.change_extras(|extras| _ = extras.key_asked.get_or_insert(keys.looks));
                token.signature = Signature::Invalid;
            }
        }
    }

    /// The key ids that each issuer has published so far, for a restart.
    pub fn published_keys(&self) -> Vec<(String, Vec<Box<str>>)> {
        let names = self.judge.issuers().iter().map(|issuer| issuer.issuer.clone());
        names.zip(self.absent.seen()).collect()
    }

    /// Takes over what issuers published before a restart.
    pub fn resume_published(&mut self, published: &[(String, Vec<Box<str>>)]) {
        for (name, kids) in published {
            if let Some(index) = self.judge.issuers().iter().position(|issuer| issuer.issuer == *name) {
                self.absent.resume(index, kids);
            }
        }
    }

    fn want(&mut self, reading: &Reading<'_>) {
        let (Some(issuer), Some(kid)) = (self.judge.issuer_of(reading), reading.header.kid.as_deref()) else {
            return;
        };
        let known = self.wanted.iter().any(|wanted| wanted.issuer == issuer && &*wanted.kid == kid);
        if !known && kid.len() <= MAX_KID && self.wanted.len() < MAX_WANTED {
            self.wanted.push_back(Wanted { issuer, kid: kid.into() });
        }
    }

    /// The keys that tokens have asked for in vain since the last call, for the fetcher.
    pub fn take_wanted(&mut self) -> impl Iterator<Item = Wanted> + '_ {
        self.wanted.drain(..)
    }

    /// Takes a late verdict: the token as it is now known, if it was waited for and is settled.
    pub fn settle(&mut self, verdict: Verdict, now: Time) -> Option<Arc<Token>> {
        let InFlight { key, token, generation } = self.in_flight.remove(&verdict.fingerprint)?;
        let mut token = Arc::unwrap_or_clone(token);
        apply(&mut token, verdict.judgement);
        let token = if token.is_settled() {
            self.counters.judged(token.signature);
            Arc::new(token)
        } else {
            let bytes = verdict.into_text().unwrap_or_default();
            let parts = Parts::of(&bytes, self.max_token_bytes);
            self.look_for_key(&parts.read(), &mut token, now);
            self.kept(Text { bytes: &bytes, key, client: NOBODY, at: now }, token)
        };
        if let Some((slot, _, _)) = self.cache.find(key) {
            self.cache.replace(slot, Arc::clone(&token), generation);
        }
        let due = self.inquiries.as_ref().is_some_and(|all| all.is_due(&token, now));
        let token = if due { self.inquire(key, None, token, now) } else { token };
        token.is_settled().then_some(token)
    }

    /// Puts a question about a token; the token as it is then.
    fn inquire(&mut self, key: u128, text: Option<&[u8]>, token: Arc<Token>, at: Time) -> Arc<Token> {
        let Some(inquiries) = &mut self.inquiries else { return token };
        let Some((slot, _, generation)) = self.cache.find(key) else { return token };
        let mut asked = Token::clone(&token);
        if !inquiries.put(key, text, &mut asked, at) {
            return token;
        }
        let asked = Arc::new(asked);
        self.cache.replace(slot, Arc::clone(&asked), generation);
        asked
    }

    /// The next question for those who can revoke tokens. Each has to be answered by [`answered`](Self::answered).
    pub fn next_inquiry(&mut self) -> Option<Inquiry> {
        self.inquiries.as_mut()?.next()
    }

    /// Takes an answer: the token as it is now known, if it was asked about and is still remembered.
    pub fn answered(&mut self, answer: &Answer) -> Option<Arc<Token>> {
        let key = self.inquiries.as_mut()?.take(answer)?;
        let (slot, token, generation) = self.cache.find(key)?;
        let mut token = Token::clone(token);
        inquiry::apply(&mut token, answer);
        let token = Arc::new(token);
        self.cache.replace(slot, Arc::clone(&token), generation);
        Some(token)
    }

    /// What was asked and answered.
    #[must_use]
    pub fn inquiries(&self) -> InquiryCounters {
        self.inquiries.as_ref().map(|inquiries| inquiries.counters).unwrap_or_default()
    }

    /// Takes new keys and judges what has waited for them. Returns the tokens that are settled now; with a pooled
    /// verifier most verdicts come later.
    pub fn keys_changed(&mut self, ring: Arc<KeyRing>, now: Time) -> Vec<Arc<Token>> {
        if !ring.has_keys_of(&self.ring) {
            self.generation = self.generation.wrapping_add(1);
        }
        self.absent.learn(&ring);
        self.ring = ring;
        self.due = self.pending.len();
        self.resume(now)
    }

    /// Goes on with what [`keys_changed`](Self::keys_changed) could not do within the budget. Call it on every tick.
    pub fn resume(&mut self, now: Time) -> Vec<Arc<Token>> {
        let mut settled = Vec::new();
        while self.due > 0 {
            let Some((key, waiting)) = self.pending.pop() else { break };
            self.due -= 1;
            let before = waiting.token;
            let text = Text { bytes: &waiting.text, key, client: NOBODY, at: now };
            let parts = Parts::of(text.bytes, self.max_token_bytes);
            let reading = parts.read();
            let token = self.judged(text, &parts, &reading, Token::clone(&before));
            if token.signature == Signature::Unchecked(Unchecked::OverBudget) {
                // Its turn comes again; until then it waits as it did.
                self.due += usize::from(self.pending.keep(key, text.bytes, &before, now));
                break;
            }
            if let Some((slot, _, _)) = self.cache.find(key) {
                self.cache.replace(slot, Arc::clone(&token), self.generation);
            }
            if token.is_settled() {
                settled.push(token);
            }
        }
        self.due = self.due.min(self.pending.len());
        settled
    }

    /// Whether tokens wait for their issuer's keys to be looked at again.
    #[must_use]
    pub const fn awaits_look(&self) -> bool {
        self.pending.has_unknown()
    }

    /// Tokens that workers verify now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The keys that are at hand, issuer by issuer.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// What was done so far, and how things stand.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let ready = self.ring.issuers().filter(|issuer| issuer.state == KeyState::Ready).count();
        Counters {
            pending_bytes: self.pending.bytes() as u64,
            cached: self.cache.len() as u64,
            issuers_ready: ready as u64,
            issuers_waiting: (self.ring.issuers().count() - ready) as u64,
            ..self.counters
        }
    }
}

/// Stands for the client where it is no longer known: tokens that were kept.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Whether a verdict in the cache still holds.
const fn is_fresh(token: &Token, same_keys: bool) -> bool {
    match token.signature {
        Signature::Verified
        | Signature::Absent
        | Signature::Unchecked(Unchecked::NoIssuer | Unchecked::Unreadable | Unchecked::Pending) => true,
        Signature::Invalid
        | Signature::Unchecked(Unchecked::KeysPending | Unchecked::KeyUnknown | Unchecked::KeyWithdrawn) => {
            same_keys
        }
        Signature::Unchecked(Unchecked::OverBudget) => false,
    }
}

fn apply(token: &mut Token, judgement: Judgement) {
    token.signature = judgement.signature;
    token.policy = judgement.policy;
    token.change_extras(|extras| extras.proof = judgement.proof);
}
