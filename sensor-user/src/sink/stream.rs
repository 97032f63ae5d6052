//! A connection of bytes to a server, in the clear or by TLS, for sinks whose protocol is nobody else's.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::client::TlsSettings;

/// How long what was sent may stay without an acknowledgement of TCP before the connection counts as broken, in
/// milliseconds: else a peer that lost its power would go unnoticed for a quarter of an hour.
const UNHEARD_MS: u32 = 30_000;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address; one of IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Place {
    /// Whether what is sent there stays on this host.
    #[must_use]
    pub fn is_here(&self) -> bool {
        let is_loopback = |address: std::net::IpAddr| address.is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What can be read and written.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects by TCP.
pub(super) async fn connect(place: &Place) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNHEARD_MS);
    Ok(stream)
}

/// Encrypts from here on.
pub(super) async fn encrypt(
    stream: TcpStream,
    place: &Place,
    tls: &TlsSettings,
) -> io::Result<TlsStream<TcpStream>> {
    let config = tls.rustls().map_err(|unusable| io::Error::other(unusable.to_string()))?;
    let name = ServerName::try_from(place.host.clone()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Whether the other side has closed the connection or broken it, as far as is known here. What it says is not for us.
pub(super) async fn is_gone(stream: &mut dyn Duplex) -> bool {
    // The event loop looks at its sockets before it goes on.
    tokio::task::yield_now().await;
    let mut scratch = [0; 512];
    // Who says more than a few handshakes have to say is no server of this protocol.
    for _ in 0..64 {
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = std::future::poll_fn(|context| {
            Poll::Ready(Pin::new(&mut *stream).poll_read(context, &mut buffer))
        });
        match read.await {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(_) => return true,
        }
    }
    true
}
