//! The chart on a real cluster: installed with its default values by Helm, probed by a kubelet, told of pods by an API
//! server; then everything that happens to a `DaemonSet`, in one life.
//!
//! It needs what `cargo xtask cluster` builds, and takes some minutes.

#![allow(clippy::indexing_slicing, reason = "a JSON value answers null for what it has not")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::bpf::Held;
use tests::cluster::{APP, Cluster, NODE};
use tests::manifests::{self, chart};
use tests::mint::Mint;
use tests::sensor::{self, Alert};
use tests::{clock, skip, workspace};

/// Where the sensor is.
const HOME: &str = "tokenscope";
/// Where those are who are watched.
const SHOP: &str = "shop";
/// The service's port.
const PORT: u16 = 8080;
/// The sensor's account, as the API server calls it.
const ACCOUNT: &str = "system:serviceaccount:tokenscope:tokenscope";
/// Where its state is, as `hostPath` says, below the node's `/var`.
const STATE: &str = "lib/tokenscope";

/// Asks with a bearer token, until somebody listens.
const ASK: &str = "
import sys, time, urllib.request, urllib.error
for _ in range(100):
    try:
        print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]})).status)
    except urllib.error.HTTPError as error:
        print(error.code)
    except OSError:
        time.sleep(0.2)
        continue
    break
";

/// The cluster, the release, and everything that its sensors have printed.
struct Site {
    cluster: Cluster,
    mint: Mint,
    /// What was last given to Helm.
    values: Value,
    logs: Vec<Log>,
    dir: tempfile::TempDir,
}

/// What one sensor prints, from its first word to its last.
struct Log {
    pod: String,
    file: PathBuf,
    reader: Child,
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.reader.kill();
        let _ = self.reader.wait();
    }
}

impl Site {
    fn open() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let cluster = Cluster::start()?;
        let image = dir.path().join("image.tar");
        make_image(&image)?;
        cluster.import(&image)?;
        Ok(Self { cluster, mint: Mint::at(clock::now())?, values: json!({}), logs: Vec::new(), dir })
    }

    /// Installs the chart, or upgrades it, and waits until a sensor of that kind is ready.
    fn helm(&mut self, verb: &str, values: Value) -> Result<()> {
        let question = json!({"do": verb, "chart": chart(), "values": values});
        self.cluster.helm(HOME, question)?;
        self.values = values;
        self.await_sensor()
    }

    /// Waits until the rollout is over, and listens to the sensor.
    fn await_sensor(&mut self) -> Result<()> {
        let rollout = || {
            let daemonset = self.cluster.get(&["-n", HOME, "daemonset", HOME])?;
            let (status, made) = (&daemonset["status"], &daemonset["metadata"]["generation"]);
            ensure!(status["observedGeneration"] == *made, "{status}");
            ensure!(status["updatedNumberScheduled"] == 1 && status["numberAvailable"] == 1, "{status}");
            let (name, pod) = self.sensor()?;
            let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
            ensure!(ready, "{}", pod["status"]);
            Ok(name)
        };
        let pod = self.cluster.until("the sensor", rollout).with_context(|| self.described())?;
        if self.logs.iter().any(|log| log.pod == pod) {
            return Ok(());
        }
        let file = self.dir.path().join(format!("{pod}.log"));
        let reader = self
            .cluster
            .kubectl_command()?
            .args(["-n", HOME, "logs", "--follow", &pod])
            .stdin(Stdio::null())
            .stdout(File::create(&file)?)
            .stderr(Stdio::null())
            .spawn()?;
        self.logs.push(Log { pod, file, reader });
        Ok(())
    }

    fn described(&self) -> String {
        let of = |words: &[&str]| self.cluster.kubectl(words).unwrap_or_else(|error| format!("{error:#}"));
        of(&["-n", HOME, "describe", "pods"])
            + &of(&["-n", HOME, "logs", "--tail=20", "daemonset/tokenscope"])
    }

    /// The one sensor's pod and its name; an error while there are two, or one that ends.
    fn sensor(&self) -> Result<(String, Value)> {
        let selector = "app.kubernetes.io/name=tokenscope";
        let pods = self.cluster.get(&["-n", HOME, "pods", "-l", selector])?;
        let [pod] = pods["items"].as_array().context("pods")?.as_slice() else { bail!("not one sensor") };
        ensure!(pod["metadata"]["deletionTimestamp"].is_null(), "the sensor ends");
        Ok((pod["metadata"]["name"].as_str().context("a name")?.to_owned(), pod.clone()))
    }

    /// What a pod's spec says of a service or a client: the host's programs, and our samples.
    fn deployment(namespace: &str, name: &str, annotations: &Value, command: &[&str]) -> Value {
        let labels = json!({"app": name, "tier": "front"});
        let place = |name: &str, path: &Path| json!({"name": name, "hostPath": {"path": path}});
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {
                    "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                    "volumes": [
                        place("usr", Path::new("/usr")), place("srv", &workspace().join("tests/services")),
                        {"name": "keys", "configMap": {"name": "keys"}},
                    ],
                    "containers": [{
                        "name": "api", "image": APP, "command": command,
                        "env": [{"name": "HOST", "value": "0.0.0.0"}],
                        "volumeMounts": [mount("usr", "/usr"), mount("srv", "/srv"), mount("keys", "/data")],
                    }],
                },
            }},
        })
    }

    /// A service in a namespace.
    fn open_shop(&self, namespace: &str, name: &str, annotations: &Value) -> Result<()> {
        let (port, space) = (PORT.to_string(), json!({"name": namespace}));
        let keys = json!({"jwks.json": self.mint.jwks()?.to_string()});
        let words = ["/usr/bin/python3", "/srv/api.py", &port, "/data/jwks.json"];
        self.cluster.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": space}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": keys,
                "metadata": {"name": "keys", "namespace": namespace}}),
            Self::deployment(namespace, name, annotations, &words),
        ])
    }

    /// The running pod of a deployment: its name and its address.
    fn pod(&self, namespace: &str, app: &str) -> Result<(String, String)> {
        self.cluster.until(app, || {
            let pods = self.cluster.get(&["-n", namespace, "pods", "-l", &format!("app={app}")])?;
            let running = |pod: &&Value| pod["status"]["containerStatuses"][0]["ready"] == true;
            let pod = pods["items"].as_array().context("pods")?.iter().find(running);
            let pod = pod.with_context(|| pods["items"][0]["status"].to_string())?;
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            Ok((text("/metadata/name").context("name")?, text("/status/podIP").context("address")?))
        })
    }

    /// Lets the visitor ask a service with somebody's forged token.
    fn attack(&self, namespace: &str, app: &str, who: &str) -> Result<()> {
        let token = Attack::AlgNone.token(&self.mint, &unique(who))?;
        let (_, address) = self.pod(namespace, app)?;
        let (visitor, _) = self.pod(SHOP, "visitor")?;
        let url = format!("http://{address}:{PORT}/orders/7");
        let said = self.cluster.kubectl(&[
            "-n",
            SHOP,
            "exec",
            &visitor,
            "--",
            "/usr/bin/python3",
            "-c",
            ASK,
            &url,
            &token,
        ])?;
        ensure!(said.trim() == "401", "{url} answered {said}");
        Ok(())
    }

    /// All events so far, in the order in which the sensors told them.
    fn events(&self) -> Result<Vec<Alert>> {
        let mut all = Vec::new();
        for log in &self.logs {
            let text = fs::read_to_string(&log.file)?;
            // The last line may still be coming; what is no event is what the sensor says to people.
            let whole = |line: &&str| line.starts_with('{') && line.ends_with("}\n");
            all.extend(sensor::events(&text.split_inclusive('\n').filter(whole).collect::<String>())?);
        }
        Ok(all.into_iter().map(Alert).collect())
    }

    /// What was told of somebody's forged token.
    fn told(&self, who: &str) -> Result<Vec<Alert>> {
        let about =
            |alert: &Alert| alert.0.pointer("/evidences/0/actor/user/uid") == Some(&json!(unique(who)));
        let events = self.events()?.into_iter();
        Ok(events.filter(|alert| about(alert) && alert.rule() == "alg-none").collect())
    }

    /// Attacks the orders service and waits for the alert, by the pod's name.
    fn is_told(&self, who: &str) -> Result<Alert> {
        self.attack(SHOP, "orders", who)?;
        self.await_told(who)
    }

    fn await_told(&self, who: &str) -> Result<Alert> {
        self.cluster
            .until(&format!("an alert about {who}"), || {
                let told = self.told(who)?;
                let known = told.iter().rfind(|alert| identity(alert) == "known");
                known.cloned().with_context(|| format!("{told:#?}"))
            })
            .with_context(|| self.summary().unwrap_or_default())
    }

    /// A line for each event, for messages.
    fn summary(&self) -> Result<String> {
        let line = |alert: &Alert| {
            let who = alert.0.pointer("/evidences/0/actor/user/uid").unwrap_or(&Value::Null);
            let (to, client) = (alert.workload(), alert.client());
            format!("{} {} {who} {client} -> {to} {}\n", sequence(alert), alert.rule(), identity(alert))
        };
        Ok(self.events()?.iter().map(line).collect())
    }

    /// Events are numbered from one on, whichever sensor of the node tells them: none is missing, none is told twice.
    fn is_told_in_order(&self) -> Result<()> {
        let events = self.events()?;
        let numbers: Vec<u64> = events.iter().map(sequence).collect();
        ensure!(numbers.iter().copied().eq(1..=events.len() as u64), "{numbers:?}");
        Ok(())
    }

    /// A number of the sensor's metrics, read as Prometheus would: by a pod.
    fn figure(&self, name: &str) -> Result<u64> {
        let (_, sensor) = self.sensor()?;
        let address = sensor["status"]["podIP"].as_str().context("an address")?;
        let (visitor, _) = self.pod(SHOP, "visitor")?;
        let read = format!(
            "import urllib.request; print(urllib.request.urlopen('http://{address}:9464/metrics').read().decode())"
        );
        let page =
            self.cluster.kubectl(&["-n", SHOP, "exec", &visitor, "--", "/usr/bin/python3", "-c", &read])?;
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).context("no figure")?;
        Ok(value.trim().parse()?)
    }

    fn text(&self, pod: &str) -> Result<String> {
        let log = self.logs.iter().find(|log| log.pod == pod).context("no log")?;
        Ok(fs::read_to_string(&log.file)?)
    }
}

/// Sensors see the whole host, where other tests may run that forge tokens too.
fn unique(who: &str) -> String {
    format!("{who}-{}", std::process::id())
}

fn sequence(alert: &Alert) -> u64 {
    alert.0.pointer("/metadata/sequence").and_then(Value::as_u64).unwrap_or_default()
}

fn identity(alert: &Alert) -> &str {
    alert.0.pointer("/unmapped/identity").and_then(Value::as_str).unwrap_or_default()
}

/// The image of the program under test, by the name that the chart uses.
fn make_image(archive: &Path) -> Result<()> {
    let own = std::env::current_exe()?;
    let near = own.ancestors().skip(1).take(2).map(|dir| dir.join("xtask")).find(|file| file.is_file());
    let xtask =
        near.context("xtask is not built: run `cargo xtask cluster`, or `cargo build -p xtask` first")?;
    let mut make = Command::new(xtask);
    make.args(["image", "--no-check", "--binary"]).arg(sensor::binary()?).arg("--tar").arg(archive);
    let done = make.output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

#[test]
fn the_daemonset_lives_on_a_real_cluster() -> Result<()> {
    if let Some(why) = sensor::missing().or_else(tests::bpf::missing).or_else(Cluster::missing) {
        skip("cluster::the_daemonset_lives_on_a_real_cluster", &why);
        return Ok(());
    }
    let mut site = Site::open()?;
    site.open_shop(SHOP, "orders", &json!({}))?;
    site.cluster.apply(&[Site::deployment(SHOP, "visitor", &json!({}), &["/usr/bin/sleep", "infinity"])])?;

    it_becomes_ready_with_the_default_values(&mut site)?;
    an_alert_names_who_was_asked(&site)?;
    its_account_may_read_pods_and_nothing_else(&site)?;
    a_deleted_sensor_comes_back_and_goes_on(&mut site)?;
    an_upgrade_tells_nothing_twice(&mut site)?;
    a_change_of_the_configuration_reaches_it(&mut site)?;
    it_watches_what_it_is_told_to(&mut site)?;
    it_names_processes_where_it_may(&mut site)?;
    the_node_loses_its_power(&mut site)?;
    nothing_is_left(&mut site)
}

fn it_becomes_ready_with_the_default_values(site: &mut Site) -> Result<()> {
    site.helm("install", json!({}))?;
    let (name, pod) = site.sensor()?;
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", pod["status"]);
    let events = site.cluster.get(&["-n", HOME, "events"])?;
    let failed =
        events["items"].as_array().context("events")?.iter().find(|event| event["reason"] == "Failed");
    ensure!(failed.is_none(), "{failed:?}");
    site.cluster.until("its first word", || {
        let text = site.text(&name)?;
        ensure!(text.contains("watching"), "{text}");
        Ok(())
    })?;
    // `helm test` is doctor in a pod like the sensor's own.
    let tested = site.cluster.helm(HOME, json!({"do": "test"}))?;
    let said = tested["logs"].as_str().unwrap_or_default();
    ensure!(said.contains("cgroup") && !said.contains("FAIL"), "{tested}");
    Ok(())
}

fn an_alert_names_who_was_asked(site: &Site) -> Result<()> {
    let alert = site.is_told("mallory")?;
    let (pod, _) = site.pod(SHOP, "orders")?;
    let (_, visitor) = site.pod(SHOP, "visitor")?;
    let uid = site.cluster.get(&["-n", SHOP, "pod", &pod])?["metadata"]["uid"].clone();
    for (pointer, expected) in [
        ("/evidences/0/dst_endpoint/name", json!(format!("{SHOP}/{pod}"))),
        ("/evidences/0/src_endpoint/ip", json!(visitor)),
        ("/evidences/0/container/name", json!("api")),
        ("/evidences/0/container/image/name", json!("docker.io/lab/app")),
        ("/evidences/0/container/pod_uuid", uid),
        ("/evidences/0/container/labels", json!(["app=orders"])),
        ("/unmapped/kubernetes/namespace", json!(SHOP)),
        ("/unmapped/kubernetes/owner/kind", json!("Deployment")),
        ("/unmapped/kubernetes/owner/name", json!("orders")),
        ("/unmapped/kubernetes/node", json!(NODE)),
    ] {
        ensure!(alert.0.pointer(pointer) == Some(&expected), "{pointer}: no {expected} in {:#}", alert.0);
    }
    Ok(())
}

fn its_account_may_read_pods_and_nothing_else(site: &Site) -> Result<()> {
    let may = |words: &[&str]| {
        let all: Vec<&str> =
            ["auth", "can-i", "--as", ACCOUNT].into_iter().chain(words.iter().copied()).collect();
        // It fails where the answer is no.
        site.cluster.kubectl(&all).is_ok_and(|answer| answer.trim() == "yes")
    };
    for verb in ["get", "list", "watch"] {
        ensure!(may(&[verb, "pods", "--all-namespaces"]), "{verb}");
    }
    for words in [
        "create pods",
        "delete pods",
        "create pods --subresource=exec",
        "get pods --subresource=log",
        "get secrets",
        "get configmaps",
        "get nodes",
        "get nodes --subresource=proxy",
        "list namespaces",
        "impersonate users",
        "create serviceaccounts --subresource=token",
        "* *",
    ] {
        let words: Vec<&str> = words.split(' ').chain(["-n", HOME]).collect();
        ensure!(!may(&words), "it may {words:?}");
    }
    Ok(())
}

fn a_deleted_sensor_comes_back_and_goes_on(site: &mut Site) -> Result<()> {
    let (old, _) = site.sensor()?;
    site.cluster.kubectl(&["-n", HOME, "delete", "pod", &old])?;
    site.await_sensor()?;
    ensure!(site.sensor()?.0 != old);
    // What is told already is not told again: the alert is still open, and the token has the same fingerprint.
    site.attack(SHOP, "orders", "mallory")?;
    site.is_told("trent")?;
    ensure!(opened(site, "mallory")? == 1, "{:#?}", site.told("mallory")?);
    site.is_told_in_order()
}

/// Whatever a `DaemonSet` of this version does with two sensors.
fn an_upgrade_tells_nothing_twice(site: &mut Site) -> Result<()> {
    let (old, _) = site.sensor()?;
    site.helm("upgrade", json!({"podAnnotations": {"example.com/turn": "2"}}))?;
    ensure!(site.sensor()?.0 != old);
    for who in ["mallory", "trent"] {
        site.attack(SHOP, "orders", who)?;
    }
    site.is_told("trudy")?;
    for who in ["mallory", "trent", "trudy"] {
        ensure!(opened(site, who)? == 1, "{:#?}", site.told(who)?);
    }
    site.is_told_in_order()
}

fn opened(site: &Site, who: &str) -> Result<usize> {
    Ok(site.told(who)?.iter().filter(|alert| alert.is_new()).count())
}

fn a_change_of_the_configuration_reaches_it(site: &mut Site) -> Result<()> {
    let (before, _) = site.sensor()?;
    let rule = "id: any-order\ntitle: An order\nseverity: low\nwhen: request.path.startsWith(\"/orders/\")\n";
    let values = json!({
        "podAnnotations": {"example.com/turn": "2"},
        "rules": {"any-order.yaml": rule}, "config": {"rules": {"alg-none": {"severity": "low"}}},
    });
    site.helm("upgrade", values)?;
    site.cluster.until("the new configuration", || {
        let text = site.text(&before)?;
        let taken_over =
            ["configuration reloaded", "1 user rules from"].iter().all(|word| text.contains(word));
        ensure!(taken_over, "{text}");
        Ok(())
    })?;
    let alert = site.is_told("peggy")?;
    ensure!(alert.severity() == "Low", "{}", alert.severity());
    let shop = format!("{SHOP}/");
    site.cluster.until("an alert by the new rule", || {
        let events = site.events()?;
        let ours = |alert: &Alert| alert.rule() == "any-order" && alert.workload().starts_with(&shop);
        ensure!(events.iter().any(ours), "{}", site.summary()?);
        Ok(())
    })?;
    let (after, pod) = site.sensor()?;
    ensure!(
        after == before && pod["status"]["containerStatuses"][0]["restartCount"] == 0,
        "it was restarted"
    );
    Ok(())
}

fn it_watches_what_it_is_told_to(site: &mut Site) -> Result<()> {
    site.open_shop("quiet", "orders", &json!({}))?;
    site.open_shop(SHOP, "hidden", &json!({"tokenscope.dev/watch": "false"}))?;
    site.open_shop(SHOP, "cache", &json!({}))?;
    let watch = json!({"not_namespaces": ["quiet"], "labels": ["app!=cache"]});
    site.helm("upgrade", json!({"config": {"watch": watch}}))?;
    let left_out = [("quiet", "orders"), (SHOP, "hidden"), (SHOP, "cache")];
    // Who is met for the first time is watched until it is known who it is: a second or two.
    for (namespace, app) in left_out {
        site.attack(namespace, app, "walter")?;
    }
    site.cluster.until("a decision", || {
        for (namespace, app) in left_out {
            site.attack(namespace, app, "walter")?;
        }
        let skipped = site.figure("tokenscope_unwatched_exchanges_total")?;
        ensure!(skipped >= 3, "{skipped}");
        Ok(())
    })?;
    for (namespace, app) in left_out {
        site.attack(namespace, app, &format!("{namespace}-{app}"))?;
    }
    site.is_told("wendy")?;
    for who in ["quiet-orders", "shop-hidden", "shop-cache"] {
        let told = site.told(who)?;
        ensure!(told.is_empty(), "{who}: {told:#?}");
    }
    // And is watched again once it is no longer left out.
    site.helm("upgrade", json!({}))?;
    site.attack("quiet", "orders", "wilma")?;
    let alert = site.await_told("wilma")?;
    ensure!(alert.workload().starts_with("quiet/orders-"), "{}", alert.workload());
    Ok(())
}

fn it_names_processes_where_it_may(site: &mut Site) -> Result<()> {
    let bare = site.is_told("oscar")?;
    let name = |alert: &Alert| alert.0.pointer("/evidences/0/process/name").cloned();
    ensure!(name(&bare).is_none(), "{:#}", bare.0);
    site.helm("upgrade", json!({"processes": {"enabled": true}}))?;
    let named = site.is_told("olivia")?;
    let python = name(&named).context("no process")?;
    ensure!(python.as_str().is_some_and(|name| name.starts_with("python3")), "{:#}", named.0);
    site.helm("upgrade", json!({}))
}

fn the_node_loses_its_power(site: &mut Site) -> Result<()> {
    let last = sequence(&site.is_told("victor")?);
    let (name, before) = site.sensor()?;
    site.is_told_in_order()?;
    site.cluster.power_cycle()?;
    site.logs.clear();
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    site.cluster.until("the sensor's new start", || {
        let (again, pod) = site.sensor()?;
        ensure!(again != name || restarts(&pod) > restarts(&before), "{}", pod["status"]);
        Ok(())
    })?;
    site.cluster.await_node()?;
    site.await_sensor()?;
    let alert = site.is_told("vera")?;
    ensure!(alert.workload() == format!("{SHOP}/{}", site.pod(SHOP, "orders")?.0), "{}", alert.workload());
    ensure!(sequence(&alert) > last, "{} after {last}", sequence(&alert));
    Ok(())
}

fn nothing_is_left(site: &mut Site) -> Result<()> {
    let held = Held::by(site.cluster.pid_of("tokenscope")?)?;
    ensure!(site.cluster.on_node(STATE).join("lock").exists(), "no state");
    site.cluster.helm(HOME, json!({"do": "uninstall"}))?;
    let kinds =
        "daemonsets,pods,configmaps,secrets,serviceaccounts,clusterroles,clusterrolebindings,priorityclasses";
    site.cluster.until("an end of every object", || {
        let selector = "app.kubernetes.io/instance=tokenscope";
        let left = site.cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "name", "-l", selector])?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })?;
    held.until_gone()?;
    // Its state is there until somebody wants it gone.
    ensure!(site.cluster.on_node(STATE).exists(), "its state went with it");
    let remove = manifests::read(&workspace().join("deploy/kubernetes/remove-state.yaml"))?;
    site.cluster.apply(&remove)?;
    site.cluster.until("remove-state", || {
        let daemonset = site.cluster.get(&["-n", "tokenscope-remove-state", "daemonset", "remove-state"])?;
        ensure!(daemonset["status"]["numberReady"] == 1, "{}", daemonset["status"]);
        Ok(())
    })?;
    ensure!(!site.cluster.on_node(STATE).exists(), "its state is still there");
    Ok(())
}
