//! Issuers' keys: read strictly, ready to use (RFC 7517, RFC 7518 section 6, RFC 8037).
//!
//! A [`Key`] is made once and then only used: its public key is parsed for every algorithm that the issuer, the JWK
//! and the type of key allow, and for no other. So a token cannot talk a key into an algorithm that it is not for.

pub mod der;
pub mod jwk;
pub mod pem;
mod public;
pub mod ring;
#[cfg(test)]
mod tests;

use aws_lc_rs::{hmac, signature as lc};
use zeroize::Zeroizing;

use crate::token::settings::Algorithm;
use crate::token::verify::secrets;

pub use public::{Curve, Public};
pub use ring::{IssuerKeys, KeyRing, KeyState};

/// Most keys taken of one issuer. Microsoft's common endpoint, the largest that we know, serves about twenty.
pub const MAX_KEYS: usize = 100;

/// RSA modulus sizes that are accepted: RFC 7518 section 3.3 asks for 2048 bits or more; beyond 8192 one
/// verification costs a millisecond, which a hostile key set could turn against us.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a key is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a JSON object without duplicates, or a member of the wrong type.
    #[error("not a strict JSON key: {0}")]
    Json(&'static str),
    /// A member that this type of key needs.
    #[error("{0} is missing, or not strict base64url, or of the wrong length")]
    Member(&'static str),
    /// `kty`, `crv` or an object identifier that we do not know.
    #[error("a type of key that is not supported")]
    Unsupported,
    /// `use`, `key_ops` or `alg` says so.
    #[error("not for verifying signatures")]
    OtherUse,
    /// Its type, size and `alg` leave no algorithm that the issuer may use.
    #[error("fits none of the issuer's algorithms")]
    NoAlgorithm,
    /// Modulus out of range.
    #[error("an RSA modulus of {0} bits; 2048 to 8192 are accepted")]
    RsaBits(usize),
    /// The cryptographic library refuses it: not on the curve, even modulus, ...
    #[error("not a valid public key")]
    Invalid,
    /// A point of small order: every signature is easily forged.
    #[error("an Ed25519 key of small order")]
    SmallOrder,
}

/// Why a text yields no keys at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Neither a JWK set, nor a JWK, nor PEM.
    #[error("neither a JWK set, nor a JWK, nor a PEM public key or certificate")]
    Unrecognised,
    /// Not strict JSON.
    #[error("not a strict JWK set: {0}")]
    Json(&'static str),
    /// There is no key in it.
    #[error("holds no key")]
    Empty,
    /// There are keys, but none can be used; why the first cannot.
    #[error("holds {count} keys and none can be used; the first is {first}")]
    NoneUsable {
        /// How many there are.
        count: usize,
        /// What is wrong with the first.
        first: KeyError,
    },
}

/// What a key is made of.
#[derive(Clone)]
pub enum Material {
    /// A public key.
    Public(Public),
    /// An HMAC secret.
    Secret(Zeroizing<Vec<u8>>),
}

/// One key, ready to verify.
pub struct Key {
    /// `kid`, if it has one.
    pub kid: Option<Box<str>>,
    /// RFC 7638, SHA-256.
    pub thumbprint: [u8; 32],
    /// Its number in the list of weak secrets, if it is one.
    pub weak: Option<u32>,
    /// What an attacker could take for an HMAC secret, and what it is called.
    pub forms: Vec<(&'static str, Box<[u8]>)>,
    /// Bytes of a signature; 0 if it depends on the algorithm.
    signature_len: usize,
    checks: Vec<(Algorithm, Check)>,
}

enum Check {
    Public(lc::ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl std::fmt::Debug for Key {
    /// Nothing of the key itself: it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let algorithms: Vec<_> = self.checks.iter().map(|(algorithm, _)| algorithm).collect();
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &algorithms).finish_non_exhaustive()
    }
}

impl Key {
    /// Readies a key for those of `algorithms` that fit it.
    ///
    /// # Errors
    /// When the key is invalid or none fits.
    pub fn new(material: &Material, kid: Option<&str>, algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let mut key = Self {
            kid: kid.map(Into::into),
            thumbprint: jwk::thumbprint(material),
            weak: None,
            forms: Vec::new(),
            signature_len: 0,
            checks: Vec::new(),
        };
        match material {
            Material::Secret(secret) => {
                key.weak = secrets::position(secret);
                for algorithm in algorithms {
                    if let Some(mac) = mac(*algorithm) {
                        key.checks.push((*algorithm, Check::Secret(hmac::Key::new(mac, secret).into())));
                    }
                }
            }
            Material::Public(public) => {
                public.check()?;
                key.signature_len = public.signature_len();
                key.forms = public.forms();
                for algorithm in algorithms {
                    if let Some((verification, encoded)) = public.verification(*algorithm) {
                        let parsed = lc::ParsedPublicKey::new(verification, encoded);
                        key.checks.push((
                            *algorithm,
                            Check::Public(parsed.map_err(|_rejected| KeyError::Invalid)?),
                        ));
                    }
                }
            }
        }
        if key.checks.is_empty() { Err(KeyError::NoAlgorithm) } else { Ok(key) }
    }

    /// Whether it may be used with this algorithm.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.checks.iter().any(|(own, _)| *own == algorithm)
    }

    /// Whether keys of its kind are used with this algorithm, allowed or not.
    #[must_use]
    pub fn is_of_kind(&self, algorithm: Algorithm) -> bool {
        self.checks.iter().any(|(own, _)| own.kind() == algorithm.kind())
    }

    /// Whether it is a public key.
    #[must_use]
    pub const fn is_public(&self) -> bool {
        self.signature_len != 0
    }

    /// Whether `signature` is this key's, under this algorithm, over `message`.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let Some((_, check)) = self.checks.iter().find(|(own, _)| *own == algorithm) else { return false };
        match check {
            // The library converts ECDSA signatures before it checks them: the exact length is ours to insist on.
            Check::Public(key) => {
                signature.len() == self.signature_len && key.verify_sig(message, signature).is_ok()
            }
            Check::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

/// The HMAC of an algorithm, if it is one.
#[must_use]
pub const fn mac(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// What a text held.
#[derive(Debug, Default)]
pub struct KeySet {
    /// The keys that can be used.
    pub keys: Vec<Key>,
    /// Why others cannot, with their place in the text.
    pub refused: Vec<(usize, KeyError)>,
}

impl KeySet {
    /// Reads a JWK set, one JWK, or PEM, for an issuer that uses these algorithms. A key that cannot be used does not
    /// spoil the others (RFC 7517 section 5).
    ///
    /// # Errors
    /// When there is no key that can be used.
    pub fn read(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeysError> {
        let text = text.trim_ascii();
        let mut set = Self::default();
        if text.starts_with(b"{") {
            jwk::read_set(text, algorithms, &mut set)?;
        } else if memchr::memmem::find(text, b"-----BEGIN ").is_some() {
            pem::read_all(text, algorithms, &mut set);
        } else {
            return Err(KeysError::Unrecognised);
        }
        if set.keys.is_empty() {
            let count = set.refused.len();
            return Err(match set.refused.into_iter().next() {
                Some((_, first)) => KeysError::NoneUsable { count, first },
                None => KeysError::Empty,
            });
        }
        Ok(set)
    }

    /// Takes one more key, or notes why not.
    pub(in crate::token) fn add(&mut self, place: usize, key: Result<Key, KeyError>) {
        match key {
            Ok(key) => {
                let same = |own: &Key| own.thumbprint == key.thumbprint && own.kid == key.kid;
                if self.keys.len() < MAX_KEYS && !self.keys.iter().any(same) {
                    self.keys.push(key);
                }
            }
            Err(error) if self.refused.len() < MAX_KEYS => self.refused.push((place, error)),
            Err(_) => {}
        }
    }
}
