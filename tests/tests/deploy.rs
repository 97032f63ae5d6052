//! The chart and the kustomize base: linted and rendered by real Helm, checked against the schemas of three versions of
//! Kubernetes, and held to what the sensor really does.
//!
//! `BLESS=1 cargo test -p tests --test deploy` writes the base and the copy of the alert rules anew.

#![allow(clippy::indexing_slicing, reason = "a JSON value answers null for what it has not")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::manifests::{self, Rendered, VERSIONS, ask, chart, render, render_question, rendered};
use tests::server::find_program;
use tests::{sensor, workspace};

/// Values that turn on what is off, each by itself and all at once.
fn toggles() -> Vec<(&'static str, Value)> {
    let one = [
        ("defaults", json!({})),
        ("no enrichment", json!({"enrichment": {"enabled": false}})),
        ("processes", json!({"processes": {"enabled": true}})),
        ("old kernels", json!({"legacyKernel": {"enabled": true}})),
        ("no state", json!({"state": {"enabled": false}})),
        ("host network", json!({"hostNetwork": true, "metrics": {"port": 19464}})),
        ("service", json!({"service": {"enabled": true, "annotations": {"a": "b"}}})),
        ("network policy", json!({"networkPolicy": {"enabled": true}})),
        (
            "network policy with sources",
            json!({"networkPolicy": {
                "enabled": true,
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            }}),
        ),
        ("no priority class", json!({"priorityClass": {"create": false}})),
        (
            "another's priority class",
            json!({"priorityClass": {"create": false, "name": "system-node-critical"}}),
        ),
        ("another's account", json!({"serviceAccount": {"create": false, "name": "watcher"}})),
        ("no roles", json!({"rbac": {"create": false}})),
        ("AppArmor of the runtime", json!({"appArmorProfile": {"type": "RuntimeDefault"}})),
        (
            "AppArmor of ours",
            json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "tokenscope"}}),
        ),
        (
            "seccomp of ours",
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "tokenscope.json"}}),
        ),
        ("SELinux", json!({"seLinuxOptions": {"type": "spc_t"}})),
        ("a capability more", json!({"extraCapabilities": ["NET_RAW", "BPF"]})),
        ("IPv6", json!({"metrics": {"address": "::"}})),
        ("digest", json!({"image": {"digest": format!("sha256:{}", "0".repeat(64))}})),
        ("all of the nodes' workers at once", json!({"updateStrategy": {"atOnce": 3}})),
        ("no tests", json!({"tests": {"enabled": false}})),
        (
            "secrets",
            json!({
                "extraEnv": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "secretMounts": [{"name": "siem", "secretName": "siem-credentials"}],
                "imagePullSecrets": [{"name": "registry"}],
            }),
        ),
        ("rules", json!({"rules": {"one.yaml": "id: one\n", "two.yaml": "id: two\n"}})),
        (
            "labels and places",
            json!({
                "commonLabels": {"team": "security"}, "podLabels": {"p": "1"}, "podAnnotations": {"q": "2"},
                "nodeSelector": {"pool": "a"}, "tolerations": [], "nameOverride": "sensor", "extraArgs": ["-v"],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]},
                ]}}},
            }),
        ),
        (
            "operator",
            json!({
                "podMonitor": {"enabled": true, "labels": {"release": "p"}, "interval": "15s"},
                "prometheusRule": {"enabled": true, "labels": {"release": "p"}},
            }),
        ),
    ];
    let mut all = json!({});
    for (_, values) in one.iter().filter(|(name, _)| !name.starts_with("no ")) {
        merge(&mut all, values);
    }
    one.into_iter().chain([("everything", all)]).collect()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn the_chart_passes_strict_lint() -> Result<()> {
    let toggles = toggles();
    let questions: Vec<Value> =
        toggles.iter().map(|(_, values)| json!({"do": "lint", "chart": chart(), "values": values})).collect();
    for ((name, _), answer) in toggles.iter().zip(ask(&questions)?) {
        ensure!(answer["messages"] == json!([]), "{name}: {answer}");
    }
    Ok(())
}

/// Every combination on every version is valid, strictly; the Prometheus operator's own kinds have no schema there.
#[test]
fn every_object_is_valid_on_three_versions() -> Result<()> {
    let toggles = toggles();
    let every = || toggles.iter().flat_map(|(name, values)| VERSIONS.map(|version| (*name, values, version)));
    let questions: Vec<Value> =
        every().map(|(_, values, version)| render_question(values, version)).collect();
    let answers = ask(&questions)?;
    let objects = answers.iter().map(|answer| Ok(rendered(answer)?.objects)).collect::<Result<Vec<_>>>()?;
    let checks: Vec<Value> = every()
        .zip(&objects)
        .map(|((_, _, version), objects)| json!({"do": "check", "objects": objects, "kubernetes": version}))
        .collect();
    for ((name, _, version), answer) in every().zip(ask(&checks)?) {
        ensure!(answer["errors"] == json!([]), "{name} on {version}: {answer}");
        let unknown = answer["unknown"].as_array().context("unknown")?;
        let known: BTreeSet<&str> = unknown.iter().filter_map(Value::as_str).collect();
        let monitored = name == "operator" || name == "everything";
        let expected =
            if monitored { BTreeSet::from(["PodMonitor", "PrometheusRule"]) } else { BTreeSet::new() };
        ensure!(known == expected, "{name} on {version}: no schema for {known:?}");
    }
    Ok(())
}

/// The validator is not a rubber stamp.
#[test]
fn a_slip_in_an_object_is_found() -> Result<()> {
    let mut daemonset = render(&json!({}))?.one("DaemonSet")?.clone();
    daemonset["spec"]["template"]["spec"]["hostPid"] = json!(true);
    let mut port = render(&json!({}))?.one("DaemonSet")?.clone();
    port["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = json!("metrics");
    for wrong in [daemonset, port] {
        let answers = ask(&[json!({"do": "check", "objects": [wrong], "kubernetes": "1.36"})])?;
        ensure!(answers[0]["errors"].as_array().is_some_and(|errors| errors.len() == 1), "{answers:?}");
    }
    Ok(())
}

#[test]
fn wrong_values_are_refused() -> Result<()> {
    let wrong = [
        (json!({"enrichmentt": {"enabled": true}}), "enrichmentt"),
        (json!({"image": {"tagg": "1"}}), "tagg"),
        (json!({"image": {"digest": "sha256:abc"}}), "digest"),
        (json!({"metrics": {"port": 0}}), "port"),
        (json!({"metrics": {"port": "9464"}}), "port"),
        (json!({"metrics": {"address": "localhost"}}), "address"),
        (json!({"updateStrategy": {"maxSurge": 1}}), "maxSurge"),
        (json!({"updateStrategy": {"atOnce": "0%"}}), "atOnce"),
        (json!({"state": {"hostPath": "/var/lib"}}), "hostPath"),
        (json!({"state": {"hostPath": "relative"}}), "hostPath"),
        (json!({"state": {"hostPath": "/"}}), "hostPath"),
        (json!({"state": {"hostPath": "/var/lib/"}}), "hostPath"),
        (json!({"extraCapabilities": ["CAP_ALL", "ALL"]}), "extraCapabilities"),
        (json!({"privileged": true}), "privileged"),
        (json!({"securityContext": {"privileged": true}}), "securityContext"),
        (json!({"seccompProfile": {"type": "Localhost"}}), "seccompProfile"),
        (json!({"appArmorProfile": {"localhostProfile": "x"}}), "appArmorProfile"),
        (json!({"rules": {"../x.yaml": "id: x"}}), "../x.yaml"),
        (json!({"rules": {"x.yaml": {"id": "x"}}}), "rules"),
        (json!({"secretMounts": [{"name": "Upper", "secretName": "s"}]}), "secretMounts"),
        (json!({"extraEnv": [{"name": "TOKENSCOPE_NODE", "value": "x"}]}), "extraEnv"),
        (json!({"config": "capture: {}"}), "config"),
        (json!({"config": {"metrics": {"listen": "off"}}}), "set metrics.address and metrics.port"),
        (json!({"config": {"state": {"dir": "/x"}}}), "set state.enabled and state.hostPath"),
        (json!({"config": {"control": {"socket": "/x"}}}), "config.control.socket"),
        (json!({"config": {"rules_dir": "/x"}}), "config.rules_dir"),
    ];
    let questions: Vec<Value> = wrong.iter().map(|(values, _)| render_question(values, "1.36")).collect();
    for ((values, word), answer) in wrong.iter().zip(ask(&questions)?) {
        let error = answer["error"].as_str().with_context(|| format!("{values} was taken"))?;
        ensure!(error.contains(word), "{values}: {error}");
    }
    Ok(())
}

/// Every value in values.yaml is known to the schema, and every value that the schema knows has its line there.
#[test]
fn schema_and_values_know_the_same() -> Result<()> {
    let values = manifests::read(&chart().join("values.yaml"))?;
    let schema: Value = serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json"))?)?;
    let names = |of: &Value| -> BTreeSet<String> {
        of.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default()
    };
    let mut known = names(&schema["properties"]);
    known.remove("global");
    ensure!(names(&values[0]) == known, "{:?}\n{known:?}", names(&values[0]));
    for (name, about) in schema["properties"].as_object().context("properties")? {
        let closed = about["type"] != "object" || about.get("additionalProperties").is_some();
        ensure!(closed || ["config", "affinity", "global"].contains(&name.as_str()), "{name} is open");
    }
    Ok(())
}

#[test]
fn the_sensor_is_root_without_roots_powers() -> Result<()> {
    let expected = json!({
        "runAsUser": 0, "runAsGroup": 0, "privileged": false, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON", "NET_ADMIN"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let plain = render(&json!({}))?;
    ensure!(plain.container()?["securityContext"] == expected, "{}", plain.container()?["securityContext"]);
    let pod = plain.pod()?;
    for (key, value) in [
        ("hostPID", json!(false)),
        ("hostNetwork", json!(false)),
        ("hostIPC", json!(false)),
        ("hostUsers", json!(true)),
        ("automountServiceAccountToken", json!(false)),
        ("enableServiceLinks", json!(false)),
        ("tolerations", json!([{"operator": "Exists"}])),
        ("nodeSelector", json!({"kubernetes.io/os": "linux"})),
        ("terminationGracePeriodSeconds", json!(30)),
    ] {
        ensure!(pod[key] == value, "{key}: {}", pod[key]);
    }
    let resources = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}});
    ensure!(plain.container()?["resources"] == resources, "{}", plain.container()?["resources"]);
    let strategy = |rendered: &Rendered| -> Result<Value> {
        Ok(rendered.one("DaemonSet")?["spec"]["updateStrategy"]["rollingUpdate"].clone())
    };
    ensure!(strategy(&plain)? == json!({"maxSurge": "10%", "maxUnavailable": 0}));
    for alone in [json!({"hostNetwork": true}), json!({"state": {"enabled": false}})] {
        ensure!(strategy(&render(&alone)?)? == json!({"maxSurge": 0, "maxUnavailable": "10%"}), "{alone}");
    }
    Ok(())
}

/// An API server refuses fields that it does not know, and a rollout without an end where nothing may surge.
#[test]
fn what_an_old_version_does_not_know_is_left_out() -> Result<()> {
    let versions = ["1.20", "1.22", "1.25"];
    let answers = ask(&versions.map(|version| render_question(&json!({}), version)))?;
    let surges = json!({"maxSurge": "10%", "maxUnavailable": 0});
    let expected = [(json!({"maxUnavailable": "10%"}), false), (surges.clone(), false), (surges, true)];
    for ((version, answer), (strategy, users)) in versions.iter().zip(&answers).zip(expected) {
        let rendered = rendered(answer)?;
        let found = &rendered.one("DaemonSet")?["spec"]["updateStrategy"]["rollingUpdate"];
        ensure!(*found == strategy, "{version}: {found}");
        for pod in [rendered.pod()?, &rendered.one("Pod")?["spec"]] {
            ensure!(pod.get("hostUsers").is_some() == users, "{version}: hostUsers");
        }
    }
    Ok(())
}

/// No combination of values makes a pod privileged, and each toggle adds what it says and no more.
#[test]
fn toggles_add_what_they_say() -> Result<()> {
    let toggles = toggles();
    let questions: Vec<Value> = toggles.iter().map(|(_, values)| render_question(values, "1.36")).collect();
    for ((name, _), answer) in toggles.iter().zip(ask(&questions)?) {
        let rendered = rendered(&answer)?;
        let context = &rendered.container()?["securityContext"];
        let wide = ["processes", "everything"].contains(name);
        let mut expected = vec!["BPF", "PERFMON", "NET_ADMIN"];
        if wide {
            expected.extend(["SYS_PTRACE", "DAC_READ_SEARCH"]);
        }
        if ["old kernels", "everything"].contains(name) {
            expected.push("SYS_RESOURCE");
        }
        if ["a capability more", "everything"].contains(name) {
            expected.push("NET_RAW");
        }
        ensure!(context["capabilities"]["add"] == json!(expected), "{name}: {context}");
        ensure!(context["privileged"] == false && context["allowPrivilegeEscalation"] == false, "{name}");
        ensure!(rendered.pod()?["hostPID"] == wide, "{name}");
        ensure!(
            !rendered.objects.iter().any(|object| object.to_string().contains(r#""privileged":true"#)),
            "{name}"
        );
        let token = rendered.pod()?.to_string().contains("serviceAccountToken");
        let enriched = *name != "no enrichment";
        ensure!(token == enriched, "{name}: the token");
        ensure!(
            rendered.all("ClusterRole").count() == usize::from(enriched && *name != "no roles"),
            "{name}: roles"
        );
    }
    Ok(())
}

#[test]
fn the_role_may_read_pods_and_nothing_else() -> Result<()> {
    let rendered = render(&json!({}))?;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]);
    ensure!(rendered.one("ClusterRole")?["rules"] == rules);
    ensure!(rendered.all("Role").count() == 0 && rendered.all("Secret").count() == 0);
    Ok(())
}

/// The profile of `AppArmor` is a field since 1.30 and an annotation before; unasked for, it is neither, as either keeps
/// pods off nodes without `AppArmor`.
#[test]
fn apparmor_is_named_in_the_way_of_the_version() -> Result<()> {
    let profile = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "tokenscope"}});
    let questions = [
        render_question(&profile, "1.29"),
        render_question(&profile, "1.33"),
        render_question(&json!({}), "1.29"),
        render_question(&json!({}), "1.33"),
        render_question(&json!({"processes": {"enabled": true}}), "1.33"),
    ];
    let answers = ask(&questions)?;
    let seen = answers.iter().map(|answer| {
        let rendered = rendered(answer)?;
        let notes = &rendered.one("DaemonSet")?["spec"]["template"]["metadata"]["annotations"];
        let note = notes["container.apparmor.security.beta.kubernetes.io/tokenscope"].clone();
        Ok((note, rendered.container()?["securityContext"]["appArmorProfile"].clone()))
    });
    let seen: Vec<(Value, Value)> = seen.collect::<Result<_>>()?;
    let field = json!({"type": "Localhost", "localhostProfile": "tokenscope"});
    let expected = [
        (json!("localhost/tokenscope"), Value::Null),
        (Value::Null, field),
        (Value::Null, Value::Null),
        (Value::Null, Value::Null),
        (Value::Null, json!({"type": "Unconfined"})),
    ];
    ensure!(seen == expected, "{seen:?}");
    Ok(())
}

/// What a sensor reads at its start only restarts it; what it takes over as it runs does not.
#[test]
fn only_what_needs_it_restarts_the_sensors() -> Result<()> {
    let pods = |config: Value| render_question(&json!({"config": config}), "1.36");
    let with_rules = render_question(&json!({"rules": {"a.yaml": "id: a\n"}}), "1.36");
    let hot = [
        json!({"issuers": [{"issuer": "https://idp.example/", "algorithms": ["RS256"]}]}),
        json!({"rules": {"brute-force": {"enabled": false}}}),
        json!({"sinks": [{"type": "stdout", "enabled": false}]}),
        json!({"lists": {"denied_accounts": ["eve"]}}),
    ];
    let cold = [json!({"capture": {"ports": [80]}}), json!({"privacy": {"mask_addresses": true}})];
    let questions: Vec<Value> = [pods(json!({})), with_rules]
        .into_iter()
        .chain(hot.into_iter().map(pods))
        .chain(cold.map(pods))
        .collect();
    let answers = ask(&questions)?;
    let spec = |answer: &Value| anyhow::Ok(rendered(answer)?.one("DaemonSet")?["spec"]["template"].clone());
    let specs = answers.iter().map(spec).collect::<Result<Vec<Value>>>()?;
    ensure!(specs[1..6].iter().all(|spec| *spec == specs[0]), "a hot change restarts the sensors");
    ensure!(specs[6..].iter().all(|spec| *spec != specs[0]), "a cold change does not restart the sensors");
    Ok(())
}

/// Volumes are whole directories: what is mounted by subPath never changes.
#[test]
fn the_configuration_can_change_in_place() -> Result<()> {
    let rendered = render(&json!({"secretMounts": [{"name": "a", "secretName": "b"}]}))?;
    let container = rendered.container()?;
    let mounts = container["volumeMounts"].as_array().context("mounts")?;
    ensure!(mounts.iter().all(|mount| mount.get("subPath").is_none()), "{mounts:?}");
    let writable: Vec<&str> = mounts
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .filter_map(|m| m["mountPath"].as_str())
        .collect();
    ensure!(writable == ["/run/tokenscope", "/var/lib/tokenscope"], "{writable:?}");
    let arguments = container["args"].as_array().context("args")?;
    ensure!(arguments.contains(&json!("--watch-config")), "{arguments:?}");
    ensure!(arguments.contains(&json!("--take-over")), "{arguments:?}");
    let path =
        container["env"].as_array().context("env")?.iter().find(|var| var["name"] == "TOKENSCOPE_CONFIG");
    ensure!(path.is_some_and(|var| var["value"] == "/etc/tokenscope/config/config.yaml"));
    Ok(())
}

/// The sensor takes what the chart renders, and numbers stay what they were.
#[test]
fn the_sensor_takes_the_rendered_configuration() -> Result<()> {
    let full = json!({
        "issuers": [{"issuer": "https://idp.example/", "algorithms": ["RS256"], "audiences": ["orders-api"]}],
        "spool": {"max_bytes": 68_719_476_736_u64},
        "state": {"save_every_s": 60},
        "capture": {"ports": [80, 8080]},
        "lists": {"trusted_addresses": ["10.0.0.0/8"]},
        "rules": {"brute-force": {"per_minute": 10}},
        "privacy": {"fingerprint_key": "env:KEY"},
        "sinks": [{"type": "http", "name": "siem", "url": "https://siem.example/in"}],
    });
    let values = [
        json!({}),
        json!({"config": full}),
        json!({"state": {"enabled": false}}),
        json!({"metrics": {"address": "::", "port": 65535}}),
    ];
    let questions: Vec<Value> = values.iter().map(|values| render_question(values, "1.36")).collect();
    let dir = tempfile::tempdir()?;
    for (values, answer) in values.iter().zip(ask(&questions)?) {
        let rendered = rendered(&answer)?;
        let file = dir.path().join("config.yaml");
        fs::write(&file, rendered.config()?)?;
        let done = sensor::command()?
            .args(["config", "check", "-c"])
            .arg(&file)
            .env("KEY", "k".repeat(32))
            .output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{values}: {said}\n{}", rendered.config()?);
    }
    let rendered = render(&values[1])?;
    ensure!(rendered.config()?.contains("max_bytes: 68719476736\n"), "{}", rendered.config()?);
    Ok(())
}

/// Rules of the example overlay, and its configuration, are good ones.
#[test]
fn the_example_is_a_good_one() -> Result<()> {
    let example = workspace().join("deploy/kustomize/overlays/example");
    for (arguments, file) in [
        (["config", "check", "-c"].as_slice(), "config.yaml"),
        (&["rules", "check"], "many-exports.yaml"),
        (&["rules", "test"], "many-exports.yaml"),
    ] {
        let done = sensor::command()?.args(arguments).arg(example.join(file)).output()?;
        let said = [done.stdout, done.stderr].concat();
        ensure!(done.status.success(), "{file}: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

#[test]
fn versions_and_copies_are_the_same() -> Result<()> {
    let about = manifests::read(&chart().join("Chart.yaml"))?;
    ensure!(about[0]["version"] == env!("CARGO_PKG_VERSION"), "{}", about[0]["version"]);
    ensure!(about[0]["appVersion"] == env!("CARGO_PKG_VERSION"), "{}", about[0]["appVersion"]);
    let alerts = fs::read_to_string(workspace().join("deploy/prometheus/alerts.yaml"))?;
    let copy = chart().join("files/alerts.yaml");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&copy, &alerts)?;
    }
    ensure!(fs::read_to_string(&copy)? == alerts, "{} is no copy (BLESS=1 makes it one)", copy.display());
    Ok(())
}

/// The operator finds the sensors' port and gives the job the name by which the alert rules know it.
#[test]
fn what_the_operator_is_told_fits() -> Result<()> {
    let rendered = render(&json!({"podMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}}))?;
    let labels = &rendered.one("DaemonSet")?["spec"]["template"]["metadata"]["labels"];
    let monitor = &rendered.one("PodMonitor")?["spec"];
    for (name, value) in monitor["selector"]["matchLabels"].as_object().context("selector")? {
        ensure!(labels[name] == *value, "{name}");
    }
    let endpoint = &monitor["podMetricsEndpoints"][0];
    ensure!(rendered.container()?["ports"][0]["name"] == endpoint["port"], "{endpoint}");
    ensure!(
        endpoint["relabelings"][0] == json!({"targetLabel": "job", "replacement": "tokenscope"}),
        "{endpoint}"
    );
    let shipped = manifests::read(&workspace().join("deploy/prometheus/alerts.yaml"))?;
    ensure!(rendered.one("PrometheusRule")?["spec"] == shipped[0], "not the shipped rules");
    Ok(())
}

#[test]
fn helms_last_words_say_what_is_missing() -> Result<()> {
    let silent = render(&json!({}))?.notes;
    ensure!(silent.contains("names no issuers") && silent.contains("pods' logs only"), "{silent}");
    ensure!(silent.contains("kubectl rollout status -n tokenscope ds/tokenscope"), "{silent}");
    let config = json!({
        "issuers": [{"issuer": "https://idp.example/"}],
        "sinks": [{"type": "http", "url": "https://x.example/"}],
    });
    let notes = render(&json!({"config": config, "state": {"enabled": false}}))?.notes;
    ensure!(!notes.contains("names no issuers") && notes.contains("state is off"), "{notes}");
    Ok(())
}

/// Without the labels that say that Helm made it.
fn plain(mut object: Value) -> Value {
    let template = object.pointer("/spec/template").is_some();
    let places = ["/metadata/labels", "/spec/template/metadata/labels"];
    for place in places.iter().take(if template { 2 } else { 1 }) {
        if let Some(labels) = object.pointer_mut(place).and_then(Value::as_object_mut) {
            labels.remove("helm.sh/chart");
            labels.remove("app.kubernetes.io/managed-by");
        }
    }
    object
}

/// What the defaults render to, without Helm's own tests, by file.
fn base(rendered: &Rendered) -> Vec<(String, Value)> {
    let ours =
        rendered.objects.iter().filter(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_null());
    let file = |object: &Value| {
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match name.strip_prefix("tokenscope-") {
            Some(part) => format!("{kind}-{part}.yaml"),
            None => format!("{kind}.yaml"),
        }
    };
    ours.map(|object| (file(object), plain(object.clone()))).collect()
}

#[test]
fn the_kustomize_base_is_what_the_chart_renders() -> Result<()> {
    let dir = workspace().join("deploy/kustomize/base");
    let objects = base(&render(&json!({}))?);
    if std::env::var_os("BLESS").is_some() {
        for (file, object) in &objects {
            let answers = ask(&[json!({"do": "write", "object": object})])?;
            fs::write(dir.join(file), answers[0]["text"].as_str().context("text")?)?;
        }
    }
    let listed = manifests::read(&dir.join("kustomization.yaml"))?;
    let files: Vec<Value> = objects.iter().map(|(file, _)| json!(file)).collect();
    let listed: BTreeSet<String> =
        listed[0]["resources"].as_array().context("resources")?.iter().map(Value::to_string).collect();
    ensure!(listed == files.iter().map(Value::to_string).collect(), "{listed:?}");
    for (file, object) in objects {
        let there = manifests::read(&dir.join(&file))?;
        ensure!(there == [object.clone()], "{file} is not what the chart renders (BLESS=1 writes it)");
    }
    Ok(())
}

/// What kustomize itself makes of a directory.
fn kustomize(dir: &str) -> Result<Vec<Value>> {
    let kubectl = find_program("kubectl").context("kubectl is missing: apt-get install kubernetes-client")?;
    let done = Command::new(kubectl)
        .arg("kustomize")
        .arg(workspace().join(dir))
        .env("HOME", "/nonexistent")
        .output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let answers = ask(&[json!({"do": "read", "text": String::from_utf8(done.stdout)?})])?;
    Ok(rendered(&answers[0])?.objects)
}

fn by_name(objects: Vec<Value>) -> Vec<(String, Value)> {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    let mut named: Vec<_> = objects.into_iter().map(|object| (name(&object), object)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

#[test]
fn kustomize_makes_the_same_of_the_base() -> Result<()> {
    let made = by_name(kustomize("deploy/kustomize/base")?);
    let expected = base(&render(&json!({}))?).into_iter().map(|(_, object)| object).collect();
    ensure!(made == by_name(expected), "{made:?}");
    Ok(())
}

#[test]
fn the_example_overlay_changes_what_it_says() -> Result<()> {
    let objects = kustomize("deploy/kustomize/overlays/example")?;
    let rendered = Rendered { objects, notes: String::new() };
    ensure!(rendered.container()?["image"] == "registry.example/security/tokenscope:0.1.0");
    ensure!(rendered.config()?.contains("idp.example"), "{}", rendered.config()?);
    let rules = rendered.all("ConfigMap").any(|map| map["data"]["many-exports.yaml"].is_string());
    ensure!(rules && rendered.all("ConfigMap").count() == 2, "no rule");
    let check = |version| json!({"do": "check", "objects": rendered.objects, "kubernetes": version});
    for answer in ask(&VERSIONS.map(check))? {
        ensure!(answer["errors"] == json!([]), "{answer}");
    }
    Ok(())
}

#[test]
fn what_removes_the_state_is_valid() -> Result<()> {
    let objects = manifests::read(&workspace().join("deploy/kubernetes/remove-state.yaml"))?;
    for answer in
        ask(&VERSIONS.map(|version| json!({"do": "check", "objects": objects, "kubernetes": version})))?
    {
        ensure!(answer["errors"] == json!([]), "{answer}");
    }
    Ok(())
}
