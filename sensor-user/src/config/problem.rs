//! What is wrong with a configuration, shown where it is wrong: file, line, column, the line itself and a caret.
//!
//! Text from the file reaches a terminal here, so control and direction characters are replaced, long lines are
//! cut around the caret, and what was meant to be a secret is never repeated.

use std::fmt::Write as _;

use crate::telemetry::printable;

/// Most problems that are printed of one configuration: a screenful or two; the rest is counted.
const MAX_SHOWN: usize = 50;
/// Most characters of a source line that are shown: what fits beside the gutter on a usual terminal.
const MAX_LINE: usize = 120;

/// A place in one of the texts that a configuration is made of. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Index into the sources.
    pub source: usize,
    /// The line; 0 if the text as a whole is meant.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// Characters from there, at least 1.
    pub width: usize,
}

/// A text that a configuration is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as the user gave it, or the environment variable.
    pub name: String,
    /// The text.
    pub text: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The configuration cannot be used.
    Error,
    /// It can, but something in it does not do what its writer may think.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// Where.
    pub span: Span,
    /// What, in one sentence without a full stop.
    pub message: String,
    /// What to do about it, beside the caret.
    pub hint: Option<String>,
    /// The marked text may be a secret: it is not repeated.
    pub secret: bool,
}

impl Problem {
    /// An error.
    #[must_use]
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { level: Level::Error, span, message: message.into(), hint: None, secret: false }
    }

    /// A warning.
    #[must_use]
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(span, message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the marked text to itself.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

/// Everything that is wrong with one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The texts that it is made of.
    pub sources: Vec<Source>,
    /// The problems, in the order of the texts.
    pub problems: Vec<Problem>,
}

impl Report {
    /// A report of one problem about a text as a whole, such as a file that cannot be read.
    #[must_use]
    pub fn whole(name: impl Into<String>, message: impl Into<String>) -> Self {
        let sources = vec![Source { name: name.into(), text: String::new() }];
        Self { sources, problems: vec![Problem::error(Span::default(), message)] }
    }

    /// How many errors there are.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|p| p.level == Level::Error).count()
    }

    /// One line a problem, for logs: `config.yaml:3:5: message`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|p| {
            let hint = p.hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default();
            printable(&format!("{}: {}{hint}", self.place(&p.span), p.message))
        })
    }

    /// Every problem as a paragraph, and a last line that counts the errors.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for problem in self.problems.iter().take(MAX_SHOWN) {
            self.paragraph(&mut out, problem, Paint(colour));
            out.push('\n');
        }
        if let Some(more @ 1..) = self.problems.len().checked_sub(MAX_SHOWN) {
            let _ = writeln!(out, "... and {more} more\n");
        }
        if let count @ 1.. = self.errors() {
            let _ = writeln!(out, "{count} error{}; nothing was done", if count == 1 { "" } else { "s" });
        }
        out
    }

    fn place(&self, span: &Span) -> String {
        let name = self.sources.get(span.source).map_or("configuration", |s| s.name.as_str());
        match span.line {
            0 => name.to_owned(),
            line => format!("{name}:{line}:{}", span.column),
        }
    }

    fn paragraph(&self, out: &mut String, problem: &Problem, paint: Paint) {
        let (word, code) = match problem.level {
            Level::Error => ("error", "1;31"),
            Level::Warning => ("warning", "1;33"),
        };
        let message = printable(&problem.message);
        let _ = writeln!(out, "{}{} {}", paint.on(code, word), paint.on("1", ":"), paint.on("1", &message));
        let number = problem.span.line.to_string();
        let gutter = " ".repeat(number.len());
        let place = printable(&self.place(&problem.span));
        let _ = writeln!(out, "{gutter} {} {place}", paint.on("34", "-->"));
        let text = self.sources.get(problem.span.source).map_or("", |s| s.text.as_str());
        let line = problem.span.line.checked_sub(1).and_then(|n| text.lines().nth(n));
        let hint = problem.hint.as_deref().map(printable).unwrap_or_default();
        let bar = paint.on("34", "|");
        let Some(line) = line else {
            if !hint.is_empty() {
                let _ = writeln!(out, "{gutter} {} {hint}", paint.on("34", "="));
            }
            return;
        };
        let excerpt = Excerpt::of(line, &problem.span, problem.secret);
        let _ = writeln!(out, "{gutter} {bar}");
        let _ = writeln!(out, "{} {bar} {}", paint.on("34", &number), excerpt.text);
        let carets = format!("{}{}", "^".repeat(excerpt.width), if hint.is_empty() { "" } else { " " });
        let _ =
            writeln!(out, "{gutter} {bar} {}{}{hint}", " ".repeat(excerpt.indent), paint.on(code, &carets));
    }
}

/// The part of a line around a span, safe to print.
struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

impl Excerpt {
    fn of(line: &str, span: &Span, secret: bool) -> Self {
        let chars: Vec<char> = line.chars().collect();
        let at = span.column.saturating_sub(1).min(chars.len());
        let width = span.width.clamp(1, chars.len().saturating_sub(at).max(1));
        // A quarter of the room goes to what precedes the caret.
        let from = if chars.len() > MAX_LINE { at.saturating_sub(MAX_LINE / 4) } else { 0 };
        let mut text: String = chars.iter().copied().skip(from).take(at - from).collect();
        let mut indent = at - from;
        if from > 0 {
            text.insert_str(0, "...");
            indent += 3;
        }
        let room = MAX_LINE.saturating_sub(indent);
        if secret {
            // Also what follows: a value that holds a comment sign or a quote is longer than its span.
            text.push_str("***");
            return Self { text: printable(&text), indent, width: 3 };
        }
        text.extend(chars.iter().copied().skip(at).take(room));
        if chars.len() - at > room {
            text.push_str("...");
        }
        Self { text: printable(&text), indent, width: width.min(room).max(1) }
    }
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn on(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, problem: Problem) -> Report {
        let sources = vec![Source { name: "config.yaml".into(), text: text.into() }];
        Report { sources, problems: vec![problem] }
    }

    fn span(line: usize, column: usize, width: usize) -> Span {
        Span { source: 0, line, column, width }
    }

    #[test]
    fn shows_the_line_and_a_caret_under_the_place() {
        let text = "capture:\n  portz: [80]\n";
        let problem =
            Problem::error(span(2, 3, 5), "unknown key `portz` in `capture`").hint("did you mean `ports`?");
        assert_eq!(
            report(text, problem).render(false),
            "error: unknown key `portz` in `capture`\n  --> config.yaml:2:3\n  |\n2 |   portz: [80]\n  |   ^^^^^ did you mean `ports`?\n\n1 error; nothing was done\n"
        );
    }

    #[test]
    fn never_repeats_what_may_be_a_secret() {
        let text = "privacy:\n  fingerprint_key: \"hunter2 # hunter3\"\n";
        let shown = report(text, Problem::error(span(2, 20, 9), "no").secret()).render(false);
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("fingerprint_key: ***\n"), "{shown}");
    }

    #[test]
    fn lets_no_escape_sequence_reach_the_terminal() {
        let shown = report("a\x1b[31m\u{202e}\n", Problem::error(span(1, 1, 1), "x\x1b[2J\ny")).render(false);
        assert!(!shown.contains('\x1b') && !shown.contains('\u{202e}'), "{shown:?}");
    }

    #[test]
    fn cuts_long_lines_around_the_caret() {
        let text = format!("{}HERE{}", "a".repeat(1_000), "b".repeat(1_000));
        let shown = report(&text, Problem::error(span(1, 1_001, 4), "x")).render(false);
        let longest = shown.lines().map(str::len).max().unwrap();
        assert!(longest < 140, "{longest}");
        let (line, carets) = (shown.lines().nth(3).unwrap(), shown.lines().nth(4).unwrap());
        assert_eq!(carets.find("^^^^"), line.find("HERE"));
    }

    #[test]
    fn counts_what_it_does_not_show() {
        let mut many = report("a: 1\n", Problem::error(span(1, 1, 1), "x"));
        many.problems = vec![many.problems[0].clone(); 60];
        let shown = many.render(false);
        assert!(
            shown.contains("... and 10 more\n") && shown.ends_with("60 errors; nothing was done\n"),
            "{shown}"
        );
    }
}
