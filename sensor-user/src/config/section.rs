//! Reading a mapping key by key. One call a key says everything about it: name, default, bounds and meaning; the
//! check, the environment variable, `config show` and docs/config.md all follow from that call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::config::env::{self, Variable};
use crate::config::near::nearest;
use crate::config::problem::{Problem, Span};
use crate::config::show::{Body, Entry};
use crate::config::word::Word;
use crate::config::yaml::{self, Key, Node, Value};

/// Most items of one list: deny lists of large organisations; [`yaml`] bounds the whole file.
const MAX_ITEMS: usize = 100_000;

/// What reading a configuration gathers besides the configuration.
pub struct Reader<'a> {
    /// Overrides by name.
    variables: &'a BTreeMap<String, Variable>,
    /// Names of every variable that a key would read.
    asked: BTreeSet<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader that prefers these variables to the file.
    #[must_use]
    pub fn new(variables: &'a BTreeMap<String, Variable>) -> Self {
        Self { variables, asked: BTreeSet::new(), problems: Vec::new() }
    }

    /// Reads a whole document; also what `config show` prints of it.
    pub fn document<R>(
        &mut self,
        root: Option<&'a Node>,
        read: impl FnOnce(&mut Section<'_, 'a>) -> R,
    ) -> (R, Vec<Entry>) {
        let span = root.map_or_else(Span::default, |node| node.span);
        let mut section = Section::new(self, String::new(), true, root, span);
        let result = read(&mut section);
        let shown = section.end();
        self.refuse_unknown_variables();
        (result, shown)
    }

    fn refuse_unknown_variables(&mut self) {
        for (name, variable) in self.variables {
            if self.asked.contains(name) || !env::must_be_known(name) {
                continue;
            }
            let problem =
                Problem::error(variable.span, format!("no key of the configuration is called `{name}`"));
            let near = nearest(name, self.asked.iter().map(String::as_str));
            self.problems.push(match near {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem,
            });
        }
    }
}

/// One mapping of the configuration.
pub struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    /// `rules.brute-force`; empty for the document.
    path: String,
    /// Whether environment variables may set its keys: not inside lists.
    variables: bool,
    span: Span,
    entries: &'a [(Key, Node)],
    shown: Vec<Entry>,
    /// Keys that are no error although nothing asks for them.
    accepted: Accepted,
}

/// What to do about keys that nothing asks for.
enum Accepted {
    /// These are known to somebody else.
    Some(Vec<String>),
    /// The section belongs to somebody else.
    All,
}

impl<'r, 'a> Section<'r, 'a> {
    fn new(
        reader: &'r mut Reader<'a>,
        path: String,
        variables: bool,
        node: Option<&'a Node>,
        span: Span,
    ) -> Self {
        let entries: &[(Key, Node)] = match node.map(|n| &n.value) {
            Some(Value::Map(entries)) => entries,
            None | Some(Value::Null) => &[],
            Some(_) => {
                let what = if path.is_empty() { "the configuration".to_owned() } else { format!("`{path}`") };
                reader
                    .problems
                    .push(Problem::error(span, format!("{what} must be a mapping of keys to values")));
                &[]
            }
        };
        Self {
            reader,
            path,
            variables,
            span,
            entries,
            shown: Vec::new(),
            accepted: Accepted::Some(Vec::new()),
        }
    }

    /// Ends reading: whatever was not asked for is an error.
    fn end(self) -> Vec<Entry> {
        let known = || self.shown.iter().map(|entry| entry.key.as_str());
        for (index, (key, _)) in self.entries.iter().enumerate() {
            let earlier = self.entries.iter().take(index).find(|(other, _)| other.text == key.text);
            if let Some((first, _)) = earlier {
                let message =
                    format!("`{}` is set twice; the first is in line {}", key.text, first.span.line);
                self.reader.problems.push(Problem::error(key.span, message));
            } else if !known().any(|name| name == key.text) && !self.accepted.has(&key.text) {
                let place = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
                let problem = Problem::error(key.span, format!("unknown key `{}`{place}", key.text));
                let hint = match nearest(&key.text, known()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known().take(12).collect::<Vec<_>>().join(", ")),
                };
                self.reader.problems.push(problem.hint(hint));
            }
        }
        self.shown
    }

    /// Takes a key that nothing asks for: it is not an error.
    pub fn accept(&mut self, key: &str) {
        if let Accepted::Some(keys) = &mut self.accepted {
            keys.push(key.to_owned());
        }
    }

    /// Takes every key that nothing asks for.
    pub fn accept_all(&mut self) {
        self.accepted = Accepted::All;
    }

    /// Where the value of a key is: in the environment, in the file, or the section if it is left out.
    #[must_use]
    pub fn span_of(&self, key: &str) -> Span {
        if let Some(variable) = self.variable(key) {
            return variable.span;
        }
        self.node(key).map_or(self.span, |node| node.span)
    }

    /// Whether somebody wrote the key.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        self.variable(key).is_some() || self.node(key).is_some_and(|node| !matches!(node.value, Value::Null))
    }

    /// Adds a problem.
    pub fn report(&mut self, problem: Problem) {
        self.reader.problems.push(problem);
    }

    /// The keys as written, with their places.
    pub fn keys(&self) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.entries.iter().map(|(key, _)| key)
    }

    /// A number within bounds.
    pub fn number(&mut self, key: &str, default: u64, bounds: RangeInclusive<u64>, doc: &str) -> u64 {
        self.bounded(key, default, &bounds, doc)
    }

    /// A number that may have a fraction, within bounds.
    pub fn decimal(&mut self, key: &str, default: f64, bounds: RangeInclusive<f64>, doc: &str) -> f64 {
        self.bounded(key, default, &bounds, doc)
    }

    fn bounded<T>(&mut self, key: &str, default: T, bounds: &RangeInclusive<T>, doc: &str) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        let value = self.scalar(key).and_then(|(text, span)| {
            let value = text.parse().ok().filter(|value| bounds.contains(value));
            if value.is_none() {
                self.out_of_bounds(key, text, span, bounds.start(), bounds.end());
            }
            value
        });
        let value = value.unwrap_or(default);
        self.show(key, doc, Body::Value(value.to_string()));
        value
    }

    fn out_of_bounds(&mut self, key: &str, text: &str, span: Span, from: &dyn Display, to: &dyn Display) {
        let unit = match key {
            key if key.ends_with("_s") => " seconds",
            key if key.ends_with("_bytes") => " bytes",
            _ => "",
        };
        let path = self.path_of(key);
        let got: String = text.chars().take(40).collect();
        let message = format!("`{path}` is {got:?}; it must be a number from {from} to {to}{unit}");
        self.report(Problem::error(span, message.replace('"', "`")));
    }

    /// One word.
    pub fn word<T: Word>(&mut self, key: &str, default: T, doc: &str) -> T {
        let value = self.read_word(key).unwrap_or(default);
        self.show(key, doc, Body::Value(value.show()));
        value
    }

    /// One word that may be left out.
    pub fn optional<T: Word>(&mut self, key: &str, doc: &str) -> Option<T> {
        let value = self.read_word::<T>(key);
        self.show(key, doc, Body::Value(value.as_ref().map_or_else(|| "null".into(), Word::show)));
        value
    }

    /// One word that must be there.
    pub fn required<T: Word>(&mut self, key: &str, doc: &str) -> Option<T> {
        if !self.is_set(key) {
            let problem = Problem::error(self.span, format!("`{}` is missing", self.path_of(key)));
            self.report(problem.hint(format!("add `{key}: ...`, {}", T::WHAT)));
        }
        self.optional(key, doc)
    }

    fn read_word<T: Word>(&mut self, key: &str) -> Option<T> {
        let (text, span) = self.scalar(key)?;
        self.parse_word(key, text, span)
    }

    fn parse_word<T: Word>(&mut self, key: &str, text: &str, span: Span) -> Option<T> {
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let problem = Problem::error(span, format!("`{}` {}", self.path_of(key), wrong.message));
                let problem = Problem { hint: wrong.hint, secret: wrong.secret, ..problem };
                self.report(problem);
                None
            }
        }
    }

    /// A list of words.
    pub fn words<T: Word>(&mut self, key: &str, default: Vec<T>, doc: &str) -> Vec<T> {
        let value = match self.list(key) {
            None => default,
            Some(items) => {
                let mut values = Vec::with_capacity(items.len());
                let problems = self.reader.problems.len();
                for item in items {
                    if let Value::Scalar(text) = &item.value {
                        values.extend(self.parse_word::<T>(key, text, item.span));
                    } else {
                        let message = format!("`{}` must be a list of {}", self.path_of(key), T::WHAT_MANY);
                        self.report(Problem::error(item.span, message));
                    }
                }
                // What is missing because it is wrong is not reported again as missing.
                if self.reader.problems.len() > problems { default } else { values }
            }
        };
        let shown = value.iter().map(Word::show).collect::<Vec<_>>().join(", ");
        self.show(key, doc, Body::Value(format!("[{shown}]")));
        value
    }

    /// A section inside this one.
    pub fn section<R>(&mut self, key: &str, doc: &str, read: impl FnOnce(&mut Section<'_, 'a>) -> R) -> R {
        let node = self.node(key);
        let span = node.map_or(self.span, |node| node.span);
        let mut inner = Section::new(self.reader, join(&self.path, key), self.variables, node, span);
        let result = read(&mut inner);
        let shown = inner.end();
        self.show(key, doc, Body::Section(shown));
        result
    }

    /// A list of mappings. The example documents an item, and is printed as a comment where there are none.
    pub fn items<T>(
        &mut self,
        key: &str,
        doc: &str,
        example: &str,
        read: impl Fn(&mut Section<'_, '_>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.path_of(key);
        let mut values = Vec::new();
        let mut shown = Vec::new();
        for item in self.list(key).unwrap_or_default() {
            let mut inner = Section::new(self.reader, path.clone(), false, Some(item), item.span);
            values.extend(read(&mut inner));
            shown.push(inner.end());
        }
        let example = if shown.is_empty() { describe(example, &path, read) } else { Vec::new() };
        self.show(key, doc, Body::Items { items: shown, example });
        values
    }

    /// What the file says under a key, whatever it is; none if it says nothing.
    pub fn raw(&mut self, key: &str, doc: &str) -> Option<&'a Node> {
        self.show(key, doc, Body::Value("null".into()));
        self.node(key).filter(|node| !matches!(node.value, Value::Null))
    }

    fn list(&mut self, key: &str) -> Option<&'a [Node]> {
        let node = match self.variable(key) {
            Some(variable) => {
                self.reader.problems.extend(variable.list_problems.iter().cloned());
                Some(&variable.list)
            }
            None => self.node(key),
        }?;
        self.ask(key);
        match &node.value {
            Value::Null => None,
            Value::List(items) if items.len() <= MAX_ITEMS => Some(items),
            Value::List(_) => {
                let message = format!("`{}` has more than {MAX_ITEMS} items", self.path_of(key));
                self.report(Problem::error(node.span, message));
                None
            }
            _ => {
                let message = format!("`{}` must be a list", self.path_of(key));
                self.report(Problem::error(node.span, message).hint("write [a, b], or one `- a` a line"));
                None
            }
        }
    }

    fn scalar(&mut self, key: &str) -> Option<(&'a str, Span)> {
        let node = match self.variable(key) {
            Some(variable) => &variable.scalar,
            None => self.node(key)?,
        };
        match &node.value {
            Value::Null => None,
            Value::Scalar(text) => Some((text, node.span)),
            Value::List(_) | Value::Map(_) => {
                let message = format!("`{}` must be one value", self.path_of(key));
                self.report(Problem::error(node.span, message));
                None
            }
        }
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    fn variable(&self, key: &str) -> Option<&'a Variable> {
        if !self.variables {
            return None;
        }
        self.reader.variables.get(&env::name(&self.path_of(key)))
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn ask(&mut self, key: &str) {
        if self.variables {
            let name = env::name(&self.path_of(key));
            self.reader.asked.insert(name);
        }
    }

    fn show(&mut self, key: &str, doc: &str, body: Body) {
        if !matches!(body, Body::Section(_)) {
            self.ask(key);
        }
        self.shown.push(Entry { key: key.to_owned(), doc: doc.to_owned(), body });
    }
}

impl Accepted {
    /// A key that could not be read is empty: it has its error already.
    fn has(&self, key: &str) -> bool {
        match self {
            Self::Some(keys) => key.is_empty() || keys.iter().any(|k| k == key),
            Self::All => true,
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What an item of a list looks like, read from an example. A test holds every example to be free of problems.
fn describe<T>(example: &str, path: &str, read: impl Fn(&mut Section<'_, '_>) -> Option<T>) -> Vec<Entry> {
    let nothing = BTreeMap::new();
    let mut problems = Vec::new();
    let Some(node) = yaml::parse(example, 0, &mut problems) else { return Vec::new() };
    let mut reader = Reader::new(&nothing);
    let mut section = Section::new(&mut reader, path.to_owned(), false, Some(&node), node.span);
    read(&mut section);
    section.end()
}
