//! Issuers and forgers for tests: keys of every algorithm, signed tokens of any content. Compiled for tests only.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as lc, KeyPair};
use aws_lc_rs::{hmac, rsa};

use super::jose::base64::encode;
use super::keys::{self, Curve, KeyRing, KeySet, Material, Public};
use super::settings::{Algorithm, Issuer, KeySource, TokenSettings};

pub(crate) const ISSUER: &str = "https://idp.example/";

/// A private key.
pub(crate) struct Signer {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: String,
    secret: Secret,
}

enum Secret {
    Rsa(lc::RsaKeyPair),
    Ec(lc::EcdsaKeyPair),
    Ed(lc::Ed25519KeyPair),
    Hmac(Vec<u8>),
}

impl Signer {
    /// A fresh key.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let ec = |signing| Secret::Ec(lc::EcdsaKeyPair::generate(signing).unwrap());
        let secret = match algorithm {
            Algorithm::ES256 => ec(&lc::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ec(&lc::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::ES512 => ec(&lc::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDSA => Secret::Ed(lc::Ed25519KeyPair::generate().unwrap()),
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let mut secret = vec![0; 64];
                aws_lc_rs::rand::fill(&mut secret).unwrap();
                Secret::Hmac(secret)
            }
            _ => Secret::Rsa(lc::RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap()),
        };
        Self { algorithm, kid: format!("kid-{}", algorithm.as_str()), secret }
    }

    /// One key an algorithm for the whole test run: RSA keys take long to make.
    pub(crate) fn shared(algorithm: Algorithm) -> &'static Self {
        static ALL: [OnceLock<Signer>; 13] = [const { OnceLock::new() }; 13];
        ALL[algorithm as usize].get_or_init(|| Self::new(algorithm))
    }

    pub(crate) fn hmac(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { algorithm, kid: "hmac".into(), secret: Secret::Hmac(secret.to_vec()) }
    }

    pub(crate) fn named(self, kid: &str) -> Self {
        Self { kid: kid.into(), ..self }
    }

    pub(crate) fn material(&self) -> Material {
        match &self.secret {
            Secret::Rsa(pair) => Material::Public(Public::from_pkcs1(pair.public_key().as_ref()).unwrap()),
            Secret::Ec(pair) => {
                let point = pair.public_key().as_ref().to_vec();
                let curve = Curve::ALL.into_iter().find(|c| 1 + 2 * c.size() == point.len()).unwrap();
                Material::Public(Public::Ec { curve, point })
            }
            Secret::Ed(pair) => {
                Material::Public(Public::Ed25519(pair.public_key().as_ref().try_into().unwrap()))
            }
            Secret::Hmac(secret) => Material::Secret(secret.clone().into()),
        }
    }

    pub(crate) fn public(&self) -> Public {
        match self.material() {
            Material::Public(public) => public,
            Material::Secret(_) => panic!("no public key"),
        }
    }

    /// The key as a JWK, without the private part unless it is a secret.
    pub(crate) fn jwk(&self) -> String {
        let kid = &self.kid;
        match self.material() {
            Material::Public(Public::Rsa { n, e }) => {
                format!(
                    r#"{{"kty":"RSA","kid":"{kid}","use":"sig","n":"{}","e":"{}"}}"#,
                    encode(&n),
                    encode(&e)
                )
            }
            Material::Public(Public::Ec { curve, point }) => {
                let (x, y) = point[1..].split_at(curve.size());
                let crv = curve.as_str();
                format!(
                    r#"{{"kty":"EC","kid":"{kid}","crv":"{crv}","x":"{}","y":"{}"}}"#,
                    encode(x),
                    encode(y)
                )
            }
            Material::Public(Public::Ed25519(x)) => {
                format!(r#"{{"kty":"OKP","kid":"{kid}","crv":"Ed25519","x":"{}"}}"#, encode(&x))
            }
            Material::Secret(k) => format!(r#"{{"kty":"oct","kid":"{kid}","k":"{}"}}"#, encode(&k)),
        }
    }

    pub(crate) fn jwks(&self) -> String {
        format!(r#"{{"keys":[{}]}}"#, self.jwk())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(pair) => {
                let encoding: &dyn lc::RsaEncoding = match self.algorithm {
                    Algorithm::RS256 => &lc::RSA_PKCS1_SHA256,
                    Algorithm::RS384 => &lc::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &lc::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &lc::RSA_PSS_SHA256,
                    Algorithm::PS384 => &lc::RSA_PSS_SHA384,
                    _ => &lc::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Secret::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Secret::Hmac(secret) => {
                let key = hmac::Key::new(keys::mac(self.algorithm).unwrap(), secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn token_with(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = encode(&self.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// An ordinary header.
    pub(crate) fn header(&self) -> String {
        format!(r#"{{"alg":"{}","typ":"JWT","kid":"{}"}}"#, self.algorithm.as_str(), self.kid)
    }

    /// An ordinary token of [`ISSUER`].
    pub(crate) fn token(&self, subject: &str) -> String {
        self.token_with(&self.header(), &claims(subject))
    }

    /// An issuer that signs with this key.
    pub(crate) fn issuer(&self) -> Issuer {
        issuer(&[self.algorithm])
    }

    /// A ring with this key for the first and only issuer.
    pub(crate) fn ring(&self) -> Arc<KeyRing> {
        let set = KeySet::read(self.jwks().as_bytes(), &[self.algorithm]).unwrap();
        Arc::new(KeyRing::empty(1).with_keys(0, set.keys, None))
    }
}

pub(crate) fn claims(subject: &str) -> String {
    format!(
        r#"{{"iss":"{ISSUER}","sub":"{subject}","aud":"orders-api","exp":4000000000,"iat":1700000000,"jti":"j-{subject}"}}"#
    )
}

pub(crate) fn issuer(algorithms: &[Algorithm]) -> Issuer {
    Issuer {
        issuer: ISSUER.into(),
        keys: KeySource::Url(format!("{ISSUER}jwks.json")),
        algorithms: algorithms.to_vec(),
        audiences: vec!["orders-api".into()],
        token_types: vec!["JWT".into(), "at+jwt".into()],
        introspection: None,
        status_lists: Vec::new(),
    }
}

pub(crate) fn settings(issuers: Vec<Issuer>) -> TokenSettings {
    TokenSettings { issuers, ..TokenSettings::default() }
}

/// The SPKI of a signer as the library itself writes it, to hold ours against.
pub(crate) fn library_spki(signer: &Signer) -> Vec<u8> {
    match &signer.secret {
        Secret::Rsa(pair) => AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key())
            .unwrap()
            .as_ref()
            .to_vec(),
        Secret::Ec(pair) => AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key())
            .unwrap()
            .as_ref()
            .to_vec(),
        Secret::Ed(pair) => AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key())
            .unwrap()
            .as_ref()
            .to_vec(),
        Secret::Hmac(_) => panic!("no public key"),
    }
}
