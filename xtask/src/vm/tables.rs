//! The tables of docs/kernels.md: a row a fact, a column a kernel.
//!
//! A table is what stands between `<!-- measured: NAME -->` and `<!-- end -->`. Its first column names the rows. A cell that
//! differs from what was measured is told; with `bless` it is written instead, and rows and columns that are missing
//! are added.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::report::Cell;

const BEGIN: &str = "<!-- measured: ";
const BEGIN_END: &str = " -->";
const END: &str = "<!-- end -->";

/// The page, taken apart.
#[derive(Debug)]
pub(super) struct Tables {
    path: PathBuf,
    bless: bool,
    text: String,
}

/// One table: the first row is the head.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table(Vec<Vec<String>>);

impl Tables {
    pub(super) fn read(path: &Path, bless: bool) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), bless, text })
    }

    /// Compares, or takes over, what was measured on a kernel. Kernels without a column are left alone unless they are
    /// to be written. Returns the differences.
    pub(super) fn take(&mut self, series: &str, cells: &[Cell]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut names: Vec<&str> = cells.iter().map(|cell| cell.table.as_str()).collect();
        names.dedup();
        for name in names {
            let Some((from, to)) = span(&self.text, name) else {
                differences.push(format!("there is no table {name:?}"));
                continue;
            };
            let mut table = Table::parse(self.text.get(from..to).unwrap_or_default());
            for cell in cells.iter().filter(|cell| cell.table == name) {
                if self.bless {
                    table.set(series, &cell.row, &cell.value);
                } else if table.column(series).is_some() {
                    let there = table.get(series, &cell.row).unwrap_or("nothing");
                    if there != cell.value {
                        differences.push(format!(
                            "{name}, {}: it says {there:?}, measured was {:?} (`cargo xtask vm --bless` writes it)",
                            cell.row, cell.value
                        ));
                    }
                }
            }
            if self.bless {
                self.text.replace_range(from..to, &table.render());
            }
        }
        differences
    }

    /// Writes the page, if that was asked for.
    pub(super) fn write(&self) -> Result<()> {
        if self.bless {
            fs::write(&self.path, &self.text)?;
        }
        Ok(())
    }
}

/// Where the table of this name lies in the page.
fn span(text: &str, name: &str) -> Option<(usize, usize)> {
    let mark = format!("{BEGIN}{name}{BEGIN_END}\n");
    let from = text.find(&mark)? + mark.len();
    let to = from + text.get(from..)?.find(END)?;
    Some((from, to))
}

impl Table {
    fn parse(text: &str) -> Self {
        let row = |line: &str| -> Vec<String> {
            let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
            inner.split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let is_rule = |line: &&str| line.starts_with("|-");
        Self(text.lines().filter(|line| line.starts_with('|') && !is_rule(line)).map(row).collect())
    }

    fn column(&self, series: &str) -> Option<usize> {
        self.0.first()?.iter().position(|cell| cell == series)
    }

    fn get(&self, series: &str, row: &str) -> Option<&str> {
        let column = self.column(series)?;
        let row = self.0.iter().find(|cells| cells.first().is_some_and(|name| name == row))?;
        row.get(column).map(String::as_str)
    }

    fn set(&mut self, series: &str, row: &str, value: &str) {
        if self.0.is_empty() {
            self.0.push(vec![String::new()]);
        }
        let column = self.column(series).unwrap_or_else(|| {
            self.0.iter_mut().for_each(|cells| cells.push("–".to_owned()));
            if let Some(last) = self.0.first_mut().and_then(|head| head.last_mut()) {
                series.clone_into(last);
            }
            self.0.first().map_or(0, |head| head.len() - 1)
        });
        let width = self.0.first().map_or(0, Vec::len);
        let at = self.0.iter().position(|cells| cells.first().is_some_and(|name| name == row));
        let at = at.unwrap_or_else(|| {
            let mut cells = vec!["–".to_owned(); width];
            if let Some(first) = cells.first_mut() {
                row.clone_into(first);
            }
            self.0.push(cells);
            self.0.len() - 1
        });
        if let Some(cell) = self.0.get_mut(at).and_then(|cells| cells.get_mut(column)) {
            value.clone_into(cell);
        }
    }

    fn render(&self) -> String {
        let mut out = String::from("\n");
        for (at, row) in self.0.iter().enumerate() {
            let _ = writeln!(out, "| {} |", row.join(" | "));
            if at == 0 {
                let _ = writeln!(out, "|{}", "---|".repeat(row.len()));
            }
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(row: &str, value: &str) -> Cell {
        Cell { table: "t".into(), row: row.into(), value: value.into() }
    }

    fn page(bless: bool, text: &str) -> Tables {
        Tables { path: PathBuf::new(), bless, text: text.to_owned() }
    }

    const PAGE: &str = "before\n<!-- measured: t -->\n\n|  | 5.10 | 6.1 |\n|---|---|---|\n| a | yes | no |\n\n<!-- end -->\nafter\n";

    #[test]
    fn what_differs_is_told() {
        let mut page = page(false, PAGE);
        assert!(page.take("5.10", &[cell("a", "yes")]).is_empty());
        let told = page.take("6.1", &[cell("a", "yes"), cell("b", "new")]);
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("\"no\"") && told[1].contains("\"nothing\""), "{told:?}");
        assert!(page.take("7.0", &[cell("a", "who knows")]).is_empty(), "a kernel without a column");
        assert_eq!(page.text, PAGE);
    }

    #[test]
    fn what_was_measured_is_written_on_purpose_only() {
        let mut page = page(true, PAGE);
        assert!(page.take("6.1", &[cell("a", "yes"), cell("b", "new")]).is_empty());
        assert!(page.take("6.12", &[cell("a", "maybe")]).is_empty());
        let rows =
            "|  | 5.10 | 6.1 | 6.12 |\n|---|---|---|---|\n| a | yes | yes | maybe |\n| b | – | new | – |\n";
        assert!(page.text.contains(rows), "{}", page.text);
        assert!(page.text.starts_with("before\n") && page.text.ends_with("<!-- end -->\nafter\n"));
    }
}
