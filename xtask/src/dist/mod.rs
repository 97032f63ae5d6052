//! What is handed out: `cargo xtask image` and `cargo xtask deb`.
//!
//! Both are made here and not by buildah, podman or cargo-deb: a layer, an archive and a package are a sorted list of
//! files with fixed times and owners, so the same binary gives the same bytes, offline and on any machine.

pub(crate) mod agent;
mod check;
mod copyright;
mod crates;
pub(crate) mod deb;
mod flags;
pub(crate) mod image;
mod libraries;
mod licences;
mod oci;
mod place;
pub(crate) mod profile;
mod sbom;
mod tar;
mod time;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::step::target;
use crate::toolchain::output;

/// The version of everything here; the workspace has one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the product is called wherever a name is asked for.
const NAME: &str = "tokenscope";

/// What it is, in one line.
const SUMMARY: &str =
    "Watches bearer tokens at the sockets of a host and alerts on forged, stolen and misused ones";

/// A machine that is built for, by the name that images and Debian use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit ARM
    Arm64,
}

impl Arch {
    /// This machine.
    const fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// As images and Debian name it.
    const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As rustc names it.
    const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// As Debian's directories and compilers are named.
    const fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// A tool of the C toolchain that compiles for it.
    fn tool(self, name: &str) -> String {
        if self == Self::here() { name.to_owned() } else { format!("{}-{name}", self.triple()) }
    }
}

/// Where what is handed out is left.
fn home() -> PathBuf {
    target().join("dist")
}

/// What a program prints. Unlike [`output`] it says what went wrong.
fn ask(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("{program} cannot be run"))?;
    if !done.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The Debian package that a file came in, and its version; none on other systems.
fn package_of(file: &Path) -> Option<(String, String)> {
    let whole = file.canonicalize().unwrap_or_else(|_gone| file.to_path_buf());
    let short = Path::new("/").join(whole.strip_prefix("/usr").unwrap_or(&whole));
    // Packages of before the merge of /usr know their files by the short name.
    let found = [file, &whole, &short]
        .into_iter()
        .find_map(|path| output(Command::new("dpkg-query").arg("-S").arg(path)))?;
    let package = found.lines().next()?.split(": ").next()?.split(',').next()?.trim().to_owned();
    let version = output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", &package]))?;
    Some((package, version))
}
