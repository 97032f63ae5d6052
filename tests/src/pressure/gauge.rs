//! What the sensor and the kernel say of themselves before, while and after.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::cpu_ns;
use crate::client::Client;
use crate::clock::Deadline;
use crate::sensor::Sensor;

/// How often the most of something is looked for: the metrics' page is made once a second.
const LOOK: Duration = Duration::from_millis(400);

/// How long a busy sensor may take until it listens.
const LISTENS: Duration = Duration::from_secs(10);

/// A page of the sensor's metrics.
#[derive(Clone, Debug)]
pub struct Page(String);

impl Page {
    /// Asks for it. A sensor that has just begun to watch may listen a moment later.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn of(metrics: SocketAddr) -> Result<Self> {
        let deadline = Deadline::after(LISTENS);
        let mut client = loop {
            match Client::connect(metrics) {
                Ok(client) => break client,
                Err(error) if deadline.is_over() => return Err(error.context("the metrics")),
                Err(_) => std::thread::sleep(LOOK),
            }
        };
        let answer = client.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        ensure!(answer.status == 200, "metrics answered {}", answer.status);
        Ok(Self(String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// One metric, summed over the series whose labels contain `label`.
    #[must_use]
    pub fn value(&self, name: &str, label: &str) -> f64 {
        self.series(name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    fn series(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
        })
    }

    /// What was lost, by reason.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<String, f64> {
        self.by_label("tokenscope_lost_records_total")
    }

    /// What was left out on purpose, by what it was.
    #[must_use]
    pub fn shed(&self) -> BTreeMap<String, f64> {
        self.by_label("tokenscope_shed_total")
    }

    fn by_label(&self, name: &str) -> BTreeMap<String, f64> {
        let label = |labels: &str| labels.split('"').nth(1).unwrap_or_default().to_owned();
        self.series(name).map(|(labels, value)| (label(labels), value)).collect()
    }
}

/// The sensor at one time.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its metrics.
    pub page: Page,
    /// Resident memory, MiB.
    pub resident: f64,
    /// CPU seconds so far.
    pub cpu: f64,
}

impl Reading {
    /// Looks now.
    ///
    /// # Errors
    /// When the sensor is gone.
    pub fn of(sensor: &Sensor) -> Result<Self> {
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes fit a double")]
        let cpu = cpu_ns(sensor.pid())? as f64 / 1e9;
        Ok(Self { page: Page::of(sensor.metrics)?, resident: resident_mib(sensor.pid())?, cpu })
    }

    /// Looks again and again until it is as it should be, or time is up; gives the last look.
    ///
    /// # Errors
    /// When the sensor is gone.
    pub fn once(sensor: &Sensor, patience: Duration, so: impl Fn(&Page) -> bool) -> Result<Self> {
        let deadline = Deadline::after(patience);
        loop {
            let reading = Self::of(sensor)?;
            if so(&reading.page) || deadline.is_over() {
                return Ok(reading);
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Reading {
    /// Looks until two looks in a row count as many records, or time is up: then all that was captured was read.
    ///
    /// # Errors
    /// When the sensor is gone.
    pub fn settled(sensor: &Sensor, patience: Duration) -> Result<Self> {
        let deadline = Deadline::after(patience);
        let events = |page: &Page| page.value("tokenscope_flow_events_total", "");
        let mut last = f64::NAN;
        loop {
            // The page is made once a second.
            std::thread::sleep(3 * LOOK);
            let reading = Self::of(sensor)?;
            let now = events(&reading.page);
            if (now - last).abs() < 0.5 || deadline.is_over() {
                return Ok(reading);
            }
            last = now;
        }
    }
}

/// The most of what changes from moment to moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Most {
    /// Resident memory, MiB.
    pub resident: f64,
    /// Share of the ring that a look found full.
    pub ring: f64,
    /// Connections known.
    pub flows: f64,
    /// Bytes held of unfinished messages, MiB.
    pub held: f64,
}

/// A thread that looks for the most.
#[derive(Debug)]
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Most>,
}

impl Watch {
    /// Begins.
    #[must_use]
    pub fn start(sensor: &Sensor) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (pid, metrics, done) = (sensor.pid(), sensor.metrics, Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut most = Most::default();
            loop {
                let last = done.load(Ordering::Relaxed);
                most.resident = most.resident.max(resident_mib(pid).unwrap_or_default());
                if let Ok(page) = Page::of(metrics) {
                    let size = page.value("tokenscope_ring_bytes", "").max(1.0);
                    most.ring = most.ring.max(page.value("tokenscope_ring_found_bytes", "") / size);
                    most.flows = most.flows.max(page.value("tokenscope_flows", ""));
                    let held = page.value("tokenscope_flow_held_bytes", "") / f64::from(1 << 20);
                    most.held = most.held.max(held);
                }
                if last {
                    return most;
                }
                std::thread::sleep(LOOK);
            }
        });
        Self { over, thread }
    }

    /// Ends, and gives it.
    #[must_use]
    pub fn end(self) -> Most {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("a number")?.parse::<f64>()? / 1024.0)
}

/// Objects of 192 bytes that the kernel holds: a socket's storage takes two of them (`struct bpf_local_storage` and
/// `struct bpf_local_storage_elem` with a flow inside), and few other things are as large.
///
/// # Errors
/// When the kernel does not say.
pub fn storage_objects() -> Result<f64> {
    let text = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    let mine = |line: &&str| {
        let name = line.split(' ').next().unwrap_or_default();
        name.starts_with("kmalloc-") && name.ends_with("-192") && !name.contains("dma")
    };
    Ok(text.lines().filter(mine).filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_told_from_longer_names() {
        let page = Page("a_total{reason=\"x\"} 2\na_total{reason=\"y\"} 3\na_total_more 9\n".into());
        assert!((page.value("a_total", "") - 5.0).abs() < 1e-9);
        assert!((page.value("a_total", "\"y\"") - 3.0).abs() < 1e-9);
    }
}
