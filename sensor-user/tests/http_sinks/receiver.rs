//! A receiver that writes down what it gets and answers byte for byte as it is told.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// By lower-case name.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found: Vec<_> = self.headers.iter().filter(|(other, _)| other == name).collect();
        assert!(found.len() <= 1, "{name} comes twice");
        found.first().map(|(_, value)| value.as_str())
    }

    /// The body, decompressed where it says that it is compressed.
    pub(crate) fn text(&self) -> String {
        if self.header("content-encoding") != Some("gzip") {
            return String::from_utf8(self.body.clone()).unwrap();
        }
        let mut text = String::new();
        flate2::read::GzDecoder::new(self.body.as_slice()).read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What it answers to a request.
pub(crate) enum Reply {
    /// These bytes, and the connection stays open for the next request.
    Keep(String),
    /// These bytes, and then the end.
    Close(Vec<u8>),
    /// These bytes, and then nothing at all.
    Hang(Vec<u8>),
    /// These bytes, and then more and more.
    Endless(Vec<u8>),
}

/// A good answer with this body.
pub(crate) fn ok(body: &str) -> Reply {
    answer(200, "", body)
}

/// An answer with this status, these further header lines (each with its line break) and this body.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

pub(crate) type Script = Arc<dyn Fn(usize, &Request) -> Reply + Send + Sync>;

/// The receiver. It ends with the test's runtime.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers the n-th request (from 0) as the script says.
    pub(crate) async fn start(script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (all, script): (_, Script) = (Arc::clone(&requests), Arc::new(script));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&all), Arc::clone(&script)));
            }
        });
        Self { address, requests, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request that came.
    pub(crate) fn only(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves one connection until either end has had enough.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    all: Arc<Mutex<Vec<Request>>>,
    script: Script,
) {
    let mut input = Vec::new();
    while let Some(request) = read(&mut stream, &mut input).await {
        let number = {
            let mut all = all.lock().unwrap();
            all.push(request.clone());
            all.len() - 1
        };
        match script(number, &request) {
            Reply::Keep(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Reply::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Hang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                // Until the other end has had enough.
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
            Reply::Endless(bytes) => {
                let _ = stream.write_all(&bytes).await;
                while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
                return;
            }
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, input: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, input).await?;
    };
    let head = String::from_utf8(input[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    while input.len() < end + length {
        more(stream, input).await?;
    }
    let body = input[end..end + length].to_vec();
    input.drain(..end + length);
    Some(Request { method, target, headers, body })
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, input: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 16_384];
    let read = tokio::time::timeout(Duration::from_mins(1), stream.read(&mut bytes)).await.ok()?.ok()?;
    input.extend_from_slice(&bytes[..read]);
    (read > 0).then_some(())
}
