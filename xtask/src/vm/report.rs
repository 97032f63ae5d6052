//! What a guest told: lines of words with tabs between them (`tests/src/guest/tell.rs`).

use std::time::Duration;

use crate::step::say;

/// A value that a guest measured, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The table.
    pub(super) table: String,
    /// The row's name.
    pub(super) row: String,
    /// The value.
    pub(super) value: String,
}

/// Everything of one run.
#[derive(Debug, Default)]
pub(super) struct Report {
    kernel: Option<String>,
    passed: Vec<String>,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
    /// How many tests passed within a step.
    tests: Vec<(String, String)>,
    cells: Vec<Cell>,
    ended: bool,
}

impl Report {
    pub(super) fn read(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.trim_end().split('\t').collect();
            match *words.as_slice() {
                ["kernel", release] => report.kernel = Some(release.to_owned()),
                ["ok", name, took] => report.passed.push(format!("{name} ({took} s)")),
                ["FAILED", name, why] => report.failed.push((name.to_owned(), why.to_owned())),
                ["SKIPPED", name, why] => report.skipped.push((name.to_owned(), why.to_owned())),
                ["passed", step, tests] => report.tests.push((step.to_owned(), tests.to_owned())),
                ["cell", table, row, value] => report.cells.push(Cell {
                    table: table.to_owned(),
                    row: row.to_owned(),
                    value: value.to_owned(),
                }),
                ["end", _] => report.ended = true,
                _ => {}
            }
        }
        report
    }

    /// Whether the guest came to its end.
    pub(super) const fn is_whole(&self) -> bool {
        self.ended
    }

    pub(super) const fn passed(&self) -> u64 {
        self.passed.len() as u64
    }

    /// Failed steps, and one for an end that never came.
    pub(super) fn failed(&self) -> u64 {
        self.failed.len() as u64 + u64::from(!self.ended)
    }

    pub(super) const fn skipped(&self) -> u64 {
        self.skipped.len() as u64
    }

    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Major and minor version of the kernel.
    pub(super) fn series(&self) -> Option<String> {
        let mut numbers = self.kernel.as_deref()?.split(['.', '-']);
        Some(format!("{}.{}", numbers.next()?, numbers.next()?))
    }

    /// Prints a line a step.
    pub(super) fn show(&self, name: &str, took: Duration) {
        let word = if self.failed() == 0 { "ok" } else { "FAILED" };
        let kernel = self.kernel.as_deref().unwrap_or(name);
        let steps = self.passed.len();
        say(&format!("  {word:6} kernel {kernel}: {steps} steps ({:.1} s)", took.as_secs_f64()));
        for step in &self.passed {
            say(&format!("         {step}"));
        }
        for (step, tests) in &self.tests {
            say(&format!("         {step}: {tests} passed"));
        }
        for (step, why) in &self.skipped {
            say(&format!("  SKIPPED {step} on {kernel}: {why}"));
        }
        for (step, why) in &self.failed {
            say(&format!("  FAILED {step} on {kernel}: {}", why.replace("\\n", "\n         ")));
        }
        if !self.ended {
            say(&format!("  FAILED kernel {kernel}: the run did not come to its end"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_tells_is_understood() {
        let told = "kernel\t6.1.0-56-cloud-amd64\r\nok\tdoctor\t1.2\nFAILED\tx\tbecause\\nof y\ncell\tt\tr\tv\nnoise\nend\t0\n";
        let report = Report::read(told);
        assert_eq!((report.passed(), report.failed(), report.is_whole()), (1, 1, true));
        assert_eq!(report.series().as_deref(), Some("6.1"));
        assert_eq!(report.cells(), [Cell { table: "t".into(), row: "r".into(), value: "v".into() }]);
    }

    #[test]
    fn silence_is_a_failure() {
        assert_eq!(Report::read("kernel\t5.10.0\nok\tdoctor\t1.0\n").failed(), 1);
    }
}
