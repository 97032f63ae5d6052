//! `kill -9` in a loop, under load, with a receiver that fails in every way: nothing that was in the spool is lost, no
//! file line comes twice, and every number that is missing is told.
//!
//! The child is this test program again, told by a variable to append events as fast as it can and to deliver them to a
//! file, to an HTTP receiver and to one that is not there. It says of each event when the spool has it; then it is killed
//! at some moment. In the end a child that may finish delivers what is left.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on should stop; its deadlines are real"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sensor_user::config::{Environment, Secrets};
use sensor_user::deliver::{Clock, Deliveries, Letters};
use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Node, Told};
use sensor_user::sink::Words;
use sensor_user::spool::{Cursor, Draft, LANES, Settings, Spool, Sync};

/// How often the child is killed.
const KILLS: u32 = 120;

/// Variables that make this program the child: where, who, and how many events at most.
const DIR: &str = "CRASH_DIR";
const RUN: &str = "CRASH_RUN";
const EVENTS: &str = "CRASH_EVENTS";
const URL: &str = "CRASH_URL";

/// Small numbers by a rule that gives the same ones every time (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

const SEVERITIES: [Severity; LANES] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

fn spool(dir: &Path) -> Spool {
    let settings = Settings { max_bytes: 1 << 30, max_age: Duration::from_hours(24), sync: Sync::Always };
    Spool::open(&dir.join("spool"), settings, 1).unwrap()
}

/// Nothing is ever a dead letter here.
struct Unused;

impl Letters for Unused {
    fn add(&self, sink: &str, told: &Told, reason: &Words, _: u32, _: u64) {
        panic!("{} is a dead letter of {sink}: {reason}", told.sequence);
    }
    fn any_waiting(&self, _: &str) -> bool {
        false
    }
    fn next_replay(&self, _: &str) -> Option<Arc<Told>> {
        None
    }
    fn replayed(&self, _: &str) {}
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// The child: appends, and says `RUN NUMBER` of each event that the spool has.
fn child(dir: &Path) {
    let var = |name: &str| std::env::var(name).unwrap();
    let (run, most): (u64, u64) = (var(RUN).parse().unwrap(), var(EVENTS).parse().unwrap());
    let yaml = format!(
        "sinks:\n  - {{type: file, path: {0}/alerts.jsonl}}\n  - {{type: http, url: '{1}', timeout_s: 1}}\n  - {{type: http, name: nobody, url: 'http://127.0.0.1:9/'}}\n",
        dir.display(),
        var(URL)
    );
    let cards = sensor_user::detect::rules::catalogue();
    let loaded =
        sensor_user::config::parse("crash", &yaml, dir, &Environment::default(), cards, Secrets::Needed);
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
    let spool = spool(dir);
    let clock = Clock::of_host(jiff::tz::TimeZone::UTC);
    let deliveries = Deliveries::new(spool.clone(), Arc::new(Unused), clock, Node::named("crash"));
    deliveries
        .serve(&loaded.config.sinks, Duration::from_secs(1))
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut chance = Chance(run * 7919 + 1);
    let mut out = std::io::stdout().lock();
    let mut sent = 0;
    while sent < most {
        let many = (1 + chance.below(20)).min(most - sent);
        let pad = "x".repeat(usize::try_from(chance.below(3000)).unwrap());
        let severities: Vec<Severity> =
            (0..many).map(|_| SEVERITIES[usize::try_from(chance.below(4)).unwrap()]).collect();
        let mut tell: Vec<_> = severities
            .iter()
            .map(|severity| {
                let (severity, pad) = (severity.id(), &pad);
                move |n: u64| {
                    format!(
                        r#"{{"activity_id":1,"severity_id":{severity},"class_uid":2004,"metadata":{{"uid":"e-{n}","sequence":{n},"reporter":{{"name":"crash"}}}},"finding_info":{{"uid":"e-{n}","analytic":{{"uid":"r"}}}},"unmapped":{{"run":{run},"pad":"{pad}"}}}}"#
                    )
                }
            })
            .collect();
        let both = severities.iter().zip(&mut tell);
        let mut drafts: Vec<Draft<'_>> = both
            .map(|(severity, json)| Draft { time_ms: 1, severity: *severity, kind: Kind::Alert, json })
            .collect();
        let numbers = spool.append(&mut drafts).unwrap();
        for number in numbers {
            writeln!(out, "{run} {number}").unwrap();
        }
        out.flush().unwrap();
        sent += many;
    }
    writeln!(out, "head {}", *spool.head().borrow()).unwrap();
    out.flush().unwrap();
    // Until standard input closes.
    let _ = std::io::stdin().read(&mut [0]);
    deliveries.stop(Duration::from_secs(5));
}

/// A receiver that fails in every way, until it is told to behave. It notes what it has said yes to.
struct Receiver {
    url: String,
    taken: Arc<Mutex<BTreeMap<u64, u64>>>,
    behave: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let taken = Arc::new(Mutex::new(BTreeMap::new()));
        let (behave, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let receiver = Self {
            url,
            taken: Arc::clone(&taken),
            behave: Arc::clone(&behave),
            failures: Arc::clone(&failures),
        };
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let (taken, behave, failures) =
                    (Arc::clone(&taken), Arc::clone(&behave), Arc::clone(&failures));
                let chance = Chance(number as u64 * 104_729 + 17);
                std::thread::spawn(move || serve(&stream, chance, &taken, &behave, &failures));
            }
        });
        receiver
    }
}

/// Serves one connection until it ends or is cut.
fn serve(
    mut stream: &TcpStream,
    mut chance: Chance,
    taken: &Mutex<BTreeMap<u64, u64>>,
    behave: &AtomicBool,
    failures: &AtomicU64,
) {
    let mut reader = BufReader::new(stream);
    while let Some(body) = request(&mut reader) {
        let mood = if behave.load(Ordering::Relaxed) { 0 } else { chance.below(12) };
        if mood > 5 {
            failures.fetch_add(1, Ordering::Relaxed);
        }
        let answer = match mood {
            0..=5 => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            6 => "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
            7 => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops",
            8 => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4000\r\n\r\nless than that",
            9 => "HTTP/1.1 2",
            10 => return,
            _ => {
                // Says nothing for as long as the other end waits.
                let _ = reader.get_ref().set_read_timeout(Some(Duration::from_secs(20)));
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        if mood <= 5 {
            let mut taken = taken.lock().unwrap();
            for number in numbers(&body) {
                *taken.entry(number).or_default() += 1;
            }
        }
        if stream.write_all(answer.as_bytes()).is_err() || (8..=9).contains(&mood) {
            return;
        }
    }
}

/// The body of the next request.
fn request(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

/// The numbers of the events in a text.
fn numbers(text: &str) -> Vec<u64> {
    let parts = text.split("\"sequence\":").skip(1);
    parts.map(|part| part.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()).collect()
}

fn start(dir: &Path, url: &str, run: u32, events: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "nothing_is_lost_however_often_the_sensor_is_killed", "--nocapture", "--quiet"]);
    command.env(DIR, dir).env(RUN, run.to_string()).env(EVENTS, events.to_string()).env(URL, url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// What a child says: which events the spool has.
fn said(line: &str, acked: &mut BTreeMap<u64, u64>) {
    if let Some((run, number)) = line.split_once(' ')
        && let (Ok(run), Ok(number)) = (run.parse(), number.parse::<u64>())
    {
        assert_eq!(acked.insert(number, run), None, "number {number} was given twice");
    }
}

/// One life of the child, ended without warning.
fn live_and_die(dir: &Path, url: &str, run: u32, chance: &mut Chance, acked: &mut BTreeMap<u64, u64>) {
    let mut child = start(dir, url, run, u64::MAX);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lifetime = Duration::from_millis(chance.below(150));
    let mut until = None;
    let mut killed = false;
    for line in lines.by_ref() {
        said(&line.unwrap(), acked);
        let until = *until.get_or_insert_with(|| Instant::now() + lifetime);
        if !killed && Instant::now() >= until {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "run {run} ended by itself: {:?}", child.wait());
    child.wait().unwrap();
}

#[test]
fn nothing_is_lost_however_often_the_sensor_is_killed() {
    if let Some(dir) = std::env::var_os(DIR) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    let (mut acked, mut chance) = (BTreeMap::new(), Chance(42));
    for run in 1..=KILLS {
        live_and_die(dir.path(), &receiver.url, run, &mut chance, &mut acked);
    }
    receiver.behave.store(true, Ordering::Relaxed);
    let mut last = start(dir.path(), &receiver.url, KILLS + 1, 10);
    let mut lines = BufReader::new(last.stdout.take().unwrap()).lines();
    let head: u64 = loop {
        let line = lines.next().unwrap().unwrap();
        match line.strip_prefix("head ") {
            Some(head) => break head.parse().unwrap(),
            None => said(&line, &mut acked),
        }
    };
    let deadline = Instant::now() + Duration::from_mins(2);
    let missing = || {
        let taken = receiver.taken.lock().unwrap();
        acked.keys().filter(|number| !taken.contains_key(number)).count()
    };
    while missing() > 0 {
        assert!(Instant::now() < deadline, "{} of {} events never came", missing(), acked.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(last.stdin.take());
    assert!(last.wait().unwrap().success());

    // Every event that the spool had is in the file, once, with what it said.
    let mut lines: BTreeMap<u64, u64> = BTreeMap::new();
    let text = std::fs::read_to_string(dir.path().join("alerts.jsonl")).unwrap();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let number = event["metadata"]["sequence"].as_u64().unwrap();
        let twice = lines.insert(number, event["unmapped"]["run"].as_u64().unwrap());
        assert_eq!(twice, None, "line {number} came twice");
    }
    for (number, run) in &acked {
        assert_eq!(lines.get(number), Some(run), "event {number} of run {run}");
    }
    // Every number that nobody has is told as missing.
    let spool = spool(dir.path());
    let (mut cursor, mut told, mut missing) = (Cursor::default(), BTreeSet::new(), BTreeSet::new());
    loop {
        let read = spool.read(&cursor, [true; LANES], 1000, 1 << 20);
        told.extend(read.events.iter().map(|event| event.sequence));
        missing.extend(read.lost.iter().cloned().flatten());
        if read.next == cursor {
            break;
        }
        cursor = read.next;
    }
    for number in 1..=head {
        assert!(
            told.contains(&number) != missing.contains(&number),
            "{number} is neither there nor told as missing"
        );
        assert!(told.contains(&number) || !acked.contains_key(&number), "{number} was promised");
    }
    assert!(receiver.failures.load(Ordering::Relaxed) > 20, "the receiver was too kind");
    assert!(acked.len() > KILLS as usize, "only {} events", acked.len());
}
