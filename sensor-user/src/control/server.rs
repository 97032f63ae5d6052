//! Listening, and one task a connection: the bounds on whoever connects.
//!
//! A connection is one request. The socket and the port have seats of their own, so that strangers on the network never
//! keep out those on this host; when all are taken, more wait in the kernel's queue.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::control::patient::Patient;
use crate::control::rate::Peer;
use crate::control::routes::{Desk, guarded, router};
use crate::control::settings::{Listen, Settings};
use crate::control::socket::{self, Bound};
use crate::control::{Sources, tls};
use crate::token::settings::Secret;

/// Connections of the socket, and of the port: people, dashboards and collectors of one host, with room.
pub const SEATS: usize = 64;
/// A request's line and headers, in bytes: what servers commonly take of both.
const MAX_HEAD: usize = 16 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Time that readers have for the last of it when the sensor stops.
const LAST: Duration = Duration::from_millis(500);

/// How long others may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the handshake, and again for the request's head.
    pub head: Duration,
    /// To take anything of what waits for them. Who only pauses connects again and goes on.
    pub reading: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), reading: Duration::from_mins(5) }
    }
}

/// What listens.
#[derive(Default)]
pub struct Server {
    socket: Option<Bound>,
    port: Option<Port>,
    patience: Patience,
}

struct Port {
    listener: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
    token: Option<Secret>,
}

impl Server {
    /// Listens wherever the configuration wants. What cannot be had is told of and is missing: it is no reason not to
    /// watch.
    #[must_use]
    pub fn open(settings: &Settings) -> Self {
        let socket = settings.socket.as_deref().and_then(|path| {
            let bound = socket::open(path);
            let remedy = "set control.socket to another path or off";
            bound.inspect_err(|error| tracing::warn!("no control socket: {error}; {remedy}")).ok()
        });
        let port = settings.listen.as_ref().and_then(|listen| {
            let port = Port::open(listen);
            let remedy = "correct control.listen, or set it to off";
            port.inspect_err(|error| tracing::warn!("no control port: {error}; {remedy}")).ok()
        });
        Self { socket, port, patience: Patience::default() }
    }

    /// The same with another patience.
    #[must_use]
    pub const fn with(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Whether nothing listens.
    #[must_use]
    pub const fn is_deaf(&self) -> bool {
        self.socket.is_none() && self.port.is_none()
    }

    /// Where the port is.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.as_ref()?.listener.local_addr().ok()
    }

    /// Serves until `stop` says so; then readers get what is left, for a moment.
    ///
    /// # Errors
    /// When the listeners cannot be used.
    pub async fn serve(self, sources: Sources, stop: watch::Receiver<bool>) -> io::Result<()> {
        let open = router(Desk::new(sources, stop.clone()));
        let (local, remote) = (Seats::default(), Seats::default());
        let mut ending = stop;
        let serving = async {
            let socket = async {
                match &self.socket {
                    Some(bound) => accept_local(bound, open.clone(), &local, self.patience).await,
                    None => std::future::pending().await,
                }
            };
            let port = async {
                match &self.port {
                    Some(port) => port.accept(open.clone(), &remote, self.patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { result = socket => result, result = port => result }
        };
        tokio::select! {
            result = serving => result?,
            _ = ending.wait_for(|stop| *stop) => {}
        }
        let _ = timeout(LAST, async { tokio::join!(local.empty(), remote.empty()) }).await;
        Ok(())
    }
}

/// Seats for connections.
struct Seats(Arc<Semaphore>);

impl Default for Seats {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SEATS)))
    }
}

impl Seats {
    async fn take(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)
    }

    /// Until nobody sits.
    async fn empty(&self) {
        let all = u32::try_from(SEATS).unwrap_or(u32::MAX);
        let _ = self.0.acquire_many(all).await;
    }
}

impl Port {
    fn open(listen: &Listen) -> Result<Self, String> {
        let tls = listen.tls.as_ref().map(tls::acceptor).transpose()?;
        let is_mutual = listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if listen.token.is_none() && !is_mutual {
            return Err(
                "nobody would be asked who they are: it needs control.token or control.tls.client_ca".into(),
            );
        }
        let tell = |error: io::Error| format!("{}: {error}", listen.address);
        let listener = std::net::TcpListener::bind(listen.address).map_err(tell)?;
        listener.set_nonblocking(true).map_err(tell)?;
        Ok(Self { listener, tls, token: listen.token.clone() })
    }

    async fn accept(&self, open: Router, seats: &Seats, patience: Patience) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let router = match &self.token {
            Some(token) => guarded(open, token.clone()),
            None => open,
        };
        loop {
            let seat = seats.take().await?;
            let Ok((stream, address)) = listener.accept().await else {
                breathe().await;
                continue;
            };
            let peer = Peer::Remote(address.ip());
            let (tls, router) = (self.tls.clone(), router.clone());
            tokio::spawn(async move {
                match tls {
                    None => converse(stream, peer, router, patience).await,
                    // Who is no client of ours is not worth a word: ports are scanned.
                    Some(tls) => {
                        if let Ok(Ok(stream)) = timeout(patience.head, tls.accept(stream)).await {
                            converse(stream, peer, router, patience).await;
                        }
                    }
                }
                drop(seat);
            });
        }
    }
}

async fn accept_local(bound: &Bound, router: Router, seats: &Seats, patience: Patience) -> io::Result<()> {
    let listener = UnixListener::from_std(bound.listener.try_clone()?)?;
    loop {
        let seat = seats.take().await?;
        let Ok((stream, _)) = listener.accept().await else {
            breathe().await;
            continue;
        };
        let user = stream.peer_cred().map_or(u32::MAX, |credentials| credentials.uid());
        let router = router.clone();
        tokio::spawn(async move {
            converse(stream, Peer::Local(user), router, patience).await;
            drop(seat);
        });
    }
}

/// Out of descriptors, most likely: trying again at once would only burn a core.
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// One request and its answer.
async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    patience: Patience,
) {
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false);
    // Neither a client that goes away nor one that talks nonsense is worth a word.
    let _ = http.serve_connection(TokioIo::new(Patient::new(stream, patience.reading)), service).await;
}
