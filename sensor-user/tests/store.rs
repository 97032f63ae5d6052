//! The store as its users meet it: the commands that ask it, restarts, and a disk without room.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails should say so"
)]

#[path = "store/made.rs"]
mod made;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Privacy, Told};
use sensor_user::seen::Seen;
use sensor_user::spool::{Cursor, LANES};
use sensor_user::store::keeper::Keeper;
use sensor_user::store::parts::Bounds;
use sensor_user::store::uses::Gathering;
use sensor_user::store::veil::Veil;
use sensor_user::token::hash::Namer;

const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const RAW: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";

fn bounds() -> Bounds {
    let day = Duration::from_hours(24);
    Bounds { max_bytes: 1 << 30, uses_for: 14 * day, alerts_for: 365 * day }
}

fn veil() -> Veil {
    Veil::new(KEY, Privacy::default(), false)
}

fn keep(keeper: &mut Keeper, exchanges: &[Seen]) {
    let mut gathering = Gathering::default();
    for seen in exchanges {
        gathering.add(seen, &veil());
    }
    let now = exchanges.last().unwrap().at;
    let gathered = gathering.take().unwrap();
    let names: Vec<String> =
        gathered.services.iter().map(|(service, _)| service.address.to_string()).collect();
    keeper.keep_uses(&gathered, &names, &veil(), now);
    keeper.tend(now);
}

fn event(sequence: u64, bytes: usize) -> Arc<Told> {
    let json = serde_json::json!({
        "activity_id": 1, "count": 1, "message": "alg \"none\" accepted",
        "finding_info": {"uid": format!("01{sequence:024}"), "analytic": {"uid": "alg-none"}},
        "evidences": [{"actor": {"user": {"uid": "alice"}}, "src_endpoint": {"ip": "10.0.3.7"}}],
        "unmapped": {"fill": "x".repeat(bytes)},
    });
    let json = json.to_string().into_boxed_str();
    Arc::new(Told::new(sequence, made::DAY_S * 1000 + sequence, Severity::Critical, Kind::Alert, json))
}

/// A state directory with one token of alice's and one alert.
fn state() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fingerprint.key"), KEY).unwrap();
    let name = Namer::new(Some(KEY)).unwrap().name(RAW.as_bytes());
    let token = made::token(u128::from_be_bytes(name.0), "alice", Some("j-1".into()));
    let route: Arc<str> = "GET /orders/{id}".into();
    let mut keeper = Keeper::open(dir.path(), bounds()).unwrap();
    for minute in 0..60 {
        let client = [10, 0, 3, 7 + u8::try_from(minute % 2).unwrap()].into();
        keep(&mut keeper, &[made::seen(minute * 60_000, Some(&token), client, &route, 8080)]);
    }
    assert!(keeper.keep_events(&[event(1, 0)], &Cursor([1; LANES])));
    keeper.close();
    dir
}

fn tokenscope(state: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenscope"));
    command.args(arguments).arg("--state-dir").arg(state).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_raw_token_is_traced_from_standard_input_only() {
    let state = state();
    let name = Namer::new(Some(KEY)).unwrap().name(RAW.as_bytes()).to_string();
    for input in [RAW.to_owned(), format!("Bearer {RAW}\n")] {
        let output = tokenscope(state.path(), &["trace", "-"], &input);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(said.starts_with(&format!("token {name}  (verified)\n")), "{said}");
        assert!(
            said.contains("60 requests") && said.contains("addresses (2)") && said.contains("alice"),
            "{said}"
        );
    }
    let output = tokenscope(state.path(), &["trace", RAW], "");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("standard input") && !said.contains("eyJ"), "{said}");
}

#[test]
fn traces_answer_programs_too() {
    let state = state();
    for what in ["alice", "10.0.3.7", "10.0.3.0/24", "jti:j-1"] {
        let output = tokenscope(state.path(), &["trace", what, "-o", "json"], "");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let requests = if what == "10.0.3.7" { 30 } else { 60 };
        assert_eq!(answer["count"], requests, "{what}: {answer}");
        assert_eq!(answer["routes"]["items"][0]["name"], "GET /orders/{id}");
        assert_eq!(answer["routes"]["items"][0]["count"], requests);
        assert_eq!(answer["answers"]["ok"], requests);
        assert_eq!(answer["first"].as_str().unwrap().len(), 24);
        let alerts = answer["alerts"].as_array().unwrap().len();
        assert_eq!(alerts, usize::from(what != "jti:j-1"), "{what}: {answer}");
    }
    let output = tokenscope(state.path(), &["trace", "alice", "--since", "2026-11-21T00:30:00Z"], "");
    assert!(text(&output.stdout).contains("60 requests"), "{}", text(&output.stdout));
    let output = tokenscope(state.path(), &["trace", "alice", "--since", "2027-01-01"], "");
    assert!(text(&output.stdout).contains("no use of it is known"));
    for wrong in [&["trace", "alice", "--since", "soon"][..], &["trace", "alice", "-o", "ecs"]] {
        assert_eq!(tokenscope(state.path(), wrong, "").status.code(), Some(2));
    }
}

#[test]
fn queries_are_answered_in_three_forms() {
    let state = state();
    let sql = "SELECT address, sum(count) AS n FROM uses GROUP BY 1 ORDER BY 1";
    let compact = tokenscope(state.path(), &["query", sql], "");
    assert_eq!(
        text(&compact.stdout),
        "address   n\n10.0.3.7  30\n10.0.3.8  30\n",
        "{}",
        text(&compact.stderr)
    );
    let json = tokenscope(state.path(), &["query", sql, "-o", "json"], "");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[1]["n"], 30);
    let csv = tokenscope(state.path(), &["query", sql, "--csv"], "");
    assert_eq!(text(&csv.stdout), "address,n\r\n10.0.3.7,30\r\n10.0.3.8,30\r\n");
    let cut = tokenscope(state.path(), &["query", sql, "--limit", "1"], "");
    assert!(text(&cut.stderr).contains("limit of rows"));
    let schema = tokenscope(state.path(), &["query", "--schema"], "");
    assert!(text(&schema.stdout).contains("principal"));
    for wrong in ["DROP TABLE events", "SELECT nonsense", "ATTACH '/etc/passwd' AS x"] {
        let output = tokenscope(state.path(), &["query", wrong], "");
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    let nowhere = tempfile::tempdir().unwrap();
    let output = tokenscope(nowhere.path(), &["query", "SELECT 1"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no store"));
}

#[test]
fn asking_does_not_disturb_the_writer() {
    let state = state();
    let mut keeper = Keeper::open(state.path(), bounds()).unwrap();
    let route: Arc<str> = "GET /".into();
    for minute in 0..5 {
        keep(
            &mut keeper,
            &[made::seen(7_200_000 + minute * 60_000, None, [10, 0, 3, 99].into(), &route, 8080)],
        );
        let output = tokenscope(state.path(), &["trace", "10.0.3.99", "-o", "json"], "");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["count"], minute + 1);
    }
    assert_eq!((keeper.stats().stored, keeper.stats().failed), (5, 0));
    keeper.close();
}

/// A disk of 8 MiB that nothing else writes to: mounted where only a child of this test sees it.
#[test]
fn a_full_disk_costs_detail_and_no_alert() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let script =
        "mount -t tmpfs -o size=8m tmpfs \"$STORE_DISK\" && exec \"$0\" --ignored --exact inside_a_full_disk";
    let output = Command::new("unshare")
        .args(["-m", "--", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("STORE_DISK", place)
        .output()
        .unwrap_or_else(|error| panic!("unshare (util-linux) is needed: {error}"));
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success() && said.contains("1 passed"),
        "root is needed to mount a small disk: {said}"
    );
}

#[test]
#[ignore = "run by a_full_disk_costs_detail_and_no_alert, on a disk of its own"]
fn inside_a_full_disk() {
    let dir = std::path::PathBuf::from(std::env::var_os("STORE_DISK").unwrap());
    let dir = dir.join("state");
    let mut keeper = Keeper::open(&dir, bounds()).unwrap();
    let route: Arc<str> = "GET /".into();
    let mut minute = 0_u64;
    // Uses over several parts until there is no room.
    while keeper.stats().full == 0 {
        let some: Vec<Seen> = (0..500_u64)
            .map(|n| {
                let address = u32::try_from(minute * 500 + n).unwrap();
                made::seen(
                    minute * 7_200_000 + n,
                    None,
                    std::net::Ipv4Addr::from_bits(address).into(),
                    &route,
                    8080,
                )
            })
            .collect();
        keep(&mut keeper, &some);
        minute += 1;
        assert!(minute < 5000, "the disk is never full");
    }
    assert!(keeper.stats().stored > 1000);
    // Alerts push out every use before one of them finds no room.
    let mut kept = 0;
    let lanes = |number: u64| Cursor([number; LANES]);
    while keeper.keep_events(&[event(kept + 1, 2000)], &lanes(kept + 1)) {
        kept += 1;
        assert!(kept < 100_000, "the disk is never full");
    }
    assert!(kept > 1000, "{kept} alerts of 2 KiB fit 8 MiB, with their indexes and log");
    let uses = std::fs::read_dir(dir.join("uses")).unwrap().count();
    assert_eq!(uses, 0, "no use is worth more than an alert");
    assert_eq!(keeper.cursor(), Some(lanes(kept)));
    // What does not fit waits in the spool; what is there stays, also through a restart.
    keeper.close();
    let larger = ["-o", "remount,size=16m"];
    assert!(Command::new("mount").args(larger).arg(dir.parent().unwrap()).status().unwrap().success());
    let mut keeper = Keeper::open(&dir, bounds()).unwrap();
    assert!(keeper.keep_events(&[event(kept + 1, 2000)], &lanes(kept + 1)), "with room it goes on");
    kept += 1;
    keeper.tend(sensor_user::capture::Time((made::DAY_S + 86_400 * 30) * 1_000_000_000));
    assert_eq!((keeper.stats().events, keeper.cursor()), (kept, Some(lanes(kept))));
}
