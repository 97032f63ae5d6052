//! The program that is handed out: built, its debug information set aside, and known by version and commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::time::{Epoch, commit};
use super::{Arch, ask, home};
use crate::packages::is_there;
use crate::step::{cargo, say, step, target};
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
    /// Strips `given`, or else what an optimised build for `arch` gives. The debug information is left beside it.
    ///
    /// # Errors
    /// When something is missing for that machine, the build fails, or it has no kernel half.
    pub(super) fn make(arch: Arch, given: Option<&Path>) -> Result<Self> {
        let built = match given {
            Some(file) => file.to_path_buf(),
            None => build(arch)?,
        };
        let home = home().join(arch.name());
        fs::create_dir_all(&home)?;
        let (path, debug) = (home.join("tokenscope"), home.join("tokenscope.debug"));
        let (objcopy, from) = (tool(arch, "objcopy"), built.to_string_lossy());
        ask(&objcopy, &["--only-keep-debug", &from, &debug.to_string_lossy()])?;
        ask(&objcopy, &["--strip-all", &from, &path.to_string_lossy()])?;
        let bytes = fs::read(&path)?;
        if !bytes.windows(KERNEL_HALF.len()).any(|window| window == KERNEL_HALF) {
            bail!("{} is without its kernel half and can only replay captures", built.display());
        }
        say(&format!("  debug information: {}", debug.display()));
        Ok(Self { arch, path, epoch: Epoch::of_the_source()?, commit: commit() })
    }
}

fn build(arch: Arch) -> Result<PathBuf> {
    setup::ensure()?;
    let lacking = lacking(arch);
    if !lacking.is_empty() {
        bail!("cannot build for {} on this machine; it lacks: {}", arch.name(), lacking.join("; "));
    }
    let mut arguments = vec!["build", "--release", "--locked", "--package", "sensor-user"];
    let mut release = target();
    let mut build = if arch == Arch::here() {
        cargo(&arguments)
    } else {
        arguments.extend(["--target", arch.target()]);
        release.push(arch.target());
        let mut build = cargo(&arguments);
        let name = arch.target().to_uppercase().replace('-', "_");
        build.env(format!("CARGO_TARGET_{name}_LINKER"), tool(arch, "gcc"));
        build
    };
    // A program without its kernel half is of no use in what is handed out, whatever is set around us.
    if !step("build the sensor", build.env(toolchain::SKIP, "0"))?.ok {
        bail!("the build failed");
    }
    Ok(release.join("release/tokenscope"))
}

/// What a build for another machine needs and is not here, each with where it comes from.
fn lacking(arch: Arch) -> Vec<String> {
    if arch == Arch::here() {
        return Vec::new();
    }
    let mut lacking = Vec::new();
    let target = arch.target();
    let libraries = ask("rustc", &["--print", "target-libdir", "--target", target]).unwrap_or_default();
    if !Path::new(libraries.trim()).is_dir() {
        lacking.push(format!("the standard library (rustup target add {target})"));
    }
    for name in ["gcc", "g++", "objcopy"] {
        if !is_there(&tool(arch, name)) {
            let package = if name == "objcopy" { "binutils" } else { name };
            lacking.push(format!("{} (apt-get install {package}-{})", tool(arch, name), arch.triple()));
        }
    }
    let zlib = format!("/usr/lib/{}/libz.so", arch.triple());
    if !is_there(&zlib) {
        let name = arch.name();
        lacking.push(format!("{zlib} (dpkg --add-architecture {name}; apt-get install zlib1g-dev:{name})"));
    }
    lacking
}

/// A tool of the C toolchain for a machine.
fn tool(arch: Arch, name: &str) -> String {
    if arch == Arch::here() { name.to_owned() } else { format!("{}-{name}", arch.triple()) }
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

    #[test]
    fn nothing_lacks_for_this_machine() {
        assert!(lacking(Arch::here()).is_empty());
    }

    #[test]
    fn another_machine_has_tools_of_its_own() {
        let other = if Arch::here() == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
        assert_ne!(tool(other, "gcc"), tool(Arch::here(), "gcc"));
    }
}
