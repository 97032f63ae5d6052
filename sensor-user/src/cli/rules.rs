//! `tokenscope rules`: the catalogue.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{Context, Failure, cards, terminal};
use crate::config::rules::find;
use crate::detect::{About, Needs};
use crate::telemetry::printable;

/// Column at which explanations wrap.
const WIDTH: usize = 100;

/// List the rules, or explain one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope rules list
  tokenscope rules show alg-none")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// One line a rule: id, severities, title
    #[command(after_help = "\
Examples:
  tokenscope rules list
  tokenscope rules list -o json | jq -r '.[].id'")]
    List,
    /// What a rule sees, why it matters, what is benign, and its numbers
    #[command(after_help = "\
Examples:
  tokenscope rules show forged-token-accepted
  tokenscope rules show brute-force -o json")]
    Show {
        /// The rule's id
        id: String,
    },
}

pub(super) fn rules(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("rules")?;
    let text = match &arguments.verb {
        Verb::List if json => pretty(&cards().iter().map(|card| summary(card)).collect()),
        Verb::List => table(cards()),
        Verb::Show { id } => {
            let card = find(id, cards()).map_err(|near| {
                let hint = near.map_or("; `tokenscope rules list` names them".into(), |near| {
                    format!("; did you mean `{near}`?")
                });
                Failure::Usage(format!("no rule is called `{}`{hint}", printable(id)))
            })?;
            if json { pretty(&full(card)) } else { page(card) }
        }
    };
    Ok(terminal::answer(&text)?)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn severities(card: &About) -> String {
    match card.accepted.filter(|accepted| *accepted != card.severity) {
        Some(accepted) => format!("{} / {accepted}", card.severity).to_lowercase(),
        None => card.severity.to_string().to_lowercase(),
    }
}

fn table(cards: &[&About]) -> String {
    let mut out = String::new();
    let width = cards.iter().map(|card| card.id.len()).max().unwrap_or_default();
    for card in cards {
        let _ = writeln!(out, "{:width$}  {:17}  {}", card.id, severities(card), card.title);
    }
    out
}

fn page(card: &About) -> String {
    let mut out = format!("{}: {}\n\n", card.id, card.title);
    let worse = card.accepted.filter(|accepted| *accepted != card.severity);
    let worse =
        worse.map_or(String::new(), |severity| format!("; {severity} when the application accepted it"));
    let _ = writeln!(out, "severity   {}", format!("{}{worse}", card.severity).to_lowercase());
    let _ = writeln!(
        out,
        "kind       {}",
        if card.behavioural { "behaviour: it counts or learns" } else { "fact" }
    );
    let needs = match card.needs {
        Needs::Exchange => "the exchange",
        Needs::Verdict => "the verdict on the token's signature",
    };
    let _ = writeln!(out, "needs      {needs}");
    let _ = writeln!(
        out,
        "ATT&CK     {}",
        if card.attack.is_empty() { "-".into() } else { card.attack.join(", ") }
    );
    let _ = writeln!(out, "version    {}", card.version);
    let _ = writeln!(out, "cools      {} s", card.cooling_s);
    for paragraph in card.doc.trim().split("\n\n") {
        let _ = writeln!(out, "\n{}", wrap(paragraph));
    }
    if !card.thresholds.is_empty() {
        let _ = writeln!(out, "\nUnder `rules.{}` in the configuration:\n", card.id);
    }
    let width = card.thresholds.iter().map(|t| t.key.len()).max().unwrap_or_default();
    for t in card.thresholds {
        let _ = writeln!(out, "  {:width$}  {:>8}  {} ({} to {})", t.key, t.default, t.doc, t.min, t.max);
    }
    out
}

/// Breaks a paragraph at blanks, a hundred columns wide.
fn wrap(paragraph: &str) -> String {
    let mut out = String::with_capacity(paragraph.len() + 16);
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

fn summary(card: &About) -> Value {
    json!({
        "id": card.id,
        "title": card.title,
        "severity": card.severity.as_str(),
        "severity_accepted": card.accepted.map(crate::detect::Severity::as_str),
        "version": card.version,
    })
}

fn full(card: &About) -> Value {
    let mut value = summary(card);
    let thresholds: Vec<_> = card
        .thresholds
        .iter()
        .map(|t| json!({"key": t.key, "default": t.default, "min": t.min, "max": t.max, "doc": t.doc}))
        .collect();
    if let Some(object) = value.as_object_mut() {
        object.insert("behavioural".into(), json!(card.behavioural));
        object.insert("attack".into(), json!(card.attack));
        object.insert("cooling_s".into(), json!(card.cooling_s));
        object.insert("doc".into(), json!(card.doc.trim()));
        object.insert("thresholds".into(), json!(thresholds));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_line_and_a_page() {
        assert_eq!(table(cards()).lines().count(), cards().len());
        for card in cards() {
            let page = page(card);
            assert!(
                page.contains(card.title) && card.thresholds.iter().all(|t| page.contains(t.key)),
                "{page}"
            );
            let text = page.split("\nUnder `rules.").next().unwrap_or_default();
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{page}");
        }
    }
}
