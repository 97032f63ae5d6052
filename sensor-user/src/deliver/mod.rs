//! Delivery: from the spool to each sink, by itself, until the other end has taken everything.
//!
//! Every sink has a thread with an event loop of its own: what one does, even if it hangs in a system call, is nothing
//! to the others. What it has delivered is a cursor in the spool. An event is sent again whenever it is not certain that
//! the other end has it; its id is always the same, so that the other end can tell.

pub mod backoff;
pub mod clock;
pub mod figures;
pub mod letters;
pub mod plan;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use clock::Clock;
pub use figures::Figures;

use crate::render::Told;
use crate::sink::{self, Node, Settings, Sink, Unusable, Words};
use crate::spool::Spool;
use worker::{Orders, Outfit, Worker};

/// Where events go that a sink refuses for good.
pub trait Letters: Send + Sync {
    /// Keeps one.
    fn add(&self, sink: &str, told: &Told, reason: &Words, attempts: u32, now_ms: u64);
    /// Whether somebody may want letters of this sink to be tried again: cheap, and may be wrong.
    fn any_waiting(&self, sink: &str) -> bool;
    /// The next one that is to be tried again.
    fn next_replay(&self, sink: &str) -> Option<Arc<Told>>;
    /// That one was tried.
    fn replayed(&self, sink: &str);
    /// How many there are, by sink.
    fn counts(&self) -> Vec<(String, u64)>;
}

/// A sink at work.
struct Running {
    settings: Settings,
    figures: Arc<Figures>,
    orders: watch::Sender<Orders>,
    thread: JoinHandle<()>,
}

/// Every sink at work. Cloning it gives another handle.
#[derive(Clone)]
pub struct Deliveries(Arc<Inner>);

struct Inner {
    spool: Spool,
    letters: Arc<dyn Letters>,
    clock: Clock,
    node: Node,
    running: Mutex<BTreeMap<String, Running>>,
}

/// Why a sink does not work.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// It can never work as configured.
    #[error("sink {name}: {why}")]
    Unusable {
        /// The sink.
        name: String,
        /// What is wrong.
        why: Unusable,
    },
    /// Its thread could not be started.
    #[error("sink {name}: cannot start its thread: {cause}")]
    Thread {
        /// The sink.
        name: String,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl Deliveries {
    /// Nothing is delivered yet.
    #[must_use]
    pub fn new(spool: Spool, letters: Arc<dyn Letters>, clock: Clock, node: Node) -> Self {
        Self(Arc::new(Inner { spool, letters, clock, node, running: Mutex::default() }))
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers to exactly these sinks from now on. Those that are the same go on undisturbed; those that have changed
    /// end and begin anew where they were.
    ///
    /// # Errors
    /// With every sink that cannot work; then all is as before.
    pub fn serve(&self, wanted: &[Settings], patience: Duration) -> Result<(), Vec<DeliverError>> {
        let (mut opened, mut wrong) = (Vec::new(), Vec::new());
        let known: Vec<Settings> = self.running().values().map(|running| running.settings.clone()).collect();
        for settings in wanted.iter().filter(|settings| !known.contains(settings)) {
            match sink::open(&settings.target, &self.0.node) {
                Ok(sink) => opened.push((settings.clone(), sink)),
                Err(why) => wrong.push(DeliverError::Unusable { name: settings.name.clone(), why }),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let goes = |_: &String, running: &mut Running| !wanted.contains(&running.settings);
        let gone: Vec<_> = self.running().extract_if(.., goes).map(|(_, running)| running).collect();
        end(gone, patience);
        for (settings, sink) in opened {
            let name = settings.name.clone();
            match self.start(settings, sink) {
                Ok(running) => drop(self.running().insert(name, running)),
                Err(cause) => wrong.push(DeliverError::Thread { name, cause }),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn start(&self, settings: Settings, sink: Box<dyn Sink>) -> std::io::Result<Running> {
        let figures = Arc::new(Figures::default());
        let (orders, heard) = watch::channel(Orders::default());
        let outfit = Outfit {
            spool: self.0.spool.clone(),
            letters: Arc::clone(&self.0.letters),
            figures: Arc::clone(&figures),
            clock: self.0.clock.clone(),
            orders: heard,
        };
        let worker = Worker::new(&settings, sink, outfit);
        let events = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            events.block_on(worker.run());
            // A resolver that hangs must not keep us.
            events.shutdown_background();
        };
        // A thread's name has 15 bytes.
        let thread = std::thread::Builder::new().name(format!("to-{:.12}", settings.name)).spawn(run)?;
        Ok(Running { settings, figures, orders, thread })
    }

    /// What became of deliveries, by sink.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, Arc<Figures>)> {
        self.running().iter().map(|(name, running)| (name.clone(), Arc::clone(&running.figures))).collect()
    }

    /// Opens again what has to be opened again.
    pub fn reopen(&self) {
        for running in self.running().values() {
            running.orders.send_modify(|orders| orders.reopened += 1);
        }
    }

    /// Delivers what can be delivered at once, and ends. What is left is in the spool.
    pub fn stop(&self, patience: Duration) {
        let all = std::mem::take(&mut *self.running());
        end(all.into_values().collect(), patience);
    }
}

/// Ends these, all at once. A thread that hangs is left behind: the process is about to end, or its cursor stays where
/// it is.
#[allow(clippy::disallowed_methods, reason = "delivery is about real time")]
fn end(all: Vec<Running>, patience: Duration) {
    let until = Instant::now() + patience;
    for running in &all {
        running.orders.send_modify(|orders| orders.until = Some(until));
    }
    for running in all {
        while !running.thread.is_finished() && Instant::now() < until + GRACE {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        if running.thread.is_finished() {
            let _ = running.thread.join();
        } else {
            tracing::warn!("sink {}: did not end in time", running.settings.name);
        }
    }
}

/// What a thread gets beyond its time to notice that it is over.
const GRACE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests;
