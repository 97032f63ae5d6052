//! The two names of a token: a fast one for the cache, a lasting one for people.
//!
//! The cache must answer "have I judged this very text?" for every request. A collision would lend a forged token
//! the verdict of a valid one, so the hash must resist people who choose the texts. GMAC (NIST SP 800-38D) under a
//! secret key and a fixed nonce is a polynomial over GF(2^128) evaluated at a secret point, plus a secret constant:
//! two different texts of at most n blocks collide with probability (n + 1) / 2^128 over the choice of the point,
//! whatever the texts are, as long as no hash is ever shown, and none is. (As an authenticator a fixed nonce would
//! be fatal; here nothing is authenticated to anybody.) The longest head, 64 KiB, has 4096 blocks: 2^-116 a pair.
//! Against 200,000 cached tokens (2^18) a forger who tries a billion (2^30) succeeds with probability 2^-68.
//!
//! Measured on a text of 794 bytes, on a busy machine, so only the ratios count: GMAC of aws-lc 395 ns, POLYVAL of the
//! `polyval` crate 1520, HMAC-SHA-256 1720. `SipHash` took 336 and foldhash 21, but 64 bits are too few, and
//! foldhash promises nothing against people who choose the texts.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use crate::token::facts::Fingerprint;

/// Hashes texts under a secret of this process. Never print what it returns.
#[derive(Debug)]
pub struct TextHash {
    key: LessSafeKey,
    /// Takes over should the library refuse a text, which it does from 2^36 bytes on.
    spare: Namer,
}

impl TextHash {
    /// Draws a new secret.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, NoRandomness> {
        let key = UnboundKey::new(&AES_128_GCM, &*random::<16>()?).map_err(|_unspecified| NoRandomness)?;
        Ok(Self { key: LessSafeKey::new(key), spare: Namer::new(None)? })
    }

    /// The hash of a text.
    #[must_use]
    pub fn of(&self, text: &[u8]) -> u128 {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(text), &mut []).ok();
        let bytes = tag.and_then(|tag| tag.as_ref().first_chunk().copied());
        u128::from_le_bytes(bytes.unwrap_or_else(|| self.spare.name(text).0))
    }

    /// The same in 64 bits, never 0: to compare parts of tokens where a chance hit is harmless.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "half of the hash is what is wanted")]
    pub fn short(&self, text: &[u8]) -> u64 {
        (self.of(text) as u64).max(1)
    }
}

/// SHA-256, where a protocol asks for it.
#[must_use]
pub fn sha256(text: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// Straight from the system: aws-lc would first measure the jitter of the clock, for some 20 ms.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(|_error| NoRandomness)?;
    Ok(bytes)
}

/// Names tokens for people and events: HMAC-SHA-256 under the sensor's key, cut to 128 bits.
#[derive(Debug)]
pub struct Namer {
    key: hmac::Key,
}

impl Namer {
    /// Under this key, or a random one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(key: Option<&[u8]>) -> Result<Self, NoRandomness> {
        let key = match key {
            Some(key) => hmac::Key::new(hmac::HMAC_SHA256, key),
            None => hmac::Key::new(hmac::HMAC_SHA256, &*random::<32>()?),
        };
        Ok(Self { key })
    }

    /// The name of a text.
    #[must_use]
    pub fn name(&self, text: &[u8]) -> Fingerprint {
        let tag = hmac::sign(&self.key, text);
        Fingerprint(tag.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn differs_by_text_length_and_process() {
        let hash = TextHash::random().unwrap();
        assert_eq!(hash.of(b"abc"), hash.of(b"abc"));
        assert_ne!(hash.of(b"abc"), hash.of(b"abc\0"));
        assert_ne!(hash.of(b""), hash.of(b"\0"));
        assert_ne!(hash.of(b"abc"), TextHash::random().unwrap().of(b"abc"));
    }

    #[test]
    fn names_are_stable_under_one_key() {
        let name = |key: &[u8]| Namer::new(Some(key)).unwrap().name(b"token");
        assert_eq!(name(b"k"), name(b"k"));
        assert_ne!(name(b"k"), name(b"l"));
        assert_ne!(Namer::new(None).unwrap().name(b"token"), Namer::new(None).unwrap().name(b"token"));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_matters(mut text in proptest::collection::vec(any::<u8>(), 1..200), bit in any::<u16>()) {
            let hash = TextHash::random().unwrap();
            let before = hash.of(&text);
            let bit = usize::from(bit) % (text.len() * 8);
            text[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(before, hash.of(&text));
        }
    }
}
