//! The binary as its users meet it: exit statuses, help, colours, readers that go away; and the pages made from it.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails should say so"
)]

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sensor_user::{cli, config};

fn tokenscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenscope"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tokenscope(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn file(dir: &tempfile::TempDir, text: &str) -> String {
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const COMMANDS: &[&[&str]] = &[
    &[],
    &["run"],
    &["replay"],
    &["rules"],
    &["rules", "list"],
    &["rules", "show"],
    &["rules", "check"],
    &["rules", "test"],
    &["rules", "fields"],
    &["rules", "schema"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["doctor"],
    &["sinks"],
    &["sinks", "list"],
    &["sinks", "test"],
    &["dlq"],
    &["dlq", "list"],
    &["dlq", "replay"],
    &["dlq", "drop"],
    &["trace"],
    &["query"],
    &["pseudonym"],
    &["pseudonym", "resolve"],
    &["pseudonym", "of"],
    &["tail"],
    &["observe"],
    &["top"],
    &["completions"],
    &["man"],
];

#[test]
fn every_help_has_an_example() {
    for command in COMMANDS {
        let output = run(&[*command, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let help = stdout(&output);
        let example = format!("tokenscope {}", command.join(" "));
        let after = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{command:?} has no example")).1;
        assert!(after.contains(example.trim_end()), "{command:?}: {after}");
        assert!(!help.contains('\x1b'), "{command:?} is coloured without a terminal");
    }
}

#[test]
fn wrong_usage_is_two() {
    let cases: [&[&str]; 8] = [
        &[],
        &["bogus"],
        &["replay"],
        &["run", "--fail-on", "terrible"],
        &["rules", "show", "no-such-rule"],
        &["config", "check", "-v", "-q"],
        &["-o", "xml", "doctor"],
        &["rules", "list", "-o", "ecs"],
    ];
    for arguments in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_configuration_that_is_named_must_be_there() {
    for arguments in [&["run", "-c", "/nowhere.yaml"], &["config", "check", "/nowhere.yaml"]] as [&[&str]; 2]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("--> /nowhere.yaml"), "{}", stderr(&output));
    }
}

#[test]
fn check_tells_every_error_and_exits_with_two() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "capture: {prots: [80]}\nflows: {max_flows: 1}\n");
    let output = run(&["config", "check", &path]);
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    assert!(
        told.contains("did you mean `ports`?") && told.ends_with("2 errors; nothing was done\n"),
        "{told}"
    );
    let good = file(&dir, "capture: {ports: [80]}\n");
    let output = run(&["config", "check", &good]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), format!("{good}: ok\n")));
}

#[test]
fn what_show_prints_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let shown = stdout(&run(&["config", "show", "--default"]));
    let path = file(&dir, &shown);
    assert_eq!(run(&["config", "check", &path]).status.code(), Some(0));
    assert_eq!(stdout(&run(&["config", "show", "-c", &path])), shown);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "capture: {ports: [1]}\n");
    let ports = |command: &mut Command| {
        let shown = stdout(&command.output().unwrap());
        shown.lines().find(|line| line.trim_start().starts_with("ports:")).unwrap().trim().to_owned()
    };
    assert_eq!(ports(&mut tokenscope(&["config", "show"])), "ports: []");
    assert_eq!(ports(tokenscope(&["config", "show"]).env("TOKENSCOPE_CONFIG", &path)), "ports: [1]");
    let variable = ("TOKENSCOPE_CAPTURE__PORTS", "2,3");
    assert_eq!(
        ports(tokenscope(&["config", "show", "-c", &path]).env(variable.0, variable.1)),
        "ports: [2, 3]"
    );
    // The flag names the file, whatever the environment says.
    let mut both = tokenscope(&["config", "show", "-c", &path]);
    assert_eq!(ports(both.env("TOKENSCOPE_CONFIG", "/nowhere.yaml")), "ports: [1]");
}

#[test]
fn colour_is_for_terminals_and_for_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a: 1\n");
    let coloured = |arguments: &[&str], no_color: &str| {
        let output = tokenscope(arguments).env("NO_COLOR", no_color).output().unwrap();
        stderr(&output).contains('\x1b')
    };
    assert!(!coloured(&["config", "check", &path], ""));
    assert!(!coloured(&["config", "check", &path], "1"));
    assert!(coloured(&["config", "check", &path, "--color", "always"], "1"));
    assert!(!coloured(&["config", "check", &path, "--color", "never"], ""));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for arguments in [&["config", "show", "--default"], &["completions", "zsh"]] as [&[&str]; 2] {
        let mut child = tokenscope(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!((child.wait().unwrap().code(), told.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&run(&["completions", shell])).contains("replay"), "{shell}");
    }
    assert!(stdout(&run(&["man"])).contains(".TH tokenscope 1"));
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["man", "--dir", &dir.path().join("man1").display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(dir.path().join("man1/tokenscope-replay.1").exists());
}

#[test]
fn doctor_answers_line_by_line_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "metrics: {listen: 'off'}\nissuers: [{issuer: x, jwks: 'file:/nowhere.json'}]\n");
    let output = run(&["doctor", "-c", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).lines().any(|line| line.starts_with("FAIL  keys of x")), "{}", stdout(&output));
    let checks: serde_json::Value =
        serde_json::from_slice(&run(&["doctor", "-c", &path, "-o", "json"]).stdout).unwrap();
    let keys = checks.as_array().unwrap().iter().find(|check| check["check"] == "keys of x").unwrap();
    assert_eq!(keys["status"], "fail");
}

#[test]
fn replay_needs_nothing_but_a_capture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.pcap");
    // A capture file of microseconds, version 2.4, Ethernet, and no packets.
    let mut header = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        header.extend(word.to_le_bytes());
    }
    std::fs::write(&path, header).unwrap();
    let path = path.display().to_string();
    let output = run(&["replay", &path, "--fail-on", "low"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), String::new()));
    let last = stderr(&output);
    assert!(last.contains("replayed 1 file: 0 exchanges, 0 tokens, 0 alerts, 0 lost in "), "{last}");
    assert_eq!(stderr(&run(&["replay", &path, "-q"])), "");
}

#[test]
fn a_capture_that_cannot_be_read_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not.pcap");
    std::fs::write(&path, "this is no capture file at all, just a line of text").unwrap();
    for path in ["/nowhere.pcap".to_owned(), path.display().to_string()] {
        let output = run(&["replay", &path]);
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(stderr(&output).contains(&path), "{}", stderr(&output));
    }
}

#[test]
fn who_has_the_key_reads_pseudonyms() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(&dir, "privacy: {fingerprint_key: env:KEY}\n");
    let ask = |key: &str, arguments: &[&str]| {
        let mut command = tokenscope(&["-c", &config, "pseudonym"]);
        command.args(arguments).env("KEY", key).output().unwrap()
    };
    let made = ask("0123456789abcdef", &["of", "alice"]);
    let pseudonym = stdout(&made).trim().to_owned();
    assert_eq!(pseudonym, "p-jrdg5ei2uoatlw4ipuwjmbdivanhkumjqvic5xrhord7ndkt4tga");
    let read = ask("0123456789abcdef", &["resolve", &pseudonym]);
    assert_eq!((read.status.code(), stdout(&read).as_str()), (Some(0), "alice\n"));
    let json = ask("0123456789abcdef", &["resolve", "-o", "json", &pseudonym]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stdout(&json)).unwrap()[0]["name"], "alice");
    let foreign = ask("fedcba9876543210", &["resolve", &pseudonym]);
    assert_eq!(foreign.status.code(), Some(1));
    assert!(stderr(&foreign).contains("another key"), "{}", stderr(&foreign));
    let keyless = run(&["-c", &file(&dir, ""), "pseudonym", "of", "alice"]);
    assert_eq!(keyless.status.code(), Some(2));
    assert!(stderr(&keyless).contains("privacy.fingerprint_key"), "{}", stderr(&keyless));
}

/// Holds a page to what the program says; `BLESS=1` writes it anew.
fn hold(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/{page} is stale: BLESS=1 cargo test -p sensor-user docs");
}

#[test]
fn docs_of_the_configuration_are_fresh() {
    hold("config.md", &config::docs::markdown(cli::cards()));
}

#[test]
fn docs_of_the_commands_are_fresh() {
    hold("commands.md", &cli::docs::markdown());
}

#[test]
fn the_configuration_that_is_deployed_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config.yaml");
    let output = run(&["config", "check", &path.display().to_string()]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}
