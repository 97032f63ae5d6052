//! What wants a kernel of its own: run by `cargo xtask vm` inside virtual machines, where it may do as it likes, and in
//! part on the host itself.
//!
//! Every step says how it went on standard output (`tell`); a step that fails does not keep the next one from running.

mod capability;
mod conditions;
mod doctor;
mod lives;
mod scene;
mod serve;
mod systemd;
mod tell;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

pub use capability::become_only;
pub use scene::cgroup_root;
pub use serve::{Service, serve};
pub use systemd::serve_at;

use self::tell::{Told, tell};
use crate::clock;

/// The names of tables in docs/kernels.md.
const CAPABILITIES: &str = "capabilities";
/// See [`CAPABILITIES`].
const FEATURES: &str = "features";
/// See [`CAPABILITIES`].
const CONDITIONS: &str = "conditions";
/// See [`CAPABILITIES`].
const SYSTEMD: &str = "systemd";

/// A step and its name.
type Step = (&'static str, fn() -> Result<Told>);

/// What a machine of its own allows. The order matters: cgroup v2 is mounted by the second step, and lockdown cannot
/// be taken back.
const MACHINE: [Step; 13] = [
    ("no cgroup v2", conditions::no_cgroup2),
    ("cgroup v1 alone", conditions::cgroup1_alone),
    (MOUNTS, mount_cgroup2),
    ("capture tests", capture_tests),
    ("doctor", doctor::all_is_well),
    ("capabilities", capability::table),
    ("killed", lives::killed),
    ("out of memory", lives::out_of_memory),
    ("a cgroup that another holds", lives::held_by_another),
    ("no BTF", conditions::no_btf),
    ("no BPF for the unprivileged", conditions::unprivileged),
    ("lockdown for integrity", conditions::lockdown_integrity),
    ("lockdown for confidentiality", conditions::lockdown_confidentiality),
];

/// What may be done on a host that others use. The capture tests run there anyway.
const NATIVE: [Step; 3] =
    [("doctor", doctor::all_is_well), ("capabilities", capability::table), ("killed", lives::killed)];

/// What a host allows that a real systemd runs, with our package and nothing else to do.
const SYSTEMD_HOST: [Step; 13] = [
    (INSTALL, systemd::install),
    ("doctor", systemd::all_is_well),
    ("identity by unit", systemd::named_by_unit),
    ("reload", systemd::reload),
    ("restart", systemd::restart),
    ("killed", systemd::killed),
    ("watchdog", systemd::watchdog),
    ("upgrade", systemd::upgrade),
    ("upgrade to what does not work", systemd::wrong_configuration),
    ("AppArmor", systemd::apparmor),
    ("seccomp", systemd::seccomp),
    ("removed and installed again", systemd::removed),
    ("purge", systemd::purge),
];

/// Where the steps run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A machine that is there for them, with this program as its only process.
    Machine,
    /// A machine that systemd runs.
    Systemd,
    /// The host that others use.
    Host,
}

/// Runs the steps.
///
/// # Errors
/// When a step failed.
pub fn run(place: Place) -> Result<()> {
    tell(&["kernel", &rustix::system::uname().release().to_string_lossy()]);
    let steps: &[Step] = match place {
        Place::Machine => &MACHINE,
        Place::Systemd => &SYSTEMD_HOST,
        Place::Host => &NATIVE,
    };
    let mut failed = 0;
    let only = std::env::var("TOKENSCOPE_GUEST_ONLY").unwrap_or_default();
    for (name, step) in steps {
        if !(is_wanted(&only, name) || *name == MOUNTS || *name == INSTALL) {
            continue;
        }
        let began = clock::instant();
        match step() {
            Ok(Told::Done) => tell(&["ok", name, &format!("{:.1}", began.elapsed().as_secs_f64())]),
            Ok(Told::Skipped(why)) => tell(&["SKIPPED", name, &why]),
            Err(error) => {
                failed += 1;
                tell(&["FAILED", name, &format!("{error:#}")]);
            }
        }
    }
    if place == Place::Host {
        tell(&["end", "0"]);
    }
    if failed > 0 {
        bail!("{failed} steps failed");
    }
    Ok(())
}

/// The step that the others stand on.
const MOUNTS: &str = "cgroup v2";
/// The same on a host that systemd runs.
const INSTALL: &str = "install";

/// Whether a step is among those asked for, by names with hyphens and commas between them; all are if none is named.
fn is_wanted(only: &str, name: &str) -> bool {
    only.is_empty() || only.split(',').any(|wanted| wanted == name.replace(' ', "-"))
}

/// Where a machine mounts cgroup v2.
const CGROUPS: &str = "/sys/fs/cgroup";

fn mount_cgroup2() -> Result<Told> {
    mount(&["-t", "cgroup2", "none", CGROUPS])?;
    // Children may be given a limit of memory only where their parent hands it on.
    std::fs::write(Path::new(CGROUPS).join("cgroup.subtree_control"), "+memory")?;
    Ok(Told::Done)
}

/// The capture tests that a kernel is most likely to fail, for when time is short: each loads programs of its own, and
/// an emulated verifier takes seconds for that. The host's kernel passes all of them in the ordinary test run.
const TELLING: [&str; 9] = [
    "kernel::features::",
    "sees_requests_and_responses_of_a_kept_connection",
    "a_grant_makes_an_upload_cheap",
    "joins_a_request_on_the_handshake",
    "joins_a_request_on_the_syn",
    "sees_ipv6",
    "records_a_connection_between_local_processes_once",
    "mutes_what_is_not_http",
    "forged_bytes_do_not_replace_true_ones",
];

/// The capture tests of `sensor-user/tests/kernel.rs`; none of those chosen may be left out.
fn capture_tests() -> Result<Told> {
    let program = std::env::var_os("TOKENSCOPE_TEST_KERNEL").context("TOKENSCOPE_TEST_KERNEL is not set")?;
    let quick = std::env::var("TOKENSCOPE_GUEST_QUICK").is_ok_and(|quick| quick == "1");
    let chosen: &[&str] = if quick { &TELLING } else { &[] };
    let mut program = Command::new(program);
    program.args(["--test-threads", "2", "--nocapture"]).args(chosen).env("TOKENSCOPE_TEST_EMULATED", "1");
    let (said, status) = overheard(&mut program)?;
    ensure!(status.success(), "{said}");
    ensure!(!said.contains("SKIPPED"), "{said}");
    let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    ensure!(passed >= chosen.len().max(TELLING.len()), "{passed} passed: {said}");
    tell(&["passed", "capture tests", &passed.to_string()]);
    Ok(Told::Done)
}

/// Runs a program and returns all that it says; the machine's console shows each line at once, so that whoever waits
/// outside sees that it goes on.
fn overheard(program: &mut Command) -> Result<(String, ExitStatus)> {
    let (reader, writer) = std::io::pipe()?;
    let mut child = program.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // Else the pipe would never end.
    program.stdout(Stdio::null()).stderr(Stdio::null());
    let mut said = String::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        eprintln!("{line}");
        said.push_str(&line);
        said.push('\n');
    }
    Ok((said, child.wait()?))
}

/// Runs `mount`; the tests' own crates have no safe call for it.
fn mount(arguments: &[&str]) -> Result<()> {
    run_program("mount", arguments).map(|_| ())
}

/// Runs a program of the machine and returns what it printed.
fn run_program(name: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(name).args(arguments).output().with_context(|| name.to_owned())?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{name} {}: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_by_name() {
        assert!(is_wanted("", "no BTF") && is_wanted("doctor,no-BTF", "no BTF"));
        assert!(!is_wanted("doctor", "no BTF"));
    }
}
