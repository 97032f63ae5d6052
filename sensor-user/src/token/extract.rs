//! Finds the credentials of a request, in all their legal and illegal spellings (RFC 6750 section 2, RFC 9110
//! section 11.4, RFC 6265 section 5.4).
//!
//! Servers are forgiving: they take `bearer`, tabs, quotes, the first or the last of two headers. So is this, and it
//! says when the request was ambiguous: then sensor and server may have picked different tokens. Schemes that carry
//! no token of their own (Basic, Digest, Negotiate, AWS4-HMAC-SHA256, ...) are passed over: passwords are no tokens.
//!
//! Not seen: tokens in bodies, in `Referer`, in WebSocket messages.

use std::borrow::Cow;
use std::sync::Arc;

use arrayvec::ArrayVec;
use memchr::{memchr, memchr2};

use crate::http::exchange::RequestHead;
use crate::http::words;
use crate::token::facts::Carrier;
use crate::token::jose::begins_like_object;
use crate::token::settings::TokenSettings;

/// Most credentials taken from one request. Proxies with three tokens of their own are the most that we have seen;
/// without a limit a head of 64 KiB could hold 10,000 and cost as much as that many requests.
pub const MAX_CREDENTIALS: usize = 8;

/// One credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential<'a> {
    /// Its text, borrowed unless it had to be decoded.
    pub text: Cow<'a, [u8]>,
    /// Where it was.
    pub carrier: Carrier,
}

impl std::fmt::Debug for Credential<'_> {
    /// Never the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("carrier", &self.carrier).field("bytes", &self.text.len()).finish()
    }
}

/// All credentials of one request.
#[derive(Debug, Default)]
pub struct Credentials<'a> {
    /// In order: headers as sent, then the query.
    pub list: ArrayVec<Credential<'a>, MAX_CREDENTIALS>,
    /// Whether two readers could pick different ones.
    pub ambiguous: bool,
}

impl<'a> Credentials<'a> {
    fn push(&mut self, text: impl Into<Cow<'a, [u8]>>, carrier: &Carrier) {
        let text = text.into();
        if text.is_empty() {
            return;
        }
        for other in &self.list {
            if other.carrier == *carrier {
                if other.text == text {
                    return;
                }
                self.ambiguous |= is_singular(carrier, &other.text, &text);
            }
        }
        let credential = Credential { text, carrier: carrier.clone() };
        self.ambiguous |= self.list.try_push(credential).is_err();
    }
}

/// Whether of two different credentials in one place one is too many. Browsers send cookies of one name for several
/// paths (RFC 6265 section 5.4), and parameters may be lists of something else.
fn is_singular(carrier: &Carrier, one: &[u8], other: &[u8]) -> bool {
    match carrier {
        Carrier::Authorization | Carrier::Header(_) => true,
        Carrier::Query(_) => begins_like_object(one) && begins_like_object(other),
        Carrier::Cookie(_) => false,
    }
}

/// Knows where tokens may be.
#[derive(Debug)]
pub struct Extractor {
    headers: Vec<Carrier>,
    cookies: Vec<Carrier>,
    query: Vec<Carrier>,
    /// A bit for each length that the name of a header with credentials may have; the highest stands for all longer ones.
    lengths: u64,
}

/// The bit of a name's length.
const fn length_bit(name: &[u8]) -> u64 {
    1 << if name.len() < 63 { name.len() } else { 63 }
}

impl Extractor {
    /// Takes the names from the settings.
    #[must_use]
    pub fn new(settings: &TokenSettings) -> Self {
        let carriers = |names: &[String], kind: fn(Arc<str>) -> Carrier| {
            names.iter().map(|name| kind(name.as_str().into())).collect()
        };
        let headers: Vec<Carrier> = carriers(&settings.headers, Carrier::Header);
        let always = length_bit(b"authorization") | length_bit(b"cookie");
        Self {
            lengths: headers.iter().fold(always, |all, header| all | length_bit(carrier_name(header))),
            headers,
            cookies: carriers(&settings.cookies, Carrier::Cookie),
            query: carriers(&settings.query, Carrier::Query),
        }
    }

    /// Every credential of a request. Allocates only for percent-encoded ones.
    #[must_use]
    pub fn find<'a>(&self, request: &'a RequestHead) -> Credentials<'a> {
        let mut found = Credentials::default();
        let mut authorization_seen: Option<&[u8]> = None;
        let mut differ = false;
        for header in &request.headers {
            let name = request.slice(&header.name);
            if self.lengths & length_bit(name) == 0 {
                continue;
            }
            if name.eq_ignore_ascii_case(b"authorization") {
                let value = request.slice(&header.value);
                differ |= authorization_seen.replace(value).is_some_and(|earlier| earlier != value);
                authorization(value, &Carrier::Authorization, &mut found);
            } else if name.eq_ignore_ascii_case(b"cookie") {
                if !self.cookies.is_empty() {
                    self.cookie(request.slice(&header.value), &mut found);
                }
            } else if let Some(carrier) =
                self.headers.iter().find(|c| carrier_name(c).eq_ignore_ascii_case(name))
            {
                custom_header(request.slice(&header.value), carrier, &mut found);
            }
        }
        if !self.query.is_empty() && words::has(request.target(), b'?') {
            self.query(request.query(), &mut found);
        }
        // Two headers without a single token are no concern of ours.
        found.ambiguous |= differ && !found.list.is_empty();
        found
    }

    fn cookie<'a>(&self, value: &'a [u8], found: &mut Credentials<'a>) {
        for pair in value.split(|b| *b == b';') {
            let Some(equals) = memchr(b'=', pair) else { continue };
            let (name, value) = pair.split_at(equals);
            let name = name.trim_ascii();
            let Some(carrier) = self.cookies.iter().find(|c| carrier_name(c) == name) else { continue };
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            decoded_value(value, false, carrier, found);
        }
    }

    fn query<'a>(&self, query: &'a [u8], found: &mut Credentials<'a>) {
        for pair in query.split(|b| *b == b'&') {
            let equals = memchr(b'=', pair).unwrap_or(pair.len());
            let (name, value) = pair.split_at(equals);
            let name = percent_decoded(name, true);
            let Some(carrier) = self.query.iter().find(|c| carrier_name(c) == &*name) else { continue };
            decoded_value(value.get(1..).unwrap_or_default(), true, carrier, found);
        }
    }
}

fn carrier_name(carrier: &Carrier) -> &[u8] {
    match carrier {
        Carrier::Authorization => b"authorization",
        Carrier::Header(name) | Carrier::Cookie(name) | Carrier::Query(name) => name.as_bytes(),
    }
}

/// What a word before a token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// A token follows.
    Token,
    /// Something else follows that is certainly no token.
    Other,
    /// Never heard of.
    Unknown,
}

fn scheme(word: &[u8]) -> Scheme {
    let is = |names: &[&str]| names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    // RFC 6750; RFC 9449; GitHub's and Django's; jwt-simple's. The IANA registry holds the others.
    if is(&["bearer", "dpop", "token", "jwt", "access_token"]) {
        Scheme::Token
    } else if is(&[
        "basic",
        "digest",
        "negotiate",
        "ntlm",
        "kerberos",
        "oauth",
        "hoba",
        "mutual",
        "hawk",
        "vapid",
        "signature",
        "aws4-hmac-sha256",
        "aws",
        "hmac",
        "sharedkey",
        "sharedkeylite",
        "scram-sha-1",
        "scram-sha-256",
        "apikey",
        "privatetoken",
        "gnap",
        "concealed",
        "mac",
    ]) {
        Scheme::Other
    } else {
        Scheme::Unknown
    }
}

/// Bytes that separate words: optional white space, and what an obs-fold is made of (RFC 9112 section 5.2).
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The value of an `Authorization` header.
fn authorization<'a>(value: &'a [u8], carrier: &Carrier, found: &mut Credentials<'a>) {
    // Nearly every request: "Bearer", one space, one token, nothing special in it.
    if let Some((word, token)) = value.split_at_checked(7)
        && word.eq_ignore_ascii_case(b"bearer ")
        && is_one_word(token)
    {
        return found.push(token, carrier);
    }
    let mut elements = split_list(value);
    let first = elements.next().unwrap_or_default();
    if element(first, true, carrier, found) == Scheme::Other {
        return; // Digest and its like are lists of parameters.
    }
    for more in elements {
        // Parameters of the first scheme are no credentials; whatever follows a token makes it ambiguous.
        found.ambiguous = true;
        element(more, false, carrier, found);
    }
}

/// Whether nothing in it could be read as a second word, a list or a quote. Whatever could is below `-`, the lowest
/// byte of a JWT; of the other bytes that tokens may hold (RFC 6750 section 2.1), `+` alone takes the longer way.
fn is_one_word(token: &[u8]) -> bool {
    token.iter().fold(u8::MAX, |lowest, byte| lowest.min(*byte)) >= b'-'
}

/// Splits at commas outside quotes (RFC 9110 section 5.6.1), trimmed.
fn split_list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |b| {
            quoted ^= *b == b'"';
            *b == b',' && !quoted
        })
        .map(trim)
        .filter(|element| !element.is_empty())
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let Some((first, rest)) = text.split_first()
        && is_space(*first)
    {
        text = rest;
    }
    while let Some((last, rest)) = text.split_last()
        && is_space(*last)
    {
        text = rest;
    }
    text
}

/// One element of the list: a scheme and a token, a token alone, or something else.
fn element<'a>(text: &'a [u8], first: bool, carrier: &Carrier, found: &mut Credentials<'a>) -> Scheme {
    let end = text.iter().position(|b| is_space(*b)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if rest.is_empty() {
        return bare_word(word, first, carrier, found);
    }
    let (name, misspelt) = match word {
        [name @ .., b':' | b'='] => (name, true),
        _ => (word, false),
    };
    let rest = trim(rest);
    let known = scheme(name);
    match known {
        Scheme::Other => return known,
        Scheme::Unknown if !begins_like_object(rest) || memchr(b'.', rest).is_none() => return known,
        Scheme::Token | Scheme::Unknown => {}
    }
    let end = rest.iter().position(|b| is_space(*b)).unwrap_or(rest.len());
    let (token, excess) = rest.split_at(end);
    // Exactly one space belongs between scheme and token (RFC 9110 section 11.4 allows more, no tabs, no folds).
    let gap = text.get(word.len()..text.len() - rest.len()).unwrap_or_default();
    let (token, dressed) = undress(token);
    if !token.is_empty() {
        found.ambiguous |= misspelt || dressed || !excess.is_empty() || gap.iter().any(|b| *b != b' ');
    }
    found.push(token, carrier);
    known
}

/// A value without any scheme: a token if it looks like JOSE, or is glued to its scheme.
fn bare_word<'a>(word: &'a [u8], first: bool, carrier: &Carrier, found: &mut Credentials<'a>) -> Scheme {
    let glue = memchr2(b':', b'=', word).unwrap_or(word.len());
    let (name, token) = word.split_at(glue);
    if first && !token.is_empty() && scheme(name) == Scheme::Token {
        found.push(undress(token.get(1..).unwrap_or_default()).0, carrier);
        found.ambiguous |= !found.list.is_empty();
        return Scheme::Token;
    }
    let (bare, _) = undress(word);
    if begins_like_object(bare) && memchr(b'.', bare).is_some() {
        found.push(bare, carrier);
    }
    scheme(word)
}

/// Takes off quotes and a `token=` in front; says whether there was anything to take off.
fn undress(token: &[u8]) -> (&[u8], bool) {
    let mut bare = token;
    for name in [&b"token="[..], b"access_token=", b"jwt="] {
        if bare.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
            bare = bare.get(name.len()..).unwrap_or_default();
            break;
        }
    }
    for quote in [b'"', b'\''] {
        if let [open, inner @ ..] = bare
            && *open == quote
        {
            bare = inner.strip_suffix(&[quote]).unwrap_or(inner);
        }
    }
    (bare, bare.len() != token.len())
}

/// A header of the user's own: a token with or without a scheme.
fn custom_header<'a>(value: &'a [u8], carrier: &Carrier, found: &mut Credentials<'a>) {
    let value = trim(value);
    if value.iter().any(|b| is_space(*b) || *b == b',') {
        authorization(value, carrier, found);
    } else {
        found.push(undress(value).0, carrier);
    }
}

/// A cookie's or parameter's value, percent-decoded if need be, perhaps quoted, perhaps with a scheme in front.
fn decoded_value<'a>(value: &'a [u8], plus: bool, carrier: &Carrier, found: &mut Credentials<'a>) {
    let value = value.strip_prefix(b"\"").map_or(value, |inner| inner.strip_suffix(b"\"").unwrap_or(inner));
    match percent_decoded(value, plus) {
        Cow::Borrowed(text) => found.push(without_scheme(text), carrier),
        Cow::Owned(text) => {
            let bare = without_scheme(&text);
            if bare.len() == text.len() {
                found.push(text, carrier);
            } else {
                found.push(bare.to_vec(), carrier);
            }
        }
    }
}

fn without_scheme(text: &[u8]) -> &[u8] {
    match text.split_at_checked(7) {
        Some((word, token)) if word.eq_ignore_ascii_case(b"bearer ") => trim(token),
        _ => text,
    }
}

/// Percent-decoding as the URL standard does it: an invalid escape stays as it is.
pub(super) fn percent_decoded(text: &[u8], plus: bool) -> Cow<'_, [u8]> {
    let special = |b: u8| b == b'%' || (plus && b == b'+');
    if !text.iter().any(|b| special(*b)) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let decoded = match after {
            [high, low, after @ ..] if *first == b'%' => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        match decoded {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => out.push(if plus && *first == b'+' { b' ' } else { *first }),
        }
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::http::exchange::Header;

    const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln";

    fn request(target: &str, headers: &[(&str, &[u8])]) -> RequestHead {
        fn put(bytes: &mut Vec<u8>, text: &[u8]) -> Range<u32> {
            let from = u32::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(text);
            from..u32::try_from(bytes.len()).unwrap()
        }
        let mut head = RequestHead::default();
        head.target = put(&mut head.bytes, target.as_bytes());
        for (name, value) in headers {
            let name = put(&mut head.bytes, name.as_bytes());
            let value = put(&mut head.bytes, value);
            head.headers.push(Header { name, value });
        }
        head
    }

    fn found(target: &str, headers: &[(&str, &[u8])]) -> (Vec<String>, bool) {
        let head = request(target, headers);
        let extractor = Extractor::new(&TokenSettings::default());
        let found = extractor.find(&head);
        (found.list.iter().map(|c| String::from_utf8_lossy(&c.text).into_owned()).collect(), found.ambiguous)
    }

    #[test]
    fn headers_of_any_length_can_be_configured() {
        for len in [1, 12, 62, 63, 64, 90] {
            let name = "x".repeat(len);
            let settings = TokenSettings { headers: vec![name.clone()], ..TokenSettings::default() };
            let head = request("/", &[("y", JWT.as_bytes()), (&name.to_uppercase(), JWT.as_bytes())]);
            let extractor = Extractor::new(&settings);
            assert_eq!(extractor.find(&head).list.len(), 1, "{len}");
        }
    }

    #[test]
    fn reads_authorization_in_every_spelling() {
        let cases: &[(&str, &[&str], bool)] = &[
            ("Bearer abc", &["abc"], false),
            ("bearer abc", &["abc"], false),
            ("BEARER abc", &["abc"], false),
            ("Bearer   abc", &["abc"], false),
            ("Bearer\tabc", &["abc"], true),
            ("Bearer abc\t", &["abc"], false),
            ("Bearer a b", &["a"], true),
            ("Bearer \"abc\"", &["abc"], true),
            ("Bearer 'abc'", &["abc"], true),
            ("Bearer token=\"abc\"", &["abc"], true),
            ("Bearer: abc", &["abc"], true),
            ("Bearer:abc", &["abc"], true),
            ("Bearer=abc", &["abc"], true),
            ("Bearer", &[], false),
            ("Bearer ", &[], false),
            ("Bearer \"\"", &[], false),
            ("", &[], false),
            (",", &[], false),
            ("Bearer a, Bearer b", &["a", "b"], true),
            ("Bearer a,Bearer a", &["a"], true),
            ("Bearer a, realm=x", &["a"], true),
            ("Basic dXNlcjpwdw==", &[], false),
            ("basic eyJhbGciOiJub25lIn0.x.y", &[], false),
            ("Digest username=\"a\", realm=\"b\"", &[], false),
            ("Negotiate YIIabc", &[], false),
            ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host", &[], false),
            ("Token abc", &["abc"], false),
            ("JWT abc", &["abc"], false),
            ("DPoP abc", &["abc"], false),
            ("Custom abc", &[], false),
            ("Custom eyJhbGciOiJub25lIn0.x.y", &["eyJhbGciOiJub25lIn0.x.y"], false),
            (JWT, &[JWT], false),
            ("abcdef", &[], false),
            ("Bearer ab\r\n cd", &["ab"], true),
            ("Bearer\r\n abc", &["abc"], true),
        ];
        for (value, expected, ambiguous) in cases {
            let (tokens, was_ambiguous) = found("/", &[("authorization", value.as_bytes())]);
            assert_eq!(tokens, *expected, "{value:?}");
            assert_eq!(was_ambiguous, *ambiguous, "{value:?}");
        }
    }

    #[test]
    fn several_headers_are_ambiguous() {
        let two: [(&str, &[u8]); 2] = [("Authorization", b"Bearer a"), ("AUTHORIZATION", b"Bearer b")];
        assert_eq!(found("/", &two), (vec!["a".into(), "b".into()], true));
        let mixed: [(&str, &[u8]); 2] = [("Authorization", b"Basic x"), ("Authorization", b"Bearer b")];
        assert_eq!(found("/", &mixed), (vec!["b".into()], true));
        let twice: [(&str, &[u8]); 2] = [("Authorization", b"Bearer a"), ("Authorization", b"Bearer a")];
        assert_eq!(found("/", &twice), (vec!["a".into()], false), "whichever is read, it is the same");
        let basic: [(&str, &[u8]); 2] = [("Authorization", b"Basic x"), ("Authorization", b"Basic y")];
        assert_eq!(found("/", &basic), (vec![], false));
    }

    #[test]
    fn reads_configured_headers_cookies_and_parameters() {
        assert_eq!(found("/", &[("X-Access-Token", b"abc")]), (vec!["abc".into()], false));
        assert_eq!(found("/", &[("X-Access-Token", b"Bearer abc")]), (vec!["abc".into()], false));
        assert_eq!(found("/", &[("X-Access-Token", b"Basic abc")]), (vec![], false));
        let cookies: &[(&[u8], &[&str], bool)] = &[
            (b"a=b; access_token=abc; c=d", &["abc"], false),
            (b"access_token=\"abc\"", &["abc"], false),
            (b"token = Bearer%20abc ", &["abc"], false),
            (b"token=a%2Eb", &["a.b"], false),
            (b"token=a; token=b", &["a", "b"], false),
            (b"token=a; token=a", &["a"], false),
            (b"Token=a", &[], false),
            (b"token", &[], false),
            (b"token=;;=;", &[], false),
        ];
        for (value, expected, ambiguous) in cookies {
            let (tokens, was) = found("/", &[("Cookie", value)]);
            assert_eq!(
                (tokens.as_slice(), was),
                (&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..], *ambiguous)
            );
        }
        let targets: &[(&str, &[&str])] = &[
            ("/a?access_token=abc", &["abc"]),
            ("/a?x=1&%61ccess_token=a%62c&y", &["abc"]),
            ("/a?access_token", &[]),
            ("/a?access_token=a%2", &["a%2"]),
            ("/a?access_token=Bearer+abc", &["abc"]),
            ("/access_token=abc", &[]),
        ];
        for (target, expected) in targets {
            assert_eq!(found(target, &[]).0, *expected, "{target}");
        }
    }

    #[test]
    fn lists_in_queries_are_ambiguous_only_if_they_are_of_tokens() {
        assert_eq!(found("/?token=ETH&token=BTC", &[]), (vec!["ETH".into(), "BTC".into()], false));
        let (tokens, ambiguous) = found(&format!("/?token={JWT}&token={JWT}x"), &[]);
        assert_eq!((tokens.len(), ambiguous), (2, true));
    }

    #[test]
    fn different_carriers_are_not_ambiguous_and_keep_their_names() {
        let head = request("/?token=q", &[("Cookie", b"jwt=c"), ("Authorization", b"Bearer a")]);
        let extractor = Extractor::new(&TokenSettings::default());
        let credentials = extractor.find(&head);
        let carriers: Vec<_> = credentials.list.iter().map(|c| c.carrier.clone()).collect();
        assert_eq!(
            carriers,
            [Carrier::Cookie("jwt".into()), Carrier::Authorization, Carrier::Query("token".into())]
        );
        assert!(!credentials.ambiguous);
    }

    #[test]
    fn at_most_eight_are_taken() {
        let many = (0..100).map(|i| format!("Bearer t{i}")).collect::<Vec<_>>().join(",");
        let (tokens, ambiguous) = found("/", &[("Authorization", many.as_bytes())]);
        assert_eq!((tokens.len(), ambiguous), (MAX_CREDENTIALS, true));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_yields_an_empty_token(
            value in proptest::collection::vec(any::<u8>(), 0..80),
            target in "\\PC{0,40}",
            words in "(bearer|basic|token| |\t|,|\"|=|:|eyJ|\\.|a){0,12}",
        ) {
            for name in ["authorization", "cookie", "x-auth-token"] {
                for value in [&value[..], words.as_bytes()] {
                    let (tokens, _) = found(&target, &[(name, value)]);
                    prop_assert!(tokens.iter().all(|t| !t.is_empty()));
                }
            }
        }
    }
}
