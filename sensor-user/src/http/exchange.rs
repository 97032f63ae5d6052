//! The exchange: one request and what was answered to it. Everything downstream judges exchanges.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use arrayvec::ArrayVec;
use zeroize::Zeroizing;

use super::words;
use crate::capture::{Endpoints, Origin, SocketId, Time};

/// How much of the exchange was captured. Ordered from best to worst.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Coverage {
    /// Both heads, whole.
    #[default]
    Whole,
    /// A head was longer than the limit and its end is missing, or the response was not seen.
    Truncated,
    /// Captured bytes are missing before or inside this exchange.
    Gap,
}

impl Coverage {
    /// The word used in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Truncated => "truncated",
            Self::Gap => "gap",
        }
    }
}

/// Ways in which a message could be read differently by two parties (RFC 9112 sections 6.3 and 11.2). A set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Suspicions(pub u16);

impl Suspicions {
    /// Both `Content-Length` and `Transfer-Encoding`.
    pub const LENGTH_AND_CHUNKED: Self = Self(1);
    /// Several `Content-Length` values that differ, or a list.
    pub const DUPLICATE_LENGTH: Self = Self(1 << 1);
    /// A `Content-Length` that is not a plain decimal number.
    pub const BAD_LENGTH: Self = Self(1 << 2);
    /// A `Transfer-Encoding` other than exactly `chunked`, or `chunked` not last.
    pub const BAD_ENCODING: Self = Self(1 << 3);
    /// A header line continued by white space (obs-fold).
    pub const FOLDED_HEADER: Self = Self(1 << 4);
    /// CR without LF, LF without CR, or NUL inside a head.
    pub const BARE_CONTROL: Self = Self(1 << 5);
    /// White space between a field name and its colon, or a name with bytes that are no token.
    pub const BAD_FIELD_NAME: Self = Self(1 << 6);
    /// A chunk size that is malformed or absurd.
    pub const BAD_CHUNK: Self = Self(1 << 7);
    /// Two copies of one range of TCP bytes that differ.
    pub const CONFLICTING_SEGMENTS: Self = Self(1 << 8);
    /// `Transfer-Encoding` in an HTTP/1.0 message.
    pub const CHUNKED_IN_HTTP10: Self = Self(1 << 9);

    /// Adds another set.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether every member of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is suspected.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One header line, as ranges into the head that holds it. A value is trimmed of optional white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The field name as it was sent.
    pub name: Range<u32>,
    /// The field value as it was sent, folds included.
    pub value: Range<u32>,
}

/// Most header lines that are kept of one head. nginx's and Node's heads end well below; Apache stops at 100.
pub const MAX_HEADERS: usize = 128;

/// A request's head. Invariant: every range lies inside `bytes`.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The bytes, from the method to the empty line, as the server's TCP accepted them.
    pub bytes: Vec<u8>,
    /// The method.
    pub method: Range<u32>,
    /// The request target, any of its four forms (RFC 9112 section 3.2).
    pub target: Range<u32>,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The header lines in order, at most [`MAX_HEADERS`].
    pub headers: Vec<Header>,
}

impl RequestHead {
    /// The bytes of a range; empty when it lies outside.
    #[must_use]
    pub fn slice(&self, range: &Range<u32>) -> &[u8] {
        slice(&self.bytes, range)
    }

    /// The method; empty if the head was lost.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.slice(&self.method)
    }

    /// The request target as sent, query included.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.slice(&self.target)
    }

    /// The path of the target: without scheme, authority, query and fragment.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        split_target(self.target()).0
    }

    /// The query of the target without its question mark, empty if there is none.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        split_target(self.target()).1
    }

    /// [`Self::path`] and [`Self::query`].
    #[must_use]
    pub fn path_and_query(&self) -> (&[u8], &[u8]) {
        split_target(self.target())
    }

    /// Values of every header called `name` (ASCII case ignored), in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |h| self.slice(&h.name).eq_ignore_ascii_case(name.as_bytes()))
            .map(|h| self.slice(&h.value))
    }

    /// The first value of a header.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        value(&self.bytes, &self.headers, name)
    }
}

/// A response's head. Invariant: every range lies inside `bytes`.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The captured bytes; live capture keeps the first part only.
    pub bytes: Vec<u8>,
    /// The status code, 100 to 999; never 1xx except 101.
    pub status: u16,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The header lines that were captured.
    pub headers: Vec<Header>,
}

impl ResponseHead {
    /// Values of every header called `name` (ASCII case ignored), in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = |h: &&Header| slice(&self.bytes, &h.name).eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(named).map(|h| slice(&self.bytes, &h.value))
    }

    /// The first value of a header.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        value(&self.bytes, &self.headers, name)
    }
}

/// Tokens that are kept of one answer: access and ID token, and two more for gateways that answer for several services.
pub const MAX_ISSUED: usize = 4;

/// A token that was issued, as it was sent. Wiped when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedText(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for IssuedText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedText").field("bytes", &self.0.len()).finish()
    }
}

/// What a token response issued (RFC 6749 section 5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    /// Access and ID tokens, until the token stage has named them.
    pub tokens: ArrayVec<IssuedText, MAX_ISSUED>,
    /// The refresh token, by the same keyed hash as in requests.
    pub refresh_token: Option<u128>,
    /// For how many seconds they are said to be good.
    pub expires_in_s: Option<u32>,
}

/// What was read of the bodies, where a route asks for it. Holds no password, and a token only until it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// The account that a login names, as it was sent: printable, at most 256 bytes.
    pub account: Option<Box<str>>,
    /// The body names two accounts where one belongs: readers may differ on which counts. Here it is the last.
    pub ambiguous: bool,
    /// The GraphQL operation: `query Orders`, `mutation`; printable, at most 128 bytes.
    pub operation: Option<Box<str>>,
    /// A keyed hash of the refresh token that a token request holds (RFC 6749 section 6).
    pub refresh_token: Option<u128>,
    /// What the answer issued, where the configuration asks for it.
    pub issued: Option<Box<Issued>>,
}

/// One request and its response.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When the request's first byte was seen.
    pub at: Time,
    /// When the exchange was complete enough to judge: the response's head, or the end of waiting for it.
    pub ended_at: Time,
    /// Its connection.
    pub socket: SocketId,
    /// Both ends.
    pub endpoints: Endpoints,
    /// The client's address: the peer, or what a trusted proxy says of it.
    pub client: IpAddr,
    /// Where the server lives.
    pub origin: Origin,
    /// The request.
    pub request: RequestHead,
    /// Bytes of the request's body where framing tells.
    pub request_body_bytes: Option<u64>,
    /// The response; none if it was not seen.
    pub response: Option<ResponseHead>,
    /// Bytes of the response's body where its head tells.
    pub response_body_bytes: Option<u64>,
    /// From the request's last head byte to the response's first, where both were seen.
    pub latency: Option<Duration>,
    /// What was read of the bodies.
    pub body: Option<Box<BodyFacts>>,
    /// What was ambiguous.
    pub suspicions: Suspicions,
    /// What is missing.
    pub coverage: Coverage,
}

impl Exchange {
    /// A request that begins now, of which nothing else is known yet.
    #[must_use]
    pub fn begun(
        at: Time,
        socket: SocketId,
        endpoints: Endpoints,
        origin: Origin,
        request: RequestHead,
    ) -> Self {
        Self {
            at,
            ended_at: at,
            socket,
            endpoints,
            client: endpoints.client.ip(),
            origin,
            request,
            request_body_bytes: None,
            response: None,
            response_body_bytes: None,
            latency: None,
            body: None,
            suspicions: Suspicions::default(),
            coverage: Coverage::Whole,
        }
    }

    /// The status code, if a response was seen.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|r| r.status)
    }

    /// The account that a login names.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.body.as_ref()?.account.as_deref()
    }

    /// What the answer issued.
    #[must_use]
    pub fn issued(&self) -> Option<&Issued> {
        self.body.as_ref()?.issued.as_deref()
    }

    /// Whether the application accepted the request: 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status().is_some_and(|s| (200..300).contains(&s))
    }

    /// Whether the application refused the caller: 401 or 403.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
}

fn value<'a>(bytes: &'a [u8], headers: &[Header], name: &str) -> Option<&'a [u8]> {
    // Asked many times of every request; the lengths alone tell most names apart.
    let may_be = |h: &&Header| (h.name.end - h.name.start) as usize == name.len();
    let is = |h: &&Header| slice(bytes, &h.name).eq_ignore_ascii_case(name.as_bytes());
    let header = headers.iter().filter(may_be).find(is)?;
    Some(slice(bytes, &header.value))
}

/// Splits a request target into path and query. Absolute form loses its scheme and authority.
///
/// Asked several times of every request, so the usual form is told by its first byte.
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let rest = if target.first() == Some(&b'/') { target } else { without_authority(target) };
    let ends = |word| words::equal(word, b'?') | words::equal(word, b'#');
    let end = words::first(rest, ends, |b| matches!(b, b'?' | b'#')).unwrap_or(rest.len());
    let (path, rest) = rest.split_at(end);
    let Some((b'?', query)) = rest.split_first() else { return (path, &[]) };
    (path, query.split(|b| *b == b'#').next().unwrap_or_default())
}

/// A target of absolute form (RFC 9112 section 3.2.2) from its path on; any other as it is.
#[cold]
fn without_authority(target: &[u8]) -> &[u8] {
    let Some(at) = memchr::memmem::find(target, b"://") else { return target };
    let authority = target.get(at + 3..).unwrap_or_default();
    let path = memchr::memchr2(b'/', b'?', authority).unwrap_or(authority.len());
    authority.get(path..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_every_form_of_target() {
        let cases: [(&[u8], &[u8], &[u8]); 8] = [
            (b"/a/b?c=d", b"/a/b", b"c=d"),
            (b"http://h:1/a?x", b"/a", b"x"),
            (b"http://h?x", b"", b"x"),
            (b"/redirect?to=http://h/p", b"/redirect", b"to=http://h/p"),
            (b"*", b"*", b""),
            (b"/a#f?g", b"/a", b""),
            (b"/a?b#c?d", b"/a", b"b"),
            (b"", b"", b""),
        ];
        for (target, path, query) in cases {
            assert_eq!(split_target(target), (path, query));
        }
    }
}
