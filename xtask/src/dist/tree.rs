//! Files as they will lie on the other side: sorted by path, owned by root, with modes and no times of their own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A directory of this mode.
    Directory(u32),
    /// A file of this mode.
    File(u32, Vec<u8>),
}

/// A tree of files. Paths are relative to its root, without a slash before or after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// A file that all may read and nobody writes but root.
    pub(super) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.file_of_mode(path, 0o644, content);
    }

    /// A program.
    pub(super) fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.file_of_mode(path, 0o755, content);
    }

    /// A file of this mode.
    pub(super) fn file_of_mode(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, Entry::File(mode, content.into()));
    }

    /// A directory, if it is not to be as those that files bring along.
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.put(path, Entry::Directory(mode));
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            self.0.entry(parent.to_owned()).or_insert(Entry::Directory(0o755));
            above = parent;
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// The same, and no file can be written to by anybody.
    pub(super) fn sealed(mut self) -> Self {
        for entry in self.0.values_mut() {
            if let Entry::File(mode, _) = entry {
                *mode &= !0o222;
            }
        }
        self
    }

    /// Every entry, a directory before what is in it.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Bytes of all files together.
    pub(super) fn bytes(&self) -> u64 {
        let size = |entry: &Entry| if let Entry::File(_, content) = entry { content.len() } else { 0 };
        self.0.values().map(|entry| size(entry) as u64).sum()
    }

    /// Puts the files into a directory of this machine.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub(super) fn unpack(&self, into: &Path) -> Result<()> {
        fs::create_dir_all(into)?;
        for (path, entry) in self.entries() {
            let place = into.join(path);
            let put = || match entry {
                Entry::Directory(mode) => {
                    fs::create_dir_all(&place)?;
                    fs::set_permissions(&place, fs::Permissions::from_mode(*mode))
                }
                Entry::File(mode, content) => {
                    fs::write(&place, content)?;
                    fs::set_permissions(&place, fs::Permissions::from_mode(*mode))
                }
            };
            put().with_context(|| format!("cannot write {}", place.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.file("usr/bin/b", "x");
        tree.file("usr/bin-a", "x");
        tree.file("usr/bin/a", "");
        tree.directory("tmp", 0o1777);
        let paths: Vec<&str> = tree.entries().map(|(path, _)| path).collect();
        assert_eq!(paths, ["tmp", "usr", "usr/bin", "usr/bin-a", "usr/bin/a", "usr/bin/b"]);
        assert_eq!(tree.bytes(), 2);
    }

    #[test]
    fn files_lie_where_they_were_put() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        tree.program("usr/bin/a", "a");
        tree.unpack(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("usr/bin/a")).unwrap(), "a");
        let mode = |dir: &Path| fs::metadata(dir.join("usr/bin/a")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(dir.path()), 0o755);
        let sealed = tempfile::tempdir().unwrap();
        tree.sealed().unpack(sealed.path()).unwrap();
        assert_eq!(mode(sealed.path()), 0o555);
    }
}
