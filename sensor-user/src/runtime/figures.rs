//! What the stages count, as metrics and as totals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::history::History;
use crate::alert::Desk;
use crate::capture::ebpf::EbpfSource;
use crate::capture::{Input, LossKind};
use crate::detect::user::UserRules;
use crate::detect::user::model::Figures as RuleFigures;
use crate::pipeline::Pipeline;
use crate::telemetry::{Metric, Totals, catalogue as of};
use crate::token::keys::KeyRing;
use crate::token::settings::Issuer;

/// A high-water mark among the counters of the reader.
const RING_FOUND: &str = "ring_found_bytes";

/// Losses by reason, as sources report them. The reasons are those of the sources: a fixed few.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses(Vec<(&'static str, u64)>);

impl Losses {
    /// Counts it if it is a loss, and was not left out on purpose.
    pub(super) fn note(&mut self, input: &Input<'_>) {
        if let Input::Loss(loss) = input
            && loss.kind != LossKind::Shed
        {
            self.add(loss.reason, loss.records);
        }
    }

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

    fn metrics(&self) -> impl Iterator<Item = Metric> {
        of::LOST_RECORDS.counts(self.0.iter().copied())
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
    let mut all = Vec::with_capacity(256);
    all.extend(of::FLOW_EVENTS.counts(pipeline.flows.counters().iter()));
    all.extend(of::HTTP_EVENTS.counts(pipeline.exchanges.counters().iter()));
    all.push(of::EXCHANGES.count(pipeline.exchanges.counters().requests));
    all.push(of::FLOWS.level(pipeline.flows.len() as u64));
    all.push(of::FLOW_HELD_BYTES.level(pipeline.flows.held_bytes() as u64));
    tokens(&mut all, pipeline);
    detection(&mut all, pipeline);
    desk(&mut all, &pipeline.desk);
    all.extend(losses.metrics());
    all.push(of::JUDGED_SHARE.number(pipeline.gate.share()));
    user_rules(&mut all, pipeline.detect.user_rules());
    all
}

fn detection(all: &mut Vec<Metric>, pipeline: &Pipeline) {
    all.extend(of::FINDINGS.counts(pipeline.detect.findings()));
    all.extend(of::SILENCED.counts(pipeline.desk.silenced()));
    let sizes = pipeline.detect.sizes();
    all.extend(sizes.into_iter().map(|(kind, known, _)| of::KNOWN.level(known as u64).with(&[kind.into()])));
    all.extend(of::EVICTED.counts(sizes.into_iter().map(|(kind, _, evicted)| (kind, evicted))));
    let known = pipeline.detect.knowledge();
    let lists = [
        ("denied_accounts", known.denied_accounts.len()),
        ("departed_accounts", known.departed_accounts.len()),
        ("directory", known.directory.as_ref().map_or(0, crate::detect::spelling::Directory::len)),
        ("revoked_ids", known.revoked_ids.len()),
        ("bad_addresses", known.bad_addresses.len()),
    ];
    all.extend(lists.map(|(list, entries)| of::LIST_ENTRIES.level(entries as u64).with(&[list.into()])));
}

fn desk(all: &mut Vec<Metric>, desk: &Desk) {
    let life = desk.counters();
    let life = [
        ("created", life.created),
        ("updated", life.updated),
        ("repeated", life.repeated),
        ("folded", life.folded),
        ("evicted", life.evicted),
    ];
    all.extend(of::ALERT_EVENTS.counts(life.into_iter()));
    let incidents = desk.incident_counters();
    let incidents = [("told", incidents.told), ("merged", incidents.merged), ("evicted", incidents.evicted)];
    all.extend(of::INCIDENT_EVENTS.counts(incidents.into_iter()));
    let (incidents, risky) = desk.sizes();
    all.push(of::INCIDENTS_OPEN.level(incidents as u64));
    all.push(of::AT_RISK.level(risky as u64));
    all.push(of::ALERTS_OPEN.level(desk.len() as u64));
}

fn user_rules(all: &mut Vec<Metric>, user: &UserRules) {
    all.push(of::USER_RULES.level(user.rules.len() as u64));
    all.push(of::USER_RULE_FILES_BAD.level(user.bad_files));
    let readings = [("ok", user.reloads), ("refused", user.refusals)];
    all.extend(of::USER_RULE_RELOADS.counts(readings.into_iter()));
    let each = |figure: fn(&RuleFigures) -> &AtomicU64| {
        user.rules.iter().map(move |r| (r.about.id, figure(&r.figures).load(Ordering::Relaxed)))
    };
    all.extend(of::USER_RULE_FINDINGS.counts(each(|f| &f.findings)));
    all.extend(of::USER_RULE_FAULTS.counts(each(|f| &f.faults)));
    all.extend(of::USER_RULE_EVICTED.counts(each(|f| &f.evicted)));
    let groups =
        each(|f| &f.groups).map(|(rule, groups)| of::USER_RULE_GROUPS.level(groups).with(&[rule.into()]));
    all.extend(groups);
}

fn tokens(all: &mut Vec<Metric>, pipeline: &Pipeline) {
    let counters = pipeline.tokens.counters();
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
    all.extend(of::TOKENS.counts(verdicts.into_iter()));
    let cache = [("hit", counters.hits), ("miss", counters.misses), ("eviction", counters.evictions)];
    all.extend(of::TOKEN_CACHE.counts(cache.into_iter()));
    all.push(of::TOKEN_USES.count(counters.uses));
    all.push(of::TOKEN_AMBIGUOUS.count(counters.ambiguous));
    all.push(of::TOKENS_ISSUED.count(counters.issued));
    all.push(of::TOKENS_CACHED.level(counters.cached));
    all.push(of::TOKEN_PENDING_BYTES.level(counters.pending_bytes));
    all.push(of::ISSUERS_READY.level(counters.issuers_ready));
    all.push(of::ISSUERS_WAITING.level(counters.issuers_waiting));
    all.push(of::VERIFYING.level(pipeline.tokens.in_flight() as u64));
    all.push(of::PARKED.level(pipeline.parked.len() as u64));
    all.push(of::UNPARKED.count(pipeline.parked.given_up));
    let asked = pipeline.tokens.inquiries();
    let asked = [
        ("asked", asked.asked),
        ("skipped", asked.skipped),
        ("good", asked.good),
        ("bad", asked.bad),
        ("unanswered", asked.unanswered),
    ];
    all.extend(of::INQUIRIES.counts(asked.into_iter()));
}

/// Issuers are as many as the configuration names; the page bounds how many are shown.
pub(super) fn issuers(all: &mut Vec<Metric>, names: &[Issuer], ring: &KeyRing) {
    for (issuer, keys) in names.iter().zip(ring.issuers()) {
        let name = [issuer.issuer.clone().into()];
        all.push(of::ISSUER_KEYS.level(keys.keys.len() as u64).with(&name));
        all.push(of::ISSUER_LOOKS.count(keys.looks.into()).with(&name));
    }
}

/// What the kernel half has counted, and what its ring and programs come to.
pub(super) fn kernel(all: &mut Vec<Metric>, source: &EbpfSource, pipeline: &Pipeline, ring_bytes: u32) {
    let events = source.gauges().snapshot();
    let event = |name: &str| events.iter().find(|(event, _)| *event == name).map_or(0, |(_, count)| *count);
    let directions = |of: &'static of::Card, unit: [&str; 2]| {
        of.counts([("request", event(unit[0])), ("response", event(unit[1]))].into_iter())
    };
    all.extend(directions(&of::SEGMENTS, ["request_segments", "response_segments"]));
    all.extend(directions(&of::BYTES, ["request_bytes", "response_bytes"]));
    all.push(of::CAPTURED_BYTES.count(event("captured_bytes")));
    let shed = [
        ("responses", event("shed_response")),
        ("bodies", event("shed_body")),
        ("known_good", pipeline.gate.shed()),
    ];
    all.extend(of::SHED.counts(shed.into_iter()));
    all.push(of::RING_BYTES.level(ring_bytes.into()));
    all.push(of::RING_FOUND_BYTES.level(event(RING_FOUND)));
    let counters = events.iter().copied().filter(|(event, _)| *event != RING_FOUND);
    all.extend(of::KERNEL_EVENTS.counts(counters));
    for cost in source.costs() {
        let program = [cost.name.into()];
        all.push(of::PROGRAM_RUNS.count(cost.runs).with(&program));
        all.push(of::PROGRAM_SECONDS.spent(cost.time).with(&program));
    }
}

/// What the process is, and what its history weighs.
pub(super) fn weight(all: &mut Vec<Metric>, history: &History) {
    all.push(of::STANDBY.level(0));
    all.push(of::BUILD_INFO.level(1).with(&[env!("CARGO_PKG_VERSION").into()]));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    all.push(of::CLOCK_SECONDS.number(now.as_secs_f64()));
    let sizes =
        history.sizes().map(|(part, bytes)| of::HISTORY_BYTES.level(bytes).with(&[part.to_owned().into()]));
    all.extend(sizes);
}

/// How reading the configuration went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reloads {
    good: bool,
    /// When one was taken last.
    taken: SystemTime,
}

impl Reloads {
    /// The first one was taken just now.
    pub(super) fn begin() -> Self {
        Self { good: true, taken: SystemTime::now() }
    }

    /// One more was read.
    pub(super) fn note(&mut self, good: bool) {
        self.good = good;
        if good {
            self.taken = SystemTime::now();
        }
    }

    /// Both figures.
    pub(super) fn show(self, all: &mut Vec<Metric>) {
        let taken = self.taken.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        all.push(of::CONFIG_RELOAD_OK.level(self.good.into()));
        all.push(of::CONFIG_RELOAD_TIME.number(taken.as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::pipeline::Settings;
    use crate::telemetry::metrics::render;
    use crate::token::InStep;

    /// Everything of the page that needs neither a kernel nor a spool.
    fn page() -> Vec<Metric> {
        let settings = Settings::default();
        let verifier = Box::new(InStep::new(&settings.tokens));
        let pipeline = Pipeline::new(settings, verifier).unwrap();
        let mut losses = Losses::default();
        losses.add("ring_full_request", 2);
        let mut all = metrics(&pipeline, &losses);
        weight(&mut all, &History::open(None, Duration::from_secs(1)).unwrap());
        Reloads::begin().show(&mut all);
        crate::runtime::outward::staged(&mut all);
        all
    }

    #[test]
    fn every_metric_has_a_card_and_its_labels() {
        for metric in page() {
            let card = of::find(metric.name).unwrap_or_else(|| panic!("{} is in no catalogue", metric.name));
            let labels: Vec<_> = metric.labels.iter().map(|(name, _)| *name).collect();
            assert_eq!((metric.sample.kind(), labels), (card.kind, card.labels.to_vec()), "{}", card.name);
        }
    }

    #[test]
    fn a_page_shows_what_it_should() {
        let page = page();
        let names: BTreeSet<&str> = page.iter().map(|metric| metric.name).collect();
        for card in
            [&of::EXCHANGES, &of::TOKENS, &of::FINDINGS, &of::LOST_RECORDS, &of::SINK_EVENTS, &of::BUILD_INFO]
        {
            assert!(names.contains(card.name), "{}", card.name);
        }
        let text = render(&page);
        assert!(text.contains("tokenscope_config_last_reload_successful 1\n"), "{text}");
        assert!(text.contains("tokenscope_sink_lag_events{sink=\"siem\"} 1\n"), "{text}");
    }

    #[test]
    fn a_refused_configuration_keeps_the_time_of_the_last_good_one() {
        let mut reloads = Reloads::begin();
        let before = reloads.taken;
        reloads.note(false);
        assert_eq!((reloads.good, reloads.taken), (false, before));
        reloads.note(true);
        assert!(reloads.good && reloads.taken >= before);
    }
}
