//! Syslog to a real rsyslog: over UDP, TCP with both framings, and TLS; and through a restart of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod receivers;

use std::fs;
use std::path::Path;
use std::process::Command;

use receivers::{
    Server, at_last, authority, deliver, free_port, free_udp_port, here, node, program, stranger, told,
    wait_for,
};
use sensor_user::detect::Severity;
use sensor_user::render::Format;
use sensor_user::sink::client::TlsSettings;
use sensor_user::sink::syslog::message::{Form, Syntax};
use sensor_user::sink::syslog::{Framing, Settings, To, open};
use sensor_user::sink::wire::Place;
use sensor_user::sink::{Outcome, Sink};

struct Rsyslog {
    dir: tempfile::TempDir,
    trusted: TlsSettings,
    udp: u16,
    tcp: u16,
    tls: u16,
    server: Option<Server>,
}

impl Rsyslog {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trusted = authority(dir.path());
        let mut this =
            Self { dir, trusted, udp: free_udp_port(), tcp: free_port(), tls: free_port(), server: None };
        this.start();
        this
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn start(&mut self) {
        let dir = self.path().display();
        let Self { udp, tcp, tls, .. } = &*self;
        let config = format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\" defaultNetstreamDriverCAFile=\"{dir}/ca.pem\"\n\
             defaultNetstreamDriverCertFile=\"{dir}/cert.pem\" defaultNetstreamDriverKeyFile=\"{dir}/key.pem\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" socket=\"{dir}/dev-log\")\n\
             module(load=\"imudp\")\nmodule(load=\"imtcp\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{udp}\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tcp}\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tls}\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\"\n\
             streamDriver.authMode=\"anon\")\n\
             template(name=\"all\" type=\"string\" string=\"%syslogfacility-text%|%syslogseverity-text%|%timereported:::date-rfc3339%|\
             %hostname%|%app-name%|%msgid%|%structured-data%|%msg%\\n\")\n\
             *.* action(type=\"omfile\" file=\"{dir}/out\" template=\"all\")\n"
        );
        fs::write(self.path().join("conf"), config).unwrap();
        let rsyslogd = program(&["rsyslogd"], "rsyslog rsyslog-gnutls");
        let mut command = Command::new(rsyslogd);
        command.arg("-n").arg("-f").arg(self.path().join("conf")).arg("-i").arg(self.path().join("pid"));
        self.server = Some(Server::start(&mut command, &self.path().join("log")));
        for port in [self.tcp, self.tls] {
            wait_for("port of rsyslog", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        }
    }

    fn stop(&mut self) {
        self.server.take().unwrap().stop();
    }

    fn sink(to: To, framing: Framing, format: Format) -> Box<dyn Sink> {
        Self::with(to, framing, format, false)
    }

    fn with(to: To, framing: Framing, format: Format, confirm: bool) -> Box<dyn Sink> {
        let element = Some("tokenscope@32473".into());
        let syntax = if matches!(to, To::Unix(_)) { Syntax::Local } else { Syntax::Rfc5424 };
        let form = Form { syntax, facility: 10, app: "tokenscope".into(), element, format, max_bytes: 8192 };
        open(&Settings { to, framing, confirm, form }, &node()).unwrap()
    }

    /// What it wrote, once there are so many lines, in fields.
    fn lines(&self, least: usize) -> Vec<Vec<String>> {
        wait_for("line of rsyslog", || {
            let text = fs::read_to_string(self.path().join("out")).unwrap_or_default();
            let fields = |line: &str| line.splitn(8, '|').map(str::to_owned).collect::<Vec<_>>();
            (text.lines().count() >= least && text.ends_with('\n'))
                .then(|| text.lines().map(fields).collect())
        })
    }
}

/// The number in `[meta sequenceId="7"]`.
fn number(line: &[String]) -> u64 {
    let data = &line[6];
    data.split("sequenceId=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn the_socket_of_this_host_reads_messages_as_usual_programs_write_them() {
    let rsyslog = Rsyslog::new();
    let to = To::Unix(rsyslog.path().join("dev-log"));
    let mut sink = Rsyslog::sink(to, Framing::Octets, Format::Ocsf);
    let events = [told(1, Severity::Critical), told(2, Severity::Low)];
    assert!(matches!(deliver(&mut sink, &events).await, Outcome::Done { .. }));
    let lines = rsyslog.lines(2);
    for ((event, line), severity) in events.iter().zip(&lines).zip(["crit", "notice"]) {
        assert_eq!((line[..2].join("|"), line[4].as_str()), (format!("authpriv|{severity}"), "tokenscope"));
        let text: serde_json::Value = serde_json::from_str(line[7].trim_start()).unwrap();
        assert_eq!(&text, event.value());
    }
}

#[tokio::test(flavor = "current_thread")]
async fn messages_arrive_whole_by_every_way() {
    let rsyslog = Rsyslog::new();
    let trusted = rsyslog.trusted.clone();
    let (tcp, tls) = (here(rsyslog.tcp), here(rsyslog.tls));
    // `localhost` may be IPv6 first, where rsyslog does not listen, and by UDP nobody says so.
    let udp = Place { host: "127.0.0.1".into(), port: rsyslog.udp };
    let ways = [
        (To::Udp(udp), Framing::Octets),
        (To::Tcp(tcp.clone()), Framing::Octets),
        (To::Tcp(tcp), Framing::Newline),
        (To::Tls(tls.clone(), trusted), Framing::Octets),
    ];
    let severities = [
        (Severity::Low, "notice"),
        (Severity::Medium, "warning"),
        (Severity::High, "err"),
        (Severity::Critical, "crit"),
    ];
    let mut sent = 0;
    for (to, framing) in ways {
        for format in [Format::Ocsf, Format::Cef, Format::Compact] {
            let mut sink = Rsyslog::sink(to.clone(), framing, format);
            let events: Vec<_> =
                severities.iter().zip(1..).map(|((severity, _), n)| told(sent + n, *severity)).collect();
            assert!(matches!(deliver(&mut sink, &events).await, Outcome::Done { .. }));
            sent += 4;
            let lines = rsyslog.lines(usize::try_from(sent).unwrap());
            for ((event, line), (_, word)) in events.iter().zip(&lines[lines.len() - 4..]).zip(severities) {
                assert_eq!(line[..2], ["authpriv", word]);
                assert_eq!(line[2], "2026-11-21T18:04:05.123Z");
                assert_eq!(line[3..6], ["node-1", "tokenscope", "alg-none"]);
                assert!(
                    line[6].starts_with("[tokenscope@32473 id=\"")
                        && line[6].contains("client=\"192.0.2.7\"")
                );
                assert_eq!(number(line), event.sequence);
                let text = line[7].trim_start_matches('\u{feff}');
                let mut expected = String::new();
                format.told(event, false, &mut expected);
                let (text, expected) = (text.trim_start_matches(' '), expected.trim_end());
                match format {
                    Format::Ocsf => assert_eq!(json(text), json(expected)),
                    _ => assert_eq!(text, expected),
                }
            }
        }
    }
    // Somebody else's authority: not a word.
    let mut deceived = Rsyslog::sink(To::Tls(tls, stranger(rsyslog.path())), Framing::Octets, Format::Ocsf);
    let outcome = deliver(&mut deceived, &[told(900, Severity::High)]).await;
    assert!(matches!(outcome, Outcome::Later { .. }), "{outcome:?}");
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// The numbers of what came, once that one is among them.
fn numbers(rsyslog: &Rsyslog, last: u64) -> Vec<u64> {
    wait_for("last message", || {
        let got: Vec<u64> = rsyslog.lines(1).iter().map(|line| number(line)).collect();
        got.contains(&last).then_some(got)
    })
}

/// Sends 30 messages one by one, with two restarts of the receiver among them. How many came twice.
async fn through_restarts(
    rsyslog: &mut Rsyslog,
    sink: &mut Box<dyn Sink>,
    first: u64,
    confirmed: bool,
) -> usize {
    for now in first..first + 30 {
        if now % 10 == 5 {
            if !confirmed {
                // What was written before the last one has been read.
                numbers(rsyslog, now - 2);
            }
            rsyslog.stop();
            let outcome = deliver(sink, &[told(now, Severity::High)]).await;
            assert!(matches!(outcome, Outcome::Later { .. }), "nobody is there: {outcome:?}");
            rsyslog.start();
        }
        at_last(sink, &[told(now, Severity::High)]).await;
    }
    let got = numbers(rsyslog, first + 29);
    let missing: Vec<u64> = (first..first + 30).filter(|n| !got.contains(n)).collect();
    assert_eq!(missing, [0; 0]);
    got.iter().filter(|n| **n >= first).count() - 30
}

#[tokio::test(flavor = "current_thread")]
async fn a_restart_of_the_receiver_loses_nothing() {
    let mut rsyslog = Rsyslog::new();
    let tls = rsyslog.trusted.clone();
    let ways = [To::Tcp(here(rsyslog.tcp)), To::Tls(here(rsyslog.tls), tls)];
    for (to, first) in ways.iter().zip([1_001, 2_001]) {
        let mut sink = Rsyslog::sink(to.clone(), Framing::Octets, Format::Compact);
        let twice = through_restarts(&mut rsyslog, &mut sink, first, false).await;
        assert!((3..=6).contains(&twice), "each restart repeats the last batch, at most twice: {twice}");
    }
    for (to, first) in ways.iter().zip([3_001, 4_001]) {
        let mut sink = Rsyslog::with(to.clone(), Framing::Octets, Format::Compact, true);
        let twice = through_restarts(&mut rsyslog, &mut sink, first, true).await;
        assert!(twice <= 3, "only what was not confirmed comes again: {twice}");
    }
}
