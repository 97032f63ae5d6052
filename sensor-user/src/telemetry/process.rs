//! What the process costs, as `/proc/self` tells it (proc(5)).

use std::fs;
use std::time::Duration;

use super::catalogue as of;
use super::metrics::Metric;

/// Ticks of a second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that Linux shows to user space.
const TICKS: u64 = 100;

/// Longest list of descriptors that is counted: beyond it the figure says no more than "very many".
const MAX_FDS: usize = 65_536;

/// What the process costs now. What cannot be read is left out.
#[must_use]
pub fn metrics() -> Vec<Metric> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let stat = Stat::of(&read("stat"), &fs::read_to_string("/proc/stat").unwrap_or_default());
    let status = read("status");
    let fds = fs::read_dir("/proc/self/fd").map(|open| open.take(MAX_FDS).count() as u64).ok();
    [
        stat.began_s.map(|began| of::START_TIME.level(began)),
        stat.cpu.map(|cpu| of::CPU_SECONDS.spent(cpu)),
        kibibytes(&status, "VmRSS:").map(|bytes| of::RESIDENT_BYTES.level(bytes)),
        kibibytes(&status, "VmSize:").map(|bytes| of::VIRTUAL_BYTES.level(bytes)),
        // The one that counts is not there once it has counted.
        fds.map(|open| of::OPEN_FDS.level(open.saturating_sub(1))),
        max_fds(&read("limits")).map(|most| of::MAX_FDS.level(most)),
        field(&status, "Threads:").map(|threads| of::THREADS.level(threads)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    cpu: Option<Duration>,
    /// Seconds since the epoch.
    began_s: Option<u64>,
}

impl Stat {
    /// From the line of the process and the page of the host.
    fn of(process: &str, host: &str) -> Self {
        // The name is in brackets and may hold anything, brackets and blanks too.
        let fields: Vec<&str> =
            process.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        // The first of these is field 3 of proc(5); utime is 14, stime 15, starttime 22.
        let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000 / TICKS));
        let cpu = || Some(time(ticks(14)?.checked_add(ticks(15)?)?));
        let began = || field(host, "btime ")?.checked_add(ticks(22)? / TICKS);
        Self { cpu: cpu(), began_s: began() }
    }
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    field(status, name)?.checked_mul(1024)
}

/// The soft limit; none if there is none.
fn max_fds(limits: &str) -> Option<u64> {
    field(limits, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 12345 1 1 1";
        let stat = Stat::of(line, "cpu 1 2 3\nbtime 1700000000\n");
        assert_eq!(stat, Stat { cpu: Some(Duration::from_secs(3)), began_s: Some(1_700_000_123) });
        for bad in ["", "7 (a", "7 (a) S", "7 (a) S x x x x x x x x x x x x x x x x x x x x x x"] {
            assert_eq!(Stat::of(bad, "btime 1\n"), Stat::default(), "{bad}");
        }
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let read = |text: &str| kibibytes(text, "VmRSS:");
        assert_eq!(read("VmPeak:\t  900 kB\nVmRSS:\t   21504 kB\n"), Some(22_020_096));
        assert_eq!(["", "VmRSS:", "VmRSS: many kB"].map(read), [None; 3]);
        assert_eq!(max_fds("Max open files            1024    4096    files\n"), Some(1024));
        assert_eq!(max_fds("Max open files            unlimited    unlimited    files\n"), None);
    }

    #[test]
    fn this_process_tells_everything() {
        let names: Vec<&str> = metrics().iter().map(|metric| metric.name).collect();
        for card in [
            &of::START_TIME,
            &of::CPU_SECONDS,
            &of::RESIDENT_BYTES,
            &of::VIRTUAL_BYTES,
            &of::OPEN_FDS,
            &of::THREADS,
        ] {
            assert!(names.contains(&card.name), "{} is not among {names:?}", card.name);
        }
    }
}
