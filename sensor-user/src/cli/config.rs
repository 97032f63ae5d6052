//! `tokenscope config`: check the configuration, and show what is in effect.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::{Context, Failure, cards, terminal};
use crate::config::{Environment, Format, Loaded, Secrets, show};

/// Check the configuration, or show what is in effect
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope config check config.yaml
  tokenscope config show --default > config.yaml")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what is wrong with it: every error at once, with its place
    #[command(after_help = "\
Examples:
  tokenscope config check
  tokenscope config check config.yaml && systemctl reload tokenscope")]
    Check {
        /// The file [default: the one that `run` would use]
        file: Option<PathBuf>,
    },
    /// Print the whole effective configuration, commented; it reads back to the same
    #[command(after_help = "\
Examples:
  tokenscope config show
  tokenscope config show --default > config.yaml")]
    Show {
        /// Print what ships instead of what is in effect
        #[arg(long)]
        default: bool,
    },
}

pub(super) fn config(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Check { file } => check(context, file.clone().or_else(|| context.config_path())),
        Verb::Show { default } => show(context, *default),
    }
}

fn check(context: &Context, path: Option<PathBuf>) -> Result<(), Failure> {
    let loaded = context.load(path.as_deref(), Secrets::Optional).map_err(Failure::Config)?;
    warn(context, &loaded);
    let name = path.map_or("defaults".to_owned(), |path| path.display().to_string());
    Ok(terminal::answer(&format!("{}: ok\n", crate::telemetry::printable(&name)))?)
}

fn show(context: &Context, default: bool) -> Result<(), Failure> {
    if context.global.output.is_some_and(|format| !matches!(format, Format::Yaml | Format::Compact)) {
        return Err(Failure::Usage("`config show` writes YAML only".into()));
    }
    let loaded = if default {
        crate::config::load(None, &Environment::default(), cards(), Secrets::Optional)
    } else {
        context.load(context.config_path().as_deref(), Secrets::Optional)
    };
    let loaded = loaded.map_err(Failure::Config)?;
    warn(context, &loaded);
    Ok(terminal::answer(&show::yaml(&loaded.entries))?)
}

fn warn(context: &Context, loaded: &Loaded) {
    if context.global.quiet == 0 {
        terminal::complain(&loaded.warnings.render(terminal::colour_stderr(context.global.color)));
    }
}
