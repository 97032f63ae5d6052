//! `copyright` as Debian wants it (DEP-5): who holds the rights to what, and under which terms.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;

use super::NAME;
use super::crates::Crate;
use crate::step::root;

/// Makes the file. The wordings of the crates' licences are in a file beside it.
///
/// # Errors
/// When our own licence is gone.
pub(super) fn text(crates: &[Crate]) -> Result<String> {
    let mit = fs::read_to_string(root().join("LICENSE-MIT"))?;
    let holder = mit.lines().find_map(|line| line.strip_prefix("Copyright (c) ")).unwrap_or("the authors");
    let expressions: BTreeSet<&str> = crates.iter().map(|one| one.licence.as_str()).collect();
    let list: Vec<String> = expressions.iter().map(|expression| format!("  {expression}")).collect();
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: {NAME}\n\
         Comment: The program holds code of other people. /usr/share/doc/{NAME}/licences.txt.gz names\n \
         every part with its licence, and /usr/share/sbom/{NAME}.cdx.json lists them for programs.\n \
         The licences among them are:\n{}\n\n\
         Files: *\n\
         Copyright: {holder}\n\
         License: MIT or Apache-2.0\n\n\
         License: MIT\n{}\n\
         License: Apache-2.0\n \
         On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.\n",
        list.join("\n"),
        indented(&mit)
    ))
}

/// As continuation lines: one blank before each, and a full stop on those that would be empty.
fn indented(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim_end) {
        out.push(' ');
        out.push_str(if line.is_empty() { "." } else { line });
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_stay_one_field() {
        assert_eq!(indented("a\n\nb  \n"), " a\n .\n b\n");
        let made = text(&[Crate { licence: "Zlib".into(), ..Crate::default() }]).unwrap();
        // Between fields of one paragraph no line is empty.
        let paragraph = made.split("\n\n").find(|part| part.contains("License: MIT\n")).unwrap();
        assert!(paragraph.lines().all(|line| !line.is_empty()), "{paragraph}");
        assert!(made.contains("\n  Zlib\n"), "{made}");
    }
}
