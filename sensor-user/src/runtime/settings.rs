//! From the configuration as users know it to each stage's own settings.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::alert::AlertSettings;
use crate::alert::risk::RiskSettings;
use crate::config::kubernetes::Enabled;
use crate::config::{Config, Mask, PrincipalSource, Zone};
use crate::detect::rules::entity_risk;
use crate::detect::session::SessionKey;
use crate::detect::{DetectSettings, RouteKind, settings::RouteMatch, settings::RuleSettings};
use crate::enrich::cluster::{client, follow};
use crate::http::{AccountSource, Bodies, BodyKey, BodyUse, HttpLimits};
use crate::pipeline::Settings;
use crate::reassembly::FlowLimits;
use crate::render::Privacy;
use crate::render::privacy::mask::Masks;
use crate::store::Veil;

/// Every stage's slice.
pub(super) fn of(config: &Config) -> Settings {
    Settings {
        flows: FlowLimits {
            max_flows: config.flows.max_flows,
            max_buffered_total: config.flows.max_buffered_bytes,
            idle_timeout: config.flows.idle_timeout,
            ..FlowLimits::default()
        },
        http: HttpLimits {
            max_head_bytes: config.capture.max_head_bytes,
            exchange_timeout: config.flows.exchange_timeout,
            trusted_proxies: config.http.trusted_proxies.clone(),
            bodies: bodies(config),
        },
        tokens: config.tokens.clone(),
        detect: detect(config),
        alerts: AlertSettings {
            dedup_window: config.alerts.dedup_window,
            cooling: config.alerts.cooling.iter().map(|(id, time)| ((*id).to_owned(), *time)).collect(),
            incident_window: config.alerts.incident_window,
            trusted_addresses: config.lists.trusted_addresses.clone(),
            risk: risk(config),
            ..AlertSettings::default()
        },
    }
}

/// Which bodies are read. Hashes of refresh tokens are the same in every run that has a fingerprint key.
fn bodies(config: &Config) -> Bodies {
    let route = |route: &crate::config::RouteMatch| {
        let source = match &route.principal {
            None => AccountSource::Usual,
            Some(PrincipalSource::Body(name)) => AccountSource::Body(name.as_str().into()),
            Some(PrincipalSource::Header(name)) => AccountSource::Header(name.as_str().into()),
            Some(PrincipalSource::Query(name)) => AccountSource::Query(name.as_str().into()),
        };
        match route.kind {
            RouteKind::Token => BodyUse::Token(source),
            RouteKind::Login => BodyUse::Account(source),
            _ if route.principal.is_some() => BodyUse::Named(source),
            _ => BodyUse::Ignored,
        }
    };
    let routes = config.routes.iter().map(|r| (r.method.as_deref(), r.path.as_str(), route(r)));
    let graphql = config.http.graphql.iter().map(String::as_str);
    let key = config.tokens.fingerprint_key.as_ref().map(|key| key.as_slice());
    let bodies = Bodies::new(routes, graphql, BodyKey::derived(key));
    if !config.tokens.learn_issued {
        return bodies;
    }
    bodies.with_issued(config.tokens.issued_fields.iter().map(String::as_str))
}

/// How risk is reckoned: the numbers of its rule.
fn risk(config: &Config) -> RiskSettings {
    let shipped = RiskSettings::default();
    let Some(rule) = config.rules.iter().find(|rule| rule.id == entity_risk::ABOUT.id) else {
        return shipped;
    };
    let value = |key| rule.thresholds.value(&entity_risk::ABOUT, key);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "their bounds are 1 and 100")]
    let points = |key| value(key) as u8;
    RiskSettings {
        enabled: rule.enabled,
        severity: rule.severity,
        medium: points("medium_from"),
        high: points("high_from"),
        half_life: Duration::from_secs_f64(value("half_life_h") * 3600.0),
        ..shipped
    }
}

/// What is hidden from every sink and store.
pub(super) fn privacy(config: &Config) -> Privacy {
    let key = config.pseudonym_key.as_ref().filter(|_| config.privacy.pseudonymise);
    let masks = Masks {
        email: config.privacy.mask.contains(&Mask::Email),
        phone: config.privacy.mask.contains(&Mask::Phone),
        account: config.privacy.mask.contains(&Mask::Account),
    };
    Privacy::new(config.privacy.mask_addresses, key.map(|key| key.as_slice()))
        .with_masks(masks)
        .with_sensitive_names(&config.privacy.sensitive_names)
}

/// What may be stored. Without a key there is nothing that outlives this process, so that any will do.
#[must_use]
pub fn veil(config: &Config) -> Veil {
    let key = config.tokens.fingerprint_key.as_ref().map_or(&[][..], |key| key.as_slice());
    Veil::new(key, privacy(config), config.privacy.pseudonymise)
}

/// The host's time zone is read here: what runs in it may be moved, but seldom while it runs.
pub(super) fn zone(zone: &Zone) -> TimeZone {
    match zone {
        Zone::System => TimeZone::system(),
        Zone::Named(name) => TimeZone::get(name).unwrap_or(TimeZone::UTC),
    }
}

/// How names of pods are followed; none if they are not.
#[must_use]
pub fn following(config: &Config) -> Option<follow::Settings> {
    let kubernetes = &config.kubernetes;
    let wanted = match kubernetes.enabled {
        Enabled::Yes => true,
        Enabled::No => false,
        Enabled::Auto => kubernetes.kubeconfig.is_some() || client::is_in_cluster(),
    };
    let named = || std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let given = kubernetes.node.clone().or_else(named);
    // A host's name may be its node's; a pod's host name is its own.
    let guessed = given.is_none() && config.node.is_none() && client::is_pod();
    let node = given.unwrap_or_else(|| super::node(config).name.to_ascii_lowercase());
    let mut labels = kubernetes.labels.clone();
    labels.extend(config.watch.labels.iter().map(|wanted| wanted.name.clone()));
    let kubeconfig = kubernetes.kubeconfig.clone();
    wanted.then_some(follow::Settings { kubeconfig, node, guessed, labels })
}

fn detect(config: &Config) -> DetectSettings {
    let rule = |rule: &crate::config::RuleSettings| {
        let settings = RuleSettings {
            enabled: rule.enabled,
            severity: rule.severity,
            thresholds: rule.thresholds.clone(),
        };
        (rule.id.to_owned(), settings)
    };
    let route = |route: &crate::config::RouteMatch| RouteMatch {
        method: route.method.clone(),
        pattern: route.path.clone(),
        kind: route.kind,
    };
    DetectSettings {
        rules: config.rules.iter().map(rule).collect(),
        routes: config.routes.iter().map(route).collect(),
        trusted_addresses: config.lists.trusted_addresses.clone(),
        cluster_networks: config.lists.cluster_networks.clone(),
        session_cookies: config.http.session_cookies.clone(),
        certificate_headers: config.http.certificate_headers.clone(),
        session_key: config
            .tokens
            .fingerprint_key
            .as_ref()
            .map(|key| SessionKey::derived(key))
            .unwrap_or_default(),
        time_zone: zone(&config.time_zone),
        max_tokens: config.tokens.max_tokens,
        ..DetectSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Secrets, parse};

    const KEY: &str = "privacy: {fingerprint_key: env:KEY}\n";

    fn read(text: &str) -> Bodies {
        let environment = Environment::from([("KEY", "0123456789abcdef")]);
        let text = format!("{KEY}{text}");
        let loaded = parse("test", &text, Path::new(""), &environment, &[], Secrets::Needed).unwrap();
        assert_eq!(loaded.warnings.lines().count(), 0);
        bodies(&loaded.config)
    }

    fn key() -> BodyKey {
        BodyKey::derived(Some(b"0123456789abcdef"))
    }

    #[test]
    fn principals_of_routes_say_where_accounts_are() {
        let text = "routes:
  - {match: POST /enter, kind: login, principal: body.who.name}
  - {match: /issue, kind: token, principal: header.X-User}
  - {match: /pay/*, kind: financial, principal: query.account}
  - {match: POST /login, kind: public}
";
        let routes = [
            (Some("POST"), "/enter", BodyUse::Account(AccountSource::Body("who.name".into()))),
            (None, "/issue", BodyUse::Token(AccountSource::Header("x-user".into()))),
            (None, "/pay/*", BodyUse::Named(AccountSource::Query("account".into()))),
            (Some("POST"), "/login", BodyUse::Ignored),
        ];
        assert_eq!(read(text), Bodies::new(routes, [], key()));
    }

    #[test]
    fn answers_are_read_only_where_it_is_asked_for() {
        let text = "tokens: {learn_issued: true, issued_fields: [a_token]}";
        assert_eq!(read(text), Bodies::new([], [], key()).with_issued(["a_token"]));
        assert_eq!(read("tokens: {issued_fields: [a_token]}"), Bodies::new([], [], key()));
    }

    #[test]
    fn paths_of_graphql_are_taken_over() {
        assert_eq!(read("http: {graphql: [/query]}"), Bodies::new([], ["/query"], key()));
    }

    #[test]
    fn hashes_outlive_a_restart_only_with_a_key() {
        assert_eq!(BodyKey::derived(Some(b"k")), BodyKey::derived(Some(b"k")));
        assert_ne!(BodyKey::derived(Some(b"k")), BodyKey::derived(Some(b"l")));
        assert_ne!(BodyKey::derived(None), BodyKey::derived(None));
        assert_ne!(BodyKey::derived(None), BodyKey::default());
    }
}
