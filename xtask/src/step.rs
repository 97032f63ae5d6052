//! Runs the steps of a verb: one line a step with its time, output kept in a log and shown only when it matters.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::{setup, toolchain};

/// Lines of a failed step's output that are shown; the log holds all of it.
const SHOWN: usize = 80;

/// The workspace's root.
#[must_use]
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds.
#[must_use]
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Cargo, for the workspace; without the kernel half where that cannot be built.
#[must_use]
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(root());
    if !setup::is_done() {
        cargo.env(toolchain::SKIP, "1");
    }
    cargo
}

/// Prints a line and makes sure that it is seen at once.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Whether it ended well.
    pub(crate) ok: bool,
    /// All that it printed, stdout and stderr.
    pub(crate) output: String,
}

/// Runs one step and prints its line; if it failed, the end of its output too.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<Outcome> {
    let logs = target().join("xtask");
    fs::create_dir_all(&logs)?;
    let log = logs.join(format!("{}.log", name.replace(' ', "-")));
    let file = File::create(&log)?;
    let terminal = std::io::stdout().is_terminal();
    if terminal {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "  ...    {name}\r");
        let _ = out.flush();
    }
    let began = now();
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    let took = began.elapsed();
    let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let word = if status.success() { "ok" } else { "FAILED" };
    say(&format!("  {word:6} {name} ({:.1} s)", took.as_secs_f64()));
    if !status.success() {
        let lines: Vec<&str> = output.lines().collect();
        let from = lines.len().saturating_sub(SHOWN);
        say(&lines.get(from..).unwrap_or_default().join("\n"));
        say(&format!("         all of it: {}", log.display()));
    }
    Ok(Outcome { ok: status.success(), output })
}

/// A reading of the clock.
#[expect(clippy::disallowed_methods, reason = "a build tool may say how long a step took")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
