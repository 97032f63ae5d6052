//! `tokenscope doctor`: can this host run the sensor? One line a check, and the remedy.

mod cluster;

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use crate::capture::ebpf::{self, Status};
use crate::cli::{Context, Failure, terminal};
use crate::config::{Config, Secrets};
use crate::store::examine::{Found, examine};
use crate::telemetry::printable;
use crate::token::settings::{Issuer, KeySource};

/// How long a host of keys may take to be reached, name look-up included.
const REACH: Duration = Duration::from_secs(3);
/// Years in which a clock is believed: from this version's on.
const YEARS: std::ops::Range<u64> = 2025..2100;
/// Difference between the system's clock and the hardware's that is told, in seconds.
const DRIFT: u64 = 60;

/// Say whether this host can run the sensor, and what to do if not
///
/// Really loads and attaches the kernel programs, for a moment, where it may.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo tokenscope doctor
  sudo tokenscope doctor -o json

Exit status: 0 if nothing failed, 1 otherwise.")]
pub(super) struct Arguments {}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    name: String,
    status: Status,
    text: String,
    remedy: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, status: Status, text: impl Into<String>) -> Self {
        Self { name: name.into(), status, text: text.into(), remedy: None }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

pub(super) fn doctor(context: &Context, _: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("doctor")?;
    let path = context.config_path();
    let loaded = context.load(path.as_deref(), Secrets::Needed);
    let mut checks = capture(loaded.as_ref().ok().and_then(|loaded| loaded.config.capture.cgroup.path()));
    match loaded {
        Ok(loaded) => {
            let name = path.map_or("defaults".into(), |path| path.display().to_string());
            checks.push(configuration(&name, loaded.warnings.problems.len()));
            checks.extend(loaded.config.tokens.issuers.iter().map(keys));
            checks.extend(metrics(&loaded.config));
            checks.push(state(loaded.config.state.dir.as_deref()));
            checks.extend(cluster::check(&loaded.config));
        }
        Err(report) => {
            let text = format!("{} errors", report.errors());
            checks.push(
                Check::new("config", Status::Fail, text).remedy("`tokenscope config check` shows them"),
            );
        }
    }
    checks.extend([clock(), time_zone(), libssl()]);
    let colour = terminal::colour_stdout(context.global.color);
    terminal::answer(&if json { as_json(&checks) } else { as_lines(&checks, colour) })?;
    if checks.iter().any(|check| check.status == Status::Fail) { Err(Failure::Told) } else { Ok(()) }
}

/// Kernel, cgroup v2, capabilities, and the programs really loaded and attached.
fn capture(cgroup: Option<&Path>) -> Vec<Check> {
    let one = |check: ebpf::Check| Check {
        name: check.name.to_owned(),
        status: check.status,
        text: check.found,
        remedy: Some(check.remedy).filter(|remedy| !remedy.is_empty()),
    };
    ebpf::probe(cgroup).into_iter().map(one).collect()
}

fn configuration(name: &str, warnings: usize) -> Check {
    match warnings {
        0 => Check::new("config", Status::Ok, name),
        n => Check::new("config", Status::Warn, format!("{name}: {n} warnings"))
            .remedy("`tokenscope config check` shows them"),
    }
}

/// Whether the keys of an issuer are within reach. Fetching and reading them is the sensor's own work.
fn keys(issuer: &Issuer) -> Check {
    let name = format!("keys of {}", issuer.issuer);
    let url = match &issuer.keys {
        KeySource::File(path) => {
            return match std::fs::metadata(path) {
                Ok(meta) if meta.is_file() && meta.len() > 0 => {
                    Check::new(name, Status::Ok, path.display().to_string())
                }
                Ok(_) => Check::new(name, Status::Fail, format!("{} holds nothing", path.display()))
                    .remedy("put a JWKS, a JWK or a PEM public key there"),
                Err(error) => Check::new(name, Status::Fail, format!("{}: {error}", path.display()))
                    .remedy("correct `issuers.jwks` in the configuration, or the file's permissions"),
            };
        }
        KeySource::Url(url) => url,
        KeySource::Discovery => &issuer.issuer,
    };
    match reach(url) {
        Ok(()) => Check::new(name, Status::Ok, format!("{url} can be reached")),
        Err(why) => Check::new(name, Status::Warn, format!("{url}: {why}"))
            .remedy("until its keys arrive, only what needs no key is detected"),
    }
}

/// Connects to the host of a URL, and to no more of it.
fn reach(url: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().ok_or("no port")?;
    let (tell, told) = sync_channel(1);
    // A thread, as looking a name up has no timeout of its own.
    std::thread::spawn(move || {
        let connect = || -> std::io::Result<()> {
            let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
            for address in (host.as_str(), port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, REACH) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let _ = tell.send(connect().map_err(|error| error.to_string()));
    });
    told.recv_timeout(REACH).unwrap_or_else(|_| Err(format!("no answer within {} s", REACH.as_secs())))
}

fn metrics(config: &Config) -> Option<Check> {
    let address = config.metrics.listen?;
    Some(match TcpListener::bind(address) {
        Ok(_) => Check::new("metrics", Status::Ok, format!("{address} is free")),
        Err(error) => Check::new("metrics", Status::Warn, format!("{address}: {error}"))
            .remedy("another sensor may be running; otherwise set `metrics.listen`"),
    })
}

/// Whether what must survive a restart has a place.
fn state(dir: Option<&Path>) -> Check {
    let Some(dir) = dir else {
        return Check::new("state", Status::Warn, "off")
            .remedy("alerts wait for sinks in memory, and restarts forget: set `state.dir`");
    };
    let said = |status, what: &str| Check::new("state", status, format!("{} {what}", dir.display()));
    match examine(dir) {
        Ok(Found::Usable) => said(Status::Ok, "can be written"),
        Ok(Found::ToBeMade) => said(Status::Ok, "is made at the start"),
        Ok(Found::InUse) => said(Status::Ok, "is in use by a sensor"),
        Ok(Found::Exposed(mode)) => said(Status::Warn, &format!("has mode {mode:o}: others may enter it"))
            .remedy(format!("chmod 700 {}", dir.display())),
        Ok(Found::Foreign(uid)) => said(Status::Warn, &format!("belongs to user {uid}"))
            .remedy("chown it to the user that the sensor runs as"),
        Err(error) => {
            let check = Check::new("state", Status::Warn, error.to_string());
            match error.remedy() {
                Some(remedy) => check.remedy(remedy),
                None => check,
            }
        }
    }
}

fn clock() -> Check {
    #[allow(clippy::disallowed_methods, reason = "it is the clock that is examined")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let rtc = std::fs::read_to_string("/sys/class/rtc/rtc0/since_epoch")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    judge_clock(now, rtc)
}

/// Tokens expire by the clock: one that is wrong makes good tokens look expired, and expired ones good.
fn judge_clock(now: u64, rtc: Option<u64>) -> Check {
    // A mean year of the Gregorian calendar is enough to tell 1970 from today.
    let year = 1970 + now / 31_556_952;
    let remedy = "synchronise it (systemd-timesyncd, chrony): tokens are judged by it";
    match rtc.map(|rtc| rtc.abs_diff(now)) {
        _ if !YEARS.contains(&year) => {
            Check::new("clock", Status::Fail, format!("it says {year}")).remedy(remedy)
        }
        Some(drift @ DRIFT..) => {
            Check::new("clock", Status::Warn, format!("{drift} s from the hardware's clock")).remedy(remedy)
        }
        _ => Check::new("clock", Status::Ok, format!("it says {year}")),
    }
}

fn time_zone() -> Check {
    let zone = std::env::var("TZ").ok().filter(|zone| !zone.is_empty()).or_else(|| {
        let link = std::fs::read_link("/etc/localtime").ok()?.display().to_string();
        Some(link.split_once("zoneinfo/")?.1.to_owned())
    });
    match zone {
        Some(zone) => Check::new("time zone", Status::Ok, printable(&zone)),
        None => Check::new("time zone", Status::Ok, "not set; UTC is assumed"),
    }
}

fn libssl() -> Check {
    let found = ["/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .into_iter()
        .flat_map(|dir| ["libssl.so.3", "libssl.so.1.1"].map(|name| Path::new(dir).join(name)))
        .find(|path| path.exists());
    let found = found.map_or("not found".into(), |path| path.display().to_string());
    Check::new("libssl", Status::Ok, format!("{found}; TLS capture is not in this version"))
}

fn as_lines(checks: &[Check], colour: bool) -> String {
    let mut out = String::new();
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default().min(40);
    for check in checks {
        let (word, code) = match check.status {
            Status::Ok => ("ok", "32"),
            Status::Warn => ("warn", "33"),
            Status::Fail => ("FAIL", "31"),
        };
        let word = if colour { format!("\x1b[{code}m{word:4}\x1b[0m") } else { format!("{word:4}") };
        let _ = writeln!(out, "{word}  {:width$}  {}", printable(&check.name), printable(&check.text));
        if let Some(remedy) = check.remedy.as_ref().filter(|_| check.status != Status::Ok) {
            let _ = writeln!(out, "      {:width$}  -> {}", "", printable(remedy));
        }
    }
    out
}

fn as_json(checks: &[Check]) -> String {
    let word = |status| match status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "fail",
    };
    let list: Vec<_> = checks
        .iter()
        .map(|c| json!({"check": c.name, "status": word(c.status), "text": c.text, "remedy": c.remedy}))
        .collect();
    format!("{:#}\n", json!(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_wrong_clock() {
        assert_eq!(judge_clock(0, None).status, Status::Fail);
        assert_eq!(judge_clock(1_800_000_000, Some(1_800_000_010)).status, Status::Ok);
        assert_eq!(judge_clock(1_800_000_000, Some(1_800_003_600)).status, Status::Warn);
        assert_eq!(judge_clock(1_800_000_000, None).status, Status::Ok);
    }

    #[test]
    fn prints_the_remedy_only_where_one_is_needed() {
        let checks = [
            Check::new("a", Status::Ok, "fine").remedy("none"),
            Check::new("name", Status::Fail, "bad\x1b[2J").remedy("mend it"),
        ];
        let expected = "ok    a     fine\nFAIL  name  bad\u{fffd}[2J\n            -> mend it\n";
        assert_eq!(as_lines(&checks, false), expected);
    }
}
