//! A `DPoP` proof: that whoever shows a bound token has its key (RFC 9449 section 4).
//!
//! Two halves, because the second costs a hundred microseconds and each request brings a proof of its own: what the
//! text says ([`Proof::read`]), and whether the key signed it ([`Proof::is_signed`]).
//!
//! Paths are compared by their ends, as gateways put prefixes on or take them off; the host is compared and left to
//! the caller to weigh, as proxies change it. Not checked: the server's nonce, which only the server knows; but a proof
//! with one need not be of this minute, because the nonce tells its age (RFC 9449 section 11.1).

use crate::capture::Time;
use crate::http::RequestHead;
use crate::token::facts::{Flaws, Form, KeyBound, Purpose};
use crate::token::jose::json::{self, Number, Value};
use crate::token::jose::{Parts, base64};
use crate::token::keys::jwk;
use crate::token::settings::Algorithm;

/// Longest proof that is read, in bytes: a key, four claims and a signature of RSA 4096 are 2.5 KiB.
const MAX_PROOF: usize = 8 * 1024;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It cannot be read, or says that it is something else.
    NoProof,
    /// It is for another key than the token's.
    OtherKey,
    /// It was made for another token (`ath`).
    OtherToken,
    /// It was made for another method (`htm`).
    OtherMethod,
    /// It was made for another URL (`htu`).
    OtherUrl,
    /// It was made long ago, or will be.
    Stale,
    /// Its key did not sign it.
    Forged,
    /// It was used before.
    Replayed,
}

impl Fault {
    /// The words for sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoProof => "the proof cannot be read",
            Self::OtherKey => "the proof is for another key",
            Self::OtherToken => "the proof is for another token",
            Self::OtherMethod => "the proof is for another method",
            Self::OtherUrl => "the proof is for another URL",
            Self::Stale => "the proof is out of date",
            Self::Forged => "the proof is not signed by its key",
            Self::Replayed => "the proof was used before",
        }
    }
}

/// What a proof is held against.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The key and the token.
    pub bound: &'a KeyBound,
    /// The request.
    pub request: &'a RequestHead,
    /// When it came.
    pub at: Time,
    /// Seconds that `iat` may be off.
    pub window_s: i64,
    /// Whether the server is known to give nonces: then `iat` of a proof with one may be anything.
    pub nonces: bool,
}

/// A proof that fits, as far as reading tells.
pub struct Proof<'p> {
    parts: &'p Parts<'p>,
    jwk: Vec<u8>,
    algorithm: Algorithm,
    /// `jti`.
    pub id: String,
    /// Whether `htu` names the host that `Host` names.
    pub same_host: bool,
}

impl std::fmt::Debug for Proof<'_> {
    /// Never the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proof").field("same_host", &self.same_host).finish_non_exhaustive()
    }
}

/// The claims of a proof (RFC 9449 section 4.2).
#[derive(Default)]
struct Claims {
    id: Option<String>,
    method: Option<String>,
    url: Option<String>,
    issued: Option<i64>,
    token_hash: Option<Vec<u8>>,
    /// Whether there is a `nonce`.
    nonce: bool,
}

impl Claims {
    fn read(payload: &[u8]) -> Self {
        let mut claims = Self::default();
        json::members(payload, &mut |name, value| match (&*name, value) {
            ("jti", Value::Text(text)) => claims.id = Some(text.into_owned()),
            ("htm", Value::Text(text)) => claims.method = Some(text.into_owned()),
            ("htu", Value::Text(text)) => claims.url = Some(text.into_owned()),
            ("ath", Value::Text(text)) => claims.token_hash = base64::strict(text.as_bytes()),
            ("nonce", Value::Text(text)) => claims.nonce = !text.is_empty(),
            ("iat", Value::Number(Number::Integer(seconds))) => claims.issued = Some(seconds),
            #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and a date far off is stale")]
            ("iat", Value::Number(Number::Real(seconds))) => claims.issued = Some(seconds as i64),
            _ => {}
        });
        claims
    }
}

/// Takes the text of a proof apart, for [`Proof::read`].
#[must_use]
pub fn parts(text: &[u8]) -> Parts<'_> {
    Parts::of(text, MAX_PROOF)
}

/// Whether a proof holds a nonce of the server.
#[must_use]
pub fn has_nonce(text: &[u8]) -> bool {
    Claims::read(parts(text).payload()).nonce
}

impl<'p> Proof<'p> {
    /// Reads a proof and holds it against the request.
    ///
    /// # Errors
    /// With the first fault, the most telling first.
    pub fn read(parts: &'p Parts<'p>, demand: &Demand<'_>) -> Result<Self, Fault> {
        let reading = parts.read();
        let flaws = Flaws(reading.flaws.0 & !Flaws::EMBEDDED_KEY.0);
        let is_proof =
            reading.form == Form::Jws && flaws.is_empty() && reading.purpose() == Some(Purpose::Proof);
        let algorithm = reading.header.algorithm().filter(|alg| !alg.is_symmetric());
        let (Some(algorithm), Some(jwk), true) = (algorithm, reading.header.jwk, is_proof) else {
            return Err(Fault::NoProof);
        };
        if jwk::thumbprint_of(jwk).ok_or(Fault::NoProof)? != demand.bound.thumbprint.ok_or(Fault::OtherKey)? {
            return Err(Fault::OtherKey);
        }
        let claims = Claims::read(parts.payload());
        if claims.token_hash.is_none_or(|hash| hash != demand.bound.token_hash) {
            return Err(Fault::OtherToken);
        }
        if claims.method.is_none_or(|method| method.as_bytes() != demand.request.method()) {
            return Err(Fault::OtherMethod);
        }
        let url = claims.url.ok_or(Fault::NoProof)?;
        let (host, path) = split(&url).ok_or(Fault::NoProof)?;
        if !ends_alike(path.as_bytes(), demand.request.path()) {
            return Err(Fault::OtherUrl);
        }
        let now = i64::try_from(demand.at.secs()).unwrap_or(i64::MAX);
        let off_s = claims.issued.ok_or(Fault::NoProof)?.saturating_sub(now).saturating_abs();
        if off_s > demand.window_s && !(demand.nonces && claims.nonce) {
            return Err(Fault::Stale);
        }
        let own = demand.request.value("host").unwrap_or_default().to_ascii_lowercase();
        let same_host = without_port(&own) == without_port(host.to_ascii_lowercase().as_bytes());
        let id = claims.id.ok_or(Fault::NoProof)?;
        Ok(Self { parts, jwk: jwk.to_vec(), algorithm, id, same_host })
    }

    /// Whether the key in the proof signed it: a public-key verification.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        let key = jwk::read(&self.jwk, &[self.algorithm]);
        key.is_ok_and(|key| key.verifies(self.algorithm, self.parts.signing_input, &self.parts.signature))
    }
}

/// Authority and path of a URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let slash = rest.find('/').unwrap_or(rest.len());
    Some(rest.split_at(slash))
}

/// Whether one path ends with the other, at a slash: with or without a gateway's prefix.
fn ends_alike(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (one.strip_suffix(b"/").unwrap_or(one), other.strip_suffix(b"/").unwrap_or(other));
    let (long, short) = if one.len() >= other.len() { (one, other) } else { (other, one) };
    let fits = long.ends_with(short) && (short.is_empty() || short.starts_with(b"/"));
    // The root fits only itself: it is the end of everything.
    fits && (!short.is_empty() || long.is_empty())
}

fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(at) if host.get(at + 1..).is_some_and(|port| port.iter().all(u8::is_ascii_digit)) => {
            host.get(..at).unwrap_or(host)
        }
        _ => host,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::token::forge::Signer;
    use crate::token::hash::sha256;
    use crate::token::keys::jwk::thumbprint;

    pub(crate) const TOKEN: &[u8] = b"the token's text";

    pub(crate) fn bound(signer: &Signer) -> KeyBound {
        KeyBound {
            thumbprint: Some(thumbprint(&signer.material())),
            certificate: None,
            token_hash: sha256(TOKEN),
        }
    }

    /// A proof for `GET` at this second, with changes.
    pub(crate) fn proof(
        signer: &Signer,
        id: &str,
        at_s: u64,
        change: &[(&str, serde_json::Value)],
    ) -> String {
        let header =
            format!(r#"{{"typ":"dpop+jwt","alg":"{}","jwk":{}}}"#, signer.algorithm.as_str(), signer.jwk());
        let mut claims = serde_json::json!({
            "jti": id, "htm": "GET", "htu": "https://orders.example/orders/7", "iat": at_s,
            "ath": base64::encode(&sha256(TOKEN)),
        });
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        signer.token_with(&header, &claims.to_string())
    }

    fn request(path: &str) -> RequestHead {
        let bytes = format!("GET{path}Hostorders.example:8080").into_bytes();
        let end = 3 + u32::try_from(path.len()).unwrap();
        let host =
            crate::http::Header { name: end..end + 4, value: end + 4..u32::try_from(bytes.len()).unwrap() };
        RequestHead { bytes, method: 0..3, target: 3..end, minor_version: 1, headers: vec![host] }
    }

    const AT: u64 = 1_795_284_245;

    fn fault(text: &str, signer: &Signer, path: &str) -> Option<Fault> {
        let (bound, request) = (bound(signer), request(path));
        let at = Time::from_secs(AT);
        let demand = Demand { bound: &bound, request: &request, at, window_s: 300, nonces: false };
        let parts = parts(text.as_bytes());
        match Proof::read(&parts, &demand) {
            Ok(proof) if proof.is_signed() => None,
            Ok(_) => Some(Fault::Forged),
            Err(fault) => Some(fault),
        }
    }

    #[test]
    fn good_proofs_of_every_kind_of_key_are_good() {
        for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA] {
            let signer = Signer::shared(algorithm);
            let text = proof(signer, "j", AT, &[]);
            assert_eq!(fault(&text, signer, "/orders/7"), None, "{algorithm:?}");
            assert_eq!(fault(&text, signer, "/orders/7?x=1"), None);
            let forged = format!("{}AAAA", &text[..text.len() - 4]);
            assert_eq!(fault(&forged, signer, "/orders/7"), Some(Fault::Forged), "{algorithm:?}");
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let signer = Signer::shared(Algorithm::ES256);
        let with = |name: &str, value: serde_json::Value| {
            fault(&proof(signer, "j", AT, &[(name, value)]), signer, "/orders/7")
        };
        assert_eq!(with("htm", "POST".into()), Some(Fault::OtherMethod));
        assert_eq!(with("htu", "https://orders.example/orders/8".into()), Some(Fault::OtherUrl));
        assert_eq!(with("htu", "https://orders.example/".into()), Some(Fault::OtherUrl));
        assert_eq!(with("htu", "orders".into()), Some(Fault::NoProof));
        assert_eq!(with("ath", "AAAA".into()), Some(Fault::OtherToken));
        assert_eq!(with("iat", (AT - 301).into()), Some(Fault::Stale));
        assert_eq!(with("iat", (AT + 300).into()), None);
        assert_eq!(with("iat", serde_json::Value::Null), Some(Fault::NoProof));
        assert_eq!(with("jti", 5.into()), Some(Fault::NoProof));
        let other = Signer::new(Algorithm::ES256);
        assert_eq!(fault(&proof(&other, "j", AT, &[]), signer, "/orders/7"), Some(Fault::OtherKey));
        for text in ["", "abc", &signer.token("alice")] {
            assert_eq!(fault(text, signer, "/orders/7"), Some(Fault::NoProof), "{text}");
        }
    }

    #[test]
    fn gateways_may_change_prefixes_and_hosts() {
        for (one, other, alike) in [
            ("/orders/7", "/orders/7", true),
            ("/api/v1/orders/7", "/orders/7", true),
            ("/orders/7", "/api/orders/7", true),
            ("/orders/7/", "/orders/7", true),
            ("/orders/17", "/orders/7", false),
            ("/xorders", "/orders", false),
            ("/", "/orders", false),
            ("/", "/", true),
            ("", "/", true),
        ] {
            assert_eq!(ends_alike(one.as_bytes(), other.as_bytes()), alike, "{one} {other}");
        }
        assert_eq!(without_port(b"a.example:443"), b"a.example");
        assert_eq!(without_port(b"[::1]"), b"[::1]");
    }
}
