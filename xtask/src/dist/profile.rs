//! Which way the program usually goes: counts of its branches under load, which the compiler lays code out by
//! (profile-guided optimisation), and `cargo xtask train`, which takes them.
//!
//! They are part of the source, made by hand and not by each build: two runs never count the same, and images of one commit
//! must not differ. Functions are known by names that depend on the compiler, the machine, features and the release profile:
//! after a change of one of these no count fits any more, and the build says so. A function that was changed is compiled
//! without counts until the next training.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Arch, agent, ask, home};
use crate::packages::{self, is_there};
use crate::step::{root, say, step};
use crate::{lab, setup};

/// What a build is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be handed out, or measured: with the counts that there are.
    Use,
    /// To take counts.
    Train,
}

/// What the program is shown, by the lab's words: a busy server, long captures, and traffic with attacks on every rule.
const LESSONS: [(&str, &[&str]); 3] = [
    ("learn from a busy server", &["bench", "--quick", "--live"]),
    ("learn from captures", &["bench", "--quick", "--offline"]),
    ("learn from labelled traffic", &["quality", "--seeds", "1", "--attacks", "2", "--million", "0.1"]),
];

/// Files that counts go to while many processes run: those of one number are added up by whoever ends.
const COUNTS: &str = "%4m.profraw";

/// How many of the busiest functions are noted by name. Most are merged into others; a few remain.
const NOTED: &str = "64";

/// Where the counts for a machine are, below the workspace's root.
pub(super) fn name(arch: Arch) -> String {
    format!("sensor-user/profile/{}.profdata", arch.target())
}

/// The counts for a machine, if they were ever taken.
pub(super) fn of(arch: Arch) -> Option<PathBuf> {
    Some(root().join(name(arch))).filter(|file| file.is_file())
}

/// The names of the busiest functions, one a line.
fn noted(arch: Arch) -> PathBuf {
    root().join(name(arch)).with_extension("busiest")
}

/// Says so if counts were there and none of the functions that they tell of is in the program, which is not stripped.
///
/// # Errors
/// When its symbols cannot be read.
pub(super) fn check(arch: Arch, program: &Path) -> Result<()> {
    if of(arch).is_none() {
        say(&format!("  no counts of branches for {}: the compiler guesses them", arch.name()));
        return Ok(());
    }
    let busiest = fs::read_to_string(noted(arch)).context("the names of the busiest functions")?;
    if !any_is_in(&busiest, &ask(&arch.tool("nm"), &[&program.to_string_lossy()])?) {
        say(&format!("COUNTS WITHOUT USE: {} tells of other functions; cargo xtask train", name(arch)));
    }
    Ok(())
}

/// Whether one of these names, a line each, is a symbol in what `nm` says.
fn any_is_in(names: &str, symbols: &str) -> bool {
    let symbols: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    names.lines().any(|name| symbols.contains(name))
}

/// Takes counts for this machine, and leaves them in the source.
///
/// # Errors
/// When a tool is missing, the build fails, or a lesson does.
pub(crate) fn train() -> Result<()> {
    setup::ensure()?;
    packages::install(lab::LIVE)?;
    let arch = Arch::here();
    let tool = profdata().context(
        "llvm-profdata is missing: rustup component add llvm-tools, or apt-get install llvm of rustc's own version",
    )?;
    let program = agent::build(arch, Purpose::Train, &[])?.0;
    let lab = lab::build()?;
    let dir = home().join("training").join("counts");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    for (what, words) in LESSONS {
        let mut lesson = Command::new(&lab);
        lesson.args(words).env("TOKENSCOPE_BIN", &program).env("LLVM_PROFILE_FILE", dir.join(COUNTS));
        if !step(what, &mut lesson)?.ok {
            bail!("lab {} failed", words.join(" "));
        }
    }
    let file = root().join(name(arch));
    fs::create_dir_all(file.parent().unwrap_or(root()))?;
    let (counts, merged) = (dir.to_string_lossy(), file.to_string_lossy());
    ask(&tool, &["merge", "--sparse", "--output", &merged, &counts])?;
    fs::write(noted(arch), busiest(&ask(&tool, &["show", "--topn", NOTED, &merged])?))?;
    say(&merged);
    Ok(())
}

/// The names in a list of functions by their counts, a line each; those of one module are written behind its name.
fn busiest(shown: &str) -> String {
    let counted = shown.lines().filter_map(|line| line.trim().split_once(", max count = "));
    counted.filter_map(|(name, _)| name.rsplit(';').next()).flat_map(|name| [name, "\n"]).collect()
}

/// The tool that adds up counts, of the compiler's own LLVM or a later one.
fn profdata() -> Option<String> {
    let libraries = ask("rustc", &["--print", "target-libdir"]).ok()?;
    let own = Path::new(libraries.trim()).with_file_name("bin").join("llvm-profdata");
    let version = ask("rustc", &["--version", "--verbose"]).ok()?;
    let llvm = setup::llvm_in(&version)?;
    let system = (llvm..llvm + 3).map(|llvm| format!("{}/bin/llvm-profdata", setup::prefix(llvm)));
    std::iter::once(own.to_string_lossy().into_owned()).chain(system).find(|tool| is_there(tool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_functions_are_known_by_their_symbols() {
        let shown = "Total functions: 9\nTop 2 functions with the largest internal block counts: \n  \
                     a.1-cgu.0;_ZN1a1b17hE, max count = 23\n  _ZN1c1d17hE, max count = 9\n";
        assert_eq!(busiest(shown), "_ZN1a1b17hE\n_ZN1c1d17hE\n");
        assert_eq!(busiest(""), "");
    }

    #[test]
    fn counts_fit_a_program_that_has_one_of_the_functions() {
        let symbols = "0000000000401000 t _ZN1c1d17hE\n                 U malloc\n";
        assert!(any_is_in("_ZN1a1b17hE\n_ZN1c1d17hE\n", symbols));
        assert!(!any_is_in("_ZN1c1d\n", symbols) && !any_is_in("", symbols));
    }

    #[test]
    fn counts_and_the_names_of_the_busiest_functions_lie_together() {
        for arch in [Arch::Amd64, Arch::Arm64] {
            assert_eq!(of(arch).is_some(), noted(arch).is_file(), "{arch:?}");
        }
        assert!(of(Arch::Amd64).is_some());
    }
}
