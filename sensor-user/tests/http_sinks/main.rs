//! Sinks that speak HTTP, as a receiver sees them: what presets send, what hostile answers do, TLS and proxies, and
//! real servers (Alertmanager, ClickHouse) from packages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    missing_docs,
    reason = "a test may fail where it stands; what it shares is not documentation"
)]

mod cluster;
mod contracts;
mod docs;
mod hostile;
mod process;
mod receiver;
mod servers;
mod setup;
mod tls;
