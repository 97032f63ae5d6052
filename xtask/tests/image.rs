//! The image that `cargo xtask image` makes: the same twice, readable by other tools, and with nothing in it that is not
//! needed. The program in it is this test, which is small; `tests/tests/pods.rs` runs the real one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says loudly what it leaves out"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The words by which the image's maker knows a program with its kernel half.
const MARK: &str = "Dual MIT/GPL";

fn make(archive: &Path, program: &Path, target: &Path) -> Output {
    let mut make = Command::new(env!("CARGO_BIN_EXE_xtask"));
    make.args(["image", "--no-check", "--binary"]).arg(program).arg("--tar").arg(archive);
    make.env("CARGO_TARGET_DIR", target).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap()
}

fn made(dir: &Path, name: &str) -> (PathBuf, String) {
    let archive = dir.join(name);
    let done = make(&archive, &std::env::current_exe().unwrap(), &dir.join(format!("{name}.target")));
    assert!(done.status.success(), "{MARK}: {}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).unwrap();
    let digest = said.lines().last().unwrap().split(' ').next().unwrap().to_owned();
    (archive, digest)
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Unpacks the archive, then its layers one over the other; returns the root.
fn unpacked(dir: &Path, archive: &Path) -> PathBuf {
    let (layout, root) = (dir.join("layout"), dir.join("root"));
    for made in [&layout, &root] {
        std::fs::create_dir(made).unwrap();
    }
    output("tar", &["-xf", archive.to_str().unwrap(), "-C", layout.to_str().unwrap()]);
    let docker: Value =
        serde_json::from_slice(&std::fs::read(layout.join("manifest.json")).unwrap()).unwrap();
    for layer in docker[0]["Layers"].as_array().unwrap() {
        let layer = layout.join(layer.as_str().unwrap());
        output("tar", &["-xpzf", layer.to_str().unwrap(), "-C", root.to_str().unwrap()]);
    }
    root
}

#[test]
fn the_same_source_is_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let ((first, one), (second, two)) = (made(dir.path(), "first"), made(dir.path(), "second"));
    assert_eq!(one, two);
    assert!(one.starts_with("sha256:") && one.len() == 71, "{one}");
    assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap(), "the archives differ");
}

#[test]
fn a_program_without_its_kernel_half_is_not_packed() {
    let dir = tempfile::tempdir().unwrap();
    let done = make(&dir.path().join("image"), Path::new("/usr/bin/true"), &dir.path().join("target"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("kernel half"), "{said}");
}

#[test]
fn what_cannot_be_built_here_is_told_and_not_pretended() {
    if cfg!(target_arch = "aarch64") || Path::new("/usr/bin/aarch64-linux-gnu-gcc").exists() {
        println!("SKIPPED image::what_cannot_be_built_here_is_told_and_not_pretended: this machine can");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut make = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let done = make.args(["image", "--arch", "arm64"]).env("CARGO_TARGET_DIR", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success(), "{said}");
    assert!(said.contains("arm64") && said.contains("gcc-aarch64-linux-gnu"), "{said}");
}

#[test]
fn the_image_holds_what_it_should_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, _) = made(dir.path(), "image");
    let root = unpacked(dir.path(), &archive);
    let all = output("find", &[root.to_str().unwrap(), "-printf", "%y %m %P\n"]);
    let mut programs = Vec::new();
    for line in all.lines() {
        let [kind, mode, path] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let mode = u32::from_str_radix(mode, 8).unwrap();
        assert!(
            kind != "f" || mode & 0o6222 == 0,
            "{path} can be written to, or runs as somebody else: {mode:o}"
        );
        assert!(kind != "d" || path == "tmp" || mode & 0o022 == 0, "{path} is open to all: {mode:o}");
        if kind == "f" && mode & 0o111 != 0 && !path.starts_with("lib") {
            programs.push(path.to_owned());
        }
    }
    assert_eq!(programs, ["usr/bin/tokenscope"]);
    let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    assert!(text("etc/ssl/certs/ca-certificates.crt").matches("BEGIN CERTIFICATE").count() > 100);
    let licences = root.join("usr/share/doc/tokenscope/licences.txt.gz");
    let licences = output("zcat", &[licences.to_str().unwrap()]);
    for part in ["openssl-src", "librdkafka", "aws-lc-sys", "zstd-sys", "aya 0."] {
        assert!(licences.contains(part), "no word of {part}");
    }
    let sbom: Value = serde_json::from_str(&text("usr/share/sbom/tokenscope.cdx.json")).unwrap();
    assert_eq!(sbom["specVersion"], "1.5");
    let names = sbom["components"].as_array().unwrap().iter();
    let names: Vec<&str> = names.filter_map(|component| component["name"].as_str()).collect();
    assert!(names.contains(&"libc6") && names.contains(&"rdkafka-sys"), "{names:?}");
    // The program finds all its libraries there: it starts, with nothing but what is in the image.
    if Path::new("/usr/sbin/chroot").exists() && is_root() {
        let listed = output("chroot", &[root.to_str().unwrap(), "/usr/bin/tokenscope", "--list"]);
        assert!(listed.contains("the_same_source_is_the_same_image: test"), "{listed}");
    }
}

/// What registries and nodes would see, read by a tool of other people.
#[test]
fn another_tool_reads_the_image() {
    if !Path::new("/usr/bin/skopeo").exists() {
        println!("SKIPPED image::another_tool_reads_the_image: no skopeo (apt-get install skopeo)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (archive, digest) = made(dir.path(), "image");
    for kind in ["oci-archive", "docker-archive"] {
        let name = format!("{kind}:{}", archive.display());
        let seen: Value = serde_json::from_str(&output("skopeo", &["inspect", &name])).unwrap();
        assert!(kind != "oci-archive" || seen["Digest"] == digest, "{seen}");
        assert_eq!((&seen["Os"], &seen["Architecture"]), (&"linux".into(), &architecture().into()));
        assert_eq!(seen["Labels"]["org.opencontainers.image.title"], "tokenscope");
        assert_eq!(seen["Created"], "2023-11-14T22:13:20Z");
        let config: Value = serde_json::from_str(&output("skopeo", &["inspect", "--config", &name])).unwrap();
        assert_eq!(config["config"]["StopSignal"], "SIGTERM");
        assert_eq!(config["config"]["Cmd"][0], "run");
        // Copying reads every blob and compares its digest.
        let copy = format!("dir:{}", dir.path().join(kind).display());
        output("skopeo", &["--insecure-policy", "copy", "--quiet", &name, &copy]);
    }
}

const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn is_root() -> bool {
    output("id", &["-u"]).trim() == "0"
}
