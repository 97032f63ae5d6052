//! An issuer of our own: keys of four algorithms, and tokens of a wanted length.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use sensor_user::token::jose::base64::encode;
use sensor_user::token::keys::{KeyRing, KeySet, Public};
use sensor_user::token::settings::{Algorithm, Issuer, KeySource, TokenSettings};

/// Bytes of an ordinary token: an access token with a handful of scopes, signed with RSA.
pub(crate) const USUAL: usize = 900;

/// Who issues the tokens.
const ISSUER: &str = "https://idp.example/";

/// A private key and the algorithm that it signs with.
pub(crate) struct Signer {
    algorithm: Algorithm,
    secret: Secret,
}

enum Secret {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Shared([u8; 64]),
}

/// One RSA key for all: they take long to make.
pub(crate) static RS256: LazyLock<Signer> = LazyLock::new(|| Signer::new(Algorithm::RS256));

impl Signer {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let secret = match algorithm {
            Algorithm::ES256 => Secret::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            Algorithm::EdDSA => Secret::Ed(Ed25519KeyPair::generate().unwrap()),
            Algorithm::HS256 => {
                let mut bytes = [0; 64];
                aws_lc_rs::rand::fill(&mut bytes).unwrap();
                Secret::Shared(bytes)
            }
            _ => Secret::Rsa(RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap()),
        };
        Self { algorithm, secret }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Secret::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Secret::Shared(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
            }
        }
    }

    /// An access token of this person, of so many bytes (or a few more: base64 goes by threes).
    pub(crate) fn token(&self, subject: &str, bytes: usize) -> String {
        let header = format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"2026-11"}}"#, self.algorithm.as_str());
        let now = crate::traffic::time(0).secs();
        let (issued, expires) = (now - 600, now + 30_000);
        let claims = |scope: &str| {
            format!(
                r#"{{"iss":"{ISSUER}","sub":"{subject}","aud":["orders-api"],"exp":{expires},"iat":{issued},"jti":"{subject}-5f0c","scope":"{scope}"}}"#
            )
        };
        let words = ["orders:read", "orders:write", "cart:read", "profile", "email", "offline_access"];
        let bare = encode(header.as_bytes()).len() + 2 + encode(&self.sign(b"")).len();
        let most = (bytes.saturating_sub(bare) * 3 / 4).saturating_sub(claims("").len());
        let mut scope = String::new();
        for word in words.iter().cycle() {
            if scope.len() + word.len() >= most {
                break;
            }
            scope.push_str(word);
            scope.push(' ');
        }
        scope.push_str(&"x".repeat(most.saturating_sub(scope.len())));
        let input = format!("{}.{}", encode(header.as_bytes()), encode(claims(&scope).as_bytes()));
        let signature = encode(&self.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// Its key set, as an issuer publishes it.
    fn jwks(&self) -> String {
        let key = match &self.secret {
            Secret::Rsa(pair) => match Public::from_pkcs1(pair.public_key().as_ref()).unwrap() {
                Public::Rsa { n, e } => format!(r#""kty":"RSA","n":"{}","e":"{}""#, encode(&n), encode(&e)),
                _ => String::new(),
            },
            Secret::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                format!(r#""kty":"EC","crv":"P-256","x":"{}","y":"{}""#, encode(x), encode(y))
            }
            Secret::Ed(pair) => {
                format!(r#""kty":"OKP","crv":"Ed25519","x":"{}""#, encode(pair.public_key().as_ref()))
            }
            Secret::Shared(secret) => format!(r#""kty":"oct","k":"{}""#, encode(secret)),
        };
        format!(r#"{{"keys":[{{"kid":"2026-11",{key}}}]}}"#)
    }

    /// The keys of the only issuer.
    pub(crate) fn ring(&self) -> Arc<KeyRing> {
        let set = KeySet::read(self.jwks().as_bytes(), &[self.algorithm]).unwrap();
        assert_eq!(set.keys.len(), 1, "{:?}", set.refused);
        Arc::new(KeyRing::empty(1).with_keys(0, set.keys, None))
    }

    /// The issuer, as it is configured.
    pub(crate) fn issuer(&self) -> Issuer {
        Issuer {
            issuer: ISSUER.into(),
            keys: KeySource::Url(format!("{ISSUER}jwks.json")),
            algorithms: vec![self.algorithm],
            audiences: vec!["orders-api".into()],
            token_types: vec!["at+jwt".into()],
            introspection: None,
            status_lists: Vec::new(),
        }
    }

    /// The token stage's settings, which trust it.
    pub(crate) fn settings(&self) -> TokenSettings {
        TokenSettings { issuers: vec![self.issuer()], ..TokenSettings::default() }
    }
}
