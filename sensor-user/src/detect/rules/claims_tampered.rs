//! `claims-tampered`: one signature over two contents, or one content with two signatures.

use std::sync::Arc;

use crate::detect::cause::{Cause, cause};
use crate::detect::statement::{Statement, Subject, severity};
use crate::detect::table::Table;
use crate::detect::{About, Case, DetectSettings, Needs, Report, Rule, Severity, When};
use crate::token::{Signature, Token};

/// The card.
pub static ABOUT: About = About {
    id: "claims-tampered",
    title: "Token changed after signing",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when one signature is seen with two different contents, or one content with two different \
signatures. It needs no key: a signature fits one content only.\n\nSomebody took a real token, changed a claim \
and kept the signature, or is trying signatures on one content.\n\nBenign: ECDSA and RSA-PSS sign with random \
numbers, so an issuer may sign one content twice; two signatures count only where the algorithm is \
deterministic, or one of them is refuted. The token that verifies is never the one accused; where nobody can \
verify, the second seen is, with less confidence. A token whose trick has a name is left to that rule; where \
this rule fires, `signature-invalid` and `alg-not-allowed` are not told as well.",
    cooling_s: 600,
    thresholds: &[],
};

/// Places of the filter of tokens that were found in order: half a MiB, about as many as there are live tokens on a
/// busy node. A token that loses its place costs two look-ups more.
const KNOWN: usize = 1 << 17;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(ClaimsTampered {
        by_signature: Table::new(settings.max_tokens),
        by_content: Table::new(settings.max_tokens),
        known: vec![0; KNOWN],
    })
}

/// The other half of a token, and what was known of it.
#[derive(Clone, Copy)]
struct Twin {
    /// Half of its hash: one change in 2^32 goes unseen. As bytes, so that key, twin and the table's own count of uses
    /// take 16 bytes.
    hash: [u8; 4],
    signature: Signature,
}

const _: () = assert!(size_of::<(u64, Twin, u8)>() == 16);

struct ClaimsTampered {
    by_signature: Table<u64, Twin>,
    by_content: Table<u64, Twin>,
    /// Of tokens that were found in order: 32 bits of the fingerprint, at the place that 17 other bits give. The
    /// fingerprint is a keyed hash, so nobody can aim at a place; by chance a stranger is taken for a known token once
    /// in 2^31.
    known: Vec<u32>,
}

/// How a token gives itself away.
#[derive(Clone, Copy)]
enum Tampering {
    Content,
    Signature,
}

impl ClaimsTampered {
    fn is_known(&self, (place, tag): (usize, u32)) -> bool {
        self.known.get(place) == Some(&tag)
    }

    /// Compares a token with those of the same signature and of the same content.
    fn tampering(&mut self, token: &Token) -> Option<(Tampering, u8)> {
        let (content, signature) = (half(token.input_hash), half(token.signature_hash));
        let first = Twin { hash: content, signature: token.signature };
        let other = *self.by_signature.get_or(token.signature_hash, || first)?;
        let first = Twin { hash: signature, signature: token.signature };
        let twin = *self.by_content.get_or(token.input_hash, || first)?;
        let refuted = matches!(token.signature, Signature::Invalid);
        if other.hash != content {
            let sure = refuted || matches!(other.signature, Signature::Verified);
            return Some((Tampering::Content, if sure { 100 } else { 80 }));
        }
        let sure = refuted || matches!(twin.signature, Signature::Invalid);
        if twin.hash != signature && (sure || is_deterministic(token)) {
            return Some((Tampering::Signature, if refuted { 100 } else { 70 }));
        }
        None
    }
}

#[allow(clippy::cast_possible_truncation, reason = "half of the hash is wanted")]
const fn half(hash: u64) -> [u8; 4] {
    (hash as u32).to_le_bytes()
}

/// A verified token replaces what was known of its halves: it is the original.
fn learn_original(tables: &mut ClaimsTampered, token: &Token) {
    let signature = token.signature;
    if let Some(twin) = tables.by_signature.get_or(token.signature_hash, || Twin { hash: [0; 4], signature })
    {
        *twin = Twin { hash: half(token.input_hash), signature };
    }
    if let Some(twin) = tables.by_content.get_or(token.input_hash, || Twin { hash: [0; 4], signature }) {
        *twin = Twin { hash: half(token.signature_hash), signature };
    }
}

/// RSA with PKCS #1 v1.5, HMAC and `EdDSA` give one signature for one content and key.
fn is_deterministic(token: &Token) -> bool {
    token.alg.as_deref().is_some_and(|alg| alg.starts_with("RS") || alg.starts_with("HS") || alg == "EdDSA")
}

/// Where the filter keeps a token, and by what. The tag is never 0, the mark of an empty place.
#[allow(clippy::cast_possible_truncation, reason = "both are cut out of a hash on purpose")]
fn name_of(token: &Token) -> (usize, u32) {
    let half = token.fingerprint.0.first_chunk::<8>().map_or(0, |half| u64::from_le_bytes(*half));
    (half as usize % KNOWN, (half >> 32) as u32 | 1)
}

impl Rule for ClaimsTampered {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let token = &*held.token;
            let name = name_of(token);
            if token.signature_hash == 0 || self.is_known(name) {
                continue;
            }
            if token.is_verified() {
                learn_original(self, token);
            } else if !matches!(
                cause(token),
                None | Some(Cause::SignatureInvalid | Cause::AlgNotAllowed | Cause::Malformed)
            ) {
                continue;
            } else if let Some((tampering, confidence)) = self.tampering(token) {
                report.push(finding(&Subject::new(case, held), tampering, confidence));
                continue;
            }
            if let Some(known) = self.known.get_mut(name.0) {
                *known = name.1;
            }
        }
    }
}

fn finding(subject: &Subject<'_>, tampering: Tampering, confidence: u8) -> crate::detect::Finding {
    let outcome = subject.outcome();
    let (what, word) = match tampering {
        Tampering::Content => ("carries the signature of another token", "changed claims"),
        Tampering::Signature => {
            ("has the content of another token, and another signature", "changed signature")
        }
    };
    let statement = Statement {
        severity: severity(&ABOUT, outcome),
        confidence,
        message: format!("A token that {what} {}. It was changed after it was signed.", subject.told()),
        brief: format!("{word} {}", outcome.verb()),
        facts: Vec::new(),
    };
    statement.into_finding(&ABOUT, subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};
    use crate::token::Unchecked;

    fn made_of(number: u64, content: u64, signature: u64, worth: Signature) -> Token {
        Token { input_hash: content, signature_hash: signature, signature: worth, ..token(number) }
    }

    const NOBODY: Signature = Signature::Unchecked(Unchecked::NoIssuer);

    fn ask(tokens: &[Token]) -> Vec<usize> {
        let mut rule = rule(&Arc::default());
        tokens.iter().map(|t| Stage::new().status(401).ask(&mut *rule, [t.clone()]).len()).collect()
    }

    #[test]
    fn one_signature_fits_one_content() {
        let good = made_of(1, 10, 20, Signature::Verified);
        let changed = made_of(2, 11, 20, Signature::Invalid);
        assert_eq!(ask(&[good.clone(), changed.clone(), changed.clone()]), [0, 1, 1]);
        assert_eq!(ask(&[changed, good]), [0, 0], "the original is never accused");
    }

    #[test]
    fn without_keys_the_second_is_accused() {
        assert_eq!(ask(&[made_of(1, 10, 20, NOBODY), made_of(2, 11, 20, NOBODY)]), [0, 1]);
    }

    #[test]
    fn random_signatures_may_differ() {
        let es = |number, signature, worth| {
            made_of(number, 10, signature, worth).of_profile(|p| p.alg = Some("ES256".into()))
        };
        assert_eq!(ask(&[es(1, 20, NOBODY), es(2, 21, NOBODY)]), [0, 0]);
        assert_eq!(ask(&[es(1, 20, Signature::Verified), es(2, 21, Signature::Verified)]), [0, 0]);
        assert_eq!(ask(&[es(1, 20, Signature::Verified), es(2, 21, Signature::Invalid)]), [0, 1]);
        let rs = |number, signature| made_of(number, 10, signature, NOBODY);
        assert_eq!(ask(&[rs(1, 20), rs(2, 21)]), [0, 1]);
    }

    #[test]
    fn one_token_many_times_is_one_token() {
        assert_eq!(ask(&[made_of(1, 10, 20, NOBODY), made_of(1, 10, 20, NOBODY)]), [0, 0]);
    }

    #[test]
    fn is_critical_when_accepted() {
        let mut rule = rule(&Arc::default());
        Stage::new().status(200).ask(&mut *rule, [made_of(1, 10, 20, Signature::Verified)]);
        let found = Stage::new().status(200).ask(&mut *rule, [made_of(2, 11, 20, Signature::Invalid)]);
        assert_eq!((found[0].severity, found[0].confidence), (Severity::Critical, 100));
    }
}
