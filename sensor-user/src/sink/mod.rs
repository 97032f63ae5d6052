//! Sinks: where alerts go, and the forms that they take there.
//!
//! Rendering is pure; only [`stdout`] and the sinks to come do I/O.

pub mod compact;
pub mod ecs;
pub mod ocsf;
pub mod shown;
pub mod stdout;
pub mod yaml;

#[cfg(test)]
#[path = "../../../tests/src/ocsf.rs"]
#[allow(unreachable_pub, reason = "the end-to-end tests' validator, borrowed")]
mod validator;

pub use stdout::Stdout;

use std::io;

use crate::alert::Alert;

/// Where alerts go.
pub trait Sink {
    /// Delivers one alert, or news of one.
    ///
    /// # Errors
    /// When the other end does not take it.
    fn emit(&mut self, alert: &Alert) -> io::Result<()>;

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

    /// Appends the alert in this form, with the newline that ends it.
    pub fn render(self, alert: &Alert, colour: bool, out: &mut String) {
        match self {
            Self::Compact => compact::line(alert, colour, out),
            Self::Ocsf => json_line(&ocsf::DetectionFinding::of(alert), out),
            Self::Yaml => yaml::document(&ocsf::DetectionFinding::of(alert), out),
            Self::Ecs => json_line(&ecs::EcsAlert::of(alert), out),
        }
    }
}

/// Our event types have string keys and no fallible parts: they always serialise.
fn json_line(event: &impl serde::Serialize, out: &mut String) {
    out.push_str(&serde_json::to_string(event).unwrap_or_default());
    out.push('\n');
}
