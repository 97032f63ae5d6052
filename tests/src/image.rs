//! The sensor's image, as `cargo xtask image` makes it, of the program under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sensor;

/// Makes it in `dir`; returns the archive.
///
/// # Errors
/// When xtask is not built, or says why it makes none.
pub fn make(dir: &Path) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let near = own.ancestors().skip(1).take(2).map(|dir| dir.join("xtask")).find(|file| file.is_file());
    let xtask =
        near.context("xtask is not built: run `cargo xtask test`, or `cargo build -p xtask` first")?;
    let archive = dir.join("image.tar");
    let mut make = Command::new(xtask);
    make.args(["image", "--no-check", "--binary"]).arg(sensor::binary()?).arg("--tar").arg(&archive);
    let done = make.output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(archive)
}
