//! Kernels of Debian's releases: fetched by apt into a place of their own, without a change to the system.
//!
//! Only the image is used: what the sensor needs is built into Debian's cloud kernels, so no module is loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::step::step;
use crate::toolchain::output;

/// A kernel and where it comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Its version, major and minor.
    pub(super) series: &'static str,
    /// The release of Debian that has it.
    suite: &'static str,
    /// The package that depends on the newest one.
    package: &'static str,
}

/// The oldest kernel that is supported, and those of two releases of Debian that are in wide use.
pub(super) const KERNELS: [Source; 3] = [
    Source { series: "5.10", suite: "bullseye", package: "linux-image-cloud-amd64" },
    Source { series: "6.1", suite: BOOKWORM, package: "linux-image-cloud-amd64" },
    Source { series: "6.12", suite: BOOKWORM, package: "linux-image-6.12-cloud-amd64" },
];

/// The release of Debian whose systemd is tried.
pub(super) const BOOKWORM: &str = "bookworm";

/// What the releases are signed with; part of the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that can be booted.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its full version: `6.1.0-56-cloud-amd64`.
    pub(super) release: String,
    /// The image.
    pub(super) image: PathBuf,
}

impl Source {
    /// The kernel below `home`, fetched if it is not there or `update` is set.
    pub(super) fn fetch(&self, home: &Path, update: bool, mirror: Option<&str>) -> Result<Kernel> {
        let dir = home.join("kernels").join(self.series);
        if !update && let Ok(kernel) = Self::fetched(&dir) {
            return Ok(kernel);
        }
        ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing (apt-get install debian-archive-keyring)");
        let archive = Archive::wished(mirror)?;
        self.unpack(&self.download(&archive, home)?, &dir)
    }

    /// The kernel of the release that the machine of systemd has.
    pub(super) fn of_bookworm() -> Option<&'static Self> {
        KERNELS.iter().find(|kernel| kernel.suite == BOOKWORM)
    }

    fn fetched(dir: &Path) -> Result<Kernel> {
        let release = fs::read_to_string(dir.join("release"))?;
        let image = dir.join("vmlinuz");
        ensure!(image.is_file(), "{} is missing", image.display());
        Ok(Kernel { release, image })
    }

    /// Fetches the package of the newest image and says where it is.
    fn download(&self, archive: &Archive, home: &Path) -> Result<PathBuf> {
        let apt = Apt::new("deb", archive, self.suite, &home.join("apt").join(self.suite))?;
        let name = format!("look for kernel {}", self.series);
        ensure!(
            step(&name, apt.command("apt-get").args(["-q", "update"]))?.ok,
            "{} has no {} (--mirror URL names another)",
            archive.releases,
            self.suite
        );
        let depends = output(apt.command("apt-cache").args(["depends", self.package])).unwrap_or_default();
        let image = newest(&depends).with_context(|| format!("{} offers no {}", self.suite, self.package))?;
        let into = home.join("debs").join(self.series);
        let _ = fs::remove_dir_all(&into);
        fs::create_dir_all(&into)?;
        let mut download = apt.command("apt-get");
        download.args(["-q", "download", image]).current_dir(&into);
        ensure!(step(&format!("fetch {image}"), &mut download)?.ok, "{image} cannot be fetched");
        only_file(&into)
    }

    /// Takes the image out of its package.
    fn unpack(&self, package: &Path, dir: &Path) -> Result<Kernel> {
        let whole = dir.join("package");
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(&whole)?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(package).arg(&whole);
        ensure!(step(&format!("unpack kernel {}", self.series), &mut unpack)?.ok, "the package is damaged");
        for file in fs::read_dir(whole.join("boot"))? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if let Some(release) = name.strip_prefix("vmlinuz-") {
                fs::copy(file.path(), dir.join("vmlinuz"))?;
                fs::write(dir.join("release"), release)?;
            }
        }
        fs::remove_dir_all(&whole)?;
        if let Some(debs) = package.parent() {
            fs::remove_dir_all(debs)?;
        }
        Self::fetched(dir)
    }
}

/// Where Debian's releases are, and their security updates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    /// Of the releases.
    pub(crate) releases: String,
    security: String,
}

impl Archive {
    /// The one below this URL, or the one that this host's own apt uses.
    pub(crate) fn wished(mirror: Option<&str>) -> Result<Self> {
        mirror.map_or_else(Self::of_this_host, |url| Ok(Self::below(url)))
    }

    /// Below one address.
    pub(crate) fn below(mirror: &str) -> Self {
        let mirror = mirror.trim_end_matches('/');
        Self { releases: format!("{mirror}/debian/"), security: format!("{mirror}/debian-security/") }
    }

    /// The archive that this host's own apt uses.
    pub(crate) fn of_this_host() -> Result<Self> {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"]);
        Self::told(&output(&mut apt).unwrap_or_default())
            .context("this host's apt knows no archive of Debian (--mirror URL names one)")
    }

    /// `Debian URL` and `Debian-Security URL`, among others.
    fn told(targets: &str) -> Option<Self> {
        let of = |label: &str| targets.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
        Some(Self { releases: of("Debian")?.to_owned(), security: of("Debian-Security")?.to_owned() })
    }
}

/// The first package that `apt-cache depends` names.
fn newest(depends: &str) -> Option<&str> {
    let mut needed = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    needed.find(|package| package.starts_with("linux-image-"))
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    match fs::read_dir(dir)?.next() {
        Some(file) => Ok(file?.path()),
        None => bail!("apt-get fetched nothing"),
    }
}

/// apt with sources, lists and a cache of its own.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// One that knows packages of a kind, `deb` or `deb-src`.
    pub(crate) fn new(kind: &str, archive: &Archive, suite: &str, home: &Path) -> Result<Self> {
        for dir in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(home.join(dir))?;
        }
        let sources = home.join("sources.list");
        let line = |url: &str, suite: &str| format!("{kind} [signed-by={KEYRING}] {url} {suite} main\n");
        let text = line(&archive.releases, suite) + &line(&archive.security, &format!("{suite}-security"));
        fs::write(&sources, text)?;
        let place = |key: &str, path: &str| format!("{key}={}", home.join(path).display());
        let options = vec![
            place("Dir::Etc::SourceList", "sources.list"),
            place("Dir::Etc::SourceParts", "parts"),
            place("Dir::State::Lists", "lists"),
            place("Dir::Cache", "cache"),
            "APT::Architecture=amd64".to_owned(),
            // The directories are ours, so the user of the sandbox may not enter them.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // A release of the past is not signed anew.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
        ];
        Ok(Self { options })
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_that_of_this_host() {
        let targets = "Node Source https://node.example/\nDebian-Security http://a.example/debian-security/\n\
                       Debian http://a.example/debian/\nDebian http://b.example/\n";
        assert_eq!(Archive::told(targets), Some(Archive::below("http://a.example/")));
        assert_eq!(Archive::told("Ubuntu http://u.example/ubuntu/\n"), None);
    }

    #[test]
    fn the_image_behind_a_meta_package_is_found() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Replaces: x\n";
        assert_eq!(newest(depends), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("linux-image-cloud-amd64\n"), None);
    }
}
