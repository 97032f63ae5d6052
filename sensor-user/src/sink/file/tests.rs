//! Tests of the file: it is turned over, mended and never left with half a line.

use std::io::Read as _;
use std::path::Path;

use super::*;
use crate::alert::staging::alert;
use crate::alert::{Alert, Event};
use crate::capture::Time;
use crate::detect::Severity;

const DAY_MS: u64 = 86_400_000;
const NOW: u64 = 1_795_284_245_123;

fn told(sequence: u64, time_ms: u64) -> Arc<Told> {
    let alert = Alert { last_seen: Time(time_ms * 1_000_000), ..alert() };
    Arc::new(Told::of(&Event::Alert(Box::new(alert)), Some(sequence), Some(&Node::named("me"))))
}

fn settings(path: &Path) -> Settings {
    Settings {
        path: Pattern::new(path).unwrap(),
        format: Format::Ocsf,
        max_bytes: None,
        every: Grain::None,
        keep: 3,
        packing: Packing::None,
        sync: true,
        zone: TimeZone::UTC,
    }
}

fn sink(settings: &Settings) -> Lines {
    Lines::new(settings.clone(), "me".into())
}

fn sequences(text: &str) -> Vec<u64> {
    assert!(text.is_empty() || text.ends_with('\n'));
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(|line| read(line)["metadata"]["sequence"].as_u64().unwrap()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn lines_are_appended_and_readable_by_us_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/alerts.jsonl");
    let mut lines = sink(&settings(&path));
    lines.write(&[told(1, NOW), told(2, NOW)]).unwrap();
    lines.write(&[told(3, NOW)]).unwrap();
    assert_eq!(sequences(&read(&path)), [1, 2, 3]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(lines.holds().0, [0, 0, 0, 3]);
}

#[test]
fn a_crash_in_the_middle_of_a_line_leaves_no_half_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let whole = |n| told(n, NOW).json().to_owned() + "\n";
    let torn = whole(3);
    for cut in [1, torn.len() / 2, torn.len() - 1] {
        fs::write(&path, whole(1) + &whole(2) + &torn[..cut]).unwrap();
        let mut lines = sink(&settings(&path));
        assert_eq!(lines.holds().0[3], 2, "what is torn is not held");
        lines.write(&[told(3, NOW)]).unwrap();
        assert_eq!(sequences(&read(&path)), [1, 2, 3], "cut at {cut}");
    }
}

#[test]
fn a_file_that_is_full_becomes_an_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    let line = told(1, NOW).json().len() as u64 + 1;
    let mut lines =
        sink(&Settings { max_bytes: Some(line * 2 + 20), packing: Packing::Gzip, ..settings(&path) });
    let batch: Vec<_> = (1..=9).map(|n| told(n, NOW)).collect();
    lines.write(&batch).unwrap();
    assert_eq!(names(dir.path()), ["a.jsonl", "a.jsonl.1", "a.jsonl.2.gz", "a.jsonl.3.gz"]);
    assert_eq!(sequences(&read(&path)), [9]);
    assert_eq!(sequences(&read(&dir.path().join("a.jsonl.1"))), [7, 8]);
    let mut unpacked = String::new();
    let packed = File::open(dir.path().join("a.jsonl.3.gz")).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut unpacked).unwrap();
    assert_eq!(sequences(&unpacked), [3, 4], "1 and 2 were one too many");
    assert_eq!(lines.holds().0[3], 9);
    fs::write(&path, "").unwrap();
    assert_eq!(lines.holds().0[3], 8, "just turned over, the one before tells");
}

#[test]
fn packing_by_zstd_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut lines = sink(&Settings { max_bytes: Some(1), packing: Packing::Zstd, ..settings(&path) });
    lines.write(&[told(1, NOW), told(2, NOW), told(3, NOW)]).unwrap();
    assert_eq!(names(dir.path()), ["a", "a.1", "a.2.zst"]);
    let packed = fs::read(dir.path().join("a.2.zst")).unwrap();
    assert_eq!(sequences(&String::from_utf8(zstd::decode_all(&*packed).unwrap()).unwrap()), [1]);
}

#[test]
fn each_day_has_its_file_and_days_do_not_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = sink(&settings(&dir.path().join("a-%Y-%m-%d")));
    let days = [0, 1, 0, 1, 2, 3, 4];
    let batch: Vec<_> = days.iter().zip(1..).map(|(day, n)| told(n, NOW + day * DAY_MS)).collect();
    lines.write(&batch).unwrap();
    assert_eq!(names(dir.path()), ["a-2026-11-22", "a-2026-11-23", "a-2026-11-24", "a-2026-11-25"]);
    assert_eq!(sequences(&read(&dir.path().join("a-2026-11-22"))), [2, 3, 4]);
    let again = sink(&settings(&dir.path().join("a-%Y-%m-%d"))).holds();
    assert_eq!(again.0[3], 7, "the newest day tells");
}

#[test]
fn a_file_without_a_time_in_its_name_is_turned_over_daily_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let daily = Settings { every: Grain::Day, ..settings(&path) };
    sink(&daily).write(&[told(1, NOW)]).unwrap();
    let then = UNIX_EPOCH + std::time::Duration::from_millis(NOW);
    File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    let mut later = sink(&daily);
    later.write(&[told(2, NOW + 1), told(3, NOW + DAY_MS), told(4, NOW + DAY_MS)]).unwrap();
    assert_eq!(sequences(&read(&dir.path().join("a.1"))), [1, 2]);
    assert_eq!(sequences(&read(&path)), [3, 4]);
}

#[test]
fn a_file_that_others_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut lines = sink(&settings(&path));
    lines.write(&[told(1, NOW)]).unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    lines.write(&[told(2, NOW)]).unwrap();
    fs::rename(&path, dir.path().join("moved-2")).unwrap();
    lines.reopen();
    lines.write(&[told(3, NOW)]).unwrap();
    assert_eq!(sequences(&read(&path)), [3]);
    assert_eq!(sequences(&read(&dir.path().join("moved-2"))), [2]);
    fs::remove_file(&path).unwrap();
    lines.write(&[told(4, NOW)]).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    lines.write(&[told(5, NOW)]).unwrap();
    assert_eq!(sequences(&read(&path)), [5], "cut by others (copytruncate)");
}

#[test]
fn links_strange_files_and_other_writers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("target"), "").unwrap();
    std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RWXU).unwrap();
    fs::create_dir(at("dir")).unwrap();
    for name in ["link", "fifo", "dir"] {
        assert!(sink(&settings(&at(name))).write(&[told(1, NOW)]).is_err(), "{name}");
    }
    assert_eq!(read(&at("target")), "");
    let (mut first, mut second) = (sink(&settings(&at("a"))), sink(&settings(&at("a"))));
    first.write(&[told(1, NOW)]).unwrap();
    assert!(second.write(&[told(2, NOW)]).unwrap_err().to_string().contains("another"));
    drop(first);
    second.write(&[told(2, NOW)]).unwrap();
}

#[test]
fn old_files_that_cannot_be_renamed_stop_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    // A directory with something in it cannot be renamed over.
    fs::create_dir_all(dir.path().join("a.1/x")).unwrap();
    fs::create_dir_all(dir.path().join("a.2/x")).unwrap();
    let line = told(1, NOW).json().len() as u64 + 1;
    let mut lines = sink(&Settings { max_bytes: Some(line + 20), ..settings(&path) });
    fs::remove_dir_all(dir.path().join("a.1")).unwrap();
    fs::write(dir.path().join("a.1"), "x").unwrap();
    fs::create_dir_all(dir.path().join("a.3/x")).unwrap();
    lines.write(&[told(1, NOW), told(2, NOW), told(3, NOW)]).unwrap();
    let all: String = names(dir.path())
        .iter()
        .map(|name| dir.path().join(name))
        .filter(|path| path.is_file())
        .map(|path| read(&path))
        .filter(|text| text.starts_with('{'))
        .collect();
    let mut all = sequences(&all);
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
}

#[test]
fn lanes_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let of = |sequence, severity| {
        let alert = Alert { severity, ..alert() };
        Arc::new(Told::of(&Event::Alert(Box::new(alert)), Some(sequence), Some(&Node::named("me"))))
    };
    let mut lines = sink(&settings(&path));
    let batch =
        [of(1, Severity::Low), of(5, Severity::Critical), of(2, Severity::Low), of(4, Severity::High)];
    lines.write(&batch).unwrap();
    assert_eq!(lines.holds().0, [2, 0, 4, 5]);
    assert_eq!(Lines::new(settings(&path), "other".into()).holds(), Cursor::default());
}
