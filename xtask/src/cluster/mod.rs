//! `cargo xtask cluster`: the chart on a real API server and a real kubelet, both built here from Debian's source package
//! of Kubernetes, as no package has the programs themselves.
//!
//! What is built stays in `target/cluster/bin`; from then on the ordinary test command runs the same test
//! (`tests/tests/cluster`), which it skips otherwise.

mod build;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::packages;
use crate::step::{cargo, say, step, target};
use crate::tools::Tools;

/// What the packages are for, as [`packages`] says it.
const PURPOSE: &str = "a cluster";

/// What the user asks for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fetch the source from here instead of where this host's apt fetches from
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Build Kubernetes and run nothing
    #[arg(long)]
    build: bool,
}

/// Builds what is missing and runs the test.
///
/// # Errors
/// When Kubernetes cannot be had, or the test fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::install(PURPOSE)?;
    let home = target().join("cluster");
    if build::is_done(&home) {
        say(&format!("  Kubernetes is in {}", home.join("bin").display()));
    } else {
        kubernetes(&home, arguments.mirror.as_deref())?;
    }
    if arguments.build {
        return Ok(());
    }
    ensure!(packages::is_root(), "a cluster needs root");
    let tools = Tools::install(false)?;
    // The sensor, and what makes its image.
    let mut programs = cargo(&["build", "-p", "sensor-user", "-p", "xtask", "--bins"]);
    ensure!(step("build the sensor", &mut programs)?.ok, "the sensor cannot be built");
    let mut test = cargo(&["test", "-p", "tests", "--test", "cluster", "--", "--nocapture"]);
    tools.tell(&mut test).env("TOKENSCOPE_TEST_CLUSTER", &home);
    let outcome = step("the chart on a cluster", &mut test)?;
    if let Some(line) = outcome.output.lines().find(|line| line.starts_with("SKIPPED")) {
        bail!("{line}");
    }
    ensure!(outcome.ok, "the test failed");
    Ok(())
}

/// Fetches and builds. Only the programs are kept: sources and what the compiler leaves take a gigabyte and a half.
fn kubernetes(home: &Path, mirror: Option<&str>) -> Result<()> {
    // The place that a Go package has below a GOPATH is its name.
    let path = home.join("go");
    let tree: PathBuf = path.join("src/k8s.io/kubernetes");
    source::fetch(home, &tree, mirror)?;
    build::run(home, &path, &tree)?;
    build::clear(&path)
}
