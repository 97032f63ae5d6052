//! The fetcher against servers that lie, hang and flood, on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::token::forge::{self, Signer};
use crate::token::keys::{KeyError, KeyState};
use crate::token::settings::Algorithm;

/// Serves every connection with what `answer` makes of its request's first line; tells what was asked.
struct Server {
    address: SocketAddr,
    asked: Mutex<Receiver<String>>,
}

impl Server {
    #[allow(clippy::disallowed_methods, reason = "a test server may queue what it was asked")]
    fn start(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = channel();
        // Ends with the test process; a thread in accept() holds nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = sender.send(path.clone());
                answer(&path, &mut stream);
            }
        });
        Self { address, asked: Mutex::new(asked) }
    }

    /// Always the same answer.
    fn fixed(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, stream| drop(stream.write_all(&answer)))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().try_iter().count()
    }
}

fn ok(body: &str, headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

fn from(source: KeySource) -> TokenSettings {
    forge::settings(vec![Issuer { keys: source, ..forge::issuer(&[Algorithm::ES256]) }])
}

const QUICK: Limits = Limits {
    total: Duration::from_millis(300),
    bytes: 100_000,
    redirects: 3,
    file_poll: Duration::from_millis(1),
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn once(settings: &TokenSettings, limits: Limits) -> Result<KeyRing, FetchError> {
    let fetcher = Fetcher::with_limits(settings, limits)?;
    let (ring, failures) = block_on(fetcher.once());
    match failures.into_iter().next() {
        Some((_, error)) => {
            assert_eq!(ring.issuer(0).unwrap().state, KeyState::Failed);
            Err(error)
        }
        None => Ok(ring),
    }
}

fn once_from(url: String) -> Result<KeyRing, FetchError> {
    once(&from(KeySource::Url(url)), QUICK)
}

#[test]
fn fetches_a_key_set_by_url() {
    let signer = Signer::shared(Algorithm::ES256);
    let server = Server::fixed(ok(&signer.jwks(), ""));
    let settings = from(KeySource::Url(server.url("/jwks.json")));
    let (ring, failures) = fetch_all_once(&settings).unwrap();
    assert_eq!(failures, []);
    let issuer = ring.issuer(0).unwrap();
    assert_eq!((issuer.state, issuer.keys.len()), (KeyState::Ready, 1));
    assert_eq!(issuer.url.as_deref(), Some(server.url("/jwks.json").as_str()));
}

#[test]
fn fetches_by_discovery_and_insists_on_the_issuer() {
    let signer = Signer::shared(Algorithm::ES256);
    let jwks = signer.jwks();
    let right = Arc::new(AtomicBool::new(true));
    let is_right = Arc::clone(&right);
    let server = Server::start(move |path, stream| {
        let host = stream.local_addr().unwrap();
        let issuer = if is_right.load(Ordering::SeqCst) {
            format!("http://{host}/realm")
        } else {
            "https://else.example/".into()
        };
        let body = match path {
            "/realm/.well-known/openid-configuration" => {
                format!(r#"{{"issuer":"{issuer}","jwks_uri":"http://{host}/keys"}}"#)
            }
            "/keys" => jwks.clone(),
            _ => String::new(),
        };
        let _ = stream.write_all(ok(&body, "").as_bytes());
    });
    let mut settings = from(KeySource::Discovery);
    settings.issuers[0].issuer = server.url("/realm");
    let ring = once(&settings, QUICK).unwrap();
    assert_eq!(ring.issuer(0).unwrap().url.as_deref(), Some(server.url("/keys").as_str()));
    right.store(false, Ordering::SeqCst);
    assert_eq!(once(&settings, QUICK).unwrap_err(), FetchError::Discovery("is that of another issuer"));
}

#[test]
fn refuses_servers_that_misbehave() {
    let signer = Signer::shared(Algorithm::ES256);
    let jwks = signer.jwks();
    let hang = Server::start(|_, stream| {
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(once_from(hang.url("/")).unwrap_err(), FetchError::Timeout(QUICK.total));
    let drip = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{");
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(once_from(drip.url("/")).unwrap_err(), FetchError::Timeout(QUICK.total));
    let announced = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    assert_eq!(once_from(announced.url("/")).unwrap_err(), FetchError::TooLarge(QUICK.bytes));
    let endless = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        let chunk = [b' '; 8192];
        for _ in 0..100_000_000 / chunk.len() {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
    });
    let patient = Limits { total: Duration::from_secs(10), ..QUICK };
    let flood = once(&from(KeySource::Url(endless.url("/"))), patient).unwrap_err();
    assert_eq!(flood, FetchError::TooLarge(QUICK.bytes));
    let short = Server::fixed(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{jwks}", jwks.len() + 5));
    assert!(matches!(once_from(short.url("/")).unwrap_err(), FetchError::Connection(_)));
    let gzip = Server::fixed(ok("\x1f...", "Content-Encoding: gzip\r\n"));
    assert_eq!(once_from(gzip.url("/")).unwrap_err(), FetchError::Encoded);
    let missing = Server::fixed("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(once_from(missing.url("/")).unwrap_err(), FetchError::Status(404));
    let html = Server::fixed(ok("<html>log in here</html>", ""));
    assert_eq!(once_from(html.url("/")).unwrap_err(), FetchError::Keys(KeysError::Unrecognised));
    let doubled = Server::fixed(ok(&jwks.replacen('{', r#"{"keys":[],"#, 1), ""));
    assert!(matches!(once_from(doubled.url("/")).unwrap_err(), FetchError::Keys(KeysError::Json(_))));
    let empty = Server::fixed(ok(r#"{"keys":[]}"#, ""));
    assert_eq!(once_from(empty.url("/")).unwrap_err(), FetchError::Keys(KeysError::Empty));
    let encryption = Server::fixed(ok(&jwks.replace(r#""kty""#, r#""use":"enc","kty""#), ""));
    let unusable = KeysError::NoneUsable { count: 1, first: KeyError::OtherUse };
    assert_eq!(once_from(encryption.url("/")).unwrap_err(), FetchError::Keys(unusable));
    let garbage = Server::fixed("I am no web server\r\n\r\n");
    assert!(matches!(once_from(garbage.url("/")).unwrap_err(), FetchError::Connection(_)));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(once_from(format!("http://{gone}/")).unwrap_err(), FetchError::Connection(_)));
}

#[test]
fn follows_three_redirects_on_the_same_host_and_no_other() {
    let signer = Signer::shared(Algorithm::ES256);
    let jwks = signer.jwks();
    let server = Server::start(move |path, stream| {
        let location = match path {
            "/loop" => "/loop",
            "/1" => "/2",
            "/2" => "/3",
            "/3" => "/keys",
            "/off" => "http://127.0.0.2/keys",
            "/metadata" => "http://169.254.169.254/latest",
            "/scheme" => "file:///etc/passwd",
            _ => {
                let _ = stream.write_all(ok(&jwks, "").as_bytes());
                return;
            }
        };
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let _ = stream.write_all(answer.as_bytes());
    });
    assert!(once_from(server.url("/1")).is_ok());
    assert_eq!(server.requests(), 4);
    assert_eq!(once_from(server.url("/loop")).unwrap_err(), FetchError::Redirects(3));
    assert_eq!(server.requests(), 4);
    for path in ["/off", "/metadata", "/scheme"] {
        assert!(matches!(once_from(server.url(path)).unwrap_err(), FetchError::Redirect { .. }), "{path}");
    }
}

#[test]
fn reads_files_of_every_form_and_refuses_the_rest() {
    let signer = Signer::shared(Algorithm::ES256);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let read = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        once(&from(KeySource::File(path.clone())), QUICK)
    };
    let pem = crate::token::keys::pem::write("PUBLIC KEY", &signer.public().to_spki());
    for text in [signer.jwks(), signer.jwk(), pem, format!("\n {} \n", signer.jwk())] {
        assert!(read(text.as_bytes()).is_ok(), "{text}");
    }
    assert_eq!(read(b"").unwrap_err(), FetchError::Keys(KeysError::Unrecognised));
    assert_eq!(read(&vec![b' '; 200_000]).unwrap_err(), FetchError::TooLarge(QUICK.bytes));
    let private = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(read(private).unwrap_err(), FetchError::Keys(KeysError::NoneUsable { .. })));
    let missing = once(&from(KeySource::File(folder.path().join("none"))), QUICK).unwrap_err();
    assert!(missing.to_string().contains("none"), "{missing}");
    assert!(matches!(once(&from(KeySource::File(folder.path().into())), QUICK), Err(FetchError::File(_))));
    assert!(matches!(once(&from(KeySource::File("/dev/zero".into())), QUICK), Err(FetchError::File(_))));
}

#[test]
fn a_wanted_key_brings_a_fetch_and_good_keys_outlive_bad_answers() {
    let (old, new) = (Signer::shared(Algorithm::ES256), Signer::new(Algorithm::ES256).named("rotated"));
    let answers = Mutex::new(vec!["no keys at all".to_owned(), old.jwks()].into_iter());
    let rotated = new.jwks();
    let server = Server::start(move |_, stream| {
        let body = answers.lock().unwrap().next().unwrap_or_else(|| rotated.clone());
        let _ = stream.write_all(ok(&body, "").as_bytes());
    });
    let settings = from(KeySource::Url(server.url("/")));
    let fetcher = Fetcher::new(&settings).unwrap();
    block_on(async {
        let (publish, mut rings) = watch::channel(Arc::new(KeyRing::empty(1)));
        let (wanted, wants) = mpsc::channel(8);
        let observed = async {
            let state = |ring: &Arc<KeyRing>| ring.issuer(0).unwrap().state;
            rings.wait_for(|ring| state(ring) == KeyState::Failed).await.unwrap();
            // The second try comes by itself, within a second.
            rings.wait_for(|ring| state(ring) == KeyState::Ready).await.unwrap();
            wanted.send(Wanted { issuer: 0, kid: "rotated".into() }).await.unwrap();
            wanted.send(Wanted { issuer: 7, kid: "nobody's".into() }).await.unwrap();
            let has = |ring: &Arc<KeyRing>, kid| {
                ring.issuer(0).unwrap().keys.iter().any(|k| k.kid.as_deref() == Some(kid))
            };
            let ring = rings.wait_for(|ring| has(ring, "rotated")).await.unwrap().clone();
            assert!(!has(&ring, &old.kid), "withdrawn keys are gone");
            drop(rings);
        };
        tokio::join!(fetcher.run(publish, wants), observed);
    });
    assert_eq!(server.requests(), 3);
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let signer = Signer::shared(Algorithm::ES256);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let fetcher = Fetcher::with_limits(&from(KeySource::File(path.clone())), QUICK).unwrap();
    block_on(async {
        let (publish, mut rings) = watch::channel(Arc::new(KeyRing::empty(1)));
        let (_wanted, wants) = mpsc::channel(1);
        let observed = async {
            rings.wait_for(|ring| ring.issuer(0).unwrap().state == KeyState::Failed).await.unwrap();
            std::fs::write(&path, signer.jwks()).unwrap();
            rings.wait_for(|ring| ring.issuer(0).unwrap().state == KeyState::Ready).await.unwrap();
            drop(rings);
        };
        tokio::join!(fetcher.run(publish, wants), observed);
    });
}
