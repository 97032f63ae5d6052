//! The sections about what leaves the sensor: `sinks` and `metrics`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::word::{Listen, Word, Wrong, choose};

/// How alerts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One readable line an alert
    Compact,
    /// OCSF objects, one a line
    Json,
    /// OCSF objects as YAML documents
    Yaml,
    /// OCSF objects, one a line
    Ocsf,
    /// Elastic Common Schema objects, one a line
    Ecs,
}

const FORMATS: [(&str, Format); 5] = [
    ("compact", Format::Compact),
    ("json", Format::Json),
    ("yaml", Format::Yaml),
    ("ocsf", Format::Ocsf),
    ("ecs", Format::Ecs),
];

impl From<Format> for crate::sink::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Compact => Self::Compact,
            Format::Json | Format::Ocsf => Self::Ocsf,
            Format::Yaml => Self::Yaml,
            Format::Ecs => Self::Ecs,
        }
    }
}

impl Word for Format {
    const WHAT: &'static str = "compact, json, yaml, ocsf or ecs";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &FORMATS)
    }

    fn show(&self) -> String {
        FORMATS.iter().find(|(_, format)| format == self).map_or("compact", |(name, _)| name).to_owned()
    }
}

/// The sink that is always there unless turned off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stdout {
    /// Whether alerts go to standard output.
    pub enabled: bool,
    /// How; none means compact on a terminal and OCSF otherwise.
    pub output: Option<Format>,
}

impl Default for Stdout {
    fn default() -> Self {
        Self { enabled: true, output: None }
    }
}

/// The kinds of sinks that the contract names; this version has the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SinkType;

impl Word for SinkType {
    const WHAT: &'static str = "stdout";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "stdout" => Ok(Self),
            other => {
                Err(Wrong::new(format!("is {}, which is not in this version", super::word::excerpt(other)))
                    .hint("the only sink is stdout"))
            }
        }
    }

    fn show(&self) -> String {
        "stdout".into()
    }
}

impl Stdout {
    pub(super) const EXAMPLE: &'static str = "{type: stdout, enabled: true, output: ocsf}";

    pub(super) fn read(s: &mut Section<'_, '_>) -> Option<Self> {
        let kind = s.required::<SinkType>("type", "The kind of sink: stdout.");
        if s.is_set("type") && kind.is_none() {
            // Its keys are not ours to judge.
            s.accept_all();
        }
        let enabled = s.word("enabled", true, "Whether alerts go there.");
        let doc = "compact, json, yaml, ocsf or ecs. Left out: compact on a terminal, ocsf otherwise.";
        let output = s.optional("output", doc);
        kind.map(|SinkType| Self { enabled, output })
    }

    /// The one that holds, of all that are written.
    pub(super) fn of(s: &mut Section<'_, '_>, written: Vec<Self>) -> Self {
        if written.len() > 1 {
            s.report(Problem::error(
                s.span_of("sinks"),
                "there is only one standard output, so only one stdout sink",
            ));
        }
        written.into_iter().next().unwrap_or_default()
    }
}

/// Where the sensor tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address of `/metrics`, `/healthz` and `/readyz`; none for none.
    pub listen: Option<SocketAddr>,
}

impl Metrics {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "Where /metrics, /healthz and /readyz are served: ADDRESS:PORT, or off. Nobody is asked for a \
                   password there, so think twice before it leaves loopback.";
        let shipped = Listen(Some(SocketAddr::from(([127, 0, 0, 1], 9464))));
        Self { listen: s.word("listen", shipped, doc).0 }
    }
}
/// What survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it is kept; none for nowhere.
    pub dir: Option<PathBuf>,
    /// How often it is saved.
    pub save_every: Duration,
}

/// A directory, or off.
struct Dir(Option<PathBuf>);

impl Word for Dir {
    const WHAT: &'static str = "a directory, or off";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self((text != "off").then(|| PathBuf::from(text))))
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| "off".to_owned(), Word::show)
    }
}

impl State {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "Directory for what detections have learned and for the drawn fingerprint key, or off. No raw token \
                   is kept. One sensor at a time can use it.";
        let dir = s.word("dir", Dir(Some("/var/lib/tokenscope".into())), doc).0;
        let doc = "Seconds between two savings of what was learned; it is saved at the end as well.";
        let save_every = Duration::from_secs(s.number("save_every_s", 300, 1..=86_400, doc));
        Self { dir, save_every }
    }
}
