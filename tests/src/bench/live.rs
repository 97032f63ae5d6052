//! The live figures: nginx under wrk, with nothing beside it, the sensor, empty kernel programs and peers in turns.
//!
//! nginx has the first core and wrk the second; the others take what is left of either, as on a busy node. Tokens
//! are ~900-byte RS256, 2,000 of them, on 16 keep-alive connections; answers are 2.5 KB files.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::paced;
use super::peers::{self, Peer};
use super::process::{Programs, children_cpu_s, cpu_ns, kernel_programs, wakeups};
use super::{Figure, Options, Topic, number_before};
use crate::bpf::Foreign;
use crate::clock::Deadline;
use crate::guest::cgroup_root;
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

/// What runs beside the load.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    /// The sensor, with its store or without.
    Sensor {
        store: bool,
    },
    /// Kernel programs at the sensor's place that let every packet pass: the floor of what is attached there.
    Empty,
    /// The sensor's kernel half, and a reader of its ring that does this much with what it finds: the floor of any agent. Or,
    /// in its place, programs that only copy the same bytes: the floor of a kernel half.
    Ring(&'static RingWork),
    Peer(&'static Peer),
}

/// Names the program that reads the ring (`sensor-user/examples/ring_floor.rs`).
const RING_FLOOR: &str = "LAB_RING_FLOOR";

/// How much it does.
#[derive(Debug)]
struct RingWork {
    /// What it is asked for.
    word: &'static str,
    /// What the figures call it.
    name: &'static str,
}

static RING: [RingWork; 4] = [
    RingWork { word: "plain", name: "a plain copy" },
    RingWork { word: "drain", name: "the ring drained" },
    RingWork { word: "copy", name: "the ring copied" },
    RingWork { word: "read", name: "the ring read" },
];

impl Beside {
    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Sensor { store: true } => "tokenscope",
            Self::Sensor { store: false } => "tokenscope, store off",
            Self::Empty => "empty programs",
            Self::Ring(work) => work.name,
            Self::Peer(peer) => peer.name,
        }
    }

    /// All that can be measured here, nothing first, then the sensor; says what is left out.
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Nothing, Self::Sensor { store: true }, Self::Sensor { store: false }];
        match crate::bpf::missing() {
            Some(why) => super::left_out(&format!("empty programs: {why}")),
            None => all.push(Self::Empty),
        }
        match std::env::var_os(RING_FLOOR) {
            None => super::left_out(&format!("readers of the ring: {RING_FLOOR} names no program")),
            Some(_) => all.extend(RING.iter().map(Self::Ring)),
        }
        all.extend(peers::installed().into_iter().filter(|peer| peer.is_live()).map(Self::Peer));
        all
    }
}

/// One run of wrk, and what it cost whom. What nobody said is zero.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    requests: f64,
    per_second: f64,
    nginx_us: f64,
    wrk_us: f64,
    /// CPU time of the process beside it, a request.
    own_us: f64,
    /// How often its threads were woken, a second.
    wakeups: f64,
    /// Exchanges that the sensor did not see, of the requests that wrk had answered.
    unseen: f64,
    /// Records that the sensor says it lost.
    lost: f64,
    /// Share of the sensor's ring that one look found full, at most, in a second of the load.
    ring: f64,
    /// Packets that a peer says it dropped, of a million.
    dropped: Option<f64>,
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

/// Measures what the sensor costs, and how soon it tells.
pub(crate) fn measure(options: &Options) -> Result<Vec<Figure>> {
    let bed = Bed::make(options.seconds)?;
    bed.run(None, WARM_UP_S)?;
    let mut figures = if options.live { costs(&bed, options)? } else { Vec::new() };
    if options.latency {
        figures.extend(super::latency::measure(&bed)?);
    }
    Ok(figures)
}

/// Measures rounds of runs, one beside each; and the kernel programs in a run of their own (their statistics cost time).
fn costs(bed: &Bed, options: &Options) -> Result<Vec<Figure>> {
    let mut turns: Vec<(Beside, Vec<Run>)> = Beside::all().into_iter().map(|one| (one, Vec::new())).collect();
    for round in 0..options.pairs {
        // Each round begins with another, so that drift of the machine favours none.
        let first = round % turns.len().max(1);
        let (early, late) = turns.split_at_mut(first);
        for (beside, runs) in late.iter_mut().chain(early) {
            runs.push(bed.beside(*beside).with_context(|| format!("beside {}", beside.name()))?);
        }
    }
    let mut figures = compared(&turns);
    figures.extend(bed.kernel_cost()?);
    figures.extend(super::rest::measure(bed, options)?);
    Ok(figures)
}

/// The figures of all runs, each pair of which is of one round.
fn compared(turns: &[(Beside, Vec<Run>)]) -> Vec<Figure> {
    let Some(((_, off), others)) = turns.split_first() else { return Vec::new() };
    let each = |runs: &[Run], what: fn(&Run) -> f64| runs.iter().map(what).collect::<Vec<_>>();
    let pairs = |on: &[Run], what: fn(&Run, &Run) -> f64| {
        on.iter().zip(off).map(|(on, off)| what(on, off)).collect::<Vec<_>>()
    };
    let mut figures = vec![
        Figure::new("nginx, sensor off", "requests/s", each(off, |r| r.per_second)),
        Figure::new("nginx CPU, sensor off", "us/request", each(off, |r| r.nginx_us)),
    ];
    for (beside, on) in others {
        let who = beside.name();
        figures.extend([
            Figure::of(Topic::Rate, who, pairs(on, |on, off| on.per_second / off.per_second)),
            Figure::of(Topic::Times, who, pairs(on, |on, off| on.nginx_us / off.nginx_us)),
            Figure::of(Topic::Added, who, pairs(on, |on, off| on.nginx_us - off.nginx_us)),
            Figure::of(Topic::Own, who, each(on, |r| r.own_us)),
        ]);
        let dropped: Vec<f64> = on.iter().filter_map(|run| run.dropped).collect();
        if !dropped.is_empty() {
            figures.push(Figure::new(format!("packets dropped, {who}"), "of a million", dropped));
        }
        if matches!(beside, Beside::Ring(_)) {
            let unseen = each(on, |r| r.unseen * 1e6 / r.requests);
            figures.push(Figure::new(format!("requests not seen, {who}"), "of a million", unseen));
        }
        if matches!(beside, Beside::Sensor { store: true }) {
            figures.extend([
                Figure::new("nginx, sensor on", "requests/s", each(on, |r| r.per_second)),
                Figure::new("nginx CPU, sensor on", "us/request", each(on, |r| r.nginx_us)),
                Figure::new(
                    "CPU added to the client",
                    "us/request",
                    pairs(on, |on, off| on.wrk_us - off.wrk_us),
                ),
                Figure::new("the agent's wakeups under load", "a second", each(on, |r| r.wakeups)),
                Figure::new("most of the ring found full under load", "%", each(on, |r| r.ring * 100.0)),
                Figure::new("requests not seen", "of a million", each(on, |r| r.unseen * 1e6 / r.requests)),
                Figure::new("records lost", "a run", each(on, |r| r.lost)),
            ]);
        }
    }
    figures
}

/// A program that reads the ring. Dropping it kills it.
struct RingReader {
    child: Child,
    says: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl RingReader {
    fn start(program: &Path, work: &str, port: u16) -> Result<Self> {
        let mut child = Command::new(program)
            .args([work, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let says = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut reader = Self { child, says };
        let first = reader.says.next().context("it ended")??;
        ensure!(first == "watching", "{}: {first}", program.display());
        Ok(reader)
    }

    /// Ends it. The requests that it saw.
    fn stop(mut self) -> Result<f64> {
        drop(self.child.stdin.take());
        Ok(self.says.next().context("how many requests it saw")??.parse()?)
    }
}

impl Drop for RingReader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

    /// So many requests a second and no more, until `done`. Gives how many it were.
    pub(super) fn pace(&self, rate: u32, done: &AtomicBool) -> Result<f64> {
        let tokens = fs::read_to_string(self.dir.path().join("tokens"))?;
        let tokens: Vec<String> = tokens.lines().map(str::to_owned).collect();
        paced::ask(self.address(), &tokens, rate, done)
    }

    /// Runs wrk once; `beside` is the process to account for.
    fn run(&self, beside: Option<u32>, seconds: u64) -> Result<Run> {
        let costs = || -> Result<[u64; 3]> {
            let of = |what: fn(u32) -> Result<u64>| beside.map_or(Ok(0), what);
            Ok([cpu_ns(self.nginx.id())?, of(cpu_ns)?, of(wakeups)?])
        };
        let (before, client_before) = (costs()?, children_cpu_s()?);
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
        let (after, client_after) = (costs()?, children_cpu_s()?);
        let requests = number_before(&text, "requests in").context("wrk's count")?;
        let per_second =
            text.split("Requests/sec:").nth(1).and_then(|t| t.split_whitespace().next()?.parse().ok());
        let per_second = per_second.context("wrk's rate")?;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit a double")]
        let [nginx_ns, own_ns, wakeups] = [0, 1, 2].map(|i: usize| {
            after
                .get(i)
                .zip(before.get(i))
                .map_or(0.0, |(after, before)| after.saturating_sub(*before) as f64)
        });
        Ok(Run {
            requests,
            per_second,
            nginx_us: nginx_ns / 1000.0 / requests,
            wrk_us: (client_after - client_before) * 1e6 / requests,
            own_us: own_ns / 1000.0 / requests,
            wakeups: wakeups * per_second / requests,
            ..Run::default()
        })
    }

    /// Runs wrk once beside something.
    fn beside(&self, beside: Beside) -> Result<Run> {
        match beside {
            Beside::Nothing => self.run(None, self.seconds),
            Beside::Sensor { store: true } => self.sensed(&self.config),
            Beside::Sensor { store: false } => {
                let mut config = self.config.clone();
                config.set("/store/enabled", json!(false));
                self.sensed(&config)
            }
            Beside::Empty => {
                let _programs = Foreign::attach_both(&cgroup_root()?)?;
                self.run(None, self.seconds)
            }
            Beside::Ring(work) => self.ring_read(work.word),
            Beside::Peer(peer) => {
                let watcher = peer.start(self.port)?;
                let run = self.run(Some(watcher.pid()), self.seconds)?;
                Ok(Run { dropped: watcher.stop()?, ..run })
            }
        }
    }

    fn ring_read(&self, work: &str) -> Result<Run> {
        let program = std::env::var_os(RING_FLOOR).context(RING_FLOOR)?;
        let reader = RingReader::start(Path::new(&program), work, self.port)?;
        let warm_up = self.run(Some(reader.child.id()), WARM_UP_S)?;
        let run = self.run(Some(reader.child.id()), self.seconds)?;
        let seen = reader.stop()?;
        Ok(Run { unseen: (warm_up.requests + run.requests - seen).max(0.0), ..run })
    }

    fn sensed(&self, config: &Config) -> Result<Run> {
        let sensor = Sensor::start(config)?;
        let warm_up = self.run(Some(sensor.pid()), WARM_UP_S)?;
        let run = self.run(Some(sensor.pid()), self.seconds)?;
        // The page is made anew each second: this one tells of the load's last.
        let [found, size] =
            ["tokenscope_ring_found_bytes", "tokenscope_ring_bytes"].map(|name| sensor.metric(name, ""));
        let ended = sensor.stop()?;
        let seen = ended.total("exchanges").context("the sensor's count")?;
        Ok(Run {
            ring: found? / size?.max(1.0),
            // wrk hangs up with requests in flight, which the sensor counts and wrk does not: never less than zero.
            unseen: (warm_up.requests + run.requests - seen).max(0.0),
            lost: ended.total("lost").context("the sensor's losses")?,
            ..run
        })
    }

    /// What kernel programs cost: the sensor's, and those that only copy. They see all packets of the host, so that other
    /// traffic counts as well.
    fn kernel_cost(&self) -> Result<Vec<Figure>> {
        let sensor = Sensor::start(&self.config)?;
        let (all, requests) = self.programs_of(sensor.pid())?;
        sensor.stop()?;
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
        let (ns, runs) = (all.ns as f64, all.runs as f64);
        let mut figures = vec![
            Figure::new("kernel programs", "ns/run", vec![ns / runs.max(1.0)]),
            Figure::new("kernel program runs", "runs/request", vec![runs / requests]),
            Figure::new("kernel programs", "us/request", vec![ns / requests / 1000.0]),
        ];
        if all.walked > 0 {
            #[expect(clippy::cast_precision_loss, reason = "at most a million each")]
            let walked = all.walked as f64;
            figures.push(Figure::new("instructions that the verifier walked", "", vec![walked]));
        }
        if let Some(program) = std::env::var_os(RING_FLOOR) {
            let [plain, ..] = &RING;
            let reader = RingReader::start(Path::new(&program), plain.word, self.port)?;
            let (all, requests) = self.programs_of(reader.child.id())?;
            reader.stop()?;
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit a double")]
            let ns = all.ns as f64;
            figures.push(Figure::new(
                "kernel programs, a plain copy",
                "us/request",
                vec![ns / requests / 1000.0],
            ));
        }
        Ok(figures)
    }

    /// What the programs that a process holds cost in one run, and how many requests that had.
    fn programs_of(&self, pid: u32) -> Result<(Programs, f64)> {
        let restore = Switch::set(Path::new("/proc/sys/kernel/bpf_stats_enabled"))?;
        let before = kernel_programs(pid)?;
        let run = self.run(Some(pid), self.seconds)?;
        let after = kernel_programs(pid)?;
        drop(restore);
        let spent =
            Programs { ns: after.ns - before.ns, runs: after.runs - before.runs, walked: after.walked };
        Ok((spent, run.requests))
    }
}

/// A kernel switch that is put back when dropped.
pub(super) struct Switch<'a>(&'a Path, String);

impl<'a> Switch<'a> {
    pub(super) fn set(file: &'a Path) -> Result<Self> {
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
