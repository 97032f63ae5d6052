//! The picture: blocks of figures above, alerts below, at any size of the terminal.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline, Widget as _};
use serde_json::Value;

use crate::cli::top::model::{Model, State};
use crate::detect::Severity;
use crate::render::{Told, shown};
use crate::telemetry::printable;

/// What counts as lost, and what to call it.
const LOSSES: [(&str, &str); 6] = [
    ("tokenscope_lost_records_total", "records"),
    ("tokenscope_alerts_lost_total", "alerts"),
    ("tokenscope_spool_evicted_total", "from the spool"),
    ("tokenscope_records_shed_total", "uses"),
    ("tokenscope_stream_missed_total", "to slow readers"),
    ("tokenscope_exchanges_unparked_total", "late verdicts"),
];

/// Rows of the blocks above: the frame, and five lines.
const ROWS: u16 = 7;

/// How it may look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Whether colours may be used.
    pub(super) colour: bool,
}

impl Look {
    fn paint(self, color: Color) -> Style {
        if self.colour { Style::new().fg(color) } else { Style::new() }
    }

    fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Critical => self.paint(Color::Red).add_modifier(Modifier::REVERSED),
            Severity::High => self.paint(Color::Red).add_modifier(Modifier::BOLD),
            Severity::Medium => self.paint(Color::Yellow),
            Severity::Low => self.paint(Color::Cyan),
        }
    }
}

/// Draws one frame.
pub(super) fn frame(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    // On a small terminal alerts come first.
    let blocks = if area.height >= 20 { 2 } else { u16::from(area.height >= 12) };
    let rows = [
        Constraint::Length(1),
        Constraint::Length(if blocks >= 1 { ROWS } else { 0 }),
        Constraint::Length(if blocks >= 2 { ROWS } else { 0 }),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [head, first, second, list, foot] = Layout::vertical(rows).areas(area);
    Paragraph::new(header(model, look)).render(head, buffer);
    let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]);
    if blocks >= 1 {
        let [left, right] = halves.areas(first);
        rates(model, look, left, buffer);
        block(losses(model.shown(), model.lost, look), " Lost, and how late ", right, buffer);
    }
    if blocks >= 2 {
        let [left, right] = halves.areas(second);
        block(sinks(model.shown(), look), " Sinks ", left, buffer);
        block(riskiest(model, look), " Riskiest ", right, buffer);
    }
    alerts(model, look, list, buffer);
    Paragraph::new(footer(model)).render(foot, buffer);
}

/// A frame as text, without what is blank at the ends of lines.
pub(super) fn text(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let symbols = (buffer.area.left()..buffer.area.right()).filter_map(|x| buffer.cell((x, y)));
        let line: String = symbols.map(ratatui::buffer::Cell::symbol).collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn block(lines: Vec<Line<'_>>, title: &str, area: Rect, buffer: &mut Buffer) {
    Paragraph::new(lines).block(Block::bordered().title(title)).render(area, buffer);
}

fn header(model: &Model, look: Look) -> Line<'static> {
    let state = model.shown();
    let mut spans = vec![
        Span::styled("tokenscope", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            " {}  {}  up {}",
            state.text("version"),
            state.text("node"),
            up(state.count("/uptime_s"))
        )),
        Span::raw(format!("  alerts {}", state.count("/sequence/head"))),
    ];
    if state.value.get("ready").and_then(Value::as_bool) == Some(false) {
        spans.push(Span::styled("  not ready", look.paint(Color::Yellow)));
    }
    if model.held.is_some() {
        spans.push(Span::styled("  HELD", Style::new().add_modifier(Modifier::REVERSED)));
    }
    if let Some(trouble) = &model.trouble {
        let style = look.paint(Color::Red).add_modifier(Modifier::BOLD);
        spans.push(Span::styled(format!("  {}", printable(trouble)), style));
    }
    Line::from(spans)
}

fn up(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}

fn rates(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    let state = model.shown();
    let frame = Block::bordered().title(" A second ");
    let [lines, curve] =
        Layout::vertical([Constraint::Length(4), Constraint::Min(1)]).areas(frame.inner(area));
    frame.render(area, buffer);
    let line = |what: &str, rate: &str, total: &str| {
        Line::raw(format!("{what:<10} {:>9}  of {}", short(state.rate(rate)), short(state.figure(total))))
    };
    let same = |what: &str, name: &str| line(what, name, name);
    let bytes = "tokenscope_bytes_total";
    let severities = ["critical", "high", "medium", "low"];
    let counts: Vec<String> = severities
        .iter()
        .map(|severity| (severity, state.series("tokenscope_alerts_total", "severity", severity)))
        .filter(|(_, count)| *count > 0.0)
        .map(|(severity, count)| format!("{} {severity}", short(count)))
        .collect();
    let alerts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let all = vec![
        same("exchanges", "tokenscope_exchanges_total"),
        same("tokens", "tokenscope_token_uses_total"),
        same("bytes", bytes),
        Line::raw(format!("{:<10} {alerts}", "alerts")),
    ];
    Paragraph::new(all).render(lines, buffer);
    let newest = model.curve.len().saturating_sub(usize::from(curve.width));
    let data: Vec<u64> = model.curve.iter().skip(newest).copied().collect();
    Sparkline::default().data(&data).style(look.paint(Color::Green)).render(curve, buffer);
}

fn losses(state: &State, unread: u64, look: Look) -> Vec<Line<'static>> {
    let mut parts: Vec<String> = LOSSES
        .iter()
        .map(|(name, what)| (state.figure(name), what))
        .filter(|(lost, _)| *lost > 0.0)
        .map(|(lost, what)| format!("{} {what}", short(lost)))
        .collect();
    if unread > 0 {
        parts.push(format!("{unread} not shown here"));
    }
    let (words, style) = if parts.is_empty() {
        ("nothing".to_owned(), look.paint(Color::Green))
    } else {
        (parts.join(", "), look.paint(Color::Red))
    };
    let kernel: Vec<String> = state
        .each("tokenscope_kernel_events_total")
        .filter(|(event, _)| event.starts_with("ring_full") || matches!(*event, "unreadable" | "no_storage"))
        .map(|(event, count)| format!("{} {}", short(count), printable(event)))
        .collect();
    let kernel = if kernel.is_empty() { "nothing".to_owned() } else { kernel.join(", ") };
    let late = |part: &str| {
        let ms = state.duration_ms("tokenscope_alert_latency_seconds", part);
        ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
    };
    let spool = (state.figure("tokenscope_spool_bytes"), state.figure("tokenscope_spool_max_bytes"));
    vec![
        Line::from(vec![Span::raw("lost       "), Span::styled(words, style)]),
        Line::raw(format!("in kernel  {kernel}")),
        Line::raw(format!("alert p50  {}   p99 {}", late("p50_s"), late("p99_s"))),
        Line::raw(format!("spool      {} of {} bytes", short(spool.0), short(spool.1))),
        Line::raw(format!("readers    {}", short(state.figure("tokenscope_stream_clients")))),
    ]
}

fn sinks(state: &State, look: Look) -> Vec<Line<'static>> {
    let sinks = state.list("sinks");
    if sinks.is_empty() {
        return vec![Line::raw("none but standard output")];
    }
    let one = |sink: &Value| {
        let number = |pointer: &str| sink.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
        let name = printable(sink.get("name").and_then(Value::as_str).unwrap_or("-"));
        let (lag, age) = (number("/lag_events"), number("/lag_seconds"));
        let (word, color) = match (number("/circuit_open") > 0.0, lag > 0.0) {
            (true, _) => ("fails", Color::Red),
            (false, true) => ("behind", Color::Yellow),
            (false, false) => ("ok", Color::Green),
        };
        let dead = short(number("/dead_letters").max(number("/events/dead")));
        let sent = short(number("/events/delivered"));
        // What matters least is last: at 80 columns it is cut.
        let rest = format!(" {name:<10.10} {} late {}s, {dead} dead, {sent} sent", short(lag), short(age));
        Line::from(vec![Span::styled(format!("{word:<6}"), look.paint(color)), Span::raw(rest)])
    };
    // Those in trouble first: there may be more than rows.
    let mut sorted: Vec<&Value> = sinks.iter().collect();
    let trouble = |sink: &Value, key: &str| sink.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    sorted.sort_by(|a, b| {
        let of = |sink: &Value| (trouble(sink, "circuit_open"), trouble(sink, "lag_seconds"));
        of(b).partial_cmp(&of(a)).unwrap_or(std::cmp::Ordering::Equal)
    });
    sorted.into_iter().map(one).collect()
}

fn riskiest(model: &Model, look: Look) -> Vec<Line<'static>> {
    let all = model.riskiest();
    if all.is_empty() {
        return vec![Line::raw("nobody")];
    }
    let one = |(name, risk, alerts): (String, u64, u64)| {
        let color = match risk {
            80.. => Color::Red,
            40..80 => Color::Yellow,
            _ => Color::Reset,
        };
        let risk = Span::styled(format!("{risk:>4}"), look.paint(color));
        Line::from(vec![risk, Span::raw(format!("  {:<20}  {alerts} alerts", printable(&name)))])
    };
    all.into_iter().take(usize::from(ROWS)).map(one).collect()
}

fn alerts(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    let count = model.listed().count();
    let scroll = model.scroll.min(count.saturating_sub(1));
    let title = if scroll > 0 { format!(" Alerts, {scroll} newer above ") } else { " Alerts ".to_owned() };
    let frame = Block::bordered().title(title);
    let inner = frame.inner(area);
    frame.render(area, buffer);
    let lines: Vec<Line<'_>> =
        model.listed().skip(scroll).take(usize::from(inner.height)).map(|told| alert(told, look)).collect();
    Paragraph::new(lines).render(inner, buffer);
}

fn alert(told: &Told, look: Look) -> Line<'static> {
    let time = shown::timestamp_ms(told.time_ms);
    let clock = time.get(11..19).unwrap_or_default().to_owned();
    let severity = told.severity.as_str().to_ascii_uppercase();
    let who = told.principal_name().or_else(|| told.address().map(str::to_owned));
    let place = told.workload().map(str::to_owned);
    let rest = format!(
        " {:<24} {}  {}  {}",
        printable(told.rule()),
        printable(&who.unwrap_or_else(|| "-".into())),
        printable(&place.unwrap_or_else(|| "-".into())),
        printable(told.message())
    );
    let severity = Span::styled(format!("{severity:<8}"), look.severity(told.severity));
    Line::from(vec![Span::raw(format!("{clock} ")), severity, Span::raw(rest)])
}

fn footer(model: &Model) -> Line<'static> {
    if model.typing {
        return Line::raw(format!("/{}_   Enter keeps it, Esc clears it", printable(&model.filter)));
    }
    let filter = match model.filter.as_str() {
        "" => String::new(),
        filter => format!("   showing /{}  Esc shows all", printable(filter)),
    };
    Line::raw(format!("q quit   p hold   / filter   arrows scroll{filter}"))
}

/// A number in at most six characters: 950, 12.3k, 4.56M.
fn short(number: f64) -> String {
    // The sum of nothing is -0.
    let number = number + 0.0;
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(unit, _)| number >= *unit) {
        Some((unit, letter)) => format!("{:.1}{letter}", number / unit),
        None if number.fract() > 0.05 && number < 100.0 => format!("{number:.1}"),
        None => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::model::staging::model;

    fn drawn(model: &Model, width: u16, height: u16, colour: bool) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|f| frame(model, Look { colour }, f.area(), f.buffer_mut())).unwrap();
        terminal.backend().buffer().clone()
    }

    #[test]
    fn a_usual_terminal_shows_everything() {
        let shown = text(&drawn(&model(), 80, 24, true));
        for words in [
            "tokenscope 0.1.0  node-1  up 1h02m  alerts 42",
            "exchanges       2.0k  of 5.0k",
            "alerts     2 high",
            "5 records",
            "p50  2.0 ms   p99 16.0 ms",
            "fails  siem",
            "3 late 2s, 1 dead",
            " 100  alice@idp",
            "18:04:05 HIGH     token-in-url",
            "q quit   p hold",
        ] {
            assert!(shown.contains(words), "{words} in\n{shown}");
        }
        assert_eq!(shown.lines().count(), 24);
    }

    #[test]
    fn no_terminal_is_too_small_or_too_large() {
        for (width, height) in [(1, 1), (3, 2), (10, 5), (20, 12), (40, 20), (80, 24), (300, 100)] {
            let shown = text(&drawn(&model(), width, height, true));
            assert_eq!(shown.lines().count(), usize::from(height));
        }
        let small = text(&drawn(&Model::default(), 40, 8, false));
        assert!(small.contains("Alerts") && !small.contains("Sinks"), "{small}");
    }

    #[test]
    fn without_colour_there_is_none() {
        let has_colour = |buffer: &Buffer| {
            buffer.content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(has_colour(&drawn(&model(), 80, 24, true)));
        assert!(!has_colour(&drawn(&model(), 80, 24, false)));
    }

    #[test]
    fn nothing_that_came_over_the_wire_acts_on_the_terminal() {
        let mut model = model();
        model.trouble = Some("\u{1b}]0;x\u{7}".into());
        model.now.value["node"] = "\u{1b}[2J\u{202e}".into();
        for cell in drawn(&model, 200, 40, false).content() {
            assert!(!cell.symbol().chars().any(crate::detect::text::is_unprintable), "{:?}", cell.symbol());
        }
    }

    #[test]
    fn what_the_keys_have_done_is_seen() {
        use ratatui::crossterm::event::{KeyCode, KeyEvent};
        let mut model = model();
        for code in [KeyCode::Down, KeyCode::Char('p'), KeyCode::Char('/'), KeyCode::Char('x')] {
            model.key(KeyEvent::from(code));
        }
        let shown = text(&drawn(&model, 80, 24, false));
        assert!(
            shown.contains("HELD") && shown.contains("/x_") && !shown.contains("token-in-url"),
            "{shown}"
        );
        model.trouble = Some("the sensor went away".into());
        assert!(text(&drawn(&model, 120, 24, false)).contains("the sensor went away"));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [-0.0, 0.5, 99.0, 950.0, 12_345.0, 4_560_000.0, 7.8e12].map(short);
        assert_eq!(shown, ["0", "0.5", "99", "950", "12.3k", "4.6M", "7.8T"]);
    }
}
