//! The way to the API server: from inside the cluster by the service account, from elsewhere by a kubeconfig.
//!
//! The library reads the token of the service account anew every minute, as it rotates, and so does it the CA. It asks
//! nobody else: no plugin of a kubeconfig is run, because a sensor with capabilities runs no commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::layer::layer_fn;

use super::Cluster;
use super::bounded::Bounded;
use super::token::{self, Validity};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may be silent: a watch ends after 290 s on the server's side.
const SILENCE: Duration = Duration::from_secs(310);
/// Largest kubeconfig: one that embeds certificates has some 10 KiB.
const MAX_KUBECONFIG: u64 = 1 << 20;

/// Where the token of a pod's service account is mounted.
pub const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {path}: {problem}")]
    Kubeconfig {
        /// Which.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Not in a cluster, or without a service account.
    #[error("not in a cluster, or without a service account's token: {0}")]
    NotInCluster(String),
    /// TLS or addresses.
    #[error("no client for the Kubernetes API: {0}")]
    Build(String),
}

impl ClientError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Kubeconfig { .. } => "correct the file, or `kubernetes.kubeconfig`",
            Self::NotInCluster(_) => {
                "in a pod set `automountServiceAccountToken: true`, elsewhere `kubernetes.kubeconfig`; or set \
                 `kubernetes.enabled: false`"
            }
            Self::Build(_) => "correct the certificates and the address in the kubeconfig",
        }
    }
}

/// Whether this is a pod, as its environment says.
#[must_use]
pub fn is_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// Whether this is a pod with a service account's token.
#[must_use]
pub fn is_in_cluster() -> bool {
    is_pod() && Path::new(TOKEN).is_file()
}

/// A client of the API server, by a kubeconfig or as a pod, and when the token is valid that it shows.
///
/// # Errors
/// When neither says how.
pub async fn client(
    kubeconfig: Option<&PathBuf>,
    cluster: &Arc<Cluster>,
) -> Result<(Client, Option<Validity>), ClientError> {
    let mut config = match kubeconfig {
        Some(path) => of_file(path).await?,
        None => kube::Config::incluster().map_err(|error| ClientError::NotInCluster(error.to_string()))?,
    };
    let shown = token::validity(&config.auth_info);
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    // Who follows backs off by itself, and says why.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(|error| ClientError::Build(error.to_string()))?;
    let layer = layer_fn(|service| Bounded::new(service, Arc::clone(cluster)));
    Ok((builder.with_layer(&layer).build(), shown))
}

async fn of_file(path: &Path) -> Result<kube::Config, ClientError> {
    let wrong = |problem: String| ClientError::Kubeconfig { path: path.display().to_string(), problem };
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > MAX_KUBECONFIG {
        return Err(wrong(format!("it has more than {MAX_KUBECONFIG} bytes")));
    }
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrong(error.to_string()))?;
    for named in &kubeconfig.auth_infos {
        let runs =
            named.auth_info.as_ref().is_some_and(|auth| auth.exec.is_some() || auth.auth_provider.is_some());
        if runs {
            let problem = format!("the user {:?} is known by a plugin, and plugins are not run", named.name);
            return Err(wrong(problem + "; use a token, `tokenFile` or a client certificate"));
        }
    }
    let options = KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| wrong(error.to_string()))
}
