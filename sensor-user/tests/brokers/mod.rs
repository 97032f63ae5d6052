//! What the tests of brokers share: events, real servers that are started and ended, authorities, servers that lie.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "a module of several crates")]

pub mod operator;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Told};
use sensor_user::sink::wire::Place;
use sensor_user::sink::{Node, Outcome, Sink};
use sensor_user::token::settings::Secret;

/// A minute after midnight in the year of these tests, in milliseconds.
pub const TIME_MS: u64 = 1_795_305_660_000;

pub fn node() -> Node {
    Node::named("node-1")
}

/// An event as the sensor tells it, cut down to what sinks ask of it.
pub fn told(sequence: u64) -> Arc<Told> {
    with_message(sequence, "a token without a signature was accepted")
}

/// One with this message.
pub fn with_message(sequence: u64, message: &str) -> Arc<Told> {
    let json = serde_json::json!({
        "class_uid": 2004,
        "severity": "High",
        "message": message,
        "metadata": {"uid": id(sequence), "sequence": sequence},
        "finding_info": {"uid": format!("alert-{sequence}"), "analytic": {"uid": "alg-none"}},
        "evidences": [{
            "actor": {"user": {"uid": "alice@idp"}, "session": {"uid": "9f2c41d0a7b3e865"}},
            "src_endpoint": {"ip": "10.0.3.7"}, "dst_endpoint": {"name": "shop/orders"},
        }],
    });
    let json = json.to_string().into_boxed_str();
    Arc::new(Told::new(sequence, TIME_MS + sequence, Severity::High, Kind::Alert, json))
}

/// The id of the event of that number.
pub fn id(sequence: u64) -> String {
    format!("01JD{sequence:022}")
}

/// Events of these numbers.
pub fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<Arc<Told>> {
    numbers.into_iter().map(told).collect()
}

pub fn secret(text: &str) -> Secret {
    Secret(zeroize::Zeroizing::new(text.as_bytes().to_vec()))
}

/// Delivers as delivery does, with a time limit.
pub async fn deliver(sink: &mut Box<dyn Sink>, events: &[Arc<Told>]) -> Outcome {
    deliver_within(sink, events, Duration::from_secs(20)).await
}

/// The same with another limit; beyond it the delivery is broken off.
pub async fn deliver_within(sink: &mut Box<dyn Sink>, events: &[Arc<Told>], limit: Duration) -> Outcome {
    match tokio::time::timeout(limit, sink.deliver(events)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Outcome::later("broken off"),
    }
}

/// Delivers again and again until it is taken, as delivery would.
pub async fn deliver_at_last(sink: &mut Box<dyn Sink>, events: &[Arc<Told>]) {
    let deadline = deadline(60);
    loop {
        match deliver(sink, events).await {
            Outcome::Done { refused, .. } => {
                assert_eq!(refused, []);
                return;
            }
            Outcome::Later { reason, .. } => {
                assert!(!deadline.is_over(), "never taken: {reason}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Why it is to come again.
pub fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Later { reason, .. } => reason.as_str().to_owned(),
        Outcome::Done { answer, refused } => panic!("it was taken: {answer} {refused:?}"),
    }
}

/// Everything was taken.
pub fn assert_done(outcome: &Outcome) {
    match outcome {
        Outcome::Done { refused, .. } => assert_eq!(*refused, []),
        Outcome::Later { reason, .. } => panic!("it was not taken: {reason}"),
    }
}

pub struct Deadline(Instant);

#[allow(clippy::disallowed_methods, reason = "waiting for servers needs a clock")]
pub fn deadline(seconds: u64) -> Deadline {
    Deadline(Instant::now() + Duration::from_secs(seconds))
}

impl Deadline {
    #[allow(clippy::disallowed_methods, reason = "waiting for servers needs a clock")]
    pub fn is_over(&self) -> bool {
        Instant::now() > self.0
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn here(port: u16) -> Place {
    Place { host: "127.0.0.1".into(), port }
}

/// A server that is ended when it is dropped.
pub struct Server {
    child: Child,
    command: Vec<String>,
    pub port: u16,
    dir: PathBuf,
}

impl Server {
    /// Starts a program that will listen on this port. `package` brings it.
    pub fn start(dir: &Path, port: u16, package: &str, command: &[&str]) -> Self {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let child = spawn(&command, dir, package);
        let mut server = Self { child, command, port, dir: dir.to_owned() };
        server.wait();
        server
    }

    /// As a crash: nothing is told, nothing is flushed.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn start_again(&mut self) {
        self.child = spawn(&self.command, &self.dir, "");
        self.wait();
    }

    fn wait(&mut self) {
        let deadline = deadline(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{:?} ended: {ended:?}\n{}", self.command, log());
            assert!(!deadline.is_over(), "{:?} does not listen\n{}", self.command, log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(command: &[String], dir: &Path, package: &str) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let spawned = Command::new(&command[0])
        .args(&command[1..])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    let missing =
        |error| panic!("{} is missing ({error}): `cargo xtask test` installs {package}", command[0]);
    spawned.unwrap_or_else(missing)
}

/// What a program says.
pub fn output(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{} is missing: {error}", command[0]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said} {}", String::from_utf8_lossy(&output.stderr));
    said
}

/// An authority, and a server's and a client's certificate by it: `ca.pem`, `server.pem`, `server.key`, `client.pem`,
/// `client.key`.
pub fn authority(dir: &Path) {
    let at = |name: &str| dir.join(name).display().to_string();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let mut ca = vec!["openssl", "req", "-x509", "-days", "2", "-subj", "/CN=test authority"];
    let (ca_pem, ca_key) = (at("ca.pem"), at("ca.key"));
    ca.extend(key);
    ca.extend(["-out", &ca_pem, "-keyout", &ca_key]);
    output(&ca);
    fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for name in ["server", "client"] {
        let (request, secret) = (at(&format!("{name}.csr")), at(&format!("{name}.key")));
        let subject = format!("/CN={name}");
        let mut ask = vec!["openssl", "req", "-new", "-subj", &subject];
        ask.extend(key);
        ask.extend(["-out", &request, "-keyout", &secret]);
        output(&ask);
        let (cert, extra) = (at(&format!("{name}.pem")), at(&format!("{name}.ext")));
        let sign =
            ["openssl", "x509", "-req", "-days", "2", "-in", &request, "-CA", &ca_pem, "-CAkey", &ca_key];
        output(&[&sign[..], &["-CAcreateserial", "-extfile", &extra, "-out", &cert]].concat());
    }
}

/// A server that says this to everybody, then floods, then hangs; reads nothing.
pub struct Liar {
    pub port: u16,
    /// Bytes that callers took, or their sockets.
    pub sent: Arc<AtomicUsize>,
    /// How many came.
    pub calls: Arc<AtomicUsize>,
}

/// What a liar does after its greeting.
#[derive(Clone)]
pub enum Then {
    /// Closes.
    Cut,
    /// Nothing at all.
    Hang,
    /// Says this, without end.
    Flood(Vec<u8>),
}

/// What a liar sends at most to one caller: far more than sockets hold.
pub const FLOOD: usize = 512 << 20;

impl Liar {
    pub fn start(greeting: &[u8], then: Then) -> Self {
        Self::begin(greeting, then, false)
    }

    /// One that speaks when it was spoken to, as servers of HTTP do.
    pub fn polite(greeting: &[u8], then: Then) -> Self {
        Self::begin(greeting, then, true)
    }

    fn begin(greeting: &[u8], then: Then, polite: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sent, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let liar = Self { port, sent: Arc::clone(&sent), calls: Arc::clone(&calls) };
        let greeting = greeting.to_vec();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                calls.fetch_add(1, Ordering::SeqCst);
                let (sent, greeting, then) = (Arc::clone(&sent), greeting.clone(), then.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    if polite {
                        let _ = stream.read(&mut vec![0; 1 << 16]);
                    }
                    lie(stream, &greeting, &then, &sent);
                });
            }
        });
        liar
    }
}

fn lie(mut stream: TcpStream, greeting: &[u8], then: &Then, sent: &AtomicUsize) {
    if stream.write_all(greeting).is_err() {
        return;
    }
    match then {
        Then::Cut => {
            // What is unread when a socket closes makes a reset of it, which may overtake what was said.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
            let _ = stream.read(&mut vec![0; 1 << 16]);
        }
        Then::Hang => {
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Then::Flood(what) => {
            let chunk = what.repeat((1 << 16) / what.len().max(1) + 1);
            let mut count = 0;
            while count < FLOOD && stream.write_all(&chunk).is_ok() {
                count += chunk.len();
                sent.fetch_add(chunk.len(), Ordering::SeqCst);
            }
        }
    }
}

/// Bytes that two sockets on loopback hold between them, at most: what a liar can send to who reads no more.
pub const SOCKETS: usize = 32 << 20;
