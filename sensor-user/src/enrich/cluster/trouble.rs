//! What may go wrong between us and the API server: what it counts as, how it is told, and what to do about it.
//!
//! `doctor` and a sensor that starts say the same words, because both ask here.

use std::error::Error as StdError;
use std::time::Duration;

use jiff::Timestamp;
use kube::Error;
use kube::runtime::watcher;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};

use super::bounded::TooLarge;
use super::client::ClientError;
use super::token::Validity;
use super::{Failure, MAX_PODS};
use crate::telemetry::printable;

/// Longest reason of the server's that is told.
const MAX_REASON: usize = 300;
/// Difference between two clocks that is told, in seconds: what API servers and verifiers of tokens forgive is a minute
/// or less.
const SKEW: i64 = 60;

/// Why pods are not known.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is no way to the server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It refused, or what it said was no answer.
    #[error(transparent)]
    Watch(#[from] watcher::Error),
    /// It said nothing for so long.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// More pods than a node has.
    #[error("it tells of more than {MAX_PODS} pods on one node")]
    TooMany,
}

/// What is known besides, when trouble is told.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The node whose pods are asked for.
    pub node: &'a str,
    /// What the hour is here.
    pub now: Timestamp,
    /// By how many seconds the server's clock is ahead of ours, if it ever answered.
    pub ahead: Option<i64>,
    /// When the token is valid that was shown, if it says so.
    pub token: Option<Validity>,
}

/// What is said to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl Told {
    fn new(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { text: text.into(), remedy: remedy.into() }
    }
}

impl Trouble {
    /// What it is counted as.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let error = match self {
            Self::Watch(error) => error,
            Self::Slow(_) => return Failure::Unreachable,
            Self::Client(_) => return Failure::Other,
            Self::TooMany => return Failure::Malformed,
        };
        match (self.status(), error) {
            (Some(401), _) => Failure::Unauthorized,
            (Some(403), _) => Failure::Forbidden,
            (Some(410), _) => Failure::Expired,
            // What is no event is taken for a status that says nothing.
            (Some(0), _) | (None, watcher::Error::NoResourceVersion) => Failure::Malformed,
            (None, error) => inner(error).map_or(Failure::Other, |inner| match inner {
                Error::SerdeError(_) | Error::FromUtf8(_) => Failure::Malformed,
                inner if is_too_large(inner) => Failure::Malformed,
                Error::HyperError(_) | Error::Service(_) | Error::ReadEvents(_) => Failure::Unreachable,
                _ => Failure::Other,
            }),
            (Some(_), _) => Failure::Other,
        }
    }

    /// Whether a watch cannot go on from where it was, and the pods have to be listed anew.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.failure() == Failure::Expired
    }

    /// The status code of a refusal.
    fn status(&self) -> Option<u16> {
        self.refusal().map(|(code, _)| code)
    }

    /// Status code and words of a refusal.
    fn refusal(&self) -> Option<(u16, &str)> {
        let Self::Watch(error) = self else { return None };
        match error {
            watcher::Error::WatchError(status) => Some((status.code, &status.message)),
            error => match inner(error)? {
                Error::Api(status) => Some((status.code, &status.message)),
                _ => None,
            },
        }
    }

    /// What was being done.
    fn verb(&self) -> &'static str {
        match self {
            Self::Watch(watcher::Error::InitialListFailed(_)) => "list",
            _ => "watch",
        }
    }

    /// What to say of it.
    #[must_use]
    pub fn told(&self, about: &Circumstances<'_>) -> Told {
        let said = self.said();
        match self.failure() {
            Failure::Unauthorized => {
                Told::new(format!("the API server does not know who asks (401): {said}"), unknown(about))
            }
            Failure::Forbidden => Told::new(
                format!("the API server does not let us {} pods (403): {said}", self.verb()),
                "give the service account a ClusterRole with `apiGroups: [\"\"], resources: [pods], verbs: [get, list, \
                 watch]`, and bind it by a ClusterRoleBinding (the Helm chart and the kustomize base do)",
            ),
            Failure::Unreachable => self.unreachable(&said, about),
            Failure::Malformed if matches!(self, Self::TooMany) => Told::new(
                format!("the API server is not believed: {said}"),
                format!("is {} the name of this node? (`kubernetes.node`, NODE_NAME)", printable(about.node)),
            ),
            Failure::Malformed => Told::new(
                format!("what answers is no API server: {said}"),
                "correct the address: `server` in the kubeconfig, or what stands between (a proxy, a captive portal)",
            ),
            Failure::Other => match self {
                Self::Client(error) => Told::new(said, error.remedy()),
                _ => Told::new(format!("the API server cannot answer: {said}"), "its own log says why"),
            },
            Failure::Expired => Told::new(said, "nothing: the pods are listed anew"),
        }
    }

    fn unreachable(&self, said: &str, about: &Circumstances<'_>) -> Told {
        let node = printable(about.node);
        let tls: Option<&TlsError> = match self {
            Self::Watch(error) => find(error),
            _ => None,
        };
        match tls {
            Some(TlsError::InvalidCertificate(certificate)) => distrusted(certificate, said, about),
            Some(_) => Told::new(
                format!("no TLS with the API server: {said}"),
                "is it the API server's port? its address is `server` in the kubeconfig",
            ),
            None if matches!(self, Self::Slow(_)) => Told::new(
                format!("the API server does not answer: {said}"),
                format!(
                    "is it overloaded, or does a firewall or NetworkPolicy drop what node {node} sends to it?"
                ),
            ),
            None => Told::new(
                format!("the API server cannot be reached: {said}"),
                format!(
                    "does it run, and may the sensor on node {node} reach it (route, firewall, NetworkPolicy)?"
                ),
            ),
        }
    }

    /// What the server or the system said of it: without the library's words, and with the cause, which those leave out.
    fn said(&self) -> String {
        let text = match (self.refusal(), self) {
            (Some((code, "")), _) => format!("status {code}"),
            (Some((_, message)), _) => message.to_owned(),
            (None, Self::Watch(error)) => root(error),
            (None, other) => other.to_string(),
        };
        let text = printable(&text);
        text.get(..text.floor_char_boundary(MAX_REASON)).unwrap_or(&text).to_owned()
    }
}

/// Why a certificate is refused. Nothing is told to a server that is not believed, and no token is sent.
fn distrusted(error: &CertificateError, said: &str, about: &Circumstances<'_>) -> Told {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Told::new(
            format!("the API server's certificate is out of date by this host's clock: {said}"),
            format!(
                "it is {} here: synchronise the clock, or renew the certificate",
                about.now.strftime("%F %T UTC")
            ),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Told::new(
            format!("the API server's certificate is for another name: {said}"),
            "use an address that the certificate has, in `server` of the kubeconfig",
        ),
        _ => Told::new(
            format!("the API server's certificate is a stranger's: {said}"),
            "name the cluster's authority (`certificate-authority` in the kubeconfig; a pod has it in `ca.crt` beside its \
             token); if that is the right one, somebody stands between. Nothing was sent to it",
        ),
    }
}

/// What to do about a 401: the token may be too old, or the clocks may differ, or it may be of no use at all.
fn unknown(about: &Circumstances<'_>) -> String {
    match (about.ahead.filter(|ahead| ahead.abs() > SKEW), about.token) {
        (Some(ahead), _) => format!(
            "the API server's clock is {} s {} ours, and tokens are judged by it: synchronise both",
            ahead.abs(),
            if ahead > 0 { "ahead of" } else { "behind" }
        ),
        (None, Some(Validity { expires: Some(expires), .. })) if expires <= about.now => format!(
            "the token has expired at {}: renew it; a pod's is renewed by its kubelet, which may hang",
            expires.strftime("%F %T UTC")
        ),
        (None, Some(Validity { begins: Some(begins), .. })) if begins > about.now => format!(
            "the token is valid from {} only: synchronise the clock of this host",
            begins.strftime("%F %T UTC")
        ),
        (None, _) => "the token is not valid: is the service account still there? If it was made anew, restart the pod; \
                      renew the token of a kubeconfig"
            .to_owned(),
    }
}

/// The error of the client that the watcher passes on.
fn inner(error: &watcher::Error) -> Option<&Error> {
    match error {
        watcher::Error::InitialListFailed(inner)
        | watcher::Error::WatchStartFailed(inner)
        | watcher::Error::WatchFailed(inner) => Some(inner),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

/// What an error was caused by. An error of I/O shows what it wraps, and not itself, as its source.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped as _))
}

/// The first error of a kind in a chain of causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| cause(*error)).find_map(|error| error.downcast_ref())
}

fn is_too_large(error: &Error) -> bool {
    find::<TooLarge>(error).is_some()
}

/// What the last error in a chain of causes says.
fn root(error: &(dyn StdError + 'static)) -> String {
    std::iter::successors(Some(error), |error| cause(*error))
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(ahead: Option<i64>, token: Option<Validity>) -> Circumstances<'static> {
        Circumstances { node: "node-1", now: Timestamp::UNIX_EPOCH, ahead, token }
    }

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    #[test]
    fn the_reason_for_a_401_is_sought_in_clocks_first() {
        let old = Some(Validity { begins: None, expires: at(-10) });
        assert!(unknown(&about(Some(-61), old)).starts_with("the API server's clock is 61 s behind ours"));
        assert!(unknown(&about(Some(3600), None)).contains("3600 s ahead of ours"));
        assert!(
            unknown(&about(Some(60), old)).starts_with("the token has expired at 1969-12-31 23:59:50 UTC")
        );
        let early = Some(Validity { begins: at(10), expires: at(20) });
        assert!(unknown(&about(None, early)).starts_with("the token is valid from 1970-01-01 00:00:10 UTC"));
        for fine in [None, Some(Validity { begins: at(-1), expires: at(1) }), Some(Validity::default())] {
            assert!(unknown(&about(None, fine)).contains("is the service account still there?"));
        }
    }

    #[test]
    fn a_certificate_is_refused_for_what_it_is() {
        let told = |error| distrusted(&error, "x", &about(None, None));
        assert!(told(CertificateError::UnknownIssuer).text.contains("a stranger's"));
        assert!(told(CertificateError::NotValidForName).text.contains("another name"));
        for dated in [CertificateError::Expired, CertificateError::NotValidYet] {
            let told = told(dated);
            assert!(told.remedy.contains("it is 1970-01-01 00:00:00 UTC here"), "{told:?}");
        }
    }

    #[test]
    fn causes_are_found_below_errors_of_the_system() {
        let deep = std::io::Error::other(std::io::Error::other(TooLarge));
        assert!(find::<TooLarge>(&deep).is_some() && find::<TlsError>(&deep).is_none());
        assert_eq!(root(&deep), TooLarge.to_string());
    }

    #[test]
    fn what_a_server_says_is_cut_and_cannot_paint_the_terminal() {
        let status = kube::core::Status { code: 403, message: "\x1b[2J".repeat(1000), ..Default::default() };
        let trouble = Trouble::Watch(watcher::Error::InitialListFailed(Error::Api(Box::new(status))));
        let told = trouble.told(&about(None, None));
        assert!(told.text.len() < MAX_REASON + 100 && !told.text.contains('\x1b'), "{told:?}");
        assert!(told.text.contains("list pods (403)"), "{told:?}");
    }
}
