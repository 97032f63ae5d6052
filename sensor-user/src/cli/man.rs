//! `tokenscope man`: the manual pages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::cli::{Failure, command, terminal};

/// Print the manual page, or write the pages of all subcommands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope man | man -l -
  tokenscope man --dir /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// Write one page a subcommand into this directory instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn man(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(dir) = &arguments.dir {
        let tell = || format!("cannot write manual pages into {}", dir.display());
        std::fs::create_dir_all(dir).with_context(tell)?;
        return Ok(clap_mangen::generate_to(command(), dir).with_context(tell)?);
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command()).render(&mut text)?;
    Ok(terminal::answer(&String::from_utf8_lossy(&text))?)
}
