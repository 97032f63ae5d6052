//! HTTP/1.1 on reassembled bytes: heads, exact framing, and the pairing of requests with responses.
//!
//! Sources: RFC 9112 (framing), RFC 9110 (semantics), RFC 7239 (`Forwarded`).

mod chunk;
pub mod client;
mod connection;
pub mod exchange;
mod exchanges;
mod framing;
mod head;
mod request;
mod response;
pub mod route;
mod work;

pub use connection::Connection;
pub use exchange::{Coverage, Exchange, Header, RequestHead, ResponseHead, Suspicions};
pub use exchanges::{Exchanges, HttpCounters, HttpLimits};

/// Parsers by themselves, for the fuzz targets and benchmarks.
pub mod parse {
    pub use super::chunk::{Chunks, Step};
    pub use super::head::{EndOfHead, read_request, read_response};
}
