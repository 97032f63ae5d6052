//! Measurements: what the sensor costs a busy server, and how fast it reads captures.
//!
//! All figures of a run come from one machine in one go; ratios are what may be compared between machines.

mod chart;
pub mod floor;
mod latency;
mod live;
mod memory;
mod offline;
mod paced;
mod peers;
mod pressure;
mod process;
mod relay;
mod rest;

pub use process::weigh;
pub(crate) use process::{cpu_ns, peak_mib};

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::pressure::bed::Bed;
use crate::workspace;

/// What to measure.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each part by itself")]
pub struct Options {
    /// Print JSON and nothing else.
    pub json: bool,
    /// Write charts into this directory.
    pub svg: Option<PathBuf>,
    /// Pairs of live runs, sensor off and on.
    pub pairs: usize,
    /// Seconds a live run takes.
    pub seconds: u64,
    /// Seconds that an idle sensor is watched for.
    pub idle_seconds: u64,
    /// Requests in the generated capture.
    pub requests: u64,
    /// Requests in the capture that slow peers read.
    pub few_requests: u64,
    /// Live tokens of the memory figure.
    pub tokens: u64,
    /// Live tokens of the largest memory figure; 0 leaves it out.
    pub million: u64,
    /// Measure the live part.
    pub live: bool,
    /// Measure how soon an alert is there.
    pub latency: bool,
    /// Measure the offline parts.
    pub offline: bool,
    /// Measure what one more token, principal and connection takes.
    pub memory: bool,
    /// Measure scans, floods, crumbs and as many slow connections at once.
    pub pressure: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        // Five pairs of four seconds: the spread of the median is then below a percent on a quiet machine.
        Self {
            json: false,
            svg: None,
            pairs: 5,
            seconds: 4,
            idle_seconds: 20,
            requests: 320_000,
            few_requests: 40_000,
            tokens: 100_000,
            million: 1_000_000,
            live: true,
            latency: true,
            offline: true,
            memory: true,
            pressure: None,
        }
    }
}

impl Options {
    /// Small enough to see within seconds that everything works. The figures mean nothing.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            pairs: 1,
            seconds: 1,
            idle_seconds: 2,
            requests: 20_000,
            few_requests: 5_000,
            tokens: 5_000,
            million: 20_000,
            ..Self::default()
        }
    }
}

/// What ours is compared with others in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// What is left of nginx's requests a second.
    Rate,
    /// nginx's CPU time a request, as a multiple of what it is with nothing beside it.
    Times,
    /// The difference of the same.
    Added,
    /// A program's own CPU time a request.
    Own,
    /// Requests that are read off a capture.
    Offline,
}

impl Topic {
    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "requests/s, on / off",
            Self::Times => "nginx CPU, on / off",
            Self::Added => "CPU added to nginx",
            Self::Own => "own CPU",
            Self::Offline => "replay on one core",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Rate | Self::Times => "",
            Self::Added | Self::Own => "us/request",
            Self::Offline => "requests/CPU s",
        }
    }
}

/// One figure: its samples in the order that they were taken.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: Cow<'static, str>,
    unit: &'static str,
    samples: Vec<f64>,
    /// What is compared here, and whose figure this is.
    of: Option<(Topic, &'static str)>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { name: name.into(), unit, samples, of: None }
    }

    /// A figure that others have as well.
    pub(crate) fn of(topic: Topic, who: &'static str, samples: Vec<f64>) -> Self {
        let of = Some((topic, who));
        Self { of, ..Self::new(format!("{}, {who}", topic.name()), topic.unit(), samples) }
    }

    /// Smallest, middle and largest sample.
    fn spread(&self) -> (f64, f64, f64) {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
        (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
    }

    fn json(&self) -> Value {
        let (min, median, max) = self.spread();
        json!({"name": self.name, "unit": self.unit, "median": median, "min": min, "max": max, "samples": self.samples})
    }
}

/// Measures and prints.
///
/// # Errors
/// When a part cannot run; what is missing here is said and left out.
pub fn run(options: &Options) -> Result<()> {
    let mut figures = Vec::new();
    if options.live || options.latency {
        match live::missing() {
            Some(why) => left_out(&format!("the live part: {why}")),
            None => figures.extend(live::measure(options)?),
        }
    }
    if options.offline {
        figures.extend(offline::measure(options)?);
    }
    if options.memory {
        figures.extend(memory::measure(options)?);
    }
    if let Some(slow) = options.pressure {
        match Bed::missing() {
            Some(why) => left_out(&format!("pressure: {why}")),
            None => figures.extend(pressure::measure(options, slow)?),
        }
    }
    if let Some(dir) = &options.svg {
        std::fs::create_dir_all(dir)?;
        for (name, picture) in chart::draw(&figures) {
            std::fs::write(dir.join(name), picture)?;
        }
    }
    let text = if options.json {
        serde_json::to_string_pretty(&figures.iter().map(Figure::json).collect::<Vec<_>>())?
    } else {
        table(&figures)?
    };
    crate::print(&text);
    Ok(())
}

/// Says what is not measured; not on standard output, which may be JSON.
fn left_out(what: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED {what}\n"));
}

/// The number before a mark in a program's words.
fn number_before(text: &str, mark: &str) -> Option<f64> {
    text.split_once(mark)?.0.split_whitespace().last()?.parse().ok()
}

fn table(figures: &[Figure]) -> Result<String> {
    let mut text = format!("{:<60} {:>12} {:>25}  unit\n", "figure", "median", "range");
    for figure in figures {
        let (min, median, max) = figure.spread();
        let range = format!("{} to {}", number(min), number(max));
        writeln!(text, "{:<60} {:>12} {range:>25}  {}", figure.name, number(median), figure.unit)?;
    }
    Ok(text)
}

/// Four figures that matter, thousands apart.
fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        let whole = format!("{value:.0}");
        let mut text = String::new();
        for (i, digit) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i) % 3 == 0 {
                text.push(' ');
            }
            text.push(digit);
        }
        return text;
    }
    format!("{value:.3}")
}

/// Where generated captures are kept between runs.
fn store() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let dir = target.join("bench");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_range_of_unsorted_samples() {
        assert_eq!(Figure::new("x", "s", vec![3.0, 1.0, 2.0]).spread(), (1.0, 2.0, 3.0));
    }

    #[test]
    fn figures_that_others_have_are_named_after_them() {
        let figure = Figure::of(Topic::Own, "tcpdump", vec![1.0]);
        assert_eq!((figure.name.as_ref(), figure.unit), ("own CPU, tcpdump", "us/request"));
    }

    #[test]
    fn numbers_are_found_before_their_marks() {
        let wrk = "  345678 requests in 4.00s, 1.0GB read\nRequests/sec: 86410.00\n";
        assert_eq!(number_before(wrk, "requests in"), Some(345_678.0));
        assert_eq!(number_before("345678", "requests in"), None);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number(1_234_567.4), "1 234 567");
        assert_eq!(number(0.98765), "0.988");
    }
}
