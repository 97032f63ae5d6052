//! The source of Kubernetes, with all that it needs: Debian's source package, from where this host's apt fetches.
//!
//! apt trusts the archive's signature, which vouches for the checksum of each file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::step::step;
use crate::vm::kernel::{Apt, Archive};

/// The last release of Debian whose source package holds the programs of a cluster; later ones hold kubectl alone, and
/// none has the rest (docs/kubernetes.md).
const SUITE: &str = "bookworm";
const PACKAGE: &str = "kubernetes";

/// Leaves the unpacked source in `tree`, Debian's changes applied.
///
/// # Errors
/// When it cannot be had.
pub(super) fn fetch(home: &Path, tree: &Path, mirror: Option<&str>) -> Result<()> {
    let archive = Archive::wished(mirror)?;
    let apt = Apt::new("deb-src", &archive, SUITE, &home.join("apt"))?;
    let mut update = apt.command("apt-get");
    ensure!(step("look for Kubernetes", update.args(["-q", "update"]))?.ok, "the archive has no {SUITE}");
    let files = home.join("source");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files)?;
    let mut download = apt.command("apt-get");
    download.args(["-q", "source", "--download-only", PACKAGE]).current_dir(&files);
    ensure!(step("fetch Kubernetes", &mut download)?.ok, "its source cannot be fetched");
    let _ = fs::remove_dir_all(tree);
    fs::create_dir_all(tree.parent().context("a parent")?)?;
    let mut unpack = Command::new("dpkg-source");
    unpack.arg("-x").arg(description(&files)?).arg(tree);
    ensure!(step("unpack Kubernetes", &mut unpack)?.ok, "the source is damaged");
    fs::remove_dir_all(&files)?;
    Ok(())
}

/// The file that describes a source package.
fn description(dir: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(dir)?.flatten().map(|file| file.path());
    let mut found = files.filter(|path| path.extension().is_some_and(|extension| extension == "dsc"));
    found.next().context("apt-get fetched nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_found_among_the_archives() {
        let dir = tempfile::tempdir().unwrap();
        assert!(description(dir.path()).is_err());
        for name in ["k_1.orig.tar.gz", "k_1.dsc", "k_1.debian.tar.xz"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(description(dir.path()).unwrap(), dir.path().join("k_1.dsc"));
    }
}
