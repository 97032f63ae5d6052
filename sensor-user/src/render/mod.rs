//! The forms that alerts and incidents take: OCSF, and what is made of it. Pure.
//!
//! The OCSF object is made of an event once ([`told`]). Every other form is made of that object and of nothing else, so
//! that what is told live, replayed, followed and looked up later is the same to the byte.

pub mod cef;
pub mod compact;
pub mod ecs;
pub mod exchange;
pub mod falco;
pub mod incident;
pub mod ocsf;
pub mod privacy;
pub mod shown;
pub mod told;
pub mod yaml;

#[cfg(test)]
#[path = "../../../tests/src/ocsf.rs"]
#[allow(unreachable_pub, reason = "the end-to-end tests' validator, borrowed")]
pub(crate) mod validator;

pub use privacy::Privacy;
pub use told::{Kind, Node, Told};

use crate::alert::Event;

/// The form of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    #[default]
    Compact,
    /// One OCSF object a line. `json` and `ocsf` are the same.
    Ocsf,
    /// The OCSF object as a YAML document.
    Yaml,
    /// One object of the Elastic Common Schema a line.
    Ecs,
    /// One object as Falco writes it a line.
    Falco,
    /// One line of the Common Event Format.
    Cef,
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 6] = [Self::Compact, Self::Ocsf, Self::Yaml, Self::Ecs, Self::Falco, Self::Cef];

    /// The format of this name on the command line.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "compact" => Some(Self::Compact),
            "json" | "ocsf" => Some(Self::Ocsf),
            "yaml" => Some(Self::Yaml),
            "ecs" => Some(Self::Ecs),
            "falco" => Some(Self::Falco),
            "cef" => Some(Self::Cef),
            _ => None,
        }
    }

    /// Whether every event is one line of it.
    #[must_use]
    pub const fn is_line(self) -> bool {
        !matches!(self, Self::Yaml)
    }

    /// Appends the event in this form, with the newline that ends it.
    pub fn render(self, event: &Event, colour: bool, out: &mut String) {
        self.told(&Told::of(event, None, None), colour, out);
    }

    /// Appends an event as it was told in this form, with the newline that ends it.
    pub fn told(self, event: &Told, colour: bool, out: &mut String) {
        match self {
            Self::Compact => compact::line(event, colour, out),
            Self::Ocsf => verbatim(event.json(), out),
            Self::Yaml => yaml::document(event.value(), out),
            Self::Ecs => ecs::line(event, out),
            Self::Falco => falco::line(event, out),
            Self::Cef => cef::line(event, out),
        }
    }
}

/// A line break within JSON can only be a blank between its words: as a space it means the same.
fn verbatim(json: &str, out: &mut String) {
    if json.contains(['\n', '\r']) {
        out.extend(json.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
    } else {
        out.push_str(json);
    }
    out.push('\n');
}

/// Our event types have string keys and no fallible parts: they always serialise.
fn json_line(event: &impl serde::Serialize, out: &mut String) {
    out.push_str(&serde_json::to_string(event).unwrap_or_default());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::alert::{AlertSettings, Desk};
    use crate::detect::staging::{Stage, token, uses};
    use crate::detect::{DetectSettings, Detector};
    use crate::token::facts::Flaws;
    use crate::token::{Signature, Token};

    /// Everything that any sink says about one forged request, in every form.
    fn shown(stage: &Stage) -> (usize, String) {
        let forged = Token {
            flaws: Flaws::ALG_NONE,
            signature: Signature::Absent,
            ..token(1).of_profile(|p| p.alg = Some("none".into()))
        };
        let (mut findings, mut alerts, mut out) = (Vec::new(), Vec::new(), String::new());
        Detector::new(DetectSettings::default()).judge(
            &stage.exchange,
            &uses([forged]),
            stage.exchange.at,
            &mut findings,
        );
        let mut desk = Desk::new(AlertSettings::default());
        for finding in findings {
            desk.admit(finding, &mut alerts);
        }
        for alert in &alerts {
            for format in Format::ALL {
                format.render(alert, false, &mut out);
            }
            write!(out, "{alert:?}").unwrap();
        }
        (alerts.len(), out)
    }

    proptest! {
        #[test]
        fn no_secret_of_a_request_is_ever_shown(
            payload in "[A-Za-z0-9_-]{20,60}",
            signature in "[A-Za-z0-9_-]{30,80}",
            cookie in "c[a-z0-9]{20,40}",
            query in "q[a-z0-9]{20,40}",
            parameter in "p[a-z0-9]{20,40}",
        ) {
            let raw = format!("eyJhbGciOiJub25lIn0.{payload}.{signature}");
            let stage = Stage::to("GET", &format!("/reset/{raw}/x;jsessionid={parameter}?password={query}&token={raw}"))
                .status(200)
                .header("Authorization", &format!("Bearer {raw}"))
                .header("Cookie", &format!("session={cookie}; jwt={raw}"))
                .header("Referer", &format!("http://a/?t={raw}"))
                .header("User-Agent", &format!("agent ({raw})"));
            let stage = stage.header("Host", &format!("h-{raw}"));
            let (alerts, text) = shown(&stage);
            prop_assert!(alerts > 0);
            for secret in [&raw, &payload, &signature, &cookie, &query, &parameter] {
                prop_assert!(!text.contains(secret.as_str()), "{secret} in {text}");
            }
        }

        #[test]
        fn whatever_the_request_holds_events_stay_sound(
            path in prop::collection::vec(any::<u8>(), 0..300),
            agent in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut stage = Stage::new().status(200).header("User-Agent", "x");
            let request = &mut stage.exchange.request;
            let start = u32::try_from(request.bytes.len()).unwrap();
            request.bytes.extend(path);
            let middle = u32::try_from(request.bytes.len()).unwrap();
            request.bytes.extend(agent);
            request.target = start..middle;
            request.headers.last_mut().unwrap().value = middle..u32::try_from(request.bytes.len()).unwrap();
            let (mut findings, mut alerts) = (Vec::new(), Vec::new());
            let forged = Token { flaws: Flaws::ALG_NONE, signature: Signature::Absent, ..token(1).of_profile(|p| p.alg = Some("none".into())) };
            Detector::new(DetectSettings::default()).judge(&stage.exchange, &uses([forged]), stage.exchange.at, &mut findings);
            let mut desk = Desk::new(AlertSettings::default());
            desk.admit(findings.remove(0), &mut alerts);
            let mut line = String::new();
            Format::Compact.render(&alerts[0], false, &mut line);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(!line.trim_end().chars().any(crate::detect::text::is_unprintable));
            let event = serde_json::to_value(ocsf::DetectionFinding::of(alerts[0].alert().unwrap())).unwrap();
            if let Some(schema) = validator::Schema::find() {
                prop_assert_eq!(schema.problems(&event), Vec::<String>::new());
            }
        }
    }

    /// Any JSON, of any depth that matters, in the places that forms read and in others.
    fn any_event() -> impl Strategy<Value = Told> {
        let text = prop_oneof![any::<String>(), "[|=\\\\\n\r a-z\"\u{2028}\u{202e}\u{1b}]{0,20}"];
        let fields = prop::collection::vec(text, 24);
        let kind = prop_oneof![Just(Kind::Alert), Just(Kind::Incident)];
        (fields, any::<u64>(), kind).prop_map(|(text, number, kind)| {
            let mut texts = text.into_iter();
            let mut next = || texts.next().unwrap_or_default();
            let event = serde_json::json!({
                "message": next(), "desc": next(), "count": number, "activity_id": number % 5,
                "metadata": {"uid": next(), "correlation_uid": next(), "sequence": number,
                    "reporter": {"name": next()}, "product": {"version": next()}},
                "finding_info": {"uid": next(), "title": next(), "desc": next(),
                    "analytic": {"uid": next(), "name": next()}, "attacks": [{"technique": {"uid": next()}}]},
                "evidences": [{"actor": {"user": {"uid": next()}, "session": {"uid": next(), "issuer": next()}},
                    "api": {"operation": next()}, "src_endpoint": {"ip": next()}, "dst_endpoint": {"name": next()},
                    "http_request": {"url": {"path": next()}, "user_agent": next()}, "http_response": {"code": number}}],
                "observables": [{"name": "evidences.actor.user.uid", "value": next()}],
                "unmapped": {"verified": number % 2 == 0, next(): next(), "routes": [next()]},
            });
            Told::new(number, number, crate::detect::Severity::High, kind, event.to_string().into_boxed_str())
        })
    }

    proptest! {
        #[test]
        fn whatever_an_event_holds_a_line_stays_one_line(told in any_event(), colour in any::<bool>()) {
            for format in Format::ALL.into_iter().filter(|format| format.is_line()) {
                let mut line = String::new();
                format.told(&told, colour, &mut line);
                prop_assert_eq!(line.matches(['\n', '\r']).count(), 1, "{:?} {}", format, line);
                prop_assert!(line.ends_with('\n'));
                if matches!(format, Format::Ocsf | Format::Ecs | Format::Falco) {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{:?} {}", format, line);
                }
            }
        }

        #[test]
        fn cef_reads_back(told in any_event()) {
            let mut line = String::new();
            Format::Cef.told(&told, false, &mut line);
            prop_assert!(!line.trim_end_matches('\n').chars().any(crate::detect::text::is_unprintable), "{line:?}");
            let read = cef::reader::read(line.trim_end_matches('\n'));
            let Some((head, pairs)) = read else { return Err(TestCaseError::fail(line)) };
            prop_assert_eq!(head.len(), 7);
            let plain = |text: &str| {
                let mut out = String::new();
                for c in text.chars() {
                    if matches!(c, '\n' | '\r') { out.push(c) } else { crate::detect::text::push_char(&mut out, c) }
                }
                out
            };
            prop_assert_eq!(&head[4], &plain(told.rule()).replace(['\n', '\r'], " "));
            for (key, told) in [("msg", told.message()), ("externalId", told.id())] {
                prop_assert_eq!(pairs.get(key).map_or("", String::as_str), plain(told), "{} in {}", key, line);
            }
        }

        #[test]
        fn nothing_that_is_no_event_breaks_a_form(json in "\\PC{0,60}", broken in any::<bool>()) {
            let json = if broken { json } else { serde_json::json!([json, {"evidences": 7}]).to_string() };
            for kind in [Kind::Alert, Kind::Incident] {
                let told = Told::new(1, 2, crate::detect::Severity::Low, kind, json.clone().into_boxed_str());
                for format in Format::ALL {
                    let mut out = String::new();
                    format.told(&told, false, &mut out);
                    prop_assert!(out.ends_with('\n'));
                }
            }
        }
    }
}
