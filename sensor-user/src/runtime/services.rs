//! Everything that waits for the network, for signals or for time: one thread, one event loop.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::RuntimeError;
use super::config_file::{self, ConfigFile};
use super::knowledge::{self, Change, Reader};
use super::supervisor::{Doing, Supervisor};
use super::user_rules::Watching;
use crate::alert::Marks;
use crate::config::Config;
use crate::control::Overview;
use crate::detect::Knowledge;
use crate::detect::user::UserRules;
use crate::enrich::cluster::{Cluster, follow};
use crate::store::marks as store;
use crate::telemetry::server::{self, Status};
use crate::telemetry::{Metric, metrics, process};
use crate::token::ask::Asker;
use crate::token::fetch::{self, Fetcher};
use crate::token::inquiry::{Answer, Inquiry};
use crate::token::keys::KeyRing;
use crate::token::settings::TokenSettings;
use crate::token::stage::Wanted;

/// Signals that may wait for the capture thread, which looks at least twice a second.
const NEWS: usize = 16;

/// Keys that may be asked for while the fetcher is busy; the token stage bounds them per round.
const WANTED: usize = 256;

/// Configurations that may wait while a database is read, which takes seconds.
const CHANGES: usize = 8;
/// Questions about tokens that wait to be asked, and answers that wait to be heard: the capture thread hears them at
/// least every 200 ms while requests come, and the asker takes some 1000 questions in that time.
const INQUIRIES: usize = 1024;
/// How soon a new mark is obeyed.
const LOOK_AT_MARKS: Duration = Duration::from_secs(1);

/// How soon an address is tried again that somebody else has.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// Without a sign of life for so long, `/healthz` says so: the capture thread gives one at least twice a second.
const STALLED: Duration = Duration::from_secs(10);

/// What the capture thread is told.
pub(super) enum News {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1: files were rotated.
    Reopen,
}

/// What the capture thread shows: its figures, and by showing them that it moves.
#[derive(Default)]
pub struct Board(RwLock<Option<Page>>);

struct Page {
    metrics: Vec<Metric>,
    at: Instant,
}

impl Board {
    /// Shows new figures.
    pub fn show(&self, metrics: Vec<Metric>) {
        let page = Page { metrics, at: Instant::now() };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(page);
    }

    fn read<R>(&self, read: impl FnOnce(Option<&Page>) -> R) -> R {
        read(self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    /// The page with what the process costs, which is looked up for those who read it only, and while the capture thread
    /// may show the next one. Nothing before the first page.
    fn whole(&self) -> Vec<Metric> {
        let Some(mut all) = self.read(|page| page.map(|page| page.metrics.clone())) else {
            return Vec::new();
        };
        all.extend(process::metrics());
        all
    }
}

impl Status for Board {
    fn metrics(&self) -> String {
        metrics::render(&self.whole())
    }

    fn is_ready(&self) -> bool {
        self.read(|page| page.is_some())
    }

    fn is_alive(&self) -> bool {
        self.read(|page| page.is_none_or(|page| page.at.elapsed() < STALLED))
    }
}

impl Overview for Board {
    fn figures(&self) -> Vec<Metric> {
        self.whole()
    }

    fn is_ready(&self) -> bool {
        Status::is_ready(self)
    }
}

/// Fetches the keys of one configuration's issuers.
struct Fetching {
    keys: watch::Receiver<Arc<KeyRing>>,
    wanted: mpsc::Sender<Wanted>,
    task: AbortHandle,
}

impl Fetching {
    fn start(events: &Handle, settings: &TokenSettings) -> Result<Self, RuntimeError> {
        let fetcher = Fetcher::new(settings)?;
        let (publish, keys) = watch::channel(Arc::new(KeyRing::empty(settings.issuers.len())));
        let (wanted, asked) = mpsc::channel(WANTED);
        let task = events.spawn(fetcher.run(publish, asked)).abort_handle();
        Ok(Self { keys, wanted, task })
    }
}

/// Reads lists and databases.
struct Knowing {
    knowledge: watch::Receiver<Arc<Knowledge>>,
    changes: mpsc::Sender<Change>,
}

impl Knowing {
    /// Lists are read at once, databases soon: those are large, and capture must not wait.
    fn start(events: &Handle, config: &Config) -> Self {
        let mut reader = Reader::new(config);
        reader.read_lists();
        let (publish, knowledge) = watch::channel(reader.knowledge());
        let (changes, asked) = mpsc::channel(CHANGES);
        events.spawn(knowledge::tend(reader, publish, asked));
        Self { knowledge, changes }
    }
}

/// Asks about the tokens of one configuration.
struct Asking {
    inquiries: mpsc::Sender<Inquiry>,
    answers: mpsc::Receiver<Answer>,
    task: AbortHandle,
}

impl Asking {
    /// None if nobody is to be asked.
    fn start(
        events: &Handle,
        settings: &TokenSettings,
        keys: watch::Receiver<Arc<KeyRing>>,
    ) -> Result<Option<Self>, RuntimeError> {
        let Some(asker) = Asker::new(settings)?.map(|asker| asker.with_keys(keys)) else { return Ok(None) };
        let (inquiries, questions) = mpsc::channel(INQUIRIES);
        let (tell, answers) = mpsc::channel(INQUIRIES);
        let task = events.spawn(asker.run(questions, tell)).abort_handle();
        Ok(Some(Self { inquiries, answers, task }))
    }
}

/// Follows the pods of this node.
struct Following {
    settings: Option<follow::Settings>,
    task: Option<AbortHandle>,
}

impl Following {
    fn start(events: &Handle, settings: Option<follow::Settings>, cluster: &Arc<Cluster>) -> Self {
        let follow = |settings| {
            let clocks = follow::Clocks { steady: Instant::now, wall: jiff::Timestamp::now };
            // Already now, so that whoever asks next knows that the list will come.
            cluster.begin();
            events.spawn(follow::follow(settings, Arc::clone(cluster), clocks)).abort_handle()
        };
        if let Some(settings) = &settings {
            tracing::info!("pods of the node {} get their names from the Kubernetes API", settings.node);
        }
        Self { task: settings.clone().map(follow), settings }
    }
}

/// The thread, from the capture thread's side.
pub(super) struct Services {
    pub(super) news: Receiver<News>,
    pub(super) board: Arc<Board>,
    supervisor: Supervisor,
    fetching: Fetching,
    knowing: Knowing,
    asking: Option<Asking>,
    marks: watch::Receiver<Arc<Marks>>,
    rules: Watching,
    following: Following,
    cluster: Arc<Cluster>,
    events: Handle,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Services {
    /// Starts the thread. What the cluster tells of pods is kept in `cluster`.
    pub(super) fn start(
        config: &Config,
        file: Option<ConfigFile>,
        cluster: Arc<Cluster>,
    ) -> Result<Self, RuntimeError> {
        let board = Arc::new(Board::default());
        let (tell, news) = sync_channel(NEWS);
        let (stop, stopped) = watch::channel(false);
        let started = |cause| RuntimeError::Start { what: "the event loop", cause };
        let runtime = event_loop().map_err(started)?;
        let events = runtime.handle().clone();
        let signals = {
            let _inside = events.enter();
            Signals::new().map_err(|cause| RuntimeError::Start { what: "the signal handlers", cause })?
        };
        let fetching = Fetching::start(&events, &config.tokens)?;
        let knowing = Knowing::start(&events, config);
        let asking = Asking::start(&events, &config.tokens, fetching.keys.clone())?;
        let rules = Watching::start(&events, &config.rules_dir.path);
        let following = Following::start(&events, super::settings::following(config), &cluster);
        if let Some(address) = config.metrics.listen {
            // Already now: whoever reads that this sensor watches finds its page, and probes wait instead of failing.
            events.spawn(serve(address, server::bind(address), Arc::clone(&board)));
        }
        let (publish, marks) = watch::channel(Arc::default());
        if let Some(dir) = &config.state.dir {
            events.spawn(read_marks(dir.clone(), publish));
        }
        if let Some(file) = file {
            events.spawn(config_file::watch(file, tell.clone()));
        }
        let run = move || {
            runtime.block_on(signals.watch(tell, stopped));
            runtime.shutdown_timeout(Duration::from_millis(100));
        };
        let thread = std::thread::Builder::new().name("services".into()).spawn(run).map_err(started)?;
        Ok(Self {
            news,
            board,
            supervisor: Supervisor::of_the_environment(),
            fetching,
            knowing,
            asking,
            marks,
            rules,
            following,
            cluster,
            events,
            stop,
            thread,
        })
    }

    /// Shows what the sensor does and how much of it: a sign of life.
    pub(super) fn show(&mut self, doing: Doing, metrics: Vec<Metric>) {
        self.board.show(metrics);
        self.supervisor.tell(doing);
    }

    /// Says that the sensor begins to end.
    pub(super) fn end(&mut self) {
        self.supervisor.tell(Doing::Ending);
    }

    /// Keys that have come or changed since the last call.
    pub(super) fn new_keys(&mut self) -> Option<Arc<KeyRing>> {
        let keys = &mut self.fetching.keys;
        keys.has_changed().unwrap_or(false).then(|| Arc::clone(&keys.borrow_and_update()))
    }

    /// Lists and places as they are now.
    pub(super) fn knowledge(&mut self) -> Arc<Knowledge> {
        Arc::clone(&self.knowing.knowledge.borrow_and_update())
    }

    /// Lists and places that have changed since the last call.
    pub(super) fn new_knowledge(&mut self) -> Option<Arc<Knowledge>> {
        let changed = self.knowing.knowledge.has_changed().unwrap_or(false);
        changed.then(|| self.knowledge())
    }

    /// Reads the lists and databases of another configuration from now on.
    pub(super) fn know_by(&self, config: &Config) {
        let change = (config.lists.clone(), config.geo.clone());
        if self.knowing.changes.try_send(change).is_err() {
            tracing::error!("the lists and databases are being read: reload again to have the new ones");
        }
    }

    /// Follows pods as another configuration says from now on.
    pub(super) fn follow_by(&mut self, config: &Config) {
        let settings = super::settings::following(config);
        if settings == self.following.settings {
            return;
        }
        if let Some(task) = self.following.task.take() {
            task.abort();
        }
        // Labels that were not kept are not known: until the pods are listed anew nobody is.
        self.cluster.end();
        self.following = Following::start(&self.events, settings, &self.cluster);
    }

    /// Marks that have changed since the last call.
    pub(super) fn new_marks(&mut self) -> Option<Arc<Marks>> {
        let marks = &mut self.marks;
        marks.has_changed().unwrap_or(false).then(|| Arc::clone(&marks.borrow_and_update()))
    }

    /// The user's rules, if they have changed since the last call.
    pub(super) fn new_rules(&mut self) -> Option<Arc<UserRules>> {
        self.rules.changed()
    }

    /// Reads the user's rules now, from this directory.
    pub(super) fn reread_rules(&self, dir: &std::path::Path) {
        self.rules.reread(dir);
    }

    /// Asks for keys that tokens name and nobody has. What the fetcher cannot take now is asked for again later.
    pub(super) fn want(&self, wanted: impl Iterator<Item = Wanted>) {
        for wanted in wanted {
            let _ = self.fetching.wanted.try_send(wanted);
        }
    }

    /// Passes on as many questions as there is room for; the others wait where they are.
    pub(super) fn ask(&self, mut next: impl FnMut() -> Option<Inquiry>) {
        let Some(asking) = &self.asking else { return };
        while let Ok(room) = asking.inquiries.try_reserve() {
            let Some(inquiry) = next() else { return };
            room.send(inquiry);
        }
    }

    /// The next answer that has come.
    pub(super) fn new_answer(&mut self) -> Option<Answer> {
        self.asking.as_mut()?.answers.try_recv().ok()
    }

    /// Fetches for another configuration from now on.
    pub(super) fn reconfigure(&mut self, settings: &TokenSettings) -> Result<(), RuntimeError> {
        let fetching = Fetching::start(&self.events, settings)?;
        let asking = Asking::start(&self.events, settings, fetching.keys.clone())?;
        std::mem::replace(&mut self.fetching, fetching).task.abort();
        if let Some(old) = std::mem::replace(&mut self.asking, asking) {
            old.task.abort();
        }
        Ok(())
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

/// Fetches the keys of every issuer once, for replay. An issuer that gives none is told of and goes without.
pub(super) fn fetch_once(settings: &TokenSettings) -> Result<Arc<KeyRing>, RuntimeError> {
    let (ring, failures) = fetch::fetch_all_once(settings)?;
    for (index, error) in failures {
        let issuer = settings.issuers.get(index).map_or("", |issuer| issuer.issuer.as_str());
        tracing::warn!("no keys of {issuer}: {error}; its tokens are not verified");
    }
    Ok(Arc::new(ring.for_good()))
}

fn event_loop() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves metrics and probes. An address that cannot be had may be free later: the sensor that this one takes over from
/// has it until it ends.
async fn serve(address: std::net::SocketAddr, first: io::Result<TcpListener>, board: Arc<Board>) {
    let (mut told, mut bound) = (false, first);
    let listener = loop {
        match bound {
            Ok(listener) => break listener,
            Err(error) if !told => {
                told = true;
                tracing::warn!(
                    "no metrics for now: cannot listen on {address}: {error}; set metrics.listen to another address or \
                     off"
                );
            }
            Err(_same) => {}
        }
        tokio::time::sleep(BIND_AGAIN).await;
        bound = server::bind(address);
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!("metrics at http://{address}/metrics");
    }
    server::serve(listener, board).await;
}

/// Reads the marks whenever their file changes. A bad file is told of, and the old marks stay.
async fn read_marks(dir: PathBuf, publish: watch::Sender<Arc<Marks>>) {
    let mut known = None;
    let mut timer = tokio::time::interval(LOOK_AT_MARKS);
    loop {
        timer.tick().await;
        let stamp = store::stamp(&dir);
        if stamp == known {
            continue;
        }
        known = stamp;
        match store::read(&dir) {
            Ok(marks) => {
                tracing::info!("{} marks of alerts are in force", marks.all().len());
                if publish.send(Arc::new(marks)).is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!("marks of alerts were not read, the old ones stay: {error}"),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    rotated: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            rotated: signal(SignalKind::user_defined1())?,
        })
    }

    async fn watch(mut self, tell: SyncSender<News>, mut stopped: watch::Receiver<bool>) {
        loop {
            let news = tokio::select! {
                _ = self.terminate.recv() => News::Stop,
                _ = self.interrupt.recv() => News::Stop,
                _ = self.hang_up.recv() => News::Reload,
                _ = self.rotated.recv() => News::Reopen,
                _ = stopped.changed() => return,
            };
            let _ = tell.try_send(news);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_nothing_new_for_long_is_not_alive() {
        let board = Board::default();
        assert!(board.is_alive() && !Status::is_ready(&board), "it has not begun");
        board.show(Vec::new());
        assert!(board.is_alive() && Status::is_ready(&board));
        let long_ago = Instant::now().checked_sub(STALLED).unwrap();
        *board.0.write().unwrap() = Some(Page { metrics: Vec::new(), at: long_ago });
        assert!(!board.is_alive() && Status::is_ready(&board));
    }
}
