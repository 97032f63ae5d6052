//! Which compiler and linker can build the kernel half.
//!
//! Shared by the agent's build script and `cargo xtask setup`, so that what one installs is what the other finds.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the rustup toolchain to use, against all judgement of ours.
pub const TOOLCHAIN: &str = "TOKENSCOPE_EBPF_TOOLCHAIN";

/// The name under which `cargo xtask setup` links a compiler that came as Debian packages.
pub const LINKED: &str = "ebpf";

/// The rustup toolchain that builds the kernel half: one that has the sources of `core`.
#[must_use]
pub fn find() -> Option<String> {
    if let Ok(name) = std::env::var(TOOLCHAIN) {
        return Some(name);
    }
    let listed = output(Command::new("rustup").args(["toolchain", "list"]))?;
    let names = || listed.lines().filter_map(|line| line.split_whitespace().next());
    let linked = names().filter(|name| *name == LINKED);
    let nightly = names().filter(|name| name.starts_with("nightly"));
    linked.chain(nightly).find(|name| has_sources(name)).map(str::to_owned)
}

/// Whether `-Z build-std=core` can work with this toolchain.
#[must_use]
pub fn has_sources(toolchain: &str) -> bool {
    let sysroot = output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]));
    sysroot.is_some_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
}

/// Where `bpf-linker` is, if anywhere.
#[must_use]
pub fn linker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let installed = std::env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin"));
    std::env::split_paths(&path)
        .chain(installed)
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
}

/// What a command prints, if it succeeds.
#[must_use]
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
