//! Every metric there is: its name, kind, labels and meaning. docs/metrics.md is made of these cards, the dashboards and
//! alert rules in deploy/ are held to them by tests, and whoever has a figure to show shows it by its card.
//!
//! Names are `tokenscope_<noun>_<unit>`, with `_total` behind what only grows; units are seconds and bytes (Prometheus,
//! "Metric and label naming"). No label takes its values from traffic.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use super::metrics::{Histogram, Kind, Metric, Sample};

/// What is known of a metric without its figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence on it.
    pub help: &'static str,
}

impl Card {
    /// A number that only grows.
    #[must_use]
    pub fn count(&self, value: u64) -> Metric {
        self.of(Sample::Counter(value))
    }

    /// Time that only grows.
    #[must_use]
    pub fn spent(&self, value: Duration) -> Metric {
        self.of(Sample::Spent(value))
    }

    /// A whole number that comes and goes.
    #[must_use]
    pub fn level(&self, value: u64) -> Metric {
        #[allow(clippy::cast_precision_loss, reason = "figures above 2^53 are not exact, and do not occur")]
        self.of(Sample::Gauge(value as f64))
    }

    /// Any number that comes and goes.
    #[must_use]
    pub fn number(&self, value: f64) -> Metric {
        self.of(Sample::Gauge(value))
    }

    /// Durations.
    #[must_use]
    pub fn durations(&self, value: Histogram) -> Metric {
        self.of(Sample::Histogram(Box::new(value)))
    }

    /// A counter for each value of the only label.
    pub fn counts(
        &'static self,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) -> impl Iterator<Item = Metric> {
        values.map(|(value, count)| self.count(count).with(&[value.into()]))
    }

    fn of(&self, sample: Sample) -> Metric {
        debug_assert!(sample.kind() == self.kind, "{} is a {:?}", self.name, self.kind);
        Metric { name: self.name, help: self.help, labels: smallvec::SmallVec::new(), sample }
    }
}

impl Metric {
    /// The same with values for its labels, in the order of its card.
    #[must_use]
    pub fn with(mut self, values: &[Cow<'static, str>]) -> Self {
        let labels = find(self.name).map_or(&[][..], |card| card.labels);
        debug_assert!(labels.len() == values.len(), "{} has the labels {labels:?}", self.name);
        self.labels.extend(labels.iter().copied().zip(values.iter().cloned()));
        self
    }
}

/// The card of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Card> {
    every().find(|card| card.name == name)
}

/// Every card, in the order of the page.
pub fn every() -> impl Iterator<Item = &'static Card> {
    SECTIONS.iter().flat_map(|section| section.cards.iter().copied())
}

/// Cards that belong together.
#[derive(Debug)]
pub struct Section {
    /// What they are about.
    pub title: &'static str,
    /// The cards.
    pub cards: &'static [&'static Card],
}

macro_rules! catalogue {
    ($($title:literal { $($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)* })*) => {
        $($(
            #[doc = $help]
            pub static $id: Card = Card { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*)*

        /// Every card, section by section.
        pub static SECTIONS: &[Section] = &[$(Section { title: $title, cards: &[$(&$id),*] }),*];
    };
}

catalogue! {
    "The sensor itself" {
        BUILD_INFO: Gauge "tokenscope_build_info" ["version"] "Always 1; the version that runs.";
        STANDBY: Gauge "tokenscope_standby" [] "1 while the sensor waits to take over from another one, 0 otherwise.";
        START_TIME: Gauge "process_start_time_seconds" [] "When the process began, seconds since the epoch.";
        CPU_SECONDS: Counter "process_cpu_seconds_total" [] "CPU time of the process, user and system.";
        RESIDENT_BYTES: Gauge "process_resident_memory_bytes" [] "Resident memory.";
        VIRTUAL_BYTES: Gauge "process_virtual_memory_bytes" [] "Virtual memory.";
        OPEN_FDS: Gauge "process_open_fds" [] "Open file descriptors.";
        MAX_FDS: Gauge "process_max_fds" [] "Most file descriptors that may be open.";
        THREADS: Gauge "process_threads" [] "Threads.";
        CLOCK_SECONDS: Gauge "tokenscope_clock_seconds" [] "The host's clock when the page was made, seconds since the epoch: alerts are dated by it.";
        CONFIG_RELOAD_OK: Gauge "tokenscope_config_last_reload_successful" [] "Whether the configuration was taken when it was last read: 1 or 0.";
        CONFIG_RELOAD_TIME: Gauge "tokenscope_config_last_reload_success_timestamp_seconds" [] "When a configuration was last taken, seconds since the epoch.";
        HISTORY_BYTES: Gauge "tokenscope_history_saved_bytes" ["part"] "Bytes of the history as it was saved last, by part: a rule, or what all rules share.";
    }
    "Capture" {
        SEGMENTS: Counter "tokenscope_segments_total" ["direction"] "TCP segments that the kernel half looked at: of requests, of responses.";
        BYTES: Counter "tokenscope_bytes_total" ["direction"] "Payload that the kernel half looked at, in bytes: of requests, of responses.";
        CAPTURED_BYTES: Counter "tokenscope_captured_bytes_total" [] "Payload that was handed to user space, in bytes.";
        LOST_RECORDS: Counter "tokenscope_lost_records_total" ["reason"] "Records that capture lost, by reason. Absent until something is lost.";
        SHED: Counter "tokenscope_shed_total" ["what"] "What was left out under more load than can be handled, so that nothing more important is lost: responses (none that begins a failure or answers a POST), bodies of requests, uses of known-good tokens.";
        JUDGED_SHARE: Gauge "tokenscope_judged_share" [] "Share of the uses of known-good tokens that is judged now: 1 but for overload.";
        KERNEL_EVENTS: Counter "tokenscope_kernel_events_total" ["event"] "What the kernel half counted, by event; `ring_full_*`, `unreadable`, `headers` and `no_storage` are losses.";
        RING_BYTES: Gauge "tokenscope_ring_bytes" [] "Size of the ring between kernel and user space.";
        RING_FOUND_BYTES: Gauge "tokenscope_ring_found_bytes" [] "Most bytes that were found in the ring since the page before, by one look or by several without a pause: its high-water mark.";
        PROGRAM_RUNS: Counter "tokenscope_kernel_program_runs_total" ["program"] "Runs of each kernel program; 0 unless the sysctl `kernel.bpf_stats_enabled` is 1.";
        PROGRAM_SECONDS: Counter "tokenscope_kernel_program_seconds_total" ["program"] "CPU time of each kernel program; 0 unless the sysctl `kernel.bpf_stats_enabled` is 1.";
    }
    "Reassembly and HTTP" {
        FLOWS: Gauge "tokenscope_flows" [] "Connections known.";
        FLOW_HELD_BYTES: Gauge "tokenscope_flow_held_bytes" [] "Bytes that wait for order or acceptance.";
        FLOW_EVENTS: Counter "tokenscope_flow_events_total" ["event"] "What reassembly did, by event; losses are among them (`evicted_flows`, `evicted_bytes`, `refused_segments`, `request_gap_bytes`, `response_gap_bytes`).";
        EXCHANGES: Counter "tokenscope_exchanges_total" [] "Requests that were seen, with their responses.";
        HTTP_EVENTS: Counter "tokenscope_http_events_total" ["event"] "What the HTTP stage did, by event; losses are among them (`timeouts`, `queue_full`, `overlong_heads`, `malformed_heads`).";
    }
    "Tokens and issuers" {
        TOKEN_USES: Counter "tokenscope_token_uses_total" [] "Uses of tokens.";
        TOKENS: Counter "tokenscope_tokens_total" ["verdict"] "Judgements of distinct tokens, by verdict.";
        TOKEN_CACHE: Counter "tokenscope_token_cache_total" ["event"] "Token cache, by event: hit, miss, eviction.";
        TOKEN_AMBIGUOUS: Counter "tokenscope_token_ambiguous_total" [] "Requests with an ambiguous set of credentials.";
        TOKENS_ISSUED: Counter "tokenscope_tokens_issued_total" [] "Tokens that were seen to be issued; none unless `tokens.learn_issued` is set.";
        TOKENS_CACHED: Gauge "tokenscope_tokens_cached" [] "Tokens in the cache.";
        TOKEN_PENDING_BYTES: Gauge "tokenscope_token_pending_bytes" [] "Token texts kept until keys come.";
        VERIFYING: Gauge "tokenscope_verifications_pending" [] "Tokens that wait for a verify worker or are with one.";
        PARKED: Gauge "tokenscope_exchanges_parked" [] "Exchanges that wait for a verdict.";
        UNPARKED: Counter "tokenscope_exchanges_unparked_total" [] "Exchanges whose verdict came too late, or that found no room to wait.";
        ISSUERS_READY: Gauge "tokenscope_issuers_ready" [] "Issuers whose keys are there.";
        ISSUERS_WAITING: Gauge "tokenscope_issuers_waiting" [] "Issuers whose keys are missing.";
        ISSUER_KEYS: Gauge "tokenscope_issuer_keys" ["issuer"] "Keys at hand, by configured issuer; 0 while they are missing.";
        ISSUER_LOOKS: Counter "tokenscope_issuer_key_looks_total" ["issuer"] "Looks at an issuer's keys that succeeded, changed or not.";
        INQUIRIES: Counter "tokenscope_revocation_inquiries_total" ["event"] "Questions whether tokens are revoked, by what became of them.";
    }
    "Detection" {
        FINDINGS: Counter "tokenscope_findings_total" ["rule"] "Findings, by rule.";
        SILENCED: Counter "tokenscope_findings_silenced_total" ["rule"] "Findings that people have marked as false, by rule.";
        KNOWN: Gauge "tokenscope_known_entities" ["kind"] "Whom detections remember, by kind.";
        EVICTED: Counter "tokenscope_entities_evicted_total" ["kind"] "Whom detections had to forget for want of room, by kind.";
        LIST_ENTRIES: Gauge "tokenscope_list_entries" ["list"] "Entries of lists, by list.";
        USER_RULES: Gauge "tokenscope_user_rules" [] "User rules that are asked.";
        USER_RULE_FILES_BAD: Gauge "tokenscope_user_rule_files_bad" [] "Rule files with errors: their last good version is asked, if there is one.";
        USER_RULE_RELOADS: Counter "tokenscope_user_rule_reloads_total" ["result"] "Readings of changed rule files, by result: ok, refused.";
        USER_RULE_FINDINGS: Counter "tokenscope_user_rule_findings_total" ["rule"] "Findings, by user rule.";
        USER_RULE_FAULTS: Counter "tokenscope_user_rule_faults_total" ["rule"] "Conditions that could not be computed, by user rule.";
        USER_RULE_EVICTED: Counter "tokenscope_user_rule_groups_evicted_total" ["rule"] "Groups that had to be forgotten, by user rule.";
        USER_RULE_GROUPS: Gauge "tokenscope_user_rule_groups" ["rule"] "Groups remembered, by user rule.";
    }
    "Alerts and time" {
        ALERTS: Counter "tokenscope_alerts_total" ["severity"] "Alerts, by severity: low, medium, high, critical.";
        ALERTS_LOST: Counter "tokenscope_alerts_lost_total" [] "Alerts lost because the disk hung for too long.";
        ALERTS_WAITING: Gauge "tokenscope_alerts_waiting" [] "Alerts that wait for the spool.";
        ALERTS_OPEN: Gauge "tokenscope_alerts_open" [] "Alerts open or cooling.";
        ALERT_EVENTS: Counter "tokenscope_alert_events_total" ["event"] "Life of alerts, by event: created, updated, repeated, folded, evicted.";
        INCIDENTS_OPEN: Gauge "tokenscope_incidents_open" [] "Incidents not over, most with one alert.";
        INCIDENT_EVENTS: Counter "tokenscope_incident_events_total" ["event"] "Life of incidents, by event: told, merged, evicted.";
        AT_RISK: Gauge "tokenscope_entities_at_risk" [] "Entities whose risk is known.";
        ALERT_LATENCY: Histogram "tokenscope_alert_latency_seconds" [] "From the deciding segment to the hand-over of the alert.";
        STAGE_SECONDS: Histogram "tokenscope_stage_seconds" ["stage"] "What a segment (reassembly with http) or an exchange (token, detect, alert) costs in each stage, of one in 64. Tokens of up to 16 exchanges are read at once, which counts for the first of them.";
    }
    "The spool" {
        SPOOL_BYTES: Gauge "tokenscope_spool_bytes" [] "Bytes of the spool on disk.";
        SPOOL_MAX_BYTES: Gauge "tokenscope_spool_max_bytes" [] "Most bytes that the spool may have on disk.";
        SPOOL_EVENTS: Gauge "tokenscope_spool_events" [] "Events in the spool.";
        SPOOL_OLDEST: Gauge "tokenscope_spool_oldest_seconds" [] "Age of the oldest event in the spool.";
        SPOOL_APPENDED: Counter "tokenscope_spool_appended_total" [] "Events appended.";
        SPOOL_EVICTED: Counter "tokenscope_spool_evicted_total" ["severity"] "Events given up for want of room or for their age before every sink had them, by severity.";
        SPOOL_CORRUPT: Counter "tokenscope_spool_corrupt_total" [] "Records that could not be read back.";
        SPOOL_UNDURABLE: Counter "tokenscope_spool_undurable_total" [] "Events that could not be written to disk, and went to sinks all the same.";
        SPOOL_SYNC: Histogram "tokenscope_spool_sync_seconds" [] "What it takes the disk to make events last.";
    }
    "Sinks" {
        SINK_EVENTS: Counter "tokenscope_sink_events_total" ["sink", "result"] "Events, by sink and by what became of them: delivered, dead, lost, filtered.";
        SINK_DELIVERIES: Counter "tokenscope_sink_deliveries_total" ["sink", "result"] "Deliveries, by sink and result: ok, later, timeout.";
        SINK_LAG_EVENTS: Gauge "tokenscope_sink_lag_events" ["sink"] "Events in the spool that the sink has not delivered yet.";
        SINK_LAG_SECONDS: Gauge "tokenscope_sink_lag_seconds" ["sink"] "Age of the oldest event that the sink has not delivered yet; 0 if there is none.";
        SINK_CIRCUIT: Gauge "tokenscope_sink_circuit_open" ["sink"] "1 while a sink that failed again and again is left alone.";
        SINK_SECONDS: Histogram "tokenscope_sink_delivery_seconds" ["sink"] "What a delivery takes.";
        DEAD_LETTERS: Gauge "tokenscope_dead_letters" ["sink"] "Events that a sink refused for good and that nobody has taken out yet.";
    }
    "Identity of workloads" {
        IDENTITY_ALERTS: Counter "tokenscope_identity_alerts_total" ["identity"] "Events of alerts, by how far it was known who answered: known, pending, gone, host, unknown.";
        IDENTITY_COMPLETED: Counter "tokenscope_identity_completed_total" [] "Alerts that were told again because the name of their pod had come.";
        IDENTITY_SYNCED: Gauge "tokenscope_identity_synced" [] "1 while names of pods come from the Kubernetes API; 0 if they are out of date, or not asked for.";
        IDENTITY_PODS: Gauge "tokenscope_identity_pods" ["state"] "Pods of this node whose names are known: live, and gone for at most ten minutes.";
        IDENTITY_FAILURES: Counter "tokenscope_identity_watch_failures_total" ["reason"] "Failures of the watch of pods, by reason: unauthorized, forbidden, expired, unreachable, malformed, other.";
        IDENTITY_CGROUPS: Gauge "tokenscope_identity_cgroups" ["state"] "Cgroups that are known: live, and gone for at most ten minutes.";
        IDENTITY_WALKS: Counter "tokenscope_identity_walks_total" ["kind"] "Walks through the cgroup tree: of what has changed, of the whole.";
        IDENTITY_REFUSED: Counter "tokenscope_identity_refused_total" ["kind"] "What found no room to be known: pod, cgroup.";
        UNWATCHED: Counter "tokenscope_unwatched_exchanges_total" [] "Exchanges that were not judged because `watch` or their pod's owner says so.";
        UNWATCHED_CGROUPS: Gauge "tokenscope_unwatched_cgroups" [] "Cgroups whose servers are left out, met or not, because `watch` or their pod's owner says so.";
    }
    "Store and stream" {
        STORE_BYTES: Gauge "tokenscope_store_bytes" [] "Bytes of the store on disk.";
        STORE_ROWS: Gauge "tokenscope_store_rows" ["table"] "Rows of the store, by table: events of alerts and incidents; uses of tokens in the part that is written to.";
        RECORDS_SHED: Counter "tokenscope_records_shed_total" ["reason"] "Exchanges that were not counted among the uses of tokens, by reason: busy, `disk_full`, failed.";
        RECORDS_STORED: Counter "tokenscope_records_stored_total" [] "Exchanges whose uses of tokens were stored.";
        RECORDS_BLURRED: Counter "tokenscope_records_blurred_total" [] "Exchanges of strangers that were stored without their address or token, because those were too many.";
        RECORDS_GATHERED: Gauge "tokenscope_records_gathered" [] "Uses of tokens that are gathered and not stored yet.";
        STORE_LAG: Gauge "tokenscope_store_lag_events" [] "Events in the spool that the store does not have yet.";
        STORE_GIVEN_UP: Counter "tokenscope_store_given_up_total" ["kind"] "What the store gave up before its time, by kind: `uses_part`, event, file.";
        STREAM_CLIENTS: Gauge "tokenscope_stream_clients" [] "Readers of the control socket's streams.";
        STREAM_MISSED: Counter "tokenscope_stream_missed_total" [] "Events that readers were too slow for; each was told so.";
    }
}

const INTRO: &str = "\
# Metrics

<!-- Generated from sensor-user/src/telemetry/catalogue.rs: do not edit. `cargo xtask docs` writes it anew. -->

The sensor shows its figures at `http://127.0.0.1:9464/metrics` (`metrics.listen`) in the text format of Prometheus,
version 0.0.4. The page is made once a second. Units are seconds and bytes; what ends in `_total` only grows. Labels
take their values from the configuration and the code, never from traffic; a name shows 512 series at most.

`/healthz` answers 200 as long as the sensor moves: it depends on no sink and no issuer. `/readyz` answers 200 once
capture is attached and the first round is done.

A histogram has 24 buckets from a microsecond to eight seconds, each twice as wide as the one before.

[deploy/prometheus/alerts.yaml](../deploy/prometheus/alerts.yaml) has alert rules, [the runbook](runbook.md) says what to do
about each, and [deploy/dashboards/tokenscope.json](../deploy/dashboards/tokenscope.json) is a dashboard for Grafana.
Rules and queries are run by tests against a real Prometheus; there was no Grafana to show the dashboard in.

Not there: entries of the kernel's maps. They can only be counted by walking them, tens of thousands of system calls
a time; what they drop for want of room is a loss and is counted.
";

/// The text of docs/metrics.md.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(INTRO);
    for section in SECTIONS {
        let _ =
            write!(out, "\n## {}\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n", section.title);
        for card in section.cards {
            let labels = card.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out, "| `{}` | {} | {labels} | {} |", card.name, card.kind.as_str(), card.help);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_the_convention() {
        let mut seen = BTreeSet::new();
        for card in every() {
            let name = card.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("tokenscope_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), card.kind == Kind::Counter, "{name}");
            assert!(card.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(card.help.ends_with('.') && !card.help.contains('|'), "{name}: {}", card.help);
            for unit in ["milli", "micro", "_ms", "_kb", "minutes", "percent"] {
                assert!(!name.contains(unit), "{name}");
            }
        }
    }

    #[test]
    fn labels_stand_in_the_order_of_the_card() {
        let metric = SINK_EVENTS.count(3).with(&["siem".into(), "dead".into()]);
        let page = crate::telemetry::metrics::render(&[metric]);
        assert!(page.ends_with("tokenscope_sink_events_total{sink=\"siem\",result=\"dead\"} 3\n"), "{page}");
    }

    #[test]
    fn docs_of_metrics_are_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let fresh = markdown();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &fresh).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == fresh,
            "docs/metrics.md is stale: run `cargo xtask docs`, or this test with BLESS=1"
        );
    }
}
