//! Follows the pods of this node: lists them, watches them, and begins anew whenever the API says so or says nothing.
//!
//! The field selector `spec.nodeName` keeps it small: a watch of every pod costs each node what the cluster has. What fails
//! is counted, told once, and tried again after 0.8 to 30 s, doubling, with jitter. Nothing else waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::Api;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};

use super::pod::PodObject;
use super::token::Validity;
use super::trouble::{Circumstances, Told, Trouble};
use super::{Cluster, Failure, client};

/// Pods a page, which the client library also takes unless told otherwise.
const PAGE: u32 = 500;
/// How long a page of the list may take.
const LISTING: Duration = Duration::from_secs(30);
/// How long the server may keep a watch open, in seconds; the library asks again then.
const WATCHING_S: u32 = 290;

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How to reach the API; none: as a pod.
    pub kubeconfig: Option<PathBuf>,
    /// The node, as the cluster calls it.
    pub node: String,
    /// Whether nobody said so, and the name of the host is taken for it.
    pub guessed: bool,
    /// The labels that are kept, in order.
    pub labels: Vec<String>,
}

/// The clocks that following needs; the runtime has them.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// For distances.
    pub steady: fn() -> Instant,
    /// For dates: certificates and tokens have them.
    pub wall: fn() -> Timestamp,
}

impl Settings {
    /// What is wrong with the node's name; none if somebody gave it. A pod's own host name is no node's.
    #[must_use]
    pub fn doubt(&self) -> Option<Told> {
        self.guessed.then(|| Told {
            text: format!("the node's name is not known: {} is taken, as this host is called so", self.node),
            remedy: "set the environment's NODE_NAME from the field `spec.nodeName` (the Helm chart and the kustomize \
                     base do), or `kubernetes.node`"
                .into(),
        })
    }

    /// What to say if the server has no pod of this node.
    #[must_use]
    pub fn nobody(&self) -> Told {
        Told {
            text: format!("the API server knows of no pod on node {}", self.node),
            remedy: "is that this node's name? `kubectl get nodes` lists them; correct NODE_NAME or `kubernetes.node`"
                .into(),
        }
    }
}

/// Follows the pods until it is dropped.
pub async fn follow(settings: Settings, cluster: Arc<Cluster>, clocks: Clocks) {
    let mut backoff = DefaultBackoff::default();
    let mut teller = Teller { node: settings.node.clone(), wall: clocks.wall, token: None, told: None };
    if let Some(doubt) = settings.doubt() {
        tracing::warn!("names of pods may not come: {}; {}", doubt.text, doubt.remedy);
    }
    cluster.begin();
    loop {
        let trouble = once(&settings, &cluster, clocks.steady, &mut backoff, &mut teller).await;
        teller.tell(&cluster, &trouble);
        tokio::time::sleep(backoff.next().unwrap_or(LISTING)).await;
    }
}

/// Follows by one client, until the pods have to be listed anew by another.
async fn once(
    settings: &Settings,
    cluster: &Arc<Cluster>,
    clock: fn() -> Instant,
    backoff: &mut DefaultBackoff,
    teller: &mut Teller,
) -> Trouble {
    let client = match client::client(settings.kubeconfig.as_ref(), cluster).await {
        Ok((client, token)) => {
            teller.token = token;
            client
        }
        Err(error) => return error.into(),
    };
    let wanted = watcher::Config::default()
        .fields(&format!("spec.nodeName={}", settings.node))
        .timeout(WATCHING_S)
        .page_size(PAGE);
    let mut events = std::pin::pin!(watcher(Api::<PodObject>::all(client), wanted));
    let mut listing = true;
    loop {
        let next = if listing {
            match tokio::time::timeout(LISTING, events.next()).await {
                Ok(next) => next,
                Err(_elapsed) => return Trouble::Slow(LISTING),
            }
        } else {
            // The library gives up a watch that is silent for longer than its server may keep it open.
            events.next().await
        };
        match next {
            Some(Ok(event)) => {
                listing = matches!(event, Event::Init | Event::InitApply(_));
                let listed = matches!(event, Event::InitDone);
                if !listing {
                    teller.recovered();
                }
                if !take(settings, cluster, event, clock()) {
                    return Trouble::TooMany;
                }
                if listed && cluster.figures().live == 0 {
                    let nobody = settings.nobody();
                    tracing::warn!("names of pods may not come: {}; {}", nobody.text, nobody.remedy);
                }
            }
            // A watch that cannot begin where the last one ended never will: the library asks for the same again.
            Some(Err(error)) => {
                let trouble = Trouble::from(error);
                if listing || trouble.has_expired() {
                    return trouble;
                }
                teller.tell(cluster, &trouble);
                tokio::time::sleep(backoff.next().unwrap_or(LISTING)).await;
            }
            None => return Trouble::Slow(LISTING),
        }
    }
}

/// Notes what has happened. False if there are too many pods.
fn take(settings: &Settings, cluster: &Cluster, event: Event<PodObject>, now: Instant) -> bool {
    match event {
        Event::Init => cluster.list_begins(),
        Event::InitDone => cluster.list_ends(now),
        Event::InitApply(pod) | Event::Apply(pod) => {
            let keeps = |name: &str| settings.labels.iter().any(|label| label == name);
            if let Some(described) = pod.describe(keeps) {
                return cluster.apply(described);
            }
        }
        Event::Delete(pod) => {
            if let Some(uid) = pod.uid() {
                cluster.delete(uid, now);
            }
        }
    }
    true
}

/// Says once what is wrong, and once that it is no more.
struct Teller {
    node: String,
    wall: fn() -> Timestamp,
    token: Option<Validity>,
    told: Option<Failure>,
}

impl Teller {
    fn tell(&mut self, cluster: &Cluster, trouble: &Trouble) {
        let failure = trouble.failure();
        cluster.failed(failure);
        let now = (self.wall)();
        let ahead = cluster.date().map(|date| date.saturating_sub(now.as_second()));
        // Lists are read anew every now and then: that is how a watch goes on.
        if failure == Failure::Expired || self.told == Some(failure) {
            return;
        }
        self.told = Some(failure);
        let told = trouble.told(&Circumstances { node: &self.node, now, ahead, token: self.token });
        tracing::warn!(
            "names of pods are not known, or not up to date: {}; {}; it is tried again",
            told.text,
            told.remedy
        );
    }

    fn recovered(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("names of pods are known again");
        }
    }
}
