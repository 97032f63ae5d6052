//! Keys of a sink of type `alertmanager`.

use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::tls::{Receiver, client, warn_if_clear};
use crate::config::sinks::{free, http};
use crate::config::tokens::Resolver;
use crate::config::word::excerpt;
use crate::sink::alertmanager::Settings;
use crate::sink::http::Text;

/// Most members of a cluster: usual ones have three.
const MAX_URLS: usize = 16;

/// Labels that are the sensor's own.
const OWN: [&str; 5] = ["alertname", "severity", "rule", "namespace", "workload"];

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc =
        "Each Alertmanager of the cluster, http or https. All are told; one that takes an alert is enough.";
    let urls: Vec<String> =
        s.words::<Receiver>("urls", Vec::new(), doc).into_iter().map(|url| url.0).collect();
    if urls.is_empty() {
        let problem = Problem::error(s.span_of("urls"), "`sinks.urls` is missing");
        s.report(problem.hint("add `urls: [http://alertmanager:9093]`"));
    }
    if urls.len() > MAX_URLS {
        s.report(Problem::error(s.span_of("urls"), format!("`sinks.urls` names more than {MAX_URLS}")));
    }
    for url in &urls {
        warn_if_clear(s, "urls", url);
    }
    let doc = "Labels that every alert gets besides alertname, severity, rule, namespace and workload.";
    let labels = free::map(s, "static_labels", resolver, doc, |_name| false);
    let mut fixed = Vec::new();
    for (name, value) in labels {
        let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.starts_with("__");
        if !fits || OWN.contains(&name.as_str()) {
            let why = if fits { "is the sensor's own" } else { "is no label's name" };
            let message = format!("`static_labels`: {} {why}", excerpt(&name));
            s.report(Problem::error(s.span_of("static_labels"), message));
        } else if let Text::Plain(value) = value {
            fixed.push((name, value));
        } else {
            let message = "`static_labels` are shown to everybody, so none can be a secret";
            s.report(Problem::error(s.span_of("static_labels"), message));
        }
    }
    let doc =
        "Seconds after which an alert without news is over. Incidents are over when the sensor says so.";
    let resolve_after = Duration::from_secs(s.number("resolve_after_s", 3600, 60..=604_800, doc));
    let doc = "Where a person can look further: the alert's link.";
    let link = s.optional::<Receiver>("link", doc).map(|url| url.0);
    let auth = http::auth(s, "Bearer", None, false, resolver);
    let client = client(s, resolver);
    Some(Settings { client, urls, auth: auth?, labels: fixed, resolve_after, link })
        .filter(|settings| !settings.urls.is_empty())
}
