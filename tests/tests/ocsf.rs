//! Every event of every golden capture is valid OCSF.

use std::fs;

use anyhow::{Result, ensure};
use tests::ocsf::Schema;
use tests::sensor::events;

#[test]
fn every_golden_event_is_valid() -> Result<()> {
    let Some(schema) = Schema::find() else { return Ok(()) };
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(tests::data("golden"))? {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        for event in events(&fs::read_to_string(&path)?)? {
            seen += 1;
            let problems = schema.problems(&event);
            wrong.extend(problems.into_iter().map(|p| format!("{}: {p}", path.display())));
        }
    }
    ensure!(seen > 0, "no golden events: bless them first");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
