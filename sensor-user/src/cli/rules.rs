//! `tokenscope rules`: the catalogue.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{Context, Failure, cards, terminal, user_rules};
use crate::config::rules::find;
use crate::detect::user::UserRule;
use crate::detect::{About, Needs};
use crate::telemetry::printable;

/// Column at which explanations wrap.
const WIDTH: usize = 100;

/// List the rules, explain one, check and test your own
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope rules list
  tokenscope rules show alg-none
  tokenscope rules check my-rule.yaml && tokenscope rules test my-rule.yaml")]
pub(super) struct Arguments {
    /// Directory or file of the user's own rules [default: the configuration's `rules_dir`]
    #[arg(long, global = true, value_name = "DIR")]
    rules: Option<PathBuf>,
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
    /// Say what is wrong with rules of your own: every error at once, with its place
    #[command(after_help = "\
Examples:
  tokenscope rules check
  tokenscope rules check rules.d/export.yaml && systemctl reload tokenscope")]
    Check {
        /// Rule files and directories
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Play the examples of rules of your own
    #[command(after_help = "\
Examples:
  tokenscope rules test
  tokenscope rules test rules.d/export.yaml")]
    Test {
        /// Rule files and directories
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// The fields of an exchange that a rule of your own may name
    #[command(after_help = "\
Examples:
  tokenscope rules fields
  tokenscope rules fields -o json | jq -r '.[].name'")]
    Fields,
    /// The JSON Schema of rule files, for editors
    #[command(after_help = "\
Examples:
  tokenscope rules schema > rules.schema.json")]
    Schema,
}

pub(super) fn rules(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("rules")?;
    let text = match &arguments.verb {
        Verb::Check { files } => {
            return user_rules::check(context, &user_rules::paths(context, arguments, files)?);
        }
        Verb::Test { files } => {
            return user_rules::test(context, &user_rules::paths(context, arguments, files)?, json);
        }
        Verb::Fields => user_rules::fields(json),
        Verb::Schema => pretty(&crate::config::user::schema::schema()),
        Verb::List if json => {
            let mut all: Vec<Value> = cards().iter().map(|card| summary(card)).collect();
            all.extend(user_rules::known(context, arguments)?.iter().map(|rule| user_rules::summary(rule)));
            pretty(&all.into())
        }
        Verb::List => table(cards(), &user_rules::known(context, arguments)?),
        Verb::Show { id } => {
            let known = user_rules::known(context, arguments)?;
            if let Some(rule) = known.iter().find(|rule| rule.about.id == id.as_str()) {
                let text = if json { pretty(&user_rules::summary(rule)) } else { user_rules::page(rule) };
                return Ok(terminal::answer(&text)?);
            }
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

impl Arguments {
    /// What `--rules` says.
    pub(super) fn rules(&self) -> Option<&Path> {
        self.rules.as_deref()
    }
}

pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn severities(card: &About) -> String {
    match card.accepted.filter(|accepted| *accepted != card.severity) {
        Some(accepted) => format!("{} / {accepted}", card.severity).to_lowercase(),
        None => card.severity.to_string().to_lowercase(),
    }
}

fn table(cards: &[&About], user: &[Arc<UserRule>]) -> String {
    let mut out = String::new();
    let ids = cards.iter().map(|card| card.id).chain(user.iter().map(|rule| rule.about.id));
    let width = ids.map(str::len).max().unwrap_or_default();
    for card in cards {
        let _ = writeln!(out, "{:width$}  {:17}  {}", card.id, severities(card), card.title);
    }
    for rule in user {
        let (card, title) = (rule.about, printable(rule.about.title));
        let off = if rule.enabled { "" } else { ", off" };
        let _ = writeln!(out, "{:width$}  {:17}  {title} (user rule{off})", card.id, severities(card));
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
pub(super) fn wrap(paragraph: &str) -> String {
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

pub(super) fn summary(card: &About) -> Value {
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
        assert_eq!(table(cards(), &[]).lines().count(), cards().len());
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
