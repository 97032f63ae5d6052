//! `cargo xtask demo` and `cargo xtask bench`: build the sensor and the lab, optimised, and let the lab do the rest.
//!
//! The lab (`tests/src/bin/lab.rs`) has the servers, the tokens and the attackers. It is a program of its own so
//! that this one stays quick to build on a fresh machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::dist::agent;
use crate::step::{cargo, step, target};
use crate::{packages, setup};

/// What a busy server takes, in the list of packages.
pub(crate) const LIVE: &str = "the live benchmark";

/// Shows the sensor at work.
///
/// # Errors
/// When the build or the demo fails.
pub(crate) fn demo(cast: Option<String>) -> Result<()> {
    let cast = cast.map(|file| vec!["--cast".to_owned(), file]).unwrap_or_default();
    run("the demo", &[vec!["demo".to_owned()], cast].concat())
}

/// Measures.
///
/// # Errors
/// When the build or a measurement fails.
pub(crate) fn bench(flags: &[(bool, &str)], svg: Option<String>) -> Result<()> {
    let chosen = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag);
    let chosen = ["bench"].into_iter().chain(chosen).map(str::to_owned);
    let svg = svg.map(|dir| ["--svg".to_owned(), dir]).into_iter().flatten();
    packages::install_peers()?;
    packages::install(LIVE)?;
    let chosen: Vec<String> = chosen.chain(svg).collect();
    // What is measured is compiled as what is handed out, which has its kernel half: where that cannot be had a plain build
    // replays.
    if setup::is_done() { perform(&build()?, &agent::for_here()?, &chosen) } else { build_and_run(&chosen) }
}

/// Measures each stage by itself, its table on our output; `quick` runs each once, and says nothing of its cost.
///
/// # Errors
/// When the build or a benchmark fails.
pub(crate) fn micro(quick: bool) -> Result<()> {
    let mode = if quick { "--test" } else { "--bench" };
    let arguments = ["run", "--release", "-p", "sensor-user", "--example", "stages", "--", mode];
    let status = cargo(&arguments).status()?;
    if !status.success() {
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Installs what live runs need, then as [`build_and_run`].
fn run(purpose: &str, arguments: &[String]) -> Result<()> {
    packages::install(purpose)?;
    build_and_run(arguments)
}

/// Builds sensor and lab, optimised, and runs `lab` with these arguments, its output on ours.
///
/// # Errors
/// When the build fails, or the lab does.
pub(crate) fn build_and_run(arguments: &[String]) -> Result<()> {
    if !step("build the sensor", &mut cargo(&["build", "--release", "-p", "sensor-user"]))?.ok {
        bail!("the build failed");
    }
    perform(&build()?, &target().join("release/tokenscope"), arguments)
}

/// Builds the lab, optimised.
///
/// # Errors
/// When the build fails.
pub(crate) fn build() -> Result<PathBuf> {
    if !step("build the lab", &mut cargo(&["build", "--release", "-p", "tests", "--bin", "lab"]))?.ok {
        bail!("the build failed");
    }
    Ok(target().join("release/lab"))
}

/// Runs `lab` with these arguments and that sensor, its output on ours.
fn perform(lab: &Path, sensor: &Path, arguments: &[String]) -> Result<()> {
    let status = Command::new(lab).args(arguments).env("TOKENSCOPE_BIN", sensor).status()?;
    if !status.success() {
        bail!("lab {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
