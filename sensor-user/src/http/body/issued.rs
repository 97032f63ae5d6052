//! Bodies of token responses (RFC 6749 section 5.1), where the configuration asks for them: which tokens were issued,
//! and for how long.
//!
//! Read are answers of 2xx to requests on login and token routes, in JSON, not encoded, at most [`MAX_BODY`] bytes. The
//! body is wiped when it has been read; of it remain the tokens, until the token stage has named them, and a keyed hash
//! of the refresh token. An exchange waits for the body of its answer, until it ends, is cut, or time is over.
//!
//! Not seen: tokens in `Set-Cookie`, in redirects, in encoded bodies.

use std::sync::Arc;

use arrayvec::{ArrayString, ArrayVec};
use zeroize::Zeroizing;

use super::names::fold;
use super::scan::{self, MAX_NAME, Scalar, unescaped};
use super::{Bodies, BodyKey, MAX_BODY, Unreadable};
use crate::capture::Time;
use crate::http::chunk::{Chunks, Step};
use crate::http::exchange::{Exchange, Issued, IssuedText, MAX_ISSUED, ResponseHead};
use crate::http::framing::Body;

/// Longest lifetime that is believed, in seconds: ten years.
const MAX_LIFETIME_S: u32 = 315_360_000;

/// Members of token responses that hold tokens: without case, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members(Arc<[ArrayString<MAX_NAME>]>);

impl Members {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(fold).collect())
    }
}

/// An answer whose body is being read, with the exchange that it completes.
pub(crate) struct Reply {
    exchange: Box<Exchange>,
    /// When the exchange was complete but for the body.
    at: Time,
    /// Never grows beyond the capacity that it begins with, so that no copy is left behind.
    buffer: Zeroizing<Vec<u8>>,
    cut: bool,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("at", &self.at).finish_non_exhaustive()
    }
}

/// How many bytes of an answer's body are to be read for tokens; none if it is not read.
///
/// # Errors
/// When it would be read but for its encoding or type.
pub(crate) fn room(bodies: &Bodies, exchange: &Exchange, body: Body) -> Result<Option<usize>, Unreadable> {
    if bodies.issued.is_none() || !exchange.is_success() {
        return Ok(None);
    }
    let room = match body {
        // Longer than anything that would be read whole: no token response.
        Body::Length(bytes) => usize::try_from(bytes).ok().filter(|bytes| (1..=MAX_BODY).contains(bytes)),
        Body::Chunked | Body::UntilClose => Some(MAX_BODY),
        Body::None => None,
    };
    let room = room.filter(|_| bodies.issues(&exchange.request));
    if room.is_some() && !exchange.response.as_ref().is_some_and(is_readable) {
        return Err(Unreadable);
    }
    Ok(room)
}

/// Whether a body is JSON, by its type or for want of one, and not encoded.
fn is_readable(head: &ResponseHead) -> bool {
    let encoding = head.value("content-encoding").unwrap_or_default();
    let kind = head.value("content-type").unwrap_or_default();
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let plain = encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity");
    // Some servers answer JSON as text.
    plain && (kind.is_empty() || kind == b"text/plain" || kind.ends_with(b"json"))
}

impl Reply {
    /// The exchange that was complete at `at` waits for so many bytes of a body.
    pub(crate) fn new(exchange: Box<Exchange>, at: Time, room: usize) -> Self {
        Self { exchange, at, buffer: Zeroizing::new(Vec::with_capacity(room)), cut: false }
    }

    /// Takes the next bytes of the body. Says whether it has room for more.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        let room = self.buffer.capacity().min(MAX_BODY) - self.buffer.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        self.cut |= taken.len() < bytes.len();
        self.buffer.len() < MAX_BODY
    }

    /// [`Self::feed`], from chunked coding. Says too how far the coding is.
    pub(crate) fn feed_chunked(&mut self, chunks: &mut Chunks, bytes: &[u8]) -> (Step, bool) {
        let mut room = true;
        let step = chunks.feed_to(bytes, |data| room = self.feed(data));
        (step, room)
    }

    /// Bytes kept.
    pub(crate) fn weight(&self) -> usize {
        let answer = self.exchange.response.as_ref().map_or(0, |answer| answer.bytes.len());
        size_of::<Self>()
            + size_of::<Exchange>()
            + self.buffer.capacity()
            + self.exchange.request.bytes.len()
            + answer
    }

    /// The exchange with what the body says, when it was complete, and whether not all of the body was read.
    pub(crate) fn end(mut self, bodies: &Bodies) -> (Box<Exchange>, Time, bool) {
        if let Some(members) = &bodies.issued
            && let Some(issued) = read(&self.buffer, members, &bodies.key)
        {
            self.exchange.body.get_or_insert_default().issued = Some(Box::new(issued));
        }
        (self.exchange, self.at, self.cut)
    }
}

/// The tokens that a body holds, if it holds any.
fn read(text: &[u8], members: &Members, key: &BodyKey) -> Option<Issued> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut issued = Issued { tokens: ArrayVec::new(), refresh_token: None, expires_in_s: None };
    scan::walk(text, &mut |place, scalar| {
        let name = fold(place.name);
        match scalar {
            Scalar::Text { raw, whole: true } if members.0.contains(&name) => {
                let value = unescaped(raw);
                // A token is one word: what holds blanks is prose about it.
                if value.is_empty() || value.iter().any(u8::is_ascii_whitespace) {
                    return;
                }
                if name.contains("refresh") {
                    issued.refresh_token = Some(key.hash(&value));
                } else if issued.tokens.len() < MAX_ISSUED && !issued.tokens.iter().any(|t| *t.0 == *value) {
                    issued.tokens.push(IssuedText(value));
                }
            }
            Scalar::Number(digits) | Scalar::Text { raw: digits, whole: true } if &*name == "expiresin" => {
                let seconds = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok());
                issued.expires_in_s = seconds.filter(|seconds| *seconds <= MAX_LIFETIME_S);
            }
            _ => {}
        }
    });
    (!issued.tokens.is_empty() || issued.refresh_token.is_some()).then_some(issued)
}
