//! Builds the kernel half and leaves it where `capture::ebpf` embeds it from. Beside it lies what the benchmark compares it
//! with, which `examples/ring_floor.rs` embeds.
//!
//! The agent builds with the stable toolchain; the kernel half needs `core` for a target that has no prebuilt
//! one, hence a compiler with its sources. A cargo of its own runs for it, in its own target directory.
//!
//! `TOKENSCOPE_SKIP_EBPF=1` embeds nothing: enough to replay captures.
#![allow(clippy::print_stdout, reason = "cargo reads a build script's directives from its standard output")]

use std::path::{Path, PathBuf};
use std::{env, fs};

#[allow(dead_code, unreachable_pub, reason = "xtask uses more of it")]
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets no CARGO_MANIFEST_DIR")?)
        .join("..");
    watch(&root);
    let embedded = out.join("tokenscope.bpf.o");
    let floor = out.join("floor.bpf.o");
    if env::var_os(toolchain::SKIP).is_some_and(|value| !value.is_empty() && value != "0") {
        fs::write(floor, [])?;
        return Ok(fs::write(embedded, [])?);
    }
    let object = build(&root, &out.join("ebpf"))?;
    fs::copy(object.with_file_name(toolchain::FLOOR), floor)?;
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
    for variable in [toolchain::SKIP, toolchain::TOOLCHAIN] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}

/// Builds the object and says where it is.
fn build(root: &Path, target_dir: &Path) -> Result<PathBuf, Failure> {
    let toolchain = toolchain::find()
        .ok_or_else(|| remedy("no rustup toolchain has the sources of `core` (rust-src)"))?;
    let linker = toolchain::linker().ok_or_else(|| remedy("bpf-linker is not in PATH"))?;
    println!("cargo::rerun-if-changed={}", linker.display());
    let (mut cargo, object) = toolchain::command(root, &toolchain, &linker, target_dir);
    let status = cargo.status().map_err(|error| remedy(&format!("rustup cannot be run: {error}")))?;
    if !status.success() {
        return Err(remedy(&format!(
            "the kernel half does not build with toolchain `{toolchain}` ({status})"
        )));
    }
    Ok(object)
}

fn remedy(problem: &str) -> Failure {
    let skip = toolchain::SKIP;
    format!(
        "{problem}\n  run `cargo xtask setup`, which finds or installs what the kernel half needs,\n  or set {skip}=1 to build an agent that only replays captures"
    )
    .into()
}
