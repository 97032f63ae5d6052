//! What is known of a token once it has been read and judged. Holds no raw token and no signature.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

pub use crate::token::opaque::{Guess, OpaqueFacts};
pub use crate::token::parts::{Extras, Id, NumericDate, Profile};
pub use crate::token::status::StatusRef;

/// The name of a token everywhere: 128 bits of HMAC-SHA-256 over its text, under the sensor's key.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    /// 32 hexadecimal digits; `{:.16}` shows the first 16, as in compact lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(32);
        for byte in self.0.iter().take(digits.div_ceil(2)) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Where in the request a token was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// `Authorization: Bearer` (RFC 6750 section 2.1).
    Authorization,
    /// Another header that is configured to carry tokens.
    Header(Arc<str>),
    /// A cookie that is configured to carry tokens.
    Cookie(Arc<str>),
    /// A query parameter (RFC 6750 section 2.3).
    Query(Arc<str>),
}

/// What a token looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A compact JWS whose header and payload are JSON objects.
    Jws,
    /// A compact JWE.
    Jwe,
    /// Meant to be a JWS (two dots and a base64url `{`, or an `alg`), but not readable as one.
    Malformed,
    /// Anything else: a reference that only its issuer can read.
    Opaque,
}

/// What the signature is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signature {
    /// It verifies under the issuer's key and with an algorithm that the issuer's policy allows.
    Verified,
    /// The issuer's keys are known and it verifies under none that it may use.
    Invalid,
    /// There is none to check, or its form alone refutes it: alg none, empty, psychic.
    Absent,
    /// Nobody has checked it.
    Unchecked(Unchecked),
}

/// Why a signature was not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unchecked {
    /// It is being checked now; a later verdict follows.
    Pending,
    /// The issuer is configured but its keys have not arrived; a later verdict follows.
    KeysPending,
    /// The issuer's keys are there, but none has this `kid`; a later verdict follows when they were looked at again.
    KeyUnknown,
    /// The issuer has published a key with this `kid`, and has withdrawn it since.
    KeyWithdrawn,
    /// No issuer is configured, or not this one.
    NoIssuer,
    /// Too many distinct tokens at once: counted, and tried again at the next use.
    OverBudget,
    /// Opaque, encrypted or malformed: there is nothing to check without its issuer.
    Unreadable,
}

/// What a token is for, where it says so beyond doubt. Access tokens of most issuers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// An access token: `at+jwt` (RFC 9068), or its issuer's word for it in the claims.
    Access,
    /// An ID token: it tells a client who logged in (OpenID Connect Core section 2).
    Id,
    /// A refresh token: for the issuer only (RFC 6749 section 1.5).
    Refresh,
    /// A logout token (OpenID Connect Back-Channel Logout section 2.4) or another security event (RFC 8417).
    Event,
    /// A `DPoP` proof (RFC 9449 section 4.2).
    Proof,
}

impl Purpose {
    /// The words for sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access token",
            Self::Id => "ID token",
            Self::Refresh => "refresh token",
            Self::Event => "logout or event token",
            Self::Proof => "DPoP proof",
        }
    }
}

/// How a token stands with those who can revoke it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nobody was asked, or nobody could tell.
    #[default]
    Unknown,
    /// The first question is under way; an answer follows, or none.
    Asked,
    /// In no deny list, and active where its issuer was asked.
    Good,
    /// In the deny list.
    Listed,
    /// Its issuer says that it is not active (RFC 7662 section 2.2): revoked, expired, or not its own.
    Inactive,
}

/// The key or certificate that a token is bound to: whoever shows the token must prove to have it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyBound {
    /// `cnf.jkt`: the SHA-256 thumbprint of the key (RFC 7638, RFC 9449 section 6).
    pub thumbprint: Option<[u8; 32]>,
    /// `cnf.x5t#S256`: the SHA-256 of the client's certificate (RFC 8705 section 3.1).
    pub certificate: Option<[u8; 32]>,
    /// SHA-256 of the token's text, which a proof repeats as `ath`. Never shown.
    pub token_hash: [u8; 32],
}

impl fmt::Debug for KeyBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyBound").finish_non_exhaustive()
    }
}

/// Reasons to refuse a token that its text alone gives, without any key. A set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flaws(pub u32);

impl Flaws {
    /// `alg` is none in any spelling.
    pub const ALG_NONE: Self = Self(1);
    /// The signature part is empty.
    pub const EMPTY_SIGNATURE: Self = Self(1 << 1);
    /// ECDSA r or s is zero or not below the group order.
    pub const PSYCHIC: Self = Self(1 << 2);
    /// `jwk` or `x5c` in the header.
    pub const EMBEDDED_KEY: Self = Self(1 << 3);
    /// `jku` or `x5u` in the header.
    pub const KEY_URL: Self = Self(1 << 4);
    /// `kid` holds path traversal, quotes, pipes, control characters.
    pub const KID_INJECTION: Self = Self(1 << 5);
    /// Duplicate members in header or payload.
    pub const DUPLICATE_MEMBERS: Self = Self(1 << 6);
    /// Not strict base64url: padding, whitespace, foreign alphabet, trailing bits.
    pub const BAD_BASE64: Self = Self(1 << 7);
    /// Not strict JSON, or not UTF-8.
    pub const BAD_JSON: Self = Self(1 << 8);
    /// A registered member has the wrong type or is out of range.
    pub const WRONG_TYPE: Self = Self(1 << 9);
    /// Longer than the limit.
    pub const TOO_LARGE: Self = Self(1 << 10);
    /// Wrong number of parts.
    pub const BAD_PARTS: Self = Self(1 << 11);
    /// `crit` names something unknown, or `b64` is false.
    pub const UNKNOWN_CRITICAL: Self = Self(1 << 12);
    /// The signature's length cannot belong to the algorithm.
    pub const BAD_SIGNATURE_LENGTH: Self = Self(1 << 13);
    /// JSON nests deeper than the limit.
    pub const TOO_DEEP: Self = Self(1 << 14);
    /// Two credentials where one belongs, or an `Authorization` that is not one scheme and one token.
    pub const AMBIGUOUS_CARRIER: Self = Self(1 << 15);
    /// The header asks for absurd work: `p2c` over 1,200,000.
    pub const COSTLY: Self = Self(1 << 16);

    /// Every flaw that makes a strict reader refuse the token whatever its signature says. What is left out are wishes
    /// that a strict reader ignores (embedded keys, key URLs, odd key ids) and what concerns the request only.
    pub const REFUSED: Self = Self(
        Self::ALG_NONE.0
            | Self::EMPTY_SIGNATURE.0
            | Self::PSYCHIC.0
            | Self::DUPLICATE_MEMBERS.0
            | Self::BAD_BASE64.0
            | Self::BAD_JSON.0
            | Self::WRONG_TYPE.0
            | Self::TOO_LARGE.0
            | Self::BAD_PARTS.0
            | Self::UNKNOWN_CRITICAL.0
            | Self::BAD_SIGNATURE_LENGTH.0
            | Self::TOO_DEEP.0
            | Self::COSTLY.0,
    );

    /// Adds another set.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether any member of `other` is in this set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What checking with keys and guesses has proven about a token that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The HMAC verifies under the issuer's public key, taken as a secret in this form ("PEM", "DER", ...).
    HmacUnderPublicKey(&'static str),
    /// The HMAC verifies under a secret that a `kid` injection makes the verifier use ("empty", "NUL", ...).
    HmacUnderInjectedKey(&'static str),
    /// The HMAC verifies under a listed weak secret; its number in the list, never the secret.
    WeakSecret(u32),
    /// The signature verifies under the key in the token's own header, which is not the issuer's.
    OwnKey,
    /// `kid` names a key of the issuer that is of another kind than the algorithm needs.
    OtherKindOfKey,
}

/// How the token relates to the policy of its issuer. `None` in [`Token::policy`] if no issuer is configured at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent answers to independent questions of RFC 9068 section 4"
)]
pub struct Policy {
    /// `iss` is configured.
    pub issuer_known: bool,
    /// `aud` holds one of the configured audiences, or any audience will do.
    pub audience_ok: bool,
    /// `alg` is one that the issuer may use.
    pub algorithm_ok: bool,
    /// The issuer signs with asymmetric keys only.
    pub issuer_asymmetric: bool,
    /// `jku`/`x5u` is the issuer's own, or there is none.
    pub key_url_ok: bool,
    /// The embedded key is one of the issuer's own (same RFC 7638 thumbprint), or there is none.
    pub embedded_key_ok: bool,
    /// `typ` is one that the issuer uses, and what the token is for is access, or named among the types.
    pub type_ok: bool,
}

/// Everything that is known of one distinct token. Strings are bounded to [`MAX_TEXT`] bytes each when read.
///
/// Laid out as it is written: what is asked of a token at every use comes first and, with the two counts of an `Arc`, lies
/// in two lines of the processor's cache. What many tokens share is read through the token itself, which derefs to its
/// [`Profile`].
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Token {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// Where those who keep a history of it found it last.
    pub seat: Seat,
    /// Reasons to refuse it that need no key.
    pub flaws: Flaws,
    /// When it was last asked about: data time, seconds since the epoch; 0 if never.
    pub asked_s: u32,
    /// What its signature is worth.
    pub signature: Signature,
    /// What it looks like.
    pub form: Form,
    /// How it stands with those who can revoke it.
    pub standing: Standing,
    /// Whether it was good at some time, as those say.
    pub was_good: bool,
    /// What it is for, where it says so.
    pub purpose: Option<Purpose>,
    /// How it fits the configured issuers.
    pub policy: Option<Policy>,
    /// `exp`.
    pub expires: NumericDate,
    /// `nbf`.
    pub not_before: NumericDate,
    /// `iat`.
    pub issued: NumericDate,
    /// `sub`, or `client_id`/`azp` if there is none.
    pub subject: Option<Arc<str>>,
    /// What it shares with others of its issuer.
    pub profile: Arc<Profile>,
    /// What few tokens have; none where it would be empty.
    pub extras: Option<Box<Extras>>,
    /// The login that it goes back to, by a hash of `iss` and `sid` (OpenID Connect Front-Channel Logout section 3); 0 if
    /// it does not say. The issuer's word, no secret.
    pub session: u64,
    /// `jti`.
    pub id: Option<Id>,
    /// Keyed hash of the signing input (header and payload), for `claims-tampered`.
    pub input_hash: u64,
    /// Keyed hash of the signature, for `claims-tampered`; 0 if there is none.
    pub signature_hash: u64,
    /// Bytes of its text.
    pub length: u32,
}

/// With the two counts of an `Arc` and the allocator's word, 176 bytes, and not a byte less than the next smaller size of
/// allocations. What most tokens do not have belongs to [`Extras`], what their issuer gives to all to [`Profile`].
const _: () = assert!(size_of::<Token>() == 152);

impl std::ops::Deref for Token {
    type Target = Profile;

    #[inline]
    fn deref(&self) -> &Profile {
        &self.profile
    }
}

/// A place to look first: a guess, which whoever looks there checks.
#[derive(Debug, Default)]
pub struct Seat(AtomicU32);

impl Seat {
    /// The guess.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }

    /// Remembers where it was.
    pub fn set(&self, at: u32) {
        self.0.store(at, Ordering::Relaxed);
    }
}

impl Clone for Seat {
    fn clone(&self) -> Self {
        Self(AtomicU32::new(self.0.load(Ordering::Relaxed)))
    }
}

/// Longest text kept of any one claim or header member, in bytes; more is cut at a character border and ends in `…`.
pub const MAX_TEXT: usize = 256;

impl Token {
    /// A token of which nothing is known but its form.
    #[must_use]
    pub fn blank(form: Form) -> Self {
        Self {
            fingerprint: Fingerprint::default(),
            seat: Seat::default(),
            flaws: Flaws::default(),
            asked_s: 0,
            signature: Signature::Unchecked(Unchecked::Unreadable),
            form,
            standing: Standing::Unknown,
            was_good: false,
            purpose: None,
            policy: None,
            expires: NumericDate::NONE,
            not_before: NumericDate::NONE,
            issued: NumericDate::NONE,
            subject: None,
            profile: Arc::default(),
            extras: None,
            session: 0,
            id: None,
            input_hash: 0,
            signature_hash: 0,
            length: 0,
        }
    }

    /// The same with another profile.
    #[must_use]
    pub fn of_profile(mut self, change: impl FnOnce(&mut Profile)) -> Self {
        change(Arc::make_mut(&mut self.profile));
        self
    }

    /// The same with other extras.
    #[must_use]
    pub fn with_extras(mut self, change: impl FnOnce(&mut Extras)) -> Self {
        self.change_extras(change);
        self
    }

    /// Changes what few tokens have, and keeps nothing where that is nothing.
    pub fn change_extras(&mut self, change: impl FnOnce(&mut Extras)) {
        let mut extras = self.extras.take().unwrap_or_default();
        change(&mut extras);
        self.extras = (!extras.is_empty()).then_some(extras);
    }

    /// What was proven against it.
    #[inline]
    #[must_use]
    pub const fn proof(&self) -> Option<Proof> {
        match &self.extras {
            Some(extras) => extras.proof,
            None => None,
        }
    }

    /// The key that it is bound to.
    #[must_use]
    pub fn bound(&self) -> Option<&KeyBound> {
        self.extras.as_ref()?.bound.as_ref()
    }

    /// What makes it guessable, if it is opaque.
    #[must_use]
    pub fn opaque(&self) -> Option<&OpaqueFacts> {
        self.extras.as_ref()?.opaque.as_ref()
    }

    /// Where its issuer publishes its status.
    #[must_use]
    pub fn status(&self) -> Option<&StatusRef> {
        self.extras.as_ref()?.status.as_ref()
    }

    /// Where a strict and a lax reading part, in words that quote nothing secret.
    #[must_use]
    pub fn flaw_detail(&self) -> Option<&'static str> {
        self.extras.as_ref()?.flaw_detail
    }

    /// Of a `kid` that no key has: how often the issuer's keys had been looked at when it was first asked for.
    #[must_use]
    pub fn key_asked(&self) -> Option<u32> {
        self.extras.as_ref()?.key_asked
    }

    /// Whether no later verdict will follow.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        !matches!(
            self.signature,
            Signature::Unchecked(Unchecked::Pending | Unchecked::KeysPending | Unchecked::KeyUnknown)
        )
    }

    /// Whether its claims may name a principal: only a verified signature makes them more than an assertion.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        matches!(self.signature, Signature::Verified)
    }
}

/// A token that was issued to a client: its name, and what there is to say of it before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// What makes it guessable, if it is opaque and anything does.
    pub opaque: Option<OpaqueFacts>,
}

/// One token in one request.
#[derive(Clone, Debug)]
pub struct TokenUse {
    /// The token.
    pub token: Arc<Token>,
    /// Where it was.
    pub carrier: Carrier,
}
