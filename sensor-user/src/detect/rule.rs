//! What a rule is: its card, its input, its output.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::capture::{Loss, Time};
use crate::detect::cause::must_refuse;
use crate::detect::climate::LoginSeen;
use crate::detect::knowledge::{Knowledge, Place};
use crate::detect::lineage::{Birth, Issue, Lineage};
use crate::detect::object::Object;
use crate::detect::roster::{Slot, Who};
use crate::detect::statement::VERIFIERS_LEEWAY_S;
use crate::detect::user::UserRules;
use crate::detect::{Finding, Severity};
use crate::http::{Coverage, Exchange};
use crate::token::facts::Flaws;
use crate::token::{Fingerprint, TokenUse};

/// When a rule can be asked. A token whose signature is still being checked splits an exchange's judgement in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Text, headers, status, history: asked at once, once an exchange.
    Exchange,
    /// The final verdict on the token: asked once an exchange and token, at once or when the verdict comes.
    Verdict,
}

/// What an exchange must be for a rule to be asked about it: a set, all of which must hold. For speed only: a rule says
/// nothing and learns nothing of importance from the exchanges that it is not asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When(u16);

impl When {
    /// Every exchange.
    pub const EVERY: Self = Self(0);
    /// Whatever a rule may ask for: of an exchange that issues tokens.
    pub const ALL: Self = Self(u16::MAX);
    /// It has tokens.
    pub const TOKEN: Self = Self(1);
    /// It does not repeat what the same client did with the same token a moment ago ([`Who::repeats`]).
    pub const NEWS: Self = Self(2);
    /// Somebody acts: a principal, or a token that the application believes.
    pub const ACTOR: Self = Self(4);
    /// A verified principal acts.
    pub const PRINCIPAL: Self = Self(8);
    /// It names an object.
    pub const OBJECT: Self = Self(16);
    /// It was answered 2xx.
    pub const SUCCESS: Self = Self(32);
    /// It was refused: 401 or 403.
    pub const REFUSED: Self = Self(64);
    /// It is an attempt to log in.
    pub const LOGIN: Self = Self(128);
    /// It is odd: gaps in its capture, or bytes, credentials or names that two readers read in several ways.
    pub const ODD: Self = Self(256);

    /// How many there are, but for [`Self::ALL`].
    pub const SETS: usize = 1 << 9;

    /// A number below [`Self::SETS`]; none for [`Self::ALL`].
    #[inline]
    #[must_use]
    pub const fn number(self) -> Option<usize> {
        if (self.0 as usize) < Self::SETS { Some(self.0 as usize) } else { None }
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether everything that `other` asks for is in this set.
    #[inline]
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    const fn if_so(self, holds: bool) -> Self {
        if holds { self } else { Self::EVERY }
    }

    /// All that holds of a case.
    #[must_use]
    pub fn of(case: &Case<'_>) -> Self {
        if !case.issue.tokens.is_empty() {
            return Self::ALL;
        }
        let status = case.exchange.status();
        let exchange = case.exchange;
        let odd = exchange.coverage == Coverage::Gap
            || !exchange.suspicions.is_empty()
            || exchange.body.as_ref().is_some_and(|body| body.ambiguous)
            || case.all.iter().any(|held| held.token.flaws.intersects(Flaws::AMBIGUOUS_CARRIER));
        Self::TOKEN
            .if_so(!case.tokens.is_empty())
            .and(Self::NEWS.if_so(!case.who.repeats || case.again))
            .and(Self::ACTOR.if_so(case.who.actor.is_some()))
            .and(Self::PRINCIPAL.if_so(case.who.principal().is_some()))
            .and(Self::OBJECT.if_so(case.object.is_some()))
            .and(Self::SUCCESS.if_so(matches!(status, Some(200..=299))))
            .and(Self::REFUSED.if_so(matches!(status, Some(401 | 403))))
            .and(Self::LOGIN.if_so(case.login.is_some()))
            .and(Self::ODD.if_so(odd))
    }
}

/// A number that users may change under `rules.<id>.<key>`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// The key, with its unit: `per_minute`, `window_s`.
    pub key: &'static str,
    /// The shipped value.
    pub default: f64,
    /// Smallest value that makes sense.
    pub min: f64,
    /// Largest value that makes sense.
    pub max: f64,
    /// One sentence for docs/rules.md and `rules show`.
    pub doc: &'static str,
}

/// A rule's card: everything that is known of it without running it. docs/rules.md is made of these.
#[derive(Debug)]
pub struct About {
    /// Kebab-case fact: `alg-none`.
    pub id: &'static str,
    /// A title of a few words.
    pub title: &'static str,
    /// Raised when the rule's meaning changes, or the layout of its memory.
    pub version: &'static str,
    /// Severity of the attempt.
    pub severity: Severity,
    /// Severity when the application accepted it (2xx), where that differs.
    pub accepted: Option<Severity>,
    /// ATT&CK technique ids: `T1606`.
    pub attack: &'static [&'static str],
    /// Whether it learns or counts (OCSF analytic type 2) rather than states a fact (type 1).
    pub behavioural: bool,
    /// When it is asked.
    pub needs: Needs,
    /// What it sees, why it matters, what is benign, what it does not see: Markdown paragraphs.
    pub doc: &'static str,
    /// Seconds that an alert of this rule cools down unless configured otherwise.
    pub cooling_s: u32,
    /// Its numbers.
    pub thresholds: &'static [Threshold],
}

/// A rule's own numbers, as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds(pub Vec<(&'static str, f64)>);

impl Thresholds {
    /// The configured value of `key`, or the shipped one.
    #[must_use]
    pub fn value(&self, about: &About, key: &str) -> f64 {
        let set = self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        set.or_else(|| about.thresholds.iter().find(|t| t.key == key).map(|t| t.default)).unwrap_or_default()
    }
}

/// What is known of how a route treats callers without a good token. Learned from traffic, overridden by config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// Nothing was seen yet.
    #[default]
    Unknown,
    /// It refuses (401, 403) callers without a token, or with one that must be refused.
    Refuses,
    /// It answers 2xx to callers without any token: a 2xx there proves nothing.
    Open,
}

/// What a route is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RouteKind {
    /// Nothing special.
    #[default]
    Plain,
    /// Users log in here.
    Login,
    /// Users log out here.
    Logout,
    /// Tokens are issued or refreshed here.
    Token,
    /// Tagged by config.
    Sensitive,
    /// Tagged by config: personal data.
    Pii,
    /// Tagged by config: money.
    Financial,
    /// Tagged by config: administration.
    Admin,
    /// Anyone may call it.
    Public,
    /// Probes call it.
    Health,
}

/// The route of an exchange.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Route {
    /// `GET /orders/{id}`, bounded; not kept in snapshots, which know it already.
    #[serde(skip)]
    pub name: Arc<str>,
    /// What it is for; not kept in snapshots, for the configuration says so.
    #[serde(skip)]
    pub kind: RouteKind,
    /// How it treats strangers, as known now. This exchange is among the evidence: it cannot be both a stranger's,
    /// which teaches, and a token's, which is judged.
    pub guard: Guard,
    /// Its place among the known routes, for columns.
    pub slot: Slot,
    /// Requests to it before this one; saturates.
    pub uses: u32,
    /// When it was first asked for: data time, seconds since the epoch.
    pub first_s: u32,
}

/// What a rule is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The exchange.
    pub exchange: &'a Exchange,
    /// The tokens to judge. For rules that need a verdict: only those that have their final one now.
    pub tokens: &'a [TokenUse],
    /// Every token of the request, judged already or not: another one may be what was accepted.
    pub all: &'a [TokenUse],
    /// Its route.
    pub route: &'a Route,
    /// The attempt to log in that it is, if it is one; none when it is judged again.
    pub login: Option<&'a LoginSeen>,
    /// The object that the request names, if it names one.
    pub object: Option<Object>,
    /// Who takes part.
    pub who: &'a Who,
    /// What is known from outside.
    pub knowledge: &'a Knowledge,
    /// Where tokens come from.
    pub lineage: &'a Lineage,
    /// What this exchange says of that; nothing when it is judged again.
    pub issue: Issue<'a>,
    /// Now, in the time of the data.
    pub now: Time,
    /// Whether the exchange was judged before, without the verdict that has come now: what is not about `tokens` was
    /// told then.
    pub again: bool,
}

impl<'a> Case<'a> {
    /// The second of the exchange, since the epoch.
    #[must_use]
    pub fn second(&self) -> u32 {
        u32::try_from(self.exchange.at.secs()).unwrap_or(u32::MAX)
    }

    /// Where the client is; none without a database of places. Looked up once an address.
    #[inline]
    #[must_use]
    pub const fn place(&self) -> Option<&Place> {
        self.who.place.as_ref()
    }

    /// How a token of this case came to be, if that was seen.
    #[must_use]
    pub fn birth(&self, token: Fingerprint) -> Option<&Birth> {
        self.lineage.birth(self.who.token(token)?.slot)
    }

    /// The token by which the actor is known, chosen as the roster chooses it: the first with a verdict that a verifier
    /// need not refuse. It names the verified principal wherever [`Who::principal`] knows one; elsewhere it may be a
    /// token that nobody can check, or the good token of somebody whose request failed.
    #[must_use]
    pub fn acting(&self) -> Option<&'a TokenUse> {
        let good =
            |held: &&TokenUse| must_refuse(&held.token, self.exchange.at, VERIFIERS_LEEWAY_S).is_none();
        self.tokens.iter().filter(|held| held.token.is_settled()).find(good)
    }
}

/// What a rule remembers, as a snapshot keeps it. Everything that serde can write and read is one.
pub trait Memory {
    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written as it is.
    fn save(&self) -> Result<Vec<u8>, postcard::Error>;

    /// Replaces it by what was written earlier; unchanged on failure.
    ///
    /// # Errors
    /// When the bytes are not what this version writes.
    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error>;
}

impl<T: Serialize + DeserializeOwned> Memory for T {
    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        *self = postcard::from_bytes(bytes)?;
        Ok(())
    }
}

/// Where rules put their findings.
pub type Report = Vec<Finding>;

/// A detection. Rules are pure: they take time from the case and do no I/O.
pub trait Rule: Send {
    /// Its card.
    fn about(&self) -> &'static About;

    /// Which exchanges it is asked about.
    fn when(&self) -> When {
        When::EVERY
    }

    /// Reads the first of what it remembers of whoever is in these places, and concludes nothing. Whether it does that.
    ///
    /// For speed only: what several rules remember is then fetched from memory at the same time, and not by one rule
    /// after the other. The places are where a token and its actor were last time.
    fn glance(&self, _token: u32, _actor: u32) -> bool {
        false
    }

    /// Reads what the first refers to, once that has come. Whether it does that.
    fn glance_beyond(&self, _actor: u32) -> bool {
        false
    }

    /// Judges one exchange.
    fn judge(&mut self, case: &Case<'_>, report: &mut Report);

    /// Judges an exchange again whose token turned out, a moment later, not to stand well with those who can revoke it.
    fn judge_standing(&mut self, _case: &Case<'_>, _report: &mut Report) {}

    /// Judges a loss of captured records.
    fn lost(&mut self, _loss: &Loss, _report: &mut Report) {}

    /// What it remembers, to be kept over a restart. Rules without history have none.
    fn memory(&mut self) -> Option<&mut dyn Memory> {
        None
    }

    /// Time has passed: forget what is too old, tell what silence means. Called at most every data second.
    fn tick(&mut self, _now: Time, _report: &mut Report) {}

    /// The user's own rules have changed: for the seats that ask them.
    fn adopt(&mut self, _rules: &UserRules) {}
}
