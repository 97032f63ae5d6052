//! More traffic than the sensor can judge: it sheds in the documented order, says so, and recovers.
//!
//! How fast a machine is does not matter: the sensor is stopped while a known number of requests fills its ring, to
//! beyond three quarters and never to the brim, and goes on with all of that before it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tests::attack::Attack;
use tests::client::{Client, get, login, post};
use tests::clock::Deadline;
use tests::mint::Mint;
use tests::sensor::{Config, PATIENCE, Sensor, rules};
use tests::{clock, raw, sensor, skip};

/// Bytes of the sensor's ring.
const RING: usize = 4 << 20;

/// Bytes of the record of a request with a token of [`TOKEN`] bytes, and of its answer's: the ring's own header, ours,
/// and their size class, with what the search for ends of heads needs.
const REQUEST: usize = 8 + 96 + 1024 + 64;
const ANSWER: usize = 8 + 96 + 256;
const ACKNOWLEDGEMENT: usize = 8 + 96;

/// Bytes of a token: the whole request is below 1,024, its size class.
const TOKEN: usize = 800;

/// Requests that fill the ring by half with their answers, and to three quarters with acknowledgements alone.
const PRESSED: usize = RING / 2 / (REQUEST + ANSWER) + RING / 4 / (REQUEST + ACKNOWLEDGEMENT);

/// A hundred requests and more are left between what presses and what would be lost.
const BURST: usize = PRESSED + RING / 4 / (REQUEST + ACKNOWLEDGEMENT) / 2;

/// Answers by what the path says; reads the body where there is one.
fn shop(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let head = raw::head(stream)?;
        if head.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&head);
        let length =
            text.split("Content-Length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        let refused = text.starts_with("POST /login") || text.contains("/denied/");
        let status = if refused { "401 Unauthorized" } else { "200 OK" };
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    }
}

/// A stopped process, which goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(sensor: &Sensor) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(sensor.pid())?).context("a process id")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// What a burst sends.
struct Load {
    mint: Mint,
    service: SocketAddr,
    good: Vec<Vec<u8>>,
    client: Client,
    sent: usize,
    forged: usize,
}

impl Load {
    fn new(mint: Mint, service: SocketAddr) -> Result<Self> {
        let one =
            |n: usize| anyhow::Ok(get("/orders/7", Some(&mint.good_of_size(&format!("user-{n}"), TOKEN)?)));
        let good: Vec<_> = (0..20).map(one).collect::<Result<_>>()?;
        ensure!(good.iter().all(|request| (257..=1024).contains(&request.len())), "another size class");
        let client = Client::connect(service)?;
        Ok(Self { mint, service, good, client, sent: 0, forged: 0 })
    }

    /// So many requests of known-good tokens, in turn.
    fn usual(&mut self, requests: usize) -> Result<()> {
        for request in self.good.iter().cycle().take(requests) {
            ensure!(self.client.ask(request)?.status == 200, "the service refuses");
        }
        self.sent += requests;
        Ok(())
    }

    /// What must never be left out: new tokens that are forged, on an old connection and on a new one, taken or refused,
    /// and two guesses at a password, refused. Ten guesses are one alert; from the 21st on, tokens from one address are too.
    fn attack(&mut self) -> Result<()> {
        for path in ["/orders/1", "/denied/1", "/orders/2"] {
            let forged = Attack::AlgNone.token(&self.mint, &format!("mallory-{}", self.forged))?;
            self.client.ask(&get(path, Some(&forged)))?;
            self.forged += 1;
            self.sent += 1;
        }
        let forged = Attack::AlgNone.token(&self.mint, &format!("mallory-{}", self.forged))?;
        Client::connect(self.service)?.ask(&post("/orders/3", Some(&forged), b"{}"))?;
        for _ in 0..2 {
            self.client.ask(&login("alice", "wrong"))?;
        }
        self.forged += 1;
        self.sent += 3;
        Ok(())
    }

    /// Waits until every request that was sent was seen.
    fn await_seen(&self, sensor: &Sensor) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let seen = sensor.metric("tokenscope_exchanges_total", "")?;
            #[allow(clippy::cast_precision_loss, reason = "some thousand requests")]
            let sent = self.sent as f64;
            ensure!(seen <= sent, "{seen} of {sent} were seen");
            if seen + 1.0 >= sent {
                return Ok(());
            }
            ensure!(!deadline.is_over(), "{seen} of {sent} were seen:\n{}", sensor.metrics_page()?);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn overload_sheds_what_matters_least_and_says_so() -> Result<()> {
    if let Some(why) = sensor::missing() {
        skip("overload::overload_sheds_what_matters_least_and_says_so", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let service = raw::listen(shop)?;
    let mut config = Config::new(&mint)?.ports(&[service.port()]);
    config.set("/capture/ring_bytes", json!(RING));
    let sensor = Sensor::start(&config)?;
    let mut load = Load::new(mint, service)?;
    load.usual(200)?;
    load.await_seen(&sensor)?;
    let shed = |what: &str| sensor.metric("tokenscope_shed_total", what);
    ensure!(shed("")? == 0.0, "shed without need");

    for _ in 0..5 {
        let stopped = Stopped::new(&sensor)?;
        load.usual(BURST)?;
        load.attack()?;
        drop(stopped);
        load.await_seen(&sensor)?;
    }
    let page = sensor.metrics_page()?;
    ensure!(shed("responses")? > 0.0 && shed("known_good")? > 0.0, "nothing was shed:\n{page}");
    ensure!(sensor.metric("tokenscope_lost_records_total", "")? == 0.0, "something was lost:\n{page}");

    // Calm again: all is judged, and nothing is left out any more.
    let deadline = Deadline::after(PATIENCE);
    while sensor.metric("tokenscope_judged_share", "")? < 1.0 {
        ensure!(!deadline.is_over(), "the gate stays closed");
        std::thread::sleep(Duration::from_millis(200));
    }
    let before = shed("")?;
    load.usual(500)?;
    load.await_seen(&sensor)?;
    ensure!(shed("")? <= before, "shed without need");

    let ended = sensor.stop()?;
    let new = |rule: &str| ended.alerts.iter().filter(|alert| alert.rule() == rule && alert.is_new()).count();
    let said = (new("alg-none"), new("brute-force"), new("coverage-gap"));
    ensure!(said == (load.forged, 1, 1), "{said:?} of {}: {:?}", load.forged, rules(&ended.alerts));
    let overload = ended.alerts.iter().find(|alert| alert.rule() == "coverage-gap").context("no overload")?;
    ensure!(overload.0.to_string().contains("more traffic than the sensor can handle"), "{}", overload.0);
    Ok(())
}
