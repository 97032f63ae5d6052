//! `tail` and `observe` as people run them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use rustix::process::{Pid, Signal, kill_process};
use sensor_user::control::Settings;
use sensor_user::spool::{self, Spool};
use serde_json::Value;

use crate::sensor::{DEADLINE, Sensor, now, until};

pub(crate) fn tokenscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenscope"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// A command that goes on, and the lines that it writes.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(socket: &Path, arguments: &[&str]) -> Self {
        let mut command = tokenscope(arguments);
        command.arg("--socket").arg(socket).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = sync_channel(200_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(DEADLINE).unwrap()
    }

    fn sequences(&self, count: usize) -> Vec<u64> {
        let of =
            |line: String| serde_json::from_str::<Value>(&line).unwrap()["metadata"]["sequence"].as_u64();
        (0..count).map(|_| of(self.next()).unwrap()).collect()
    }

    /// Interrupts it; what it says at the end.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On a host without a list of authorities: nothing is asked of them.
fn run(socket: &Path, arguments: &[&str]) -> Output {
    let nowhere = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|name| (name, "/nonexistent"));
    tokenscope(arguments).envs(nowhere).arg("--socket").arg(socket).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn tail_shows_the_newest_in_every_form() {
    let sensor = Sensor::start();
    sensor.append(30);
    for (arguments, lines) in [
        (&["tail"][..], 20),
        (&["tail", "-n", "3"], 3),
        (&["tail", "--since", "1h"], 30),
        (&["tail", "--since", "1h", "-n", "2"], 2),
        (&["tail", "--min-severity", "critical"], 7),
        (&["tail", "--rule", "rule-1", "--rule", "rule-2"], 6),
        (&["tail", "-n", "0"], 0),
    ] {
        let output = run(&sensor.socket(), arguments);
        let shown = text(&output.stdout);
        assert_eq!((output.status.code(), shown.lines().count()), (Some(0), lines), "{arguments:?} {shown}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
    }
    let last = |format: &str| text(&run(&sensor.socket(), &["tail", "-n", "1", "-o", format]).stdout);
    assert!(last("compact").contains("rule-0") && !last("compact").starts_with('{'));
    assert!(last("json").contains("\"number 30\""));
    assert!(last("yaml").starts_with("---\n"));
    assert!(last("ecs").contains("@timestamp"));
    assert!(last("falco").contains("output_fields"));
    assert!(last("cef").starts_with("CEF:0|"));
}

#[test]
fn tail_follows_until_it_is_interrupted() {
    let sensor = Sensor::start();
    sensor.append(5);
    let tail = Running::start(&sensor.socket(), &["tail", "-f", "-n", "2", "-o", "ocsf"]);
    assert_eq!(tail.sequences(2), [4, 5]);
    sensor.append(3);
    assert_eq!(tail.sequences(3), [6, 7, 8]);
    assert_eq!(tail.interrupt(), (Some(0), "5 alerts shown, no gaps\n".into()));
}

#[test]
fn a_sensor_that_restarts_is_followed_on_and_every_alert_comes_once() {
    let mut sensor = Sensor::start();
    sensor.append(3);
    let tail = Running::start(&sensor.socket(), &["tail", "-f", "-o", "ocsf"]);
    assert_eq!(tail.sequences(3), [1, 2, 3]);
    for round in 1..=3_u64 {
        sensor.stop();
        sensor.append(2);
        sensor.start_again();
        assert_eq!(tail.sequences(2), [round * 2 + 2, round * 2 + 3]);
    }
    sensor.stop();
    sensor.start_anew();
    sensor.append(2);
    assert_eq!(tail.sequences(2), [1, 2], "a sensor without a spool on disk counts anew");
    let (status, said) = tail.interrupt();
    assert_eq!(status, Some(0));
    assert!(said.contains("connecting again") && said.contains("counts anew"), "{said}");
    assert!(said.ends_with("11 alerts shown, no gaps, connected again 4 times\n"), "{said}");
}

#[test]
fn without_reconnecting_it_ends_with_the_sensor() {
    let mut sensor = Sensor::start();
    sensor.append(1);
    let mut tail = Running::start(&sensor.socket(), &["tail", "-f", "--no-reconnect", "-o", "ocsf"]);
    assert_eq!(tail.sequences(1), [1]);
    sensor.stop();
    assert_eq!(tail.child.wait().unwrap().code(), Some(0));
}

/// Cuts each connection after so many bytes of the answer, a few more each time.
fn cutter(to: PathBuf, at: PathBuf) {
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for (round, near) in listener.incoming().map_while(Result::ok).enumerate() {
            let Ok(mut far) = UnixStream::connect(&to) else { return };
            let (mut near, mut back) = (near.try_clone().unwrap(), near);
            let mut asking = far.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut near, &mut asking));
            let mut left = 3_000 + round * 1_777;
            let mut piece = [0; 512];
            while left > 0 {
                let size = far.read(&mut piece).unwrap_or(0).min(left);
                if size == 0 || back.write_all(&piece[..size]).is_err() {
                    break;
                }
                left -= size;
            }
            let _ = back.shutdown(std::net::Shutdown::Both);
            let _ = far.shutdown(std::net::Shutdown::Both);
        }
    });
}

#[test]
fn connections_that_are_cut_anywhere_lose_and_repeat_nothing() {
    const MANY: u64 = 400;
    let sensor = Sensor::start();
    let at = sensor.dir.path().join("cut.sock");
    cutter(sensor.socket(), at.clone());
    sensor.append(MANY);
    let tail = Running::start(&at, &["tail", "-f", "--since", "1h", "-o", "ocsf"]);
    assert_eq!(tail.sequences(usize::try_from(MANY).unwrap()), (1..=MANY).collect::<Vec<_>>());
    let (status, said) = tail.interrupt();
    assert!(status == Some(0) && said.contains("400 alerts shown, no gaps, connected again"), "{said}");
}

#[test]
fn a_gap_is_said_loudly() {
    let sensor = Sensor::start();
    sensor.append(60_000);
    let at = sensor.dir.path().join("late.sock");
    // A reader that was at number 1 long ago: the sensor has given up what came after.
    let listener = UnixListener::bind(&at).unwrap();
    let to = sensor.socket();
    std::thread::spawn(move || {
        let mut near = listener.accept().unwrap().0;
        let mut request = [0; 4096];
        let size = near.read(&mut request).unwrap();
        let request = String::from_utf8_lossy(&request[..size]).replace("last=20", "after=1");
        let mut far = UnixStream::connect(to).unwrap();
        far.write_all(request.as_bytes()).unwrap();
        let _ = std::io::copy(&mut far, &mut near);
    });
    let output = run(&at, &["tail", "-o", "ocsf"]);
    let said = text(&output.stderr);
    assert!(said.starts_with("GAP: number 2 to ") && said.contains("lost"), "{said}");
    assert!(text(&output.stdout).lines().count() > 1_000);
}

#[test]
fn what_is_wrong_is_said_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.sock");
    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    for (socket, arguments, status, words) in [
        (&missing, &["tail"][..], 1, "start `tokenscope run`"),
        (&missing, &["tail", "-f"], 1, "no sensor runs here"),
        (&missing, &["observe"], 1, "no sensor runs here"),
        (&dead, &["tail"], 1, "nobody answers"),
        (&missing, &["tail", "--since", "yesterday"], 2, "--since"),
        (&missing, &["tail", "--min-severity", "awful"], 2, "low, medium, high or critical"),
        (&missing, &["tail", "-n", "10001"], 2, "--since"),
        (&missing, &["observe", "--rule", "x"], 2, "`tail`"),
        (&missing, &["observe", "-o", "cef"], 2, "compact"),
    ] {
        let output = run(socket, arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(words), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn while_no_sensor_runs_what_it_has_left_is_shown() {
    let state = tempfile::tempdir().unwrap();
    let settings = spool::Settings { max_bytes: 64 << 20, max_age: DEADLINE, sync: spool::Sync::Never };
    let spool = Spool::open(&state.path().join("spool"), settings, now().millis()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { socket: Some(dir.path().join("control.sock")), listen: None };
    let mut sensor = Sensor::over(spool, dir, &settings);
    sensor.append(50);
    let tail = |socket: &Path| {
        let mut command = tokenscope(&["tail", "-o", "ocsf", "--min-severity", "high", "--state-dir"]);
        let output = command.arg(state.path()).arg("--socket").arg(socket).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (_, asked, said) = tail(&sensor.socket());
    assert_eq!(said, "");
    sensor.stop();
    let (status, read, said) = tail(&sensor.socket());
    assert_eq!((status, read), (Some(0), asked), "the same alerts");
    assert!(said.starts_with("no sensor runs: these are the alerts in "), "{said}");
}

#[test]
fn another_user_is_told_whose_it_is() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can run a command as somebody else");
        return;
    }
    let sensor = Sensor::start();
    let mut command = tokenscope(&["tail", "--socket"]);
    let output = command.arg(sensor.socket()).current_dir("/").uid(65_534).gid(65_534).output();
    let Ok(output) = output else {
        println!("SKIPPED: the binary is where nobody else may run it");
        return;
    };
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("use sudo"), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sensor = Sensor::start();
    sensor.append(1);
    let mut tail = Running::start(&sensor.socket(), &["tail", "-f", "-o", "ocsf"]);
    tail.next();
    // Its reader ends with the channel that it fills.
    let (_, never) = sync_channel(0);
    drop(std::mem::replace(&mut tail.lines, never));
    until("it ends", || {
        sensor.append(1);
        tail.child.try_wait().unwrap().is_some()
    });
    assert_eq!(tail.child.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    tail.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn observe_shows_exchanges_in_every_form() {
    let sensor = Sensor::start();
    for (format, words) in [
        ("compact", "GET /orders/{id} 200  -  10.0.0.0 -> 10.0.0.1:80"),
        ("ocsf", "\"class_uid\":6003"),
        ("yaml", "class_uid: 6003"),
        ("ecs", "\"tokenscope.exchanges\""),
    ] {
        let observe = Running::start(&sensor.socket(), &["observe", "-n", "1", "-o", format]);
        until("it follows", || sensor.exchanges.receiver_count() == 1);
        sensor.publish(1);
        let mut shown = String::new();
        while !shown.contains(words) {
            shown.push_str(&observe.next());
        }
        until("it is gone", || sensor.exchanges.receiver_count() == 0);
    }
}

#[test]
fn observe_follows_and_tells_at_the_end() {
    let sensor = Sensor::start();
    let observe = Running::start(&sensor.socket(), &["observe", "-f", "--address", "10.0.0.1"]);
    until("it follows", || sensor.exchanges.receiver_count() == 1);
    sensor.publish(5);
    assert!(observe.next().contains("\"path\":\"/orders/1\""));
    assert_eq!(observe.interrupt(), (Some(0), "1 exchanges shown, no gaps\n".into()));
}
