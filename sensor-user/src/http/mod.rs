//! HTTP/1.1 on reassembled bytes: heads, exact framing, the pairing of requests with responses, and what a few routes
//! ask of bodies.
//!
//! Sources: RFC 9112 (framing), RFC 9110 (semantics), RFC 7239 (`Forwarded`).

pub mod body;
mod chunk;
pub mod client;
mod connection;
pub mod exchange;
mod exchanges;
mod framing;
mod head;
mod plain;
mod request;
mod response;
pub mod route;
pub mod route_match;
pub(crate) mod words;
mod work;

pub use body::{AccountSource, Bodies, BodyKey, BodyUse};
pub use connection::Connection;
pub use exchange::{
    BodyFacts, Coverage, Exchange, Header, Issued, IssuedText, RequestHead, ResponseHead, Suspicions,
};
pub use exchanges::{Exchanges, HttpCounters, HttpLimits};

/// Parsers by themselves, for the fuzz targets and benchmarks.
pub mod parse {
    pub use super::chunk::{Chunks, Step};
    pub use super::head::{EndOfHead, read_request, read_response};
    pub use super::plain::{request as read_plain_request, response as read_plain_response};
}
