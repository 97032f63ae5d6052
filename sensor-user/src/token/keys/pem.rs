//! PEM (RFC 7468): public keys and certificates.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::public::Public;
use super::{Key, KeyError, KeySet, MAX_KEYS, Material};
use crate::token::settings::Algorithm;

/// Reads every block of a text.
pub(super) fn read_all(text: &[u8], algorithms: &[Algorithm], set: &mut KeySet) {
    let text = String::from_utf8_lossy(text);
    let mut rest = &*text;
    for place in 0..MAX_KEYS {
        let Some((label, body, behind)) = block(rest) else { return };
        let key = read_block(label, body, algorithms).map(|mut key| {
            // As it stood in the file, which is what a careless verifier reads as its secret.
            let from = text.len() - rest.len();
            let whole = text.get(from..text.len() - behind.len()).unwrap_or_default().trim();
            key.forms.push(("the file's PEM", whole.as_bytes().into()));
            key.forms.push(("the file's PEM with newline", format!("{whole}\n").into_bytes().into()));
            key
        });
        set.add(place, key);
        rest = behind;
    }
}

/// The next block: label, body, what follows.
fn block(text: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, rest) = rest.split_once("-----END ")?;
    let (end, rest) = rest.split_once("-----")?;
    (label == end).then_some((label, body, rest))
}

fn read_block(label: &str, body: &str, algorithms: &[Algorithm]) -> Result<Key, KeyError> {
    let der = decode(body).ok_or(KeyError::Invalid)?;
    let public = match label {
        "PUBLIC KEY" => Public::from_spki(&der),
        "RSA PUBLIC KEY" => Public::from_pkcs1(&der),
        "CERTIFICATE" => Public::from_certificate(&der),
        _ => return Err(KeyError::Unsupported),
    };
    Key::new(&Material::Public(public.ok_or(KeyError::Invalid)?), None, algorithms)
}

/// Decodes standard base64 with line breaks in it.
#[must_use]
pub fn decode(body: &str) -> Option<Vec<u8>> {
    let joined: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(joined).ok()
}

/// Writes a block as OpenSSL does: 64 characters a line.
#[must_use]
pub fn write(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = behind;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}
