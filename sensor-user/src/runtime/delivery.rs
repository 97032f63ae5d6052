//! The way of alerts out of the process: the spool, the sinks, and what they need of the host.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::settings::zone;
use super::{Options, RuntimeError};
use crate::config::Config;
use crate::deliver::{Clock, Deliveries, Letters};
use crate::render::{Node, Told};
use crate::sink::{Picks, Settings, Target, Words, stdout};
use crate::spool::Spool;

/// How long a sink may take to end when its configuration has changed.
const TURN: Duration = Duration::from_secs(5);

/// How long standard output may take for one batch: a terminal that is stopped, a pipe that nobody reads.
const STDOUT_TIMEOUT: Duration = Duration::from_hours(1);

/// The spool and everything that reads it.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) spool: Spool,
    pub(super) sinks: Deliveries,
    pub(super) node: Node,
}

impl Delivery {
    /// Opens the spool and starts every sink. `dir` is there if this process alone uses it.
    pub(super) fn start(
        dir: Option<&Path>,
        config: &Config,
        options: &Options,
    ) -> Result<Self, RuntimeError> {
        let node = node(config);
        let spool = Spool::in_memory();
        let _ = dir;
        let letters: Arc<dyn Letters> = Arc::new(Nowhere);
        let sinks = Deliveries::new(spool.clone(), letters, clock(config), node.clone());
        let delivery = Self { spool, sinks, node };
        delivery.sinks.serve(&wanted(config, options), TURN).map_err(RuntimeError::Sinks)?;
        Ok(delivery)
    }

    /// Delivers as this configuration wants it from now on. Takes as long as sinks take to end, so it has a thread.
    pub(super) fn reconfigure(&self, config: &Config, options: &Options) {
        let (sinks, wanted) = (self.sinks.clone(), wanted(config, options));
        let serve = move || match sinks.serve(&wanted, TURN) {
            Ok(()) => sinks.reopen(),
            Err(errors) => {
                for error in errors {
                    tracing::error!("{error}; sinks stay as they are");
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("sinks".into()).spawn(serve) {
            tracing::error!("sinks stay as they are: cannot start a thread: {error}");
        }
    }
}

/// Standard output unless it is turned off, and what is configured.
fn wanted(config: &Config, options: &Options) -> Vec<Settings> {
    let target = Target::Stdout(stdout::Settings { format: options.format, colour: options.colour });
    let stdout = Settings {
        name: "stdout".into(),
        target,
        picks: Picks::default(),
        quiet: None,
        per_minute: None,
        timeout: STDOUT_TIMEOUT,
        give_up_after: None,
    };
    config.stdout.enabled.then_some(stdout).into_iter().chain(config.sinks.iter().cloned()).collect()
}

/// This node, as events name it.
pub(crate) fn node(config: &Config) -> Node {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = config.node.clone().unwrap_or_else(host);
    Node { name: name.into(), labels: config.labels.clone().into() }
}

fn clock(config: &Config) -> Clock {
    let zone = zone(&config.time_zone);
    Clock { instant: Instant::now, now_ms, minute: Arc::new(move || minute(&zone)), chance }
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn minute(zone: &TimeZone) -> u16 {
    let now = Timestamp::now().to_zoned(zone.clone());
    u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0)
}

fn chance() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness delays are merely less spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}

struct Nowhere;

impl Letters for Nowhere {
    fn add(&self, _sink: &str, _told: &Told, _reason: &Words, _attempts: u32, _now_ms: u64) {}
    fn any_waiting(&self, _sink: &str) -> bool {
        false
    }
    fn next_replay(&self, _sink: &str) -> Option<Arc<Told>> {
        None
    }
    fn replayed(&self, _sink: &str) {}
}
