//! The little of DER (X.690) that public keys need: read strictly, written canonically.
//!
//! Definite minimal lengths only. What is read: `SubjectPublicKeyInfo` (RFC 5280 section 4.1), PKCS#1 `RSAPublicKey`
//! (RFC 8017 appendix A.1.1), the key inside a certificate, an ECDSA signature value. No validity, names or chains:
//! a certificate is a box around a key here, and whoever trusts it has to say so in the configuration.

/// Tags of the types that are read or written.
pub mod tag {
    /// INTEGER
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING
    pub const BIT_STRING: u8 = 0x03;
    /// OBJECT IDENTIFIER
    pub const OID: u8 = 0x06;
    /// SEQUENCE
    pub const SEQUENCE: u8 = 0x30;
    /// `[0]`, constructed: a certificate's version
    pub const CONTEXT_0: u8 = 0xa0;
}

/// Splits off the first element: tag, contents, what follows.
#[must_use]
pub fn element(text: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = text.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Two length bytes reach 65,535: no key or certificate that we accept is longer.
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length).checked_sub(0x80)? + 0x80, rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            (length.checked_sub(0x100)? + 0x100, rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// Splits off an element that must have this tag: contents, what follows.
#[must_use]
pub fn expect(text: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, contents, rest) = element(text)?;
    (tag == wanted).then_some((contents, rest))
}

/// A non-negative INTEGER's magnitude without leading zeros; zero is empty.
#[must_use]
pub fn magnitude(contents: &[u8]) -> Option<&[u8]> {
    match contents {
        [0] => Some(&[]),
        [0, high, ..] if *high >= 0x80 => contents.get(1..),
        [1..=0x7f, ..] => Some(contents),
        _ => None,
    }
}

/// Two integers in a sequence and nothing else: an RSA public key's (n, e), or an ECDSA signature's (r, s).
#[must_use]
pub fn integer_pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inner, after) = expect(text, tag::SEQUENCE)?;
    let (first, rest) = expect(inner, tag::INTEGER)?;
    let (second, rest) = expect(rest, tag::INTEGER)?;
    (after.is_empty() && rest.is_empty()).then_some(())?;
    Some((magnitude(first)?, magnitude(second)?))
}

/// Writes one element.
#[must_use]
pub fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = Vec::with_capacity(length + 5);
    out.push(tag);
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len() - 1);
    let bytes = bytes.get(significant..).unwrap_or_default();
    if length >= 0x80 {
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(8));
    }
    out.extend_from_slice(bytes);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Writes a non-negative INTEGER.
#[must_use]
pub fn write_integer(magnitude: &[u8]) -> Vec<u8> {
    let zeros = magnitude.iter().take_while(|b| **b == 0).count();
    let digits = magnitude.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if digits.first().is_none_or(|high| *high >= 0x80) { &[0] } else { &[] };
    write(tag::INTEGER, &[sign, digits])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_lengths_that_are_not_minimal() {
        assert!(element(&[0x04, 0x81, 0x7f]).is_none());
        assert!(element(&[0x04, 0x82, 0x00, 0xff]).is_none());
        assert!(element(&[0x04, 0x80, 0, 0]).is_none());
        assert!(element(&[0x04, 0x02, 0]).is_none());
        assert!(magnitude(&[0, 1]).is_none());
        assert!(magnitude(&[0x80]).is_none());
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(n in proptest::collection::vec(any::<u8>(), 0..700), e in any::<u32>()) {
            let pair = write(tag::SEQUENCE, &[&write_integer(&n), &write_integer(&e.to_be_bytes())]);
            let (read_n, read_e) = integer_pair(&pair).unwrap();
            prop_assert!(n.ends_with(read_n) && e.to_be_bytes().ends_with(read_e));
            prop_assert_eq!(write(tag::SEQUENCE, &[&write_integer(read_n), &write_integer(read_e)]), pair);
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = element(&text);
            let _ = integer_pair(&text);
        }
    }
}
