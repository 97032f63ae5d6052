//! Alerts on their way out, with the whole program: every reader sees the same, and nothing is lost on the way.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::client::{Client, get};
use tests::clock::Deadline;
use tests::mint::Mint;
use tests::sensor::{Alert, Config, Follower, PATIENCE, Sensor, events};
use tests::{clock, raw, sensor, skip};

/// A receiver on this address that takes everything, and gives the events it was sent.
fn receiver(listener: TcpListener) -> Receiver<Value> {
    let (tell, sent) = sync_channel(10_000);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || while take(&mut stream, &tell).is_ok() {});
        }
    });
    sent
}

/// Takes one request.
fn take(stream: &mut TcpStream, tell: &SyncSender<Value>) -> Result<()> {
    let head = String::from_utf8_lossy(&raw::head(stream)?).to_ascii_lowercase();
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.context("no length")?.trim().parse()?];
    stream.read_exact(&mut body)?;
    for event in serde_json::Deserializer::from_slice(&body).into_iter::<Value>() {
        match event? {
            Value::Array(all) => all.into_iter().try_for_each(|event| tell.send(event))?,
            event => tell.send(event)?,
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    Ok(())
}

fn number(event: &Value) -> Option<u64> {
    event.pointer("/metadata/sequence")?.as_u64()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(!deadline.is_over(), "waiting for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The events of a file that is written at this moment: whole lines only.
fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    events(text.rsplit_once('\n').map_or("", |(whole, _)| whole))
}

fn attack(service: SocketAddr, mint: &Mint, path: &str) -> Result<()> {
    Client::connect(service)?.ask(&get(path, Some(&Attack::AlgNone.token(mint, "mallory")?)))?;
    Ok(())
}

fn answer(arguments: &[&str], sensor: &Sensor) -> Result<String> {
    let config = sensor.config();
    let config = config.to_string_lossy();
    let output = sensor::run(&[arguments, &["-c", &config]].concat())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Standard output, a file, an HTTP receiver, `tail`, the store and the metrics tell of one alert the same.
#[test]
fn every_reader_sees_the_same_alert() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("delivery::every_reader_sees_the_same_alert", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let dir = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/events", listener.local_addr()?);
    let sent = receiver(listener);
    let file = dir.path().join("alerts.jsonl");
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/node", json!("node-7"));
    config.set("/labels", json!(["env=test"]));
    config.set(
        "/sinks",
        json!([
            {"type": "file", "path": file},
            {"type": "http", "url": url},
            {"type": "file", "name": "elsewhere", "path": dir.path().join("no.jsonl"), "labels": ["env=live"]},
        ]),
    );
    let mut sensor = Sensor::start(&config)?;
    let tail = Follower::start(&sensor)?;
    attack(service, &mint, "/orders/1")?;
    let Alert(told) = sensor.next_alert()?;
    ensure!(number(&told) == Some(1) && told["metadata"]["reporter"]["hostname"] == "node-7", "{told}");
    ensure!(told["metadata"]["labels"] == json!(["env=test"]), "{told}");
    let posted = sent.recv_timeout(PATIENCE).context("nothing was posted")?;
    ensure!(posted == told, "posted {posted}, told {told}");
    let line = tail.line(PATIENCE).context("tail said nothing")?;
    ensure!(serde_json::from_str::<Value>(&line)? == told, "tail said {line}");
    let filed = wait_for("the file", || Ok(lines(&file)?.into_iter().next()))?;
    ensure!(filed == told, "filed {filed}");
    let once = answer(&["tail", "-n", "5", "-o", "json"], &sensor)?;
    ensure!(events(&once)?.first() == Some(&told), "{once}");
    let compact = answer(&["tail", "--rule", "alg-*", "-o", "compact"], &sensor)?;
    ensure!(compact.contains("alg-none") && compact.lines().count() == 1, "{compact}");
    wait_for("the metrics", || {
        let of = |sink: &str, result: &str| {
            sensor.metric("tokenscope_sink_events_total", &format!("sink=\"{sink}\",result=\"{result}\""))
        };
        let counts = (of("file", "delivered")?, of("http", "delivered")?, of("elsewhere", "filtered")?);
        Ok((counts.0 >= 1.0 && counts.1 >= 1.0 && counts.2 >= 1.0).then_some(()))
    })?;
    let listed = answer(&["sinks", "list"], &sensor)?;
    ensure!(listed.lines().count() == 3 && listed.starts_with("file  file"), "{listed}");
    let tested = answer(&["sinks", "test", "http"], &sensor)?;
    ensure!(tested.starts_with("ok  http"), "{tested}");
    let sample = sent.recv_timeout(PATIENCE)?;
    ensure!(sample["unmapped"]["test"] == true, "{sample}");

    let token = told.pointer("/evidences/0/actor/session/uid").and_then(Value::as_str).context("no token")?;
    wait_for("the store", || {
        let rows = answer(&["query", "SELECT rule, sequence FROM alerts", "-o", "json"], &sensor)?;
        Ok(rows.contains("alg-none").then_some(()))
    })?;
    let trace = wait_for("the trace", || {
        let trace = answer(&["trace", token, "-o", "json"], &sensor)?;
        Ok(trace.contains("GET /orders/{id}").then_some(trace))
    })?;
    let trace: Value = serde_json::from_str(&trace)?;
    ensure!(trace["name"] == token, "{trace}");
    sensor.stop()?;
    Ok(())
}

/// What was alerted while a receiver was down, by a sensor that was killed, comes once the receiver is there.
#[test]
fn what_a_receiver_missed_comes_after_a_crash() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("delivery::what_a_receiver_missed_comes_after_a_crash", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let dir = tempfile::tempdir()?;
    // Nobody listens there yet, and nobody else can.
    let place = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&place, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&place)?)?;
    let file = dir.path().join("alerts.jsonl");
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/state/dir", json!(dir.path().join("state")));
    config.set(
        "/sinks",
        json!([{"type": "http", "url": format!("http://{address}/")}, {"type": "file", "path": file}]),
    );
    let mut first = Sensor::start(&config)?;
    attack(service, &mint, "/orders/1")?;
    let Alert(missed) = first.next_alert()?;
    wait_for("the file", || Ok((!lines(&file)?.is_empty()).then_some(())))?;
    first.kill();
    rustix::net::listen(&place, 16)?;
    let sent = receiver(TcpListener::from(place));
    let mut second = Sensor::start(&config)?;
    let came = sent.recv_timeout(PATIENCE).context("it never came")?;
    ensure!(came == missed, "{came} came, {missed} was missed");
    attack(service, &mint, "/invoices/1")?;
    // Who reads standard output may be told again what was told within 50 ms of the crash; a file never has it twice.
    let next = loop {
        let Alert(next) = second.next_alert()?;
        if next != missed {
            break next;
        }
    };
    ensure!(number(&next) > number(&missed), "{next} after {missed}");
    wait_for("the file", || Ok(lines(&file)?.contains(&next).then_some(())))?;
    second.stop()?;
    let filed = lines(&file)?;
    let again = filed.iter().filter(|event| number(event) == number(&missed)).count();
    ensure!(again == 1, "the first alert is in the file {again} times: {filed:?}");
    Ok(())
}

/// SIGHUP brings sinks in and takes them out; the others go on.
#[test]
fn a_reload_changes_the_sinks() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("delivery::a_reload_changes_the_sinks", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(raw::refuse_in_chunks)?;
    let dir = tempfile::tempdir()?;
    let [old, new] = ["old.jsonl", "new.jsonl"].map(|name| dir.path().join(name));
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/sinks", json!([{"type": "file", "path": old}]));
    let mut sensor = Sensor::start(&config)?;
    attack(service, &mint, "/orders/1")?;
    sensor.next_alert()?;
    wait_for("the old file", || Ok((lines(&old)?.len() == 1).then_some(())))?;
    let text = fs::read_to_string(sensor.config())?;
    let changed = text.replace("old.jsonl", "new.jsonl");
    ensure!(changed != text, "the configuration names no file: {text}");
    sensor.reload(&changed)?;
    sensor.await_words("configuration reloaded")?;
    // Sinks turn over on a thread of their own: an alert in between may go either way, but not nowhere.
    let mut told = 1;
    let found = wait_for("the new file", || {
        attack(
            service,
            &mint,
            &format!("/{}/1", "abcdefghijklmnopqrstuvwxyz".get(told..=told).unwrap_or("z")),
        )?;
        sensor.next_alert()?;
        told += 1;
        Ok(Some(lines(&new)?).filter(|lines| !lines.is_empty()))
    })?;
    ensure!(found.iter().all(|event| number(event) > Some(1)), "{found:?}");
    sensor.stop()?;
    let mut all: Vec<u64> = [lines(&old)?, lines(&new)?].concat().iter().filter_map(number).collect();
    all.sort_unstable();
    let wanted: Vec<u64> = (1..=all.len() as u64).collect();
    ensure!(all == wanted && all.len() >= told, "{all:?} of {told}");
    Ok(())
}
