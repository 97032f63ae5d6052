//! The answer in words: a few lines that fit a ticket.

use std::fmt::Write as _;

use super::{List, Trace};
use crate::capture::Time;
use crate::render::shown;
use crate::store::totals::Totals;
use crate::telemetry::printable;

/// RFC 3339 in UTC with milliseconds.
pub(super) fn time(ms: u64) -> String {
    shown::timestamp(Time(ms.saturating_mul(1_000_000)))
}

/// Answers by kind, in the order in which they are shown.
pub(super) fn answers(sum: &Totals) -> [(&'static str, u64); 6] {
    [
        ("ok", sum.ok),
        ("redirected", sum.redirected),
        ("refused", sum.refused),
        ("failed", sum.failed),
        ("errors", sum.errors),
        ("unanswered", sum.unanswered()),
    ]
}

/// The answer as text.
#[must_use]
pub fn compact(trace: &Trace) -> String {
    let mut out = format!("{} {}", trace.kind, printable(&trace.name));
    match trace.verified {
        Some(true) => out.push_str("  (verified)"),
        Some(false) => out.push_str("  (claimed, not verified)"),
        None => {}
    }
    out.push('\n');
    let sum = &trace.totals.0;
    if sum.count == 0 {
        out.push_str("no use of it is known\n");
    } else {
        let _ = writeln!(out, "first {}  last {}", time(sum.first_ms), time(sum.last_ms));
        let _ = writeln!(
            out,
            "{}  {} in  {} out",
            requests(sum.count),
            bytes(sum.request_bytes),
            bytes(sum.response_bytes)
        );
        let said: Vec<String> = answers(sum)
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {}", number(*count)))
            .collect();
        let _ = writeln!(out, "answers: {}", said.join(", "));
    }
    if trace.claimed > 0 {
        let _ = writeln!(out, "left out: {} by tokens that only claim this name", requests(trace.claimed));
    }
    for (what, list) in [
        ("services", &trace.services),
        ("routes", &trace.routes),
        ("addresses", &trace.addresses),
        ("principals", &trace.principals),
        ("tokens", &trace.tokens),
    ] {
        lines(what, list, &mut out);
    }
    alerts(trace, &mut out);
    for remark in &trace.remarks {
        let _ = writeln!(out, "\nnote: {remark}");
    }
    out
}

fn lines(what: &str, list: &List, out: &mut String) {
    if list.items.is_empty() {
        return;
    }
    let about = if list.about { "at least " } else { "" };
    let _ = writeln!(out, "\n{what} ({about}{})", number(list.items.len() as u64 + list.more));
    let width = list.items.iter().map(|item| item.name.chars().count()).max().unwrap_or(0).min(60);
    for item in &list.items {
        let sum = &item.totals.0;
        let _ = write!(
            out,
            "  {:width$}  {:>9}  {} to {}  {} out",
            printable(&item.name),
            number(sum.count),
            time(sum.first_ms),
            time(sum.last_ms),
            bytes(sum.response_bytes),
        );
        if sum.refused > 0 {
            let _ = write!(out, "  {} refused", number(sum.refused));
        }
        if let Some(note) = &item.note {
            let _ = write!(out, "  {}", printable(note));
        }
        out.push('\n');
    }
    if list.more > 0 {
        let _ = writeln!(out, "  and {about}{} more", number(list.more));
    }
}

fn alerts(trace: &Trace, out: &mut String) {
    if trace.alerts.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nalerts ({})", number(trace.alerts.len() as u64 + trace.more_alerts));
    for alert in &trace.alerts {
        let severity = match alert.severity_id {
            5 => "CRITICAL",
            4 => "HIGH",
            3 => "MEDIUM",
            _ => "LOW",
        };
        let _ = writeln!(
            out,
            "  {}  {severity:8}  {}  ×{}  {}  {}",
            time(alert.time_ms),
            printable(&alert.rule),
            number(alert.count),
            printable(&alert.message),
            alert.id
        );
    }
    if trace.more_alerts > 0 {
        let _ = writeln!(out, "  and {} more", number(trace.more_alerts));
    }
}

fn requests(count: u64) -> String {
    format!("{} request{}", number(count), if count == 1 { "" } else { "s" })
}

/// `1,234,567`.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `999 B`, `1.2 MB`: powers of a thousand, as disks and links are measured.
fn bytes(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut whole = bytes;
    let mut tenth = 0;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        if whole < 1000 {
            break;
        }
        (tenth, whole, unit) = (whole % 1000 / 100, whole / 1000, next);
    }
    format!("{whole}.{tenth} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown = [0, 999, 1000, 1_234_567].map(number);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        let shown = [0, 999, 1000, 1_250_000, 44_900_000_000, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.2 MB", "44.9 GB", "18.4 EB"]);
    }
}
