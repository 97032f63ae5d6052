//! Measurements: what the sensor costs a busy server, and how fast it reads captures.
//!
//! All figures of a run come from one machine in one go; ratios are what may be compared between machines.

mod latency;
mod live;
mod offline;
mod process;

pub(crate) use process::peak_mib;
pub use process::weigh;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::workspace;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Print JSON and nothing else.
    pub json: bool,
    /// Pairs of live runs, sensor off and on.
    pub pairs: usize,
    /// Seconds a live run takes.
    pub seconds: u64,
    /// Requests in the generated capture.
    pub requests: u64,
    /// Live tokens of the memory figure.
    pub tokens: u64,
    /// Live tokens of the largest memory figure; 0 leaves it out.
    pub million: u64,
    /// Measure the live part.
    pub live: bool,
    /// Measure the offline parts.
    pub offline: bool,
}

impl Default for Options {
    fn default() -> Self {
        // Five pairs of four seconds: the spread of the median is then below a percent on a quiet machine.
        Self {
            json: false,
            pairs: 5,
            seconds: 4,
            requests: 320_000,
            tokens: 100_000,
            million: 1_000_000,
            live: true,
            offline: true,
        }
    }
}

impl Options {
    /// Small enough to see within seconds that everything works. The figures mean nothing.
    #[must_use]
    pub fn quick() -> Self {
        Self { pairs: 1, seconds: 1, requests: 20_000, tokens: 5_000, ..Self::default() }
    }
}

/// One figure: its samples in the order that they were taken.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: &'static str,
    unit: &'static str,
    samples: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(name: &'static str, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { name, unit, samples }
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
    if options.live {
        match live::missing() {
            Some(why) => crate::skip("bench::live", &why),
            None => figures.extend(live::measure(options)?),
        }
    }
    if options.offline {
        figures.extend(offline::measure(options)?);
    }
    let text = if options.json {
        serde_json::to_string_pretty(&figures.iter().map(Figure::json).collect::<Vec<_>>())?
    } else {
        table(&figures)?
    };
    crate::print(&text);
    Ok(())
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
    fn thousands_are_set_apart() {
        assert_eq!(number(1_234_567.4), "1 234 567");
        assert_eq!(number(0.98765), "0.988");
    }
}
