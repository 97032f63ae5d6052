//! SQLite files of ours: made, brought to this version, checked after a crash, and set aside when they cannot be used.
//!
//! A file is for its owner only. It is written ahead (WAL) and synced when that log is folded in, so that a crash of
//! the sensor loses nothing that was stored, and a loss of power the newest seconds at most. Nothing here may open such
//! a file by other means: closing it would take away the locks of every connection that this process has.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Marks a file as ours: "`TkSc`".
const APPLICATION: i32 = 0x546b_5363;

/// How long a writer waits for another connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a file may be looked at after a crash; a longer look is broken off, and the file is believed.
const LOOK: Duration = Duration::from_secs(10);

/// Bytes of pages that a writer keeps, in KiB as SQLite wants it: the hot ends of trees of a few gigabytes.
const WRITER_CACHE: &str = "-32000";

/// Bytes to which the log is cut when it was longer.
const LOG: u64 = 8 << 20;

/// What a file holds.
#[derive(Debug)]
pub struct Schema {
    /// What it is, in words.
    pub what: &'static str,
    /// Tells kinds of files apart.
    pub kind: i32,
    /// Statements that bring version n to n + 1; the first makes everything.
    pub steps: &'static [&'static str],
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite says no.
    #[error("{path}: {cause}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        cause: rusqlite::Error,
    },
    /// The system says no.
    #[error("cannot {what} {path}: {cause}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} {problem}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl DatabaseError {
    /// SQLite's words on this file.
    pub(super) fn of(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Sqlite { path, cause }
    }

    /// Whether the file is at fault, and setting it aside helps.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Wrong { .. } => true,
            Self::Sqlite { cause, .. } => is_damage(cause),
            Self::Io { .. } => false,
        }
    }
}

impl DatabaseError {
    /// Whether there is no room left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Sqlite { cause, .. } => is_full(cause),
            Self::Io { cause, .. } => cause.kind() == io::ErrorKind::StorageFull,
            Self::Wrong { .. } => false,
        }
    }
}

/// Whether a file is damaged.
#[must_use]
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether there is no room left. A log in shared memory that cannot grow says so in words of its own.
#[must_use]
pub fn is_full(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => true,
        Some(ErrorCode::SystemIoFailure) => {
            let write = [rusqlite::ffi::SQLITE_IOERR_WRITE, rusqlite::ffi::SQLITE_IOERR_SHMSIZE];
            error.sqlite_error().is_some_and(|error| write.contains(&error.extended_code))
        }
        _ => false,
    }
}

/// Opens a file for its one writer, and makes it if it is not there. Says whether it is new.
///
/// # Errors
/// When it cannot be opened; if [`DatabaseError::is_damage`], it may be [set aside](set_aside).
pub fn open(path: &Path, schema: &Schema) -> Result<(Connection, bool), DatabaseError> {
    let failed = || DatabaseError::of(path);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            return Err(DatabaseError::Io { what: "make", path: path.to_owned(), cause });
        }
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed())?;
    connection.busy_timeout(PATIENCE).map_err(failed())?;
    let set = |name: &str, value: &str| connection.pragma_update(None, name, value);
    let is_new = version(&connection).map_err(failed())? == (0, 0);
    if is_new {
        set("auto_vacuum", "INCREMENTAL").map_err(failed())?;
    }
    set("journal_mode", "WAL").map_err(failed())?;
    set("synchronous", "NORMAL").map_err(failed())?;
    set("cache_size", WRITER_CACHE).map_err(failed())?;
    set("temp_store", "MEMORY").map_err(failed())?;
    set("foreign_keys", "OFF").map_err(failed())?;
    set("trusted_schema", "OFF").map_err(failed())?;
    set("journal_size_limit", &LOG.to_string()).map_err(failed())?;
    check(&connection, path, schema)?;
    if !is_new && !closed_well(&connection).map_err(failed())? {
        look(&mut connection, path)?;
    }
    bring_to_version(&mut connection, schema).map_err(failed())?;
    keep(&connection, "closed_well", 0).map_err(failed())?;
    Ok((connection, is_new))
}

/// Folds the log in and notes that all is well.
///
/// # Errors
/// When it cannot be written; the next to open it takes a look at it then.
pub fn close(connection: Connection) -> rusqlite::Result<()> {
    keep(&connection, "closed_well", 1)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

/// Opens a file to read it. A copy in a place where nothing can be written is read all the same.
///
/// # Errors
/// When it cannot be opened, or is not of this kind and version.
pub fn read(path: &Path, schema: &Schema) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |name: &str, flags| {
        let connection = Connection::open_with_flags(name, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        version(&connection)?;
        Ok::<_, rusqlite::Error>(connection)
    };
    let name = path.to_string_lossy();
    let connection = match open(&name, flags) {
        // A WAL file needs a file beside it, unless nobody writes to it any more.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !has_log(path) => {
            open(&as_immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)
        }
        other => other,
    };
    let connection = connection.map_err(DatabaseError::of(path))?;
    check(&connection, path, schema)?;
    let (_, found) = version(&connection).map_err(DatabaseError::of(path))?;
    let wanted = newest(schema);
    if found != wanted {
        let problem =
            format!("is of version {found}, and this program reads version {wanted}: start the sensor once");
        return Err(DatabaseError::Wrong { path: path.to_owned(), problem });
    }
    Ok(connection)
}

/// The name by which SQLite takes a file that nobody changes.
fn as_immutable(path: &Path) -> String {
    let mut name = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            name.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name + "?immutable=1"
}

fn has_log(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Renames a file that cannot be used, with its log, so that the next one does not overwrite it. Gives its new name.
///
/// # Errors
/// When it cannot be renamed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".refused");
    fs::rename(path, &aside)?;
    for log in ["-wal", "-shm"] {
        match fs::rename(beside(path, log), beside(&aside, log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Deletes a file and what is beside it.
///
/// # Errors
/// When it is there and cannot be deleted.
pub fn delete(path: &Path) -> io::Result<()> {
    for path in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes of a file and its log.
#[must_use]
pub fn bytes(path: &Path) -> u64 {
    [path.to_owned(), beside(path, "-wal")]
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| meta.len())
        .sum()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The kind of a file, and its version.
fn version(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((pragma("application_id")?, pragma("user_version")?))
}

fn newest(schema: &Schema) -> i32 {
    i32::try_from(schema.steps.len()).unwrap_or(i32::MAX)
}

fn check(connection: &Connection, path: &Path, schema: &Schema) -> Result<(), DatabaseError> {
    let wrong = |problem| Err(DatabaseError::Wrong { path: path.to_owned(), problem });
    match version(connection).map_err(DatabaseError::of(path))? {
        (0, 0) => Ok(()),
        (kind, _) if kind != APPLICATION + schema.kind => wrong(format!("is not {}", schema.what)),
        (_, found) if found > newest(schema) => {
            wrong(format!("is of version {found}, which is newer than this program"))
        }
        _ => Ok(()),
    }
}

fn bring_to_version(connection: &mut Connection, schema: &Schema) -> rusqlite::Result<()> {
    let (_, found) = version(connection)?;
    let done = usize::try_from(found).unwrap_or(0);
    for (step, number) in schema.steps.iter().zip(1_i32..).skip(done) {
        let all = connection.transaction()?;
        all.execute_batch(step)?;
        all.pragma_update(None, "application_id", APPLICATION + schema.kind)?;
        all.pragma_update(None, "user_version", number)?;
        all.commit()?;
    }
    Ok(())
}

fn closed_well(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(kept(connection, "closed_well")?.is_none_or(|well| well == 1))
}

/// Takes a look at a file whose last writer died.
fn look(connection: &mut Connection, path: &Path) -> Result<(), DatabaseError> {
    #[allow(clippy::disallowed_methods, reason = "how long to look is no matter of the data")]
    let until = Instant::now() + LOOK;
    #[allow(clippy::disallowed_methods, reason = "as above")]
    let enough = move || Instant::now() >= until;
    connection.progress_handler(10_000, Some(enough)).map_err(DatabaseError::of(path))?;
    let said = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>).map_err(DatabaseError::of(path))?;
    match said {
        Ok(said) if said == "ok" => Ok(()),
        Ok(_) => Err(DatabaseError::Wrong { path: path.to_owned(), problem: "is damaged".into() }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(()),
        Err(cause) => Err(DatabaseError::Sqlite { path: path.to_owned(), cause }),
    }
}

/// A single number of the table `meta`, which every file has.
pub(super) fn kept(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    use rusqlite::OptionalExtension as _;
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

/// Keeps a single number there.
pub(super) fn keep(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value";
    connection.execute(sql, rusqlite::params![name, value]).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ONE: Schema = Schema {
        what: "a test",
        kind: 77,
        steps: &[
            "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID; CREATE TABLE a(b);",
        ],
    };
    const TWO: Schema = Schema {
        what: "a test",
        kind: 77,
        steps: &[
            "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID; CREATE TABLE a(b);",
            "ALTER TABLE a ADD COLUMN c DEFAULT 5;",
        ],
    };

    #[test]
    fn a_file_is_for_its_owner_and_grows_with_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let (connection, is_new) = open(&path, &ONE).unwrap();
        assert!(is_new);
        connection.execute("INSERT INTO a VALUES(1)", []).unwrap();
        for name in ["x.db", "x.db-wal", "x.db-shm"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        close(connection).unwrap();
        assert!(read(&path, &TWO).unwrap_err().to_string().contains("start the sensor once"));
        let (connection, is_new) = open(&path, &TWO).unwrap();
        assert!(!is_new);
        assert_eq!(connection.query_row("SELECT c FROM a", [], |row| row.get::<_, i64>(0)).unwrap(), 5);
        close(connection).unwrap();
        assert!(open(&path, &ONE).unwrap_err().is_damage(), "newer than the program");
        read(&path, &TWO).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        for foreign in [&b"not a database, but text that is long enough to be looked at as a header ......................."[..], b"SQLite format 3\0 and then nonsense"] {
            fs::write(&path, foreign).unwrap();
            assert!(open(&path, &ONE).unwrap_err().is_damage());
            assert_eq!(set_aside(&path).unwrap(), dir.path().join("x.db.refused"));
            assert!(!path.exists());
        }
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE a(b); PRAGMA user_version = 1;").unwrap();
        drop(other);
        assert!(open(&path, &ONE).unwrap_err().to_string().contains("is not a test"));
    }

    #[test]
    fn damage_is_found_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let (connection, _) = open(&path, &ONE).unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                    INSERT INTO a SELECT hex(randomblob(50)) FROM n";
        connection.execute(fill, []).unwrap();
        close(connection).unwrap();
        let (connection, _) = open(&path, &ONE).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        assert!(open(&path, &ONE).unwrap_err().is_damage());
    }

    #[test]
    fn a_copy_is_read_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b%20?.db");
        close(open(&path, &ONE).unwrap().0).unwrap();
        let immutable = Connection::open_with_flags(
            as_immutable(&path),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        );
        assert_eq!(version(&immutable.unwrap()).unwrap().1, 1);
    }
}
