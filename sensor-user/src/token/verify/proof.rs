//! Proofs against a token: not that it is wrong, but what its maker was up to.
//!
//! Each proof is a signature that verifies under a key that nobody should verify with: a public key taken for a
//! secret (RFC 8725 section 2.1), the contents of the file or row that an injected `kid` selects, the key that the
//! token brought along, a secret out of a list. None of them can be an accident.

use std::sync::Mutex;

use aws_lc_rs::hmac;

use crate::capture::Time;
use crate::token::facts::{Flaws, Proof};
use crate::token::jose::{Parts, Reading};
use crate::token::keys::{IssuerKeys, Key, Material, Public, jwk, mac, pem};
use crate::token::settings::Algorithm;
use crate::token::verify::secrets;

/// What `/dev/null`, an empty row, a NUL, a one-line file under `/proc/sys` or `UNION SELECT 'x'` give for a key.
const INJECTED: &[(&str, &[u8])] = &[
    ("empty", b""),
    ("NUL", b"\0"),
    ("newline", b"\n"),
    ("0", b"0"),
    ("1", b"1"),
    ("2", b"2"),
    ("0 with newline", b"0\n"),
    ("1 with newline", b"1\n"),
    ("2 with newline", b"2\n"),
    ("key", b"key"),
    ("secret", b"secret"),
    ("attacker", b"attacker"),
    ("null", b"null"),
    ("AA==", b"AA=="),
    ("16 NUL", &[0; 16]),
    ("32 NUL", &[0; 32]),
];

/// Most public keys of one issuer whose forms are tried: each costs some ten HMACs.
const MAX_PUBLIC: usize = 8;

/// The first proof that holds, strongest first. `keys` are those of the token's issuer.
pub(super) fn against(parts: &Parts<'_>, reading: &Reading<'_>, keys: Option<&IssuerKeys>) -> Option<Proof> {
    let algorithm = reading.header.algorithm()?;
    if let Some(mac) = mac(algorithm) {
        let mut signs = |secret: &[u8]| verifies(mac, secret, parts);
        if let Some(form) = keys.and_then(|keys| public_form(keys, reading.header.kid.as_deref(), &mut signs))
        {
            return Some(Proof::HmacUnderPublicKey(form));
        }
        if reading.flaws.intersects(Flaws::KID_INJECTION)
            && let Some(form) = injected_form(reading.header.kid.as_deref(), &mut signs)
        {
            return Some(Proof::HmacUnderInjectedKey(form));
        }
    }
    own_key(parts, reading, keys, algorithm).or_else(|| other_kind(reading, keys?, algorithm))
}

/// Whether `kid` names a key that no token with this algorithm can be signed with. Only a key that is known tells: an
/// issuer may have a new one of the other kind.
fn other_kind(reading: &Reading<'_>, keys: &IssuerKeys, algorithm: Algorithm) -> Option<Proof> {
    let kid = reading.header.kid.as_deref()?;
    let mut named = keys.keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).peekable();
    named.peek()?;
    (!named.any(|key| key.is_of_kind(algorithm))).then_some(Proof::OtherKindOfKey)
}

fn verifies(mac: hmac::Algorithm, secret: &[u8], parts: &Parts<'_>) -> bool {
    hmac::verify(&hmac::Key::new(mac, secret), parts.signing_input, &parts.signature).is_ok()
}

/// Which form of which public key was used as a secret. The key that `kid` names comes first.
fn public_form(
    keys: &IssuerKeys,
    kid: Option<&str>,
    signs: &mut dyn FnMut(&[u8]) -> bool,
) -> Option<&'static str> {
    let named = |key: &&Key| kid.is_some() && key.kid.as_deref() == kid;
    let first = keys.keys.iter().filter(named);
    let others = keys.keys.iter().filter(|key| !named(key));
    let mut forms =
        first.chain(others).filter(|key| key.is_public()).take(MAX_PUBLIC).flat_map(|key| &key.forms);
    forms.find(|(_, form)| signs(form)).map(|(name, _)| *name)
}

/// Which secret an injected `kid` was meant to select: the usual ones, or a word out of its own SQL.
fn injected_form(kid: Option<&str>, signs: &mut dyn FnMut(&[u8]) -> bool) -> Option<&'static str> {
    if let Some((name, _)) = INJECTED.iter().find(|(_, secret)| signs(secret)) {
        return Some(name);
    }
    // `x' UNION SELECT 'secret': whatever stands between quotes, at most eight such pieces.
    let mut pieces = kid?.split(['\'', '"']).skip(1).take(8);
    pieces.any(|piece| signs(piece.as_bytes())).then_some("the literal in kid")
}

/// Whether the key that the token brought along verifies it and is not the issuer's.
fn own_key(
    parts: &Parts<'_>,
    reading: &Reading<'_>,
    keys: Option<&IssuerKeys>,
    algorithm: Algorithm,
) -> Option<Proof> {
    let jwk = reading.header.jwk.and_then(|text| jwk::read(text, &[algorithm]).ok());
    let certificate = || {
        let der = pem::decode(reading.header.certificate.as_deref()?)?;
        let public = Public::from_certificate(&der)?;
        Key::new(&Material::Public(public), None, &[algorithm]).ok()
    };
    let signs = |key: &Key| key.verifies(algorithm, parts.signing_input, &parts.signature);
    let key = jwk.filter(&signs).or_else(|| certificate().filter(&signs))?;
    let issuers = keys.is_some_and(|keys| keys.keys.iter().any(|own| own.thumbprint == key.thumbprint));
    (!issuers).then_some(Proof::OwnKey)
}

/// Keys of unknown issuers that were asked for weak secrets, and the answers.
///
/// A list costs some 300 HMACs, so each (issuer, `kid`, algorithm) is asked once in [`ASK_AGAIN`]; not once for all,
/// because then a forged token could ask first and shield the weak secret behind it for good. And because a forger
/// can make up names without end, only [`ASKED_PER_S`] lists are gone through in a second of the data's time.
#[derive(Debug, Default)]
pub struct WeakSecrets(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    answers: hashbrown::HashMap<u64, Answer, foldhash::fast::RandomState>,
    /// The second that `spent` belongs to.
    second: u64,
    spent: u32,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Time,
    found: Option<u32>,
}

/// After how much of the data's time a key is asked again: 300 us a minute is nothing.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_mins(1);

/// Lists gone through in a second, at most: 50 of 300 us are 1.5 % of a core.
const ASKED_PER_S: u32 = 50;

/// Most keys remembered (100 KiB). Beyond it all are forgotten, and asked at most once more.
const MAX_ASKED: usize = 4096;

impl Asked {
    /// What is known of this key, and whether its list may be gone through now.
    fn question(&mut self, name: impl std::hash::Hash, at: Time) -> (u64, Option<u32>, bool) {
        let hash = std::hash::BuildHasher::hash_one(self.answers.hasher(), name);
        let known = self.answers.get(&hash).copied();
        let found = known.and_then(|answer| answer.found);
        if at.secs() != self.second {
            (self.second, self.spent) = (at.secs(), 0);
        }
        let due = known.is_none_or(|answer| answer.at.plus(ASK_AGAIN) <= at);
        let may = due && self.spent < ASKED_PER_S;
        if may {
            self.spent += 1;
            if self.answers.len() >= MAX_ASKED {
                self.answers.clear();
            }
            self.answers.insert(hash, Answer { at, found });
        }
        (hash, found, may)
    }
}

impl WeakSecrets {
    /// Asks whether a listed secret signed this token.
    pub(super) fn ask(&self, parts: &Parts<'_>, reading: &Reading<'_>, at: Time) -> Option<Proof> {
        let mac = mac(reading.header.algorithm()?)?;
        let name =
            (reading.claims.issuer.as_deref(), reading.header.kid.as_deref(), reading.header.alg.as_deref());
        let (hash, earlier, may) = self.asked().question(name, at);
        // A secret once found is tried on every later token: that is one HMAC.
        if let Some(place) = earlier
            && secrets::at(place, |secret| verifies(mac, secret, parts))
        {
            return Some(Proof::WeakSecret(place));
        }
        let found = may.then(|| secrets::find(|secret| verifies(mac, secret, parts))).flatten()?;
        self.asked().answers.insert(hash, Answer { at, found: Some(found) });
        Some(Proof::WeakSecret(found))
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
