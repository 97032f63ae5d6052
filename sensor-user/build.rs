//! Builds the kernel half and leaves it where `capture::ebpf` embeds it from.
//!
//! The agent builds with the stable toolchain; the kernel half needs `core` for a target that has no prebuilt
//! one, hence a compiler with its sources. A cargo of its own runs for it, in its own target directory, with none
//! of the settings that this build was given.
//!
//! `TOKENSCOPE_SKIP_EBPF=1` embeds nothing: enough to replay captures.
#![allow(clippy::print_stdout, reason = "cargo reads a build script's directives from its standard output")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[allow(dead_code, unreachable_pub, reason = "xtask uses more of it")]
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

const SKIP: &str = "TOKENSCOPE_SKIP_EBPF";
const TARGET: &str = "bpfel-unknown-none";
const PROGRAM: &str = "tokenscope-ebpf";

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets no CARGO_MANIFEST_DIR")?)
        .join("..");
    watch(&root);
    let embedded = out.join("tokenscope.bpf.o");
    if env::var_os(SKIP).is_some_and(|value| !value.is_empty() && value != "0") {
        return Ok(fs::write(embedded, [])?);
    }
    let object = build(&root, &out.join("ebpf"))?;
    fs::copy(object, embedded)?;
    Ok(())
}

/// Tells cargo when to run this again.
fn watch(root: &Path) {
    for file in
        ["sensor-ebpf/src", "sensor-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock", "xtask/src/toolchain.rs"]
    {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    for variable in [SKIP, toolchain::TOOLCHAIN] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}

/// Builds the object and says where it is.
fn build(root: &Path, target_dir: &Path) -> Result<PathBuf, Failure> {
    let toolchain = toolchain::find()
        .ok_or_else(|| remedy("no rustup toolchain has the sources of `core` (rust-src)"))?;
    let linker = toolchain::linker().ok_or_else(|| remedy("bpf-linker is not in PATH"))?;
    println!("cargo::rerun-if-changed={}", linker.display());
    let mut cargo = Command::new("rustup");
    cargo.args([
        "run",
        &toolchain,
        "cargo",
        "build",
        "--release",
        "--package",
        "sensor-ebpf",
        "--bin",
        PROGRAM,
    ]);
    cargo
        .args(["--features", "kernel", "--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(target_dir);
    cargo.current_dir(root);
    for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_this_build(&name.to_string_lossy())) {
        cargo.env_remove(name);
    }
    let flags = ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C", &format!("linker={}", linker.display())];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env("RUSTC_BOOTSTRAP", "1");
    let status = cargo.status().map_err(|error| remedy(&format!("rustup cannot be run: {error}")))?;
    if !status.success() {
        return Err(remedy(&format!(
            "the kernel half does not build with toolchain `{toolchain}` ({status})"
        )));
    }
    Ok(target_dir.join(TARGET).join("release").join(PROGRAM))
}

/// Whether a variable describes the build of the agent and would mislead that of the kernel half. What says
/// how to reach registries stays.
fn belongs_to_this_build(name: &str) -> bool {
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    let foreign = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RUSTUP_TOOLCHAIN"];
    foreign.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

fn remedy(problem: &str) -> Failure {
    format!("{problem}\n  run `cargo xtask setup`, which finds or installs what the kernel half needs,\n  or set {SKIP}=1 to build an agent that only replays captures")
        .into()
}
