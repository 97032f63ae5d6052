//! Which capability is needed for what: a sensor started with all that may matter but one, for each of them.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::scene::{Scene, Seen};
use super::tell::{Told, cell};
use super::{CAPABILITIES, doctor, tell};
use crate::sensor;

/// Those that may matter, with their bits of linux/capability.h.
const CONSIDERED: [(&str, u32); 7] = [
    ("CAP_BPF", 39),
    ("CAP_PERFMON", 38),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_NET_RAW", 13),
];

/// Covers the first two on every kernel, so that leaving them out would show nothing beside it.
const SYS_ADMIN: (&str, u32) = ("CAP_SYS_ADMIN", 21);

/// What `lab only` does: becomes this program, with no more than these capabilities. Root has, after `execve`, what its
/// bounding set leaves it (capabilities(7)), as in a container.
///
/// # Errors
/// When there is no such capability, or the program cannot be run.
pub fn become_only(names: &str, program: &[&str]) -> Result<()> {
    let all = || CONSIDERED.into_iter().chain([SYS_ADMIN]);
    let mut kept = Vec::new();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let Some((_, bit)) = all().find(|(known, _)| *known == name) else { bail!("what is {name}?") };
        kept.push(bit);
    }
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    for bit in (0..=last).filter(|bit| !kept.contains(bit)) {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if capability_is_in_bounding_set(one)? {
            remove_capability_from_bounding_set(one)?;
        }
    }
    set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..capabilities(None)? })?;
    let Some((program, arguments)) = program.split_first() else { bail!("no program") };
    bail!("{program}: {}", Command::new(program).args(arguments).exec());
}

/// A sensor with these capabilities and no others.
fn restricted(names: &[&str]) -> Result<Command> {
    let mut launcher = Command::new(std::env::current_exe()?);
    launcher.args(["only", &names.join(",")]);
    sensor::behind(launcher)
}

/// What is lost without one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Nothing,
    Start,
    Names(Seen),
}

impl Loss {
    fn text(self) -> String {
        match self {
            Self::Nothing => "not needed".to_owned(),
            Self::Start => "**cannot start**".to_owned(),
            Self::Names(seen) => {
                let lost = [
                    (seen.container, "containers"),
                    (seen.process_of_root, "processes of root"),
                    (seen.process_of_others, "processes of other users"),
                ];
                let lost: Vec<&str> =
                    lost.iter().filter(|(there, _)| !there).map(|(_, what)| *what).collect();
                format!("no names of {}", lost.join(", "))
            }
        }
    }
}

/// Measures the table, and that a sensor which may not start names what it lacks.
pub(super) fn table() -> Result<Told> {
    let scene = Scene::new()?;
    let names: Vec<&str> = CONSIDERED.iter().map(|(name, _)| *name).collect();
    let whole = scene.play(restricted(&names)?)?;
    ensure!(whole == (Seen { container: true, process_of_root: true, process_of_others: true }), "{whole:?}");
    let mut losses = Vec::new();
    for dropped in &names {
        let rest: Vec<&str> = names.iter().copied().filter(|name| name != dropped).collect();
        let loss = match scene.play(restricted(&rest)?) {
            Ok(seen) if seen == whole => Loss::Nothing,
            Ok(seen) => Loss::Names(seen),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains(dropped), "without {dropped} it says: {said}");
                Loss::Start
            }
        };
        cell(CAPABILITIES, dropped, &loss.text());
        losses.push((*dropped, loss));
    }
    if losses.contains(&("CAP_SYS_RESOURCE", Loss::Start)) {
        unlimited(&scene, &names)?;
    }
    smallest(&scene, &losses, whole)?;
    old_way(&scene, &names)?;
    Ok(Told::Done)
}

/// The smallest sets, tried as such.
fn smallest(scene: &Scene, losses: &[(&'static str, Loss)], whole: Seen) -> Result<()> {
    let of = |wanted: fn(Loss) -> bool| -> Vec<&str> {
        losses.iter().filter(|(_, loss)| wanted(*loss)).map(|(name, _)| *name).collect()
    };
    let short =
        |names: &[&str]| names.iter().map(|n| n.trim_start_matches("CAP_")).collect::<Vec<_>>().join(" ");
    let captures = of(|loss| loss == Loss::Start);
    scene.play(restricted(&captures)?)?;
    cell(CAPABILITIES, "smallest set that captures", &short(&captures));
    let names = of(|loss| loss != Loss::Nothing);
    let seen = scene.play(restricted(&names)?)?;
    ensure!(seen == whole, "with {names:?}: {seen:?}");
    cell(CAPABILITIES, "smallest set with every name", &short(&names));
    match scene.play(restricted(&[])?) {
        Ok(_) => bail!("it starts without any capability"),
        Err(error) => {
            let said = format!("{error:#}");
            for name in &captures {
                ensure!(said.contains(name), "without any capability it does not name {name}: {said}");
            }
        }
    }
    diagnosed(&captures)
}

/// Doctor, without any capability, names each that is needed to capture.
fn diagnosed(needed: &[&str]) -> Result<()> {
    let checks = doctor::checks(restricted(&[])?)?;
    for name in needed {
        // That one is needed for the memory that it unlocks.
        let name = if *name == "CAP_SYS_RESOURCE" { "locked memory" } else { name };
        let failed =
            checks.iter().any(|check| check.name() == name && check.failed() && !check.remedy().is_empty());
        ensure!(failed, "doctor does not name {name}: {checks:?}");
    }
    Ok(())
}

/// Where the memory that may be locked has no limit, nothing has to lift it.
fn unlimited(scene: &Scene, names: &[&str]) -> Result<()> {
    let rest: Vec<&str> = names.iter().copied().filter(|name| *name != "CAP_SYS_RESOURCE").collect();
    let mut launcher = Command::new("sh");
    launcher.args(["-c", "ulimit -l unlimited && exec \"$0\" \"$@\""]).arg(std::env::current_exe()?);
    launcher.args(["only", &rest.join(",")]);
    scene.play(sensor::behind(launcher)?)?;
    cell(CAPABILITIES, "CAP_SYS_RESOURCE, with `ulimit -l unlimited`", "not needed");
    Ok(())
}

/// `CAP_SYS_ADMIN`, as before Linux 5.8.
fn old_way(scene: &Scene, names: &[&str]) -> Result<()> {
    let split_off = ["CAP_BPF", "CAP_PERFMON"];
    let rest = names.iter().copied().filter(|name| !split_off.contains(name));
    let set: Vec<&str> = rest.chain([SYS_ADMIN.0]).collect();
    let does = scene.play(restricted(&set)?).is_ok();
    let word = if does { "does as well" } else { "does not do" };
    tell::cell(CAPABILITIES, "CAP_SYS_ADMIN in place of CAP_BPF and CAP_PERFMON", word);
    Ok(())
}
