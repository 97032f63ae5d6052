//! What a signature's form alone tells, before any key is at hand (RFC 7518 section 3).

use super::Noted;
use super::header::Header;
use crate::token::facts::Flaws;
use crate::token::keys::der;
use crate::token::settings::Algorithm;

/// Notes what is wrong with `signature`. `empty` says whether its text is empty.
pub(super) fn judge(header: &Header<'_>, signature: &[u8], empty: bool, noted: &mut Noted) {
    if empty || signature.is_empty() {
        return noted.note(Flaws::EMPTY_SIGNATURE, "no signature");
    }
    let Some(algorithm) = header.algorithm() else { return };
    let order = group_order(algorithm);
    if let Some(order) = order {
        judge_ecdsa(order, signature, noted);
    }
    if !expected_lengths(algorithm).contains(&signature.len()) {
        noted.note(Flaws::BAD_SIGNATURE_LENGTH, "the signature's length does not belong to its algorithm");
    }
}

fn judge_ecdsa(order: &[u8], signature: &[u8], noted: &mut Noted) {
    let fixed = signature.len() == 2 * order.len();
    if !fixed && let Some((r, s)) = der::integer_pair(signature) {
        if r.is_empty() || s.is_empty() {
            noted.note(Flaws::PSYCHIC, "ECDSA r or s is zero");
        }
        return noted.note(Flaws::BAD_SIGNATURE_LENGTH, "ECDSA signature in DER instead of fixed length");
    }
    let (r, s) = signature.split_at(signature.len() / 2);
    let is_zero = |half: &[u8]| half.iter().all(|b| *b == 0);
    if is_zero(r) || is_zero(s) {
        noted.note(Flaws::PSYCHIC, "ECDSA r or s is zero");
    } else if fixed && (r >= order || s >= order) {
        noted.note(Flaws::PSYCHIC, "ECDSA r or s is not below the group order");
    }
}

/// Bytes that a signature of this algorithm can have. RSA: a modulus of 2048 to 8192 bits.
const fn expected_lengths(algorithm: Algorithm) -> std::ops::RangeInclusive<usize> {
    match algorithm {
        Algorithm::HS256 => 32..=32,
        Algorithm::HS384 => 48..=48,
        Algorithm::HS512 | Algorithm::ES256 | Algorithm::EdDSA => 64..=64,
        Algorithm::ES384 => 96..=96,
        Algorithm::ES512 => 132..=132,
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => 256..=1024,
    }
}

/// The order n of the curve's group, big-endian (SEC 2 sections 2.4.2, 2.5.1, 2.6.1).
const fn group_order(algorithm: Algorithm) -> Option<&'static [u8]> {
    match algorithm {
        Algorithm::ES256 => Some(&P256_ORDER),
        Algorithm::ES384 => Some(&P384_ORDER),
        Algorithm::ES512 => Some(&P521_ORDER),
        _ => None,
    }
}

const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, //
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, //
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, //
    0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

const P521_ORDER: [u8; 66] = [
    0x01, 0xff, //
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, //
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, //
    0x51, 0x86, 0x87, 0x83, 0xbf, 0x2f, 0x96, 0x6b, 0x7f, 0xcc, 0x01, 0x48, 0xf7, 0x09, 0xa5, 0xd0, //
    0x3b, 0xb5, 0xc9, 0xb8, 0x89, 0x9c, 0x47, 0xae, 0xbb, 0x6f, 0xb7, 0x1e, 0x91, 0x38, 0x64, 0x09,
];
