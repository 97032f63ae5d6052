//! What the cluster says of the pods of this node: their names, labels and owners by UID and by container.
//!
//! [`follow`](mod@follow) keeps it true by a watch of the API; whoever asks looks here and never waits. A pod that was deleted is
//! remembered for a while: alerts may come later than its end.

pub mod ask;
pub mod bounded;
pub mod client;
pub mod follow;
pub mod pod;
pub mod token;
pub mod trouble;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::alert::place::{Container, Pod};
pub use pod::Described;

/// Most pods of a node: the kubelet's default is 110, and nobody is known to run more than 1,000. Some 1 KiB each.
pub const MAX_PODS: usize = 4096;
/// Most deleted pods that are remembered: seven a second for as long as [`REMEMBERED`].
const MAX_GONE: usize = 4096;
/// How long a deleted pod is remembered.
pub const REMEMBERED: Duration = Duration::from_mins(10);
/// How long the name of a pod may take that the cluster does not have: a kubelet tells of a pod before it starts it, so
/// that only a watch that lags makes it late. Static pods of which the API holds no mirror never come.
const AWAITED: Duration = Duration::from_mins(1);
/// Most pods that are waited for.
const MAX_AWAITED: usize = 1024;

/// How it stands with the watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody watches.
    #[default]
    Off,
    /// The pods were never listed yet.
    Begun,
    /// The pods are known, and news of them come.
    Synced,
    /// The pods are known as they were when the API last answered.
    Stale,
}

/// What somebody who asks for a pod is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The pod, and the container if its id is known.
    Pod {
        /// The pod.
        pod: Arc<Pod>,
        /// The container.
        container: Option<Container>,
        /// Whether its owner wants it to be watched.
        watched: bool,
        /// Whether it was deleted.
        gone: bool,
    },
    /// It may come yet.
    Pending,
    /// It will not come.
    Unknown,
}

/// Counted failures of the watch, by why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 401: who asks is not known.
    Unauthorized,
    /// 403: who asks may not.
    Forbidden,
    /// 410: the watch was too far behind, and the pods are listed anew.
    Expired,
    /// Nobody answers, or in no time.
    Unreachable,
    /// The answer is none, or larger than any should be.
    Malformed,
    /// Any other.
    Other,
}

impl Failure {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Unauthorized, Self::Forbidden, Self::Expired, Self::Unreachable, Self::Malformed, Self::Other];

    /// Its word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

/// The pods of this node, shared between the watch and those who ask.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: Mutex<Pods>,
    failures: [AtomicU64; Failure::ALL.len()],
    /// Grows with every change, so that who has decided something knows when to look again.
    changes: AtomicU64,
    /// The date of the server's last answer, in seconds since 1970; 0 if there was none.
    date: AtomicI64,
}

#[derive(Debug, Default)]
struct Pods {
    state: State,
    /// By UID.
    all: HashMap<Box<str>, Held>,
    /// UIDs by container id, and by the hash of a static pod's file.
    also: HashMap<Box<str>, Box<str>>,
    /// When those went that are gone, oldest first.
    went: VecDeque<(Instant, Box<str>)>,
    gone: usize,
    /// While pods are listed: those that the list has.
    listed: Option<HashSet<Box<str>>>,
    /// Since when a pod is asked for that nobody knows.
    awaited: HashMap<Box<str>, Instant>,
    refused: u64,
}

#[derive(Debug)]
struct Held {
    described: Described,
    gone: Option<Instant>,
}

impl Held {
    fn answer(&self, container: Option<&str>) -> Answer {
        Answer::Pod {
            pod: Arc::clone(&self.described.pod),
            container: container.and_then(|id| self.described.container(id)).cloned(),
            watched: self.described.watched,
            gone: self.gone.is_some(),
        }
    }
}

/// Figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How it stands with the watch.
    pub state: State,
    /// Pods that are there.
    pub live: usize,
    /// Deleted pods that are remembered.
    pub gone: usize,
    /// Pods that found no room.
    pub refused: u64,
    /// Failures of the watch.
    pub failures: [u64; Failure::ALL.len()],
}

impl Cluster {
    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Grows with every change.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The server's clock says so, in seconds since 1970.
    pub fn dated(&self, date: i64) {
        self.date.store(date, Ordering::Relaxed);
    }

    /// What the server's clock said, once: an answer tells the time only as it comes.
    #[must_use]
    pub fn date(&self) -> Option<i64> {
        Some(self.date.swap(0, Ordering::Relaxed)).filter(|date| *date != 0)
    }

    /// A watch begins; what is known stays.
    pub fn begin(&self) {
        let mut pods = self.pods();
        pods.state = if pods.all.is_empty() { State::Begun } else { State::Stale };
    }

    /// Nobody watches any more.
    pub fn end(&self) {
        *self.pods() = Pods::default();
        self.changed();
    }

    /// The API takes the watch: what comes from now on is new.
    pub fn caught_up(&self) {
        let mut pods = self.pods();
        if pods.state == State::Stale {
            pods.state = State::Synced;
        }
    }

    /// The watch has failed.
    pub fn failed(&self, why: Failure) {
        if let Some(count) = self.failures.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut pods = self.pods();
        if pods.state == State::Synced {
            pods.state = State::Stale;
        }
    }

    /// Every pod is about to be told of anew.
    pub fn list_begins(&self) {
        self.pods().listed = Some(HashSet::new());
    }

    /// Every pod was told of: what was not is gone.
    pub fn list_ends(&self, now: Instant) {
        let mut pods = self.pods();
        let listed = pods.listed.take().unwrap_or_default();
        let missing = pods.all.iter().filter(|(uid, held)| held.gone.is_none() && !listed.contains(*uid));
        let missing: Vec<Box<str>> = missing.map(|(uid, _)| uid.clone()).collect();
        for uid in missing {
            pods.lose(&uid, now);
        }
        pods.state = State::Synced;
        drop(pods);
        self.changed();
    }

    /// A pod is there, or has changed. False if there are too many.
    pub fn apply(&self, described: Described) -> bool {
        let taken = self.pods().apply(described);
        self.changed();
        taken
    }

    /// A pod was deleted.
    pub fn delete(&self, uid: &str, now: Instant) {
        self.pods().lose(uid, now);
        self.changed();
    }

    /// Who this is. The container may tell where the pod's UID does not.
    #[must_use]
    pub fn find(&self, uid: Option<&str>, container: Option<&str>, now: Instant) -> Answer {
        self.pods().find(uid, container, now)
    }

    /// The same of a pod that is known; nobody waits for one that is not.
    #[must_use]
    pub fn known(&self, uid: Option<&str>, container: Option<&str>) -> Option<Answer> {
        self.pods().known(uid, container)
    }

    /// Whether some pod that is there is such.
    pub fn has_pod(&self, mut is_such: impl FnMut(&Answer) -> bool) -> bool {
        let pods = self.pods();
        pods.all.values().any(|held| held.gone.is_none() && is_such(&held.answer(None)))
    }

    /// Whether the pods are to be listed, and never were yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.pods().state == State::Begun
    }

    /// Forgets what has been gone for long.
    pub fn tend(&self, now: Instant) {
        self.pods().tend(now);
    }

    /// Figures.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let pods = self.pods();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            state: pods.state,
            live: pods.all.len() - pods.gone,
            gone: pods.gone,
            refused: pods.refused,
            failures: std::array::from_fn(|which| self.failures.get(which).map_or(0, count)),
        }
    }
}

impl Pods {
    fn apply(&mut self, described: Described) -> bool {
        let uid = described.pod.uid.clone();
        if !self.all.contains_key(&uid) && self.all.len() - self.gone >= MAX_PODS {
            self.refused += 1;
            return false;
        }
        if let Some(listed) = &mut self.listed {
            listed.insert(uid.clone());
        }
        self.forget(&uid);
        self.awaited.remove(&uid);
        for name in described.names() {
            self.awaited.remove(name);
            self.also.insert(name.into(), uid.clone());
        }
        self.all.insert(uid, Held { described, gone: None });
        true
    }

    /// Forgets a pod altogether.
    fn forget(&mut self, uid: &str) {
        let Some(held) = self.all.remove(uid) else { return };
        self.gone -= usize::from(held.gone.is_some());
        for name in held.described.names() {
            if self.also.get(name).is_some_and(|owner| &**owner == uid) {
                self.also.remove(name);
            }
        }
    }

    fn lose(&mut self, uid: &str, now: Instant) {
        let Some(held) = self.all.get_mut(uid) else { return };
        if held.gone.is_none() {
            held.gone = Some(now);
            self.gone += 1;
            self.went.push_back((now, uid.into()));
        }
        self.tend(now);
    }

    fn tend(&mut self, now: Instant) {
        while let Some((went, uid)) = self.went.front() {
            if now.duration_since(*went) < REMEMBERED && self.went.len() <= MAX_GONE {
                break;
            }
            let (went, uid) = (*went, uid.clone());
            self.went.pop_front();
            // It may have come back since.
            if self.all.get(&uid).is_some_and(|held| held.gone == Some(went)) {
                self.forget(&uid);
            }
        }
        self.awaited.retain(|_, since| now.duration_since(*since) < REMEMBERED);
    }

    fn find(&mut self, uid: Option<&str>, container: Option<&str>, now: Instant) -> Answer {
        if let Some(known) = self.known(uid, container) {
            return known;
        }
        // A container that is no pod's is not waited for.
        let Some(uid) = uid else { return Answer::Unknown };
        match self.state {
            State::Off => Answer::Unknown,
            State::Begun | State::Stale => Answer::Pending,
            State::Synced => self.wait(uid, now),
        }
    }

    fn known(&self, uid: Option<&str>, container: Option<&str>) -> Option<Answer> {
        let by_name = |name: &str| self.also.get(name).and_then(|uid| self.all.get(uid));
        let held = uid.and_then(|uid| self.all.get(uid).or_else(|| by_name(uid)));
        held.or_else(|| container.and_then(by_name)).map(|held| held.answer(container))
    }

    fn wait(&mut self, uid: &str, now: Instant) -> Answer {
        let since = match self.awaited.get(uid) {
            Some(since) => *since,
            None if self.awaited.len() >= MAX_AWAITED => return Answer::Unknown,
            None => *self.awaited.entry(uid.into()).or_insert(now),
        };
        if now.duration_since(since) < AWAITED { Answer::Pending } else { Answer::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a test's first moment")]
    fn now() -> Instant {
        Instant::now()
    }

    fn described(uid: &str, name: &str) -> Described {
        let pod = Pod { uid: uid.into(), namespace: "shop".into(), name: name.into(), ..Pod::default() };
        let container = Container { name: "main".into(), image: None, image_id: None };
        Described {
            pod: Arc::new(pod),
            containers: vec![(format!("c-{uid}").into(), container)],
            mirror_of: Some(format!("m-{uid}").into()),
            watched: true,
        }
    }

    fn name(answer: &Answer) -> Option<(String, bool)> {
        match answer {
            Answer::Pod { pod, gone, .. } => Some((pod.full_name(), *gone)),
            Answer::Pending | Answer::Unknown => None,
        }
    }

    fn synced(pods: &[(&str, &str)]) -> Cluster {
        let cluster = Cluster::default();
        cluster.begin();
        cluster.list_begins();
        for (uid, name) in pods {
            assert!(cluster.apply(described(uid, name)));
        }
        cluster.list_ends(now());
        cluster
    }

    #[test]
    fn a_pod_is_found_by_its_uid_its_container_and_its_mirror() {
        let (cluster, now) = (synced(&[("u", "a")]), now());
        let wanted = Some(("shop/a".to_owned(), false));
        for (uid, container) in [(Some("u"), None), (None, Some("c-u")), (Some("m-u"), Some("x"))] {
            assert_eq!(name(&cluster.find(uid, container, now)), wanted, "{uid:?} {container:?}");
        }
        let Answer::Pod { container, .. } = cluster.find(Some("u"), Some("c-u"), now) else { panic!() };
        assert_eq!(&*container.unwrap().name, "main");
        assert_eq!(cluster.find(None, Some("other"), now), Answer::Unknown);
    }

    #[test]
    fn a_pod_is_waited_for_while_it_may_come() {
        let (cluster, now) = (Cluster::default(), now());
        assert_eq!(cluster.find(Some("u"), None, now), Answer::Unknown, "nobody watches");
        cluster.begin();
        assert_eq!(cluster.find(Some("u"), None, now + REMEMBERED), Answer::Pending);
        cluster.list_begins();
        cluster.list_ends(now);
        assert_eq!(cluster.find(Some("u"), None, now), Answer::Pending);
        assert_eq!(cluster.find(Some("u"), None, now + AWAITED), Answer::Unknown);
        cluster.apply(described("u", "a"));
        assert!(name(&cluster.find(Some("u"), None, now)).is_some());
    }

    #[test]
    fn a_deleted_pod_is_remembered_for_a_while_and_then_not() {
        let (cluster, now) = (synced(&[("u", "a"), ("v", "b")]), now());
        cluster.delete("u", now);
        cluster.delete("u", now + Duration::from_secs(1));
        assert_eq!(name(&cluster.find(Some("u"), None, now)), Some(("shop/a".into(), true)));
        let figures = cluster.figures();
        assert_eq!((figures.live, figures.gone), (1, 1));
        cluster.tend(now + REMEMBERED);
        assert_eq!(name(&cluster.find(Some("u"), Some("c-u"), now)), None);
        assert_eq!(name(&cluster.find(Some("v"), None, now)), Some(("shop/b".into(), false)));
    }

    #[test]
    fn what_a_new_list_lacks_is_gone_and_what_comes_back_is_not() {
        let (cluster, now) = (synced(&[("u", "a"), ("v", "b")]), now());
        cluster.failed(Failure::Expired);
        assert_eq!(cluster.figures().state, State::Stale);
        cluster.list_begins();
        cluster.apply(described("v", "b"));
        cluster.list_ends(now);
        assert_eq!(name(&cluster.find(Some("u"), None, now)), Some(("shop/a".into(), true)));
        cluster.apply(described("u", "a"));
        cluster.tend(now + REMEMBERED);
        assert_eq!(name(&cluster.find(Some("u"), None, now)), Some(("shop/a".into(), false)));
        let figures = cluster.figures();
        assert_eq!(
            (figures.live, figures.gone, figures.state, figures.failures),
            (2, 0, State::Synced, [0, 0, 1, 0, 0, 0])
        );
    }

    #[test]
    fn a_container_that_moved_on_is_not_confused() {
        let (cluster, now) = (synced(&[("u", "a")]), now());
        // The container was restarted under another id.
        let mut again = described("u", "a");
        again.containers = vec![("c2".into(), again.containers[0].1.clone())];
        cluster.apply(again);
        assert_eq!(cluster.find(None, Some("c-u"), now), Answer::Unknown);
        assert!(name(&cluster.find(None, Some("c2"), now)).is_some());
    }

    #[test]
    fn churn_is_bounded() {
        let (cluster, now) = (synced(&[]), now());
        for round in 0..3 * u32::try_from(MAX_GONE).unwrap() {
            let uid = format!("u{round}");
            assert!(cluster.apply(described(&uid, &uid)));
            cluster.delete(&uid, now);
        }
        let figures = cluster.figures();
        assert_eq!((figures.live, figures.gone), (0, MAX_GONE));
        assert_eq!(cluster.pods().also.len(), 2 * MAX_GONE);
        for number in 0..=MAX_PODS {
            assert_eq!(cluster.apply(described(&format!("v{number}"), "x")), number < MAX_PODS);
        }
        assert_eq!((cluster.figures().live, cluster.figures().refused), (MAX_PODS, 1));
        for number in 0..2 * MAX_AWAITED {
            let _ = cluster.find(Some(&format!("w{number}")), None, now);
        }
        assert_eq!(cluster.pods().awaited.len(), MAX_AWAITED);
    }
}
