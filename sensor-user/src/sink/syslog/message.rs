//! One event as a message of RFC 5424: header, structured data, text.
//!
//! Whatever the event holds, a message is one line, its structured data is valid, and it is no longer than it may be.
//! Text that is too long is cut, and the structured data says so. JSON is written in ASCII, so that it needs no byte
//! order mark, which JSON must not have (RFC 8259 section 8.1); a compact line has one, as section 6.4 wants it of
//! UTF-8; CEF has none, as its readers look for `CEF:`.

use std::fmt::Write as _;

use crate::detect::{Severity, text};
use crate::render::{Format, Kind, Told, shown};

/// Longest value of structured data, in characters.
const MAX_VALUE: usize = 200;

/// What the structured data holds beside facts: ` truncated="yes"`, `]` and `[meta sequenceId="2147483647"] `.
const MARKS: usize = 64;

/// What stands before the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Header and structured data of RFC 5424.
    Rfc5424,
    /// What syslog(3) writes, `<PRI>Nov 21 18:04:05 APP: `: the only thing that journald and a usual rsyslog read on
    /// `/dev/log`. They take the time and the host by themselves. Nothing tells of a text that was cut.
    Local,
}

/// How messages are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// What stands before the text.
    pub syntax: Syntax,
    /// 0 to 23 (section 6.2.1).
    pub facility: u8,
    /// APP-NAME: up to 48 printable characters of ASCII.
    pub app: String,
    /// SD-ID of our element; none for no structured data.
    pub element: Option<String>,
    /// The form of the text: one line an event.
    pub format: Format,
    /// Longest message, in bytes.
    pub max_bytes: usize,
}

/// The severity of section 6.2.1: critical, error, warning, notice.
#[must_use]
pub const fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
    }
}

impl Form {
    /// The message.
    #[must_use]
    pub fn message(&self, told: &Told, node: &str) -> String {
        let mut body = String::new();
        self.format.told(told, false, &mut body);
        let body = match self.format {
            Format::Ocsf | Format::Ecs | Format::Falco => ascii(body.trim_end_matches('\n')),
            Format::Compact if self.syntax == Syntax::Rfc5424 => {
                format!("\u{feff}{}", body.trim_end_matches('\n'))
            }
            Format::Compact | Format::Cef | Format::Yaml => body.trim_end_matches('\n').replace('\n', " "),
        };
        if self.syntax == Syntax::Local {
            return self.local(told, &body);
        }
        let mut out = self.header(told, node);
        let room = (self.max_bytes / 2).min(self.max_bytes.saturating_sub(out.len() + MARKS));
        let whole = self.data(told, room, false);
        if out.len() + whole.len() + 1 + body.len() <= self.max_bytes {
            out.push_str(&whole);
            out.push(' ');
            out.push_str(&body);
            return out;
        }
        // Longer by the mark, and otherwise the same: what did not fit beside `whole` does not fit beside this.
        out.push_str(&self.data(told, room, true));
        out.push(' ');
        let room = self.max_bytes.saturating_sub(out.len());
        out.push_str(body.get(..body.floor_char_boundary(room)).unwrap_or_default());
        out
    }

    fn local(&self, told: &Told, body: &str) -> String {
        let time = shown::syslog_time(told.time_ms);
        let mut out = format!("<{}>{time} {}: ", self.priority(told), name(&self.app, 32));
        let room = self.max_bytes.saturating_sub(out.len());
        out.push_str(body.get(..body.floor_char_boundary(room)).unwrap_or_default());
        out
    }

    /// Section 6.2.1.
    fn priority(&self, told: &Told) -> u8 {
        self.facility * 8 + severity(told.severity)
    }

    /// `<PRI>1 TIME HOST APP - RULE `.
    fn header(&self, told: &Told, node: &str) -> String {
        let pri = self.priority(told);
        let time = shown::timestamp_ms(told.time_ms);
        let (host, id) = (name(node, 255), name(told.rule(), 32));
        format!("<{pri}>1 {time} {host} {} - {id} ", name(&self.app, 48))
    }

    /// The structured data: the most telling facts first, as many as `room` bytes hold, and the marks.
    fn data(&self, told: &Told, room: usize, cut: bool) -> String {
        let Some(element) = &self.element else { return "-".into() };
        let mut out = format!("[{element}");
        for (name, value) in facts(told) {
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            let mut pair = format!(" {name}=\"");
            value.chars().take(MAX_VALUE).for_each(|c| escape(c, &mut pair));
            pair.push('"');
            if out.len() + pair.len() < room {
                out.push_str(&pair);
            }
        }
        if cut {
            out.push_str(" truncated=\"yes\"");
        }
        out.push(']');
        // Section 7.3.1 ends at 2^31 - 1.
        if let Some(sequence) = told.number("/metadata/sequence").filter(|n| (1..=0x7fff_ffff).contains(n)) {
            let _ = write!(out, "[meta sequenceId=\"{sequence}\"]");
        }
        out
    }
}

fn facts(told: &Told) -> [(&'static str, Option<String>); 14] {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let number = |place| told.number(place).map(|n| n.to_string());
    [
        ("id", text(Some(told.id()))),
        ("event", text(Some(told.event_id()))),
        ("severity", Some(told.severity.as_str().to_ascii_lowercase())),
        ("rule", text(Some(told.rule()))),
        ("activity", text(Some(told.activity()))),
        ("principal", told.principal_name()),
        ("client", text(told.address())),
        ("workload", text(told.workload())),
        ("route", text(told.text("/evidences/0/api/operation"))),
        ("status", number("/evidences/0/http_response/code")),
        ("count", number("/count")),
        ("risk", number("/risk_score")),
        ("incident", text(told.text("/metadata/correlation_uid").filter(|_| told.kind == Kind::Alert))),
        ("token", text(told.token())),
    ]
}

/// Section 6.3.3: `"`, `\` and `]` are escaped. What acts on a terminal is written out first.
fn escape(c: char, out: &mut String) {
    if text::is_unprintable(c) {
        out.push('\\');
        text::push_char(out, c);
    } else {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
}

/// A field of the header: printable ASCII without blanks, or `-`.
fn name(words: &str, max: usize) -> String {
    let fits = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let name: String = words.chars().take(max).map(fits).collect();
    if name.is_empty() { "-".into() } else { name }
}

/// JSON in ASCII. Outside of strings it has nothing else.
fn ascii(json: &str) -> String {
    if json.is_ascii() {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::Event;
    use crate::alert::staging::{alert, event, incident};
    use crate::render::Node;

    fn form(format: Format) -> Form {
        let element = Some("tokenscope@32473".into());
        let (syntax, app) = (Syntax::Rfc5424, "tokenscope".into());
        Form { syntax, facility: 16, app, element, format, max_bytes: 8192 }
    }

    fn told(event: &Event) -> Told {
        Told::of(event, Some(7), Some(&Node::named("node-1")))
    }

    /// Reads a message by the grammar of section 6: header fields, elements with their pairs, text.
    type Elements = Vec<(String, Vec<(String, String)>)>;
    fn read(message: &str) -> Option<(Vec<String>, Elements, String)> {
        let mut head: Vec<String> = message.splitn(7, ' ').map(str::to_owned).collect();
        let rest = head.pop()?;
        let mut chars = rest.chars().peekable();
        let mut elements = Vec::new();
        if chars.peek() == Some(&'-') {
            chars.next();
        }
        while chars.peek() == Some(&'[') {
            chars.next();
            let (mut id, mut pairs) = (String::new(), Vec::new());
            while !matches!(chars.peek()?, ' ' | ']') {
                id.push(chars.next()?);
            }
            while chars.next()? == ' ' {
                let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=')).collect();
                (chars.next()? == '=' && chars.next()? == '"').then_some(())?;
                let mut value = String::new();
                loop {
                    match chars.next()? {
                        '"' => break,
                        ']' => return None,
                        '\\' => value.push(chars.next().filter(|c| matches!(c, '"' | '\\' | ']'))?),
                        c => value.push(c),
                    }
                }
                pairs.push((name, value));
            }
            elements.push((id, pairs));
        }
        (chars.next()? == ' ').then_some(())?;
        Some((head, elements, chars.collect()))
    }

    #[test]
    fn an_alert_has_every_field() {
        let message = form(Format::Ocsf).message(&told(&event()), "node-1");
        let (head, elements, text) = read(&message).unwrap();
        let expected = ["<130>1", "2026-11-21T18:04:05.123Z", "node-1", "tokenscope", "-", "alg-none"];
        assert_eq!(head, expected);
        assert_eq!(elements[0].0, "tokenscope@32473");
        let pair = |name: &str| elements[0].1.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(pair("principal"), Some("alice@idp"));
        assert_eq!(pair("client"), Some("10.0.3.7"));
        assert_eq!(pair("truncated"), None);
        assert_eq!(elements[1], ("meta".into(), vec![("sequenceId".into(), "7".into())]));
        assert_eq!(text, told(&event()).json(), "it is ASCII already");
    }

    #[test]
    fn text_has_a_mark_where_it_must_and_none_where_it_must_not() {
        let mut alert = alert();
        alert.finding.message = "caf\u{e9} \u{1f600}".into();
        let told = told(&Event::Alert(Box::new(alert)));
        let text = |format| read(&form(format).message(&told, "n")).unwrap().2;
        assert!(text(Format::Compact).starts_with('\u{feff}'));
        assert!(text(Format::Cef).starts_with("CEF:0|"));
        let json = text(Format::Ocsf);
        assert!(json.is_ascii() && json.contains("caf\\u00e9 \\ud83d\\ude00"));
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(&back, told.value());
    }

    #[test]
    fn on_this_host_a_message_is_what_syslog_3_writes() {
        let local = |format, max_bytes| Form { syntax: Syntax::Local, max_bytes, ..form(format) };
        let told = told(&event());
        let message = local(Format::Ocsf, 8192).message(&told, "node-1");
        assert_eq!(message, format!("<130>Nov 21 18:04:05 tokenscope: {}", told.json()));
        assert_eq!(local(Format::Ocsf, 480).message(&told, "node-1"), message[..480]);
        let compact = local(Format::Compact, 8192).message(&told, "node-1");
        assert!(compact.contains("tokenscope: 2026-11-21T18:04:05.123Z CRITICAL"), "{compact}");
    }

    #[test]
    fn no_severity_is_lost_on_the_way() {
        use Severity::{Critical, High, Low, Medium};
        assert_eq!([Critical, High, Medium, Low].map(severity), [2, 3, 4, 5]);
    }

    #[test]
    fn without_an_element_there_is_a_dash() {
        let form = Form { element: None, ..form(Format::Compact) };
        let message = form.message(&told(&Event::Incident(Box::new(incident()))), "");
        assert!(
            message.starts_with("<131>1 ") && message.contains(" - tokenscope - incident - \u{feff}"),
            "{message}"
        );
    }

    proptest! {
        #[test]
        fn whatever_an_event_holds_a_message_is_one_valid_line(
            subject in any::<String>(),
            brief in "[\\]\\\\\"\n\r a-z\u{202e}]{0,40}",
            node in prop_oneof![any::<String>(), "[a-z]{250,300}"],
            max_bytes in 480_usize..3000,
            long in 0_usize..3000,
        ) {
            let mut alert = alert();
            alert.finding.principal.as_mut().unwrap().subject = subject.into();
            alert.finding.message = format!("{brief}{}", "\u{e9}".repeat(long));
            alert.place.as_mut().unwrap().name = brief.clone();
            alert.finding.brief = brief;
            let told = told(&Event::Alert(Box::new(alert)));
            for format in [Format::Ocsf, Format::Compact, Format::Cef, Format::Falco] {
                let form = Form { max_bytes, ..form(format) };
                let message = form.message(&told, &node);
                prop_assert!(message.len() <= max_bytes, "{} > {max_bytes}", message.len());
                prop_assert!(!message.contains(['\n', '\r', '\0']));
                let Some((head, elements, text)) = read(&message) else { return Err(TestCaseError::fail(message)) };
                prop_assert_eq!(head.len(), 6);
                let cut = elements[0].1.iter().any(|(name, _)| name == "truncated");
                let whole = Form { max_bytes: usize::MAX, ..form }.message(&told, &node);
                let whole = read(&whole).unwrap().2;
                prop_assert!(whole.starts_with(&text));
                prop_assert_eq!(cut, whole.len() > text.len(), "{} {}", whole, text);
            }
        }
    }
}
