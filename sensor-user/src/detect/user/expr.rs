//! Checked conditions, ready to be asked: a tree whose names are resolved and whose types fit.
//!
//! As in CEL, `&&` and `||` do not care on which side a value is missing: `absent && false` is false, `absent || true` is
//! true. What is missing in the end does not match. Cost: a node is visited once, but those inside `exists` and `all`
//! once for each item of a list of at most 32; regular expressions are finite automata, linear in the text.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;

use crate::detect::user::field::{Field, Side};
use crate::detect::user::set::{Nets, Set};
use crate::detect::user::value::{Facts, Miss, Value};

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Compare {
    /// Whether it holds between two values so ordered.
    #[must_use]
    pub const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }
}

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Rem,
}

impl Arithmetic {
    /// The result; none on overflow and division by zero.
    #[must_use]
    pub const fn apply(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Self::Add => a.checked_add(b),
            Self::Sub => a.checked_sub(b),
            Self::Mul => a.checked_mul(b),
            Self::Div => a.checked_div(b),
            Self::Rem => a.checked_rem(b),
        }
    }
}

/// Where a text is looked for in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `startsWith`
    Start,
    /// `endsWith`
    End,
    /// `contains`
    Anywhere,
}

/// A node. The check has made sure that the types fit, so a mismatch is answered as a fault and cannot happen.
#[derive(Clone, Debug)]
pub enum Node {
    /// true or false.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(Box<str>),
    /// An address.
    Address(std::net::IpAddr),
    /// A field.
    Field(Field),
    /// A header; its name is in small letters.
    Header(Side, Box<str>),
    /// The item that an `exists` or `all` looks at: 0 is the innermost.
    Item(u8),
    /// `has(x)`
    Has(Box<Node>),
    /// `!x`
    Not(Box<Node>),
    /// `a && b && c`
    And(Vec<Node>),
    /// `a || b || c`
    Or(Vec<Node>),
    /// `test ? a : b`
    If(Box<[Node; 3]>),
    /// `a == b` and its like.
    Compare(Compare, Box<[Node; 2]>),
    /// `a + b` and its like.
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    /// `x in [..]`, `x in list`, `cidr(x, ..)`
    In(Box<Node>, std::sync::Arc<Set>),
    /// `text in token.roles`
    Among(Box<[Node; 2]>),
    /// `a.startsWith(b)` and its like.
    Find(Place, Box<[Node; 2]>),
    /// `matches(x, pattern)`
    Matches(Box<Node>, Regex),
    /// `lower(x)`: ASCII letters.
    Lower(Box<Node>),
    /// `upper(x)`: ASCII letters.
    Upper(Box<Node>),
    /// `size(x)`: characters of a text, items of a list.
    Size(Box<Node>),
    /// `list.exists(x, ..)`; `all` if the flag is set.
    Every(bool, Box<[Node; 2]>),
}

/// The items that are being looked at, innermost first.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    item: &'a str,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn item(&self, depth: u8) -> Option<&str> {
        match depth {
            0 => Some(self.item),
            _ => self.outer?.item(depth - 1),
        }
    }
}

type Scoped<'a> = Option<&'a Scope<'a>>;

impl Node {
    /// Whether the condition holds.
    ///
    /// # Errors
    /// When a value is missing that decides.
    pub fn test(&self, facts: &dyn Facts) -> Result<bool, Miss> {
        self.is_true(facts, None)
    }

    /// Its value.
    ///
    /// # Errors
    /// When a value is missing.
    pub fn value<'a>(&'a self, facts: &'a dyn Facts) -> Result<Value<'a>, Miss> {
        self.eval(facts, None)
    }

    fn is_true(&self, facts: &dyn Facts, scope: Scoped<'_>) -> Result<bool, Miss> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Not(inner) => inner.is_true(facts, scope).map(|b| !b),
            Self::And(parts) => all_of(parts, false, |part| part.is_true(facts, scope)),
            Self::Or(parts) => all_of(parts, true, |part| part.is_true(facts, scope)),
            Self::If(parts) => {
                let [test, yes, no] = &**parts;
                if test.is_true(facts, scope)? { yes } else { no }.is_true(facts, scope)
            }
            Self::Compare(how, sides) => {
                let [a, b] = &**sides;
                compare(*how, &a.eval(facts, scope)?, &b.eval(facts, scope)?)
            }
            Self::In(item, set) => Ok(is_in(&item.eval(facts, scope)?, set)),
            Self::Among(sides) => {
                let [item, list] = &**sides;
                let (Value::Text(item), Value::Texts(list)) =
                    (item.eval(facts, scope)?, list.eval(facts, scope)?)
                else {
                    return Err(Miss::Fault);
                };
                Ok(list.iter().any(|text| text == item))
            }
            Self::Find(place, sides) => find(*place, sides, facts, scope),
            Self::Matches(text, pattern) => Ok(pattern.is_match(&text.text(facts, scope)?)),
            Self::Has(inner) => match inner.eval(facts, scope) {
                Ok(_) => Ok(true),
                Err(Miss::Absent) => Ok(false),
                Err(fault) => Err(fault),
            },
            Self::Every(all, parts) => {
                let [list, test] = &**parts;
                let Value::Texts(list) = list.eval(facts, scope)? else { return Err(Miss::Fault) };
                all_of(list.iter(), !*all, |item| test.is_true(facts, Some(&Scope { item, outer: scope })))
            }
            other => match other.eval(facts, scope)? {
                Value::Bool(value) => Ok(value),
                _ => Err(Miss::Fault),
            },
        }
    }

    fn eval<'a>(&'a self, facts: &'a dyn Facts, scope: Scoped<'a>) -> Result<Value<'a>, Miss> {
        match self {
            Self::Int(value) => Ok(Value::Int(*value)),
            Self::Text(text) => Ok(Value::Text(Cow::Borrowed(text))),
            Self::Address(address) => Ok(Value::Address(*address)),
            Self::Field(field) => facts.value(*field).ok_or(Miss::Absent),
            Self::Header(side, name) => facts.header(*side, name).map(Value::Text).ok_or(Miss::Absent),
            Self::Item(depth) => {
                let item = scope.and_then(|scope| scope.item(*depth)).ok_or(Miss::Fault)?;
                Ok(Value::Text(Cow::Borrowed(item)))
            }
            Self::If(parts) => {
                let [test, yes, no] = &**parts;
                if test.is_true(facts, scope)? { yes } else { no }.eval(facts, scope)
            }
            Self::Arithmetic(how, sides) => {
                let [a, b] = &**sides;
                let (Value::Int(a), Value::Int(b)) = (a.eval(facts, scope)?, b.eval(facts, scope)?) else {
                    return Err(Miss::Fault);
                };
                how.apply(a, b).map(Value::Int).ok_or(Miss::Fault)
            }
            Self::Lower(inner) => Ok(Value::Text(fold(
                inner.text(facts, scope)?,
                u8::is_ascii_uppercase,
                str::to_ascii_lowercase,
            ))),
            Self::Upper(inner) => Ok(Value::Text(fold(
                inner.text(facts, scope)?,
                u8::is_ascii_lowercase,
                str::to_ascii_uppercase,
            ))),
            Self::Size(inner) => match inner.eval(facts, scope)? {
                Value::Text(text) => Ok(Value::count(text.chars().count() as u64)),
                Value::Texts(texts) => Ok(Value::count(texts.len() as u64)),
                _ => Err(Miss::Fault),
            },
            _ => self.is_true(facts, scope).map(Value::Bool),
        }
    }

    fn text<'a>(&'a self, facts: &'a dyn Facts, scope: Scoped<'a>) -> Result<Cow<'a, str>, Miss> {
        match self.eval(facts, scope)? {
            Value::Text(text) => Ok(text),
            _ => Err(Miss::Fault),
        }
    }

    /// Calls `see` for every field that the condition names.
    pub fn fields(&self, see: &mut dyn FnMut(Field)) {
        match self {
            Self::Field(field) => see(*field),
            Self::Bool(_)
            | Self::Int(_)
            | Self::Text(_)
            | Self::Address(_)
            | Self::Header(..)
            | Self::Item(_) => {}
            Self::Has(inner)
            | Self::Not(inner)
            | Self::In(inner, _)
            | Self::Matches(inner, _)
            | Self::Lower(inner)
            | Self::Upper(inner)
            | Self::Size(inner) => inner.fields(see),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.fields(see)),
            Self::If(parts) => parts.iter().for_each(|part| part.fields(see)),
            Self::Compare(_, sides)
            | Self::Arithmetic(_, sides)
            | Self::Among(sides)
            | Self::Find(_, sides)
            | Self::Every(_, sides) => sides.iter().for_each(|side| side.fields(see)),
        }
    }
}

/// `&&` over everything, or `||` if `deciding` is true: one deciding part decides, whatever is missing elsewhere.
fn all_of<T>(
    parts: impl IntoIterator<Item = T>,
    deciding: bool,
    mut test: impl FnMut(T) -> Result<bool, Miss>,
) -> Result<bool, Miss> {
    let mut missing = None;
    for part in parts {
        match test(part) {
            Ok(value) if value == deciding => return Ok(deciding),
            // A fault is worth more than an absence: it is counted.
            Err(miss) if missing != Some(Miss::Fault) => missing = Some(miss),
            Ok(_) | Err(_) => {}
        }
    }
    missing.map_or(Ok(!deciding), Err)
}

fn compare(how: Compare, a: &Value<'_>, b: &Value<'_>) -> Result<bool, Miss> {
    let order = match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Address(a), Value::Address(b)) => a.cmp(b),
        _ => return Err(Miss::Fault),
    };
    Ok(how.holds(order))
}

fn is_in(item: &Value<'_>, set: &Set) -> bool {
    match (item, set) {
        (Value::Text(text), Set::Texts(texts)) => texts.contains(&**text),
        (Value::Int(number), Set::Ints(numbers)) => numbers.contains(number),
        (Value::Address(address), Set::Nets(nets)) => Nets::contains(nets, *address),
        _ => false,
    }
}

fn find(place: Place, sides: &[Node; 2], facts: &dyn Facts, scope: Scoped<'_>) -> Result<bool, Miss> {
    let [text, part] = sides;
    let (text, part) = (text.text(facts, scope)?, part.text(facts, scope)?);
    Ok(match place {
        Place::Start => text.starts_with(&*part),
        Place::End => text.ends_with(&*part),
        Place::Anywhere => memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some(),
    })
}

/// Copies only if there is a letter to change.
fn fold(text: Cow<'_, str>, changes: fn(&u8) -> bool, change: fn(&str) -> String) -> Cow<'_, str> {
    if text.bytes().any(|b| changes(&b)) { Cow::Owned(change(&text)) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Facts for Nothing {
        fn value(&self, _: Field) -> Option<Value<'_>> {
            None
        }

        fn header(&self, _: Side, _: &str) -> Option<Cow<'_, str>> {
            None
        }
    }

    fn fault() -> Node {
        let division = Node::Arithmetic(Arithmetic::Div, Box::new([Node::Int(1), Node::Int(0)]));
        Node::Compare(Compare::Eq, Box::new([division, Node::Int(0)]))
    }

    #[test]
    fn what_is_missing_decides_nothing() {
        let absent = || Node::Compare(Compare::Eq, Box::new([Node::Field(Field::Status), Node::Int(200)]));
        let (yes, no) = (|| Node::Bool(true), || Node::Bool(false));
        assert_eq!(Node::And(vec![absent(), no()]).test(&Nothing), Ok(false));
        assert_eq!(Node::Or(vec![absent(), yes()]).test(&Nothing), Ok(true));
        assert_eq!(Node::And(vec![absent(), yes()]).test(&Nothing), Err(Miss::Absent));
        assert_eq!(Node::Not(Box::new(absent())).test(&Nothing), Err(Miss::Absent));
        assert_eq!(Node::Or(vec![absent(), fault(), no()]).test(&Nothing), Err(Miss::Fault));
        assert_eq!(Node::Has(Box::new(Node::Field(Field::Status))).test(&Nothing), Ok(false));
    }

    #[test]
    fn arithmetic_faults_and_does_not_panic() {
        for (how, a, b) in [
            (Arithmetic::Add, i64::MAX, 1),
            (Arithmetic::Sub, i64::MIN, 1),
            (Arithmetic::Mul, i64::MAX, 2),
            (Arithmetic::Div, i64::MIN, -1),
            (Arithmetic::Rem, i64::MIN, -1),
            (Arithmetic::Rem, 1, 0),
        ] {
            assert_eq!(how.apply(a, b), None, "{how:?}");
        }
        assert_eq!(fault().test(&Nothing), Err(Miss::Fault));
    }
}
