//! The detect stage's slice of the configuration, checked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::detect::{About, RouteKind, Severity, Thresholds};

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
#[derive(Clone, Debug)]
pub struct Kinds(Vec<Compiled>);

#[derive(Clone, Debug)]
struct Compiled {
    method: Option<String>,
    segments: Vec<String>,
    kind: RouteKind,
}

impl Kinds {
    /// The configured matches, then [`DEFAULT_ROUTES`]: the first that fits decides.
    #[must_use]
    pub fn new(configured: &[RouteMatch]) -> Self {
        let shipped = DEFAULT_ROUTES.iter().map(|(text, kind)| RouteMatch::new(text, *kind));
        let taken_apart = configured.iter().cloned().chain(shipped).map(|m| Compiled {
            method: m.method,
            segments: m.pattern.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            kind: m.kind,
        });
        Self(taken_apart.collect())
    }

    /// What the route with this method and path template is for.
    #[must_use]
    pub fn of(&self, method: &str, path: &str) -> RouteKind {
        let path: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let fits = |k: &&Compiled| {
            k.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method))
                && segments_match(&k.segments, &path)
        };
        self.0.iter().find(fits).map(|k| k.kind).unwrap_or_default()
    }
}

/// Glob by segments, with one point to return to: time is at most the product of both lengths.
fn segments_match(pattern: &[impl AsRef<str>], path: &[&str]) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while s < path.len() {
        match (pattern.get(p).map(AsRef::as_ref), path.get(s)) {
            (Some("**"), _) => {
                retry = Some((p + 1, s));
                p += 1;
            }
            (Some(want), Some(have))
                if want == "*" || want.starts_with('{') || want.eq_ignore_ascii_case(have) =>
            {
                p += 1;
                s += 1;
            }
            _ => match retry {
                Some((after, at)) => {
                    retry = Some((after, at + 1));
                    p = after;
                    s = at + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|rest| rest.as_ref() == "**")
}

/// What the detect stage needs to know. The default is a working configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectSettings {
    /// By rule id; rules that are not named are as shipped.
    pub rules: BTreeMap<String, RuleSettings>,
    /// Asked in order, before [`DEFAULT_ROUTES`]; the first match decides.
    pub routes: Vec<RouteMatch>,
    /// Addresses that many callers share: NAT, VPN, load balancers.
    pub trusted_addresses: Vec<IpNet>,
    /// Principals, and tokens that nobody can check, whose history is remembered.
    pub max_principals: usize,
    /// Routes remembered. A service has hundreds; a node runs tens of services.
    pub max_routes: usize,
    /// Tokens whose history is remembered, by each rule that keeps one. All histories of one token are about 350 bytes.
    pub max_tokens: usize,
    /// Addresses whose history is remembered, by each rule that keeps one. A history is about 320 bytes.
    pub max_addresses: usize,
}

impl Default for DetectSettings {
    fn default() -> Self {
        Self {
            rules: BTreeMap::new(),
            routes: Vec::new(),
            trusted_addresses: Vec::new(),
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

/// The routes that are known without configuration: what common frameworks and orchestrators use.
pub const DEFAULT_ROUTES: &[(&str, RouteKind)] = &[
    ("POST /**/login", RouteKind::Login),
    ("POST /**/signin", RouteKind::Login),
    ("POST /**/sign-in", RouteKind::Login),
    ("POST /**/authenticate", RouteKind::Login),
    ("POST /**/session", RouteKind::Login),
    ("POST /**/sessions", RouteKind::Login),
    ("/**/logout", RouteKind::Logout),
    ("/**/signout", RouteKind::Logout),
    ("/**/sign-out", RouteKind::Logout),
    ("POST /**/oauth/token", RouteKind::Token),
    ("POST /**/oauth2/token", RouteKind::Token),
    ("POST /**/connect/token", RouteKind::Token),
    ("POST /**/openid-connect/token", RouteKind::Token),
    ("POST /**/token/refresh", RouteKind::Token),
    ("POST /**/refresh", RouteKind::Token),
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
    use proptest::prelude::*;

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

    /// The plain recursive reading of the same pattern language.
    fn model(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                model(rest, path) || path.split_first().is_some_and(|(_, tail)| model(pattern, tail))
            }
            (Some((want, p)), Some((have, s))) => (*want == "*" || want == have) && model(p, s),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matches_as_its_model_does(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 0..6),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..8),
        ) {
            prop_assert_eq!(segments_match(&pattern, &path), model(&pattern, &path));
        }
    }
}
