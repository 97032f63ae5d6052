//! A rule file, key by key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::section::{Reader, Section};
use crate::config::user::check::{self, Names};
use crate::config::user::lex::Complaint;
use crate::config::user::locate::locate;
use crate::config::user::span::{Id, Length, Technique};
use crate::config::user::{Read, example, text_of};
use crate::config::word::Word as _;
use crate::config::yaml::{self, Node, Value};
use crate::config::{Level, Problem, Report, Source};
use crate::detect::Severity;
use crate::detect::roster::stable_hash;
use crate::detect::user::correlate::{Correlation, Kind, MAX_STEPS, MAX_VALUES, Threshold};
use crate::detect::user::expr::Node as Condition;
use crate::detect::user::field::{Field, Use};
use crate::detect::user::message::{Template, TemplateError};
use crate::detect::user::model::{Card, Figures, SeverityPlan, UserRule, card};

/// Longest window: what is not over in a day is a question for the archive.
const MAX_WINDOW: Duration = Duration::from_hours(24);
/// Most entries of one list.
const MAX_LIST: usize = 100_000;
/// Most exceptions, and most conditions of one severity.
const MAX_EXCEPTIONS: usize = 100;

/// Reads the text of a rule file.
///
/// # Errors
/// With every problem, if there is at least one error.
pub fn rule(path: &Path, text: &str) -> Result<Read, Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let sources = vec![Source { name: path.display().to_string(), text: text.to_owned() }];
    let mut problems = Vec::new();
    let root = yaml::parse(text, 0, &mut problems);
    let nothing = BTreeMap::new();
    let mut reader = Reader::new(&nothing);
    let (rule, _) = reader.document(root.as_ref(), |s| File { text, path }.read(s));
    problems.append(&mut reader.problems);
    problems.sort_by_key(|problem| problem.span);
    let mut report = Report { sources, problems };
    match rule {
        Some(rule) if report.errors() == 0 => Ok(Read { rule: Arc::new(rule), warnings: report }),
        _ => {
            if report.errors() == 0 {
                report.problems.push(Problem::error(crate::config::Span::default(), "this is no rule"));
            }
            Err(report)
        }
    }
}

/// A file being read.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

/// The rule's lists, and the files that they came from.
#[derive(Default)]
struct Lists {
    by_name: BTreeMap<String, Vec<String>>,
    files: Vec<PathBuf>,
    /// A hash of what the files hold.
    hash: u64,
}

impl File<'_> {
    fn read(self, s: &mut Section<'_, '_>) -> Option<UserRule> {
        let id = s.required::<Id>("id", "The rule's name: words with dashes between.");
        Self::refuse_taken(s, id.as_ref());
        let title = s.required::<String>("title", "A few words; the alert's title.");
        let version = s.word("version", "1".to_owned(), "Raised when the rule's meaning changes.");
        let description =
            s.word("description", "-".to_owned(), "What it sees, why it matters, what is benign.");
        let enabled = s.word("enabled", true, "Whether it is asked.");
        let attack = s.words::<Technique>("attack", Vec::new(), "ATT&CK techniques.");
        let lists = self.lists(s);
        let names = Names { lists: &lists.by_name, counted: false };
        let correlation = self.correlate(s, names);
        let when = self.when(s, names, correlation.as_ref());
        let exceptions = self.exceptions(s, names);
        let counted = Names { counted: correlation.is_some(), ..names };
        let severity = self.severity(s, counted);
        let confidence = s.number("confidence", 80, 0..=100, "How sure the rule is, 0 to 100.");
        let cooling =
            s.word("cooling", Length(Duration::from_mins(10)), "How long an alert keeps silent afterwards.");
        let message = self.message(s, correlation.is_some());
        if s.raw("actions", "Reserved.").is_some() {
            s.report(Problem::warning(
                s.span_of("actions"),
                "`actions` is reserved and has no effect in this version",
            ));
        }
        let examples = example::read(s);
        let severity = severity?;
        let (title, when) = (title?, when?);
        let mut rule = UserRule {
            about: &PLACEHOLDER,
            description,
            file: self.path.to_owned(),
            version_hash: stable_hash(&(self.text, lists.hash)),
            list_files: lists.files,
            enabled,
            when,
            exceptions,
            severity,
            confidence: u8::try_from(confidence).unwrap_or(100),
            correlation,
            message: message.unwrap_or_default(),
            examples,
            figures: Figures::default(),
        };
        let mut of_token = false;
        rule.fields(&mut |field| of_token |= field.is_of_token());
        rule.message.fields().for_each(|field| of_token |= field.is_of_token());
        let about = card(Card {
            id: id?.0,
            title,
            version,
            severity: rule.severity.otherwise,
            accepted: rule.severity.accepted,
            attack: attack.into_iter().map(|technique| technique.0).collect(),
            behavioural: rule.correlation.is_some(),
            of_token,
            cooling_s: u32::try_from(cooling.0.as_secs()).unwrap_or(u32::MAX),
        });
        let Some(about) = about else {
            let message = "too many versions of rules were loaded since the sensor started";
            s.report(Problem::error(s.span_of("id"), message).hint("restart the sensor"));
            return None;
        };
        rule.about = about;
        Some(rule)
    }

    fn refuse_taken(s: &mut Section<'_, '_>, id: Option<&Id>) {
        let ours = |id: &Id| crate::detect::rules::catalogue().iter().any(|about| about.id == id.0);
        if id.is_some_and(ours) {
            let message = "a rule of the catalogue has this id";
            s.report(Problem::error(s.span_of("id"), message).hint("choose another, for example my-..."));
        }
    }

    /// Complaints about a condition, at their places in the file.
    fn complain(self, s: &mut Section<'_, '_>, node: &Node, text: &str, complaints: Vec<Complaint>) {
        for complaint in complaints {
            let span = locate(self.text, node, text, &complaint.place);
            s.report(Problem { hint: complaint.hint, ..Problem::error(span, complaint.message) });
        }
    }

    pub(super) fn scalar<'n>(s: &mut Section<'_, '_>, node: &'n Node, what: &str) -> Option<&'n str> {
        if let Value::Scalar(text) = &node.value {
            return Some(text);
        }
        s.report(Problem::error(node.span, format!("{what} must be one value")));
        None
    }

    fn condition(self, s: &mut Section<'_, '_>, node: &Node, names: Names<'_>) -> Option<Condition> {
        let text = Self::scalar(s, node, "a condition")?;
        match check::condition(text, names) {
            Ok(condition) => Some(condition),
            Err(complaints) => {
                self.complain(s, node, text, complaints);
                None
            }
        }
    }

    fn operand(self, s: &mut Section<'_, '_>, node: &Node, names: Names<'_>) -> Option<Condition> {
        let text = Self::scalar(s, node, "a field")?;
        match check::operand(text, names) {
            Ok(operand) => Some(operand),
            Err(complaints) => {
                self.complain(s, node, text, complaints);
                None
            }
        }
    }

    fn when(
        self,
        s: &mut Section<'_, '_>,
        names: Names<'_>,
        correlation: Option<&Correlation>,
    ) -> Option<Condition> {
        if let Some(node) = s.raw("when", "A condition on an exchange, in CEL.") {
            return self.condition(s, node, names);
        }
        // The steps say it all.
        if correlation.is_some_and(|c| matches!(c.kind, Kind::Any(_) | Kind::Ordered(_))) {
            return Some(Condition::Bool(true));
        }
        let problem = Problem::error(s.span_of("when"), "`when` is missing");
        s.report(problem.hint("add `when: ...`, a condition such as response.status == 401"));
        None
    }

    fn exceptions(self, s: &mut Section<'_, '_>, names: Names<'_>) -> Vec<Condition> {
        let Some(node) = s.raw("exceptions", "Conditions; an exchange that fulfils one is left alone.")
        else {
            return Vec::new();
        };
        let items = match &node.value {
            Value::List(items) if items.len() <= MAX_EXCEPTIONS => items.as_slice(),
            Value::List(_) => {
                s.report(Problem::error(node.span, format!("more than {MAX_EXCEPTIONS} exceptions")));
                &[]
            }
            _ => std::slice::from_ref(node),
        };
        items.iter().filter_map(|item| self.condition(s, item, names)).collect()
    }

    /// `severity: high`, or `{attempt: high, accepted: critical}`, or `{critical: CONDITION, otherwise: high}`.
    fn severity(self, s: &mut Section<'_, '_>, names: Names<'_>) -> Option<SeverityPlan> {
        let Some(node) = s.raw("severity", "low, medium, high or critical; or conditions.") else {
            let problem = Problem::error(s.span_of("severity"), "`severity` is missing");
            s.report(problem.hint("add `severity: ...`, low, medium, high or critical"));
            return None;
        };
        let Value::Map(entries) = &node.value else {
            let otherwise = Self::one_severity(s, node)?;
            return Some(SeverityPlan { when: Vec::new(), accepted: None, otherwise });
        };
        let mut plan = SeverityPlan { when: Vec::new(), accepted: None, otherwise: Severity::Medium };
        let mut said = false;
        for (key, value) in entries {
            match (key.text.as_str(), Severity::parse(&key.text)) {
                ("attempt" | "otherwise", _) => {
                    said = true;
                    plan.otherwise = Self::one_severity(s, value)?;
                }
                ("accepted", _) => plan.accepted = Some(Self::one_severity(s, value)?),
                (_, Some(severity)) => {
                    plan.when.extend(self.condition(s, value, names).map(|c| (severity, c)));
                }
                (other, None) => {
                    let message = format!("unknown key `{other}` in `severity`");
                    let hint = "known here: otherwise, attempt, accepted, low, medium, high, critical";
                    s.report(Problem::error(key.span, message).hint(hint));
                }
            }
        }
        if !said {
            s.report(
                Problem::error(node.span, "`severity` does not say what it is otherwise")
                    .hint("add `otherwise: medium`"),
            );
        }
        plan.when.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
        Some(plan)
    }

    fn one_severity(s: &mut Section<'_, '_>, node: &Node) -> Option<Severity> {
        let text = Self::scalar(s, node, "`severity`")?;
        match <Severity as crate::config::word::Word>::parse(text) {
            Ok(severity) => Some(severity),
            Err(wrong) => {
                let problem = Problem::error(node.span, format!("`severity` {}", wrong.message));
                s.report(Problem { hint: wrong.hint, ..problem });
                None
            }
        }
    }

    fn message(self, s: &mut Section<'_, '_>, counted: bool) -> Option<Template> {
        let Some(node) = s.raw("message", "The sentence, with fields in braces.") else {
            return Template::parse("{request.route} was answered {response.status}.").ok();
        };
        let text = Self::scalar(s, node, "`message`")?;
        if text.len() > 1024 {
            s.report(Problem::error(node.span, "`message` is longer than 1024 bytes"));
            return None;
        }
        let (place, message, hint) = match Template::parse(text) {
            Ok(template) if counted || template.fields().all(|field| field != Field::Count) => {
                return Some(template);
            }
            Ok(_) => (0..1, "`{count}` has no meaning without `correlate`".to_owned(), None),
            Err(TemplateError::Unclosed(at)) => (
                at..at + 1,
                "a brace without its other half".to_owned(),
                Some("write {{ for a brace".to_owned()),
            ),
            Err(TemplateError::Unknown(from, to, name)) => {
                let hint = check::suggest(&name).map(|near| format!("did you mean `{near}`?"));
                (from..to, format!("no field is called `{name}`"), hint)
            }
            Err(TemplateError::NeverShown(from, to, name)) => (
                from..to,
                format!("`{name}` is never shown in alerts"),
                Some("use it in conditions only".into()),
            ),
        };
        self.complain(s, node, text, vec![Complaint { place, message, hint }]);
        None
    }

    fn lists(self, s: &mut Section<'_, '_>) -> Lists {
        let mut lists = Lists::default();
        let Some(node) = s.raw("lists", "Constants by name: a list, or `{file: PATH}` with one a line.")
        else {
            return lists;
        };
        let Value::Map(entries) = &node.value else {
            s.report(Problem::error(node.span, "`lists` must be a mapping of names to lists"));
            return lists;
        };
        for (key, value) in entries {
            let name = &key.text;
            let good = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !good
                || Field::parse(name).is_some()
                || ["true", "false", "in", "null"].contains(&name.as_str())
            {
                let message = format!("`{name}` cannot be the name of a list");
                s.report(Problem::error(key.span, message).hint("use small letters, digits and underscores"));
            }
            if lists.by_name.contains_key(name) {
                s.report(Problem::error(key.span, format!("the list `{name}` is there twice")));
            }
            let items = self.list(s, value, &mut lists);
            lists.by_name.insert(name.clone(), items);
        }
        lists
    }

    fn list(self, s: &mut Section<'_, '_>, node: &Node, lists: &mut Lists) -> Vec<String> {
        match &node.value {
            Value::List(items) => {
                items.iter().filter_map(|item| Self::scalar(s, item, "an entry").map(str::to_owned)).collect()
            }
            Value::Map(entries) => match entries.as_slice() {
                [(key, Node { value: Value::Scalar(file), span })] if key.text == "file" => {
                    let base = self.path.parent().unwrap_or(Path::new(""));
                    let path = base.join(file);
                    let items = text_of(&path).and_then(|text| lines(&text));
                    lists.files.push(path);
                    match items {
                        Ok(items) => {
                            lists.hash = stable_hash(&(lists.hash, &items));
                            items
                        }
                        Err(why) => {
                            s.report(Problem::error(*span, format!("the file {why}")));
                            Vec::new()
                        }
                    }
                }
                _ => {
                    s.report(Problem::error(node.span, "a list is [a, b], or {file: PATH}"));
                    Vec::new()
                }
            },
            _ => {
                s.report(Problem::error(node.span, "a list is [a, b], or {file: PATH}"));
                Vec::new()
            }
        }
    }

    fn correlate(self, s: &mut Section<'_, '_>, names: Names<'_>) -> Option<Correlation> {
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

/// The entries of a list file: one a line; blank lines and what follows `#` are none.
fn lines(text: &str) -> Result<Vec<String>, String> {
    let entries = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let entries: Vec<String> = entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect();
    if entries.len() > MAX_LIST {
        return Err(format!("holds more than {MAX_LIST} entries"));
    }
    Ok(entries)
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

impl crate::config::word::Word for KindWord {
    const WHAT: &'static str = "event_count, value_count, temporal or temporal_ordered";

    fn parse(text: &str) -> Result<Self, crate::config::word::Wrong> {
        crate::config::word::choose(text, &KINDS)
    }

    fn show(&self) -> String {
        KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name).to_owned()
    }
}

/// Stands for the card until everything is read.
static PLACEHOLDER: crate::detect::About = crate::detect::About {
    id: "user-rule",
    title: "",
    version: "1",
    severity: Severity::Medium,
    accepted: None,
    attack: &[],
    behavioural: false,
    needs: crate::detect::Needs::Exchange,
    doc: "",
    cooling_s: 0,
    thresholds: &[],
};
