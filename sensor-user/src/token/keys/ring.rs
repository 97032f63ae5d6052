//! The keys of every issuer at one moment: immutable, shared, replaced as a whole.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::Key;
use crate::token::settings::Algorithm;

/// Most keys tried for one token. During a rotation an issuer has two or three that fit; a token without `kid`
/// must not make us try a hundred.
pub const MAX_TRIES: usize = 8;

/// How far an issuer's keys have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyState {
    /// Not fetched yet.
    #[default]
    Missing,
    /// Here, perhaps not fresh: the last good ones stay in use when a fetch fails.
    Ready,
    /// Fetched in vain, and never successfully.
    Failed,
}

/// One issuer's keys.
#[derive(Clone, Debug, Default)]
pub struct IssuerKeys {
    /// How far they have come.
    pub state: KeyState,
    /// Counts up whenever the keys change.
    pub generation: u32,
    /// Counts up whenever their source was looked at with success, changed or not.
    pub looks: u32,
    /// Nobody will look again (replay).
    pub last: bool,
    /// The keys.
    pub keys: Arc<[Key]>,
    /// Where they were found, as the issuer or the configuration says; a `jku` may name this and nothing else.
    pub url: Option<Arc<str>>,
}

/// Which keys a token asks for.
#[derive(Debug)]
pub enum Choice<'a> {
    /// These fit.
    Fit(ArrayVec<&'a Key, MAX_TRIES>),
    /// None has this `kid`.
    KidUnknown,
    /// None may be used with this algorithm.
    NoneFits,
}

impl IssuerKeys {
    /// The keys that may have signed a token with this `kid` and algorithm. `kid` picks the key; keys without one
    /// (PEM files) are tried for every token; a token without one may be signed by any.
    #[must_use]
    pub fn choose(&self, kid: Option<&str>, algorithm: Algorithm) -> Choice<'_> {
        let own = |key: &Key| kid.is_none() || key.kid.as_deref() == kid;
        let named = self.keys.iter().any(own);
        let wanted = |key: &&Key| if named { own(key) } else { key.kid.is_none() };
        let mut candidates = self.keys.iter().filter(wanted).peekable();
        if candidates.peek().is_none() && kid.is_some() {
            return Choice::KidUnknown;
        }
        let fitting: ArrayVec<_, MAX_TRIES> =
            candidates.filter(|key| key.fits(algorithm)).take(MAX_TRIES).collect();
        if fitting.is_empty() { Choice::NoneFits } else { Choice::Fit(fitting) }
    }
}

/// The keys of every configured issuer, in the order of the settings.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    issuers: Vec<IssuerKeys>,
}

impl KeyRing {
    /// A ring without any keys yet.
    #[must_use]
    pub fn empty(issuers: usize) -> Self {
        Self { issuers: vec![IssuerKeys::default(); issuers] }
    }

    /// The keys of one issuer.
    #[must_use]
    pub fn issuer(&self, index: usize) -> Option<&IssuerKeys> {
        self.issuers.get(index)
    }

    /// All issuers in order.
    pub fn issuers(&self) -> impl Iterator<Item = &IssuerKeys> {
        self.issuers.iter()
    }

    /// A ring in which one issuer's keys are new.
    #[must_use]
    pub fn with_keys(&self, index: usize, keys: Vec<Key>, url: Option<Arc<str>>) -> Self {
        self.with(index, |issuer| {
            issuer.state = KeyState::Ready;
            issuer.looks = issuer.looks.wrapping_add(1);
            issuer.keys = keys.into();
            issuer.url = url;
        })
    }

    /// A ring in which one issuer's fetch has failed. Keys that it had stay in use.
    #[must_use]
    pub fn with_failure(&self, index: usize) -> Self {
        match self.issuer(index).map(|issuer| issuer.state) {
            Some(KeyState::Missing) => self.with(index, |issuer| issuer.state = KeyState::Failed),
            _ => self.clone(),
        }
    }

    /// A ring in which one issuer's keys were looked at again, and are what they were.
    #[must_use]
    pub fn with_look(&self, index: usize) -> Self {
        let mut ring = self.clone();
        if let Some(issuer) = ring.issuers.get_mut(index) {
            issuer.looks = issuer.looks.wrapping_add(1);
        }
        ring
    }

    /// The ring for a run that will see no other.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        for issuer in &mut self.issuers {
            issuer.last = true;
        }
        self
    }

    /// Whether both hold the same keys, and not just equal ones.
    #[must_use]
    pub fn has_keys_of(&self, other: &Self) -> bool {
        let same = |(a, b): (&IssuerKeys, &IssuerKeys)| {
            a.state == b.state && a.last == b.last && Arc::ptr_eq(&a.keys, &b.keys)
        };
        self.issuers.len() == other.issuers.len() && self.issuers.iter().zip(&other.issuers).all(same)
    }

    fn with(&self, index: usize, change: impl FnOnce(&mut IssuerKeys)) -> Self {
        let mut ring = self.clone();
        if let Some(issuer) = ring.issuers.get_mut(index) {
            change(issuer);
            issuer.generation = issuer.generation.wrapping_add(1);
        }
        ring
    }
}
