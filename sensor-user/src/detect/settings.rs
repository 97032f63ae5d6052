//! The detect stage's slice of the configuration, checked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::detect::session::SessionKey;
use crate::detect::{About, RouteKind, Severity, Thresholds};
use crate::http::route_match::{LOGIN_ROUTES, RouteTable, TOKEN_ROUTES};

/// What users may change of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSettings {
    /// Whether it is asked at all.
    pub enabled: bool,
    /// The severity of everything that it finds, instead of its own.
    pub severity: Option<Severity>,
    /// Its numbers.
    pub thresholds: Thresholds,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self { enabled: true, severity: None, thresholds: Thresholds::default() }
    }
}

/// What the sensor cannot know of a route by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The method; none means any.
    pub method: Option<String>,
    /// The path by segments: `*` and `{name}` match one, `**` any number of them. Case is ignored.
    pub pattern: String,
    /// What the route is for.
    pub kind: RouteKind,
}

impl RouteMatch {
    /// Reads `POST /login` or `/health`.
    #[must_use]
    pub fn new(text: &str, kind: RouteKind) -> Self {
        match text.trim().split_once(char::is_whitespace) {
            Some((method, path)) => {
                Self { method: Some(method.to_ascii_uppercase()), pattern: path.trim().to_owned(), kind }
            }
            None => Self { method: None, pattern: text.trim().to_owned(), kind },
        }
    }
}

/// Every route match, configured and shipped, taken apart once.
#[derive(Clone, Debug, Default)]
pub struct Kinds(RouteTable<RouteKind>);

impl Kinds {
    /// The configured matches, then those that are known without configuration: the first that fits decides.
    #[must_use]
    pub fn new(configured: &[RouteMatch]) -> Self {
        let mut table = RouteTable::default();
        for m in configured {
            table.push(m.method.as_deref(), &m.pattern, m.kind);
        }
        let logins = LOGIN_ROUTES.iter().map(|text| (*text, RouteKind::Login));
        let tokens = TOKEN_ROUTES.iter().map(|text| (*text, RouteKind::Token));
        for (text, kind) in logins.chain(tokens).chain(DEFAULT_ROUTES.iter().copied()) {
            table.push_text(text, kind);
        }
        Self(table)
    }

    /// What the route with this method and path template is for.
    #[must_use]
    pub fn of(&self, method: &str, path: &str) -> RouteKind {
        self.0.find(method.as_bytes(), path.as_bytes()).copied().unwrap_or_default()
    }
}

/// What the detect stage needs to know. The default is a working configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectSettings {
    /// By rule id; rules that are not named are as shipped.
    pub rules: BTreeMap<String, RuleSettings>,
    /// Asked in order, before those that are known without configuration; the first match decides.
    pub routes: Vec<RouteMatch>,
    /// Addresses that many callers share: NAT, VPN, load balancers.
    pub trusted_addresses: Vec<IpNet>,
    /// Networks of the nodes and pods that service-account tokens are made for.
    pub cluster_networks: Vec<IpNet>,
    /// Cookies that name a session, besides those of common frameworks.
    pub session_cookies: Vec<String>,
    /// Headers in which a proxy passes on the certificate of the client; empty means that none is seen.
    pub certificate_headers: Vec<String>,
    /// The secret under which session cookies are hashed.
    pub session_key: SessionKey,
    /// Where working hours are measured.
    pub time_zone: jiff::tz::TimeZone,
    /// Principals, and tokens that nobody can check, whose history is remembered.
    pub max_principals: usize,
    /// Routes remembered. A service has hundreds; a node runs tens of services.
    pub max_routes: usize,
    /// Tokens whose history is remembered, by each rule that keeps one. All histories of one token are about 350 bytes.
    pub max_tokens: usize,
    /// Addresses whose history is remembered, by each rule that keeps one. A history is about 320 bytes.
    pub max_addresses: usize,
}

/// Networks that are nobody's on the internet (RFC 1918, 3927, 4193, 4291, 6598): where clusters live unless said otherwise.
const PRIVATE: [&str; 9] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
];

/// [`PRIVATE`], read.
#[must_use]
pub fn private_networks() -> Vec<IpNet> {
    PRIVATE.iter().filter_map(|net| net.parse().ok()).collect()
}

impl Default for DetectSettings {
    fn default() -> Self {
        Self {
            rules: BTreeMap::new(),
            routes: Vec::new(),
            trusted_addresses: Vec::new(),
            cluster_networks: private_networks(),
            session_cookies: Vec::new(),
            certificate_headers: Vec::new(),
            session_key: SessionKey::default(),
            time_zone: jiff::tz::TimeZone::UTC,
            max_principals: 200_000,
            max_routes: 10_000,
            max_tokens: 100_000,
            max_addresses: 20_000,
        }
    }
}

impl DetectSettings {
    /// One number of one rule, as configured or as shipped.
    #[must_use]
    pub fn threshold(&self, about: &About, key: &str) -> f64 {
        static SHIPPED: Thresholds = Thresholds(Vec::new());
        self.rules.get(about.id).map_or(&SHIPPED, |rule| &rule.thresholds).value(about, key)
    }

    /// [`Self::threshold`] as a count: whole, not negative.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float-to-integer `as` saturates, and the bounds of every threshold lie inside u32"
    )]
    pub fn count(&self, about: &About, key: &str) -> u32 {
        self.threshold(about, key) as u32
    }

    /// Whether an address is known to be shared by many callers.
    #[must_use]
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted_addresses.iter().any(|net| net.contains(&address))
    }
}

/// The routes that are known without configuration, besides [`LOGIN_ROUTES`] and [`TOKEN_ROUTES`]: what common
/// frameworks and orchestrators use.
pub const DEFAULT_ROUTES: &[(&str, RouteKind)] = &[
    ("/**/logout", RouteKind::Logout),
    ("/**/signout", RouteKind::Logout),
    ("/**/sign-out", RouteKind::Logout),
    ("/**/.well-known/**", RouteKind::Public),
    ("/favicon.ico", RouteKind::Public),
    ("/robots.txt", RouteKind::Public),
    ("/**/health", RouteKind::Health),
    ("/**/healthz", RouteKind::Health),
    ("/**/health/*", RouteKind::Health),
    ("/**/admin/**", RouteKind::Admin),
    ("/livez", RouteKind::Health),
    ("/readyz", RouteKind::Health),
    ("/**/ping", RouteKind::Health),
    ("/metrics", RouteKind::Health),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_common_routes() {
        let kinds = Kinds::new(&[]);
        for (method, path, kind) in [
            ("POST", "/login", RouteKind::Login),
            ("POST", "/api/v1/login/", RouteKind::Login),
            ("GET", "/login", RouteKind::Plain),
            ("POST", "/realms/shop/protocol/openid-connect/token", RouteKind::Token),
            ("GET", "/HEALTHZ", RouteKind::Health),
            ("GET", "/actuator/health/liveness", RouteKind::Health),
            ("GET", "/.well-known/jwks.json", RouteKind::Public),
            ("POST", "/loginx", RouteKind::Plain),
            ("GET", "/orders/{id}", RouteKind::Plain),
        ] {
            assert_eq!(kinds.of(method, path), kind, "{method} {path}");
        }
    }

    #[test]
    fn configuration_comes_before_defaults() {
        let kinds = Kinds::new(&[
            RouteMatch::new("POST /login", RouteKind::Plain),
            RouteMatch::new("/admin/**", RouteKind::Admin),
        ]);
        assert_eq!(kinds.of("POST", "/login"), RouteKind::Plain);
        assert_eq!(kinds.of("GET", "/admin/users/{id}"), RouteKind::Admin);
        assert_eq!(kinds.of("GET", "/admin"), RouteKind::Admin);
    }
}
