//! The direction of the data path, enforced by reading the imports.
//!
//! A stage imports only stages to its left; only capture, sink, enrich, the key fetcher and the runtime do I/O;
//! pure stages read no clock. What stands below `#[cfg(test)]` may do as it likes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The stages from left to right.
const STAGES: [&str; 9] =
    ["capture", "reassembly", "http", "token", "detect", "alert", "render", "spool", "sink"];

/// What any stage may use besides those to its left.
const FREE: [&str; 1] = ["telemetry"];

/// Modules that sit above the stages: no stage may know them.
const ABOVE: [&str; 8] = ["config", "cli", "pipeline", "runtime", "enrich", "store", "deliver", "control"];

/// Stages that take time from the data and touch nothing outside.
const PURE: [&str; 5] = ["reassembly", "http", "token", "detect", "alert"];

/// Parts of pure stages that do I/O by design, as path prefixes.
const EXEMPT: [&str; 2] = ["token/ask", "token/fetch"];

/// Names that betray I/O or a clock.
const IMPURE: [&str; 12] = [
    "SystemTime",
    "Instant::now",
    "std::fs",
    "std::thread::spawn",
    "std::process",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "tokio::",
    "reqwest::",
    "println!",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// A source file: its path below `src`, the module it belongs to, and its code without tests and comments.
struct Source {
    path: String,
    module: String,
    code: String,
}

fn read_all() -> Result<Vec<Source>> {
    let root = tests::workspace().join("sensor-user/src");
    let mut files = Vec::new();
    sources(&root, &mut files)?;
    let mut all = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        let module = path.split(['/', '.']).next().unwrap_or_default().to_owned();
        let text = fs::read_to_string(&file)?;
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        // A file that is compiled for tests only.
        let only_tests = path.ends_with("tests.rs") || path.contains("/tests/");
        let code = if only_tests {
            String::new()
        } else {
            code.lines().filter(is_code).collect::<Vec<_>>().join("\n")
        };
        all.push(Source { path, module, code });
    }
    Ok(all)
}

/// The modules that some code names as `crate::module` or inside `crate::{...}`.
fn imports(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in code.split("crate::").skip(1) {
        let list = part.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or(part);
        let items = if part.starts_with('{') { list.split(',').collect() } else { vec![list] };
        for item in items {
            let name: String =
                item.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            names.push(name);
        }
    }
    names
}

#[test]
fn stages_import_only_stages_to_their_left() -> Result<()> {
    let mut wrong = Vec::new();
    for source in read_all()? {
        let Some(place) = STAGES.iter().position(|stage| *stage == source.module) else { continue };
        for import in imports(&source.code) {
            let right = STAGES.iter().position(|stage| *stage == import).is_some_and(|at| at > place);
            let above = ABOVE.contains(&import.as_str()) && !FREE.contains(&import.as_str());
            if right || above {
                wrong.push(format!("{} imports crate::{import}", source.path));
            }
        }
    }
    ensure!(wrong.is_empty(), "against the direction of the data:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn pure_stages_do_no_io_and_read_no_clock() -> Result<()> {
    let mut wrong = Vec::new();
    for source in read_all()? {
        let pure = PURE.contains(&source.module.as_str()) || source.module == "pipeline";
        if !pure || EXEMPT.iter().any(|exempt| source.path.starts_with(exempt)) {
            continue;
        }
        for name in IMPURE.iter().filter(|name| source.code.contains(**name)) {
            wrong.push(format!("{} uses {name}", source.path));
        }
    }
    ensure!(wrong.is_empty(), "a pure stage reaches outside:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn unsafe_code_is_in_the_kernel_source_only() -> Result<()> {
    let with_unsafe = |source: &Source| source.code.contains("unsafe {") || source.code.contains("unsafe fn");
    let wrong: Vec<String> = read_all()?
        .iter()
        .filter(|source| with_unsafe(source) && !source.path.starts_with("capture/ebpf"))
        .map(|source| source.path.clone())
        .collect();
    ensure!(wrong.is_empty(), "unsafe outside capture::ebpf: {wrong:?}");
    Ok(())
}

#[test]
fn every_file_says_what_it_is_for() -> Result<()> {
    let root = tests::workspace();
    let mut files = Vec::new();
    for dir in ["sensor-user/src", "sensor-ebpf/src", "xtask/src", "tests/src", "tests/tests"] {
        sources(&root.join(dir), &mut files)?;
    }
    for file in files {
        let text = fs::read_to_string(&file)?;
        ensure!(text.starts_with("//!"), "{} has no //! at its top", file.display());
    }
    Ok(())
}

#[test]
fn no_file_grows_past_reading() -> Result<()> {
    let mut files = Vec::new();
    for dir in ["sensor-user/src", "sensor-ebpf/src", "xtask/src", "tests/src", "tests/tests"] {
        sources(&tests::workspace().join(dir), &mut files)?;
    }
    for file in files {
        let lines = fs::read_to_string(&file)?.lines().count();
        ensure!(
            lines <= 800,
            "{} has {lines} lines; split it where a reader would want a door",
            file.display()
        );
    }
    Ok(())
}

#[test]
fn imports_are_found_in_every_spelling() {
    let code = "use crate::http::Exchange;\nuse crate::{alert, sink::Sink};\nlet x = crate::token::Token;";
    assert_eq!(imports(code), ["http", "alert", "sink", "token"]);
}
