//! Asks the API server once what following will ask for, to find out whether it would be told.
//!
//! A list of one pod and the head of a watch: each verb is a right of its own. Nothing is kept of the answers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, WatchParams};
use kube::runtime::watcher;

use super::follow::Settings;
use super::pod::PodObject;
use super::trouble::{Circumstances, Told, Trouble};
use super::{Cluster, client};

/// How long it may take until something is said, in all: somebody is waiting for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether there are pods of the node.
///
/// # Errors
/// What went wrong, and what to do about it.
pub async fn ask(settings: &Settings, wall: fn() -> Timestamp) -> Result<bool, Told> {
    let cluster = Arc::default();
    let mut token = None;
    let asked = tokio::time::timeout(PATIENCE, list_and_watch(settings, &cluster, &mut token)).await;
    asked.unwrap_or(Err(Trouble::Slow(PATIENCE))).map_err(|trouble| {
        let now = wall();
        let ahead = cluster.date().map(|date| date.saturating_sub(now.as_second()));
        trouble.told(&Circumstances { node: &settings.node, now, ahead, token })
    })
}

async fn list_and_watch(
    settings: &Settings,
    cluster: &Arc<Cluster>,
    token: &mut Option<super::token::Validity>,
) -> Result<bool, Trouble> {
    let (client, shown) = client::client(settings.kubeconfig.as_ref(), cluster).await?;
    *token = shown;
    let pods = Api::<PodObject>::all(client);
    let fields = format!("spec.nodeName={}", settings.node);
    let list = pods.list(&ListParams::default().fields(&fields).limit(1)).await;
    let list = list.map_err(watcher::Error::InitialListFailed)?;
    let version = list.metadata.resource_version.filter(|version| !version.is_empty());
    let version = version.ok_or(watcher::Error::NoResourceVersion)?;
    // The server ends it after a second; whether it takes it shows before.
    let wanted = WatchParams::default().fields(&fields).timeout(1);
    drop(pods.watch(&wanted, &version).await.map_err(watcher::Error::WatchStartFailed)?);
    Ok(!list.items.is_empty())
}
