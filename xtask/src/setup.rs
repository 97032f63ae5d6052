//! `cargo xtask setup`: finds or installs what the kernel half is built with.
//!
//! Two things: a compiler that has the sources of `core`, and `bpf-linker`, made for an LLVM no older than the
//! compiler's. Where rustup can fetch, a component is all it takes; where it cannot, Debian has a set that fits.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::packages::{is_root, is_there};
use crate::step::{cargo, say, step};
use crate::toolchain::{self, LINKED, output};

/// The release of bpf-linker that these steps were tried with.
const LINKER: &str = "0.13.0";

/// The LLVM versions that it can be made for, oldest first.
const LLVMS: [u32; 3] = [21, 22, 23];

/// Debian's compiler with its sources, and the LLVM that goes with it.
const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Whether the kernel half can be built as things are.
#[must_use]
pub(crate) fn is_done() -> bool {
    toolchain::find().is_some() && toolchain::linker().is_some()
}

/// Installs what is missing; quick and silent if nothing is.
///
/// # Errors
/// When something is missing and cannot be installed; says what to do by hand.
pub(crate) fn ensure() -> Result<()> {
    if is_done() {
        return Ok(());
    }
    let toolchain = match toolchain::find() {
        Some(found) => found,
        None => install_compiler()?,
    };
    if toolchain::linker().is_none() {
        install_linker(&toolchain)?;
    }
    Ok(())
}

/// Runs [`ensure`] and says what the kernel half will be built with.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn run() -> Result<()> {
    ensure()?;
    let toolchain = toolchain::find().unwrap_or_default();
    let version =
        output(Command::new("rustup").args(["run", &toolchain, "rustc", "--version"])).unwrap_or_default();
    say(&format!("  compiler  toolchain `{toolchain}`: {}", version.trim()));
    if let Some(linker) = toolchain::linker() {
        say(&format!("  linker    {}", linker.display()));
    }
    Ok(())
}

/// Finds the sources of `core` for some compiler and returns the toolchain's name.
fn install_compiler() -> Result<String> {
    let installed = toolchain::installed();
    for name in installed.iter().filter(|name| name.starts_with("nightly")) {
        if add_sources(name)? {
            return Ok(name.clone());
        }
    }
    if can_apt() && offers("rustc-web") {
        apt(&COMPILER)?;
        step("link toolchain", Command::new("rustup").args(["toolchain", "link", LINKED, "/usr"]))?;
        if toolchain::has_sources(LINKED) {
            return Ok(LINKED.to_owned());
        }
    }
    for name in &installed {
        if add_sources(name)? {
            return Ok(name.clone());
        }
    }
    bail!(
        "the kernel half needs a compiler with its sources: `rustup toolchain install nightly -c rust-src`, \
         or as root on Debian `apt-get install {}` and `rustup toolchain link {LINKED} /usr`",
        COMPILER.join(" ")
    )
}

fn add_sources(toolchain: &str) -> Result<bool> {
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src", "--toolchain", toolchain]);
    step(&format!("rust-src for {toolchain}"), &mut rustup)?;
    Ok(toolchain::has_sources(toolchain))
}

/// Builds `bpf-linker` against the oldest LLVM that is not older than the compiler's.
fn install_linker(toolchain: &str) -> Result<()> {
    let compiler = llvm_of(toolchain).unwrap_or(LLVMS[0]);
    let fitting = || LLVMS.into_iter().filter(|llvm| *llvm >= compiler);
    let present = fitting().find(|llvm| has_llvm(*llvm));
    let offered = fitting().find(|llvm| can_apt() && offers(&format!("llvm-{llvm}-dev")));
    let Some(llvm) = present.or(offered) else {
        bail!(
            "bpf-linker is missing, and LLVM {compiler} or later to build it with: install llvm-{compiler}-dev, \
             or bpf-linker itself from https://github.com/aya-rs/bpf-linker"
        )
    };
    if can_apt() {
        let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
        apt(&[&dev, &polly, "libzstd-dev", "zlib1g-dev", "gcc", "libc6-dev"])?;
    }
    let feature = format!("llvm-{llvm}");
    let mut install =
        cargo(&["install", "bpf-linker", "--version", LINKER, "--locked", "--no-default-features"]);
    install.args(["--features", &feature]).env("LLVM_PREFIX", prefix(llvm));
    install.env(format!("LLVM_SYS_{llvm}1_PREFIX"), prefix(llvm));
    if !step(&format!("bpf-linker for LLVM {llvm}"), &mut install)?.ok {
        bail!("bpf-linker does not build; without it the sensor can only replay captures");
    }
    Ok(())
}

/// The LLVM inside a compiler.
fn llvm_of(toolchain: &str) -> Option<u32> {
    let text = output(Command::new("rustup").args(["run", toolchain, "rustc", "--version", "--verbose"]))?;
    llvm_in(&text)
}

/// The LLVM that a compiler names in its long version.
pub(crate) fn llvm_in(version: &str) -> Option<u32> {
    major(version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?)
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}

/// Where Debian puts an LLVM.
pub(crate) fn prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn has_llvm(llvm: u32) -> bool {
    Path::new(&prefix(llvm)).join("include/llvm-c/Core.h").exists()
}

fn can_apt() -> bool {
    is_there("apt-get") && is_root()
}

/// Whether apt could install a package, after one look at what is new.
fn offers(package: &str) -> bool {
    let policy = || output(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    let has_candidate = |text: &str| text.contains("Candidate:") && !text.contains("Candidate: (none)");
    if has_candidate(&policy()) {
        return true;
    }
    let _ = output(Command::new("apt-get").args(["update", "-q"]));
    has_candidate(&policy())
}

fn apt(packages: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    if !step(&format!("install {}", packages.join(" ")), &mut apt)?.ok {
        bail!("apt-get cannot install {}", packages.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_of_a_compiler() {
        assert_eq!(major("22.1.8"), Some(22));
        assert_eq!(major("unknown"), None);
    }
}
