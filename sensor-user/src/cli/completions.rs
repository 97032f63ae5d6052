//! `tokenscope completions`: completions for a shell.

use clap::Args;
use clap_complete::Shell;

use crate::cli::{Failure, command, terminal};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope completions bash > /etc/bash_completion.d/tokenscope
  tokenscope completions zsh > ~/.zfunc/_tokenscope")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn completions(arguments: &Arguments) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "tokenscope", &mut text);
    Ok(terminal::answer(&String::from_utf8_lossy(&text))?)
}
