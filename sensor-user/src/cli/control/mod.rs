//! The way to a running sensor: `tail`, `observe` and `top` ask it over its control socket, or over TCP.

pub(super) mod lines;
pub(super) mod tally;
pub(super) mod wishes;

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::cli::{Context, Failure};
use crate::config::Secrets;
use crate::config::tokens::SecretRef;
use crate::config::word::Word as _;
use crate::control::settings::DEFAULT_SOCKET;
use crate::sink::client::{ClientSettings, Proxy, TlsSettings};
use crate::telemetry::printable;
use crate::token::settings::Secret;

/// Longest answer to a refused request that is read, in bytes.
const MAX_REFUSAL: usize = 8 << 10;

/// Where the sensor is, and who asks.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sensor")]
pub(super) struct Reach {
    /// Its control socket [default: `control.socket` of the configuration]
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "connect")]
    socket: Option<PathBuf>,
    /// Another host's sensor: <https://HOST:PORT> of its `control.listen`
    #[arg(long, global = true, value_name = "URL")]
    connect: Option<String>,
    /// The token that it asks for: `env:NAME` or `file:PATH`
    #[arg(long, global = true, value_name = "SECRET", requires = "connect")]
    token: Option<String>,
    /// A PEM file of the CA that signed its certificate
    #[arg(long, global = true, value_name = "FILE", requires = "connect")]
    ca: Option<PathBuf>,
    /// A PEM file of our certificate
    #[arg(long, global = true, value_name = "FILE", requires_all = ["connect", "key"])]
    cert: Option<PathBuf>,
    /// A PEM file of the key of --cert
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Reach {
    /// Whether somebody said which sensor they mean.
    pub(super) const fn is_named(&self) -> bool {
        self.socket.is_some() || self.connect.is_some()
    }
}

/// Why the sensor did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// There is no socket.
    #[error("no sensor runs here: there is no {}; start `tokenscope run`, or name its socket with --socket", .0.display())]
    Nobody(PathBuf),
    /// There is a socket, and nobody behind it.
    #[error("no sensor runs here: nobody answers at {}; start `tokenscope run`", .0.display())]
    Dead(PathBuf),
    /// It is somebody else's.
    #[error("{} may be read by its owner only; use sudo", .0.display())]
    Denied(PathBuf),
    /// The network.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// It was there, and is not any more.
    #[error("the sensor went away: {0}")]
    Cut(String),
    /// It refuses.
    #[error("the sensor says: {error}; {remedy}")]
    Refused { status: u16, error: String, remedy: String },
}

impl Unanswered {
    /// Whether asking again may help.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::Nobody(_) | Self::Dead(_) | Self::Unreachable(..) | Self::Cut(_) => true,
            Self::Denied(_) => false,
            Self::Refused { status, .. } => matches!(*status, 429 | 500..),
        }
    }

    /// Whether no sensor runs on this host.
    pub(super) const fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody(_) | Self::Dead(_))
    }
}

impl From<Unanswered> for Failure {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Refused { status: 400, .. } => Self::Usage(why.to_string()),
            why => Self::Failed(why.into()),
        }
    }
}

/// A way to a sensor.
pub(super) struct Client {
    http: reqwest::Client,
    place: Place,
    token: Option<Secret>,
}

enum Place {
    Socket(PathBuf),
    Url(String),
}

impl Client {
    /// The way that the flags and the configuration say.
    pub(super) fn new(context: &Context, reach: &Reach) -> Result<Self, Failure> {
        match &reach.connect {
            Some(url) => Self::remote(context, reach, url),
            None => Self::local(socket(context, reach)?).map_err(Failure::Failed),
        }
    }

    /// The way by this socket.
    pub(super) fn local(path: PathBuf) -> anyhow::Result<Self> {
        // No TLS is spoken there: a host without a list of authorities is not asked for one.
        let client = reqwest::Client::builder().unix_socket(path.clone()).no_proxy().tls_certs_only([]);
        let http = client.build()?;
        Ok(Self { http, place: Place::Socket(path), token: None })
    }

    fn remote(context: &Context, reach: &Reach, url: &str) -> Result<Self, Failure> {
        let parsed = reqwest::Url::parse(url).ok().filter(|url| url.has_host() && url.path() == "/");
        let wrong = || Failure::Usage(format!("--connect {} is no https://HOST:PORT", printable(url)));
        let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(wrong)?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(Failure::Usage("--connect must hold no password: use --token".into()));
        }
        let token = reach.token.as_deref().map(|named| secret(context, named)).transpose()?;
        let tls = TlsSettings {
            ca: reach.ca.clone(),
            only_ca: reach.ca.is_some(),
            cert: reach.cert.clone(),
            key: reach.key.clone(),
        };
        let client = ClientSettings { tls, proxy: Proxy::None }.client();
        let http = client.map_err(|error| Failure::Usage(error.to_string()))?;
        let place = Place::Url(parsed.as_str().trim_end_matches('/').to_owned());
        Ok(Self { http, place, token })
    }

    /// Asks for a page. An answer that is no success is an error.
    pub(super) async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<reqwest::Response, Unanswered> {
        let base = match &self.place {
            Place::Socket(_) => "http://tokenscope",
            Place::Url(url) => url,
        };
        let mut request = self.http.get(format!("{base}{path}?{}", encode(query)));
        if let Some(token) = &self.token {
            request = request.bearer_auth(String::from_utf8_lossy(&token.0));
        }
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(answer).await) }
    }

    fn unreachable(&self, error: reqwest::Error) -> Unanswered {
        let error = error.without_url();
        let Place::Socket(path) = &self.place else {
            let Place::Url(url) = &self.place else { return Unanswered::Cut(error.to_string()) };
            return Unanswered::Unreachable(url.clone(), words(&error));
        };
        match cause(&error).map(io::Error::kind) {
            Some(ErrorKind::NotFound) => Unanswered::Nobody(path.clone()),
            Some(ErrorKind::ConnectionRefused) => Unanswered::Dead(path.clone()),
            Some(ErrorKind::PermissionDenied) => Unanswered::Denied(path.clone()),
            _ => Unanswered::Cut(words(&error)),
        }
    }
}

/// The socket that the flags or the configuration name.
pub(super) fn socket(context: &Context, reach: &Reach) -> Result<PathBuf, Failure> {
    if let Some(path) = &reach.socket {
        return Ok(path.clone());
    }
    let Some(path) = context.config_path() else { return Ok(Path::new(DEFAULT_SOCKET).to_owned()) };
    let loaded = context.load(Some(&path), Secrets::Optional).map_err(Failure::Config)?;
    let off = "the configuration has no control socket (control.socket: off); name one with --socket";
    loaded.config.control.socket.ok_or_else(|| Failure::Usage(off.into()))
}

fn secret(context: &Context, named: &str) -> Result<Secret, Failure> {
    let wrong = |_wrong| Failure::Usage("--token names no secret: write env:NAME or file:PATH".into());
    let named = SecretRef::parse(named).map_err(wrong)?;
    let secret = named.resolve_foreign(&context.environment);
    secret.map(Secret).map_err(|why| Failure::Usage(format!("--token: {why}")))
}

/// Names and values, `%`-encoded but for letters, digits and `-._~` (RFC 3986 section 2.3).
fn encode(query: &[(&str, String)]) -> String {
    let mut out = String::new();
    for (name, value) in query {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(byte));
                }
                _ => _ = write!(out, "%{byte:02X}"),
            }
        }
    }
    out
}

/// What the sensor says of why not.
async fn refused(mut answer: reqwest::Response) -> Unanswered {
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > MAX_REFUSAL {
            break;
        }
    }
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| said.get(name).and_then(Value::as_str).map(printable);
    Unanswered::Refused {
        status,
        error: text("error").unwrap_or_else(|| format!("status {status}")),
        remedy: text("remedy").unwrap_or_else(|| "is it a sensor?".into()),
    }
}

/// The error of the system beneath.
fn cause(error: &reqwest::Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// The last and most exact words of an error.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    printable(&last.to_string())
}

/// An event loop for one command.
pub(super) fn event_loop() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
