//! Where the program is built that is handed out: at the same paths on every machine.
//!
//! Compilers write paths into what they make: a panic's message, an assertion in C, OpenSSL's description of itself. Flags
//! that replace them reach one compiler each and no build script. So the build sees the source, cargo's home and the
//! directory for what it makes at places that are always the same, in a mount namespace of its own
//! (`mount_namespaces(7)`), which an ordinary user may have too where user namespaces are allowed. Of the environment it
//! sees what is needed to find and fetch things, and nothing that changes how they are compiled.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::oci::digest;
use super::profile::{self, Purpose};
use super::{Arch, flags, home};
use crate::packages::is_root;
use crate::step::{cargo, root, say, target};
use crate::toolchain::{self, TOOLCHAIN, cargo_home, output};

/// Where the build's places are: a directory that every system has (Filesystem Hierarchy Standard 3.0 section 3.12), that
/// belongs to nobody, and that this build alone sees another one upon.
const PLACE: &str = "/mnt";

/// Puts directories at their places, then becomes the command. Arguments: pairs of directory and place, `--`, the command.
const ENTER: &str = r#"set -eu
mount -t tmpfs -o mode=755 tokenscope "$0"
while [ "$1" != -- ]; do
    mkdir "$0/$2"
    mount --rbind "$1" "$0/$2"
    shift 2
done
shift
cd "$0/source"
exec "$@"
"#;

/// What a build is told of its surroundings, by whole names and by how names begin.
const KEPT: [&str; 16] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRY_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "RUSTUP_",
    "SSL_CERT_",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// A build that is to be run, and where its release builds will lie.
#[derive(Debug)]
pub(super) struct Build {
    /// What to run.
    pub(super) command: Command,
    /// Cargo's directory for the machine that is built for.
    pub(super) made: PathBuf,
    /// Directories of this machine, which what is built must not name.
    pub(super) hidden: Vec<PathBuf>,
}

/// Cargo with these arguments, at the places that are always the same; where that cannot be, in this directory, and says so.
///
/// # Errors
/// When the directory of what is made cannot be made.
pub(super) fn build(arch: Arch, purpose: Purpose, arguments: &[&str]) -> Result<Build> {
    let made = home().join(match purpose {
        Purpose::Use => "build",
        Purpose::Train => "training",
    });
    let places = Places::of_this_machine(&made);
    match places.entrance() {
        Ok(entrance) => {
            fs::create_dir_all(&made)?;
            anew_if_others_made_it(&made, arch, purpose)?;
            let mut command = entrance;
            command.arg("cargo").args(arguments);
            places.tell(&mut command, arch, purpose);
            let hidden = places.0.into_iter().map(|(dir, _)| dir).collect();
            Ok(Build { command, made: made.join(arch.target()), hidden })
        }
        Err(why) => {
            say(&format!(
                "NOT REPRODUCIBLE: the program will name directories of this machine, because {why}"
            ));
            let mut command = cargo(arguments);
            command.envs(flags::environment(arch, purpose, &root().to_string_lossy()));
            Ok(Build { command, made: target().join(arch.target()), hidden: Vec::new() })
        }
    }
}

/// Directories of this machine, each with its place.
struct Places(Vec<(PathBuf, &'static str)>);

impl Places {
    fn of_this_machine(made: &Path) -> Self {
        let mut places = vec![(root().to_path_buf(), "source"), (made.to_path_buf(), "target")];
        places.extend(cargo_home().map(|dir| (dir, "cargo")));
        // Compilers that have their own sources beside them name these.
        places.extend(rustup_home().filter(|dir| dir.is_dir()).map(|dir| (dir, "rustup")));
        Self(places)
    }

    /// What enters the namespace, once it was seen to work; otherwise why it cannot be.
    fn entrance(&self) -> Result<Command, String> {
        let hidden = |dir: &PathBuf| dir.canonicalize().is_ok_and(|real| real.starts_with(PLACE));
        if let Some((dir, _)) = self.0.iter().find(|(dir, _)| hidden(dir)) {
            return Err(format!("{} is below {PLACE}", dir.display()));
        }
        for (dir, _) in &self.0 {
            fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        let tried = self.enter().arg("true").output().map_err(|error| format!("unshare: {error}"))?;
        if tried.status.success() {
            return Ok(self.enter());
        }
        let said = String::from_utf8_lossy(&tried.stderr);
        let user = if is_root() { "" } else { " (root may, or allow user namespaces)" };
        Err(format!("there can be no mount namespace{user}: {}", said.lines().next().unwrap_or_default()))
    }

    fn enter(&self) -> Command {
        let mut enter = Command::new("unshare");
        enter.args(if is_root() { &["--mount"][..] } else { &["--map-root-user", "--mount"] });
        enter.args(["--", "sh", "-c", ENTER, PLACE]);
        for (dir, place) in &self.0 {
            enter.arg(dir.canonicalize().unwrap_or_else(|_gone| dir.clone())).arg(place);
        }
        enter.arg("--");
        enter
    }

    /// Sets the environment, and nothing else.
    fn tell(&self, command: &mut Command, arch: Arch, purpose: Purpose) {
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_kept(name)));
        for (_, place) in &self.0 {
            let variable = match *place {
                "target" => "CARGO_TARGET_DIR",
                "cargo" => "CARGO_HOME",
                "rustup" => "RUSTUP_HOME",
                _ => continue,
            };
            command.env(variable, format!("{PLACE}/{place}"));
        }
        command.envs(flags::environment(arch, purpose, &format!("{PLACE}/source")));
    }
}

fn is_kept(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name == TOOLCHAIN
        || KEPT.iter().any(|kept| name == *kept || kept.ends_with('_') && name.starts_with(kept))
}

fn rustup_home() -> Option<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".rustup")))
}

/// Cargo compiles anew what changed in Rust. Libraries in C it compiles once, whatever becomes of their compiler and of what
/// that is told; so what other tools made is thrown away. The note of which they were is for people, too.
fn anew_if_others_made_it(made: &Path, arch: Arch, purpose: Purpose) -> Result<()> {
    let now = tools(arch, purpose)?;
    let (dir, note) = (made.join(arch.target()), made.join(format!("{}.made-by", arch.name())));
    if fs::read_to_string(&note).is_ok_and(|then| then == now) {
        return Ok(());
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(fs::write(note, now)?)
}

/// All that decides what becomes of the source: flags, versions of tools, how OpenSSL is configured, counts of branches (which
/// cargo would not notice in crates by others).
fn tools(arch: Arch, purpose: Purpose) -> Result<String> {
    let told = flags::environment(arch, purpose, "");
    let told: Vec<String> = told.into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let mut now = told.concat();
    let compiler = |name: &str| Command::new(arch.tool(name));
    for mut tool in [Command::new("rustc"), compiler("gcc"), compiler("g++"), compiler("ld")] {
        now.push_str(&output(tool.arg("--version")).unwrap_or_default());
    }
    // The kernel half's: cargo compiles that anew by itself, but who compares two builds wants to know.
    let kernel_half = toolchain::find().map(|name| {
        let mut rustc = Command::new("rustup");
        rustc.args(["run", &name, "rustc"]);
        rustc
    });
    for mut tool in kernel_half.into_iter().chain(toolchain::linker().map(Command::new)) {
        now.push_str(&output(tool.arg("--version")).unwrap_or_default());
    }
    now.push_str(
        &fs::read_to_string(root().join(flags::PERL)).context("the program that configures OpenSSL")?,
    );
    if let Some(counts) = profile::of(arch).filter(|_| purpose == Purpose::Use) {
        now.push_str(&digest(&fs::read(counts)?)?);
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::SKIP;

    #[test]
    fn nothing_that_changes_the_build_is_kept() {
        for name in
            ["CFLAGS", "RUSTFLAGS", "CARGO_PROFILE_RELEASE_LTO", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER", SKIP]
        {
            assert!(!is_kept(&name.into()), "{name}");
        }
        for name in ["PATH", "CARGO_HTTP_CAINFO", "CARGO_REGISTRIES_X_INDEX", "RUSTUP_TOOLCHAIN", TOOLCHAIN] {
            assert!(is_kept(&name.into()), "{name}");
        }
    }

    #[test]
    fn a_directory_below_the_place_cannot_be_moved_there() {
        let places = Places(vec![(PathBuf::from(PLACE), "source")]);
        assert!(places.entrance().is_err_and(|why| why.contains("is below /mnt")));
    }

    #[test]
    fn a_build_sees_directories_at_their_places_and_leaves_none_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("seen"), "yes").unwrap();
        let places = Places(vec![(dir.path().to_path_buf(), "source"), (dir.path().to_path_buf(), "target")]);
        let mut inside = match places.entrance() {
            Ok(inside) => inside,
            Err(why) => return say(&format!("SKIPPED the build's own places: {why}")),
        };
        let done = inside.args(["sh", "-c", "pwd; cat seen; echo made > /mnt/target/made"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "/mnt/source\nyes");
        assert_eq!(fs::read_to_string(dir.path().join("made")).unwrap(), "made\n");
        assert!(!Path::new("/mnt/source/seen").exists());
    }

    #[test]
    fn what_other_tools_made_is_thrown_away_and_what_the_same_made_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let object = dir.path().join(Arch::here().target()).join("object");
        for note in [None, Some("another compiler")] {
            fs::create_dir_all(object.parent().unwrap()).unwrap();
            fs::write(&object, "x").unwrap();
            if let Some(note) = note {
                fs::write(dir.path().join(format!("{}.made-by", Arch::here().name())), note).unwrap();
            }
            anew_if_others_made_it(dir.path(), Arch::here(), Purpose::Use).unwrap();
            assert!(!object.exists());
        }
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(&object, "x").unwrap();
        anew_if_others_made_it(dir.path(), Arch::here(), Purpose::Use).unwrap();
        assert!(object.exists());
    }
}
