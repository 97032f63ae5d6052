//! The licences of every crate that is compiled in, in one text: who says what, then each wording once.
//!
//! The wordings are those that the crates ship, since most licences ask for just that. Crates that carry the sources
//! of C libraries are searched deeper.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::crates::Crate;

/// How files that hold a licence, or a notice that has to go along, begin.
const BEGINNINGS: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// Endings of files that are called so and hold code.
const CODE: [&str; 8] = ["rs", "c", "h", "cc", "go", "pl", "py", "toml"];

/// How deep the foreign sources of a crate are searched: `librdkafka/src/regexp/LICENSE` is no deeper.
const DEEPEST: u32 = 3;

/// Longest file that is taken for a licence; the longest that there are have about 40 kB.
const LONGEST: u64 = 256 << 10;

/// Makes the text.
///
/// # Errors
/// When the sources of a crate cannot be read.
pub(super) fn text(crates: &[Crate]) -> Result<String> {
    let mut wordings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut out = String::from(
        "Tokenscope is licensed under MIT or Apache-2.0, at your option.\n\
         It is made with the crates below, each under the terms that it names.\n\n",
    );
    for one in crates {
        let title = format!("{} {}", one.name, one.version);
        writeln!(out, "{title}: {}", one.licence)?;
        let files = files(one).with_context(|| format!("the sources of {title}"))?;
        for (name, wording) in files {
            wordings.entry(wording).or_default().push(format!("{title} ({name})"));
        }
    }
    // In the order of those who use them, not of their words.
    let mut sorted: Vec<_> = wordings.into_iter().collect();
    sorted.sort_by(|a, b| a.1.cmp(&b.1));
    for (wording, of) in sorted {
        writeln!(out, "\n{}\n{}\n\n{wording}", "-".repeat(78), of.join("\n"))?;
    }
    Ok(out)
}

/// The files of a crate that hold licences: name and wording, sorted.
fn files(one: &Crate) -> Result<Vec<(String, String)>> {
    let foreign = one.name.ends_with("-sys") || one.name.ends_with("-src");
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, u32)> = vec![(one.dir.clone(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
            if path.is_dir() {
                let of_licences = depth == 0 && matches!(name.as_str(), "licenses" | "licences" | "license");
                if of_licences || (foreign && depth < DEEPEST) {
                    open.push((path, depth + 1));
                }
            } else if is_licence(&path, &name, dir.ends_with("LICENSES")) {
                let place = path.strip_prefix(&one.dir).unwrap_or(&path).to_string_lossy().into_owned();
                found.push((place, wording(&path)?));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_licence(path: &Path, name: &str, among_licences: bool) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= LONGEST);
    let called_so = among_licences || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    small && called_so && !CODE.contains(&ending.as_str())
}

/// A wording as it is told apart from others: blanks at the ends of lines say nothing.
fn wording(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    Ok(lines.join("\n").trim_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_at(dir: &Path, name: &str, files: &[(&str, &str)]) -> Crate {
        let dir = dir.join(name);
        for (path, text) in files {
            let file = dir.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let (version, licence) = ("1.0.0".to_owned(), "MIT".to_owned());
        Crate { name: name.to_owned(), version, licence, dir, ..Crate::default() }
    }

    #[test]
    fn a_wording_is_told_once_with_all_who_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let crates = [
            crate_at(
                dir.path(),
                "a",
                &[("LICENSE-MIT", "Do as you like.  \r\n"), ("license.rs", "fn code() {}")],
            ),
            crate_at(
                dir.path(),
                "b",
                &[("COPYING", "Do as you like.\n\n"), ("deep/down/LICENSE", "Not ours.")],
            ),
            crate_at(dir.path(), "c-sys", &[("lib/src/LICENSE", "Keep this notice."), ("src/lib.rs", "")]),
        ];
        let text = text(&crates).unwrap();
        assert_eq!(text.matches("Do as you like.").count(), 1, "{text}");
        assert!(text.contains("a 1.0.0 (LICENSE-MIT)\nb 1.0.0 (COPYING)\n"), "{text}");
        assert!(text.contains("c-sys 1.0.0 (lib/src/LICENSE)\n\nKeep this notice."), "{text}");
        assert!(!text.contains("Not ours.") && !text.contains("fn code"), "{text}");
    }

    #[test]
    fn sources_that_are_gone_are_an_error() {
        let gone = Crate { dir: PathBuf::from("/nowhere"), ..Crate::default() };
        assert!(text(&[gone]).is_err());
    }
}
