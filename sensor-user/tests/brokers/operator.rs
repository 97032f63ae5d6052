//! What an operator of NATS issues: JWTs of an operator, an account and a user, as its server reads them.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Somebody who signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    /// The public key as NATS writes it.
    pub public: String,
}

impl Signer {
    /// A key; `kind` is the letter that its public form begins with: `O` or `A`.
    pub fn new(kind: u8, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let mut bytes = vec![(kind - b'A') << 3];
        bytes.extend_from_slice(pair.public_key().as_ref());
        bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
        let public = base32(&bytes);
        assert_eq!(public.as_bytes()[0], kind);
        Self { pair, public }
    }

    /// A JWT of this issuer about `subject`.
    pub fn issue(&self, subject: &str, nats: &Value) -> String {
        let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
        let claims = json!({
            "jti": "ID", "iat": 1_795_000_000, "iss": self.public, "name": "test", "sub": subject, "nats": nats,
        });
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }
}

/// CRC-16/XMODEM.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

/// RFC 4648 section 6, without padding. The length is a multiple of five here.
fn base32(bytes: &[u8]) -> String {
    assert_eq!(bytes.len() % 5, 0);
    let mut text = String::new();
    for group in bytes.chunks(5) {
        let bits = group.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        for at in (0..8).rev() {
            let value = usize::try_from(bits >> (5 * at) & 31).unwrap();
            text.push(char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[value]));
        }
    }
    text
}
