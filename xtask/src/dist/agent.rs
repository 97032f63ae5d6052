//! The program that is handed out: built, its debug information set aside, and known by version and commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::profile::{self, Purpose};
use super::time::{Epoch, commit};
use super::{Arch, ask, home, place};
use crate::packages::is_there;
use crate::step::{say, step};
use crate::{setup, toolchain};

/// What the kernel half declares its licence to be: in a program without it these words are not.
const KERNEL_HALF: &[u8] = b"Dual MIT/GPL";

/// A program ready to be packed.
#[derive(Debug)]
pub(super) struct Agent {
    /// The machine it runs on.
    pub(super) arch: Arch,
    /// Where it lies, stripped.
    pub(super) path: PathBuf,
    /// What a packed file's time is.
    pub(super) epoch: Epoch,
    /// The commit it was made of.
    pub(super) commit: Option<String>,
}

impl Agent {
    /// Strips `given`, or else what an optimised build for `arch` gives, linked with these flags besides. The debug information
    /// is left beside it.
    ///
    /// # Errors
    /// When something is missing for that machine, the build fails, or it has no kernel half.
    pub(super) fn make(arch: Arch, given: Option<&Path>, link: &[&str]) -> Result<Self> {
        let (built, hidden) = match given {
            Some(file) => (file.to_path_buf(), Vec::new()),
            None => build(arch, Purpose::Use, link)?,
        };
        let home = home().join(arch.name());
        fs::create_dir_all(&home)?;
        let (path, debug) = (home.join("tokenscope"), home.join("tokenscope.debug"));
        let (objcopy, from) = (arch.tool("objcopy"), built.to_string_lossy());
        ask(&objcopy, &["--only-keep-debug", &from, &debug.to_string_lossy()])?;
        // Tests make images at the same time: whoever reads it finds a whole one.
        let partial = home.join(format!("tokenscope.{}", std::process::id()));
        ask(&objcopy, &["--strip-all", &from, &partial.to_string_lossy()])?;
        let bytes = fs::read(&partial)?;
        fs::rename(&partial, &path)?;
        if !names(&bytes, KERNEL_HALF) {
            bail!("{} is without its kernel half and can only replay captures", built.display());
        }
        for dir in hidden.iter().filter(|dir| names(&bytes, dir.as_os_str().as_encoded_bytes())) {
            say(&format!("NOT REPRODUCIBLE: the program names {}", dir.display()));
        }
        say(&format!("  debug information: {}", debug.display()));
        Ok(Self { arch, path, epoch: Epoch::of_the_source()?, commit: commit() })
    }
}

/// The program for this machine, as it is handed out but not stripped.
///
/// # Errors
/// As [`Agent::make`].
pub(crate) fn for_here() -> Result<PathBuf> {
    Ok(build(Arch::here(), Purpose::Use, &[])?.0)
}

/// Builds; returns the program, and what directories of this machine it must not name.
///
/// # Errors
/// When something is missing for that machine, or the build fails.
pub(super) fn build(arch: Arch, purpose: Purpose, link: &[&str]) -> Result<(PathBuf, Vec<PathBuf>)> {
    setup::ensure()?;
    let lacking = lacking(arch, is_there);
    if !lacking.is_empty() {
        bail!("cannot build for {} on this machine; it lacks: {}", arch.name(), lacking.join("; "));
    }
    // The machine is named even if it is this one: flags are then for the program alone, and not for build scripts.
    let target = ["--target", arch.target()];
    let program = ["rustc", "--release", "--locked", "--package", "sensor-user", "--bin", "tokenscope"];
    let arguments = [&program[..], &target, &["--"], link].concat();
    let place::Build { mut command, made, hidden } = place::build(arch, purpose, &arguments)?;
    // A program without its kernel half is of no use in what is handed out, whatever is set around us.
    if !step("build the sensor", command.env(toolchain::SKIP, "0"))?.ok {
        bail!("the build failed");
    }
    let program = made.join("release/tokenscope");
    if purpose == Purpose::Use {
        profile::check(arch, &program)?;
    }
    Ok((program, hidden))
}

/// Whether these words are in a program.
fn names(program: &[u8], words: &[u8]) -> bool {
    program.windows(words.len().max(1)).any(|window| window == words)
}

/// What a build for another machine needs and is not here, each with where it comes from.
fn lacking(arch: Arch, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    if arch == Arch::here() {
        return Vec::new();
    }
    let (target, triple, name) = (arch.target(), arch.triple(), arch.name());
    let mut lacking = Vec::new();
    let libraries = ask("rustc", &["--print", "target-libdir", "--target", target]).unwrap_or_default();
    if !is_there(libraries.trim()) {
        lacking.push(format!("the standard library (rustup target add {target})"));
    }
    for (tool, package) in [("gcc", "gcc"), ("g++", "g++"), ("objcopy", "binutils")] {
        let tool = arch.tool(tool);
        if !is_there(&tool) {
            lacking.push(format!("{tool} (apt-get install {package}-{triple})"));
        }
    }
    // The package brings those that are packed into the image, too: glibc, libgcc_s and libz.
    let zlib = format!("/usr/lib/{triple}/libz.so");
    if !is_there(&zlib) {
        let apt =
            format!("dpkg --add-architecture {name}; apt-get update; apt-get install zlib1g-dev:{name}");
        lacking.push(format!("{zlib} ({apt})"));
    }
    lacking
}

/// Runs the program and returns what it prints.
///
/// # Errors
/// When it is for another machine, or fails.
pub(super) fn run(agent: &Agent, arguments: &[&str]) -> Result<String> {
    let done = Command::new(&agent.path)
        .args(arguments)
        .env_clear()
        .output()
        .with_context(|| format!("{} cannot be run here", agent.path.display()))?;
    if !done.status.success() {
        bail!("tokenscope {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other() -> Arch {
        if Arch::here() == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 }
    }

    #[test]
    fn nothing_lacks_for_this_machine() {
        assert!(lacking(Arch::here(), |_| false).is_empty());
    }

    #[test]
    fn whatever_lacks_for_another_machine_is_named_with_where_it_comes_from() {
        assert!(lacking(other(), |_| true).is_empty());
        let all = lacking(other(), |_| false);
        for (part, remedy) in ["standard library", "gcc", "g++", "objcopy", "libz.so"].into_iter().zip([
            "(rustup target add ",
            "(apt-get install gcc-",
            "(apt-get install g++-",
            "(apt-get install binutils-",
            "apt-get install zlib1g-dev:",
        ]) {
            assert!(all.iter().any(|line| line.contains(part) && line.contains(remedy)), "{part}: {all:?}");
        }
        let one = lacking(other(), |thing| !thing.ends_with("g++"));
        assert!(one.len() == 1 && one[0].contains("g++"), "{one:?}");
    }

    #[test]
    fn words_are_found_wherever_they_are() {
        assert!(names(b"at /home/me/src.rs:1", b"/home/me") && names(b"/home/me", b"/home/me"));
        assert!(!names(b"/home/m", b"/home/me") && !names(b"", b"/home/me") && !names(b"x", b""));
    }

    #[test]
    fn another_machine_has_tools_of_its_own() {
        assert_ne!(other().tool("gcc"), Arch::here().tool("gcc"));
    }
}
