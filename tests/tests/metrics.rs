//! The page of a running sensor and docs/metrics.md say the same.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::clock::{self, Deadline};
use tests::mint::Mint;
use tests::sensor::{self, Config, Sensor};
use tests::skip;

/// Names and kinds of the page of documentation.
fn documented() -> Result<BTreeSet<(String, String)>> {
    let text = std::fs::read_to_string(tests::workspace().join("docs/metrics.md"))?;
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`').to_owned();
        Some((name, cells.next()?.trim().to_owned()))
    };
    Ok(text.lines().filter_map(row).collect())
}

/// Names and kinds of a page of metrics.
fn shown(page: &str) -> BTreeSet<(String, String)> {
    let pair = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    };
    page.lines().filter_map(pair).collect()
}

/// What is there only once there is something to show.
const LATER: [&str; 7] = [
    "tokenscope_lost_records_total",
    "tokenscope_findings_silenced_total",
    "tokenscope_user_rule_findings_total",
    "tokenscope_user_rule_faults_total",
    "tokenscope_user_rule_groups_evicted_total",
    "tokenscope_user_rule_groups",
    "tokenscope_history_saved_bytes",
];

#[test]
fn a_running_sensor_shows_what_is_documented() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("metrics::a_running_sensor_shows_what_is_documented", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let sensor = Sensor::start(&Config::new(&mint)?.ports(&[1]))?;
    // The first page is there after the first round.
    let deadline = Deadline::after(sensor::PATIENCE);
    let mut page = String::new();
    while page.is_empty() {
        ensure!(!deadline.is_over(), "no page");
        page = sensor.metrics_page().context("the page")?;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let (documented, shown) = (documented()?, shown(&page));
    ensure!(documented.len() > 50, "only {} rows were read from docs/metrics.md", documented.len());
    let unknown: Vec<_> = shown.difference(&documented).collect();
    ensure!(unknown.is_empty(), "docs/metrics.md lacks {unknown:?}");
    let missing: Vec<_> =
        documented.difference(&shown).filter(|(name, _)| !LATER.contains(&name.as_str())).collect();
    ensure!(missing.is_empty(), "the page lacks {missing:?}:\n{page}");
    Ok(())
}
