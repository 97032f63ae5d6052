//! `cargo xtask`: builds, tests, demonstrates and measures Tokenscope.

mod docs;
mod lab;
mod packages;
mod step;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What the developers' own tool can do.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Format, lints, every test; installs what the tests need where it can
    Test {
        /// Leave out what starts servers and loads kernel programs
        #[arg(long)]
        fast: bool,
    },
    /// Start the sensor, a sample service and an attacker, and watch the alerts
    Demo {
        /// Write what the terminal showed as an SVG picture
        #[arg(long, value_name = "FILE")]
        cast: Option<String>,
    },
    /// Write the generated pages of docs/ anew
    Docs,
    /// Measure what the sensor costs a busy nginx, and how fast it reads captures
    Bench {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Only the part on a live kernel
        #[arg(long, conflicts_with = "offline")]
        live: bool,
        /// Only the parts that read captures
        #[arg(long)]
        offline: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Docs => docs::run(),
        Verb::Test { fast } => test::run(fast),
        Verb::Demo { cast } => lab::demo(cast),
        Verb::Bench { json, live, offline } => lab::bench(json, live, offline),
    }
}
