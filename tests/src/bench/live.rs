//! The live figures: nginx under wrk, with the sensor on and off in turns.
//!
//! nginx has the first core and wrk the second; the sensor takes what is left of either, as on a busy node. Tokens
//! are ~900-byte RS256, 2,000 of them, on 16 keep-alive connections; answers are 2.5 KB files.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::process::{cpu_ns, kernel_programs};
use super::{Figure, Options};
use crate::clock::Deadline;
use crate::mint::Mint;
use crate::sensor::{Config, Sensor};
use crate::server::{find_program, free_port};
use crate::{clock, service};

/// Distinct tokens in the pool.
const TOKENS: usize = 2_000;

/// Seconds of load before a measurement: caches fill, and the sensor verifies each token of the pool, once.
const WARM_UP_S: u64 = 1;

/// Why there can be no live figures here.
pub(crate) fn missing() -> Option<String> {
    let absent = |program: &&str| find_program(program).is_none();
    let program = ["nginx", "wrk", "taskset"].into_iter().find(absent);
    if let Some(name) = program {
        return Some(format!("{name} is not installed"));
    }
    (!crate::is_root()).then(|| "loading kernel programs needs root".to_owned())
}

/// One run of wrk.
struct Run {
    requests: f64,
    per_second: f64,
    nginx_us: f64,
    wrk_us: f64,
    sensor_us: f64,
    /// Exchanges that the sensor did not see, of the requests that wrk had answered.
    unseen: f64,
    /// Records that the sensor says it lost.
    lost: f64,
}

pub(super) struct Bed {
    nginx: Child,
    dir: tempfile::TempDir,
    port: u16,
    config: Config,
    seconds: u64,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}

/// Measures rounds of runs: without the sensor, with it, with it but without its store; and the kernel programs in a run of their own (their statistics cost time).
pub(crate) fn measure(options: &Options) -> Result<Vec<Figure>> {
    let bed = Bed::make(options.seconds)?;
    bed.run(None, WARM_UP_S)?;
    let (mut off, mut on, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut storeless = bed.config.clone();
    storeless.set("/store/enabled", json!(false));
    for round in 0..options.pairs {
        // Each round begins with another of the three, so that drift of the machine favours none.
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => off.push(bed.run(None, bed.seconds)?),
                1 => on.push(bed.sensed(&bed.config)?),
                _ => bare.push(bed.sensed(&storeless)?),
            }
        }
    }
    let (ns, runs) = bed.kernel_cost()?;
    let each = |runs: &[Run], what: fn(&Run) -> f64| runs.iter().map(what).collect::<Vec<_>>();
    let pairs =
        |what: fn(&Run, &Run) -> f64| on.iter().zip(&off).map(|(on, off)| what(on, off)).collect::<Vec<_>>();
    let mut figures = vec![
        Figure::new("nginx, sensor off", "requests/s", each(&off, |r| r.per_second)),
        Figure::new("nginx, sensor on", "requests/s", each(&on, |r| r.per_second)),
        Figure::new("ratio on/off", "", pairs(|on, off| on.per_second / off.per_second)),
        Figure::new("nginx CPU, sensor off", "us/request", each(&off, |r| r.nginx_us)),
        Figure::new("nginx CPU, sensor on", "us/request", each(&on, |r| r.nginx_us)),
        Figure::new("added to nginx", "us/request", pairs(|on, off| on.nginx_us - off.nginx_us)),
        Figure::new("added to the client", "us/request", pairs(|on, off| on.wrk_us - off.wrk_us)),
        Figure::new("sensor's own CPU", "us/request", each(&on, |r| r.sensor_us)),
        Figure::new("sensor's own CPU, store off", "us/request", each(&bare, |r| r.sensor_us)),
        Figure::new("kernel programs", "ns/run", vec![ns]),
        Figure::new("kernel program runs", "runs/request", vec![runs]),
        Figure::new("kernel programs", "us/request", vec![ns * runs / 1000.0]),
        Figure::new(
            "requests not seen by the sensor",
            "of a million",
            each(&on, |r| r.unseen * 1e6 / r.requests),
        ),
        Figure::new("records lost by the sensor", "a run", each(&on, |r| r.lost)),
    ];
    figures.extend(super::latency::measure(&bed)?);
    Ok(figures)
}

impl Bed {
    fn make(seconds: u64) -> Result<Self> {
        let mint = Mint::at(clock::now())?;
        let dir = tempfile::tempdir()?;
        let mut tokens = String::new();
        for user in 0..TOKENS {
            tokens.push_str(&mint.good_of_size(&format!("user{user}"), 900)?);
            tokens.push('\n');
        }
        fs::write(dir.path().join("tokens"), tokens)?;
        fs::write(dir.path().join("page"), "x".repeat(2_500))?;
        let port = free_port()?;
        let conf = fs::read_to_string(service("nginx-bench.conf"))?
            .replace("@DIR@", &dir.path().to_string_lossy())
            .replace("@PORT@", &port.to_string());
        fs::write(dir.path().join("nginx.conf"), conf)?;
        let nginx = Command::new("taskset")
            .args(["-c", "0"])
            .arg(find_program("nginx").context("nginx")?)
            .args(["-e", "stderr", "-c"])
            .arg(dir.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .spawn()?;
        let mut config = Config::new(&mint)?.ports(&[port]);
        // The load is far above ten requests a second a token; the rule counts as ever, and stays silent.
        config.set("/rules/token-rate/per_second", json!(1_000_000));
        config.set("/rules/token-rate/medium_per_second", json!(1_000_000));
        let bed = Self { nginx, dir, port, config, seconds };
        let deadline = Deadline::after(Duration::from_secs(10));
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(!deadline.is_over(), "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(bed)
    }

    /// Where nginx listens.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A configuration that watches it.
    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// wrk, for as long as a run takes.
    pub(super) fn load(&self) -> Result<()> {
        self.run(None, self.seconds).map(drop)
    }

    /// Runs wrk once; `sensor` is the process to account for.
    fn run(&self, sensor: Option<&Sensor>, seconds: u64) -> Result<Run> {
        let cost = |pid: Option<u32>| pid.map_or(Ok(0), cpu_ns);
        let pids = (Some(self.nginx.id()), sensor.map(Sensor::pid));
        let before = (cost(pids.0)?, cost(pids.1)?, super::process::children_cpu_s()?);
        let done = Command::new("taskset")
            .args(["-c", "1"])
            .arg(find_program("wrk").context("wrk")?)
            .args(["-t1", "-c16", &format!("-d{seconds}s"), "-s"])
            .arg(service("tokens.lua"))
            .arg(format!("http://127.0.0.1:{}/page", self.port))
            .arg("--")
            .arg(self.dir.path().join("tokens"))
            .output()?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(done.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&done.stderr));
        ensure!(!text.contains("Non-2xx"), "nginx refused requests: {text}");
        // The sensor drains what is in its ring a few milliseconds later; that is part of its cost.
        std::thread::sleep(Duration::from_millis(300));
        let after = (cost(pids.0)?, cost(pids.1)?, super::process::children_cpu_s()?);
        let requests: f64 = word_before(&text, "requests in").context("wrk's count")?;
        let per_second =
            text.split("Requests/sec:").nth(1).and_then(|t| t.split_whitespace().next()?.parse().ok());
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit a double")]
        let us = |ns: u64| ns as f64 / 1000.0 / requests;
        Ok(Run {
            requests,
            per_second: per_second.context("wrk's rate")?,
            nginx_us: us(after.0 - before.0),
            wrk_us: (after.2 - before.2) * 1e6 / requests,
            sensor_us: us(after.1 - before.1),
            unseen: 0.0,
            lost: 0.0,
        })
    }

    fn sensed(&self, config: &Config) -> Result<Run> {
        let sensor = Sensor::start(config)?;
        let warm_up = self.run(Some(&sensor), WARM_UP_S)?;
        let mut run = self.run(Some(&sensor), self.seconds)?;
        let ended = sensor.stop()?;
        let seen = ended.total("exchanges").context("the sensor's count")?;
        // wrk hangs up with requests in flight, which the sensor counts and wrk does not: never less than zero.
        run.unseen = (warm_up.requests + run.requests - seen).max(0.0);
        run.lost = ended.total("lost").context("the sensor's losses")?;
        Ok(run)
    }

    /// Nanoseconds a run of a kernel program, and runs a request.
    fn kernel_cost(&self) -> Result<(f64, f64)> {
        let switch = PathBuf::from("/proc/sys/kernel/bpf_stats_enabled");
        let sensor = Sensor::start(&self.config)?;
        let restore = Switch::set(&switch)?;
        let before = kernel_programs(sensor.pid())?;
        let run = self.run(Some(&sensor), self.seconds)?;
        let after = kernel_programs(sensor.pid())?;
        drop(restore);
        sensor.stop()?;
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
        let (ns, runs) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
        Ok((ns / runs.max(1.0), runs / run.requests))
    }
}

/// A kernel switch that is put back when dropped.
struct Switch<'a>(&'a Path, String);

impl<'a> Switch<'a> {
    fn set(file: &'a Path) -> Result<Self> {
        let old = fs::read_to_string(file)?;
        fs::write(file, "1")?;
        Ok(Self(file, old))
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        let _ = fs::write(self.0, self.1.trim());
    }
}

fn word_before(text: &str, mark: &str) -> Option<f64> {
    text.split(mark).next()?.split_whitespace().last()?.parse().ok()
}
