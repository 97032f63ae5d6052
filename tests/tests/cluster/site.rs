//! A cluster with the release on it, who is watched there, and everything that its sensors have printed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::cluster::{APP, Cluster};
use tests::manifests::chart;
use tests::mint::Mint;
use tests::node::Driver;
use tests::sensor::{self, Alert};
use tests::{clock, image, workspace};

/// Where the sensor is.
pub(crate) const HOME: &str = "tokenscope";
/// Where those are who are watched.
pub(crate) const SHOP: &str = "shop";
/// The service's port.
pub(crate) const PORT: u16 = 8080;

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
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) mint: Mint,
    /// What was last given to Helm.
    pub(crate) values: Value,
    pub(crate) logs: Vec<Log>,
    dir: tempfile::TempDir,
}

/// What one sensor prints, from its first word to its last.
pub(crate) struct Log {
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
    pub(crate) fn open(driver: Driver) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let cluster = Cluster::start(driver)?;
        cluster.import(&image::make(dir.path())?)?;
        Ok(Self { cluster, mint: Mint::at(clock::now())?, values: json!({}), logs: Vec::new(), dir })
    }

    /// Installs the chart, or upgrades it, and waits until a sensor of that kind is ready.
    pub(crate) fn helm(&mut self, verb: &str, values: Value) -> Result<()> {
        let question = json!({"do": verb, "chart": chart(), "values": values});
        self.cluster.helm(HOME, question)?;
        self.values = values;
        self.await_sensor()
    }

    /// Waits until the rollout is over, and listens to the sensor.
    pub(crate) fn await_sensor(&mut self) -> Result<()> {
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
        self.listen(&pod)
    }

    /// Keeps what a sensor prints from now on, once.
    pub(crate) fn listen(&mut self, pod: &str) -> Result<()> {
        if self.logs.iter().any(|log| log.pod == pod) {
            return Ok(());
        }
        let file = self.dir.path().join(format!("{pod}.log"));
        let reader = self
            .cluster
            .kubectl_command()?
            .args(["-n", HOME, "logs", "--follow", pod])
            .stdin(Stdio::null())
            .stdout(File::create(&file)?)
            .stderr(Stdio::null())
            .spawn()?;
        self.logs.push(Log { pod: pod.to_owned(), file, reader });
        Ok(())
    }

    /// Reads again what the newest sensor has printed, from its first word on, where the kubelet went away meanwhile.
    pub(crate) fn listen_again(&mut self) -> Result<()> {
        let pod = self.logs.pop().context("a sensor")?.pod.clone();
        self.listen(&pod)
    }

    fn described(&self) -> String {
        let of = |words: &[&str]| self.cluster.kubectl(words).unwrap_or_else(|error| format!("{error:#}"));
        of(&["-n", HOME, "describe", "pods"])
            + &of(&["-n", HOME, "logs", "--tail=20", "daemonset/tokenscope"])
    }

    /// The one sensor's pod and its name; an error while there are two, or one that ends.
    pub(crate) fn sensor(&self) -> Result<(String, Value)> {
        let selector = "app.kubernetes.io/name=tokenscope";
        let pods = self.cluster.get(&["-n", HOME, "pods", "-l", selector])?;
        let [pod] = pods["items"].as_array().context("pods")?.as_slice() else { bail!("not one sensor") };
        ensure!(pod["metadata"]["deletionTimestamp"].is_null(), "the sensor ends");
        Ok((pod["metadata"]["name"].as_str().context("a name")?.to_owned(), pod.clone()))
    }

    /// What a pod's spec says of a service or a client: the host's programs, and our samples.
    pub(crate) fn deployment(namespace: &str, name: &str, annotations: &Value, command: &[&str]) -> Value {
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
    pub(crate) fn open_shop(&self, namespace: &str, name: &str, annotations: &Value) -> Result<()> {
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
    pub(crate) fn pod(&self, namespace: &str, app: &str) -> Result<(String, String)> {
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
    pub(crate) fn attack(&self, namespace: &str, app: &str, who: &str) -> Result<()> {
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
    pub(crate) fn events(&self) -> Result<Vec<Alert>> {
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
    pub(crate) fn told(&self, who: &str) -> Result<Vec<Alert>> {
        let about =
            |alert: &Alert| alert.0.pointer("/evidences/0/actor/user/uid") == Some(&json!(unique(who)));
        let events = self.events()?.into_iter();
        Ok(events.filter(|alert| about(alert) && alert.rule() == "alg-none").collect())
    }

    /// Attacks the orders service and waits for the alert, by the pod's name.
    pub(crate) fn is_told(&self, who: &str) -> Result<Alert> {
        self.attack(SHOP, "orders", who)?;
        self.await_told(who)
    }

    pub(crate) fn await_told(&self, who: &str) -> Result<Alert> {
        self.cluster
            .until(&format!("an alert about {who}"), || {
                let told = self.told(who)?;
                let known = told.iter().rfind(|alert| identity(alert) == "known");
                known.cloned().with_context(|| format!("{told:#?}"))
            })
            .with_context(|| self.summary().unwrap_or_default())
    }

    /// A line for each event, for messages.
    pub(crate) fn summary(&self) -> Result<String> {
        let line = |alert: &Alert| {
            let who = alert.0.pointer("/evidences/0/actor/user/uid").unwrap_or(&Value::Null);
            let (to, client) = (alert.workload(), alert.client());
            format!("{} {} {who} {client} -> {to} {}\n", sequence(alert), alert.rule(), identity(alert))
        };
        Ok(self.events()?.iter().map(line).collect())
    }

    /// Events are numbered from one on, whichever sensor of the node tells them: none is missing, none is told twice.
    pub(crate) fn is_told_in_order(&self) -> Result<()> {
        let events = self.events()?;
        let numbers: Vec<u64> = events.iter().map(sequence).collect();
        ensure!(numbers.iter().copied().eq(1..=events.len() as u64), "{numbers:?}");
        Ok(())
    }

    /// A number of the sensor's metrics, read as Prometheus would: by a pod.
    pub(crate) fn figure(&self, name: &str) -> Result<u64> {
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

    pub(crate) fn text(&self, pod: &str) -> Result<String> {
        let log = self.logs.iter().find(|log| log.pod == pod).context("no log")?;
        Ok(fs::read_to_string(&log.file)?)
    }
}

/// Sensors see the whole host, where other tests may run that forge tokens too.
pub(crate) fn unique(who: &str) -> String {
    format!("{who}-{}", std::process::id())
}

pub(crate) fn sequence(alert: &Alert) -> u64 {
    alert.0.pointer("/metadata/sequence").and_then(Value::as_u64).unwrap_or_default()
}

pub(crate) fn identity(alert: &Alert) -> &str {
    alert.0.pointer("/unmapped/identity").and_then(Value::as_str).unwrap_or_default()
}
