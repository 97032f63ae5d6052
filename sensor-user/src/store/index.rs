//! The index of recent alerts: what made each of them, so that an id is enough to mark one later.
//!
//! One JSON object a line, appended. When a file has [`MOST`] lines it becomes the old one and a new one begins, so that
//! at least the last [`MOST`] alerts are known and at most twice as many. Principals are hashed; tokens are fingerprints.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::alert::marks::Named;
use crate::store::files;

/// Alerts in one file: at 400 bytes a line, 40 MB.
pub const MOST: usize = 100_000;

/// Longest line: a principal of 256 bytes is hashed, a route is bounded by the http stage.
const MAX_LINE: u64 = 16 << 10;

/// The version of the lines.
const VERSION: u32 = 1;

const NAME: &str = "alerts.idx";
const OLD: &str = "alerts.idx.old";

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    v: u32,
    /// The alert.
    pub id: Ulid,
    /// What makes it this alert.
    pub key: Named,
    /// Who that is, as it may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
}

impl Entry {
    /// The line of one alert.
    #[must_use]
    pub const fn new(id: Ulid, key: Named, who: Option<String>) -> Self {
        Self { v: VERSION, id, key, who }
    }
}

/// The index, open for appending.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    file: File,
    lines: usize,
    most: usize,
}

impl Index {
    /// Opens the index of this directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(dir: &Path) -> io::Result<Self> {
        files::make_dir(dir)?;
        let path = dir.join(NAME);
        let mut file = append(&path)?;
        let lines = count(&path)?;
        if !ends_whole(&path)? {
            // A writer that died left half a line: it ends here, and readers skip it.
            file.write_all(b"\n")?;
        }
        Ok(Self { dir: dir.to_owned(), file, lines, most: MOST })
    }

    /// Adds an alert.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        if self.lines >= self.most {
            let path = self.dir.join(NAME);
            fs::rename(&path, self.dir.join(OLD))?;
            self.file = append(&path)?;
            self.lines = 0;
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.lines += 1;
        self.file.write_all(&line)
    }
}

/// The alert with this id, if it is among the recent ones; the newest, should it be there twice.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn find(dir: &Path, id: Ulid) -> io::Result<Option<Entry>> {
    for name in [NAME, OLD] {
        let mut found = None;
        each(&dir.join(name), |line| {
            let entry: Option<Entry> = serde_json::from_slice(line).ok();
            found = entry.filter(|entry| entry.v == VERSION && entry.id == id).or(found.take());
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn count(path: &Path) -> io::Result<usize> {
    let mut lines = 0;
    each(path, |_| lines += 1)?;
    Ok(lines)
}

fn ends_whole(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let file = File::open(path)?;
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// Shows every line of a file, if it is there; of one that is too long, pieces that are no entries.
fn each(path: &Path, mut show: impl FnMut(&[u8])) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        show(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        let key = Named { rule: "alg-none".into(), route: format!("GET /{number}"), ..Named::default() };
        Entry::new(Ulid::from_parts(number, 0), key, Some("a…@shop.example".into()))
    }

    #[test]
    fn remembers_the_last_alerts_and_no_more_than_twice_as_many() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index { most: 10, ..Index::open(dir.path()).unwrap() };
        for number in 0..35 {
            index.add(&entry(number)).unwrap();
        }
        let known = |number| find(dir.path(), entry(number).id).unwrap();
        assert_eq!(known(34), Some(entry(34)));
        assert_eq!(known(20), Some(entry(20)));
        assert_eq!(known(19), None);
        assert_eq!(Index::open(dir.path()).unwrap().lines, 5, "a new run goes on counting");
    }

    #[test]
    fn half_a_line_and_strange_lines_hurt_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(40_000);
        fs::write(dir.path().join(NAME), format!("nonsense\n{long}\n{{\"v\":1,\"id\":\"01")).unwrap();
        Index::open(dir.path()).unwrap().add(&entry(1)).unwrap();
        assert_eq!(find(dir.path(), entry(1).id).unwrap(), Some(entry(1)));
        assert_eq!(find(dir.path(), entry(2).id).unwrap(), None);
    }

    #[test]
    fn without_a_directory_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(&dir.path().join("none"), entry(1).id).unwrap(), None);
    }
}
