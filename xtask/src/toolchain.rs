//! Which compiler and linker can build the kernel half, and how they are called.
//!
//! Shared by the agent's build script and `cargo xtask`, so that what one installs is what the other finds.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the rustup toolchain to use, against all judgement of ours.
pub const TOOLCHAIN: &str = "TOKENSCOPE_EBPF_TOOLCHAIN";

/// Set to 1, it makes the agent's build leave the kernel half out.
pub const SKIP: &str = "TOKENSCOPE_SKIP_EBPF";

/// The name under which `cargo xtask setup` links a compiler that came as Debian packages.
pub const LINKED: &str = "ebpf";

/// What the kernel half is built for, and what it is called.
const TARGET: &str = "bpfel-unknown-none";
const PROGRAM: &str = "tokenscope-ebpf";

/// What is built beside it, for the benchmark.
pub const FLOOR: &str = "floor-ebpf";

/// The rustup toolchain that builds the kernel half: one that has the sources of `core`. A linked one was made
/// for this; nightly is the usual way; any other will do with `RUSTC_BOOTSTRAP`.
#[must_use]
pub fn find() -> Option<String> {
    if let Ok(name) = std::env::var(TOOLCHAIN) {
        return Some(name);
    }
    let mut names = installed();
    names.sort_by_key(|name| (name != LINKED, !name.starts_with("nightly")));
    names.into_iter().find(|name| has_sources(name))
}

/// The toolchains that rustup knows.
#[must_use]
pub fn installed() -> Vec<String> {
    let listed = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
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
    let dirs = std::env::split_paths(&path).chain(cargo_home().map(|home| home.join("bin")));
    dirs.map(|dir| dir.join("bpf-linker")).find(|file| file.is_file())
}

/// Where cargo keeps the sources of crates.
#[must_use]
pub fn cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")))
}

/// The directories of this machine that a compiler would write into what it makes, and what it is to write instead: two
/// builds are the same wherever they are made. Of two that fit, compilers take the later one.
#[must_use]
pub fn places(root: &Path, target_dir: &Path) -> Vec<(PathBuf, &'static str)> {
    let mut places = Vec::from_iter(cargo_home().map(|home| (home, "/cargo")));
    for (path, name) in [(root, "/tokenscope"), (target_dir, "/target")] {
        places.push((path.to_path_buf(), name));
        // Compilers that ask the system where they are get the name behind all links.
        places.extend(path.canonicalize().ok().filter(|real| real != path).map(|real| (real, name)));
    }
    places
}

/// The command that builds the kernel half, and where the object will be. Nothing that was set for the build
/// of the agent reaches it.
#[must_use]
pub fn command(root: &Path, toolchain: &str, linker: &Path, target_dir: &Path) -> (Command, PathBuf) {
    let mut cargo = Command::new("rustup");
    cargo.args([
        "run",
        toolchain,
        "cargo",
        "build",
        "--release",
        "--package",
        "sensor-ebpf",
        "--bin",
        PROGRAM,
        "--bin",
        FLOOR,
    ]);
    cargo.args(["--features", "kernel", "--target", TARGET, "-Z", "build-std=core", "--target-dir"]);
    cargo.arg(target_dir).current_dir(root);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_another_build(&name.to_string_lossy())) {
        cargo.env_remove(name);
    }
    let linker = format!("linker={}", linker.display());
    let mut flags = vec!["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C", &linker];
    let sysroot = output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]));
    let mut places = places(root, target_dir);
    places.extend(sysroot.map(|path| (PathBuf::from(path.trim()), "/rust")));
    let remap: Vec<String> = places.iter().map(|(from, to)| remapped(from, to)).collect();
    flags.extend(remap.iter().map(String::as_str));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env("RUSTC_BOOTSTRAP", "1");
    (cargo, target_dir.join(TARGET).join("release").join(PROGRAM))
}

/// What tells rustc to write another name for a directory.
#[must_use]
pub fn remapped(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

/// Whether a variable describes the build of the agent. What says how to reach registries does not.
fn is_of_another_build(name: &str) -> bool {
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    let foreign = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RUSTUP_TOOLCHAIN"];
    foreign.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

/// What a command prints, if it succeeds.
#[must_use]
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
