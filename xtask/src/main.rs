//! `cargo xtask`: builds, tests, demonstrates and measures Tokenscope.

mod build;
mod cluster;
mod dist;
mod docs;
mod lab;
mod packages;
mod quality;
mod setup;
mod step;
mod test;
#[allow(unreachable_pub, reason = "a build script uses the same file")]
mod toolchain;
mod tools;
mod vm;

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
    /// Find or install what the kernel half is built with
    Setup,
    /// Build the optimised sensor and say where it is
    Build,
    /// Make a container image: an archive that containerd, Docker and podman load; the same bytes for the same source
    Image(dist::image::Arguments),
    /// Make a Debian package, with a systemd unit
    Deb(dist::deb::Arguments),
    /// Take counts of the program's branches under load, which the compiler lays it out by; leaves them in the source
    Train,
    /// Build the kernel half alone
    Ebpf,
    /// Format, lints, every test; installs what the tests need where it can
    Test {
        /// Leave out what starts servers and loads kernel programs
        #[arg(long, conflicts_with = "all")]
        fast: bool,
        /// And what needs a long build of its own: a Kafka broker by other people
        #[arg(long)]
        all: bool,
    },
    /// Start the sensor, a sample service and an attacker, and watch the alerts
    Demo {
        /// Write what the terminal showed as an SVG picture
        #[arg(long, value_name = "FILE")]
        cast: Option<String>,
    },
    /// Write the generated pages of docs/ anew
    Docs,
    /// Boot the sensor on kernels from 5.10 on, and on this host's: capture tests, doctor, capabilities
    Vm(vm::Arguments),
    /// Install the chart on a real cluster of one node, which is built first, and run whatever happens to it there
    Cluster(cluster::Arguments),
    /// Play labelled traffic to the sensor: recall, precision, false alarms and delay of every rule; fails below the goals
    Quality(quality::Arguments),
    /// Measure what the sensor costs a busy nginx, how fast it reads captures, and what each stage costs by itself
    Bench {
        /// Print JSON: all but the micro-benchmarks, whose tool has tables only
        #[arg(long)]
        json: bool,
        /// Only the part on a live kernel
        #[arg(long, group = "part")]
        live: bool,
        /// Only how soon an alert is there: on a quiet host, beside 50,000 requests a second, beside full load
        #[arg(long, group = "part")]
        latency: bool,
        /// Only the parts that read captures
        #[arg(long, group = "part")]
        offline: bool,
        /// Only what one more token, principal and connection takes
        #[arg(long, group = "part")]
        memory: bool,
        /// Only what the sensor does under scans, floods, small segments and slow-loris; no part of the others
        #[arg(long, group = "part")]
        pressure: bool,
        /// Only the micro-benchmarks, stage by stage: time and allocations of each
        #[arg(long, group = "part", conflicts_with = "json")]
        micro: bool,
        /// Small loads for a moment: whether it works, not what it costs
        #[arg(long)]
        quick: bool,
        /// Write charts into this directory, as docs/performance.md shows them
        #[arg(long, value_name = "DIR")]
        svg: Option<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Docs => docs::run(),
        Verb::Setup => setup::run(),
        Verb::Build => build::agent(),
        Verb::Image(arguments) => dist::image::run(&arguments),
        Verb::Deb(arguments) => dist::deb::run(&arguments),
        Verb::Train => dist::profile::train(),
        Verb::Ebpf => build::kernel_half(),
        Verb::Test { fast, all } => with_what_it_needs(|| test::run(fast, all)),
        Verb::Demo { cast } => with_what_it_needs(|| lab::demo(cast)),
        Verb::Vm(arguments) => with_what_it_needs(|| vm::run(&arguments)),
        Verb::Cluster(arguments) => with_what_it_needs(|| cluster::run(&arguments)),
        Verb::Quality(arguments) => with_what_it_needs(|| quality::run(&arguments)),
        Verb::Bench { micro: true, quick, .. } => lab::micro(quick),
        Verb::Bench { json, live, latency, offline, memory, pressure, quick, svg, .. } => {
            let part = [
                (live, "--live"),
                (latency, "--latency"),
                (offline, "--offline"),
                (memory, "--memory"),
                (pressure, "--pressure"),
            ];
            let flags = [part.as_slice(), &[(json, "--json"), (quick, "--quick")]].concat();
            with_what_it_needs(|| lab::bench(&flags, svg))?;
            // A part stands alone, and the micro-benchmarks have tables only.
            if json || part.iter().any(|(chosen, _)| *chosen) { Ok(()) } else { lab::micro(quick) }
        }
    }
}

/// Sets up what the kernel half needs, then runs the verb; if that cannot be had, says so and goes on without
/// the kernel half, with what replay can do.
fn with_what_it_needs(verb: impl FnOnce() -> Result<()>) -> Result<()> {
    if let Err(error) = setup::ensure() {
        step::say(&format!("SKIPPED the kernel half: {error:#}"));
    }
    verb()
}
