//! One question to an issuer: is this token active (RFC 7662 section 2)?

use std::fmt::Write as _;

use reqwest::Client;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};

use super::{AskError, Word};
use crate::token::fetch::http;
use crate::token::jose::json::{self, Number, Value};
use crate::token::settings::Introspection;

/// Longest answer, in bytes: a token's claims again, and tokens are at most 16 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// Asks. The caller bounds the time.
pub(super) async fn ask(
    client: &Client,
    endpoint: &Introspection,
    issuer: &str,
    token: &[u8],
) -> Result<Word, AskError> {
    let url = http::checked(&endpoint.url)?;
    let form = zeroize::Zeroizing::new(format!("token={}&token_type_hint=access_token", escaped(token)));
    let mut request = client
        .post(url)
        .header(ACCEPT_ENCODING, "identity")
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.as_bytes().to_vec());
    if !endpoint.client.is_empty() {
        let secret = endpoint.secret.as_ref().map(|secret| escaped(&secret.0));
        request = request.basic_auth(escaped(endpoint.client.as_bytes()), secret);
    }
    let response = request.send().await.map_err(|error| AskError::Connection(http::reason(error)))?;
    // Redirects are not followed: they would carry the token elsewhere.
    let body = http::body(response, MAX_ANSWER).await?;
    read(&body.bytes, issuer)
}

/// Reads an answer, strictly: what is not exactly one is none.
fn read(text: &[u8], issuer: &str) -> Result<Word, AskError> {
    let (mut active, mut named, mut expires) = (None, None, None);
    let report = json::members(text, &mut |name, value| match (&*name, value) {
        ("active", Value::Bool(value)) => active = Some(value),
        ("iss", Value::Text(name)) => named = Some(name),
        ("exp", Value::Number(Number::Integer(seconds))) => expires = Some(seconds),
        _ => {}
    });
    if !report.is_strict() {
        return Err(AskError::Answer("is not strict JSON"));
    }
    if named.is_some_and(|name| name != issuer) {
        return Err(AskError::Answer("names another issuer"));
    }
    let good = active.ok_or(AskError::Answer("does not say whether the token is active"))?;
    Ok(Word { good, expires: expires.filter(|_| good) })
}

/// As in forms (RFC 6749 appendix B), every byte escaped that need not be as it is.
fn escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_answer_is_one() {
        let word = |text: &str| read(text.as_bytes(), "https://idp.example/").ok();
        let good = Some(Word { good: true, expires: None });
        assert_eq!(word(r#"{"active":true}"#), good);
        assert_eq!(word(r#"{"active":true,"iss":"https://idp.example/","exp":7}"#).unwrap().expires, Some(7));
        assert_eq!(word(r#"{"active":false,"exp":7}"#), Some(Word { good: false, expires: None }));
        for lie in [
            "",
            "{}",
            "[]",
            "null",
            "<html>",
            r#"{"active":"false"}"#,
            r#"{"active":0}"#,
            r#"{"active":null}"#,
            r#"{"active":true,"active":false}"#,
            r#"{"active":false,"iss":"https://evil.example/"}"#,
            r#"{"active":false"#,
        ] {
            assert_eq!(word(lie), None, "{lie}");
        }
    }

    #[test]
    fn forms_escape_everything_else() {
        assert_eq!(escaped(b"a-b._~+/ =\xff"), "a-b._%7E%2B%2F%20%3D%FF");
    }
}
