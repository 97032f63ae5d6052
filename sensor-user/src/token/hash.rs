//! The two names of a token: a fast one for the cache, a lasting one for people.
//!
//! The cache must answer "have I judged this very text?" for every request. A collision would lend a forged token
//! the verdict of a valid one, so the hash must resist people who choose the texts: [`TextHash`] is a universal hash,
//! for which that is a theorem and not a hope.
//!
//! 1. **NH** (Black, Halevi, Krawczyk, Krovetz and Rogaway, "UMAC: Fast and Secure Message Authentication", 1999) makes
//!    two sums of 128 bits of a text, sixteen bytes with one multiplication each, the second under the same secret
//!    moved on by sixteen bytes. Two different texts of one length have the same two sums with probability 2^-128 over
//!    the choice of the secret: what they prove of NH with Toeplitz keys, for words of 64 bits and two sums.
//! 2. **Multilinear hashing** (Lemire and Kaser, "Strongly universal string hashing is fast", 2014) takes the sums and
//!    the length to 64 bits, twice with independent secrets: 2^-128 again for whatever differs.
//!
//! So any two texts collide with probability 2^-127 at most, as long as no hash is ever shown, and none is. Against
//! 200,000 cached tokens (2^18) a forger who tries a billion (2^30) succeeds with probability 2^-79. Texts that are longer
//! than any head may be are named by HMAC instead, for which one has to believe in SHA-256.
//!
//! It takes a third of the time of GMAC (decision 3 has the figures, and what else was looked at).

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use crate::token::facts::Fingerprint;

/// Bytes that one multiplication takes.
const BLOCK: usize = 16;

/// Longest text that the secret is long enough for: what a head may have, and so any token in one.
const LONGEST: usize = 64 * 1024;

/// Hashes texts under a secret of this process. Never print what it returns.
pub struct TextHash {
    /// For the sums: a pair of words for each block of the longest text, one for a block that is not full, and one
    /// more for the second sum.
    pairs: Zeroizing<Vec<[u64; 2]>>,
    /// For the end: a constant and a factor for each of five words, for either half of the hash.
    factors: Zeroizing<[[u128; 6]; 2]>,
    /// Takes over for longer texts.
    spare: Namer,
}

impl TextHash {
    /// Draws a new secret.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = Zeroizing::new(vec![0; LONGEST + 2 * BLOCK]);
        getrandom::fill(&mut bytes).map_err(|_error| NoRandomness)?;
        let pairs = bytes.as_chunks().0.iter().map(|block| halves(u128::from_ne_bytes(*block)));
        let pairs = Zeroizing::new(pairs.collect::<Vec<_>>());
        let mut factors = Zeroizing::new([[0; 6]; 2]);
        for factor in factors.as_flattened_mut() {
            *factor = u128::from_ne_bytes(*random()?);
        }
        Ok(Self { pairs, factors, spare: Namer::new(None)? })
    }

    /// The hash of a text.
    #[must_use]
    pub fn of(&self, text: &[u8]) -> u128 {
        if text.len() > LONGEST {
            return u128::from_le_bytes(self.spare.name(text).0);
        }
        let (blocks, rest) = text.as_chunks::<BLOCK>();
        let mut last = [0; BLOCK];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let (mut sums, mut secrets) = ([0; 2], self.pairs.array_windows());
        for (block, secret) in blocks.iter().zip(secrets.clone()) {
            add(&mut sums, *block, secret);
        }
        if let Some(secret) = secrets.nth(blocks.len()) {
            add(&mut sums, last, secret);
        }
        let [[a, b], [c, d]] = sums.map(halves);
        let words = [a, b, c, d, text.len() as u64];
        let half = |[constant, factors @ ..]: &[u128; 6]| {
            let products = factors.iter().zip(words).map(|(factor, word)| factor.wrapping_mul(word.into()));
            products.fold(*constant, u128::wrapping_add) >> 64
        };
        let [high, low] = self.factors.each_ref().map(half);
        high << 64 | low
    }

    /// The same in 64 bits, never 0: to compare parts of tokens where a chance hit is harmless.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "half of the hash is what is wanted")]
    pub fn short(&self, text: &[u8]) -> u64 {
        (self.of(text) as u64).max(1)
    }
}

/// Adds a block of a text to both sums, to each under its own secret.
#[inline]
fn add(sums: &mut [u128; 2], block: [u8; BLOCK], secret: &[[u64; 2]; 2]) {
    let [a, b] = halves(u128::from_le_bytes(block));
    for (sum, [k, l]) in sums.iter_mut().zip(secret) {
        *sum = sum.wrapping_add(u128::from(a.wrapping_add(*k)) * u128::from(b.wrapping_add(*l)));
    }
}

impl std::fmt::Debug for TextHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextHash").finish_non_exhaustive()
    }
}

/// The lower half of a number, and the higher.
#[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
const fn halves(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
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
    fn the_longest_text_and_longer_ones_have_hashes_of_their_own() {
        let hash = TextHash::random().unwrap();
        for len in [LONGEST - 1, LONGEST, LONGEST + 1, LONGEST + BLOCK] {
            let mut text = vec![b'a'; len];
            let before = hash.of(&text);
            assert_eq!(before, hash.of(&text));
            for at in [0, len / 2, len - 1] {
                text[at] ^= 1;
                assert_ne!(before, hash.of(&text), "{at} of {len}");
                text[at] ^= 1;
            }
        }
    }

    #[test]
    fn halves_that_swap_and_blocks_that_change_places_matter() {
        let hash = TextHash::random().unwrap();
        let [one, other] = [[1; 8], [2; 8]];
        let texts =
            [[one, other, one, one], [other, one, one, one], [one, one, one, other], [one, one, other, one]];
        let all: std::collections::HashSet<u128> =
            texts.iter().map(|text| hash.of(text.as_flattened())).collect();
        assert_eq!(all.len(), texts.len());
    }

    /// What the two papers define, written down once more without a thought for speed.
    #[allow(clippy::cast_possible_truncation, reason = "halves of sums")]
    fn by_the_book(hash: &TextHash, text: &[u8]) -> u128 {
        let mut padded = text.to_vec();
        padded.resize((text.len() / 16 + 1) * 16, 0);
        let words: Vec<u64> =
            padded.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        let keys: Vec<u64> = hash.pairs.iter().flatten().copied().collect();
        let sum = |shift: usize| {
            let product = |i: usize| {
                let [one, other] = [i, i + 1].map(|i| u128::from(words[i].wrapping_add(keys[shift + i])));
                one * other
            };
            (0..words.len()).step_by(2).map(product).fold(0, u128::wrapping_add)
        };
        let ends =
            [sum(0) as u64, (sum(0) >> 64) as u64, sum(2) as u64, (sum(2) >> 64) as u64, text.len() as u64];
        let half = |keys: &[u128; 6]| {
            let sum =
                (1..6).fold(keys[0], |sum, i| sum.wrapping_add(keys[i].wrapping_mul(ends[i - 1].into())));
            sum >> 64
        };
        half(&hash.factors[0]) << 64 | half(&hash.factors[1])
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
        fn is_what_the_papers_define(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let hash = TextHash::random().unwrap();
            prop_assert_eq!(hash.of(&text), by_the_book(&hash, &text));
        }

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
