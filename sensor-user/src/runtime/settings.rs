//! From the configuration as users know it to each stage's own settings.

use jiff::tz::TimeZone;

use crate::alert::AlertSettings;
use crate::config::{Config, Zone};
use crate::detect::{DetectSettings, settings::RouteMatch, settings::RuleSettings};
use crate::http::HttpLimits;
use crate::pipeline::Settings;
use crate::reassembly::FlowLimits;
use crate::sink::Privacy;

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
        },
        tokens: config.tokens.clone(),
        detect: detect(config),
        alerts: AlertSettings {
            dedup_window: config.alerts.dedup_window,
            cooling: config.alerts.cooling.iter().map(|(id, time)| ((*id).to_owned(), *time)).collect(),
            ..AlertSettings::default()
        },
    }
}

/// What sinks hide.
pub(super) fn privacy(config: &Config) -> Privacy {
    let key = config.tokens.fingerprint_key.as_ref().filter(|_| config.privacy.pseudonymise);
    Privacy::new(config.privacy.mask_addresses, key.map(|key| key.as_slice()))
}

/// The host's time zone is read here: what runs in it may be moved, but seldom while it runs.
fn zone(zone: &Zone) -> TimeZone {
    match zone {
        Zone::System => TimeZone::system(),
        Zone::Named(name) => TimeZone::get(name).unwrap_or(TimeZone::UTC),
    }
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
        time_zone: zone(&config.time_zone),
        max_tokens: config.tokens.max_tokens,
        ..DetectSettings::default()
    }
}
