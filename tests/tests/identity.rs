//! Who answered, end to end: a server in a pod's cgroup, the kernel half, and an API server that is told what to say.

#[path = "../../sensor-user/tests/kubernetes/api.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "borrowed from the tests of the watch, which use all of it and may fail where they stand"
)]
mod api;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{Api, Reply};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::client::{Client, get};
use tests::clock::{self, Deadline};
use tests::mint::Mint;
use tests::sensor::{self, Alert, Config, PATIENCE, Sensor};
use tests::{server, skip};

const UID: &str = "0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42";
const ID: &str = "3f2a1b4c5d6e7f80913f2a1b4c5d6e7f80913f2a1b4c5d6e7f80913f2a1b4c5d";

/// A server whose socket is born in the cgroup of a container of a pod.
struct Pod {
    cgroup: PathBuf,
    server: Child,
    address: SocketAddr,
}

impl Pod {
    /// One whose cgroup no other test has.
    fn start(test: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = root.and_then(|line| line.split(' ').nth(1)).context("no cgroup v2")?;
        let cgroup = PathBuf::from(root).join(format!("tokenscope-identity-{}-{test}", std::process::id()));
        let inner = cgroup.join(format!("kubepods/burstable/pod{UID}/{ID}"));
        fs::create_dir_all(&inner)?;
        let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()?));
        let program = "echo $$ > \"$0/cgroup.procs\" && exec python3 -m http.server --bind 127.0.0.1 \"$1\"";
        let server = Command::new("sh")
            .args(["-c", program])
            .args([inner.as_os_str(), address.port().to_string().as_ref()])
            .current_dir(&inner)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pod = Self { cgroup, server, address };
        let deadline = Deadline::after(PATIENCE);
        while TcpStream::connect(pod.address).is_err() {
            ensure!(!deadline.is_over(), "the server does not listen");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(pod)
    }

    fn attack(&self, mint: &Mint, who: &str) -> Result<()> {
        let token = Attack::AlgNone.token(mint, who)?;
        Client::connect(self.address)?.ask(&get("/orders/7", Some(&token)))?;
        Ok(())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let inner = self.cgroup.join(format!("kubepods/burstable/pod{UID}/{ID}"));
        for dir in inner.ancestors().take_while(|dir| dir.starts_with(&self.cgroup)) {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn object(annotations: &Value) -> Value {
    json!({"metadata": {"name": "orders-7f9c-x2x4z", "namespace": "shop", "uid": UID, "resourceVersion": "7",
        "labels": {"app": "orders"}, "annotations": annotations}, "spec": {"nodeName": "node-1"},
        "status": {"containerStatuses": [{"name": "main", "image": "orders:1", "imageID": "orders@sha256:ab",
            "containerID": format!("containerd://{ID}")}]}})
}

/// A list of one pod.
fn list(annotations: &Value) -> Reply {
    Reply::Json(
        200,
        json!({"kind": "PodList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "7"}, "items": [object(annotations)]}),
    )
}

/// What a sensor is told that watches this pod, and asks this server about it.
fn watching(pod: &Pod, api: &Api, mint: &Mint, dir: &Path) -> Result<Config> {
    let kubeconfig = dir.join("kubeconfig");
    let way = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": format!("http://{}", api.address)}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    });
    fs::write(&kubeconfig, way.to_string())?;
    let mut config = Config::new(mint)?.ports(&[pod.address.port()]);
    config.set("/kubernetes", json!({"kubeconfig": kubeconfig, "node": "node-1"}));
    Ok(config)
}

/// Whether a test cannot run here, which is said.
fn is_skipped(test: &str) -> bool {
    let missing = sensor::missing()
        .or_else(|| server::find_program("python3").is_none().then(|| "there is no python3".into()));
    if let Some(why) = &missing {
        skip(&format!("identity::{test}"), why);
    }
    missing.is_some()
}

/// Waits for a figure to be such.
fn await_figure(sensor: &Sensor, name: &str, is_such: impl Fn(f64) -> bool) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        // The page is served a moment after the sensor watches, and made once a second.
        let value = sensor.metric(name, "");
        if value.as_ref().is_ok_and(|value| is_such(*value)) {
            return Ok(());
        }
        ensure!(!deadline.is_over(), "{name} is {value:?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn identity(alert: &Alert) -> &str {
    alert.0.pointer("/unmapped/identity").and_then(Value::as_str).unwrap_or_default()
}

fn until(sensor: &mut Sensor, wanted: impl Fn(&Alert) -> bool) -> Result<Alert> {
    loop {
        let alert = sensor.next_alert()?;
        if wanted(&alert) {
            return Ok(alert);
        }
    }
}

#[test]
fn an_alert_is_told_at_once_and_completed_when_the_pods_name_comes() -> Result<()> {
    if is_skipped("an_alert_is_told_at_once_and_completed_when_the_pods_name_comes") {
        return Ok(());
    }
    let up = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&up);
    let api = Api::start(move |request, _| match (ready.load(Ordering::Relaxed), request.is_watch()) {
        (false, _) => Reply::Json(503, json!({"kind": "Status", "code": 503, "message": "starting"})),
        (true, true) => Reply::Watch,
        (true, false) => list(&json!({})),
    });
    let dir = tempfile::tempdir()?;
    let mint = Mint::at(clock::now())?;
    let pod = Pod::start("late")?;
    let mut sensor = Sensor::start(&watching(&pod, &api, &mint, dir.path())?)?;

    pod.attack(&mint, "alice")?;
    let first = until(&mut sensor, |_| true)?;
    ensure!(identity(&first) == "pending" && first.is_new(), "{first:?}");
    let at = |alert: &Alert, place: &str| alert.0.pointer(place).cloned().unwrap_or_default();
    ensure!(at(&first, "/evidences/0/container/uid") == ID, "{first:?}");
    ensure!(at(&first, "/evidences/0/container/pod_uuid") == UID, "{first:?}");

    up.store(true, Ordering::Relaxed);
    let whole = until(&mut sensor, |alert| alert.id() == first.id() && identity(alert) != "pending")?;
    ensure!(identity(&whole) == "known" && !whole.is_new() && whole.count() == first.count(), "{whole:?}");
    ensure!(whole.workload() == "shop/orders-7f9c-x2x4z", "{whole:?}");
    ensure!(at(&whole, "/evidences/0/container/name") == "main", "{whole:?}");
    ensure!(at(&whole, "/unmapped/kubernetes/namespace") == "shop", "{whole:?}");
    await_figure(&sensor, "tokenscope_identity_completed_total", |count| count >= 1.0)?;

    // Its owner opts out, and thinks better of it.
    api.tell("MODIFIED", &object(&json!({"tokenscope.dev/watch": "false"})));
    let deadline = Deadline::after(PATIENCE);
    while sensor.metric("tokenscope_unwatched_exchanges_total", "")? < 1.0 {
        ensure!(!deadline.is_over(), "it is still watched");
        pod.attack(&mint, "bob")?;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    api.tell("DELETED", &object(&json!({})));
    let gone = |sensor: &Sensor| sensor.metric("tokenscope_identity_pods", "gone");
    while gone(&sensor)? < 1.0 {
        ensure!(!deadline.is_over(), "the pod is still there");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn a_pod_that_opted_out_is_left_out_from_its_first_request_on() -> Result<()> {
    if is_skipped("a_pod_that_opted_out_is_left_out_from_its_first_request_on") {
        return Ok(());
    }
    let opted_out = || list(&json!({"tokenscope.dev/watch": "false"}));
    let api = Api::start(move |request, _| if request.is_watch() { Reply::Watch } else { opted_out() });
    let dir = tempfile::tempdir()?;
    let mint = Mint::at(clock::now())?;
    let pod = Pod::start("out")?;
    let mut sensor = Sensor::start(&watching(&pod, &api, &mint, dir.path())?)?;
    // Its cgroup and that of its container, of which nobody has asked anything yet.
    await_figure(&sensor, "tokenscope_unwatched_cgroups", |count| count >= 2.0)?;
    pod.attack(&mint, "alice")?;
    await_figure(&sensor, "tokenscope_unwatched_exchanges_total", |count| count >= 1.0)?;
    // Its owner thinks better of it: the first attack that is told is the second.
    api.tell("MODIFIED", &object(&json!({})));
    await_figure(&sensor, "tokenscope_unwatched_cgroups", |count| count < 1.0)?;
    pod.attack(&mint, "alice")?;
    let first = until(&mut sensor, |_| true)?;
    ensure!(first.is_new() && first.count() == 1, "{first:?}");
    let skipped = sensor.metric("tokenscope_unwatched_exchanges_total", "")?;
    ensure!((skipped - 1.0).abs() < 0.5, "{skipped} were left out");
    Ok(())
}
