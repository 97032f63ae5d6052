//! Queries of the curious, the clumsy and the hostile.

use super::*;
use crate::store::keeper::Keeper;
use crate::store::staging::{DAY_S, bounds, keep, seen, token, veil};

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let alice = token(1, "alice");
    let some: Vec<_> = (0..300)
        .map(|n| {
            seen(
                n * 1000,
                &[&alice],
                "10.0.3.7",
                &format!("GET /r{}", n % 3),
                if n % 10 == 0 { 403 } else { 200 },
            )
        })
        .collect();
    keep(dir.path(), &some, 50, &veil());
    dir
}

fn ask(dir: &tempfile::TempDir, sql: &str) -> Result<Answer, QueryError> {
    query(dir.path(), sql, &Limits { rows: 1000, ..Limits::default() })
}

#[test]
fn views_join_every_part() {
    let dir = store();
    assert!(parts::list(dir.path()).unwrap().len() >= 2);
    let answer =
        ask(&dir, "SELECT principal, sum(count), sum(refused), min(first_ms) FROM uses GROUP BY 1").unwrap();
    assert_eq!(
        answer.json().to_string(),
        format!(
            r#"[{{"min(first_ms)":{},"principal":"alice","sum(count)":300,"sum(refused)":30}}]"#,
            DAY_S * 1000
        )
    );
    let answer = ask(&dir, "SELECT token, jti, count, first FROM tokens").unwrap();
    assert_eq!(
        (answer.rows.len(), answer.rows[0][1].as_str(), answer.rows[0][2].as_u64()),
        (1, Some("id-1"), Some(300))
    );
    assert_eq!(answer.rows[0][3], "2026-11-21T00:00:00.000Z");
    assert!(ask(&dir, "SELECT * FROM alerts").unwrap().rows.is_empty());
    assert!(ask(&dir, "SELECT * FROM incidents").unwrap().columns.contains(&"status".to_owned()));
}

#[test]
fn a_store_without_uses_has_the_same_views() {
    let dir = tempfile::tempdir().unwrap();
    Keeper::open(dir.path(), bounds()).unwrap().close();
    for view in ["alerts", "incidents", "uses", "tokens"] {
        assert!(ask(&dir, &format!("SELECT * FROM {view}")).unwrap().rows.is_empty());
    }
    assert!(matches!(
        query(&dir.path().join("no"), "SELECT 1", &Limits::default()),
        Err(QueryError::Nothing(_))
    ));
}

#[test]
fn documented_columns_are_those_that_there_are() {
    let dir = store();
    for view in ["alerts", "incidents", "uses", "tokens"] {
        let lines = format!("\n{VIEWS}");
        let start = lines.find(&format!("\n{view} ")).unwrap() + 1;
        let text = &lines[start..];
        let end =
            text.match_indices('\n').map(|(at, _)| at + 1).find(|at| !text[*at..].starts_with(' ')).unwrap();
        let documented = &text[..end];
        for column in ask(&dir, &format!("SELECT * FROM {view}")).unwrap().columns {
            assert!(documented.contains(&column), "{view} has {column}: {documented}");
        }
    }
}

#[test]
fn nothing_but_reading_is_allowed() {
    let dir = store();
    let outside = dir.path().join("outside.db");
    let attach = format!("ATTACH '{}' AS x", outside.display());
    let vacuum = format!("VACUUM INTO '{}'", outside.display());
    for sql in [
        attach.as_str(),
        vacuum.as_str(),
        "DETACH part0",
        "DELETE FROM events",
        "INSERT INTO meta VALUES('x', 1)",
        "UPDATE part0.uses SET count = 0",
        "CREATE TABLE x(y)",
        "CREATE TEMP TABLE x(y)",
        "CREATE TEMP TRIGGER x AFTER INSERT ON events BEGIN SELECT 1; END",
        "DROP TABLE events",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA hard_heap_limit = 0",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT fts3_tokenizer('x')",
        "BEGIN IMMEDIATE",
        "REINDEX",
        "ANALYZE",
    ] {
        let error = ask(&dir, sql).unwrap_err();
        assert!(matches!(error, QueryError::Refused | QueryError::Sql(_)), "{sql}: {error}");
    }
    assert!(!outside.exists());
    assert_eq!(ask(&dir, "SELECT sum(count) FROM uses").unwrap().rows[0][0], 300);
    assert!(matches!(ask(&dir, attach.as_str()), Err(QueryError::Refused)));
}

#[test]
fn no_query_runs_for_ever_or_fills_the_memory() {
    let dir = store();
    let limits = Limits { time: Duration::from_millis(200), rows: 10, bytes: 10_000, memory: 64 << 20 };
    let ask = |sql: &str| query(dir.path(), sql, &limits);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    assert!(matches!(ask(endless), Err(QueryError::TooLong(_))));
    let wide = "SELECT count(*) FROM uses a, uses b, uses c, uses d, uses e";
    assert!(matches!(ask(wide), Err(QueryError::TooLong(_))));
    for large in [
        "SELECT hex(zeroblob(1000000000))",
        "WITH RECURSIVE n(i, t) AS (SELECT 1, hex(zeroblob(1000000)) UNION ALL SELECT i + 1, t || i FROM n) SELECT max(i) FROM (SELECT i, t FROM n ORDER BY t)",
    ] {
        let error = ask(large).unwrap_err();
        assert!(matches!(error, QueryError::TooMuch | QueryError::TooLong(_)), "{error}");
    }
    let answer = ask("SELECT * FROM uses").unwrap();
    assert_eq!((answer.rows.len(), answer.cut), (10, Some("the limit of rows was reached")));
    let answer = ask("SELECT hex(zeroblob(4000)) UNION ALL SELECT hex(zeroblob(4000))").unwrap();
    assert_eq!((answer.rows.len(), answer.cut), (1, Some("the limit of bytes was reached")));
    let long = format!("SELECT {}", "1+".repeat(100_000));
    assert!(ask(&long).is_err());
    let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(ask(&deep).is_err());
}

#[test]
fn hostile_text_is_shown_and_not_obeyed() {
    let dir = store();
    let answer = ask(&dir, "SELECT char(27) || '[2J' AS \"a\nb\", '=cmd()' AS f, 'x,\"y' AS q, NULL AS n, 1.5 AS r, x'00ff' AS b").unwrap();
    let text = answer.compact();
    assert!(!text.contains('\x1b') && text.lines().count() == 2, "{text}");
    assert_eq!(answer.csv().lines().last().unwrap(), "\u{1b}[2J,'=cmd(),\"x,\"\"y\",,1.5,00ff");
    assert_eq!(answer.json()[0]["b"], "00ff");
}

#[test]
fn mistakes_are_explained() {
    let dir = store();
    let error = ask(&dir, "SELECT nonsense FROM uses").unwrap_err().to_string();
    assert!(error.contains("no such column: nonsense"), "{error}");
}
