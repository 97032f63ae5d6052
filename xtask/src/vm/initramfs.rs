//! The first and only file system of a machine: a cpio archive (`newc`, initramfs buffer format of the kernel's own
//! documentation) with the programs, their libraries and a script that the kernel starts.
//!
//! Not compressed: unpacking takes an emulated processor longer than reading.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Programs;
use crate::packages::is_there;
use crate::toolchain::output;

/// The shell and the tools of a machine.
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// The first process. What the guest tells goes to the second serial line, so that the kernel does not interrupt it.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t securityfs security /sys/kernel/security
ip link set lo up
stty -F /dev/ttyS1 raw -echo
TOKENSCOPE_BIN=/tokenscope TOKENSCOPE_TEST_KERNEL=/kernel /lab guest >/dev/ttyS1 2>/dev/console
printf 'end\\t%s\\n' $? >/dev/ttyS1
poweroff -f
";

const DIRS: [&str; 5] = ["proc", "sys", "dev", "tmp", "bin"];

/// Programs of the system that are taken along if they are there.
const EXTRAS: [&str; 1] = ["/usr/sbin/bpftool"];

/// `S_IFDIR`, `S_IFREG` and permissions (inode(7)).
const DIR: u32 = 0o040_755;
/// See [`DIR`].
const FILE: u32 = 0o100_755;

/// Writes the archive.
pub(super) fn write(to: &Path, programs: &Programs) -> Result<()> {
    let mut archive = Archive::default();
    for dir in DIRS {
        archive.dir(dir);
    }
    archive.file("init", INIT.as_bytes());
    program(&mut archive, "bin/busybox", Path::new(BUSYBOX))?;
    for (name, path) in programs.all() {
        program(&mut archive, name, &stripped(path, &to.with_file_name(format!("{name}.stripped"))))?;
    }
    for extra in EXTRAS.into_iter().map(Path::new).filter(|extra| extra.exists()) {
        let name = extra.file_name().unwrap_or_default().to_string_lossy();
        program(&mut archive, &format!("bin/{name}"), extra)?;
    }
    fs::write(to, archive.finish())?;
    Ok(())
}

/// Writes one whose first process unpacks `root`, a tar archive, and makes that the machine's system.
pub(super) fn write_around(to: &Path, root: &Path, init: &str) -> Result<()> {
    let mut archive = Archive::default();
    for dir in DIRS.into_iter().chain(["root"]) {
        archive.dir(dir);
    }
    archive.file("init", init.as_bytes());
    program(&mut archive, "bin/busybox", Path::new(BUSYBOX))?;
    archive.file("root.tar", &fs::read(root).with_context(|| format!("read {}", root.display()))?);
    fs::write(to, archive.finish())?;
    Ok(())
}

/// The program without what only debuggers read; as it is where nothing can take that out.
pub(super) fn stripped(program: &Path, to: &Path) -> PathBuf {
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(to).arg(program);
    if is_there("strip") && output(&mut strip).is_some() { to.to_owned() } else { program.to_owned() }
}

/// Adds a program and the libraries that it is linked with.
fn program(archive: &mut Archive, name: &str, path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    archive.file(name, &bytes);
    let linked = output(Command::new("ldd").arg(path)).unwrap_or_default();
    for library in libraries(&linked) {
        let bytes = fs::read(library).with_context(|| format!("read {library}"))?;
        archive.file(library.trim_start_matches('/'), &bytes);
    }
    Ok(())
}

/// The files that `ldd` names: `libm.so.6 => /lib/libm.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`.
fn libraries(linked: &str) -> impl Iterator<Item = &str> {
    linked.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// A cpio archive in the making.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory and those above it.
    fn dir(&mut self, name: &str) {
        if name.is_empty() || self.names.contains(name) {
            return;
        }
        self.dir(name.rsplit_once('/').map_or("", |(above, _)| above));
        self.entry(name, DIR, &[]);
    }

    /// Adds a file that everybody may read and run, once.
    fn file(&mut self, name: &str, bytes: &[u8]) {
        if self.names.contains(name) {
            return;
        }
        self.dir(name.rsplit_once('/').map_or("", |(above, _)| above));
        self.entry(name, FILE, bytes);
    }

    /// A header of thirteen numbers, the name, and the content, both filled up to four bytes.
    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        let inode = self.names.len() + 1;
        let (size, name_size) = (bytes.len(), name.len() + 1);
        self.bytes.extend(
            format!(
                "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}",
                0, 1
            )
            .bytes(),
        );
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.fill();
        self.bytes.extend(bytes);
        self.fill();
        self.names.insert(name.to_owned());
    }

    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x0)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x0)\n\t/lib64/ld.so (0x0)\n";
        assert_eq!(libraries(said).collect::<Vec<_>>(), ["/lib/x/libm.so.6", "/lib64/ld.so"]);
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::default();
        archive.file("lib/x/a", b"1");
        archive.file("lib/x/b", b"22");
        archive.file("lib/x/b", b"333");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("lib\0") < at("lib/x\0") && at("lib/x\0") < at("lib/x/a\0"));
        assert_eq!((text.matches("070701").count(), bytes.len() % 4), (5, 0));
        assert!(!text.contains("333"));
    }
}
