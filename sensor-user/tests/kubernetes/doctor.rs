//! What `doctor` and a sensor that starts say of an API server that does not do as it should: the same, and what to do.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::answers::{list, named};
use crate::api::{self, Reply};
use crate::{Bench, brokers, front, steady};

/// What `doctor` says of the cluster, the node named by `config` or by `variables`.
fn examine(dir: &Path, mut config: Value, variables: &[(&str, &str)]) -> Value {
    config["enabled"] = json!(true);
    config["kubeconfig"] = json!(dir.join("kubeconfig"));
    let file = dir.join("config.yaml");
    let config = json!({"kubernetes": config, "state": {"dir": "off"}, "metrics": {"listen": "off"}});
    std::fs::write(&file, config.to_string()).unwrap();
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_tokenscope"));
    for name in ["NODE_NAME", "KUBERNETES_SERVICE_HOST"] {
        doctor.env_remove(name);
    }
    let told = doctor
        .args(["doctor", "-o", "json", "-c"])
        .arg(&file)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let checks: Value = serde_json::from_slice(&told.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&told.stderr)));
    checks.as_array().unwrap().iter().find(|check| check["check"] == "kubernetes").unwrap().clone()
}

/// Doctor says this of it, and to do that.
fn warns(bench: &Bench, text: &str, remedy: &str) {
    let check = examine(bench.dir.path(), json!({"node": "node-1"}), &[]);
    let says = |key: &str, what: &str| check[key].as_str().is_some_and(|said| said.contains(what));
    assert!(check["status"] == "warn" && says("text", text) && says("remedy", remedy), "{check}");
}

/// And so does a sensor that starts.
fn warns_at_the_start_too(bench: &Bench, text: &str, remedy: &str) {
    warns(bench, text, remedy);
    bench.follow();
    bench.until(text, |_| bench.log.text().contains(text) && bench.log.text().contains(remedy));
}

fn refusal(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message})
}

/// A token of a service account that is valid until then.
fn token_until(second: i64) -> Value {
    let claims = URL_SAFE_NO_PAD.encode(json!({"exp": second}).to_string());
    json!({"token": format!("e30.{claims}.c2ln")})
}

#[test]
fn a_server_that_answers_is_fine() {
    let bench = Bench::idle(steady(vec![named("a")]), json!({"token": "t-1"}));
    let check = examine(bench.dir.path(), json!({"node": "node-1"}), &[]);
    assert_eq!(
        (&check["status"], &check["text"]),
        (&json!("ok"), &json!("the API server tells of the pods on node node-1"))
    );
    let asked = bench.api.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(!asked[0].is_watch() && asked[1].is_watch(), "{asked:?}");
    assert_eq!(asked[0].query("limit").as_deref(), Some("1"));
    for request in asked {
        assert_eq!(request.query("fieldSelector").as_deref(), Some("spec.nodeName=node-1"));
        assert_eq!(request.header("authorization"), Some("Bearer t-1"));
    }
}

#[test]
fn what_rbac_forbids_is_named_with_the_rule_that_is_missing() {
    let message = "pods is forbidden: User \"system:serviceaccount:x:y\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
    let bench = Bench::idle(move |_, _| Reply::Json(403, refusal(403, message)), json!({"token": "t"}));
    warns_at_the_start_too(
        &bench,
        "does not let us list pods (403): pods is forbidden: User",
        "verbs: [get, list, watch]",
    );
}

#[test]
fn a_watch_is_a_right_of_its_own() {
    let script = |request: &api::Request, _: usize| {
        if request.is_watch() {
            Reply::Json(403, refusal(403, "pods is forbidden: cannot watch"))
        } else {
            Reply::Json(200, list(&[named("a")], "100", None))
        }
    };
    let bench = Bench::idle(script, json!({"token": "t"}));
    warns_at_the_start_too(&bench, "does not let us watch pods (403)", "ClusterRoleBinding");
}

#[test]
fn a_token_that_is_refused_is_looked_at() {
    let refuse = |_: &api::Request, _: usize| Reply::Json(401, refusal(401, "Unauthorized"));
    let unknown = "does not know who asks (401): Unauthorized";
    for (user, remedy) in [
        (json!({"token": "opaque"}), "is the service account still there?"),
        (token_until(1_000_000_000), "the token has expired at 2001-09-09 01:46:40 UTC"),
        (token_until(4_000_000_000), "is the service account still there?"),
    ] {
        warns_at_the_start_too(&Bench::idle(refuse, user), unknown, remedy);
    }
}

#[test]
fn clocks_that_differ_are_told_when_a_token_is_refused() {
    let refuse = |_: &api::Request, _: usize| {
        Reply::Text("401 X\r\ndate: Sun, 09 Sep 2001 01:46:40 GMT", refusal(401, "Unauthorized").to_string())
    };
    let bench = Bench::idle(refuse, token_until(4_000_000_000));
    warns_at_the_start_too(&bench, "(401)", "s behind ours, and tokens are judged by it");
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let bench = Bench::idle(|_, _| Reply::Hang, json!({"token": "t"}));
    warns(&bench, "does not answer: no answer within 5 s", "firewall or NetworkPolicy");
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let bench = Bench::idle(steady(vec![]), json!({"token": "t"}));
    // A port that nobody listens at any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bench.known(&json!({"server": format!("http://127.0.0.1:{port}")}), &json!({"token": "t"}));
    warns_at_the_start_too(&bench, "cannot be reached: Connection refused", "on node node-1 reach it");
}

#[test]
fn a_strangers_certificate_is_told_and_nothing_is_sent() {
    let bench = Bench::idle(steady(vec![]), json!({"token": "t"}));
    brokers::authority(bench.dir.path());
    let front = front::start(bench.dir.path(), bench.api.address);
    bench.known(&json!({"server": format!("https://{front}")}), &json!({"token": "t"}));
    warns_at_the_start_too(
        &bench,
        "certificate is a stranger's: invalid peer certificate",
        "certificate-authority",
    );
    assert!(bench.api.requests().is_empty());
}

#[test]
fn a_certificate_for_another_name_is_told() {
    let bench = Bench::idle(steady(vec![]), json!({"token": "t"}));
    brokers::authority(bench.dir.path());
    let front = front::start(bench.dir.path(), bench.api.address);
    let cluster = json!({"server": format!("https://{front}"), "tls-server-name": "kubernetes.example",
        "certificate-authority": bench.dir.path().join("ca.pem")});
    bench.known(&cluster, &json!({"token": "t"}));
    warns(&bench, "certificate is for another name", "use an address that the certificate has");
}

#[test]
fn what_is_no_api_server_is_told() {
    let page = |_: &api::Request, _: usize| Reply::Text("200 OK", "<html>captive portal</html>".into());
    let bench = Bench::idle(page, json!({"token": "t"}));
    warns_at_the_start_too(&bench, "what answers is no API server", "captive portal");
}

#[test]
fn plugins_of_a_kubeconfig_are_refused_with_a_way_out() {
    let bench = Bench::idle(
        steady(vec![]),
        json!({"exec": {"apiVersion": "v1", "command": "x", "interactiveMode": "Never"}}),
    );
    warns_at_the_start_too(&bench, "plugins are not run; use a token", "`kubernetes.kubeconfig`");
}

#[test]
fn a_node_that_has_no_pods_is_doubted() {
    let bench = Bench::idle(steady(vec![]), json!({"token": "t"}));
    warns_at_the_start_too(
        &bench,
        "knows of no pod on node node-1",
        "correct NODE_NAME or `kubernetes.node`",
    );
}

#[test]
fn a_pod_that_does_not_know_its_node_is_told_how_to() {
    let bench = Bench::idle(steady(vec![named("a")]), json!({"token": "t"}));
    let pod = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    let check = examine(bench.dir.path(), json!({}), &[pod]);
    let remedy = check["remedy"].as_str().unwrap();
    assert!(check["status"] == "warn" && remedy.contains("from the field `spec.nodeName`"), "{check}");
    let check = examine(bench.dir.path(), json!({}), &[pod, ("NODE_NAME", "node-7")]);
    assert_eq!(check["status"], "ok", "{check}");
    assert!(check["text"].as_str().unwrap().contains("node-7"), "{check}");
}
