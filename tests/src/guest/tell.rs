//! How a guest tells what it found: lines of words with tabs between them, which `cargo xtask vm` reads.

use crate::print;

/// How a step that did not fail ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// As it should.
    Done,
    /// It does not apply to this kernel, and why.
    Skipped(String),
}

/// Tells one thing.
pub(super) fn tell(words: &[&str]) {
    let clean = |word: &&str| word.trim().replace('\t', " ").replace('\r', "").replace('\n', "\\n");
    print(&words.iter().map(clean).collect::<Vec<_>>().join("\t"));
}

/// Tells a value of a table.
pub(super) fn cell(table: &str, row: &str, value: &str) {
    tell(&["cell", table, row, value]);
}
