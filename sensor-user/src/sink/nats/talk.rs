//! The client's side of the NATS protocol (docs.nats.io, "Client protocol"): greeting, publishing with headers, and
//! answers to an inbox. What else a server may say is skipped or ends the connection.

use aws_lc_rs::rand;
use serde_json::Value;
use zeroize::Zeroizing;

use super::nkey::{self, Key};
use super::{Auth, Settings};
use crate::sink::wire::{Broken, Place, Wire};
use crate::sink::{Node, Words};

/// Longest line, in bytes: an INFO of a cluster of a thousand servers.
const MAX_LINE: usize = 64 << 10;

/// Longest answer, in bytes: an acknowledgement has some hundred.
const MAX_ANSWER: usize = 16 << 10;

/// Longest value of a header, in bytes.
const MAX_VALUE: usize = 256;

/// Why a connection does not come about, or ends.
pub(super) enum Refused {
    /// The connection.
    Wire(Broken),
    /// The server.
    Words(Words),
}

impl From<Broken> for Refused {
    fn from(broken: Broken) -> Self {
        Self::Wire(broken)
    }
}

/// As whom we present ourselves, ready to be used.
pub(super) enum Identity<'a> {
    None,
    User(&'a str, &'a str),
    Token(&'a str),
    Key(Key),
    Jwt(Zeroizing<String>, Key),
}

impl<'a> Identity<'a> {
    /// What the configuration says.
    pub(super) fn of(auth: &'a Auth) -> Result<Self, &'static str> {
        let text = |secret: &'a [u8]| str::from_utf8(secret).map_err(|_error| "the secret is no text");
        Ok(match auth {
            Auth::None => Self::None,
            Auth::User(user, password) => Self::User(user, text(&password.0)?),
            Auth::Token(token) => Self::Token(text(&token.0)?),
            Auth::Nkey(seed) => Self::Key(Key::of_seed(&seed.0)?),
            Auth::Creds(file) => {
                let (jwt, key) = nkey::credentials(&file.0)?;
                Self::Jwt(jwt, key)
            }
        })
    }

    /// Adds it to what CONNECT says.
    fn sign<'c>(&'c self, info: &Value, connect: &mut Connect<'c>) {
        let nonce = info.get("nonce").and_then(Value::as_str).unwrap_or_default().as_bytes();
        match self {
            Self::None => {}
            Self::User(user, password) => {
                connect.user = Some(user);
                connect.pass = Some(password);
            }
            Self::Token(token) => connect.auth_token = Some(token),
            Self::Key(key) => {
                connect.sig = Some(key.sign(nonce));
                connect.nkey = Some(key.public());
            }
            Self::Jwt(jwt, key) => {
                connect.sig = Some(key.sign(nonce));
                connect.jwt = Some(jwt);
            }
        }
    }
}

/// What a client says of itself.
#[derive(Default, serde::Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "the protocol has them")]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    echo: bool,
    headers: bool,
    no_responders: bool,
    protocol: u8,
    name: String,
    lang: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// A message that is to be published.
pub(super) struct Message<'a> {
    subject: String,
    headers: String,
    body: &'a str,
    index: usize,
}

impl<'a> Message<'a> {
    /// One with these headers. `index` tells its answer from others'.
    pub(super) fn new(subject: String, headers: &[(&str, &str)], body: &'a str, index: usize) -> Self {
        let mut text = String::from("NATS/1.0\r\n");
        for (name, value) in headers {
            text.push_str(name);
            text.push_str(": ");
            let fits = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '_' };
            text.extend(value.chars().take(MAX_VALUE).map(fits));
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        Self { subject, headers: text, body, index }
    }

    /// Its size as the server counts it, in bytes.
    pub(super) fn size(&self) -> usize {
        self.headers.len() + self.body.len()
    }
}

/// An answer to a message.
pub(super) struct Answer {
    /// That message.
    pub(super) index: usize,
    /// Whether it is the server's, as nobody takes such messages.
    pub(super) nobody: bool,
    /// What was answered.
    pub(super) body: Vec<u8>,
}

/// A connection that was greeted.
pub(super) struct Talk {
    wire: Wire,
    inbox: String,
    max_payload: Option<usize>,
}

/// What a server says.
enum Said {
    Pong,
    Ping,
    Error(String),
    Message(Answer),
    Other,
}

impl Talk {
    /// Connects and presents itself.
    pub(super) async fn open(place: &Place, settings: &Settings, node: &Node) -> Result<Self, Refused> {
        let mut wire = Wire::connect(place).await?;
        let info = info(&mut wire).await?;
        let flag = |name: &str| info.get(name).and_then(Value::as_bool) == Some(true);
        if settings.encrypted || flag("tls_required") {
            if !flag("tls_required") && !flag("tls_available") {
                // Secrets are not sent to who may have taken the offer of TLS away.
                return Err(Refused::Words(format!("{place} does not offer TLS").into()));
            }
            wire = wire.encrypt(&settings.tls).await?;
        }
        let identity = Identity::of(&settings.auth).map_err(|why| Refused::Words(why.into()))?;
        let mut connect = Connect {
            tls_required: wire.is_encrypted(),
            headers: true,
            no_responders: true,
            protocol: 1,
            name: format!("tokenscope/{}", node.name),
            lang: "tokenscope",
            version: env!("CARGO_PKG_VERSION"),
            ..Connect::default()
        };
        identity.sign(&info, &mut connect);
        let inbox = inbox(&settings.inbox)?;
        // Room for the longest secrets, so that none is left behind where a buffer was before it grew.
        let mut text = Zeroizing::new(Vec::with_capacity(16 << 10));
        text.extend_from_slice(b"CONNECT ");
        serde_json::to_writer(&mut *text, &connect)
            .map_err(|error| Refused::Words(error.to_string().into()))?;
        if settings.jetstream {
            text.extend_from_slice(format!("\r\nSUB {inbox}.* 1").as_bytes());
        }
        text.extend_from_slice(b"\r\nPING\r\n");
        let max_payload = info.get("max_payload").and_then(Value::as_u64);
        let max_payload = max_payload.and_then(|most| usize::try_from(most).ok());
        let mut talk = Self { wire, inbox, max_payload };
        talk.wire.send(&text).await?;
        talk.pong().await?;
        Ok(talk)
    }

    /// What the server takes at once, in bytes.
    pub(super) fn max_payload(&self) -> Option<usize> {
        self.max_payload
    }

    /// Appends a message as it is sent.
    pub(super) fn write(&self, message: &Message<'_>, answered: bool, out: &mut Vec<u8>) {
        let Message { subject, headers, body, index } = message;
        let reply = if answered { format!("{}.{index} ", self.inbox) } else { String::new() };
        let head = format!("HPUB {subject} {reply}{} {}\r\n", headers.len(), message.size());
        for part in [head.as_str(), headers, body, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Sends this.
    pub(super) async fn send(&mut self, text: &[u8]) -> Result<(), Refused> {
        Ok(self.wire.send(text).await?)
    }

    /// Sends this and waits until the server has read it.
    pub(super) async fn flush(&mut self, mut text: Vec<u8>) -> Result<(), Refused> {
        text.extend_from_slice(b"PING\r\n");
        self.wire.send(&text).await?;
        self.pong().await
    }

    async fn pong(&mut self) -> Result<(), Refused> {
        loop {
            match self.next().await? {
                Said::Pong => return Ok(()),
                said => self.mind(said).await?,
            }
        }
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<Answer, Refused> {
        loop {
            match self.next().await? {
                Said::Message(answer) => return Ok(answer),
                said => self.mind(said).await?,
            }
        }
    }

    /// What was said besides.
    async fn mind(&mut self, said: Said) -> Result<(), Refused> {
        match said {
            Said::Ping => Ok(self.wire.send(b"PONG\r\n").await?),
            Said::Error(why) if why.to_ascii_lowercase().contains("stale") => Err(Broken::Closed.into()),
            Said::Error(why) => Err(Refused::Words(Words::new(&format!("NATS refuses: {why}")))),
            Said::Pong | Said::Other | Said::Message(_) => Ok(()),
        }
    }

    async fn next(&mut self) -> Result<Said, Broken> {
        let line = self.wire.line(MAX_LINE).await?;
        let line = str::from_utf8(&line).map_err(|_error| Broken::Nonsense(WHAT))?;
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        Ok(match word.to_ascii_uppercase().as_str() {
            "PONG" => Said::Pong,
            "PING" => Said::Ping,
            "+OK" | "INFO" => Said::Other,
            "-ERR" => Said::Error(rest.trim().trim_matches('\'').to_owned()),
            "MSG" => self.message(rest, false).await?,
            "HMSG" => self.message(rest, true).await?,
            _ => return Err(Broken::Nonsense(WHAT)),
        })
    }

    /// A message to the inbox: its subject, our number, perhaps where to answer, and its sizes.
    async fn message(&mut self, rest: &str, headers: bool) -> Result<Said, Broken> {
        let words: Vec<&str> = rest.split_ascii_whitespace().take(6).collect();
        let size = |back: usize| {
            let word = words.len().checked_sub(back).and_then(|at| words.get(at));
            let size = word.and_then(|word| word.parse::<usize>().ok());
            size.ok_or(Broken::Nonsense(WHAT))
        };
        let total = size(1)?;
        let head = if headers { size(2)? } else { 0 };
        if total > MAX_ANSWER || head > total {
            return Err(Broken::TooLong(MAX_ANSWER));
        }
        let body = self.wire.body(total).await?;
        let (head, body) = body.split_at_checked(head).ok_or(Broken::Nonsense(WHAT))?;
        let subject = words.first().copied().unwrap_or_default();
        let index = subject.strip_prefix(self.inbox.as_str()).and_then(|rest| rest.strip_prefix('.'));
        let Some(index) = index.and_then(|index| index.parse().ok()) else { return Ok(Said::Other) };
        // The first line of headers may hold a status: `NATS/1.0 503` is sent where nobody listens.
        let nobody = head.starts_with(b"NATS/1.0 503");
        Ok(Said::Message(Answer { index, nobody, body: body.to_vec() }))
    }
}

const WHAT: &str = "NATS would";

/// The server's greeting.
async fn info(wire: &mut Wire) -> Result<Value, Broken> {
    let line = wire.line(MAX_LINE).await?;
    let text = line.strip_prefix(b"INFO ").ok_or(Broken::Nonsense(WHAT))?;
    let info: Value = serde_json::from_slice(text).map_err(|_error| Broken::Nonsense(WHAT))?;
    if info.is_object() { Ok(info) } else { Err(Broken::Nonsense(WHAT)) }
}

/// A subject that nobody else has.
fn inbox(prefix: &str) -> Result<String, Refused> {
    let mut random = [0; 12];
    rand::fill(&mut random).map_err(|_error| Refused::Words("no random numbers".into()))?;
    Ok(random.iter().fold(format!("{prefix}."), |text, byte| text + &format!("{byte:02x}")))
}
