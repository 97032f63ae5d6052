//! The identity thread: looks up servers when they are first met, and decides whether they are watched.
//!
//! The capture thread gives ids of cgroups away and takes decisions back, both by bounded channels, and never waits. A
//! server is looked up while it is there, so that an alert that comes after its end still has a name.
//!
//! Whoever is to be left out is told ahead: when the cluster lists its pods, tells of a change, or the configuration does,
//! the tree of cgroups is walked, and those that nobody has met yet are decided on too. What the tree or the cluster tells
//! later than the first request comes is watched until then.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::RuntimeError;
use super::hosts::Hosts;
use crate::alert::Identity;
use crate::chosen::Chosen;
use crate::enrich::cluster::{Failure, State};
use crate::enrich::watch::Wishes;
use crate::telemetry::{Metric, catalogue as of};

/// Messages that wait for the thread: it needs milliseconds for one, and a busy capture thread sends a few hundred a
/// second.
const QUEUE: usize = 64;
/// Decisions that wait for the capture thread, which takes them at least twice a second.
const DECISIONS: usize = 1024;
/// Most cgroups whose decision is looked after; see `chosen`.
const MAX_ASKED: usize = 16_384;
/// How often a cgroup is looked for that is not found: it may have gone before anybody looked.
const TRIES: u8 = 5;
/// How often it is looked whether the cluster has told something, and what is over is forgotten.
const TICK: Duration = Duration::from_secs(1);
/// The same while the first list of pods is awaited: until it is there, those who opted out are watched.
const EAGER: Duration = Duration::from_millis(50);
/// For so long at most: a cluster that takes longer does not answer.
const EAGER_FOR: Duration = Duration::from_secs(10);

/// What the thread is told.
enum Message {
    /// Servers in these cgroups were met.
    Met(Vec<u64>),
    /// The configuration has changed.
    Wishes(Wishes),
}

/// How alerts were told, by how far it was known who answered; and how many were completed later.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Mutex<([u64; Identity::ALL.len()], u64)>>);

impl Tally {
    /// One more was told.
    pub(super) fn told(&self, identity: Identity) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.0.get_mut(identity as usize) {
            *count += 1;
        }
    }

    /// One more was completed.
    pub(super) fn completed(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
    }
}

/// The capture thread's end.
pub(super) struct Watching {
    messages: SyncSender<Message>,
    decisions: Receiver<(u64, bool)>,
    hosts: Hosts,
    pub(super) tally: Tally,
    /// Ends with the channel.
    _thread: JoinHandle<()>,
}

impl Watching {
    /// Starts the thread.
    pub(super) fn start(hosts: Hosts, wishes: Wishes) -> Result<Self, RuntimeError> {
        let (messages, asked) = sync_channel(QUEUE);
        let (decide, decisions) = sync_channel(DECISIONS);
        let clerk = Clerk::new(hosts.clone(), wishes, decide);
        let thread = std::thread::Builder::new().name("identity".into()).spawn(move || clerk.run(&asked));
        let thread = thread.map_err(|cause| RuntimeError::Start { what: "the identity thread", cause })?;
        Ok(Self { messages, decisions, hosts, tally: Tally::default(), _thread: thread })
    }

    /// Gives away what was met, and takes what was decided.
    pub(super) fn step(&self, chosen: &mut Chosen) {
        let met = chosen.take_met();
        if !met.is_empty()
            && let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) =
                self.messages.try_send(Message::Met(met))
            && let Message::Met(met) = message
        {
            chosen.forget(&met);
        }
        while let Ok((cgroup, watched)) = self.decisions.try_recv() {
            chosen.decide(cgroup, watched);
        }
    }

    /// Decides by other wishes from now on.
    pub(super) fn wish(&self, wishes: Wishes) {
        if self.messages.try_send(Message::Wishes(wishes)).is_err() {
            tracing::error!("`watch` is as it was, for too much is under way: reload again");
        }
    }

    /// What there is to count.
    pub(super) fn metrics(&self, all: &mut Vec<Metric>, chosen: &Chosen) {
        let (told, completed) = *self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(of::IDENTITY_ALERTS.counts(Identity::ALL.map(Identity::as_str).into_iter().zip(told)));
        all.push(of::IDENTITY_COMPLETED.count(completed));
        let figures = self.hosts.cluster.figures();
        let up = u64::from(figures.state == State::Synced);
        all.push(of::IDENTITY_SYNCED.level(up));
        for (state, pods) in [("live", figures.live), ("gone", figures.gone)] {
            all.push(of::IDENTITY_PODS.level(pods as u64).with(&[state.into()]));
        }
        all.extend(
            of::IDENTITY_FAILURES.counts(Failure::ALL.map(Failure::as_str).into_iter().zip(figures.failures)),
        );
        let costs = self.hosts.costs();
        for (state, cgroups) in [("live", costs.cgroups.0), ("gone", costs.cgroups.1)] {
            all.push(of::IDENTITY_CGROUPS.level(cgroups as u64).with(&[state.into()]));
        }
        all.extend(of::IDENTITY_WALKS.counts(["changed", "whole"].into_iter().zip(costs.walks)));
        let refused = [("pod", figures.refused), ("cgroup", costs.refused)];
        all.extend(of::IDENTITY_REFUSED.counts(refused.into_iter()));
        all.push(of::UNWATCHED.count(chosen.skipped));
        all.push(of::UNWATCHED_CGROUPS.level(chosen.left_out() as u64));
    }
}

/// What the capture thread was told of a cgroup.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// None if what it was told may have crossed what it said.
    watched: Option<bool>,
    /// How often it is still looked for while it is not known.
    tries: u8,
}

/// The thread.
struct Clerk {
    hosts: Hosts,
    wishes: Wishes,
    decide: SyncSender<(u64, bool)>,
    asked: HashMap<u64, Asked>,
    /// When all were looked at last, and how often the cluster had changed by then.
    looked: Option<(Instant, u64)>,
    /// Whether a decision found no room, a cgroup is looked for, or the tree could not be walked.
    pending: bool,
    /// Since when the first list of pods is awaited, and whether it still was at the last look.
    awaited: Option<Instant>,
    eager: bool,
}

impl Clerk {
    fn new(hosts: Hosts, wishes: Wishes, decide: SyncSender<(u64, bool)>) -> Self {
        Self {
            hosts,
            wishes,
            decide,
            asked: HashMap::new(),
            looked: None,
            pending: false,
            awaited: None,
            eager: false,
        }
    }

    /// Whether the first list of pods is awaited, and not for long yet.
    fn is_eager(&mut self, now: Instant) -> bool {
        self.hosts.cluster.is_new() && now.duration_since(*self.awaited.get_or_insert(now)) < EAGER_FOR
    }

    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let patience = if self.is_eager(Instant::now()) { EAGER } else { TICK };
            match messages.recv_timeout(patience) {
                Ok(Message::Met(met)) => self.met(&met, Instant::now()),
                Ok(Message::Wishes(wishes)) => {
                    self.wishes = wishes;
                    self.pending = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tend(Instant::now());
        }
    }

    fn met(&mut self, cgroups: &[u64], now: Instant) {
        self.hosts.look_for(cgroups, now);
        if self.asked.len() + cgroups.len() > MAX_ASKED {
            // Whoever is left out must be taken back one day; whoever is watched is watched without a word.
            self.asked.retain(|_, asked| asked.watched != Some(true));
        }
        let room = MAX_ASKED.saturating_sub(self.asked.len());
        for cgroup in cgroups.iter().take(room) {
            // The capture thread watches what it has just met, unless it was told of it ahead.
            let is_told = self.asked.get(cgroup).is_some_and(|asked| asked.watched != Some(true));
            let watched = (!is_told).then_some(true);
            self.asked.insert(*cgroup, Asked { watched, tries: TRIES });
            self.pending |= !self.hosts.knows(*cgroup);
            self.decide(*cgroup, now);
        }
    }

    /// Decides on one, and tells if it is not as it was.
    fn decide(&mut self, cgroup: u64, now: Instant) {
        let Some(asked) = self.asked.get_mut(&cgroup) else { return };
        let wanted = self.hosts.is_wanted(cgroup, &self.wishes, now);
        if asked.watched != Some(wanted) {
            if self.decide.try_send((cgroup, wanted)).is_ok() {
                asked.watched = Some(wanted);
            } else {
                self.pending = true;
            }
        }
    }

    /// What the cluster has told, or somebody wishes, may change every decision.
    fn look_again(&mut self, now: Instant) {
        self.pending = false;
        self.look_ahead(now);
        let (hosts, mut missing) = (&self.hosts, Vec::new());
        for (cgroup, asked) in
            self.asked.iter_mut().filter(|(id, asked)| asked.tries > 0 && !hosts.knows(**id))
        {
            asked.tries -= 1;
            missing.push(*cgroup);
        }
        self.hosts.look_for(&missing, now);
        self.pending |= missing.iter().any(|cgroup| !self.hosts.knows(*cgroup));
        let all: Vec<u64> = self.asked.keys().copied().collect();
        for cgroup in all {
            self.decide(cgroup, now);
        }
    }

    /// Adds those who are to be left out and were not met yet, as far as there is room.
    fn look_ahead(&mut self, now: Instant) {
        let Some(left_out) = self.hosts.left_out(&self.wishes, now) else {
            self.pending = true;
            return;
        };
        if left_out.is_empty() {
            return;
        }
        // Else pods that come and go would fill it.
        let hosts = &self.hosts;
        self.asked.retain(|cgroup, _| !hosts.is_gone(*cgroup));
        for cgroup in left_out {
            if self.asked.len() >= MAX_ASKED {
                return;
            }
            // Whoever was not met is watched; nobody looks for what the tree has.
            self.asked.entry(cgroup).or_insert(Asked { watched: Some(true), tries: 0 });
        }
    }

    fn tend(&mut self, now: Instant) {
        let eager = self.is_eager(now);
        let was_eager = std::mem::replace(&mut self.eager, eager);
        let is_early = |(looked, _)| now.duration_since(looked) < TICK;
        if !eager && !was_eager && self.looked.is_some_and(is_early) {
            return;
        }
        self.hosts.cluster.tend(now);
        let changes = self.hosts.cluster.changes();
        if self.pending || self.looked.is_none_or(|(_, seen)| seen != changes) {
            self.look_again(now);
        }
        self.looked = Some((now, changes));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use super::*;
    use crate::alert::place::Pod;
    use crate::capture::Origin;
    use crate::enrich::cluster::Described;

    const UID: &str = "0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42";

    struct Bench {
        dir: tempfile::TempDir,
        clerk: Clerk,
        decisions: Receiver<(u64, bool)>,
        now: Instant,
    }

    impl Bench {
        fn new(wishes: Wishes) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let hosts = Hosts::of(Path::new("/nowhere"), dir.path().to_owned());
            let (decide, decisions) = sync_channel(1);
            Self { dir, clerk: Clerk::new(hosts, wishes, decide), decisions, now: Instant::now() }
        }

        fn cgroup(&self, path: &str) -> u64 {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::metadata(path).unwrap().ino()
        }

        fn tell(&self, watched: bool) {
            let pod = Pod { uid: UID.into(), namespace: "shop".into(), name: "a".into(), ..Pod::default() };
            let described = Described { pod: pod.into(), containers: Vec::new(), mirror_of: None, watched };
            self.clerk.hosts.cluster.apply(described);
        }

        fn decided(&mut self) -> Vec<(u64, bool)> {
            self.now += TICK;
            self.clerk.tend(self.now);
            self.decisions.try_iter().collect()
        }
    }

    #[test]
    fn a_pod_that_opts_out_is_left_out_once_that_is_known_and_taken_back() {
        let mut bench = Bench::new(Wishes::default());
        let pod = bench.cgroup(&format!("kubepods/pod{UID}"));
        bench.clerk.met(&[pod], bench.now);
        assert_eq!(bench.decided(), []);
        bench.tell(false);
        assert_eq!(bench.decided(), [(pod, false)]);
        assert_eq!(bench.decided(), [], "told once");
        bench.tell(true);
        assert_eq!(bench.decided(), [(pod, true)]);
    }

    #[test]
    fn wishes_change_decisions_and_what_finds_no_room_is_told_later() {
        let mut bench = Bench::new(Wishes::default());
        let units = [bench.cgroup("system.slice/a.service"), bench.cgroup("system.slice/b.service")];
        bench.clerk.met(&units, bench.now);
        assert_eq!(bench.decided(), []);
        bench.clerk.wishes.not_units = vec!["*".into()];
        bench.clerk.pending = true;
        let mut decided = [bench.decided(), bench.decided()].concat();
        decided.sort_unstable();
        let mut wanted = units.map(|unit| (unit, false));
        wanted.sort_unstable();
        assert_eq!(decided, wanted);
    }

    #[test]
    fn who_opted_out_is_told_before_anybody_meets_them() {
        let mut bench = Bench::new(Wishes::default());
        let pod = bench.cgroup(&format!("kubepods/pod{UID}"));
        assert_eq!(bench.decided(), []);
        bench.tell(false);
        assert_eq!(bench.decided(), [(pod, false)]);
        assert_eq!(bench.decided(), [], "told once");
        // A container comes, and the cluster tells of it.
        let container = bench.cgroup(&format!("kubepods/pod{UID}/{}", "3f".repeat(32)));
        bench.tell(false);
        assert_eq!(bench.decided(), [(container, false)]);
        bench.tell(true);
        let mut back = [bench.decided(), bench.decided()].concat();
        back.sort_unstable();
        let mut wanted = [(pod, true), (container, true)];
        wanted.sort_unstable();
        assert_eq!(back, wanted);
    }

    #[test]
    fn who_is_met_although_left_out_is_told_again_whatever_holds_by_then() {
        let mut bench = Bench::new(Wishes::default());
        let pod = bench.cgroup(&format!("kubepods/pod{UID}"));
        bench.tell(false);
        assert_eq!(bench.decided(), [(pod, false)]);
        for watched in [false, true] {
            bench.tell(watched);
            bench.clerk.met(&[pod], bench.now);
            assert_eq!(bench.decisions.try_recv(), Ok((pod, watched)));
        }
    }

    #[test]
    fn more_than_can_be_asked_about_push_out_nobody_who_is_left_out() {
        let mut bench = Bench::new(Wishes::default());
        let pod = bench.cgroup(&format!("kubepods/pod{UID}"));
        bench.tell(false);
        assert_eq!(bench.decided(), [(pod, false)]);
        let others: Vec<u64> = (1 << 40..(1 << 40) + 3 * MAX_ASKED as u64).collect();
        for some in others.chunks(1000) {
            bench.clerk.met(some, bench.now);
            assert!(bench.clerk.asked.len() <= MAX_ASKED);
        }
        bench.tell(true);
        assert_eq!(bench.decided(), [(pod, true)]);
    }

    #[test]
    fn units_that_are_left_out_are_told_at_the_start_and_what_is_gone_is_forgotten() {
        let mut bench = Bench::new(Wishes { not_units: vec!["*".into()], ..Wishes::default() });
        let units = [bench.cgroup("system.slice/a.service"), bench.cgroup("system.slice/b.service")];
        // The channel has room for one: the others come next time.
        let mut decided = (0..3).flat_map(|_| bench.decided()).collect::<Vec<_>>();
        decided.sort_unstable();
        let mut wanted = units.map(|unit| (unit, false)).to_vec();
        wanted.sort_unstable();
        assert!(wanted.iter().all(|one| decided.contains(one)), "{decided:?}");
        std::fs::remove_dir(bench.dir.path().join("system.slice/a.service")).unwrap();
        bench.clerk.pending = true;
        bench.decided();
        assert!(!bench.clerk.asked.contains_key(&units[0]) && bench.clerk.asked.contains_key(&units[1]));
    }

    #[test]
    fn the_first_list_is_obeyed_at_once() {
        let mut bench = Bench::new(Wishes::default());
        let pod = bench.cgroup(&format!("kubepods/pod{UID}"));
        let (now, cluster) = (bench.now, Arc::clone(&bench.clerk.hosts.cluster));
        assert!(!bench.clerk.is_eager(now), "nobody asks the cluster");
        cluster.begin();
        bench.clerk.tend(now);
        assert!(bench.clerk.is_eager(now) && !bench.clerk.is_eager(now + EAGER_FOR), "it does not answer");
        cluster.list_begins();
        bench.tell(false);
        cluster.list_ends(now);
        // No second has passed.
        bench.clerk.tend(now);
        assert_eq!(bench.decisions.try_recv(), Ok((pod, false)));
        assert!(!bench.clerk.is_eager(now));
    }

    #[test]
    fn a_cgroup_that_is_never_found_is_not_looked_for_for_ever() {
        let mut bench = Bench::new(Wishes::default());
        bench.clerk.met(&[u64::MAX], bench.now);
        for _ in 0..100 {
            assert_eq!(bench.decided(), []);
        }
        let walks = bench.clerk.hosts.costs().walks;
        assert!(walks[1] <= u64::from(TRIES) + 1, "{walks:?}");
    }

    #[test]
    fn both_ends_meet() {
        let bench = Bench::new(Wishes::default());
        let unit = bench.cgroup("system.slice/a.service");
        let hosts = bench.clerk.hosts.clone();
        let wishes = Wishes { not_units: vec!["a.service".into()], ..Wishes::default() };
        let watching = Watching::start(hosts, wishes).unwrap();
        let mut chosen = Chosen::default();
        chosen.ask();
        let origin = Origin { cgroup: unit, ..Origin::default() };
        let until = Instant::now() + Duration::from_secs(20);
        while chosen.has(&origin) {
            assert!(Instant::now() < until, "nobody decided");
            watching.step(&mut chosen);
            std::thread::park_timeout(Duration::from_millis(2));
        }
        assert!(chosen.skipped > 0);
    }
}
