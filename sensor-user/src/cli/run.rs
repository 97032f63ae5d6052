//! `tokenscope run`: capture on this host and alert.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Context, Failure, judge, severity, terminal};
use crate::config::RulesDir;
use crate::detect::Severity;
use crate::runtime;

/// Capture on this host and alert, until SIGTERM or SIGINT
///
/// Alerts go to standard output, diagnostics to standard error. SIGHUP reads the configuration again: a bad one is
/// refused and the old one stays. Needs `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN`, or root; `tokenscope doctor` tells
/// what is missing. A second sensor with the same `state.dir` is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo tokenscope run
  sudo tokenscope run -c /etc/tokenscope/config.yaml -o ocsf >> alerts.jsonl
  sudo TOKENSCOPE_CAPTURE__PORTS=8080 tokenscope run -v")]
pub(super) struct Arguments {
    /// Exit with 3 at the end if an alert was at least this bad: low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    fail_on: Option<Severity>,
    /// Directory of the user's own rules, instead of the configuration's `rules_dir`
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let mut loaded = context.load_for_running()?;
    let options = context.options(&loaded, arguments.rules.as_deref());
    if let Some(path) = arguments.rules.clone() {
        loaded.config.rules_dir = RulesDir { path, named: true };
    }
    let totals = runtime::run(&loaded.config, &options).map_err(anyhow::Error::from)?;
    if context.global.quiet == 0 {
        terminal::complain(&format!("{}\n", totals.summary("watched")));
    }
    judge(&totals, arguments.fail_on)
}
