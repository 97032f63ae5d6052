//! One alert a line, for people. The order of the columns is a promise; two spaces part them, `-` is nothing.
//!
//! `time SEVERITY rule  principal  client -> server  METHOD route status  what  ×count  tok=fingerprint`

use std::fmt::Write as _;

use crate::alert::Alert;
use crate::detect::{Severity, text};
use crate::render::shown;

/// Appends the line. No control character reaches it, whatever the traffic held, but colour if asked for.
pub fn line(alert: &Alert, colour: bool, out: &mut String) {
    let finding = &alert.finding;
    let start = out.len();
    out.push_str(&shown::timestamp(alert.last_seen));
    let severity = alert.severity.as_str().to_ascii_uppercase();
    if colour {
        let _ =
            write!(out, " {}{severity:<8}\x1b[0m \x1b[1m{}\x1b[0m", paint(alert.severity), finding.rule.id);
    } else {
        let _ = write!(out, " {severity:<8} {}", finding.rule.id);
    }
    let principal = finding.principal.as_ref().map_or_else(|| "-".to_owned(), shown::principal);
    let _ = write!(out, "  {principal}  ");
    match &finding.scene {
        Some(scene) => {
            match shown::client(scene) {
                Some(client) => write!(out, "{client}"),
                None => write!(out, "-"),
            }
            .unwrap_or_default();
            let _ = write!(out, " -> {}  ", shown::server(alert, scene));
            plain(&scene.route, out);
            match scene.status {
                Some(status) => write!(out, " {status}  "),
                None => write!(out, " -  "),
            }
            .unwrap_or_default();
        }
        None => out.push_str("-  -  "),
    }
    plain(&finding.brief, out);
    let _ = write!(out, "  ×{}", alert.count);
    match finding.token {
        Some(token) => write!(out, "  tok={token:.16}"),
        None => write!(out, "  tok=-"),
    }
    .unwrap_or_default();
    debug_assert!(!out.get(start..).unwrap_or_default().contains('\n'), "one line");
    out.push('\n');
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
    use crate::alert::staging::alert;
    use crate::detect::{Scene, rules};

    fn shown(alert: &Alert) -> String {
        let mut out = String::new();
        line(alert, false, &mut out);
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
        alert.finding.principal.as_mut().unwrap().subject = "\x1b]0;x\x07".into();
        alert.place.as_mut().unwrap().name = "\x1b[31m".into();
        let line = shown(&alert);
        assert!(!line.trim_end_matches('\n').chars().any(text::is_unprintable), "{line:?}");
    }

    #[test]
    fn colour_changes_nothing_else() {
        let alert = alert();
        let mut coloured = String::new();
        line(&alert, true, &mut coloured);
        for code in ["\x1b[1;37;41m", "\x1b[0m", "\x1b[1m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, shown(&alert));
    }
}
