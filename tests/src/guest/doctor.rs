//! `tokenscope doctor` on a host where all is well, and what it says of the kernel.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::FEATURES;
use super::tell::{Told, cell};
use crate::sensor;

/// One check of `doctor -o json`.
#[derive(Clone, Debug)]
pub(super) struct Check(Value);

impl Check {
    fn text(&self, member: &str) -> &str {
        self.0.get(member).and_then(Value::as_str).unwrap_or_default()
    }

    /// What was looked at.
    pub(super) fn name(&self) -> &str {
        self.text("check")
    }

    /// Whether the sensor cannot run because of it.
    pub(super) fn failed(&self) -> bool {
        self.text("status") == "fail"
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> &str {
        self.text("remedy")
    }
}

/// What doctor says, run by this command.
pub(super) fn checks(mut sensor: Command) -> Result<Vec<Check>> {
    let done = sensor.args(["doctor", "-o", "json"]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let all: Vec<Value> = serde_json::from_slice(&done.stdout).with_context(|| said.into_owned())?;
    Ok(all.into_iter().map(Check).collect())
}

/// The check of this name.
pub(super) fn check(name: &str) -> Result<Check> {
    let all = checks(sensor::command()?)?;
    let found = all.iter().find(|check| check.text("check") == name);
    found.cloned().with_context(|| format!("no check {name:?} in {all:?}"))
}

/// Nothing fails; each feature of the kernel is told.
pub(super) fn all_is_well() -> Result<Told> {
    let all = checks(sensor::command()?)?;
    let bad: Vec<&Check> = all.iter().filter(|check| check.failed()).collect();
    ensure!(bad.is_empty(), "{bad:?}");
    let features = all.iter().filter_map(|check| {
        let name = check.text("check").strip_prefix("kernel: ")?;
        Some((name, check.text("text").split([':', ';']).next().unwrap_or_default()))
    });
    let mut told = 0;
    for (name, text) in features {
        cell(FEATURES, name, text);
        told += 1;
    }
    ensure!(told > 0, "doctor tells no feature: {all:?}");
    Ok(Told::Done)
}
