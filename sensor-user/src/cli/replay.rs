//! `tokenscope replay`: the same pipeline over capture files.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::{Context, Failure, judge, severity, terminal};
use crate::detect::Severity;
use crate::detect::user::UserRules;
use crate::runtime;
use crate::telemetry::Progress;

/// Judge capture files by the same pipeline
///
/// Reads pcap and pcapng, also compressed (.gz, .zst), and standard input as `-`. Needs no privilege. The same files
/// under the same configuration give the same output, byte for byte.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope replay capture.pcap
  tokenscope replay monday.pcapng.zst tuesday.pcapng.zst -c config.yaml -o ocsf > alerts.jsonl
  tcpdump -w - port 8080 | tokenscope replay -
  tokenscope replay capture.pcap --rules rules.d
  tokenscope replay capture.pcap --fail-on high -q || echo suspicious")]
pub(super) struct Arguments {
    /// Capture files in the order of their time; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Exit with 3 if an alert was at least this bad: low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    fail_on: Option<Severity>,
    /// Directory or file of the user's own rules; without it those of a `rules_dir` that the configuration names
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
}

pub(super) fn replay(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let loaded = context.load_for_running()?;
    let mut options = context.options(&loaded, arguments.rules.as_deref());
    let named = Some(&loaded.config.rules_dir).filter(|dir| dir.named).map(|dir| dir.path.clone());
    if let Some(path) = arguments.rules.clone().or(named) {
        let (rules, warnings) = crate::config::user::load(&[path]).map_err(Failure::Config)?;
        warnings.lines().for_each(|warning| tracing::warn!("{warning}"));
        options.rules = Arc::new(UserRules { rules, ..UserRules::default() });
    }
    let quiet = context.global.quiet > 0;
    let progress = Progress::new(!quiet && std::io::stderr().is_terminal());
    let result = runtime::replay(loaded.config, &options, &arguments.files, &progress);
    progress.finish();
    let totals = result.map_err(anyhow::Error::from)?;
    if !quiet {
        let many = if arguments.files.len() == 1 {
            "replayed 1 file".into()
        } else {
            format!("replayed {} files", arguments.files.len())
        };
        terminal::complain(&format!("{}\n", totals.summary(&many)));
    }
    judge(&totals, arguments.fail_on)
}
