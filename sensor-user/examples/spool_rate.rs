//! How fast the spool is: 100,000 events of 3 KiB are appended, and read back by one reader that follows and writes them
//! to a file, once for each way to sync. Prints events a second and seconds of processor time.
//!
//! `cargo run --release -p sensor-user --example spool_rate [DIRECTORY] [EVENTS AT ONCE]`

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement that somebody reads")]

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sensor_user::detect::Severity;
use sensor_user::render::Kind;
use sensor_user::spool::{Draft, LANES, Settings, Spool, Sync};

const EVENTS: u64 = 100_000;
const SIZE: usize = 3 << 10;

/// Seconds of processor time of this process so far.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second word may hold blanks; behind it user and system time are the 12th and 13th, in hundredths.
    let behind = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = behind.split(' ').skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn append(spool: &Spool, together: usize) -> io::Result<()> {
    let pad = "x".repeat(SIZE - 40);
    let mut left = EVENTS;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(together).min(together);
        let mut writers: Vec<_> =
            (0..count).map(|_| |number: u64| format!("{{\"n\":{number},\"pad\":\"{pad}\"}}")).collect();
        let severities = [Severity::Low, Severity::Low, Severity::Medium, Severity::High];
        let mut drafts: Vec<Draft<'_>> = writers
            .iter_mut()
            .zip(severities.into_iter().cycle())
            .map(|(json, severity)| Draft { time_ms: 1, severity, kind: Kind::Alert, json })
            .collect();
        spool.append(&mut drafts)?;
        left -= count as u64;
    }
    Ok(())
}

/// Reads until it has everything; gives how many it got.
fn follow(spool: &Spool, path: &Path) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut cursor = spool.cursor("file");
    let (mut got, mut lost) = (0, 0);
    while got + lost < EVENTS {
        let read = spool.read(&cursor, [true; LANES], 500, 1 << 20);
        if read.next == cursor {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        for event in &read.events {
            out.write_all(event.json().as_bytes())?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        got += read.events.len() as u64;
        lost += read.lost_events;
        cursor = read.next;
        spool.keep_cursor("file", &cursor);
    }
    Ok(got)
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("spool-rate");
    let together = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(256);
    for sync in [Sync::Always, Sync::Second, Sync::Never] {
        let _ = std::fs::remove_dir_all(&dir);
        let settings = Settings { max_bytes: 1 << 30, max_age: Duration::from_hours(1), sync };
        let spool = Spool::open(&dir, settings, 1)?;
        let (began, before) = (Instant::now(), processor_time());
        let _ = spool.cursor("file");
        let path = dir.join("out.jsonl");
        let (appended, got) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| follow(&spool, &path));
            let appended = append(&spool, together).map(|()| began.elapsed());
            (appended, reader.join())
        });
        let (appended, got) = (appended?, got.unwrap_or(Ok(0))?);
        let (all, processor) = (began.elapsed(), processor_time() - before);
        #[allow(clippy::cast_precision_loss, reason = "a hundred thousand")]
        let rate = |time: Duration| EVENTS as f64 / time.as_secs_f64();
        println!(
            "{sync:?}, {together} at once: appended {:.0}/s, read {:.0}/s ({got} of {EVENTS}), {processor:.2} s of processor time",
            rate(appended),
            rate(all)
        );
        // The same again from the disk alone.
        let spool = Spool::open_read_only(&dir)?;
        let began = Instant::now();
        let mut cursor = sensor_user::spool::Cursor::default();
        let mut got = 0;
        loop {
            let read = spool.read(&cursor, [true; LANES], 500, 1 << 20);
            if read.next == cursor {
                break;
            }
            got += read.events.len();
            cursor = read.next;
        }
        println!("    and {got} again from disk in {:.2} s", began.elapsed().as_secs_f64());
    }
    std::fs::remove_dir_all(&dir)
}
