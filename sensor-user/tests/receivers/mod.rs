//! What the tests of syslog and e-mail share: events, real servers in directories of their own, a test authority.
#![allow(dead_code, missing_docs, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sensor_user::capture::Time;
use sensor_user::detect::Severity;
use sensor_user::render::{Kind, Node, Told};
use sensor_user::sink::client::TlsSettings;
use sensor_user::sink::wire::Place;
use sensor_user::sink::{Outcome, Sink};

/// When events happen: 2026-11-21T18:04:05.123Z.
pub const NOW: Time = Time(1_795_284_245_123_000_000);

pub fn node() -> Node {
    Node::named("node-1")
}

/// An alert with a number, as the sensor tells it.
pub fn told(sequence: u64, severity: Severity) -> Arc<Told> {
    let id = "01KAM1VYQ3D1A2V7TMZXJ0QPRS";
    let event = serde_json::json!({
        "activity_id": 1, "class_uid": 2004, "time": NOW.millis(), "count": 1, "risk_score": 70,
        "severity_id": severity.id(), "severity": severity.as_str(),
        "message": "A token without a signature was answered 200 \u{2013} caf\u{e9}.",
        "metadata": {
            "product": {"version": "1"}, "sequence": sequence, "uid": format!("{id}-{sequence}"),
            "reporter": {"hostname": "node-1", "name": "node-1"},
        },
        "finding_info": {
            "uid": id, "title": "Token without a signature", "desc": "alg \"none\" accepted",
            "analytic": {"uid": "alg-none"}, "attacks": [{"technique": {"uid": "T1606"}}],
        },
        "evidences": [{
            "actor": {"user": {"uid": "alice"}, "session": {"uid": "9f2c41d0a7b3e865", "issuer": "https://idp.example/"}},
            "api": {"operation": "GET /orders/{id}"}, "http_response": {"code": 200},
            "src_endpoint": {"ip": "192.0.2.7", "port": 50_000}, "dst_endpoint": {"name": "test/orders"},
        }],
        "unmapped": {"verified": true},
    });
    let json = event.to_string().into_boxed_str();
    Arc::new(Told::new(sequence, NOW.millis(), severity, Kind::Alert, json))
}

/// Delivers as delivery does, with a limit of time.
pub async fn deliver(sink: &mut Box<dyn Sink>, events: &[Arc<Told>]) -> Outcome {
    match tokio::time::timeout(Duration::from_secs(20), sink.deliver(events)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Outcome::later("no answer in time"),
    }
}

/// Delivers again and again, as delivery would; says why it did not work at first.
pub async fn at_last(sink: &mut Box<dyn Sink>, events: &[Arc<Told>]) -> Vec<String> {
    let (deadline, mut reasons) = (deadline(60), Vec::new());
    loop {
        match deliver(sink, events).await {
            Outcome::Done { refused, .. } => {
                assert_eq!(refused, []);
                return reasons;
            }
            Outcome::Later { reason, .. } => {
                assert!(!deadline.is_over(), "never taken: {reason}");
                reasons.push(reason.as_str().to_owned());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
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

/// Waits until this gives something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = deadline(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(!deadline.is_over(), "in 30 seconds there was no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program that must be there.
pub fn program(names: &[&str], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/lib/postfix/sbin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(more).collect();
    let found =
        names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name))).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{names:?} is missing: apt-get install {package}"))
}

pub fn run(program: &Path, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("it starts");
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A port that nobody uses now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn here(port: u16) -> Place {
    Place { host: "localhost".into(), port }
}

/// A server that ends with the test.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().expect("it starts"))
    }

    /// Ends it as an operator would.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = deadline(20);
        while self.0.try_wait().unwrap().is_none() {
            assert!(!deadline.is_over(), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = rustix::process::Pid::from_child(&self.0);
            // Postfix ends its children only when it is asked to end.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            for _ in 0..100 {
                if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// Makes `ca.pem`, and `cert.pem` and `key.pem` for localhost, and another `stranger.pem`.
pub fn authority(dir: &Path) -> TlsSettings {
    let openssl = program(&["openssl"], "openssl");
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let extensions =
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n";
    fs::write(at("extensions"), extensions).unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    for name in ["ca", "stranger"] {
        let (key_file, cert) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        let last = ["-keyout", &key_file, "-out", &cert, "-subj", "/CN=test", "-days", "2"];
        let usage =
            ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"];
        run(&openssl, &[&["req", "-x509"][..], &key, &last, &usage].concat());
    }
    let (key_file, request) = (at("key.pem"), at("request"));
    let last = ["-keyout", &key_file, "-out", &request, "-subj", "/CN=localhost"];
    run(&openssl, &[&["req"][..], &key, &last].concat());
    run(
        &openssl,
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &at("ca.pem"),
            "-CAkey",
            &at("ca.key"),
            "-CAcreateserial",
            "-out",
            &at("cert.pem"),
            "-days",
            "2",
            "-extfile",
            &at("extensions"),
        ],
    );
    TlsSettings { ca: Some(dir.join("ca.pem")), only_ca: true, ..TlsSettings::default() }
}

/// Trust in an authority that issued nothing here.
pub fn stranger(dir: &Path) -> TlsSettings {
    TlsSettings { ca: Some(dir.join("stranger.pem")), only_ca: true, ..TlsSettings::default() }
}
