//! Ends that nobody chose, and hosts that others use too: nothing stays behind, nothing is lost, and who is in the way
//! is named.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::CGROUPS;
use super::scene::Scene;
use super::tell::{Told, cell};
use crate::bpf::{self, Foreign, Held, Mode};
use crate::sensor::{self, Config, Sensor};

/// Killed: the kernel takes its programs off at once.
pub(super) fn killed() -> Result<Told> {
    if let Some(why) = bpf::missing() {
        return Ok(Told::Skipped(why));
    }
    let scene = Scene::new()?;
    let sensor = Sensor::start(&scene.config()?)?;
    let held = Held::by(sensor.pid())?;
    sensor.kill();
    held.until_gone()?;
    Ok(Told::Done)
}

/// Killed for its memory; the next one goes on where it was.
pub(super) fn out_of_memory() -> Result<Told> {
    if let Some(why) = bpf::missing() {
        return Ok(Told::Skipped(why));
    }
    let scene = Scene::new()?;
    let state = tempfile::tempdir()?;
    let mut config = scene.config()?;
    config.set("/state/dir", json!(state.path()));
    let group = Path::new(CGROUPS).join("sensor");
    fs::create_dir_all(&group)?;
    let first = numbers_of(&scene, within(&group)?, &config, |sensor| {
        let held = Held::by(sensor.pid())?;
        fs::write(group.join("memory.max"), "1M")?;
        sensor.until_killed()?;
        held.until_gone()
    })?;
    let events = fs::read_to_string(group.join("memory.events"))?;
    ensure!(events.lines().any(|line| line.starts_with("oom_kill ") && !line.ends_with(" 0")), "{events}");
    fs::remove_dir(&group)?;
    let second = numbers_of(&scene, sensor::command()?, &config, Sensor::stopped)?;
    ensure!(second > first, "numbers start anew: {second} after {first}");
    Ok(Told::Done)
}

/// The highest number of an alert that a sensor gave before its end.
fn numbers_of(
    scene: &Scene,
    command: Command,
    config: &Config,
    end: impl FnOnce(Sensor) -> Result<()>,
) -> Result<u64> {
    let mut sensor = Sensor::start_by(command, config, &["-o", "json"])?;
    let number =
        scene.attack_once(&mut sensor)?.0.pointer("/metadata/sequence").and_then(serde_json::Value::as_u64);
    end(sensor)?;
    number.context("an alert without a number")
}

/// A sensor that enters this cgroup first.
fn within(group: &Path) -> Result<Command> {
    let mut launcher = Command::new("sh");
    launcher.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(group);
    sensor::behind(launcher)
}

/// Another's program at the root: one that shares it is no matter; one that wants it alone is named.
pub(super) fn held_by_another() -> Result<Told> {
    if let Some(why) = bpf::missing() {
        return Ok(Told::Skipped(why));
    }
    let scene = Scene::new()?;
    let root = Path::new(CGROUPS);
    let shared = Foreign::attach(root, Mode::Multi)?;
    scene.play(sensor::command()?)?;
    ensure!(shared.is_attached()?, "another's program is gone");
    drop(shared);
    let alone = Foreign::attach(root, Mode::Exclusive)?;
    let Err(error) = scene.play(sensor::command()?) else { bail!("it starts beside an exclusive program") };
    let said = format!("{error:#}");
    ensure!(said.contains("bpftool cgroup show"), "{said}");
    ensure!(alone.is_attached()?, "another's program is gone");
    cell(super::CONDITIONS, "another's program at the root, attached with `multi`", "works");
    cell(
        super::CONDITIONS,
        "another's program at the root, attached exclusively",
        "refused, with the remedy",
    );
    Ok(Told::Done)
}
