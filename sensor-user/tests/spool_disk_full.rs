//! A disk that is really full: a small tmpfs, mounted where nobody else sees it.
//!
//! The child is this test program again, in a mount namespace of its own, told by a variable where to mount. That takes
//! root, as the tests of the kernel half do.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that fails should say so"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Told};
use sensor_user::spool::dead::{Dead, Filter};
use sensor_user::spool::{Cursor, Draft, LANES, NotDurable, Settings, Spool, Sync};

const DIR: &str = "DISK_FULL_DIR";
const SEVERITIES: [Severity; LANES] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
/// The disk is smaller than what the spool may take, so that the disk is what gives out.
const DISK: &str = "size=6m";
const MAX_BYTES: u64 = 64 << 20;

fn open(dir: &Path) -> Spool {
    let settings = Settings { max_bytes: MAX_BYTES, max_age: Duration::from_hours(1), sync: Sync::Always };
    Spool::open(&dir.join("spool"), settings, 1000).unwrap()
}

fn put(spool: &Spool, lane: usize) -> Result<(), NotDurable> {
    let mut json = |number| format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(3000));
    let draft = Draft { time_ms: 1000, severity: SEVERITIES[lane], kind: Kind::Alert, json: &mut json };
    spool.append(&mut [draft]).map(drop)
}

/// The numbers that are there, by lane, and those that are lost.
fn drain(spool: &Spool) -> ([Vec<u64>; LANES], Vec<u64>) {
    let (mut got, mut lost, mut from) = (<[Vec<u64>; LANES]>::default(), Vec::new(), Cursor::default());
    let head = *spool.head().borrow();
    while from != Cursor([head; LANES]) {
        let read = spool.read(&from, [true; LANES], 100, 1 << 20);
        assert_ne!(read.next, from);
        for event in read.events {
            assert!(event.json().contains(&format!("\"n\":{},", event.sequence)));
            got[event.severity as usize].push(event.sequence);
        }
        lost.extend(read.lost.into_iter().flatten());
        from = read.next;
    }
    (got, lost)
}

/// Takes all that is left of the disk.
fn fill(dir: &Path) {
    let mut file = fs::File::create(dir.join("filler")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

fn severe_events_push_out_less_severe_ones(dir: &Path) {
    let spool = open(dir);
    spool.register("down", [true; LANES]);
    let mut numbers = 0;
    for _ in 0..600 {
        put(&spool, 0).unwrap();
        numbers += 1;
    }
    // More than the rest of the disk holds, less than all of it.
    for _ in 0..1700 {
        put(&spool, 3).unwrap();
        numbers += 1;
    }
    let stats = spool.stats();
    assert!(stats.evicted[0] > 0, "{stats:?}");
    assert_eq!((&stats.evicted[1..], stats.not_durable), (&[0; 3][..], 0));
    drop(spool);
    let (got, lost) = drain(&open(dir));
    assert_eq!(got[3].len(), 1700);
    assert_eq!((got[0].len() + lost.len()) as u64 + 1700, numbers);
    assert_eq!(lost.len() as u64, stats.evicted[0]);
}

fn what_finds_no_room_is_shown_and_written_later(dir: &Path) {
    let spool = open(dir);
    spool.register("down", [true; LANES]);
    for lane in [3, 2, 0, 3] {
        put(&spool, lane).unwrap();
    }
    fill(dir);
    let (mut failed, mut news) = (0, 0);
    for lane in [0, 1, 2, 3].into_iter().cycle().take(2400) {
        if let Err(error) = put(&spool, lane) {
            assert!(error.to_string().contains("make room"), "{error}");
            failed += 1;
            news += usize::from(error.news);
        }
    }
    assert!(failed > 0);
    assert_eq!(news, 1);
    assert!(spool.tick(2000).is_err());
    let stats = spool.stats();
    assert!(stats.pending > 0 && stats.not_durable >= stats.pending as u64, "{stats:?}");
    // What was evicted to make room for the more severe is told, unless it is in memory still; all else is shown.
    let (got, lost) = drain(&spool);
    let evicted = stats.evicted.iter().sum::<u64>();
    assert!(lost.len() as u64 <= evicted);
    assert_eq!(got.iter().map(Vec::len).sum::<usize>() + lost.len(), 2404);
    assert_eq!(got[3].len(), 602);
    assert_eq!(stats.evicted[3], 0);
    fs::remove_file(dir.join("filler")).unwrap();
    spool.tick(3000).unwrap();
    assert_eq!(spool.stats().pending, 0);
    put(&spool, 0).unwrap();
    drop(spool);
    let (again, lost) = drain(&open(dir));
    assert_eq!(lost.len() as u64, evicted);
    assert_eq!(again.iter().map(Vec::len).sum::<usize>() + lost.len(), 2405);
    assert_eq!(again[3], got[3]);
}

fn a_spool_opens_on_a_full_disk(dir: &Path) {
    let spool = open(dir);
    spool.register("down", [true; LANES]);
    put(&spool, 3).unwrap();
    drop(spool);
    fs::remove_file(dir.join("spool/reserve")).unwrap();
    fill(dir);
    let spool = open(dir);
    let _ = put(&spool, 3);
    assert_eq!(drain(&spool).0[3], [1, 2]);
    fs::remove_file(dir.join("filler")).unwrap();
    spool.tick(9_000_000).unwrap();
}

fn dead_letters_give_up_the_oldest_for_the_newest(dir: &Path) {
    let dead = Dead::open(&dir.join("dead"));
    let mut given_up = 0;
    for number in 1..=3000 {
        let told =
            Told::new(number, 5, Severity::High, Kind::Alert, format!("\"{}\"", "x".repeat(3000)).into());
        given_up += dead.add("siem", &told, "no", 1, 5).unwrap();
    }
    let numbers: Vec<u64> =
        dead.list(&Filter::default()).unwrap().iter().map(|(_, letter)| letter.event.sequence).collect();
    assert!(given_up > 0);
    assert_eq!(numbers, (given_up + 1..=3000).collect::<Vec<_>>());
}

type Case = (&'static str, fn(&Path));

/// The child: each case has the disk for itself.
fn child(dir: &Path) {
    let cases: [Case; 4] = [
        ("severe_events_push_out_less_severe_ones", severe_events_push_out_less_severe_ones),
        ("what_finds_no_room_is_shown_and_written_later", what_finds_no_room_is_shown_and_written_later),
        ("a_spool_opens_on_a_full_disk", a_spool_opens_on_a_full_disk),
        ("dead_letters_give_up_the_oldest_for_the_newest", dead_letters_give_up_the_oldest_for_the_newest),
    ];
    for (name, case) in cases {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(dir);
        assert!(mount.status().expect("mount").success(), "a tmpfs cannot be mounted: this test needs root");
        eprintln!("{name}");
        case(dir);
        assert!(Command::new("umount").arg(dir).status().expect("umount").success());
    }
}

#[test]
fn a_full_disk_loses_nothing_in_silence() {
    if let Some(dir) = std::env::var_os(DIR) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_loses_nothing_in_silence", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .expect("unshare (util-linux) starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\nThis test mounts a tmpfs of its own: it needs root.");
}
