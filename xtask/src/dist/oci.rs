//! The image format: the layout, manifest and configuration of the OCI image specification 1.0, in one archive.
//!
//! The archive also holds `manifest.json`, as `docker save` writes it, so that Docker before version 25 can load it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::tar;
use super::time::Epoch;
use super::tree::Tree;
use super::{Arch, NAME, SUMMARY, VERSION};

const LAYOUT: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What an image says of itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The machine.
    pub(super) arch: Arch,
    /// When it was made.
    pub(super) epoch: Epoch,
    /// The commit, if known.
    pub(super) commit: Option<String>,
}

/// A finished image.
#[derive(Debug)]
pub(super) struct Image {
    /// The archive's files.
    files: Tree,
    epoch: Epoch,
    /// What names it: the manifest's digest.
    pub(super) digest: String,
    /// Bytes that a node fetches.
    pub(super) compressed: u64,
    /// Bytes on its disk.
    pub(super) unpacked: u64,
}

/// How an image is called where nobody says otherwise.
pub(super) fn reference() -> String {
    format!("{NAME}:{VERSION}")
}

/// The same in full, as containerd and Docker complete it.
fn full_reference() -> String {
    format!("docker.io/library/{}", reference())
}

impl Image {
    /// Makes an image of these layers, the lowest first, each with what it is for.
    ///
    /// # Errors
    /// When a layer cannot be archived, or no digest be made.
    pub(super) fn of(layers: &[(&str, &Tree)], facts: &Facts) -> Result<Self> {
        let mut files = Tree::default();
        let (mut descriptors, mut diffs, mut history) = (Vec::new(), Vec::new(), Vec::new());
        let (mut compressed, mut unpacked) = (0, 0);
        let created = facts.epoch.rfc3339();
        for (what, tree) in layers {
            let mut archive = Vec::new();
            tar::write(tree, facts.epoch, &mut archive)?;
            diffs.push(format!("sha256:{}", digest(&archive)?));
            history.push(json!({"created": created, "created_by": "cargo xtask image", "comment": what}));
            let packed = pack(&archive)?;
            compressed += packed.len() as u64;
            unpacked += tree.bytes();
            descriptors.push(add(&mut files, LAYER, packed)?);
        }
        let labels = labels(facts);
        let config = config(facts, &labels, &diffs, &history);
        let config = add(&mut files, CONFIG, config.to_string())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors,
            "annotations": labels,
        });
        let mut manifest = add(&mut files, MANIFEST, manifest.to_string())?;
        let digest = text(&manifest, "/digest");
        let names = json!({
            "io.containerd.image.name": full_reference(),
            "org.opencontainers.image.ref.name": full_reference(),
        });
        let platform = json!({"architecture": facts.arch.name(), "os": "linux"});
        if let Some(members) = manifest.as_object_mut() {
            members.insert("annotations".to_owned(), names);
            members.insert("platform".to_owned(), platform);
        }
        let index = json!({"schemaVersion": 2, "mediaType": LAYOUT, "manifests": [manifest]});
        files.file("index.json", index.to_string());
        files.file("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string());
        let blobs: Vec<String> = descriptors.iter().map(|one| blob(&text(one, "/digest"))).collect();
        let docker = json!([{
            "Config": blob(&text(&config, "/digest")), "RepoTags": [reference()], "Layers": blobs,
        }]);
        files.file("manifest.json", docker.to_string());
        Ok(Self { files, epoch: facts.epoch, digest, compressed, unpacked })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let name = || format!("cannot write {}", to.display());
        let mut out = std::io::BufWriter::new(std::fs::File::create(to).with_context(name)?);
        tar::write(&self.files, self.epoch, &mut out).with_context(name)?;
        out.flush().with_context(name)
    }
}

/// Puts a blob into the archive and describes it.
fn add(files: &mut Tree, kind: &str, content: impl Into<Vec<u8>>) -> Result<Value> {
    let content = content.into();
    let (digest, size) = (format!("sha256:{}", digest(&content)?), content.len());
    files.file(&blob(&digest), content);
    Ok(json!({"mediaType": kind, "digest": digest, "size": size}))
}

/// Where a blob lies in a layout.
fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// The pre-defined annotation keys of the specification.
fn labels(facts: &Facts) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.created": facts.epoch.rfc3339(),
        "org.opencontainers.image.description": SUMMARY,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.version": VERSION,
    });
    if let (Some(commit), Some(members)) = (&facts.commit, labels.as_object_mut()) {
        members.insert("org.opencontainers.image.revision".to_owned(), json!(commit));
    }
    labels
}

fn config(facts: &Facts, labels: &Value, diffs: &[String], history: &[Value]) -> Value {
    json!({
        "architecture": facts.arch.name(),
        "os": "linux",
        "created": facts.epoch.rfc3339(),
        "config": {
            // Capabilities that a pod is given reach a program of root's only; it asks for no more than three.
            "User": "0:0",
            "Entrypoint": ["/usr/bin/tokenscope"],
            "Cmd": ["run"],
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "ExposedPorts": {"9464/tcp": {}},
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": history,
    })
}

/// gzip at its best, with no name and no time in its header: what layers are packed with, and papers as Debian keeps them.
///
/// # Errors
/// Never, for it writes to memory.
pub(super) fn pack(archive: &[u8]) -> Result<Vec<u8>> {
    let mut packer = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    packer.write_all(archive)?;
    Ok(packer.finish()?)
}

/// The SHA-256 of some bytes, by the program that every system has.
pub(super) fn digest(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("sha256sum cannot be run")?;
    // It prints nothing before its input ends, so neither waits for the other.
    let fed = child.stdin.take().map(|mut pipe| pipe.write_all(bytes));
    let done = child.wait_with_output()?;
    fed.context("sha256sum takes no input")??;
    let mut digits = String::new();
    for digit in done.stdout.iter().take_while(|byte| byte.is_ascii_hexdigit()) {
        write!(digits, "{}", char::from(*digit))?;
    }
    if !done.status.success() || digits.len() != 64 {
        bail!("sha256sum answered {:?}", String::from_utf8_lossy(&done.stdout));
    }
    Ok(digits)
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tree::Entry;
    use super::*;

    fn facts() -> Facts {
        Facts { arch: Arch::Amd64, epoch: Epoch(1_700_000_000), commit: Some("c0ffee".to_owned()) }
    }

    fn tree(content: &str) -> Tree {
        let mut tree = Tree::default();
        tree.program("usr/bin/tokenscope", content);
        tree
    }

    fn content<'a>(image: &'a Image, path: &str) -> &'a [u8] {
        match image.files.entries().find(|(name, _)| *name == path) {
            Some((_, Entry::File(_, content))) => content,
            other => panic!("{path} is {other:?}"),
        }
    }

    fn json_at(image: &Image, path: &str) -> Value {
        serde_json::from_slice(content(image, path)).unwrap()
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc").unwrap(), expected);
    }

    #[test]
    fn the_same_files_are_the_same_image() {
        let (below, above) = (tree("below"), tree("above"));
        let make = |below: &Tree| Image::of(&[("libraries", below), ("program", &above)], &facts()).unwrap();
        let (first, second) = (make(&below), make(&below));
        assert_eq!((&first.digest, &first.files), (&second.digest, &second.files));
        assert_ne!(first.digest, make(&tree("changed")).digest);
    }

    #[test]
    fn every_blob_is_where_its_digest_says() {
        let image = Image::of(&[("program", &tree("x"))], &facts()).unwrap();
        let index = json_at(&image, "index.json");
        let described = |descriptor: &Value| {
            let bytes = content(&image, &blob(&text(descriptor, "/digest")));
            assert_eq!(descriptor["size"], bytes.len());
            assert_eq!(text(descriptor, "/digest"), format!("sha256:{}", digest(bytes).unwrap()));
            bytes
        };
        let manifest: Value = serde_json::from_slice(described(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(described(&manifest["config"])).unwrap();
        let mut archive = Vec::new();
        let packed = described(&manifest["layers"][0]);
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut archive).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&archive).unwrap()));
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/tokenscope"]));
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], "c0ffee");
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        let docker = json_at(&image, "manifest.json");
        assert_eq!(docker[0]["Layers"][0], blob(&text(&manifest, "/layers/0/digest")));
    }
}
