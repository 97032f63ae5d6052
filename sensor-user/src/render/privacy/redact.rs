//! Secrets that stand beside their names: `password=…`, `"apiKey":"…"`, `Cookie: …`, `Bearer …`.
//!
//! Findings hold none by construction: queries, cookies and bodies are not part of them. This is the second wall, for
//! what a client puts where nobody expects it, and for facts that rules take from traffic.

use std::borrow::Cow;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Names that secrets go by, in small letters and without signs: the lists of the product's own promise, and what
/// cookies and sessions are called.
const SHIPPED: [&str; 17] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "secret",
    "apikey",
    "authorization",
    "creditcard",
    "ssn",
    "passport",
    "accesstoken",
    "refreshtoken",
    "privatekey",
    "cookie",
    "sessionid",
    "signature",
];

/// Headers whose whole value is secret.
const HEADERS: [&str; 6] =
    ["authorization", "proxyauthorization", "cookie", "setcookie", "xapikey", "xauthtoken"];

/// Letters of a name that are looked at: longer names are none.
const MAX_NAME: usize = 64;

/// The names of secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sensitive(Vec<Box<str>>);

impl Sensitive {
    /// The shipped names and these.
    #[must_use]
    pub fn with(more: &[String]) -> Self {
        let names = more.iter().map(|name| plain(name)).filter(|name| !name.is_empty());
        Self(names.map(String::into_boxed_str).collect())
    }

    /// Whether a value of this name is a secret: if the name holds one of ours, as `client_secret` does.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let name = plain(name);
        SHIPPED.iter().any(|known| name.contains(known)) || self.0.iter().any(|known| name.contains(&**known))
    }

    /// Whether this is the very name of a secret.
    #[must_use]
    pub fn is_exactly(&self, name: &str) -> bool {
        let name = plain(name);
        SHIPPED.contains(&&*name) || self.0.iter().any(|known| **known == *name)
    }

    /// Takes every value of a sensitive name out of a text.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = String::new();
        let mut done = 0;
        let mut at = 0;
        while let Some(found) = text.get(at..).and_then(|rest| rest.find(['=', ':', ' '])) {
            let sign = at + found;
            at = sign + 1;
            let Some((from, to)) = self.value(text, sign).filter(|(from, to)| *from >= done && from < to)
            else {
                continue;
            };
            out.push_str(text.get(done..from).unwrap_or_default());
            out.push_str(REDACTED);
            (done, at) = (to, to.max(at));
        }
        if done == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(text.get(done..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The value behind a sign, if what is before it says that it is secret.
    fn value(&self, text: &str, sign: usize) -> Option<(usize, usize)> {
        let (before, after) = (text.get(..sign)?, text.get(sign + 1..)?);
        let blank = after.len() - after.trim_start_matches(' ').len();
        let value = after.get(blank..)?;
        let from = sign + 1 + blank;
        let until = |stop: &[char]| from + value.find(|c| stop.contains(&c)).unwrap_or(value.len());
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let quoted = |quote: char| {
            let inside = value.get(1..).unwrap_or_default();
            (from + 1, from + 1 + inside.find(quote).unwrap_or(inside.len()))
        };
        let of_json = before.ends_with(['"', '\'']);
        let name = name(before.trim_end_matches(['"', '\'', ' ']));
        match text.as_bytes().get(sign)? {
            b'=' if self.is(name) => Some(quote.map_or_else(
                || (from, until(&['&', ';', ',', ' ', '"', '\'', '<', '>', ')', ']', '}', '|'])),
                quoted,
            )),
            b':' if of_json && self.is(name) => {
                Some(quote.map_or_else(|| (from, until(&[',', '}', ']', ' '])), quoted))
            }
            b':' if HEADERS.contains(&&*plain(name)) => Some((from, until(&['"', '\n', ')']))),
            b' ' if is_scheme(name) => {
                let to = until(&[' ', ',', ';', '"', '\'', ')', ']', '}', '<', '>']);
                Some((from, to)).filter(|(from, to)| text.get(*from..*to).is_some_and(is_credential))
            }
            _ => None,
        }
    }
}

/// The name that a text ends with.
fn name(text: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '[' | ']' | '$' | '%');
    let start = text
        .rfind(|c| !is_part(c))
        .map_or(0, |at| at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8));
    text.get(start..).unwrap_or_default()
}

/// A name in small letters, without signs; empty if it is too long to be one.
fn plain(name: &str) -> String {
    if name.len() > MAX_NAME {
        return String::new();
    }
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Schemes whose parameter is the credential itself (RFC 7617, RFC 6750, RFC 9449).
fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "dpop"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Whether a word is more likely a credential than a word.
fn is_credential(word: &str) -> bool {
    let has = |test: fn(&u8) -> bool| word.bytes().any(|byte| test(&byte));
    let mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    word.len() >= 8 && !word.starts_with('{') && (mixed || has(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_sensitive_names_are_taken_out() {
        let names = Sensitive::with(&["card-pin".to_owned()]);
        for (text, shown) in [
            ("https://a/?x=1&password=hunter2&y=2", "https://a/?x=1&password=[redacted]&y=2"),
            ("client_secret=abc", "client_secret=[redacted]"),
            ("api-key = abc, z", "api-key = [redacted], z"),
            (r#"{"accessToken": "a b", "n": 1}"#, r#"{"accessToken": "[redacted]", "n": 1}"#),
            (r#"{"ssn":123,"n":1}"#, r#"{"ssn":[redacted],"n":1}"#),
            ("Cookie: a=b; c=d", "Cookie: [redacted]"),
            ("(Bearer abcDEF123456) x", "(Bearer [redacted]) x"),
            ("Basic dXNlcjpwYXNz", "Basic [redacted]"),
            ("cardPin=1234", "cardPin=[redacted]"),
            ("password='a b' c", "password='[redacted]' c"),
        ] {
            assert_eq!(names.redact(text), shown);
        }
    }

    #[test]
    fn sentences_stay_as_they_are() {
        let names = Sensitive::default();
        for text in [
            "A bearer token: it was refused with 401 on GET /orders/{id}.",
            "A token that is bound to a key was answered 200; no answer was seen",
            "alg=none kid=../../dev/null",
            "Bearer {token}",
            "password=",
            "",
        ] {
            assert!(matches!(names.redact(text), Cow::Borrowed(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_secret_stays_behind_its_name(
            before in "[ a-z?&]{0,20}", name in 0_usize..SHIPPED.len(), secret in "[A-Z0-9]{12,30}", after in "(&| |;)[a-z]{0,9}",
        ) {
            let text = format!("{before}&x_{}={secret}{after}", SHIPPED[name]);
            prop_assert!(!Sensitive::default().redact(&text).contains(&secret), "{text}");
        }

        #[test]
        fn no_text_is_too_odd(text in "[a-z=:\"' &;]{0,60}|\\PC{0,60}|(password=|token:|Bearer |\u{e9}){0,9}") {
            let _ = Sensitive::default().redact(&text);
        }
    }
}
