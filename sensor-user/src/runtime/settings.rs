//! From the configuration as users know it to each stage's own settings.

use std::time::Duration;

use crate::alert::AlertSettings;
use crate::alert::risk::RiskSettings;
use crate::config::Config;
use crate::detect::rules::entity_risk;
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
            incident_window: config.alerts.incident_window,
            trusted_addresses: config.lists.trusted_addresses.clone(),
            risk: risk(config),
            ..AlertSettings::default()
        },
    }
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

/// What sinks hide.
pub(super) fn privacy(config: &Config) -> Privacy {
    let key = config.tokens.fingerprint_key.as_ref().filter(|_| config.privacy.pseudonymise);
    Privacy::new(config.privacy.mask_addresses, key.map(|key| key.as_slice()))
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
        max_tokens: config.tokens.max_tokens,
        ..DetectSettings::default()
    }
}
