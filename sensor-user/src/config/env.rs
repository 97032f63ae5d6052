//! Overrides from the environment: `TOKENSCOPE_CAPTURE__PORTS=80,8080` sets `capture.ports`.
//!
//! The name is the key's path in capitals: a dot becomes two underscores, a hyphen becomes one. A list is written
//! `a,b` or as YAML, `[a, b]`. Inside lists nothing can be overridden; the list as a whole can.

use std::collections::BTreeMap;

use crate::config::problem::{Problem, Source, Span};
use crate::config::yaml::{self, Node, Value};

/// What every name starts with.
pub const PREFIX: &str = "TOKENSCOPE_";
/// Longest value, in bytes: more belongs in the file. Linux allows 128 KiB.
const MAX_VALUE: usize = 64 * 1024;

/// The process's environment, or what a test says it is. Holds secrets, so it cannot be printed.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What the process was started with. Names and values that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(utf8).collect())
    }

    /// The value of one variable.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every variable that may set a key. Their texts become sources.
    pub(super) fn variables(&self, sources: &mut Vec<Source>) -> BTreeMap<String, Variable> {
        let ours = self.0.iter().filter(|(name, _)| name.starts_with(PREFIX));
        ours.map(|(name, text)| {
            let variable = Variable::new(text, sources.len());
            sources.push(Source { name: format!("environment variable {name}"), text: text.clone() });
            (name.clone(), variable)
        })
        .collect()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// The value of a variable, read both ways: only the key knows which is meant.
pub struct Variable {
    /// Its place.
    pub span: Span,
    /// The text as one value.
    pub scalar: Node,
    /// The text as a list.
    pub list: Node,
    /// What is wrong with the text as a list.
    pub list_problems: Vec<Problem>,
}

impl Variable {
    fn new(text: &str, source: usize) -> Self {
        let span = Span { source, line: 1, column: 1, width: text.chars().count() };
        let mut list_problems = Vec::new();
        if text.len() > MAX_VALUE {
            list_problems.push(Problem::error(span, format!("longer than {MAX_VALUE} bytes")));
            let nothing = Node { span, value: Value::Null };
            return Self { span, scalar: nothing.clone(), list: nothing, list_problems };
        }
        let list = if text.trim_start().starts_with('[') {
            yaml::parse(text, source, &mut list_problems).unwrap_or(Node { span, value: Value::Null })
        } else {
            Node { span, value: Value::List(split(text, source)) }
        };
        let scalar = Node { span, value: Value::Scalar(text.to_owned()) };
        Self { span, scalar, list, list_problems }
    }
}

/// `a, b` as nodes; nothing is an empty list.
fn split(text: &str, source: usize) -> Vec<Node> {
    let mut column = 1;
    let mut nodes = Vec::new();
    for part in text.split(',') {
        let word = part.trim();
        let lead = part.chars().take_while(|c| c.is_whitespace()).count();
        let span = Span { source, line: 1, column: column + lead, width: word.chars().count() };
        if !word.is_empty() {
            nodes.push(Node { span, value: Value::Scalar(word.to_owned()) });
        }
        column += part.chars().count() + 1;
    }
    nodes
}

/// The variable that sets a key.
#[must_use]
pub fn name(path: &str) -> String {
    let mut name = String::from(PREFIX);
    for c in path.chars() {
        match c {
            '.' => name.push_str("__"),
            '-' => name.push('_'),
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

/// Whether a variable can only be meant for a key. Others that start like ours are somebody else's: Kubernetes sets
/// `TOKENSCOPE_PORT` and its like in every pod beside a service of our name.
#[must_use]
pub fn must_be_known(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains("__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_paths() {
        assert_eq!(name("capture.max_head_bytes"), "TOKENSCOPE_CAPTURE__MAX_HEAD_BYTES");
        assert_eq!(name("rules.brute-force.per_minute"), "TOKENSCOPE_RULES__BRUTE_FORCE__PER_MINUTE");
        assert_eq!(name("issuers"), "TOKENSCOPE_ISSUERS");
    }

    #[test]
    fn leaves_the_variables_of_kubernetes_alone() {
        assert!(must_be_known("TOKENSCOPE_CAPTURE__PORT"));
        let others =
            ["TOKENSCOPE_PORT", "TOKENSCOPE_PORT_9464_TCP_ADDR", "TOKENSCOPE_SERVICE_HOST", "OTHER__THING"];
        assert!(!others.into_iter().any(must_be_known));
    }

    #[test]
    fn splits_lists_and_keeps_places() {
        let places: Vec<_> =
            split("80, 8080,,9", 0).into_iter().map(|n| (n.span.column, n.span.width)).collect();
        assert_eq!(places, [(1, 2), (5, 4), (11, 1)]);
        assert!(split("", 0).is_empty());
    }
}
