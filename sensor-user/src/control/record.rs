//! The lines of a stream: events, and what is said about the stream itself.
//!
//! Plainly an event is its OCSF object. With `envelope=true` it comes with its number, so that a reader can go on behind
//! it: `{"sequence":7,"time":…,"severity":"high","kind":"alert","event":{…}}`. Gaps are `{"gap":{"from":3,"to":5}}`, both
//! ends missing, or `{"gap":{"missed":12}}` where there are no numbers; `{"position":9}` says that nothing up to 9 is
//! still to come. An empty line means nothing: it shows that both ends are there.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::detect::Severity;
use crate::render::{Kind, Told};

/// One line.
#[derive(Clone, Debug)]
pub enum Record {
    /// An alert or incident.
    Event(Arc<Told>),
    /// An event without a number: an exchange, or one whose envelope was not asked for.
    Plain(Box<str>),
    /// Numbers that are lost to this reader.
    Gap(Range<u64>),
    /// Exchanges that it missed.
    Missed(u64),
    /// Every event up to this number was told, or was not wanted.
    Position(u64),
    /// Nothing.
    Idle,
}

/// What stands before an event in its envelope, and after it.
const EVENT: &str = ",\"event\":";

impl Record {
    /// Appends the line.
    pub fn write(&self, envelope: bool, out: &mut String) {
        match self {
            Self::Event(told) if envelope => {
                let kind = if told.kind == Kind::Alert { "alert" } else { "incident" };
                let severity = told.severity.as_str();
                let _ = write!(
                    out,
                    "{{\"sequence\":{},\"time\":{},\"severity\":\"{severity}\",\"kind\":\"{kind}\"{EVENT}",
                    told.sequence, told.time_ms,
                );
                push(told.json(), out);
                out.push('}');
            }
            Self::Event(told) => push(told.json(), out),
            Self::Plain(json) => push(json, out),
            Self::Gap(lost) => {
                let _ = write!(
                    out,
                    "{{\"gap\":{{\"from\":{},\"to\":{}}}}}",
                    lost.start,
                    lost.end.saturating_sub(1)
                );
            }
            Self::Missed(count) => _ = write!(out, "{{\"gap\":{{\"missed\":{count}}}}}"),
            Self::Position(through) if envelope => _ = write!(out, "{{\"position\":{through}}}"),
            Self::Position(_) | Self::Idle => {}
        }
        out.push('\n');
    }

    /// Reads a line. None if it is no line of a stream.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Some(Self::Idle);
        }
        if line.starts_with("{\"sequence\":") {
            return enveloped(line);
        }
        if line.starts_with("{\"gap\":") || line.starts_with("{\"position\":") {
            return serde_json::from_str::<About>(line).ok()?.record();
        }
        let is_object = serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object());
        is_object.then(|| Self::Plain(line.into()))
    }
}

/// A line break within JSON can only be a blank between its words: as a space it means the same, and ends no line.
fn push(json: &str, out: &mut String) {
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some() {
        out.extend(json.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
    } else {
        out.push_str(json);
    }
}

/// What is said about the stream.
#[derive(Deserialize)]
struct About {
    gap: Option<Gap>,
    position: Option<u64>,
}

#[derive(Deserialize)]
struct Gap {
    from: Option<u64>,
    to: Option<u64>,
    missed: Option<u64>,
}

impl About {
    fn record(self) -> Option<Record> {
        match (self.gap, self.position) {
            (Some(Gap { from: Some(from), to: Some(to), .. }), _) if from <= to => {
                Some(Record::Gap(from..to.checked_add(1)?))
            }
            (Some(Gap { missed: Some(missed), .. }), _) => Some(Record::Missed(missed)),
            (None, Some(position)) => Some(Record::Position(position)),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Head {
    sequence: u64,
    time: u64,
    severity: String,
    kind: String,
}

fn enveloped(line: &str) -> Option<Record> {
    let (head, rest) = line.split_once(EVENT)?;
    let event = rest.strip_suffix('}')?;
    let head: Head = serde_json::from_str(&format!("{head}}}")).ok()?;
    let kind = match head.kind.as_str() {
        "alert" => Kind::Alert,
        "incident" => Kind::Incident,
        _ => return None,
    };
    let told = Told::new(head.sequence, head.time, Severity::parse(&head.severity)?, kind, event.into());
    told.value().is_object().then(|| Record::Event(Arc::new(told)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(record: &Record) -> Record {
        let mut line = String::new();
        record.write(true, &mut line);
        assert_eq!(line.matches('\n').count(), 1);
        Record::read(&line).unwrap()
    }

    #[test]
    fn every_record_reads_back() {
        let pretty = Told::new(7, 9, Severity::High, Kind::Incident, "{\n\"a\": 1\r\n}".into());
        assert!(matches!(there_and_back(&Record::Event(Arc::new(pretty))), Record::Event(_)));
        let told = Told::new(7, 9, Severity::High, Kind::Incident, r#"{"a":",\"event\":{}}"}"#.into());
        let Record::Event(back) = there_and_back(&Record::Event(Arc::new(told))) else { panic!() };
        assert_eq!(
            (back.sequence, back.time_ms, back.severity, back.kind),
            (7, 9, Severity::High, Kind::Incident)
        );
        assert_eq!(back.json(), r#"{"a":",\"event\":{}}"}"#);
        assert!(matches!(there_and_back(&Record::Gap(3..6)), Record::Gap(lost) if lost == (3..6)));
        assert!(matches!(there_and_back(&Record::Missed(4)), Record::Missed(4)));
        assert!(matches!(there_and_back(&Record::Position(4)), Record::Position(4)));
        assert!(matches!(there_and_back(&Record::Idle), Record::Idle));
        assert!(matches!(there_and_back(&Record::Plain("{}".into())), Record::Plain(_)));
    }

    #[test]
    fn without_envelopes_an_event_is_its_object_and_a_position_is_an_empty_line() {
        let told = Arc::new(Told::new(7, 9, Severity::Low, Kind::Alert, "{\"a\":1}".into()));
        let mut lines = String::new();
        for record in [Record::Event(told), Record::Position(7), Record::Gap(2..3)] {
            record.write(false, &mut lines);
        }
        assert_eq!(lines, "{\"a\":1}\n\n{\"gap\":{\"from\":2,\"to\":2}}\n");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,80}", head in prop::sample::select(vec!["", "{\"sequence\":", "{\"gap\":", "{\"position\":"])) {
            let _ = Record::read(&format!("{head}{line}"));
        }
    }
}
