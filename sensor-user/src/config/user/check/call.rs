//! Calls of functions: each is known, and so are the types of its arguments.

use super::{Check, Typed};
use crate::config::near::nearest;
use crate::config::user::lex::{Complaint, Place};
use crate::config::user::parse::{Kind, Tree};
use crate::detect::user::expr::{Node, Place as Where};
use crate::detect::user::field::{Field, Type};

/// A regular expression's automaton may take so many bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Deepest nesting of `exists` and `all`: with lists of 32 items, two levels are a thousand visits.
const MAX_ITEMS_DEPTH: usize = 2;

/// Functions, for suggestions.
const FUNCTIONS: [&str; 11] = [
    "has",
    "size",
    "lower",
    "upper",
    "matches",
    "cidr",
    "startsWith",
    "endsWith",
    "contains",
    "exists",
    "all",
];

impl Check<'_> {
    pub(super) fn call(
        &mut self,
        name: &str,
        at: &Place,
        method: bool,
        arguments: &[Tree],
        place: &Place,
    ) -> Option<Typed> {
        match (name, arguments) {
            ("has", [one]) if !method => {
                let (node, _) = self.tree(one)?;
                if !matches!(node, Node::Field(_) | Node::Header(..)) {
                    return self
                        .complain(Complaint::new(one.place.clone(), "`has` asks for a field or header"));
                }
                Some((Node::Has(Box::new(node)), Type::Bool))
            }
            ("size", [one]) => {
                let (node, kind) = self.tree(one)?;
                if !matches!(kind, Type::Text | Type::Texts) {
                    let message = format!("{} has no size", kind.as_str());
                    return self.complain(Complaint::new(one.place.clone(), message));
                }
                Some((Node::Size(Box::new(node)), Type::Int))
            }
            ("lower" | "lowerAscii", [one]) => {
                let node = self.wanted(one, Type::Text, "what is made small")?;
                Some((Node::Lower(Box::new(node)), Type::Text))
            }
            ("upper" | "upperAscii", [one]) => {
                let node = self.wanted(one, Type::Text, "what is made capital")?;
                Some((Node::Upper(Box::new(node)), Type::Text))
            }
            ("startsWith" | "endsWith" | "contains", [text, part]) if method => {
                let what = format!("both sides of `{name}`");
                let sides = [self.wanted(text, Type::Text, &what), self.wanted(part, Type::Text, &what)];
                let [Some(text), Some(part)] = sides else { return None };
                let find = match name {
                    "startsWith" => Where::Start,
                    "endsWith" => Where::End,
                    _ => Where::Anywhere,
                };
                Some((Node::Find(find, Box::new([text, part])), Type::Bool))
            }
            ("matches", [text, pattern]) => self.matches(text, pattern),
            ("cidr", [address, nets @ ..]) if !method && !nets.is_empty() => {
                let list = Tree { place: place.clone(), kind: Kind::List(nets.to_vec()) };
                let (_, kind) = self.tree(address)?;
                if kind != Type::Address {
                    let message = format!("`cidr` looks at an address, and this is {}", kind.as_str());
                    return self.complain(Complaint::new(address.place.clone(), message));
                }
                self.within(address, &list)
            }
            ("exists" | "all", [list, Tree { kind: Kind::Name(item), place: at }, test]) if method => {
                self.every(name == "all", list, (item, at), test)
            }
            _ => self.unknown_call(name, at),
        }
    }

    fn unknown_call(&mut self, name: &str, at: &Place) -> Option<Typed> {
        let known = FUNCTIONS.contains(&name);
        let message = if known {
            format!("`{name}` is called otherwise")
        } else {
            format!("no function is called `{name}`")
        };
        let hint = match (name, nearest(name, FUNCTIONS)) {
            ("startsWith" | "endsWith" | "contains", _) => format!("write text.{name}(\"part\")"),
            ("exists" | "all", _) => format!("write list.{name}(x, condition on x)"),
            ("matches", _) => "write matches(text, \"pattern\")".to_owned(),
            ("cidr", _) => "write cidr(client.address, \"10.0.0.0/8\")".to_owned(),
            (_, Some(near)) if !known => format!("did you mean `{near}`?"),
            (_, _) if known => format!("write {name}(value)"),
            _ => format!("there are {}", FUNCTIONS.join(", ")),
        };
        self.complain(Complaint::new(at.clone(), message).hint(hint))
    }

    fn matches(&mut self, text: &Tree, pattern: &Tree) -> Option<Typed> {
        let node = self.wanted(text, Type::Text, "what is matched");
        let Kind::Text(source) = &pattern.kind else {
            return self.complain(Complaint::new(pattern.place.clone(), "a pattern is a constant"));
        };
        let built = regex::RegexBuilder::new(source).size_limit(MAX_PATTERN_BYTES).nest_limit(32).build();
        match built {
            Ok(regex) => Some((Node::Matches(Box::new(node?), regex), Type::Bool)),
            Err(error) => {
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                self.complain(Complaint::new(pattern.place.clone(), format!("no pattern: {why}")))
            }
        }
    }

    fn every(&mut self, all: bool, list: &Tree, item: (&str, &Place), test: &Tree) -> Option<Typed> {
        let list_node = self.wanted(list, Type::Texts, "what is searched");
        let (name, at) = item;
        if Field::parse(name).is_some() || name.contains('.') || self.names.lists.contains_key(name) {
            return self
                .complain(Complaint::new(at.clone(), format!("`{name}` is the name of something else")));
        }
        if self.items.len() >= MAX_ITEMS_DEPTH {
            let message = format!("`exists` and `all` are nested deeper than {MAX_ITEMS_DEPTH}");
            return self.complain(Complaint::new(list.place.clone(), message));
        }
        self.items.push(name.to_owned());
        let test = self.wanted(test, Type::Bool, "what is asked of each item");
        self.items.pop();
        Some((Node::Every(all, Box::new([list_node?, test?])), Type::Bool))
    }
}
