//! Stage by stage: what one head, one token, one judgement, one look-up costs by itself, in time and in allocations.
//!
//! `cargo xtask bench --micro` runs it optimised; words after `cargo run --release -p sensor-user --example stages -- --bench`
//! choose among the benchmarks by name, and without `--bench` each runs once. It is no bench target, for those are built to
//! unwind: this one is built as the sensor is, of the same crates. All inputs are made, the same in every run but for keys
//! and signatures. What is measured here lies in warm caches: how the stages add up beside a real load is for
//! `cargo xtask bench` to say.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measurement of made inputs: whatever is not as it was made should end it"
)]

mod alert;
mod forge;
mod http;
mod jose;
#[path = "../../tests/store/made.rs"]
mod made;
mod rules;
mod state;
mod tokens;
mod traffic;
mod whole;

/// Runs in one of a hundred samples. Left to choose, the tool may take one, and so measure its clock: on a busy machine, or
/// where the first run is the slowest.
const QUICK: u32 = 512;
/// The same where each run has an input that is made before, which must not fill the caches.
const MADE: u32 = 64;
/// The same of what takes tens of microseconds.
const SLOW: u32 = 16;

/// Counts allocations beside the time.
#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}
