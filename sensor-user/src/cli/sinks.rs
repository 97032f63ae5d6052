//! `tokenscope sinks`: which sinks are configured, and whether they work.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::capture::Time;
use crate::cli::{Context, Failure, severity, terminal};
use crate::config::Config;
use crate::detect::Severity;
use crate::render::Told;
use crate::runtime;
use crate::sink::{self, Outcome, Settings, trial};

/// List the configured sinks, or send one a sample
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope sinks list
  tokenscope sinks test slack
  tokenscope sinks test pager --severity critical")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the configured sinks and what each gets
    #[command(after_help = "\
Examples:
  tokenscope sinks list
  tokenscope sinks list -o json | jq '.[].name'")]
    List,
    /// Send a sample that says so, and show the answer
    ///
    /// It goes straight to the sink, past the spool, quiet hours and what the sink picks. Nothing of a running sensor
    /// changes.
    #[command(after_help = "\
Examples:
  tokenscope sinks test slack
  tokenscope sinks test pager --severity critical --incident")]
    Test {
        /// The sink's name
        name: String,
        /// How severe the sample is: low, medium, high, critical
        #[arg(long, value_name = "SEVERITY", value_parser = severity, default_value = "low")]
        severity: Severity,
        /// Send an incident that begins and one that ends instead of an alert
        #[arg(long)]
        incident: bool,
    },
}

pub(super) fn sinks(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("sinks")?;
    let config = context.load_for_running()?.config;
    match &arguments.verb {
        Verb::List => {
            let text = if json { listed(&config) } else { lines(&config.sinks) };
            Ok(terminal::answer(&text)?)
        }
        Verb::Test { name, severity, incident } => {
            let settings = find(&config.sinks, name)?;
            let told = samples(&config, *severity, *incident);
            let (taken, answer, took) = test(&config, settings, &told)?;
            let text = if json {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                format!("{}\n", json!({"sink": name, "taken": taken, "answer": answer, "took_ms": took_ms}))
            } else {
                let word = if taken { "ok" } else { "failed" };
                format!("{word}  {name}  {answer}  {:.0} ms\n", took.as_secs_f64() * 1000.0)
            };
            terminal::answer(&text)?;
            if taken { Ok(()) } else { Err(Failure::Told) }
        }
    }
}

fn find<'a>(sinks: &'a [Settings], name: &str) -> Result<&'a Settings, Failure> {
    sinks.iter().find(|settings| settings.name == name).ok_or_else(|| {
        let names: Vec<&str> = sinks.iter().map(|settings| settings.name.as_str()).collect();
        Failure::Usage(match names.as_slice() {
            [] => "no sink is configured: add one under `sinks` in the configuration".to_owned(),
            names => format!("there is no sink `{name}`; there are {}", names.join(", ")),
        })
    })
}

#[allow(clippy::disallowed_methods, reason = "a sample is of now")]
fn samples(config: &Config, severity: Severity, incident: bool) -> Vec<Arc<Told>> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    let node = runtime::node(config);
    let all = if incident {
        vec![trial::incident(&node, severity, now, false), trial::incident(&node, severity, now, true)]
    } else {
        vec![trial::alert(&node, severity, now)]
    };
    all.into_iter().map(Arc::new).collect()
}

/// Whether the sink took them, what the other end said, and how long it took.
#[allow(clippy::disallowed_methods, reason = "people want to know how long it took")]
fn test(
    config: &Config,
    settings: &Settings,
    told: &[Arc<Told>],
) -> Result<(bool, String, Duration), Failure> {
    let unusable = |why: sink::Unusable| anyhow::anyhow!("sink {}: {why}", settings.name);
    let mut sink = sink::open(&settings.target, &runtime::node(config)).map_err(unusable)?;
    let events = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = std::time::Instant::now();
    let most = sink.batch().events.max(1);
    let mut last = (true, String::new());
    for batch in told.chunks(most) {
        let deliver = async { tokio::time::timeout(settings.timeout, sink.deliver(batch)).await };
        last = match events.block_on(deliver) {
            Ok(Outcome::Done { refused, answer }) => match refused.into_iter().next() {
                None => (true, answer.to_string()),
                Some(refusal) => (false, format!("refused: {}", refusal.reason)),
            },
            Ok(Outcome::Later { reason, after: None }) => (false, reason.to_string()),
            Ok(Outcome::Later { reason, after: Some(after) }) => {
                (false, format!("{reason}; it asks to wait {} s", after.as_secs()))
            }
            Err(_elapsed) => (false, format!("no answer within {:.1} s", settings.timeout.as_secs_f64())),
        };
        if !last.0 {
            break;
        }
    }
    let took = began.elapsed();
    events.shutdown_background();
    Ok((last.0, last.1, took))
}

/// `slack  http  high, critical  alerts, incidents`
fn lines(sinks: &[Settings]) -> String {
    let mut out = String::new();
    for settings in sinks {
        let kinds = kinds(settings).join(", ");
        let _ = writeln!(
            out,
            "{}  {}  {}  {kinds}",
            settings.name,
            settings.target.kind(),
            severities(settings).join(", ")
        );
    }
    out
}

fn listed(config: &Config) -> String {
    let one = |settings: &Settings| {
        json!({
            "name": settings.name,
            "type": settings.target.kind(),
            "severities": severities(settings),
            "kinds": kinds(settings),
            "rules": settings.picks.rules,
            "not_rules": settings.picks.not_rules,
            "namespaces": settings.picks.namespaces,
            "labels": settings.picks.labels,
        })
    };
    format!("{:#}\n", config.sinks.iter().map(one).collect::<serde_json::Value>())
}

fn severities(settings: &Settings) -> Vec<&'static str> {
    let names = ["low", "medium", "high", "critical"];
    names
        .into_iter()
        .zip(settings.picks.severities)
        .filter(|(_, picked)| *picked)
        .map(|(name, _)| name)
        .collect()
}

fn kinds(settings: &Settings) -> Vec<&'static str> {
    let both = [("alerts", settings.picks.alerts), ("incidents", settings.picks.incidents)];
    both.into_iter().filter(|(_, picked)| *picked).map(|(name, _)| name).collect()
}
