//! Real servers: Alertmanager and ClickHouse as Debian packages them.

use std::path::Path;
use std::process::Command;

use sensor_user::sink::Outcome;
use serde_json::Value;

use crate::process::{Server, client, find, port};
use crate::setup::{alert, alerts, deliver, done, incident, later, sink};

async fn alertmanager(dir: &Path) -> (Server, String) {
    let config = dir.join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
    let address = format!("127.0.0.1:{}", port());
    let mut server = Server::start(Command::new(find("prometheus-alertmanager")).args([
        &format!("--config.file={}", config.display()),
        &format!("--storage.path={}", dir.join("data").display()),
        &format!("--web.listen-address={address}"),
        "--cluster.listen-address=",
    ]));
    let url = format!("http://{address}");
    server.ready(&format!("{url}/-/ready")).await;
    (server, url)
}

/// The alerts that are active there.
async fn active(url: &str) -> Vec<Value> {
    let answer = client().get(format!("{url}/api/v2/alerts?active=true")).send().await.unwrap();
    answer.json().await.unwrap()
}

#[tokio::test]
async fn alertmanager_shows_each_alert_once_and_ends_incidents() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = alertmanager(dir.path()).await;
    let keys = format!("type: alertmanager, urls: ['{url}'], static_labels: {{cluster: test}}");
    done(&deliver(&mut *sink(&keys), &[alert(1, |_| {})]).await);
    // The sensor starts anew and tells it again, from another address and oftener.
    let again = alert(2, |value| {
        value["evidences"][0]["src_endpoint"]["ip"] = "192.0.2.8".into();
        value["count"] = 99.into();
        value["activity_id"] = 2.into();
    });
    done(&deliver(&mut *sink(&keys), &[again]).await);
    let all = active(&url).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let labels = serde_json::json!({"alertname": "Many failed logins", "severity": "high", "rule": "brute-force",
        "namespace": "shop", "workload": "shop/orders-7f9c", "cluster": "test"});
    assert_eq!(all[0]["labels"], labels);
    assert_eq!(
        (&all[0]["annotations"]["address"], &all[0]["annotations"]["count"]),
        (&"192.0.2.8".into(), &"99".into())
    );
    assert_eq!(all[0]["status"]["state"], "active");

    let mut sink = sink(&keys);
    let begun = |severity: u64, name: &str| {
        let name = name.to_owned();
        incident(3, move |value| {
            value["activity_id"] = 1.into();
            (value["severity_id"], value["severity"]) = (severity.into(), name.into());
        })
    };
    done(&deliver(&mut *sink, &[begun(4, "High")]).await);
    assert_eq!(active(&url).await.len(), 2);
    done(&deliver(&mut *sink, &[begun(5, "Critical")]).await);
    let worse = active(&url).await;
    assert_eq!(worse.len(), 2, "it is one incident, only worse now: {worse:?}");
    done(&deliver(&mut *sink, &[incident(4, |_| {})]).await);
    let left = active(&url).await;
    assert!(left.iter().all(|alert| alert["labels"]["rule"] != "incident"), "{left:?}");
}

#[tokio::test]
async fn an_alertmanager_that_is_away_gets_its_alerts_later() {
    let dir = tempfile::tempdir().unwrap();
    let (server, url) = alertmanager(dir.path()).await;
    let mut sink = sink(&format!("type: alertmanager, urls: ['{url}']"));
    done(&deliver(&mut *sink, &alerts(1)).await);
    drop(server);
    later(&deliver(&mut *sink, &alerts(1)).await);
    let (_server, url) = alertmanager(dir.path()).await;
    let mut sink = crate::setup::sink(&format!("type: alertmanager, urls: ['{url}']"));
    done(&deliver(&mut *sink, &alerts(1)).await);
    assert_eq!(active(&url).await.len(), 1);
}

const USERS: &str = "<yandex>
  <profiles><default><max_memory_usage>500000000</max_memory_usage></default></profiles>
  <users><default><password>pa:ss</password><networks><ip>127.0.0.1</ip></networks>
    <profile>default</profile><quota>default</quota></default></users>
  <quotas><default/></quotas>
</yandex>";

async fn clickhouse(dir: &Path) -> (Server, String) {
    let (http, tcp, at) = (port(), port(), dir.display());
    let config = format!(
        "<yandex><logger><level>warning</level><console>1</console></logger>
        <http_port>{http}</http_port><tcp_port>{tcp}</tcp_port><listen_host>127.0.0.1</listen_host>
        <path>{at}/data/</path><tmp_path>{at}/tmp/</tmp_path><users_config>users.xml</users_config>
        <default_profile>default</default_profile><default_database>default</default_database>
        <mark_cache_size>67108864</mark_cache_size><timezone>UTC</timezone></yandex>"
    );
    std::fs::write(dir.join("config.xml"), config).unwrap();
    std::fs::write(dir.join("users.xml"), USERS).unwrap();
    for part in ["data", "tmp"] {
        std::fs::create_dir(dir.join(part)).unwrap();
    }
    let config = format!("--config-file={at}/config.xml");
    let mut server = Server::start(Command::new(find("clickhouse-server")).current_dir(dir).arg(config));
    let url = format!("http://127.0.0.1:{http}");
    server.ready(&url).await;
    (server, url)
}

/// The table as the documentation has it.
fn table() -> &'static str {
    let docs = include_str!("../../../docs/sinks.md");
    let from = docs.find("CREATE TABLE tokenscope_alerts").expect("the documentation has the table");
    let rest = &docs[from..];
    &rest[..rest.find("```").unwrap()]
}

async fn query(url: &str, sql: &str) -> String {
    let request = client().post(url).basic_auth("default", Some("pa:ss")).body(sql.to_owned());
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{sql}: {text}");
    text.trim().to_owned()
}

#[tokio::test]
async fn clickhouse_keeps_the_newest_state_of_each_alert() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = clickhouse(dir.path()).await;
    let keys = format!(
        "type: http, preset: clickhouse, url: '{url}', auth: {{user: default, password: env:PASSWORD}}"
    );
    let mut sink = sink(&keys);
    let (reason, _) = later(&deliver(&mut *sink, &alerts(1)).await);
    assert!(reason.contains("tokenscope_alerts"), "there is no table yet: {reason}");
    query(&url, table()).await;

    let events = alerts(3);
    done(&deliver(&mut *sink, &events).await);
    done(&deliver(&mut *sink, &events).await);
    let news = alert(9, |value| {
        value["finding_info"]["uid"] = crate::setup::id(2).into();
        (value["count"], value["time"]) = (77.into(), 1_795_284_999_000_u64.into());
        value["message"] = "tab\there, quote \" and \\ and {{ braces }}\nend".into();
    });
    done(&deliver(&mut *sink, &[news, incident(10, |_| {})]).await);
    assert_eq!(query(&url, "SELECT count() FROM tokenscope_alerts FINAL").await, "4", "duplicates collapse");
    let row = format!(
        "SELECT count, message FROM tokenscope_alerts FINAL WHERE id = '{}' FORMAT JSONCompact",
        crate::setup::id(2)
    );
    let row: Value = serde_json::from_str(&query(&url, &row).await).unwrap();
    assert_eq!(row["data"][0][0], "77");
    assert_eq!(row["data"][0][1], "tab\there, quote \" and \\ and {{ braces }}\nend");
    let facts = "SELECT DISTINCT principal, address, namespace, status, toString(time), severity FROM tokenscope_alerts \
                 WHERE rule = 'brute-force' AND count = 12 FORMAT TSV";
    assert_eq!(query(&url, facts).await, "alice\t192.0.2.7\tshop\t401\t2026-11-21 18:04:05\tHigh");
    let event = query(&url, "SELECT visitParamExtractUInt(event, 'class_uid') FROM tokenscope_alerts FINAL WHERE kind = 'incident'").await;
    assert_eq!(event, "2005");
}

#[tokio::test]
async fn clickhouse_refuses_one_row_and_takes_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = clickhouse(dir.path()).await;
    // What the sensor sends as a number is a date here, so that one value can be wrong for it.
    query(&url, &table().replace("operation String", "operation Date")).await;
    let auth = "auth: {user: default, password: env:PASSWORD}";
    let mut sink = sink(&format!("type: http, preset: clickhouse, url: '{url}', {auth}"));
    let mut events: Vec<_> = (1..=6)
        .map(|n| {
            alert(n, |value| {
                value["finding_info"]["uid"] = crate::setup::id(n).into();
                value["evidences"][0]["api"]["operation"] = "2026-11-21".into();
            })
        })
        .collect();
    events[4] = alert(5, |value| value["evidences"][0]["api"]["operation"] = "no date".into());
    let Outcome::Done { refused, .. } = deliver(&mut *sink, &events).await else {
        panic!("it takes the rest")
    };
    assert_eq!(refused.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [4]);
    assert_eq!(query(&url, "SELECT count() FROM tokenscope_alerts FINAL").await, "5");
    let mut wrong = crate::setup::sink(&format!(
        "type: http, preset: clickhouse, url: '{url}', auth: {{user: default, password: env:KEY}}"
    ));
    later(&deliver(&mut *wrong, &alerts(1)).await);
}
