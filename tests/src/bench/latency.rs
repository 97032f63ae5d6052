//! How long after its packet an alert is on standard output, and at somebody who follows with `tail -f`, by the wall clock.
//!
//! Each sample is one connection from an address of its own, so that each is a new alert: one request with an unsigned
//! token, which needs no key and no history to be judged. The clock starts before the request is written and stops when
//! a reader of the sensor's standard output has the line: nginx's answer, which decides how the attempt ended, lies in
//! between. On a quiet host, beside a steady load, and beside wrk, where the answer itself takes its time: how long is told as
//! well, how much later than the answer the alert was there, and what threads take that only hand on.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Figure;
use super::live::Bed;
use super::relay::Relay;
use crate::attack::Attack;
use crate::client::{Client, Setup, get};
use crate::clock;
use crate::mint::Mint;
use crate::sensor::{Follower, PATIENCE, Sensor};

/// Alerts that are timed in each series: the 99th percentile has ten beyond it.
const SAMPLES: u32 = 1000;

/// Requests a second of the load that leaves the cores some rest: what the aim for latency is about.
const RATE: u32 = 50_000;

/// Measures all series.
pub(super) fn measure(bed: &Bed) -> Result<Vec<Figure>> {
    let token = Attack::AlgNone.token(&Mint::at(clock::now())?, "mallory")?;
    let request = get("/page", Some(&token));
    let mut figures = Vec::new();
    let loads = [Load::None, Load::Paced, Load::Full];
    for (follow, load) in [false, true].into_iter().flat_map(|follow| loads.map(|load| (follow, load))) {
        // A sensor each: one rule opens a thousand alerts at most within a window.
        let sensor = Sensor::start(bed.config())?;
        let tail = follow.then(|| Follower::start(&sensor)).transpose()?;
        let reader: &dyn Reader = tail.as_ref().map_or(&sensor, |tail| tail);
        let (samples, rate) = load.beside(bed, || series(bed, reader, &request));
        let (samples, rate) = (samples?, rate?);
        drop(tail);
        sensor.stop()?;
        let (to, when) = (if follow { "tail" } else { "alert" }, load.name());
        if load == Load::Paced {
            figures.push(Figure::new(format!("load beside {to}, {when}"), "requests/s", vec![rate]));
        }
        let each = |of: fn(&Sample) -> f64| samples.iter().map(of).collect();
        figures.extend(percentiles(&format!("packet to {to}, {when}"), each(|sample| sample.told)));
        figures
            .extend(percentiles(&format!("packet to answer, {to}, {when}"), each(|sample| sample.answered)));
        figures.extend(percentiles(
            &format!("answer to {to}, {when}"),
            each(|sample| sample.told - sample.answered),
        ));
    }
    for load in loads {
        let relay = Relay::start()?;
        let (samples, rate) = load.beside(bed, || passes(bed, &relay));
        rate?;
        figures.extend(percentiles(&format!("packet through idle threads, {}", load.name()), samples?));
    }
    Ok(figures)
}

/// Milliseconds from before the request was written.
struct Sample {
    /// Until its answer was read.
    answered: f64,
    /// Until the alert was.
    told: f64,
}

/// Where lines with alerts come from.
trait Reader {
    /// The next line.
    fn line(&self, patience: Duration) -> Option<String>;
}

impl Reader for Sensor {
    fn line(&self, patience: Duration) -> Option<String> {
        Self::line(self, patience)
    }
}

impl Reader for Follower {
    fn line(&self, patience: Duration) -> Option<String> {
        Self::line(self, patience)
    }
}

/// What nginx has to do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    None,
    /// [`RATE`] requests a second.
    Paced,
    /// As many as wrk gets answered.
    Full,
}

impl Load {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "quiet",
            Self::Paced => "paced",
            Self::Full => "busy",
        }
    }

    /// Does something beside it. Gives the rate where it is a steady one.
    fn beside<R>(self, bed: &Bed, work: impl FnOnce() -> R) -> (R, Result<f64>) {
        let done = AtomicBool::new(false);
        let load = || match self {
            Self::None => Ok(0.0),
            Self::Paced => bed.pace(RATE, &done),
            Self::Full => {
                while !done.load(Ordering::Relaxed) {
                    bed.load()?;
                }
                Ok(0.0)
            }
        };
        std::thread::scope(|scope| {
            let load = scope.spawn(load);
            let result = work();
            done.store(true, Ordering::Relaxed);
            (result, load.join().unwrap_or_else(|_| bail!("the load generator ended")))
        })
    }
}

/// The median, the 99th percentile and the worst.
fn percentiles(name: &str, mut samples: Vec<f64>) -> Vec<Figure> {
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| samples.get(samples.len() * percent / 100).copied().unwrap_or(f64::NAN);
    let worst = samples.last().copied().unwrap_or(f64::NAN);
    let figures = [("p50", at(50)), ("p99", at(99)), ("worst", worst)];
    figures.map(|(which, ms)| Figure::new(format!("{name}, {which}"), "ms", vec![ms])).into()
}

fn series(bed: &Bed, reader: &dyn Reader, request: &[u8]) -> Result<Vec<Sample>> {
    (0..SAMPLES).map(|number| sample(bed.address(), reader, request, number)).collect()
}

/// Milliseconds from before a request was written until its answer was read and a word went through the relay.
fn passes(bed: &Bed, relay: &Relay) -> Result<Vec<f64>> {
    let request = get("/page", None);
    let pass = |_| {
        let mut client = Client::connect(bed.address())?;
        let began = clock::instant();
        client.ask(&request)?;
        relay.pass(PATIENCE)?;
        Ok(milliseconds(began.elapsed()))
    };
    (0..SAMPLES).map(pass).collect()
}

fn sample(server: SocketAddr, reader: &dyn Reader, request: &[u8], number: u32) -> Result<Sample> {
    let [_, _, high, low] = number.to_be_bytes();
    let from = IpAddr::from([127, 1, high, low]);
    let mut client = Client::connect_with(server, Setup { from: Some(from), ..Setup::default() })?;
    let began = clock::instant();
    let answer = client.ask(request)?;
    let answered = milliseconds(began.elapsed());
    let mark = format!("\"{from}\"");
    loop {
        let line = reader.line(PATIENCE).with_context(|| format!("no alert about {from}"))?;
        // Incidents name the address as well.
        if line.contains(&mark) && line.contains("\"class_uid\":2004") {
            ensure!(line.contains("\"alg-none\"") && answer.status == 200, "{line}");
            return Ok(Sample { answered, told: milliseconds(began.elapsed()) });
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_a_thousand_are_beyond_the_99th_percentile() {
        let samples = (0..1000).rev().map(f64::from).collect();
        let figures = percentiles("packet to alert", samples);
        let values: Vec<f64> = figures.iter().map(|figure| figure.spread().1).collect();
        assert_eq!(values, [500.0, 990.0, 999.0]);
    }
}
