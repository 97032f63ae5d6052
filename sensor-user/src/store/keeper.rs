//! Keeps uses and alerts within their bounds, whatever the disk says.
//!
//! Under pressure detail goes first: new uses are not stored, then the oldest uses are deleted, then all of them; alerts
//! stay as long as there is room for anything. A file that is damaged is set aside, told of, and begun anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::capture::Time;
use crate::render::Told;
use crate::spool::Cursor;
use crate::store::database::{self, DatabaseError, is_damage, is_full};
use crate::store::events::{self, Events};
use crate::store::files;
use crate::store::parts::{Bounds, Parts};
use crate::store::uses::Gathered;
use crate::store::veil::Veil;

/// How often bounds are looked at, in time of the data.
const TEND: Duration = Duration::from_mins(1);

/// How long uses are not stored after the disk was full: each try deletes a part.
const PAUSE: Duration = Duration::from_mins(1);

/// What was kept and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk.
    pub bytes: u64,
    /// Rows of uses in the part that is written to.
    pub uses: u64,
    /// Events of alerts and incidents.
    pub events: u64,
    /// Exchanges whose uses were stored.
    pub stored: u64,
    /// Exchanges whose uses were not stored because the disk was full.
    pub full: u64,
    /// Exchanges whose uses were not stored because of other errors.
    pub failed: u64,
    /// Parts of uses that were deleted before their time.
    pub parts_cut: u64,
    /// Events that were deleted before their time.
    pub events_cut: u64,
    /// Files that were set aside.
    pub refused: u64,
}

/// Keeps uses and alerts.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    bounds: Bounds,
    parts: Parts,
    /// None while its file cannot be begun anew.
    events: Option<Events>,
    stats: Stats,
    tended: Option<Time>,
    paused_until: Option<Time>,
    failing: bool,
}

impl Keeper {
    /// Opens what is kept in this directory.
    ///
    /// # Errors
    /// When it cannot be opened or made, even anew.
    pub fn open(dir: &Path, bounds: Bounds) -> Result<Self, DatabaseError> {
        let make = |cause| DatabaseError::Io { what: "make", path: dir.to_owned(), cause };
        files::make_dir(dir).map_err(make)?;
        let parts = Parts::new(dir, bounds).map_err(make)?;
        let mut stats = Stats::default();
        let events = match Events::open(dir) {
            Err(error) if error.is_damage() => {
                refuse(&error, &dir.join(events::FILE), &mut stats)?;
                Events::open(dir)?.0
            }
            other => other?.0,
        };
        let (dir, events) = (dir.to_owned(), Some(events));
        let mut keeper =
            Self { dir, bounds, parts, events, stats, tended: None, paused_until: None, failing: false };
        keeper.measure();
        Ok(keeper)
    }

    /// How far the spool was read.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.events.as_ref()?.cursor().ok().flatten()
    }

    /// Whether strangers have had their share of the part that is written to.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.parts.open().is_some_and(|part| part.rows().1 >= self.bounds.strangers())
    }

    /// Stores uses, if that can be.
    pub fn keep_uses(&mut self, gathered: &Gathered, services: &[String], veil: &Veil, now: Time) {
        let exchanges = gathered.exchanges();
        if self.paused_until.is_some_and(|until| now < until) {
            self.stats.full += exchanges;
            return;
        }
        self.paused_until = None;
        let mut result = self.try_uses(gathered, services, veil, now);
        if let Err(error) = &result
            && error.is_damage()
            && self.set_part_aside(error, now)
        {
            result = self.try_uses(gathered, services, veil, now);
        }
        match result {
            Ok(()) => {
                self.stats.stored += exchanges;
                self.tell_recovery();
            }
            Err(error) if error.is_full() => {
                self.stats.full += exchanges;
                self.paused_until = Some(now.plus(PAUSE));
                self.tell_failure(
                    "the disk is full: uses of tokens are not stored for a while, and the oldest are deleted",
                );
                let _ = self.parts.cut_oldest();
            }
            Err(error) => {
                self.stats.failed += exchanges;
                self.tell_failure(&format!("uses of tokens are not stored: {error}"));
            }
        }
    }

    fn try_uses(
        &mut self,
        gathered: &Gathered,
        services: &[String],
        veil: &Veil,
        now: Time,
    ) -> Result<(), DatabaseError> {
        let part = self.parts.at(now)?;
        let written = part.write(gathered, services, veil);
        written.map_err(DatabaseError::of(part.path()))
    }

    /// Sets a damaged part aside. Says whether another can be begun.
    fn set_part_aside(&mut self, error: &DatabaseError, now: Time) -> bool {
        let path = self.parts.open().map(|part| part.path().to_owned()).or_else(|| self.parts.expected(now));
        self.parts.let_go();
        path.is_some_and(|path| refuse(error, &path, &mut self.stats).is_ok())
    }

    /// Stores events and how far the spool was read with them. False if that could not be: then they come again.
    pub fn keep_events(&mut self, events: &[Arc<Told>], next: &Cursor) -> bool {
        loop {
            let Some(kept) = &mut self.events else {
                if !self.begin_events() {
                    return false;
                }
                continue;
            };
            let error = match kept.add(events, next) {
                Ok(()) => {
                    self.stats.events += events.len() as u64;
                    return true;
                }
                Err(error) => error,
            };
            if is_damage(&error) {
                return self.refuse_events(error) && self.keep_events(events, next);
            }
            // Alerts are worth more than any use.
            let made_room = is_full(&error)
                && (self.parts.cut_oldest().unwrap_or(false) || self.parts.cut_open().unwrap_or(false));
            if !made_room {
                self.tell_failure(&format!("alerts wait in the spool, they cannot be stored: {error}"));
                return false;
            }
        }
    }

    /// Sets the damaged file aside. It is closed first: its log is deleted by its name.
    fn refuse_events(&mut self, cause: rusqlite::Error) -> bool {
        let path = self.dir.join(events::FILE);
        self.events = None;
        let error = DatabaseError::Sqlite { path: path.clone(), cause };
        refuse(&error, &path, &mut self.stats).is_ok() && self.begin_events()
    }

    fn begin_events(&mut self) -> bool {
        match Events::open(&self.dir) {
            Ok((events, _)) => {
                self.events = Some(events);
                true
            }
            Err(error) => {
                self.tell_failure(&format!("alerts wait in the spool, they cannot be stored: {error}"));
                false
            }
        }
    }

    /// Keeps the bounds, at most once a minute of data.
    pub fn tend(&mut self, now: Time) {
        if self.tended.is_some_and(|tended| now.since(tended) < TEND && now >= tended) {
            return;
        }
        self.tended = Some(now);
        let alerts_ms = u64::try_from(self.bounds.alerts_for.as_millis()).unwrap_or(u64::MAX);
        let cutoff = now.millis().saturating_sub(alerts_ms);
        let expired = self.parts.expire(now).map_err(|error| error.to_string());
        let expired = expired.and_then(|()| {
            let Some(events) = &mut self.events else { return Ok(()) };
            while events.expire(cutoff).map_err(|error| error.to_string())? > 0 {}
            Ok(())
        });
        if let Err(error) = expired.and_then(|()| self.keep_to_bytes()) {
            self.tell_failure(&format!("what is too old or too much cannot be deleted: {error}"));
        }
        self.measure();
    }

    /// Deletes the oldest uses while there is too much, then the least severe events beyond half of the bytes.
    fn keep_to_bytes(&mut self) -> Result<(), String> {
        let events = self.dir.join(events::FILE);
        while self.parts.bytes() + database::bytes(&events) > self.bounds.max_bytes {
            if self.parts.cut_oldest().map_err(|error| error.to_string())? {
                continue;
            }
            let too_many = database::bytes(&events) > self.bounds.max_bytes / 2;
            let gone = match &mut self.events {
                Some(events) if too_many => events.cut().map_err(|error| error.to_string())?,
                _ => 0,
            };
            self.stats.events_cut += gone as u64;
            if gone == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn measure(&mut self) {
        self.stats.bytes = self.parts.bytes() + database::bytes(&self.dir.join(events::FILE));
        let events = self.events.as_ref().and_then(|events| events.rows().ok());
        self.stats.events = events.unwrap_or(self.stats.events);
        self.stats.uses = self.parts.open().map_or(0, |part| part.rows().0);
        self.stats.parts_cut = self.parts.cut;
    }

    /// What was kept and what was not; bytes and rows as of the last minute.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Folds the logs in and closes every file.
    pub fn close(self) {
        let closed = self.parts.close().and(self.events.map_or(Ok(()), Events::close));
        if let Err(error) = closed {
            tracing::warn!("the store was not closed well, and is looked at when it is opened: {error}");
        }
    }

    fn tell_failure(&mut self, what: &str) {
        if !self.failing {
            self.failing = true;
            tracing::error!(
                "store in {}: {what}; make room, or see `state.dir` and `store.max_bytes`",
                self.dir.display()
            );
        }
    }

    fn tell_recovery(&mut self) {
        if self.failing {
            self.failing = false;
            tracing::info!("store in {}: uses of tokens are stored again", self.dir.display());
        }
    }
}

fn refuse(error: &DatabaseError, path: &Path, stats: &mut Stats) -> Result<(), DatabaseError> {
    let io = |cause| DatabaseError::Io { what: "set aside", path: path.to_owned(), cause };
    let aside = database::set_aside(path).map_err(io)?;
    stats.refused += 1;
    tracing::warn!("{error}; it was set aside as {}, and is begun anew", aside.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::seen::Seen;
    use crate::spool::LANES;
    use crate::store::staging::{DAY_S, bounds, keep_by, seen, token, veil};
    use crate::store::trace::{Reader, What, Window};

    fn uses(second: u64, many: u64) -> Vec<Seen> {
        let alice = token(1, "alice");
        let route = |n| format!("GET /r{second}/{n}");
        (0..many).map(|n| seen(second, &[&alice], "10.0.3.7", &route(n), 200)).collect()
    }

    fn count(dir: &Path) -> u64 {
        let reader = Reader::open(dir, veil()).unwrap();
        let what = What::Address("10.0.3.7/32".parse().unwrap());
        reader.trace(&what, Window::EVER, 9).unwrap().totals.0.count
    }

    #[test]
    fn uses_go_when_they_are_old() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::open(dir.path(), bounds()).unwrap();
        for day in 0..30 {
            keep_by(&mut keeper, &uses(day * 86_400, 10), 10, &veil());
        }
        keeper.close();
        // Fourteen days, and what is left of the part that the oldest of them is in.
        assert_eq!(count(dir.path()), 160);
    }

    #[test]
    fn bytes_are_bounded_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds { max_bytes: 4 << 20, ..bounds() };
        let mut keeper = Keeper::open(dir.path(), bounds).unwrap();
        for minute in 0..100 {
            keep_by(&mut keeper, &uses(minute * 60, 1000), 1000, &veil());
            let part = bounds.part_bytes();
            assert!(keeper.stats().bytes <= bounds.max_bytes + 2 * part, "{}", keeper.stats().bytes);
        }
        assert!(keeper.stats().parts_cut > 0);
        keeper.close();
        assert!(count(dir.path()) > 1000);
    }

    #[test]
    fn a_damaged_part_is_set_aside_and_storing_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::open(dir.path(), bounds()).unwrap();
        keep_by(&mut keeper, &uses(0, 2000), 2000, &veil());
        keeper.close();
        let part = crate::store::parts::list(dir.path()).unwrap().remove(0).path;
        let file = std::fs::OpenOptions::new().write(true).open(&part).unwrap();
        file.write_all_at(&[0x5a; 64], 0).unwrap();
        drop(file);
        let mut keeper = Keeper::open(dir.path(), bounds()).unwrap();
        keep_by(&mut keeper, &uses(60, 5), 5, &veil());
        assert_eq!((keeper.stats().refused, keeper.stats().stored), (1, 5));
        keeper.close();
        assert_eq!(count(dir.path()), 5);
        let aside = std::fs::read_dir(dir.path().join("uses")).unwrap();
        assert!(aside.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".db.refused")));
    }

    #[test]
    fn damaged_alerts_are_set_aside_and_come_again_from_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::open(dir.path(), bounds()).unwrap();
        assert!(keeper.keep_events(&[], &Cursor([9; LANES])));
        keeper.close();
        std::fs::write(dir.path().join(events::FILE), "this is not a database, not even nearly one").unwrap();
        let keeper = Keeper::open(dir.path(), bounds()).unwrap();
        assert_eq!((keeper.cursor(), keeper.stats().refused), (None, 1));
        assert!(dir.path().join("store.db.refused").exists());
    }

    #[test]
    fn strangers_leave_room_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds { max_bytes: 8 << 20, ..bounds() };
        let mut keeper = Keeper::open(dir.path(), bounds).unwrap();
        let veil = veil();
        let mut gathering = crate::store::uses::Gathering::default();
        let names = vec!["shop".to_owned()];
        for flood in 0..20_u64 {
            for n in 0..5_000_u64 {
                let client =
                    std::net::Ipv4Addr::from_bits(u32::try_from(flood * 5000 + n).unwrap()).to_string();
                gathering.add(&seen(flood * 10, &[], &client, "GET /", 401), &veil);
            }
            gathering.add(&seen(flood * 10, &[&token(1, "alice")], "10.0.3.7", "GET /", 200), &veil);
            let gathered = gathering.take().unwrap();
            keeper.keep_uses(&gathered, &names, &veil, Time::from_secs(DAY_S + flood * 10));
            gathering.crowded = keeper.is_crowded();
        }
        let (rows, strangers) = keeper.parts.open().unwrap().rows();
        assert!(strangers <= bounds.strangers() + 16_001, "{strangers} of {rows}");
        assert!(gathering.blurred > 50_000);
        keeper.close();
        assert_eq!(count(dir.path()), 20, "what is vouched for is all there");
    }
}
