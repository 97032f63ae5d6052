//! Files that are whole or not there at all: written beside their place, synced, and moved into it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Makes the directory, for its owner only, if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces a file as a whole, for its owner only. Whoever holds the lock of the file's kind may call it.
///
/// # Errors
/// When it cannot be written; then the old one is still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What is left of a writer that died has no value.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The move itself lasts only once the directory is synced.
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// The whole of a file, if it is not longer than `most`. None if it is not there.
///
/// # Errors
/// When it cannot be read, or is longer.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {most} bytes")));
    }
    Ok(Some(bytes))
}

/// Keeps others from editing until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of this path, which is a file of its own: the edited one is replaced.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn replaces_as_a_whole_and_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/marks.json");
        make_dir(path.parent().unwrap()).unwrap();
        fs::write(path.with_extension("new"), "half of what a dead writer had to say").unwrap();
        for text in ["one", "a longer two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path, 100).unwrap().unwrap(), text.as_bytes());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn reads_no_more_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(read(&path, 3).unwrap(), None);
        fs::write(&path, "abcd").unwrap();
        assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
