//! The detections on labelled traffic, in short: one seed of the judging set. `cargo xtask quality` is the long run.

use anyhow::{Result, ensure};
use tests::lab::quality::{Options, judge, play};
use tests::lab::{Plan, write};

/// Small enough for every day. Rules that no attack was found by, or that cry wolf, are named.
#[test]
fn a_short_run_reaches_the_goals() -> Result<()> {
    let card = judge(&Options { seeds: 1, exchanges: 25_000, attacks: 2, ..Options::default() })?;
    ensure!(card.benign > 25_000, "only {} benign exchanges", card.benign);
    // What learns the ways of callers, few attacks say nothing of; the total counts them as well.
    let much = ["unusual-endpoint", "unusual-sequence", "total"];
    let mut failures = card.failures();
    failures.retain(|failure| !much.iter().any(|name| failure.starts_with(name)));
    ensure!(failures.is_empty(), "below the goals: {failures:#?}\n{}", card.table());
    Ok(())
}

#[test]
fn two_runs_of_a_seed_are_the_same_traffic() -> Result<()> {
    let plan = Plan { seed: 5, exchanges: 4_000, attacks: 1 };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let (first, second) = (write(plan, &mut one)?, write(plan, &mut two)?);
    ensure!((first.benign, first.malicious) == (second.benign, second.malicious));
    ensure!(one.len() == two.len(), "ES256 signatures differ, their lengths do not");
    let other = write(Plan { seed: 6, ..plan }, std::io::sink())?;
    ensure!((first.benign, first.malicious) != (other.benign, other.malicious));
    Ok(())
}

#[test]
fn packets_are_read_as_they_were_written() -> Result<()> {
    let plan = Plan { seed: 9, exchanges: 3_000, attacks: 1 };
    let (written, said) = play(plan)?;
    ensure!(written.labels.iter().filter(|l| !l.is_fact).count() > 60);
    ensure!(said.iter().any(|a| a.rule == "alg-none"));
    Ok(())
}
