//! Images for the nodes of a cluster that reach no registry, in the form that `docker save` writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest;
use serde_json::{Value, json};

/// What holds a pod's network namespace.
pub(super) const PAUSE: &str = "docker.io/lab/pause:1";
/// Programs that see the host's `/usr`, which a pod mounts.
pub const APP: &str = "docker.io/lab/app:1";
/// What `deploy/kubernetes/remove-state.yaml` uses.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.37";

/// `flock`, and what it is linked to.
const FLOCK: [(&str, &str); 3] = [
    ("/usr/bin/flock", "bin/flock"),
    ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ("/lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
];

/// Makes the three of them below a directory and returns their archives.
///
/// # Errors
/// When busybox is missing or a file cannot be written.
pub(super) fn make(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let busybox = dir.join("busybox");
    fs::create_dir_all(busybox.join("bin"))?;
    fs::create_dir_all(busybox.join("host"))?;
    fs::copy("/bin/busybox", busybox.join("bin/busybox")).context("/bin/busybox")?;
    for name in ["sh", "rm", "sleep", "true"] {
        symlink("busybox", busybox.join("bin").join(name))?;
    }
    // Debian's busybox has no flock, others have.
    for (from, to) in FLOCK {
        let to = busybox.join(to);
        fs::create_dir_all(to.parent().context("a directory")?)?;
        fs::copy(from, to).context(from)?;
    }
    let app = dir.join("app");
    crate::node::skeleton(&app)?;
    let path = json!(["PATH=/usr/bin:/bin"]);
    let images = [
        ("pause", &busybox, PAUSE, json!({"Entrypoint": ["/bin/sleep", "infinity"]})),
        ("busybox", &busybox, BUSYBOX, json!({"Cmd": ["sh"], "Env": path})),
        ("app", &app, APP, json!({"Env": path})),
    ];
    images.iter().map(|(file, root, name, config)| archive(&dir.join(file), root, name, config)).collect()
}

/// One layer of everything below `root`.
fn archive(stem: &Path, root: &Path, name: &str, config: &Value) -> Result<std::path::PathBuf> {
    let parts = stem.with_extension("parts");
    fs::create_dir_all(&parts)?;
    tar(&parts.join("layer.tar"), root, &["."])?;
    let layer = fs::read(parts.join("layer.tar"))?;
    let hash = digest::digest(&digest::SHA256, &layer);
    let hex: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let about = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex.concat())]},
    });
    fs::write(parts.join("config.json"), about.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    fs::write(parts.join("manifest.json"), manifest.to_string())?;
    let file = stem.with_extension("tar");
    tar(&file, &parts, &["config.json", "layer.tar", "manifest.json"])?;
    Ok(file)
}

fn tar(file: &Path, dir: &Path, members: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]).arg(file).arg("-C").arg(dir).args(members);
    let done = tar.output().context("run tar")?;
    ensure!(done.status.success(), "tar: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
