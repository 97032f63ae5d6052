//! Exchanges as OCSF 1.8 API Activity (class 6003); [`forms`] has what is made of those objects.
//!
//! Whoever follows exchanges gets these. The JSON of one is made at most once, however many follow, and not at all while
//! nobody does. The compact line is made of the JSON alone, so that a reader far from the sensor prints the same.

pub mod forms;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use crate::alert::Place;
use crate::capture::Time;
use crate::detect::{Principal, text};
use crate::http::Coverage;
use crate::render::ocsf::{METHODS, Metadata};
use crate::render::shown;
use crate::token::Fingerprint;
use crate::token::facts::{Form, Signature, Standing, Token, Unchecked};

pub use forms::{ecs, line};

const CATEGORY_APPLICATION: u32 = 6;
const CLASS_API_ACTIVITY: u32 = 6003;

/// One request and what was answered, as it may be shown: owned, bounded, free of secrets, after privacy.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// When the request's first byte was seen.
    pub at: Time,
    /// From the request's last head byte to the response's first, where both were seen.
    pub latency: Option<Duration>,
    /// The method, printable.
    pub method: Box<str>,
    /// `GET /orders/{id}`.
    pub route: Arc<str>,
    /// The path without query, printable, bounded, masked.
    pub path: Box<str>,
    /// The `Host` header, printable, bounded.
    pub host: Option<Box<str>>,
    /// The `User-Agent` header, printable, bounded.
    pub user_agent: Option<Box<str>>,
    /// The status code, if a response was seen.
    pub status: Option<u16>,
    /// Bytes of the request's body, where its framing tells.
    pub request_bytes: Option<u64>,
    /// Bytes of the response's body, where its framing tells.
    pub response_bytes: Option<u64>,
    /// The client's address: the peer's, or what a trusted proxy says.
    pub client: IpAddr,
    /// The client's port, where the client is the peer.
    pub client_port: Option<u16>,
    /// The server's end of the connection.
    pub server: SocketAddr,
    /// The server's process; 0 if unknown.
    pub pid: u32,
    /// The workload that answered, where it is known.
    pub place: Option<Arc<Place>>,
    /// How much was captured.
    pub coverage: Coverage,
    /// The request's tokens, in its order.
    pub tokens: Vec<Presented>,
}

/// A token of a request, as it may be shown.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// What was made of it: [`verdict`].
    pub verdict: &'static str,
    /// Whom it names.
    pub principal: Option<Principal>,
}

/// What was made of a token, in one word. What its issuer says of it now outweighs its signature.
#[must_use]
pub const fn verdict(token: &Token) -> &'static str {
    match (token.standing, token.signature) {
        (Standing::Listed | Standing::Inactive, _) => "revoked",
        (_, Signature::Verified) => "verified",
        (_, Signature::Invalid) => "invalid",
        (_, Signature::Absent) => "unsigned",
        (_, Signature::Unchecked(why)) => match (why, token.form) {
            (Unchecked::Pending | Unchecked::KeysPending, _) => "pending",
            (Unchecked::KeyUnknown, _) => "key-unknown",
            (Unchecked::KeyWithdrawn, _) => "key-withdrawn",
            (Unchecked::NoIssuer, _) => "issuer-unknown",
            (Unchecked::OverBudget, _) => "over-budget",
            (Unchecked::Unreadable, Form::Jwe) => "encrypted",
            (Unchecked::Unreadable, Form::Malformed) => "malformed",
            (Unchecked::Unreadable, Form::Jws | Form::Opaque) => "opaque",
        },
    }
}

/// An exchange on its way to those who follow: its OCSF object is made when the first of them asks.
#[derive(Debug)]
pub struct Followed {
    /// The exchange.
    pub exchanged: Exchanged,
    json: OnceLock<Box<str>>,
}

impl Followed {
    /// An exchange of which nobody has asked for the JSON yet.
    #[must_use]
    pub const fn new(exchanged: Exchanged) -> Self {
        Self { exchanged, json: OnceLock::new() }
    }

    /// The OCSF object, without a line break.
    #[must_use]
    pub fn json(&self) -> &str {
        let make = || serde_json::to_string(&ApiActivity::of(&self.exchanged)).unwrap_or_default();
        self.json.get_or_init(|| make().into_boxed_str())
    }
}

impl Exchanged {
    /// Whom the first token that names anybody names; a verified one comes first.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        let named = || self.tokens.iter().filter_map(|token| token.principal.as_ref());
        named().find(|principal| principal.verified).or_else(|| named().next())
    }

    /// The token that stands for the request: that of [`principal`](Self::principal), else the first.
    #[must_use]
    pub fn token(&self) -> Option<&Presented> {
        let principal = self.principal();
        let named =
            self.tokens.iter().find(|token| principal.is_some() && token.principal.as_ref() == principal);
        named.or_else(|| self.tokens.first())
    }

    /// The workload, else the server's address and port.
    #[must_use]
    pub fn workload(&self) -> String {
        match &self.place {
            Some(place) if !place.name.is_empty() => text::printable(place.name.as_bytes(), 128),
            _ => self.server.to_string(),
        }
    }
}

/// An API Activity. The schema wants an actor and a source: where nobody is named, the user agent acts.
#[derive(Debug, Serialize)]
pub struct ApiActivity<'a> {
    activity_id: u32,
    activity_name: &'static str,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    type_uid: u32,
    type_name: &'static str,
    time: u64,
    severity_id: u8,
    severity: &'static str,
    status_id: u8,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
    metadata: Metadata,
    cloud: Cloud,
    actor: Actor<'a>,
    api: Api<'a>,
    http_request: HttpRequest<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_response: Option<HttpResponse>,
    src_endpoint: Endpoint,
    dst_endpoint: Endpoint,
    unmapped: Unmapped<'a>,
}

#[derive(Debug, Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Session<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_name: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct User {
    uid: String,
}

#[derive(Debug, Serialize)]
struct Session<'a> {
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Api<'a> {
    operation: &'a str,
}

#[derive(Debug, Serialize)]
struct HttpRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<&'a str>,
    url: Url<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_length: Option<i32>,
}

#[derive(Debug, Serialize)]
struct Url<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct HttpResponse {
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_length: Option<i32>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    name: String,
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// The schema has `api` from the profile `cloud`, which wants a provider: the sensor does not look for one.
#[derive(Debug, Serialize)]
struct Cloud {
    provider: &'static str,
}

/// What has no place of its own. Bytes are exact here: the schema's lengths end at 2 GiB.
#[derive(Debug, Serialize)]
struct Unmapped<'a> {
    coverage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tokens: Box<[Other]>,
}

/// Each token of a request that has several.
#[derive(Debug, Serialize)]
struct Other {
    uid: String,
    verdict: &'static str,
}

impl<'a> ApiActivity<'a> {
    /// The event for an exchange.
    #[must_use]
    pub fn of(of: &'a Exchanged) -> Self {
        let (activity_id, activity_name, type_name) = activity(&of.method);
        let (status_id, status) = match of.status {
            None => (0, "Unknown"),
            Some(code) if code < 400 => (1, "Success"),
            Some(_) => (2, "Failure"),
        };
        Self {
            activity_id,
            activity_name,
            category_uid: CATEGORY_APPLICATION,
            category_name: "Application Activity",
            class_uid: CLASS_API_ACTIVITY,
            class_name: "API Activity",
            type_uid: CLASS_API_ACTIVITY * 100 + activity_id,
            type_name,
            time: of.at.millis(),
            severity_id: 1,
            severity: "Informational",
            status_id,
            status,
            status_code: of.status.map(|code| code.to_string()),
            duration: of.latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            metadata: Metadata::of("exchanges").about_calls(),
            cloud: Cloud { provider: "Unknown" },
            actor: Actor::of(of),
            api: Api { operation: &of.route },
            http_request: HttpRequest::of(of),
            http_response: of.status.map(|code| HttpResponse {
                code,
                latency: of.latency.map(|latency| i32::try_from(latency.as_millis()).unwrap_or(i32::MAX)),
                body_length: of.response_bytes.map(length),
            }),
            src_endpoint: Endpoint {
                name: of.client.to_string(),
                ip: of.client.to_string(),
                port: of.client_port,
            },
            dst_endpoint: Endpoint {
                name: of.workload(),
                ip: of.server.ip().to_string(),
                port: Some(of.server.port()),
            },
            unmapped: Unmapped::of(of),
        }
    }
}

impl<'a> Actor<'a> {
    fn of(of: &'a Exchanged) -> Self {
        let principal = of.principal();
        let issuer = principal.and_then(|principal| principal.issuer.as_deref());
        let user = principal.map(|principal| User { uid: shown::subject(principal) });
        let session = of.token().map(|token| Session { uid: token.fingerprint.to_string(), issuer });
        let nobody = user.is_none() && session.is_none();
        let app_name = nobody.then(|| of.user_agent.as_deref().unwrap_or("unknown"));
        Self { user, session, app_name }
    }
}

impl<'a> HttpRequest<'a> {
    fn of(of: &'a Exchanged) -> Self {
        Self {
            http_method: METHODS.contains(&&*of.method).then_some(&*of.method),
            url: Url { path: &of.path, domain: of.host.as_deref() },
            user_agent: of.user_agent.as_deref(),
            body_length: of.request_bytes.map(length),
        }
    }
}

impl<'a> Unmapped<'a> {
    fn of(of: &'a Exchanged) -> Self {
        let each = |token: &Presented| Other { uid: token.fingerprint.to_string(), verdict: token.verdict };
        let tokens = if of.tokens.len() > 1 { of.tokens.iter().map(each).collect() } else { Box::default() };
        Self {
            coverage: of.coverage.as_str(),
            verified: of.principal().map(|principal| principal.verified),
            verdict: of.token().map(|token| token.verdict),
            latency_us: of.latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
            request_bytes: of.request_bytes,
            response_bytes: of.response_bytes,
            pid: (of.pid != 0).then_some(of.pid),
            container: of.place.as_deref().and_then(|place| place.container_id.as_deref()),
            pod: of.place.as_deref().and_then(|place| place.pod_uid.as_deref()),
            identity: of.place.as_deref().map(|place| place.identity.as_str()),
            method: (!METHODS.contains(&&*of.method)).then_some(&*of.method),
            tokens,
        }
    }
}

/// The schema counts bytes in 32 bits.
fn length(bytes: u64) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// What a method does, as the schema divides it (RFC 9110 section 9.3).
fn activity(method: &str) -> (u32, &'static str, &'static str) {
    match method {
        "POST" => (1, "Create", "API Activity: Create"),
        "GET" | "HEAD" | "OPTIONS" => (2, "Read", "API Activity: Read"),
        "PUT" | "PATCH" => (3, "Update", "API Activity: Update"),
        "DELETE" => (4, "Delete", "API Activity: Delete"),
        _ => (99, "Other", "API Activity: Other"),
    }
}

/// Exchanges for tests.
#[cfg(test)]
pub(crate) mod staging {
    use super::*;

    /// An exchange with everything in it: Alice's third order.
    pub(crate) fn exchanged() -> Exchanged {
        let place = Place {
            name: "shop/orders-7f9c".into(),
            container_id: Some("4f5a".into()),
            pod_uid: Some("pod-1".into()),
            ..Place::default()
        };
        Exchanged {
            at: Time(1_795_284_245_123_000_000),
            latency: Some(Duration::from_micros(1_850)),
            method: "GET".into(),
            route: "GET /orders/{id}".into(),
            path: "/orders/3".into(),
            host: Some("shop.example".into()),
            user_agent: Some("curl/8.1".into()),
            status: Some(200),
            request_bytes: None,
            response_bytes: Some(512),
            client: IpAddr::from([10, 0, 3, 7]),
            client_port: Some(50_000),
            server: SocketAddr::from(([10, 0, 0, 1], 8080)),
            pid: 4242,
            place: Some(Arc::new(place)),
            coverage: Coverage::Whole,
            tokens: vec![Presented {
                fingerprint: Fingerprint([0x2a; 16]),
                verdict: "verified",
                principal: Some(Principal {
                    subject: "alice".into(),
                    issuer: Some("https://idp.example/".into()),
                    verified: true,
                }),
            }],
        }
    }

    /// The least that can be known of one.
    pub(crate) fn bare() -> Exchanged {
        Exchanged {
            latency: None,
            method: "PURGE".into(),
            host: None,
            user_agent: None,
            status: None,
            response_bytes: None,
            client_port: None,
            pid: 0,
            place: None,
            coverage: Coverage::Gap,
            tokens: Vec::new(),
            ..exchanged()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::staging::{bare, exchanged};
    use super::*;
    use crate::render::validator;

    fn api(of: &Exchanged) -> Value {
        serde_json::to_value(ApiActivity::of(of)).unwrap()
    }

    #[test]
    fn every_event_is_valid() {
        let Some(schema) = validator::Schema::find() else { return };
        let claimed = Principal { subject: "m".into(), issuer: None, verified: false };
        let token =
            Presented { fingerprint: Fingerprint([1; 16]), verdict: "opaque", principal: Some(claimed) };
        let huge =
            Exchanged { response_bytes: Some(u64::MAX >> 1), request_bytes: Some(1 << 40), ..exchanged() };
        let two = Exchanged { tokens: vec![token.clone(), exchanged().tokens.remove(0)], ..exchanged() };
        let opaque = Exchanged { tokens: vec![Presented { principal: None, ..token }], ..bare() };
        let failed = Exchanged { status: Some(500), method: "DELETE".into(), ..exchanged() };
        for of in [exchanged(), bare(), huge, two, opaque, failed] {
            assert_eq!(schema.problems(&api(&of)), Vec::<String>::new(), "{of:?}");
        }
    }

    #[test]
    fn a_verified_principal_stands_for_the_request() {
        let claimed = Principal { subject: "mallory".into(), issuer: None, verified: false };
        let token =
            Presented { fingerprint: Fingerprint([1; 16]), verdict: "invalid", principal: Some(claimed) };
        let of = Exchanged { tokens: vec![token, exchanged().tokens.remove(0)], ..exchanged() };
        assert_eq!(of.principal().map(|p| &*p.subject), Some("alice"));
        assert_eq!(of.token().map(|t| t.verdict), Some("verified"));
        assert_eq!(api(&of).pointer("/unmapped/tokens/0/verdict").and_then(Value::as_str), Some("invalid"));
    }

    #[test]
    fn the_json_is_made_once() {
        let followed = Followed::new(exchanged());
        assert!(std::ptr::eq(followed.json(), followed.json()));
    }
}
