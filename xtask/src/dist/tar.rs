//! Writes a [`Tree`] as a tape archive: the ustar format of POSIX.1-1988, which every reader knows.
//!
//! Owner and group are 0, all times are the same, and entries come in the order of their paths, so the same tree is
//! the same bytes.

use std::io::Write;

use anyhow::{Result, ensure};

use super::time::Epoch;
use super::tree::{Entry, Tree};

/// Bytes of a block; a header is one, and contents are filled up to a multiple.
const BLOCK: usize = 512;

/// Longest path that fits the header's first field; ours are shorter, so the second is not used.
const LONGEST: usize = 100;

/// Writes the archive.
///
/// # Errors
/// When a path is too long for the format, or `out` fails.
pub(super) fn write(tree: &Tree, epoch: Epoch, out: &mut impl Write) -> Result<()> {
    for (path, entry) in tree.entries() {
        match entry {
            Entry::Directory(mode) => out.write_all(&header(&format!("{path}/"), b'5', *mode, 0, epoch)?)?,
            Entry::File(mode, content) => {
                out.write_all(&header(path, b'0', *mode, content.len(), epoch)?)?;
                out.write_all(content)?;
                let rest = content.len().next_multiple_of(BLOCK) - content.len();
                out.write_all(&vec![0; rest])?;
            }
        }
    }
    // Two empty blocks end it.
    Ok(out.write_all(&[0; 2 * BLOCK])?)
}

fn header(path: &str, kind: u8, mode: u32, size: usize, epoch: Epoch) -> Result<Vec<u8>> {
    ensure!(path.len() <= LONGEST, "{path} is too long for the archive");
    let mut fields = Vec::with_capacity(BLOCK);
    let mut field = |text: &[u8], width: usize| {
        fields.extend_from_slice(text);
        fields.resize(fields.len() + width - text.len(), 0);
    };
    field(path.as_bytes(), 100);
    field(format!("{mode:07o}").as_bytes(), 8);
    field(b"0000000", 8);
    field(b"0000000", 8);
    field(octal(size as u64)?.as_bytes(), 12);
    field(octal(epoch.0)?.as_bytes(), 12);
    // The sum is made as if its own field were blank.
    field(b"        ", 8);
    field(&[kind], 1);
    // Links to nothing.
    field(b"", 100);
    field(b"ustar\x0000", 8);
    // Names of owner and group, device numbers, the prefix: none.
    field(b"", 247);
    let sum: u32 = fields.iter().map(|byte| u32::from(*byte)).sum();
    fields.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    Ok(fields)
}

/// A number of eleven octal digits: up to 8 GiB, and up to the year 2242.
fn octal(number: u64) -> Result<String> {
    ensure!(number < 1 << 33, "{number} is too large for the archive");
    Ok(format!("{number:011o}"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.file("etc/a", "hello\n");
        tree.program("usr/bin/b", vec![7; 512]);
        tree.file("usr/empty", "");
        tree.directory("tmp", 0o1777);
        tree
    }

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, Epoch(86_400), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_systems_own_tar_reads_it() {
        let bytes = archive(&sample());
        let mut tar = Command::new("tar");
        tar.args(["--list", "--verbose", "--numeric-owner", "--utc", "--full-time"]).env("LC_ALL", "C");
        let mut child = tar.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success());
        let text = String::from_utf8(done.stdout).unwrap();
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "drwxr-xr-x 0/0 0 1970-01-02 00:00:00 etc/",
            "-rw-r--r-- 0/0 6 1970-01-02 00:00:00 etc/a",
            "drwxrwxrwt 0/0 0 1970-01-02 00:00:00 tmp/",
            "drwxr-xr-x 0/0 0 1970-01-02 00:00:00 usr/",
            "drwxr-xr-x 0/0 0 1970-01-02 00:00:00 usr/bin/",
            "-rwxr-xr-x 0/0 512 1970-01-02 00:00:00 usr/bin/b",
            "-rw-r--r-- 0/0 0 1970-01-02 00:00:00 usr/empty",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_same_tree_is_the_same_bytes() {
        assert_eq!(archive(&sample()), archive(&sample()));
        let mut other = sample();
        other.file("etc/a", "hallo\n");
        assert_ne!(archive(&sample()), archive(&other));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut tree = Tree::default();
        tree.file(&"a".repeat(101), "");
        assert!(write(&tree, Epoch(0), &mut Vec::new()).is_err());
        assert!(write(&sample(), Epoch(1 << 33), &mut Vec::new()).is_err());
    }
}
