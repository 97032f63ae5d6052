//! The chart on a real cluster: installed with its default values by Helm, probed by a kubelet, told of pods by an API
//! server; then everything that happens to a `DaemonSet`, in one life.
//!
//! It needs what `cargo xtask cluster` builds, and takes some minutes.

#![allow(clippy::indexing_slicing, reason = "a JSON value answers null for what it has not")]

mod site;
mod surge;

use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::bpf::Held;
use tests::cluster::{Cluster, NODE};
use tests::node::Driver;
use tests::sensor::{self, Alert};
use tests::{manifests, skip, workspace};

use self::site::{HOME, SHOP, Site, sequence};

/// The sensor's account, as the API server calls it.
const ACCOUNT: &str = "system:serviceaccount:tokenscope:tokenscope";
/// Where its state is, as `hostPath` says, below the node's `/var`.
const STATE: &str = "lib/tokenscope";

/// Each is two machines, and there may be no more than two processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Who is watched, and who visits; none where there can be no cluster.
fn open(test: &str, driver: Driver) -> Result<Option<Site>> {
    if let Some(why) = sensor::missing().or_else(tests::bpf::missing).or_else(Cluster::missing) {
        skip(&format!("cluster::{test}"), &why);
        return Ok(None);
    }
    let site = Site::open(driver)?;
    site.open_shop(SHOP, "orders", &json!({}))?;
    site.cluster.apply(&[Site::deployment(SHOP, "visitor", &json!({}), &["/usr/bin/sleep", "infinity"])])?;
    Ok(Some(site))
}

#[test]
fn the_daemonset_lives_on_a_real_cluster() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock();
    let Some(mut site) = open("the_daemonset_lives_on_a_real_cluster", Driver::Systemd)? else {
        return Ok(());
    };
    it_becomes_ready_with_the_default_values(&mut site)?;
    an_alert_names_who_was_asked(&site)?;
    its_account_may_read_pods_and_nothing_else(&site)?;
    a_deleted_sensor_comes_back_and_goes_on(&mut site)?;
    an_upgrade_tells_nothing_twice(&mut site)?;
    surge::two_sensors_side_by_side_miss_nothing(&mut site)?;
    a_change_of_the_configuration_reaches_it(&mut site)?;
    it_watches_what_it_is_told_to(&mut site)?;
    it_names_processes_where_it_may(&mut site)?;
    the_nodes_services_are_restarted(&mut site)?;
    the_node_loses_its_power(&mut site)?;
    nothing_is_left(&mut site)
}

/// What depends on how cgroups are named, where the kubelet makes them without systemd.
#[test]
fn it_lives_where_nothing_is_made_by_systemd() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock();
    let Some(mut site) = open("it_lives_where_nothing_is_made_by_systemd", Driver::Cgroupfs)? else {
        return Ok(());
    };
    it_becomes_ready_with_the_default_values(&mut site)?;
    an_alert_names_who_was_asked(&site)?;
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

/// Containers outlive the programs that started them.
fn the_nodes_services_are_restarted(site: &mut Site) -> Result<()> {
    let (before, _) = site.sensor()?;
    site.cluster.restart_services()?;
    site.listen_again()?;
    site.is_told("vince")?;
    let (after, pod) = site.sensor()?;
    ensure!(
        after == before && pod["status"]["containerStatuses"][0]["restartCount"] == 0,
        "{}",
        pod["status"]
    );
    site.is_told_in_order()
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
