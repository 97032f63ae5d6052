//! `tokenscope trace`: where a token, its id, a principal or an address was used.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::{Context, Failure, now, terminal};
use crate::config::{Config, Secrets};
use crate::control::filter::time;
use crate::runtime;
use crate::store::trace::{MOST, Reader, TOP, TraceError, What, Window, text};
use crate::token::hash::Namer;

/// Longest token that is read, in bytes: no head holds a longer one.
const MAX_TOKEN: usize = 64 << 10;

/// Say where a token, its id, a principal or an address was used
///
/// First and last use, requests, bytes, answers, services, routes, addresses, principals, tokens and alerts: what has to
/// be known of a token that leaked. Reads the store of this host, whether a sensor runs or not; the newest uses are in it
/// after ten seconds. A raw token is read from standard input only, so that no shell history and no process list has it,
/// and is wiped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope trace 9f2c41d0a7b3e865
  tokenscope trace - < leaked-token.txt
  tokenscope trace jti:5b0ff1f4-2f0b-4b8e-9d8f-6f1f6f3a8a10
  tokenscope trace alice@shop.example --since 30d -o json
  tokenscope trace 203.0.113.0/24 --since 2026-11-20")]
pub(super) struct Arguments {
    /// A fingerprint or its start, `jti:ID`, an address or network, or a principal; `-` is a raw token on standard input
    #[arg(value_name = "WHAT")]
    what: String,
    /// Only this issuer's principal
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Only later uses: 90s, 10m, 2h, 30d, a day or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only earlier uses
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Items of each list
    #[arg(long, value_name = "NUMBER", default_value_t = TOP)]
    top: usize,
    /// Where the sensor keeps its state [default: `state.dir` of the configuration]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn trace(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("trace")?;
    refuse_raw(&arguments.what)?;
    if !(1..=MOST).contains(&arguments.top) {
        return Err(Failure::Usage(format!("--top is from 1 to {MOST}")));
    }
    let (config, dir) = state(context, arguments.state_dir.as_deref())?;
    let what = if arguments.what == "-" {
        What::Token(name(&config, &raw_token()?)?)
    } else {
        of_issuer(What::parse(&arguments.what), arguments.issuer.as_deref())?
    };
    let window = window(arguments)?;
    let reader = Reader::open(&dir, runtime::veil(&config)).map_err(explained)?;
    let trace = reader.trace(&what, window, arguments.top).map_err(explained)?;
    let answer = if json {
        let value = serde_json::to_value(&trace).map_err(anyhow::Error::from)?;
        format!("{value:#}\n")
    } else {
        text::compact(&trace)
    };
    Ok(terminal::answer(&answer)?)
}

/// The configuration with the key of fingerprints, and where the state is.
pub(super) fn state(context: &Context, dir: Option<&Path>) -> Result<(Config, PathBuf), Failure> {
    let loaded = context.load(context.config_path().as_deref(), Secrets::Needed).map_err(Failure::Config)?;
    let mut config = loaded.config;
    let dir = dir.map(Path::to_owned).or_else(|| config.state.dir.clone()).ok_or_else(|| {
        Failure::Usage("the configuration keeps no state (state.dir: off); name a --state-dir".into())
    })?;
    if config.tokens.fingerprint_key.is_none() {
        let path = dir.join(crate::store::KEY);
        config.tokens.fingerprint_key = crate::store::read_key(&dir).map_err(|error| {
            anyhow::anyhow!("cannot read the key of fingerprints in {}: {error}", path.display())
        })?;
    }
    Ok((config, dir))
}

/// A raw token as an argument is in the shell's history and in the list of processes by now.
fn refuse_raw(what: &str) -> Result<(), Failure> {
    let text = what.trim();
    let is_jwt = text.starts_with("eyJ") && text.contains('.');
    if is_jwt || text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        return Err(Failure::Usage(
            "this is a raw token, and arguments end up in shell histories and process lists: treat it as leaked, and \
             give it on standard input: tokenscope trace - < FILE"
                .into(),
        ));
    }
    Ok(())
}

/// The token on standard input.
fn raw_token() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        terminal::complain("paste the token, then end the input with Ctrl-D:\n");
    }
    // All of it at once: a vector that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TOKEN + 2));
    stdin.lock().take(MAX_TOKEN as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_TOKEN {
        return Err(Failure::Usage(format!("a token has {MAX_TOKEN} bytes at most")));
    }
    Ok(bytes)
}

/// The fingerprint of a token, which may be as it stood in a header.
fn name(config: &Config, raw: &[u8]) -> Result<String, Failure> {
    let mut words = raw.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let is_scheme = |word: &&[u8]| word.eq_ignore_ascii_case(b"bearer");
    let token = match (words.next(), words.next(), words.next()) {
        (Some(token), None, None) if !is_scheme(&token) => Some(token),
        (Some(scheme), Some(token), None) if is_scheme(&scheme) => Some(token),
        _ => None,
    };
    let Some(token) = token else {
        return Err(Failure::Usage("standard input must hold one token and nothing else".into()));
    };
    let key = config.tokens.fingerprint_key.as_ref().ok_or_else(|| {
        Failure::Usage(
            "there is no key of fingerprints: the sensor has not run here, or keeps no state".into(),
        )
    })?;
    let namer = Namer::new(Some(key)).map_err(anyhow::Error::from)?;
    Ok(namer.name(token).to_string())
}

fn of_issuer(what: What, of: Option<&str>) -> Result<What, Failure> {
    match (what, of) {
        (What::Principal { subject, .. }, Some(of)) => {
            Ok(What::Principal { subject, issuer: Some(of.to_owned()) })
        }
        (_, Some(_)) => Err(Failure::Usage("--issuer is for principals".into())),
        (what, None) => Ok(what),
    }
}

fn window(arguments: &Arguments) -> Result<Window, Failure> {
    let read = |flag: &str, text: &Option<String>, none: u64| match text {
        None => Ok(none),
        Some(text) => time(text, now()).ok_or_else(|| {
            Failure::Usage(format!(
                "{flag}: it is no time; say 10m, 2h, 30d, 2026-11-21 or 2026-11-21T18:00:00Z"
            ))
        }),
    };
    let from_ms = read("--since", &arguments.since, Window::EVER.from_ms)?;
    let until_ms = read("--until", &arguments.until, Window::EVER.until_ms)?;
    if from_ms > until_ms {
        return Err(Failure::Usage("--since is later than --until".into()));
    }
    Ok(Window { from_ms, until_ms })
}

fn explained(error: TraceError) -> Failure {
    match error {
        TraceError::Ambiguous(_) | TraceError::NoFingerprint => Failure::Usage(error.to_string()),
        error => Failure::Failed(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_tokens_are_no_arguments() {
        for raw in ["eyJhbGciOiJub25lIn0.e30.", " eyJhbGciOiJub25lIn0.e30.x", "Bearer abc", "bearer é"] {
            assert!(matches!(refuse_raw(raw), Err(Failure::Usage(why)) if !why.contains("eyJ")), "{raw}");
        }
        for other in ["alice", "9f2c41d0a7b3e865", "10.0.0.0/8", "-", "jti:eyJ", "eyJustAName"] {
            assert!(refuse_raw(other).is_ok(), "{other}");
        }
    }

    #[test]
    fn a_token_is_named_as_the_sensor_names_it() {
        let mut config = crate::config::shipped(crate::cli::cards()).unwrap().config;
        assert!(name(&config, b"abc").is_err(), "without a key");
        config.tokens.fingerprint_key = Some(Zeroizing::new(b"0123456789abcdef".to_vec()));
        let named = Namer::new(Some(b"0123456789abcdef")).unwrap().name(b"a.b.c").to_string();
        for raw in [&b"a.b.c"[..], b"a.b.c\n", b"  Bearer a.b.c\r\n", b"bearer  a.b.c"] {
            assert_eq!(name(&config, raw).ok(), Some(named.clone()));
        }
        for wrong in [&b""[..], b"  ", b"a b", b"Bearer ", b"Authorization: Bearer a"] {
            assert!(name(&config, wrong).is_err());
        }
    }
}
