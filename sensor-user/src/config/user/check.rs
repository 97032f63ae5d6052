//! Trees to conditions: every name is known, every type fits, every list is of one kind. All complaints at once.

use std::collections::BTreeMap;

use crate::config::near::nearest;
use crate::config::user::lex::{Complaint, Place};
use crate::config::user::parse::{Kind, Tree, parse};
use crate::detect::user::expr::{Arithmetic, Node};
use crate::detect::user::field::{FIELDS, Field, FieldCard, SECRET_HEADERS, Side, Type};

mod call;
mod compare;

/// What a condition may name.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The rule's lists.
    pub lists: &'a BTreeMap<String, Vec<String>>,
    /// Whether `count` is known.
    pub counted: bool,
}

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
