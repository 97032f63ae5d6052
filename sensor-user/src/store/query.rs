//! SQL for those who want to know more: SELECT only, over views that stay as they are, within limits.
//!
//! Whoever may ask may be wrong or hostile: the files are opened to be read, an authorizer refuses everything but
//! reading, and time, memory, rows and bytes are bounded. Views are documented in docs/store.md; the tables beneath are
//! not, and change.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};
use serde_json::{Map, Value};

use crate::store::database::{self, DatabaseError};
use crate::store::{events, parts};
use crate::telemetry::printable;

/// Parts that are seen at most: SQLite attaches ten files.
const MOST_PARTS: usize = 10;

/// Longest statement, in bytes.
const MOST_SQL: i32 = 64 << 10;

/// Longest single value, in bytes: above the largest event.
const MOST_VALUE: i32 = 4 << 20;

/// Work between two looks at the clock, in instructions of SQLite's machine: well below a millisecond.
const STEP: i32 = 10_000;

/// What a query may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may take.
    pub time: Duration,
    /// Rows of the answer.
    pub rows: usize,
    /// Bytes of the answer.
    pub bytes: usize,
    /// Bytes of memory that SQLite may use in this process, everything together.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), rows: 10_000, bytes: 16 << 20, memory: 256 << 20 }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no store.
    #[error("there is no store in {0}: see `state.dir` and `store.enabled`, or name a --state-dir")]
    Nothing(std::path::PathBuf),
    /// It cannot be opened.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The directory cannot be read.
    #[error("the store cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It asks for more than reading.
    #[error(
        "only SELECT over the store's views is allowed: no other statement, PRAGMA or ATTACH, and no function that reaches outside"
    )]
    Refused,
    /// It took too long.
    #[error("the query took longer than {} s: ask for less, by time or LIMIT, or give it longer", .0.as_secs())]
    TooLong(Duration),
    /// It took too much memory.
    #[error("the query took too much memory: ask for less, by time or LIMIT")]
    TooMuch,
    /// It is wrong.
    #[error("{0}")]
    Sql(String),
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
    /// Why there are no more rows, if there may be more.
    pub cut: Option<&'static str>,
    /// Parts of the history that were left out: the oldest, and those that are damaged.
    pub left_out: usize,
}

/// Answers a query over the store in this directory.
///
/// # Errors
/// When there is no store, or the query is wrong, refused, or too costly.
pub fn query(dir: &Path, sql: &str, limits: &Limits) -> Result<Answer, QueryError> {
    let (mut connection, left_out) = open(dir)?;
    connection.pragma_update(None, "query_only", "ON").map_err(|error| explain(&error, limits))?;
    // For the whole process: SQLite knows no other.
    let memory = i64::try_from(limits.memory).unwrap_or(i64::MAX);
    let set = connection.query_row(&format!("PRAGMA hard_heap_limit = {memory}"), [], |_| Ok(()));
    set.map_err(|error| explain(&error, limits))?;
    restrict(&mut connection, limits).map_err(|error| explain(&error, limits))?;
    let answer = answer(&connection, sql, limits).map_err(|error| explain(&error, limits))?;
    Ok(Answer { left_out, ..answer })
}

/// The store's own file with its parts attached and the views over them. Says how many parts were left out.
fn open(dir: &Path) -> Result<(Connection, usize), QueryError> {
    let path = dir.join(events::FILE);
    if !path.exists() {
        return Err(QueryError::Nothing(dir.to_owned()));
    }
    let connection = database::read(&path, &events::SCHEMA)?;
    let failed = || DatabaseError::of(&path);
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(failed())?;
    let all = parts::list(dir)?;
    let mut left_out = all.len().saturating_sub(MOST_PARTS);
    let mut starts = Vec::new();
    for place in all.into_iter().skip(left_out) {
        let name = place.path.to_string_lossy().into_owned();
        let attached = connection.execute(&format!("ATTACH ?1 AS part{}", starts.len()), [name]);
        match attached {
            Ok(_) => starts.push(place.start_ms),
            // It was deleted meanwhile: too old.
            Err(_) if !place.path.exists() => {}
            Err(cause) if database::is_damage(&cause) => left_out += 1,
            Err(cause) => return Err(DatabaseError::of(&place.path)(cause).into()),
        }
    }
    connection.execute_batch(&views(&starts)).map_err(failed())?;
    Ok((connection, left_out))
}

fn restrict(connection: &mut Connection, limits: &Limits) -> rusqlite::Result<()> {
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, MOST_VALUE),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, MOST_SQL),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    connection.authorizer(Some(may))?;
    #[allow(clippy::disallowed_methods, reason = "how long a query takes is no matter of the data")]
    let until = Instant::now() + limits.time;
    #[allow(clippy::disallowed_methods, reason = "as above")]
    let is_over = move || Instant::now() >= until;
    connection.progress_handler(STEP, Some(is_over))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is SQLite's")]
fn may(context: AuthContext<'_>) -> Authorization {
    const OUTSIDE: [&str; 4] = ["load_extension", "fts3_tokenizer", "readfile", "writefile"];
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } => {
            let outside = OUTSIDE.iter().any(|name| function_name.eq_ignore_ascii_case(name));
            if outside { Authorization::Deny } else { Authorization::Allow }
        }
        _ => Authorization::Deny,
    }
}

fn answer(connection: &Connection, sql: &str, limits: &Limits) -> rusqlite::Result<Answer> {
    let mut statement = connection.prepare(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut answer = Answer { columns, ..Answer::default() };
    let mut bytes = 0;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if answer.rows.len() >= limits.rows {
            answer.cut = Some("the limit of rows was reached");
            break;
        }
        let mut values = Vec::with_capacity(answer.columns.len());
        for place in 0..answer.columns.len() {
            let value = value(row.get_ref(place)?);
            bytes += 16 + value.as_str().map_or(0, str::len);
            values.push(value);
        }
        if bytes > limits.bytes {
            answer.cut = Some("the limit of bytes was reached");
            break;
        }
        answer.rows.push(values);
    }
    Ok(answer)
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => {
            let mut hex = String::with_capacity(bytes.len() * 2);
            for byte in bytes {
                let _ = write!(hex, "{byte:02x}");
            }
            hex.into()
        }
    }
}

fn explain(error: &rusqlite::Error, limits: &Limits) -> QueryError {
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => QueryError::Refused,
        Some(ErrorCode::OperationInterrupted) => QueryError::TooLong(limits.time),
        Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => QueryError::TooMuch,
        _ => QueryError::Sql(error.to_string()),
    }
}

/// Milliseconds since the epoch as text that sorts.
fn time(ms: &str) -> String {
    format!("strftime('%Y-%m-%dT%H:%M:%fZ', ({ms}) / 1000.0, 'unixepoch')")
}

const SEVERITY: &str =
    "CASE severity WHEN 5 THEN 'critical' WHEN 4 THEN 'high' WHEN 3 THEN 'medium' ELSE 'low' END";

/// The views, over parts that begin then.
fn views(starts: &[u64]) -> String {
    let newest = "row = (SELECT max(row) FROM main.events n WHERE n.id = e.id)";
    let event = format!(
        "id, sequence, {} AS time, time_ms, {SEVERITY} AS severity, severity AS severity_id, rule, principal, verified,
         lower(hex(token)) AS token, address, namespace, workload, route, incident, repeats AS count, message, json",
        time("time_ms")
    );
    let incident = format!(
        "id, sequence, {} AS time, time_ms, {SEVERITY} AS severity, severity AS severity_id,
         CASE activity WHEN 3 THEN 'closed' ELSE 'open' END AS status, repeats AS count, message, json",
        time("time_ms")
    );
    let mut out = format!(
        "CREATE TEMP VIEW alerts AS SELECT {event} FROM main.events e WHERE kind = 1 AND {newest};
         CREATE TEMP VIEW incidents AS SELECT {incident} FROM main.events e WHERE kind = 2 AND {newest};"
    );
    let uses: Vec<String> = starts.iter().enumerate().map(|(part, start)| uses(part, *start)).collect();
    let tokens: Vec<String> = starts.iter().enumerate().map(|(part, start)| tokens(part, *start)).collect();
    let or_nothing = |all: Vec<String>, columns: &str| {
        if all.is_empty() {
            let nulls: Vec<String> = columns.split(", ").map(|name| format!("NULL AS {name}")).collect();
            return format!("SELECT {} WHERE 0", nulls.join(", "));
        }
        all.join(" UNION ALL ")
    };
    let _ = write!(
        out,
        "CREATE TEMP VIEW uses AS {};
         CREATE TEMP VIEW token_days AS {};
         CREATE TEMP VIEW tokens AS SELECT token, max(jti) AS jti, max(principal) AS principal, max(issuer) AS issuer,
            max(verified) AS verified, sum(count) AS count, {} AS first, {} AS last, min(first_ms) AS first_ms,
            max(last_ms) AS last_ms, sum(request_bytes) AS request_bytes, sum(response_bytes) AS response_bytes,
            sum(ok) AS ok, sum(refused) AS refused
            FROM token_days GROUP BY token;",
        or_nothing(uses, USES),
        or_nothing(tokens, TOKENS),
        time("min(first_ms)"),
        time("max(last_ms)"),
    );
    out
}

const USES: &str = "hour, token, principal, issuer, verified, address, service, route, beside, count, first, last, \
                    first_ms, last_ms, request_bytes, response_bytes, ok, redirected, refused, failed, errors";

const TOKENS: &str = "token, jti, principal, issuer, verified, count, first_ms, last_ms, request_bytes, \
                      response_bytes, ok, refused";

fn uses(part: usize, start: u64) -> String {
    let hour = time(&format!("({} + u.hour) * 3600000", start / 3_600_000));
    let (first, last) = (format!("{start} + u.first"), format!("{start} + u.last"));
    let (first_text, last_text) = (time(&first), time(&last));
    format!(
        "SELECT {hour} AS hour, lower(hex(t.fingerprint)) AS token, p.subject AS principal, p.issuer AS issuer,
            t.verified AS verified, a.text AS address, s.text AS service, r.text AS route, u.beside AS beside,
            u.count AS count, {first_text} AS first, {last_text} AS last, {first} AS first_ms, {last} AS last_ms,
            u.request_bytes AS request_bytes, u.response_bytes AS response_bytes, u.ok AS ok,
            u.redirected AS redirected, u.refused AS refused, u.failed AS failed, u.errors AS errors
         FROM part{part}.uses u LEFT JOIN part{part}.tokens t ON t.id = u.token
            LEFT JOIN part{part}.principals p ON p.id = t.principal
            JOIN part{part}.addresses a ON a.id = u.address JOIN part{part}.names s ON s.id = u.service
            JOIN part{part}.names r ON r.id = u.route"
    )
}

fn tokens(part: usize, start: u64) -> String {
    format!(
        "SELECT lower(hex(t.fingerprint)) AS token, t.jti AS jti, p.subject AS principal, p.issuer AS issuer,
            t.verified AS verified, t.count AS count, {start} + t.first AS first_ms, {start} + t.last AS last_ms,
            t.request_bytes AS request_bytes, t.response_bytes AS response_bytes, t.ok AS ok, t.refused AS refused
         FROM part{part}.tokens t LEFT JOIN part{part}.principals p ON p.id = t.principal"
    )
}

/// The views and their columns, as `tokenscope query --schema` and docs/store.md show them.
pub const VIEWS: &str = "\
alerts     one row an alert, in its newest state
           id, sequence, time, time_ms, severity, severity_id, rule, principal, verified, token, address, namespace,
           workload, route, incident, count, message, json (the whole OCSF event)
incidents  one row an incident, in its newest state
           id, sequence, time, time_ms, severity, severity_id, status, count, message, json
uses       one row for each hour, token, client, service and route
           hour, token, principal, issuer, verified, address, service, route, beside (1: the request is counted at
           another of its tokens too), count, first, last, first_ms, last_ms, request_bytes, response_bytes, ok,
           redirected, refused, failed, errors (answers 2xx; 1xx and 3xx; 401 and 403; other 4xx; 5xx)
tokens     one row a token
           token (its fingerprint), jti, principal, issuer, verified, count, first, last, first_ms, last_ms,
           request_bytes, response_bytes, ok, refused
";

impl Answer {
    /// An array of objects.
    #[must_use]
    pub fn json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let object: Map<String, Value> = self.columns.iter().cloned().zip(row.iter().cloned()).collect();
            Value::Object(object)
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    /// Columns under their names.
    #[must_use]
    pub fn compact(&self) -> String {
        let cell = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => printable(text),
            other => other.to_string(),
        };
        let head: Vec<String> = self.columns.iter().map(|name| printable(name)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).min(80)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut out = String::new();
        for row in [&head].into_iter().chain(&rows) {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    /// Comma-separated values (RFC 4180), with a head. What a spreadsheet would take for a formula is quoted as text.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = String>| {
            out.push_str(&cells.collect::<Vec<_>>().join(","));
            out.push_str("\r\n");
        };
        line(&mut self.columns.iter().map(|name| csv_cell(name)));
        for row in &self.rows {
            line(&mut row.iter().map(|value| match value {
                Value::Null => String::new(),
                Value::String(text) => csv_cell(text),
                other => other.to_string(),
            }));
        }
        out
    }
}

fn csv_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests;
