//! Tests against a server that says what each test wants it to say.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::alert::staging::alert;
use crate::alert::{Alert, Event};

pub(super) fn settings(port: u16) -> Settings {
    let mailbox = |text: &str| text.parse().unwrap();
    Settings {
        server: Place { host: "127.0.0.1".into(), port },
        security: Security::None,
        insecure: false,
        tls: TlsSettings::default(),
        login: None,
        from: mailbox("Tokenscope <sensor@shop.example>"),
        to: vec![mailbox("a@shop.example"), mailbox("B <b@shop.example>")],
        cc: vec![mailbox("c@shop.example")],
        digest: Some(Duration::from_mins(1)),
        digest_events: 50,
    }
}

fn told(sequence: u64, severity: Severity) -> Arc<Told> {
    let alert = Alert { severity, ..alert() };
    Arc::new(Told::of(&Event::Alert(Box::new(alert)), Some(sequence), Some(&Node::named("me"))))
}

/// What one connection to the server saw, and the mails that it took.
#[derive(Debug, Default)]
struct Seen {
    said: Vec<String>,
    mails: Vec<String>,
}

/// Answers a command; `None` closes the connection.
type Answer = fn(&str) -> Option<String>;

fn kind(command: &str) -> Option<String> {
    let word = command.split([' ', ':']).next().unwrap_or_default();
    Some(match word {
        "EHLO" => "250-server\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 1000000".into(),
        "DATA" => "354 go on".into(),
        "QUIT" => return None,
        _ => "250 2.0.0 fine".into(),
    })
}

async fn serve(listener: &TcpListener, answer: Answer) -> Seen {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut seen = Seen::default();
    stream.write_all(b"220 server\r\n").await.unwrap();
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
        let command = std::mem::take(&mut line).trim_end().to_owned();
        let Some(reply) = answer(&command) else { break };
        seen.said.push(command.clone());
        if stream.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
            break;
        }
        if command == "DATA" && reply.starts_with("354") {
            let mut mail = String::new();
            while !mail.ends_with("\r\n.\r\n") && stream.read_line(&mut mail).await.is_ok_and(|n| n > 0) {}
            let Some(reply) = answer("END") else { break };
            seen.mails.push(mail);
            let _ = stream.write_all(format!("{reply}\r\n").as_bytes()).await;
        }
    }
    seen
}

/// Delivers once to a server that answers so.
async fn once(answer: Answer, events: &[Arc<Told>]) -> (Outcome, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(listener.local_addr().unwrap().port());
    let mut sink = open(&settings, &Node::named("me")).unwrap();
    tokio::join!(sink.deliver(events), serve(&listener, answer))
}

fn ids(mails: &[String]) -> Vec<&str> {
    mails.iter().map(|mail| mail.split("Message-ID: <").nth(1).unwrap().split('>').next().unwrap()).collect()
}

fn done() -> Outcome {
    Outcome::done("250 2.0.0 fine")
}

#[tokio::test(flavor = "current_thread")]
async fn the_severe_come_alone_and_the_rest_together() {
    use Severity::{Critical, High, Low, Medium};
    let events = [told(1, Critical), told(2, Low), told(3, High), told(4, Medium)];
    let (outcome, seen) = once(kind, &events).await;
    assert_eq!(outcome, done());
    let subjects: Vec<&str> = seen
        .mails
        .iter()
        .map(|mail| mail.split("Subject: ").nth(1).unwrap().split("\r\n").next().unwrap())
        .collect();
    assert_eq!(
        subjects,
        [
            "[CRITICAL] alg-none on shop/orders-7f9c (me)",
            "[HIGH] alg-none on shop/orders-7f9c (me)",
            "[digest] 2 events, worst medium (me)"
        ]
    );
    let recipients = seen.said.iter().filter(|said| said.starts_with("RCPT")).count();
    assert_eq!(recipients, 9, "three each");
    assert_eq!(seen.said[0], "EHLO me");
}

#[tokio::test(flavor = "current_thread")]
async fn patience_is_for_what_is_gathered() {
    let sink = open(&settings(1), &Node::named("me")).unwrap();
    assert_eq!(sink.patience(Severity::Medium), Duration::from_mins(1));
    assert_eq!(sink.patience(Severity::High), Duration::ZERO);
    let none = Settings { digest: None, ..settings(1) };
    assert_eq!(open(&none, &Node::named("me")).unwrap().patience(Severity::Low), Duration::ZERO);
}

#[tokio::test(flavor = "current_thread")]
async fn one_wrong_recipient_keeps_the_mail_from_nobody_else() {
    let answer: Answer = |said| match said {
        "RCPT TO:<b@shop.example>" => Some("550 5.1.1 no such user".into()),
        said => kind(said),
    };
    let (outcome, seen) = once(answer, &[told(1, Severity::High)]).await;
    assert_eq!(seen.mails.len(), 1);
    let Outcome::Done { refused, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].reason.as_str(), "b@shop.example: 550 5.1.1 no such user");
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_refused_for_good_is_refused_and_what_is_not_comes_again() {
    let cases: [(Answer, bool); 7] = [
        (|said| if said.starts_with("RCPT") { Some("550 no".into()) } else { kind(said) }, true),
        (|said| if said.starts_with("RCPT") { Some("450 greylisted".into()) } else { kind(said) }, false),
        (|said| if said == "DATA" { Some("554 no".into()) } else { kind(said) }, true),
        (|said| if said == "END" { Some("552 too big".into()) } else { kind(said) }, true),
        (|said| if said == "END" { Some("451 disk full".into()) } else { kind(said) }, false),
        (|said| if said.starts_with("MAIL") { Some("550 not you".into()) } else { kind(said) }, false),
        (|said| if said.starts_with("EHLO") { Some("554 go away".into()) } else { kind(said) }, false),
    ];
    for (number, (answer, is_final)) in cases.into_iter().enumerate() {
        let (outcome, _) = once(answer, &[told(1, Severity::High)]).await;
        match outcome {
            Outcome::Done { refused, .. } => assert!(is_final && refused.len() == 1, "{number}"),
            Outcome::Later { .. } => assert!(!is_final, "{number}"),
        }
    }
}

/// The first mail is taken, the connection ends after the second's last byte.
async fn cut(listener: &TcpListener) -> Vec<String> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let (mut mails, mut line) = (Vec::new(), String::new());
    stream.write_all(b"220 server\r\n").await.unwrap();
    while mails.len() < 2 {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        stream.write_all(format!("{}\r\n", kind(line.trim_end()).unwrap()).as_bytes()).await.unwrap();
        if line.trim_end() == "DATA" {
            let mut mail = String::new();
            while !mail.ends_with("\r\n.\r\n") {
                stream.read_line(&mut mail).await.unwrap();
            }
            mails.push(mail);
            if mails.len() < 2 {
                stream.write_all(b"250 fine\r\n").await.unwrap();
            }
        }
    }
    mails
}

#[tokio::test(flavor = "current_thread")]
async fn a_mail_of_which_nobody_knows_comes_again_under_the_same_id() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = open(&settings(listener.local_addr().unwrap().port()), &Node::named("me")).unwrap();
    let events =
        [told(1, Severity::High), told(2, Severity::High), told(3, Severity::Low), told(4, Severity::Low)];
    let (outcome, first) = tokio::join!(sink.deliver(&events), cut(&listener));
    assert!(matches!(outcome, Outcome::Later { .. }), "{outcome:?}");
    let (outcome, second) = tokio::join!(sink.deliver(&events), serve(&listener, kind));
    assert_eq!(outcome, done());
    assert_eq!(second.mails.len(), 2, "what was taken does not come again");
    assert_eq!(ids(&first)[1], ids(&second.mails)[0]);
    assert_eq!(first[1], second.mails[0]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_digest_comes_again_as_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = open(&settings(listener.local_addr().unwrap().port()), &Node::named("me")).unwrap();
    let mut events = vec![told(1, Severity::Low), told(2, Severity::Low)];
    let full: Answer = |said| if said == "END" { Some("451 later".into()) } else { kind(said) };
    let (outcome, first) = tokio::join!(sink.deliver(&events), serve(&listener, full));
    assert!(matches!(outcome, Outcome::Later { .. }));
    events.extend([told(3, Severity::Low), told(4, Severity::Low)]);
    let (outcome, second) = tokio::join!(sink.deliver(&events), serve(&listener, kind));
    assert_eq!(outcome, done());
    assert_eq!(second.mails.len(), 2);
    assert_eq!(first.mails[0], second.mails[0]);
}

#[tokio::test(flavor = "current_thread")]
async fn endless_and_nonsensical_replies_are_cut_off() {
    let endless: &'static [u8] = vec![b'2'; 100_000].leak();
    let replies: [&'static [u8]; 6] =
        [endless, b"220-a\r\n250 b\r\n", b"HTTP/1.1 200 OK\r\n", b"22\r\n", b"220xhello\r\n", b""];
    for said in replies {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sink = open(&settings(listener.local_addr().unwrap().port()), &Node::named("me")).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(said).await;
        };
        let events = [told(1, Severity::High)];
        let (outcome, ()) = tokio::join!(sink.deliver(&events), server);
        assert!(matches!(outcome, Outcome::Later { .. }), "{outcome:?}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = open(&settings(listener.local_addr().unwrap().port()), &Node::named("me")).unwrap();
    let endless = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(b"220-and so on\r\n").await.is_ok() {}
    };
    let events = [told(1, Severity::High)];
    let (outcome, ()) = tokio::join!(sink.deliver(&events), endless);
    let Outcome::Later { reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.as_str().contains("something else than SMTP"), "{reason}");
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_gets_a_password_in_the_clear() {
    let login = Login { user: "me".into(), password: Secret(zeroize::Zeroizing::new(b"hunter2".to_vec())) };
    let away = Settings {
        server: Place { host: "mail.example".into(), port: 25 },
        login: Some(login.clone()),
        ..settings(1)
    };
    assert!(open(&away, &Node::named("me")).is_err());
    assert!(!format!("{away:?}").contains("hunter2"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let start_tls = Settings { security: Security::StartTls, login: Some(login.clone()), ..settings(port) };
    let mut sink = open(&start_tls, &Node::named("me")).unwrap();
    let events = [told(1, Severity::High)];
    let (outcome, seen) = tokio::join!(sink.deliver(&events), async {
        let seen = tokio::time::timeout(Duration::from_secs(5), serve(&listener, kind));
        seen.await.unwrap_or_default()
    });
    assert_eq!(outcome, Outcome::later(format!("127.0.0.1:{port}: the server does not offer STARTTLS")));
    assert_eq!(seen.said, ["EHLO me"]);
    // On this host it may: both ways to log in.
    for way in ["PLAIN", "LOGIN"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = Settings { login: Some(login.clone()), ..settings(listener.local_addr().unwrap().port()) };
        let mut sink = open(&here, &Node::named("me")).unwrap();
        let plain: Answer =
            |said| if said.starts_with("AUTH") { Some("235 fine".into()) } else { kind(said) };
        let steps: Answer = |said| match said {
            said if said.starts_with("EHLO") => Some("250-server\r\n250 AUTH LOGIN".into()),
            "AUTH LOGIN" | "bWU=" => Some("334 VXNlcm5hbWU6".into()),
            "aHVudGVyMg==" => Some("235 fine".into()),
            said => kind(said),
        };
        let answer = if way == "PLAIN" { plain } else { steps };
        let (outcome, seen) = tokio::join!(sink.deliver(&events), serve(&listener, answer));
        assert_eq!(outcome, done(), "{way}");
        assert!(seen.said.iter().any(|said| said == "AUTH PLAIN AG1lAGh1bnRlcjI=" || said == "aHVudGVyMg=="));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_said_before_tls_is_not_believed_after_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings =
        Settings { security: Security::StartTls, ..settings(listener.local_addr().unwrap().port()) };
    let mut sink = open(&settings, &Node::named("me")).unwrap();
    let events = [told(1, Severity::High)];
    let injecting = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 a\r\n").await.unwrap();
        let mut buffer = [0; 100];
        let _ = stream.read(&mut buffer).await;
        stream.write_all(b"250-a\r\n250 STARTTLS\r\n").await.unwrap();
        let _ = stream.read(&mut buffer).await;
        stream.write_all(b"220 go\r\n250-a\r\n250 AUTH PLAIN\r\n").await.unwrap();
        // It would hang here if we began a handshake.
        let _ = stream.read(&mut buffer).await;
    };
    let (outcome, ()) = tokio::join!(sink.deliver(&events), injecting);
    let Outcome::Later { reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.as_str().contains("something else than TLS"), "{reason}");
}
