//! The command line: what users type, and what they get back. One file a subcommand.
//!
//! Exit statuses: 0 done; 1 failed; 2 wrong usage or configuration; 3 `--fail-on` was met. Alerts and answers go to
//! standard output, everything else to standard error. A reader that goes away (EPIPE) is no error.

mod alerts;
mod completions;
mod config;
mod control;
mod dlq;
pub mod docs;
mod doctor;
mod man;
mod observe;
mod pseudonym;
mod query;
mod replay;
mod rules;
mod run;
mod sinks;
mod tail;
mod terminal;
mod top;
mod trace;
mod user_rules;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::capture::Time;
use crate::config::{Environment, Format, Loaded, Report, RulesDir, Secrets};
use crate::detect::{About, Severity};
use crate::runtime::Options;
use crate::telemetry::Totals;
use crate::telemetry::logs;

/// The configuration that is used if it exists and none is named.
const DEFAULT_CONFIG: &str = "/etc/tokenscope/config.yaml";

/// Watches HTTP at the sockets of this host, judges the bearer tokens in it and alerts on those that are forged,
/// stolen or misused.
#[derive(Debug, Parser)]
#[command(
    name = "tokenscope",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  tokenscope doctor                            can this host run it?
  sudo tokenscope run                          watch this host
  tokenscope replay capture.pcap -o json       judge a capture file

Exit status: 0 done; 1 failed; 2 wrong usage or configuration; 3 --fail-on was met.
Every key of the configuration can also be set by a variable: TOKENSCOPE_CAPTURE__PORTS=80,8080."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every subcommand.
#[derive(Debug, Args)]
struct Global {
    /// Configuration file [default: /etc/tokenscope/config.yaml if it exists]
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "TOKENSCOPE_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// How to write [default: compact on a terminal, ocsf otherwise]
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        env = "TOKENSCOPE_OUTPUT",
        hide_env_values = true
    )]
    output: Option<Format>,
    /// Whether to colour; `NO_COLOR` is obeyed
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        env = "TOKENSCOPE_COLOR",
        hide_env_values = true
    )]
    color: Color,
    /// Say more on standard error; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say less on standard error; twice: errors only
    #[arg(short, long, global = true, action = ArgAction::Count)]
    quiet: u8,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Replay(replay::Arguments),
    Tail(tail::Arguments),
    Observe(observe::Arguments),
    Top(top::Arguments),
    Trace(trace::Arguments),
    Query(query::Arguments),
    Rules(rules::Arguments),
    Alerts(alerts::Arguments),
    Sinks(sinks::Arguments),
    Dlq(dlq::Arguments),
    Pseudonym(pseudonym::Arguments),
    Config(config::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Why a subcommand did not succeed.
#[derive(Debug)]
enum Failure {
    /// The configuration is wrong: 2.
    Config(Report),
    /// The usage is wrong: 2.
    Usage(String),
    /// Something else went wrong: 1.
    Failed(anyhow::Error),
    /// It has said so itself: 1.
    Told,
    /// `--fail-on` was met: 3.
    Met,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// What every subcommand gets.
struct Context {
    global: Global,
    environment: Environment,
}

impl Context {
    /// The file that holds the configuration, if there is one.
    fn config_path(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
        self.global.config.clone().or_else(default)
    }

    /// The configuration, from this file.
    fn load(&self, path: Option<&Path>, secrets: Secrets) -> Result<Loaded, Report> {
        crate::config::load(path, &self.environment, cards(), secrets)
    }

    /// The configuration for the runtime; warnings go to the log.
    fn load_for_running(&self) -> Result<Loaded, Failure> {
        let loaded = self.load(self.config_path().as_deref(), Secrets::Needed).map_err(Failure::Config)?;
        for warning in loaded.warnings.lines() {
            tracing::warn!("{warning}");
        }
        Ok(loaded)
    }

    /// The runtime's options. A flag beats the configuration, which beats what the terminal suggests.
    fn options(&self, loaded: &Loaded, rules: Option<&Path>) -> Options {
        let path = self.config_path();
        let environment = self.environment.clone();
        let default = if terminal::stdout_is_terminal() { Format::Compact } else { Format::Ocsf };
        let rules = rules.map(Path::to_owned);
        let reload = move || {
            let loaded = crate::config::load(path.as_deref(), &environment, cards(), Secrets::Needed)?;
            let mut config = loaded.config;
            if let Some(rules) = &rules {
                config.rules_dir = RulesDir { path: rules.clone(), named: true };
            }
            Ok(config)
        };
        Options {
            format: self.global.output.or(loaded.config.stdout.output).unwrap_or(default).into(),
            colour: terminal::colour_stdout(self.global.color),
            rules: Arc::default(),
            reload: Box::new(reload),
            take_over: false,
            watch: None,
        }
    }

    /// Whether an answer is asked for as JSON.
    fn wants_json(&self, command: &str) -> Result<bool, Failure> {
        match self.global.output {
            None | Some(Format::Compact) => Ok(false),
            Some(Format::Json) => Ok(true),
            Some(_) => Err(Failure::Usage(format!("`{command}` answers as compact or json only"))),
        }
    }
}

/// The cards of every rule that there is.
#[must_use]
pub fn cards() -> &'static [&'static About] {
    crate::detect::rules::catalogue()
}

/// Whether the worst alert is at least as bad as what `--fail-on` names.
fn judge(totals: &Totals, fail_on: Option<Severity>) -> Result<(), Failure> {
    let order = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let worst = order
        .into_iter()
        .zip(totals.alerts)
        .filter(|(_, count)| *count > 0)
        .map(|(severity, _)| severity)
        .max();
    match (worst, fail_on) {
        (Some(worst), Some(limit)) if worst >= limit => Err(Failure::Met),
        _ => Ok(()),
    }
}

/// Reads a severity, for clap.
fn severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| "it must be low, medium, high or critical".into())
}

/// What time it is for whoever types: `--since 10m` is by their clock.
#[allow(clippy::disallowed_methods, reason = "people mean their own clock")]
fn now() -> Time {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    main_with(std::env::args_os(), Environment::of_process())
}

fn main_with(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output and is no failure; a reader that goes away is none either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let colour = terminal::colour_stderr(cli.global.color);
    logs::init(logs::Level::of(cli.global.verbose, cli.global.quiet), colour);
    let context = Context { global: cli.global, environment };
    let result = match cli.command {
        Command::Run(arguments) => run::run(&context, &arguments),
        Command::Replay(arguments) => replay::replay(&context, &arguments),
        Command::Tail(arguments) => tail::tail(&context, &arguments),
        Command::Observe(arguments) => observe::observe(&context, &arguments),
        Command::Top(arguments) => top::top(&context, &arguments),
        Command::Trace(arguments) => trace::trace(&context, &arguments),
        Command::Query(arguments) => query::query(&context, &arguments),
        Command::Rules(arguments) => rules::rules(&context, &arguments),
        Command::Alerts(arguments) => alerts::alerts(&context, &arguments),
        Command::Sinks(arguments) => sinks::sinks(&context, &arguments),
        Command::Dlq(arguments) => dlq::dlq(&context, &arguments),
        Command::Pseudonym(arguments) => pseudonym::pseudonym(&context, &arguments),
        Command::Config(arguments) => config::config(&context, &arguments),
        Command::Doctor(arguments) => doctor::doctor(&context, &arguments),
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man(arguments) => man::man(&arguments),
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    tell(&failure, colour)
}

fn tell(failure: &Failure, colour: bool) -> ExitCode {
    match failure {
        Failure::Config(report) => terminal::complain(&report.render(colour)),
        Failure::Usage(message) => terminal::complain(&format!("error: {message}\n")),
        Failure::Failed(error) if terminal::is_broken_pipe(error) => return ExitCode::SUCCESS,
        Failure::Failed(error) => terminal::complain(&format!("error: {error:#}\n")),
        Failure::Told | Failure::Met => {}
    }
    ExitCode::from(match failure {
        Failure::Config(_) | Failure::Usage(_) => 2,
        Failure::Failed(_) | Failure::Told => 1,
        Failure::Met => 3,
    })
}

/// The description of the whole command line.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn fails_on_what_is_bad_enough() {
        let totals = Totals { alerts: [3, 0, 1, 0], ..Totals::default() };
        assert!(matches!(judge(&totals, Some(Severity::High)), Err(Failure::Met)));
        assert!(judge(&totals, Some(Severity::Critical)).is_ok());
        assert!(judge(&totals, None).is_ok());
        assert!(judge(&Totals::default(), Some(Severity::Low)).is_ok());
    }
}
