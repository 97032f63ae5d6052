//! An API server that answers as it is told: a thread a connection, one request each.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `GET /api/v1/pods?limit=500`.
    pub(crate) line: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn is_watch(&self) -> bool {
        self.query("watch").as_deref() == Some("true")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A parameter, decoded as far as these tests need.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.line.split_once('?')?;
        let pair =
            query.split(' ').next()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        Some(pair?.replace("%3D", "=").replace("%2C", ","))
    }
}

/// What it answers.
pub(crate) enum Reply {
    /// An object with this status.
    Json(u16, Value),
    /// This status line and text.
    Text(&'static str, String),
    /// A watch: what the test says, until it is cut.
    Watch,
    /// Bytes without end and without a line break.
    Endless,
    /// Nothing, ever.
    Hang,
}

type Script = dyn Fn(&Request, usize) -> Reply + Send + Sync;

struct Inside {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    said: Mutex<VecDeque<Option<String>>>,
    news: Condvar,
    over: AtomicBool,
    shut: AtomicBool,
}

/// The server. It ends with the test.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    inside: Arc<Inside>,
}

impl Api {
    pub(crate) fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Inside {
            script: Box::new(script),
            requests: Mutex::default(),
            said: Mutex::default(),
            news: Condvar::new(),
            over: AtomicBool::new(false),
            shut: AtomicBool::new(false),
        });
        let shared = Arc::clone(&inside);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                if shared.shut.load(Ordering::Relaxed) {
                    continue;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { address, inside }
    }

    /// Says a line in the watch that is open, or in the next.
    pub(crate) fn say(&self, line: String) {
        self.inside.said.lock().unwrap().push_back(Some(line));
        self.inside.news.notify_all();
    }

    /// Tells an event in the watch.
    pub(crate) fn tell(&self, kind: &str, object: &Value) {
        self.say(json!({"type": kind, "object": object}).to_string());
    }

    /// Ends the watch that is open.
    pub(crate) fn cut(&self) {
        self.inside.said.lock().unwrap().push_back(None);
        self.inside.news.notify_all();
    }

    /// Connections end before anything is said, until the door is open again.
    pub(crate) fn close_door(&self) {
        self.inside.shut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn open_door(&self) {
        self.inside.shut.store(false, Ordering::Relaxed);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.inside.requests.lock().unwrap().clone()
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.inside.over.store(true, Ordering::Relaxed);
        self.inside.news.notify_all();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(inside: &Inside, mut stream: TcpStream) {
    let Some(request) = read(&stream) else { return };
    let number = {
        let mut requests = inside.requests.lock().unwrap();
        requests.push(request.clone());
        requests.len() - 1
    };
    // Who asked may be gone: then nobody reads what is written.
    let _ = match (inside.script)(&request, number) {
        Reply::Json(status, body) => answer(&mut stream, &format!("{status} X"), &body.to_string()),
        Reply::Text(status, body) => answer(&mut stream, status, &body),
        Reply::Watch => watch(inside, &mut stream),
        Reply::Endless => endless(inside, &mut stream),
        Reply::Hang => {
            while !inside.over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            Ok(())
        }
    };
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next()?.ok()?;
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let pair = |line: String| {
        line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
    };
    Some(Request { line, headers: headers.filter_map(pair).collect() })
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn stream_head(stream: &mut TcpStream) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")
}

fn watch(inside: &Inside, stream: &mut TcpStream) -> std::io::Result<()> {
    stream_head(stream)?;
    let mut said = inside.said.lock().unwrap();
    while !inside.over.load(Ordering::Relaxed) {
        match said.pop_front() {
            Some(Some(line)) => writeln!(stream, "{line}")?,
            Some(None) => return Ok(()),
            None => said = inside.news.wait_timeout(said, Duration::from_millis(100)).unwrap().0,
        }
    }
    Ok(())
}

fn endless(inside: &Inside, stream: &mut TcpStream) -> std::io::Result<()> {
    stream_head(stream)?;
    let some = vec![b' '; 1 << 20];
    while !inside.over.load(Ordering::Relaxed) {
        stream.write_all(&some)?;
    }
    Ok(())
}
