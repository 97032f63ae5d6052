//! `correlate`: what must come together over time, by Sigma's kinds.

use std::time::Duration;

use super::File;
use crate::config::section::Section;
use crate::config::user::check::Names;
use crate::config::user::span::Length;
use crate::config::word::{Word, Wrong, choose};
use crate::config::yaml::{Node, Value};
use crate::config::{Level, Problem};
use crate::detect::user::correlate::{Correlation, Kind, MAX_STEPS, MAX_VALUES, Threshold};
use crate::detect::user::expr::Node as Condition;
use crate::detect::user::field::{Field, Use};

/// Longest window: what is not over in a day is a question for the archive.
const MAX_WINDOW: Duration = Duration::from_hours(24);

impl File<'_> {
    pub(super) fn correlate(self, s: &mut Section<'_, '_>, names: Names<'_>) -> Option<Correlation> {
        if !s.is_set("correlate") {
            s.raw("correlate", "What must come together over time.");
            return None;
        }
        s.section("correlate", "What must come together over time.", |s| self.correlation(s, names))
    }

    fn correlation(self, s: &mut Section<'_, '_>, names: Names<'_>) -> Option<Correlation> {
        let kind = s.required::<KindWord>("kind", "event_count, value_count, temporal or temporal_ordered.");
        let window = s.required::<Length>("window", "How long events stay: 5m.").map(|length| length.0);
        if window.is_some_and(|w| w > MAX_WINDOW || w < Duration::from_secs(1)) {
            s.report(Problem::error(s.span_of("window"), "`correlate.window` must be from 1s to 24h"));
        }
        let group_by = self.group_by(s, names);
        let groups =
            s.number("groups", 10_000, 1..=100_000, "Groups remembered; beyond it the least used go.");
        let field = s.raw("field", "The field whose values value_count counts.");
        let steps = s.raw("steps", "The conditions of the temporal kinds.");
        let threshold = threshold(s, "correlate");
        let also = Self::also(s, window.unwrap_or(MAX_WINDOW));
        let kind = kind?;
        for (key, belongs, there) in [
            ("field", kind == KindWord::Values, field.is_some()),
            ("steps", kind.is_temporal(), steps.is_some()),
            ("gte", !kind.is_temporal(), threshold.is_some()),
            ("also", kind == KindWord::Events, !also.is_empty()),
        ] {
            if there && !belongs {
                s.report(Problem::error(s.span_of(key), format!("`{key}` means nothing to {}", kind.show())));
            }
        }
        let missing = |s: &mut Section<'_, '_>, key: &str, what: &str| {
            s.report(Problem::error(s.span_of(key), format!("`correlate.{key}` is missing")).hint(what));
        };
        let kind = match kind {
            KindWord::Events | KindWord::Values if threshold.is_none() => {
                missing(s, "gte", "add `gte: 10`, or gt or eq");
                return None;
            }
            KindWord::Events => Kind::Events(threshold?, also),
            KindWord::Values => {
                let Some(node) = field else {
                    missing(s, "field", "add `field: request.route`, the values to count");
                    return None;
                };
                if threshold.is_some_and(|t| t.needs() > MAX_VALUES) {
                    let message = format!("value_count tells at most {MAX_VALUES} values apart");
                    s.report(Problem::error(s.span_of("gte"), message));
                }
                Kind::Values(self.operand(s, node, names)?, threshold?)
            }
            KindWord::Any | KindWord::Ordered => {
                let Some(node) = steps else {
                    missing(s, "steps", "add a list of conditions");
                    return None;
                };
                let steps = self.steps(s, node, names)?;
                if kind == KindWord::Any { Kind::Any(steps) } else { Kind::Ordered(steps) }
            }
        };
        let groups = usize::try_from(groups).unwrap_or(10_000);
        Some(Correlation { kind, group_by, window: window?, groups })
    }

    fn group_by(self, s: &mut Section<'_, '_>, names: Names<'_>) -> Vec<Condition> {
        let Some(node) = s.raw("group_by", "Fields whose values make a group; none: all is one.") else {
            return Vec::new();
        };
        let items =
            if let Value::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
        if items.len() > 4 {
            s.report(Problem::error(node.span, "more than 4 fields make a group"));
        }
        let mut group = Vec::new();
        for item in items {
            let Some(operand) = self.operand(s, item, names) else { continue };
            let open = match &operand {
                Condition::Field(field) => field.card().usage == Use::Open || *field == Field::Query,
                _ => true,
            };
            if open {
                let message =
                    "a caller makes up as many values of this as it likes, so the groups are without bound";
                let hint = "group by request.route, client.address or principal, or set `groups`";
                if !s.is_set("groups") {
                    s.report(
                        Problem { level: Level::Warning, ..Problem::error(item.span, message) }.hint(hint),
                    );
                }
            }
            group.push(operand);
        }
        group
    }

    fn also(s: &mut Section<'_, '_>, window: Duration) -> Vec<(Duration, Threshold)> {
        s.items("also", "Shorter windows whose counts must be met too.", "{window: 1m, gt: 10}", |s| {
            let length = s.required::<Length>("window", "A part of the window.").map(|length| length.0);
            let threshold = threshold(s, "correlate.also");
            if threshold.is_none() {
                s.report(
                    Problem::error(s.span_of("gte"), "`correlate.also` has no threshold")
                        .hint("add `gt: 10`"),
                );
            }
            if length.is_some_and(|l| l > window || l * 60 < window) {
                let message = "`correlate.also.window` must be from a sixtieth of the window to the whole";
                s.report(Problem::error(s.span_of("window"), message));
            }
            Some((length?, threshold?))
        })
    }

    fn steps(self, s: &mut Section<'_, '_>, node: &Node, names: Names<'_>) -> Option<Vec<Condition>> {
        let Value::List(items) = &node.value else {
            s.report(Problem::error(node.span, "`steps` must be a list of conditions"));
            return None;
        };
        if !(2..=MAX_STEPS).contains(&items.len()) {
            s.report(Problem::error(node.span, format!("from 2 to {MAX_STEPS} steps make a rule")));
        }
        items.iter().map(|item| self.condition(s, item, names)).collect()
    }
}

/// `gt`, `gte` or `eq`.
fn threshold(s: &mut Section<'_, '_>, path: &str) -> Option<Threshold> {
    for key in ["lt", "lte", "neq"] {
        if s.raw(key, "").is_some() {
            let message = format!("`{path}.{key}` cannot be told while events still come");
            s.report(Problem::error(s.span_of(key), message).hint("use gt, gte or eq"));
        }
    }
    let mut found = None;
    for (key, make) in [
        ("gt", (|n| Threshold::AtLeast(n + 1)) as fn(u32) -> Threshold),
        ("gte", Threshold::AtLeast),
        ("eq", Threshold::Exactly),
    ] {
        let set = s.is_set(key);
        let number = s.number(key, 1, u64::from(key != "gt")..=1_000_000, "The threshold.");
        if set && found.is_some() {
            s.report(Problem::error(s.span_of(key), format!("`{path}` has two thresholds")));
        } else if set {
            found = Some(make(u32::try_from(number).unwrap_or(1_000_000)));
        }
    }
    found
}

/// The kinds of correlation, by Sigma's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KindWord {
    Events,
    Values,
    Any,
    Ordered,
}

const KINDS: [(&str, KindWord); 4] = [
    ("event_count", KindWord::Events),
    ("value_count", KindWord::Values),
    ("temporal", KindWord::Any),
    ("temporal_ordered", KindWord::Ordered),
];

impl KindWord {
    const fn is_temporal(self) -> bool {
        matches!(self, Self::Any | Self::Ordered)
    }
}

impl Word for KindWord {
    const WHAT: &'static str = "event_count, value_count, temporal or temporal_ordered";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &KINDS)
    }

    fn show(&self) -> String {
        KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name).to_owned()
    }
}
