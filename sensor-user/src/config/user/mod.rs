//! The user's own rules: files of a directory, each one rule, checked as a whole, every error at once.
//!
//! YAML gives the tree ([`yaml`](crate::config::yaml)), conditions are read and checked here ([`parse`], [`check`]), and
//! what comes out is a [`UserRule`] that the detector asks as it is.

pub mod check;
pub mod example;
pub mod lex;
pub mod locate;
pub mod parse;
pub mod read;
pub mod schema;
pub mod span;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::section::Section;
use crate::config::{Problem, Report};
use crate::detect::user::UserRule;
use crate::detect::user::model::MAX_RULES;

/// Where rules are looked for unless the configuration says otherwise.
pub const DEFAULT_DIR: &str = "/etc/tokenscope/rules.d";

/// Largest rule file, and largest file of a list, in bytes: 50,000 names fit.
const MAX_FILE: u64 = 1 << 20;

/// The directory of the user's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesDir {
    /// The directory.
    pub path: PathBuf,
    /// Whether the configuration names it: replay reads no rules that nobody named.
    pub named: bool,
}

impl RulesDir {
    /// Reads `rules_dir`; a relative one starts at `base`.
    pub(super) fn read(s: &mut Section<'_, '_>, base: &Path) -> Self {
        let named = s.is_set("rules_dir");
        let doc = "Directory of the user's own rules, one *.yaml each; docs/user-rules.md says how to write them. Changes \
                   are taken over as they come; a bad file is refused and its last good version stays.";
        let path = s.word("rules_dir", PathBuf::from(DEFAULT_DIR), doc);
        Self { path: base.join(path), named }
    }
}

/// A rule that was read, and warnings.
#[derive(Clone, Debug)]
pub struct Read {
    /// The rule.
    pub rule: Arc<UserRule>,
    /// Warnings only.
    pub warnings: Report,
}

/// Reads one file.
///
/// # Errors
/// With every problem, if there is at least one error.
pub fn file(path: &Path) -> Result<Read, Report> {
    let name = path.display().to_string();
    let text = text_of(path).map_err(|why| Report::whole(&name, why))?;
    read::rule(path, &text)
}

/// The text of a file that is not too large.
pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let tell = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(tell)?;
    if !file.metadata().map_err(tell)?.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(tell)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8: line {line} has a byte that is no text")
    })
}

/// The rule files of a directory, by name; of a file, itself. Hidden files and other names than *.yaml are none.
///
/// # Errors
/// When it cannot be read, or holds too many.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if yaml && !name.starts_with('.') {
            found.push(path);
        }
        if found.len() > MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules"));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads files and directories.
///
/// # Errors
/// With one report of every problem of every file, if there is at least one error.
pub fn load(paths: &[PathBuf]) -> Result<(Vec<Arc<UserRule>>, Report), Report> {
    let (rules, report) = load_good(paths);
    if report.errors() > 0 { Err(report) } else { Ok((rules, report)) }
}

/// Reads files and directories: the rules that are good, and a report of everything else.
#[must_use]
pub fn load_good(paths: &[PathBuf]) -> (Vec<Arc<UserRule>>, Report) {
    let mut rules: Vec<Arc<UserRule>> = Vec::new();
    let mut all = Report::default();
    for path in paths {
        let files = files(path).unwrap_or_else(|why| {
            append(&mut all, Report::whole(path.display().to_string(), why));
            Vec::new()
        });
        for path in files {
            match file(&path).and_then(|read| unique(&rules, read)) {
                Ok(read) => {
                    append(&mut all, read.warnings);
                    rules.push(read.rule);
                }
                Err(report) => append(&mut all, report),
            }
        }
    }
    if rules.len() > MAX_RULES {
        append(&mut all, Report::whole("rules", format!("more than {MAX_RULES} rules")));
        rules.truncate(MAX_RULES);
    }
    (rules, all)
}

/// Refuses a rule whose id is taken.
///
/// # Errors
/// When another rule has its id.
pub fn unique(rules: &[Arc<UserRule>], read: Read) -> Result<Read, Report> {
    let id = read.rule.about.id;
    match rules.iter().find(|other| other.about.id == id) {
        None => Ok(read),
        Some(other) => Err(Report::whole(
            read.rule.file.display().to_string(),
            format!("the rule `{id}` is in {} already", other.file.display()),
        )),
    }
}

/// Puts a report behind another.
pub fn append(all: &mut Report, more: Report) {
    let shift = all.sources.len();
    let moved = |mut problem: Problem| {
        problem.span.source += shift;
        problem
    };
    all.problems.extend(more.problems.into_iter().map(moved));
    all.sources.extend(more.sources);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "id: ID\ntitle: t\nseverity: low\nwhen: response.status == 200\n";

    #[test]
    fn a_directory_is_read_by_name_and_twins_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let put =
            |name: &str, id: &str| std::fs::write(dir.path().join(name), RULE.replace("ID", id)).unwrap();
        put("b.yaml", "b-rule");
        put("a.yml", "a-rule");
        put(".hidden.yaml", "hidden");
        put("readme.txt", "no");
        let (rules, _) = load(&[dir.path().to_owned()]).unwrap();
        assert_eq!(rules.iter().map(|rule| rule.about.id).collect::<Vec<_>>(), ["a-rule", "b-rule"]);
        put("c.yaml", "a-rule");
        let report = load(&[dir.path().to_owned()]).unwrap_err();
        assert!(report.problems[0].message.contains("`a-rule` is in"), "{report:?}");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        std::fs::write(&path, b"id: \xff\n").unwrap();
        assert!(file(&path).unwrap_err().problems[0].message.contains("is not UTF-8: line 1"));
        std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(file(&path).unwrap_err().problems[0].message.contains("larger"));
        assert_eq!(load(&["/nowhere.yaml".into()]).unwrap_err().errors(), 1);
    }
}
