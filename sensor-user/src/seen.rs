//! An exchange after its judgement, for those who count and watch: who, where, when, how much; no rule asks for it.
//!
//! It is made for every exchange while anybody wants any, so it is cheap: numbers are copied, names and tokens are
//! shared, and nothing is allocated unless somebody watches paths.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::capture::{Endpoints, Origin, Time};
use crate::detect::{Route, RouteKind, scene};
use crate::http::{Coverage, Exchange};
use crate::token::{Token, TokenUse};

pub use crate::detect::scene::Words;

/// One exchange, as far as anybody may know of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When the request's first byte was seen.
    pub at: Time,
    /// Both ends.
    pub endpoints: Endpoints,
    /// The client's address: the peer's, or what a trusted proxy says.
    pub client: IpAddr,
    /// Where the server lives.
    pub origin: Origin,
    /// `GET /orders/{id}`.
    pub route: Arc<str>,
    /// What the route is for.
    pub kind: RouteKind,
    /// The status code, if a response was seen.
    pub status: Option<u16>,
    /// Bytes of the request's body, where its framing tells.
    pub request_bytes: Option<u64>,
    /// Bytes of the response's body, where its framing tells.
    pub response_bytes: Option<u64>,
    /// From the request's last head byte to the response's first, where both were seen.
    pub latency: Option<Duration>,
    /// How much was captured.
    pub coverage: Coverage,
    /// The request's tokens in its order, as they were known when nothing was waited for any more.
    pub tokens: SmallVec<[Arc<Token>; 1]>,
    /// The request's own words, only while somebody watches paths.
    pub words: Option<Box<Words>>,
}

/// Who wants exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Whether anybody wants any.
    pub exchanges: bool,
    /// Whether somebody wants to read their paths.
    pub words: bool,
}

impl Seen {
    /// An exchange of this route. Its tokens come when they are settled.
    #[inline]
    #[must_use]
    pub fn of(exchange: &Exchange, route: &Route, words: bool) -> Self {
        Self {
            at: exchange.at,
            endpoints: exchange.endpoints,
            client: exchange.client,
            origin: exchange.origin,
            route: Arc::clone(&route.name),
            kind: route.kind,
            status: exchange.status(),
            request_bytes: exchange.request_body_bytes,
            response_bytes: exchange.response_body_bytes,
            latency: exchange.latency,
            coverage: exchange.coverage,
            tokens: SmallVec::new(),
            words: words.then(|| Box::new(scene::words(&exchange.request))),
        }
    }

    /// The same with its tokens.
    #[inline]
    #[must_use]
    pub fn with(mut self, tokens: SmallVec<[TokenUse; 1]>) -> Self {
        self.tokens.extend(tokens.into_iter().map(|held| held.token));
        self
    }
}
