//! The list `sinks`: where alerts go besides standard output. What is particular to a kind has a file of its own.

mod alertmanager;
mod file;
mod free;
mod http;
mod kafka;
mod nats;
mod otlp;
mod place;
mod redis;
mod s3;
mod smtp;
#[cfg(test)]
mod staging;
mod syslog;
mod tls;

use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, choose, excerpt};
use crate::config::{Format, Stdout};
use crate::detect::Severity;
use crate::sink::{Hours, Picks, Settings, Target};

/// The kinds of sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Stdout,
    File,
    Http,
    Alertmanager,
    Otlp,
    Kafka,
    Redis,
    Nats,
    S3,
    Syslog,
    Smtp,
}

const TYPES: [(&str, Type); 11] = [
    ("stdout", Type::Stdout),
    ("file", Type::File),
    ("http", Type::Http),
    ("alertmanager", Type::Alertmanager),
    ("otlp", Type::Otlp),
    ("kafka", Type::Kafka),
    ("redis", Type::Redis),
    ("nats", Type::Nats),
    ("s3", Type::S3),
    ("syslog", Type::Syslog),
    ("smtp", Type::Smtp),
];

impl Word for Type {
    const WHAT: &'static str =
        "stdout, file, http, alertmanager, otlp, kafka, redis, nats, s3, syslog or smtp";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &TYPES)
    }

    fn show(&self) -> String {
        TYPES.iter().find(|(_, kind)| kind == self).map_or("stdout", |(name, _)| name).to_owned()
    }
}

/// Most sinks: each has a thread.
const MAX_SINKS: usize = 32;

/// One item of the list.
pub(super) enum Item {
    /// Standard output, on or off.
    Stdout(Stdout),
    /// Any other.
    Sink(Box<Settings>),
}

pub(super) const EXAMPLE: &str = "{type: stdout, enabled: true, output: ocsf}";

/// The least that an item of each kind says, but for standard output, which has its example above.
pub(super) fn examples() -> impl Iterator<Item = (&'static str, &'static str)> {
    TYPES.into_iter().filter_map(|(name, kind)| Some((name, example(kind)?)))
}

const fn example(kind: Type) -> Option<&'static str> {
    Some(match kind {
        Type::Stdout => return None,
        Type::File => "{type: file, path: /var/log/tokenscope/alerts.jsonl}",
        // Issuers of tokens have keys of their own, which are read where there is one.
        Type::Http => {
            "{type: http, url: \"https://receiver.example/alerts\", auth: {oauth2: {token_url: \
             \"https://idp.example/token\", client_id: tokenscope, client_secret: env:CLIENT_SECRET}}}"
        }
        Type::Alertmanager => "{type: alertmanager, urls: [\"http://127.0.0.1:9093\"]}",
        Type::Otlp => "{type: otlp, url: \"http://127.0.0.1:4318\"}",
        Type::Kafka => "{type: kafka, brokers: [\"kafka.example:9092\"]}",
        Type::Redis => "{type: redis, url: \"rediss://redis.example\"}",
        Type::Nats => "{type: nats, servers: [\"tls://nats.example\"]}",
        Type::S3 => "{type: s3, bucket: alerts}",
        Type::Syslog => "{type: syslog, to: \"tls://syslog.example\"}",
        Type::Smtp => {
            "{type: smtp, server: \"smtp://mail.example:587\", from: sensor@shop.example, to: [security@shop.example]}"
        }
    })
}

/// Reads one item.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Item> {
    let kind = s.required::<Type>("type", &format!("The kind of sink: {}.", Type::WHAT));
    if s.is_set("type") && kind.is_none() {
        // Its keys are not ours to judge.
        s.accept_all();
    }
    let enabled = s.word("enabled", true, "Whether alerts go there.");
    let kind = kind?;
    if kind == Type::Stdout {
        let doc =
            "compact, json, yaml, ocsf, ecs, falco or cef. Left out: compact on a terminal, ocsf otherwise.";
        let output = s.optional::<Format>("output", doc);
        return Some(Item::Stdout(Stdout { enabled, output }));
    }
    let named = kind.show();
    let doc = "Its name in metrics and commands; the type if it is the only one of its type.";
    let name = s.optional::<Name>("name", doc).map_or(named, |name| name.0);
    let doc = "Seconds that one delivery may take.";
    let timeout = Duration::from_secs_f64(s.decimal("timeout_s", 10.0, 0.1..=300.0, doc));
    let target = target(s, resolver, kind, timeout);
    let picks = picks(s, target.as_ref().map_or(Severity::Low, least));
    let quiet = quiet(s);
    let doc = "Events in a minute at most; what is beyond waits. 0: no such limit.";
    let per_minute =
        u32::try_from(s.number("per_minute", 0, 0..=1_000_000, doc)).ok().filter(|most| *most > 0);
    let doc = "Seconds after which an event that cannot be delivered becomes a dead letter. 0: it is tried for as long \
               as the spool keeps it.";
    let give_up_s = s.number("give_up_after_s", 0, 0..=31_536_000, doc);
    let give_up_after = (give_up_s > 0).then(|| Duration::from_secs(give_up_s));
    let settings = Settings { name, target: target?, picks, quiet, per_minute, timeout, give_up_after };
    enabled.then(|| Item::Sink(Box::new(settings)))
}

/// Reads what is particular to a kind.
fn target(s: &mut Section<'_, '_>, resolver: Resolver<'_>, kind: Type, timeout: Duration) -> Option<Target> {
    Some(match kind {
        Type::Stdout => return None,
        Type::File => Target::File(file::read(s, resolver)?),
        Type::Http => Target::Http(http::read(s, resolver)?),
        Type::Alertmanager => Target::Alertmanager(alertmanager::read(s, resolver)?),
        Type::Otlp => Target::Otlp(otlp::read(s, resolver)?),
        Type::Kafka => Target::Kafka(kafka::read(s, resolver, timeout)?),
        Type::Redis => Target::Redis(redis::read(s, resolver)?),
        Type::Nats => Target::Nats(nats::read(s, resolver)?),
        Type::S3 => Target::S3(s3::read(s, resolver)?),
        Type::Syslog => Target::Syslog(syslog::read(s, resolver)?),
        Type::Smtp => Target::Smtp(smtp::read(s, resolver)?),
    })
}

/// A sink's name: it is a label of metrics and a file's name.
struct Name(String);

impl Word for Name {
    const WHAT: &'static str = "letters, digits, - and _";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 40 || !text.chars().all(fits) {
            return Err(Wrong::new(format!(
                "is {}; a name has up to 40 letters, digits, - and _",
                excerpt(text)
            )));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// What goes to a sink unless somebody says otherwise: what wakes people gets P0, what they watch P0 and P1, and what
/// keeps or sorts by itself everything. docs/delivery.md has the table.
fn least(target: &Target) -> Severity {
    let Target::Http(http) = target else { return Severity::Low };
    match http.preset.name {
        "pagerduty" => Severity::Critical,
        "slack" | "teams" | "jira" | "servicenow" => Severity::High,
        _ => Severity::Low,
    }
}

fn picks(s: &mut Section<'_, '_>, least: Severity) -> Picks {
    let doc = "The least severity that goes there: low, medium, high or critical. Left out: critical for PagerDuty, high \
               for Slack, Teams, Jira and ServiceNow, low for all others.";
    let from = s.word("min_severity", least, doc);
    let doc = "The highest severity that goes there.";
    let to = s.word("max_severity", Severity::Critical, doc);
    if from > to {
        let span = s.span_of("max_severity");
        s.report(Problem::error(span, "`max_severity` is below `min_severity`: nothing would go there"));
    }
    let all = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let doc = "Only these rules, by id; `brute-*` is all that begin so, `incident` stands for incidents. Empty: all.";
    let rules = s.words("rules", Vec::new(), doc);
    let not_rules = s.words("not_rules", Vec::new(), "All but these rules.");
    let doc = "Only what happened in these namespaces. Empty: anywhere.";
    let namespaces = s.words("namespaces", Vec::new(), doc);
    let doc = "Only events with all of these labels, name=value.";
    let labels = s.words::<Label>("labels", Vec::new(), doc).iter().map(ToString::to_string).collect();
    let alerts = s.word("alerts", true, "Whether alerts go there.");
    let incidents = s.word("incidents", true, "Whether incidents go there.");
    let doc = "Whether news of what was told before goes there: repeats, a higher severity, the end of an incident.";
    let updates = s.word("updates", true, doc);
    Picks {
        severities: all.map(|severity| (from..=to).contains(&severity)),
        rules,
        not_rules,
        namespaces,
        labels,
        alerts,
        incidents,
        updates,
    }
}

/// A label.
pub(super) struct Label(String, String);

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.0, self.1)
    }
}

impl Word for Label {
    const WHAT: &'static str = "name=value";
    const WHAT_MANY: &'static str = "labels, name=value";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && text.len() <= MAX_LABEL => {
                Ok(Self(name.to_owned(), value.to_owned()))
            }
            _ => Err(Wrong::new(format!("holds {}, which is no name=value", excerpt(text)))),
        }
    }

    fn show(&self) -> String {
        self.to_string().show()
    }
}

/// Longest label, as a whole: names and values of Kubernetes' labels have 63 characters, a prefix 253.
const MAX_LABEL: usize = 380;

/// A node's name: that of a host (RFC 1123 section 2.1).
pub(super) struct NodeName(pub(super) String);

impl Word for NodeName {
    const WHAT: &'static str = "a host's name";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
            return Err(Wrong::new(format!(
                "is {}; a host's name has letters, digits, - and .",
                excerpt(text)
            )));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

fn quiet(s: &mut Section<'_, '_>) -> Option<Hours> {
    let doc = "Hours of the day in which what is less severe than `quiet_unless` waits, HH:MM-HH:MM in `time_zone`.";
    let span = s.optional::<Span>("quiet_hours", doc);
    let unless = s.word("quiet_unless", Severity::High, "What is this severe comes at any hour.");
    let Span(from_min, until_min) = span?;
    Some(Hours { from_min, until_min, unless })
}

#[derive(Clone, Copy)]
struct Span(u16, u16);

impl Word for Span {
    const WHAT: &'static str = "HH:MM-HH:MM";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let two = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 2);
            let (hour, minute) = (two(hour)?, two(minute)?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        let both = text.split_once('-').and_then(|(from, until)| Some(Self(minute(from)?, minute(until)?)));
        let both = both.filter(|span| span.0 != span.1);
        both.ok_or_else(|| {
            Wrong::new(format!("is {}; it must be HH:MM-HH:MM, such as 22:00-07:00", excerpt(text)))
        })
    }

    fn show(&self) -> String {
        let Self(from, until) = self;
        format!("\"{:02}:{:02}-{:02}:{:02}\"", from / 60, from % 60, until / 60, until % 60)
    }
}

/// What holds of all that are written: at most one standard output, names that tell sinks apart.
pub(super) fn sort(s: &mut Section<'_, '_>, items: Vec<Item>) -> (Stdout, Vec<Settings>) {
    let (mut outputs, mut sinks) = (Vec::new(), Vec::<Settings>::new());
    let span = s.span_of("sinks");
    for item in items {
        match item {
            Item::Stdout(stdout) => outputs.push(stdout),
            Item::Sink(sink) => {
                if sink.name == "stdout" || sinks.iter().any(|other| other.name == sink.name) {
                    let problem = Problem::error(span, format!("two sinks are called `{}`", sink.name));
                    s.report(problem.hint("give each a `name` of its own"));
                }
                sinks.push(*sink);
            }
        }
    }
    if outputs.len() > 1 {
        s.report(Problem::error(span, "there is only one standard output, so only one stdout sink"));
    }
    if sinks.len() > MAX_SINKS {
        s.report(Problem::error(span, format!("there are more than {MAX_SINKS} sinks")));
    }
    (outputs.into_iter().next().unwrap_or_default(), sinks)
}
