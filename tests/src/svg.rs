//! Terminal text as an SVG picture, for the README: what `cargo xtask demo` showed, colours included.

use std::fmt::Write as _;

/// Columns shown; longer lines are cut.
const COLUMNS: usize = 178;
/// Width of a column and height of a line, in pixels.
const CELL: (f32, f32) = (7.25, 18.0);
/// Space around the text, in pixels.
const MARGIN: f32 = 14.0;

/// How a run of characters looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    bold: bool,
    dim: bool,
    colour: Option<u8>,
    behind: Option<u8>,
}

/// Text without its escape sequences.
#[must_use]
pub fn plain(line: &str) -> String {
    runs(line).into_iter().map(|(_, text)| text).collect()
}

/// A picture of these lines.
#[must_use]
pub fn render(lines: &[String]) -> String {
    let (width, height) =
        (cells(COLUMNS) * CELL.0 + 2.0 * MARGIN, cells(lines.len()) * CELL.1 + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#11151c\"/>\n\
         <g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"12\" \
         fill=\"#d7dde8\" xml:space=\"preserve\">\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let y = MARGIN + CELL.1 * (cells(row) + 0.75);
        let mut column = 0;
        for (style, text) in runs(line) {
            let text: String = text.chars().take(COLUMNS.saturating_sub(column)).collect();
            let x = MARGIN + CELL.0 * cells(column);
            let length = CELL.0 * cells(text.chars().count());
            column += text.chars().count();
            if let Some(fill) = style.behind.and_then(dark) {
                let top = y - CELL.1 * 0.75;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>",
                    CELL.1
                );
            }
            if !text.trim().is_empty() {
                let _ = writeln!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\"{}>{}</text>",
                    attributes(style),
                    escape(&text)
                );
            }
        }
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// A number of cells as pixels count: pictures have fewer than 2^16 of them.
fn cells(n: usize) -> f32 {
    f32::from(u16::try_from(n).unwrap_or(u16::MAX))
}

fn attributes(style: Style) -> String {
    let mut text = String::new();
    let faint = style.dim.then_some("#8b95a7");
    let colour = style.colour.and_then(named).or(faint);
    if let Some(colour) = colour {
        let _ = write!(text, " fill=\"{colour}\"");
    }
    if style.bold {
        text.push_str(" font-weight=\"bold\"");
    }
    text
}

/// The eight colours of ECMA-48, as this picture shows them; black and white stay the text's own.
fn named(colour: u8) -> Option<&'static str> {
    match colour {
        1 => Some("#ff6b6b"),
        2 => Some("#7bd88f"),
        3 => Some("#f7c25c"),
        4 => Some("#6cb6ff"),
        5 => Some("#d79bf5"),
        6 => Some("#5fd7d7"),
        _ => None,
    }
}

/// The same colours behind white text.
fn dark(colour: u8) -> Option<&'static str> {
    match colour {
        1 => Some("#b3261e"),
        2 => Some("#2e6b3a"),
        3 => Some("#8a6100"),
        4 => Some("#1f5fa8"),
        5 => Some("#7a3fa0"),
        6 => Some("#1f7373"),
        _ => None,
    }
}

/// Text as a picture's own text.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Splits a line at its SGR sequences (ECMA-48 section 8.3.117); other sequences are dropped.
fn runs(line: &str) -> Vec<(Style, String)> {
    let mut style = Style::default();
    let mut runs = Vec::new();
    for (at, part) in line.split('\x1b').enumerate() {
        let mut text = part;
        if at > 0 {
            let body = part.strip_prefix('[').unwrap_or(part);
            let end = body.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(body.len());
            let (codes, rest) = body.split_at(end);
            if rest.starts_with('m') {
                apply(&mut style, codes);
            }
            text = rest.get(1..).unwrap_or_default();
        }
        if !text.is_empty() {
            runs.push((style, text.to_owned()));
        }
    }
    runs
}

fn apply(style: &mut Style, codes: &str) {
    for code in codes.split(';').map(|c| c.parse().unwrap_or(0_u8)) {
        match code {
            0 => *style = Style::default(),
            1 => style.bold = true,
            2 => style.dim = true,
            22 => (style.bold, style.dim) = (false, false),
            30..=37 => style.colour = Some(code - 30),
            90..=97 => style.colour = Some(code - 90),
            39 => style.colour = None,
            40..=47 => style.behind = Some(code - 40),
            49 => style.behind = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_attributes_and_text_stays() {
        let picture = render(&["\x1b[1;31mCRITICAL\x1b[0m <a & b>".to_owned()]);
        assert!(picture.contains("fill=\"#ff6b6b\" font-weight=\"bold\">CRITICAL</text>"), "{picture}");
        assert!(picture.contains("&lt;a &amp; b&gt;"), "{picture}");
        assert!(!picture.contains('\x1b'));
    }

    #[test]
    fn plain_text_has_no_sequences() {
        assert_eq!(plain("\x1b[2ma\x1b[0m b\x1b[K"), "a b");
    }
}
