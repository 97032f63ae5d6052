//! What the configuration says of any sink: its name, what it gets, when, and how much.

use std::time::Duration;

use crate::detect::Severity;
use crate::render::{Kind, Told};
use crate::sink::{alertmanager, file, http, kafka, nats, otlp, redis, s3, smtp, stdout, syslog};
use crate::spool::LANES;

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Its name: in metrics, in the spool's cursors, in `sinks test NAME`.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// Which events it gets.
    pub picks: Picks,
    /// When the less severe wait.
    pub quiet: Option<Hours>,
    /// Deliveries in a minute at most; what is beyond waits.
    pub per_minute: Option<u32>,
    /// How long one delivery may take.
    pub timeout: Duration,
    /// How long an event is tried before it becomes a dead letter; none: until the spool gives it up.
    pub give_up_after: Option<Duration>,
}

/// Where a sink is: one variant a kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Standard output.
    Stdout(stdout::Settings),
    /// A file of JSON lines.
    File(file::Settings),
    /// Any HTTP endpoint, by a template.
    Http(http::Settings),
    /// Prometheus Alertmanager, API v2.
    Alertmanager(alertmanager::Settings),
    /// OpenTelemetry logs over HTTP (OTLP 1.x).
    Otlp(otlp::Settings),
    /// Apache Kafka and what speaks its protocol.
    Kafka(kafka::Settings),
    /// A Redis stream.
    Redis(redis::Settings),
    /// NATS, by JetStream where it is there.
    Nats(nats::Settings),
    /// An archive in an S3 bucket.
    S3(s3::Settings),
    /// Syslog (RFC 5424) over UDP, TCP and TLS.
    Syslog(syslog::Settings),
    /// E-mail.
    Smtp(smtp::Settings),
}

impl Target {
    /// The word of the configuration for it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Stdout(_) => "stdout",
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Alertmanager(_) => "alertmanager",
            Self::Otlp(_) => "otlp",
            Self::Kafka(_) => "kafka",
            Self::Redis(_) => "redis",
            Self::Nats(_) => "nats",
            Self::S3(_) => "s3",
            Self::Syslog(_) => "syslog",
            Self::Smtp(_) => "smtp",
        }
    }
}

/// Which events a sink gets. Empty lists pick everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picks {
    /// By severity: low, medium, high, critical.
    pub severities: [bool; LANES],
    /// Rules by id; a `*` at the end stands for any rest. `incident` names incidents.
    pub rules: Vec<String>,
    /// Rules that it does not get.
    pub not_rules: Vec<String>,
    /// Namespaces of the workload.
    pub namespaces: Vec<String>,
    /// Labels of the node or of the pod, `name=value`, all of them.
    pub labels: Vec<String>,
    /// Alerts, or news of them.
    pub alerts: bool,
    /// Incidents, or news of them.
    pub incidents: bool,
    /// News of alerts and incidents that were told already.
    pub updates: bool,
}

impl Default for Picks {
    fn default() -> Self {
        Self {
            severities: [true; LANES],
            rules: Vec::new(),
            not_rules: Vec::new(),
            namespaces: Vec::new(),
            labels: Vec::new(),
            alerts: true,
            incidents: true,
            updates: true,
        }
    }
}

impl Picks {
    /// Whether the sink gets this event.
    #[must_use]
    pub fn has(&self, told: &Told) -> bool {
        let fits = |names: &[String], name: &str| {
            names.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => wanted == name,
            })
        };
        let has_label = |wanted: &String| told.labels().any(|label| label == wanted);
        let kind = match told.kind {
            Kind::Alert => self.alerts,
            Kind::Incident => self.incidents,
        };
        kind && self.severities.get(told.severity as usize) == Some(&true)
            && (self.updates || told.number("/activity_id") == Some(1))
            && (self.rules.is_empty() || fits(&self.rules, told.rule()))
            && (self.not_rules.is_empty() || !fits(&self.not_rules, told.rule()))
            && (self.namespaces.is_empty() || told.namespaces().any(|name| fits(&self.namespaces, name)))
            && self.labels.iter().all(has_label)
    }
}

/// Hours of the day in which events below a severity wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// From this minute of the day.
    pub from_min: u16,
    /// Until this minute of the day; smaller than `from_min` over midnight.
    pub until_min: u16,
    /// What is this severe comes at once.
    pub unless: Severity,
}
