//! `cargo xtask quality`: how good the detections are, on traffic that a seed makes.
//!
//! The lab (`tests/src/lab`) makes the traffic and judges; this builds it and the sensor, optimised, and passes on
//! what the user wants.

use anyhow::Result;

/// What to play.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// First seed of the judging set, which nobody tunes to
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Million benign exchanges, all seeds together
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    million: f64,
    /// Attacks of each kind and seed
    #[arg(long, value_name = "N", default_value_t = 8)]
    attacks: u64,
    /// Play the tuning set instead
    #[arg(long)]
    tuning: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Plays and judges.
///
/// # Errors
/// When the build fails, or the detections are below the goals.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { seed, seeds, million, attacks, tuning, json } = arguments;
    let mut words = vec!["quality".to_owned()];
    for (flag, value) in [
        ("--seed", seed.to_string()),
        ("--seeds", seeds.to_string()),
        ("--attacks", attacks.to_string()),
        ("--million", million.to_string()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    words.extend(
        [(tuning, "--tuning"), (json, "--json")].iter().filter(|(on, _)| **on).map(|(_, f)| (*f).to_owned()),
    );
    crate::lab::build_and_run(&words)
}
