//! Syslog: RFC 5424 over UDP (RFC 5426), TCP (RFC 6587), TLS (RFC 5425) and the socket of the local daemon.
//!
//! Syslog has no acknowledgement. By UDP and the local socket, written is all that can be known. By TCP and TLS a closed
//! connection is noticed before the next batch is written, and the batch that was written last is sent again on the
//! new connection, as nobody knows how much of it was read: so a receiver that is started anew loses nothing, and may
//! get the last batch twice, under the same ids. What was written earlier than that and not read by a receiver that
//! died is lost. Who wants to know has every batch confirmed: the connection is closed behind it, and a receiver that has
//! closed its end too has read everything.

pub mod message;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{UdpSocket, UnixDatagram};

use crate::render::Told;
use crate::sink::client::TlsSettings;
use crate::sink::wire::{Broken, Place, Wire};
use crate::sink::{Batch, Delivery, Node, Outcome, Sink, Unusable};
use message::Form;

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the receiver is.
    pub to: To,
    /// How a message ends on a stream.
    pub framing: Framing,
    /// Whether each batch has a connection of its own, whose end confirms that it was read.
    pub confirm: bool,
    /// How messages are made.
    pub form: Form,
}

/// Where the receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// One datagram a message.
    Udp(Place),
    /// A stream in the clear.
    Tcp(Place),
    /// A stream by TLS.
    Tls(Place, TlsSettings),
    /// The socket of the local daemon.
    Unix(PathBuf),
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(place) => write!(f, "udp://{place}"),
            Self::Tcp(place) => write!(f, "tcp://{place}"),
            Self::Tls(place, _) => write!(f, "tls://{place}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a message ends on a stream (RFC 6587 section 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Its length comes first.
    #[default]
    Octets,
    /// A line feed ends it.
    Newline,
}

/// Opens it.
///
/// # Errors
/// Never: whatever is wrong with a receiver may heal.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    Ok(Box::new(Syslog {
        settings: settings.clone(),
        node: Arc::clone(&node.name),
        connection: None,
        last: Vec::new(),
    }))
}

struct Syslog {
    settings: Settings,
    node: Arc<str>,
    connection: Option<Connection>,
    /// The batch that was written last, while nobody knows whether it was read: at most a batch.
    last: Vec<String>,
}

enum Connection {
    Udp(UdpSocket),
    Unix(UnixDatagram),
    Stream(Wire, Framing),
}

impl Connection {
    async fn to(settings: &Settings) -> Result<Self, Broken> {
        let framing = settings.framing;
        Ok(match &settings.to {
            To::Udp(place) => {
                let mut all = tokio::net::lookup_host((place.host.as_str(), place.port)).await?;
                let address = all.next().ok_or_else(|| io::Error::other("its name has no address"))?;
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(address).await?;
                Self::Udp(socket)
            }
            To::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Self::Unix(socket)
            }
            To::Tcp(place) => Self::Stream(Wire::connect(place).await?, framing),
            To::Tls(place, tls) => Self::Stream(Wire::connect(place).await?.encrypt(tls).await?, framing),
        })
    }

    async fn is_gone(&mut self) -> bool {
        match self {
            Self::Udp(_) | Self::Unix(_) => false,
            Self::Stream(wire, _) => wire.is_gone().await,
        }
    }

    async fn send(&mut self, messages: &[String]) -> Result<(), Broken> {
        match self {
            Self::Udp(socket) => {
                for message in messages {
                    socket.send(message.as_bytes()).await?;
                }
            }
            Self::Unix(socket) => {
                for message in messages {
                    socket.send(message.as_bytes()).await?;
                }
            }
            Self::Stream(wire, framing) => {
                let mut frames = String::with_capacity(messages.iter().map(|m| m.len() + 8).sum());
                for message in messages {
                    match framing {
                        Framing::Octets => frames.extend([&message.len().to_string(), " ", message]),
                        Framing::Newline => frames.extend([message, "\n"]),
                    }
                }
                wire.send(frames.as_bytes()).await?;
            }
        }
        Ok(())
    }
}

impl Syslog {
    async fn send(&mut self, messages: Vec<String>) -> Result<(), Broken> {
        // Taken, so that nothing follows half a message on a connection after a delivery that took too long.
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.is_gone().await
        {
            kept = None;
        }
        let mut connection = if let Some(connection) = kept {
            connection
        } else {
            let mut connection = Connection::to(&self.settings).await?;
            connection.send(&self.last).await?;
            connection
        };
        connection.send(&messages).await?;
        if self.settings.confirm
            && let Connection::Stream(wire, _) = connection
        {
            return wire.finish().await;
        }
        if connection.is_gone().await {
            return Err(Broken::Closed);
        }
        self.last = messages;
        self.connection = Some(connection);
        Ok(())
    }
}

impl Sink for Syslog {
    fn batch(&self) -> Batch {
        Batch { events: 128, bytes: 256 << 10 }
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(async move {
            let form = &self.settings.form;
            let messages = events.iter().map(|told| form.message(told, &self.node)).collect();
            match self.send(messages).await {
                Ok(()) => Outcome::done(format!("written to {}", self.settings.to)),
                Err(error) => Outcome::later(format!("{}: {error}", self.settings.to)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::alert::staging::event;
    use crate::render::Format;

    fn sink(to: To, framing: Framing) -> Box<dyn Sink> {
        let element = Some("tokenscope@32473".into());
        let form = Form {
            syntax: message::Syntax::Rfc5424,
            facility: 16,
            app: "tokenscope".into(),
            element,
            format: Format::Compact,
            max_bytes: 2048,
        };
        open(&Settings { to, framing, confirm: false, form }, &Node::named("me")).unwrap()
    }

    fn told(sequence: u64) -> [Arc<Told>; 1] {
        [Arc::new(Told::of(&event(), Some(sequence), Some(&Node::named("me"))))]
    }

    fn numbers(text: &str) -> Vec<u64> {
        let numbers = text.split("sequenceId=\"").skip(1);
        numbers.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    }

    async fn listen() -> (TcpListener, To) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, To::Tcp(Place { host: "127.0.0.1".into(), port }))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_closed_connection_may_have_lost_is_sent_again() {
        let (listener, to) = listen().await;
        let mut sink = sink(to, Framing::Newline);
        let (first, second, third) = (told(1), told(2), told(3));
        assert!(matches!(sink.deliver(&first).await, Outcome::Done { .. }));
        drop(listener.accept().await.unwrap());
        while matches!(sink.deliver(&second).await, Outcome::Later { .. }) {}
        let (mut connection, _) = listener.accept().await.unwrap();
        assert!(matches!(sink.deliver(&third).await, Outcome::Done { .. }));
        drop(sink);
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert_eq!(numbers(&text), [1, 2, 3], "on the connection that lives");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_receiver_that_is_not_there_is_tried_later() {
        let (listener, to) = listen().await;
        drop(listener);
        assert!(matches!(sink(to, Framing::Octets).deliver(&told(1)).await, Outcome::Later { .. }));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_receiver_that_talks_and_talks_is_none() {
        let (listener, to) = listen().await;
        let mut sink = sink(to, Framing::Octets);
        assert!(matches!(sink.deliver(&told(1)).await, Outcome::Done { .. }));
        let (mut connection, _) = listener.accept().await.unwrap();
        let talk = tokio::spawn(async move {
            let said = connection.write_all(&vec![b'x'; 1 << 20]).await;
            std::future::pending::<()>().await;
            drop((said, connection));
        });
        let go_on = async {
            loop {
                sink.deliver(&told(2)).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            again = listener.accept() => drop(again.unwrap()),
            () = go_on => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(20)) => panic!("it does not notice"),
        }
        talk.abort();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn frames_have_the_length_of_their_bytes() {
        let (listener, to) = listen().await;
        let mut sink = sink(to, Framing::Octets);
        let both = [told(1), told(2)].concat();
        assert!(matches!(sink.deliver(&both).await, Outcome::Done { .. }));
        let (mut connection, _) = listener.accept().await.unwrap();
        drop(sink);
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).await.unwrap();
        let mut rest = bytes.as_slice();
        for _ in 0..2 {
            let blank = rest.iter().position(|b| *b == b' ').unwrap();
            let length: usize = std::str::from_utf8(&rest[..blank]).unwrap().parse().unwrap();
            let (message, after) = rest[blank + 1..].split_at(length);
            assert!(message.starts_with(b"<130>1 ") && message.ends_with(b"36e3c"), "{message:?}");
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn datagrams_hold_one_message_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let local = UnixDatagram::bind(&path).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let place = Place { host: "127.0.0.1".into(), port: udp.local_addr().unwrap().port() };
        let both = [told(1), told(2)].concat();
        for to in [To::Udp(place), To::Unix(path)] {
            assert!(matches!(sink(to, Framing::Octets).deliver(&both).await, Outcome::Done { .. }));
        }
        let mut buffer = [0; 4096];
        for number in [1, 2] {
            let length = udp.recv(&mut buffer).await.unwrap();
            assert_eq!(numbers(std::str::from_utf8(&buffer[..length]).unwrap()), [number]);
            let length = local.recv(&mut buffer).await.unwrap();
            assert_eq!(numbers(std::str::from_utf8(&buffer[..length]).unwrap()), [number]);
        }
    }
}
