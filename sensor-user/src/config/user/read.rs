//! A rule file, key by key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::section::{Reader, Section};
use crate::config::user::check::{self, Names};
use crate::config::user::lex::Complaint;
use crate::config::user::locate::locate;
use crate::config::user::span::{Id, Length, Technique};
use crate::config::user::{Read, example};
use crate::config::yaml::{self, Node, Value};
use crate::config::{Problem, Report, Source};
use crate::detect::Severity;
use crate::detect::roster::stable_hash;
use crate::detect::user::correlate::{Correlation, Kind};
use crate::detect::user::expr::Node as Condition;
use crate::detect::user::field::Field;
use crate::detect::user::message::{Template, TemplateError};
use crate::detect::user::model::{Card, Figures, SeverityPlan, UserRule, card};

mod correlation;
mod lists;

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
