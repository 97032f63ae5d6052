//! Bodies, where a route asks for them: who logs in, which GraphQL operation, which refresh token; and which tokens are
//! issued in answer ([`issued`]).
//!
//! A body holds passwords. It is kept only where one of three questions is asked of it, at most [`MAX_BODY`] bytes,
//! only until it ends or is answered, and is wiped before its memory is given back. What remains of it is
//! [`BodyFacts`]. Encoded bodies (gzip and its like) and multipart are not read.

mod form;
mod graphql;
pub(super) mod issued;
mod names;
mod scan;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use zeroize::{Zeroize, Zeroizing};

use self::names::Finds;
use super::exchange::{BodyFacts, Exchange, RequestHead};
use super::framing::Body;
use super::route_match::{GRAPHQL_ROUTES, LOGIN_ROUTES, RouteTable, TOKEN_ROUTES};

/// Bytes of a body that are kept. A login is a few hundred bytes; a refresh token that is a JWT two thousand; a GraphQL
/// query names its operation at its start.
pub const MAX_BODY: usize = 8 * 1024;

/// Longest account in bytes: an e-mail address has at most 254 (RFC 5321 section 4.5.3.1.3).
pub const MAX_ACCOUNT: usize = 256;

/// Base64 as lenient servers take it: with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Where a request names the account that it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccountSource {
    /// The usual members of a body (`username`, `email`, ...), else the user of HTTP Basic.
    #[default]
    Usual,
    /// This member of a JSON body or form: `name`, or `outer.name`.
    Body(Arc<str>),
    /// This header.
    Header(Arc<str>),
    /// This parameter of the query.
    Query(Arc<str>),
}

/// What is read of the requests to a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyUse {
    /// Nothing, whatever later patterns say.
    Ignored,
    /// The account that a request is about, where nobody logs in.
    Named(AccountSource),
    /// The account that logs in.
    Account(AccountSource),
    /// The account, and the refresh token by its hash.
    Token(AccountSource),
}

/// The secret under which refresh tokens are hashed.
#[derive(Clone, PartialEq, Eq)]
pub struct BodyKey(Zeroizing<[u8; 32]>);

impl BodyKey {
    /// A secret of the caller.
    #[must_use]
    pub fn new(mut secret: [u8; 32]) -> Self {
        let key = Self(Zeroizing::new(secret));
        secret.zeroize();
        key
    }

    /// From the sensor's key, so that hashes outlive a restart; without one, a random secret of this process. A system
    /// that has no randomness gives the default, and no pipeline: that fails to start.
    #[must_use]
    pub fn derived(key: Option<&[u8]>) -> Self {
        let mut secret = Self::default();
        match key {
            Some(key) => {
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"tokenscope refresh tokens");
                secret.0.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
            }
            None => {
                let _ = rand::fill(&mut *secret.0);
            }
        }
        secret
    }

    /// 128 bits of HMAC-SHA-256.
    fn hash(&self, text: &[u8]) -> u128 {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.0);
        let tag = hmac::sign(&key, text);
        u128::from_le_bytes(tag.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

/// Known to everybody: for replays, whose output must be the same each time.
impl Default for BodyKey {
    fn default() -> Self {
        Self::new(*b"tokenscope replay: no secret key")
    }
}

impl fmt::Debug for BodyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyKey(..)")
    }
}

/// Which bodies are read, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bodies {
    table: RouteTable<BodyUse>,
    graphql: RouteTable<()>,
    /// Whether all paths of GraphQL are the usual ones.
    graphql_usual: bool,
    posts_only: bool,
    key: BodyKey,
    /// What token responses are read for; none if they are not.
    issued: Option<issued::Members>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::new([], [], BodyKey::default())
    }
}

impl Bodies {
    /// The configured routes (method, pattern, use), then those that are known without configuration; and more paths
    /// of GraphQL.
    #[must_use]
    pub fn new<'a>(
        routes: impl IntoIterator<Item = (Option<&'a str>, &'a str, BodyUse)>,
        graphql: impl IntoIterator<Item = &'a str>,
        key: BodyKey,
    ) -> Self {
        let mut table = RouteTable::default();
        for (method, pattern, usage) in routes {
            table.push(method, pattern, usage);
        }
        for text in LOGIN_ROUTES {
            table.push_text(text, BodyUse::Account(AccountSource::Usual));
        }
        for text in TOKEN_ROUTES {
            table.push_text(text, BodyUse::Token(AccountSource::Usual));
        }
        let mut paths = RouteTable::default();
        for path in graphql {
            paths.push(Some("POST"), path, ());
        }
        let graphql_usual = paths.is_empty();
        for text in GRAPHQL_ROUTES {
            paths.push_text(text, ());
        }
        Self {
            posts_only: table.is_only_for_posts(),
            table,
            graphql: paths,
            graphql_usual,
            key,
            issued: None,
        }
    }

    /// The GraphQL operation that a request's query names (GraphQL over HTTP, section 6.2): `GET /graphql?query=...`.
    /// What serves POST serves GET. A POST may have one too, which some servers obey where its body names none.
    fn queried(&self, request: &RequestHead) -> Option<Box<str>> {
        let query = request.query();
        let is_read = !query.is_empty() && matches!(request.method(), b"GET" | b"HEAD" | b"POST");
        if !is_read || !self.may_be_graphql(request.path()) {
            return None;
        }
        self.graphql.find(b"POST", request.path())?;
        graphql::in_query(query)
    }

    /// A cheap look that spares most requests the comparison by segments.
    fn may_be_graphql(&self, path: &[u8]) -> bool {
        const NAME: &[u8] = b"graphql";
        let bare = path.split(|b| *b == b';').next().unwrap_or_default();
        let bare = bare.strip_suffix(b"/").unwrap_or(bare);
        let end = bare.len().checked_sub(NAME.len()).and_then(|at| bare.get(at..));
        !self.graphql_usual
            || bare.len() < path.len()
            || end.is_some_and(|end| end.eq_ignore_ascii_case(NAME))
    }

    /// Reads the answers of login and token routes as well: for tokens, in members of these names.
    #[must_use]
    pub fn with_issued<'a>(self, members: impl IntoIterator<Item = &'a str>) -> Self {
        Self { issued: Some(issued::Members::new(members)), ..self }
    }

    /// Whether the answer to a request may issue tokens: it is a POST, as the kernel half forwards no other's body.
    fn issues(&self, request: &RequestHead) -> bool {
        let usage = self.table.find(request.method(), request.path());
        request.method().eq_ignore_ascii_case(b"POST")
            && matches!(usage, Some(BodyUse::Account(_) | BodyUse::Token(_)))
    }

    /// What is to be read of a request. Allocates nothing.
    fn usage(&self, request: &RequestHead) -> Option<Usage<'_>> {
        let method = request.method();
        let is_post = method.eq_ignore_ascii_case(b"POST");
        if self.posts_only && !is_post {
            return None;
        }
        let path = request.path();
        match self.table.find(method, path) {
            Some(BodyUse::Named(source) | BodyUse::Account(source)) => {
                return Some(Usage::Account(source, false));
            }
            Some(BodyUse::Token(source)) => return Some(Usage::Account(source, true)),
            Some(BodyUse::Ignored) | None => {}
        }
        let is_graphql = is_post && (self.graphql.find(method, path).is_some() || is_graphql_type(request));
        is_graphql.then_some(Usage::GraphQl)
    }
}

enum Usage<'a> {
    Account(&'a AccountSource, bool),
    GraphQl,
}

fn is_graphql_type(request: &RequestHead) -> bool {
    request
        .value("content-type")
        .and_then(|value| value.get(..19))
        .is_some_and(|start| start.eq_ignore_ascii_case(b"application/graphql"))
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// JSON if it begins like it, else a form: what lenient frameworks take, whatever the type says.
    Guess,
    /// A GraphQL document by itself.
    GraphQl,
}

impl Format {
    /// None if the body is not to be read.
    fn of(request: &RequestHead, usage: &Usage<'_>) -> Option<Self> {
        let encoding = request.value("content-encoding").unwrap_or_default();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
            return None;
        }
        let value = request.value("content-type").unwrap_or_default();
        let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let starts = |with: &[u8]| kind.get(..with.len()).is_some_and(|s| s.eq_ignore_ascii_case(with));
        if starts(b"multipart/") {
            return None;
        }
        if kind.eq_ignore_ascii_case(b"application/graphql") && matches!(usage, Usage::GraphQl) {
            return Some(Self::GraphQl);
        }
        let is_form = kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
        Some(if is_form { Self::Form } else { Self::Guess })
    }
}

/// What a body is read for.
#[derive(Debug)]
enum Question {
    /// The account, in this member if one is configured; and whether the refresh token too.
    Account(Option<Arc<str>>, bool),
    GraphQl,
}

/// A body that is being read: it belongs to the newest request that waits for its response.
pub(super) struct Reading {
    question: Question,
    format: Format,
    /// Never grows beyond the capacity that it begins with, so that no copy is left behind.
    buffer: Zeroizing<Vec<u8>>,
    /// Bytes were left out after those that are kept.
    cut: bool,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("question", &self.question).finish_non_exhaustive()
    }
}

/// How reading a body ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Not all of it was read.
    pub(super) cut: bool,
    /// It named two accounts.
    pub(super) ambiguous: bool,
}

/// Notes what a request's head says of its account, and begins to read its body if that is worth it. The error is a
/// body that would be read but is encoded or in parts.
pub(super) fn begin(
    bodies: &Bodies,
    exchange: &mut Exchange,
    body: Body,
) -> Result<Option<Box<Reading>>, Unreadable> {
    if let Some(operation) = bodies.queried(&exchange.request) {
        exchange.body.get_or_insert_default().operation = Some(operation);
    }
    let Some(usage) = bodies.usage(&exchange.request) else { return Ok(None) };
    let question = match &usage {
        Usage::GraphQl => Question::GraphQl,
        Usage::Account(source, token) => {
            let (found, member) = in_head(&exchange.request, source);
            if let Some(account) = found {
                exchange.body.get_or_insert_default().account = Some(account);
            }
            if matches!(source, AccountSource::Header(_) | AccountSource::Query(_)) && !token {
                return Ok(None);
            }
            Question::Account(member, *token)
        }
    };
    let room = match body {
        Body::None | Body::UntilClose => return Ok(None),
        Body::Length(bytes) => usize::try_from(bytes).unwrap_or(MAX_BODY).min(MAX_BODY),
        Body::Chunked => MAX_BODY,
    };
    let format = Format::of(&exchange.request, &usage).ok_or(Unreadable)?;
    let buffer = Zeroizing::new(Vec::with_capacity(room));
    Ok(Some(Box::new(Reading { question, format, buffer, cut: false })))
}

/// A body that is encoded or in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The account that the head names, and the member of the body that is to name it otherwise.
fn in_head(request: &RequestHead, source: &AccountSource) -> (Option<Box<str>>, Option<Arc<str>>) {
    match source {
        AccountSource::Usual => (request.value("authorization").and_then(basic_user), None),
        AccountSource::Body(name) => (None, Some(Arc::clone(name))),
        AccountSource::Header(name) => {
            (request.value(name).and_then(|value| shown(value, MAX_ACCOUNT)), None)
        }
        AccountSource::Query(name) => {
            let value = form::pairs(request.query()).find(|(key, _)| **key == *name.as_bytes());
            (value.and_then(|(_, value)| shown(&form::decoded(value), MAX_ACCOUNT)), None)
        }
    }
}

/// The user name of HTTP Basic (RFC 7617). The password beside it is wiped.
fn basic_user(value: &[u8]) -> Option<Box<str>> {
    /// Enough for the longest account: four characters for three bytes.
    const MAX_TEXT: usize = MAX_ACCOUNT.div_ceil(3) * 4;
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = rest.trim_ascii();
    let text = text.get(..MAX_TEXT).unwrap_or(text);
    let mut plain = Zeroizing::new([0_u8; MAX_TEXT]);
    let len = LENIENT.decode_slice(text, &mut *plain).ok()?;
    let colon = memchr::memchr(b':', plain.get(..len)?)?;
    shown(plain.get(..colon)?, MAX_ACCOUNT)
}

impl Reading {
    /// Takes the next bytes of the body. Says whether it has room for more.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        let room = self.buffer.capacity().min(MAX_BODY) - self.buffer.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        self.cut |= taken.len() < bytes.len();
        self.buffer.len() < MAX_BODY
    }

    /// No more of the body will be seen, though there is more of it.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Bytes kept.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.buffer.capacity()
    }

    /// Answers the question that the body was read for.
    pub(super) fn end(self, bodies: &Bodies, facts: &mut Option<Box<BodyFacts>>) -> Ended {
        let text = self.buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.buffer);
        let mut ambiguous = false;
        match &self.question {
            Question::GraphQl => {
                if let Some(operation) = graphql::operation(text, self.format == Format::GraphQl) {
                    facts.get_or_insert_default().operation = Some(operation);
                }
            }
            Question::Account(member, token) => {
                let finds = self.finds(text, member.as_deref());
                ambiguous = finds.ambiguous;
                if let Some(account) = finds.account() {
                    facts.get_or_insert_default().account = Some(account);
                }
                if let Some(secret) = finds.refresh_token.filter(|_| *token) {
                    facts.get_or_insert_default().refresh_token = Some(bodies.key.hash(&secret));
                }
                if ambiguous {
                    facts.get_or_insert_default().ambiguous = true;
                }
            }
        }
        Ended { cut: self.cut, ambiguous }
    }

    fn finds(&self, text: &[u8], member: Option<&str>) -> Finds {
        let mut finds = Finds::default();
        let json =
            self.format == Format::Guess && matches!(text.trim_ascii_start().first(), Some(b'{' | b'['));
        if json {
            scan::walk(text, &mut |place, scalar| finds.offer_scalar(member, place, scalar));
        } else {
            form::read(text, self.cut, member, &mut finds);
        }
        finds
    }
}

/// Text that may be kept: trimmed, printable, of at most `max` bytes; none if nothing is left.
fn shown(bytes: &[u8], max: usize) -> Option<Box<str>> {
    let window = bytes.get(..max.saturating_mul(2)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(window);
    let mut out = String::new();
    for c in text.trim().chars() {
        let c = if is_unprintable(c) { char::REPLACEMENT_CHARACTER } else { c };
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    (!out.is_empty()).then(|| out.into_boxed_str())
}

/// Controls, and what hides or reorders text.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
