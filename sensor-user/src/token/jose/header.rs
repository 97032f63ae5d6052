//! The JOSE header: what it asks for, and which of its wishes are attacks (RFC 7515 section 4, RFC 8725 section 3).

use std::borrow::Cow;
use std::net::IpAddr;

use super::json::{self, Number, Value};
use super::text::is_treacherous;
use super::{Noted, purpose};
use crate::token::facts::{Flaws, Purpose};
use crate::token::settings::Algorithm;

/// PBKDF2 rounds above which a key derivation is an attack on the reader (a tenfold of OWASP's 2023 figure of 120,000
/// for SHA-512, doubled for headroom, as in detections' `costly-token`).
const MAX_P2C: i64 = 1_200_000;

/// A JOSE header as a lax reader sees it.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "what was seen and what was not, independently")]
pub struct Header<'p> {
    /// Whether it is an object at all.
    pub(super) is_object: bool,
    /// Whether an `alg` member was seen, of any type.
    pub(super) has_alg: bool,
    /// Whether there is an `enc`: a JWE.
    pub(super) encrypted: bool,
    /// Whether there is a `zip`: compressed.
    pub(super) compressed: bool,
    /// `alg` if it is a string.
    pub alg: Option<Cow<'p, str>>,
    /// `kid` if it is a string.
    pub kid: Option<Cow<'p, str>>,
    /// `typ` if it is a string.
    pub typ: Option<Cow<'p, str>>,
    /// `jku` or `x5u`, the first of them.
    pub key_url: Option<Cow<'p, str>>,
    /// The text of the `jwk` object.
    pub jwk: Option<&'p [u8]>,
    /// The first certificate of `x5c`, base64.
    pub certificate: Option<Cow<'p, str>>,
}

impl<'p> Header<'p> {
    pub(super) fn read(text: &'p [u8], noted: &mut Noted) -> Self {
        let mut header = Self::default();
        let mut critical = Critical::default();
        let report =
            json::members(text, &mut |name, value| header.member(&name, value, &mut critical, noted));
        noted.merge(report.flaws, report.detail);
        header.is_object = report.begun;
        critical.judge(noted);
        header
    }

    /// The algorithm, if it is one that we verify, in its exact spelling.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::parse(self.alg.as_deref()?)
    }

    /// What the token is for, where `typ` says so.
    pub(super) fn purpose(&self) -> Option<Purpose> {
        self.typ.as_deref().and_then(purpose::of_type)
    }

    fn member(&mut self, name: &str, value: Value<'p>, critical: &mut Critical, noted: &mut Noted) {
        match name {
            "alg" => {
                self.has_alg = true;
                self.alg = string(value, noted, "alg is not a string");
            }
            "kid" => {
                self.kid = string(value, noted, "kid is not a string");
                if self.kid.as_deref().is_some_and(is_injection) {
                    noted.note(Flaws::KID_INJECTION, "kid is shaped to be run, not looked up");
                }
            }
            "typ" => self.typ = string(value, noted, "typ is not a string"),
            "cty" => drop(string(value, noted, "cty is not a string")),
            "jku" | "x5u" => {
                let url = string(value, noted, "a key URL is not a string");
                let inside = url.as_deref().is_some_and(points_inside);
                noted.note(
                    Flaws::KEY_URL,
                    if inside { "key URL into a private network" } else { "key URL in the header" },
                );
                self.key_url = self.key_url.take().or(url);
            }
            "jwk" => {
                noted.note(Flaws::EMBEDDED_KEY, "key in the header");
                match value {
                    Value::Object(text) => self.jwk = Some(text),
                    _ => noted.note(Flaws::WRONG_TYPE, "jwk is not an object"),
                }
            }
            "x5c" => self.certificates(&value, noted),
            "crit" => critical.names(&value, noted),
            "b64" => critical.b64(&value, noted),
            "enc" => self.encrypted = true,
            "zip" => self.compressed = true,
            "p2c" => match value {
                Value::Number(Number::Integer(rounds)) if (0..=MAX_P2C).contains(&rounds) => {}
                _ => noted.note(Flaws::COSTLY, "p2c asks for absurd work"),
            },
            _ => {}
        }
    }

    fn certificates(&mut self, value: &Value<'p>, noted: &mut Noted) {
        noted.note(Flaws::EMBEDDED_KEY, "certificate in the header");
        let Value::Array(text) = value else {
            return noted.note(Flaws::WRONG_TYPE, "x5c is not an array");
        };
        json::elements(text, &mut |element| match element {
            Value::Text(text) => self.certificate = self.certificate.take().or(Some(text)),
            _ => noted.note(Flaws::WRONG_TYPE, "x5c holds something other than strings"),
        });
    }

    /// What `alg` itself gives away.
    pub(super) fn judge_alg(&self, noted: &mut Noted) {
        match self.alg.as_deref() {
            None if self.has_alg => {}
            None => noted.note(Flaws::WRONG_TYPE, "alg is missing"),
            Some(alg) if is_none(alg) => noted.note(Flaws::ALG_NONE, "alg is none"),
            Some(_) => {}
        }
    }
}

/// `crit` and `b64` (RFC 7515 section 4.1.11, RFC 7797). We know no extension but `b64`, and that only when true.
#[derive(Default)]
struct Critical {
    names_b64: bool,
    has_b64: bool,
}

impl Critical {
    fn names(&mut self, value: &Value<'_>, noted: &mut Noted) {
        let Value::Array(text) = value else {
            return noted.note(Flaws::UNKNOWN_CRITICAL, "crit is not an array");
        };
        let mut count = 0;
        json::elements(text, &mut |element| {
            count += 1;
            match element {
                Value::Text(name) if name == "b64" => self.names_b64 = true,
                Value::Text(_) => noted.note(Flaws::UNKNOWN_CRITICAL, "crit names an unknown extension"),
                _ => noted.note(Flaws::UNKNOWN_CRITICAL, "crit holds something other than strings"),
            }
        });
        if count == 0 {
            noted.note(Flaws::WRONG_TYPE, "crit is empty");
        }
    }

    fn b64(&mut self, value: &Value<'_>, noted: &mut Noted) {
        self.has_b64 = true;
        match value {
            Value::Bool(true) => {}
            Value::Bool(false) => noted.note(Flaws::UNKNOWN_CRITICAL, "b64 is false"),
            _ => noted.note(Flaws::WRONG_TYPE, "b64 is not a boolean"),
        }
    }

    fn judge(&self, noted: &mut Noted) {
        if self.names_b64 && !self.has_b64 {
            noted.note(Flaws::UNKNOWN_CRITICAL, "crit names a member that is absent");
        }
    }
}

/// A registered member that must be a string; a number is shown as one, as lax readers would.
pub(super) fn string<'p>(value: Value<'p>, noted: &mut Noted, detail: &'static str) -> Option<Cow<'p, str>> {
    match value {
        Value::Text(text) => Some(text),
        Value::Number(Number::Integer(number)) => {
            noted.note(Flaws::WRONG_TYPE, detail);
            Some(Cow::Owned(number.to_string()))
        }
        _ => {
            noted.note(Flaws::WRONG_TYPE, detail);
            None
        }
    }
}

/// Whether a lax reader could take `alg` for "none": case, white space, NUL and invisible characters ignored.
fn is_none(alg: &str) -> bool {
    let mut letters =
        alg.chars().filter(|c| !c.is_whitespace() && !is_treacherous(*c)).map(|c| c.to_ascii_lowercase());
    let mut none = "none".chars();
    none.by_ref().all(|wanted| letters.next() == Some(wanted)) && letters.next().is_none()
}

/// Whether `kid` is shaped for a file system, shell, SQL or template and not for a table of keys. Slashes, colons,
/// hashes, dashes and base64 are ordinary: URLs, DIDs, ARNs and thumbprints serve as key ids.
fn is_injection(kid: &str) -> bool {
    let lower = kid.to_ascii_lowercase();
    kid.chars().any(|c| is_treacherous(c) || matches!(c, '\'' | '"' | '`' | '|' | ';' | '<' | '>' | '\\'))
        || [
            "../", "$(", "${", "{{", "&&", "%2e%2e", "%00", "%0a", "%0d", "%27", " or ", " union ",
            " select ", "file:",
        ]
        .iter()
        .any(|shape| lower.contains(shape))
        || ["/dev/", "/proc/", "/sys/", "/etc/", "/var/", "/tmp/", "/home/", "/usr/"]
            .iter()
            .any(|place| lower.starts_with(place))
        || lower == ".."
}

/// Whether a URL names, literally, a host that only insiders reach: loopback, private, link-local, unspecified
/// addresses in any spelling that resolvers take, `localhost`, or a name without dots.
#[must_use]
pub fn points_inside(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return true };
    if scheme.eq_ignore_ascii_case("file") {
        return true;
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if let Some(address) = address(&host) {
        return is_inside(address);
    }
    host.is_empty()
        || !host.contains('.')
        || [".localhost", ".local", ".internal", ".svc", ".cluster.local"]
            .iter()
            .any(|end| host.ends_with(end))
}

/// An address as `inet_aton` takes it too: `0x7f.1`, `2130706433`, `0177.0.0.1`.
fn address(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let mut fields = host.split('.').map(|field| match field.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if field.len() > 1 && field.starts_with('0') => u32::from_str_radix(field, 8).ok(),
        None => field.parse::<u32>().ok(),
    });
    let count = host.split('.').count();
    if count > 4 {
        return None;
    }
    let mut value: u32 = 0;
    for at in 1..count {
        let field = fields.next()??;
        (field < 256).then_some(())?;
        value |= field << (32 - 8 * at);
    }
    Some(IpAddr::V4((value | fields.next()??).into()))
}

fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_inside_from_outside() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1:80/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest",
            "https://u@192.168.0.1/",
            "http://localhost/",
            "http://vault:8200/",
            "file:///etc/passwd",
            "/relative",
            "https://a.svc/x",
            "http://10.1/",
            "https://fd00/",
        ] {
            assert!(points_inside(url), "{url}");
        }
        for url in [
            "https://idp.example/jwks",
            "https://8.8.8.8/",
            "https://10.0.0.1.example.com/",
            "https://[2001:db8::1]/",
        ] {
            assert!(!points_inside(url), "{url}");
        }
    }

    #[test]
    fn none_is_none_in_disguise() {
        for alg in ["none", "NONE", "nOnE", " none", "none\0", "n\u{200b}one", "\tnone\n"] {
            assert!(is_none(alg), "{alg:?}");
        }
        for alg in ["", "non", "nonee", "RS256", "none1"] {
            assert!(!is_none(alg), "{alg:?}");
        }
    }
}
