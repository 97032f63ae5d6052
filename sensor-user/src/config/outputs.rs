//! The sections about what leaves the sensor and stays of it: `metrics`, `state`, `spool`, `store`, `control`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::section::Section;
use crate::config::word::{Listen, Word, Wrong, choose};
pub use crate::spool::{Settings as Spool, Sync};

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
    /// Objects as Falco writes them, one a line
    Falco,
    /// Common Event Format, one line an alert
    Cef,
}

const FORMATS: [(&str, Format); 7] = [
    ("compact", Format::Compact),
    ("json", Format::Json),
    ("yaml", Format::Yaml),
    ("ocsf", Format::Ocsf),
    ("ecs", Format::Ecs),
    ("falco", Format::Falco),
    ("cef", Format::Cef),
];

impl From<Format> for crate::render::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Compact => Self::Compact,
            Format::Json | Format::Ocsf => Self::Ocsf,
            Format::Yaml => Self::Yaml,
            Format::Ecs => Self::Ecs,
            Format::Falco => Self::Falco,
            Format::Cef => Self::Cef,
        }
    }
}

impl Word for Format {
    const WHAT: &'static str = "compact, json, yaml, ocsf, ecs, falco or cef";

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

const SYNCS: [(&str, Sync); 3] = [("always", Sync::Always), ("second", Sync::Second), ("never", Sync::Never)];

impl Word for Sync {
    const WHAT: &'static str = "always, second or never";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &SYNCS)
    }

    fn show(&self) -> String {
        SYNCS.iter().find(|(_, sync)| sync == self).map_or("always", |(name, _)| name).to_owned()
    }
}

/// How long alerts wait for sinks, and how surely.
impl Spool {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "Bytes on disk at most, in `state.dir`. Beyond it what every sink has goes first, then the least severe.";
        let max_bytes = s.number("max_bytes", 256 << 20, 4 << 20..=1 << 40, doc);
        let doc = "Hours for which an event is kept at most, delivered or not.";
        let max_age = Duration::from_hours(s.number("max_age_h", 168, 1..=8_760, doc));
        let doc = "When an alert is made to last through a loss of power: always (before anybody sees it), second (once \
                   a second) or never (when the kernel likes). A crash of the sensor alone loses nothing.";
        let sync = s.word("sync", Sync::Always, doc);
        Self { max_bytes, max_age, sync }
    }
}

/// What can be searched later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Whether there is one, in `state.dir`.
    pub enabled: bool,
    /// Bytes on disk at most.
    pub max_bytes: u64,
    /// For how long uses of tokens are kept.
    pub uses_for: Duration,
    /// For how long alerts and incidents are kept.
    pub alerts_for: Duration,
}

impl Store {
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let doc = "Whether alerts, incidents and uses of tokens are kept to be searched, in `state.dir`.";
        let enabled = s.word("enabled", true, doc);
        let doc = "Bytes on disk at most. Beyond it the oldest uses of tokens go first.";
        let max_bytes = s.number("max_bytes", 4 << 30, 16 << 20..=1 << 42, doc);
        let day = Duration::from_hours(24);
        let doc = "Days for which uses of tokens are kept.";
        let uses_for = day * u32::try_from(s.number("uses_days", 14, 1..=3_650, doc)).unwrap_or(14);
        let doc = "Days for which alerts and incidents are kept.";
        let alerts_for = day * u32::try_from(s.number("alerts_days", 365, 1..=3_650, doc)).unwrap_or(365);
        Self { enabled, max_bytes, uses_for, alerts_for }
    }
}
