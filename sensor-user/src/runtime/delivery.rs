//! The way of alerts out of the process: the spool, the sinks, and what they need of the host.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::life::LAST_DELIVERIES;
use super::settings::zone;
use super::{Options, RuntimeError};
use crate::config::Config;
use crate::deliver::letters::{Drawer, Nowhere};
use crate::deliver::{Clock, Deliveries, Letters, clock};
use crate::render::Node;
use crate::sink::{Picks, Settings, Target, stdout};
use crate::spool::dead::{self, Dead};
use crate::spool::{self, Spool};

/// How long a sink may take to end when its configuration has changed.
const TURN: Duration = Duration::from_secs(5);

/// How long standard output may take for one batch: a terminal that is stopped, a pipe that nobody reads.
const STDOUT_TIMEOUT: Duration = Duration::from_hours(1);

/// The spool and everything that reads it.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) spool: Spool,
    pub(super) sinks: Deliveries,
    pub(super) letters: Arc<dyn Letters>,
    pub(super) node: Node,
    /// Bytes on disk that the spool may take.
    pub(super) max_bytes: u64,
    /// How often sinks were configured anew, held by who does it.
    turns: Turns,
}

/// Configurations follow each other in the order in which they came, and one that has a successor is passed over.
#[derive(Clone, Default)]
struct Turns {
    newest: Arc<AtomicU64>,
    turn: Arc<Mutex<()>>,
}

impl Turns {
    /// Takes a turn number. Whoever has it may call `go` from another thread.
    fn next(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Does it when no other turn is under way, unless there is a newer one.
    fn go(&self, number: u64, what: impl FnOnce()) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.newest.load(Ordering::SeqCst) == number {
            what();
        }
    }
}

impl Delivery {
    /// Opens the spool and starts every sink. `dir` is there if this process alone uses it.
    pub(super) fn start(
        dir: Option<&Path>,
        config: &Config,
        options: &Options,
    ) -> Result<Self, RuntimeError> {
        let node = node(config);
        let spool = open(dir, config);
        let letters: Arc<dyn Letters> = match dir {
            Some(dir) => Arc::new(Drawer::new(Dead::open(&dir.join(dead::DIR)))),
            None => Arc::new(Nowhere),
        };
        let clock = Clock::of_host(zone(&config.time_zone));
        let sinks = Deliveries::new(spool.clone(), Arc::clone(&letters), clock, node.clone());
        let delivery =
            Self { spool, sinks, letters, node, max_bytes: config.spool.max_bytes, turns: Turns::default() };
        delivery.sinks.serve(&wanted(config, options), TURN).map_err(RuntimeError::Sinks)?;
        Ok(delivery)
    }

    /// Delivers as this configuration wants it from now on. Takes as long as sinks take to end, so it has a thread.
    pub(super) fn reconfigure(&self, config: &Config, options: &Options) {
        let (sinks, wanted) = (self.sinks.clone(), wanted(config, options));
        let (turns, number) = (self.turns.clone(), self.turns.next());
        let serve = move || match sinks.serve(&wanted, TURN) {
            Ok(()) => sinks.reopen(),
            Err(errors) => {
                for error in errors {
                    tracing::error!("{error}; sinks stay as they are");
                }
            }
        };
        let serve = move || turns.go(number, serve);
        if let Err(error) = std::thread::Builder::new().name("sinks".into()).spawn(serve) {
            tracing::error!("sinks stay as they are: cannot start a thread: {error}");
        }
    }

    /// Delivers what can be delivered at once, and ends. What is left is in the spool.
    pub(super) fn stop(&self) {
        self.sinks.stop(LAST_DELIVERIES);
        if let Err(error) = self.spool.close() {
            tracing::error!("the spool was not closed: {error}; the newest alerts may be delivered again");
        }
    }
}

/// The spool on disk; in memory, if there is no place for it.
///
/// A run in memory numbers its events from its first millisecond since the epoch: far above those of runs with a disk,
/// and above those of any earlier run in memory that had fewer than a thousand events a second.
fn open(dir: Option<&Path>, config: &Config) -> Spool {
    let now_ms = clock::now_ms();
    let Some(dir) = dir else {
        if !config.sinks.is_empty() {
            tracing::warn!(
                "alerts wait for their sinks in memory only: set `state.dir`, so that none is lost"
            );
        }
        return Spool::in_memory(now_ms);
    };
    Spool::open(&dir.join(spool::DIR), config.spool.clone(), now_ms).unwrap_or_else(|error| {
        tracing::error!(
            "no spool in {}: {error}; alerts wait in memory only, with numbers of their own, and those of earlier \
             runs are not delivered",
            dir.display()
        );
        Spool::in_memory(now_ms)
    })
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
#[must_use]
pub(crate) fn node(config: &Config) -> Node {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = config.node.clone().unwrap_or_else(host);
    Node { name: name.into(), labels: config.labels.clone().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_has_a_successor_is_passed_over() {
        let (turns, done) = (Turns::default(), Mutex::new(Vec::new()));
        let (first, second) = (turns.next(), turns.next());
        turns.go(second, || done.lock().unwrap().push(2));
        turns.go(first, || done.lock().unwrap().push(1));
        assert_eq!(*done.lock().unwrap(), [2]);
    }
}
