//! `cargo xtask deb`: a Debian package, made by `dpkg-deb` of the same files as the image.
//!
//! The scripts that dpkg runs are in `deploy/debian`. The service is enabled and started where systemd runs;
//! `config.yaml` is a configuration file in dpkg's sense, so an upgrade keeps what was changed in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::agent::{self, Agent};
use super::oci::pack;
use super::tree::{Entry, Tree};
use super::{Arch, NAME, VERSION, copyright, crates, home, libraries, licences, sbom};
use crate::packages::is_there;
use crate::step::{root, say, step};

/// What dpkg does not overwrite once it was changed.
const CONFIG: &str = "etc/tokenscope/config.yaml";

/// The program's place in the unit as it is for those who install by hand, and in the package.
const BY_HAND: &str = "/usr/local/bin/tokenscope";
const PACKAGED: &str = "/usr/bin/tokenscope";

/// What to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to leave the package [default: below target/dist]
    #[arg(long, value_name = "FILE")]
    deb: Option<PathBuf>,
    /// Pack this program and build none
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The package's version, for tests of upgrades
    #[arg(long, value_name = "VERSION", default_value = VERSION)]
    version: String,
}

/// Makes the package.
///
/// # Errors
/// When something is missing, or `dpkg-deb` fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let file = make(arguments, "xz")?;
    say(&file.display().to_string());
    Ok(())
}

/// Makes a package of this program and version for a machine that forgets it: quickly, and not small.
///
/// # Errors
/// As [`run`].
pub(crate) fn quickly(binary: &Path, version: &str, file: &Path) -> Result<()> {
    let (deb, binary) = (Some(file.to_owned()), Some(binary.to_owned()));
    make(&Arguments { deb, binary, version: version.to_owned() }, "none").map(|_| ())
}

/// Makes the package, packed by this method of `dpkg-deb`, and says where it is.
fn make(arguments: &Arguments, packing: &str) -> Result<PathBuf> {
    let version = &arguments.version;
    if version.is_empty()
        || !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~-".contains(&byte))
    {
        bail!("{version:?} is no version of a package");
    }
    if !is_there("dpkg-deb") {
        bail!("dpkg-deb is missing: packages can be made on Debian and its like only");
    }
    let arch = Arch::here();
    let agent = Agent::make(arch, arguments.binary.as_deref(), &[])?;
    let mut tree = files(&agent, version)?;
    let size = tree.bytes().div_ceil(1 << 10);
    tree.file("DEBIAN/control", control(version, arch, size, &depends(&agent)?));
    tree.file("DEBIAN/conffiles", format!("/{CONFIG}\n"));
    tree.file("DEBIAN/md5sums", String::new());
    for script in ["postinst", "prerm", "postrm"] {
        tree.program(&format!("DEBIAN/{script}"), fs::read(root().join("deploy/debian").join(script))?);
    }
    let stage = home().join(arch.name()).join("deb");
    let _ = fs::remove_dir_all(&stage);
    tree.unpack(&stage)?;
    sums(&tree, &stage)?;
    let default = || home().join(format!("{NAME}_{version}_{}.deb", arch.name()));
    let file = arguments.deb.clone().unwrap_or_else(default);
    let mut build = std::process::Command::new("dpkg-deb");
    build.args(["--root-owner-group", &format!("-Z{packing}"), "--build"]).arg(&stage).arg(&file);
    build.env("SOURCE_DATE_EPOCH", agent.epoch.0.to_string());
    if !step("pack the package", &mut build)?.ok {
        bail!("dpkg-deb failed");
    }
    fs::remove_dir_all(&stage)?;
    Ok(file)
}

/// What the package puts on a host.
fn files(agent: &Agent, version: &str) -> Result<Tree> {
    let crates = crates::compiled_in(agent.arch)?;
    let from = |path: &str| fs::read(root().join(path)).with_context(|| format!("cannot read {path}"));
    let mut tree = Tree::default();
    tree.program("usr/bin/tokenscope", fs::read(&agent.path)?);
    let unit = String::from_utf8(from("deploy/systemd/tokenscope.service")?)?;
    tree.file("usr/lib/systemd/system/tokenscope.service", packaged(&unit)?);
    tree.program(&format!("usr/share/{NAME}/hand-over"), from("deploy/systemd/hand-over")?);
    tree.file(CONFIG, from("deploy/config.yaml")?);
    tree.directory("etc/tokenscope/rules.d", 0o755);
    let doc = format!("usr/share/doc/{NAME}");
    tree.file(&format!("{doc}/copyright"), copyright::text(&crates)?);
    tree.file(&format!("{doc}/changelog.gz"), pack(changelog(agent, version).as_bytes())?);
    tree.file(&format!("{doc}/CHANGELOG.md.gz"), pack(&from("CHANGELOG.md")?)?);
    tree.file(&format!("{doc}/licences.txt.gz"), pack(licences::text(&crates)?.as_bytes())?);
    for example in ["prometheus/alerts.yaml", "dashboards/tokenscope.json"] {
        tree.file(&format!("{doc}/examples/{example}"), from(&format!("deploy/{example}"))?);
    }
    tree.file(&format!("usr/share/sbom/{NAME}.cdx.json"), sbom::document(agent, &crates, &[]));
    for (shell, place) in [
        ("bash", "bash-completion/completions/tokenscope"),
        ("zsh", "zsh/vendor-completions/_tokenscope"),
        ("fish", "fish/vendor_completions.d/tokenscope.fish"),
    ] {
        tree.file(&format!("usr/share/{place}"), agent::run(agent, &["completions", shell])?);
    }
    manual(agent, &mut tree)?;
    Ok(tree)
}

/// The changelog in Debian's form, which programs read; ours is beside it.
fn changelog(agent: &Agent, version: &str) -> String {
    format!(
        "{NAME} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- {}  {}\n",
        maintainer(),
        agent.epoch.rfc5322()
    )
}

/// Who answers for the package: whoever makes it, named as Debian's own tools want it (debchange(1)).
fn maintainer() -> String {
    let set =
        |name| std::env::var(name).ok().filter(|text| !text.is_empty() && !text.contains(['\n', '<', '>']));
    let name = set("DEBFULLNAME").unwrap_or_else(|| "The Tokenscope authors".to_owned());
    format!("{name} <{}>", set("DEBEMAIL").unwrap_or_else(|| "nobody@tokenscope.invalid".to_owned()))
}

/// The manual's pages, written by the program itself.
fn manual(agent: &Agent, tree: &mut Tree) -> Result<()> {
    let dir = home().join(agent.arch.name()).join("man");
    let _ = fs::remove_dir_all(&dir);
    agent::run(agent, &["man", "--dir", &dir.to_string_lossy()])?;
    for page in fs::read_dir(&dir)? {
        let page = page?;
        let name = page.file_name().to_string_lossy().into_owned();
        tree.file(&format!("usr/share/man/man1/{name}.gz"), pack(&fs::read(page.path())?)?);
    }
    Ok(fs::remove_dir_all(&dir)?)
}

/// The unit with the program where the package puts it.
fn packaged(unit: &str) -> Result<String> {
    if !unit.contains(BY_HAND) {
        bail!("the unit does not name {BY_HAND}");
    }
    let comment = "# /etc/systemd/system/tokenscope.service";
    Ok(unit.replace(BY_HAND, PACKAGED).replace(comment, "# /usr/lib/systemd/system/tokenscope.service"))
}

/// The packages of the libraries that the program names; of glibc, no older than what it asks for.
fn depends(agent: &Agent) -> Result<Vec<String>> {
    let glibc = libraries::newest_glibc(&agent.path)?;
    let mut depends = vec![format!("libc6 (>= {glibc})")];
    for library in libraries::of(&agent.path, agent.arch)? {
        let (package, _) =
            library.package.with_context(|| format!("{} is of no package of this system", library.place))?;
        let name = package.split(':').next().unwrap_or(&package).to_owned();
        if name != "libc6" && !depends.contains(&name) {
            depends.push(name);
        }
    }
    Ok(depends)
}

fn control(version: &str, arch: Arch, size: u64, depends: &[String]) -> String {
    format!(
        "Package: {NAME}\n\
         Version: {version}\n\
         Architecture: {}\n\
         Maintainer: {}\n\
         Installed-Size: {size}\n\
         Depends: {}\n\
         Recommends: ca-certificates\n\
         Section: admin\n\
         Priority: optional\n\
         Description: detection of forged, stolen and misused bearer tokens\n \
         Tokenscope watches the HTTP APIs of a host from the kernel, with eBPF, and\n \
         judges every bearer token that it sees: against the issuer's keys, your\n \
         policy, its history, and what the application answered. Nothing in the\n \
         watched services changes.\n \
         .\n \
         It needs Linux 5.10 or later with cgroup v2.\n",
        arch.name(),
        maintainer(),
        depends.join(", ")
    )
}

/// Fills in the digests that `dpkg --verify` compares.
fn sums(tree: &Tree, stage: &Path) -> Result<()> {
    let files = tree.entries().filter(|(path, entry)| {
        matches!(entry, Entry::File(..)) && !path.starts_with("DEBIAN/") && *path != CONFIG
    });
    let names: Vec<&str> = files.map(|(path, _)| path).collect();
    let done = std::process::Command::new("md5sum").args(&names).current_dir(stage).output()?;
    if !done.status.success() {
        bail!("md5sum: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(fs::write(stage.join("DEBIAN/md5sums"), done.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_unit_starts_the_packaged_program() {
        let unit = fs::read_to_string(root().join("deploy/systemd/tokenscope.service")).unwrap();
        let packaged = packaged(&unit).unwrap();
        assert!(packaged.contains("ExecStart=/usr/bin/tokenscope run") && !packaged.contains("/local/"));
        assert!(super::packaged("[Service]").is_err());
    }

    #[test]
    fn control_has_no_empty_line_inside() {
        let text = control("1.0", Arch::Amd64, 7, &["libc6 (>= 2.34)".to_owned(), "zlib1g".to_owned()]);
        assert!(text.lines().all(|line| !line.trim().is_empty()), "{text}");
        assert!(text.contains("Depends: libc6 (>= 2.34), zlib1g\n"), "{text}");
    }
}
