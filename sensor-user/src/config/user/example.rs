//! The examples of a rule file.

use crate::config::Problem;
use crate::config::section::Section;
use crate::config::user::check::suggest;
use crate::config::user::read::File;
use crate::config::user::span::Length;
use crate::config::word::Word as _;
use crate::config::yaml::{Key, Node, Value};
use crate::detect::user::field::{Field, Side, Type};
use crate::detect::user::played::{Example, Given, MAX_EXCHANGES, Played};

/// Most examples of one rule.
const MAX_EXAMPLES: usize = 100;

/// Reads `examples`.
pub(super) fn read(s: &mut Section<'_, '_>) -> Vec<Example> {
    let doc = "The rule's own tests: exchanges, and whether it must fire.";
    let Some(node) = s.raw("examples", doc) else { return Vec::new() };
    let Value::List(items) = &node.value else {
        s.report(Problem::error(node.span, "`examples` must be a list"));
        return Vec::new();
    };
    if items.len() > MAX_EXAMPLES {
        s.report(Problem::error(node.span, format!("more than {MAX_EXAMPLES} examples")));
        return Vec::new();
    }
    items.iter().filter_map(|item| one(s, item)).collect()
}

fn one(s: &mut Section<'_, '_>, node: &Node) -> Option<Example> {
    let Value::Map(entries) = &node.value else {
        s.report(
            Problem::error(node.span, "an example is a mapping")
                .hint("write {name: .., fires: true, exchanges: [..]}"),
        );
        return None;
    };
    let mut example = Example {
        name: format!("line {}", node.span.line),
        line: node.span.line,
        fires: true,
        first: None,
        says: None,
        exchanges: Vec::new(),
    };
    let mut said = false;
    for (key, value) in entries {
        match key.text.as_str() {
            "name" => example.name = File::scalar(s, value, "`name`")?.chars().take(120).collect(),
            "fires" => {
                said = true;
                example.fires = match &value.value {
                    Value::Scalar(text) if text == "true" || text == "false" => text == "true",
                    _ => {
                        s.report(Problem::error(value.span, "`fires` is true or false"));
                        return None;
                    }
                };
            }
            "first" => example.first = Some(number(s, value, "first", 1, MAX_EXCHANGES.into())?),
            "says" => example.says = Some(File::scalar(s, value, "`says`")?.to_owned()),
            "exchanges" => example.exchanges = exchanges(s, value)?,
            other => unknown(s, key, other, &["name", "fires", "first", "says", "exchanges"]),
        }
    }
    if !said {
        s.report(
            Problem::error(node.span, "the example does not say whether the rule fires")
                .hint("add `fires: true`"),
        );
    }
    if example.exchanges.is_empty() {
        s.report(Problem::error(node.span, "the example has no exchanges"));
    }
    let total: u64 = example.exchanges.iter().map(|played| u64::from(played.repeat)).sum();
    if total > MAX_EXCHANGES.into() {
        s.report(Problem::error(node.span, format!("the example has more than {MAX_EXCHANGES} exchanges")));
    }
    Some(example)
}

fn unknown(s: &mut Section<'_, '_>, key: &Key, name: &str, known: &[&str]) {
    let problem = Problem::error(key.span, format!("unknown key `{name}`"));
    let near = crate::config::near::nearest(name, known.iter().copied()).or_else(|| suggest(name));
    s.report(match near {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint(format!("known here: {}, and the names of fields", known.join(", "))),
    });
}

fn number(s: &mut Section<'_, '_>, node: &Node, key: &str, least: u64, most: u64) -> Option<u32> {
    let text = File::scalar(s, node, key)?;
    let number =
        text.parse::<u64>().ok().filter(|n| (least..=most).contains(n)).and_then(|n| u32::try_from(n).ok());
    if number.is_none() {
        s.report(Problem::error(node.span, format!("`{key}` must be a number from {least} to {most}")));
    }
    number
}

fn length(s: &mut Section<'_, '_>, node: &Node, key: &str) -> Option<u64> {
    let text = File::scalar(s, node, key)?;
    match Length::parse(text) {
        Ok(length) => u64::try_from(length.0.as_millis()).ok(),
        Err(wrong) => {
            let problem = Problem::error(node.span, format!("`{key}` {}", wrong.message));
            s.report(Problem { hint: wrong.hint, ..problem });
            None
        }
    }
}

fn exchanges(s: &mut Section<'_, '_>, node: &Node) -> Option<Vec<Played>> {
    let Value::List(items) = &node.value else {
        s.report(Problem::error(node.span, "`exchanges` must be a list"));
        return None;
    };
    Some(items.iter().filter_map(|item| played(s, item)).collect())
}

fn played(s: &mut Section<'_, '_>, node: &Node) -> Option<Played> {
    let Value::Map(entries) = &node.value else {
        s.report(Problem::error(node.span, "an exchange is a mapping of fields to values"));
        return None;
    };
    let mut played = Played { repeat: 1, every_ms: 1000, ..Played::default() };
    for (key, value) in entries {
        match key.text.as_str() {
            "after" => played.after_ms = length(s, value, "after").unwrap_or_default(),
            "every" => played.every_ms = length(s, value, "every").unwrap_or_default(),
            "repeat" => played.repeat = number(s, value, "repeat", 1, MAX_EXCHANGES.into()).unwrap_or(1),
            "request.headers" => headers(s, value, Side::Request, &mut played),
            "response.headers" => headers(s, value, Side::Response, &mut played),
            name => match Field::parse(name).filter(|field| *field != Field::Count) {
                Some(field) => {
                    let given = given(s, value, field);
                    played.numbered |= matches!(&given, Some(Given::Text(text)) if text.contains("{n}"));
                    played.given.extend(given.map(|given| (field, given)));
                }
                None => unknown(
                    s,
                    key,
                    name,
                    &["after", "every", "repeat", "request.headers", "response.headers"],
                ),
            },
        }
    }
    Some(played)
}

fn headers(s: &mut Section<'_, '_>, node: &Node, side: Side, played: &mut Played) {
    let Value::Map(entries) = &node.value else {
        s.report(Problem::error(node.span, "headers are a mapping of names to values"));
        return;
    };
    for (key, value) in entries {
        if let Some(text) = File::scalar(s, value, "a header") {
            played.headers.push((side, key.text.to_ascii_lowercase().into(), text.to_owned()));
        }
    }
}

fn given(s: &mut Section<'_, '_>, node: &Node, field: Field) -> Option<Given> {
    let card = field.card();
    let wrong = |s: &mut Section<'_, '_>| {
        let message = format!("`{}` is {}", card.name, card.kind.as_str());
        s.report(Problem::error(node.span, message));
        None
    };
    match (&node.value, card.kind) {
        (Value::Null, _) => Some(Given::Absent),
        (Value::List(items), Type::Texts) => {
            let texts = items.iter().map(|item| File::scalar(s, item, card.name).map(Box::from));
            Some(Given::Texts(texts.collect::<Option<_>>()?))
        }
        (Value::Scalar(text), Type::Text) => {
            if !card.words.is_empty() && !card.words.contains(&text.as_str()) {
                let problem = Problem::error(node.span, format!("`{}` is never `{text}`", card.name));
                s.report(problem.hint(format!("it is one of {}", card.words.join(", "))));
            }
            Some(Given::Text(text.clone()))
        }
        (Value::Scalar(text), Type::Int) => text.parse().ok().map(Given::Int).or_else(|| wrong(s)),
        (Value::Scalar(text), Type::Bool) => text.parse().ok().map(Given::Bool).or_else(|| wrong(s)),
        (Value::Scalar(text), Type::Address) => text.parse().ok().map(Given::Address).or_else(|| wrong(s)),
        _ => wrong(s),
    }
}
