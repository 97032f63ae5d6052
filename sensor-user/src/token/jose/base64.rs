//! Base64url twice: as RFC 7515 section 2 wants it, and as lax decoders take it.
//!
//! The strict form has no padding, no white space, no foreign alphabet, and zero bits after the last byte
//! (RFC 4648 section 3.5). Every other spelling of the same bytes gives one signed token many texts, which defeats
//! deny lists and lets two readers disagree.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const STRICT: GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;
const LAX: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What one part of a token holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The bytes that a lax decoder sees.
    pub bytes: Vec<u8>,
    /// Where the text departs from strict base64url, in words.
    pub departure: Option<&'static str>,
}

impl std::fmt::Debug for Decoded {
    /// Never the bytes: they may be a signature or a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded")
            .field("bytes", &self.bytes.len())
            .field("departure", &self.departure)
            .finish()
    }
}

/// Decodes strictly.
#[must_use]
pub fn strict(text: &[u8]) -> Option<Vec<u8>> {
    STRICT.decode(text).ok()
}

/// Encodes strictly.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    STRICT.encode(bytes)
}

/// Decodes one part, laxly if it must be.
#[must_use]
pub fn decode(text: &[u8]) -> Decoded {
    if let Some(bytes) = strict(text) {
        return Decoded { bytes, departure: None };
    }
    let mut departure = None;
    let mut note = |detail| {
        departure.get_or_insert(detail);
    };
    let mut cleaned = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => cleaned.push(*byte),
            b'+' => {
                note("standard base64 alphabet instead of base64url");
                cleaned.push(b'-');
            }
            b'/' => {
                note("standard base64 alphabet instead of base64url");
                cleaned.push(b'_');
            }
            b'=' => note("base64url padding"),
            b' ' | b'\t' | b'\r' | b'\n' => note("white space inside base64url"),
            _ => note("bytes that are not base64url"),
        }
    }
    if cleaned.len() % 4 == 1 {
        note("base64url of impossible length");
        cleaned.pop();
    }
    let bytes = LAX.decode(&cleaned).unwrap_or_default();
    Decoded { bytes, departure: departure.or(Some("bits left over after the last base64url byte")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_the_same_bytes_but_one_departs() {
        assert_eq!(decode(b"-_8"), Decoded { bytes: vec![0xfb, 0xff], departure: None });
        for other in ["-_8=", "+/8", "-_ 8", "-_8\n", "-_9", "-_8.", "-_8\0", "-_8=="] {
            let decoded = decode(other.as_bytes());
            assert_eq!(decoded.bytes, [0xfb, 0xff], "{other:?}");
            assert!(decoded.departure.is_some(), "{other:?}");
        }
        assert!(decode(b"A").departure.is_some());
        assert!(decode(b"").departure.is_none());
    }

    proptest! {
        #[test]
        fn only_the_canonical_text_is_strict(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let decoded = decode(&text);
            prop_assert_eq!(decoded.departure.is_none(), encode(&decoded.bytes).as_bytes() == &text[..]);
        }
    }
}
