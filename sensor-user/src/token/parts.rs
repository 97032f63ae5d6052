//! Parts of what is known of a token: what thousands share, what few have, and times and names in few bytes.
//!
//! A live token takes what [`Token`](crate::token::Token) takes, and there are a hundred thousand of them. So what its
//! issuer gives to all of its tokens is kept once ([`Profile`]), what is empty for nearly all of them lies elsewhere
//! ([`Extras`]), and no field pays for saying that it is empty.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::token::facts::{KeyBound, OpaqueFacts, Proof, StatusRef};

/// What many tokens of one issuer have in common. Read as if it were the token's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Profile {
    /// `alg` as it was sent, bounded and printable.
    pub alg: Option<Arc<str>>,
    /// `kid` as it was sent, bounded and printable.
    pub kid: Option<Arc<str>>,
    /// `jku` or `x5u` without query.
    pub key_url: Option<Arc<str>>,
    /// `iss`.
    pub issuer: Option<Arc<str>>,
    /// `aud`, at most eight.
    pub audiences: SmallVec<[Arc<str>; 1]>,
    /// Roles and scopes that it grants, upper case, sorted, each once, at most 32: `roles`, `role`,
    /// `realm_access.roles`, `scope`, `scp`, `groups`, in this order where there are more.
    pub roles: Arc<[Box<str>]>,
}

/// What few tokens have.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// What was proven against it.
    pub proof: Option<Proof>,
    /// The key that it is bound to.
    pub bound: Option<KeyBound>,
    /// What makes it guessable, if it is opaque.
    pub opaque: Option<OpaqueFacts>,
    /// Where its issuer publishes its status.
    pub status: Option<StatusRef>,
    /// Where a strict and a lax reading part, in words that quote nothing secret.
    pub flaw_detail: Option<&'static str>,
    /// Of a `kid` that no key has: how often the issuer's keys had been looked at when it was first asked for.
    pub key_asked: Option<u32>,
}

impl Extras {
    /// Whether there is nothing to keep.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { proof, bound, opaque, status, flaw_detail, key_asked } = self;
        proof.is_none()
            && bound.is_none()
            && opaque.is_none()
            && status.is_none()
            && flaw_detail.is_none()
            && key_asked.is_none()
    }
}

/// A `NumericDate` (RFC 7519 section 2) in whole seconds since the epoch, or none.
///
/// As large as the number alone: the least of all numbers stands for none, and a token that names it (three hundred
/// thousand million years ago) is read as the second after.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NumericDate(i64);

impl NumericDate {
    /// No date.
    pub const NONE: Self = Self(i64::MIN);

    /// The seconds.
    #[inline]
    #[must_use]
    pub const fn get(self) -> Option<i64> {
        if self.0 == i64::MIN { None } else { Some(self.0) }
    }
}

impl From<Option<i64>> for NumericDate {
    fn from(seconds: Option<i64>) -> Self {
        seconds.map_or(Self::NONE, |seconds| Self(seconds.max(i64::MIN + 1)))
    }
}

impl std::fmt::Debug for NumericDate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// A `jti`. Nearly all are UUIDs (RFC 9562) or random texts of 128 bits, which fit into the token itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Id {
    /// A UUID as RFC 9562 writes it, in small letters.
    Uuid([u8; 16]),
    /// At most [`SHORT`] bytes of UTF-8, and how many.
    Short(u8, [u8; SHORT]),
    /// Any other text.
    Text(Box<str>),
}

/// What fits beside the length and the variant in the room of three words.
const SHORT: usize = 22;

impl Id {
    /// The text as it was given.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Uuid(bytes) => Cow::Owned(uuid_text(bytes)),
            Self::Short(len, bytes) => {
                let bytes = bytes.get(..usize::from(*len)).unwrap_or_default();
                Cow::Borrowed(std::str::from_utf8(bytes).unwrap_or_default())
            }
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}

impl From<Box<str>> for Id {
    fn from(text: Box<str>) -> Self {
        if let Some(bytes) = uuid_bytes(&text) {
            return Self::Uuid(bytes);
        }
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(text.as_bytes());
                Self::Short(len, bytes)
            }
            _ => Self::Text(text),
        }
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Box::<str>::from(text).into()
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        text.into_boxed_str().into()
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text().fmt(f)
    }
}

/// Bytes of a UUID before which its text has a hyphen.
const HYPHENS: [usize; 4] = [4, 6, 8, 10];

fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if HYPHENS.contains(&at) {
            out.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            out.extend(char::from_digit(digit.into(), 16));
        }
    }
    out
}

/// The bytes of a text that is exactly what [`uuid_text`] would write.
fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f').then(|| char::from(c).to_digit(16));
    let mut rest = text.as_bytes();
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        if HYPHENS.contains(&at) {
            rest = rest.strip_prefix(b"-")?;
        }
        let (pair, after) = rest.split_first_chunk::<2>()?;
        let [high, low] = pair.map(|c| digit(c).flatten());
        *byte = u8::try_from(high? << 4 | low?).ok()?;
        rest = after;
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_date_is_what_it_was_made_of() {
        for seconds in [None, Some(0), Some(-1), Some(i64::MAX), Some(i64::MIN + 1)] {
            assert_eq!(NumericDate::from(seconds).get(), seconds);
        }
        assert_eq!(NumericDate::from(Some(i64::MIN)).get(), Some(i64::MIN + 1), "never read as none");
    }

    #[test]
    fn nothing_pays_for_being_empty() {
        assert_eq!(size_of::<NumericDate>(), 8);
        assert_eq!(size_of::<Option<Id>>(), 24);
        assert!(Extras::default().is_empty());
    }

    #[test]
    fn common_ids_need_no_room_of_their_own() {
        let own = |text: &str| matches!(Id::from(text), Id::Text(_));
        assert!(!own("0b8f5a0e-9d0c-4c0e-8f6a-2f5f7f0a1b2c") && !own("V1StGXR8_Z5jdHi6B-myT") && !own(""));
        assert!(own("0B8F5A0E-9D0C-4C0E-8F6A-2F5F7F0A1B2C"), "capitals have to come back as capitals");
        assert!(own("0b8f5a0e-9d0c-4c0e-8f6a-2f5f7f0a1b2c0") && own("a text of some more bytes"));
    }

    proptest! {
        #[test]
        fn an_id_reads_as_it_was_given(text in "\\PC{0,40}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}") {
            let id = Id::from(text.as_str());
            prop_assert_eq!(&*id.text(), text.as_str());
            prop_assert_eq!(id, Id::from(text));
        }
    }
}
