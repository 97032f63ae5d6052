//! What is wrong with a token, said once: which rule explains it best, and whether every correct verifier refuses it.
//!
//! A forged token breaks many rules at a time: one without a signature has a foreign key id, is expired, and names an
//! unknown issuer. One alert that names the trick is worth more than five. Pure functions of the token's facts.

use crate::capture::Time;
use crate::token::facts::{Flaws, Proof};
use crate::token::settings::Algorithm;
use crate::token::{Form, Signature, Token};

/// Why a token is not to be trusted, most telling first. Each is one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `alg-none`
    AlgNone,
    /// `psychic-signature`
    Psychic,
    /// `alg-confusion`
    AlgConfusion,
    /// `kid-injection`
    KidInjection,
    /// `embedded-key`
    EmbeddedKey,
    /// `key-url`
    KeyUrl,
    /// `weak-secret`
    WeakSecret,
    /// `signature-invalid`
    SignatureInvalid,
    /// `alg-not-allowed`
    AlgNotAllowed,
    /// `costly-token`
    Costly,
    /// `unknown-critical`
    UnknownCritical,
    /// `malformed-token`
    Malformed,
}

/// Flaws that mean: a strict and a lax reader see different tokens.
pub const MALFORMED: Flaws = Flaws(
    Flaws::DUPLICATE_MEMBERS.0
        | Flaws::BAD_BASE64.0
        | Flaws::BAD_JSON.0
        | Flaws::WRONG_TYPE.0
        | Flaws::TOO_LARGE.0
        | Flaws::BAD_PARTS.0
        | Flaws::BAD_SIGNATURE_LENGTH.0
        | Flaws::TOO_DEEP.0,
);

const NO_SIGNATURE: Flaws = Flaws(Flaws::ALG_NONE.0 | Flaws::EMPTY_SIGNATURE.0);

/// The best explanation of what is wrong with a token's making; none if nothing is, or nothing that is known yet.
/// Its times and audience are other questions.
#[must_use]
pub fn cause(token: &Token) -> Option<Cause> {
    if token.is_verified() {
        return matches!(token.proof(), Some(Proof::WeakSecret(_))).then_some(Cause::WeakSecret);
    }
    match token.form {
        Form::Opaque => return None,
        // Of an encrypted token only the header can be read.
        Form::Jwe => return token.flaws.intersects(Flaws::COSTLY).then_some(Cause::Costly),
        Form::Jws | Form::Malformed => {}
    }
    by_proof(token).or_else(|| by_text(token)).or_else(|| by_keys(token))
}

const fn by_proof(token: &Token) -> Option<Cause> {
    match token.proof() {
        Some(Proof::HmacUnderPublicKey(_)) => Some(Cause::AlgConfusion),
        Some(Proof::HmacUnderInjectedKey(_)) => Some(Cause::KidInjection),
        Some(Proof::OwnKey) => Some(Cause::EmbeddedKey),
        Some(Proof::WeakSecret(_)) => Some(Cause::WeakSecret),
        Some(Proof::OtherKindOfKey) | None => None,
    }
}

fn by_text(token: &Token) -> Option<Cause> {
    let flaws = token.flaws;
    if flaws.intersects(NO_SIGNATURE) {
        Some(Cause::AlgNone)
    } else if flaws.intersects(Flaws::PSYCHIC) {
        Some(Cause::Psychic)
    } else if flaws.intersects(Flaws::KID_INJECTION) {
        Some(Cause::KidInjection)
    } else if flaws.intersects(Flaws::EMBEDDED_KEY) && !token.policy.is_some_and(|p| p.embedded_key_ok) {
        Some(Cause::EmbeddedKey)
    } else if flaws.intersects(Flaws::KEY_URL) && !token.policy.is_some_and(|p| p.key_url_ok) {
        Some(Cause::KeyUrl)
    } else {
        None
    }
}

fn by_keys(token: &Token) -> Option<Cause> {
    if is_confused(token) {
        Some(Cause::AlgConfusion)
    } else if matches!(token.signature, Signature::Invalid) {
        let tried = token.policy.is_none_or(|p| p.algorithm_ok);
        Some(if tried { Cause::SignatureInvalid } else { Cause::AlgNotAllowed })
    } else if token.flaws.intersects(Flaws::COSTLY) {
        Some(Cause::Costly)
    } else if token.flaws.intersects(Flaws::UNKNOWN_CRITICAL) {
        Some(Cause::UnknownCritical)
    } else if matches!(token.form, Form::Malformed) || token.flaws.intersects(MALFORMED) {
        Some(Cause::Malformed)
    } else {
        None
    }
}

/// An HMAC token in the name of an issuer that signs with asymmetric keys only.
fn is_confused(token: &Token) -> bool {
    let symmetric = token.alg.as_deref().and_then(Algorithm::parse).is_some_and(Algorithm::is_symmetric);
    symmetric && token.policy.is_some_and(|p| p.issuer_known && p.issuer_asymmetric)
}

/// Whether keys refute it. A signature that was not even tried, because our policy does not list its algorithm, may
/// be its issuer's after all; an HMAC in the name of an asymmetric issuer may not.
fn is_refuted(token: &Token) -> bool {
    let tried = token.policy.is_none_or(|p| p.algorithm_ok) || is_confused(token);
    matches!(token.signature, Signature::Invalid) && tried
}

/// Why every correct verifier refuses a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its form alone refutes it: no signature, or one that no key can make.
    Unsigned,
    /// The keys of its issuer refute it.
    Forged,
    /// It was over before the request, by more than the leeway.
    Expired,
    /// It was not yet good at the request, by more than the leeway.
    NotYetValid,
}

impl Refusal {
    /// The word for facts and sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "no valid signature is possible",
            Self::Forged => "the signature is not the issuer's",
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet",
        }
    }

    /// Whether the token was made by somebody else than its issuer.
    #[must_use]
    pub const fn is_forgery(self) -> bool {
        matches!(self, Self::Unsigned | Self::Forged)
    }
}

/// Why every correct verifier refuses this token at `at`; none if there may be one that takes it. Conservative: what a
/// policy of ours alone forbids (audience, issuer, type), what libraries read differently (duplicate members, padding),
/// and what a private agreement may allow (`crit`) is no such reason. A token without any configured issuer is
/// refutable by its form and its times only.
#[must_use]
pub fn must_refuse(token: &Token, at: Time, leeway_s: i64) -> Option<Refusal> {
    if !matches!(token.form, Form::Jws) {
        return None;
    }
    if !token.is_verified() {
        let refuted = matches!(token.signature, Signature::Absent);
        if refuted || token.flaws.intersects(NO_SIGNATURE) || token.flaws.intersects(Flaws::PSYCHIC) {
            return Some(Refusal::Unsigned);
        }
        let proven = matches!(token.proof(), Some(p) if !matches!(p, Proof::WeakSecret(_)));
        if proven || is_refuted(token) {
            return Some(Refusal::Forged);
        }
    }
    match lateness_s(token, at) {
        Some(late) if late > leeway_s => return Some(Refusal::Expired),
        _ => {}
    }
    match earliness_s(token, at) {
        Some(early) if early > leeway_s => Some(Refusal::NotYetValid),
        _ => None,
    }
}

fn secs(at: Time) -> i64 {
    i64::try_from(at.secs()).unwrap_or(i64::MAX)
}

/// Seconds from `exp` to `at`; negative while the token is good, none if it has no `exp`.
#[must_use]
pub fn lateness_s(token: &Token, at: Time) -> Option<i64> {
    Some(secs(at).saturating_sub(token.expires.get()?))
}

/// Seconds from `at` to `nbf`; negative once the token is good, none if it has no `nbf`.
#[must_use]
pub fn earliness_s(token: &Token, at: Time) -> Option<i64> {
    Some(token.not_before.get()?.saturating_sub(secs(at)))
}
