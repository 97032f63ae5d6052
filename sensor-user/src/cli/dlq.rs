//! `tokenscope dlq`: events that a sink's other end refuses for good, to be looked at and sent again.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::capture::Time;
use crate::cli::{Context, Failure, terminal};
use crate::config::Secrets;
use crate::render::shown;
use crate::spool::dead::{self, Dead, Filter, Letter};
use crate::telemetry::printable;

/// Look at events that sinks refuse for good, and send them again
///
/// An event becomes a dead letter when the other end says that it will never take it, or when it could not be delivered
/// for as long as the sink's `give_up_after_s` says. Letters wait in `state.dir`, 16 MiB a sink at most. The commands work
/// while the sensor runs and while it does not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope dlq list
  tokenscope dlq replay --sink siem
  tokenscope dlq drop --sink siem 4711")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Where the sensor keeps its state [default: `state.dir` of the configuration]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// One line a letter, the oldest of a sink first: its number, when, how often tried, what, and why
    #[command(after_help = "\
Examples:
  tokenscope dlq list
  tokenscope dlq list --sink siem -o json | jq '.[].reason' | sort | uniq -c")]
    List(Which),
    /// Have letters sent again, by the sensor that runs or by the next one
    ///
    /// What is refused again is a letter again. After a crash in between some may be sent twice.
    #[command(after_help = "\
Examples:
  tokenscope dlq replay
  tokenscope dlq replay --sink siem 4711 4712")]
    Replay(Which),
    /// Forget letters: those that are numbered, those of a sink, or all
    #[command(after_help = "\
Examples:
  tokenscope dlq drop --sink siem
  tokenscope dlq drop 4711
  tokenscope dlq drop --all")]
    Drop {
        #[command(flatten)]
        which: Which,
        /// All of them
        #[arg(long, conflicts_with_all = ["sink", "numbers"])]
        all: bool,
    },
}

/// Which letters are meant.
#[derive(Debug, Args)]
struct Which {
    /// Those of this sink only
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Those of these events only, by the numbers that `list` shows
    #[arg(value_name = "NUMBER")]
    numbers: Vec<u64>,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter { sink: self.sink.clone(), numbers: self.numbers.clone() }
    }
}

pub(super) fn dlq(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("dlq")?;
    let dir = if let Some(dir) = &arguments.state_dir {
        dir.clone()
    } else {
        let loaded = context.load(context.config_path().as_deref(), Secrets::Optional);
        let dir = loaded.map_err(Failure::Config)?.config.state.dir;
        dir.ok_or_else(|| {
            Failure::Usage("the configuration keeps no state (state.dir: off); name a --state-dir".into())
        })?
    };
    let dead = Dead::open(&dir.join(dead::DIR));
    let (count, word) = match &arguments.verb {
        Verb::List(which) => return list(&dead, which, json),
        Verb::Replay(which) => (changed(which, dead.replay(&which.filter())?)?, "to be sent again"),
        Verb::Drop { which, all } => {
            if !all && which.sink.is_none() && which.numbers.is_empty() {
                return Err(Failure::Usage("name letters, a --sink, or --all".into()));
            }
            (changed(which, dead.discard(&which.filter())?)?, "dropped")
        }
    };
    let text = if json { format!("{}\n", json!({"letters": count})) } else { format!("{count} {word}\n") };
    Ok(terminal::answer(&text)?)
}

/// Who names letters wants to know that there are none.
fn changed(which: &Which, count: u64) -> Result<u64, Failure> {
    if count > 0 || which.numbers.is_empty() {
        return Ok(count);
    }
    Err(Failure::Usage("there are no such letters; `tokenscope dlq list` shows them".into()))
}

fn list(dead: &Dead, which: &Which, json: bool) -> Result<(), Failure> {
    let (mut all, mut lines) = (Vec::new(), String::new());
    let damaged = dead.each(&which.filter(), |sink, letter| {
        if json {
            all.push(object(sink, &letter));
        } else {
            line(sink, &letter, &mut lines);
        }
    })?;
    if damaged > 0 {
        tracing::warn!("{damaged} dead letters are damaged and left out");
    }
    let text = if json { format!("{:#}\n", Value::Array(all)) } else { lines };
    Ok(terminal::answer(&text)?)
}

fn stamp(ms: u64) -> String {
    shown::timestamp(Time(ms.saturating_mul(1_000_000)))
}

fn object(sink: &str, letter: &Letter) -> Value {
    json!({
        "sink": sink,
        "number": letter.event.sequence,
        "at": stamp(letter.at_ms),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "event": letter.event.value(),
    })
}

/// `siem  4711  2026-11-21T18:04:05.123Z  x1  High  alg-none  400: no such index`
fn line(sink: &str, letter: &Letter, out: &mut String) {
    let (event, reason) = (&letter.event, printable(&letter.reason));
    let rule = Some(event.rule()).filter(|rule| !rule.is_empty()).map_or_else(|| "-".to_owned(), printable);
    let severity = event.severity.as_str();
    let (number, attempts, at) = (event.sequence, letter.attempts, stamp(letter.at_ms));
    let _ = writeln!(out, "{}  {number}  {at}  x{attempts}  {severity}  {rule}  {reason}", printable(sink));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Severity;
    use crate::render::{Kind, Told};

    #[test]
    fn a_letter_is_one_line_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Dead::open(dir.path());
        let json = r#"{"finding_info":{"analytic":{"uid":"alg-none\u001b[2J"}}}"#;
        let told = Told::new(4711, 5, Severity::High, Kind::Alert, json.into());
        dead.add("siem", &told, "400: no\nsuch \x1b[2Jindex", 3, 1_795_284_245_123).unwrap();
        let letters = dead.list(&Filter::default()).unwrap();
        let mut text = String::new();
        line(&letters[0].0, &letters[0].1, &mut text);
        assert!(text.starts_with("siem  4711  2026-11-21T18:04:05.123Z  x3  High  alg-none"), "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        let shown = object(&letters[0].0, &letters[0].1);
        assert_eq!(shown["event"], *told.value());
        assert_eq!(shown["number"], 4711);
    }
}
