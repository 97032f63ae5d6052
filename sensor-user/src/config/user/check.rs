//! Trees to conditions: every name is known, every type fits, every list is of one kind. All complaints at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;
use ipnet::IpNet;

use crate::config::near::nearest;
use crate::config::user::lex::{Complaint, Place};
use crate::config::user::parse::{Kind, Tree, parse};
use crate::config::word::Word as _;
use crate::detect::user::expr::{Arithmetic, Compare, Node, Place as Where};
use crate::detect::user::field::{FIELDS, Field, FieldCard, SECRET_HEADERS, Side, Type};
use crate::detect::user::set::Set;

/// A regular expression's automaton may take so many bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Deepest nesting of `exists` and `all`: with lists of 32 items, two levels are a thousand visits.
const MAX_ITEMS_DEPTH: usize = 2;

/// What a condition may name.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The rule's lists.
    pub lists: &'a BTreeMap<String, Vec<String>>,
    /// Whether `count` is known.
    pub counted: bool,
}

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

/// Reads and checks a condition.
///
/// # Errors
/// With everything that is wrong.
pub fn condition(text: &str, names: Names<'_>) -> Result<Node, Vec<Complaint>> {
    let tree = parse(text).map_err(|complaint| vec![complaint])?;
    let mut check = Check { names, complaints: Vec::new(), items: Vec::new() };
    let node = check.wanted(&tree, Type::Bool, "a condition");
    match node {
        Some(node) if check.complaints.is_empty() => Ok(node),
        _ => Err(check.complaints),
    }
}

/// Reads and checks the name of a field or header.
///
/// # Errors
/// With everything that is wrong.
pub fn operand(text: &str, names: Names<'_>) -> Result<Node, Vec<Complaint>> {
    let tree = parse(text).map_err(|complaint| vec![complaint])?;
    let mut check = Check { names, complaints: Vec::new(), items: Vec::new() };
    let typed = check.tree(&tree);
    match typed {
        Some((node @ (Node::Field(_) | Node::Header(..)), kind)) => {
            if kind == Type::Texts {
                let message = "a list makes no group";
                check.complaints.push(Complaint::new(tree.place, message).hint("name a field of one value"));
            } else if check.complaints.is_empty() {
                return Ok(node);
            }
        }
        Some(_) => check.complaints.push(Complaint::new(tree.place, "a field or header must stand here")),
        None => {}
    }
    Err(check.complaints)
}

/// The field that was probably meant.
#[must_use]
pub fn suggest(name: &str) -> Option<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    nearest(name, FIELDS.iter().map(|card| card.name)).or_else(|| {
        let same = |card: &&FieldCard| card.name.rsplit('.').next() == Some(last);
        FIELDS.iter().find(same).map(|card| card.name)
    })
}

struct Check<'a> {
    names: Names<'a>,
    complaints: Vec<Complaint>,
    /// Names of the items that are being looked at, outermost first.
    items: Vec<String>,
}

type Typed = (Node, Type);

impl Check<'_> {
    fn complain(&mut self, complaint: Complaint) -> Option<Typed> {
        self.complaints.push(complaint);
        None
    }

    /// A tree that must have a type.
    fn wanted(&mut self, tree: &Tree, kind: Type, what: &str) -> Option<Node> {
        let (node, found) = self.tree(tree)?;
        if found == kind {
            return Some(node);
        }
        let message = format!("{what} must be {}, and this is {}", kind.as_str(), found.as_str());
        self.complain(Complaint::new(tree.place.clone(), message));
        None
    }

    fn tree(&mut self, tree: &Tree) -> Option<Typed> {
        let place = &tree.place;
        match &tree.kind {
            Kind::Int(number) => Some((Node::Int(*number), Type::Int)),
            Kind::Text(text) => Some((Node::Text(text.as_str().into()), Type::Text)),
            Kind::Bool(flag) => Some((Node::Bool(*flag), Type::Bool)),
            Kind::Name(name) => self.name(name, place),
            Kind::Index(two) => self.header(two, place),
            Kind::List(_) => self.complain(
                Complaint::new(place.clone(), "a list stands only after `in`").hint("write x in [..]"),
            ),
            Kind::Unary("!", inner) => {
                let inner = self.wanted(inner, Type::Bool, "what follows `!`")?;
                Some((Node::Not(Box::new(inner)), Type::Bool))
            }
            Kind::Unary(_, inner) => {
                let inner = self.wanted(inner, Type::Int, "what follows `-`")?;
                Some((Node::Arithmetic(Arithmetic::Sub, Box::new([Node::Int(0), inner])), Type::Int))
            }
            Kind::Binary(sign @ ("&&" | "||"), _) => self.logic(tree, sign),
            Kind::Binary("in", two) => {
                let [item, list] = &**two;
                self.within(item, list)
            }
            Kind::Binary(sign, two) => self.binary(sign, two, place),
            Kind::If(parts) => self.choice(parts, place),
            Kind::Call { name, at, method, arguments } => self.call(name, at, *method, arguments, place),
        }
    }

    fn binary(&mut self, sign: &str, two: &[Tree; 2], place: &Place) -> Option<Typed> {
        let [left, right] = two;
        let Some(how) = arithmetic(sign) else { return self.compare(sign, left, right, place) };
        let what = format!("both sides of `{sign}`");
        let sides = [self.wanted(left, Type::Int, &what), self.wanted(right, Type::Int, &what)];
        let [Some(a), Some(b)] = sides else { return None };
        Some((Node::Arithmetic(how, Box::new([a, b])), Type::Int))
    }

    fn name(&mut self, name: &str, place: &Place) -> Option<Typed> {
        if let Some(depth) = self.items.iter().rev().position(|item| item == name) {
            return Some((Node::Item(u8::try_from(depth).unwrap_or(u8::MAX)), Type::Text));
        }
        if let Some(field) = Field::parse(name).filter(|field| *field != Field::Count || self.names.counted) {
            return Some((Node::Field(field), field.card().kind));
        }
        let unknown = |message: String| Complaint::new(place.clone(), message);
        let complaint = if self.names.lists.contains_key(name) {
            unknown(format!("`{name}` is a list")).hint(format!("write x in {name}"))
        } else if name == "count" {
            unknown("`count` is known only where a correlation has counted".into())
                .hint("use it in `severity` or `message`")
        } else if [Side::Request.headers(), Side::Response.headers()].contains(&name) {
            unknown(format!("`{name}` needs the name of a header")).hint(format!("write {name}[\"x-name\"]"))
        } else {
            let complaint = unknown(format!("no field is called `{name}`"));
            match suggest(name) {
                Some(near) => complaint.hint(format!("did you mean `{near}`?")),
                None => complaint.hint("`tokenscope rules fields` names them"),
            }
        };
        self.complain(complaint)
    }

    fn header(&mut self, two: &[Tree; 2], place: &Place) -> Option<Typed> {
        let [Tree { kind: Kind::Name(of), .. }, Tree { kind: Kind::Text(name), place: at }] = two else {
            return self.complain(
                Complaint::new(place.clone(), "only headers are looked up by name")
                    .hint("write request.headers[\"x-name\"]"),
            );
        };
        let side = [Side::Request, Side::Response].into_iter().find(|side| side.headers() == of);
        let Some(side) = side else {
            return self.complain(
                Complaint::new(two[0].place.clone(), format!("`{of}` has nothing to look up"))
                    .hint("did you mean `request.headers` or `response.headers`?"),
            );
        };
        let name = name.to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token) {
            return self.complain(Complaint::new(at.clone(), "this is no name of a header"));
        }
        if SECRET_HEADERS.contains(&name.as_str()) {
            let complaint =
                Complaint::new(at.clone(), format!("`{name}` holds a credential and is not shown to rules"));
            return self.complain(complaint.hint("ask for `token.*` or `principal`"));
        }
        Some((Node::Header(side, name.into()), Type::Text))
    }

    /// Flattens chains, so that the depth of the tree does not grow with their length.
    fn logic(&mut self, tree: &Tree, sign: &str) -> Option<Typed> {
        let mut parts = Vec::new();
        let mut rest = tree;
        while let Kind::Binary(inner, two) = &rest.kind
            && *inner == sign
        {
            let [before, last] = &**two;
            parts.push(last);
            rest = before;
        }
        parts.push(rest);
        let what = format!("both sides of `{sign}`");
        let nodes: Vec<Option<Node>> =
            parts.into_iter().rev().map(|part| self.wanted(part, Type::Bool, &what)).collect();
        let nodes: Option<Vec<Node>> = nodes.into_iter().collect();
        let node = if sign == "&&" { Node::And(nodes?) } else { Node::Or(nodes?) };
        Some((node, Type::Bool))
    }

    fn choice(&mut self, three: &[Tree; 3], place: &Place) -> Option<Typed> {
        let test = self.wanted(&three[0], Type::Bool, "what stands before `?`");
        let (yes, no) = (self.tree(&three[1]), self.tree(&three[2]));
        let (test, (yes, kind), (no, other)) = (test?, yes?, no?);
        if kind != other {
            let message = format!("one side is {}, the other {}", kind.as_str(), other.as_str());
            return self.complain(Complaint::new(place.clone(), message));
        }
        Some((Node::If(Box::new([test, yes, no])), kind))
    }

    fn compare(&mut self, sign: &str, left: &Tree, right: &Tree, place: &Place) -> Option<Typed> {
        let how = match sign {
            "==" => Compare::Eq,
            "!=" => Compare::Ne,
            "<" => Compare::Lt,
            "<=" => Compare::Le,
            ">" => Compare::Gt,
            _ => Compare::Ge,
        };
        let (a, b) = (self.tree(left), self.tree(right));
        let ((a, kind), (b, other)) = (a?, b?);
        let (a, b) = match (kind, other) {
            (Type::Address, Type::Text) => (a, self.address(&b, right)?),
            (Type::Text, Type::Address) => (self.address(&a, left)?, b),
            _ => (a, b),
        };
        let address = [kind, other].contains(&Type::Address) && [kind, other].contains(&Type::Text);
        if (kind != other && !address) || kind == Type::Texts {
            let message = format!("{} and {} cannot be compared", kind.as_str(), other.as_str());
            let complaint = Complaint::new(place.clone(), message);
            return self.complain(match (&a, kind, &b, other) {
                (_, Type::Int, Node::Text(text), _) if text.parse::<i64>().is_ok() => {
                    complaint.hint(format!("write {text} without quotes"))
                }
                (_, Type::Texts, _, Type::Text) => complaint.hint("write \"x\" in list"),
                _ => complaint,
            });
        }
        if (kind == Type::Address || kind == Type::Bool) && !matches!(how, Compare::Eq | Compare::Ne) {
            let message = format!("{} has no order", kind.as_str());
            return self.complain(Complaint::new(place.clone(), message));
        }
        self.check_word(&a, &b, right);
        self.check_word(&b, &a, left);
        // A constant stands on the right, where the guard looks for it.
        let constant = |node: &Node| matches!(node, Node::Int(_) | Node::Text(_) | Node::Address(_));
        if constant(&a) && !constant(&b) {
            let turned = match how {
                Compare::Lt => Compare::Gt,
                Compare::Le => Compare::Ge,
                Compare::Gt => Compare::Lt,
                Compare::Ge => Compare::Le,
                same => same,
            };
            return Some((Node::Compare(turned, Box::new([b, a])), Type::Bool));
        }
        Some((Node::Compare(how, Box::new([a, b])), Type::Bool))
    }

    fn address(&mut self, node: &Node, tree: &Tree) -> Option<Node> {
        let Node::Text(text) = node else {
            self.complain(Complaint::new(tree.place.clone(), "an address is compared with a constant"));
            return None;
        };
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Some(Node::Address(address.to_canonical()));
        }
        let complaint = Complaint::new(tree.place.clone(), format!("`{text}` is no address"));
        let network = text.parse::<IpNet>().is_ok();
        self.complain(if network { complaint.hint("write cidr(address, \"network\")") } else { complaint });
        None
    }

    /// A field of few words is compared with one of them, or never matches.
    fn check_word(&mut self, field: &Node, constant: &Node, tree: &Tree) {
        let (Node::Field(field), Node::Text(text)) = (field, constant) else { return };
        let card = field.card();
        if card.words.is_empty() || card.words.contains(&&**text) {
            return;
        }
        let complaint = Complaint::new(tree.place.clone(), format!("`{}` is never `{text}`", card.name));
        let hint = match nearest(text, card.words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it is one of {}", card.words.join(", ")),
        };
        self.complaints.push(complaint.hint(hint));
    }

    fn within(&mut self, left: &Tree, right: &Tree) -> Option<Typed> {
        let (item, kind) = self.tree(left)?;
        let constants: Vec<(String, Place, bool)> = match &right.kind {
            Kind::List(items) => {
                let mut constants = Vec::new();
                for item in items {
                    match &item.kind {
                        Kind::Text(text) => constants.push((text.clone(), item.place.clone(), true)),
                        Kind::Int(number) => constants.push((number.to_string(), item.place.clone(), false)),
                        _ => {
                            self.complain(Complaint::new(item.place.clone(), "a list holds constants only"));
                        }
                    }
                }
                constants
            }
            Kind::Name(name) if self.names.lists.contains_key(name) => {
                let list = self.names.lists.get(name).into_iter().flatten();
                list.map(|text| (text.clone(), right.place.clone(), kind != Type::Int)).collect()
            }
            _ => {
                let list = self.wanted(right, Type::Texts, "what follows `in`")?;
                if kind != Type::Text {
                    let message = format!("the list holds string, and this is {}", kind.as_str());
                    return self.complain(Complaint::new(left.place.clone(), message));
                }
                return Some((Node::Among(Box::new([item, list])), Type::Bool));
            }
        };
        let set = self.set(&item, kind, constants, &left.place)?;
        Some((Node::In(Box::new(item), Arc::new(set)), Type::Bool))
    }

    fn set(
        &mut self,
        item: &Node,
        kind: Type,
        constants: Vec<(String, Place, bool)>,
        at: &Place,
    ) -> Option<Set> {
        let before = self.complaints.len();
        let set = match kind {
            Type::Text => {
                let mut texts = HashSet::new();
                for (text, place, is_text) in constants {
                    if !is_text {
                        let message = "the list holds a number, and what is looked for is string";
                        self.complain(Complaint::new(place, message).hint("put it in quotes"));
                        continue;
                    }
                    let tree = Tree { place, kind: Kind::Bool(true) };
                    self.check_word(item, &Node::Text(text.as_str().into()), &tree);
                    texts.insert(text.into());
                }
                Set::Texts(texts)
            }
            Type::Int => {
                let mut numbers = HashSet::new();
                for (text, place, is_text) in constants {
                    if let Some(number) = text.parse().ok().filter(|_| !is_text) {
                        numbers.insert(number);
                    } else {
                        let message = format!("the list holds `{text}`, and what is looked for is int");
                        self.complain(Complaint::new(place, message));
                    }
                }
                Set::Ints(numbers)
            }
            Type::Address => {
                let mut nets = Vec::new();
                for (text, place, _) in constants {
                    match IpNet::parse(&text) {
                        Ok(net) => nets.push(net),
                        Err(wrong) => {
                            let complaint =
                                Complaint::new(place, format!("`{text}` is no address and no network"));
                            self.complaints.push(Complaint { hint: wrong.hint, ..complaint });
                        }
                    }
                }
                Set::Nets(nets.into_iter().collect())
            }
            Type::Bool | Type::Texts => {
                let message = format!("{} is in no list", kind.as_str());
                self.complain(Complaint::new(at.clone(), message));
                return None;
            }
        };
        (self.complaints.len() == before).then_some(set)
    }

    fn call(
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

fn arithmetic(sign: &str) -> Option<Arithmetic> {
    match sign {
        "+" => Some(Arithmetic::Add),
        "-" => Some(Arithmetic::Sub),
        "*" => Some(Arithmetic::Mul),
        "/" => Some(Arithmetic::Div),
        "%" => Some(Arithmetic::Rem),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let lists = BTreeMap::from([
            ("office".to_owned(), vec!["10.0.0.0/8".to_owned()]),
            ("vips".to_owned(), vec!["alice".to_owned()]),
        ]);
        let found = condition(text, Names { lists: &lists, counted: false }).err().unwrap_or_default();
        let one = |c: Complaint| {
            format!(
                "{}: {}{}",
                &text[c.place],
                c.message,
                c.hint.map_or(String::new(), |h| format!(" ({h})"))
            )
        };
        found.into_iter().map(one).collect()
    }

    #[test]
    fn takes_what_fits() {
        for text in [
            "route.kind == 'login' && response.status in [401, 403]",
            "client.address in office || !cidr(client.address, '192.0.2.0/24', '2001:db8::/32')",
            "client.address != '10.0.0.1' && principal in vips",
            "'ADMIN' in token.roles || token.roles.exists(r, r.startsWith('SUPER_') && !(r in vips))",
            "response.bytes > 10 * 1024 * 1024 && latency_ms / 1000 >= 2",
            "lower(request.headers['X-Tenant']) == 'a' && has(response.headers['etag'])",
            "matches(request.path, r'^/admin/\\d+$') && size(request.query) > 100",
            "request.path.lower().contains('..') ? token.verified : !client.trusted",
            "401 == response.status",
        ] {
            assert_eq!(complaints(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn names_every_mistake_and_its_remedy() {
        assert_eq!(
            complaints("reponse.status == '401' && route.kind == 'logn' && token.algg == 'none'"),
            [
                "reponse.status: no field is called `reponse.status` (did you mean `response.status`?)",
                "'logn': `route.kind` is never `logn` (did you mean `login`?)",
                "token.algg: no field is called `token.algg` (did you mean `token.alg`?)",
            ]
        );
        for (text, complaint) in [
            (
                "response.status == '401'",
                "response.status == '401': int and string cannot be compared (write 401 without quotes)",
            ),
            ("request.path", "request.path: a condition must be bool, and this is string"),
            (
                "client.address == '10.0.0.0/8'",
                "'10.0.0.0/8': `10.0.0.0/8` is no address (write cidr(address, \"network\"))",
            ),
            ("status == 200", "status: no field is called `status` (did you mean `response.status`?)"),
            (
                "request.headers['Authorization'] == 'x'",
                "'Authorization': `authorization` holds a credential and is not shown to rules (ask for `token.*` or `principal`)",
            ),
            ("office", "office: `office` is a list (write x in office)"),
            (
                "principal in office2",
                "office2: no field is called `office2` (`tokenscope rules fields` names them)",
            ),
            ("matches(request.path, '(')", "'(': no pattern: unclosed group"),
            ("contain(request.path)", "contain: no function is called `contain` (did you mean `contains`?)"),
            (
                "count > 3",
                "count: `count` is known only where a correlation has counted (use it in `severity` or `message`)",
            ),
            (
                "token.roles == 'ADMIN'",
                "token.roles == 'ADMIN': list(string) and string cannot be compared (write \"x\" in list)",
            ),
            ("response.status in vips", "vips: the list holds `alice`, and what is looked for is int"),
        ] {
            assert_eq!(complaints(text), [complaint], "{text}");
        }
    }

    #[test]
    fn refuses_patterns_that_cost_too_much() {
        assert!(complaints("matches(request.path, '(a{1000}){1000}')")[0].contains("no pattern"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(request\\.path|response\\.status|token\\.roles|'x'|1|true|office|\\(|\\)|!|&&|\\|\\||==|<| in |\\[|\\]|,|matches\\(|\\.exists\\(r, | \\? | : |\\+){0,14}") {
            complaints(&text);
        }
    }
}
