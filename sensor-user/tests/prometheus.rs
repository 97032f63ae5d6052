//! A real Prometheus and its promtool on what we show and ship: the page, the alert rules, the dashboard.
//!
//! The page holds every metric of the catalogue; the sensor's own server serves it from the board that a running sensor
//! uses. There is no Grafana here: its queries are run by Prometheus, and each must find something on the page.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails should say so"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sensor_user::runtime::Board;
use sensor_user::telemetry::{Histogram, Kind, Metric, catalogue, metrics, server};
use serde_json::Value;

/// Longest a server may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Runs promtool; what it says, and whether it is content.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let tool = Command::new("promtool")
        .args(arguments)
        .current_dir(deploy().join("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = tool.expect("promtool is missing: apt-get install prometheus");
    // It may end before it has read everything, if it dislikes the beginning.
    let _ = tool.stdin.take().unwrap().write_all(input.as_bytes());
    let done = tool.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// One series of every metric that is shown to a board, with labels as sensors have them. What the process costs, the
/// board adds for those who read it.
fn every_metric(step: u64) -> Vec<Metric> {
    let mut all = Vec::new();
    for card in catalogue::every().filter(|card| !card.name.starts_with("process_")) {
        let values: Vec<_> = card.labels.iter().map(|label| (*label, value(card.name, label))).collect();
        for kind in 0..values.iter().map(|(_, values)| values.len()).max().unwrap_or(1) {
            let labels: Vec<_> =
                values.iter().map(|(_, values)| values[kind % values.len()].into()).collect();
            let metric = match card.kind {
                Kind::Counter => card.count(step * 7 + 1),
                Kind::Gauge => card.number(1.0),
                Kind::Histogram => {
                    let mut times = Histogram::default();
                    (0..step).for_each(|n| times.observe(Duration::from_micros(n * 300)));
                    card.durations(times)
                }
            };
            all.push(metric.with(&labels));
        }
    }
    all
}

/// Values of a label.
fn value(metric: &str, label: &str) -> &'static [&'static str] {
    match (metric, label) {
        ("tokenscope_kernel_events_total", _) => &["ring_full_request", "request_bytes"],
        ("tokenscope_flow_events_total", _) => &["evicted_flows", "opened"],
        ("tokenscope_http_events_total", _) => &["timeouts", "requests"],
        ("tokenscope_sink_events_total", "result") => &["delivered", "dead", "lost", "filtered"],
        ("tokenscope_sink_deliveries_total", "result") => &["ok", "later", "timeout"],
        (_, "severity") => &["low", "medium", "high", "critical"],
        (_, "stage") => &["http", "token", "detect", "alert"],
        (_, "direction") => &["request", "response"],
        (_, "sink") => &["siem"],
        _ => &["a"],
    }
}

#[test]
fn promtool_likes_the_page() {
    let page = metrics::render(&every_metric(3));
    let (content, said) = promtool(&["check", "metrics"], &page);
    assert!(content, "{said}\n{page}");
    let (content, said) = promtool(&["check", "metrics"], "tokenscope_x_total{ 1\n");
    assert!(!content, "promtool takes anything: {said}");
}

#[test]
fn alert_rules_fire_when_they_should_and_at_no_other_time() {
    let (content, said) = promtool(&["check", "rules", "alerts.yaml"], "");
    assert!(content, "{said}");
    let (content, said) = promtool(&["test", "rules", "alerts.test.yaml"], "");
    assert!(content, "{said}");
    let tests = std::fs::read_to_string(deploy().join("prometheus/alerts.test.yaml")).unwrap();
    let runbook = std::fs::read_to_string(deploy().join("../docs/runbook.md")).unwrap();
    let names = alert_names();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        for test in [format!("  - name: {name} fires\n"), format!("  - name: {name} is quiet")] {
            assert!(tests.contains(&test), "no test {test:?}");
        }
        assert!(runbook.contains(&format!("\n## {name}\n")), "the runbook does not know {name}");
    }
}

fn rules() -> String {
    std::fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap()
}

fn alert_names() -> Vec<String> {
    rules().lines().filter_map(|line| Some(line.trim().strip_prefix("- alert: ")?.to_owned())).collect()
}

/// Names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("tokenscope_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn is_catalogued(name: &str) -> bool {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    catalogue::find(name).is_some_and(|card| card.kind != Kind::Histogram)
        || of_histogram.and_then(catalogue::find).is_some_and(|card| card.kind == Kind::Histogram)
}

/// Every query of the dashboard: panels, and annotations.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deploy().join("dashboards/tokenscope.json")).unwrap();
    let board: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((panel["title"].as_str().unwrap().into(), target["expr"].as_str().unwrap().into()));
        }
    }
    for note in board["annotations"]["list"].as_array().unwrap() {
        found.push((note["name"].as_str().unwrap().into(), note["expr"].as_str().unwrap().into()));
    }
    found
}

/// A query as Grafana would send it.
fn filled(query: &str) -> String {
    query
        .replace("$__rate_interval", "10s")
        .replace("$__range", "30s")
        .replace("$job", ".*")
        .replace("$instance", ".*")
}

#[test]
fn dashboard_and_rules_name_only_metrics_that_there_are() {
    let queries = queries();
    assert!(queries.len() > 40, "{}", queries.len());
    for (place, query) in queries.iter().cloned().chain([("rules".to_owned(), rules())]) {
        let names = metrics_in(&query);
        assert!(!names.is_empty(), "{place}: {query}");
        for name in names {
            assert!(is_catalogued(&name), "{place} asks for {name}, which nobody shows");
        }
    }
}

#[test]
fn panels_of_the_dashboard_do_not_overlap() {
    let text = std::fs::read_to_string(deploy().join("dashboards/tokenscope.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for y in at("y")..at("y") + at("h") {
            for x in at("x")..at("x") + at("w") {
                assert!(cells.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}

/// A process that is killed when it is no longer needed.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the board as a running sensor does, for as long as the test lasts.
fn sensor(board: &Arc<Board>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let board = Arc::clone(board);
    std::thread::spawn(move || {
        let events = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        events.block_on(async {
            server::serve(listener, board).await;
        });
    });
    address
}

fn get(address: SocketAddr, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

fn json(address: SocketAddr, target: &str) -> Value {
    get(address, target).and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
}

fn encoded(query: &str) -> String {
    let mut out = String::new();
    for byte in query.bytes() {
        let _ = if byte.is_ascii_alphanumeric() {
            write!(out, "{}", char::from(byte))
        } else {
            write!(out, "%{byte:02X}")
        };
    }
    out
}

/// A Prometheus that scrapes one sensor every second and loads our rules.
fn prometheus(dir: &Path, target: SocketAddr) -> (Killed, SocketAddr) {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let rules = deploy().join("prometheus/alerts.yaml").canonicalize().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  \
         - {{job_name: tokenscope, static_configs: [{{targets: ['{target}']}}]}}\n",
        rules.display()
    );
    std::fs::write(dir.join("prometheus.yml"), config).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address={free}"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .expect("prometheus is missing: apt-get install prometheus");
    (Killed(child), free)
}

/// Asks until the answer is good.
fn until<T>(what: &str, dir: &Path, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        if Instant::now() > end {
            let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            panic!("not in {PATIENCE:?}: {what}\n{log}");
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn a_sensor_is_ready_once_it_has_gone_round() {
    let board = Arc::new(Board::default());
    let sensor = sensor(&board);
    let ask = |target: &str| get(sensor, target).unwrap();
    assert_eq!(
        (ask("/readyz"), ask("/healthz"), ask("/metrics")),
        ("not ready\n".into(), "ok\n".into(), String::new())
    );
    board.show(every_metric(1));
    assert_eq!((ask("/readyz"), ask("/healthz")), ("ready\n".into(), "ok\n".into()));
    assert!(ask("/metrics").contains("\ntokenscope_build_info{version=\"a\"} 1\n"));
}

#[test]
fn a_real_prometheus_scrapes_the_sensor_and_answers_the_dashboard() {
    let dir = tempfile::tempdir().unwrap();
    let board = Arc::new(Board::default());
    board.show(every_metric(1));
    let sensor = sensor(&board);
    let (running, prometheus) = prometheus(dir.path(), sensor);
    let step = std::cell::Cell::new(1);
    let move_on = || {
        step.set(step.get() + 1);
        board.show(every_metric(step.get()));
    };
    until("the target is up", dir.path(), || {
        move_on();
        let targets = json(prometheus, "/api/v1/targets");
        let target = targets.pointer("/data/activeTargets/0")?;
        let error = target["lastError"].as_str()?;
        (target["health"] == "up" && error.is_empty()).then_some(())
    });
    let samples = until("samples were taken", dir.path(), || {
        let answer = json(prometheus, "/api/v1/query?query=scrape_samples_scraped");
        answer.pointer("/data/result/0/value/1")?.as_str()?.parse::<usize>().ok().filter(|n| *n > 0)
    });
    let page = get(sensor, "/metrics").unwrap();
    assert!(page.contains("\nprocess_cpu_seconds_total "), "{page}");
    assert_eq!(samples, page.lines().filter(|line| !line.starts_with('#')).count());
    for (panel, query) in queries() {
        // What has happened is seen by the change since the last look, so the page goes on meanwhile.
        until(&format!("{panel}: {query} finds something"), dir.path(), || {
            move_on();
            let answer = json(prometheus, &format!("/api/v1/query?query={}", encoded(&filled(&query))));
            assert_ne!(answer["status"], "error", "{panel}: {query}: {answer}");
            // Restarts are not to be found, and nothing else is left out.
            let found = answer.pointer("/data/result/0").is_some() || panel == "Restarts";
            (found && answer["status"] == "success").then_some(())
        });
    }
    let loaded = until("every rule was evaluated", dir.path(), || {
        let rules = json(prometheus, "/api/v1/rules");
        let rules = rules.pointer("/data/groups/0/rules")?.as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    });
    let loaded: Vec<&str> = loaded.iter().filter_map(|rule| rule["name"].as_str()).collect();
    assert_eq!(loaded, alert_names());
    drop(running);
}
