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

/// The kernel programs that a process holds, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    /// Nanoseconds that they ran, while `bpf_stats_enabled` is 1.
    pub(crate) ns: u64,
    /// How often they ran, by the same.
    pub(crate) runs: u64,
    /// Instructions that the verifier walked to accept them; zero before Linux 5.16.
    pub(crate) walked: u64,
}

/// What the kernel says of the programs that a process holds.
pub(crate) fn kernel_programs(pid: u32) -> Result<Programs> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        texts.push(fs::read_to_string(entry?.path()).unwrap_or_default());
    }
    Ok(summed(&texts))
}

/// Sums up what the descriptors of a process say (`kernel/bpf/syscall.c`, `bpf_prog_show_fdinfo`).
fn summed(texts: &[String]) -> Programs {
    let mut all = Programs::default();
    let mut seen = Vec::new();
    for text in texts {
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
            all.ns += ns;
            all.runs += count;
            all.walked += field("verified_insns:").unwrap_or_default();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_held_twice_counts_once() {
        let program = |id: u32| {
            format!(
                "pos:\t0\nprog_type:\t8\nprog_id:\t{id}\nrun_time_ns:\t100\nrun_cnt:\t3\nverified_insns:\t70\n"
            )
        };
        let link = "pos:\t0\nlink_id:\t1\nprog_id:\t9\n".to_owned();
        let old = program(5).replace("verified_insns:\t70\n", "");
        let all = summed(&[program(4), link, program(4), old]);
        assert_eq!(all, Programs { ns: 200, runs: 6, walked: 70 });
    }
}
