//! A status list: one number of a few bits for each token of an issuer, packed and signed (draft-ietf-oauth-status-list).
//!
//! A token that takes part names its list and its place there (`status.status_list`, section 6); the list is a JWT of
//! the issuer's own, `typ` `statuslist+jwt`, whose payload is compressed. It is read as strictly as any token: the
//! issuer's key, an algorithm that the issuer may use, and `sub` as the URI under which the token knows it, so that no
//! list can stand in for another.

use std::io::Read as _;
use std::sync::Arc;

use crate::token::facts::{Flaws, Form};
use crate::token::jose::json::{self, Number, Value};
use crate::token::jose::{Parts, base64};
use crate::token::keys::ring::Choice;
use crate::token::keys::{IssuerKeys, KeyState};
use crate::token::settings::Algorithm;

/// Longest list as it is fetched, in bytes: what cannot be packed and inflates to the limit below, in base64 twice.
pub const MAX_TEXT: usize = 8 << 20;

/// Longest list once inflated, in bytes: 32 million tokens of one bit.
pub const MAX_INFLATED: usize = 4 << 20;

/// Where a token's status stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRef {
    /// The list, at most [`MAX_TEXT`](crate::token::facts::MAX_TEXT) bytes; a longer one names none.
    pub uri: Arc<str>,
    /// The place in it.
    pub index: u64,
}

/// Why a text is no list that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// Not a strict JWT.
    #[error("is no strict JWT")]
    Form,
    /// Another `typ`.
    #[error("is a token of another type than statuslist+jwt")]
    Type,
    /// Another `sub`.
    #[error("is the list of another URI")]
    Subject,
    /// The issuer's keys have not come.
    #[error("cannot be verified before the keys of its issuer have come")]
    NoKeys,
    /// No key of the issuer has signed it.
    #[error("is not signed by its issuer")]
    Signature,
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// `status_list` does not hold what it should.
    #[error("holds no list of 1, 2, 4 or 8 bits")]
    Content,
    /// The list cannot be inflated.
    #[error("cannot be inflated")]
    Packing,
    /// It inflates beyond the limit.
    #[error("inflates to more than {MAX_INFLATED} bytes")]
    TooLarge,
}

/// What a status says (section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0: nothing against it.
    Valid,
    /// 1: revoked, for good.
    Invalid,
    /// 2: not to be accepted now.
    Suspended,
    /// Anything else means what the application says.
    Other,
}

/// A list that its issuer has signed.
#[derive(Clone, PartialEq, Eq)]
pub struct StatusList {
    bits: u8,
    packed: Box<[u8]>,
    /// `exp`, seconds since the epoch.
    pub expires: Option<i64>,
    /// `ttl`: seconds for which it may be used before it is fetched again.
    pub ttl_s: Option<u64>,
}

impl std::fmt::Debug for StatusList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusList")
            .field("bits", &self.bits)
            .field("bytes", &self.packed.len())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Claims {
    subject: Option<String>,
    expires: Option<i64>,
    ttl_s: Option<u64>,
    bits: Option<i64>,
    packed: Option<Vec<u8>>,
}

impl Claims {
    fn read(payload: &[u8]) -> Self {
        let mut claims = Self::default();
        json::members(payload, &mut |name, value| match (&*name, value) {
            ("sub", Value::Text(text)) => claims.subject = Some(text.into_owned()),
            ("exp", Value::Number(number)) => claims.expires = Some(whole(number)),
            ("ttl", Value::Number(number)) => claims.ttl_s = u64::try_from(whole(number)).ok(),
            ("status_list", Value::Object(members)) => claims.list(members),
            _ => {}
        });
        claims
    }

    fn list(&mut self, members: &[u8]) {
        json::members(members, &mut |name, value| match (&*name, value) {
            ("bits", Value::Number(Number::Integer(bits))) => self.bits = Some(bits),
            ("lst", Value::Text(text)) => self.packed = base64::strict(text.as_bytes()),
            _ => {}
        });
    }
}

/// A date that is no number in range is over.
#[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
fn whole(number: Number) -> i64 {
    match number {
        Number::Integer(seconds) => seconds,
        Number::Real(seconds) => seconds as i64,
        Number::Unbounded => 0,
    }
}

impl StatusList {
    /// Reads a list that was found under `uri`, at `now_s`.
    ///
    /// # Errors
    /// When it is not exactly one of the issuer's.
    pub fn read(
        text: &[u8],
        uri: &str,
        keys: &IssuerKeys,
        algorithms: &[Algorithm],
        now_s: i64,
    ) -> Result<Self, StatusError> {
        let text = text.trim_ascii();
        let parts = Parts::of(text, MAX_TEXT);
        let reading = parts.read();
        if reading.form != Form::Jws || reading.flaws.intersects(Flaws::REFUSED) {
            return Err(StatusError::Form);
        }
        let typ = reading.header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        if typ.strip_prefix("application/").unwrap_or(&typ) != "statuslist+jwt" {
            return Err(StatusError::Type);
        }
        let algorithm = reading.header.algorithm().filter(|algorithm| algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(StatusError::Signature)?;
        if keys.state != KeyState::Ready {
            return Err(StatusError::NoKeys);
        }
        let Choice::Fit(candidates) = keys.choose(reading.header.kid.as_deref(), algorithm) else {
            return Err(StatusError::Signature);
        };
        if !candidates.iter().any(|key| key.verifies(algorithm, parts.signing_input, &parts.signature)) {
            return Err(StatusError::Signature);
        }
        Self::of(Claims::read(parts.payload()), uri, now_s)
    }

    /// What claims that are the issuer's say.
    fn of(claims: Claims, uri: &str, now_s: i64) -> Result<Self, StatusError> {
        if claims.subject.as_deref() != Some(uri) {
            return Err(StatusError::Subject);
        }
        if claims.expires.is_some_and(|expires| expires <= now_s) {
            return Err(StatusError::Expired);
        }
        let bits = claims.bits.and_then(|bits| u8::try_from(bits).ok());
        let bits = bits.filter(|bits| matches!(bits, 1 | 2 | 4 | 8)).ok_or(StatusError::Content)?;
        let packed = inflated(&claims.packed.ok_or(StatusError::Content)?)?;
        Ok(Self { bits, packed, expires: claims.expires, ttl_s: claims.ttl_s })
    }

    /// The status at a place; none if the list does not reach so far, which is no status at all (section 8.3).
    #[must_use]
    pub fn status(&self, index: u64) -> Option<Status> {
        let first_bit = index.checked_mul(u64::from(self.bits))?;
        let byte = *self.packed.get(usize::try_from(first_bit / 8).ok()?)?;
        // The first status stands in the lowest bits of the first byte (section 4.1).
        let mask = u8::MAX >> (8 - self.bits);
        Some(match (byte >> (first_bit % 8)) & mask {
            0 => Status::Valid,
            1 => Status::Invalid,
            2 => Status::Suspended,
            _ => Status::Other,
        })
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.packed.len()
    }
}

/// Inflates (ZLIB, RFC 1950), and not beyond the limit.
fn inflated(packed: &[u8]) -> Result<Box<[u8]>, StatusError> {
    let mut bytes = Vec::new();
    let mut reader = flate2::read::ZlibDecoder::new(packed).take(MAX_INFLATED as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(|_broken| StatusError::Packing)?;
    if bytes.len() > MAX_INFLATED {
        return Err(StatusError::TooLarge);
    }
    Ok(bytes.into_boxed_slice())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::token::forge::Signer;

    pub(crate) const URI: &str = "https://idp.example/statuslists/1";
    const NOW: i64 = 1_795_284_245;

    pub(crate) fn packed(bytes: &[u8]) -> String {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        base64::encode(&encoder.finish().unwrap())
    }

    pub(crate) fn header(signer: &Signer) -> String {
        format!(r#"{{"alg":"{}","typ":"statuslist+jwt","kid":"{}"}}"#, signer.algorithm.as_str(), signer.kid)
    }

    /// A list of the signer's, with changed claims; null takes one away.
    pub(crate) fn list(
        signer: &Signer,
        uri: &str,
        bits: u8,
        bytes: &[u8],
        change: &[(&str, serde_json::Value)],
    ) -> String {
        let mut claims = serde_json::json!({
            "sub": uri, "iat": NOW - 60, "exp": NOW + 3600, "ttl": 600,
            "status_list": {"bits": bits, "lst": packed(bytes)},
        });
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        signer.token_with(&header(signer), &claims.to_string())
    }

    fn signer() -> &'static Signer {
        Signer::shared(Algorithm::ES256)
    }

    fn read(text: &str) -> Result<StatusList, StatusError> {
        let ring = signer().ring();
        StatusList::read(text.as_bytes(), URI, ring.issuer(0).unwrap(), &[Algorithm::ES256], NOW)
    }

    /// The example of section 4.1: sixteen statuses of one bit.
    #[test]
    fn reads_the_example_of_the_draft() {
        let claims = serde_json::json!({"bits": 1, "lst": "eNrbuRgAAhcBXQ"});
        let text = list(signer(), URI, 1, &[], &[("status_list", claims)]);
        let list = read(&text).unwrap();
        let all: Vec<u8> =
            (0..16).map(|index| u8::from(list.status(index) == Some(Status::Invalid))).collect();
        assert_eq!(all, [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
        assert_eq!(list.status(16), None);
        assert_eq!((list.ttl_s, list.bytes()), (Some(600), 2));
    }

    #[test]
    fn every_width_is_read_from_the_lowest_bits_on() {
        for (bits, bytes, expected) in [
            (2, vec![0b1110_0100], [Status::Valid, Status::Invalid, Status::Suspended, Status::Other]),
            (4, vec![0x10, 0xb2], [Status::Valid, Status::Invalid, Status::Suspended, Status::Other]),
            (8, vec![0, 1, 2, 255], [Status::Valid, Status::Invalid, Status::Suspended, Status::Other]),
        ] {
            let list = read(&list(signer(), URI, bits, &bytes, &[])).unwrap();
            let all: Vec<_> = (0..4).map(|index| list.status(index).unwrap()).collect();
            assert_eq!(all, expected, "{bits}");
            assert_eq!([list.status(4), list.status(u64::MAX)], [None, None]);
        }
    }

    #[test]
    fn only_the_issuers_own_list_counts() {
        let change = |name: &str, value: serde_json::Value| {
            read(&list(signer(), URI, 1, &[1], &[(name, value)])).err()
        };
        assert_eq!(change("exp", serde_json::Value::Null), Some(StatusError::Form), "a date that is none");
        assert_eq!(change("exp", NOW.into()), Some(StatusError::Expired));
        assert_eq!(change("sub", "https://idp.example/statuslists/2".into()), Some(StatusError::Subject));
        assert_eq!(change("sub", serde_json::Value::Null), Some(StatusError::Form));
        for content in [
            serde_json::json!(5),
            serde_json::json!({}),
            serde_json::json!({"bits": 3, "lst": packed(&[1])}),
            serde_json::json!({"bits": -1, "lst": packed(&[1])}),
            serde_json::json!({"bits": 257, "lst": packed(&[1])}),
            serde_json::json!({"bits": 1}),
            serde_json::json!({"bits": 1, "lst": "a b"}),
        ] {
            assert_eq!(change("status_list", content.clone()), Some(StatusError::Content), "{content}");
        }
        let junk = serde_json::json!({"bits": 1, "lst": base64::encode(b"no zlib")});
        assert_eq!(change("status_list", junk), Some(StatusError::Packing));
        let good = list(signer(), URI, 1, &[1], &[]);
        let forged = format!("{}AAAA", &good[..good.len() - 4]);
        assert_eq!(read(&forged).err(), Some(StatusError::Signature));
        let other = Signer::new(Algorithm::ES256);
        assert_eq!(read(&list(&other, URI, 1, &[1], &[])).err(), Some(StatusError::Signature));
        let weaker = Signer::hmac(Algorithm::HS256, b"secret").named(&signer().kid);
        assert_eq!(read(&list(&weaker, URI, 1, &[1], &[])).err(), Some(StatusError::Signature));
        assert_eq!(read(&signer().token("alice")).err(), Some(StatusError::Type));
        let bare = signer().token_with(r#"{"alg":"none","typ":"statuslist+jwt"}"#, "{}");
        for text in [bare.as_str(), "", "<html>", "{}"] {
            assert_eq!(read(text).err(), Some(StatusError::Form), "{text}");
        }
        let empty = crate::token::KeyRing::empty(1);
        let early =
            StatusList::read(good.as_bytes(), URI, empty.issuer(0).unwrap(), &[Algorithm::ES256], NOW);
        assert_eq!(early.err(), Some(StatusError::NoKeys));
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let most = list(signer(), URI, 1, &vec![0; MAX_INFLATED], &[]);
        assert_eq!(read(&most).unwrap().bytes(), MAX_INFLATED);
        let bomb = list(signer(), URI, 1, &vec![0; MAX_INFLATED + 1], &[]);
        assert!(bomb.len() < 10_000);
        assert_eq!(read(&bomb).err(), Some(StatusError::TooLarge));
        let cut = packed(&vec![7; 100_000]);
        let cut = serde_json::json!({"bits": 1, "lst": &cut[..cut.len() / 4 * 2]});
        assert_eq!(
            read(&list(signer(), URI, 1, &[], &[("status_list", cut)])).err(),
            Some(StatusError::Packing)
        );
    }

    proptest! {
        #[test]
        fn statuses_are_where_they_were_put(width in 0_u32..4, values in prop::collection::vec(any::<u8>(), 1..200)) {
            let bits = 1_u8 << width;
            let mask = u8::MAX >> (8 - bits);
            let mut bytes = vec![0_u8; values.len()];
            for (index, value) in values.iter().enumerate() {
                let bit = index * usize::from(bits);
                bytes[bit / 8] |= (value & mask) << (bit % 8);
            }
            let list = StatusList { bits, packed: bytes.into(), expires: None, ttl_s: None };
            for (index, value) in values.iter().enumerate() {
                let expected = match value & mask { 0 => Status::Valid, 1 => Status::Invalid, 2 => Status::Suspended, _ => Status::Other };
                prop_assert_eq!(list.status(index as u64), Some(expected));
            }
        }

        #[test]
        fn any_text_is_survived(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let ring = signer().ring();
            prop_assert!(StatusList::read(&text, URI, ring.issuer(0).unwrap(), &[Algorithm::ES256], NOW).is_err());
            let _ = inflated(&text);
        }
    }
}
