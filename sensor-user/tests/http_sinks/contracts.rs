//! What each receiver gets, by its documented contract: method, path, headers and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sensor_user::sink::Outcome;
use serde_json::{Value, json};

use crate::receiver::{Receiver, Reply, Request, answer, ok};
use crate::setup::{alert, alerts, deliver, done, id, incident, later, sink};

/// What one alert becomes with these keys.
async fn sent(keys: &str, reply: fn() -> Reply) -> Request {
    let receiver = Receiver::start(move |_, _| reply()).await;
    let mut sink = sink(&format!("type: http, url: '{}', {keys}", receiver.url("")));
    done(&deliver(&mut *sink, &[alert(1, |_| {})]).await);
    receiver.only()
}

fn is(request: &Request, method: &str, target: &str, content_type: &str) {
    assert_eq!((request.method.as_str(), request.target.as_str()), (method, target));
    assert_eq!(request.header("content-type"), Some(content_type));
    assert!(request.header("user-agent").unwrap().starts_with("tokenscope/"));
    assert_eq!(request.header("cookie"), None);
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const MESSAGE: &str = "A sample, not an attack: \"12\" failed logins in a minute.\nIt has <!channel>, {{ braces }} & [links](x).";

#[tokio::test]
async fn generic_is_the_event_itself() {
    let request = sent("method: PUT, headers: {X-A: b}", || ok("")).await;
    is(&request, "PUT", "/", JSON);
    assert_eq!(request.header("x-a"), Some("b"));
    let event = alert(1, |_| {});
    assert_eq!(request.json(), *event.value());
    let receiver = Receiver::start(|_, _| ok("")).await;
    let mut sink = sink(&format!("type: http, url: '{}', batch: 5", receiver.url("/a?b=c")));
    done(&deliver(&mut *sink, &alerts(3)).await);
    assert_eq!(receiver.only().target, "/a?b=c");
    assert_eq!(receiver.only().json().as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn slack_gets_plain_text_and_no_commands() {
    let request = sent("preset: slack", || ok("ok")).await;
    is(&request, "POST", "/", JSON);
    let body = request.json();
    let text = body["text"].as_str().unwrap();
    assert!(text.contains("&lt;!channel&gt;") && !text.contains("<!"), "{text}");
    for block in body["blocks"].as_array().unwrap() {
        let texts = [block.get("text"), block.pointer("/fields/0"), block.pointer("/elements/0")];
        assert!(texts.into_iter().flatten().all(|text| text["type"] == "plain_text"), "{block}");
    }
    assert_eq!(body.get("channel"), None);
    let request = sent("preset: slack, variables: {channel: '#sec'}", || ok("ok")).await;
    assert_eq!(request.json()["channel"], "#sec");
}

#[tokio::test]
async fn teams_gets_a_card_without_markup() {
    let body = sent("preset: teams", || answer(202, "", "")).await.json();
    assert_eq!(body["type"], "message");
    let attachment = &body["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let blocks = attachment["content"]["body"].as_array().unwrap();
    assert!(blocks.iter().all(|block| block["type"] == "RichTextBlock"));
    assert!(blocks[1]["inlines"][0]["text"].as_str().unwrap().contains("<!channel>"));
}

#[tokio::test]
async fn pagerduty_triggers_and_resolves_by_one_key() {
    let receiver = Receiver::start(|_, _| answer(202, "", r#"{"status":"success"}"#)).await;
    let mut sink = sink(&format!(
        "type: http, preset: pagerduty, url: '{}', variables: {{routing_key: env:PD}}",
        receiver.url("/v2/enqueue")
    ));
    let begun = incident(1, |value| value["activity_id"] = 1.into());
    let over = incident(2, |_| {});
    done(&deliver(&mut *sink, &[begun]).await);
    done(&deliver(&mut *sink, &[over]).await);
    let requests = receiver.requests();
    is(&requests[0], "POST", "/v2/enqueue", JSON);
    let (first, second) = (requests[0].json(), requests[1].json());
    assert_eq!((&first["event_action"], &second["event_action"]), (&json!("trigger"), &json!("resolve")));
    assert_eq!(first["dedup_key"], second["dedup_key"]);
    assert_eq!(first["routing_key"], "R0123456789");
    assert_eq!(first["payload"]["severity"], "critical");
    assert_eq!(first["payload"]["custom_details"]["principal"], "alice");
    let severities = [(4, "error"), (3, "warning"), (2, "info")];
    for (number, (severity, word)) in severities.into_iter().enumerate() {
        done(&deliver(&mut *sink, &[alert(9, |value| value["severity_id"] = severity.into())]).await);
        assert_eq!(receiver.requests()[number + 2].json()["payload"]["severity"], word);
    }
}

#[tokio::test]
async fn splunk_gets_one_event_a_line() {
    let receiver = Receiver::start(|_, _| ok(r#"{"text":"Success","code":0}"#)).await;
    let mut sink = sink(&format!(
        "type: http, preset: splunk, url: '{}', auth: {{token: env:KEY}}, variables: {{index: sec}}",
        receiver.url("")
    ));
    let events = alerts(2);
    done(&deliver(&mut *sink, &events).await);
    let request = receiver.only();
    is(&request, "POST", "/services/collector/event", JSON);
    assert_eq!(request.header("authorization"), Some("Splunk k3y-of-the-test"));
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    let lines = request.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["time"], 1_795_284_245.123);
    assert_eq!((&lines[0]["index"], &lines[0]["host"]), (&json!("sec"), &json!("node-1")));
    assert_eq!(lines[1]["event"], *events[1].value());
}

#[tokio::test]
async fn loki_gets_few_labels() {
    let request = sent("preset: loki", || answer(204, "", "")).await;
    is(&request, "POST", "/loki/api/v1/push", JSON);
    let body = request.json();
    let labels = json!({"job": "tokenscope", "rule": "brute-force", "severity": "high", "namespace": "shop", "node": "node-1"});
    assert_eq!(body["streams"][0]["stream"], labels);
    assert_eq!(body["streams"][0]["values"][0][0], "1795284245123000000");
    let line: Value = serde_json::from_str(body["streams"][0]["values"][0][1].as_str().unwrap()).unwrap();
    assert_eq!(line["message"], MESSAGE);
}

#[tokio::test]
async fn bulk_names_documents_by_alert_and_day() {
    for (preset, auth) in
        [("elasticsearch", "ApiKey k3y-of-the-test"), ("opensearch", "Bearer k3y-of-the-test")]
    {
        let reply = || ok(r#"{"errors":false,"items":[{"index":{"status":201}}]}"#);
        let request = sent(&format!("preset: {preset}, auth: {{token: env:KEY}}"), reply).await;
        is(&request, "POST", "/_bulk", LINES);
        assert_eq!(request.header("authorization"), Some(auth));
        let lines = request.lines();
        let action = json!({"index": {"_index": "tokenscope-alerts-2026.11.21", "_id": "01M7ZMDBX8XAMP1ESAMP1E0001",
            "version": 1_795_284_245_123_u64, "version_type": "external_gte"}});
        assert_eq!(lines[0], action);
        assert_eq!(lines.len(), 2);
        assert!(request.text().ends_with('\n'));
    }
}

#[tokio::test]
async fn bulk_refuses_items_and_not_batches() {
    let body = r#"{"errors":true,"items":[{"index":{"status":200}},
        {"index":{"status":400,"error":{"type":"document_parsing_exception"}}}]}"#;
    let receiver = Receiver::start(move |_, _| ok(body)).await;
    let mut sink = sink(&format!("type: http, preset: opensearch, url: '{}'", receiver.url("")));
    let Outcome::Done { refused, .. } = deliver(&mut *sink, &alerts(2)).await else { panic!() };
    assert_eq!(refused.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [1]);
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn clickhouse_gets_rows() {
    let request = sent("preset: clickhouse, auth: {token: env:KEY}", || ok("")).await;
    assert_eq!(request.header("x-clickhouse-key"), Some("k3y-of-the-test"));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.target, "/?query=INSERT%20INTO%20tokenscope_alerts%20FORMAT%20JSONEachRow");
    let row = &request.lines()[0];
    assert_eq!((&row["id"], &row["status"]), (&json!("01M7ZMDBX8XAMP1ESAMP1E0001"), &json!(401)));
    let event: Value = serde_json::from_str(row["event"].as_str().unwrap()).unwrap();
    assert_eq!(event["class_uid"], 2004);
}

#[tokio::test]
async fn gelf_has_the_members_that_graylog_wants() {
    let request = sent("preset: gelf", || answer(202, "", "")).await;
    is(&request, "POST", "/gelf", JSON);
    let body = request.json();
    assert_eq!(
        (&body["version"], &body["host"], &body["level"]),
        (&json!("1.1"), &json!("node-1"), &json!(3))
    );
    assert_eq!(body["timestamp"], 1_795_284_245.123);
    assert_eq!(body.get("_id"), None, "it is reserved");
    assert!(!body["short_message"].as_str().unwrap().contains('\n'));
    assert!(body.as_object().unwrap().values().all(|value| value.is_string() || value.is_number()));
}

#[tokio::test]
async fn sentinel_asks_for_a_token_once_and_anew_when_it_is_refused() {
    let receiver = Receiver::start(|number, request| match (request.target.as_str(), number) {
        ("/oauth/token", _) => {
            ok(&format!(r#"{{"access_token":"t{number}","expires_in":3600,"token_type":"Bearer"}}"#))
        }
        (_, 3) => answer(401, "", ""),
        _ => answer(204, "", ""),
    })
    .await;
    let mut sink = sink(&format!(
        "type: http, preset: sentinel, url: '{}', variables: {{rule_id: dcr-1}}, auth: {{oauth2: {{token_url: '{}', \
         client_id: me, client_secret: env:PASSWORD, scope: 'https://monitor.azure.com/.default'}}}}",
        receiver.url(""),
        receiver.url("/oauth/token")
    ));
    done(&deliver(&mut *sink, &alerts(1)).await);
    done(&deliver(&mut *sink, &alerts(2)).await);
    let (reason, _) = later(&deliver(&mut *sink, &alerts(1)).await);
    assert!(reason.contains("credentials"), "{reason}");
    done(&deliver(&mut *sink, &alerts(1)).await);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 6);
    let form = "grant_type=client_credentials&client_id=me&client_secret=pa%3Ass&scope=https%3A%2F%2Fmonitor.azure.com%2F.default";
    assert_eq!(requests[0].text(), form);
    assert_eq!(
        requests[1].target,
        "/dataCollectionRules/dcr-1/streams/Custom-Tokenscope_CL?api-version=2023-01-01"
    );
    assert_eq!(requests[1].header("authorization"), Some("Bearer t0"));
    assert_eq!(requests[2].header("authorization"), Some("Bearer t0"));
    assert_eq!(requests[2].json().as_array().unwrap().len(), 2);
    assert_eq!(requests[2].json()[0]["RawEvent"]["class_uid"], 2004);
    assert_eq!(requests[5].header("authorization"), Some("Bearer t4"));
}

#[tokio::test]
async fn an_issuer_that_refuses_shows_no_secret() {
    let receiver = Receiver::start(|_, _| answer(401, "", r#"{"error":"invalid_client","x":"pa:ss"}"#)).await;
    let mut sink = sink(&format!(
        "type: http, url: '{}', auth: {{oauth2: {{token_url: '{}', client_id: me, client_secret: env:PASSWORD}}}}",
        receiver.url("/"),
        receiver.url("/t")
    ));
    let (reason, _) = later(&deliver(&mut *sink, &alerts(1)).await);
    assert!(reason.contains("invalid_client") && !reason.contains("pa:ss"), "{reason}");
}

#[tokio::test]
async fn secrets_that_come_back_are_not_repeated() {
    let receiver = Receiver::start(|_, request| {
        let all: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        answer(500, "", &format!("{} {} {}", request.text(), request.target, all.join(" ")))
    })
    .await;
    let keys = [
        "auth: {token: env:KEY}, headers: {x-password: env:PASSWORD}",
        "variables: {key: 'env:KEY'}, content_type: text/plain, template: '{{ vars.key }}'",
        "auth: {user: me, password: env:KEY}",
    ];
    for keys in keys {
        let mut sink =
            sink(&format!("type: http, url: '{}', {keys}", receiver.url("/services/T0/B0/s3cr3t-path")));
        let (reason, _) =
            later(&deliver(&mut *sink, &[alert(1, |value| value["message"] = "m".into())]).await);
        let basic = STANDARD.encode("me:k3y-of-the-test");
        for secret in ["k3y-of-the-test", "pa:ss", "s3cr3t-path", &basic] {
            assert!(!reason.contains(secret), "{secret} in {reason}");
        }
    }
}

#[tokio::test]
async fn misp_takes_an_event_once() {
    let request = sent("preset: misp, auth: {token: env:KEY}", || answer(200, "", "{}")).await;
    is(&request, "POST", "/events/add", JSON);
    assert_eq!(request.header("authorization"), Some("k3y-of-the-test"), "without a scheme");
    assert_eq!(request.header("accept"), Some(JSON));
    let event = &request.json()["Event"];
    assert_eq!((&event["date"], &event["threat_level_id"]), (&json!("2026-11-21"), &json!("1")));
    assert_eq!(event["uuid"].as_str().unwrap().len(), 36);
    assert_eq!(event["Attribute"][0]["value"], "192.0.2.7");
    let receiver = Receiver::start(|_, _| answer(404, "", r#"{"message":"Event already exists"}"#)).await;
    let mut sink = sink(&format!("type: http, preset: misp, url: '{}'", receiver.url("")));
    done(&deliver(&mut *sink, &alerts(1)).await);
}

#[tokio::test]
async fn tickets_are_made_once_and_not_for_news() {
    let keys = "preset: jira, variables: {project: SEC}, auth: {user: me@x, password: env:KEY}";
    let request = sent(keys, || answer(201, "", "{}")).await;
    is(&request, "POST", "/rest/api/3/issue", JSON);
    assert_eq!(
        request.header("authorization").unwrap(),
        format!("Basic {}", STANDARD.encode("me@x:k3y-of-the-test"))
    );
    let fields = &request.json()["fields"];
    assert_eq!((&fields["project"]["key"], &fields["issuetype"]["name"]), (&json!("SEC"), &json!("Task")));
    assert!(fields["labels"].as_array().unwrap().iter().all(|label| !label.as_str().unwrap().contains(' ')));
    assert_eq!(fields["description"]["type"], "doc");
    let request =
        sent("preset: servicenow, auth: {user: me, password: env:PASSWORD}", || answer(201, "", "{}")).await;
    is(&request, "POST", "/api/now/table/incident", JSON);
    assert_eq!(request.json()["correlation_id"], "01M7ZMDBX8XAMP1ESAMP1E0001");
    assert_eq!(request.header("authorization").unwrap(), format!("Basic {}", STANDARD.encode("me:pa:ss")));
    let receiver = Receiver::start(|_, _| answer(201, "", "{}")).await;
    let mut sink = sink(&format!("type: http, preset: servicenow, url: '{}'", receiver.url("")));
    done(&deliver(&mut *sink, &[alert(5, |value| value["activity_id"] = 2.into())]).await);
    assert!(receiver.requests().is_empty(), "news of a ticket is no ticket");
}

#[tokio::test]
async fn mail_services_get_letters() {
    let keys = "preset: sendgrid, auth: {token: env:KEY}, variables: {from: a@x.example, to: 'b@x.example, c@x.example'}";
    let receiver = Receiver::start(|_, _| answer(202, "", "")).await;
    let mut sendgrid = sink(&format!("type: http, url: '{}', {keys}", receiver.url("/v3/mail/send")));
    done(&deliver(&mut *sendgrid, &alerts(1)).await);
    let request = receiver.only();
    is(&request, "POST", "/v3/mail/send", JSON);
    assert_eq!(request.header("authorization"), Some("Bearer k3y-of-the-test"));
    let body = request.json();
    assert_eq!(body["personalizations"][0]["to"][1]["email"], "c@x.example");
    assert!(!body["subject"].as_str().unwrap().contains('\n'));
    assert!(body["content"][0]["value"].as_str().unwrap().starts_with(MESSAGE));
    let keys = "preset: mailgun, auth: {user: api, password: env:KEY}, variables: {domain: x.example, from: a@x.example, to: b@x.example}";
    let request = sent(keys, || ok("{}")).await;
    is(&request, "POST", "/v3/x.example/messages", "application/x-www-form-urlencoded");
    let form = reqwest::Url::parse(&format!("http://x/?{}", request.text())).unwrap();
    let member = |name: &str| form.query_pairs().find(|(other, _)| other == name).unwrap().1.into_owned();
    assert_eq!((member("to"), member("from")), ("b@x.example".into(), "a@x.example".into()));
    assert!(member("text").starts_with(MESSAGE));
    assert!(!member("subject").contains('\n'));
}

#[tokio::test]
async fn sns_and_falco_have_their_envelopes() {
    let request = sent("preset: sns", || ok("")).await;
    is(&request, "POST", "/", "text/plain; charset=UTF-8");
    assert_eq!(request.header("x-amz-sns-message-type"), Some("Notification"));
    let body = request.json();
    assert_eq!(request.header("x-amz-sns-message-id"), body["MessageId"].as_str());
    let message: Value = serde_json::from_str(body["Message"].as_str().unwrap()).unwrap();
    assert_eq!(message["class_uid"], 2004);
    let body = sent("preset: falco", || ok("")).await.json();
    assert_eq!((&body["priority"], &body["source"]), (&json!("Error"), &json!("tokenscope")));
    assert_eq!(body["output_fields"]["fd.cip"], "192.0.2.7");
}

/// HMAC-SHA256 by its definition (RFC 2104), so as not to test one library by itself.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, digest};
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ byte).collect() };
    let inner = digest(&SHA256, &[pad(0x36), text.to_vec()].concat());
    digest(&SHA256, &[pad(0x5c), inner.as_ref().to_vec()].concat()).as_ref().to_vec()
}

#[tokio::test]
async fn signatures_hold_and_ids_stay() {
    let receiver = Receiver::start(|number, _| if number == 0 { answer(500, "", "") } else { ok("") }).await;
    let mut sink =
        sink(&format!("type: http, url: '{}', batch: 5, signing_secret: env:SIGNING", receiver.url("/")));
    let events = alerts(2);
    later(&deliver(&mut *sink, &events).await);
    done(&deliver(&mut *sink, &events).await);
    let requests = receiver.requests();
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    for request in requests {
        let (id, time) =
            (request.header("webhook-id").unwrap(), request.header("webhook-timestamp").unwrap());
        assert!(!id.is_empty() && time.parse::<u64>().unwrap() > 1_700_000_000);
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = hmac(&key, &[format!("{id}.{time}.").as_bytes(), &request.body].concat());
        assert_eq!(request.header("webhook-signature").unwrap(), format!("v1,{}", STANDARD.encode(signed)));
    }
}

#[tokio::test]
async fn a_template_of_ones_own_sees_the_facts() {
    let keys = r#"content_type: text/plain, variables: {who: ops, key: 'env:KEY'}, template: "{{ vars.who }} {{ vars.key }} {{ rule }} {{ address }} {{ events|length }}""#;
    let request = sent(keys, || ok("")).await;
    is(&request, "POST", "/", "text/plain");
    assert_eq!(request.text(), "ops k3y-of-the-test brute-force 192.0.2.7 1");
}

#[tokio::test]
async fn otlp_gets_log_records() {
    let receiver = Receiver::start(|_, _| ok("{}")).await;
    let keys = format!(
        "type: otlp, url: '{}', headers: {{x-scope: 'env:KEY'}}, resource: {{env: test}}",
        receiver.url("")
    );
    done(&deliver(&mut *sink(&keys), &alerts(2)).await);
    let request = receiver.only();
    is(&request, "POST", "/v1/logs", JSON);
    assert_eq!(request.header("x-scope"), Some("k3y-of-the-test"));
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    let body = request.json();
    let resource = &body["resourceLogs"][0]["resource"]["attributes"];
    assert!(
        resource
            .as_array()
            .unwrap()
            .contains(&json!({"key": "host.name", "value": {"stringValue": "node-1"}}))
    );
    assert!(resource.as_array().unwrap().contains(&json!({"key": "env", "value": {"stringValue": "test"}})));
    let records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[1]["attributes"][0]["value"]["stringValue"], id(2));
    assert_eq!(records[0]["body"]["stringValue"], MESSAGE);
}
