//! Cheap tests before conditions: the answers, kinds of route and methods under which a condition can hold at all.
//!
//! A guard is derived from the condition and is never narrower than it. With it a rule that cannot match costs a few
//! instructions, whatever its condition says.

use crate::detect::RouteKind;
use crate::detect::user::expr::{Compare, Node};
use crate::detect::user::field::Field;
use crate::detect::user::set::Set;
use crate::detect::user::value::Value;

/// Methods with a bit of their own; every other one shares the last.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];

/// Kinds of route, in the order of their bits.
pub(super) const KINDS: [(RouteKind, &str); 10] = [
    (RouteKind::Plain, "plain"),
    (RouteKind::Login, "login"),
    (RouteKind::Logout, "logout"),
    (RouteKind::Token, "token"),
    (RouteKind::Sensitive, "sensitive"),
    (RouteKind::Pii, "pii"),
    (RouteKind::Financial, "financial"),
    (RouteKind::Admin, "admin"),
    (RouteKind::Public, "public"),
    (RouteKind::Health, "health"),
];

/// A set of exchanges by answer, kind of route and method. As a profile of one exchange, each part has one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Bit n for n00 to n99; bit 0 for no answer and everything below 100.
    status: u16,
    /// By [`KINDS`].
    kinds: u16,
    /// By [`METHODS`].
    methods: u8,
}

impl Guard {
    /// Everything.
    pub const ALL: Self = Self { status: u16::MAX, kinds: u16::MAX, methods: u8::MAX };
    /// Nothing.
    pub const NONE: Self = Self { status: 0, kinds: 0, methods: 0 };

    /// The profile of one exchange.
    #[must_use]
    pub fn profile(status: Option<u16>, kind: RouteKind, method: &[u8]) -> Self {
        let kinds = KINDS.iter().position(|(known, _)| *known == kind).map_or(u16::MAX, |at| 1 << at);
        Self { status: status_bit(status.map(i64::from)), kinds, methods: method_bit(method) }
    }

    /// Whether an exchange with this profile may match.
    #[inline]
    #[must_use]
    pub const fn admits(self, profile: Self) -> bool {
        self.status & profile.status != 0
            && self.kinds & profile.kinds != 0
            && self.methods & profile.methods != 0
    }

    /// What both admit.
    #[must_use]
    pub const fn meet(self, other: Self) -> Self {
        Self {
            status: self.status & other.status,
            kinds: self.kinds & other.kinds,
            methods: self.methods & other.methods,
        }
    }

    /// What either admits, and perhaps more.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            status: self.status | other.status,
            kinds: self.kinds | other.kinds,
            methods: self.methods | other.methods,
        }
    }

    /// Where a condition can hold.
    #[must_use]
    pub fn of(condition: &Node) -> Self {
        match condition {
            Node::Bool(false) => Self::NONE,
            Node::And(parts) => parts.iter().map(Self::of).fold(Self::ALL, Self::meet),
            Node::Or(parts) => parts.iter().map(Self::of).fold(Self::NONE, Self::or),
            Node::Compare(how, sides) => match &**sides {
                [Node::Field(field), constant] => Self::where_compared(*field, *how, constant),
                _ => Self::ALL,
            },
            Node::In(item, set) => match &**item {
                Node::Field(field) => Self::where_in(*field, set),
                _ => Self::ALL,
            },
            _ => Self::ALL,
        }
    }

    fn where_compared(field: Field, how: Compare, constant: &Node) -> Self {
        match (field, how, constant) {
            (Field::Status, _, Node::Int(number)) => {
                let may = |class: i64| (0..100).any(|low| how.holds((class * 100 + low).cmp(number)));
                let status = (1..16).filter(|class| may(*class)).map(|class| 1 << class).sum::<u16>();
                // What is 1600 and above, or below 100, shares bits with others.
                let outside = !(100..1600).contains(number);
                let rest = outside || how.holds(i64::MAX.cmp(number)) || how.holds(0.cmp(number));
                Self { status: status | u16::from(rest), ..Self::ALL }
            }
            (_, Compare::Eq, Node::Text(text)) => Self::where_text(field, text),
            _ => Self::ALL,
        }
    }

    fn where_in(field: Field, set: &Set) -> Self {
        match (field, set) {
            (Field::Status, Set::Ints(numbers)) => {
                let status = numbers.iter().fold(0, |bits, number| bits | status_bit(Some(*number)));
                Self { status, ..Self::ALL }
            }
            (Field::Method | Field::RouteKind, Set::Texts(texts)) => {
                let each = texts.iter().map(|text| Self::where_text(field, text));
                let any = each.fold(Self::NONE, Self::or);
                // A union with everything outside its own part.
                match field {
                    Field::Method => Self { methods: any.methods, ..Self::ALL },
                    _ => Self { kinds: any.kinds, ..Self::ALL },
                }
            }
            _ => Self::ALL,
        }
    }

    fn where_text(field: Field, text: &str) -> Self {
        match field {
            Field::Method => Self { methods: method_bit(text.as_bytes()), ..Self::ALL },
            Field::RouteKind => {
                let kinds = KINDS.iter().position(|(_, name)| *name == text).map_or(0, |at| 1 << at);
                Self { kinds, ..Self::ALL }
            }
            _ => Self::ALL,
        }
    }
}

/// The bit of a status; those outside 100 to 1599 share the lowest with no answer.
fn status_bit(status: Option<i64>) -> u16 {
    match status.map(|s| s.div_euclid(100)) {
        Some(class @ 1..=15) => 1 << class,
        _ => 1,
    }
}

fn method_bit(method: &[u8]) -> u8 {
    METHODS.iter().position(|known| known.as_bytes() == method).map_or(1 << 7, |at| 1 << at)
}

/// The name of a kind.
#[must_use]
pub fn kind_name(kind: RouteKind) -> Value<'static> {
    let name = KINDS.iter().find(|(known, _)| *known == kind).map_or("plain", |(_, name)| name);
    Value::Text(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(how: Compare, number: i64) -> Node {
        Node::Compare(how, Box::new([Node::Field(Field::Status), Node::Int(number)]))
    }

    #[test]
    fn never_shuts_out_a_status_that_matches() {
        for how in [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge] {
            for number in [-1, 0, 99, 100, 200, 399, 400, 999, 1599, 1600, 70_000] {
                let guard = Guard::of(&status(how, number));
                for seen in 0..2000_u16 {
                    if how.holds(i64::from(seen).cmp(&number)) {
                        let profile = Guard::profile(Some(seen), RouteKind::Plain, b"GET");
                        assert!(guard.admits(profile), "{seen} {how:?} {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn shuts_out_what_cannot_match() {
        let login =
            Node::Compare(Compare::Eq, Box::new([Node::Field(Field::RouteKind), Node::Text("login".into())]));
        let guard = Guard::of(&Node::And(vec![login, status(Compare::Eq, 401)]));
        let profile = |s, kind| Guard::profile(Some(s), kind, b"POST");
        assert!(guard.admits(profile(401, RouteKind::Login)));
        assert!(
            !guard.admits(profile(200, RouteKind::Login)) && !guard.admits(profile(401, RouteKind::Plain))
        );
        assert!(!guard.admits(Guard::profile(None, RouteKind::Login, b"POST")));
        let either = Node::Or(vec![status(Compare::Ge, 500), status(Compare::Lt, 200)]);
        assert!(!Guard::of(&either).admits(profile(404, RouteKind::Plain)));
        assert!(Guard::of(&Node::Not(Box::new(either))).admits(profile(404, RouteKind::Plain)));
    }
}
