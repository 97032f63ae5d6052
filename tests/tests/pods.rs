//! The sensor as a pod among pods: its image under containerd and runc, with three capabilities and a read-only root;
//! services in pods of their own, reached from pods, through NAT, over loopback and by probes. Each request must be one
//! record, of the right pod and container, from the right client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::attack::Attack;
use tests::client::{Client, get};
use tests::clock::{self, Deadline};
use tests::mint::Mint;
use tests::node::{BRIDGE, Driver, NODE, Node, OUTSIDE, Pod, Program};
use tests::sensor::{Alert, Config, Sensor};
use tests::server::{Kind, free_port};
use tests::{image, sensor, skip};

/// Where services listen in their pods, and where the part behind a sidecar does.
const PORT: u16 = 18_080;
const BEHIND: u16 = 18_090;
/// The same in the other test, which may run at the same time: every sensor sees the whole host.
const ROLLOUT: u16 = 18_081;

/// The capabilities that containerd gives a container unasked; the sensor gets none of them.
const UNASKED: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A sidecar: it listens on the pod's address and asks the service over loopback, or a service in another pod.
const SIDECAR: &str = "daemon off; master_process off; pid /tmp/pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;
  uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5;
  server {
    listen @PORT@;
    proxy_http_version 1.1; proxy_set_header Connection \"\";
    location / { proxy_pass http://127.0.0.1:@BEHIND@; }
    location /peer/ { proxy_pass http://@PEER@/orders/; }
  }
}
";

/// One record: who was asked, at which port, by whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    container: String,
    pod: String,
    client: String,
    port: u64,
}

impl Record {
    fn of(alert: &Alert) -> Self {
        let text =
            |pointer: &str| alert.0.pointer(pointer).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        Self {
            container: text("/evidences/0/container/uid"),
            pod: text("/evidences/0/container/pod_uuid"),
            client: alert.client().to_owned(),
            port: alert.server_port().unwrap_or_default(),
        }
    }
}

/// What was asked so far: forged requests by record, and every request.
#[derive(Debug, Default)]
struct Asked {
    forged: BTreeMap<Record, u64>,
    requests: u64,
}

impl Asked {
    /// Sends a forged request with a token of its own; `seen` are the sockets at which a server received it.
    fn forged(
        &mut self,
        mint: &Mint,
        to: SocketAddr,
        path: &str,
        seen: &[(&str, &Pod, &str, u16)],
    ) -> Result<()> {
        let token = Attack::AlgNone.token(mint, &format!("mallory{}", self.requests))?;
        let status = Client::connect(to)?.ask(&get(path, Some(&token)))?.status;
        ensure!(status == 401, "{path} at {to} answered {status}");
        self.count(seen);
        Ok(())
    }

    fn count(&mut self, seen: &[(&str, &Pod, &str, u16)]) {
        for (container, pod, client, port) in seen {
            let record = Record {
                container: (*container).to_owned(),
                pod: pod.uid.clone(),
                client: (*client).to_owned(),
                port: (*port).into(),
            };
            *self.forged.entry(record).or_default() += 1;
            self.requests += 1;
        }
    }
}

fn cgroup2() -> Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&"cgroup2")).context("cgroup v2")?;
    Ok(found.get(1).copied().unwrap_or_default().to_owned())
}

/// Starts the sensor in a pod, over what is kept in `state`, and waits until it is ready. The first one captures, another
/// one waits to take over.
fn watch(node: &Node, mint: &Mint, image: &str, state: &Path, ports: &[u16], first: bool) -> Result<Sensor> {
    ensure!(image.starts_with("docker.io/library/tokenscope:"), "it is called {image}");
    let pod = node.pod(Driver::Systemd, &[])?;
    let dir = tempfile::Builder::new().prefix("sensor-").tempdir()?;
    let mut config = Config::new(mint)?.ports(ports);
    config.set("/state/dir", json!("/var/lib/tokenscope"));
    config.set("/control/socket", json!("/run/tokenscope/control.sock"));
    config.set("/metrics/listen", json!("0.0.0.0:9464"));
    let file = config.write(dir.path())?;
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace(&dir.path().to_string_lossy().into_owned(), "/etc/tokenscope"))?;
    std::fs::create_dir(dir.path().join("run"))?;
    let bind = |from: &str, to: &str, mode: &str| {
        format!("--mount=type=bind,src={from},dst={to},options=rbind:{mode}")
    };
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let mut flags = vec![
        "--read-only".to_owned(),
        // The runtime's own profile, as the chart asks for.
        "--seccomp".to_owned(),
        "--env=LAB_FINGERPRINT_KEY=a key that is fixed for tests only".to_owned(),
        bind(&cgroup2()?, "/sys/fs/cgroup", "ro"),
        bind(&at(""), "/etc/tokenscope", "ro"),
        bind(&state.to_string_lossy(), "/var/lib/tokenscope", "rw"),
        bind(&at("run"), "/run/tokenscope", "rw"),
    ];
    flags.extend(UNASKED.map(|name| format!("--cap-drop=CAP_{name}")));
    flags.extend(["BPF", "PERFMON", "NET_ADMIN"].map(|name| format!("--cap-add=CAP_{name}")));
    // As the chart starts it.
    let words = ["/usr/bin/tokenscope", "run", "--watch-config", "--take-over", "-o", "json"];
    let mut command = node.foreground(&pod, image, &flags, &words)?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let page = SocketAddr::new(pod.address, 9464);
    let said = if first { "watching" } else { "waiting to take over" };
    let sensor = Sensor::adopt(said, child, dir, page)?;
    // As the kubelet asks: until it is ready. A page that nobody serves yet is not ready either.
    let deadline = Deadline::after(Duration::from_secs(30));
    while node.here(|| Ok(Client::connect(page)?.ask(&get("/readyz", None))?.status)).ok() != Some(200) {
        ensure!(!deadline.is_over(), "the sensor is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(sensor)
}

/// The order service on Python.
fn orders(mint: &Mint, host: &str, port: u16) -> Result<Program> {
    let words = ["/usr/bin/python3", "/srv/api.py", &port.to_string(), "/data/jwks.json"].map(str::to_owned);
    let files = vec![("jwks.json".to_owned(), mint.jwks()?.to_string())];
    Ok(Program { words: words.into(), environment: vec![format!("HOST={host}")], files })
}

/// nginx in front of it.
fn sidecar(peer: SocketAddr) -> Program {
    let config = SIDECAR.replace("@PORT@", &PORT.to_string()).replace("@BEHIND@", &BEHIND.to_string());
    let config = config.replace("@PEER@", &peer.to_string());
    let words = ["/usr/sbin/nginx", "-e", "stderr", "-c", "/data/nginx.conf"].map(str::to_owned);
    Program { words: words.into(), files: vec![("nginx.conf".to_owned(), config)], ..Program::default() }
}

/// Waits until a container listens. The attempts carry no request.
fn await_port(node: &Node, pod: &Pod, id: &str, to: SocketAddr) -> Result<()> {
    let deadline = Deadline::after(Duration::from_mins(1));
    while node.inside(pod, || Ok(std::net::TcpStream::connect(to)?)).is_err() {
        ensure!(!deadline.is_over(), "{to} does not listen: {}", node.said(id));
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn missing(test: &str) -> bool {
    let why = sensor::missing().or_else(Node::missing).or_else(|| Kind::Nginx.missing());
    if let Some(why) = &why {
        skip(&format!("pods::{test}"), why);
    }
    why.is_some()
}

/// Counts the forged requests by their record; what is no alert about one must not be there.
fn tally(alerts: &[Alert]) -> Result<BTreeMap<Record, u64>> {
    let mut tally: BTreeMap<Record, u64> = BTreeMap::new();
    for alert in alerts {
        ensure!(alert.rule() == "alg-none", "{alert:?}");
        *tally.entry(Record::of(alert)).or_default() += alert.count();
    }
    Ok(tally)
}

/// Services in two pods, and a pod that visits them.
struct Shop<'a> {
    node: &'a Node,
    /// A service alone, at its own address and at a port of the node's.
    web: Pod,
    web_app: String,
    web_at: SocketAddr,
    node_at: SocketAddr,
    /// A service behind a sidecar.
    front: Pod,
    behind: String,
    proxy: String,
    front_at: SocketAddr,
    visitor: Pod,
}

impl Shop<'_> {
    /// Sends requests on every way that there is; gives what was asked.
    fn is_visited(&self, mint: &Mint) -> Result<Asked> {
        let Self { node, web, web_app, web_at, node_at, front, behind, proxy, front_at, visitor } = self;
        let (visitor_ip, front_ip) = (visitor.address.to_string(), front.address.to_string());
        let mut asked = Asked::default();
        // Probes, as the kubelet sends them: no token, so no alert, but each is an exchange.
        for at in [*web_at, *front_at] {
            for _ in 0..3 {
                let status = node.here(|| Ok(Client::connect(at)?.ask(&get("/health", None))?.status))?;
                ensure!(status == 200, "/health answered {status}");
            }
        }
        // Those to the front go on to what is behind it.
        asked.requests += 3 + 2 * 3;
        // From outside through NAT: the client is the machine outside.
        for _ in 0..4 {
            node.outside(|| asked.forged(mint, *node_at, "/orders/7", &[(web_app, web, OUTSIDE, PORT)]))?;
        }
        // Pod to pod: directly, and through the node's port. There the node puts its own address in place of the pod's, or
        // the answer would go past the NAT: so the service sees the node.
        for (to, client) in [(*web_at, &*visitor_ip), (*node_at, BRIDGE)] {
            for _ in 0..3 {
                node.inside(visitor, || {
                    asked.forged(mint, to, "/orders/7", &[(web_app, web, client, PORT)])
                })?;
            }
        }
        // To a sidecar, and over loopback to the service beside it: two sockets, two records.
        for _ in 0..3 {
            let both = [(&**proxy, front, &*visitor_ip, PORT), (&**behind, front, "127.0.0.1", BEHIND)];
            node.inside(visitor, || asked.forged(mint, *front_at, "/orders/7", &both))?;
        }
        // A pod asks another on behalf of a third.
        for _ in 0..2 {
            let both = [(&**proxy, front, &*visitor_ip, PORT), (&**web_app, web, &*front_ip, PORT)];
            node.inside(visitor, || asked.forged(mint, *front_at, "/peer/7", &both))?;
        }
        Ok(asked)
    }
}

#[test]
fn each_request_between_pods_is_one_record_of_the_right_pod() -> Result<()> {
    if missing("each_request_between_pods_is_one_record_of_the_right_pod") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let node = Node::start()?;
    let dir = tempfile::tempdir()?;
    let archive = image::make(dir.path())?;

    // One service is there before the sensor, the other comes after it.
    let forwarded = free_port()?;
    let web = node.pod(Driver::Cgroupfs, &[(forwarded, PORT)])?;
    let web_app = node.run(&web, &orders(&mint, "0.0.0.0", PORT)?)?;
    let web_at = SocketAddr::new(web.address, PORT);
    await_port(&node, &web, &web_app, web_at)?;
    let image = node.load(&archive)?;
    let state = tempfile::tempdir()?;
    let mut sensor = watch(&node, &mint, &image, state.path(), &[PORT, BEHIND], true)?;
    let front = node.pod(Driver::Systemd, &[])?;
    let behind = node.run(&front, &orders(&mint, "127.0.0.1", BEHIND)?)?;
    let proxy = node.run(&front, &sidecar(web_at))?;
    let front_at = SocketAddr::new(front.address, PORT);
    await_port(&node, &front, &behind, SocketAddr::from(([127, 0, 0, 1], BEHIND)))?;
    await_port(&node, &front, &proxy, front_at)?;
    let visitor = node.pod(Driver::Cgroupfs, &[])?;
    let node_at = format!("{NODE}:{forwarded}").parse()?;
    let shop = Shop { node: &node, web, web_app, web_at, node_at, front, behind, proxy, front_at, visitor };
    let asked = shop.is_visited(&mint)?;
    let mut alerts = Vec::new();
    let total: u64 = asked.forged.values().sum();
    while (alerts.len() as u64) < total {
        alerts.push(sensor.next_alert()?);
    }
    let ended = sensor.stop()?;
    alerts.extend_from_slice(&ended.alerts);
    let got = tally(&alerts)?;
    ensure!(got == asked.forged, "expected {:#?}\ngot {got:#?}\n{}", asked.forged, ended.stderr);
    let watched = format!("watched: {} exchanges", asked.requests);
    ensure!(ended.stderr.contains(&watched), "no {watched:?} in {}", ended.stderr);
    Ok(())
}

/// A rollout as the `DaemonSet` does it: the new pod becomes ready beside the old one, and then the old one ends.
#[test]
fn a_rollout_of_the_sensor_misses_nothing_and_tells_nothing_twice() -> Result<()> {
    if missing("a_rollout_of_the_sensor_misses_nothing_and_tells_nothing_twice") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let node = Node::start()?;
    let dir = tempfile::tempdir()?;
    let image = node.load(&image::make(dir.path())?)?;
    let state = tempfile::tempdir()?;
    let web = node.pod(Driver::Systemd, &[])?;
    let app = node.run(&web, &orders(&mint, "0.0.0.0", ROLLOUT)?)?;
    let at = SocketAddr::new(web.address, ROLLOUT);
    await_port(&node, &web, &app, at)?;
    let visitor = node.pod(Driver::Systemd, &[])?;
    let client = visitor.address.to_string();
    let mut asked = Asked::default();
    let ask = |asked: &mut Asked| {
        (0..4).try_for_each(|_| {
            node.inside(&visitor, || asked.forged(&mint, at, "/orders/7", &[(&app, &web, &client, ROLLOUT)]))
        })
    };
    let old = watch(&node, &mint, &image, state.path(), &[ROLLOUT], true)?;
    ask(&mut asked)?;
    let mut new = watch(&node, &mint, &image, state.path(), &[ROLLOUT], false)?;
    ask(&mut asked)?;
    let mut alerts = old.stop()?.alerts;
    // Nobody captures and tells now but what is kept in the new one's ring.
    ask(&mut asked)?;
    new.await_words("takes over")?;
    ask(&mut asked)?;
    let total: u64 = asked.forged.values().sum();
    while (alerts.len() as u64) < total {
        alerts.push(new.next_alert()?);
    }
    alerts.extend(new.stop()?.alerts);
    let got = tally(&alerts)?;
    ensure!(got == asked.forged, "expected {:#?}\ngot {got:#?}", asked.forged);
    Ok(())
}
