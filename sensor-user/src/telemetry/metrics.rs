//! Metrics in the text format of Prometheus, without a registry: the runtime collects what the stages count and this
//! renders it.
//!
//! Names are `tokenscope_<noun>_<unit>_total`. Labels are bounded in length and number here, whoever sets them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use smallvec::SmallVec;

/// Most series of one name that are rendered: the catalogue of rules is an order smaller.
const MAX_SERIES: usize = 512;
/// Longest label value, in characters.
const MAX_LABEL: usize = 128;
/// Buckets of a histogram: 1 us, 2 us, ... 2^23 us, which is 8.4 s.
const BUCKETS: usize = 24;

/// Counts of durations in buckets of powers of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// One count a bucket, not cumulated; bucket `i` ends at 2^i us.
    buckets: [u64; BUCKETS],
    /// What was longer than every bucket.
    beyond: u64,
    /// Sum in nanoseconds.
    sum_ns: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // The smallest i with us <= 2^i.
        let us = ns.div_ceil(1_000).max(1);
        let index = u64::BITS - (us - 1).leading_zeros();
        match self.buckets.get_mut(index as usize) {
            Some(bucket) => *bucket += 1,
            None => self.beyond += 1,
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum::<u64>() + self.beyond
    }

    /// Their sum.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// No more than this share of them was longer: the end of a bucket, so at most twice the truth. None if there are
    /// none, or if it is longer than every bucket.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        #[allow(clippy::cast_precision_loss, reason = "a share of a count is no exact matter")]
        let wanted = self.count() as f64 * share;
        let mut seen = 0_u64;
        for (power, count) in (0_u32..).zip(self.buckets) {
            seen += count;
            #[allow(clippy::cast_precision_loss, reason = "a share of a count is no exact matter")]
            if seen > 0 && seen as f64 >= wanted {
                return Some(Duration::from_micros(1 << power));
            }
        }
        None
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.beyond += other.beyond;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
    /// Durations.
    Histogram,
}

impl Kind {
    /// The word of the text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The number.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// It only grows.
    Counter(u64),
    /// Time that only grows, in seconds when rendered.
    Spent(Duration),
    /// It comes and goes.
    Gauge(f64),
    /// Durations, in seconds when rendered.
    Histogram(Box<Histogram>),
}

impl Sample {
    /// What kind of number it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) | Self::Spent(_) => Kind::Counter,
            Self::Gauge(_) => Kind::Gauge,
            Self::Histogram(_) => Kind::Histogram,
        }
    }
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// One sentence on it.
    pub help: &'static str,
    /// Its labels.
    pub labels: SmallVec<[(&'static str, Cow<'static, str>); 1]>,
    /// Its value.
    pub sample: Sample,
}

impl Metric {
    /// A number that only grows; its name ends in `_total`.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, labels: SmallVec::new(), sample: Sample::Counter(value) }
    }

    /// A number that comes and goes.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, labels: SmallVec::new(), sample: Sample::Gauge(value) }
    }

    /// Durations; the name ends in `_seconds`.
    #[must_use]
    pub fn histogram(name: &'static str, help: &'static str, value: Histogram) -> Self {
        Self { name, help, labels: SmallVec::new(), sample: Sample::Histogram(Box::new(value)) }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push((key, value.into()));
        self
    }
}

/// The metrics as text, names in the order of their first series.
#[must_use]
pub fn render(metrics: &[Metric]) -> String {
    let mut families: Vec<Vec<&Metric>> = Vec::new();
    let mut places: HashMap<&'static str, usize> = HashMap::new();
    for metric in metrics {
        let place = *places.entry(metric.name).or_insert(families.len());
        match families.get_mut(place) {
            Some(family) => family.push(metric),
            None => families.push(vec![metric]),
        }
    }
    let mut out = String::with_capacity(metrics.len() * 96);
    for family in families {
        render_family(&mut out, &family);
    }
    out
}

fn render_family(out: &mut String, family: &[&Metric]) {
    let Some(first) = family.first() else { return };
    let kind = first.sample.kind().as_str();
    let help = first.help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = writeln!(out, "# HELP {} {help}\n# TYPE {} {kind}", first.name, first.name);
    // A series of another kind under the same name would make the whole page unreadable to Prometheus.
    let same_kind = family.iter().filter(|metric| metric.sample.kind() == first.sample.kind());
    for metric in same_kind.take(MAX_SERIES) {
        match &metric.sample {
            Sample::Counter(value) => line(out, metric, "", None, *value),
            Sample::Spent(value) => {
                let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
                line(out, metric, "", None, seconds(ns));
            }
            Sample::Gauge(value) if value.is_finite() => line(out, metric, "", None, *value),
            Sample::Gauge(_) => line(out, metric, "", None, "NaN"),
            Sample::Histogram(histogram) => render_histogram(out, metric, histogram),
        }
    }
}

fn render_histogram(out: &mut String, metric: &Metric, histogram: &Histogram) {
    let mut total = 0;
    for (power, count) in (0_u32..).zip(histogram.buckets) {
        total += count;
        line(out, metric, "_bucket", Some(&seconds(1_000_u64 << power)), total);
    }
    line(out, metric, "_bucket", Some("+Inf"), histogram.count());
    line(out, metric, "_sum", None, seconds(histogram.sum_ns));
    line(out, metric, "_count", None, histogram.count());
}

/// Nanoseconds as seconds, exact.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(out: &mut String, metric: &Metric, suffix: &str, le: Option<&str>, value: impl std::fmt::Display) {
    out.push_str(metric.name);
    out.push_str(suffix);
    let labels = metric.labels.iter().map(|(key, value)| (*key, value.as_ref()));
    for (index, (key, value)) in labels.chain(le.map(|le| ("le", le))).enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        out.push_str(key);
        out.push_str("=\"");
        for c in value.chars().take(MAX_LABEL) {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c if c.is_control() => out.push('\u{fffd}'),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    if !metric.labels.is_empty() || le.is_some() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Checks a page against the grammar of the text format and gives its series as `name{labels}` and value.
    fn read(page: &str) -> Vec<(String, f64)> {
        let mut typed = Vec::new();
        let mut series = Vec::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(!typed.contains(&name.to_owned()), "{name} twice");
                typed.push(name.to_owned());
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (id, value) = line.rsplit_once(' ').unwrap();
            let name = id.split('{').next().unwrap();
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{line}"
            );
            let family = typed.last().unwrap();
            assert!(name.starts_with(family.as_str()), "{line} stands under {family}");
            if let Some(labels) = id.strip_prefix(name).and_then(|l| l.strip_prefix('{')) {
                let body = labels.strip_suffix('}').unwrap().replace("\\\\", "").replace("\\\"", "");
                assert_eq!(body.matches('"').count() % 2, 0, "{line}");
            }
            series.push((id.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}"))));
        }
        series
    }

    #[test]
    fn renders_families_once_and_together() {
        let metrics = [
            Metric::counter("tokenscope_tokens_total", "Tokens by verdict.", 3).label("verdict", "verified"),
            Metric::gauge("tokenscope_flows", "Connections followed.", 7.5),
            Metric::counter("tokenscope_tokens_total", "Tokens by verdict.", 1)
                .label("verdict", "bad \"\\\n"),
        ];
        let expected = "\
# HELP tokenscope_tokens_total Tokens by verdict.
# TYPE tokenscope_tokens_total counter
tokenscope_tokens_total{verdict=\"verified\"} 3
tokenscope_tokens_total{verdict=\"bad \\\"\\\\\\n\"} 1
# HELP tokenscope_flows Connections followed.
# TYPE tokenscope_flows gauge
tokenscope_flows 7.5
";
        assert_eq!(render(&metrics), expected);
        assert_eq!(read(expected).len(), 3);
    }

    #[test]
    fn histograms_cumulate() {
        let mut histogram = Histogram::default();
        for ns in [0, 1_000, 1_001, 2_000, 3_000, 60_000_000_000] {
            histogram.observe(Duration::from_nanos(ns));
        }
        let page =
            render(&[Metric::histogram("tokenscope_alert_latency_seconds", "Segment to alert.", histogram)]);
        let series = read(&page);
        let value = |id: &str| series.iter().find(|(name, _)| name.contains(id)).unwrap().1;
        assert_eq!(
            (value("le=\"0.000001\""), value("le=\"0.000002\""), value("le=\"0.000004\"")),
            (2.0, 4.0, 5.0)
        );
        assert_eq!((value("le=\"8.388608\""), value("+Inf"), value("_count")), (5.0, 6.0, 6.0));
        assert!((value("_sum") - 60.000_007_001).abs() < 1e-9);
    }

    #[test]
    fn bounds_what_anybody_sets() {
        let many: Vec<_> = (0..5_000)
            .map(|i| {
                Metric::counter("tokenscope_x_total", "X.", 1)
                    .label("id", format!("{i}{}", "y".repeat(10_000)))
            })
            .collect();
        let page = render(&many);
        assert_eq!(read(&page).len(), MAX_SERIES);
        assert!(page.len() < MAX_SERIES * 200);
        assert_eq!(read(&render(&[Metric::gauge("tokenscope_g", "G.", f64::INFINITY)])).len(), 1);
    }

    proptest! {
        #[test]
        fn any_label_keeps_to_the_grammar(label in ".{0,40}", ns in any::<u64>()) {
            let mut histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(ns));
            read(&render(&[
                Metric::counter("tokenscope_a_total", "A.", ns).label("k", label),
                Metric::histogram("tokenscope_b_seconds", "B.", histogram),
            ]));
        }
    }
}
