//! A client that sends exactly the bytes it is told to, and reads answers by the letter of RFC 9112.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{AddressFamily, SendFlags, SocketType, sockopt};

/// Longest an answer may take. Generous: Java compiles its service while the first request waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// How a connection is set up before its first byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// The local address, where it matters.
    pub from: Option<IpAddr>,
    /// Hold the handshake's ACK back, so that it travels with the first data.
    pub lazy_ack: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        Self::connect_with(to, Setup::default())
    }

    /// Connects as `setup` says.
    ///
    /// # Errors
    /// When nobody listens, or the local address is not ours.
    pub fn connect_with(to: SocketAddr, setup: Setup) -> Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        if let Some(from) = setup.from {
            rustix::net::bind(&socket, &SocketAddr::new(from, 0))
                .with_context(|| format!("bind to {from}"))?;
        }
        if setup.lazy_ack {
            sockopt::set_tcp_quickack(&socket, false)?;
        }
        rustix::net::connect(&socket, &to).with_context(|| format!("connect to {to}"))?;
        Self::over(socket)
    }

    /// Connects from a local port that an earlier connection had; it must have been [`Client::reset`].
    ///
    /// # Errors
    /// When the port is still taken, or nobody listens.
    pub fn connect_from(to: SocketAddr, port: u16) -> Result<Self> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], port)))?;
        rustix::net::connect(&socket, &to).with_context(|| format!("connect to {to} from {port}"))?;
        Self::over(socket)
    }

    /// Hangs up with a reset, which leaves no `TIME_WAIT` behind.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn reset(self) -> Result<()> {
        Ok(sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }

    /// Connects with the first bytes inside the SYN (RFC 7413).
    ///
    /// # Errors
    /// When the kernel has no TCP Fast Open, or nobody listens.
    pub fn fast_open(to: SocketAddr, first: &[u8]) -> Result<Self> {
        // MSG_FASTOPEN of linux/socket.h.
        const FAST_OPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        let sent = rustix::net::sendto(&socket, first, FAST_OPEN, &to).context("send inside the SYN")?;
        let mut client = Self::over(socket)?;
        client.send(first.get(sent..).unwrap_or_default())?;
        Ok(client)
    }

    fn over(socket: OwnedFd) -> Result<Self> {
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Our own address and port.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Sends these bytes in as few segments as TCP likes.
    ///
    /// # Errors
    /// When the server hangs up.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends every byte in a segment of its own.
    ///
    /// # Errors
    /// When the server hangs up.
    pub fn send_bytewise(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes.chunks(1) {
            self.stream.write_all(byte)?;
        }
        Ok(())
    }

    /// Reads one final answer; interim ones (1xx but 101) are passed over.
    ///
    /// # Errors
    /// When the server hangs up, stays silent, or talks nonsense.
    pub fn answer(&mut self) -> Result<Answer> {
        loop {
            let head = self.read_head()?;
            let text = String::from_utf8_lossy(&head).into_owned();
            let status: u16 = text.split(' ').nth(1).unwrap_or_default().parse().context("a status line")?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let body = if status == 101 || status == 204 || status == 304 {
                Vec::new()
            } else if let Some(length) = field(&text, "content-length") {
                self.take(length.parse().context("Content-Length")?)?
            } else if field(&text, "transfer-encoding").is_some() {
                self.read_chunks()?
            } else {
                self.read_to_end()?
            };
            return Ok(Answer { status, body });
        }
    }

    /// Reads one interim answer (1xx) and returns its status.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub fn interim(&mut self) -> Result<u16> {
        let head = self.read_head()?;
        let text = String::from_utf8_lossy(&head).into_owned();
        text.split(' ').nth(1).unwrap_or_default().parse().context("a status line")
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request)?;
        self.answer()
    }

    fn fill(&mut self) -> Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let n = self.stream.read(&mut buffer).context("read the answer")?;
        self.unread.extend_from_slice(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn take(&mut self, n: usize) -> Result<Vec<u8>> {
        while self.unread.len() < n {
            ensure!(self.fill()? > 0, "the server hung up inside a body");
        }
        let rest = self.unread.split_off(n);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    fn read_until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                return self.take(at + end.len());
            }
            if self.fill()? == 0 {
                bail!("the server hung up with {} bytes of an answer", self.unread.len());
            }
        }
    }

    fn read_head(&mut self) -> Result<Vec<u8>> {
        self.read_until(b"\r\n\r\n")
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8_lossy(&self.read_until(b"\r\n")?).trim().to_owned();
            let size = usize::from_str_radix(&line, 16).context("a chunk size")?;
            body.extend(self.take(size)?);
            self.read_until(b"\r\n")?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_to_end(&mut self) -> Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }
}

/// The value of a header, if it is there.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line =
        |l: &'a str| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
    head.lines().find_map(line)
}

/// `GET path` with a bearer token, if there is one.
#[must_use]
pub fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: lab/1.0\r\n");
    if let Some(token) = token {
        request.push_str("Authorization: Bearer ");
        request.push_str(token);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// `POST path` with a body and, if there is one, a bearer token.
#[must_use]
pub fn post(path: &str, token: Option<&str>, body: &[u8]) -> Vec<u8> {
    let authorization = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: lab/1.0\r\n{authorization}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A login with a password. nginx and the `io_uring` service take it from a header, the others from the body.
#[must_use]
pub fn login(user: &str, password: &str) -> Vec<u8> {
    let body = format!(r#"{{"username":"{user}","password":"{password}"}}"#);
    format!(
        "POST /login HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: lab/1.0\r\nX-Password: {password}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
