//! How long after its packet an alert is on standard output, by the wall clock.
//!
//! Each sample is one connection from an address of its own, so that each is a new alert: one request with an unsigned
//! token, which needs no key and no history to be judged. The clock starts before the request is written and stops when
//! a reader of the sensor's standard output has the line: nginx's answer, which decides how the attempt ended, lies in
//! between. Once on a quiet host, once beside wrk.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Figure;
use super::live::Bed;
use crate::attack::Attack;
use crate::client::{Client, Setup, get};
use crate::clock;
use crate::mint::Mint;
use crate::sensor::{PATIENCE, Sensor};

/// Alerts that are timed in each series: the 99th percentile has ten beyond it.
const SAMPLES: u32 = 1000;

/// Measures both series.
pub(super) fn measure(bed: &Bed) -> Result<Vec<Figure>> {
    let token = Attack::AlgNone.token(&Mint::at(clock::now())?, "mallory")?;
    let request = get("/page", Some(&token));
    let sensor = Sensor::start(bed.config())?;
    let quiet = series(bed, &sensor, &request, 1)?;
    let busy = std::thread::scope(|scope| {
        let load = scope.spawn(|| bed.load());
        let busy = series(bed, &sensor, &request, 2);
        load.join().map_err(|_panic| anyhow::anyhow!("the load generator ended"))??;
        busy
    })?;
    sensor.stop()?;
    let figures = |[p50, p99, worst]: [&'static str; 3], mut samples: Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        let at = |share: usize| samples.get(samples.len() * share / 1000).copied().unwrap_or(f64::NAN);
        let last = samples.last().copied().unwrap_or(f64::NAN);
        [(p50, at(500)), (p99, at(990)), (worst, last)].map(|(name, ms)| Figure::new(name, "ms", vec![ms]))
    };
    let mut all = figures(
        ["packet to alert, quiet, p50", "packet to alert, quiet, p99", "packet to alert, quiet, worst"],
        quiet,
    )
    .to_vec();
    all.extend(figures(
        ["packet to alert, busy, p50", "packet to alert, busy, p99", "packet to alert, busy, worst"],
        busy,
    ));
    Ok(all)
}

/// Milliseconds of each sample. Addresses are those of 127.`net`.0.0/16.
fn series(bed: &Bed, sensor: &Sensor, request: &[u8], net: u8) -> Result<Vec<f64>> {
    (0..SAMPLES).map(|number| sample(bed.address(), sensor, request, net, number)).collect()
}

fn sample(server: SocketAddr, sensor: &Sensor, request: &[u8], net: u8, number: u32) -> Result<f64> {
    let [_, _, high, low] = number.to_be_bytes();
    let from = IpAddr::from([127, net, high, low]);
    let mut client = Client::connect_with(server, Setup { from: Some(from), ..Setup::default() })?;
    let began = clock::instant();
    let answer = client.ask(request)?;
    let mark = format!("\"{from}\"");
    loop {
        let line = sensor.line(PATIENCE).with_context(|| format!("no alert about {from}"))?;
        // Incidents name the address as well.
        if line.contains(&mark) && line.contains("\"class_uid\":2004") {
            ensure!(line.contains("\"alg-none\"") && answer.status == 200, "{line}");
            return Ok(milliseconds(began.elapsed()));
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
