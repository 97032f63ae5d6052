//! Follows the pods of this node: lists them, watches them, and begins anew whenever the API says so or says nothing.
//!
//! The field selector `spec.nodeName` keeps it small: a watch of every pod costs each node what the cluster has. What fails
//! is counted, told once, and tried again after 0.8 to 30 s, doubling, with jitter. Nothing else waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Error};

use super::bounded::TooLarge;
use super::client::{self, ClientError};
use super::pod::PodObject;
use super::{Cluster, Failure, MAX_PODS};
use crate::telemetry::printable;

/// Pods a page, which the client library also takes unless told otherwise.
const PAGE: u32 = 500;
/// How long a page of the list may take.
const LISTING: Duration = Duration::from_secs(30);
/// How long the server may keep a watch open, in seconds; the library asks again then.
const WATCHING_S: u32 = 290;
/// Longest reason of the server's that is told.
const MAX_REASON: usize = 300;

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How to reach the API; none: as a pod.
    pub kubeconfig: Option<PathBuf>,
    /// The node, as the cluster calls it.
    pub node: String,
    /// The labels that are kept, in order.
    pub labels: Vec<String>,
}

/// Why following failed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Watch(#[from] watcher::Error),
    #[error("the API server does not answer: a page of pods took longer than {} s", LISTING.as_secs())]
    Slow,
    #[error("the API server tells of more than {MAX_PODS} pods on one node: is the node's name right?")]
    TooMany,
}

/// Follows the pods until it is dropped. `clock` gives the time.
pub async fn follow(settings: Settings, cluster: Arc<Cluster>, clock: fn() -> Instant) {
    let mut backoff = DefaultBackoff::default();
    let mut teller = Teller { node: settings.node.clone(), told: None };
    cluster.begin();
    loop {
        let trouble = once(&settings, &cluster, clock, &mut backoff, &mut teller).await;
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
        Ok(client) => client,
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
                Err(_elapsed) => return Trouble::Slow,
            }
        } else {
            // The library gives up a watch that is silent for longer than its server may keep it open.
            events.next().await
        };
        match next {
            Some(Ok(event)) => {
                listing = matches!(event, Event::Init | Event::InitApply(_));
                if !listing {
                    teller.recovered();
                }
                if !take(settings, cluster, event, clock()) {
                    return Trouble::TooMany;
                }
            }
            // A watch that cannot begin where the last one ended never will: the library asks for the same again.
            Some(Err(error)) if listing || has_expired(&error) => return error.into(),
            Some(Err(error)) => {
                teller.tell(cluster, &error.into());
                tokio::time::sleep(backoff.next().unwrap_or(LISTING)).await;
            }
            None => return Trouble::Slow,
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

fn has_expired(error: &watcher::Error) -> bool {
    status(error) == Some(410)
}

/// The status code of a refusal.
fn status(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status))
        | watcher::Error::WatchFailed(Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

fn why(trouble: &Trouble) -> Failure {
    let error = match trouble {
        Trouble::Watch(error) => error,
        Trouble::Slow => return Failure::Unreachable,
        Trouble::Client(_) => return Failure::Other,
        Trouble::TooMany => return Failure::Malformed,
    };
    match (status(error), error) {
        (Some(401), _) => Failure::Unauthorized,
        (Some(403), _) => Failure::Forbidden,
        (Some(410), _) => Failure::Expired,
        // What is no event is taken for a status that says nothing.
        (Some(0), _) => Failure::Malformed,
        (Some(_), _) => Failure::Other,
        (None, watcher::Error::NoResourceVersion) => Failure::Malformed,
        (
            None,
            watcher::Error::InitialListFailed(inner)
            | watcher::Error::WatchStartFailed(inner)
            | watcher::Error::WatchFailed(inner),
        ) => match inner {
            Error::SerdeError(_) | Error::FromUtf8(_) => Failure::Malformed,
            inner if is_too_large(inner) => Failure::Malformed,
            Error::HyperError(_) | Error::Service(_) | Error::ReadEvents(_) => Failure::Unreachable,
            _ => Failure::Other,
        },
        (None, watcher::Error::WatchError(_)) => Failure::Other,
    }
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<TooLarge>() {
            return true;
        }
        // An error of I/O shows what it wraps, and not itself as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| is_too_large(inner)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Says once what is wrong, and once that it is no more.
struct Teller {
    node: String,
    told: Option<Failure>,
}

impl Teller {
    fn tell(&mut self, cluster: &Cluster, trouble: &Trouble) {
        let failure = why(trouble);
        cluster.failed(failure);
        // Lists are read anew every now and then: that is how a watch goes on.
        if failure == Failure::Expired || self.told == Some(failure) {
            return;
        }
        self.told = Some(failure);
        tracing::warn!(
            "names of pods are not known, or not up to date: {}; it is tried again",
            self.reason(failure, trouble)
        );
    }

    fn reason(&self, failure: Failure, trouble: &Trouble) -> String {
        let said = printable(&trouble.to_string());
        let said = said.get(..said.floor_char_boundary(MAX_REASON)).unwrap_or(&said);
        match failure {
            Failure::Unauthorized => format!(
                "the API server does not know who asks (401): {said}; the token is not valid: is the service account still there?"
            ),
            Failure::Forbidden => format!(
                "the API server refuses (403): {said}; the service account needs a ClusterRole with `apiGroups: [\"\"], resources: [pods], verbs: [get, list, watch]` and a ClusterRoleBinding"
            ),
            Failure::Unreachable => format!("{said}; is the API server reachable from node {}?", self.node),
            Failure::Expired | Failure::Malformed | Failure::Other => said.to_owned(),
        }
    }

    fn recovered(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("names of pods are known again");
        }
    }
}
