//! A connection to a server that talks in lines, in the clear or by TLS. Every read names its bound.
//!
//! What the sinks of Redis and NATS need of their protocols is a few kinds of short answers. Reading just these, each
//! within a bound, leaves a hostile server nothing to fill our memory with. Time is bounded by delivery.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::sink::client::TlsSettings;

/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// How long what was sent may stay without an acknowledgement of TCP before the connection counts as broken, in
/// milliseconds: else a server that lost its power would go unnoticed for a quarter of an hour.
const UNHEARD_MS: u32 = 30_000;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address; one of IPv6 without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
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

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It cannot be reached.
    #[error("cannot connect to {0}: {1}")]
    Unreachable(Place, io::Error),
    /// TLS does not come about.
    #[error("TLS with {0}: {1}")]
    Tls(Place, String),
    /// The other side ended it.
    #[error("the server closed the connection")]
    Closed,
    /// It failed.
    #[error("the connection failed: {0}")]
    Failed(#[from] io::Error),
    /// A line or an answer that is longer than any of this protocol.
    #[error("the server answers more than {0} bytes at once")]
    TooLong(usize),
    /// Something of another protocol, or nonsense.
    #[error("the server answers something else than {0}")]
    Nonsense(&'static str),
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One connection.
pub(super) struct Wire {
    stream: Stream,
    place: Place,
    /// What has come and was not read yet: at most what was asked for and one chunk.
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects, in the clear.
    pub(super) async fn connect(place: &Place) -> Result<Self, Broken> {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await;
        let stream = stream.map_err(|error| Broken::Unreachable(place.clone(), error))?;
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNHEARD_MS);
        Ok(Self { stream: Stream::Plain(stream), place: place.clone(), buffer: Vec::new() })
    }

    /// Encrypts from here on.
    pub(super) async fn encrypt(self, tls: &TlsSettings) -> Result<Self, Broken> {
        let Self { stream, place, buffer } = self;
        let Stream::Plain(stream) = stream else { return Err(Broken::Nonsense("TLS")) };
        if !buffer.is_empty() {
            // Said in the clear before the handshake, read as if it were said after it: somebody put it there.
            return Err(Broken::Nonsense("TLS"));
        }
        let wrong = |why: String| Broken::Tls(place.clone(), why);
        let config = tls.rustls().map_err(|unusable| wrong(unusable.to_string()))?;
        let name = ServerName::try_from(place.host.clone()).map_err(|error| wrong(error.to_string()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|error| wrong(error.to_string()))?;
        Ok(Self { stream: Stream::Tls(Box::new(stream)), place, buffer: Vec::new() })
    }

    /// Whether nobody on the way can read what is sent.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whether the other side has ended or broken the connection, as far as is known here; for protocols in which it has
    /// nothing to say.
    pub(super) async fn is_gone(&mut self) -> bool {
        // The event loop looks at its sockets before it goes on.
        tokio::task::yield_now().await;
        let mut scratch = [0; 512];
        // Who says more than handshakes have to say is no server of such a protocol.
        for _ in 0..64 {
            let mut buffer = ReadBuf::new(&mut scratch);
            let stream = &mut self.stream;
            let look = |context: &mut Context<'_>| {
                Poll::Ready(Pin::new(&mut *stream).poll_read(context, &mut buffer))
            };
            match std::future::poll_fn(look).await {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return true,
            }
        }
        true
    }

    /// Says that nothing more comes, and waits until the other side has closed the connection: then it has read
    /// everything, as a connection of which something was not read is not closed but reset. By TLS the end of TCP is
    /// enough: servers that never say `close_notify` (rsyslog) are common, so somebody on the way can forge it.
    pub(super) async fn finish(mut self) -> Result<(), Broken> {
        self.stream.shutdown().await?;
        let mut scratch = [0; 512];
        for _ in 0..64 {
            match self.stream.read(&mut scratch).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Broken::Nonsense("the end"))
    }

    /// Sends all of this.
    pub(super) async fn send(&mut self, text: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(text).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next line, of at most so many bytes, without the CR LF that ends it.
    pub(super) async fn line(&mut self, most: usize) -> Result<Vec<u8>, Broken> {
        let mut seen = 0;
        loop {
            let rest = self.buffer.get(seen..).unwrap_or_default();
            if let Some(end) = memchr::memmem::find(rest, b"\r\n").map(|end| seen + end) {
                if end > most {
                    return Err(Broken::TooLong(most));
                }
                let mut line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            if self.buffer.len() > most + 1 {
                return Err(Broken::TooLong(most));
            }
            // The last byte may be the first of the two.
            seen = self.buffer.len().saturating_sub(1);
            self.more().await?;
        }
    }

    /// The next so many bytes, and the CR LF behind them. The caller has bounded `length`.
    pub(super) async fn body(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < length + 2 {
            self.more().await?;
        }
        let mut body: Vec<u8> = self.buffer.drain(..length + 2).collect();
        if !body.ends_with(b"\r\n") {
            return Err(Broken::Nonsense("the length that it said"));
        }
        body.truncate(length);
        Ok(body)
    }

    async fn more(&mut self) -> Result<(), Broken> {
        let mut chunk = [0; CHUNK];
        let count = self.stream.read(&mut chunk).await?;
        if count == 0 {
            return Err(Broken::Closed);
        }
        self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    static FLOOD: [u8; 1 << 20] = [b'x'; 1 << 20];

    /// What reading a line of at most 16 bytes gives, if the server says this and closes.
    async fn line_of(said: &'static [u8]) -> (Result<Vec<u8>, Broken>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(said).await;
        });
        let mut wire = Wire::connect(&place).await.unwrap();
        let line = wire.line(16).await;
        server.await.unwrap();
        (line, wire.buffer.len())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_line_ends_within_its_bound_or_is_refused() {
        assert_eq!(line_of(b"+OK\r\n").await.0.unwrap(), b"+OK");
        assert_eq!(line_of(b"0123456789abcdef\r\nx").await.0.unwrap(), b"0123456789abcdef");
        assert_eq!(line_of(b"\r\n").await.0.unwrap(), b"");
        assert!(matches!(line_of(b"0123456789abcdefg\r\n").await.0, Err(Broken::TooLong(16))));
        assert!(matches!(line_of(b"+OK").await.0, Err(Broken::Closed)));
        assert!(matches!(line_of(b"").await.0, Err(Broken::Closed)));
        let (line, held) = line_of(&FLOOD).await;
        assert!(matches!(line, Err(Broken::TooLong(16))));
        assert!(held <= 16 + CHUNK, "{held} bytes were kept");
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        let place = |host: &str| Place { host: host.into(), port: 1 }.to_string();
        assert_eq!((place("h"), place("::1")), ("h:1".into(), "[::1]:1".into()));
    }
}
