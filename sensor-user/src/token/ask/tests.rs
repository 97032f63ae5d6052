//! The asker against a real Redis server, and against servers that lie, hang and flood, on loopback.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::token::facts::{Fingerprint, StatusRef};
use crate::token::forge::{self, Signer};
use crate::token::inquiry::StatusAsk;
use crate::token::settings::{Algorithm, DenyList, Introspection, RevocationSettings, Secret, StatusSource};
use crate::token::status::tests::list as status_list;

/// A Redis server on a port of its own, in a directory of its own; ends with the test.
struct Redis {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    /// None where Redis is not installed.
    fn start(password: Option<&str>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--dir", dir.path().to_str().unwrap()]);
        if let Some(password) = password {
            command.args(["--requirepass", password]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let redis = Self { child, port, _dir: dir };
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "redis-server ended");
        }
        // It says little more; what it says goes nowhere.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Some(redis)
    }

    /// Says something to the server, as its own tool would.
    fn say(&self, words: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{words}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(!answer.contains("-ERR"), "{answer}");
    }
}

fn list(address: String) -> DenyList {
    DenyList { address, user: None, password: None, database: 0, pattern: "blacklist:{jti}".into() }
}

fn with_list(list: DenyList) -> TokenSettings {
    let revocation =
        RevocationSettings { list: Some(list), timeout: Duration::from_millis(500), ..Default::default() };
    TokenSettings { revocation, ..TokenSettings::default() }
}

fn with_issuer(url: String) -> TokenSettings {
    let secret = Some(Secret(b"s3cret/+".to_vec().into()));
    let introspection = Some(Introspection { url, client: "sensor".into(), secret });
    let issuer = crate::token::settings::Issuer { introspection, ..forge::issuer(&[Algorithm::ES256]) };
    let revocation = RevocationSettings { timeout: Duration::from_millis(500), ..Default::default() };
    TokenSettings { revocation, ..forge::settings(vec![issuer]) }
}

fn about(number: u8, id: Option<&str>, text: Option<&str>) -> Inquiry {
    Inquiry {
        fingerprint: Fingerprint([number; 16]),
        id: id.map(Into::into),
        introspect: text.map(|text| (0, zeroize::Zeroizing::new(text.as_bytes().into()))),
        status: None,
        verified: true,
    }
}

fn standings(asker: &mut Asker, batch: &[Inquiry]) -> Vec<Option<Standing>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(asker.answer(batch)).iter().map(|answer| answer.standing).collect()
}

const LISTED: Option<Standing> = Some(Standing::Listed);
const GOOD: Option<Standing> = Some(Standing::Good);

#[test]
fn a_real_redis_tells_the_revoked_from_the_good() {
    let Some(redis) = Redis::start(Some("hunter2")) else { return };
    redis.say("AUTH hunter2\r\nSELECT 3\r\nSET blacklist:gone 1 EX 600");
    let password = Some(Secret(b"hunter2".to_vec().into()));
    let settings = DenyList { password, database: 3, ..list(format!("127.0.0.1:{}", redis.port)) };
    let mut asker = Asker::new(&with_list(settings.clone())).unwrap().unwrap();
    // One event loop for all: the connection is kept and belongs to it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let batch =
        [about(1, Some("gone"), None), about(2, Some("here"), None), about(3, Some("x\r\nFLUSHALL"), None)];
    for _ in 0..3 {
        let said: Vec<_> = runtime.block_on(asker.answer(&batch)).iter().map(|a| a.standing).collect();
        assert_eq!(said, [LISTED, GOOD, GOOD]);
    }
    // The server closes the connection: a new one is made.
    redis.say("AUTH hunter2\r\nCLIENT KILL TYPE normal SKIPME yes");
    let said: Vec<_> = runtime.block_on(asker.answer(&batch)).iter().map(|a| a.standing).collect();
    assert_eq!(said, [LISTED, GOOD, GOOD]);
    let wrong = DenyList { password: Some(Secret(b"guess".to_vec().into())), ..settings };
    assert_eq!(
        standings(&mut Asker::new(&with_list(wrong)).unwrap().unwrap(), &batch[..1]),
        [None],
        "a refused password is no answer"
    );
}

/// Serves connections one after another, each with what `answer` makes of what was asked.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the test process; a thread in accept() holds nothing.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            answer(&String::from_utf8_lossy(&bytes[..count]), &mut stream);
        }
    });
    address
}

#[test]
fn a_list_that_lies_hangs_or_floods_tells_nothing() {
    let lies: [&[u8]; 6] = [b":2\r\n", b"+OK\r\n", b"-ERR no\r\n", b"$3\r\nabc\r\n", b"", b":0\n"];
    for lie in lies {
        let address = serve(move |_, stream| drop(stream.write_all(lie)));
        let mut asker = Asker::new(&with_list(list(address.to_string()))).unwrap().unwrap();
        assert_eq!(standings(&mut asker, &[about(1, Some("a"), None)]), [None]);
    }
    let address = serve(|_, stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let mut asker = Asker::new(&with_list(list(address.to_string()))).unwrap().unwrap();
    assert_eq!(standings(&mut asker, &[about(1, Some("a"), None)]), [None], "a line without end");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut asker = Asker::new(&with_list(list(silent.local_addr().unwrap().to_string()))).unwrap().unwrap();
    assert_eq!(standings(&mut asker, &[about(1, Some("a"), None)]), [None], "a server that says nothing");
    let gone = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let mut asker = Asker::new(&with_list(list(gone.to_string()))).unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(standings(&mut asker, &[about(1, Some("a"), None)]), [None]);
    }
    assert!(asker.list.unwrap().1.until.is_some(), "it is left alone for a while");
}

fn http(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn an_issuer_is_asked_as_the_rfc_says() {
    let signer = Signer::shared(Algorithm::ES256);
    let address = serve(|asked, stream| {
        assert!(asked.starts_with("POST /introspect HTTP/1.1\r\n"));
        // "sensor:s3cret%2F%2B" in base64.
        assert!(asked.to_ascii_lowercase().contains("authorization: basic "), "{asked}");
        assert!(asked.contains("Basic c2Vuc29yOnMzY3JldCUyRiUyQg=="), "{asked}");
        let active = asked.contains("token=good");
        let body = format!(r#"{{"active":{active},"exp":2000000000}}"#);
        stream.write_all(http(&body).as_bytes()).unwrap();
    });
    let mut asker = Asker::new(&with_issuer(format!("http://{address}/introspect"))).unwrap().unwrap();
    assert_eq!(standings(&mut asker, &[about(1, None, Some("good"))]), [GOOD]);
    let real = signer.token("alice");
    assert_eq!(standings(&mut asker, &[about(2, None, Some(&real))]), [Some(Standing::Inactive)]);
}

#[test]
fn an_issuer_that_lies_hangs_or_redirects_tells_nothing() {
    let flood = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(200_000));
    for lie in [
        http(r#"{"active":"true"}"#),
        http(r#"{"active":false,"iss":"https://evil.example/"}"#),
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into(),
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
            .into(),
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx".into(),
        "nonsense".into(),
        flood,
    ] {
        let address = serve(move |_, stream| drop(stream.write_all(lie.as_bytes())));
        let mut asker = Asker::new(&with_issuer(format!("http://{address}/"))).unwrap().unwrap();
        assert_eq!(standings(&mut asker, &[about(1, None, Some("t"))]), [None]);
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let mut asker = Asker::new(&with_issuer(url)).unwrap().unwrap();
    assert_eq!(standings(&mut asker, &[about(1, None, Some("t"))]), [None]);
}

#[test]
fn whoever_says_that_most_tokens_are_revoked_is_not_believed() {
    let mut source = Source::new("s");
    let now = Instant::now();
    let word = |good| Ok(Word { good, expires: None });
    let believed = (0..100).filter(|_| source.hear(word(false), true, now).is_some()).count();
    assert_eq!(believed, INCREDIBLE as usize - 1);
    for _ in 0..200 {
        assert!(source.hear(word(true), true, now).is_some(), "good news is always believed");
    }
    assert!(source.hear(word(false), true, now).is_some());
    let mut source = Source::new("s");
    let believed = (0..100).filter(|_| source.hear(word(false), false, now).is_some()).count();
    assert_eq!(believed, 100, "questions about nonsense say nothing of the source");
}

#[test]
fn what_either_says_against_a_token_counts() {
    let word = |good| Some(Word { good, expires: None });
    let both = about(1, Some("a"), Some("t"));
    for (list, issuer, expected) in [
        (word(true), word(true), GOOD),
        (word(false), word(true), LISTED),
        (word(true), word(false), Some(Standing::Inactive)),
        (word(true), None, None),
        (None, word(true), None),
        (None, word(false), Some(Standing::Inactive)),
        (word(false), None, LISTED),
    ] {
        assert_eq!(combined(&both, [list, issuer, None]).standing, expected);
    }
    assert_eq!(combined(&about(1, Some("a"), None), [word(true), None, None]).standing, GOOD);
    let place = StatusRef { uri: "https://idp.example/1".into(), index: 0 };
    let status = Some(StatusAsk { issuer: 0, status: place, at_s: 0 });
    let third = Inquiry { status, ..about(1, Some("a"), None) };
    assert_eq!(combined(&third, [word(true), None, None]).standing, None);
    assert_eq!(combined(&third, [word(true), None, word(true)]).standing, GOOD);
    assert_eq!(combined(&third, [None, None, word(false)]).standing, Some(Standing::Inactive));
}

/// What a server that lies makes of its own address.
type Lie = Box<dyn Fn(&str) -> String + Send>;

/// Answers of a running asker, as they come.
fn asked(settings: &TokenSettings, keys: Arc<KeyRing>, questions: Vec<Inquiry>) -> Vec<Option<Standing>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let asker = Asker::new(settings).unwrap().unwrap().with_keys(watch::channel(keys).1);
        let (put, inquiries) = mpsc::channel(64);
        let (tell, mut answers) = mpsc::channel(64);
        let count = questions.len();
        let task = tokio::spawn(asker.run(inquiries, tell));
        for question in questions {
            put.send(question).await.unwrap();
        }
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(answers.recv().await.unwrap());
        }
        drop(put);
        task.await.unwrap();
        all.sort_by_key(|answer| answer.fingerprint);
        all.into_iter().map(|answer| answer.standing).collect()
    })
}

fn with_lists(base: &str) -> TokenSettings {
    let status_lists = vec![StatusSource::Below(base.to_owned())];
    let issuer = crate::token::settings::Issuer { status_lists, ..forge::issuer(&[Algorithm::ES256]) };
    forge::settings(vec![issuer])
}

fn at_place(number: u8, uri: &str, index: u64) -> Inquiry {
    let status = StatusRef { uri: uri.into(), index };
    let status = Some(StatusAsk { issuer: 0, status, at_s: 1_795_284_245 });
    Inquiry { status, ..about(number, None, None) }
}

#[test]
fn a_status_list_is_fetched_once_for_all_who_wait() {
    let signer = Signer::shared(Algorithm::ES256);
    let fetches = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let address = serve(move |asked, stream| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(asked.starts_with("GET /lists/1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("accept: application/statuslist+jwt"), "{asked}");
        let host = asked.split("host: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let list = status_list(signer, &format!("http://{host}/lists/1"), 1, &[0b10], &[]);
        stream.write_all(http(&list).as_bytes()).unwrap();
    });
    let uri = format!("http://{address}/lists/1");
    let questions = (0..40).map(|n| at_place(n, &uri, u64::from(n % 3))).collect();
    let all = asked(&with_lists(&format!("http://{address}/lists/")), signer.ring(), questions);
    for (n, standing) in all.iter().enumerate() {
        let expected = if n % 3 == 1 { Some(Standing::Inactive) } else { GOOD };
        assert_eq!(*standing, expected, "{n}");
    }
    assert_eq!(fetches.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_status_list_that_lies_or_is_elsewhere_tells_nothing() {
    let signer = Signer::shared(Algorithm::ES256);
    let other = Signer::new(Algorithm::ES256);
    let forged = move |host: &str| status_list(&other, &format!("http://{host}/"), 1, &[1], &[]);
    let moved = move |_: &str| status_list(signer, "http://127.0.0.1:1/", 1, &[1], &[]);
    let nonsense = |_: &str| "{}".to_owned();
    let lies: [Lie; 3] = [Box::new(forged), Box::new(moved), Box::new(nonsense)];
    for lie in lies {
        let address = serve(move |asked, stream| {
            let host = asked.split("host: ").nth(1).unwrap().split("\r\n").next().unwrap();
            drop(stream.write_all(http(&lie(host)).as_bytes()));
        });
        let uri = format!("http://{address}/");
        assert_eq!(asked(&with_lists(&uri), signer.ring(), vec![at_place(1, &uri, 0)]), [None]);
    }
    let address = serve(|_, _| panic!("nobody may be asked there"));
    let elsewhere = with_lists("https://idp.example/");
    let uri = format!("http://{address}/");
    assert_eq!(asked(&elsewhere, signer.ring(), vec![at_place(1, &uri, 0)]), [None]);
}
