//! An issuer for tests: fixed keys, real signatures, tokens that every strict verifier accepts.
//!
//! The keys under `tests/data/keys` were made by `lab keys` and guard nothing. They are fixed so that RS256,
//! HS256 and `EdDSA` tokens, and with them the golden captures, are the same bytes every time.

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The `iss` of every good token.
pub const ISSUER: &str = "https://idp.example/";
/// The `aud` of every good token.
pub const AUDIENCE: &str = "orders-api";
/// 2026-11-21T18:00:00Z: "now" wherever output must not depend on the day.
pub const GOLDEN_NOW: i64 = 1_795_284_000;

/// Base64url without padding (RFC 7515 section 2).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs whatever it is asked to sign.
pub struct Mint {
    now: i64,
    rsa: RsaKeyPair,
    attacker: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mint").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Mint {
    /// A mint whose tokens were issued a minute before `now` (seconds since the epoch) and live for an hour.
    ///
    /// # Errors
    /// When the fixed keys are not readable.
    pub fn at(now: i64) -> Result<Self> {
        let ec =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, include_bytes!("../data/keys/ec.pk8"));
        Ok(Self {
            now,
            rsa: RsaKeyPair::from_pkcs8(include_bytes!("../data/keys/rsa.pk8")).context("the RSA key")?,
            attacker: RsaKeyPair::from_pkcs8(include_bytes!("../data/keys/attacker.pk8"))
                .context("attacker's key")?,
            ec: ec.context("the EC key")?,
            ed: Ed25519KeyPair::from_pkcs8(include_bytes!("../data/keys/ed.pk8"))
                .context("the Ed25519 key")?,
        })
    }

    /// Seconds since the epoch that the mint takes for now.
    #[must_use]
    pub const fn now(&self) -> i64 {
        self.now
    }

    /// The issuer's public keys.
    ///
    /// # Errors
    /// When a key has no public form.
    pub fn jwks(&self) -> Result<Value> {
        let point = self.ec.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).context("a P-256 point")?;
        Ok(json!({"keys": [
            rsa_jwk(&self.rsa, "rsa-1")?,
            {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "ec-1",
             "x": base64url(x), "y": base64url(y)},
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "ed-1",
             "x": base64url(self.ed.public_key().as_ref())},
        ]}))
    }

    /// The attacker's public key as a JWK, for tokens that bring their own key.
    ///
    /// # Errors
    /// When the key has no public form.
    pub fn attacker_jwk(&self) -> Result<Value> {
        rsa_jwk(&self.attacker, "mine")
    }

    /// The issuer's RSA key as a PEM file, the way servers keep it: the secret of an algorithm confusion.
    ///
    /// # Errors
    /// When the key has no public form.
    pub fn public_pem(&self) -> Result<String> {
        let der =
            AsDer::<PublicKeyX509Der<'_>>::as_der(self.rsa.public_key()).map_err(|e| anyhow!("SPKI: {e}"))?;
        let text = STANDARD.encode(der.as_ref());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        Ok(pem)
    }

    /// The claims of a good token for `subject`. The same subject and mint give the same claims.
    #[must_use]
    pub fn claims(&self, subject: &str) -> Value {
        let id = digest::digest(&digest::SHA256, subject.as_bytes());
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject,
            "iat": self.now - 60, "nbf": self.now - 60, "exp": self.now + 3540,
            "jti": base64url(id.as_ref().get(..12).unwrap_or_default()),
            "scope": "orders:read orders:write", "roles": ["USER"],
        })
    }

    /// A good RS256 token.
    ///
    /// # Errors
    /// When signing fails.
    pub fn good(&self, subject: &str) -> Result<String> {
        self.rs256(&json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}), &self.claims(subject))
    }

    /// A good RS256 token of about `bytes` bytes, filled up with a claim of no meaning.
    ///
    /// # Errors
    /// When signing fails.
    pub fn good_of_size(&self, subject: &str, bytes: usize) -> Result<String> {
        let short = self.good(subject)?.len();
        let mut claims = self.claims(subject);
        let fill =
            "tenant-".chars().cycle().take(bytes.saturating_sub(short + 16) * 3 / 4).collect::<String>();
        set(&mut claims, "groups", json!(fill));
        self.rs256(&json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}), &claims)
    }

    /// Signs with the issuer's RSA key.
    ///
    /// # Errors
    /// When signing fails.
    pub fn rs256(&self, header: &Value, claims: &Value) -> Result<String> {
        sign_rsa(&self.rsa, &header.to_string(), &claims.to_string())
    }

    /// Signs header and claims as they are written with the issuer's RSA key.
    ///
    /// # Errors
    /// When signing fails.
    pub fn rs256_text(&self, header: &str, claims: &str) -> Result<String> {
        sign_rsa(&self.rsa, header, claims)
    }

    /// Signs text that is already encoded, whatever it is.
    ///
    /// # Errors
    /// When signing fails.
    pub fn rs256_input(&self, input: String) -> Result<String> {
        sign_input(&self.rsa, input)
    }

    /// Signs with the attacker's RSA key.
    ///
    /// # Errors
    /// When signing fails.
    pub fn attacker_rs256(&self, header: &Value, claims: &Value) -> Result<String> {
        sign_rsa(&self.attacker, &header.to_string(), &claims.to_string())
    }

    /// A good ES256 token. ECDSA draws a nonce: no two are the same.
    ///
    /// # Errors
    /// When signing fails.
    pub fn es256(&self, subject: &str) -> Result<String> {
        self.es256_of(&json!({"alg": "ES256", "typ": "JWT", "kid": "ec-1"}), &self.claims(subject))
    }

    /// Signs with the issuer's EC key.
    ///
    /// # Errors
    /// When signing fails.
    pub fn es256_of(&self, header: &Value, claims: &Value) -> Result<String> {
        let input = signing_input(&header.to_string(), &claims.to_string());
        let signature =
            self.ec.sign(&SystemRandom::new(), input.as_bytes()).map_err(|e| anyhow!("ES256: {e}"))?;
        Ok(format!("{input}.{}", base64url(signature.as_ref())))
    }

    /// A good `EdDSA` token.
    #[must_use]
    pub fn eddsa(&self, subject: &str) -> String {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": "ed-1"});
        let input = signing_input(&header.to_string(), &self.claims(subject).to_string());
        format!("{input}.{}", base64url(self.ed.sign(input.as_bytes()).as_ref()))
    }

    /// [`Self::eddsa`] with an id of its own.
    #[must_use]
    pub fn eddsa_named(&self, subject: &str, id: &str) -> String {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": "ed-1"});
        let mut claims = self.claims(subject);
        set(&mut claims, "jti", json!(id));
        let input = signing_input(&header.to_string(), &claims.to_string());
        format!("{input}.{}", base64url(self.ed.sign(input.as_bytes()).as_ref()))
    }

    /// An HS256 token under any secret.
    #[must_use]
    pub fn hs256(&self, header: &Value, claims: &Value, secret: &[u8]) -> String {
        let input = signing_input(&header.to_string(), &claims.to_string());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
        format!("{input}.{}", base64url(tag.as_ref()))
    }
}

/// Base64url of header and claims, joined by a dot (RFC 7515 section 5.1).
#[must_use]
pub fn signing_input(header: &str, claims: &str) -> String {
    format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()))
}

/// Sets one member of a JSON object.
pub fn set(object: &mut Value, member: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
}

/// Makes the four fixed keys anew: PKCS #8 documents by file name.
///
/// # Errors
/// When a key cannot be generated.
pub fn generate_keys() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let random = SystemRandom::new();
    let rsa = || -> Result<Vec<u8>> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).context("generate an RSA key")?;
        Ok(AsDer::<Pkcs8V1Der>::as_der(&key).context("encode an RSA key")?.as_ref().to_vec())
    };
    let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).context("an EC key")?;
    let ed = Ed25519KeyPair::generate_pkcs8(&random).context("an Ed25519 key")?;
    Ok(vec![
        ("rsa.pk8", rsa()?),
        ("attacker.pk8", rsa()?),
        ("ec.pk8", ec.as_ref().to_vec()),
        ("ed.pk8", ed.as_ref().to_vec()),
    ])
}

fn sign_rsa(key: &RsaKeyPair, header: &str, claims: &str) -> Result<String> {
    sign_input(key, signing_input(header, claims))
}

fn sign_input(key: &RsaKeyPair, input: String) -> Result<String> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature)
        .map_err(|e| anyhow!("RS256: {e}"))?;
    Ok(input + "." + &base64url(&signature))
}

fn rsa_jwk(key: &RsaKeyPair, kid: &str) -> Result<Value> {
    let der = key.public_key().as_ref();
    let (n, e) = rsa_numbers(der).context("an RSAPublicKey in DER")?;
    Ok(json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": base64url(n), "e": base64url(e)}))
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1), without leading zeros.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_value(der, 0x30)?;
    let (n, rest) = der_value(sequence, 0x02)?;
    let (e, _) = der_value(rest, 0x02)?;
    Some((n.strip_prefix(&[0]).unwrap_or(n), e))
}

/// The contents of the DER value at the front, and what follows it. Lengths up to 65535.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, body) = match der {
        [t, 0x82, high, low, body @ ..] if *t == tag => (usize::from(*high) << 8 | usize::from(*low), body),
        [t, 0x81, length, body @ ..] | [t, length, body @ ..] if *t == tag => (usize::from(*length), body),
        _ => return None,
    };
    body.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_mint_gives_same_rs256_and_eddsa_tokens() {
        let (one, two) = (Mint::at(GOLDEN_NOW).unwrap(), Mint::at(GOLDEN_NOW).unwrap());
        assert_eq!(one.good("alice").unwrap(), two.good("alice").unwrap());
        assert_eq!(one.eddsa("alice"), two.eddsa("alice"));
        assert_ne!(one.good("alice").unwrap(), one.good("bob").unwrap());
    }

    #[test]
    fn sized_tokens_come_near_their_size() {
        let token = Mint::at(GOLDEN_NOW).unwrap().good_of_size("alice", 900).unwrap();
        assert!((850..=950).contains(&token.len()), "{}", token.len());
    }

    #[test]
    fn published_modulus_is_the_whole_key() {
        let jwks = Mint::at(GOLDEN_NOW).unwrap().jwks().unwrap();
        let n = jwks.pointer("/keys/0/n").and_then(Value::as_str).unwrap().to_owned();
        assert_eq!(URL_SAFE_NO_PAD.decode(n).unwrap().len(), 256);
    }
}
