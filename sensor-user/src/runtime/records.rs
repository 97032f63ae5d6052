//! The records thread: exchanges become uses in the store and news for those who watch; alerts go from the spool into
//! the store.
//!
//! The capture thread folds exchanges into uses itself and hands these over every few seconds; exchanges one by one go
//! to this thread only while somebody watches. (When every exchange went, both threads counted the holders of each
//! token, and its memory travelled between two cores with every request.) Both go by a bounded channel, and nobody
//! waits: what finds no room is counted and gone. Alerts are read from the spool at this thread's own pace, so a store
//! that hangs loses none of them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::{broadcast, watch};

use super::RuntimeError;
use super::hosts::Hosts;
use crate::alert::Place;
use crate::capture::Time;
use crate::detect::scene;
use crate::pipeline::Pipeline;
use crate::render::Privacy;
use crate::render::exchange::{Exchanged, Followed, Presented, verdict};
use crate::seen::{Seen, Watch};
use crate::spool::{Cursor, LANES, Spool};
use crate::store::keeper::{Keeper, Stats};
use crate::store::parts::Bounds;
use crate::store::uses::{Gathered, Gathering, Service};
use crate::store::veil::Veil;
use crate::telemetry::{Metric, catalogue as of};

/// Batches on their way: at five a second from an idle capture thread, and a few hundred from a busy one, some tenths
/// of a second.
const QUEUE: usize = 64;

/// Exchanges on their way: at some 300 bytes each, 20 MiB.
const MOST_UNDER_WAY: usize = 65_536;

/// Sets of gathered uses on their way: ten seconds each, or 10 MiB.
const MOST_SETS: usize = 2;

/// How often time is told when nothing happens, in time of the data.
const TELL_TIME: Duration = Duration::from_secs(1);

/// How long the thread waits for exchanges before it looks at the spool.
const LOOK: Duration = Duration::from_millis(250);
/// The same after a look that found nothing new: a quiet host is not woken four times a second for it.
const REST: Duration = Duration::from_secs(1);

/// Events that are stored at once.
const EVENTS: usize = 256;

/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 4 << 20;

/// How long to wait before a store that cannot be opened is tried again, in time of the data.
const TRY_AGAIN: Duration = Duration::from_mins(1);

/// Workloads that are remembered by name, and for how long in time of the data.
const PLACES: usize = 1024;
const PLACES_FOR: Duration = Duration::from_secs(10);

/// The reader of the spool that the store is.
const READER: &str = "store";

/// What the thread is made of.
pub(super) struct Plan {
    /// Where the store is; none for none.
    pub(super) dir: Option<PathBuf>,
    pub(super) bounds: Bounds,
    pub(super) veil: Veil,
    pub(super) privacy: Privacy,
    pub(super) spool: Spool,
    pub(super) hosts: Hosts,
}

/// What is handed over, and the time of the data.
#[derive(Default)]
struct Batch {
    now: Time,
    /// For those who watch.
    seen: Vec<Seen>,
    /// For the store.
    uses: Option<Gathered>,
}

/// The capture thread's end.
pub(super) struct Records {
    queue: SyncSender<Batch>,
    spare: Receiver<Vec<Seen>>,
    thread: JoinHandle<()>,
    under_way: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    /// For those who watch exchanges.
    pub(super) watchers: broadcast::Sender<Arc<Followed>>,
    /// Whether anybody does.
    watched: bool,
    told: Time,
    /// Where uses are stored: what is gathered for it, and how names are kept.
    store: Option<(Gathering, Veil)>,
    /// Exchanges that found no room on their way.
    shed: u64,
}

/// What the thread tells.
#[derive(Default)]
struct Shared {
    stats: Mutex<Stats>,
    /// Whether strangers have had their share of what is stored.
    crowded: AtomicBool,
    /// Whether uses can be stored.
    open: AtomicBool,
    /// Sets of uses on their way.
    sets: AtomicUsize,
    /// Events in the spool that are not stored yet.
    waiting: AtomicU64,
}

impl Records {
    /// Starts the thread.
    pub(super) fn start(plan: Plan) -> Result<Self, RuntimeError> {
        let (queue, batches) = sync_channel(QUEUE);
        let (back, spare) = sync_channel(QUEUE);
        let (watchers, _) = broadcast::channel(crate::control::EXCHANGES);
        let under_way = Arc::<AtomicUsize>::default();
        // While the store is being opened, what it will get is gathered already.
        let shared = Arc::new(Shared { open: AtomicBool::new(plan.dir.is_some()), ..Shared::default() });
        let store = plan.dir.is_some().then(|| (Gathering::default(), plan.veil.clone()));
        let clerk = Clerk {
            keeper: None,
            again: None,
            head: plan.spool.head(),
            cursor: Cursor::default(),
            places: HashMap::new(),
            placed: Time::default(),
            watchers: watchers.clone(),
            under_way: Arc::clone(&under_way),
            shared: Arc::clone(&shared),
            plan,
        };
        let thread =
            std::thread::Builder::new().name("records".into()).spawn(move || clerk.run(&batches, &back));
        let thread = thread.map_err(|cause| RuntimeError::Start { what: "the records thread", cause })?;
        Ok(Self {
            queue,
            spare,
            thread,
            under_way,
            shared,
            watchers,
            watched: false,
            told: Time::default(),
            store,
            shed: 0,
        })
    }

    /// Folds exchanges into uses as they come, if nobody watches them one by one: what is known of their tokens is near
    /// then. The others wait for [`Self::hand_over`].
    #[inline]
    pub(super) fn fold(&mut self, exchanges: &mut Vec<Seen>, now: Time) {
        if !exchanges.is_empty() && !self.watched {
            self.gather(exchanges, now);
            exchanges.clear();
        }
    }

    /// Hands exchanges over, and says what is wanted of the next ones. Never waits.
    pub(super) fn hand_over(&mut self, exchanges: &mut Vec<Seen>, pipeline: &mut Pipeline) {
        let watched = self.watchers.receiver_count() > 0;
        self.watched = watched;
        pipeline.watch(Watch { exchanges: self.store.is_some() || watched, words: watched });
        let now = pipeline.now();
        self.gather(exchanges, now);
        if !watched {
            exchanges.clear();
        }
        if exchanges.is_empty() && now.since(self.told) < TELL_TIME {
            return;
        }
        let many = exchanges.len();
        if self.under_way.load(Ordering::Relaxed) + many > MOST_UNDER_WAY {
            self.shed += many as u64;
            exchanges.clear();
            return;
        }
        let empty = self.spare.try_recv().unwrap_or_default();
        let batch = Batch { now, seen: std::mem::replace(exchanges, empty), uses: None };
        self.under_way.fetch_add(many, Ordering::Relaxed);
        match self.queue.try_send(batch) {
            Ok(()) => self.told = now,
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.under_way.fetch_sub(many, Ordering::Relaxed);
                self.shed += many as u64;
                *exchanges = batch.seen;
                exchanges.clear();
            }
        }
    }

    /// Folds exchanges into uses, and hands these over when it is time.
    fn gather(&mut self, exchanges: &[Seen], now: Time) {
        let Some((gathering, veil)) = &mut self.store else { return };
        if !self.shared.open.load(Ordering::Relaxed) {
            return;
        }
        gathering.crowded = self.shared.crowded.load(Ordering::Relaxed);
        let mut due = gathering.is_due(now);
        for seen in exchanges {
            gathering.add(seen, veil);
            due |= gathering.is_full();
            if due {
                due = false;
                self.shed += send(gathering, seen.at, &self.queue, &self.shared);
            }
        }
        if due {
            self.shed += send(gathering, now, &self.queue, &self.shared);
        }
    }

    /// Stores everything, but takes no longer than `patience`: what is in the spool then is stored after the start.
    pub(super) fn stop(mut self, patience: Duration) {
        if let Some((gathering, _)) = &mut self.store {
            // The last set goes, however many are before it.
            self.shared.sets.store(0, Ordering::Relaxed);
            let _ = send(gathering, self.told, &self.queue, &self.shared);
        }
        drop(self.queue);
        let until = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if !self.thread.is_finished() {
            tracing::warn!("no time was left to store the newest uses of tokens");
        }
    }

    /// What there is to count.
    pub(super) fn metrics(&self, all: &mut Vec<Metric>) {
        let stats = *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        all.push(of::STORE_BYTES.level(stats.bytes));
        for (table, rows) in [("events", stats.events), ("uses", stats.uses)] {
            all.push(of::STORE_ROWS.level(rows).with(&[table.into()]));
        }
        let shed = [("busy", self.shed), ("disk_full", stats.full), ("failed", stats.failed)];
        all.extend(of::RECORDS_SHED.counts(shed.into_iter()));
        all.push(of::RECORDS_STORED.count(stats.stored));
        let gathering = self.store.as_ref().map(|(gathering, _)| gathering);
        all.push(of::RECORDS_BLURRED.count(gathering.map_or(0, |gathering| gathering.blurred)));
        all.push(of::RECORDS_GATHERED.level(gathering.map_or(0, |gathering| gathering.len() as u64)));
        all.push(of::STORE_LAG.level(load(&self.shared.waiting)));
        let cut = [("uses_part", stats.parts_cut), ("event", stats.events_cut), ("file", stats.refused)];
        all.extend(of::STORE_GIVEN_UP.counts(cut.into_iter()));
    }
}

/// Hands over what was gathered. How many exchanges found no room: while the store is behind, more is gathered first.
fn send(gathering: &mut Gathering, now: Time, queue: &SyncSender<Batch>, shared: &Shared) -> u64 {
    let behind = shared.sets.load(Ordering::Relaxed) >= MOST_SETS;
    if behind && !gathering.is_full() {
        return 0;
    }
    let Some(uses) = gathering.take() else { return 0 };
    if behind {
        return uses.exchanges();
    }
    shared.sets.fetch_add(1, Ordering::Relaxed);
    match queue.try_send(Batch { now, uses: Some(uses), ..Batch::default() }) {
        Ok(()) => 0,
        Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
            shared.sets.fetch_sub(1, Ordering::Relaxed);
            batch.uses.map_or(0, |uses| uses.exchanges())
        }
    }
}

/// The thread.
struct Clerk {
    plan: Plan,
    keeper: Option<Keeper>,
    /// When to try again to open the store.
    again: Option<Time>,
    head: watch::Receiver<u64>,
    cursor: Cursor,
    /// What runs behind servers, as it was looked up of late.
    places: HashMap<Service, Arc<Place>>,
    placed: Time,
    watchers: broadcast::Sender<Arc<Followed>>,
    under_way: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

impl Clerk {
    fn run(mut self, batches: &Receiver<Batch>, back: &SyncSender<Vec<Seen>>) {
        let mut now = Time::default();
        self.open(now);
        let (mut wait, mut head) = (LOOK, 0);
        loop {
            let before = std::mem::replace(&mut head, *self.head.borrow());
            match batches.recv_timeout(wait) {
                Ok(mut batch) => {
                    wait = LOOK;
                    now = now.max(batch.now);
                    self.show(&batch.seen);
                    self.under_way.fetch_sub(batch.seen.len(), Ordering::Relaxed);
                    if let Some(uses) = batch.uses.take() {
                        self.store(&uses, now);
                        // After a stop begins, nobody counts any more.
                        let one_less = |sets: usize| sets.checked_sub(1);
                        let _ = self.shared.sets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
                    }
                    batch.seen.clear();
                    // Whoever lends buffers may be gone.
                    let _ = back.try_send(batch.seen);
                }
                Err(RecvTimeoutError::Timeout) => wait = if before == head { REST } else { LOOK },
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.take_events();
            self.tend(now);
        }
        self.take_events();
        if let Some(keeper) = self.keeper.take() {
            keeper.close();
        }
    }

    fn open(&mut self, now: Time) {
        let Some(dir) = &self.plan.dir else { return };
        let is_first = self.again.is_none();
        self.again = Some(now.plus(TRY_AGAIN));
        match Keeper::open(dir, self.plan.bounds) {
            Ok(keeper) => {
                // The store knows best how far it is; one that was begun anew takes what the spool still has, and so
                // does one whose spool was begun anew.
                let head = *self.head.borrow();
                let known = keeper.cursor().filter(|cursor| cursor.0.iter().all(|lane| *lane <= head));
                self.cursor = known.unwrap_or_default();
                self.plan.spool.register(READER, [true; LANES]);
                self.plan.spool.keep_cursor(READER, &self.cursor);
                self.keeper = Some(keeper);
            }
            Err(error) if is_first => {
                tracing::error!(
                    "nothing is kept to be searched: {error}; see `state.dir` and `store.enabled`"
                );
            }
            Err(_) => {}
        }
    }

    /// Shows exchanges to those who watch.
    fn show(&mut self, exchanges: &[Seen]) {
        if self.watchers.receiver_count() == 0 {
            return;
        }
        for seen in exchanges {
            let place = self.place(seen);
            let shown = exchanged(seen, Some(place), &self.plan.privacy);
            // Whoever watched may be gone by now.
            let _ = self.watchers.send(Arc::new(Followed::new(shown)));
        }
    }

    /// Stores what was gathered.
    fn store(&mut self, gathered: &Gathered, now: Time) {
        let mut services = Vec::with_capacity(gathered.services.len());
        for (service, origin) in &gathered.services {
            let place = self.look_up(*service, *origin, now);
            let is_named = !place.name.is_empty();
            services.push(if is_named { place.name.clone() } else { service.address.to_string() });
        }
        let Some(keeper) = &mut self.keeper else { return };
        keeper.keep_uses(gathered, &services, &self.plan.veil, now);
        self.shared.crowded.store(keeper.is_crowded(), Ordering::Relaxed);
    }

    /// Stores the events that the spool has and the store has not.
    fn take_events(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        let head = *self.head.borrow_and_update();
        loop {
            let read = self.plan.spool.read(&self.cursor, [true; LANES], EVENTS, EVENT_BYTES);
            if read.events.is_empty() && read.next == self.cursor {
                break;
            }
            if !keeper.keep_events(&read.events, &read.next) {
                break;
            }
            self.cursor = read.next;
            self.plan.spool.keep_cursor(READER, &self.cursor);
        }
        let reached = self.cursor.0.iter().copied().max().unwrap_or_default();
        self.shared.waiting.store(head.saturating_sub(reached), Ordering::Relaxed);
    }

    fn tend(&mut self, now: Time) {
        if self.keeper.is_none() && self.again.is_some_and(|again| now >= again) {
            self.open(now);
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.tend(now);
            *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = keeper.stats();
        }
        self.shared.open.store(self.keeper.is_some(), Ordering::Relaxed);
    }

    fn place(&mut self, seen: &Seen) -> Arc<Place> {
        let service = Service { address: seen.endpoints.server, cgroup: seen.origin.cgroup };
        self.look_up(service, seen.origin, seen.at)
    }

    fn look_up(&mut self, service: Service, origin: crate::capture::Origin, now: Time) -> Arc<Place> {
        if now.since(self.placed) >= PLACES_FOR || self.places.len() >= PLACES {
            self.places.clear();
            self.placed = now;
        }
        let hosts = &self.plan.hosts;
        let known =
            self.places.entry(service).or_insert_with(|| Arc::new(hosts.place_of(&origin, service.address)));
        Arc::clone(known)
    }
}

/// An exchange for those who watch.
fn exchanged(seen: &Seen, place: Option<Arc<Place>>, privacy: &Privacy) -> Exchanged {
    let words = seen.words.as_deref();
    // Those that were under way when somebody began to watch have no words of their own.
    let (method, path) = seen.route.split_once(' ').unwrap_or((&seen.route, ""));
    let presented = |token: &Arc<crate::token::Token>| Presented {
        fingerprint: token.fingerprint,
        verdict: verdict(token),
        principal: scene::principal(token),
    };
    let mut exchanged = Exchanged {
        at: seen.at,
        latency: seen.latency,
        method: words.map_or(method, |words| &words.method).into(),
        route: Arc::clone(&seen.route),
        path: words.map_or(path, |words| &words.path).into(),
        host: words.and_then(|words| words.host.clone()),
        user_agent: words.and_then(|words| words.user_agent.clone()),
        status: seen.status,
        request_bytes: seen.request_bytes,
        response_bytes: seen.response_bytes,
        client: seen.client,
        client_port: (seen.endpoints.client.ip() == seen.client).then(|| seen.endpoints.client.port()),
        server: seen.endpoints.server,
        pid: seen.origin.pid,
        place,
        coverage: seen.coverage,
        tokens: seen.tokens.iter().map(presented).collect(),
    };
    privacy.exchange(&mut exchanged);
    exchanged
}

/// The store's directory, if there is to be one and this process alone has it.
pub(super) fn dir(config: &crate::config::Config, held: Option<&Path>) -> Option<PathBuf> {
    held.filter(|_| config.store.enabled).map(Path::to_owned)
}

/// How much is kept.
pub(super) fn bounds(config: &crate::config::Config) -> Bounds {
    let store = &config.store;
    Bounds { max_bytes: store.max_bytes, uses_for: store.uses_for, alerts_for: store.alerts_for }
}
