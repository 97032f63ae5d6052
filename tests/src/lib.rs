//! What the end-to-end tests, the demo and the benchmarks share: tokens good and forged, unmodified servers,
//! a sensor to start and stop, clients that speak exact bytes, lossy networks, and captures made by hand.
//!
//! Nothing here knows the sensor's code: it is run as a program, as users do.

pub mod attack;
pub mod bench;
pub mod bpf;
pub mod capture;
pub mod client;
pub mod clock;
#[expect(clippy::indexing_slicing, reason = "a JSON value answers null for what it has not")]
pub mod cluster;
pub mod demo;
pub mod engine;
pub mod expect;
pub mod golden;
pub mod guest;
pub mod image;
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a simulation draws numbers of its own, all of them small"
)]
pub mod lab;
#[expect(clippy::indexing_slicing, reason = "a JSON value answers null for what it has not")]
pub mod manifests;
pub mod mint;
pub mod netns;
pub mod node;
#[expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a JSON value answers null for what it has not; the skip must be loud"
)]
pub mod ocsf;
pub mod pressure;
pub mod raw;
pub mod sensor;
pub mod server;
pub mod svg;

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Says loudly that a test cannot run here. The test then passes, and `cargo xtask test` counts the line.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stdout(), "SKIPPED {test}: {why}");
}

/// Prints for the user of the lab.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The workspace's root.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A file of the tests' own data.
#[must_use]
pub fn data(name: &str) -> PathBuf {
    workspace().join("tests/data").join(name)
}

/// A sample service's source.
#[must_use]
pub fn service(name: &str) -> PathBuf {
    workspace().join("tests/services").join(name)
}

/// Whether this process may load kernel programs and make namespaces.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
