//! YAML text to a tree whose every node knows its place, with limits that no file can exceed.
//!
//! Built on the events of `saphyr-parser` and not on `saphyr`'s loader, which lets a later duplicate key win in
//! silence and copies what an alias names without a bound. What a configuration does not need is refused: tags, merge
//! keys, keys that are not plain words, several documents.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marks};

use crate::config::problem::{Problem, Span};

/// Deepest nesting: the configuration itself has five levels.
const MAX_DEPTH: usize = 16;
/// Most nodes, aliases expanded: a list of 100,000 denied accounts fits, a "billion laughs" file does not.
const MAX_NODES: usize = 250_000;

/// Most keys of one mapping: the catalogue of rules, the largest there is, has less than a tenth. Keys are compared
/// with each other.
const MAX_KEYS: usize = 1_000;

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins, and its width if it ends on the same line.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, unquoted; whether it is a number depends on the key and not on its looks.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it is.
    pub span: Span,
}

/// Reads a text. Problems are appended; the tree holds everything that could be read.
pub fn parse(text: &str, source: usize, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut builder =
        Builder { source, root: None, open: Vec::new(), anchors: HashMap::new(), nodes: 0, problems };
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, marks) = match event {
            Ok(event) => event,
            Err(error) => {
                let mark = error.marker();
                let span = Span { source, line: mark.line(), column: mark.col() + 1, width: 1 };
                builder.problems.push(Problem::error(span, format!("not valid YAML: {}", error.info())));
                break;
            }
        };
        let span = builder.span(marks);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                builder
                    .problems
                    .push(Problem::error(span, "a second YAML document begins here; one is allowed"));
                break;
            }
        }
        builder.on_event(event, span)?;
    }
    builder.root
}

/// A collection that has not ended.
struct Open {
    anchor: usize,
    span: Span,
    /// Nodes counted before it began: its size is the difference.
    nodes_before: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key> },
}

struct Builder<'p> {
    source: usize,
    root: Option<Node>,
    open: Vec<Open>,
    /// Finished nodes that have an anchor, and how many nodes each is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    problems: &'p mut Vec<Problem>,
}

impl Builder<'_> {
    fn span(&self, marks: Marks) -> Span {
        let same_line = marks.start.line() == marks.end.line();
        let width =
            if same_line { marks.end.col().saturating_sub(marks.start.col()).max(1) } else { usize::MAX };
        Span { source: self.source, line: marks.start.line(), column: marks.start.col() + 1, width }
    }

    /// Takes one event in; `None` when reading must stop.
    fn on_event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                let quoted = style != ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" if !quoted => Value::Null,
                    _ => Value::Scalar(text.into_owned()),
                };
                self.count(1, span)?;
                self.finish(Node { span, value }, anchor, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.begin(anchor, span, Kind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.begin(anchor, span, Kind::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { anchor, span, nodes_before, kind } = self.open.pop()?;
                let value = match kind {
                    Kind::List(items) => Value::List(items),
                    Kind::Map { entries, .. } => Value::Map(entries),
                };
                let size = self.nodes.saturating_sub(nodes_before);
                self.finish(Node { span, value }, anchor, size)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    self.problems
                        .push(Problem::error(span, "this alias names a collection that has not ended"));
                    return self.finish(Node { span, value: Value::Null }, 0, 1);
                };
                let size = *size;
                // Counted before it is copied: the copy is what costs.
                if self.nodes.saturating_add(size) > MAX_NODES {
                    return self.count(size, span);
                }
                let node = Node { span, value: node.value.clone() };
                self.count(size, span)?;
                self.finish(node, 0, size)
            }
            _ => Some(()),
        }
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            self.problems.push(Problem::error(span, "YAML tags are not used here").hint("remove the tag"));
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Option<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            self.problems
                .push(Problem::error(span, format!("more than {MAX_NODES} values, aliases expanded")));
            return None;
        }
        Some(())
    }

    fn begin(&mut self, anchor: usize, span: Span, kind: Kind) -> Option<()> {
        if self.open.len() >= MAX_DEPTH {
            self.problems.push(Problem::error(span, format!("nested deeper than {MAX_DEPTH} levels")));
            return None;
        }
        let nodes_before = self.nodes;
        self.count(1, span)?;
        self.open.push(Open { anchor, span, nodes_before, kind });
        Some(())
    }

    /// Puts a finished node where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, size: usize) -> Option<()> {
        if anchor > 0 {
            // An anchor is a copy at rest: it counts like one in use.
            self.count(size, node.span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { entries, .. }) if entries.len() == MAX_KEYS => {
                let message = format!("a mapping of more than {MAX_KEYS} keys");
                self.problems.push(Problem::error(node.span, message));
                return None;
            }
            Some(Kind::Map { entries, key }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(Self::key(node, self.problems)),
            },
        }
        Some(())
    }

    fn key(node: Node, problems: &mut Vec<Problem>) -> Key {
        if let Value::Scalar(text) = node.value {
            return Key { text, span: node.span };
        }
        problems.push(Problem::error(node.span, "a key must be a word"));
        Key { text: String::new(), span: node.span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problems(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        parse(text, 0, &mut problems);
        problems.into_iter().map(|p| format!("{}:{} {}", p.span.line, p.span.column, p.message)).collect()
    }

    #[test]
    fn every_node_knows_its_place() {
        let mut problems = Vec::new();
        let node = parse("a:\n  bc: [1, 'two']\n", 3, &mut problems).unwrap();
        let Value::Map(top) = node.value else { panic!() };
        assert_eq!((top[0].0.span.line, top[0].0.span.column, top[0].0.span.source), (1, 1, 3));
        let Value::Map(inner) = &top[0].1.value else { panic!() };
        assert_eq!((inner[0].0.span.line, inner[0].0.span.column, inner[0].0.span.width), (2, 3, 2));
        let Value::List(items) = &inner[0].1.value else { panic!() };
        assert_eq!((items[1].span.line, items[1].span.column, items[1].span.width), (2, 11, 5));
        assert!(problems.is_empty());
    }

    #[test]
    fn refuses_what_a_configuration_does_not_need() {
        assert_eq!(problems("a: !!str 5\n"), ["1:10 YAML tags are not used here"]);
        assert_eq!(problems("? [a]\n: 5\n"), ["1:3 a key must be a word"]);
        assert_eq!(problems("a: 1\n---\nb: 2\n"), ["2:1 a second YAML document begins here; one is allowed"]);
        assert_eq!(problems(&"[".repeat(40)), ["1:17 nested deeper than 16 levels"]);
        assert_eq!(problems(&"a: 1\n".repeat(2_000)), ["1001:1 a mapping of more than 1000 keys"]);
        assert_eq!(problems("a: &x [*x]\n"), ["1:8 this alias names a collection that has not ended"]);
    }

    #[test]
    fn a_billion_laughs_stay_small() {
        use std::fmt::Write as _;
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let copies = vec![format!("*a{}", i - 1); 10].join(", ");
            let _ = writeln!(text, "a{i}: &a{i} [{copies}]");
        }
        assert_eq!(problems(&text).len(), 1);
        assert!(problems(&text)[0].contains("more than 250000 values"));
    }

    #[test]
    fn aliases_work_within_the_limits() {
        let mut problems = Vec::new();
        let node = parse("a: &a [1, 2]\nb: *a\n", 0, &mut problems).unwrap();
        let Value::Map(top) = node.value else { panic!() };
        assert!(matches!(&top[1].1.value, Value::List(items) if items.len() == 2));
        assert!(problems.is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"[ \t\n:\-\[\]{},&*!#|>'"%@`?~a-c0-9.\\\PC]{0,80}"#) {
            problems(&text);
        }
    }
}
