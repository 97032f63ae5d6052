//! `cargo xtask image`: an OCI image FROM nothing, with the program, the libraries that it names, and no shell.
//!
//! Two layers: what changes with the system's packages, and what changes with every version of ours. Certificates are
//! those of Debian's package and never the machine's own list, which may hold an authority that is trusted only there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::agent::Agent;
use super::oci::{Facts, Image, pack};
use super::tree::Tree;
use super::{Arch, NAME, VERSION, check, crates, flags, home, libraries, licences, package_of, sbom};
use crate::step::{root, say};

/// Most bytes that a node may have to fetch: 25 MiB.
const MOST: u64 = 25 << 20;

/// Where Debian's package `ca-certificates` keeps the authorities that Mozilla trusts, a file each.
const AUTHORITIES: &str = "/usr/share/ca-certificates/mozilla";

/// What to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to leave the archive [default: below target/dist]
    #[arg(long, value_name = "FILE")]
    tar: Option<PathBuf>,
    /// The machine that it is for
    #[arg(long, value_name = "ARCH", value_enum, default_value_t = Arch::here())]
    arch: Arch,
    /// Pack this program and build none
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Do not run `doctor` inside it
    #[arg(long)]
    no_check: bool,
}

/// Makes the image, and runs it unless that was declined.
///
/// # Errors
/// When something is missing, the image is too large, or it does not work.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let agent = Agent::make(arguments.arch, arguments.binary.as_deref(), &[flags::PACKED])?;
    let (below, above) = layers(&agent)?;
    let facts = Facts { arch: agent.arch, epoch: agent.epoch, commit: agent.commit.clone() };
    let layers = [("libraries and certificates", &below), ("the program", &above)];
    let image = Image::of(&layers, &facts)?;
    let default = || home().join(format!("{NAME}-{VERSION}-{}.tar", agent.arch.name()));
    let file = arguments.tar.clone().unwrap_or_else(default);
    image.write(&file)?;
    say(&format!("  {} to fetch, {} unpacked", mebibytes(image.compressed), mebibytes(image.unpacked)));
    // A program that was brought along may be one that is not optimised.
    if image.compressed > MOST && arguments.binary.is_none() {
        bail!("the image is larger than {}", mebibytes(MOST));
    }
    if arguments.no_check || agent.arch != Arch::here() {
        say(&format!("SKIPPED the check of the image for {}", agent.arch.name()));
    } else {
        check::run(&agent, &[&below, &above])?;
    }
    say(&format!("{} {}", image.digest, file.display()));
    Ok(())
}

/// What is in the image: what the system brings, and what is ours.
fn layers(agent: &Agent) -> Result<(Tree, Tree)> {
    let libraries = libraries::of(&agent.path, agent.arch)?;
    let crates = crates::compiled_in(agent.arch)?;
    let mut below = Tree::default();
    for library in &libraries {
        below.program(&library.place, library.read()?);
        if let Some((package, _)) = &library.package {
            copyright(&mut below, package)?;
        }
    }
    below.file("etc/ssl/certs/ca-certificates.crt", authorities(Path::new(AUTHORITIES))?);
    copyright(&mut below, "ca-certificates")?;
    below
        .file("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n");
    below.file("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    below.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    // What runtimes mount upon, and what is written to where nothing is mounted.
    for (path, mode) in [
        ("dev", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("run/tokenscope", 0o700),
        ("var/lib/tokenscope", 0o700),
    ] {
        below.directory(path, mode);
    }
    let mut above = Tree::default();
    above.program("usr/bin/tokenscope", fs::read(&agent.path)?);
    above.directory("etc/tokenscope/rules.d", 0o755);
    let doc = format!("usr/share/doc/{NAME}");
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        above.file(&format!("{doc}/{name}"), fs::read(root().join(name))?);
    }
    above.file(&format!("{doc}/licences.txt.gz"), pack(licences::text(&crates)?.as_bytes())?);
    above.file(&format!("usr/share/sbom/{NAME}.cdx.json"), sbom::document(agent, &crates, &libraries));
    Ok((below.sealed(), above.sealed()))
}

/// The terms of a Debian package, where its users expect them.
fn copyright(tree: &mut Tree, package: &str) -> Result<()> {
    let name = package.split(':').next().unwrap_or(package);
    let path = format!("usr/share/doc/{name}/copyright");
    let text = fs::read(Path::new("/").join(&path)).with_context(|| format!("the terms of {name}"))?;
    tree.file(&path, text);
    Ok(())
}

/// Every authority of a directory in one file, in the order of their names.
fn authorities(dir: &Path) -> Result<Vec<u8>> {
    let lacking = || format!("{} is not there (apt-get install ca-certificates)", dir.display());
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).with_context(lacking)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "crt"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(fs::read(&file)?);
        if !all.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
    if all.is_empty() {
        bail!(lacking());
    }
    if dir.starts_with("/usr") && package_of(dir).is_none() {
        say("  the authorities come from no package of this system");
    }
    Ok(all)
}

/// A size for people.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!(mebibytes(MOST), "25.0 MiB");
        assert_eq!(mebibytes(MOST + 1), "25.1 MiB");
    }

    #[test]
    fn authorities_come_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.crt", "second"), ("a.crt", "first\n"), ("c.txt", "no authority")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(authorities(dir.path()).unwrap(), b"first\nsecond\n");
        assert!(authorities(&dir.path().join("gone")).is_err());
    }
}
