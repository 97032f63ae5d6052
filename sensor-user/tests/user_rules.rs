//! The user's own rules as users meet them: shipped rules, check, test, replay; and conditions against the reference.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails should say so"
)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use sensor_user::config::user::check::{Names, condition};
use sensor_user::config::user::{load, read};
use sensor_user::detect::RouteKind;
use sensor_user::detect::user::field::{Field, Side};
use sensor_user::detect::user::guard::Guard;
use sensor_user::detect::user::value::{Facts, Value};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenscope"));
    command.args(arguments).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn put(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const ANY_ANSWER: &str = "id: any-answer\ntitle: An answer\nseverity: low\nwhen: response.status >= 100\nmessage: '{request.route} {response.status}'\n";

#[test]
fn the_shipped_rules_pass_their_examples() {
    let (rules, warnings) = load(&[deploy("rules.d")]).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert_eq!((rules.len(), warnings.problems.len()), (3, 0));
    for rule in &rules {
        assert!(rule.examples.iter().any(|e| e.fires) && rule.examples.iter().any(|e| !e.fires));
        for example in &rule.examples {
            assert_eq!(example.judge(rule), [], "{}: {}", rule.about.id, example.name);
        }
    }
}

#[test]
fn the_rule_in_the_documentation_passes_its_examples() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/user-rules.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let rule = text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let rule = read::rule(Path::new("docs"), rule).unwrap_or_else(|r| panic!("{}", r.render(false))).rule;
    for example in &rule.examples {
        assert_eq!(example.judge(&rule), [], "{}", example.name);
    }
}

#[test]
fn check_tells_every_error_with_its_place_and_exits_with_two() {
    let dir = tempfile::tempdir().unwrap();
    put(
        &dir,
        "a.yaml",
        "id: a-rule\ntitel: x\nseverity: hihg\nwhen: |\n  response.status == '401'\n  && token.algg == \"none\"\n",
    );
    put(&dir, "b.yaml", ANY_ANSWER);
    let dir = dir.path().display().to_string();
    let output = run(&["rules", "check", &dir]);
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    for part in [
        "a.yaml:2:1",
        "did you mean `title`?",
        "a.yaml:3:11",
        "did you mean `high`?",
        "a.yaml:5:3",
        "write 401 without quotes",
        "a.yaml:6:6",
        "did you mean `token.alg`?",
        "`title` is missing",
        "5 errors",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert!(!told.contains("b.yaml"), "{told}");
    let output = run(&["rules", "check", &deploy("rules.d").display().to_string()]);
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(0), "3 rules: ok\n".to_owned()),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_group_without_bound_is_a_warning_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let text = "correlate: {kind: event_count, window: 1m, gt: 5, group_by: [request.path]}\n";
    let path = put(&dir, "a.yaml", &format!("{ANY_ANSWER}{text}"));
    let output = run(&["rules", "check", &path]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("group by request.route"), "{}", stderr(&output));
}

#[test]
fn every_wrong_correlation_is_refused() {
    for (correlate, told) in [
        ("{kind: event_count, window: 1m}", "`correlate.gte` is missing"),
        ("{kind: event_count, window: 25h, gt: 5}", "from 1s to 24h"),
        ("{kind: event_count, window: 5, gt: 5}", "add a unit"),
        ("{kind: event_count, window: 1m, lt: 5}", "cannot be told while events still come"),
        ("{kind: event_count, window: 1m, gt: 5, gte: 6}", "two thresholds"),
        ("{kind: event_cont, window: 1m, gt: 5}", "did you mean `event_count`?"),
        ("{kind: value_count, window: 1m, gt: 5}", "`correlate.field` is missing"),
        ("{kind: value_count, window: 1m, gt: 5000, field: client.address}", "at most 1000"),
        ("{kind: temporal, window: 1m, steps: [response.status == 1]}", "from 2 to 8 steps"),
        (
            "{kind: temporal, window: 1m, gt: 2, steps: [response.status == 1, response.status == 2]}",
            "means nothing to temporal",
        ),
        ("{kind: event_count, window: 1h, gt: 5, also: [{window: 2h, gt: 1}]}", "to the whole"),
        ("{kind: event_count, window: 1h, gt: 5, group_by: [token.roles]}", "a list makes no group"),
        (
            "{kind: event_count, window: 1h, gt: 5, group_by: [clinet.address]}",
            "did you mean `client.address`?",
        ),
    ] {
        let text = format!("{ANY_ANSWER}correlate: {correlate}\n");
        let report = read::rule(Path::new("a.yaml"), &text).err().unwrap_or_else(|| panic!("{correlate}"));
        let shown = report.render(false);
        assert!(shown.contains(told), "{correlate}:\n{shown}");
    }
}

#[test]
fn secrets_have_no_place_in_a_message() {
    for field in ["request.query", "token.id", "token.roles"] {
        let text = ANY_ANSWER.replace("{request.route}", &format!("{{{field}}}"));
        let report = read::rule(Path::new("a.yaml"), &text).unwrap_err();
        assert!(report.render(false).contains("is never shown in alerts"));
    }
}

#[test]
fn test_shows_what_went_otherwise_and_exits_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let text = "examples:\n  - {name: wrong, fires: false, exchanges: [{response.status: 204}]}\n  - {name: right, fires: true, says: 'GET / 204', exchanges: [{response.status: 204}]}\n";
    let path = put(&dir, "a.yaml", &format!("{ANY_ANSWER}{text}"));
    let output = run(&["rules", "test", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(
        told.contains("FAIL  any-answer: wrong\n") && told.contains("ok    any-answer: right\n"),
        "{told}"
    );
    assert!(told.contains("- never fires\n      + fires at exchange 1 of 1\n"), "{told}");
    assert!(told.ends_with("2 examples, 1 failed\n"));
    let output = run(&["rules", "test", &deploy("rules.d").display().to_string(), "-o", "json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success() && all.as_array().unwrap().iter().all(|one| one["ok"] == true));
}

#[test]
fn list_and_show_know_the_users_rules() {
    let dir = deploy("rules.d").display().to_string();
    let listed = stdout(&run(&["rules", "list", "--rules", &dir]));
    assert!(listed.contains("alg-none") && listed.contains("siem-brute-force"), "{listed}");
    assert_eq!(listed.matches("(user rule)").count(), 3);
    let page = stdout(&run(&["rules", "show", "siem-privilege-escalation", "--rules", &dir]));
    assert!(page.contains("temporal_ordered") && page.contains("T1098"), "{page}");
    assert!(stdout(&run(&["rules", "fields"])).contains("token.roles"));
    let schema: serde_json::Value = serde_json::from_slice(&run(&["rules", "schema"]).stdout).unwrap();
    assert!(schema["properties"]["correlate"]["properties"]["kind"]["enum"].is_array());
}

#[test]
fn replay_asks_them_and_says_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let rule = put(&dir, "a.yaml", ANY_ANSWER);
    let capture = deploy("samples/shop.pcap").display().to_string();
    let replay = |more: &[&str]| run(&[&["replay", &capture, "-o", "json"], more].concat());
    let without = stdout(&replay(&[]));
    assert!(!without.contains("any-answer"));
    let (first, again) = (replay(&["--rules", &rule]), replay(&["--rules", &rule]));
    assert!(stdout(&first).contains("\"uid\":\"any-answer\""), "{}", stderr(&first));
    assert_eq!(stdout(&first), stdout(&again));
    let bad = put(&dir, "bad.yaml", "id: x\n");
    assert_eq!(replay(&["--rules", &bad]).status.code(), Some(2));
    put(&dir, "bad.yaml", "");
    std::fs::remove_file(dir.path().join("bad.yaml")).unwrap();
    let config = put(&dir, "config.conf", "rules_dir: .\n");
    let named = replay(&["-c", &config]);
    assert!(stdout(&named).contains("any-answer"), "{}", stderr(&named));
}

/// Three fields that are always there.
struct Three {
    status: i64,
    method: &'static str,
    latency: i64,
}

impl Facts for Three {
    fn value(&self, field: Field) -> Option<Value<'_>> {
        match field {
            Field::Status => Some(Value::Int(self.status)),
            Field::Method => Some(Value::Text(Cow::Borrowed(self.method))),
            Field::LatencyMs => Some(Value::Int(self.latency)),
            _ => None,
        }
    }

    fn header(&self, _: Side, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

fn numbers() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("response.status".to_owned()),
        Just("latency_ms".to_owned()),
        Just("size(request.method)".to_owned()),
        (-3_i64..600).prop_map(|n| n.to_string()),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%"]), inner)
            .prop_map(|(a, sign, b)| format!("({a} {sign} {b})"))
    })
}

fn conditions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (numbers(), prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]), numbers())
            .prop_map(|(a, sign, b)| format!("{a} {sign} {b}")),
        prop::sample::select(vec![
            "request.method == 'GET'",
            "'POST' != request.method",
            "request.method in ['GET', 'PUT']",
            "response.status in [200, 401]",
            "request.method.startsWith('P')",
            "request.method.contains(\"E\")",
            "request.method < 'H'",
            "true",
            "false",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(({a}) ? {b} : {c})")),
        ]
    })
}

proptest! {
    /// Where the reference gives an answer we give the same, and the guard lets everything pass that holds.
    #[test]
    fn computes_what_the_reference_computes(
        text in conditions(), status in 100_i64..600, latency in 0_i64..5,
        method in prop::sample::select(vec!["GET", "POST", "PUT", "X"]),
    ) {
        let lists = BTreeMap::new();
        let node = condition(&text, Names { lists: &lists, counted: false });
        let node = node.map_err(|complaints| TestCaseError::fail(format!("{text}: {complaints:?}")))?;
        let ours = node.test(&Three { status, method, latency });
        let mut context = cel::Context::default();
        context.add_variable("response", HashMap::from([("status", status)])).unwrap();
        context.add_variable("request", HashMap::from([("method", method)])).unwrap();
        context.add_variable("latency_ms", latency).unwrap();
        if let Ok(cel::Value::Bool(theirs)) = cel::Program::compile(&text).unwrap().execute(&context) {
            prop_assert_eq!(ours, Ok(theirs), "{}", text);
        }
        if ours == Ok(true) {
            let seen = u16::try_from(status).unwrap();
            let profile = Guard::profile(Some(seen), RouteKind::Plain, method.as_bytes());
            prop_assert!(Guard::of(&node).admits(profile), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in "((id|title|severity|when|correlate|kind|window|lists|examples|exceptions|message|steps|group_by|also|exchanges|fires): |[-\\n {}\\[\\]&*|>'\"a-d0-9.=]|\\{|\\}|event_count|low|1m|client\\.address|true){0,30}") {
        if let Err(report) = read::rule(Path::new("a.yaml"), &text) {
            prop_assert!(report.errors() > 0 && !report.render(false).is_empty());
        }
    }
}
