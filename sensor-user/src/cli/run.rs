//! `tokenscope run`: capture on this host and alert.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Context, Failure, judge, severity, terminal};
use crate::config::RulesDir;
use crate::detect::Severity;
use crate::runtime::{self, ConfigFile};

/// Capture on this host and alert, until SIGTERM or SIGINT
///
/// Alerts go to standard output, diagnostics to standard error. SIGHUP reads the configuration again, and so does a
/// change of its file with `--watch-config`: a bad one is refused and the old one stays. Needs `CAP_BPF`, `CAP_PERFMON`
/// and `CAP_NET_ADMIN`, or root; `tokenscope doctor` tells what is missing. A second sensor with the same `state.dir` is
/// refused, unless it is to take over.
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
    /// Look at the configuration file every two seconds, and take a change over as if by SIGHUP
    #[arg(long)]
    watch_config: bool,
    /// If another sensor uses the state directory, wait beside it and go on where it stops: an upgrade without a gap
    #[arg(long)]
    take_over: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    // Looked at before it is read: a change in between is noticed.
    let watch = watched(context, arguments);
    let mut loaded = context.load_for_running()?;
    let mut options = context.options(&loaded, arguments.rules.as_deref());
    options.watch = watch;
    options.take_over = arguments.take_over;
    if let Some(path) = arguments.rules.clone() {
        loaded.config.rules_dir = RulesDir { path, named: true };
    }
    let totals = runtime::run(&loaded.config, &options).map_err(anyhow::Error::from)?;
    if context.global.quiet == 0 {
        terminal::complain(&format!("{}\n", totals.summary("watched")));
    }
    judge(&totals, arguments.fail_on)
}

/// The file to look at, if that is wanted.
fn watched(context: &Context, arguments: &Arguments) -> Option<ConfigFile> {
    if !arguments.watch_config {
        return None;
    }
    let path = context.config_path();
    if path.is_none() {
        tracing::warn!("there is no configuration file, so that --watch-config has nothing to look at");
    }
    path.as_deref().map(ConfigFile::new)
}
