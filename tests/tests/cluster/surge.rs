//! An upgrade with `maxSurge`, where the controller knows none: Kubernetes 1.20 is the newest that can be built here, and a
//! `DaemonSet` can do that from 1.22 on. This takes the controller's place, and does what it does in this order: it makes
//! the pod beside the old one, from the chart as Helm renders it for the newest version, waits until it is ready, and
//! deletes the old one. All others are real: the API server, the scheduler, the kubelet that probes and ends them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::attack::Attack;
use tests::cluster::NODE;
use tests::manifests::{self, VERSIONS, render_question, rendered};

use crate::site::{HOME, PORT, SHOP, Site, unique};

/// The pod that a controller would make.
const NEW: &str = "tokenscope-surge";

/// How many requests each phase sees at least.
const PHASE: usize = 60;

/// How many there are at most: beyond a thousand alerts a rule folds them.
const MOST: usize = 900;

/// Asks once from each address on stdin, over a connection of its own, and says what was answered.
const ASK_FROM: &str = "
import http.client, sys
for line in sys.stdin:
    connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), source_address=(line.strip(), 0))
    connection.request('GET', '/orders/7', headers={'Authorization': 'Bearer ' + sys.argv[2]})
    print(connection.getresponse().status, flush=True)
    connection.close()
";

/// Requests from now until it is told to end, each from an address of its own, which makes each an alert of its own.
struct Stream<'a> {
    site: &'a Site,
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Stream<'_> {
    /// The address of the request of this number.
    fn address(number: usize) -> String {
        format!("127.78.{}.{}", number / 250, number % 250 + 1)
    }

    /// Starts the client: beside the service in its pod, where every address of 127.0.0.0/8 can be had.
    fn client(&self) -> Result<Child> {
        let token = Attack::AlgNone.token(&self.site.mint, &unique("steady"))?;
        let (pod, _) = self.site.pod(SHOP, "orders")?;
        let port = PORT.to_string();
        let mut kubectl = self.site.cluster.kubectl_command()?;
        kubectl.args([
            "-n",
            SHOP,
            "exec",
            "-i",
            &pod,
            "--",
            "/usr/bin/python3",
            "-c",
            ASK_FROM,
            &port,
            &token,
        ]);
        Ok(kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    }

    /// One request after the other.
    fn run(&self, mut stdin: ChildStdin, stdout: ChildStdout) -> Result<()> {
        let mut answers = BufReader::new(stdout).lines();
        for number in 0..MOST {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            writeln!(stdin, "{}", Self::address(number))?;
            let answer = answers.next().context("the client ended")??;
            ensure!(answer == "401", "{answer}");
            self.answered.store(number + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(60));
        }
        Ok(())
    }

    /// Waits until a whole phase of requests went by.
    fn phase(&self, what: &str) -> Result<()> {
        let before = self.answered.load(Ordering::SeqCst);
        self.site.cluster.until(&format!("requests {what}"), || {
            let answered = self.answered.load(Ordering::SeqCst);
            ensure!(answered >= before + PHASE, "{answered} of {}", before + PHASE);
            Ok(())
        })
    }
}

/// The pod of the sensor as the controller makes it, beside the old one.
fn successor(values: &Value) -> Result<Value> {
    let newest = VERSIONS.last().context("a version")?;
    let answers = manifests::ask(&[render_question(values, newest)])?;
    let chart = rendered(answers.first().context("an answer")?)?;
    let daemonset = chart.one("DaemonSet")?;
    let surge = &daemonset["spec"]["updateStrategy"]["rollingUpdate"];
    ensure!(surge["maxSurge"] == "10%" && surge["maxUnavailable"] == 0, "{surge}");
    let mut pod = daemonset["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(NEW);
    pod["metadata"]["namespace"] = json!(HOME);
    let this = json!({"key": "metadata.name", "operator": "In", "values": [NODE]});
    pod["spec"]["affinity"]["nodeAffinity"] = json!({
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [this]}]}
    });
    // What this version of the API does not know.
    pod["spec"].as_object_mut().context("a spec")?.remove("hostUsers").context("hostUsers")?;
    Ok(pod)
}

/// Nothing is missed and nothing told twice while one sensor takes over from another.
pub(crate) fn two_sensors_side_by_side_miss_nothing(site: &mut Site) -> Result<()> {
    let values = site.values.clone();
    let (old, _) = site.sensor()?;
    let pod = successor(&values)?;
    // The old one stays.
    site.cluster.kubectl(&["-n", HOME, "delete", "daemonset", HOME, "--cascade=orphan"])?;
    let sent = replace(site, &old, &pod)?;
    site.listen(NEW)?;
    let all: Vec<String> = (0..sent).map(Stream::address).collect();
    site.cluster.until("an alert for each request", || {
        let told = tally(site)?;
        let missed: Vec<&String> = all.iter().filter(|address| !told.contains_key(*address)).collect();
        ensure!(missed.is_empty(), "of {sent}, none from {missed:?}");
        Ok(())
    })?;
    let told = tally(site)?;
    let twice: Vec<_> = told.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(twice.is_empty(), "told more than once: {twice:?}");
    ensure!(told.len() == sent, "{} told of {sent}", told.len());
    site.is_told_in_order()?;
    // From here on it is the controller's again, which replaces a pod that it did not make.
    site.helm("upgrade", values)
}

/// How many alerts of the stream are told about each address.
fn tally(site: &Site) -> Result<BTreeMap<String, usize>> {
    let mut tally = BTreeMap::new();
    for alert in site.told("steady")?.iter().filter(|alert| alert.is_new()) {
        *tally.entry(alert.client().to_owned()).or_insert(0) += 1;
    }
    Ok(tally)
}

/// Does it, under a steady stream of requests; gives how many were sent.
fn replace(site: &Site, old: &str, pod: &Value) -> Result<usize> {
    let stream = Stream { site, stop: AtomicBool::new(false), answered: AtomicUsize::new(0) };
    let mut client = stream.client()?;
    let (stdin, stdout) = (client.stdin.take().context("stdin")?, client.stdout.take().context("stdout")?);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| stream.run(stdin, stdout));
        let replaced = (|| {
            stream.phase("beside one sensor")?;
            site.cluster.apply(std::slice::from_ref(pod))?;
            site.cluster.until("the new sensor", || {
                let pod = site.cluster.get(&["-n", HOME, "pod", NEW])?;
                ensure!(pod["status"]["containerStatuses"][0]["ready"] == true, "{}", pod["status"]);
                Ok(())
            })?;
            stream.phase("beside two sensors")?;
            let both = site.cluster.get(&["-n", HOME, "pods", "-l", "app.kubernetes.io/name=tokenscope"])?;
            let statuses = both["items"].as_array().context("pods")?.iter();
            let ready = statuses.filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
            ensure!(ready.count() == 2, "{both}");
            site.cluster.kubectl(&["-n", HOME, "delete", "pod", old])?;
            stream.phase("beside the new sensor")
        })();
        stream.stop.store(true, Ordering::SeqCst);
        let sent = sender.join().ok().context("the client's thread ended")?;
        client.wait()?;
        replaced.and(sent)
    })?;
    Ok(stream.answered.into_inner())
}
