//! Presets: what is known of a receiver, so that its URL and its secrets are all that must be configured.
//!
//! To add one: a template in `presets/`, and a line in [`PRESETS`]. A test renders each for hostile events.

use serde::de::IgnoredAny;

use super::answers::Says;
use super::template::Mistake;

/// What is known of a receiver.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its URL, where there is only one.
    pub url: Option<&'static str>,
    /// What follows a URL that has no path; a template of `vars`.
    pub path: &'static str,
    /// What stands before a token in `Authorization`; empty for nothing.
    pub scheme: &'static str,
    /// The header that carries a token, where that is not `Authorization`.
    pub token_in: Option<&'static str>,
    /// What the body is.
    pub content_type: &'static str,
    /// Its form.
    pub shape: Shape,
    /// Headers; templates where they hold `{{`.
    pub headers: &'static [(&'static str, &'static str)],
    /// Events a request.
    pub events: usize,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// What a template may be told.
    pub variables: &'static [Variable],
    /// How it answers.
    pub says: Says,
    /// Whether it gets each alert and incident once, and no news of it: tickets.
    pub once: bool,
    /// The body.
    pub template: &'static str,
}

/// What a preset's template may be told.
#[derive(Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is otherwise; none if it must be given.
    pub default: Option<&'static str>,
    /// Whether it is a secret: named by env: or file: only.
    pub secret: bool,
}

const fn needs(name: &'static str) -> Variable {
    Variable { name, default: None, secret: false }
}

const fn may(name: &'static str, default: &'static str) -> Variable {
    Variable { name, default: Some(default), secret: false }
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One JSON document.
    Json,
    /// JSON documents, one a line.
    Lines,
    /// `name=value&name=value`.
    Form,
    /// Any other.
    Free,
}

impl Shape {
    /// The form that goes with a content type.
    #[must_use]
    pub fn of(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-ndjson" | "application/jsonl" => Self::Lines,
            "application/x-www-form-urlencoded" => Self::Form,
            kind if kind == "application/json" || kind.ends_with("+json") => Self::Json,
            _ => Self::Free,
        }
    }

    /// Whether a body has this form.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(self, body: &str) -> Result<(), Mistake> {
        let wrong = |line, message: String| Err(Mistake { line, message });
        let hint = "write {{ name|tojson }}, without quotes around it";
        match self {
            Self::Json => match serde_json::from_str::<IgnoredAny>(body) {
                Ok(_) => Ok(()),
                Err(error) => wrong(None, format!("what it makes is no JSON ({error}); {hint}")),
            },
            Self::Lines => {
                for (number, line) in body.lines().enumerate() {
                    if let Err(error) = serde_json::from_str::<IgnoredAny>(line) {
                        let number = number + 1;
                        return wrong(
                            None,
                            format!("line {number} of what it makes is no JSON ({error}); {hint}"),
                        );
                    }
                }
                Ok(())
            }
            Self::Form => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "-._~*+%/".contains(c);
                let pair = |pair: &str| {
                    pair.split_once('=').is_some_and(|(name, value)| {
                        !name.is_empty() && name.chars().chain(value.chars()).all(plain)
                    })
                };
                if body.split('&').all(pair) {
                    return Ok(());
                }
                wrong(None, "what it makes is no form; write name={{ value|urlencode }}, parted by &".into())
            }
            Self::Free => Ok(()),
        }
    }
}

/// The preset of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// What presets have in common.
const PLAIN: Preset = Preset {
    name: "generic",
    url: None,
    path: "",
    scheme: "Bearer",
    token_in: None,
    content_type: "application/json",
    shape: Shape::Json,
    headers: &[],
    events: 1,
    gzip: false,
    variables: &[],
    says: Says::Status,
    once: false,
    template: include_str!("presets/generic.jinja"),
};

/// Those that take events by the hundred: a body of 500 has about 1 MiB.
const MANY: Preset = Preset { events: 500, gzip: true, ..PLAIN };

/// Every preset.
pub static PRESETS: [Preset; 18] = [
    PLAIN,
    Preset {
        name: "slack",
        says: Says::Chat,
        variables: &[may("channel", "")],
        template: include_str!("presets/slack.jinja"),
        ..PLAIN
    },
    Preset { name: "teams", says: Says::Chat, template: include_str!("presets/teams.jinja"), ..PLAIN },
    Preset {
        name: "pagerduty",
        url: Some("https://events.pagerduty.com/v2/enqueue"),
        variables: &[Variable { name: "routing_key", default: None, secret: true }],
        template: include_str!("presets/pagerduty.jinja"),
        ..PLAIN
    },
    Preset {
        name: "splunk",
        path: "/services/collector/event",
        scheme: "Splunk",
        shape: Shape::Lines,
        variables: &[may("index", ""), may("sourcetype", "tokenscope:ocsf")],
        says: Says::Splunk,
        template: include_str!("presets/splunk.jinja"),
        ..MANY
    },
    Preset { name: "loki", path: "/loki/api/v1/push", template: include_str!("presets/loki.jinja"), ..MANY },
    Preset {
        name: "elasticsearch",
        path: "/_bulk",
        scheme: "ApiKey",
        content_type: "application/x-ndjson",
        shape: Shape::Lines,
        variables: &[may("index", "tokenscope-alerts"), may("form", "ecs")],
        says: Says::Bulk,
        template: include_str!("presets/bulk.jinja"),
        ..MANY
    },
    Preset {
        name: "opensearch",
        path: "/_bulk",
        content_type: "application/x-ndjson",
        shape: Shape::Lines,
        variables: &[may("index", "tokenscope-alerts"), may("form", "ocsf")],
        says: Says::Bulk,
        template: include_str!("presets/bulk.jinja"),
        ..MANY
    },
    Preset {
        name: "clickhouse",
        path: "/?query={{ ('INSERT INTO ' ~ vars.table ~ ' FORMAT JSONEachRow')|urlencode }}",
        token_in: Some("X-ClickHouse-Key"),
        content_type: "application/x-ndjson",
        shape: Shape::Lines,
        variables: &[may("table", "tokenscope_alerts")],
        says: Says::ClickHouse,
        template: include_str!("presets/clickhouse.jinja"),
        ..MANY
    },
    Preset { name: "gelf", path: "/gelf", template: include_str!("presets/gelf.jinja"), ..PLAIN },
    Preset {
        name: "sentinel",
        path: "/dataCollectionRules/{{ vars.rule_id }}/streams/{{ vars.stream }}?api-version=2023-01-01",
        // A call takes 1 MB.
        events: 200,
        variables: &[needs("rule_id"), may("stream", "Custom-Tokenscope_CL")],
        template: include_str!("presets/sentinel.jinja"),
        ..MANY
    },
    Preset {
        name: "misp",
        path: "/events/add",
        scheme: "",
        headers: &[("Accept", "application/json")],
        variables: &[may("distribution", "0")],
        says: Says::Misp,
        once: true,
        template: include_str!("presets/misp.jinja"),
        ..PLAIN
    },
    Preset {
        name: "jira",
        path: "/rest/api/3/issue",
        variables: &[needs("project"), may("issue_type", "Task")],
        once: true,
        template: include_str!("presets/jira.jinja"),
        ..PLAIN
    },
    Preset {
        name: "servicenow",
        path: "/api/now/table/incident",
        headers: &[("Accept", "application/json")],
        variables: &[may("assignment_group", "")],
        once: true,
        template: include_str!("presets/servicenow.jinja"),
        ..PLAIN
    },
    Preset {
        name: "sendgrid",
        url: Some("https://api.sendgrid.com/v3/mail/send"),
        variables: &[needs("from"), needs("to")],
        template: include_str!("presets/sendgrid.jinja"),
        ..PLAIN
    },
    Preset {
        name: "mailgun",
        path: "/v3/{{ vars.domain }}/messages",
        content_type: "application/x-www-form-urlencoded",
        shape: Shape::Form,
        variables: &[needs("domain"), needs("from"), needs("to")],
        template: include_str!("presets/mailgun.jinja"),
        ..PLAIN
    },
    Preset {
        name: "sns",
        headers: &[
            ("x-amz-sns-message-type", "Notification"),
            ("x-amz-sns-message-id", "{{ event_id|uuid }}"),
            ("x-amz-sns-topic-arn", "{{ vars.topic_arn }}"),
        ],
        content_type: "text/plain; charset=UTF-8",
        variables: &[may("topic_arn", "arn:aws:sns:local:000000000000:tokenscope")],
        template: include_str!("presets/sns.jinja"),
        ..PLAIN
    },
    Preset { name: "falco", path: "/", template: include_str!("presets/falco.jinja"), ..PLAIN },
];
