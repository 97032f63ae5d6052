//! What processes cost, read from `/proc`.

use std::fs;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Clock ticks a second that `/proc/PID/stat` counts in: `USER_HZ`, 100 on every Linux port of today.
const TICKS: f64 = 100.0;

/// Nanoseconds that all threads of a process ran so far (`schedstat`, first field).
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let file = task?.path().join("schedstat");
        // A thread may end between the listing and the reading.
        let text = fs::read_to_string(file).unwrap_or_default();
        total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(total)
}

/// How often the threads of a process went to sleep of their own accord so far: as often as they were woken.
pub(crate) fn wakeups(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let text = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        total += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(total)
}

/// CPU seconds of all children that were waited for, in steps of 10 ms.
pub(crate) fn children_cpu_s() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name, in brackets, may hold blanks; cutime and cstime are the 14th and 15th words after it.
    let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| words.get(at).and_then(|w| w.parse::<u32>().ok()).context("cutime in stat");
    Ok(f64::from(ticks(13)? + ticks(14)?) / TICKS)
}

/// Peak resident memory of a process so far, in MiB; none once it has ended.
#[must_use]
pub(crate) fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Waits for a process to end; how it did, and its peak resident memory in MiB as it was seen every 5 ms.
///
/// # Errors
/// When it cannot be waited for.
pub fn weigh(child: &mut Child) -> Result<(ExitStatus, f64)> {
    let mut peak: f64 = 0.0;
    loop {
        peak = peak.max(peak_mib(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            return Ok((status, peak));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Run time in nanoseconds and runs of the kernel programs that a process holds, while `bpf_stats_enabled` is 1.
pub(crate) fn kernel_programs(pid: u32) -> Result<(u64, u64)> {
    let (mut time, mut runs) = (0, 0);
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        // Only programs have a run count; two descriptors may hold one program.
        let (Some(ns), Some(count), Some(id)) = (field("run_time_ns:"), field("run_cnt:"), field("prog_id:"))
        else {
            continue;
        };
        if !seen.contains(&id) {
            seen.push(id);
            time += ns;
            runs += count;
        }
    }
    Ok((time, runs))
}
