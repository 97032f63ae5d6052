//! The writer: alerts leave the capture thread by a bounded queue, get their place and their number, and are in the
//! spool before anybody sees them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::delivery::Delivery;
use super::hosts::Hosts;
use super::names::Names;
use super::unfinished::Unfinished;
use super::{RuntimeError, identity, settings};
use crate::alert::marks::Named;
use crate::alert::{Activity, Alert, Event, Identity};
use crate::config::Config;
use crate::deliver::clock;
use crate::detect::Severity;
use crate::render::{Kind, Node, Privacy, told};
use crate::spool::{Draft, NotDurable, Spool};
use crate::store::Index;
use crate::store::index::Entry;
use crate::telemetry::Histogram;

/// Alerts that wait for the writer, which waits for the disk: some 3 KiB each, so 12 MiB at most.
const QUEUE: usize = 4096;

/// Alerts that wait beyond it, while the disk hangs: 200 MiB at most. Dedup keeps a storm far below it.
const BACKLOG: usize = 65_536;

/// Alerts that are made to last at once.
const TOGETHER: usize = 256;

/// How often the spool is told that time passes.
const TICK: Duration = Duration::from_secs(1);

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
    backlog: VecDeque<Event>,
    thread: JoinHandle<()>,
    pub(super) tally: Tally,
    /// Alerts and incidents that found no room.
    pub(super) lost: u64,
    /// From the deciding segment to the hand-over.
    pub(super) latency: Histogram,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        config: &Config,
        delivery: &Delivery,
        hosts: Hosts,
        identities: identity::Tally,
    ) -> Result<Self, RuntimeError> {
        let (queue, events) = sync_channel(QUEUE);
        let privacy = settings::privacy(config);
        let notes = config.state.dir.as_deref().and_then(|dir| Notes::open(dir, privacy.clone()));
        let desk = Desk {
            spool: delivery.spool.clone(),
            node: delivery.node.clone(),
            hosts,
            identities,
            unfinished: Unfinished::default(),
            named: Names::default(),
            notes,
            privacy,
            failing: false,
        };
        let thread = std::thread::Builder::new().name("alerts".into()).spawn(move || desk.run(&events));
        let thread = thread.map_err(|cause| RuntimeError::Start { what: "the alert writer", cause })?;
        let (tally, latency) = (Tally::default(), Histogram::default());
        Ok(Self { queue, backlog: VecDeque::new(), thread, tally, lost: 0, latency })
    }

    /// Hands an alert over. While the disk hangs it waits here; when there is no room any more it is lost, and counted.
    pub(super) fn send(&mut self, event: Event) {
        self.tally.count(&event);
        if let Event::Alert(alert) = &event
            && alert.activity == Activity::Create
        {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.latency.observe(now.saturating_sub(Duration::from_nanos(alert.last_seen.0)));
        }
        if self.backlog.len() >= BACKLOG {
            self.lost += 1;
            return;
        }
        self.backlog.push_back(event);
        self.push();
    }

    /// Hands over what waits.
    pub(super) fn push(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(event) | TrySendError::Disconnected(event)) =
                self.queue.try_send(event)
            {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    /// Alerts that wait here.
    pub(super) fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Waits until everything is in the spool, but not longer than `patience`: a disk that hangs must not keep the
    /// sensor from stopping. Gives what was created, and what was lost.
    pub(super) fn stop(mut self, patience: Duration) -> (Tally, u64) {
        let until = Instant::now() + patience;
        while !self.backlog.is_empty() && Instant::now() < until {
            self.push();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let lost = self.lost + self.backlog.len() as u64;
        drop(self.queue);
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        (self.tally, lost)
    }
}

/// The writer's thread.
struct Desk {
    spool: Spool,
    node: Node,
    hosts: Hosts,
    identities: identity::Tally,
    unfinished: Unfinished,
    named: Names,
    notes: Option<Notes>,
    privacy: Privacy,
    failing: bool,
}

impl Desk {
    fn run(mut self, events: &Receiver<Event>) {
        let mut batch = Vec::with_capacity(TOGETHER);
        let mut next = Instant::now() + TICK;
        loop {
            // Also while events keep coming: what waits for room is written then, and what is too old goes.
            if Instant::now() >= next {
                let ticked = self.spool.tick(clock::now_ms());
                self.tell(ticked);
                self.complete();
                next = Instant::now() + TICK;
            }
            match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(event) => batch.push(event),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => continue,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            }
            batch.extend(events.try_iter().take(TOGETHER - 1));
            self.write(&mut batch);
            batch.clear();
        }
    }

    /// Places and keeps them.
    fn write(&mut self, batch: &mut [Event]) {
        for event in batch.iter_mut() {
            let alert = match event {
                Event::Alert(alert) => alert,
                Event::Incident(incident) => {
                    self.named.fill(incident);
                    continue;
                }
            };
            alert.place = alert.finding.scene.as_deref().map(|scene| self.hosts.place(scene));
            if let (Some(place), Some(scene), Some(incident)) =
                (&alert.place, &alert.finding.scene, alert.incident)
                && !place.name.is_empty()
            {
                self.named.note(incident, scene.endpoints.server, &place.name);
            }
            if let Some(place) = &alert.place {
                self.identities.told(place.identity);
                self.unfinished.note(alert, place.identity, Instant::now());
            }
            if self.notes.as_mut().is_some_and(|notes| !notes.take(alert)) {
                self.notes = None;
            }
        }
        self.keep(batch);
    }

    /// Tells alerts again of which the pod's name has come since they were told.
    fn complete(&mut self) {
        let hosts = &self.hosts;
        let mut known = self.unfinished.take_known(Instant::now(), |scene| hosts.place(scene));
        for event in &known {
            let place = event.alert().and_then(|alert| alert.place.as_ref());
            self.identities.told(place.map_or(Identity::Unknown, |place| place.identity));
            self.identities.completed();
        }
        if !known.is_empty() {
            self.keep(&mut known);
        }
    }

    /// Hides, numbers and keeps them.
    fn keep(&mut self, batch: &mut [Event]) {
        let (privacy, node) = (&self.privacy, &self.node);
        let render = |event: &Event, sequence| told::json(&privacy.event(event), Some(sequence), Some(node));
        let mut tell: Vec<_> = batch.iter().map(|event| move |sequence| render(event, sequence)).collect();
        let both = batch.iter().zip(&mut tell);
        let mut drafts: Vec<Draft<'_>> = both.map(|(event, json)| draft(event, json)).collect();
        if let Err(error) = self.spool.append(&mut drafts) {
            self.tell(Err(error));
        }
    }

    /// Says once that the spool cannot be written, and once that it can again.
    fn tell(&mut self, result: Result<(), NotDurable>) {
        match result {
            Ok(()) if std::mem::take(&mut self.failing) => tracing::info!("the spool is written again"),
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("{error}");
                }
            }
        }
    }
}

fn draft<'a>(event: &Event, json: &'a mut dyn FnMut(u64) -> String) -> Draft<'a> {
    let (time, severity, kind): (_, Severity, _) = match event {
        Event::Alert(alert) => (alert.last_seen, alert.severity, Kind::Alert),
        Event::Incident(incident) => (incident.last_seen, incident.severity, Kind::Incident),
    };
    Draft { time_ms: time.millis(), severity, kind, json }
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
