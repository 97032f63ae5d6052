//! The spool as its users meet it: nothing that was appended is lost without being told of, whatever happens to the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const ALL: [bool; LANES] = [true; LANES];
const SEVERITIES: [Severity; LANES] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

fn settings(sync: Sync) -> Settings {
    Settings { max_bytes: 4 << 20, max_age: Duration::from_hours(1), sync }
}

fn open(dir: &Path) -> Spool {
    Spool::open(dir, settings(Sync::Never), 1000).unwrap()
}

fn json(number: u64, size: usize) -> String {
    format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(size))
}

/// Appends a batch of events of these lanes and sizes.
fn put(spool: &Spool, events: &[(usize, usize)]) -> Result<Range<u64>, NotDurable> {
    put_at(spool, events, 1000)
}

fn put_at(spool: &Spool, events: &[(usize, usize)], time_ms: u64) -> Result<Range<u64>, NotDurable> {
    let mut writers: Vec<_> = events.iter().map(|(_, size)| move |number| json(number, *size)).collect();
    let mut drafts: Vec<Draft<'_>> = writers
        .iter_mut()
        .zip(events)
        .map(|(json, (lane, _))| Draft { time_ms, severity: SEVERITIES[*lane], kind: Kind::Alert, json })
        .collect();
    spool.append(&mut drafts)
}

/// Everything behind a cursor, in batches: the events, and the numbers that are lost.
fn drain(
    spool: &Spool,
    mut from: Cursor,
    wanted: [bool; LANES],
    batch: usize,
) -> (Vec<Arc<Told>>, Vec<u64>, Cursor) {
    let (mut events, mut lost) = (Vec::new(), Vec::new());
    let head = *spool.head().borrow();
    loop {
        let read = spool.read(&from, wanted, batch, 1 << 20);
        assert!(read.events.len() <= batch);
        assert!(read.lost_events <= read.lost.iter().map(|range| range.end - range.start).sum());
        lost.extend(read.lost.into_iter().flatten());
        events.extend(read.events);
        let reached = read.next.0.iter().zip(wanted).all(|(next, wanted)| !wanted || *next >= head);
        assert!(reached || read.next != from, "it stands still at {from:?} of {head}");
        from = read.next;
        if reached {
            return (events, lost, from);
        }
    }
}

fn numbers(events: &[Arc<Told>]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let lanes = (0..LANES).map(|lane| dir.join(format!("lane-{lane}")));
    let files = lanes.filter_map(|lane| fs::read_dir(lane).ok()).flatten();
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

#[test]
fn what_is_appended_is_read_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for round in 0..100 {
        let batch: Vec<_> = (0..60).map(|n| ((n * 7 + round) % 4, 100 + n)).collect();
        put(&spool, &batch).unwrap();
    }
    assert_eq!(*spool.head().borrow(), 6000);
    for spool in [spool.clone(), open(dir.path()), Spool::open_read_only(dir.path()).unwrap()] {
        for batch in [7, 500, 10_000] {
            let (events, lost, cursor) = drain(&spool, Cursor::default(), ALL, batch);
            assert_eq!(numbers(&events), (1..=6000).collect::<Vec<_>>());
            assert!(lost.is_empty(), "{lost:?}");
            assert_eq!(cursor, Cursor([6000; LANES]));
        }
        let (events, ..) = drain(&spool, Cursor::default(), [false, true, false, true], 50);
        assert!(events.iter().all(|event| [1, 3].contains(&lane(event.severity))));
        assert_eq!(events.len(), 3000);
        assert!(events.iter().all(|event| event.json().contains(&format!("\"n\":{},", event.sequence))));
    }
    assert_eq!(put(&open(dir.path()), &[(0, 1)]).unwrap(), 6001..6002);
}

#[test]
fn lanes_are_read_each_behind_its_own_place() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for _ in 0..3000 {
        put(&spool, &[(0, 10), (3, 10)]).unwrap();
    }
    // Numbers are odd in lane 0 and even in lane 3.
    let from = Cursor([4001, 0, 0, 10]);
    let (events, ..) = drain(&spool, from, ALL, 64);
    let expected: Vec<u64> = (1..=6000).filter(|n| if n % 2 == 1 { *n > 4001 } else { *n > 10 }).collect();
    assert_eq!(numbers(&events), expected);
    let read = spool.read(&from, [true, false, false, false], 3, 1 << 20);
    assert_eq!((numbers(&read.events), read.next), (vec![4003, 4005, 4007], Cursor([4007, 0, 0, 10])));
}

#[test]
fn a_batch_is_as_large_as_asked_for() {
    let spool = Spool::in_memory(0);
    put(&spool, &[(1, 5000), (1, 10), (1, 10), (1, 10)]).unwrap();
    assert_eq!(numbers(&spool.read(&Cursor::default(), ALL, 9, 100).events), [1]);
    assert_eq!(numbers(&spool.read(&Cursor([1; LANES]), ALL, 9, 60).events), [2, 3]);
    assert_eq!(numbers(&spool.read(&Cursor([1; LANES]), ALL, 1, 60).events), [2]);
    assert!(spool.read(&Cursor([4; LANES]), ALL, 9, 60).events.is_empty());
}

#[test]
fn numbers_go_on_behind_what_is_given_and_nothing_before_them_was_lost() {
    let spool = Spool::in_memory(1_000);
    let new = spool.cursor("new");
    assert_eq!(put(&spool, &[(1, 10), (2, 10)]).unwrap(), 1_001..1_003);
    for from in [Cursor::default(), new] {
        let read = spool.read(&from, ALL, 9, 100);
        assert_eq!((numbers(&read.events), read.lost, read.lost_events), (vec![1_001, 1_002], vec![], 0));
    }
}

#[test]
fn a_torn_end_is_cut_off_and_its_number_is_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), &[(2, 50), (2, 50), (1, 50), (2, 50)]).unwrap();
    let path = segments(dir.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let spool = open(dir.path());
    assert_eq!(spool.stats().torn, 1);
    assert_eq!(put(&spool, &[(2, 50)]).unwrap(), 5..6);
    for spool in [spool, open(dir.path())] {
        let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 2);
        assert_eq!((numbers(&events), lost), (vec![1, 2, 3, 5], vec![4]));
        // Who does not read that lane has lost nothing.
        let (_, lost, _) = drain(&spool, Cursor::default(), [true, true, false, true], 2);
        assert!(lost.is_empty());
    }
}

#[test]
fn a_damaged_record_is_passed_over_and_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for _ in 0..2000 {
        put(&spool, &[(1, 200), (1, 200), (0, 10)]).unwrap();
    }
    drop(spool);
    let spool = open(dir.path());
    let hurt = |at: usize| {
        let path =
            segments(dir.path()).into_iter().find(|path| path.to_str().unwrap().contains("lane-1")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
    };
    // Under an open spool, in the tenth record of the lane: number 14.
    let size = record::HEADER + json(10, 200).len();
    hurt(32 + 9 * size + 20);
    for _ in 0..2 {
        let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 100);
        assert_eq!((events.len(), lost), (5999, vec![14]));
    }
    assert_eq!(spool.stats().corrupt, 1);
    // And at opening, its length this time.
    hurt(32 + 20 * size + 6);
    for _ in 0..2 {
        let (events, lost, _) = drain(&open(dir.path()), Cursor::default(), ALL, 100);
        assert_eq!((events.len(), lost.len()), (5998, 2));
        assert!(lost.contains(&14));
    }
}

#[test]
fn a_file_that_is_not_ours_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), &[(0, 10), (3, 10)]).unwrap();
    let all = segments(dir.path());
    let mut bytes = fs::read(&all[0]).unwrap();
    bytes[8] = 2;
    fs::write(&all[0], bytes).unwrap();
    fs::write(dir.path().join("lane-3/notes.txt"), "hello").unwrap();
    let spool = open(dir.path());
    assert_eq!(spool.stats().refused, 2);
    assert_eq!(fs::read_dir(dir.path().join("refused")).unwrap().count(), 2);
    let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 10);
    assert_eq!((numbers(&events), lost), (vec![2], vec![1]));
}

#[test]
fn no_number_is_given_twice_whatever_the_power_does() {
    for sync in [Sync::Never, Sync::Second, Sync::Always] {
        let (dir, durable) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = [1; 16];
        let spool = recover::open(dir.path(), settings(sync), 0, first).unwrap();
        put(&spool, &[(0, 10); 5]).unwrap();
        copy(dir.path(), durable.path());
        let head = fs::read(dir.path().join("head")).unwrap();
        put(&spool, &[(0, 10); 5]).unwrap();
        if sync == Sync::Always {
            // What was synced stays; all that may be older is the head.
            copy(dir.path(), durable.path());
            fs::write(durable.path().join("head"), &head).unwrap();
        }
        let spool = recover::open(durable.path(), settings(sync), 0, [2; 16]).unwrap();
        let next = put(&spool, &[(0, 10)]).unwrap().start;
        let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 10);
        if sync == Sync::Always {
            assert_eq!((next, events.len(), lost.len()), (11, 11, 0));
        } else {
            assert!(next > 10, "{sync:?}: {next}");
            assert_eq!((events.len(), lost.len() as u64), (6, next - 6));
        }
    }
}

#[test]
fn an_orderly_end_leaves_no_gap_for_the_next_boot() {
    let dir = tempfile::tempdir().unwrap();
    let spool = recover::open(dir.path(), settings(Sync::Never), 0, [1; 16]).unwrap();
    put(&spool, &[(0, 10); 5]).unwrap();
    spool.close().unwrap();
    let spool = recover::open(dir.path(), settings(Sync::Never), 0, [2; 16]).unwrap();
    assert_eq!(put(&spool, &[(0, 10)]).unwrap(), 6..7);
}

#[test]
fn a_lost_head_costs_a_gap_but_no_number() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), &[(0, 10); 5]).unwrap();
    fs::remove_file(dir.path().join("head")).unwrap();
    let spool = open(dir.path());
    assert!(put(&spool, &[(0, 10)]).unwrap().start > 5);
    let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 10);
    assert_eq!(events.len(), 6);
    assert_eq!(lost.len() as u64, *spool.head().borrow() - 6);
}

#[test]
fn the_least_severe_go_first_and_every_one_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    spool.register("slow", ALL);
    let mut most = 0;
    for round in 0..3000 {
        put(&spool, &[(3, 200), (0, 3000), (1, 30), (0, 3000)]).unwrap();
        most = most.max(spool.stats().bytes);
        if round == 2000 {
            spool = open(dir.path());
            spool.register("slow", ALL);
        }
    }
    assert!(most <= 4 << 20, "{most}");
    let on_disk: u64 = segments(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(on_disk <= 4 << 20);
    let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 1000);
    let mut all = [numbers(&events), lost.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=12_000).collect::<Vec<_>>());
    assert_eq!(events.iter().filter(|event| event.severity == Severity::Critical).count(), 3000);
    assert_eq!(events.iter().filter(|event| event.severity == Severity::Medium).count(), 3000);
    let (_, of_severe, _) = drain(&spool, Cursor::default(), [false, true, true, true], 1000);
    assert!(of_severe.is_empty());
    assert!(lost.len() > 3000, "{}", lost.len());
    let stats = spool.stats();
    assert_eq!(stats.evicted[1..], [0; 3]);
    assert!(stats.evicted[0] > 0 && stats.evicted[0] <= lost.len() as u64);
}

#[test]
fn what_everybody_has_read_goes_before_what_is_unread() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register("fast", ALL);
    put(&spool, &[(0, 10); 5]).unwrap();
    for _ in 0..900 {
        put(&spool, &[(3, 3000)]).unwrap();
        spool.keep_cursor("fast", &Cursor([0, 0, 0, *spool.head().borrow()]));
    }
    for _ in 0..900 {
        put(&spool, &[(3, 3000)]).unwrap();
    }
    assert_eq!(spool.stats().evicted, [0; 4]);
    let (events, ..) = drain(&spool, Cursor::default(), [true, false, false, false], 10);
    assert_eq!(events.len(), 5);
    let lag = spool.stats().cursors;
    assert_eq!(lag[0].name, "fast");
    assert!((900..=930).contains(&lag[0].events), "{lag:?}");
    assert_eq!(lag[0].oldest_ms, Some(1000));
}

#[test]
fn less_severe_events_never_push_out_more_severe_ones() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register("down", ALL);
    let mut filled = 0;
    while spool.stats().bytes < (4 << 20) - 3000 {
        put(&spool, &[(3, 3000)]).unwrap();
        filled += 1;
    }
    let kept = spool.stats().events[3];
    assert_eq!(kept, filled);
    let (mut failed, mut news) = (0, 0);
    for _ in 0..100 {
        if let Err(error) = put(&spool, &[(0, 3000)]) {
            assert!(error.to_string().contains("spool.max_bytes"), "{error}");
            failed += 1;
            news += usize::from(error.news);
        }
    }
    assert_eq!(spool.stats().events[3], kept);
    assert_eq!((failed, news), (100, 1));
    // They are shown all the same.
    let (events, ..) = drain(&spool, Cursor([filled; LANES]), ALL, 10);
    assert_eq!(numbers(&events), (filled + 1..=filled + 100).collect::<Vec<_>>());
}

#[test]
fn what_is_too_old_goes() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.register("down", ALL);
    put_at(&spool, &[(2, 10), (2, 10)], 1000).unwrap();
    spool.tick(3_601_000).unwrap();
    assert_eq!(spool.stats().events, [0, 0, 2, 0]);
    spool.tick(3_601_001).unwrap();
    let stats = spool.stats();
    assert_eq!((stats.events, stats.expired, stats.bytes), ([0; 4], [0, 0, 2, 0], 0));
    assert!(segments(dir.path()).is_empty());
    put_at(&spool, &[(2, 10)], 3_601_001).unwrap();
    for spool in [spool, open(dir.path())] {
        let got = spool.read(&Cursor::default(), ALL, 10, 1000);
        let got = (numbers(&got.events), got.lost);
        // What is still in memory is read from there.
        assert!(
            got == (vec![1, 2, 3], vec![]) || got == (vec![3], std::iter::once(1..3).collect()),
            "{got:?}"
        );
    }
}

#[test]
fn memory_alone_is_bounded_too() {
    let spool = Spool::in_memory(0);
    spool.register("down", ALL);
    put(&spool, &[(3, 100)]).unwrap();
    for _ in 0..3000 {
        put(&spool, &[(0, 10_000)]).unwrap();
    }
    let stats = spool.stats();
    assert_eq!(stats.events[3], 1);
    assert!(stats.events[0] < 1700);
    assert_eq!(stats.evicted[0] + stats.events[0], 3000);
    let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 100);
    assert_eq!(events.len() + lost.len(), 3001);
    assert_eq!(numbers(&events)[0], 1);
    spool.tick(5).unwrap();
    spool.close().unwrap();
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let spool = open(&path);
    spool.register("siem", ALL);
    put(&spool, &[(1, 10), (3, 10), (1, 10)]).unwrap();
    fs::remove_dir_all(&path).unwrap();
    put(&spool, &[(1, 10)]).unwrap();
    spool.tick(2000).unwrap();
    put(&spool, &[(0, 10)]).unwrap();
    spool.keep_cursor("siem", &Cursor([2; LANES]));
    drop(spool);
    let spool = open(&path);
    let (events, lost, _) = drain(&spool, Cursor::default(), ALL, 10);
    assert_eq!((numbers(&events), lost), (vec![1, 2, 3, 4, 5], vec![]));
    assert_eq!(spool.cursor("siem"), Cursor([2; LANES]));
}

#[test]
fn a_directory_that_cannot_be_made_again_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let spool = open(&path);
    put(&spool, &[(1, 10)]).unwrap();
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "in the way").unwrap();
    assert!(spool.tick(2000).is_err());
    assert!(put(&spool, &[(1, 10)]).is_err());
    assert!(spool.tick(3000).is_err());
    fs::remove_file(&path).unwrap();
    spool.tick(4000).unwrap();
    drop(spool);
    let (events, lost, _) = drain(&open(&path), Cursor::default(), ALL, 10);
    assert_eq!((numbers(&events), lost), (vec![1, 2], vec![]));
}

#[test]
fn events_wait_in_memory_until_they_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    put(&spool, &[(3, 10)]).unwrap();
    // Not even root can make a file in a file.
    fs::remove_dir(dir.path().join("lane-1")).unwrap();
    fs::write(dir.path().join("lane-1"), "").unwrap();
    let failed = put(&spool, &[(1, 10), (3, 10)]).unwrap_err();
    assert_eq!((failed.numbers.clone(), failed.news), (2..4, true));
    assert!(failed.to_string().contains("wait in memory"), "{failed}");
    assert!(!put(&spool, &[(1, 10)]).unwrap_err().news);
    put(&spool, &[(3, 10)]).unwrap();
    assert!(spool.tick(2000).is_err());
    let stats = spool.stats();
    assert_eq!((stats.pending, stats.not_durable), (2, 2));
    let read = spool.read(&Cursor::default(), ALL, 10, 1000);
    assert_eq!((numbers(&read.events), read.lost), (vec![1, 2, 3, 4, 5], vec![]));
    fs::remove_file(dir.path().join("lane-1")).unwrap();
    fs::create_dir(dir.path().join("lane-1")).unwrap();
    spool.tick(3000).unwrap();
    assert_eq!(spool.stats().pending, 0);
    put(&spool, &[(1, 10)]).unwrap();
    drop(spool);
    let (events, lost, _) = drain(&open(dir.path()), Cursor::default(), ALL, 10);
    assert_eq!((numbers(&events), lost), (vec![1, 2, 3, 4, 5, 6], vec![]));
}

#[test]
fn looking_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), &[(2, 50), (0, 50)]).unwrap();
    let path = segments(dir.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, [&bytes[..], b"torn"].concat()).unwrap();
    fs::write(dir.path().join("lane-0/foreign"), "x").unwrap();
    let list =
        || -> Vec<_> { segments(dir.path()).into_iter().map(|p| (fs::read(&p).unwrap(), p)).collect() };
    let before = list();
    let spool = Spool::open_read_only(dir.path()).unwrap();
    assert_eq!(drain(&spool, Cursor::default(), ALL, 10).0.len(), 2);
    assert!(put(&spool, &[(0, 1)]).is_err());
    spool.tick(9_000_000).unwrap();
    assert_eq!(list(), before);
    assert_eq!(*spool.head().borrow(), 2);
}

#[test]
fn the_directory_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let spool = open(&path);
    put(&spool, &[(0, 10)]).unwrap();
    spool.register("siem", ALL);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in [path.join("head"), path.join("cursors/siem.cursor"), segments(&path).remove(0)] {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
}

#[test]
fn an_event_that_no_segment_holds_is_shown_once_and_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    put(&spool, &[(3, record::MAX_JSON), (3, 10)]).unwrap();
    assert_eq!(spool.read(&Cursor::default(), ALL, 1, 10).events.len(), 1);
    let (events, lost, _) = drain(&open(dir.path()), Cursor::default(), ALL, 10);
    assert_eq!((numbers(&events), lost), (vec![2], vec![1]));
}

/// What happens between two runs.
#[derive(Clone, Debug)]
enum Accident {
    /// The process ends in the middle of a write: the newest bytes of a lane are missing, as many as this share.
    Kill(u8),
    /// A byte changes.
    Flip(prop::sample::Index, prop::sample::Index, u8),
    /// A file is gone.
    Delete(prop::sample::Index),
    /// A file is cut.
    Cut(prop::sample::Index, prop::sample::Index),
    /// Nothing.
    Restart,
}

fn accident() -> impl Strategy<Value = Accident> {
    use prop::sample::Index;
    prop_oneof![
        any::<u8>().prop_map(Accident::Kill),
        (any::<Index>(), any::<Index>(), 1_u8..).prop_map(|(file, at, by)| Accident::Flip(file, at, by)),
        any::<Index>().prop_map(Accident::Delete),
        (any::<Index>(), any::<Index>()).prop_map(|(file, at)| Accident::Cut(file, at)),
        Just(Accident::Restart),
    ]
}

fn happen(accident: &Accident, dir: &Path, lengths: &BTreeMap<PathBuf, usize>) {
    let all = segments(dir);
    let change = |path: &PathBuf, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    match accident {
        Accident::Restart => {}
        _ if all.is_empty() => {}
        Accident::Kill(share) => {
            for path in &all {
                let sure = lengths.get(path).copied().unwrap_or(0);
                change(path, &|bytes| {
                    let more = bytes.len().saturating_sub(sure);
                    bytes.truncate(sure + more * usize::from(*share) / 255);
                });
            }
        }
        Accident::Flip(file, at, by) => change(file.get(&all), &|bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= by;
        }),
        Accident::Delete(file) => fs::remove_file(file.get(&all)).unwrap(),
        Accident::Cut(file, at) => change(file.get(&all), &|bytes| bytes.truncate(at.index(bytes.len()))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: every number is an event as it was appended or told to be lost, in order, and never both;
    /// none is given twice; what was acknowledged before a kill is there.
    #[test]
    fn every_number_is_there_or_told_of(
        runs in prop::collection::vec((
            prop::collection::vec(prop::collection::vec((0..LANES, 0_usize..40_000), 1..12), 1..25),
            accident(),
            any::<bool>(),
        ), 1..5),
        batch in 1_usize..50,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut told, mut boot) = (BTreeMap::new(), [1; 16]);
        for (batches, accident, reboot) in &runs {
            let spool = recover::open(dir.path(), settings(Sync::Never), 0, boot).unwrap();
            spool.register("siem", ALL);
            let mut lengths = BTreeMap::new();
            let mut sure = 0;
            for (index, events) in batches.iter().enumerate() {
                if index + 1 == batches.len() {
                    lengths = segments(dir.path()).into_iter().map(|path| {
                        let length = fs::metadata(&path).unwrap().len();
                        (path, usize::try_from(length).unwrap())
                    }).collect();
                    sure = *spool.head().borrow();
                }
                // What the more severe leave no room for waits in memory, and is gone with the process.
                let given = put(&spool, events).unwrap_or_else(|failed| failed.numbers);
                for (number, (lane, size)) in given.zip(events) {
                    prop_assert!(told.insert(number, (*lane, *size)).is_none(), "{} twice", number);
                }
                let stats = spool.stats();
                prop_assert!(stats.bytes <= 4 << 20);
            }
            let before: Vec<u64> = drain(&spool, Cursor::default(), ALL, batch).1;
            let Stats { evicted, not_durable, .. } = spool.stats();
            drop(spool);
            happen(accident, dir.path(), &lengths);
            if *reboot {
                boot[0] += 1;
            }
            let spool = recover::open(dir.path(), settings(Sync::Never), 0, boot).unwrap();
            let head = *spool.head().borrow();
            prop_assert!(head >= told.keys().last().copied().unwrap_or(0));
            let (events, lost, _) = drain(&spool, Cursor::default(), ALL, batch);
            let mut seen = numbers(&events);
            prop_assert!(seen.is_sorted());
            for event in &events {
                let (lane_of, size) = told[&event.sequence];
                prop_assert_eq!(lane(event.severity), lane_of);
                prop_assert_eq!(event.json(), json(event.sequence, size));
            }
            if matches!(accident, Accident::Kill(_) | Accident::Restart) && evicted == [0; LANES] && not_durable == 0 {
                let new: Vec<_> = lost.iter().filter(|number| **number <= sure && !before.contains(number)).collect();
                prop_assert!(new.is_empty(), "{:?}", new);
            }
            seen.extend(lost);
            seen.sort_unstable();
            prop_assert_eq!(seen, (1..=head).collect::<Vec<_>>());
        }
    }
}
