//! How hard an opaque token is to guess, told from its text once and kept as a few numbers.
//!
//! A random token of 64 bits or more cannot be guessed. One that is short, counted up, made of words, the time, or the
//! MD5 or SHA-1 of a small number looks random to its author only (OWASP ASVS 3.2.2). What is said here is an upper
//! bound: a text that a poor generator made is not told from a good one's.

use std::sync::OnceLock;

use aws_lc_rs::digest;

use crate::capture::Time;
use crate::token::hash::TextHash;
use crate::token::jose::base64;
use crate::token::md5::md5;

/// Below so many bits a text around a number is no secret.
const PLAIN_BITS: u16 = 40;

/// Numbers whose hashes are known: two tables of 160 KiB, made when the first such text comes, in a few milliseconds.
const NUMBERS: u32 = 10_000;

/// Seconds before now whose hashes are tried: a token is used soon after it was made.
const PAST_S: u64 = 300;

/// Texts for which that is tried in a second of the data's time: 0.1 ms each.
const TIMES_PER_S: u32 = 10;

/// Longest text that is looked at: a longer one that can be guessed is no token.
const MAX_LEN: usize = 256;

/// How a token can be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guess {
    /// It is too short, or of too few characters.
    Short,
    /// It is made of words that everybody tries.
    Words,
    /// It is a time close to its first use.
    Clock,
    /// It is the hash of a number below 10,000, or of such a word.
    HashOfNumber,
    /// It is the hash of a time close to its first use.
    HashOfTime,
}

impl Guess {
    /// The words for sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "it has too few possible values",
            Self::Words => "it is made of common words",
            Self::Clock => "it is the time",
            Self::HashOfNumber => "it is the hash of a small number or common word",
            Self::HashOfTime => "it is the hash of the time",
        }
    }
}

/// What makes an opaque token guessable; nothing of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpaqueFacts {
    /// An upper bound of what has to be guessed, in bits.
    pub bits: u16,
    /// How it can be guessed by itself.
    pub guess: Option<Guess>,
    /// A keyed hash of what is around its number, and the number: to tell tokens that count up.
    pub number: Option<(u64, u64)>,
}

/// Looks at texts; keeps the budget of the dear ones.
#[derive(Debug, Default)]
pub(super) struct Guesser {
    second: u64,
    spent: u32,
}

impl Guesser {
    /// What there is to say of a text; none if it cannot be guessed, as far as can be told.
    pub(super) fn look(&mut self, text: &[u8], hash: &TextHash, at: Time) -> Option<OpaqueFacts> {
        if text.is_empty() || text.len() > MAX_LEN {
            return None;
        }
        if let Some(facts) = self.look_at(text, hash, at) {
            return Some(facts);
        }
        // What is readable under base64 was never random: eight random bytes all are once in two thousand times.
        let alphabet = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'=');
        if !text.iter().all(alphabet) {
            return None;
        }
        let inner = base64::decode(text).bytes;
        let readable = inner.len() >= 8 && inner.iter().all(|b| (0x20..0x7f).contains(b));
        if readable { self.look_at(&inner, hash, at) } else { None }
    }

    fn look_at(&mut self, text: &[u8], hash: &TextHash, at: Time) -> Option<OpaqueFacts> {
        let bits = bits(text);
        let by_itself = |guess| Some(OpaqueFacts { bits: bits.min(32), guess: Some(guess), number: None });
        if is_clock(text, at) {
            return by_itself(Guess::Clock);
        }
        if is_words(text) {
            return by_itself(Guess::Words);
        }
        if let Some(digest) = digest_of(text) {
            if is_hash_of_number(&digest) {
                return by_itself(Guess::HashOfNumber);
            }
            return if self.is_hash_of_time(&digest, at) { by_itself(Guess::HashOfTime) } else { None };
        }
        let number = number_of(text, hash);
        let guess = (bits < PLAIN_BITS).then_some(Guess::Short);
        (guess.is_some() || number.is_some()).then_some(OpaqueFacts { bits, guess, number })
    }

    fn is_hash_of_time(&mut self, digest: &[u8], at: Time) -> bool {
        if at.secs() != self.second {
            (self.second, self.spent) = (at.secs(), 0);
        }
        if self.spent >= TIMES_PER_S {
            return false;
        }
        self.spent += 1;
        let mut seconds = at.secs().saturating_sub(PAST_S)..=at.secs().saturating_add(2);
        seconds.any(|second| hashed(second.to_string().as_bytes(), digest.len()) == digest)
    }
}

/// Hyphens and dots group characters, and tell nothing.
fn is_mark(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.' | b':' | b' ')
}

/// An upper bound of the bits that a text holds, if its characters were drawn at random.
fn bits(text: &[u8]) -> u16 {
    let letters: Vec<u8> = text.iter().copied().filter(|b| !is_mark(*b)).collect();
    let has = |class: fn(&u8) -> bool| letters.iter().any(class);
    let all = |class: fn(&u8) -> bool| letters.iter().all(class);
    let hex = all(u8::is_ascii_hexdigit) && !(has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase));
    let alphabet: f64 = if all(u8::is_ascii_digit) {
        10.0
    } else if hex {
        16.0
    } else if all(u8::is_ascii_alphanumeric) {
        let digits = if has(u8::is_ascii_digit) { 10.0 } else { 0.0 };
        let both = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
        digits + if both { 52.0 } else { 26.0 }
    } else {
        94.0
    };
    let mut seen = [false; 256];
    for place in letters.iter().map(|b| usize::from(*b)) {
        if let Some(seen) = seen.get_mut(place) {
            *seen = true;
        }
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    // One character again and again, or a handful: a random text of this length has more.
    let alphabet = if distinct * 4 <= letters.len() { alphabet.min(small(distinct)) } else { alphabet };
    let steps =
        letters.windows(3).filter(|w| matches!(w, [a, b, c] if b.wrapping_sub(*a) == c.wrapping_sub(*b)));
    let ladder = letters.len() >= 6 && steps.count() * 10 >= (letters.len() - 2) * 7;
    let total = small(letters.len()) * alphabet.max(1.0).log2();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 256 * 6.6")]
    let bits = total as u16;
    if ladder { bits.min(20) } else { bits }
}

/// Counts of characters in a short text are exact in any float.
fn small(count: usize) -> f64 {
    f64::from(u16::try_from(count).unwrap_or(u16::MAX))
}

/// Words that everybody tries, and that tests leave behind.
const WORDS: &[&str] = &[
    "access",
    "admin",
    "administrator",
    "api",
    "auth",
    "bearer",
    "changeme",
    "debug",
    "default",
    "demo",
    "dev",
    "dummy",
    "example",
    "fake",
    "foobar",
    "guest",
    "key",
    "letmein",
    "local",
    "master",
    "my",
    "pass",
    "password",
    "qwerty",
    "root",
    "sample",
    "secret",
    "service",
    "session",
    "sesame",
    "static",
    "super",
    "system",
    "test",
    "testing",
    "token",
    "user",
    "value",
    "welcome",
];

/// Whether the letters of a text are common words and nothing else; up to four digits may follow.
fn is_words(text: &[u8]) -> bool {
    let letters: Vec<u8> = text.iter().filter(|b| !is_mark(**b)).map(u8::to_ascii_lowercase).collect();
    let digits = letters.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = letters.get(..letters.len() - digits).unwrap_or_default();
    if rest.is_empty() || digits > 4 {
        return false;
    }
    while !rest.is_empty() {
        // The longest word first: "administrator" begins with "admin".
        let fits = WORDS.iter().filter(|word| rest.starts_with(word.as_bytes()));
        let Some(word) = fits.max_by_key(|word| word.len()) else { return false };
        rest = rest.get(word.len()..).unwrap_or_default();
    }
    true
}

/// Whether a text is the time, in seconds, milliseconds, microseconds or nanoseconds, within a day.
fn is_clock(text: &[u8], at: Time) -> bool {
    const DAY_S: u64 = 86_400;
    let unit: u64 = match text.len() {
        10 => 1,
        13 => 1_000,
        16 => 1_000_000,
        19 => 1_000_000_000,
        _ => return false,
    };
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
    number.is_some_and(|number| (number / unit).abs_diff(at.secs()) < DAY_S)
}

/// The number of a text that is no secret around it, and a keyed hash of the rest.
fn number_of(text: &[u8], hash: &TextHash) -> Option<(u64, u64)> {
    let is_hex = matches!(text.len(), 8..=16) && text.iter().all(u8::is_ascii_hexdigit);
    if is_hex && !text.iter().all(u8::is_ascii_digit) {
        let number = u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()?;
        return Some((u64::try_from(text.len()).ok()?, number));
    }
    let end = text.iter().rposition(u8::is_ascii_digit)? + 1;
    let digits = text.get(..end)?.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, after) = (text.get(..end - digits)?, text.get(end..)?);
    let around = [before, &b"#"[..], after].concat();
    let number = std::str::from_utf8(text.get(end - digits..end)?).ok()?.parse().ok()?;
    (bits(before) + bits(after) < PLAIN_BITS).then(|| (hash.short(&around), number))
}

/// The bytes of a text that may be an MD5 or SHA-1 in hexadecimal.
fn digest_of(text: &[u8]) -> Option<Vec<u8>> {
    if !matches!(text.len(), 32 | 40) {
        return None;
    }
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
    text.chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect()
}

/// MD5 for 16 bytes, SHA-1 for 20.
fn hashed(text: &[u8], length: usize) -> Vec<u8> {
    if length == 16 {
        md5(text).to_vec()
    } else {
        digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text).as_ref().to_vec()
    }
}

fn is_hash_of_number(digest: &[u8]) -> bool {
    static TABLES: [OnceLock<Vec<u64>>; 2] = [const { OnceLock::new() }; 2];
    let [of_md5, of_sha1] = &TABLES;
    let table = if digest.len() == 16 { of_md5 } else { of_sha1 };
    let table = table.get_or_init(|| {
        let numbers = (0..NUMBERS).map(|number| number.to_string());
        let texts = numbers.chain(WORDS.iter().map(|word| (*word).to_owned()));
        let mut starts: Vec<u64> =
            texts.filter_map(|text| start(&hashed(text.as_bytes(), digest.len()))).collect();
        starts.sort_unstable();
        starts
    });
    start(digest).is_some_and(|start| table.binary_search(&start).is_ok())
}

/// The first eight bytes: a chance hit is one in 10^15.
fn start(digest: &[u8]) -> Option<u64> {
    digest.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::Fingerprint;

    const AT: Time = Time::from_secs(1_795_284_245);

    fn guess(text: &str) -> Option<Guess> {
        let hash = TextHash::random().unwrap();
        Guesser::default().look(text.as_bytes(), &hash, AT).and_then(|facts| facts.guess)
    }

    #[test]
    fn ordinary_tokens_cannot_be_guessed() {
        for text in [
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "9f86d081884c7d659a2feaa0c55ad015",
            "2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
            "gho_16C7e42F292c6912E7710c838347Ae178B4a",
            "ya29.a0AfH6SMBx-Jk3T8w",
            "f47ac10b58cc",
            "kJ8sX2pQ9w",
            "7c211433f02071597741e6ff5a8ea34789abbf43",
        ] {
            assert_eq!(guess(text), None, "{text}");
        }
    }

    #[test]
    fn what_authors_take_for_random_is_told() {
        for (text, expected) in [
            ("1", Guess::Short),
            ("483920", Guess::Short),
            ("abc123", Guess::Short),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaa", Guess::Short),
            ("abcdefghijklmnop", Guess::Short),
            ("secret-token", Guess::Words),
            ("MyTestToken123", Guess::Words),
            ("dGVzdC10b2tlbg==", Guess::Words),
            ("1795284240", Guess::Clock),
            ("1795284240123", Guess::Clock),
            ("c4ca4238a0b923820dcc509a6f75849b", Guess::HashOfNumber),
            ("356a192b7913b04c54574d18c28d46e6395428ab", Guess::HashOfNumber),
            ("21232F297A57A5A743894A0E4A801FC3", Guess::HashOfNumber),
        ] {
            assert_eq!(guess(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn hashes_of_the_time_are_told_within_a_budget() {
        let hash = TextHash::random().unwrap();
        let mut guesser = Guesser::default();
        let hex = |second: u64| Fingerprint(md5(second.to_string().as_bytes())).to_string();
        let mut told = |second| guesser.look(hex(second).as_bytes(), &hash, AT).is_some();
        assert!(told(AT.secs()) && told(AT.secs() - 300) && !told(AT.secs() - 301));
        assert_eq!((0..100).filter(|_| told(AT.secs())).count(), TIMES_PER_S as usize - 3);
    }

    #[test]
    fn numbers_are_compared_only_where_the_rest_is_no_secret() {
        let hash = TextHash::random().unwrap();
        let number = |text: &str| Guesser::default().look(text.as_bytes(), &hash, AT)?.number;
        let (first, second) = (number("session-000000041").unwrap(), number("session-000000042").unwrap());
        assert_eq!((first.0, first.1 + 1), (second.0, second.1));
        assert_ne!(number("order-000000042").unwrap().0, first.0);
        assert_eq!(number("0000000000000a3f").map(|n| n.1), Some(0xa3f));
        assert_eq!(number("kJ8sX2pQ9wLm42"), None);
        assert_eq!(number("3f2504e0-4f89-41d3-9a0c-0305e82c3301"), None);
    }

    proptest! {
        #[test]
        fn random_tokens_of_64_bits_and_more_are_never_guessable(bytes in proptest::collection::vec(any::<u8>(), 12..48)) {
            prop_assert_eq!(guess(&base64::encode(&bytes)), None);
            let hex = bytes.iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
            prop_assert_eq!(guess(&hex), None);
        }

        #[test]
        fn any_text_is_looked_at_without_harm(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Guesser::default().look(&text, &TextHash::random().unwrap(), AT);
        }
    }
}
