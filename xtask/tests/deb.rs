//! The Debian package that `cargo xtask deb` makes: installed, upgraded, removed and purged in a root of its own, and
//! looked at by lintian.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says loudly what it leaves out"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Findings of lintian that are as they are on purpose.
const ACCEPTED: [&str; 3] = [
    // Made outside of Debian: there is no bug to close, and who makes it names a maintainer by DEBEMAIL.
    "initial-upload-closes-no-bugs",
    "bogus-mail-host",
    // C libraries are compiled in with the versions that the lock file fixes.
    "embedded-library",
];

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let done = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (done.status.success(), said)
}

fn succeeds(program: &str, arguments: &[&str]) -> String {
    let (well, said) = run(program, arguments);
    assert!(well, "{program} {arguments:?}: {said}");
    said
}

/// The program to pack: what the same build made, with its kernel half.
fn program() -> Option<PathBuf> {
    let near = || Some(Path::new(env!("CARGO_BIN_EXE_xtask")).parent()?.join("tokenscope"));
    let file = std::env::var_os("TOKENSCOPE_BIN").map(PathBuf::from).or_else(near)?;
    file.is_file().then_some(file)
}

/// Why there can be no package; says so loudly.
fn missing(test: &str) -> bool {
    let root = || succeeds("id", &["-u"]).trim() == "0";
    let why = if !Path::new("/usr/bin/dpkg-deb").exists() {
        "this is no Debian"
    } else if program().is_none() {
        "tokenscope is not built: run `cargo xtask test`, or `cargo build` first"
    } else if !root() {
        "only root can install packages"
    } else {
        return false;
    };
    println!("SKIPPED deb::{test}: {why}");
    true
}

fn package(dir: &Path, version: &str) -> PathBuf {
    let file = dir.join(format!("tokenscope-{version}.deb"));
    let mut make = Command::new(env!("CARGO_BIN_EXE_xtask"));
    make.args(["deb", "--version", version, "--binary"]).arg(program().unwrap()).arg("--deb").arg(&file);
    // Quick: how small it gets is not what is tested.
    make.env("DPKG_DEB_COMPRESSOR_LEVEL", "0").env("CARGO_TARGET_DIR", dir.join("target"));
    let done = make.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    file
}

/// A root in which packages can be installed.
fn fresh_root(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    for name in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/lib", "etc"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
    root
}

fn dpkg(root: &Path, arguments: &[&str]) {
    let place = format!("--root={}", root.display());
    let fixed = [
        place.as_str(),
        "--log=/dev/null",
        "--force-depends",
        "--force-script-chrootless",
        "--force-confold",
    ];
    succeeds("dpkg", &[&fixed, arguments].concat());
}

/// What of ours is in the root, dpkg's own records left out.
fn left(root: &Path) -> Vec<String> {
    let found = succeeds("find", &[root.to_str().unwrap(), "-path", "*tokenscope*", "-printf", "%P\n"]);
    let ours = |line: &&str| !line.is_empty() && !line.starts_with("var/lib/dpkg");
    found.lines().filter(ours).map(str::to_owned).collect()
}

#[test]
fn an_upgrade_keeps_state_and_a_purge_leaves_nothing() {
    if missing("an_upgrade_keeps_state_and_a_purge_leaves_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (package(dir.path(), "0.1.0"), package(dir.path(), "0.1.1~next"));
    let root = fresh_root(dir.path());
    dpkg(&root, &["--install", old.to_str().unwrap()]);
    let enabled = root.join("etc/systemd/system/multi-user.target.wants/tokenscope.service");
    assert!(enabled.is_symlink(), "the unit is not enabled");
    let state = root.join("var/lib/tokenscope");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&state).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    let (config, spool) = (root.join("etc/tokenscope/config.yaml"), state.join("spool"));
    std::fs::write(&config, "# changed\n").unwrap();
    std::fs::write(&spool, "not delivered yet").unwrap();
    std::fs::write(root.join("etc/tokenscope/rules.d/mine.yaml"), "rules: []\n").unwrap();
    // An administrator who disabled it is not overruled.
    std::fs::remove_file(&enabled).unwrap();

    dpkg(&root, &["--install", new.to_str().unwrap()]);
    let status = std::fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap();
    assert!(
        status.contains("Version: 0.1.1~next\n") && status.contains("Status: install ok installed"),
        "{status}"
    );
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "# changed\n");
    assert_eq!(std::fs::read_to_string(&spool).unwrap(), "not delivered yet");
    assert!(!enabled.is_symlink(), "an upgrade enabled it again");

    dpkg(&root, &["--remove", "tokenscope"]);
    assert!(!root.join("usr/bin/tokenscope").exists());
    assert!(config.exists() && spool.exists(), "removing took configuration or state: {:?}", left(&root));
    dpkg(&root, &["--purge", "tokenscope"]);
    assert_eq!(left(&root), [""; 0]);
}

#[test]
fn the_same_source_is_the_same_package() {
    if missing("the_same_source_is_the_same_package") {
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = |dir: &Path| std::fs::read(package(dir, "0.1.0")).unwrap();
    assert!(bytes(one.path()) == bytes(two.path()), "the packages differ");
}

#[test]
fn the_package_holds_what_it_promises() {
    if missing("the_package_holds_what_it_promises") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let package = package(dir.path(), "0.1.0");
    let (file, root) = (package.to_str().unwrap(), dir.path().join("unpacked"));
    succeeds("dpkg", &["-x", file, root.to_str().unwrap()]);
    for path in [
        "usr/bin/tokenscope",
        "usr/share/man/man1/tokenscope.1.gz",
        "usr/share/man/man1/tokenscope-run.1.gz",
        "usr/share/bash-completion/completions/tokenscope",
        "usr/share/doc/tokenscope/copyright",
        "usr/share/doc/tokenscope/licences.txt.gz",
        "usr/share/sbom/tokenscope.cdx.json",
        "etc/tokenscope/rules.d",
    ] {
        assert!(root.join(path).exists(), "{path} is not in the package");
    }
    let checked = ["config", "check", "-c", &root.join("etc/tokenscope/config.yaml").to_string_lossy()]
        .map(str::to_owned);
    succeeds(root.join("usr/bin/tokenscope").to_str().unwrap(), &checked.each_ref().map(String::as_str));
    let depends = succeeds("dpkg-deb", &["--field", file, "Depends"]);
    assert!(depends.contains("libc6 (>= 2.") && depends.contains("zlib1g"), "{depends}");
    if !Path::new("/usr/bin/lintian").exists() {
        println!("SKIPPED deb::lintian: no lintian (apt-get install lintian)");
        return;
    }
    let (_, said) = run("lintian", &["--fail-on=none", file]);
    let findings = said.lines().filter(|line| line.starts_with("E:") || line.starts_with("W:"));
    let unaccepted: Vec<&str> =
        findings.filter(|line| !ACCEPTED.iter().any(|tag| line.contains(tag))).collect();
    assert!(unaccepted.is_empty(), "{unaccepted:#?}");
}
