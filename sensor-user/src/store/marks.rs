//! The file of marks: edited by `tokenscope alerts`, read by the running sensor.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::alert::Marks;
use crate::alert::marks::{Mark, MarksError};
use crate::store::files::{self, Lock};

/// Longest file: the most marks there may be, and their notes.
const MAX_BYTES: u64 = 32 << 20;

const NAME: &str = "marks.json";
const LOCK: &str = "marks.lock";

/// Why marks could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("{path}: {cause}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// The file is not ours.
    #[error("{path}: {cause}", path = path.display())]
    Marks {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: MarksError,
    },
}

/// The marks of this directory; none if there is no file.
///
/// # Errors
/// When the file cannot be read, or is not ours.
pub fn read(dir: &Path) -> Result<Marks, Error> {
    let path = dir.join(NAME);
    match files::read(&path, MAX_BYTES) {
        Ok(None) => Ok(Marks::default()),
        Ok(Some(bytes)) => Marks::parse(&bytes).map_err(|cause| Error::Marks { path, cause }),
        Err(cause) => Err(Error::File { path, cause }),
    }
}

/// Changes the marks, while nobody else does. The change is told the number for a new one.
///
/// # Errors
/// When they cannot be read or written: a file that is not ours is left as it is.
pub fn edit<R>(dir: &Path, change: impl FnOnce(&mut Vec<Mark>, u64) -> R) -> Result<R, Error> {
    let path = dir.join(NAME);
    let file = |cause| Error::File { path: path.clone(), cause };
    files::make_dir(dir).map_err(file)?;
    let _lock = Lock::wait(&dir.join(LOCK)).map_err(file)?;
    let before = read(dir)?;
    let (mut marks, next) = (before.all().to_vec(), before.next_number());
    let result = change(&mut marks, next);
    let after = Marks::new(marks).numbered_from(next);
    files::replace(&path, after.render().as_bytes()).map_err(file)?;
    Ok(result)
}

/// What tells one state of the file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    changed: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// The state of the file now; none if it is not there.
#[must_use]
pub fn stamp(dir: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let about = std::fs::metadata(dir.join(NAME)).ok()?;
    Some(Stamp { changed: about.modified().ok(), bytes: about.len(), inode: about.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::marks::{Named, Opinion, Scope};
    use ulid::Ulid;

    fn mark(number: u64) -> Mark {
        Mark {
            number,
            alert: Ulid::nil(),
            opinion: Opinion::FalsePositive,
            scope: Scope::Rule,
            key: Named { rule: format!("rule-{number}"), ..Named::default() },
            who: None,
            made_ms: 0,
            until_ms: 1,
            note: None,
        }
    }

    #[test]
    fn many_editors_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let state = &state;
                scope.spawn(move || edit(state, |marks, _| marks.push(mark(number))).unwrap());
            }
        });
        let mut numbers: Vec<u64> = read(&state).unwrap().all().iter().map(|m| m.number).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..8));
    }

    #[test]
    fn every_edit_shows_in_the_stamp() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(stamp(dir.path()), None);
        edit(dir.path(), |marks, _| marks.push(mark(1))).unwrap();
        let first = stamp(dir.path());
        edit(dir.path(), |marks, _| marks.push(mark(2))).unwrap();
        assert_ne!(stamp(dir.path()), first);
    }

    #[test]
    fn a_file_of_somebody_else_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "my shopping list").unwrap();
        assert!(matches!(edit(dir.path(), |marks, _| marks.clear()), Err(Error::Marks { .. })));
        assert_eq!(std::fs::read_to_string(dir.path().join(NAME)).unwrap(), "my shopping list");
    }
}
