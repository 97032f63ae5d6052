//! A deny list in Redis: `EXISTS` of the key that a revoked token has. One connection, made when it is needed.
//!
//! The protocol is RESP2 (redis.io/docs/reference/protocol-spec), of which three answers are needed: a simple string,
//! an integer and an error, each one short line. Anything longer or other ends the connection, so that a hostile
//! server costs 256 bytes. There is no encryption: put the list on this host, or in a network that is trusted.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::AskError;
use crate::token::settings::DenyList;

/// Longest line of an answer, in bytes: an integer, or an error's sentence.
const MAX_LINE: usize = 256;

/// The list.
#[derive(Debug)]
pub(super) struct List {
    settings: DenyList,
    connection: Option<Connection>,
}

impl List {
    pub(super) fn new(settings: DenyList) -> Self {
        Self { settings, connection: None }
    }

    /// For each id whether the list holds it. The caller bounds the time, and [hangs up](Self::hang_up) on failure.
    pub(super) async fn holds(&mut self, ids: &[&str]) -> Result<Vec<bool>, AskError> {
        let kept = self.connection.is_some();
        match self.ask(ids).await {
            // The server closes idle connections when it likes: that is no failure before a fresh one fails too.
            Err(AskError::Connection(_)) if kept => {
                self.hang_up();
                self.ask(ids).await
            }
            asked => asked,
        }
    }

    /// Ends the connection: whatever still comes belongs to a question that nobody asks any more.
    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }

    async fn ask(&mut self, ids: &[&str]) -> Result<Vec<bool>, AskError> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.settings).await?);
        }
        let connection = self.connection.as_mut().ok_or(AskError::Answer("is missing"))?;
        let mut commands = Vec::new();
        for id in ids {
            let key = self.settings.pattern.replace("{jti}", id);
            command(&[b"EXISTS", key.as_bytes()], &mut commands);
        }
        connection.send(&commands).await?;
        let mut held = Vec::with_capacity(ids.len());
        for _ in ids {
            held.push(match connection.line().await?.as_slice() {
                b":0" => false,
                b":1" => true,
                _ => return Err(AskError::Answer("is neither 0 nor 1")),
            });
        }
        Ok(held)
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// Bytes that have come and were not read: less than a line and what follows it.
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(settings: &DenyList) -> Result<Self, AskError> {
        let stream = TcpStream::connect(&settings.address).await.map_err(|error| failed(&error))?;
        let mut connection = Self { stream, buffer: Vec::new() };
        if let Some(password) = &settings.password {
            let user = settings.user.as_deref().map(str::as_bytes);
            let mut words = vec![b"AUTH".as_slice()];
            words.extend(user);
            words.push(&password.0);
            connection.expect_ok(&words, "refuses the password").await?;
        }
        if settings.database > 0 {
            let number = settings.database.to_string();
            connection.expect_ok(&[b"SELECT", number.as_bytes()], "refuses the database").await?;
        }
        Ok(connection)
    }

    async fn expect_ok(&mut self, words: &[&[u8]], otherwise: &'static str) -> Result<(), AskError> {
        let mut text = Zeroizing::new(Vec::new());
        command(words, &mut text);
        self.send(&text).await?;
        if self.line().await? == b"+OK" { Ok(()) } else { Err(AskError::Answer(otherwise)) }
    }

    async fn send(&mut self, text: &[u8]) -> Result<(), AskError> {
        self.stream.write_all(text).await.map_err(|error| failed(&error))
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<Vec<u8>, AskError> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(AskError::Answer("has a line that does not end"));
            }
            let mut bytes = [0; MAX_LINE];
            let count = self.stream.read(&mut bytes).await.map_err(|error| failed(&error))?;
            if count == 0 {
                return Err(AskError::Connection("closed by the other side".to_owned()));
            }
            self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        }
    }
}

fn failed(error: &std::io::Error) -> AskError {
    AskError::Connection(error.kind().to_string())
}

/// Appends a command: an array of strings, each with its length, so that nothing in them can end it.
fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
