//! Every forged or misused token that the first detections know, by name, with the alert it must raise.

use anyhow::Result;
use serde_json::{Value, json};

use crate::mint::{AUDIENCE, ISSUER, Mint, base64url, set, signing_input};

/// One way to attack with a single token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// `alg` is `none`, and no signature.
    AlgNone,
    /// The same in mixed case.
    AlgNoneMixedCase,
    /// A real header whose signature was cut off.
    EmptySignature,
    /// Signed by somebody else under the issuer's `kid`.
    BadSignature,
    /// HS256 with the issuer's public key file as the secret.
    HmacUnderPublicKey,
    /// Expired an hour ago.
    Expired,
    /// Valid in an hour.
    NotYetValid,
    /// Issued by somebody whom nobody configured.
    UnknownIssuer,
    /// Meant for another service.
    WrongAudience,
    /// Two `sub` members, properly signed.
    DuplicateMembers,
    /// Base64 padding where JOSE forbids it, properly signed.
    Padding,
    /// Brings its own key in the header.
    EmbeddedKey,
    /// Says where its key is to be fetched.
    KeyUrl,
    /// `kid` points to an empty file; the HMAC's secret is empty.
    KidTraversal,
    /// HS256 under a secret from every list, from an issuer that nobody configured.
    WeakSecret,
    /// ECDSA with r = s = 0.
    Psychic,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::AlgNone,
        Self::AlgNoneMixedCase,
        Self::EmptySignature,
        Self::BadSignature,
        Self::HmacUnderPublicKey,
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownIssuer,
        Self::WrongAudience,
        Self::DuplicateMembers,
        Self::Padding,
        Self::EmbeddedKey,
        Self::KeyUrl,
        Self::KidTraversal,
        Self::WeakSecret,
        Self::Psychic,
    ];

    /// The rule that must fire, and no other.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::AlgNone | Self::AlgNoneMixedCase | Self::EmptySignature => "alg-none",
            Self::BadSignature => "signature-invalid",
            Self::HmacUnderPublicKey => "alg-confusion",
            Self::Expired => "expired-token",
            Self::NotYetValid => "not-yet-valid",
            Self::UnknownIssuer => "issuer-unknown",
            Self::WrongAudience => "audience-mismatch",
            Self::DuplicateMembers | Self::Padding => "malformed-token",
            Self::EmbeddedKey => "embedded-key",
            Self::KeyUrl => "key-url",
            Self::KidTraversal => "kid-injection",
            Self::WeakSecret => "weak-secret",
            Self::Psychic => "psychic-signature",
        }
    }

    /// The severity of the attempt, refused by the service.
    #[must_use]
    pub const fn severity(self) -> &'static str {
        match self {
            Self::Expired | Self::NotYetValid | Self::DuplicateMembers | Self::Padding => "Low",
            Self::UnknownIssuer | Self::WrongAudience => "Medium",
            Self::WeakSecret => "Critical",
            _ => "High",
        }
    }

    /// A name for paths and reports.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    /// The token. `subject` tells the attacks of different tests apart.
    ///
    /// # Errors
    /// When signing fails.
    pub fn token(self, mint: &Mint, subject: &str) -> Result<String> {
        let claims = mint.claims(subject);
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"});
        match self {
            Self::AlgNone => Ok(unsigned("none", &claims)),
            Self::AlgNoneMixedCase => Ok(unsigned("nOnE", &claims)),
            Self::EmptySignature => {
                Ok(format!("{}.", signing_input(&header.to_string(), &claims.to_string())))
            }
            Self::BadSignature => mint.attacker_rs256(&header, &claims),
            Self::HmacUnderPublicKey => {
                let header = json!({"alg": "HS256", "typ": "JWT", "kid": "rsa-1"});
                Ok(mint.hs256(&header, &claims, mint.public_pem()?.as_bytes()))
            }
            Self::Expired => mint.rs256(&header, &lived(claims, mint.now() - 7200, mint.now() - 3600)),
            Self::NotYetValid => mint.rs256(&header, &lived(claims, mint.now() + 3600, mint.now() + 7200)),
            Self::UnknownIssuer => mint.attacker_rs256(&header, &with(claims, "iss", "https://idp.invalid/")),
            Self::WrongAudience => mint.rs256(&header, &with(claims, "aud", "billing-api")),
            Self::DuplicateMembers => mint.rs256_text(&header.to_string(), &doubled(mint, subject)),
            Self::Padding => padded(mint, subject),
            Self::EmbeddedKey => mint
                .attacker_rs256(&json!({"alg": "RS256", "typ": "JWT", "jwk": mint.attacker_jwk()?}), &claims),
            Self::KeyUrl => {
                let header = json!({"alg": "RS256", "typ": "JWT", "jku": "https://keys.invalid/jwks.json"});
                mint.attacker_rs256(&header, &claims)
            }
            Self::KidTraversal => {
                let header = json!({"alg": "HS256", "typ": "JWT", "kid": "../../../../dev/null"});
                Ok(mint.hs256(&header, &claims, b""))
            }
            Self::WeakSecret => {
                let claims = with(claims, "iss", "https://legacy.invalid/");
                Ok(mint.hs256(&json!({"alg": "HS256", "typ": "JWT"}), &claims, b"secret"))
            }
            Self::Psychic => {
                let header = json!({"alg": "ES256", "typ": "JWT", "kid": "ec-1"});
                let input = signing_input(&header.to_string(), &claims.to_string());
                Ok(format!("{input}.{}", base64url(&[0; 64])))
            }
        }
    }
}

/// A good token, and the same with another subject under the old signature: `claims-tampered`.
///
/// # Errors
/// When signing fails.
pub fn tampered_pair(mint: &Mint, subject: &str) -> Result<(String, String)> {
    let good = mint.good(subject)?;
    let mut parts = good.split('.');
    let (head, _, signature) = (parts.next(), parts.next(), parts.next());
    let claims = with(mint.claims(subject), "roles", "ADMIN").to_string();
    let forged = format!(
        "{}.{}.{}",
        head.unwrap_or_default(),
        base64url(claims.as_bytes()),
        signature.unwrap_or_default()
    );
    Ok((good, forged))
}

fn unsigned(alg: &str, claims: &Value) -> String {
    format!("{}.", signing_input(&json!({"alg": alg, "typ": "JWT"}).to_string(), &claims.to_string()))
}

fn with(mut claims: Value, member: &str, value: &str) -> Value {
    set(&mut claims, member, json!(value));
    claims
}

fn lived(mut claims: Value, from: i64, to: i64) -> Value {
    set(&mut claims, "iat", json!(from.min(to - 3600)));
    set(&mut claims, "nbf", json!(from));
    set(&mut claims, "exp", json!(to));
    claims
}

/// Claims with a second `sub`: some parsers take the first, some the last.
fn doubled(mint: &Mint, subject: &str) -> String {
    let (iat, exp) = (mint.now() - 60, mint.now() + 3540);
    format!(
        r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"{subject}","sub":"root","iat":{iat},"nbf":{iat},"exp":{exp},"jti":"d-{subject}"}}"#
    )
}

/// Signed by the issuer, padding included: what a careless library of the issuer's own would make.
fn padded(mint: &Mint, subject: &str) -> Result<String> {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}).to_string();
    let input = signing_input(&header, &mint.claims(subject).to_string());
    let (head, claims) = input.split_once('.').unwrap_or_default();
    mint.rs256_input(format!("{head}{}.{claims}", "=".repeat((4 - head.len() % 4) % 4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::GOLDEN_NOW;

    #[test]
    fn every_attack_is_a_different_token_of_three_parts() {
        let mint = Mint::at(GOLDEN_NOW).unwrap();
        let tokens: Vec<String> = Attack::ALL.iter().map(|a| a.token(&mint, "mallory").unwrap()).collect();
        for (i, token) in tokens.iter().enumerate() {
            assert_eq!(token.split('.').count(), 3, "{:?}", Attack::ALL[i]);
            assert!(!tokens[..i].contains(token), "{:?}", Attack::ALL[i]);
        }
    }

    #[test]
    fn padding_is_really_there() {
        let token = Attack::Padding.token(&Mint::at(GOLDEN_NOW).unwrap(), "mallory").unwrap();
        assert!(token.contains("=."), "{token}");
    }

    #[test]
    fn names_are_kebab_case() {
        assert_eq!(Attack::AlgNoneMixedCase.name(), "alg-none-mixed-case");
    }
}
