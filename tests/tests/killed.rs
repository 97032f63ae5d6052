//! A sensor that is killed again and again, at any moment, while it alerts: no alert that anybody saw is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::client::{Client, Setup, get};
use tests::clock::Deadline;
use tests::mint::Mint;
use tests::sensor::{Config, PATIENCE, Sensor};
use tests::{clock, raw, sensor, skip};

/// How often it is killed.
const KILLS: u32 = 100;

/// A receiver that refuses, cuts and hangs, until it is told to behave. It notes what it has said yes to.
#[derive(Clone, Default)]
struct Moody {
    taken: Arc<Mutex<BTreeSet<String>>>,
    behaves: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Moody {
    fn listen(&self) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let moody = self.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let moody = moody.clone();
                std::thread::spawn(move || while moody.answer(&mut stream).is_ok() {});
            }
        });
        Ok(address)
    }

    fn answer(&self, stream: &mut TcpStream) -> Result<()> {
        let head = String::from_utf8_lossy(&raw::head(stream)?).to_ascii_lowercase();
        let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.context("no length")?.trim().parse()?];
        stream.read_exact(&mut body)?;
        let mood = if self.behaves.load(Ordering::SeqCst) {
            0
        } else {
            self.asked.fetch_add(1, Ordering::SeqCst) % 5
        };
        let answer: &[u8] = match mood {
            1 => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
            2 => b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
            3 => b"HTTP/1.1 200 OK\r\nContent-Len",
            4 => {
                // Never an answer; the sensor gives up after a second.
                let _ = stream.read(&mut [0]);
                b""
            }
            _ => {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                for event in serde_json::Deserializer::from_slice(&body).into_iter::<Value>() {
                    taken.extend(uid(&event?));
                }
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            }
        };
        stream.write_all(answer)?;
        ensure!(mood < 3, "the connection ends here");
        Ok(())
    }

    fn has(&self, wanted: &BTreeMap<u64, String>) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.values().all(|uid| taken.contains(uid))
    }
}

fn uid(event: &Value) -> Option<String> {
    Some(event.pointer("/metadata/uid")?.as_str()?.to_owned())
}

/// The number of an event, and its name, which a repetition has as well.
fn named(line: &str) -> Option<(u64, String)> {
    // The last line of a sensor that was killed may be half a line.
    let event: Value = serde_json::from_str(line).ok()?;
    Some((event.pointer("/metadata/sequence")?.as_u64()?, uid(&event)?))
}

/// Attacks until it is told to stop, from one new address after the other: each is an alert.
fn attack(service: SocketAddr, token: &str, stop: &AtomicBool, number: &AtomicU32) {
    let request = get("/orders/1", Some(token));
    while !stop.load(Ordering::SeqCst) {
        let [_, _, high, low] = number.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        let setup = Setup { from: Some(IpAddr::from([127, 77, high, low])), ..Setup::default() };
        // The sensor is often not there to see it.
        let _ = Client::connect_with(service, setup).and_then(|mut client| client.ask(&request));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Notes what was said; the same number is never said of two events.
fn note(seen: &mut BTreeMap<u64, String>, line: &str) -> Result<()> {
    let Some((number, uid)) = named(line) else { return Ok(()) };
    if let Some(before) = seen.insert(number, uid.clone()) {
        ensure!(before == uid, "{number} is {before} and {uid}");
    }
    Ok(())
}

/// One life: so many alerts are seen, then it is killed in the midst of the next ones.
fn live_and_die(config: &Config, run: u32, seen: &mut BTreeMap<u64, String>) -> Result<()> {
    let sensor = Sensor::start(config)?;
    for _ in 0..=run % 7 {
        note(seen, &sensor.line(PATIENCE).context("no alert")?)?;
    }
    std::thread::sleep(Duration::from_millis(u64::from(run * 7 % 23)));
    sensor.last_words().iter().try_for_each(|line| note(seen, line))
}

fn filed(path: &Path) -> Result<Vec<(u64, String)>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| named(line).with_context(|| format!("half a line: {line}"))).collect()
}

#[test]
fn a_hundred_deaths_lose_no_alert_that_was_seen() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("killed::a_hundred_deaths_lose_no_alert_that_was_seen", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let dir = tempfile::tempdir()?;
    let (file, receiver) = (dir.path().join("alerts.jsonl"), Moody::default());
    let url = format!("http://{}/", receiver.listen()?);
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/state/dir", json!(dir.path().join("state")));
    config.set(
        "/sinks",
        json!([
            {"type": "http", "url": url, "timeout_s": 1},
            {"type": "http", "name": "nobody", "url": "http://127.0.0.1:9/"},
            {"type": "file", "path": file},
        ]),
    );
    let token = Attack::AlgNone.token(&mint, "mallory")?;
    let (stop, number, mut seen) = (AtomicBool::new(false), AtomicU32::new(0), BTreeMap::new());
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| attack(service, &token, &stop, &number));
        let lives = (0..KILLS).try_for_each(|run| live_and_die(&config, run, &mut seen));
        stop.store(true, Ordering::SeqCst);
        let _ = attacker.join();
        lives
    })?;
    ensure!(seen.len() > KILLS as usize, "{} alerts only", seen.len());
    receiver.behaves.store(true, Ordering::SeqCst);
    let last = Sensor::start(&config)?;
    let deadline = Deadline::after(PATIENCE * 2);
    loop {
        let lines: BTreeMap<u64, String> = filed(&file)?.into_iter().collect();
        if receiver.has(&seen) && seen.iter().all(|(number, uid)| lines.get(number) == Some(uid)) {
            break;
        }
        ensure!(!deadline.is_over(), "seen: {seen:?}\nin the file: {lines:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    last.stop()?;
    let lines = filed(&file)?;
    let once: BTreeSet<u64> = lines.iter().map(|(number, _)| *number).collect();
    ensure!(once.len() == lines.len(), "some lines are there twice: {lines:?}");
    Ok(())
}
