//! The configuration as its users meet it: every mistake at once and in its place, and what is shown reads back.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test that fails should say so"
)]

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use sensor_user::config::{
    Config, Environment, Format, Loaded, Mask, Report, Secrets, docs, load, parse, show,
};
use sensor_user::detect::{About, Needs, Severity, Threshold};
use sensor_user::token::settings::StatusSource;

static BRUTE_FORCE: About = About {
    id: "brute-force",
    title: "Many failed logins",
    version: "1",
    severity: Severity::Medium,
    accepted: Some(Severity::Critical),
    attack: &["T1110.001"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "x",
    cooling_s: 900,
    thresholds: &[Threshold {
        key: "per_minute",
        default: 10.0,
        min: 1.0,
        max: 10_000.0,
        doc: "Failures a minute.",
    }],
};
static ALG_NONE: About = About {
    id: "alg-none",
    title: "A token without a signature",
    version: "1",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1606"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "x",
    cooling_s: 600,
    thresholds: &[],
};
const CARDS: &[&About] = &[&ALG_NONE, &BRUTE_FORCE];

fn read_with(text: &str, environment: &Environment) -> Result<Loaded, Report> {
    parse("config.yaml", text, Path::new(""), environment, CARDS, Secrets::Needed)
}

fn read(text: &str) -> Result<Loaded, Report> {
    read_with(text, &Environment::default())
}

fn config(text: &str) -> Config {
    read(text).unwrap_or_else(|report| panic!("{}", report.render(false))).config
}

/// Every problem of a text, one a line: `line:column message (hint)`.
fn wrong(text: &str) -> Vec<String> {
    let report = match read(text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    report.lines().map(|line| line.trim_start_matches("config.yaml:").to_owned()).collect()
}

#[test]
fn an_empty_file_is_a_working_configuration() {
    for text in ["", "\n\n", "# nothing\n", "---\n", "capture:\nflows: {}\n", "\u{feff}"] {
        let config = config(text);
        assert!(config.capture.ports.is_empty(), "{text:?}");
        assert_eq!(config.metrics.listen.unwrap().to_string(), "127.0.0.1:9464");
        assert!(config.stdout.enabled);
        assert_eq!(config.rules.len(), 2);
    }
}

#[test]
fn takes_the_whole_promise_of_the_contract() {
    let text = r"
capture:
  cgroup: auto
  ports: []
  max_head_bytes: 65536
issuers:
  - issuer: https://idp.example/
    jwks: https://idp.example/jwks.json
    algorithms: [RS256, ES256]
    audiences: [orders-api]
    token_types: [JWT, at+jwt]
routes:
  - match: POST /login
    kind: login
    principal: body.username
lists:
  trusted_addresses: []
  denied_accounts: []
  departed_accounts: []
  revoked_ids: []
  privileged_roles: [ADMIN, SUPER_ADMIN]
geo: {city: /path/to/city.mmdb, asn: /path/to/asn.mmdb}
rules:
  brute-force: {per_minute: 10, critical_per_minute: 50}
alerts: {dedup_window_s: 600, cooling_s: {brute-force: 900, behaviour-drift: 1800}}
privacy: {fingerprint_key: env:KEY, mask_addresses: false, pseudonymise: false}
sinks: []
";
    let text = text.replace(", critical_per_minute: 50", "");
    let loaded = read_with(&text, &Environment::from([("KEY", "0123456789abcdef")])).unwrap();
    assert_eq!(loaded.config.tokens.issuers[0].audiences, ["orders-api"]);
    assert_eq!(loaded.config.tokens.fingerprint_key.as_ref().unwrap().len(), 16);
    assert_eq!(loaded.config.routes[0].method.as_deref(), Some("POST"));
    assert_eq!(loaded.config.alerts.cooling, [("alg-none", secs(600)), ("brute-force", secs(900))]);
    let warnings: Vec<_> = loaded.warnings.lines().collect();
    assert!(!warnings.iter().any(|w| w.contains("geo") || w.contains("lists")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("`behaviour-drift` is not in this version")), "{warnings:?}");
}

fn secs(s: u64) -> std::time::Duration {
    std::time::Duration::from_secs(s)
}

#[test]
fn tells_every_error_at_once_and_shows_the_places() {
    let text = "\
captur:
  ports: [80]
capture:
  ports: [80, 70000]
  cgroup: somewhere
  ring_bytes: 100000
flows:
  idle_timeout_s: 0
rules:
  brute-froce: {per_minute: 5}
  alg-none: {severity: hihg}
privacy:
  fingerprint_key: hunter2
";
    let expected = "\
error: unknown key `captur`
  --> config.yaml:1:1
  |
1 | captur:
  | ^^^^^^ did you mean `capture`?

error: `capture.ports` holds `70000`; a port is from 1 to 65535
  --> config.yaml:4:15
  |
4 |   ports: [80, 70000]
  |               ^^^^^

error: `capture.cgroup` is `somewhere`; it must be auto or an absolute path
  --> config.yaml:5:11
  |
5 |   cgroup: somewhere
  |           ^^^^^^^^^

error: `capture.ring_bytes` is 100000; it must be a power of two
  --> config.yaml:6:15
  |
6 |   ring_bytes: 100000
  |               ^^^^^^ the next is 131072

error: `flows.idle_timeout_s` is `0`; it must be a number from 1 to 86400 seconds
  --> config.yaml:8:19
  |
8 |   idle_timeout_s: 0
  |                   ^

error: unknown key `brute-froce` in `rules`
   --> config.yaml:10:3
   |
10 |   brute-froce: {per_minute: 5}
   |   ^^^^^^^^^^^ did you mean `brute-force`?

error: `rules.alg-none.severity` is `hihg`; it must be one of low, medium, high, critical
   --> config.yaml:11:24
   |
11 |   alg-none: {severity: hihg}
   |                        ^^^^ did you mean `high`?

error: `privacy.fingerprint_key` is not env:NAME or file:PATH: a secret is never written in the configuration
   --> config.yaml:13:20
   |
13 |   fingerprint_key: ***
   |                    ^^^ write `env:NAME` or `file:PATH`

8 errors; nothing was done
";
    assert_eq!(read(text).unwrap_err().render(false), expected);
}

#[test]
fn every_kind_of_error_has_its_words() {
    let cases: &[(&str, &[&str])] = &[
        ("capture: [1]\n", &["1:10: `capture` must be a mapping of keys to values"]),
        ("[]\n", &["1:1: the configuration must be a mapping of keys to values"]),
        (
            "capture:\n  ports: 80\n",
            &["2:10: `capture.ports` must be a list (write [a, b], or one `- a` a line)"],
        ),
        ("capture:\n  ports: [[80]]\n", &["2:11: `capture.ports` must be a list of ports"]),
        ("capture:\n  cgroup: [a]\n", &["2:11: `capture.cgroup` must be one value"]),
        ("http: {}\nhttp: {}\n", &["2:1: `http` is set twice; the first is in line 1"]),
        (
            "http:\n  trusted_proxies: [10.0.0.1/8]\n",
            &[
                "2:21: `http.trusted_proxies` holds `10.0.0.1/8`, which is no address and no network (bits are set behind the prefix: did you mean `10.0.0.0/8`?)",
            ],
        ),
        ("a: b: c\n", &["1:5: not valid YAML: mapping values are not allowed in this context"]),
        ("issuers:\n  - jwks: https://x/\n", &["2:5: `issuers.issuer` is missing (add `issuer: ...`, text)"]),
        (
            "issuers:\n  - issuer: me\n",
            &[
                "2:13: discovery needs an issuer that is a URL; this one is `me`, which is no URL (add `jwks:`)",
            ],
        ),
        (
            "issuers:\n  - {issuer: me, jwks: 'http://x/', algorithms: [none, rs256], colour: red}\n",
            &[
                "2:24: `issuers.jwks` is `http://x/`, which is not encrypted: http is for loopback only (use https)",
                "2:50: `issuers.algorithms` holds `none`, which is no signature (RFC 8725 section 2.1) (remove it)",
                "2:56: `issuers.algorithms` is `rs256`; it must be one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA (did you mean `RS256`?)",
                "2:64: unknown key `colour` in `issuers` (known here: issuer, jwks, algorithms, audiences, token_types, introspection, introspection_client, introspection_secret, status_lists)",
            ],
        ),
        (
            "issuers: [{issuer: 'https://a/'}, {issuer: 'https://a/'}]\n",
            &[
                "1:10: two issuers are called `https://a/` (merge them: one issuer, all its algorithms and audiences)",
            ],
        ),
        (
            "routes: [{match: post /login, kind: lgoin}]\n",
            &[
                "1:18: `routes.match` names the method `post`, which is not in capitals (did you mean `POST`?)",
                "1:37: `routes.kind` is `lgoin`; it must be one of login, logout, token, sensitive, pii, financial, admin, public, health (did you mean `login`?)",
            ],
        ),
        (
            "routes: [{match: login, kind: login}]\n",
            &["1:18: `routes.match` names the path `login`; a path starts with / and has no query"],
        ),
        (
            "rules: {alg-none: {enabled: yes}}\n",
            &["1:29: `rules.alg-none.enabled` is `yes`; it must be true or false"],
        ),
        (
            "rules: {brute-force: {per_minute: .nan}}\n",
            &["1:35: `rules.brute-force.per_minute` is `.nan`; it must be a number from 1 to 10000"],
        ),
        (
            "sinks: [{type: kafak, topic: t}]\n",
            &[
                "1:16: `sinks.type` is `kafak`; it must be one of stdout, file, http, alertmanager, otlp, kafka, redis, nats, s3, syslog, smtp (did you mean `kafka`?)",
            ],
        ),
        (
            "privacy: {pseudonymise: true}\n",
            &[
                "1:25: `privacy.pseudonymise` needs `privacy.fingerprint_key`: without a key of yours nobody could \
                 ever link a pseudonym (add fingerprint_key: env:TOKENSCOPE_KEY)",
            ],
        ),
        (
            "privacy: {fingerprint_key: 'env:NOT_SET'}\n",
            &["1:10: `privacy.fingerprint_key`: the environment variable NOT_SET is not set"],
        ),
        (
            "revocation: {redis: 'http://h', pattern: gone, opaque_issuer: 'https://a/', per_second: 0}\n",
            &[
                "1:21: `revocation.redis` is not redis:// (write redis://HOST:6379)",
                "1:42: `revocation.pattern` is `gone`; it must contain {jti} once",
                "1:63: `revocation.opaque_issuer` is no issuer with `introspection`",
                "1:89: `revocation.per_second` is `0`; it must be a number from 1 to 10000",
            ],
        ),
        (
            "issuers: [{issuer: 'https://a/', introspection: 'http://b/', introspection_secret: 'env:NOT_SET'}]\n",
            &[
                "1:49: `issuers.introspection` is `http://b/`, which is not encrypted: http is for loopback only (use https)",
                "1:84: `introspection_secret`: the environment variable NOT_SET is not set",
            ],
        ),
        (
            "metrics: {listen: 9464}\n",
            &[
                "1:19: `metrics.listen` is `9464`; it must be ADDRESS:PORT or off (for example 127.0.0.1:9464)",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(wrong(text), *expected, "{text}");
    }
}

#[test]
fn reads_where_sessions_certificates_accounts_and_status_lists_are() {
    let config = config(
        "issuers: [{issuer: 'https://a/', jwks: 'https://a/k', status_lists: ['https://a/lists', 'file:/l/1']}]
http: {session_cookies: [shop], certificate_headers: [Client-Cert]}
lists: {account_domains: [corp.example], files: {directory: [/d/staff]}}
",
    );
    let places = &config.tokens.issuers[0].status_lists;
    assert_eq!(places[0], StatusSource::Below("https://a/lists".to_owned()));
    assert_eq!(places[1], StatusSource::File("/l/1".into()));
    assert_eq!((config.http.session_cookies.len(), config.http.certificate_headers.len()), (1, 1));
    assert_eq!(config.lists.account_domains, ["corp.example"]);
    assert_eq!(config.lists.files.directory[0].to_str(), Some("/d/staff"));
}

#[test]
fn status_lists_are_fetched_as_carefully_as_keys() {
    assert_eq!(
        wrong("issuers: [{issuer: 'https://a/', status_lists: ['http://b/', 'file:', 'https://u:p@b/']}]\n"),
        [
            "1:49: `issuers.status_lists` is `http://b/`, which is not encrypted: http is for loopback only (use https)",
            "1:62: `issuers.status_lists` names no file",
            "1:71: `issuers.status_lists` holds a user name or password",
        ]
    );
}

#[test]
fn warns_of_what_has_no_effect() {
    assert_eq!(
        wrong("geo: {allowed_countries: [de]}\n"),
        ["1:26: `geo.allowed_countries` has no effect without `geo.city`"]
    );
    assert_eq!(
        wrong("rules: {behaviour-anomaly: {enabled: false}}\n"),
        ["1:9: the rule `behaviour-anomaly` is not in this version; this has no effect"]
    );
    let mixed = wrong("issuers: [{issuer: 'https://a/', algorithms: [HS256, RS256]}]\n");
    assert!(mixed[0].contains("algorithm confusion"), "{mixed:?}");
}

#[test]
fn what_is_shown_reads_back_to_the_same() {
    let environment = Environment::from([("KEY", "0123456789abcdef")]);
    let text = r"
capture: {ports: [80, 8080], cgroup: /sys/fs/cgroup/x}
http: {trusted_proxies: [10.0.0.0/8, '2001:db8::/32']}
issuers:
  - {issuer: 'https://a/ #x', jwks: file:keys/a.json, algorithms: [HS256]}
  - {issuer: 'https://b/'}
routes: [{match: 'GET /a/{id}', kind: pii}, {match: /x*, kind: public}]
rules: {brute-force: {per_minute: 2.5, severity: low}, alg-none: {enabled: false}}
alerts: {cooling_s: {alg-none: 0}}
privacy: {fingerprint_key: env:KEY}
sinks: [{type: stdout, output: ecs}]
metrics: {listen: off}
";
    for text in [text, ""] {
        let first = read_with(text, &environment).unwrap();
        let shown = show::yaml(&first.entries);
        let second =
            read_with(&shown, &environment).unwrap_or_else(|r| panic!("{}\n{shown}", r.render(false)));
        assert_eq!(show::yaml(&second.entries), shown);
        assert_eq!(second.config.tokens.issuers, first.config.tokens.issuers);
        assert_eq!(second.config.rules, first.config.rules);
        assert_eq!(second.config.routes, first.config.routes);
        assert_eq!(second.config.stdout, first.config.stdout);
        assert!(!shown.contains("0123456789abcdef"));
    }
}

#[test]
fn shows_a_comment_on_every_key() {
    let shown = show::yaml(&read("").unwrap().entries);
    let mut before = "";
    for line in shown.lines() {
        let key = line.trim_start();
        let documented = before.trim_start().starts_with('#') || key.starts_with('#') || key.is_empty();
        // The keys under cooling_s are rules, and its own comment speaks for them.
        assert!(
            documented || line.starts_with("    alg-none: ") || line.starts_with("    brute-force: "),
            "{line}"
        );
        before = line;
    }
    assert!(shown.contains("#  - issuer: https://idp.example/\n"), "{shown}");
}

#[test]
fn examples_in_comments_are_right() {
    let shown = show::yaml(&read("").unwrap().entries);
    let mut text = String::new();
    for line in shown.lines() {
        match line.strip_prefix("#  ") {
            Some(example) => writeln!(text, "  {example}").unwrap(),
            None => writeln!(
                text,
                "{}",
                line.strip_suffix(": []").map_or(line.to_owned(), |key| format!("{key}:"))
            )
            .unwrap(),
        }
    }
    // Only lists of mappings have examples; the others are lists of words and stay as they were.
    let text = text.replace("  ports:\n", "").replace("trusted_proxies:\n", "trusted_proxies: []\n");
    let report = read(&text).map_or_else(|report| report, |loaded| loaded.warnings);
    assert_eq!(report.errors(), 0, "{}\n{text}", report.render(false));
}

#[test]
fn what_is_masked_and_under_which_key_is_read() {
    let environment = Environment::from([("KEY", "0123456789abcdef"), ("OWN", "fedcba9876543210")]);
    let privacy = |text: &str| {
        let text = format!("privacy: {{fingerprint_key: env:KEY, {text}}}\n");
        read_with(&text, &environment).unwrap_or_else(|r| panic!("{}", r.render(false))).config
    };
    let shipped = privacy("");
    assert_eq!(shipped.privacy.mask, [Mask::Email, Mask::Phone, Mask::Account]);
    assert_eq!(shipped.pseudonym_key.unwrap().as_slice(), b"0123456789abcdef");
    let own = privacy("pseudonym_key: env:OWN, mask: [phone], sensitive_names: [pin]");
    assert_eq!((own.privacy.mask, own.privacy.sensitive_names), (vec![Mask::Phone], vec!["pin".to_owned()]));
    assert_eq!(own.pseudonym_key.unwrap().as_slice(), b"fedcba9876543210");
    assert_eq!(privacy("mask: []").privacy.mask, []);
    let alone = read_with("privacy: {pseudonym_key: env:OWN, pseudonymise: true}\n", &environment);
    assert!(alone.is_ok_and(|loaded| loaded.config.tokens.fingerprint_key.is_none()));
    for (wrong, why) in [("mask: [mail]", "email, phone, account"), ("pseudonym_key: env:NONE", "not set")] {
        let report = read_with(&format!("privacy: {{{wrong}}}\n"), &environment).unwrap_err().render(false);
        assert!(report.contains(why), "{report}");
    }
}

#[test]
fn the_environment_beats_the_file() {
    let environment = Environment::from([
        ("TOKENSCOPE_CAPTURE__PORTS", "80, 8080"),
        ("TOKENSCOPE_HTTP__TRUSTED_PROXIES", "['::1', 10.0.0.0/8]"),
        ("TOKENSCOPE_METRICS__LISTEN", "[::1]:9"),
        ("TOKENSCOPE_RULES__BRUTE_FORCE__PER_MINUTE", "3"),
        ("TOKENSCOPE_ALERTS__COOLING_S__ALG_NONE", "7"),
        ("TOKENSCOPE_SINKS", "[{type: stdout, output: ecs}]"),
        ("TOKENSCOPE_PORT", "tcp://10.0.0.1:9464"),
    ]);
    let text = "capture: {ports: [1]}\nmetrics: {listen: off}\nrules: {brute-force: {per_minute: 5}}\n";
    let config = read_with(text, &environment).unwrap_or_else(|r| panic!("{}", r.render(false))).config;
    assert_eq!(config.capture.ports, [80, 8080]);
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(config.metrics.listen.unwrap().to_string(), "[::1]:9");
    assert!((config.rules[1].thresholds.value(&BRUTE_FORCE, "per_minute") - 3.0).abs() < 1e-9);
    assert_eq!(config.alerts.cooling[0].1, secs(7));
    assert_eq!(config.stdout.output, Some(Format::Ecs));
}

#[test]
fn errors_in_the_environment_are_shown_like_those_of_the_file() {
    let environment = Environment::from([
        ("TOKENSCOPE_CAPTURE__PORTS", "80, 99999"),
        ("TOKENSCOPE_CAPTURE__PROTS", "80"),
        ("TOKENSCOPE_PRIVACY__FINGERPRINT_KEY", "hunter2"),
    ]);
    let expected = "\
error: `capture.ports` holds `99999`; a port is from 1 to 65535
  --> environment variable TOKENSCOPE_CAPTURE__PORTS:1:5
  |
1 | 80, 99999
  |     ^^^^^

error: no key of the configuration is called `TOKENSCOPE_CAPTURE__PROTS`
  --> environment variable TOKENSCOPE_CAPTURE__PROTS:1:1
  |
1 | 80
  | ^^ did you mean `TOKENSCOPE_CAPTURE__PORTS`?

error: `privacy.fingerprint_key` is not env:NAME or file:PATH: a secret is never written in the configuration
  --> environment variable TOKENSCOPE_PRIVACY__FINGERPRINT_KEY:1:1
  |
1 | ***
  | ^^^ write `env:NAME` or `file:PATH`

3 errors; nothing was done
";
    assert_eq!(read_with("", &environment).unwrap_err().render(false), expected);
}

#[test]
fn files_that_cannot_be_read_are_said_to_be_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    let tell = |path: &Path| {
        let report = load(Some(path), &Environment::default(), CARDS, Secrets::Needed).unwrap_err();
        report.problems[0].message.clone()
    };
    assert!(tell(&path).starts_with("cannot read the configuration: No such file"));
    assert!(tell(dir.path()).contains("directory"));
    assert_eq!(tell(Path::new("/dev/zero")), "the configuration is larger than 1048576 bytes");
    std::fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
    assert_eq!(tell(&path), "the configuration is not UTF-8: line 2 has a byte that is no text");
}

#[test]
fn relative_paths_start_at_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    std::fs::write(&path, "issuers: [{issuer: x, jwks: 'file:keys.json'}]\n").unwrap();
    let config = load(Some(&path), &Environment::default(), CARDS, Secrets::Needed).unwrap().config;
    let expected = sensor_user::token::settings::KeySource::File(dir.path().join("keys.json"));
    assert_eq!(config.tokens.issuers[0].keys, expected);
}

#[test]
fn a_missing_secret_is_a_warning_where_nothing_runs() {
    let text = "privacy: {fingerprint_key: 'env:NOT_SET'}\n";
    let loaded = parse("c", text, Path::new(""), &Environment::default(), CARDS, Secrets::Optional).unwrap();
    assert_eq!(loaded.warnings.problems.len(), 1);
}

#[test]
fn tells_what_a_running_sensor_cannot_change() {
    let old = config("rules: {brute-force: {per_minute: 11}}\nsinks: [{type: file, path: a}]\n");
    let new = config("privacy: {mask_addresses: true}\nspool: {sync: never}\nlists: {revoked_ids: [x]}\n");
    assert_eq!(old.fixed_differences(&new), ["privacy", "spool"]);
    assert!(old.fixed_differences(&old).is_empty());
}

#[test]
fn docs_name_every_key() {
    let text = docs::markdown(CARDS);
    for key in ["max_head_bytes", "trusted_proxies", "brute-force", "fingerprint_key", "listen"] {
        assert!(text.contains(key), "{key}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"((capture|rules|issuers|alg-none|ports|sinks|[a-z]{1,3}|[:\-\[\]{},&*!#|>'"%?~0-9.]| |\n|\n  ){1,3}){0,30}"#) {
        if let Err(report) = read(&text) {
            let shown = report.render(false);
            prop_assert!(shown.contains("error"));
        }
    }
}
