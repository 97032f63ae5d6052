//! The verbs of `tokenscope rules` about the user's own rules: check, test, fields; and their lines in list and show.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::rules::{Arguments, pretty, severities, wrap};
use crate::cli::{Context, Failure, terminal};
use crate::config::Secrets;
use crate::config::user::{load, load_good};
use crate::detect::user::UserRule;
use crate::detect::user::correlate::Kind;
use crate::detect::user::field::{FIELDS, Use};
use crate::telemetry::printable;

/// What is meant: the named files, else `--rules`, else the configuration's directory.
pub(super) fn paths(
    context: &Context,
    arguments: &Arguments,
    files: &[PathBuf],
) -> Result<Vec<PathBuf>, Failure> {
    if !files.is_empty() {
        return Ok(files.to_vec());
    }
    if let Some(path) = arguments.rules() {
        return Ok(vec![path.to_owned()]);
    }
    let loaded =
        context.load(context.config_path().as_deref(), Secrets::Optional).map_err(Failure::Config)?;
    let dir = loaded.config.rules_dir;
    // Rules that nobody asked for need not be there.
    Ok(if dir.named || dir.path.exists() { vec![dir.path] } else { Vec::new() })
}

/// The user's rules that are good, for list and show; what is wrong with the others is told.
pub(super) fn known(context: &Context, arguments: &Arguments) -> Result<Vec<Arc<UserRule>>, Failure> {
    let (rules, report) = load_good(&paths(context, arguments, &[])?);
    if context.global.quiet == 0 {
        report.lines().for_each(|line| terminal::complain(&format!("warning: {line}\n")));
    }
    Ok(rules)
}

/// `rules check`.
pub(super) fn check(context: &Context, paths: &[PathBuf]) -> Result<(), Failure> {
    let (rules, warnings) = load(paths).map_err(Failure::Config)?;
    if context.global.quiet == 0 {
        terminal::complain(&warnings.render(terminal::colour_stderr(context.global.color)));
    }
    let many = if rules.len() == 1 { "1 rule".to_owned() } else { format!("{} rules", rules.len()) };
    Ok(terminal::answer(&format!("{many}: ok\n"))?)
}

/// `rules test`.
pub(super) fn test(context: &Context, paths: &[PathBuf], as_json: bool) -> Result<(), Failure> {
    let (rules, warnings) = load(paths).map_err(Failure::Config)?;
    if context.global.quiet == 0 {
        terminal::complain(&warnings.render(terminal::colour_stderr(context.global.color)));
    }
    let (mut out, mut all, mut failed, mut played) = (String::new(), Vec::new(), 0, 0);
    for rule in &rules {
        if rule.examples.is_empty() {
            let _ = writeln!(out, "none  {}: no examples", rule.about.id);
        }
        for example in &rule.examples {
            let wrong = example.judge(rule);
            played += 1;
            failed += usize::from(!wrong.is_empty());
            let name = printable(&example.name);
            let word = if wrong.is_empty() { "ok  " } else { "FAIL" };
            let _ = writeln!(out, "{word}  {}: {name}", rule.about.id);
            if !wrong.is_empty() {
                let _ =
                    writeln!(out, "      {}:{}", printable(&rule.file.display().to_string()), example.line);
            }
            for (expected, found) in &wrong {
                let _ = writeln!(out, "      - {}\n      + {}", printable(expected), printable(found));
            }
            let wrong: Vec<Value> =
                wrong.iter().map(|(expected, found)| json!({"expected": expected, "found": found})).collect();
            all.push(json!({"rule": rule.about.id, "example": example.name, "ok": wrong.is_empty(), "wrong": wrong}));
        }
    }
    let _ = writeln!(out, "{played} examples, {failed} failed");
    terminal::answer(&if as_json { pretty(&all.into()) } else { out })?;
    if failed > 0 { Err(Failure::Told) } else { Ok(()) }
}

/// `rules fields`.
pub(super) fn fields(as_json: bool) -> String {
    let shown = |usage| match usage {
        Use::Shown | Use::Open => true,
        Use::Kept => false,
    };
    if as_json {
        let one = |card: &crate::detect::user::field::FieldCard| {
            json!({
                "name": card.name, "type": card.kind.as_str(), "shown": shown(card.usage),
                "values": card.words, "doc": card.doc,
            })
        };
        return pretty(&FIELDS.iter().map(one).collect());
    }
    let mut out = String::new();
    for card in FIELDS {
        let _ = writeln!(out, "{:24}  {:12}  {}", card.name, card.kind.as_str(), card.doc);
        if !card.words.is_empty() {
            let _ = writeln!(out, "{:40}One of {}.", "", card.words.join(", "));
        }
    }
    out.push_str("request.headers[\"x-name\"]  string        The first value of a header; credentials have none. Never shown.\n");
    out.push_str("response.headers[\"x-name\"] string        The same of the response.\n");
    out
}

/// A user rule's object in `rules list` and `rules show`.
pub(super) fn summary(rule: &UserRule) -> Value {
    let mut value = crate::cli::rules::summary(rule.about);
    if let Some(object) = value.as_object_mut() {
        object.insert("user".into(), true.into());
        object.insert("enabled".into(), rule.enabled.into());
        object.insert("file".into(), rule.file.display().to_string().into());
        object.insert("attack".into(), json!(rule.about.attack));
        object.insert("examples".into(), rule.examples.len().into());
        object.insert("description".into(), rule.description.as_str().into());
    }
    value
}

/// A user rule's page.
pub(super) fn page(rule: &UserRule) -> String {
    let card = rule.about;
    let mut out = format!("{}: {}\n\n", card.id, printable(card.title));
    let kind = match rule.correlation.as_ref().map(|c| &c.kind) {
        None => "a condition on one exchange",
        Some(Kind::Events(..)) => "event_count",
        Some(Kind::Values(..)) => "value_count",
        Some(Kind::Any(_)) => "temporal",
        Some(Kind::Ordered(_)) => "temporal_ordered",
    };
    let attack = if card.attack.is_empty() { "-".into() } else { card.attack.join(", ") };
    let _ = writeln!(out, "severity   {}", severities(card));
    let _ = writeln!(out, "kind       user rule: {kind}");
    if let Some(correlation) = &rule.correlation {
        let _ = writeln!(out, "window     {} s", correlation.window.as_secs());
    }
    let _ = writeln!(out, "ATT&CK     {attack}");
    let _ = writeln!(out, "version    {}", printable(card.version));
    let _ = writeln!(out, "cools      {} s", card.cooling_s);
    let _ = writeln!(out, "examples   {}", rule.examples.len());
    let _ = writeln!(out, "asked      {}", if rule.enabled { "yes" } else { "no" });
    let _ = writeln!(out, "file       {}", printable(&rule.file.display().to_string()));
    for paragraph in rule.description.trim().split("\n\n").filter(|p| *p != "-") {
        let lines: Vec<String> = wrap(paragraph).lines().map(printable).collect();
        let _ = writeln!(out, "\n{}", lines.join("\n"));
    }
    out
}
