//! Pseudonyms of people: stable names that only the holder of a key can make, and turn back.
//!
//! A name is encrypted deterministically in the manner of a synthetic IV (RFC 5297 gives the idea): a keyed hash of the
//! name is both the counter-mode IV under which it is encrypted and what proves it when it is read back. So one name
//! has one pseudonym under one key, a wrong key or a changed letter is noticed, and nobody else learns more than which
//! events are about the same person. The padding leaves three lengths to tell apart. Names of more than 64 bytes are
//! only hashed: they can be compared and not read back. docs/decisions/0009-pseudonyms.md says why.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, iv};

/// What every pseudonym begins with.
pub const PREFIX: &str = "p-";

/// Longest name that can be read back, in bytes: an e-mail's local part (RFC 5321), and any UUID or number.
const MAX_NAME: usize = 64;

/// Bytes of the synthetic IV: two of so many names share one, or a wrong key fits one, with odds of 2^-96.
const SIV: usize = 12;

/// Lengths to which names are padded, with the byte that tells how long they are: words and numbers, UUIDs, the rest.
const PADDED: [usize; 3] = [20, 38, MAX_NAME + 1];

/// Bytes of what is only a hash. No padded length gives the same.
const HASH: usize = 20;

/// What the keyed hash is about.
const READABLE: u8 = 1;
const HASHED: u8 = 2;

/// RFC 4648 section 6, in small letters.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The holder of the key.
pub struct Pseudonyms {
    mac: hmac::Key,
    /// None if the library refuses a key of 32 bytes, which it does not: then names are only hashed.
    cipher: Option<EncryptingKey>,
}

/// Why a pseudonym gives no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It does not look like one.
    #[error("it is no pseudonym: those are `p-` and 32, 52, 80 or 124 letters a-z and digits 2-7")]
    Malformed,
    /// The name was too long to be held.
    #[error(
        "it holds no name, for the name has more than {MAX_NAME} bytes; compare it with `pseudonym of NAME`"
    )]
    TooLong,
    /// Another key made it, or it was changed.
    #[error("it was made under another key, or it was changed")]
    Foreign,
}

impl Pseudonyms {
    /// Derives both keys that it takes from one of any length.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = |what: &[u8]| hmac::sign(&master, what);
        let mac = hmac::Key::new(hmac::HMAC_SHA256, derived(b"tokenscope pseudonym mac 1").as_ref());
        let cipher = UnboundCipherKey::new(&AES_256, derived(b"tokenscope pseudonym cipher 1").as_ref());
        Self { mac, cipher: cipher.and_then(EncryptingKey::ctr).ok() }
    }

    /// The pseudonym of a name.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        let bytes = self.sealed(name).unwrap_or_else(|| self.hash(HASHED, name, HASH));
        let mut out = String::with_capacity(PREFIX.len() + bytes.len() * 8 / 5 + 1);
        out.push_str(PREFIX);
        encode(&bytes, &mut out);
        out
    }

    /// The name behind a pseudonym. Case does not matter.
    ///
    /// # Errors
    /// When it is none, or not of this key.
    pub fn resolve(&self, pseudonym: &str) -> Result<String, Unresolved> {
        let pseudonym = pseudonym.trim().to_ascii_lowercase();
        let text = pseudonym.strip_prefix(PREFIX).ok_or(Unresolved::Malformed)?;
        let bytes = decode(text).ok_or(Unresolved::Malformed)?;
        if bytes.len() == HASH {
            return Err(Unresolved::TooLong);
        }
        let (siv, sealed) = bytes.split_at_checked(SIV).ok_or(Unresolved::Malformed)?;
        if !PADDED.contains(&sealed.len()) {
            return Err(Unresolved::Malformed);
        }
        let mut plain = sealed.to_vec();
        self.run(siv, &mut plain).ok_or(Unresolved::Foreign)?;
        let name = unpad(&plain).ok_or(Unresolved::Foreign)?;
        let again = self.sealed(name).ok_or(Unresolved::Foreign)?;
        verify_slices_are_equal(&again, &bytes).map_err(|_different| Unresolved::Foreign)?;
        Ok(name.to_owned())
    }

    /// The IV and the padded name, encrypted; none if the name is too long.
    fn sealed(&self, name: &str) -> Option<Vec<u8>> {
        let length = PADDED.into_iter().find(|length| name.len() < *length)?;
        let mut plain = Vec::with_capacity(length);
        plain.push(u8::try_from(name.len()).ok()?);
        plain.extend_from_slice(name.as_bytes());
        plain.resize(length, 0);
        let mut bytes = self.hash(READABLE, name, SIV);
        self.run(&bytes, &mut plain)?;
        bytes.append(&mut plain);
        Some(bytes)
    }

    fn hash(&self, what: u8, name: &str, length: usize) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(&[what]);
        context.update(name.as_bytes());
        context.sign().as_ref().iter().copied().take(length).collect()
    }

    /// Encrypts or decrypts: counter mode is its own inverse. At most five blocks, so the counter's four bytes suffice.
    fn run(&self, siv: &[u8], bytes: &mut [u8]) -> Option<()> {
        let mut counter = [0_u8; 16];
        counter.iter_mut().zip(siv).for_each(|(to, from)| *to = *from);
        let context = EncryptionContext::Iv128(iv::FixedLength::from(counter));
        self.cipher.as_ref()?.less_safe_encrypt(bytes, context).ok().map(drop)
    }
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonyms(..)")
    }
}

/// The name in a padded one, if the padding is sound.
fn unpad(plain: &[u8]) -> Option<&str> {
    let (length, rest) = plain.split_first()?;
    let (name, padding) = rest.split_at_checked(usize::from(*length))?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    std::str::from_utf8(name).ok()
}

fn encode(bytes: &[u8], out: &mut String) {
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push_digit(held >> bits, out);
        }
    }
    if bits > 0 {
        push_digit(held << (5 - bits), out);
    }
}

fn push_digit(value: u32, out: &mut String) {
    out.extend(ALPHABET.get((value & 31) as usize).map(|letter| char::from(*letter)));
}

/// The bytes; none if it is not exactly what [`encode`] writes.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut held, mut bits) = (0_u32, 0_u32);
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        held = (held << 5 | u32::try_from(value).ok()?) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    let mut again = String::with_capacity(text.len());
    encode(&bytes, &mut again);
    (again == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_one_pseudonym_under_one_key() {
        let (one, two) = (Pseudonyms::new(b"one"), Pseudonyms::new(b"two"));
        assert_eq!(one.of("alice"), one.of("alice"));
        assert_ne!(one.of("alice"), two.of("alice"));
        assert_ne!(one.of("alice"), one.of("Alice"));
        assert!(one.of("alice").starts_with(PREFIX) && !one.of("alice").contains("alice"));
        assert_eq!(one.resolve(&one.of("alice").to_uppercase()).as_deref(), Ok("alice"));
        assert_eq!(two.resolve(&one.of("alice")), Err(Unresolved::Foreign));
    }

    #[test]
    fn pseudonyms_outlive_versions() {
        // Whoever keeps events for a year must be able to read them back.
        let made = Pseudonyms::new(b"0123456789abcdef").of("alice");
        assert_eq!(made, "p-jrdg5ei2uoatlw4ipuwjmbdivanhkumjqvic5xrhord7ndkt4tga");
    }

    #[test]
    fn length_tells_little() {
        let keys = Pseudonyms::new(b"key");
        let length = |bytes: usize| keys.of(&"x".repeat(bytes)).len();
        let lengths = [0, 1, 19, 20, 37, 38, 64, 65, 1000].map(length);
        assert_eq!(lengths, [54, 54, 54, 82, 82, 126, 126, 34, 34]);
    }

    #[test]
    fn what_is_too_long_or_no_pseudonym_says_so() {
        let keys = Pseudonyms::new(b"key");
        assert_eq!(keys.resolve(&keys.of(&"x".repeat(65))), Err(Unresolved::TooLong));
        assert_ne!(keys.of(&"x".repeat(65)), keys.of(&"x".repeat(66)));
        for text in
            ["", "p-", "alice", "p-0123", "p-aaaa", "q-aaaaaaaa", &format!("p-{}", "b".repeat(52))[..30]]
        {
            assert_eq!(keys.resolve(text), Err(Unresolved::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_short_name_comes_back(name in "\\PC{0,16}", key in prop::collection::vec(any::<u8>(), 1..40)) {
            let keys = Pseudonyms::new(&key);
            prop_assert_eq!(keys.resolve(&keys.of(&name)), Ok(name));
        }

        #[test]
        fn any_changed_letter_is_noticed(name in "[a-z0-9@.|-]{1,64}", at in 0_usize..200, to in 0_usize..32) {
            let keys = Pseudonyms::new(b"key");
            let mut letters = keys.of(&name).into_bytes();
            let at = 2 + at % (letters.len() - 2);
            prop_assume!(letters[at] != ALPHABET[to]);
            letters[at] = ALPHABET[to];
            prop_assert!(keys.resolve(std::str::from_utf8(&letters).unwrap()).is_err());
        }

        #[test]
        fn no_text_is_read_as_a_name(text in "\\PC{0,200}", tail in "[a-z2-7]{0,130}") {
            let keys = Pseudonyms::new(b"key");
            prop_assert!(keys.resolve(&text).is_err());
            let tail = format!("p-{tail}");
            prop_assert!(keys.resolve(&tail).is_err());
        }
    }
}
