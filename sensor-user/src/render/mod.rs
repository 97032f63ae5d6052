//! The forms that alerts, incidents and exchanges take: OCSF, and what is made of it. Pure, but for [`stdout`].
//!
//! Rendering is pure; only [`stdout`] and the sinks to come do I/O.

pub mod compact;
pub mod ecs;
pub mod exchange;
pub mod incident;
pub mod ocsf;
pub mod privacy;
pub mod shown;
pub mod stdout;
pub mod told;
pub mod yaml;

#[cfg(test)]
#[path = "../../../tests/src/ocsf.rs"]
#[allow(unreachable_pub, reason = "the end-to-end tests' validator, borrowed")]
pub(crate) mod validator;

pub use privacy::Privacy;
pub use stdout::Stdout;
pub use told::{Kind, Told};

use std::io;

use crate::alert::Event;

/// Where alerts go.
pub trait Sink {
    /// Delivers one alert or incident, or news of one.
    ///
    /// # Errors
    /// When the other end does not take it.
    fn emit(&mut self, event: &Event) -> io::Result<()>;

    /// Delivers what is buffered.
    ///
    /// # Errors
    /// When the other end does not take it.
    fn flush(&mut self) -> io::Result<()>;
}

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
}

impl Format {
    /// The format of this name on the command line.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "compact" => Some(Self::Compact),
            "json" | "ocsf" => Some(Self::Ocsf),
            "yaml" => Some(Self::Yaml),
            "ecs" => Some(Self::Ecs),
            _ => None,
        }
    }

    /// Appends the event in this form, with the newline that ends it.
    pub fn render(self, event: &Event, colour: bool, out: &mut String) {
        match (self, event) {
            (Self::Compact, Event::Alert(alert)) => compact::line(alert, colour, out),
            (Self::Ocsf, Event::Alert(alert)) => json_line(&ocsf::DetectionFinding::of(alert), out),
            (Self::Yaml, Event::Alert(alert)) => yaml::document(&ocsf::DetectionFinding::of(alert), out),
            (Self::Ecs, Event::Alert(alert)) => json_line(&ecs::EcsAlert::of(alert), out),
            (Self::Compact, Event::Incident(of)) => incident::line(of, out),
            (Self::Ocsf, Event::Incident(of)) => json_line(&incident::IncidentFinding::of(of), out),
            (Self::Yaml, Event::Incident(of)) => yaml::document(&incident::IncidentFinding::of(of), out),
            (Self::Ecs, Event::Incident(of)) => json_line(&incident::ecs(of), out),
        }
    }

    /// Appends an event as it was told in this form, with the newline that ends it.
    pub fn told(self, event: &Told, _colour: bool, out: &mut String) {
        match self {
            Self::Compact | Self::Yaml | Self::Ecs | Self::Ocsf => {
                out.push_str(event.json());
                out.push('\n');
            }
        }
    }
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
            alg: Some("none".into()),
            flaws: Flaws::ALG_NONE,
            signature: Signature::Absent,
            ..token(1)
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
            for format in [Format::Compact, Format::Ocsf, Format::Yaml, Format::Ecs] {
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
            let forged = Token { alg: Some("none".into()), flaws: Flaws::ALG_NONE, signature: Signature::Absent, ..token(1) };
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
}
