//! The parts in their order: which is written to, when the next begins, which go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::capture::Time;
use crate::store::database::{self, DatabaseError};
use crate::store::files;
use crate::store::part::Part;

/// The directory of parts, beside the store's own file.
pub const DIR: &str = "uses";

/// Parts of a full history. SQLite attaches ten files to one connection, and each costs a question a millisecond.
const PARTS: u32 = 8;

/// The shortest time of a part.
const DAY_MS: u64 = 86_400_000;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes on disk at most, everything together.
    pub max_bytes: u64,
    /// For how long uses are kept at least; a part goes as a whole.
    pub uses_for: Duration,
    /// For how long alerts and incidents are kept.
    pub alerts_for: Duration,
}

impl Bounds {
    /// How long a part lasts: whole days, an eighth of the history.
    #[must_use]
    pub fn part_ms(&self) -> u64 {
        let eighth = u64::try_from(self.uses_for.as_millis()).unwrap_or(u64::MAX) / u64::from(PARTS);
        eighth.div_ceil(DAY_MS).max(1).saturating_mul(DAY_MS)
    }

    /// Bytes of a part from which on the next one begins.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        (self.max_bytes / u64::from(PARTS)).max(1 << 20)
    }

    /// Rows by strangers that a part takes at most: half of what fits, at some 160 bytes a row with its names.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.part_bytes() / 2 / 160
    }
}

/// A part that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub path: PathBuf,
    /// When it begins.
    pub start_ms: u64,
}

/// The parts that are there, oldest first.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Place>> {
    let entries = match fs::read_dir(dir.join(DIR)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(start_ms) = path.file_name().and_then(|name| start_of(name.to_str()?)) {
            all.push(Place { path, start_ms });
        }
    }
    all.sort_by_key(|place| place.start_ms);
    Ok(all)
}

/// `20261122T180405.db` for the part that begins then, in UTC.
fn name_of(start_ms: u64) -> String {
    let stamp = i64::try_from(start_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let start = stamp.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    format!("{}.db", start.strftime("%Y%m%dT%H%M%S"))
}

fn start_of(name: &str) -> Option<u64> {
    let stamp = name.strip_suffix(".db").filter(|stamp| stamp.len() == 15 && stamp.is_ascii())?;
    let start = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", stamp).ok()?;
    u64::try_from(start.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()).ok()
}

/// The parts, one of them open.
#[derive(Debug)]
pub struct Parts {
    dir: PathBuf,
    bounds: Bounds,
    open: Option<Part>,
    /// Parts that were deleted to make room before their time.
    pub cut: u64,
}

impl Parts {
    /// The parts in this directory. None is open yet.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(dir: &Path, bounds: Bounds) -> io::Result<Self> {
        files::make_dir(&dir.join(DIR))?;
        Ok(Self { dir: dir.to_owned(), bounds, open: None, cut: 0 })
    }

    /// The part for uses of this time.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub fn at(&mut self, now: Time) -> Result<&mut Part, DatabaseError> {
        let part = match self.open.take() {
            Some(part) if !self.is_over(part.bytes(), part.start_ms(), now) => part,
            ended => self.next(ended, now)?,
        };
        Ok(self.open.insert(part))
    }

    /// Whether the next part should begin. It must have another name.
    fn is_over(&self, bytes: u64, start_ms: u64, now: Time) -> bool {
        let now = now.millis();
        let late = now >= start_ms.saturating_add(self.bounds.part_ms());
        now / 1000 > start_ms / 1000 && (late || bytes >= self.bounds.part_bytes())
    }

    fn next(&self, ended: Option<Part>, now: Time) -> Result<Part, DatabaseError> {
        let dir = self.dir.join(DIR);
        if let Some(part) = ended {
            let path = part.path().to_owned();
            part.close().map_err(DatabaseError::of(&path))?;
        }
        let all =
            list(&self.dir).map_err(|cause| DatabaseError::Io { what: "read", path: dir.clone(), cause })?;
        let day = now.millis() / DAY_MS * DAY_MS;
        // After a restart the newest part goes on; when it was large, the next begins in the middle of a day.
        let newest = all.iter().rfind(|place| place.start_ms <= now.millis());
        let start_ms = match newest {
            Some(place) if !self.is_over(database::bytes(&place.path), place.start_ms, now) => place.start_ms,
            Some(place) if place.start_ms >= day => now.millis() / 1000 * 1000,
            _ => day,
        };
        Part::open(&dir.join(name_of(start_ms)), start_ms)
    }

    /// The part that is open.
    #[must_use]
    pub const fn open(&self) -> Option<&Part> {
        self.open.as_ref()
    }

    /// Where a part would be that does not open.
    #[must_use]
    pub fn expected(&self, now: Time) -> Option<PathBuf> {
        let all = list(&self.dir).ok()?;
        all.into_iter().rfind(|place| place.start_ms <= now.millis()).map(|place| place.path)
    }

    /// Deletes parts of which every use is too old.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub fn expire(&self, now: Time) -> io::Result<()> {
        let all = list(&self.dir)?;
        let keep_ms = u64::try_from(self.bounds.uses_for.as_millis()).unwrap_or(u64::MAX);
        for (old, next) in all.iter().zip(all.iter().skip(1)) {
            if next.start_ms.saturating_add(keep_ms) > now.millis() || self.is_open(&old.path) {
                break;
            }
            database::delete(&old.path)?;
        }
        Ok(())
    }

    /// Deletes the oldest part, but for the open one. Says whether there was one.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn cut_oldest(&mut self) -> io::Result<bool> {
        let oldest = list(&self.dir)?.into_iter().find(|place| !self.is_open(&place.path));
        let Some(oldest) = oldest else { return Ok(false) };
        database::delete(&oldest.path)?;
        self.cut += 1;
        Ok(true)
    }

    /// Deletes the part that is open, to make room for alerts. Says whether there was one.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn cut_open(&mut self) -> io::Result<bool> {
        let Some(part) = self.open.take() else { return Ok(false) };
        let path = part.path().to_owned();
        drop(part);
        database::delete(&path)?;
        self.cut += 1;
        Ok(true)
    }

    /// Closes the part that is open without a word: it is damaged, or another is needed.
    pub fn let_go(&mut self) {
        self.open = None;
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        list(&self.dir).unwrap_or_default().iter().map(|place| database::bytes(&place.path)).sum()
    }

    /// Folds the log in and closes.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn close(self) -> rusqlite::Result<()> {
        self.open.map_or(Ok(()), Part::close)
    }

    fn is_open(&self, path: &Path) -> bool {
        self.open.as_ref().is_some_and(|part| part.path() == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn bounds(days: u32) -> Bounds {
        let day = Duration::from_hours(24);
        Bounds { max_bytes: 1 << 30, uses_for: day * days, alerts_for: day * 365 }
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |place: Place| place.path.file_name().unwrap().to_string_lossy().into_owned();
        list(dir).unwrap().into_iter().map(name).collect()
    }

    #[test]
    fn names_tell_when_a_part_begins() {
        for ms in [0, 1_795_284_245_000, 86_400_000] {
            assert_eq!(start_of(&name_of(ms)), Some(ms));
        }
        assert_eq!(name_of(1_795_284_245_000), "20261121T180405.db");
        for other in
            ["", "x.db", "20261121T180405.db-wal", "20261321T180405.db", "20261121T180405.db.refused"]
        {
            assert_eq!(start_of(other), None, "{other}");
        }
    }

    #[test]
    fn parts_follow_one_another_and_go_when_they_are_old() {
        assert_eq!(bounds(14).part_ms(), 2 * DAY * 1000);
        assert_eq!(bounds(1).part_ms(), DAY * 1000);
        let dir = tempfile::tempdir().unwrap();
        let mut parts = Parts::new(dir.path(), bounds(14)).unwrap();
        for day in 0..40 {
            parts.at(Time::from_secs(day * DAY + 77)).unwrap();
            parts.expire(Time::from_secs(day * DAY + 77)).unwrap();
            assert!(names(dir.path()).len() <= 9);
        }
        assert_eq!(names(dir.path()).first().unwrap(), "19700125T000000.db");
        assert_eq!(names(dir.path()).last().unwrap(), "19700208T000000.db");
    }

    #[test]
    fn after_a_restart_the_newest_part_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        for second in [10 * DAY, 10 * DAY + 5, 11 * DAY] {
            let mut parts = Parts::new(dir.path(), bounds(14)).unwrap();
            assert_eq!(parts.at(Time::from_secs(second)).unwrap().start_ms(), 10 * DAY * 1000);
            parts.close().unwrap();
        }
        assert_eq!(names(dir.path()).len(), 1);
    }

    #[test]
    fn a_clock_that_was_set_back_writes_to_what_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut parts = Parts::new(dir.path(), bounds(14)).unwrap();
        parts.at(Time::from_secs(10 * DAY)).unwrap();
        assert_eq!(parts.at(Time::from_secs(3 * DAY)).unwrap().start_ms(), 10 * DAY * 1000);
    }

    #[test]
    fn room_is_made_from_the_oldest_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut parts = Parts::new(dir.path(), bounds(14)).unwrap();
        for day in [0, 2, 4] {
            parts.at(Time::from_secs(day * DAY)).unwrap();
        }
        assert!(parts.cut_oldest().unwrap() && parts.cut_oldest().unwrap());
        assert!(!parts.cut_oldest().unwrap(), "the open one stays");
        assert_eq!(names(dir.path()), ["19700105T000000.db"]);
        assert!(parts.cut_open().unwrap() && !parts.cut_open().unwrap());
        assert_eq!((names(dir.path()).len(), parts.cut, parts.bytes()), (0, 3, 0));
    }
}
