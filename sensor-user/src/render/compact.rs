//! One event a line, for people. The order of the columns is a promise; two spaces part them, `-` is nothing.
//!
//! `time SEVERITY rule  principal  client -> server  METHOD route status  what  ×count  tok=fingerprint`
//!
//! An incident has the columns of an alert: the first of each list and how many more, and its id at the end.

use std::fmt::Write as _;

use crate::detect::{Severity, text};
use crate::render::{Kind, Told, shown};

/// Digits of a token's fingerprint: 64 bits, as much as a person compares.
const DIGITS: usize = 16;

/// Appends the line. No control character reaches it, whatever the traffic held, but colour if asked for.
pub fn line(told: &Told, colour: bool, out: &mut String) {
    let start = out.len();
    out.push_str(&shown::timestamp_ms(told.time_ms));
    let severity = told.severity.as_str().to_ascii_uppercase();
    // Incidents are not painted: what is bold are their alerts.
    let colour = colour && told.kind == Kind::Alert;
    if colour {
        let _ = write!(out, " {}{severity:<8}\x1b[0m \x1b[1m", paint(told.severity));
    } else {
        let _ = write!(out, " {severity:<8} ");
    }
    plain(told.rule(), out);
    out.push_str(if colour { "\x1b[0m  " } else { "  " });
    match told.kind {
        Kind::Alert => alert(told, out),
        Kind::Incident => incident(told, out),
    }
    debug_assert!(!out.get(start..).unwrap_or_default().contains('\n'), "one line");
    out.push('\n');
}

fn alert(told: &Told, out: &mut String) {
    match told.principal_name() {
        Some(name) => out.push_str(&name),
        None => out.push('-'),
    }
    out.push_str("  ");
    if told.at("/evidences/0").is_some() {
        plain(told.address().unwrap_or("-"), out);
        out.push_str(" -> ");
        plain(told.workload().unwrap_or("-"), out);
        out.push_str("  ");
        plain(told.text("/evidences/0/api/operation").unwrap_or("-"), out);
        match told.number("/evidences/0/http_response/code") {
            Some(status) => write!(out, " {status}  "),
            None => write!(out, " -  "),
        }
        .unwrap_or_default();
    } else {
        out.push_str("-  -  ");
    }
    plain(told.text("/finding_info/desc").unwrap_or_default(), out);
    let _ = write!(out, "  ×{}  tok=", told.number("/count").unwrap_or(1));
    match told.token() {
        Some(token) => plain(token.get(..DIGITS).unwrap_or(token), out),
        None => out.push('-'),
    }
}

fn incident(told: &Told, out: &mut String) {
    let names: Vec<String> = told.observables(USER).map(|subject| shown::name(subject, None, true)).collect();
    column(names.iter().map(String::as_str), out);
    out.push_str("  ");
    column(told.observables(ADDRESS), out);
    out.push_str(" -> ");
    column(told.texts("/unmapped/services"), out);
    out.push_str("  ");
    column(told.texts("/unmapped/routes"), out);
    let verb = match told.activity() {
        "create" => "begun",
        "close" if told.at("/unmapped/merged_into").is_some() => "merged",
        "close" => "over",
        _ => "worse",
    };
    let _ = write!(out, " -  {verb}: ");
    plain(told.title(), out);
    let accepted = told.number("/unmapped/accepted").unwrap_or(0);
    let _ = write!(out, ", {accepted} accepted  ×{}  inc=", told.number("/count").unwrap_or(1));
    plain(told.id(), out);
}

/// The name of observables that are principals.
pub(super) const USER: &str = "evidences.actor.user.uid";
/// The name of observables that are addresses.
pub(super) const ADDRESS: &str = "evidences.src_endpoint.ip";
/// The name of observables that are tokens.
pub(super) const TOKEN: &str = "evidences.actor.session.uid";

/// The first of a list and how many more there are.
fn column<'a>(mut parts: impl Iterator<Item = &'a str>, out: &mut String) {
    plain(parts.next().unwrap_or("-"), out);
    if let more @ 1.. = parts.count() {
        let _ = write!(out, "+{more}");
    }
}

const fn paint(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "\x1b[1;37;41m",
        Severity::High => "\x1b[1;31m",
        Severity::Medium => "\x1b[33m",
        Severity::Low => "\x1b[36m",
    }
}

fn plain(words: &str, out: &mut String) {
    for c in words.chars() {
        text::push_char(out, c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::staging::{alert, incident};
    use crate::alert::{Alert, Event, Incident};
    use crate::detect::{Scene, rules};

    fn shown(alert: &Alert) -> String {
        let mut out = String::new();
        line(&Told::of(&Event::Alert(Box::new(alert.clone())), None, None), false, &mut out);
        out
    }

    fn of_incident(incident: &Incident, colour: bool) -> String {
        let mut out = String::new();
        line(&Told::of(&Event::Incident(Box::new(incident.clone())), None, None), colour, &mut out);
        out
    }

    #[test]
    fn has_the_promised_form() {
        let mut alert = alert();
        alert.finding.rule = &rules::forged_token_accepted::ABOUT;
        alert.finding.scene.as_mut().unwrap().route = "GET /orders/{id}".into();
        assert_eq!(
            shown(&alert),
            "2026-11-21T18:04:05.123Z CRITICAL forged-token-accepted  alice@idp  10.0.3.7 -> shop/orders-7f9c  \
             GET /orders/{id} 200  alg \"none\" accepted  ×1  tok=2af894fe72f36e3c\n"
        );
    }

    #[test]
    fn what_is_unknown_is_a_dash() {
        let mut alert = alert();
        alert.place = None;
        alert.severity = Severity::Low;
        alert.finding.principal = None;
        alert.finding.token = None;
        alert.finding.scene.as_mut().unwrap().status = None;
        assert_eq!(
            shown(&alert),
            "2026-11-21T18:04:05.123Z LOW      alg-none  -  10.0.3.7 -> 10.0.0.1:8080  \
             GET /orders/{id} -  alg \"none\" accepted  ×1  tok=-\n"
        );
        alert.finding.scene.as_mut().unwrap().endpoints.client = Scene::NOBODY;
        assert!(shown(&alert).contains("  - -> 10.0.0.1:8080  "), "it is about the service");
        alert.finding.scene = None;
        assert!(shown(&alert).contains("alg-none  -  -  -  alg"));
    }

    #[test]
    fn traffic_cannot_paint_the_terminal() {
        let mut alert = alert();
        alert.finding.scene.as_mut().unwrap().route = "GET /\x1b[2J\r\n\u{202e}".into();
        alert.finding.brief = "\x07\n".into();
        let principal = alert.finding.principal.as_mut().unwrap();
        (principal.subject, principal.issuer) =
            ("\x1b]0;x\x07".into(), Some("https://a\u{202e} b\n/".into()));
        alert.place.as_mut().unwrap().name = "\x1b[31m".into();
        let line = shown(&alert);
        assert!(!line.trim_end_matches('\n').chars().any(text::is_unprintable), "{line:?}");
    }

    #[test]
    fn colour_changes_nothing_else() {
        let alert = alert();
        let mut coloured = String::new();
        line(&Told::of(&Event::Alert(Box::new(alert.clone())), None, None), true, &mut coloured);
        for code in ["\x1b[1;37;41m", "\x1b[0m", "\x1b[1m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, shown(&alert));
    }

    #[test]
    fn an_incident_has_the_columns_of_an_alert() {
        let mut told = incident();
        told.routes.push("GET /\x1b[2J\n".into());
        told.routes.swap(0, 2);
        let out = of_incident(&told, false);
        assert!(out.contains(" HIGH     incident  alice  10.0.3.7 -> 10.0.0.1:8080  GET /"), "{out}");
        assert!(out.contains("+2 -  begun: 2 alerts of alg-none, 1 accepted  ×2  inc=01"), "{out}");
        assert_eq!(out.chars().filter(|c| c.is_control()).collect::<String>(), "\n");
        assert_eq!(of_incident(&told, true), out);
    }
}
