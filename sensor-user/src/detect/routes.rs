//! Routes: the name, purpose and guard of every place that requests go to, learned from traffic.
//!
//! A route is told apart by server address, `Host`, method and path template. Its guard says whether a 2xx there means
//! that a credential was accepted: it is learned from callers who have none, and from refusals of tokens that every
//! correct verifier refuses. `Host` is the caller's to choose, so a guard is also learned for all hosts of a server
//! together: a made-up host must not make a guarded route look unknown.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::detect::cause::must_refuse;
use crate::detect::settings::Kinds;
use crate::detect::statement::VERIFIERS_LEEWAY_S;
use crate::detect::table::Table;
use crate::detect::{DetectSettings, Guard, Route, text};
use crate::http::{Exchange, RequestHead};
use crate::token::TokenUse;

/// Refusals in a row that overrule an earlier sight of an open route: it was deployed anew, with a guard.
const REFUSALS_TO_CLOSE: u8 = 3;

/// Longest host kept, in bytes: RFC 1035 allows 253; real ones are far shorter.
const MAX_HOST: usize = 128;

/// The host under which all hosts of a server are learned together. No `Host` header is this: `*` is no host.
const ANY_HOST: &[u8] = b"*";

/// Request headers that carry a credential which is not a token of ours.
const CREDENTIAL_HEADERS: [&str; 5] = ["authorization", "cookie", "x-api-key", "api-key", "apikey"];

#[derive(Debug)]
struct Key {
    server: SocketAddr,
    host: Box<[u8]>,
    name: Box<str>,
}

#[derive(Debug)]
struct Entry {
    route: Route,
    /// Refusals since the route was last seen open; saturates.
    refusals: u8,
}

/// What one exchange says of its route's guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// A caller without any credential got a 2xx.
    Open,
    /// A caller without a good token got a 401 or 403.
    Refused,
}

/// The known routes.
#[derive(Debug)]
pub struct Routes {
    table: Table<Key, Entry>,
    kinds: Kinds,
    name: String,
    host: Vec<u8>,
    nowhere: Route,
}

impl Routes {
    /// Knows nothing yet but what the configuration says.
    #[must_use]
    pub fn new(settings: &DetectSettings) -> Self {
        Self {
            table: Table::new(settings.max_routes),
            kinds: Kinds::new(&settings.routes),
            name: String::new(),
            host: Vec::new(),
            nowhere: Route { name: "".into(), kind: crate::detect::RouteKind::Plain, guard: Guard::Unknown },
        }
    }

    /// Routes that had to be forgotten.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    /// Routes known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none are known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The route of an exchange, after learning what the exchange says of it. Allocates for new routes only.
    pub fn look_up(&mut self, exchange: &Exchange, tokens: &[TokenUse]) -> &Route {
        self.read_names(&exchange.request);
        let server = exchange.endpoints.server;
        let evidence = evidence(exchange, tokens);
        let hash = self.hash(server, &self.host);
        let guard = self.learn(hash, server, false, evidence);
        let doubtful = exchange.is_success() && tokens.iter().any(|held| !held.token.is_verified());
        let any_host = if evidence.is_some() || (guard == Guard::Unknown && doubtful) {
            let any = self.hash(server, ANY_HOST);
            self.learn(any, server, true, evidence)
        } else {
            Guard::Unknown
        };
        let (name, host) = (self.name.as_str(), self.host.as_slice());
        let found = self.table.find(hash, |k| k.server == server && *k.name == *name && *k.host == *host);
        let Some(entry) = found else { return &self.nowhere };
        if entry.route.guard == Guard::Unknown && any_host == Guard::Refuses {
            entry.route.guard = Guard::Refuses;
        }
        &entry.route
    }

    fn hash(&self, server: SocketAddr, host: &[u8]) -> u64 {
        self.table.hash_of(&(server, host, self.name.as_str()))
    }

    /// Makes the entry if it is missing, and lets the evidence change its guard.
    fn learn(&mut self, hash: u64, server: SocketAddr, any: bool, evidence: Option<Evidence>) -> Guard {
        let host = if any { ANY_HOST } else { self.host.as_slice() };
        let name = self.name.as_str();
        if let Some(entry) =
            self.table.find(hash, |k| k.server == server && *k.name == *name && *k.host == *host)
        {
            entry.learn(evidence);
            return entry.route.guard;
        }
        let (method, path) = name.split_once(' ').unwrap_or((name, ""));
        let route = Route { name: name.into(), kind: self.kinds.of(method, path), guard: Guard::Unknown };
        let mut entry = Entry { route, refusals: 0 };
        entry.learn(evidence);
        let guard = entry.route.guard;
        self.table.insert(hash, Key { server, host: host.into(), name: name.into() }, entry);
        guard
    }

    /// Reads method, template and host into the reused buffers.
    fn read_names(&mut self, request: &RequestHead) {
        template_into(request.method(), request.path(), &mut self.name);
        self.host.clear();
        let host = request.value("host").unwrap_or_default();
        let host = host.get(..MAX_HOST).unwrap_or(host);
        self.host.extend(host.iter().map(u8::to_ascii_lowercase));
    }
}

impl Entry {
    const fn learn(&mut self, evidence: Option<Evidence>) {
        match evidence {
            None => {}
            Some(Evidence::Open) => {
                self.refusals = 0;
                self.route.guard = Guard::Open;
            }
            Some(Evidence::Refused) => {
                self.refusals = self.refusals.saturating_add(1);
                let settled = matches!(self.route.guard, Guard::Open) && self.refusals < REFUSALS_TO_CLOSE;
                if !settled {
                    self.route.guard = Guard::Refuses;
                }
            }
        }
    }
}

fn evidence(exchange: &Exchange, tokens: &[TokenUse]) -> Option<Evidence> {
    if exchange.is_refused() {
        let no_good_token =
            tokens.iter().all(|held| must_refuse(&held.token, exchange.at, VERIFIERS_LEEWAY_S).is_some());
        return no_good_token.then_some(Evidence::Refused);
    }
    if !tokens.is_empty() || !exchange.is_success() {
        return None;
    }
    let anonymous = CREDENTIAL_HEADERS.iter().all(|name| exchange.request.value(name).is_none());
    anonymous.then_some(Evidence::Open)
}

/// Writes `GET /orders/{id}` into `out`. Never allocates once `out` has grown.
fn template_into(method: &[u8], path: &[u8], out: &mut String) {
    /// Longest template kept and most segments looked at, so that routes cannot be invented without bound.
    const MAX_TEMPLATE: usize = 256;
    const MAX_SEGMENTS: usize = 32;
    out.clear();
    push_plain(out, method.get(..16).unwrap_or(method));
    out.push(' ');
    for (number, segment) in path.split(|b| *b == b'/').enumerate() {
        if number > 0 {
            out.push('/');
        }
        if number >= MAX_SEGMENTS || out.len() >= MAX_TEMPLATE {
            out.push('…');
            break;
        }
        push_segment(out, segment);
    }
}

fn push_segment(out: &mut String, segment: &[u8]) {
    let segment = segment.split(|b| *b == b';').next().unwrap_or_default();
    let digits = segment.iter().filter(|b| b.is_ascii_digit()).count();
    let hex = segment.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-');
    let plain = segment.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(b));
    if memchr::memchr(b'@', segment).is_some() || memchr::memmem::find(segment, b"%40").is_some() {
        out.push_str("{email}");
    } else if (!segment.is_empty() && digits == segment.len())
        || (hex && segment.len() >= 16)
        || (plain && segment.len() >= 16 && digits >= 3)
        || segment.len() > 48
    {
        out.push_str("{id}");
    } else {
        push_plain(out, segment);
    }
}

fn push_plain(out: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(text::is_unprintable) => out.push_str(text),
        _ => {
            for byte in bytes {
                if byte.is_ascii_graphic() {
                    out.push(char::from(*byte));
                } else {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
    }
}
