//! `cargo xtask test`: everything that must hold before a change goes in.

use std::process::Command;

use anyhow::{Result, bail};

use crate::packages;
use crate::step::{Outcome, cargo, root, say, step, target};
use crate::tools::Tools;
use crate::vm;

/// How many tests went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs format, lints and every test; `fast` leaves out what starts servers and kernels, `all` adds what must be built
/// for it first.
///
/// # Errors
/// When a step failed.
pub(crate) fn run(fast: bool, all: bool) -> Result<()> {
    let tools = if fast {
        Tools::default()
    } else {
        packages::install("")?;
        Tools::install(all)?
    };
    let mut tally = Tally::default();
    let mut check = |outcome: &Outcome, tests: bool| {
        let found = if tests { count(&outcome.output) } else { Tally::default() };
        tally.passed += found.passed + u64::from(!tests && outcome.ok);
        tally.failed += if outcome.ok { 0 } else { found.failed.max(1) };
        tally.skipped += found.skipped;
    };
    check(&step("format", &mut cargo(&["fmt", "--all", "--check"]))?, false);
    check(&step("format of the rules", &mut format_of_rules()?)?, false);
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    check(&step("lints", &mut cargo(&lints))?, false);
    // With the features that all tests together want: what they need is then built once.
    let build: &[&str] =
        if fast { &["build", "-p", "sensor-user"] } else { &["test", "--workspace", "--no-run"] };
    let build = step("build", &mut cargo(build))?;
    check(&build, false);
    if build.ok {
        for (name, arguments) in suites(fast) {
            let outcome = step(name, tools.tell(&mut cargo(&arguments)))?;
            for line in skips(&outcome.output) {
                say(&format!("  {line}"));
            }
            check(&outcome, true);
        }
    }
    if build.ok && !fast {
        // Built with the tests. Not to measure, but so that they still can.
        let mut stages = Command::new(target().join("debug/examples/stages"));
        check(&step("micro-benchmarks, once each", &mut stages)?, false);
        let kernels = vm::matrix(&vm::Arguments::ordinary(all))?;
        tally.passed += kernels.passed;
        tally.failed += kernels.failed;
        tally.skipped += kernels.skipped;
    }
    say(&format!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped));
    if tally.failed > 0 {
        bail!("{} failed", tally.failed);
    }
    Ok(())
}

/// A macro names the files of the rules, and `cargo fmt` does not look into macros.
fn format_of_rules() -> Result<Command> {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--check", "--edition", "2024"]);
    for file in std::fs::read_dir(root().join("sensor-user/src/detect/rules"))? {
        rustfmt.arg(file?.path());
    }
    Ok(rustfmt)
}

/// The test runs. nextest is quicker and isolates tests; cargo's own runner gives the same verdicts.
fn suites(fast: bool) -> Vec<(&'static str, Vec<&'static str>)> {
    let near = ["--workspace", "--exclude", "tests", "--lib", "--bins"];
    let whole = ["--workspace"];
    let chosen: &[&str] = if fast { &near } else { &whole };
    let mut run = if packages::is_there("cargo-nextest") {
        vec!["nextest", "run", "--no-fail-fast", "--success-output", "immediate", "--failure-output", "final"]
    } else {
        vec!["test", "--no-fail-fast"]
    };
    run.extend(chosen);
    if run.first() == Some(&"test") {
        run.extend(["--", "--nocapture"]);
    }
    let mut suites = vec![(if fast { "unit tests" } else { "all tests" }, run)];
    if !fast {
        suites.push(("documentation tests", vec!["test", "--workspace", "--doc"]));
    }
    suites
}

/// The lines by which tests say that they could not run here.
fn skips(output: &str) -> Vec<&str> {
    let mut lines: Vec<&str> =
        output.lines().map(str::trim).filter(|line| line.starts_with("SKIPPED")).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Reads the summaries of either runner. nextest shows each test's own summary too, which is not to be counted twice.
fn count(output: &str) -> Tally {
    let mut tally = Tally { skipped: skips(output).len() as u64, ..Tally::default() };
    let lines = || output.lines().map(str::trim);
    let nextest = lines().any(|line| line.starts_with("Summary ["));
    let mark = if nextest { "Summary [" } else { "test result:" };
    for line in lines().filter(|line| line.starts_with(mark)) {
        tally.passed += before(line, "passed");
        tally.failed += before(line, "failed");
    }
    tally
}

/// The number before a word.
fn before(line: &str, word: &str) -> u64 {
    let clean = line.replace([',', ';'], "");
    let words: Vec<&str> = clean.split_whitespace().collect();
    let pair = words.windows(2).find(|pair| pair.last() == Some(&word));
    pair.and_then(|pair| pair.first()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_read() {
        let nextest = "     Summary [  12.3s] 12 tests run: 10 passed (1 slow), 2 failed, 3 skipped";
        let cargo = "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(count(&format!("{cargo}\n{nextest}")), Tally { passed: 10, failed: 2, skipped: 0 });
        assert_eq!(count(&format!("{cargo}\n{cargo}")), Tally { passed: 14, failed: 0, skipped: 0 });
    }

    #[test]
    fn loud_lines_are_counted_once_each() {
        let output = "    SKIPPED a: no root\nSKIPPED b: no nginx\n    SKIPPED a: no root\n";
        assert_eq!(count(output).skipped, 2);
    }
}
