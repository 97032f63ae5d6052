//! The writer: alerts leave the capture thread by a bounded queue, so that a slow reader never delays capture.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::hosts::Hosts;
use super::{Options, RuntimeError, settings};
use crate::alert::marks::Named;
use crate::alert::{Activity, Alert, Event};
use crate::config::Config;
use crate::render::{Privacy, Sink as _, Stdout};
use crate::store::Index;
use crate::store::index::Entry;
use crate::telemetry::Histogram;

/// Alerts that wait for a slow reader: some 3 KiB each, so 12 MiB at most. Dedup keeps a storm far below it.
const QUEUE: usize = 4096;

/// Created alerts by severity: low, medium, high, critical.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally(pub(super) [u64; 4]);

impl Tally {
    /// Counts a new alert; news of an old one is none.
    pub(super) fn count(&mut self, event: &Event) {
        let Event::Alert(alert) = event else { return };
        let place = usize::from(alert.severity.id().saturating_sub(2));
        if let (Activity::Create, Some(count)) = (alert.activity, self.0.get_mut(place)) {
            *count += 1;
        }
    }
}

/// The capture thread's end.
pub(super) struct Writer {
    queue: SyncSender<Event>,
    thread: JoinHandle<io::Result<()>>,
    pub(super) tally: Tally,
    /// Alerts and incidents that found the queue full.
    pub(super) lost: u64,
    /// From the deciding segment to the hand-over.
    pub(super) latency: Histogram,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(config: &Config, options: &Options, hosts: Hosts) -> Result<Self, RuntimeError> {
        let (queue, alerts) = sync_channel(QUEUE);
        let privacy = settings::privacy(config);
        let sink = Stdout::new(io::stdout(), options.format, options.colour).with_privacy(privacy.clone());
        let sink = config.stdout.enabled.then_some(sink);
        let notes = config.state.dir.as_deref().and_then(|dir| Notes::open(dir, privacy));
        let write = move || write(&alerts, sink, hosts, notes);
        let thread = std::thread::Builder::new().name("alerts".into()).spawn(write);
        let thread = thread.map_err(|cause| RuntimeError::Start { what: "the alert writer", cause })?;
        Ok(Self { queue, thread, tally: Tally::default(), lost: 0, latency: Histogram::default() })
    }

    /// Hands an alert over. When the reader is too slow it is lost, and counted.
    pub(super) fn send(&mut self, event: Event) {
        self.tally.count(&event);
        if let Event::Alert(alert) = &event
            && alert.activity == Activity::Create
        {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.latency.observe(now.saturating_sub(Duration::from_nanos(alert.last_seen.0)));
        }
        if let Err(TrySendError::Full(_)) = self.queue.try_send(event) {
            self.lost += 1;
        }
    }

    /// Whether the thread has ended, which it does by itself only when it cannot write.
    pub(super) fn is_broken(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until everything is written, but not longer than `patience`: a reader that does not read must not keep
    /// the sensor from stopping.
    pub(super) fn stop(self, patience: Duration) -> Result<Tally, RuntimeError> {
        drop(self.queue);
        let deadline = std::time::Instant::now() + patience;
        while !self.thread.is_finished() && std::time::Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        if self.thread.is_finished() {
            match self.thread.join() {
                Ok(result) => result.map_err(RuntimeError::Write)?,
                Err(_) => return Err(RuntimeError::Write(io::Error::other("the alert writer panicked"))),
            }
        }
        Ok(self.tally)
    }
}

fn write(
    events: &Receiver<Event>,
    mut sink: Option<Stdout<io::Stdout>>,
    mut hosts: Hosts,
    mut notes: Option<Notes>,
) -> io::Result<()> {
    while let Ok(mut event) = events.recv() {
        if let Event::Alert(alert) = &mut event {
            alert.place = alert.finding.scene.as_deref().and_then(|scene| hosts.place(scene));
            if notes.as_mut().is_some_and(|notes| !notes.take(alert)) {
                notes = None;
            }
        }
        if let Some(sink) = &mut sink {
            sink.emit(&event)?;
            sink.flush()?;
        }
    }
    Ok(())
}

/// Keeps the index of alerts, by which people mark them later. Without it alerts go out all the same.
struct Notes {
    index: Index,
    privacy: Privacy,
}

impl Notes {
    fn open(dir: &Path, privacy: Privacy) -> Option<Self> {
        let index = Index::open(dir).inspect_err(|error| {
            tracing::warn!(
                "alerts can be marked by their events only: no index of them in {}: {error}; set state.dir",
                dir.display()
            );
        });
        Some(Self { index: index.ok()?, privacy })
    }

    /// Notes a new alert. False once that is no longer possible.
    fn take(&mut self, alert: &Alert) -> bool {
        if alert.activity != Activity::Create {
            return true;
        }
        let entry = Entry::new(alert.id, Named::of(&alert.key), self.privacy.who(alert));
        let added = self.index.add(&entry);
        added.inspect_err(|error| tracing::warn!("alerts are no longer noted for marking: {error}")).is_ok()
    }
}
