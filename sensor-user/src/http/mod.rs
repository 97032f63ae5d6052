//! HTTP/1.1 on reassembled bytes: heads, exact framing, and the pairing of requests with responses.
//!
//! Sources: RFC 9112 (framing), RFC 9110 (semantics), RFC 7239 (`Forwarded`).

pub mod exchange;

pub use exchange::{Coverage, Exchange, Header, RequestHead, ResponseHead, Suspicions};
