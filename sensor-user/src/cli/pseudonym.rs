//! `tokenscope pseudonym`: whom a pseudonym stands for, and what somebody's pseudonym is. Only who has the key is told.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{Context, Failure, terminal};
use crate::config::Secrets;
use crate::detect::text;
use crate::render::privacy::pseudonym::Pseudonyms;
use crate::telemetry::printable;
use crate::token::facts::MAX_TEXT;

/// Turn pseudonyms back into names, and names into pseudonyms
///
/// The key is the one of the configuration: `privacy.pseudonym_key`, or `privacy.fingerprint_key` without it. A sensor
/// that is told to `pseudonymise` shows no names; this is how its events are read by those who may.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope pseudonym resolve p-2h7m5vxqk3l6w4yzn7d3s5jbqgk2p4rt6uoe5ycmwzxa7fhvn3qa
  tokenscope tail --principal \"$(tokenscope pseudonym of alice)\"")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The names behind pseudonyms
    #[command(after_help = "\
Examples:
  tokenscope pseudonym resolve p-2h7m5vxqk3l6w4yzn7d3s5jbqgk2p4rt6uoe5ycmwzxa7fhvn3qa
  tokenscope pseudonym resolve -o json p-2h7m5vxqk3l6w4yzn7d3s5jbqgk2p4rt6uoe5ycmwzxa7fhvn3qa")]
    Resolve {
        /// Pseudonyms, as events show them
        #[arg(required = true, value_name = "PSEUDONYM")]
        pseudonyms: Vec<String>,
    },
    /// The pseudonyms of names
    #[command(after_help = "\
Examples:
  tokenscope pseudonym of alice bob@example.com")]
    Of {
        /// Names: the `sub` of a token, or an account, exact
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(super) fn pseudonym(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("pseudonym")?;
    let loaded = context.load(context.config_path().as_deref(), Secrets::Needed).map_err(Failure::Config)?;
    let Some(key) = loaded.config.pseudonym_key else {
        let what = "the configuration names no key: set privacy.pseudonym_key or privacy.fingerprint_key";
        return Err(Failure::Usage(what.into()));
    };
    let keys = Pseudonyms::new(&key);
    let (lines, unresolved) = match &arguments.verb {
        Verb::Of { names } => (names.iter().map(|name| of(&keys, name)).collect(), 0),
        Verb::Resolve { pseudonyms } => resolve(&keys, pseudonyms),
    };
    let text = if json {
        format!("{:#}\n", lines.iter().map(|(shown, _)| shown.clone()).collect::<Value>())
    } else {
        lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
    };
    terminal::answer(&text)?;
    if unresolved > 0 { Err(Failure::Told) } else { Ok(()) }
}

/// An answer for programs, and one for people.
type Line = (Value, String);

fn of(keys: &Pseudonyms, name: &str) -> Line {
    // As the sensor reads it: a name that is bounded and printable stays what it is.
    let name = text::printable(name.as_bytes(), MAX_TEXT);
    let pseudonym = keys.of(&name);
    (json!({"name": name, "pseudonym": pseudonym}), pseudonym)
}

fn resolve(keys: &Pseudonyms, pseudonyms: &[String]) -> (Vec<Line>, usize) {
    let mut unresolved = 0;
    let lines = pseudonyms.iter().map(|pseudonym| match keys.resolve(pseudonym) {
        Ok(name) => (json!({"pseudonym": printable(pseudonym), "name": name}), printable(&name)),
        Err(error) => {
            unresolved += 1;
            terminal::complain(&format!("error: {}: {error}\n", printable(pseudonym)));
            (json!({"pseudonym": printable(pseudonym), "error": error.to_string()}), "-".to_owned())
        }
    });
    (lines.collect(), unresolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_failures_are_counted() {
        let keys = Pseudonyms::new(b"key");
        let (_, pseudonym) = of(&keys, "alice");
        let (lines, unresolved) = resolve(&keys, &[pseudonym, "p-x".into()]);
        assert_eq!(lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(), ["alice", "-"]);
        assert_eq!((unresolved, lines[0].0["name"].as_str()), (1, Some("alice")));
    }
}
