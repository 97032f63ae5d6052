//! A machine that a real systemd runs: Debian's smallest system, our package to be installed, and a service that does the
//! steps once it is up (`tests/src/guest/systemd.rs`).
//!
//! The system is made by debootstrap, once; it runs in memory, so every boot begins anew.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::boot::Machine;
use super::kernel::{Archive, BOOKWORM, Source};
use super::{Arguments, Programs, initramfs};
use crate::dist;
use crate::packages::{is_root, is_there};
use crate::step::step;

/// How the machine is asked for.
pub(super) const NAME: &str = "systemd";

/// Besides the smallest system: what runs it, and what the steps use.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,procps,apparmor,bpftool";

/// What nobody reads in a machine.
const LEFT_OUT: [&str; 6] = [
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/info",
    "./var/cache/apt",
    "./var/lib/apt/lists",
];

/// Twice the system and the packages, half a GiB each, and what they need to run.
const MEMORY: u32 = 2560;

/// The first process: makes the system a file system of its own, as on any host, and gives it what was asked for.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t tmpfs -o size=90%,mode=755 root /root
/bin/busybox tar -x -f /root.tar -C /root
/bin/busybox rm /root.tar
echo \"TOKENSCOPE_GUEST_ONLY=$TOKENSCOPE_GUEST_ONLY\" >/root/guest.env
exec /bin/busybox switch_root /root /lib/systemd/systemd
";

/// Does the steps and switches the machine off.
const GUEST: &str = "\
#!/bin/sh
stty -F /dev/ttyS1 raw -echo
/lab guest --systemd >/dev/ttyS1
printf 'end\\t%s\\n' $? >/dev/ttyS1
systemctl poweroff --force --force
";

/// Its unit.
const GUEST_UNIT: &str = "\
[Unit]
Description=The steps
After=multi-user.target

[Service]
Type=exec
EnvironmentFile=/guest.env
Environment=TOKENSCOPE_BIN=/usr/bin/tokenscope
ExecStart=/guest
StandardError=journal+console
";

/// Emulated on a busy host everything takes longer than systemd expects.
const MANAGER: &str = "[Manager]\nDefaultTimeoutStartSec=10min\n";

/// What keeps the machine busy and is not asked about: consoles, and Debian's own profiles.
const MASKED: [&str; 3] = ["serial-getty@ttyS0.service", "getty.target", "apparmor.service"];

/// Why it cannot be made here; none if it can.
pub(super) fn missing() -> Option<String> {
    let lacking = ["debootstrap", "tar"].into_iter().find(|program| !is_there(program));
    match lacking {
        Some(program) => Some(format!("{program} is missing (apt-get install {program})")),
        None if !is_root() => Some("it takes root".to_owned()),
        None => None,
    }
}

/// The machine, made below `home`.
pub(super) fn machine(home: &Path, programs: &Programs, arguments: &Arguments) -> Result<Machine> {
    let source = Source::of_bookworm().context("no kernel of Debian's release")?;
    let kernel = source.fetch(home, arguments.update, arguments.mirror.as_deref())?;
    let home = home.join("debian");
    fs::create_dir_all(&home)?;
    let system = system(&home, arguments)?;
    let layer = layer(&home, programs)?;
    let (root, disk) = (home.join("root.tar"), home.join("initramfs.cpio"));
    let mut pack = Command::new("tar");
    pack.arg("--create").arg("--file").arg(&root);
    pack.args(LEFT_OUT.map(|path| format!("--exclude={path}")));
    pack.arg("--directory").arg(&system).arg(".").arg("--directory").arg(&layer).arg(".");
    ensure!(step("pack the system for systemd", &mut pack)?.ok, "tar failed");
    initramfs::write_around(&disk, &root, INIT)?;
    fs::remove_file(&root)?;
    Ok(Machine { name: NAME, kernel, disk, memory: MEMORY })
}

/// Debian's smallest system with systemd, made if it is not there.
fn system(home: &Path, arguments: &Arguments) -> Result<PathBuf> {
    let (done, unfinished) = (home.join("root"), home.join("root.part"));
    if done.exists() && !arguments.update {
        return Ok(done);
    }
    let archive = Archive::wished(arguments.mirror.as_deref())?;
    for old in [&done, &unfinished] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    let mut make = Command::new("debootstrap");
    make.arg("--variant=minbase").arg(format!("--include={PACKAGES}")).arg(BOOKWORM);
    make.arg(&unfinished).arg(&archive.releases);
    ensure!(step("make a system for systemd", &mut make)?.ok, "debootstrap failed");
    fs::rename(&unfinished, &done)?;
    Ok(done)
}

/// What is laid over it: the packages, and who does the steps.
fn layer(home: &Path, programs: &Programs) -> Result<PathBuf> {
    let layer = home.join("layer");
    let _ = fs::remove_dir_all(&layer);
    let units = layer.join("etc/systemd/system");
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    let manager = layer.join("etc/systemd/system.conf.d");
    fs::create_dir_all(&manager)?;
    fs::write(manager.join("guest.conf"), MANAGER)?;
    fs::create_dir_all(layer.join("packages"))?;
    for (name, version) in [("old.deb", "0.1.0"), ("new.deb", "0.1.0+next")] {
        dist::deb::quickly(&programs.sensor, version, &layer.join("packages").join(name))?;
    }
    fs::copy(initramfs::stripped(&programs.lab, &home.join("lab.stripped")), layer.join("lab"))?;
    fs::write(layer.join("guest"), GUEST)?;
    fs::set_permissions(layer.join("guest"), fs::Permissions::from_mode(0o755))?;
    fs::write(units.join("guest.service"), GUEST_UNIT)?;
    symlink("../guest.service", wants.join("guest.service"))?;
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    Ok(layer)
}
