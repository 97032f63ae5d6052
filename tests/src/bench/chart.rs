//! Bar charts of the figures that others have as well, as SVG: for docs/performance.md.
//!
//! The same figures give the same bytes. Each picture has its own ground, light or dark as the reader's screen prefers.

use std::fmt::Write as _;

use super::{Figure, Topic, number};
use crate::svg::escape;

/// Width of a picture, where its bars begin, and how long the longest is, in pixels.
const WIDTH: f64 = 720.0;
const LEFT: f64 = 210.0;
const LONGEST: f64 = 400.0;
/// Height of a row and of its bar, and of what is above and below the rows.
const ROW: f64 = 28.0;
const BAR: f64 = 16.0;
const ABOVE: f64 = 64.0;
const BELOW: f64 = 16.0;

/// The classes that a picture is drawn with.
const STYLE: &str = "<style>\
    text{font-family:system-ui,sans-serif;font-size:13px;fill:#1f2328}.title{font-size:15px;font-weight:600}\
    .note{fill:#59636e;font-size:12px}.ours{font-weight:600}.end{text-anchor:end}.ground{fill:#fff}\
    .a{fill:#0969da}.b{fill:#bf8700}.c{fill:#8c959f}.range{stroke:#1f2328}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.ground{fill:#0d1117}\
    .a{fill:#4493f8}.b{fill:#d29922}.c{fill:#656c76}.range{stroke:#e6edf3}}</style>";

/// A chart: what it is called, and the topics whose medians make up each bar.
struct Chart {
    file: &'static str,
    title: &'static str,
    note: &'static str,
    /// Each with its class and its name in the legend.
    parts: &'static [(Topic, &'static str, &'static str)],
    /// The value that the axis shows at least.
    least: f64,
}

const CHARTS: [Chart; 3] = [
    Chart {
        file: "perf-rate.svg",
        title: "What is left of nginx's requests a second",
        note: "1 is nginx with nothing beside it, client and server on two cores; longer is better; median and range",
        parts: &[(Topic::Rate, "a", "")],
        least: 1.0,
    },
    Chart {
        file: "perf-cpu.svg",
        title: "CPU time a request, in microseconds",
        note: "shorter is better; medians",
        parts: &[(Topic::Added, "b", "added to nginx"), (Topic::Own, "a", "the program's own")],
        least: 0.0,
    },
    Chart {
        file: "perf-offline.svg",
        title: "Requests read off a capture in a CPU second",
        note: "one core, 3.8 KB a request; longer is better; median and range",
        parts: &[(Topic::Offline, "a", "")],
        least: 0.0,
    },
];

/// A bar: whose it is, the length of each part, and the range if it has one part only.
struct Row {
    who: &'static str,
    parts: Vec<f64>,
    range: Option<(f64, f64)>,
}

/// The pictures that these figures allow, by the names of their files.
pub(super) fn draw(figures: &[Figure]) -> Vec<(&'static str, String)> {
    let drawn = |chart: &Chart| {
        let rows = rows(chart, figures);
        (!rows.is_empty()).then(|| (chart.file, picture(chart, &rows)))
    };
    CHARTS.iter().filter_map(drawn).collect()
}

fn rows(chart: &Chart, figures: &[Figure]) -> Vec<Row> {
    let Some((first, ..)) = chart.parts.first() else { return Vec::new() };
    let find = |topic: Topic, who: &str| figures.iter().find(|f| f.of == Some((topic, who)));
    let of_first = figures.iter().filter_map(|figure| figure.of.filter(|(topic, _)| topic == first));
    let row = |(_, who)| {
        let spreads: Vec<_> =
            chart.parts.iter().filter_map(|part| find(part.0, who)).map(Figure::spread).collect();
        let sound = spreads.iter().all(|(low, _, high)| low.is_finite() && high.is_finite());
        let range = match spreads.as_slice() {
            [(low, _, high)] if low < high => Some((*low, *high)),
            _ => None,
        };
        // Noise may make a difference negative: no bar is shorter than none.
        let parts = spreads.iter().map(|(_, median, _)| median.max(0.0)).collect();
        sound.then_some(Row { who, parts, range })
    };
    of_first.filter_map(row).collect()
}

fn picture(chart: &Chart, rows: &[Row]) -> String {
    let longest = |row: &Row| row.range.map_or_else(|| row.parts.iter().sum(), |(_, high)| high);
    let most = rows.iter().map(longest).fold(chart.least, f64::max);
    let scale = if most > 0.0 { LONGEST / most } else { 0.0 };
    let height = rows.iter().fold(ABOVE + BELOW, |height, _| height + ROW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>{title}</title>\n{STYLE}\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"16\" y=\"26\">{title}</text>\n\
         <text class=\"note\" x=\"16\" y=\"46\">{note}</text>\n",
        title = escape(chart.title),
        note = escape(chart.note),
    );
    legend(&mut svg, chart);
    let mut top = ABOVE;
    for row in rows {
        bar(&mut svg, chart, row, top, scale);
        top += ROW;
    }
    svg.push_str("</svg>\n");
    svg
}

/// The names of the parts, if there are several, from the right.
fn legend(svg: &mut String, chart: &Chart) {
    let mut right = WIDTH - 16.0;
    for (_, class, name) in chart.parts.iter().rev().filter(|(.., name)| !name.is_empty()) {
        let _ = writeln!(svg, "<text class=\"note end\" x=\"{right}\" y=\"46\">{}</text>", escape(name));
        // Seven pixels a letter are enough for this size.
        right = name.chars().fold(right, |x, _| x - 7.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"36\" width=\"11\" height=\"11\"/>",
            right - 14.0
        );
        right -= 30.0;
    }
}

fn bar(svg: &mut String, chart: &Chart, row: &Row, top: f64, scale: f64) {
    let ours = row.who.starts_with("tokenscope");
    let (middle, bar_top) = (top + ROW / 2.0, top + (ROW - BAR) / 2.0);
    let base = middle + 4.5;
    let _ = writeln!(
        svg,
        "<text class=\"end{}\" x=\"{}\" y=\"{base}\">{}</text>",
        if ours { " ours" } else { "" },
        LEFT - 10.0,
        escape(row.who)
    );
    let mut x = LEFT;
    for (value, (_, class, name)) in row.parts.iter().zip(chart.parts) {
        // Where one part is all, its colour tells ours from others.
        let class = if name.is_empty() && !ours { "c" } else { class };
        let length = value * scale;
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{bar_top}\" width=\"{length:.1}\" height=\"{BAR}\"/>"
        );
        x += length;
    }
    if let Some((low, high)) = row.range {
        let (from, to) = (LEFT + low * scale, LEFT + high * scale);
        let _ = writeln!(
            svg,
            "<line class=\"range\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>"
        );
        x = x.max(to);
    }
    let total = number(row.parts.iter().sum());
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{base}\">{total}</text>", x + 8.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Vec<Figure> {
        vec![
            Figure::of(Topic::Rate, "tokenscope", vec![0.9, 0.8, 0.7]),
            Figure::of(Topic::Rate, "empty <programs>", vec![0.95]),
            Figure::of(Topic::Added, "tokenscope", vec![1.0]),
            Figure::of(Topic::Own, "tokenscope", vec![3.0]),
            Figure::of(Topic::Added, "empty <programs>", vec![-0.5]),
            Figure::of(Topic::Offline, "tokenscope", vec![f64::INFINITY]),
            Figure::new("requests not seen", "of a million", vec![0.0]),
        ]
    }

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let drawn = draw(&figures());
        let names: Vec<_> = drawn.iter().map(|(name, _)| *name).collect();
        // What cannot be drawn to scale is not drawn.
        assert_eq!(names, ["perf-rate.svg", "perf-cpu.svg"]);
        let rate = &drawn[0].1;
        assert!(rate.contains("class=\"a\" x=\"210.0\" y=\"70\" width=\"320.0\""), "{rate}");
        assert!(rate.contains("class=\"c\" x=\"210.0\" y=\"98\" width=\"380.0\""), "{rate}");
        assert!(rate.contains("x1=\"490.0\" x2=\"570.0\""), "{rate}");
        assert!(rate.contains("empty &lt;programs&gt;"), "{rate}");
        assert!(rate.contains(">0.800</text>"), "{rate}");
    }

    #[test]
    fn parts_follow_each_other_and_none_is_negative() {
        let cpu = &draw(&figures())[1].1;
        assert!(cpu.contains("class=\"b\" x=\"210.0\" y=\"70\" width=\"100.0\""), "{cpu}");
        assert!(cpu.contains("class=\"a\" x=\"310.0\" y=\"70\" width=\"300.0\""), "{cpu}");
        assert!(cpu.contains("width=\"0.0\"") && cpu.contains(">added to nginx</text>"), "{cpu}");
    }

    #[test]
    fn the_same_figures_give_the_same_bytes() {
        assert_eq!(draw(&figures()), draw(&figures()));
    }
}
