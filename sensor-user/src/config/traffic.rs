//! The sections about traffic: `capture`, `flows`, `http`, `routes`, `lists`, `geo`; and `time_zone`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::word::{Cgroup, Port, Word, Wrong, choose, excerpt, quote};
use crate::detect::rule::RouteKind;
use crate::detect::settings::private_networks;

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Which sockets.
    pub cgroup: Cgroup,
    /// Local server ports; empty means all.
    pub ports: Vec<u16>,
    /// Longest message head that is kept, in bytes.
    pub max_head_bytes: usize,
    /// Size of the ring that the kernel fills: a power of two.
    pub ring_bytes: u32,
}

impl Capture {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "Which sockets: `auto` is the cgroup v2 root, found in /proc/self/mounts, and means every socket of \
                   the host; a directory below it means the sockets of that part.";
        let cgroup = s.word("cgroup", Cgroup::Auto, doc);
        let doc = "Local server ports to watch; empty means all. At most 1024.";
        let ports =
            s.words::<Port>("ports", Vec::new(), doc).into_iter().map(|port| port.0).collect::<Vec<_>>();
        if ports.len() > 1_024 {
            s.report(Problem::error(s.span_of("ports"), "`capture.ports` holds more than 1024 ports"));
        }
        // The kernel half forwards at most 64 KiB of a head; a request line alone can take a kilobyte.
        let doc = "Longest request or response head that is kept; of longer ones the start is judged and marked as truncated.";
        let max_head_bytes = s.number("max_head_bytes", 65_536, 1_024..=65_536, doc);
        // capture.md: 1 MiB lost heavily under load, 16 MiB lost none.
        let doc =
            "Memory between kernel and sensor, a power of two: more bridges longer stalls of the sensor.";
        let ring_bytes = s.number("ring_bytes", 16 << 20, 65_536..=1 << 30, doc);
        if !ring_bytes.is_power_of_two() {
            let message = format!("`capture.ring_bytes` is {ring_bytes}; it must be a power of two");
            let problem = Problem::error(s.span_of("ring_bytes"), message);
            s.report(problem.hint(format!("the next is {}", ring_bytes.next_power_of_two())));
        }
        Self {
            cgroup,
            ports,
            max_head_bytes: usize::try_from(max_head_bytes).unwrap_or(65_536),
            ring_bytes: u32::try_from(ring_bytes).unwrap_or(16 << 20),
        }
    }
}

/// Limits on what is remembered of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Connections followed at once.
    pub max_flows: u32,
    /// How long a silent connection is remembered.
    pub idle_timeout: Duration,
    /// Bytes buffered over all connections.
    pub max_buffered_bytes: usize,
    /// How long a request waits for its response.
    pub exchange_timeout: Duration,
}

impl Flows {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "Connections followed at once, about 250 bytes each when idle. Beyond it, those that never carried \
                   a request go first.";
        let max_flows = s.number("max_flows", 1 << 20, 1_024..=1 << 24, doc);
        let doc = "Seconds of silence after which a connection is forgotten.";
        let idle_timeout = Duration::from_secs(s.number("idle_timeout_s", 300, 1..=86_400, doc));
        let doc = "Bytes that may wait for their order or their acknowledgement, over all connections.";
        let max_buffered_bytes = s.number("max_buffered_bytes", 64 << 20, 1 << 20..=16 << 30, doc);
        let doc = "Seconds that a request waits for its response before it is judged without one.";
        let exchange_timeout = Duration::from_secs(s.number("exchange_timeout_s", 30, 1..=3_600, doc));
        Self {
            max_flows: u32::try_from(max_flows).unwrap_or(u32::MAX),
            idle_timeout,
            max_buffered_bytes: usize::try_from(max_buffered_bytes).unwrap_or(usize::MAX),
            exchange_timeout,
        }
    }
}

/// How HTTP is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Peers whose `Forwarded` and `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Paths that serve GraphQL, besides those that end in `/graphql`.
    pub graphql: Vec<String>,
    /// Cookies that name a session, besides those of common frameworks.
    pub session_cookies: Vec<String>,
    /// Headers in which a proxy passes on the certificate of the client.
    pub certificate_headers: Vec<String>,
}

impl Http {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "Networks of proxies whose Forwarded and X-Forwarded-For headers name the client. Anybody else \
                   can write anything there.";
        let trusted_proxies = s.words("trusted_proxies", Vec::new(), doc);
        let doc = "Paths that serve GraphQL, by POST and by GET, besides those that end in /graphql: * and {name} stand for \
                   one segment, ** for any number of them.";
        let graphql =
            s.words::<PathAlone>("graphql", Vec::new(), doc).into_iter().map(|path| path.0).collect();
        let doc = "Cookies whose value names a session, besides those of common frameworks (JSESSIONID, PHPSESSID, \
                   connect.sid, sessionid, ...). Of a value no more than a keyed hash is kept.";
        let session_cookies = s.words("session_cookies", Vec::new(), doc);
        let doc = "Headers in which the proxy that ends TLS passes on the client's certificate or its SHA-256, and replaces \
                   what the client sends: X-Forwarded-Client-Cert, X-SSL-Client-Cert, Client-Cert, ... Empty: tokens \
                   that are bound to a certificate are not judged.";
        let certificate_headers = s.words("certificate_headers", Vec::new(), doc);
        Self { trusted_proxies, graphql, session_cookies, certificate_headers }
    }
}

/// What a user says of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The method; none means any.
    pub method: Option<String>,
    /// The path by segments: `*` and `{name}` stand for one, `**` for any number of them.
    pub path: String,
    /// What the route is for.
    pub kind: RouteKind,
    /// Where a login names its account.
    pub principal: Option<PrincipalSource>,
}

/// Where a request names the account that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalSource {
    /// A member of a JSON body or a form.
    Body(String),
    /// A header.
    Header(String),
    /// A query parameter.
    Query(String),
}

const KINDS: [(&str, RouteKind); 9] = [
    ("login", RouteKind::Login),
    ("logout", RouteKind::Logout),
    ("token", RouteKind::Token),
    ("sensitive", RouteKind::Sensitive),
    ("pii", RouteKind::Pii),
    ("financial", RouteKind::Financial),
    ("admin", RouteKind::Admin),
    ("public", RouteKind::Public),
    ("health", RouteKind::Health),
];

impl Word for RouteKind {
    const WHAT: &'static str = "login, logout, token, sensitive, pii, financial, admin, public or health";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &KINDS)
    }

    fn show(&self) -> String {
        KINDS.iter().find(|(_, kind)| kind == self).map_or("plain", |(name, _)| name).to_owned()
    }
}

/// A path without a method.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PathAlone(String);

impl Word for PathAlone {
    const WHAT: &'static str = "a path";
    const WHAT_MANY: &'static str = "paths";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.starts_with('/') && !text.contains(['?', ' ']) && text.len() <= 1_024 {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("is {}; a path starts with / and has no query", excerpt(text))))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// `POST /login`, or a path alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    method: Option<String>,
    path: String,
}

impl Word for Pattern {
    const WHAT: &'static str = "METHOD /path or /path";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let mut words = text.split_whitespace();
        let (method, path) = match (words.next(), words.next(), words.next()) {
            (Some(path), None, _) => (None, path),
            (Some(method), Some(path), None) => (Some(method), path),
            _ => return Err(Wrong::new(format!("is {}; it must be METHOD /path or /path", excerpt(text)))),
        };
        if !path.starts_with('/') || path.contains('?') || path.len() > 1_024 {
            return Err(Wrong::new(format!(
                "names the path {}; a path starts with / and has no query",
                excerpt(path)
            )));
        }
        // RFC 9110 section 9.1: a method is case-sensitive; the registered ones are capitals.
        match method {
            Some(method)
                if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') =>
            {
                let wrong =
                    Wrong::new(format!("names the method {}, which is not in capitals", excerpt(method)));
                Err(wrong.hint(format!("did you mean `{}`?", method.to_ascii_uppercase())))
            }
            method => Ok(Self { method: method.map(str::to_owned), path: path.to_owned() }),
        }
    }

    fn show(&self) -> String {
        quote(
            &self
                .method
                .as_ref()
                .map_or_else(|| self.path.clone(), |method| format!("{method} {}", self.path)),
        )
    }
}

impl Word for PrincipalSource {
    const WHAT: &'static str = "body.NAME, header.NAME or query.NAME";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("is {}; it must be {}", excerpt(text), Self::WHAT));
        match text.split_once('.') {
            Some((_, "")) | None => Err(wrong()),
            Some(("body", name)) => Ok(Self::Body(name.to_owned())),
            Some(("header", name)) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("query", name)) => Ok(Self::Query(name.to_owned())),
            Some(_) => Err(wrong()),
        }
    }

    fn show(&self) -> String {
        let (place, name) = match self {
            Self::Body(name) => ("body", name),
            Self::Header(name) => ("header", name),
            Self::Query(name) => ("query", name),
        };
        quote(&format!("{place}.{name}"))
    }
}

impl RouteMatch {
    pub(super) const EXAMPLE: &'static str = "{match: POST /login, kind: login}";

    pub(super) fn read(s: &mut Section<'_, '_>) -> Option<Self> {
        let doc = "METHOD /path, or a path for every method. * and {name} stand for one segment, ** for any number of \
                   them. Without * it also names the route: what fits is counted together under this name.";
        let pattern = s.required::<Pattern>("match", doc);
        let doc = "login, logout, token, sensitive, pii, financial, admin, public or health; left out: nothing special.";
        let kind = s.optional("kind", doc).unwrap_or_default();
        let doc = "Where a request names the account: body.NAME or body.OUTER.NAME (JSON or form), header.NAME or \
                   query.NAME. Logins are read for the usual names without this.";
        let principal = s.optional("principal", doc);
        let pattern = pattern?;
        Some(Self { method: pattern.method, path: pattern.path, kind, principal })
    }
}

/// Names and addresses that the sensor cannot know by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lists {
    /// Addresses that many people share, or that are ours: VPN, NAT, load balancers.
    pub trusted_addresses: Vec<IpNet>,
    /// Where nodes and pods are.
    pub cluster_networks: Vec<IpNet>,
    /// Addresses of known attackers.
    pub bad_addresses: Vec<IpNet>,
    /// Domains that our own accounts may be named with or without.
    pub account_domains: Vec<String>,
    /// Accounts that must not be used.
    pub denied_accounts: Vec<String>,
    /// Accounts of people who have left.
    pub departed_accounts: Vec<String>,
    /// `jti` of tokens that were revoked.
    pub revoked_ids: Vec<String>,
    /// Roles that give power over others.
    pub privileged_roles: Vec<String>,
    /// More of them, in files.
    pub files: ListFiles,
}

/// Files whose entries are added to a list, read again when they change. Paths are absolute, or start where the
/// sensor does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFiles {
    /// Plain lists of addresses and networks, or events of MISP.
    pub bad_addresses: Vec<PathBuf>,
    /// Accounts, one a line.
    pub denied_accounts: Vec<PathBuf>,
    /// Accounts, one a line.
    pub departed_accounts: Vec<PathBuf>,
    /// `jti`, one a line.
    pub revoked_ids: Vec<PathBuf>,
    /// Every account that there is, one a line.
    pub directory: Vec<PathBuf>,
}

impl Lists {
    pub(super) fn read(s: &mut Section<'_, '_>, base: &Path) -> Self {
        let doc = "Networks whose addresses many clients share: VPN, NAT, load balancers. One token from several of \
                   them is not a theft.";
        let trusted_addresses = s.words("trusted_addresses", Vec::new(), doc);
        let doc = "Networks of nodes and pods: a service-account token from elsewhere is stolen. Left out: the private \
                   networks.";
        let cluster_networks = s.words("cluster_networks", private_networks(), doc);
        let doc = "Addresses and networks of known attackers.";
        let bad_addresses = s.words("bad_addresses", Vec::new(), doc);
        let doc = "Domains of your own accounts: alice@DOMAIN and DOMAIN\\alice are then the same as alice, in these lists \
                   and in what is compared with them.";
        let account_domains = s.words("account_domains", Vec::new(), doc);
        let doc = "Accounts that must not be used. Case, compatible letters of Unicode and invisible ones are ignored.";
        let denied_accounts = s.words("denied_accounts", Vec::new(), doc);
        let doc = "Accounts of people who have left, compared likewise.";
        let departed_accounts = s.words("departed_accounts", Vec::new(), doc);
        let revoked_ids = s.words("revoked_ids", Vec::new(), "The jti of tokens that were revoked.");
        let roles = vec!["ADMIN".to_owned(), "SUPER_ADMIN".to_owned()];
        let doc = "Roles and scopes that give power over others; case and a ROLE_ in front are ignored.";
        let privileged_roles = s.words("privileged_roles", roles, doc);
        let doc = "Files with more entries, one a line, # begins a comment. A file that changes is read again within \
                   five seconds; one that is missing or broken is refused, and what it held stays.";
        let files = s.section("files", doc, |s| ListFiles::read(s, base));
        Self {
            trusted_addresses,
            cluster_networks,
            bad_addresses,
            account_domains,
            denied_accounts,
            departed_accounts,
            revoked_ids,
            privileged_roles,
            files,
        }
    }
}

impl ListFiles {
    fn read(s: &mut Section<'_, '_>, base: &Path) -> Self {
        let mut paths = |key: &str, doc: &str| {
            let paths = s.words::<PathBuf>(key, Vec::new(), doc);
            if paths.len() > MAX_LIST_FILES {
                let message = format!("`lists.files.{key}` names more than {MAX_LIST_FILES} files");
                s.report(Problem::error(s.span_of(key), message));
            }
            paths.into_iter().map(|path| base.join(path)).collect()
        };
        Self {
            bad_addresses: paths(
                "bad_addresses",
                "Addresses and networks, or events of MISP (JSON), of which ip-src and ip-dst for detection are taken.",
            ),
            denied_accounts: paths("denied_accounts", "Accounts that must not be used."),
            departed_accounts: paths("departed_accounts", "Accounts of people who have left."),
            revoked_ids: paths("revoked_ids", "The jti of tokens that were revoked."),
            directory: paths(
                "directory",
                "Every account that there is, as your directory tells, named as tokens name them (sub). Left out: unknown \
                 accounts are not judged.",
            ),
        }
    }
}

/// Most files of one list: they are looked at every few seconds.
const MAX_LIST_FILES: usize = 64;

/// Where places of addresses are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Geo {
    /// A city database.
    pub city: Option<PathBuf>,
    /// A database of networks.
    pub asn: Option<PathBuf>,
    /// Countries that may be used; empty means all.
    pub allowed_countries: Vec<Country>,
}

/// A country by its two letters (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country(pub [u8; 2]);

impl Word for Country {
    const WHAT: &'static str = "a country of two letters";
    const WHAT_MANY: &'static str = "countries of two letters";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let letters = <[u8; 2]>::try_from(text.as_bytes()).ok().filter(|code| code.is_ascii());
        match letters.map(|code| code.map(|b| b.to_ascii_uppercase())) {
            Some(code) if code.iter().all(u8::is_ascii_alphabetic) && code != *b"UK" => Ok(Self(code)),
            Some(code) if code == *b"UK" => {
                Err(Wrong::new("holds `UK`, which is no code of ISO 3166-1").hint("did you mean `GB`?"))
            }
            _ => Err(Wrong::new(format!("holds {}; a country has two letters: DE, US", excerpt(text)))),
        }
    }

    fn show(&self) -> String {
        // `NO` would be read as false.
        format!("\"{}\"", crate::detect::knowledge::letters(self.0))
    }
}

impl Geo {
    pub(super) fn read(s: &mut Section<'_, '_>, base: &Path) -> Self {
        let doc = "A city or country database in the MaxMind format (.mmdb).";
        let city = s.optional::<PathBuf>("city", doc).map(|path| base.join(path));
        let doc = "A database of autonomous systems in the MaxMind format (.mmdb).";
        let asn = s.optional::<PathBuf>("asn", doc).map(|path| base.join(path));
        let doc = "Countries from which users may come, two letters each; empty means all. Needs `city`.";
        let allowed_countries = s.words("allowed_countries", Vec::new(), doc);
        if city.is_none() && !allowed_countries.is_empty() {
            let message = "`geo.allowed_countries` has no effect without `geo.city`";
            s.report(Problem::warning(s.span_of("allowed_countries"), message));
        }
        Self { city, asn, allowed_countries }
    }
}

/// The time zone in which working hours are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// That of the host; replay, whose output must not depend on the host, takes UTC.
    System,
    /// By its name in the IANA database.
    Named(String),
}

impl Word for Zone {
    const WHAT: &'static str = "system, or a time zone such as Europe/Berlin";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "system" => Ok(Self::System),
            name if jiff::tz::TimeZone::get(name).is_ok() => Ok(Self::Named(name.to_owned())),
            name => Err(Wrong::new(format!("is {}, which is no time zone", excerpt(name)))
                .hint("write system, UTC or a name such as Europe/Berlin")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::Named(name) => quote(name),
        }
    }
}
