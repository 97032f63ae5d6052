//! Values, and where they come from.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::detect::user::field::{Field, Side};

/// A list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Texts<'a> {
    /// Kept by a token.
    Kept(&'a [Box<str>]),
    /// Shared by many tokens.
    Shared(&'a [std::sync::Arc<str>]),
    /// Names of the members of a set.
    Names(Vec<&'static str>),
}

impl Texts<'_> {
    /// The texts.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (kept, shared, names): (&[Box<str>], &[std::sync::Arc<str>], &[&'static str]) = match self {
            Self::Kept(kept) => (kept, &[], &[]),
            Self::Shared(shared) => (&[], shared, &[]),
            Self::Names(names) => (&[], &[], names),
        };
        let kept = kept.iter().map(|text| &**text);
        kept.chain(shared.iter().map(|text| &**text)).chain(names.iter().copied())
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Kept(kept) => kept.len(),
            Self::Shared(shared) => shared.len(),
            Self::Names(names) => names.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text; bytes that are no UTF-8 are replaced.
    Text(Cow<'a, str>),
    /// An address, IPv4 where it is a mapped one.
    Address(IpAddr),
    /// Texts.
    Texts(Texts<'a>),
}

impl<'a> Value<'a> {
    /// A text of bytes that anybody may have sent.
    #[must_use]
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self::Text(String::from_utf8_lossy(bytes))
    }

    /// A number that may be larger than ours: it saturates.
    #[must_use]
    pub fn count(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// An address.
    #[must_use]
    pub const fn address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The exchange does not have the field.
    Absent,
    /// It cannot be computed: overflow, division by zero. Counted.
    Fault,
}

/// An exchange as conditions see it.
pub trait Facts {
    /// A field; none if the exchange does not have it.
    fn value(&self, field: Field) -> Option<Value<'_>>;

    /// The first value of a header; its name is in small letters.
    fn header(&self, side: Side, name: &str) -> Option<Cow<'_, str>>;
}

/// An exchange, and what was counted up to it.
pub struct Counted<'a> {
    /// The exchange.
    pub facts: &'a dyn Facts,
    /// The count.
    pub count: u32,
}

impl Facts for Counted<'_> {
    fn value(&self, field: Field) -> Option<Value<'_>> {
        if field == Field::Count { Some(Value::Int(self.count.into())) } else { self.facts.value(field) }
    }

    fn header(&self, side: Side, name: &str) -> Option<Cow<'_, str>> {
        self.facts.header(side, name)
    }
}
