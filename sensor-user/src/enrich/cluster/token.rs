//! When a token is valid that is shown to the API server: what it says of itself (RFC 7519, `nbf` and `exp`).
//!
//! Read to find out why the server refuses it, and believed in nothing else. Tokens of service accounts are JWTs; others
//! say nothing that we could read.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

/// Largest token that is looked at; one of a service account has some 1 KiB.
const MAX_TOKEN: u64 = 64 << 10;

/// From when to when a token is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub begins: Option<Timestamp>,
    /// The second from which on it is not.
    pub expires: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Claims {
    nbf: Option<i64>,
    exp: Option<i64>,
}

/// What the token says that a client shows; none if it shows none, or one that is no JWT.
#[must_use]
pub fn validity(shown: &AuthInfo) -> Option<Validity> {
    match (&shown.token, &shown.token_file) {
        (Some(token), _) => read(token.expose_secret()),
        (None, Some(path)) => of_file(Path::new(path)),
        (None, None) => None,
    }
}

fn of_file(path: &Path) -> Option<Validity> {
    if std::fs::metadata(path).ok()?.len() > MAX_TOKEN {
        return None;
    }
    read(std::fs::read_to_string(path).ok()?.trim())
}

fn read(token: &str) -> Option<Validity> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let time = |second: Option<i64>| Timestamp::from_second(second?).ok();
    Some(Validity { begins: time(claims.nbf), expires: time(claims.exp) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_tells_when_it_is_valid() {
        let at = |second| Timestamp::from_second(second).ok();
        let read = |claims| read(&token(claims));
        assert_eq!(read(r#"{"nbf":5,"exp":9,"iss":"x"}"#), Some(Validity { begins: at(5), expires: at(9) }));
        assert_eq!(read("{}"), Some(Validity::default()));
        assert_eq!(read(r#"{"exp":9223372036854775807}"#), Some(Validity::default()), "no such date");
        assert_eq!(read(r#"{"exp":"soon"}"#), None);
    }

    #[test]
    fn what_is_no_token_tells_nothing() {
        for nonsense in ["", "opaque", "a.b.c", "a..", "\u{0}.\u{0}", "e30.bm9uc2Vuc2U.x"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(validity(&AuthInfo::default()), None);
    }
}
