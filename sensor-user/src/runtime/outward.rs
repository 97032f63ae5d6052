//! What the way of alerts out of the process counts: the spool, the sinks.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use super::delivery::Delivery;
use super::writer::Writer;
use crate::deliver::{Figures, clock};
use crate::spool::{Lag, Stats};
use crate::telemetry::{Metric, catalogue as of};

/// The severities, lane by lane.
const LANES: [&str; 4] = ["low", "medium", "high", "critical"];

/// All of it.
pub(super) fn metrics(all: &mut Vec<Metric>, delivery: &Delivery, writer: &Writer) {
    all.push(of::ALERTS_LOST.count(writer.lost));
    all.push(of::ALERTS_WAITING.level(writer.waiting() as u64));
    all.extend(of::ALERTS.counts(LANES.into_iter().zip(writer.tally.0)));
    all.push(of::ALERT_LATENCY.durations(writer.latency.clone()));
    let (stats, now_ms) = (delivery.spool.stats(), clock::now_ms());
    all.push(of::SPOOL_MAX_BYTES.level(delivery.max_bytes));
    spool(all, &stats, now_ms);
    let dead = delivery.letters.counts();
    for (name, figures) in delivery.sinks.figures() {
        let lag = stats.cursors.iter().find(|lag| lag.name == name);
        let letters = dead.iter().find(|(sink, _)| *sink == name).map_or(0, |(_, count)| *count);
        sink(all, &name, &figures);
        behind(all, &name, lag, now_ms);
        all.push(of::DEAD_LETTERS.level(letters).with(&[name.into()]));
    }
}

fn age_s(now_ms: u64, then_ms: Option<u64>) -> u64 {
    then_ms.map_or(0, |then| now_ms.saturating_sub(then) / 1000)
}

fn spool(all: &mut Vec<Metric>, stats: &Stats, now_ms: u64) {
    all.push(of::SPOOL_BYTES.level(stats.bytes));
    all.push(of::SPOOL_EVENTS.level(stats.events.iter().sum()));
    let oldest = stats.oldest_ms.into_iter().flatten().min();
    all.push(of::SPOOL_OLDEST.level(age_s(now_ms, oldest)));
    all.push(of::SPOOL_APPENDED.count(stats.appended.iter().sum()));
    let given_up = stats.evicted.into_iter().zip(stats.expired).map(|(evicted, expired)| evicted + expired);
    all.extend(of::SPOOL_EVICTED.counts(LANES.into_iter().zip(given_up)));
    all.push(of::SPOOL_CORRUPT.count(stats.corrupt + stats.torn + stats.refused));
    all.push(of::SPOOL_UNDURABLE.count(stats.not_durable));
    all.push(of::SPOOL_SYNC.durations(stats.sync.clone()));
}

fn behind(all: &mut Vec<Metric>, name: &str, lag: Option<&Lag>, now_ms: u64) {
    let sink = || Cow::from(name.to_owned());
    let (events, oldest) = lag.map_or((0, None), |lag| (lag.events, lag.oldest_ms));
    all.push(of::SINK_LAG_EVENTS.level(events).with(&[sink()]));
    all.push(of::SINK_LAG_SECONDS.level(age_s(now_ms, oldest)).with(&[sink()]));
}

fn sink(all: &mut Vec<Metric>, name: &str, figures: &Figures) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let sink = || Cow::from(name.to_owned());
    let events = [
        ("delivered", load(&figures.delivered)),
        ("dead", load(&figures.dead)),
        ("lost", load(&figures.lost)),
        ("filtered", load(&figures.filtered)),
    ];
    all.extend(events.map(|(result, count)| of::SINK_EVENTS.count(count).with(&[sink(), result.into()])));
    let deliveries =
        [("ok", load(&figures.ok)), ("later", load(&figures.later)), ("timeout", load(&figures.timeout))];
    all.extend(deliveries.map(|(result, n)| of::SINK_DELIVERIES.count(n).with(&[sink(), result.into()])));
    all.push(of::SINK_CIRCUIT.level(figures.open.load(Ordering::Relaxed).into()).with(&[sink()]));
    all.push(of::SINK_SECONDS.durations(figures.times()).with(&[sink()]));
}

/// The figures of an empty spool and a sink that has done nothing.
#[cfg(test)]
pub(super) fn staged(all: &mut Vec<Metric>) {
    let lag = Lag { name: "siem".into(), events: 1, oldest_ms: Some(1) };
    spool(all, &Stats::default(), 2);
    sink(all, "siem", &Figures::default());
    behind(all, "siem", Some(&lag), 2);
}
