//! Scans, floods, crumbs and slow-loris against the running sensor: memory stays bounded, counters say what was, and
//! whoever comes on business is seen beside them. Rates are what the machine gives and are not asserted.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::clock::Deadline;
use tests::netns::Host;
use tests::pressure::bed::{Bed, Way, more};
use tests::pressure::crowd::Crowd;
use tests::pressure::flood::Flood;
use tests::pressure::gauge::{Page, Reading, storage_objects};
use tests::pressure::loris::{Loris, half_head};
use tests::pressure::scan::Scan;
use tests::pressure::segments::Crumbs;
use tests::sensor::{Config, Sensor};
use tests::{print, skip};

/// How long a load lasts.
const LOAD: Duration = Duration::from_millis(1500);

/// What the sensor may grow by under a load of a few seconds, MiB. Its flows, tokens and caches fill up from nothing.
const GROWTH: f64 = 24.0;

/// Slow connections where all have room.
const SLOW: u16 = 20_000;

/// Slow connections where few have.
const FEWER: u16 = 6_000;

/// How long what is over may take to be forgotten.
const PATIENCE: Duration = Duration::from_secs(20);

/// A ring that holds all records of most of these loads, should the sensor not get a core meanwhile.
const RING: u64 = 64 << 20;

/// Loads would only slow each other down.
static ALONE: Mutex<()> = Mutex::new(());

fn alone(test: &str) -> Option<MutexGuard<'static, ()>> {
    if let Some(why) = Bed::missing() {
        skip(&format!("pressure::{test}"), &why);
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn roomy(mut config: Config) -> Config {
    config.set("/capture/ring_bytes", json!(RING));
    config
}

fn kernel(before: &Reading, after: &Reading, event: &str) -> f64 {
    more(before, &after.page, "tokenscope_kernel_events_total", &format!("\"{event}\""))
}

/// Whether the kernel has let go of what it kept a socket, but for what other tests' sockets take meanwhile.
fn storage_is_let_go(before: f64, sockets: u64) -> Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
    let (deadline, most) = (Deadline::after(PATIENCE), before + sockets as f64 / 2.0 + 5_000.0);
    loop {
        let now = storage_objects()?;
        if now <= most {
            return Ok(());
        }
        ensure!(!deadline.is_over(), "{now} objects, {before} before {sockets} connections");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn scanned(says: &'static [u8]) -> Result<()> {
    let bed = Bed::make(Way::Loopback)?;
    let sensor = Sensor::start(&roomy(bed.config()?))?;
    let (before, objects) = (Reading::of(&sensor)?, storage_objects()?);
    let scan = Scan { to: bed.hall.address, says, threads: 2 };
    let visitor = bed.visitor(false, Duration::from_millis(2));
    let (sent, made) = bed.network.on(Host::Server, || visitor.beside(|| scan.run(LOAD)))?;
    let (balance, after) = bed.balance(&sensor, &before, sent)?;
    print(&format!("{} connections/s, {balance:?}", made.per_second()));
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
    let (sent, made_f) = (sent as f64, made.count as f64);
    ensure!((balance.seen - sent).abs() < 0.5 && balance.lost.is_empty(), "{balance:?}");
    ensure!(kernel(&before, &after, "server_sockets") >= made_f, "connections are not counted");
    let records = kernel(&before, &after, "records");
    if says != b"G" {
        // A request is its opening, itself, its answer, and perhaps an acknowledgement.
        ensure!(records <= 4.0 * sent + 16.0, "{records} records of {sent} requests");
    }
    ensure!(after.resident < before.resident + GROWTH, "{} MiB, {} before", after.resident, before.resident);
    let flows = |page: &Page| page.value("tokenscope_flows", "") < 8.0;
    let rest = Reading::once(&sensor, PATIENCE, flows)?;
    ensure!(flows(&rest.page), "{} flows are left", rest.page.value("tokenscope_flows", ""));
    storage_is_let_go(objects, made.count)?;
    bed.alarm(&sensor, "mallory")?;
    sensor.stopped()
}

#[test]
fn a_scan_that_says_nothing_costs_the_ring_nothing() -> Result<()> {
    let Some(_alone) = alone("a_scan_that_says_nothing_costs_the_ring_nothing") else { return Ok(()) };
    scanned(b"")
}

#[test]
fn a_scan_that_says_one_byte_of_something_else_costs_the_ring_nothing() -> Result<()> {
    let Some(_alone) = alone("a_scan_that_says_one_byte_of_something_else_costs_the_ring_nothing") else {
        return Ok(());
    };
    scanned(b"\0")
}

#[test]
fn a_scan_that_says_the_first_byte_of_a_request_is_no_request() -> Result<()> {
    let Some(_alone) = alone("a_scan_that_says_the_first_byte_of_a_request_is_no_request") else {
        return Ok(());
    };
    scanned(b"G")
}

fn flooded(cookies: &str, carries: &'static [u8], afresh: bool) -> Result<()> {
    let bed = Bed::make(Way::Wire)?;
    bed.network.sysctl(Host::Server, "net.ipv4.tcp_syncookies", cookies)?;
    let sensor = Sensor::start(&roomy(bed.config()?))?;
    let before = Reading::of(&sensor)?;
    let SocketAddr::V4(to) = bed.hall.address else { anyhow::bail!("an address of IPv4") };
    let flood = Flood { to, carries, threads: 1 };
    let visitor = bed.visitor(afresh, Duration::from_millis(2));
    let (sent, made) = bed.network.on(Host::Client, || visitor.beside(|| flood.run(LOAD)))?;
    let (balance, after) = bed.balance(&sensor, &before, sent)?;
    print(&format!("{} SYN/s, {balance:?}", made.per_second()));
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
    let sent = sent as f64;
    ensure!((balance.seen - sent).abs() < 0.5, "{balance:?}");
    if carries.is_empty() {
        ensure!(balance.lost.is_empty(), "{balance:?}");
        let records = kernel(&before, &after, "records");
        ensure!(records <= 6.0 * sent + 16.0, "{records} records of {sent} requests");
    }
    ensure!(after.resident < before.resident + GROWTH, "{} MiB, {} before", after.resident, before.resident);
    ensure!(after.page.value("tokenscope_flows", "") < 64.0, "half-open connections are flows");
    if !afresh {
        // Without cookies, a queue full of strangers leaves no room for a connection.
        return sensor.stopped();
    }
    bed.alarm(&sensor, "mallory")?;
    sensor.stopped()
}

#[test]
fn a_flood_of_syns_hides_nobody() -> Result<()> {
    let Some(_alone) = alone("a_flood_of_syns_hides_nobody") else { return Ok(()) };
    flooded("1", b"", true)
}

#[test]
fn a_flood_of_syns_that_fills_the_queue_hides_nobody() -> Result<()> {
    let Some(_alone) = alone("a_flood_of_syns_that_fills_the_queue_hides_nobody") else { return Ok(()) };
    flooded("0", b"", false)
}

#[test]
fn requests_inside_syns_of_strangers_hide_nobody() -> Result<()> {
    let Some(_alone) = alone("requests_inside_syns_of_strangers_hide_nobody") else { return Ok(()) };
    flooded("1", b"GET /orders/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n", true)
}

#[test]
fn requests_in_crumbs_are_each_seen() -> Result<()> {
    let Some(_alone) = alone("requests_in_crumbs_are_each_seen") else { return Ok(()) };
    let bed = Bed::make(Way::Loopback)?;
    let sensor = Sensor::start(&roomy(bed.config()?))?;
    let before = Reading::of(&sensor)?;
    let crumbs = Crumbs { to: bed.hall.address, threads: 2, connections: 32, tokens: &bed.tokens };
    let sent = bed.network.on(Host::Server, || crumbs.run(LOAD))?;
    let (balance, after) = bed.balance(&sensor, &before, sent.requests)?;
    print(&format!("{} segments/s, {balance:?}", sent.segments.per_second()));
    ensure!(balance.is_even(), "{balance:?}");
    ensure!(after.resident < before.resident + GROWTH, "{} MiB, {} before", after.resident, before.resident);
    if balance.lost.is_empty() {
        let tokens = after.page.value("tokenscope_tokens_total", "");
        let valid = after.page.value("tokenscope_tokens_total", "\"verified\"");
        #[expect(clippy::cast_precision_loss, reason = "a few tokens")]
        let all = bed.tokens.len() as f64;
        ensure!(
            (tokens - all).abs() < 0.5 && (valid - all).abs() < 0.5,
            "{valid} of {tokens} tokens are verified"
        );
    }
    bed.alarm(&sensor, "mallory")?;
    sensor.stopped()
}

/// Slow connections beside somebody on business, and what must hold while they are open.
fn slow(count: u16, flows: u64, held: u64, holds: impl Fn(&Reading, &Reading) -> Result<()>) -> Result<()> {
    let lab = Path::new(env!("CARGO_BIN_EXE_lab"));
    let bed = Bed::make(Way::Loopback)?;
    let mut crowd = bed.network.on(Host::Server, || Crowd::assemble(lab, count.into()))?;
    let mut config = roomy(bed.config_with(crowd.ports())?);
    config.set("/flows/max_flows", json!(flows));
    config.set("/flows/max_buffered_bytes", json!(held));
    let sensor = Sensor::start(&config)?;
    let (before, objects) = (Reading::of(&sensor)?, storage_objects()?);
    bed.network.on(Host::Server, || crowd.open(lab, &bed.tokens))?;
    crowd.trickle(10)?;
    let alarm = bed.alarm(&sensor, "mallory")?;
    ensure!(alarm.took < PATIENCE, "an alert took {:?}", alarm.took);
    let during = Reading::settled(&sensor, PATIENCE)?;
    holds(&before, &during)?;
    // They end their heads at last: each is seen now, or was when it had to make room.
    let ended = crowd.end_heads()?;
    ensure!(ended == u64::from(count), "{ended} connections are left");
    let (balance, _) = bed.balance(&sensor, &before, ended + alarm.requests)?;
    print(&format!("{balance:?}"));
    ensure!(balance.is_even(), "{balance:?}");
    crowd.disperse();
    let few = |page: &Page| page.value("tokenscope_flows", "") < 8.0;
    let rest = Reading::once(&sensor, PATIENCE, few)?;
    ensure!(few(&rest.page), "{} flows are left", rest.page.value("tokenscope_flows", ""));
    ensure!(rest.page.value("tokenscope_flow_held_bytes", "") < 65_536.0, "bytes are held of nobody");
    storage_is_let_go(objects, ended)?;
    bed.alarm(&sensor, "trudy")?;
    sensor.stopped()
}

#[test]
fn slow_connections_below_the_bounds_are_all_seen_in_the_end() -> Result<()> {
    let Some(_alone) = alone("slow_connections_below_the_bounds_are_all_seen_in_the_end") else {
        return Ok(());
    };
    slow(SLOW, 1 << 20, 256 << 20, |before, during| {
        let flows = during.page.value("tokenscope_flows", "");
        ensure!((f64::from(SLOW)..f64::from(SLOW) + 8.0).contains(&flows), "{flows} flows");
        let each = (during.resident - before.resident) * f64::from(1 << 20) / f64::from(SLOW);
        ensure!(each < 4096.0, "{each} bytes a connection");
        Ok(())
    })
}

#[test]
fn slow_connections_beyond_the_most_flows_make_room_and_are_counted() -> Result<()> {
    let Some(_alone) = alone("slow_connections_beyond_the_most_flows_make_room_and_are_counted") else {
        return Ok(());
    };
    slow(FEWER, 1_024, 256 << 20, |before, during| {
        let flows = during.page.value("tokenscope_flows", "");
        ensure!(flows <= 1_024.0, "{flows} flows");
        let evicted = more(before, &during.page, "tokenscope_flow_events_total", "\"evicted_flows\"");
        ensure!(evicted >= f64::from(FEWER) - 1_024.0, "{evicted} evicted");
        ensure!(during.resident < before.resident + GROWTH, "{} MiB", during.resident - before.resident);
        Ok(())
    })
}

#[test]
fn slow_connections_beyond_the_bytes_make_room_and_are_counted() -> Result<()> {
    let Some(_alone) = alone("slow_connections_beyond_the_bytes_make_room_and_are_counted") else {
        return Ok(());
    };
    slow(FEWER, 1 << 20, 1 << 20, |before, during| {
        let held = during.page.value("tokenscope_flow_held_bytes", "");
        ensure!(held <= f64::from(1 << 20), "{held} bytes are held");
        let evicted = more(before, &during.page, "tokenscope_flow_events_total", "\"evicted_bytes\"");
        ensure!(evicted >= f64::from(FEWER) / 2.0, "{evicted} evicted");
        ensure!(during.resident < before.resident + GROWTH, "{} MiB", during.resident - before.resident);
        Ok(())
    })
}

/// Time passes also for a sensor that is never without work.
#[test]
fn idle_connections_are_forgotten_while_others_talk() -> Result<()> {
    let Some(_alone) = alone("idle_connections_are_forgotten_while_others_talk") else { return Ok(()) };
    let bed = Bed::make(Way::Loopback)?;
    let mut config = roomy(bed.config()?);
    config.set("/flows/idle_timeout_s", json!(1));
    let sensor = Sensor::start(&config)?;
    let before = Reading::of(&sensor)?;
    let head = |one: usize| half_head(&bed.tokens[one % bed.tokens.len()]);
    let silent = bed.network.on(Host::Server, || Loris::open(bed.hall.address, 100, 1, head))?;
    let crumbs = Crumbs { to: bed.hall.address, threads: 2, connections: 64, tokens: &bed.tokens };
    let metrics = sensor.metrics;
    // Looked at while the others still talk: silence would let time pass.
    let seen = std::thread::scope(|scope| {
        let talk = scope.spawn(|| bed.network.on(Host::Server, || crumbs.run(Duration::from_secs(5))));
        let mut seen = false;
        while !talk.is_finished() {
            let page = Page::of(metrics)?;
            seen |= more(&before, &page, "tokenscope_flow_events_total", "\"expired\"") >= 100.0
                && !talk.is_finished();
            std::thread::sleep(Duration::from_millis(200));
        }
        talk.join().map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
        anyhow::Ok(seen)
    })?;
    drop(silent);
    ensure!(seen, "nothing expired while the sensor was busy");
    sensor.stopped()
}
