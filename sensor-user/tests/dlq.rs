//! `tokenscope dlq` as people use it, beside a process that adds letters and sends them again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails should say so")]

use std::path::Path;
use std::process::{Command, Output};

use sensor_user::deliver::Letters as _;
use sensor_user::deliver::letters::Drawer;
use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Told};
use sensor_user::sink::Words;
use sensor_user::spool::dead::{self, Dead};
use serde_json::Value;

fn dlq(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenscope"));
    command.arg("dlq").args(arguments).arg("--state-dir").arg(dir);
    command.env_remove("TOKENSCOPE_CONFIG").env_remove("TOKENSCOPE_OUTPUT").output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn letters_are_listed_sent_again_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stdout(&dlq(dir.path(), &["list"])), "");
    let drawer = Drawer::new(Dead::open(&dir.path().join(dead::DIR)));
    for (sink, number) in [("siem", 4711), ("siem", 4712), ("mail", 4712)] {
        let told = Told::new(number, 5, Severity::High, Kind::Alert, r#"{"b":1,"a":2}"#.into());
        drawer.add(sink, &told, &Words::new("400: no such index"), 3, 1_795_284_245_123);
    }
    let text = stdout(&dlq(dir.path(), &["list"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], "siem  4711  2026-11-21T18:04:05.123Z  x3  High  -  400: no such index");
    let all: Value = serde_json::from_str(&stdout(&dlq(dir.path(), &["list", "-o", "json"]))).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!((&all[0]["sink"], &all[0]["event"]["a"]), (&Value::from("mail"), &Value::from(2)));

    assert_eq!(stdout(&dlq(dir.path(), &["replay", "--sink", "siem", "4712"])), "1 to be sent again\n");
    assert!(drawer.next_replay("mail").is_none());
    let told = drawer.next_replay("siem").unwrap();
    assert_eq!((told.sequence, told.json()), (4712, r#"{"b":1,"a":2}"#));
    drawer.replayed("siem");
    assert!(drawer.next_replay("siem").is_none());

    assert_eq!(dlq(dir.path(), &["replay", "99"]).status.code(), Some(2));
    assert_eq!(dlq(dir.path(), &["drop"]).status.code(), Some(2));
    assert_eq!(stdout(&dlq(dir.path(), &["drop", "4712"])), "1 dropped\n");
    assert_eq!(stdout(&dlq(dir.path(), &["list"])).lines().count(), 1);
    assert_eq!(stdout(&dlq(dir.path(), &["drop", "--all"])), "1 dropped\n");
    assert_eq!(stdout(&dlq(dir.path(), &["list"])), "");
    assert_eq!(stdout(&dlq(dir.path(), &["replay"])), "0 to be sent again\n");
}
