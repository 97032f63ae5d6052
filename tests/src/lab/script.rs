//! Calls with a time: what benign agents and attackers write, and the wire plays.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::label::Label;
use super::{MS, Service};

/// What happens to an exchange on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trick {
    /// Nothing.
    #[default]
    None,
    /// Part of the request is missing in the capture.
    Lost,
    /// Two copies of the request's first bytes differ.
    Conflict,
    /// The server never answers; the client hangs up.
    NoAnswer,
}

/// One exchange, ready to be sent.
#[derive(Clone, Debug)]
pub struct Shot {
    /// Nanoseconds since the epoch.
    pub at: u64,
    /// Who connects.
    pub peer: IpAddr,
    /// Where to.
    pub server: SocketAddr,
    /// Which of the peer's connections: one lane is one conversation after the other.
    pub lane: u32,
    /// On a connection of its own.
    pub alone: bool,
    /// The request's bytes.
    pub request: Vec<u8>,
    /// The answer's bytes.
    pub response: Vec<u8>,
    /// From the request's last byte to the answer's first, in nanoseconds.
    pub latency: u64,
    /// What goes wrong.
    pub trick: Trick,
    /// Whether it counts as benign.
    pub benign: bool,
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client's address.
    pub address: IpAddr,
    /// The ingress that the client comes through; none connects to the service itself.
    pub ingress: Option<u8>,
    /// What it says it is.
    pub agent: String,
    /// Which of its own connections, for callers without ingress.
    pub lane: u32,
}

/// A request to be.
#[derive(Clone, Debug, Default)]
pub struct Call {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
    raw: Option<Vec<u8>>,
}

impl Call {
    /// A request with any method.
    #[must_use]
    pub fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), ..Self::default() }
    }

    /// `GET`.
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// `POST` of JSON.
    #[must_use]
    pub fn post(target: impl Into<String>, json: impl Into<String>) -> Self {
        let mut call = Self::new("POST", target).header("Content-Type", "application/json");
        call.body = Some(json.into());
        call
    }

    /// `POST` of a form.
    #[must_use]
    pub fn form(target: impl Into<String>, form: impl Into<String>) -> Self {
        let mut call = Self::new("POST", target).header("Content-Type", "application/x-www-form-urlencoded");
        call.body = Some(form.into());
        call
    }

    /// Exactly these bytes.
    #[must_use]
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::default() }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a bearer token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    fn bytes(self, caller: &Caller, host: &str) -> Vec<u8> {
        if let Some(raw) = self.raw {
            return raw;
        }
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        if caller.ingress.is_some() {
            let _ = write!(text, "X-Forwarded-For: {}\r\nX-Forwarded-Proto: https\r\n", caller.address);
        }
        if !caller.agent.is_empty() {
            let _ = write!(text, "User-Agent: {}\r\n", caller.agent);
        }
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            let _ = write!(text, "Content-Length: {}\r\n", body.len());
        }
        text.push_str("\r\n");
        text.push_str(self.body.as_deref().unwrap_or_default());
        text.into_bytes()
    }
}

/// What a service answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Milliseconds until it comes.
    pub latency_ms: u64,
}

impl Answer {
    /// This status with a body of its kind.
    #[must_use]
    pub fn of(status: u16, latency_ms: u64) -> Self {
        let body = match status {
            200 => r#"{"items":[],"total":42}"#,
            201 => r#"{"created":true}"#,
            204 => "",
            401 => r#"{"error":"invalid_token"}"#,
            _ => r#"{"error":"see status"}"#,
        };
        Self { status, body: body.to_owned(), latency_ms }
    }

    /// With this body.
    #[must_use]
    pub fn with(mut self, body: String) -> Self {
        self.body = body;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let status = self.status;
        if status == 204 {
            return b"HTTP/1.1 204 No Content\r\nServer: shop\r\n\r\n".to_vec();
        }
        format!(
            "HTTP/1.1 {status} Status\r\nServer: shop\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

/// Exchanges in no particular order, with what is to be said of them.
#[derive(Debug, Default)]
pub struct Script {
    /// The exchanges.
    pub shots: Vec<Shot>,
    /// What the sensor must or may say.
    pub labels: Vec<Label>,
    /// Whether what is added now is benign.
    pub benign: bool,
}

impl Script {
    /// A script of benign exchanges.
    #[must_use]
    pub fn benign() -> Self {
        Self { benign: true, ..Self::default() }
    }

    /// Adds a call; when its answer will have come.
    pub fn call(&mut self, at: u64, from: &Caller, to: Service, call: Call, answer: &Answer) -> u64 {
        // An ingress has a pool to each service; which of its connections carries a call says nothing.
        let (peer, lane) = match from.ingress {
            Some(number) => (IpAddr::from([10, 0, 9, number]), 0),
            None => (from.address, from.lane),
        };
        let latency = answer.latency_ms.max(1) * MS;
        self.shots.push(Shot {
            at,
            peer,
            server: to.address(),
            lane,
            alone: false,
            request: call.bytes(from, to.host()),
            response: answer.bytes(),
            latency,
            trick: Trick::None,
            benign: self.benign,
        });
        at + latency
    }

    /// Puts the newest call on a connection of its own, and lets something go wrong with it.
    pub fn trick(&mut self, trick: Trick) {
        if let Some(shot) = self.shots.last_mut() {
            shot.alone = true;
            shot.trick = trick;
        }
    }
}
