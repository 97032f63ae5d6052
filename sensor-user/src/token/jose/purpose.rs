//! What a token is for: access, identity, refreshing, logging out. One key signs them all, so a verifier that looks
//! at the signature alone takes each for the other (RFC 8725 section 3.11 and 3.12).
//!
//! Sources: `typ` of the header (RFC 9068 section 2.1, RFC 8417 section 2.3, RFC 9449 section 4.2, OpenID Connect
//! Back-Channel Logout section 2.4), `typ` of Keycloak's claims, `token_use` of Cognito's, `token_type` and `type` of
//! common frameworks, and claims that only ID tokens have (OpenID Connect Core sections 2, 3.1.3.6 and 3.3.2.11).
//!
//! Not told: ID tokens that look like access tokens, as Firebase's and Google's do; refresh tokens that say nothing.

use super::json::Value;
use crate::token::facts::Purpose;

/// What a header's `typ` says.
pub(in crate::token) fn of_type(typ: &str) -> Option<Purpose> {
    let lower = typ.to_ascii_lowercase();
    let short = lower.strip_prefix("application/").unwrap_or(&lower);
    match short {
        "at+jwt" => Some(Purpose::Access),
        "dpop+jwt" => Some(Purpose::Proof),
        "logout+jwt" | "secevent+jwt" => Some(Purpose::Event),
        "rt+jwt" | "refresh+jwt" | "refresh" => Some(Purpose::Refresh),
        "id+jwt" | "id_token" => Some(Purpose::Id),
        _ => None,
    }
}

/// Signs in the claims. A set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs(u8);

impl Signs {
    const ACCESS: u8 = 1;
    const ID: u8 = 1 << 1;
    const REFRESH: u8 = 1 << 2;
    const EVENT: u8 = 1 << 3;
    /// Claims that only an ID token has: hashes of what was issued with it.
    const HASH: u8 = 1 << 4;
    const NONCE: u8 = 1 << 5;
    /// How and when the user logged in.
    const LOGIN: u8 = 1 << 6;
    const SCOPE: u8 = 1 << 7;

    /// Looks at one claim.
    pub(super) fn see(&mut self, name: &str, value: &Value<'_>) {
        self.0 |= match name {
            "at_hash" | "c_hash" => Self::HASH,
            "nonce" => Self::NONCE,
            "auth_time" | "acr" | "amr" => Self::LOGIN,
            "scope" | "scp" => Self::SCOPE,
            "events" if matches!(value, Value::Object(_)) => Self::EVENT,
            "typ" | "type" | "token_use" | "token_type" => match value {
                Value::Text(word) => by_word(word),
                _ => 0,
            },
            _ => 0,
        };
    }

    /// What they say together. An access token may carry a `nonce` (Keycloak before version 24) or log-in claims
    /// (RFC 9068 section 2.2.1), and tokens that frameworks make use `nonce` for something else: so only both,
    /// without any scope, make an ID token.
    pub(super) fn purpose(self) -> Option<Purpose> {
        let has = |bit| self.0 & bit != 0;
        if has(Self::ACCESS) {
            return Some(Purpose::Access);
        }
        if has(Self::REFRESH) {
            return Some(Purpose::Refresh);
        }
        if has(Self::EVENT) {
            return Some(Purpose::Event);
        }
        let by_claims = !has(Self::SCOPE) && (has(Self::HASH) || (has(Self::NONCE) && has(Self::LOGIN)));
        (has(Self::ID) || by_claims).then_some(Purpose::Id)
    }
}

fn by_word(word: &str) -> u8 {
    match word.to_ascii_lowercase().as_str() {
        "bearer" | "access" | "access_token" | "dpop" => Signs::ACCESS,
        "id" | "id_token" => Signs::ID,
        "refresh" | "refresh_token" | "offline" => Signs::REFRESH,
        "logout" => Signs::EVENT,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::facts::Form;
    use crate::token::jose::{Parts, base64};

    fn purpose(header: &str, claims: &str) -> Option<Purpose> {
        let [header, claims] = [header, claims].map(|text| base64::encode(text.as_bytes()));
        let text = format!("{header}.{claims}.c2ln");
        let parts = Parts::of(text.as_bytes(), 16 * 1024);
        let reading = parts.read();
        assert_eq!(reading.form, Form::Jws);
        reading.purpose()
    }

    #[test]
    fn the_header_says_what_a_token_is_for() {
        for (typ, expected) in [
            ("JWT", None),
            ("at+jwt", Some(Purpose::Access)),
            ("application/AT+JWT", Some(Purpose::Access)),
            ("dpop+jwt", Some(Purpose::Proof)),
            ("logout+jwt", Some(Purpose::Event)),
            ("rt+jwt", Some(Purpose::Refresh)),
            ("at+jwt2", None),
        ] {
            let header = format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#);
            assert_eq!(purpose(&header, r#"{"sub":"a"}"#), expected, "{typ}");
        }
    }

    #[test]
    fn claims_say_it_only_where_there_is_no_doubt() {
        let id = Some(Purpose::Id);
        for (claims, expected) in [
            (r#"{"sub":"a","aud":"web"}"#, None),
            (r#"{"sub":"a","at_hash":"x"}"#, id),
            (r#"{"sub":"a","c_hash":"x","nonce":"n"}"#, id),
            (r#"{"sub":"a","at_hash":"x","scope":"openid"}"#, None),
            (r#"{"sub":"a","nonce":"n"}"#, None),
            (r#"{"sub":"a","nonce":"n","auth_time":1}"#, id),
            (r#"{"sub":"a","nonce":"n","auth_time":1,"scp":["x"]}"#, None),
            (r#"{"sub":"a","nonce":"n","acr":"1","typ":"Bearer"}"#, Some(Purpose::Access)),
            (r#"{"sub":"a","typ":"ID"}"#, id),
            (r#"{"sub":"a","token_use":"id"}"#, id),
            (r#"{"sub":"a","typ":"Refresh","nonce":"n"}"#, Some(Purpose::Refresh)),
            (r#"{"sub":"a","typ":"Offline"}"#, Some(Purpose::Refresh)),
            (r#"{"sub":"a","events":{}}"#, Some(Purpose::Event)),
            (r#"{"sub":"a","events":["x"],"typ":5}"#, None),
        ] {
            assert_eq!(purpose(r#"{"alg":"RS256"}"#, claims), expected, "{claims}");
        }
    }
}
