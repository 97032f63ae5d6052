//! A finding: one rule's statement about one exchange, before alerts are made of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::capture::{Endpoints, Origin, Time};
use crate::detect::About;
use crate::http::Coverage;
use crate::token::Fingerprint;

/// How bad it is. OCSF's `severity_id` is given by [`Severity::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// P3: read in batches.
    Low,
    /// P2: within one business day.
    Medium,
    /// P1: within four hours.
    High,
    /// P0: now.
    Critical,
}

impl Severity {
    /// OCSF `severity_id`.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
            Self::Critical => 5,
        }
    }

    /// OCSF `severity`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }

    /// The severity with this name, ASCII case ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who acted. Claims of an unverified token are shown, and never taken for the account's owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// The subject.
    pub subject: Box<str>,
    /// The issuer that vouches, or that the token claims.
    pub issuer: Option<Box<str>>,
    /// Whether a verified signature says so.
    pub verified: bool,
}

/// The exchange as far as an alert shows it: owned, bounded, free of secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scene {
    /// When the exchange began.
    pub at: Time,
    /// The client's address: the peer's, or what a trusted proxy says; unspecified in findings about a service as a
    /// whole.
    pub client: IpAddr,
    /// Both ends of the connection.
    pub endpoints: Endpoints,
    /// Where the server lives.
    pub origin: Origin,
    /// The method, printable.
    pub method: Box<str>,
    /// The path without query, printable, bounded.
    pub path: Box<str>,
    /// `GET /orders/{id}`.
    #[serde(serialize_with = "write_shared", deserialize_with = "read_shared")]
    pub route: Arc<str>,
    /// The `Host` header, printable, bounded.
    pub host: Option<Box<str>>,
    /// The `User-Agent` header, printable, bounded.
    pub user_agent: Option<Box<str>>,
    /// The status code, if a response was seen.
    pub status: Option<u16>,
    /// Bytes of the response's body, where its framing tells.
    pub response_bytes: Option<u64>,
    /// How much was captured.
    pub coverage: Coverage,
    /// Names of people in the exchange, each once, at most [`Self::MAX_NAMES`]: what privacy hides wherever it stands.
    pub names: Vec<Box<str>>,
}

impl Scene {
    /// Most names of one scene: an account in two forms, and the subjects of half a dozen tokens.
    pub const MAX_NAMES: usize = 8;

    /// The client's end in findings about a service as a whole. No connection has it: what a proxy says of the client
    /// does not count.
    pub const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    /// Whether it is about the service as a whole: nobody stands for the client.
    #[must_use]
    pub fn is_of_service(&self) -> bool {
        self.endpoints.client == Self::NOBODY
    }
}

/// Writes shared text for a snapshot.
pub(crate) fn write_shared<S: Serializer>(text: &Arc<str>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(text)
}

/// Reads shared text from a snapshot.
pub(crate) fn read_shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(from).map(Arc::from)
}

/// One rule's statement.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static About,
    /// When the deciding exchange ended.
    pub at: Time,
    /// How bad.
    pub severity: Severity,
    /// 0 to 100: how sure the rule is.
    pub confidence: u8,
    /// Who, where a token says so.
    pub principal: Option<Principal>,
    /// Which token.
    pub token: Option<Fingerprint>,
    /// What tells it apart from others of its rule where no token does: the account that a login names, by
    /// [`stable_hash`](crate::detect::roster::stable_hash). A claim: it names an alert and no one else.
    pub group: Option<u64>,
    /// One sentence for people: what happened and why it matters, nothing secret.
    pub message: String,
    /// The short phrase of the compact line: `alg "none" accepted`.
    pub brief: String,
    /// Rule-specific facts for `unmapped`, in this order.
    pub facts: Vec<(&'static str, serde_json::Value)>,
    /// The exchange that decided it; none for findings about the capture itself.
    pub scene: Option<Box<Scene>>,
}
