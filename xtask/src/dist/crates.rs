//! Which crates are compiled into the program, from `cargo metadata` and the lock file.
//!
//! Features are unified over the workspace there, so a crate too many may be named and never one too few.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Arch;
use crate::step::{cargo, root};

/// What both halves are made of: the agent, and the object that it loads into the kernel.
const ROOTS: [&str; 2] = ["sensor-user", "sensor-ebpf"];

/// One crate.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// Its licence, as an SPDX expression.
    pub(super) licence: String,
    /// What it is, in its authors' words.
    pub(super) description: String,
    /// The SHA-256 of its archive in the registry; none for our own.
    pub(super) checksum: Option<String>,
    /// Where its sources lie.
    pub(super) dir: PathBuf,
    /// Names and versions of the crates that it uses.
    pub(super) uses: BTreeSet<(String, String)>,
}

impl Crate {
    /// Its package URL (<https://github.com/package-url/purl-spec>).
    pub(super) fn purl(&self) -> String {
        purl(&self.name, &self.version)
    }
}

/// The package URL of a crate.
pub(super) fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// Every crate that is compiled in, our own too, sorted by name and version.
///
/// # Errors
/// When cargo cannot tell, or a crate has no licence.
pub(super) fn compiled_in(arch: Arch) -> Result<Vec<Crate>> {
    let arguments = ["metadata", "--format-version=1", "--locked", "--features", "sensor-ebpf/kernel"];
    let done = cargo(&arguments).args(["--filter-platform", arch.target()]).output()?;
    if !done.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    read(&serde_json::from_slice(&done.stdout)?, &checksums(&lock))
}

fn read(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Vec<Crate>> {
    let list = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_array).cloned();
    let packages = list(metadata, "/packages").context("cargo metadata names no packages")?;
    let nodes = list(metadata, "/resolve/nodes").context("cargo metadata resolves nothing")?;
    let by_id: BTreeMap<&str, &Value> =
        packages.iter().map(|package| (text(package, "id"), package)).collect();
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (text(node, "id"), node)).collect();
    let name_of = |id: &str| by_id.get(id).map_or("", |package| text(package, "name"));
    let mut open: Vec<&str> = by_id.keys().copied().filter(|id| ROOTS.contains(&name_of(id))).collect();
    let mut found = BTreeMap::new();
    while let Some(id) = open.pop() {
        if found.contains_key(id) {
            continue;
        }
        let package = by_id.get(id).with_context(|| format!("cargo metadata does not describe {id}"))?;
        let dependencies = nodes.get(id).and_then(|node| node.get("deps")).and_then(Value::as_array);
        let used: Vec<&str> = dependencies
            .into_iter()
            .flatten()
            .filter(|used| ends_in_the_program(used, name_of(id), name_of(text(used, "pkg"))))
            .map(|used| text(used, "pkg"))
            .collect();
        let mut one = describe(package)?;
        one.checksum = checksums.get(&(one.name.clone(), one.version.clone())).cloned();
        let pair = |id: &&str| Some((name_of(id).to_owned(), text(by_id.get(*id)?, "version").to_owned()));
        one.uses = used.iter().filter_map(pair).collect();
        found.insert(id, one);
        open.extend(used.iter().filter_map(|id| by_id.get_key_value(*id)).map(|(id, _)| *id));
    }
    let mut crates: Vec<Crate> = found.into_values().collect();
    crates.sort();
    Ok(crates)
}

/// Whether a dependency's code is in the program: an ordinary one, or one of the build that carries foreign sources,
/// which is called `-src` by custom. What such a crate uses itself runs when those sources are built.
fn ends_in_the_program(used: &Value, by: &str, name: &str) -> bool {
    let kinds = used.get("dep_kinds").and_then(Value::as_array);
    kinds.into_iter().flatten().any(|kind| match text(kind, "kind") {
        "" => !by.ends_with("-src"),
        "build" => name.ends_with("-src"),
        _ => false,
    })
}

fn describe(package: &Value) -> Result<Crate> {
    let owned = |name| text(package, name).to_owned();
    let (name, version) = (owned("name"), owned("version"));
    // Before 2018 alternatives were written with a slash.
    let licence = owned("license").replace('/', " OR ").replace("  ", " ");
    if licence.is_empty() {
        bail!("{name} {version} states no licence");
    }
    let manifest = PathBuf::from(text(package, "manifest_path"));
    let dir = manifest.parent().map(Path::to_path_buf).unwrap_or_default();
    let description = owned("description").split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Crate { name, version, licence, description, dir, ..Crate::default() })
}

/// A member that is a string; empty if there is none.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The checksums of a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let one = |block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?));
    lock.split("[[package]]").filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, licence: &str) -> Value {
        json!({"id": format!("id-{name}"), "name": name, "version": "1.0.0+c", "license": licence,
            "description": "of\n  two lines", "manifest_path": format!("/src/{name}/Cargo.toml")})
    }

    fn uses(name: &str, kind: Option<&str>) -> Value {
        json!({"pkg": format!("id-{name}"), "dep_kinds": [{"kind": kind}]})
    }

    #[test]
    fn what_only_builds_or_tests_is_left_out() {
        let metadata = json!({
            "packages": [package("sensor-user", "MIT"), package("a-sys", "MIT/Apache-2.0"), package("a-src", "Zlib"),
                package("cc", "MIT"), package("proptest", "MIT"), package("xtask", "MIT")],
            "resolve": {"nodes": [
                {"id": "id-sensor-user", "deps": [uses("a-sys", None), uses("proptest", Some("dev"))]},
                {"id": "id-a-sys", "deps": [uses("cc", Some("build")), uses("a-src", Some("build"))]},
                {"id": "id-a-src", "deps": [uses("cc", None)]},
                {"id": "id-xtask", "deps": [uses("cc", None)]},
            ]},
        });
        let lock = "version = 4\n\n[[package]]\nname = \"a-src\"\nversion = \"1.0.0+c\"\nchecksum = \"ab\"\n";
        let crates = read(&metadata, &checksums(lock)).unwrap();
        let names: Vec<&str> = crates.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a-src", "a-sys", "sensor-user"]);
        assert_eq!(crates[0].checksum.as_deref(), Some("ab"));
        assert_eq!(crates[1].licence, "MIT OR Apache-2.0");
        assert_eq!(crates[1].uses, BTreeSet::from([("a-src".to_owned(), "1.0.0+c".to_owned())]));
        assert_eq!(crates[0].purl(), "pkg:cargo/a-src@1.0.0%2Bc");
        assert_eq!(crates[2].description, "of two lines");
    }

    #[test]
    fn a_crate_without_a_licence_is_refused() {
        let metadata = json!({"packages": [package("sensor-user", "")], "resolve": {"nodes": []}});
        assert!(read(&metadata, &BTreeMap::new()).is_err());
    }

    #[test]
    fn the_program_is_made_of_what_its_manifest_names() {
        let crates = compiled_in(Arch::here()).unwrap();
        let has = |name: &str| crates.iter().any(|c| c.name == name);
        assert!(has("aya") && has("aya-ebpf") && has("openssl-src") && has("serde"));
        assert!(!has("xtask") && !has("proptest") && !has("cc"));
        // Whose names are those of others, too, says so by its version.
        let ours = |c: &Crate| ROOTS.contains(&c.name.as_str()) || c.version.ends_with("+tokenscope");
        assert!(crates.iter().all(|c| c.checksum.is_some() != ours(c)));
    }
}
