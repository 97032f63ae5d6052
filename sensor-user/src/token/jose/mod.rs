//! Compact JWS, read strictly (RFC 7515 sections 5.2 and 7.1, RFC 7519 section 7.2), and what a lax reader would see.
//!
//! A general library answers one question: may this token be trusted? A sensor must also say how a token tries to
//! be trusted that must not be. So nothing is refused here: [`Parts`] decodes, [`Reading`] names every flaw and
//! still carries the claims as the most forgiving reader sees them. Only `verify` decides.
//!
//! How a text is classed (see [`Form`]):
//! - five parts and a header object with `enc` is a JWE; its payload stays closed;
//! - a first part that decodes to something that begins like an object is JOSE if there are two dots or more and
//!   it has an `alg` or the second part begins like an object too, or if it has one dot and an `alg`; a text that
//!   itself begins with `{` and names a `signature` is the JSON serialisation, which no bearer token may be;
//! - JOSE with header and payload objects in three parts is a JWS, whatever else is wrong with it; JOSE that falls
//!   short of that is malformed;
//! - everything else is opaque, cookies signed by Flask or Rails among them.

pub mod base64;
mod claims;
mod grants;
mod header;
pub mod json;
pub(in crate::token) mod purpose;
mod signature;
pub mod text;

use std::io::Read as _;

use zeroize::Zeroizing;

use crate::token::facts::{Flaws, Form, Purpose};

pub use claims::Claims;
pub use header::{Header, points_inside};

/// The pieces of a token's text, decoded.
#[derive(Default)]
pub struct Parts<'a> {
    text: &'a [u8],
    /// Header and payload text with the dot between them: what is signed.
    pub signing_input: &'a [u8],
    /// The payload's text.
    pub payload_text: &'a [u8],
    /// The signature's text.
    pub signature_text: &'a [u8],
    count: usize,
    header: Vec<u8>,
    payload: Vec<u8>,
    /// The signature's bytes; wiped when dropped.
    pub signature: Zeroizing<Vec<u8>>,
    flaws: Noted,
}

impl std::fmt::Debug for Parts<'_> {
    /// Never the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("count", &self.count)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// Flaws, and the words for the first of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::token) struct Noted {
    flaws: Flaws,
    detail: Option<&'static str>,
}

impl Noted {
    fn note(&mut self, flaw: Flaws, detail: &'static str) {
        self.flaws.insert(flaw);
        self.detail.get_or_insert(detail);
    }

    fn merge(&mut self, flaws: Flaws, detail: Option<&'static str>) {
        self.flaws.insert(flaws);
        self.detail = self.detail.or(detail);
    }
}

/// A token as it reads. Borrowed from its [`Parts`]; holds claims of a stranger, and no signature.
#[derive(Debug)]
pub struct Reading<'p> {
    /// What it looks like.
    pub form: Form,
    /// Why it must be refused, by its text alone.
    pub flaws: Flaws,
    /// The first flaw in words.
    pub detail: Option<&'static str>,
    /// Its header.
    pub header: Header<'p>,
    /// Its claims, empty where the payload is closed.
    pub claims: Claims<'p>,
}

impl<'a> Parts<'a> {
    /// Splits and decodes `text`. Longer than `max_bytes` is a flaw; longer than four times that (the longest head
    /// that is captured, with the default of 16 KiB) is not read at all.
    #[must_use]
    pub fn of(text: &'a [u8], max_bytes: usize) -> Self {
        let mut parts = Self { text, count: 1, ..Self::default() };
        if text.len() > max_bytes {
            parts.flaws.note(Flaws::TOO_LARGE, "longer than the limit");
            if text.len() > max_bytes.saturating_mul(4) {
                return parts;
            }
        }
        let Some(first_dot) = memchr::memchr(b'.', text) else { return parts };
        parts.count = 1 + memchr::memchr_iter(b'.', text).count();
        let header_text = text.get(..first_dot).unwrap_or_default();
        if !begins_like_object(header_text) {
            return parts;
        }
        let mut after = text.get(first_dot + 1..).unwrap_or_default().split(|b| *b == b'.');
        parts.payload_text = after.next().unwrap_or_default();
        parts.signature_text = after.next().unwrap_or_default();
        parts.signing_input = text.get(..=first_dot + parts.payload_text.len()).unwrap_or(text);
        parts.header = parts.decode(header_text);
        let before = parts.flaws;
        parts.payload = parts.decode(parts.payload_text);
        parts.signature = parts.decode(parts.signature_text).into();
        if parts.count == 5 {
            // What may be a JWE's encrypted key and nonce is not for us to judge.
            parts.flaws = before;
        }
        parts
    }

    /// The payload, decoded.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn decode(&mut self, text: &[u8]) -> Vec<u8> {
        let decoded = base64::decode(text);
        if let Some(departure) = decoded.departure {
            self.flaws.note(Flaws::BAD_BASE64, departure);
        }
        decoded.bytes
    }

    /// Reads header and claims.
    #[must_use]
    pub fn read(&self) -> Reading<'_> {
        let large = Flaws(self.flaws.flaws.0 & Flaws::TOO_LARGE.0);
        let opaque = |form, flaws: Flaws, detail| Reading {
            form,
            flaws,
            detail,
            header: Header::default(),
            claims: Claims::default(),
        };
        if self.header.is_empty() {
            return if is_json_serialisation(self.text) {
                let mut flaws = large;
                flaws.insert(Flaws::BAD_PARTS);
                opaque(Form::Malformed, flaws, Some("JSON serialisation where a compact token belongs"))
            } else {
                let looks = large.intersects(Flaws::TOO_LARGE) && begins_like_object(self.text);
                let form = if looks { Form::Malformed } else { Form::Opaque };
                opaque(form, large, self.flaws.detail.filter(|_| !large.is_empty()))
            };
        }
        let mut noted = self.flaws;
        let header = Header::read(&self.header, &mut noted);
        if self.count == 5 && header.encrypted {
            if header.compressed && self.text.len() > MAX_COMPRESSED {
                noted.note(Flaws::COSTLY, "compressed and encrypted, and too long for its purpose");
            }
            return Reading {
                form: Form::Jwe,
                flaws: noted.flaws,
                detail: noted.detail,
                header,
                claims: Claims::default(),
            };
        }
        let object_follows = begins_with_brace(&self.payload);
        let meant = header.has_alg || (self.count >= 3 && object_follows);
        if !meant {
            return opaque(Form::Opaque, large, None);
        }
        self.read_jws(header, noted)
    }

    fn read_jws<'p>(&'p self, header: Header<'p>, mut noted: Noted) -> Reading<'p> {
        header.judge_alg(&mut noted);
        if self.count != 3 {
            noted.note(Flaws::BAD_PARTS, "not three parts");
        }
        if header.compressed && inflates_too_far(&self.payload) {
            noted.note(Flaws::COSTLY, "inflates to more than 64 KiB");
        }
        let claims = Claims::read(&self.payload, &mut noted);
        signature::judge(&header, &self.signature, self.signature_text.is_empty(), &mut noted);
        let form =
            if self.count == 3 && header.is_object && claims.is_object { Form::Jws } else { Form::Malformed };
        Reading { form, flaws: noted.flaws, detail: noted.detail, header, claims }
    }
}

impl Reading<'_> {
    /// What the token is for, where header or claims say so.
    #[must_use]
    pub fn purpose(&self) -> Option<Purpose> {
        self.header.purpose().or_else(|| self.claims.purpose())
    }
}

/// Longest compressed and encrypted token that is not suspicious, in bytes: deflate packs 1032 bytes into one at most,
/// so that it may become 8 MiB; most servers take no longer header.
const MAX_COMPRESSED: usize = 8 * 1024;

/// What a payload may inflate to, in bytes: four times the longest token.
const MAX_INFLATED: u64 = 64 * 1024;

/// Whether a payload is deflated (RFC 7516 section 4.1.3) and inflates beyond the limit. Costs 64 KiB of output at
/// most, a tenth of a millisecond, and keeps none of it.
fn inflates_too_far(payload: &[u8]) -> bool {
    if begins_with_brace(payload) {
        return false;
    }
    let mut inflated = flate2::read::DeflateDecoder::new(payload).take(MAX_INFLATED + 1);
    std::io::copy(&mut inflated, &mut std::io::sink()).is_ok_and(|length| length > MAX_INFLATED)
}

/// Whether base64 text decodes to something that begins like a JSON object, perhaps after white space.
#[must_use]
pub fn begins_like_object(text: &[u8]) -> bool {
    let mut start = text.get(..64.min(text.len())).unwrap_or_default();
    // Nearly always "eyJ"; the rest is for those who hope to be overlooked.
    if start.starts_with(b"ey") {
        return true;
    }
    while !start.is_empty() && start.len() % 4 != 0 {
        start = start.get(..start.len() - 1).unwrap_or_default();
    }
    begins_with_brace(&base64::decode(start).bytes)
}

fn begins_with_brace(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.trim_ascii_start().starts_with(b"{")
}

fn is_json_serialisation(text: &[u8]) -> bool {
    begins_with_brace(text) && memchr::memmem::find(text, b"\"signature").is_some()
}

/// Reads anything at all and checks what must hold of every reading. The body of the `jose` fuzz target.
///
/// # Panics
/// When a promise of this module is broken; that is what a fuzzer looks for.
pub fn fuzz(text: &[u8]) {
    let parts = Parts::of(text, 16 * 1024);
    let reading = parts.read();
    let strict = reading.flaws.is_empty() && reading.form == Form::Jws;
    let whole = parts.count == 3 && reading.header.alg.is_some() && !parts.signature.is_empty();
    assert!(whole || !strict, "called strict: {} parts", parts.count);
    assert!(
        reading.flaws.is_empty() || reading.detail.is_some(),
        "a flaw without words: {:?}",
        reading.flaws
    );
    for claim in [&reading.claims.issuer, &reading.claims.subject, &reading.header.kid].into_iter().flatten()
    {
        assert!(text::printable(claim).len() <= crate::token::facts::MAX_TEXT, "a text too long");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str, payload: &str, signature: &[u8]) -> String {
        format!(
            "{}.{}.{}",
            base64::encode(header.as_bytes()),
            base64::encode(payload.as_bytes()),
            base64::encode(signature)
        )
    }

    fn flaws(text: &str) -> (Form, Flaws) {
        let parts = Parts::of(text.as_bytes(), 16 * 1024);
        let reading = parts.read();
        (reading.form, reading.flaws)
    }

    const RS: &str = r#"{"alg":"RS256","typ":"JWT","kid":"k1"}"#;
    const CLAIMS: &str =
        r#"{"iss":"https://idp/","sub":"alice","aud":["a","b"],"exp":2000000000.5,"iat":-5,"jti":"1"}"#;

    #[test]
    fn reads_a_good_token_whole() {
        let text = token(RS, CLAIMS, &[1; 256]);
        let parts = Parts::of(text.as_bytes(), 16 * 1024);
        let reading = parts.read();
        assert_eq!((reading.form, reading.flaws, reading.detail), (Form::Jws, Flaws::default(), None));
        assert_eq!(reading.header.alg.as_deref(), Some("RS256"));
        assert_eq!(reading.header.kid.as_deref(), Some("k1"));
        assert_eq!(reading.claims.issuer.as_deref(), Some("https://idp/"));
        assert_eq!(reading.claims.audiences.as_slice(), ["a", "b"]);
        assert_eq!((reading.claims.expires, reading.claims.issued), (Some(2_000_000_000), Some(-5)));
        assert_eq!(parts.signing_input, text.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn names_every_flaw_of_the_header() {
        let cases = [
            (r#"{"alg":"none"}"#, Flaws::ALG_NONE),
            (r#"{"alg":"NonE"}"#, Flaws::ALG_NONE),
            (r#"{"alg":" none\u0000"}"#, Flaws::ALG_NONE),
            (r#"{"alg":"no\u200bne"}"#, Flaws::ALG_NONE),
            (r#"{"typ":"JWT"}"#, Flaws::WRONG_TYPE),
            (r#"{"alg":5}"#, Flaws::WRONG_TYPE),
            (r#"{"alg":null}"#, Flaws::WRONG_TYPE),
            (r#"{"alg":["RS256"]}"#, Flaws::WRONG_TYPE),
            (r#"{"alg":"RS256","alg":"none"}"#, Flaws::DUPLICATE_MEMBERS),
            (r#"{"alg":"RS256","crit":["exp"]}"#, Flaws::UNKNOWN_CRITICAL),
            (r#"{"alg":"RS256","crit":[]}"#, Flaws::WRONG_TYPE),
            (r#"{"alg":"RS256","crit":"b64"}"#, Flaws::UNKNOWN_CRITICAL),
            (r#"{"alg":"RS256","b64":false,"crit":["b64"]}"#, Flaws::UNKNOWN_CRITICAL),
            (r#"{"alg":"RS256","jwk":{"kty":"RSA"}}"#, Flaws::EMBEDDED_KEY),
            (r#"{"alg":"RS256","x5c":["MII"]}"#, Flaws::EMBEDDED_KEY),
            (r#"{"alg":"RS256","jku":"https://evil/"}"#, Flaws::KEY_URL),
            (r#"{"alg":"RS256","x5u":"http://169.254.169.254/"}"#, Flaws::KEY_URL),
            (r#"{"alg":"RS256","kid":"../../dev/null"}"#, Flaws::KID_INJECTION),
            (r#"{"alg":"RS256","kid":"/dev/null"}"#, Flaws::KID_INJECTION),
            (r#"{"alg":"RS256","kid":"x' UNION SELECT 'k'--"}"#, Flaws::KID_INJECTION),
            (r#"{"alg":"RS256","kid":"k|id"}"#, Flaws::KID_INJECTION),
            (r#"{"alg":"RS256","kid":"k\u0000"}"#, Flaws::KID_INJECTION),
            (r#"{"alg":"RS256","kid":null}"#, Flaws::WRONG_TYPE),
            (r#"{"alg":"RS256","p2c":2000000}"#, Flaws::COSTLY),
            ("{\"alg\":\"RS256\"}\n{}", Flaws::BAD_JSON),
            (r#"{"alg":"RS256""#, Flaws::BAD_JSON),
        ];
        for (header, flaw) in cases {
            let (_, found) = flaws(&token(header, CLAIMS, &[1; 256]));
            assert!(found.intersects(flaw), "{header}: {found:?}");
        }
    }

    #[test]
    fn a_payload_that_inflates_beyond_measure_is_costly() {
        let deflated = |length: usize| {
            let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut out, &vec![b'{'; length]).unwrap();
            out.finish().unwrap()
        };
        let zipped = |payload: &[u8]| {
            let header = base64::encode(br#"{"alg":"RS256","zip":"DEF"}"#);
            flaws(&format!("{header}.{}.{}", base64::encode(payload), base64::encode(&[1; 256]))).1
        };
        assert!(zipped(&deflated(65 * 1024)).intersects(Flaws::COSTLY));
        assert!(zipped(&deflated(10 * 1024 * 1024)).intersects(Flaws::COSTLY));
        assert!(!zipped(&deflated(64 * 1024)).intersects(Flaws::COSTLY));
        assert!(!zipped(CLAIMS.as_bytes()).intersects(Flaws::COSTLY), "zip means nothing in a signed token");
        assert!(!zipped(&[0xff; 3000]).intersects(Flaws::COSTLY), "not deflated at all");
    }

    #[test]
    fn a_long_compressed_and_encrypted_token_is_costly() {
        let jwe = |zip: &str, length: usize| {
            let header = base64::encode(format!(r#"{{"alg":"dir","enc":"A128GCM"{zip}}}"#).as_bytes());
            flaws(&format!("{header}..aXY.{}.dGFn", base64::encode(&vec![7; length])))
        };
        assert_eq!(jwe(r#","zip":"DEF""#, 9000), (Form::Jwe, Flaws::COSTLY));
        assert_eq!(jwe(r#","zip":"DEF""#, 5000), (Form::Jwe, Flaws::default()));
        assert_eq!(jwe("", 9000), (Form::Jwe, Flaws::default()));
    }

    #[test]
    fn ordinary_kids_are_no_injection() {
        for kid in [
            "k1",
            "2024-01-01",
            "AbC/+9==",
            "/9j4+a",
            "did:key:z6Mk#keys-1",
            "https://kv.example/keys/a/1",
            "a--b",
            "Zm9v_-",
            "arn:aws:kms:eu-west-1:1:key/x",
            "user@example.com",
            "",
        ] {
            let (form, found) =
                flaws(&token(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#), CLAIMS, &[1; 256]));
            assert_eq!((form, found), (Form::Jws, Flaws::default()), "{kid}");
        }
    }

    #[test]
    fn names_every_flaw_of_the_claims() {
        for claims in [
            r#"{"exp":"2000000000"}"#,
            r#"{"exp":1e999}"#,
            r#"{"exp":null}"#,
            r#"{"nbf":[1]}"#,
            r#"{"iat":true}"#,
            r#"{"sub":["alice"]}"#,
            r#"{"sub":5}"#,
            r#"{"iss":{}}"#,
            r#"{"aud":5}"#,
            r#"{"aud":["a",5]}"#,
            r#"{"jti":1}"#,
        ] {
            let (form, found) = flaws(&token(RS, claims, &[1; 256]));
            assert_eq!(form, Form::Jws);
            assert!(found.intersects(Flaws::WRONG_TYPE), "{claims}: {found:?}");
        }
        let text = token(RS, r#"{"exp":"2000000000","sub":7}"#, &[1; 256]);
        let parts = Parts::of(text.as_bytes(), 16 * 1024);
        let reading = parts.read();
        assert_eq!(reading.claims.expires, Some(2_000_000_000), "as a lax reader sees it");
        assert_eq!(reading.claims.subject.as_deref(), Some("7"));
    }

    #[test]
    fn judges_signatures_by_their_form() {
        let es = r#"{"alg":"ES256"}"#;
        let half = |at: usize| -> Vec<u8> { (0..64).map(|i| u8::from(i / 32 == at)).collect() };
        let der = [&[0x30, 0x44, 0x02, 0x20][..], &[1; 32], &[0x02, 0x20], &[1; 32]].concat();
        let cases: [(&str, &[u8], Flaws); 12] = [
            (es, &[0; 64], Flaws::PSYCHIC),
            (es, &half(0), Flaws::PSYCHIC),
            (es, &half(1), Flaws::PSYCHIC),
            (es, &[0xff; 64], Flaws::PSYCHIC),
            (es, &[0; 2], Flaws::PSYCHIC),
            (es, &[0x30, 6, 2, 1, 0, 2, 1, 0], Flaws::PSYCHIC),
            (es, &der, Flaws::BAD_SIGNATURE_LENGTH),
            (es, &[1; 63], Flaws::BAD_SIGNATURE_LENGTH),
            (RS, &[1; 255], Flaws::BAD_SIGNATURE_LENGTH),
            (RS, &[], Flaws::EMPTY_SIGNATURE),
            (r#"{"alg":"HS256"}"#, &[1; 31], Flaws::BAD_SIGNATURE_LENGTH),
            (r#"{"alg":"ES512"}"#, &[0xff; 132], Flaws::PSYCHIC),
        ];
        for (header, signature, flaw) in cases {
            let (_, found) = flaws(&token(header, CLAIMS, signature));
            assert!(found.intersects(flaw), "{header} {}: {found:?}", signature.len());
        }
        assert_eq!(flaws(&token(es, CLAIMS, &[1; 64])).1, Flaws::default());
    }

    #[test]
    fn tells_jose_from_everything_else() {
        let good = token(RS, CLAIMS, &[1; 256]);
        let (head, _) = good.rsplit_once('.').unwrap();
        let jwe = format!("{}.a.b.c.d", base64::encode(br#"{"alg":"dir","enc":"A256GCM"}"#));
        let flask = "eyJ1c2VyIjoxfQ.ZxYw1A.c2lnbmF0dXJl";
        let cases = [
            (good.clone(), Form::Jws, Flaws::default()),
            (format!("{head}."), Form::Jws, Flaws::EMPTY_SIGNATURE),
            (head.to_owned(), Form::Malformed, Flaws::BAD_PARTS),
            (format!("{good}.x"), Form::Malformed, Flaws::BAD_PARTS),
            (format!("{good}="), Form::Jws, Flaws::BAD_BASE64),
            (good.replacen('.', "=.", 1), Form::Jws, Flaws::BAD_BASE64),
            (format!("{good}.x.y"), Form::Malformed, Flaws::BAD_PARTS),
            (jwe, Form::Jwe, Flaws::default()),
            (flask.to_owned(), Form::Opaque, Flaws::default()),
            ("d41d8cd98f00b204e9800998ecf8427e".to_owned(), Form::Opaque, Flaws::default()),
            ("gho_16C7e42F292c6912E7710c838347Ae178B4a".to_owned(), Form::Opaque, Flaws::default()),
            ("ya29.a0AfH6SM.x".to_owned(), Form::Opaque, Flaws::default()),
            ("...".to_owned(), Form::Opaque, Flaws::default()),
            (r#"{"payload":"e30","signature":"x"}"#.to_owned(), Form::Malformed, Flaws::BAD_PARTS),
            (token(" {\"alg\":\"RS256\"}", CLAIMS, &[1; 256]), Form::Jws, Flaws::default()),
            (token("{\"alg\":\"RS256\"", CLAIMS, &[1; 256]), Form::Jws, Flaws::BAD_JSON),
            (token(RS, "alice", &[1; 256]), Form::Malformed, Flaws::BAD_JSON),
        ];
        for (text, form, flaw) in cases {
            let (found_form, found) = flaws(&text);
            assert_eq!(found_form, form, "{text}");
            assert!(
                if flaw.is_empty() { found.is_empty() } else { found.intersects(flaw) },
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn five_parts_that_are_no_jwe_have_a_signature() {
        let text = format!("{}.x.y", token(RS, CLAIMS, &[1; 256]));
        assert!(!flaws(&text).1.intersects(Flaws::EMPTY_SIGNATURE));
    }

    #[test]
    fn a_subject_of_a_megabyte_is_bounded_work() {
        let text = token(RS, &format!(r#"{{"sub":"{}"}}"#, "x".repeat(1 << 20)), &[1; 256]);
        assert_eq!(flaws(&text), (Form::Malformed, Flaws::TOO_LARGE));
        let text = token(RS, &format!(r#"{{"sub":"{}"}}"#, "x".repeat(20_000)), &[1; 256]);
        assert_eq!(flaws(&text), (Form::Jws, Flaws::TOO_LARGE));
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz(&text);
        }

        #[test]
        fn any_json_can_be_read(header in "\\{\"(alg|kid|crit|jwk|b64)\":\\PC{0,20}\\}", payload in "\\{\\PC{0,40}\\}") {
            fuzz(token(&header, &payload, b"x").as_bytes());
        }
    }
}
