//! What is kept on disk: the history of detections, so that a restart forgets nothing.
//!
//! Everything lies in one directory that only its owner may enter, and that one sensor at a time uses. A file that is
//! damaged or of another version is refused, set aside under another name, and told of; the sensor then starts without
//! it. No raw token is ever kept: tokens are named by fingerprint. That takes the same key after a restart, so a drawn
//! key is kept here as well.

pub mod database;
pub mod events;
pub mod examine;
pub mod files;
pub mod handover;
pub mod index;
pub mod keeper;
pub mod marks;
pub mod part;
pub mod parts;
pub mod query;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod staging;
pub mod totals;
pub mod trace;
pub mod uses;
pub mod veil;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

pub use index::Index;
pub use keeper::Keeper;
pub use snapshot::{Part, Snapshot};
pub use veil::{Name, Veil};

/// Bytes of a drawn fingerprint key: as many as SHA-256 gives (RFC 2104 section 3).
const KEY_BYTES: usize = 32;

/// The file of the drawn key.
pub const KEY: &str = "fingerprint.key";

/// The file whose lock says that the directory is in use.
const LOCK: &str = "lock";

/// A directory for state, in use by this process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Its mode, if others than its owner may enter it.
    exposed: Option<u32>,
    /// Locked while the store is open.
    _lock: File,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "another sensor runs here and uses {0}: stop it first; to run both, and have two alerts of everything, give this \
         one a `state.dir`, a `control.socket` and a `metrics.listen` of its own"
    )]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error("{what} {path}: {cause}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} {problem}; it was set aside as {aside}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// Its new name.
        aside: PathBuf,
    },
}

impl StoreError {
    /// What to do about it, where the message does not say so.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        let Self::Io { cause, .. } = self else { return None };
        match cause.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Some(
                "the file system is read-only: put a writable volume there (systemd: StateDirectory=tokenscope; Helm: \
                 state.enabled), or set `state.dir` to another directory or to off",
            ),
            io::ErrorKind::PermissionDenied => Some(
                "it must belong to the user that the sensor runs as (chown), and no security module may forbid it \
                 (`dmesg` tells)",
            ),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room on its disk"),
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                Some("a file is there: remove it, or set `state.dir` to another directory or to off")
            }
            _ => None,
        }
    }
}

impl Store {
    /// Opens the directory, and makes it if need be.
    ///
    /// # Errors
    /// When it cannot be made or written, or another process has it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |cause| StoreError::Io { what, path, cause }
        };
        files::make_dir(dir).map_err(failed("cannot make", dir))?;
        let exposed = examine::close(dir).map_err(failed("cannot close to others", dir))?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(failed("cannot open", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), exposed, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(dir.to_owned())),
            Err(errno) => Err(failed("cannot lock", &path)(errno.into())),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The mode of the directory, if others than its owner may enter it.
    #[must_use]
    pub fn exposed(&self) -> Option<u32> {
        self.exposed
    }

    /// Where a file of this store is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The key of fingerprints, drawn when the store was new.
    ///
    /// # Errors
    /// When it cannot be read or made; when it is not a key, it is set aside.
    pub fn fingerprint_key(&self) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let path = self.path(KEY);
        match files::read(&path, KEY_BYTES as u64) {
            Ok(Some(key)) if key.len() == KEY_BYTES => return Ok(Zeroizing::new(key)),
            Ok(Some(_)) => return Err(set_aside(&path, "is not a key of 32 bytes")),
            Ok(None) => {}
            Err(cause) => return Err(StoreError::Io { what: "cannot read", path, cause }),
        }
        let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut key).map_err(|_unspecified| StoreError::Io {
            what: "cannot draw",
            path: path.clone(),
            cause: io::Error::other("the system has no randomness"),
        })?;
        files::replace(&path, &key).map_err(|cause| StoreError::Io { what: "cannot write", path, cause })?;
        Ok(key)
    }

    /// The history that was saved last, if there is any.
    ///
    /// # Errors
    /// When it cannot be read; when it is damaged or of another version, it is set aside.
    pub fn load(&self) -> Result<Option<Snapshot>, StoreError> {
        let path = self.path(snapshot::FILE);
        let bytes = match files::read(&path, snapshot::MAX_FILE) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(cause) => return Err(StoreError::Io { what: "cannot read", path, cause }),
        };
        Snapshot::read(&bytes).map(Some).map_err(|problem| set_aside(&path, problem))
    }

    /// Sets aside the history that was saved last, because nobody can use it.
    #[must_use]
    pub fn refuse(&self, problem: &'static str) -> StoreError {
        set_aside(&self.path(snapshot::FILE), problem)
    }
}

/// The drawn key of the store in this directory, for those who only read; none if none was drawn.
///
/// # Errors
/// When it cannot be read.
pub fn read_key(dir: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let key = files::read(&dir.join(KEY), KEY_BYTES as u64)?.map(Zeroizing::new);
    Ok(key.filter(|key| key.len() == KEY_BYTES))
}

/// Renames a file that cannot be used, so that the next one does not overwrite it.
fn set_aside(path: &Path, problem: &'static str) -> StoreError {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".refused");
    let aside = PathBuf::from(aside);
    match fs::rename(path, &aside) {
        Ok(()) => StoreError::Refused { path: path.to_owned(), problem, aside },
        Err(cause) => StoreError::Io { what: "cannot set aside", path: path.to_owned(), cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sensor_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))));
        drop(first);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn a_drawn_key_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a/b")).unwrap();
        let key = store.fingerprint_key().unwrap();
        assert_eq!(store.fingerprint_key().unwrap(), key);
        fs::write(store.path("fingerprint.key"), "short").unwrap();
        assert!(matches!(store.fingerprint_key(), Err(StoreError::Refused { .. })));
        assert_ne!(store.fingerprint_key().unwrap(), key);
    }

    #[test]
    fn a_damaged_history_is_set_aside_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.load().unwrap().is_none());
        let snapshot =
            Snapshot { key: 7, parts: vec![Part { name: "a".into(), version: 1, bytes: vec![1, 2] }] };
        let mut bytes = snapshot.write();
        files::replace(&store.path(snapshot::FILE), &bytes).unwrap();
        assert_eq!(store.load().unwrap(), Some(snapshot));
        bytes[40] ^= 1;
        files::replace(&store.path(snapshot::FILE), &bytes).unwrap();
        let told = store.load().unwrap_err().to_string();
        assert!(told.contains("set aside"), "{told}");
        assert!(store.load().unwrap().is_none());
        assert!(dir.path().join("history.bin.refused").exists());
    }
}
