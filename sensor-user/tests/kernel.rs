//! The kernel half for real: loaded, attached to a cgroup of this test's own, and shown traffic.
//!
//! Every test moves no one but this process and watches ports of its own, so tests run side by side and beside
//! any other traffic. Without the privileges they say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test may fail where it stands; its helpers are not documentation"
)]

mod kernel {
    pub(crate) mod answers;
    pub(crate) mod cost;
    pub(crate) mod features;
    pub(crate) mod forgery;
    pub(crate) mod lab;
    pub(crate) mod load;
    pub(crate) mod requests;
    pub(crate) mod roles;
}
