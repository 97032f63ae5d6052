//! A public key as numbers: its encodings, its limits, and the forms in which attackers pass it off as a secret.

use aws_lc_rs::signature as lc;

use super::der::{self, tag};
use super::{KeyError, RSA_BITS};
use crate::token::jose::base64;
use crate::token::settings::Algorithm;

/// An elliptic curve of RFC 7518 section 6.2.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the names of the RFC")]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Every curve.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// The `crv` value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The contents of its object identifier (RFC 5480 section 2.1.1.1).
    const fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],
            Self::P521 => &[0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }
}

const RSA_OID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_OID: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519_OID: &[u8] = &[0x2b, 0x65, 0x70];
const NULL: &[u8] = &[0x05, 0x00];

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Public {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// A point on a curve: 4, x, y (SEC 1 section 2.3.3).
    Ec {
        /// The curve.
        curve: Curve,
        /// The uncompressed point.
        point: Vec<u8>,
    },
    /// RFC 8032 section 5.1.5.
    Ed25519([u8; 32]),
}

impl Public {
    /// Reads a `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn from_spki(text: &[u8]) -> Option<Self> {
        let (inner, after) = der::expect(text, tag::SEQUENCE)?;
        let (algorithm, rest) = der::expect(inner, tag::SEQUENCE)?;
        let (bits, end) = der::expect(rest, tag::BIT_STRING)?;
        let (oid, parameters) = der::expect(algorithm, tag::OID)?;
        let key = bits.strip_prefix(&[0])?;
        if !after.is_empty() || !end.is_empty() {
            return None;
        }
        match oid {
            RSA_OID if parameters == NULL => Self::from_pkcs1(key),
            EC_OID => {
                let (named, end) = der::expect(parameters, tag::OID)?;
                let curve = Curve::ALL.into_iter().find(|c| c.oid() == named)?;
                let whole = key.len() == 1 + 2 * curve.size() && key.first() == Some(&4) && end.is_empty();
                whole.then(|| Self::Ec { curve, point: key.to_vec() })
            }
            ED25519_OID if parameters.is_empty() => Some(Self::Ed25519(key.try_into().ok()?)),
            _ => None,
        }
    }

    /// Reads a PKCS#1 `RSAPublicKey`.
    #[must_use]
    pub fn from_pkcs1(text: &[u8]) -> Option<Self> {
        let (n, e) = der::integer_pair(text)?;
        Some(Self::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    /// Reads the key inside a certificate; the certificate itself is not judged.
    #[must_use]
    pub fn from_certificate(text: &[u8]) -> Option<Self> {
        let (certificate, after) = der::expect(text, tag::SEQUENCE)?;
        let (mut rest, _) = der::expect(certificate, tag::SEQUENCE)?;
        if let Some((_, behind)) = der::expect(rest, tag::CONTEXT_0) {
            rest = behind;
        }
        // serialNumber, signature, issuer, validity, subject
        for _ in 0..5 {
            (_, _, rest) = der::element(rest)?;
        }
        let (_, _, behind) = der::element(rest)?;
        let spki = rest.get(..rest.len() - behind.len())?;
        after.is_empty().then(|| Self::from_spki(spki)).flatten()
    }

    /// The key as `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        let (oid, parameters, key) = match self {
            Self::Rsa { .. } => (RSA_OID, NULL.to_vec(), self.to_raw()),
            Self::Ec { curve, .. } => (EC_OID, der::write(tag::OID, &[curve.oid()]), self.to_raw()),
            Self::Ed25519(_) => (ED25519_OID, Vec::new(), self.to_raw()),
        };
        let oid = der::write(tag::OID, &[oid]);
        let algorithm = der::write(tag::SEQUENCE, &[&oid, &parameters]);
        let bits = der::write(tag::BIT_STRING, &[&[0], &key]);
        der::write(tag::SEQUENCE, &[&algorithm, &bits])
    }

    /// The key in its type's own encoding: PKCS#1, point, 32 bytes.
    #[must_use]
    pub fn to_raw(&self) -> Vec<u8> {
        match self {
            Self::Rsa { n, e } => {
                der::write(tag::SEQUENCE, &[&der::write_integer(n), &der::write_integer(e)])
            }
            Self::Ec { point, .. } => point.clone(),
            Self::Ed25519(key) => key.to_vec(),
        }
    }

    /// Limits that the cryptographic library leaves to us.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        match self {
            Self::Rsa { n, .. } => {
                let bits = n.len() * 8 - n.first().map_or(0, |high| high.leading_zeros() as usize);
                if RSA_BITS.contains(&bits) { Ok(()) } else { Err(KeyError::RsaBits(bits)) }
            }
            Self::Ed25519(key) if is_small_order(*key) => Err(KeyError::SmallOrder),
            Self::Ec { .. } | Self::Ed25519(_) => Ok(()),
        }
    }

    /// Bytes of its signatures.
    pub(super) const fn signature_len(&self) -> usize {
        match self {
            Self::Rsa { n, .. } => n.len(),
            Self::Ec { curve, .. } => 2 * curve.size(),
            Self::Ed25519(_) => 64,
        }
    }

    /// How to verify with this algorithm, and the key as the library wants it; none if they do not belong together.
    pub(super) fn verification(
        &self,
        algorithm: Algorithm,
    ) -> Option<(&'static dyn lc::VerificationAlgorithm, Vec<u8>)> {
        let verification: &'static dyn lc::VerificationAlgorithm = match (self, algorithm) {
            (Self::Rsa { .. }, Algorithm::RS256) => &lc::RSA_PKCS1_2048_8192_SHA256,
            (Self::Rsa { .. }, Algorithm::RS384) => &lc::RSA_PKCS1_2048_8192_SHA384,
            (Self::Rsa { .. }, Algorithm::RS512) => &lc::RSA_PKCS1_2048_8192_SHA512,
            (Self::Rsa { .. }, Algorithm::PS256) => &lc::RSA_PSS_2048_8192_SHA256,
            (Self::Rsa { .. }, Algorithm::PS384) => &lc::RSA_PSS_2048_8192_SHA384,
            (Self::Rsa { .. }, Algorithm::PS512) => &lc::RSA_PSS_2048_8192_SHA512,
            (Self::Ec { curve: Curve::P256, .. }, Algorithm::ES256) => &lc::ECDSA_P256_SHA256_FIXED,
            (Self::Ec { curve: Curve::P384, .. }, Algorithm::ES384) => &lc::ECDSA_P384_SHA384_FIXED,
            (Self::Ec { curve: Curve::P521, .. }, Algorithm::ES512) => &lc::ECDSA_P521_SHA512_FIXED,
            (Self::Ed25519(_), Algorithm::EdDSA) => &lc::ED25519,
            _ => return None,
        };
        Some((verification, self.to_raw()))
    }

    /// Everything that a careless verifier may have in hand where it wanted an HMAC secret (RFC 8725 section 2.1).
    pub(super) fn forms(&self) -> Vec<(&'static str, Box<[u8]>)> {
        let spki = self.to_spki();
        let mut forms = pem_forms(
            "PUBLIC KEY",
            &spki,
            ["PEM", "PEM without its last newline", "PEM with CRLF", "PEM in one line"],
        );
        forms.push(("DER", spki.into()));
        match self {
            Self::Rsa { n, .. } => {
                let raw = self.to_raw();
                let names = [
                    "PKCS#1 PEM",
                    "PKCS#1 PEM without its last newline",
                    "PKCS#1 PEM with CRLF",
                    "PKCS#1 PEM in one line",
                ];
                forms.extend(pem_forms("RSA PUBLIC KEY", &raw, names));
                forms.push(("PKCS#1 DER", raw.into()));
                forms.push(("modulus", n.clone().into()));
                forms.push(("modulus in base64url", base64::encode(n).into_bytes().into()));
            }
            Self::Ec { curve, point } => {
                let x = point.get(1..=curve.size()).unwrap_or_default();
                forms.push(("point", point.clone().into()));
                forms.push(("x", x.into()));
                forms.push(("x in base64url", base64::encode(x).into_bytes().into()));
            }
            Self::Ed25519(key) => {
                forms.push(("x", key.as_slice().into()));
                forms.push(("x in base64url", base64::encode(key).into_bytes().into()));
            }
        }
        forms
    }
}

/// PEM as OpenSSL writes it, as trimmed by whoever read it, with CRLF, and with its lines joined.
fn pem_forms(label: &str, der: &[u8], names: [&'static str; 4]) -> Vec<(&'static str, Box<[u8]>)> {
    let pem = super::pem::write(label, der);
    let [whole, trimmed, crlf, joined] = names;
    let bytes = |text: String| text.into_bytes().into_boxed_slice();
    vec![
        (trimmed, bytes(pem.trim_end().to_owned())),
        (crlf, bytes(pem.replace('\n', "\r\n"))),
        (joined, bytes(pem.replace('\n', ""))),
        (whole, bytes(pem)),
    ]
}

/// Whether an encoded point has small order: the y coordinates of the eight such points, non-canonical ones
/// included, sign bit ignored (computed from the curve equation of RFC 8032 section 5.1; p is 2^255 - 19).
fn is_small_order(mut key: [u8; 32]) -> bool {
    if let Some(high) = key.last_mut() {
        *high &= 0x7f;
    }
    SMALL_ORDER.contains(&key)
}

const fn near_p(low: u8) -> [u8; 32] {
    let mut y = [0xff; 32];
    y[0] = low;
    y[31] = 0x7f;
    y
}

const fn small(low: u8) -> [u8; 32] {
    let mut y = [0; 32];
    y[0] = low;
    y
}

const SMALL_ORDER: [[u8; 32]; 7] = [
    small(0),
    small(1),
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, //
        0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, //
        0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];
