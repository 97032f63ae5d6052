//! Sentences with places for values: `{client.address} failed {count} times`.
//!
//! Only fields that may be shown have a place, and each is shown as every finding shows it: printable, bounded. How
//! much of people is shown is for `render::privacy` to say.

use std::fmt::Write as _;

use crate::detect::text;
use crate::detect::user::field::{Field, Use};
use crate::detect::user::value::{Facts, Value};

/// Longest value shown, in bytes.
const MAX_SHOWN: usize = 128;

/// A part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(Box<str>),
    /// The value of a field; `-` where there is none.
    Field(Field),
}

/// A sentence with places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// Why a sentence is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A brace without its other half; the byte where it is.
    Unclosed(usize),
    /// No such field: from, to, name.
    Unknown(usize, usize, String),
    /// A field that is never shown: from, to, name.
    NeverShown(usize, usize, &'static str),
}

impl Template {
    /// Reads a sentence. `{{` and `}}` are braces.
    ///
    /// # Errors
    /// When a place names no field that may be shown.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let brace = rest.find(['{', '}']).unwrap_or(rest.len());
            plain.push_str(rest.get(..brace).unwrap_or_default());
            let inside = rest.get(brace..).unwrap_or_default();
            if inside.is_empty() {
                break;
            }
            if inside.starts_with("{{") || inside.starts_with("}}") {
                plain.push_str(inside.get(..1).unwrap_or_default());
                at += brace + 2;
                continue;
            }
            let from = at + brace;
            let name = inside.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(name, _)| name);
            let name = name.ok_or(TemplateError::Unclosed(from))?;
            let to = from + name.len() + 2;
            let field = Field::parse(name.trim());
            let field = field.ok_or_else(|| TemplateError::Unknown(from, to, name.trim().to_owned()))?;
            if field.card().usage == Use::Kept {
                return Err(TemplateError::NeverShown(from, to, field.card().name));
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::Field(field));
            at = to;
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self(parts))
    }

    /// The fields that it shows.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.0.iter().filter_map(|part| match part {
            Part::Field(field) => Some(*field),
            Part::Text(_) => None,
        })
    }

    /// The sentence about one exchange.
    #[must_use]
    pub fn fill(&self, facts: &dyn Facts) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(field) => match facts.value(*field) {
                    Some(value) => out.push_str(&shown(*field, &value)),
                    None => out.push('-'),
                },
            }
        }
        out
    }
}

/// A value as alerts show it.
#[must_use]
pub fn shown(field: Field, value: &Value<'_>) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Address(address) => address.to_string(),
        Value::Text(text) if field == Field::Account => {
            text::clean_segment(&text::printable(text.as_bytes(), MAX_SHOWN))
        }
        Value::Text(text) if field == Field::Path => text::clean_path(text.as_bytes(), MAX_SHOWN),
        Value::Text(text) => text::printable(text.as_bytes(), MAX_SHOWN),
        Value::Texts(texts) => {
            let mut out = String::new();
            for text in texts.iter().take(8) {
                let _ = write!(out, "{}{}", if out.is_empty() { "" } else { ", " }, text);
            }
            text::printable(out.as_bytes(), MAX_SHOWN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_places_and_braces() {
        let template = Template::parse("a {{b}} {client.address}{count}!").unwrap();
        assert_eq!(
            template.0,
            [
                Part::Text("a {b} ".into()),
                Part::Field(Field::ClientAddress),
                Part::Field(Field::Count),
                Part::Text("!".into())
            ]
        );
        assert_eq!(Template::parse("x {oops"), Err(TemplateError::Unclosed(2)));
        assert_eq!(Template::parse("x}"), Err(TemplateError::Unclosed(1)));
        assert_eq!(Template::parse("{clint}"), Err(TemplateError::Unknown(0, 7, "clint".into())));
        assert_eq!(
            Template::parse("{request.query}"),
            Err(TemplateError::NeverShown(0, 15, "request.query"))
        );
    }

    #[test]
    fn shows_no_secret_and_not_too_much() {
        let show = |field, text: &str| shown(field, &Value::Text(text.into()));
        assert_eq!(show(Field::Path, "/u;sid=1/eyJhbGciOiJub25lIn0.e30."), "/u;…/{token}");
        assert!(show(Field::UserAgent, &"\u{1b}[2J".repeat(100)).len() < 200);
    }
}
