//! The lists of a rule: constants in its file, or a file each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::File;
use crate::config::Problem;
use crate::config::section::Section;
use crate::config::user::text_of;
use crate::config::yaml::{Node, Value};
use crate::detect::roster::stable_hash;
use crate::detect::user::field::Field;

/// Most entries of one list.
const MAX_LIST: usize = 100_000;

/// The rule's lists, and the files that they came from.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) by_name: BTreeMap<String, Vec<String>>,
    pub(super) files: Vec<PathBuf>,
    /// A hash of what the files hold.
    pub(super) hash: u64,
}

impl File<'_> {
    pub(super) fn lists(self, s: &mut Section<'_, '_>) -> Lists {
        let mut lists = Lists::default();
        let Some(node) = s.raw("lists", "Constants by name: a list, or `{file: PATH}` with one a line.")
        else {
            return lists;
        };
        let Value::Map(entries) = &node.value else {
            s.report(Problem::error(node.span, "`lists` must be a mapping of names to lists"));
            return lists;
        };
        for (key, value) in entries {
            let name = &key.text;
            let good = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !good
                || Field::parse(name).is_some()
                || ["true", "false", "in", "null"].contains(&name.as_str())
            {
                let message = format!("`{name}` cannot be the name of a list");
                s.report(Problem::error(key.span, message).hint("use small letters, digits and underscores"));
            }
            if lists.by_name.contains_key(name) {
                s.report(Problem::error(key.span, format!("the list `{name}` is there twice")));
            }
            let items = self.list(s, value, &mut lists);
            lists.by_name.insert(name.clone(), items);
        }
        lists
    }

    fn list(self, s: &mut Section<'_, '_>, node: &Node, lists: &mut Lists) -> Vec<String> {
        match &node.value {
            Value::List(items) => {
                items.iter().filter_map(|item| Self::scalar(s, item, "an entry").map(str::to_owned)).collect()
            }
            Value::Map(entries) => match entries.as_slice() {
                [(key, Node { value: Value::Scalar(file), span })] if key.text == "file" => {
                    let base = self.path.parent().unwrap_or(Path::new(""));
                    let path = base.join(file);
                    let items = text_of(&path).and_then(|text| lines(&text));
                    lists.files.push(path);
                    match items {
                        Ok(items) => {
                            lists.hash = stable_hash(&(lists.hash, &items));
                            items
                        }
                        Err(why) => {
                            s.report(Problem::error(*span, format!("the file {why}")));
                            Vec::new()
                        }
                    }
                }
                _ => {
                    s.report(Problem::error(node.span, "a list is [a, b], or {file: PATH}"));
                    Vec::new()
                }
            },
            _ => {
                s.report(Problem::error(node.span, "a list is [a, b], or {file: PATH}"));
                Vec::new()
            }
        }
    }
}

/// The entries of a list file: one a line; blank lines and what follows `#` are none.
fn lines(text: &str) -> Result<Vec<String>, String> {
    let entries = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let entries: Vec<String> = entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect();
    if entries.len() > MAX_LIST {
        return Err(format!("holds more than {MAX_LIST} entries"));
    }
    Ok(entries)
}
