//! The client's certificate as a proxy passes it on, for tokens that are bound to one (RFC 8705 section 3): its SHA-256.
//!
//! The proxy that ends TLS tells the application behind it which certificate the client has shown, in a header of its
//! own. Read are: the certificate as PEM, percent-encoded or not (nginx, AWS), as DER in base64 (Traefik), as a byte
//! sequence (`Client-Cert`, RFC 9440); the elements `Hash` and `Cert` of Envoy's `X-Forwarded-Client-Cert`; and the
//! hash alone, in hexadecimal digits or base64.

use crate::token::extract::percent_decoded;
use crate::token::hash::sha256;
use crate::token::jose::base64;

/// Most certificates of one header that are looked at: a chain of proxies has a handful.
const MAX_CERTIFICATES: usize = 8;

/// Longest certificate, in bytes of base64. Commonly 2 KiB; of post-quantum keys 24 KiB.
const MAX_TEXT: usize = 32 * 1024;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What a header says of the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// None can be read there.
    Nothing,
    /// The one that was looked for.
    Same,
    /// Others only.
    Other,
}

/// Looks for the certificate with this SHA-256 in a header's value.
#[must_use]
pub fn look(value: &[u8], wanted: &[u8; 32]) -> Shown {
    let mut shown = Shown::Nothing;
    for hash in split(value).take(MAX_CERTIFICATES).filter_map(thumbprint) {
        if hash == *wanted {
            return Shown::Same;
        }
        shown = Shown::Other;
    }
    shown
}

/// Elements and members, at commas and semicolons outside quotes: what stands inside quotes is the client's own text.
fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |byte| {
            let is_end = !quoted && matches!(byte, b',' | b';');
            quoted ^= *byte == b'"' && !escaped;
            escaped = quoted && *byte == b'\\' && !escaped;
            is_end
        })
        .map(<[u8]>::trim_ascii)
        .filter(|element| !is_other(element))
}

/// Whether it is a member of Envoy's that names no certificate.
fn is_other(element: &[u8]) -> bool {
    let others: [&[u8]; 5] = [b"by=", b"subject=", b"uri=", b"dns=", b"chain="];
    element.is_empty() || others.iter().any(|name| without(element, name).is_some())
}

fn without<'t>(text: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

/// The SHA-256 of the certificate that an element holds.
fn thumbprint(element: &[u8]) -> Option<[u8; 32]> {
    if let Some(hash) = without(element, b"hash=") {
        return hex(unquoted(hash));
    }
    let text = unquoted(without(element, b"cert=").unwrap_or(element));
    if text.len() > MAX_TEXT * 3 {
        return None;
    }
    // A `+` stays one: it belongs to base64.
    let text = percent_decoded(text, false);
    let bare = match memchr::memmem::find(&text, BEGIN) {
        Some(at) => {
            let body = text.get(at + BEGIN.len()..)?;
            body.get(..memchr::memmem::find(body, b"-----END")?)?
        }
        None => text.strip_prefix(b":").and_then(|inner| inner.strip_suffix(b":")).unwrap_or(&text),
    };
    hex(bare).or_else(|| of_base64(bare))
}

fn of_base64(text: &[u8]) -> Option<[u8; 32]> {
    // Line ends become blanks or tabs where headers are made of PEM.
    let text: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    if text.is_empty() || text.len() > MAX_TEXT {
        return None;
    }
    let decoded = base64::decode(&text);
    match <[u8; 32]>::try_from(decoded.bytes.as_slice()) {
        Ok(hash) => Some(hash),
        // A sequence longer than 127 bytes, as every certificate is (RFC 5280 section 4.1).
        Err(_) if decoded.bytes.starts_with(&[0x30, 0x82]) => Some(sha256(&decoded.bytes)),
        Err(_) => None,
    }
}

/// 64 hexadecimal digits, perhaps with colons between them.
fn hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut digits = text.iter().filter(|b| **b != b':').map(|b| char::from(*b).to_digit(16));
    let mut hash = [0; 32];
    for byte in &mut hash {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(hash)
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use ::base64::engine::Engine as _;
    use ::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    /// A certificate as far as this module looks: a sequence of 700 bytes.
    fn der(fill: u8) -> Vec<u8> {
        let mut der = vec![0x30, 0x82, 0x02, 0xb8];
        der.extend((0..696).map(|n: u16| fill ^ u8::try_from(n % 251).unwrap()));
        der
    }

    fn pem(der: &[u8], gap: &str) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----{gap}{}{gap}-----END CERTIFICATE-----{gap}", lines.join(gap))
    }

    fn escaped(text: &str) -> String {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    }

    /// How a proxy writes a certificate.
    type Way = Box<dyn Fn(&[u8]) -> String>;

    fn hexed(hash: &[u8; 32], gap: &str) -> String {
        hash.map(|b| format!("{b:02x}")).join(gap)
    }

    #[test]
    fn every_way_to_pass_a_certificate_on_is_read() {
        let (own, other) = (der(1), der(2));
        let (wanted, wrong) = (sha256(&own), sha256(&other));
        let envoy = |hash: &str| format!("By=spiffe://a;Hash={hash};Subject=\"CN=x,O=y\";URI=spiffe://b");
        let ways: Vec<(&str, Way)> = vec![
            ("nginx", Box::new(|der: &[u8]| escaped(&pem(der, "\n")))),
            ("nginx, old", Box::new(|der: &[u8]| pem(der, "\n\t"))),
            ("pem in one line", Box::new(|der: &[u8]| pem(der, " "))),
            ("aws", Box::new(|der: &[u8]| pem(der, "\n").replace('\n', "%0A").replace(' ', "%20"))),
            (
                "traefik",
                Box::new(|der: &[u8]| {
                    format!("{},{}", STANDARD.encode(der), STANDARD.encode([0x30, 0x82, 1]))
                }),
            ),
            ("rfc 9440", Box::new(|der: &[u8]| format!(":{}:", STANDARD.encode(der)))),
            ("hash", Box::new(|der: &[u8]| hexed(&sha256(der), ""))),
            ("fingerprint", Box::new(|der: &[u8]| hexed(&sha256(der), ":").to_uppercase())),
            ("x5t", Box::new(|der: &[u8]| URL_SAFE_NO_PAD.encode(sha256(der)))),
            ("envoy", Box::new(move |der: &[u8]| envoy(&hexed(&sha256(der), "")))),
            ("envoy, cert", Box::new(|der: &[u8]| format!("By=x;Cert=\"{}\"", escaped(&pem(der, "\n"))))),
        ];
        for (name, way) in &ways {
            assert_eq!(look(way(&own).as_bytes(), &wanted), Shown::Same, "{name}");
            if *name != "traefik" {
                assert_eq!(look(way(&own).as_bytes(), &wrong), Shown::Other, "{name}");
            }
            let both = format!("{},{}", way(&other), way(&own));
            assert_eq!(look(both.as_bytes(), &wanted), Shown::Same, "{name}, of two proxies");
        }
    }

    #[test]
    fn nothing_is_made_of_nonsense() {
        let wanted = sha256(&der(1));
        for value in
            ["", "-", "NONE", "SUCCESS", "Hash=;Cert=\"\"", "%", "-----BEGIN CERTIFICATE-----", "abcd", ":,:"]
        {
            assert_eq!(look(value.as_bytes(), &wanted), Shown::Nothing, "{value}");
        }
        let long = "MIIC".repeat(30_000);
        assert_eq!(look(long.as_bytes(), &wanted), Shown::Nothing);
    }

    #[test]
    fn what_a_client_writes_into_its_own_name_is_no_certificate() {
        let (own, wanted) = (hexed(&sha256(&der(2)), ""), sha256(&der(1)));
        let name = format!("CN=x;Hash={};\\\";Hash={}", hexed(&wanted, ""), hexed(&wanted, ""));
        let value = format!("Hash={own};Subject=\"{name}\"");
        assert_eq!(look(value.as_bytes(), &wanted), Shown::Other);
    }

    proptest! {
        #[test]
        fn any_header_is_survived(value in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = look(&value, &[0; 32]);
        }
    }
}
