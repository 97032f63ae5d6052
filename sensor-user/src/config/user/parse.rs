//! Conditions as trees: CEL's grammar (cel-spec langdef) without messages, maps and bytes.
//!
//! Our own, and not the `cel` crate's, whose parser overflows the stack on two hundred nested brackets and does not
//! tell where a name stands; see docs/decisions/0006-user-rules.md. That crate is the oracle of our tests.

use crate::config::user::lex::{Complaint, Place, Word, words};

/// Longest condition, in bytes.
pub const MAX_LENGTH: usize = 8192;
/// Deepest nesting. A stack frame is some 300 bytes and seven of them make a level.
const MAX_DEPTH: usize = 32;
/// Most nodes: what one rule may cost.
const MAX_NODES: usize = 1000;

/// A tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// true or false.
    Bool(bool),
    /// A name, or names with dots between.
    Name(String),
    /// `a[b]`
    Index(Box<[Tree; 2]>),
    /// `[a, b]`
    List(Vec<Tree>),
    /// `f(a, b)`, or `x.f(a)` with `x` first.
    Call {
        /// `f`
        name: String,
        /// Its place.
        at: Place,
        /// Whether it was called on something.
        method: bool,
        /// The arguments.
        arguments: Vec<Tree>,
    },
    /// `!a`, `-a`
    Unary(&'static str, Box<Tree>),
    /// `a && b`, `a == b`, `a in b`, ...
    Binary(&'static str, Box<[Tree; 2]>),
    /// `a ? b : c`
    If(Box<[Tree; 3]>),
}

/// Reads a condition.
///
/// # Errors
/// At the first word that cannot stand where it stands.
pub fn parse(text: &str) -> Result<Tree, Complaint> {
    if text.len() > MAX_LENGTH {
        return Err(Complaint::new(0..1, format!("the condition is longer than {MAX_LENGTH} bytes"))
            .hint("move constants to `lists`, or write two rules"));
    }
    let words = words(text)?;
    let mut parser = Parser { words, at: 0, depth: 0, nodes: 0 };
    let tree = parser.expression()?;
    match parser.peek() {
        Word::End => Ok(tree),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser {
    words: Vec<(Word, Place)>,
    at: usize,
    depth: usize,
    nodes: usize,
}

/// Operators by strength, weakest first; each binds to the left.
const LEVELS: [&[&str]; 5] =
    [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+", "-"], &["*", "/", "%"]];

impl Parser {
    fn peek(&self) -> &Word {
        self.words.get(self.at).map_or(&Word::End, |(word, _)| word)
    }

    fn place(&self) -> Place {
        self.words.get(self.at).map_or(0..0, |(_, place)| place.clone())
    }

    fn next(&mut self) -> (Word, Place) {
        let next = self.words.get(self.at).cloned().unwrap_or((Word::End, 0..0));
        self.at += 1;
        next
    }

    fn is_ahead(&self, sign: &str) -> bool {
        matches!(self.peek(), Word::Sign(s) if *s == sign)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Word::Sign(s) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<Place, Complaint> {
        let place = self.place();
        if self.takes(sign) { Ok(place) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> Complaint {
        let found = match self.peek() {
            Word::End => "the condition ends".to_owned(),
            Word::Name(name) => format!("`{name}` stands"),
            Word::Int(number) => format!("`{number}` stands"),
            Word::Text(_) => "a string stands".to_owned(),
            Word::Sign(sign) => format!("`{sign}` stands"),
        };
        let complaint = Complaint::new(self.place(), format!("{found} where {wanted} should"));
        match self.peek() {
            Word::Name(name) if name.eq_ignore_ascii_case("and") => complaint.hint("write &&"),
            Word::Name(name) if name.eq_ignore_ascii_case("or") => complaint.hint("write ||"),
            Word::Name(name) if name.eq_ignore_ascii_case("not") => complaint.hint("write !"),
            _ => complaint,
        }
    }

    fn node(&mut self, place: Place, kind: Kind) -> Result<Tree, Complaint> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Complaint::new(place, format!("the condition has more than {MAX_NODES} parts"))
                .hint("move constants to `lists`, or write two rules"));
        }
        Ok(Tree { place, kind })
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Complaint>) -> Result<T, Complaint> {
        if self.depth >= MAX_DEPTH {
            return Err(Complaint::new(self.place(), format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<Tree, Complaint> {
        self.deeper(|p| {
            let test = p.level(0)?;
            if !p.takes("?") {
                return Ok(test);
            }
            let yes = p.level(0)?;
            p.expect(":")?;
            let no = p.expression()?;
            let place = test.place.start..no.place.end;
            p.node(place, Kind::If(Box::new([test, yes, no])))
        })
    }

    fn level(&mut self, level: usize) -> Result<Tree, Complaint> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.level(level + 1)?;
        let mut chained = 0;
        loop {
            let found = match self.peek() {
                Word::Sign(sign) => operators.iter().find(|o| *o == sign),
                Word::Name(name) if name == "in" => operators.iter().find(|o| **o == "in"),
                _ => None,
            };
            let Some(operator) = found else { return Ok(left) };
            self.at += 1;
            // A chain is a tree as deep as it is long, but for && and ||, which the check makes flat.
            chained += 1;
            if chained > MAX_DEPTH * 4 {
                return Err(Complaint::new(
                    left.place,
                    format!("more than {} `{operator}` in a row", MAX_DEPTH * 4),
                )
                .hint("move constants to `lists` and write `in`"));
            }
            let right = self.level(level + 1)?;
            let place = left.place.start..right.place.end;
            left = self.node(place, Kind::Binary(operator, Box::new([left, right])))?;
        }
    }

    fn unary(&mut self) -> Result<Tree, Complaint> {
        let from = self.place();
        for sign in ["!", "-"] {
            if self.takes(sign) {
                if sign == "-"
                    && let Word::Int(number) = *self.peek()
                {
                    let place = from.start..self.place().end;
                    self.at += 1;
                    return self.node(place, Kind::Int(-number));
                }
                // CEL repeats one sign and does not mix them.
                if self.is_ahead(if sign == "!" { "-" } else { "!" }) {
                    return Err(self.unexpected("a value"));
                }
                let inner = self.deeper(Self::unary)?;
                return self.node(from.start..inner.place.end, Kind::Unary(sign, Box::new(inner)));
            }
        }
        self.member()
    }

    fn member(&mut self) -> Result<Tree, Complaint> {
        let mut tree = self.primary()?;
        loop {
            let from = tree.place.start;
            if self.takes(".") {
                let (word, at) = self.next();
                let Word::Name(name) = word else {
                    self.at -= 1;
                    return Err(self.unexpected("a name"));
                };
                if self.takes("(") {
                    let mut arguments = vec![tree];
                    let end = self.arguments(")", &mut arguments)?;
                    tree = self.node(from..end, Kind::Call { name, at, method: true, arguments })?;
                } else if let Kind::Name(before) = &tree.kind {
                    tree = Tree { place: from..at.end, kind: Kind::Name(format!("{before}.{name}")) };
                } else {
                    return Err(Complaint::new(at, format!("what stands before `.{name}` has no fields")));
                }
            } else if self.takes("[") {
                let key = self.expression()?;
                let end = self.expect("]")?.end;
                tree = self.node(from..end, Kind::Index(Box::new([tree, key])))?;
            } else {
                return Ok(tree);
            }
        }
    }

    fn arguments(&mut self, close: &str, out: &mut Vec<Tree>) -> Result<usize, Complaint> {
        loop {
            let place = self.place();
            if self.takes(close) {
                return Ok(place.end);
            }
            out.push(self.expression()?);
            let place = self.place();
            if self.takes(close) {
                return Ok(place.end);
            }
            if !self.takes(",") {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }

    fn primary(&mut self) -> Result<Tree, Complaint> {
        let (word, place) = self.next();
        match word {
            Word::Int(number) => self.node(place, Kind::Int(number)),
            Word::Text(text) => self.node(place, Kind::Text(text)),
            Word::Name(name) if name == "true" || name == "false" => {
                self.node(place, Kind::Bool(name == "true"))
            }
            Word::Name(name) if name == "in" => {
                self.at -= 1;
                Err(self.unexpected("a value"))
            }
            Word::Name(name) if self.takes("(") => {
                let mut arguments = Vec::new();
                let end = self.arguments(")", &mut arguments)?;
                self.node(place.start..end, Kind::Call { name, at: place, method: false, arguments })
            }
            Word::Name(name) => self.node(place, Kind::Name(name)),
            Word::Sign("(") => {
                let inner = self.expression()?;
                let end = self.expect(")")?.end;
                Ok(Tree { place: place.start..end, ..inner })
            }
            Word::Sign("[") => {
                let mut items = Vec::new();
                let end = self.arguments("]", &mut items)?;
                self.node(place.start..end, Kind::List(items))
            }
            Word::Sign("{") => Err(Complaint::new(place, "maps and messages are not used here")),
            Word::Sign(_) | Word::End => {
                self.at -= 1;
                Err(self.unexpected("a value"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(tree: &Tree) -> String {
        let many = |trees: &[Tree]| trees.iter().map(shape).collect::<Vec<_>>().join(" ");
        match &tree.kind {
            Kind::Int(n) => n.to_string(),
            Kind::Text(t) => format!("'{t}'"),
            Kind::Bool(b) => b.to_string(),
            Kind::Name(n) => n.clone(),
            Kind::Index(two) => format!("({} at {})", shape(&two[0]), shape(&two[1])),
            Kind::List(items) => format!("[{}]", many(items)),
            Kind::Call { name, arguments, .. } => format!("({name}: {})", many(arguments)),
            Kind::Unary(sign, inner) => format!("({sign} {})", shape(inner)),
            Kind::Binary(sign, two) => format!("({} {sign} {})", shape(&two[0]), shape(&two[1])),
            Kind::If(parts) => format!("(if {})", many(&**parts)),
        }
    }

    #[test]
    fn binds_as_cel_does() {
        for (text, expected) in [
            ("a || b && c == d + e * f", "(a || (b && (c == (d + (e * f)))))"),
            ("!a.b && -1 < x", "((! a.b) && (-1 < x))"),
            ("a - b - c", "((a - b) - c)"),
            ("x in [1, 2,] ? a : b ? c : d", "(if (x in [1 2]) a (if b c d))"),
            ("h['k'].startsWith(\"x\")", "(startsWith: (h at 'k') 'x')"),
            ("r.exists(x, x == 'A')", "(exists: r x (x == 'A'))"),
            ("(a || b) && c", "((a || b) && c)"),
        ] {
            assert_eq!(shape(&parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn says_what_should_stand_there() {
        for (text, message) in [
            ("a ==", "the condition ends where a value should"),
            ("(a", "the condition ends where `)` should"),
            ("a and b", "`and` stands where an operator or the end should"),
            ("{}", "maps and messages are not used here"),
            ("a..b", "`.` stands where a name should"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn hostile_text_is_refused_and_not_followed() {
        for text in [
            "(".repeat(4000),
            "[".repeat(4000),
            "!".repeat(4000),
            "- ".repeat(4000),
            "a.".repeat(4000),
            "a?".repeat(4000),
            format!("true{}", " && true".repeat(900)),
            format!("1{}", "+1".repeat(4000)),
            "x".repeat(100_000),
        ] {
            assert!(parse(&text).is_err(), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}|[a-c0-9.()\\[\\]!&|=<>+*?:,'\"\\\\ \n-]{0,80}") {
            if let Err(complaint) = parse(&text) {
                prop_assert!(text.get(complaint.place.start.min(text.len())..).is_some());
            }
        }

        /// Whatever the reference parser takes, we take or refuse; whatever we take, it takes.
        #[test]
        fn takes_nothing_that_cel_does_not(text in "(a|b\\.c|1|'x'|true|\\(|\\)|!|-|&&|\\|\\||==|<| in |\\[|\\]|,|\\?|:|\\+|\\.f\\(){0,12}") {
            if parse(&text).is_ok() {
                prop_assert!(cel::Program::compile(&text).is_ok(), "{text}");
            }
        }
    }
}
