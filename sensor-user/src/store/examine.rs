//! Whether a directory can hold the state: looked at from outside, without changing anything.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Access, FlockOperation, access, flock};

use super::{LOCK, StoreError};

/// What a look at the directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It can be used.
    Usable,
    /// It is not there, and can be made.
    ToBeMade,
    /// A sensor is using it.
    InUse,
    /// It can be used, but has this mode: others than its owner may enter it, or even write there.
    Exposed(u32),
    /// It can be used, but belongs to this user, and not to the one of this process.
    Foreign(u32),
}

/// Looks at the directory, or where it would be made.
///
/// # Errors
/// When the sensor could not use it.
pub fn examine(dir: &Path) -> Result<Found, StoreError> {
    let failed = |path: &Path, cause: io::Error| StoreError::Io {
        what: "cannot write in",
        path: path.to_owned(),
        cause,
    };
    let there = dir.ancestors().find(|path| fs::symlink_metadata(path).is_ok()).unwrap_or(Path::new("."));
    let about = fs::metadata(there).map_err(|cause| failed(there, cause))?;
    if !about.is_dir() {
        return Err(failed(there, rustix::io::Errno::NOTDIR.into()));
    }
    if let Err(errno) = access(there, Access::WRITE_OK | Access::EXEC_OK) {
        return Err(failed(there, errno.into()));
    }
    if there != dir {
        return Ok(Found::ToBeMade);
    }
    let mode = about.permissions().mode() & 0o7777;
    Ok(if is_locked(dir) {
        Found::InUse
    } else if about.uid() != rustix::process::geteuid().as_raw() {
        Found::Foreign(about.uid())
    } else if mode & 0o077 != 0 && !is_empty(dir) {
        Found::Exposed(mode)
    } else {
        Found::Usable
    })
}

fn is_locked(dir: &Path) -> bool {
    let lock = OpenOptions::new().read(true).open(dir.join(LOCK));
    lock.is_ok_and(|lock| {
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Closes an empty directory to all but its owner: the kubelet and people make them open to all. One in which there is
/// something is left alone, as it may be anything; its mode is given back, if others may enter it.
pub(super) fn close(dir: &Path) -> io::Result<Option<u32>> {
    let about = fs::metadata(dir)?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(None);
    }
    if is_empty(dir) && about.uid() == rustix::process::geteuid().as_raw() {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        return Ok(None);
    }
    Ok(Some(mode))
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn set_mode(dir: &Path, mode: u32) {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(dir: &Path) -> u32 {
        fs::metadata(dir).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn an_empty_directory_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        assert_eq!(examine(dir.path()).unwrap(), Found::Usable, "it will be closed");
        let store = Store::open(dir.path()).unwrap();
        assert_eq!((mode(dir.path()), store.exposed()), (0o700, None));
    }

    #[test]
    fn one_that_holds_something_is_told_of_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("somebody's"), "").unwrap();
        set_mode(dir.path(), 0o1777);
        assert_eq!(examine(dir.path()).unwrap(), Found::Exposed(0o1777));
        let store = Store::open(dir.path()).unwrap();
        assert_eq!((mode(dir.path()), store.exposed()), (0o1777, Some(0o1777)));
    }

    #[test]
    fn looking_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        assert_eq!(examine(&deep).unwrap(), Found::ToBeMade);
        assert!(!dir.path().join("a").exists());
        let store = Store::open(&deep).unwrap();
        assert_eq!(examine(&deep).unwrap(), Found::InUse);
        drop(store);
        assert_eq!(examine(&deep).unwrap(), Found::Usable);
    }

    #[test]
    fn what_is_no_directory_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = examine(&path).unwrap_err();
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("a file is there")), "{error}");
        }
    }
}
