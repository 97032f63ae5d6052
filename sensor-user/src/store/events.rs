//! Alerts and incidents as they were told, to be searched: every event of each, and its newest state by a view.
//!
//! How far the spool was read is kept in the same transaction as what was read, so that each event is stored once.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ToSql, params};

use crate::detect::Severity;
use crate::render::{Kind, Told};
use crate::spool::{Cursor, LANES};
use crate::store::database::{self, DatabaseError, Schema};

/// The store's own file.
pub const FILE: &str = "store.db";

/// Pages of the log from which on it is folded in: 1 MiB, so that little of a small disk is spent on it.
const LOG_PAGES: i64 = 256;

/// Events that are deleted at once, so that the log stays small.
const TOGETHER: u32 = 500;

pub(super) const SCHEMA: Schema = Schema { what: "a store of alerts", kind: 0, steps: &[STEP_1] };

const STEP_1: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE events(row INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL, severity INTEGER NOT NULL, activity INTEGER NOT NULL, id TEXT NOT NULL, rule TEXT NOT NULL,
    principal TEXT, verified INTEGER, token BLOB, address TEXT, namespace TEXT, workload TEXT, route TEXT,
    incident TEXT, repeats INTEGER NOT NULL, message TEXT NOT NULL, json TEXT NOT NULL,
    UNIQUE(sequence, time_ms, id));
CREATE INDEX events_id ON events(id, row);
CREATE INDEX events_time ON events(time_ms);
CREATE INDEX events_severity ON events(severity, time_ms);
CREATE INDEX events_principal ON events(principal) WHERE principal IS NOT NULL;
CREATE INDEX events_token ON events(token) WHERE token IS NOT NULL;
CREATE INDEX events_address ON events(address) WHERE address IS NOT NULL;
CREATE INDEX events_incident ON events(incident) WHERE incident IS NOT NULL;
";

/// The events, open for their one writer.
#[derive(Debug)]
pub struct Events {
    connection: Connection,
}

impl Events {
    /// Opens them, and says whether they are new.
    ///
    /// # Errors
    /// As [`database::open`].
    pub fn open(dir: &Path) -> Result<(Self, bool), DatabaseError> {
        let (connection, is_new) = database::open(&dir.join(FILE), &SCHEMA)?;
        let set = connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES);
        set.map_err(DatabaseError::of(&dir.join(FILE)))?;
        Ok((Self { connection }, is_new))
    }

    /// How far the spool was read; none if it never was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cursor(&self) -> rusqlite::Result<Option<Cursor>> {
        let mut cursor = Cursor::default();
        for (lane, place) in cursor.0.iter_mut().enumerate() {
            let Some(number) = database::kept(&self.connection, LANE.get(lane).copied().unwrap_or_default())?
            else {
                return Ok(None);
            };
            *place = u64::try_from(number).unwrap_or_default();
        }
        Ok(Some(cursor))
    }

    /// Stores events and how far the spool was read with them, all or none. One that is there already stays as it is.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&mut self, events: &[Arc<Told>], next: &Cursor) -> rusqlite::Result<()> {
        let all = self.connection.transaction()?;
        {
            let mut add = all.prepare(
                "INSERT OR IGNORE INTO events(sequence, time_ms, kind, severity, activity, id, rule, principal, verified,
                    token, address, namespace, workload, route, incident, repeats, message, json)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )?;
            for told in events {
                add_event(&mut add, told)?;
            }
        }
        for (name, number) in LANE.iter().zip(next.0) {
            database::keep(&all, name, i64::try_from(number).unwrap_or(i64::MAX))?;
        }
        all.commit()
    }

    /// Deletes what is older, and gives room back. Says how many went.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn expire(&mut self, before_ms: u64) -> rusqlite::Result<usize> {
        let before = i64::try_from(before_ms).unwrap_or(i64::MAX);
        let sql = "DELETE FROM events WHERE row IN (SELECT row FROM events WHERE time_ms < ?1 ORDER BY time_ms LIMIT ?2)";
        self.delete(sql, params![before, TOGETHER])
    }

    /// Deletes some of the least severe, oldest first. Says how many went.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn cut(&mut self) -> rusqlite::Result<usize> {
        let sql =
            "DELETE FROM events WHERE row IN (SELECT row FROM events ORDER BY severity, time_ms LIMIT ?1)";
        self.delete(sql, params![TOGETHER])
    }

    fn delete(&mut self, sql: &str, which: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        let gone = self.connection.execute(sql, which)?;
        if gone > 0 {
            // Each step gives a page back.
            let mut pages = self.connection.prepare("PRAGMA incremental_vacuum")?;
            let mut pages = pages.query([])?;
            while pages.next()?.is_some() {}
            drop(pages);
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(gone)
    }

    /// How many there are.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn rows(&self) -> rusqlite::Result<u64> {
        let rows: i64 = self.connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
        Ok(u64::try_from(rows).unwrap_or_default())
    }

    /// Folds the log in and closes.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn close(self) -> rusqlite::Result<()> {
        database::close(self.connection)
    }
}

/// Where the place in each lane is kept.
const LANE: [&str; LANES] = ["lane_low", "lane_medium", "lane_high", "lane_critical"];

fn add_event(add: &mut rusqlite::Statement<'_>, told: &Told) -> rusqlite::Result<()> {
    let plain = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let value = told.value();
    let number = |place: &str| value.pointer(place).and_then(serde_json::Value::as_u64);
    add.execute(params![
        plain(told.sequence),
        plain(told.time_ms),
        kind_number(told.kind),
        i64::from(told.severity.id()),
        plain(number("/activity_id").unwrap_or_default()),
        told.id(),
        told.rule(),
        told.principal(),
        value.pointer("/unmapped/verified").and_then(serde_json::Value::as_bool),
        told.token().and_then(crate::store::trace::digits),
        told.address(),
        told.namespace(),
        told.workload(),
        told.text("/evidences/0/api/operation"),
        told.text("/metadata/correlation_uid"),
        plain(number("/count").unwrap_or(1)),
        told.message(),
        told.json(),
    ])
    .map(drop)
}

const fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Alert => 1,
        Kind::Incident => 2,
    }
}

/// Events behind this number that happened in this time, oldest first, at most so many.
///
/// # Errors
/// When they cannot be read.
pub fn told(
    connection: &Connection,
    after: u64,
    from_ms: u64,
    until_ms: u64,
    most: usize,
) -> rusqlite::Result<Vec<Told>> {
    page(connection, after.saturating_add(1)..u64::MAX, (from_ms, until_ms), false, most)
}

/// Events with these numbers that happened in this time, at most so many: the last of them, newest first, or the first of
/// them, oldest first.
///
/// # Errors
/// When they cannot be read.
pub fn page(
    connection: &Connection,
    numbers: std::ops::Range<u64>,
    (from_ms, until_ms): (u64, u64),
    newest: bool,
    most: usize,
) -> rusqlite::Result<Vec<Told>> {
    let plain = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let order = if newest { "sequence DESC, row DESC" } else { "sequence, row" };
    let mut events = connection.prepare(&format!(
        "SELECT sequence, time_ms, severity, kind, json FROM events
         WHERE sequence >= ?1 AND sequence < ?2 AND time_ms BETWEEN ?3 AND ?4 ORDER BY {order} LIMIT ?5"
    ))?;
    let range = params![
        plain(numbers.start),
        plain(numbers.end),
        plain(from_ms),
        plain(until_ms),
        plain(most as u64)
    ];
    events.query_map(range, read)?.collect()
}

/// One row as it was told.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Told> {
    let number =
        |place: usize| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(place)?).unwrap_or(0));
    let severity = match number(2)? {
        5 => Severity::Critical,
        4 => Severity::High,
        3 => Severity::Medium,
        _ => Severity::Low,
    };
    let kind = if number(3)? == 2 { Kind::Incident } else { Kind::Alert };
    let json: String = row.get(4)?;
    Ok(Told::new(number(0)?, number(1)?, severity, kind, json.into_boxed_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn event(sequence: u64, time_ms: u64, severity: Severity) -> Arc<Told> {
        let json = format!(
            r#"{{"activity_id":1,"count":3,"message":"m","finding_info":{{"uid":"01{sequence:024}","analytic":{{"uid":"alg-none"}}}},
            "evidences":[{{"actor":{{"user":{{"uid":"alice"}},"session":{{"uid":"9f2c41d0a7b3e8659f2c41d0a7b3e865"}}}},
            "src_endpoint":{{"ip":"10.0.3.7"}},"dst_endpoint":{{"name":"shop/orders"}}}}],"unmapped":{{"verified":true}}}}"#
        )
        .replace('\n', "");
        Arc::new(Told::new(sequence, time_ms, severity, Kind::Alert, json.into_boxed_str()))
    }

    fn cursor(number: u64) -> Cursor {
        Cursor([number; LANES])
    }

    #[test]
    fn events_are_stored_once_with_the_place_in_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let (mut events, is_new) = Events::open(dir.path()).unwrap();
        assert!(is_new && events.cursor().unwrap().is_none());
        let some: Vec<_> = (1..=5).map(|number| event(number, number * 1000, Severity::High)).collect();
        events.add(&some[..3], &cursor(3)).unwrap();
        events.add(&some[1..], &cursor(5)).unwrap();
        assert_eq!((events.rows().unwrap(), events.cursor().unwrap()), (5, Some(cursor(5))));
        events.close().unwrap();
        let (events, is_new) = Events::open(dir.path()).unwrap();
        assert!(!is_new);
        let read = told(&events.connection, 1, 0, 4000, 2).unwrap();
        let numbers: Vec<u64> = read.iter().map(|told| told.sequence).collect();
        assert_eq!(numbers, [2, 3]);
        assert_eq!((read[0].json(), read[0].severity), (some[1].json(), Severity::High));
    }

    #[test]
    fn the_least_severe_and_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let (mut events, _) = Events::open(dir.path()).unwrap();
        let severity = |n: u64| if n.is_multiple_of(2) { Severity::Critical } else { Severity::Low };
        let some: Vec<_> = (1..=2000).map(|number| event(number, number * 1000, severity(number))).collect();
        events.add(&some, &cursor(2000)).unwrap();
        let before = database::bytes(&dir.path().join(FILE));
        assert_eq!(events.cut().unwrap(), 500);
        assert_eq!(events.cut().unwrap(), 500);
        let left = told(&events.connection, 0, 0, u64::MAX, 5000).unwrap();
        assert!(left.len() == 1000 && left.iter().all(|told| told.severity == Severity::Critical));
        assert!(database::bytes(&dir.path().join(FILE)) < before, "room is given back");
        assert_eq!(events.expire(1_000_000).unwrap(), 499);
        assert_eq!(events.expire(1_000_000).unwrap(), 0);
    }
}
