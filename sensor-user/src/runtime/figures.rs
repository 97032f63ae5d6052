//! What the stages count, as metrics and as totals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::delivery::Delivery;
use super::history::History;
use super::writer::Writer;
use crate::deliver::Figures;
use crate::detect::user::UserRules;
use crate::detect::user::model::Figures as RuleFigures;
use crate::pipeline::Pipeline;
use crate::telemetry::{Metric, Totals};
use crate::token::stage::Counters as TokenCounters;

/// Losses by reason, as sources report them. The reasons are those of the sources: a fixed few.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses(Vec<(&'static str, u64)>);

impl Losses {
    /// Counts a loss.
    pub(super) fn add(&mut self, reason: &'static str, records: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += records,
            None => self.0.push((reason, records)),
        }
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    fn metrics(&self) -> impl Iterator<Item = Metric> + '_ {
        let help = "Records that capture lost, by reason.";
        self.0.iter().map(move |(reason, count)| {
            Metric::counter("tokenscope_lost_records_total", help, *count).label("reason", *reason)
        })
    }
}

/// Totals of a run.
pub(super) fn totals(pipeline: &Pipeline, losses: &Losses, alerts: [u64; 4], elapsed: Duration) -> Totals {
    Totals {
        exchanges: pipeline.exchanges.counters().requests,
        tokens: pipeline.tokens.counters().uses,
        alerts,
        lost: losses.total(),
        elapsed,
    }
}

/// Every metric of the pipeline.
pub(super) fn metrics(pipeline: &Pipeline, losses: &Losses) -> Vec<Metric> {
    let mut all = Vec::with_capacity(128);
    let flows = pipeline.flows.counters().iter();
    labelled(&mut all, "tokenscope_flow_events_total", "What reassembly did, by event.", "event", flows);
    let http = pipeline.exchanges.counters().iter();
    labelled(&mut all, "tokenscope_http_events_total", "What the HTTP stage did, by event.", "event", http);
    tokens(&mut all, &pipeline.tokens.counters());
    let rules = pipeline.detect.findings();
    labelled(&mut all, "tokenscope_findings_total", "Findings, by rule.", "rule", rules);
    let sizes = pipeline.detect.sizes();
    let help = "Whom detections remember, by kind.";
    for (kind, known, _) in sizes {
        all.push(gauge("tokenscope_known_entities", help, known as u64).label("kind", kind));
    }
    let help = "Whom detections had to forget for want of room, by kind.";
    let forgotten = sizes.into_iter().map(|(kind, _, evicted)| (kind, evicted));
    labelled(&mut all, "tokenscope_entities_evicted_total", help, "kind", forgotten);
    let desk = pipeline.desk.counters();
    let desk = [
        ("created", desk.created),
        ("updated", desk.updated),
        ("repeated", desk.repeated),
        ("folded", desk.folded),
        ("evicted", desk.evicted),
    ];
    labelled(
        &mut all,
        "tokenscope_alert_events_total",
        "Life of alerts, by event.",
        "event",
        desk.into_iter(),
    );
    let asked = pipeline.tokens.inquiries();
    let asked = [
        ("asked", asked.asked),
        ("skipped", asked.skipped),
        ("good", asked.good),
        ("bad", asked.bad),
        ("unanswered", asked.unanswered),
    ];
    let help = "Questions whether tokens are revoked, by what became of them.";
    labelled(&mut all, "tokenscope_revocation_inquiries_total", help, "event", asked.into_iter());
    let incidents = pipeline.desk.incident_counters();
    let incidents = [("told", incidents.told), ("merged", incidents.merged), ("evicted", incidents.evicted)];
    let help = "Life of incidents, by event.";
    labelled(&mut all, "tokenscope_incident_events_total", help, "event", incidents.into_iter());
    let help = "Findings that people have marked as false, by rule.";
    labelled(&mut all, "tokenscope_findings_silenced_total", help, "rule", pipeline.desk.silenced());
    let (incidents, risky) = pipeline.desk.sizes();
    all.push(gauge(
        "tokenscope_incidents_open",
        "Incidents not over, most with one alert.",
        incidents as u64,
    ));
    all.push(gauge("tokenscope_entities_at_risk", "Entities whose risk is known.", risky as u64));
    all.push(gauge("tokenscope_flows", "Connections known.", pipeline.flows.len() as u64));
    all.push(gauge(
        "tokenscope_flow_held_bytes",
        "Bytes that wait for order or acceptance.",
        pipeline.flows.held_bytes() as u64,
    ));
    all.push(gauge("tokenscope_alerts_open", "Alerts open or cooling.", pipeline.desk.len() as u64));
    all.push(gauge(
        "tokenscope_exchanges_parked",
        "Exchanges that wait for a verdict.",
        pipeline.parked.len() as u64,
    ));
    all.push(Metric::counter(
        "tokenscope_exchanges_unparked_total",
        "Exchanges whose verdict came too late, or that found no room to wait.",
        pipeline.parked.given_up,
    ));
    let known = pipeline.detect.knowledge();
    let lists = [
        ("denied_accounts", known.denied_accounts.len()),
        ("departed_accounts", known.departed_accounts.len()),
        ("directory", known.directory.as_ref().map_or(0, crate::detect::spelling::Directory::len)),
        ("revoked_ids", known.revoked_ids.len()),
        ("bad_addresses", known.bad_addresses.len()),
    ];
    for (list, entries) in lists {
        let entries = gauge("tokenscope_list_entries", "Entries of lists, by list.", entries as u64);
        all.push(entries.label("list", list));
    }
    all.extend(losses.metrics());
    user_rules(&mut all, pipeline.detect.user_rules());
    all
}

fn user_rules(all: &mut Vec<Metric>, user: &UserRules) {
    all.push(gauge("tokenscope_user_rules", "User rules that are asked.", user.rules.len() as u64));
    all.push(gauge(
        "tokenscope_user_rule_files_bad",
        "Rule files with errors: their last good version is asked, if there is one.",
        user.bad_files,
    ));
    let readings = [("ok", user.reloads), ("refused", user.refusals)];
    let help = "Readings of changed rule files, by result.";
    labelled(all, "tokenscope_user_rule_reloads_total", help, "result", readings.into_iter());
    let mut each = |name, help, figure: fn(&RuleFigures) -> &AtomicU64| {
        let figures = user.rules.iter().map(|r| (r.about.id, figure(&r.figures).load(Ordering::Relaxed)));
        labelled(all, name, help, "rule", figures);
    };
    each("tokenscope_user_rule_findings_total", "Findings, by user rule.", |f| &f.findings);
    each("tokenscope_user_rule_faults_total", "Conditions that could not be computed.", |f| &f.faults);
    each("tokenscope_user_rule_groups_evicted_total", "Groups that had to be forgotten.", |f| &f.evicted);
    for rule in &user.rules {
        let groups = rule.figures.groups.load(Ordering::Relaxed);
        let help = "Groups remembered, by user rule.";
        all.push(gauge("tokenscope_user_rule_groups", help, groups).label("rule", rule.about.id));
    }
}

fn tokens(all: &mut Vec<Metric>, counters: &TokenCounters) {
    let verdicts = [
        ("verified", counters.verified),
        ("invalid", counters.invalid),
        ("absent", counters.absent),
        ("no_issuer", counters.no_issuer),
        ("unreadable", counters.unreadable),
        ("keys_pending", counters.keys_pending),
        ("key_unknown", counters.key_unknown),
        ("over_budget", counters.over_budget),
    ];
    let help = "Judgements of distinct tokens, by verdict.";
    labelled(all, "tokenscope_tokens_total", help, "verdict", verdicts.into_iter());
    let cache = [("hit", counters.hits), ("miss", counters.misses), ("eviction", counters.evictions)];
    labelled(all, "tokenscope_token_cache_total", "Token cache, by event.", "event", cache.into_iter());
    all.push(Metric::counter("tokenscope_token_uses_total", "Uses of tokens.", counters.uses));
    all.push(Metric::counter(
        "tokenscope_token_ambiguous_total",
        "Requests with an ambiguous set of credentials.",
        counters.ambiguous,
    ));
    let help = "Tokens that were seen to be issued; none unless `tokens.learn_issued` is set.";
    all.push(Metric::counter("tokenscope_tokens_issued_total", help, counters.issued));
    all.push(gauge("tokenscope_tokens_cached", "Tokens in the cache.", counters.cached));
    all.push(gauge(
        "tokenscope_token_pending_bytes",
        "Token texts kept until keys come.",
        counters.pending_bytes,
    ));
    all.push(gauge("tokenscope_issuers_ready", "Issuers whose keys are there.", counters.issuers_ready));
    all.push(gauge(
        "tokenscope_issuers_waiting",
        "Issuers whose keys are missing.",
        counters.issuers_waiting,
    ));
}

/// What the way of alerts out of the process counts. Names are a promise: dashboards and alert rules use them.
pub(super) fn delivery(all: &mut Vec<Metric>, delivery: &Delivery, writer: &Writer) {
    let help = "Alerts lost because the disk hung for too long.";
    all.push(Metric::counter("tokenscope_alerts_lost_total", help, writer.lost));
    let help = "Alerts that wait for the spool.";
    all.push(gauge("tokenscope_alerts_waiting", help, writer.waiting() as u64));
    let undurable = writer.undurable.load(Ordering::Relaxed);
    let help = "Events that were told but could not be made to last.";
    all.push(Metric::counter("tokenscope_spool_undurable_total", help, undurable));
    let head = *delivery.spool.head().borrow();
    for (name, figures) in delivery.sinks.figures() {
        sink(all, &name, &figures, head);
    }
}

fn sink(all: &mut Vec<Metric>, name: &str, figures: &Figures, head: u64) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let named = |metric: Metric| metric.label("sink", name.to_owned());
    let events = [
        ("delivered", load(&figures.delivered)),
        ("dead", load(&figures.dead)),
        ("lost", load(&figures.lost)),
        ("filtered", load(&figures.filtered)),
    ];
    let help = "Events by sink and what became of them.";
    all.extend(events.map(|(result, count)| {
        named(Metric::counter("tokenscope_sink_events_total", help, count)).label("result", result)
    }));
    let deliveries =
        [("ok", load(&figures.ok)), ("later", load(&figures.later)), ("timeout", load(&figures.timeout))];
    let help = "Deliveries by sink and what became of them.";
    all.extend(deliveries.map(|(result, count)| {
        named(Metric::counter("tokenscope_sink_deliveries_total", help, count)).label("result", result)
    }));
    let open = u64::from(figures.open.load(Ordering::Relaxed));
    let help = "Whether a sink fails for so long that only one event is tried from time to time.";
    all.push(named(gauge("tokenscope_sink_circuit_open", help, open)));
    let help = "Events between the newest and the newest that a sink has dealt with.";
    all.push(named(gauge("tokenscope_sink_lag_events", help, head.saturating_sub(load(&figures.reached)))));
    let help = "How long deliveries took.";
    all.push(named(Metric::histogram("tokenscope_sink_delivery_seconds", help, figures.times())));
}

/// One series a label value.
pub(super) fn labelled(
    all: &mut Vec<Metric>,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: impl Iterator<Item = (&'static str, u64)>,
) {
    all.extend(values.map(|(value, count)| Metric::counter(name, help, count).label(label, value)));
}

/// What the process and its history weigh.
pub(super) fn weight(all: &mut Vec<Metric>, history: &History) {
    let help = "Bytes of the history as it was saved last, by part: a rule, or what all rules share.";
    for (part, bytes) in history.sizes() {
        all.push(gauge("tokenscope_history_saved_bytes", help, bytes).label("part", part.to_owned()));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = resident(&status) {
        all.push(gauge("process_resident_memory_bytes", "Resident memory size in bytes.", bytes));
    }
}

/// The resident memory that `/proc/PID/status` tells, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A whole number that comes and goes.
pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Metric {
    #[allow(clippy::cast_precision_loss, reason = "figures above 2^53 are not exact, and do not occur")]
    Metric::gauge(name, help, value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("VmPeak:\t  900 kB\nVmRSS:\t   21504 kB\n"), Some(22_020_096));
        assert_eq!(["", "VmRSS:", "VmRSS: many kB"].map(resident), [None; 3]);
        assert!(std::fs::read_to_string("/proc/self/status").is_ok_and(|s| resident(&s) > Some(1 << 20)));
    }
}
