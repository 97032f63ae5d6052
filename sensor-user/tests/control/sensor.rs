//! A sensor without capture: a spool, a publisher of exchanges, and the server in a thread of its own.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use sensor_user::capture::Time;
use sensor_user::control::server::Patience;
use sensor_user::control::{Overview, Refusal, Search, Server, Settings, Sources, Streams, Traced};
use sensor_user::detect::Severity;
use sensor_user::http::Coverage;
use sensor_user::render::exchange::{Exchanged, Followed};
use sensor_user::render::{Kind, Node, Privacy};
use sensor_user::spool::{Draft, Spool};
use sensor_user::telemetry::Metric;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// Longest that anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) struct Sensor {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spool: Spool,
    pub(crate) exchanges: broadcast::Sender<Arc<Followed>>,
    running: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    pub(crate) address: Option<SocketAddr>,
}

struct Figures;

impl Overview for Figures {
    fn figures(&self) -> Vec<Metric> {
        vec![
            Metric::counter("tokenscope_exchanges_total", "", 12),
            Metric::gauge("tokenscope_sink_lag_events", "", 3.0).label("sink", "siem"),
        ]
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// Says what it was asked.
struct Parrot;

impl Search for Parrot {
    fn trace(&self, what: &Traced, since_ms: Option<u64>) -> Result<Value, Refusal> {
        let what = match what {
            Traced::Named(name) => name.clone(),
            Traced::Token(token) => format!("{} bytes", token.0.len()),
        };
        Ok(json!({"what": what, "since": since_ms.is_some()}))
    }

    fn query(&self, sql: &str) -> Result<Value, Refusal> {
        if sql.starts_with("SELECT") { Ok(json!([sql])) } else { Err(Refusal::wrong("no", "SELECT")) }
    }
}

pub(crate) fn now() -> Time {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Time(u64::try_from(now.as_nanos()).unwrap())
}

impl Sensor {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { socket: Some(dir.path().join("control.sock")), listen: None };
        Self::with(dir, &settings, Patience::default())
    }

    pub(crate) fn with(dir: tempfile::TempDir, settings: &Settings, patience: Patience) -> Self {
        let mut sensor = Self::around(Spool::in_memory(0), dir);
        sensor.serve(settings, patience);
        sensor
    }

    /// A sensor with this spool.
    pub(crate) fn over(spool: Spool, dir: tempfile::TempDir, settings: &Settings) -> Self {
        let mut sensor = Self::around(spool, dir);
        sensor.serve(settings, Patience::default());
        sensor
    }

    fn around(spool: Spool, dir: tempfile::TempDir) -> Self {
        Self { dir, spool, exchanges: broadcast::Sender::new(64), running: None, address: None }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn serve(&mut self, settings: &Settings, patience: Patience) {
        let server = Server::open(settings).with(patience);
        self.address = server.address();
        let sources = Sources {
            node: Node { name: "node-1".into(), labels: Vec::new().into() },
            started: now(),
            clock: now,
            spool: self.spool.clone(),
            privacy: Privacy::default(),
            history: None,
            exchanges: self.exchanges.clone(),
            streams: Arc::new(Streams::default()),
            overview: Arc::new(Figures),
            search: Some(Arc::new(Parrot)),
        };
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.serve(sources, stopped)).unwrap();
        });
        self.running = Some((stop, thread));
    }

    /// Stops the server; the spool stays.
    pub(crate) fn stop(&mut self) {
        let (stop, thread) = self.running.take().unwrap();
        stop.send(true).unwrap();
        thread.join().unwrap();
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self) {
        let settings = Settings { socket: Some(self.socket()), listen: None };
        self.serve(&settings, Patience::default());
    }

    /// Starts it again with a spool that knows nothing.
    pub(crate) fn start_anew(&mut self) {
        self.spool = Spool::in_memory(0);
        self.start_again();
    }

    /// Appends so many alerts.
    pub(crate) fn append(&self, count: u64) {
        let time_ms = now().millis();
        for number in 0..count {
            let severity = match number % 4 {
                0 => Severity::Low,
                1 => Severity::Medium,
                2 => Severity::High,
                _ => Severity::Critical,
            };
            let mut json = |sequence: u64| alert(sequence, severity, time_ms);
            self.spool
                .append(&mut [Draft { time_ms, severity, kind: Kind::Alert, json: &mut json }])
                .unwrap();
        }
    }

    /// Publishes so many exchanges.
    pub(crate) fn publish(&self, count: u64) {
        for number in 0..count {
            let _ = self.exchanges.send(Arc::new(Followed::new(exchange(number))));
        }
    }

    /// A request by the socket, and its whole answer.
    pub(crate) fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        answer(stream)
    }

    pub(crate) fn get(&self, target: &str) -> (u16, String) {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// A stream, behind the head of its answer.
    pub(crate) fn follow(&self, target: &str) -> impl Iterator<Item = String> + use<> {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // HTTP/1.0 has no chunks: the lines come as they are.
        write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert!(lines.next().unwrap().contains(" 200 "), "{target}");
        while !lines.next().unwrap().is_empty() {}
        lines
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        if self.running.is_some() && !std::thread::panicking() {
            self.stop();
        }
    }
}

/// The status and body of an answer.
pub(crate) fn answer(mut stream: impl Read) -> (u16, String) {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8(all).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = if head.contains("chunked") { unchunk(body) } else { body.to_owned() };
    (status, body)
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
        if size == 0 {
            break;
        }
    }
    body
}

fn alert(sequence: u64, severity: Severity, time_ms: u64) -> String {
    json!({
        "class_uid": 2004,
        "activity_id": 1,
        "time": time_ms,
        "severity": severity.as_str(),
        "severity_id": severity.id(),
        "message": format!("number {sequence}"),
        "metadata": {"sequence": sequence},
        "finding_info": {
            "uid": format!("{sequence:026}"),
            "title": "A rule",
            "analytic": {"uid": format!("rule-{}", sequence % 10)},
        },
        "evidences": [{"src_endpoint": {"ip": format!("10.0.0.{}", sequence % 256)}}],
    })
    .to_string()
}

fn exchange(number: u64) -> Exchanged {
    Exchanged {
        at: now(),
        latency: Some(Duration::from_micros(number)),
        method: "GET".into(),
        route: "GET /orders/{id}".into(),
        path: format!("/orders/{number}").into(),
        host: None,
        user_agent: Some("x".repeat(200).into()),
        status: Some(200),
        request_bytes: None,
        response_bytes: Some(number),
        client: IpAddr::from([10, 0, 0, u8::try_from(number % 256).unwrap()]),
        client_port: Some(1),
        server: SocketAddr::from(([10, 0, 0, 1], 80)),
        pid: 1,
        place: None,
        coverage: Coverage::Whole,
        tokens: Vec::new(),
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
