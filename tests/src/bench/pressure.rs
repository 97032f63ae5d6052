//! The figures under pressure: what rate the machine makes without the sensor and beside it, what the sensor sees of those
//! on business meanwhile, and what it takes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::live::Switch;
use super::process::kernel_programs;
use super::{Figure, Options};
use crate::clock;
use crate::netns::Host;
use crate::pressure::Rate;
use crate::pressure::bed::{Balance, Bed, Way, more};
use crate::pressure::crowd::Crowd;
use crate::pressure::flood::Flood;
use crate::pressure::gauge::{Most, Page, Reading, Watch};
use crate::pressure::scan::Scan;
use crate::pressure::segments::Crumbs;
use crate::sensor::Sensor;

/// What lies between two requests of somebody on business.
const PAUSE: Duration = Duration::from_millis(1);

/// Threads that press.
const THREADS: usize = 2;

/// How long what slow connections have left may take to be read.
const PATIENCE: Duration = Duration::from_mins(1);

/// A load: what is made of what, beside which requests are sent.
struct Load {
    name: &'static str,
    unit: &'static str,
    way: Way,
    /// `net.ipv4.tcp_syncookies` of the server's host.
    cookies: &'static str,
    press: fn(&Bed, Duration) -> Result<Pressed>,
}

/// What a load was.
#[derive(Clone, Copy, Debug, Default)]
struct Pressed {
    made: Rate,
    requests: u64,
}

const LOADS: [Load; 7] = [
    Load {
        name: "connections without a byte",
        unit: "connections/s",
        way: Way::Loopback,
        cookies: "1",
        press: |bed, time| scan(bed, time, b""),
    },
    Load {
        name: "connections with one byte of a request",
        unit: "connections/s",
        way: Way::Loopback,
        cookies: "1",
        press: |bed, time| scan(bed, time, b"G"),
    },
    Load {
        name: "SYN, SYN cookies",
        unit: "packets/s",
        way: Way::Wire,
        cookies: "1",
        press: |bed, time| flood(bed, time, None, b"", true),
    },
    Load {
        name: "SYN, no cookies, the queue full",
        unit: "packets/s",
        way: Way::Wire,
        cookies: "0",
        press: |bed, time| flood(bed, time, None, b"", false),
    },
    Load {
        name: "SYN to a closed port",
        unit: "packets/s",
        way: Way::Wire,
        cookies: "1",
        press: |bed, time| flood(bed, time, Some(9), b"", true),
    },
    Load {
        name: "SYN with a request inside",
        unit: "packets/s",
        way: Way::Wire,
        cookies: "1",
        press: |bed, time| flood(bed, time, None, b"GET /orders/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n", true),
    },
    Load {
        name: "segments of 1 to 8 bytes",
        unit: "segments/s",
        way: Way::Loopback,
        cookies: "1",
        press: crumbs,
    },
];

fn scan(bed: &Bed, time: Duration, says: &'static [u8]) -> Result<Pressed> {
    let scan = Scan { to: bed.hall.address, says, threads: THREADS };
    let (requests, made) = bed.visitor(false, PAUSE).beside(|| scan.run(time))?;
    Ok(Pressed { made, requests })
}

fn flood(
    bed: &Bed,
    time: Duration,
    port: Option<u16>,
    carries: &'static [u8],
    afresh: bool,
) -> Result<Pressed> {
    let SocketAddr::V4(mut to) = bed.hall.address else { bail!("the server listens on IPv4") };
    to.set_port(port.unwrap_or(to.port()));
    let flood = Flood { to, carries, threads: THREADS };
    let (requests, made) = bed.visitor(afresh, PAUSE).beside(|| flood.run(time))?;
    Ok(Pressed { made, requests })
}

fn crumbs(bed: &Bed, time: Duration) -> Result<Pressed> {
    let crumbs = Crumbs { to: bed.hall.address, threads: THREADS, connections: 64, tokens: &bed.tokens };
    let sent = crumbs.run(time)?;
    Ok(Pressed { made: sent.segments, requests: sent.requests })
}

/// Measures all loads, each without the sensor and then beside it, and `count` slow connections below and above the
/// bounds.
pub(super) fn measure(options: &Options, count: usize) -> Result<Vec<Figure>> {
    let time = Duration::from_secs(options.seconds);
    let mut figures = Vec::new();
    for load in &LOADS {
        figures.extend(load.measure(time).with_context(|| load.name)?);
    }
    // The default bounds; bytes enough for all; and a table that is too small.
    let lab = std::env::current_exe()?;
    let most = u64::try_from(count)?;
    for (name, flows, bytes) in [
        ("slow-loris, default bounds", 1 << 20, 64 << 20),
        ("slow-loris, room for all", 1 << 20, 1 << 30),
        ("slow-loris, flows for a fifth", most / 5, 1 << 30),
    ] {
        figures.extend(slow(&lab, name, count, flows, bytes).with_context(|| name)?);
    }
    Ok(figures)
}

impl Load {
    fn measure(&self, time: Duration) -> Result<Vec<Figure>> {
        let bed = Bed::make(self.way)?;
        bed.network.sysctl(Host::Server, "net.ipv4.tcp_syncookies", self.cookies)?;
        let press = || bed.network.on(bed.from(), || (self.press)(&bed, time));
        let off = press()?;
        let sensor = Sensor::start(&bed.config()?)?;
        let (before, watch) = (Reading::of(&sensor)?, Watch::start(&sensor));
        let on = press()?;
        let (balance, after) = bed.balance(&sensor, &before, on.requests)?;
        let most = watch.end();
        let kernel = Self::kernel(&sensor, press)?;
        let peak = sensor.peak_mib().unwrap_or_default();
        sensor.stopped()?;
        let cpu = (after.cpu - before.cpu) / on.made.seconds;
        let mut figures = vec![
            self.figure("rate, sensor off", self.unit, off.made.per_second()),
            self.figure("rate, sensor on", self.unit, on.made.per_second()),
            self.figure("sensor's CPU", "% of a core", cpu * 100.0),
            self.figure("kernel programs", "ns each", kernel),
        ];
        figures.extend(found(self.name, &balance, most, peak));
        Ok(figures)
    }

    /// CPU time of the kernel programs for one of what the load is made of, in a run of its own: to count it costs time.
    fn kernel(sensor: &Sensor, press: impl Fn() -> Result<Pressed>) -> Result<f64> {
        let before = kernel_programs(sensor.pid())?.ns;
        let counting = Switch::set(Path::new("/proc/sys/kernel/bpf_stats_enabled"))?;
        let made = press()?.made.count;
        drop(counting);
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit a double")]
        let [ns, made] = [kernel_programs(sensor.pid())?.ns - before, made].map(|n| n as f64);
        Ok(ns / made.max(1.0))
    }

    fn figure(&self, what: &str, unit: &'static str, value: f64) -> Figure {
        Figure::new(format!("{}: {what}", self.name), unit, vec![value])
    }
}

/// What was sent, seen and lost, and the most of memory and ring.
fn found(name: &str, balance: &Balance, most: Most, peak: f64) -> Vec<Figure> {
    let figure = |what: &str, unit: &'static str, value: f64| {
        Figure::new(format!("{name}: {what}"), unit, vec![value])
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
    let sent = balance.sent as f64;
    let mut figures = vec![figure("requests sent", "", sent), figure("requests seen", "", balance.seen)];
    figures
        .extend(balance.lost.iter().map(|(reason, many)| figure(&format!("counted, {reason}"), "", *many)));
    figures.extend(balance.shed.iter().map(|(what, many)| figure(&format!("shed, {what}"), "", *many)));
    figures.extend([
        figure("most memory", "MiB", peak.max(most.resident)),
        figure("most of the ring", "%", most.ring * 100.0),
    ]);
    figures
}

/// Slow connections, an alert beside them, and what is left when they have gone.
fn slow(lab: &Path, name: &str, count: usize, flows: u64, bytes: u64) -> Result<Vec<Figure>> {
    let bed = Bed::make(Way::Loopback)?;
    let mut crowd = bed.network.on(Host::Server, || Crowd::assemble(lab, count))?;
    let mut config = bed.config_with(crowd.ports())?;
    config.set("/flows/max_flows", json!(flows));
    config.set("/flows/max_buffered_bytes", json!(bytes));
    let sensor = Sensor::start(&config)?;
    let (before, watch, began) = (Reading::of(&sensor)?, Watch::start(&sensor), clock::instant());
    bed.network.on(Host::Server, || crowd.open(lab, &bed.tokens))?;
    let opened = began.elapsed().as_secs_f64();
    crowd.trickle(10)?;
    let alarm = bed.alarm(&sensor, "mallory")?;
    let open = crowd.now_open()?;
    let ended = crowd.end_heads()?;
    let (balance, after) = bed.balance(&sensor, &before, ended + alarm.requests)?;
    let most = watch.end();
    crowd.disperse();
    let few = |page: &Page| page.value("tokenscope_flows", "") < 8.0;
    let rest = Reading::once(&sensor, PATIENCE, few)?;
    let peak = sensor.peak_mib().unwrap_or_default();
    sensor.stopped()?;
    let figure = |what: &str, unit: &'static str, value: f64| {
        Figure::new(format!("{name}: {what}"), unit, vec![value])
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
    let (count, open) = (count as f64, open as f64);
    let mut figures = vec![
        figure("open at once", "", open),
        figure("opened", "connections/s", count / opened),
        figure("alert beside them", "ms", alarm.took.as_secs_f64() * 1000.0),
        figure("sensor's CPU", "us a connection", (after.cpu - before.cpu) * 1e6 / count),
        figure("most flows known", "", most.flows),
        figure("most bytes held", "MiB", most.held),
    ];
    figures.extend(found(name, &balance, most, peak));
    figures.extend([
        figure(
            "requests seen once they have gone",
            "",
            more(&before, &rest.page, "tokenscope_exchanges_total", ""),
        ),
        figure("flows known when they have gone", "", rest.page.value("tokenscope_flows", "")),
        figure("memory when they have gone", "MiB", rest.resident),
    ]);
    Ok(figures)
}
