//! How fast alerts reach a file: 100,000 events of 3 KiB are appended to the spool while delivery takes them to a file
//! sink, once for each way to sync. Prints events a second, and seconds of processor time for appending and delivering.
//!
//! `cargo run --release -p sensor-user --example delivery_rate [DIRECTORY] [EVENTS AT ONCE]`; with `taskset -c 0` on one
//! core.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement that somebody reads")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use sensor_user::config::{self, Environment, Secrets};
use sensor_user::deliver::letters::Nowhere;
use sensor_user::deliver::{Clock, Deliveries};
use sensor_user::detect::{Severity, rules};
use sensor_user::render::{Kind, Node};
use sensor_user::spool::{Draft, Settings, Spool, Sync};

const EVENTS: u64 = 100_000;
const SIZE: usize = 3 << 10;

/// Seconds of processor time of this process so far.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second word may hold blanks; behind it user and system time are the 12th and 13th, in hundredths.
    let behind = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = behind.split(' ').skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// An event as long as usual ones, with the members that a file sink reads.
fn event(number: u64, severity: Severity, pad: &str) -> String {
    let severity = severity.id();
    format!(
        r#"{{"activity_id":1,"severity_id":{severity},"class_uid":2004,"metadata":{{"uid":"e-{number}","sequence":{number},"reporter":{{"name":"rate"}}}},"finding_info":{{"uid":"e-{number}","analytic":{{"uid":"r"}}}},"unmapped":{{"pad":"{pad}"}}}}"#
    )
}

fn append(spool: &Spool, together: usize) -> Result<()> {
    let pad = "x".repeat(SIZE - 200);
    let mut left = EVENTS;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(together).min(together);
        let severities = [Severity::Low, Severity::Low, Severity::Medium, Severity::High];
        let severities: Vec<Severity> = severities.into_iter().cycle().take(count).collect();
        let pad = &pad;
        let mut writers: Vec<_> =
            severities.iter().map(|severity| move |number: u64| event(number, *severity, pad)).collect();
        let drafts = severities.iter().zip(&mut writers);
        let mut drafts: Vec<Draft<'_>> = drafts
            .map(|(severity, json)| Draft { time_ms: 1, severity: *severity, kind: Kind::Alert, json })
            .collect();
        spool.append(&mut drafts)?;
        left -= count as u64;
    }
    Ok(())
}

/// Delivery to a file in this directory.
fn to_a_file(spool: &Spool, dir: &Path) -> Result<Deliveries> {
    let yaml = format!(
        "sinks:\n  - {{type: file, path: {}/out.jsonl, min_severity: low, max_bytes: 1073741824}}\n",
        dir.display()
    );
    let loaded =
        config::parse("rate", &yaml, dir, &Environment::default(), rules::catalogue(), Secrets::Needed);
    let loaded = loaded.map_err(|report| anyhow!("{}", report.render(false)))?;
    let clock = Clock::of_host(jiff::tz::TimeZone::UTC);
    let deliveries = Deliveries::new(spool.clone(), Arc::new(Nowhere), clock, Node::named("rate"));
    let served = deliveries.serve(&loaded.config.sinks, Duration::from_secs(1));
    served.map_err(|errors| anyhow!("{errors:?}"))?;
    Ok(deliveries)
}

fn measure(dir: &Path, sync: Sync, together: usize) -> Result<()> {
    let settings = Settings { max_bytes: 1 << 30, max_age: Duration::from_hours(1), sync };
    let spool = Spool::open(&dir.join("spool"), settings, 1)?;
    let deliveries = to_a_file(&spool, dir)?;
    let figures = deliveries.figures().pop().context("no sink")?.1;
    let (began, before) = (Instant::now(), processor_time());
    append(&spool, together)?;
    let appended = began.elapsed();
    while figures.delivered.load(Ordering::Relaxed) < EVENTS {
        ensure!(began.elapsed() < Duration::from_mins(5), "not delivered: {:?}", figures.newest_trouble());
        std::thread::sleep(Duration::from_millis(1));
    }
    let (all, processor) = (began.elapsed(), processor_time() - before);
    deliveries.stop(Duration::from_secs(5));
    spool.close()?;
    let lines = std::fs::read_to_string(dir.join("out.jsonl"))?.lines().count();
    ensure!(lines as u64 == EVENTS, "{lines} lines in the file");
    #[allow(clippy::cast_precision_loss, reason = "a hundred thousand")]
    let rate = |time: Duration| EVENTS as f64 / time.as_secs_f64();
    println!(
        "{sync:?}, {together} at once: appended {:.0}/s, in the file {:.0}/s, {processor:.2} s of processor time",
        rate(appended),
        rate(all)
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("delivery-rate");
    let together = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(256);
    for sync in [Sync::Always, Sync::Second, Sync::Never] {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        measure(&dir, sync, together)?;
    }
    Ok(std::fs::remove_dir_all(&dir)?)
}
