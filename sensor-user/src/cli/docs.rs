//! docs/commands.md, made from the command line itself. A test holds the file to this text.

use std::fmt::Write as _;

use crate::cli::command;

const INTRO: &str = "\
# Commands

<!-- Generated from sensor-user/src/cli: do not edit. `BLESS=1 cargo test -p sensor-user docs` writes it anew. -->

Alerts and answers go to standard output, everything else to standard error. Exit status: 0 done; 1 failed; 2 wrong
usage or configuration; 3 `--fail-on` was met. SIGTERM and SIGINT drain and stop within five seconds; SIGHUP reads the
configuration again, and a bad one is refused while the old one stays.
";

/// The text of docs/commands.md.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(INTRO);
    let mut root = command().term_width(100);
    root.build();
    section(&mut out, &mut root, "tokenscope");
    out
}

fn section(out: &mut String, command: &mut clap::Command, path: &str) {
    let help = command.clone().bin_name(path).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(out, "\n## {path}\n\n```text\n{}\n```\n", help.join("\n").trim());
    for inner in command.get_subcommands_mut() {
        let path = format!("{path} {}", inner.get_name());
        if inner.get_name() != "help" {
            section(out, inner, &path);
        }
    }
}
