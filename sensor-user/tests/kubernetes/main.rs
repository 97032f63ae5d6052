//! Names of pods from an API server of our own that says what it is told to say, and does what servers do on bad days.
//!
//! No part of it is a real API server's: the answers are written after the API's own reference, version by version.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    missing_docs,
    reason = "a test may fail where it stands, and has a clock"
)]

mod answers;
mod api;
#[path = "../brokers/mod.rs"]
mod brokers;
mod doctor;
mod front;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sensor_user::enrich::cluster::follow::{Clocks, Settings, follow};
use sensor_user::enrich::cluster::{Answer, Cluster, Failure, MAX_PODS, State};
use serde_json::{Value, json};

use answers::{ORDERS, list, named};
use api::{Api, Reply};

/// A sensor that follows the pods of `node-1`.
struct Bench {
    api: Api,
    cluster: Arc<Cluster>,
    dir: tempfile::TempDir,
    stop: Arc<tokio::sync::Notify>,
    log: Log,
}

/// What the sensor has logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Bench {
    fn new(script: impl Fn(&api::Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let bench = Self::idle(script, json!({"token": "t-1"}));
        bench.follow();
        bench
    }

    /// Known to the API as this user.
    fn idle(script: impl Fn(&api::Request, usize) -> Reply + Send + Sync + 'static, user: Value) -> Self {
        let (api, dir) = (Api::start(script), tempfile::tempdir().unwrap());
        let bench = Self { api, cluster: Arc::default(), dir, stop: Arc::default(), log: Log::default() };
        bench.known(&json!({"server": format!("http://{}", bench.api.address)}), &user);
        bench
    }

    /// Writes where the API is, and who asks.
    fn known(&self, cluster: &Value, user: &Value) {
        // JSON is YAML.
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        });
        std::fs::write(self.dir.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    }

    fn follow(&self) {
        let settings = Settings {
            kubeconfig: Some(self.dir.path().join("kubeconfig")),
            node: "node-1".into(),
            guessed: false,
            labels: vec!["app".into(), "version".into()],
        };
        let clocks = Clocks { steady: Instant::now, wall: jiff::Timestamp::now };
        let (follow, stop) = (follow(settings, Arc::clone(&self.cluster), clocks), Arc::clone(&self.stop));
        let log = self.log.clone();
        std::thread::spawn(move || {
            let log = Mutex::new(log);
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log).finish();
            let _guard = tracing::subscriber::set_default(subscriber);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = follow => {}
                    () = stop.notified() => {}
                }
            });
        });
    }

    /// Waits until this is so.
    fn until(&self, what: &str, so: impl Fn(&Cluster) -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !so(&self.cluster) {
            assert!(
                Instant::now() < deadline,
                "{what}: {:?}, asked {:#?}",
                self.cluster.figures(),
                self.api.targets()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn synced(&self) {
        self.until("synced", |cluster| cluster.figures().state == State::Synced);
    }

    fn failed(&self, why: Failure) {
        self.until(why.as_str(), |cluster| cluster.figures().failures[why as usize] > 0);
    }

    /// A pod's name, and whether it is gone.
    fn name(&self, uid: &str) -> Option<(String, bool)> {
        name(&self.cluster, uid)
    }
}

fn name(cluster: &Cluster, uid: &str) -> Option<(String, bool)> {
    match cluster.find(Some(uid), None, Instant::now()) {
        Answer::Pod { pod, gone, .. } => Some((pod.full_name(), gone)),
        Answer::Pending | Answer::Unknown => None,
    }
}

/// Lists these pods, and lets the test speak in the watch.
fn steady(pods: Vec<Value>) -> impl Fn(&api::Request, usize) -> Reply + Send + Sync + 'static {
    move |request, _| {
        if request.is_watch() { Reply::Watch } else { Reply::Json(200, list(&pods, "100", None)) }
    }
}

#[test]
fn the_api_is_believed_by_its_authority_only() {
    for trusted in [true, false] {
        let bench = Bench::idle(steady(vec![answers::orders(33)]), json!({"token": "t-1"}));
        brokers::authority(bench.dir.path());
        let front = front::start(bench.dir.path(), bench.api.address);
        let mut cluster = json!({"server": format!("https://{front}")});
        if trusted {
            cluster["certificate-authority"] = json!(bench.dir.path().join("ca.pem"));
        }
        bench.known(&cluster, &json!({"token": "t-1"}));
        bench.follow();
        if trusted {
            bench.synced();
            assert_eq!(bench.api.requests()[0].header("authorization"), Some("Bearer t-1"));
        } else {
            bench.failed(Failure::Unreachable);
            assert!(bench.api.requests().is_empty(), "a token was sent to a stranger");
        }
    }
}

#[test]
fn pods_are_known_by_the_answers_of_every_version() {
    for minor in 29..=36 {
        let bench = Bench::new(steady(vec![answers::orders(minor), answers::mirror(minor)]));
        bench.synced();
        let answer = bench.cluster.find(Some(ORDERS), Some(&"3f".repeat(32)), Instant::now());
        let Answer::Pod { pod, container: Some(container), watched: true, gone: false } = answer else {
            panic!("1.{minor}: {answer:?}");
        };
        assert_eq!(pod.full_name(), "shop/orders-7f9c4d5b8-x2x4z", "1.{minor}");
        let owner = pod.owner.as_ref().unwrap();
        assert_eq!(
            (&*owner.kind, &*owner.name, pod.node.as_deref()),
            ("Deployment", "orders", Some("node-1"))
        );
        assert_eq!(pod.labels, [("app".into(), "orders".into())], "others are not kept");
        assert_eq!(
            (&*container.name, container.image()),
            ("main", Some(("registry.example/orders", Some("1.2"))))
        );
        // A static pod's cgroup bears the hash of its file.
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(bench.name(hash), Some(("kube-system/etcd-node-1".into(), false)), "1.{minor}");
    }
}

#[test]
fn the_own_nodes_pods_are_asked_for_in_pages_and_nothing_else() {
    let bench = Bench::new(|request, _| match (request.is_watch(), request.query("continue")) {
        (true, _) => Reply::Watch,
        (false, None) => Reply::Json(200, list(&[named("a")], "100", Some("more"))),
        (false, Some(_)) => Reply::Json(200, list(&[named("b")], "100", None)),
    });
    bench.synced();
    assert!(bench.name("a").is_some() && bench.name("b").is_some());
    bench.until("a watch", |_| bench.api.requests().len() >= 3);
    for request in bench.api.requests() {
        assert!(request.line.starts_with("GET /api/v1/pods?"), "{request:?}");
        assert_eq!(request.query("fieldSelector").as_deref(), Some("spec.nodeName=node-1"), "{request:?}");
        assert_eq!(request.header("authorization"), Some("Bearer t-1"));
    }
    let pages: Vec<_> =
        bench.api.requests().iter().filter(|request| !request.is_watch()).map(|r| r.query("limit")).collect();
    assert_eq!(pages, [Some("500".into()), Some("500".into())]);
}

#[test]
fn a_token_of_a_file_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "of-a-file").unwrap();
    let bench = Bench::idle(steady(vec![named("a")]), json!({"tokenFile": file}));
    bench.follow();
    bench.synced();
    assert_eq!(bench.api.requests()[0].header("authorization"), Some("Bearer of-a-file"));
}

#[test]
fn news_come_by_the_watch_and_a_deleted_pod_is_remembered() {
    let bench = Bench::new(steady(vec![named("a")]));
    bench.synced();
    bench.api.tell("ADDED", &named("b"));
    bench.until("b", |cluster| name(cluster, "b").is_some());
    let mut renamed = named("b");
    renamed["metadata"]["labels"] = json!({"app": "other"});
    bench.api.tell("MODIFIED", &renamed);
    bench.until("a label", |cluster| {
        matches!(cluster.find(Some("b"), None, Instant::now()), Answer::Pod { pod, .. } if pod.labels.len() == 1)
    });
    bench.api.tell("DELETED", &renamed);
    bench.until("the end", |cluster| name(cluster, "b") == Some(("shop/b".into(), true)));
    assert_eq!((bench.cluster.figures().live, bench.cluster.figures().gone), (1, 1));
}

#[test]
fn a_watch_that_is_cut_goes_on_from_the_last_bookmark() {
    let bench = Bench::new(steady(vec![named("a")]));
    bench.synced();
    let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "777", "creationTimestamp": null}});
    bench.api.tell("BOOKMARK", &bookmark);
    bench.api.cut();
    let from_777 = |request: &api::Request| {
        request.is_watch() && request.query("resourceVersion").as_deref() == Some("777")
    };
    bench.until("another watch", |_| bench.api.requests().iter().any(from_777));
    bench.api.tell("ADDED", &named("b"));
    bench.until("b", |cluster| name(cluster, "b").is_some());
    assert_eq!(bench.api.requests().iter().filter(|request| !request.is_watch()).count(), 1, "listed once");
}

#[test]
fn pods_are_listed_anew_when_the_watch_is_too_old() {
    // Once within the watch, as API servers do, and once as it begins.
    for within in [true, false] {
        let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "too old resource version: 100 (2000)"});
        let said = gone.clone();
        let bench = Bench::new(move |request, number| match (request.is_watch(), number) {
            (false, 0) => Reply::Json(200, list(&[named("a"), named("b")], "100", None)),
            (false, _) => Reply::Json(200, list(&[named("b"), named("c")], "2000", None)),
            (true, 1) if !within => Reply::Json(410, said.clone()),
            (true, _) => Reply::Watch,
        });
        bench.synced();
        if within {
            bench.api.tell("ERROR", &gone);
        }
        bench.until("c", |cluster| name(cluster, "c").is_some() && cluster.figures().state == State::Synced);
        assert_eq!(bench.name("a"), Some(("shop/a".into(), true)), "what the new list lacks is gone");
        assert_eq!(bench.name("b"), Some(("shop/b".into(), false)));
        assert!(bench.cluster.figures().failures[Failure::Expired as usize] > 0);
    }
}

#[test]
fn a_list_that_expired_between_two_pages_is_begun_anew() {
    let bench = Bench::new(|request, number| match (request.is_watch(), number) {
        (true, _) => Reply::Watch,
        (false, 0) => Reply::Json(200, list(&[named("a")], "100", Some("old"))),
        (false, 1) => Reply::Json(
            410,
            json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
        ),
        (false, _) => Reply::Json(200, list(&[named("b")], "200", None)),
    });
    bench.synced();
    assert!(bench.name("b").is_some());
    assert!(bench.name("a").is_none_or(|(_, gone)| gone));
}

#[test]
fn who_is_refused_is_told_so_and_tries_again() {
    for (status, why) in [(401, Failure::Unauthorized), (403, Failure::Forbidden), (503, Failure::Other)] {
        let bench = Bench::new(move |request, number| match (request.is_watch(), number) {
            (true, _) => Reply::Watch,
            (false, 0) => {
                let message = "pods is forbidden: User \"system:serviceaccount:x:y\" cannot list resource";
                Reply::Json(
                    status,
                    json!({"kind": "Status", "status": "Failure", "code": status, "message": message}),
                )
            }
            (false, _) => Reply::Json(200, list(&[named("a")], "100", None)),
        });
        bench.failed(why);
        bench.synced();
        assert!(bench.name("a").is_some(), "{status}");
    }
}

#[test]
fn what_is_no_answer_is_refused_and_asked_for_again() {
    let cases: [fn() -> Reply; 6] = [
        || Reply::Text("200 OK", "{\"items\": [".into()),
        || Reply::Text("200 OK", "<html>captive portal</html>".into()),
        || Reply::Text("200 OK", "{\"kind\":\"PodList\",\"metadata\":{},\"items\":[]}".into()),
        || {
            Reply::Text(
                "200 OK",
                "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[7]}".into(),
            )
        },
        || Reply::Text("200 OK", "\u{0}".into()),
        || Reply::Endless,
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let bench = Bench::new(move |request, number| match (request.is_watch(), number) {
            (true, _) => Reply::Watch,
            (false, 0) => case(),
            (false, _) => Reply::Json(200, list(&[named("a")], "100", None)),
        });
        bench.failed(Failure::Malformed);
        bench.synced();
        assert!(bench.name("a").is_some(), "case {number}");
    }
}

#[test]
fn a_bad_line_of_a_watch_costs_that_line_alone() {
    let bench = Bench::new(steady(vec![named("a")]));
    bench.synced();
    for line in ["{\"type\":\"ADDED\",\"object\":7}", "nonsense", "{\"type\":\"NEW\",\"object\":{}}"] {
        bench.api.say(line.into());
    }
    bench.failed(Failure::Malformed);
    bench.api.tell("ADDED", &named("b"));
    bench.until("b", |cluster| name(cluster, "b").is_some());
}

#[test]
fn a_line_of_a_watch_without_end_is_cut() {
    let bench = Bench::new(|request, number| match (request.is_watch(), number) {
        (true, 1) => Reply::Endless,
        (true, _) => Reply::Watch,
        (false, _) => Reply::Json(200, list(&[named("a")], "100", None)),
    });
    bench.failed(Failure::Malformed);
    bench.api.tell("ADDED", &named("b"));
    bench.until("b", |cluster| name(cluster, "b").is_some());
}

#[test]
fn a_node_of_more_pods_than_any_has_is_refused() {
    let bench = Bench::new(|request, number| {
        if request.is_watch() {
            return Reply::Watch;
        }
        // Pages without end.
        let pods: Vec<Value> = (0..500).map(|pod| named(&format!("p{number}-{pod}"))).collect();
        Reply::Json(200, list(&pods, "100", Some("more")))
    });
    bench.until("too many", |cluster| cluster.figures().refused > 0);
    bench.failed(Failure::Malformed);
    assert!(bench.cluster.figures().live <= MAX_PODS);
}

#[test]
fn nobody_waits_for_a_server_that_says_nothing() {
    let bench = Bench::new(|_, _| Reply::Hang);
    bench.until("a question", |_| !bench.api.requests().is_empty());
    let began = Instant::now();
    assert_eq!(bench.cluster.find(Some("a"), None, Instant::now()), Answer::Pending);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.cluster.figures().state, State::Begun);
}

#[test]
fn a_server_that_is_not_there_is_tried_again() {
    let bench = Bench::idle(steady(vec![named("a")]), json!({"token": "t"}));
    bench.api.close_door();
    bench.follow();
    bench.failed(Failure::Unreachable);
    bench.api.open_door();
    bench.synced();
}

#[test]
fn plugins_of_a_kubeconfig_are_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("ran");
    let user = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": [trace],
        "interactiveMode": "Never"}});
    let bench = Bench::idle(steady(vec![named("a")]), user);
    bench.follow();
    bench.failed(Failure::Other);
    assert!(!trace.exists() && bench.api.requests().is_empty());
}
