//! `/metrics`, `/healthz` and `/readyz` over HTTP: one small answer a connection.
//!
//! A client gets five seconds and 4 KiB, and 32 clients are served at once: more wait in the kernel's queue. That is
//! all a scraper needs, and all that a hostile neighbour on loopback can take.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Clients served at once: a scraper or two, a probe, and room.
const MAX_CLIENTS: usize = 32;
/// Bytes of a request's head: Prometheus sends about 300.
const MAX_HEAD: usize = 4096;
/// Time for a whole connection: Prometheus' own default is ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told about the sensor.
pub trait Status: Send + Sync {
    /// The page of metrics.
    fn metrics(&self) -> String;
    /// Whether capture is attached and the configuration is in effect.
    fn is_ready(&self) -> bool;
    /// Whether the sensor still moves.
    fn is_alive(&self) -> bool {
        true
    }
}

/// Listens. A port that is in use is the caller's to report: it is no reason not to watch.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until it is dropped.
pub async fn serve(listener: std::net::TcpListener, status: Arc<dyn Status>) {
    match TcpListener::from_std(listener) {
        Ok(listener) => serve_within(listener, status, PATIENCE).await,
        Err(error) => tracing::error!("no metrics: {error}"),
    }
}

async fn serve_within(listener: TcpListener, status: Arc<dyn Status>, patience: Duration) {
    let seats = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let status = Arc::clone(&status);
                tokio::spawn(async move {
                    // Neither a slow client nor a vanished one is worth a word.
                    let _ = timeout(patience, answer(&stream, status.as_ref())).await;
                    drop(seat);
                });
            }
            // Out of descriptors, most likely: trying again at once would only burn a core.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: &TcpStream, status: &dyn Status) -> io::Result<()> {
    let mut head = Vec::with_capacity(512);
    let response = match read_head(stream, &mut head).await? {
        Read::Whole => respond(&head, status),
        Read::TooLong => response("431 Request Header Fields Too Large", "the request is too long\n", true),
        Read::Nothing => return Ok(()),
    };
    write_all(stream, response.as_bytes()).await
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Whole,
    TooLong,
    Nothing,
}

async fn read_head(stream: &TcpStream, head: &mut Vec<u8>) -> io::Result<Read> {
    let mut chunk = [0; 1024];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut chunk) {
            Ok(0) => return Ok(if head.is_empty() { Read::Nothing } else { Read::Whole }),
            Ok(n) => head.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if memchr::memmem::find(head, b"\r\n\r\n").is_some() || memchr::memmem::find(head, b"\n\n").is_some()
        {
            return Ok(Read::Whole);
        }
        if head.len() > MAX_HEAD {
            return Ok(Read::TooLong);
        }
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn respond(head: &[u8], status: &dyn Status) -> String {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = method != "HEAD";
    if !["GET", "HEAD"].contains(&method) {
        return response("405 Method Not Allowed", "only GET and HEAD\n", true);
    }
    let say = |good: bool, yes: &str, no: &str| {
        if good { response("200 OK", yes, body) } else { response("503 Service Unavailable", no, body) }
    };
    match target.split('?').next().unwrap_or_default() {
        "/metrics" => response("200 OK", &status.metrics(), body),
        "/healthz" => say(status.is_alive(), "ok\n", "stuck\n"),
        "/readyz" => say(status.is_ready(), "ready\n", "not ready\n"),
        _ => response("404 Not Found", "there are /metrics, /healthz and /readyz\n", body),
    }
}

fn response(status: &str, body: &str, with_body: bool) -> String {
    let shown = if with_body { body } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{shown}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Sensor(AtomicBool);

    impl Status for Sensor {
        fn metrics(&self) -> String {
            "tokenscope_up 1\n".into()
        }
        fn is_ready(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Runs the server while `visit` talks to it.
    fn with_server(ready: bool, patience: Duration, visit: impl FnOnce(SocketAddr) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let visitor = tokio::task::spawn_blocking(move || visit(address));
            let status = Arc::new(Sensor(AtomicBool::new(ready)));
            tokio::select! {
                () = serve_within(listener, status, patience) => {}
                done = visitor => done.unwrap(),
            }
        });
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn serves_its_three_pages() {
        with_server(false, PATIENCE, |address| {
            let page = ask(address, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(
                page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\ntokenscope_up 1\n"),
                "{page}"
            );
            assert!(ask(address, b"GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
            assert!(ask(address, b"GET /readyz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 503"));
            assert!(ask(address, b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404"));
            assert!(ask(address, b"POST /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 405"));
            let head = ask(address, b"HEAD /metrics HTTP/1.0\r\n\r\n");
            assert!(head.contains("Content-Length: 16\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        });
        with_server(true, PATIENCE, |address| {
            assert!(ask(address, b"GET /readyz HTTP/1.0\n\n").starts_with("HTTP/1.1 200"));
        });
    }

    #[test]
    fn hostile_clients_get_little() {
        with_server(true, PATIENCE, |address| {
            let huge = [b"GET /metrics HTTP/1.0\r\nX: ".as_slice(), &vec![b'a'; 6_000]].concat();
            assert!(ask(address, &huge).starts_with("HTTP/1.1 431"));
            for garbage in [b"\0\xff\xfe\n\n".as_slice(), b"\r\n\r\n", b"GET\r\n\r\n"] {
                assert!(ask(address, garbage).starts_with("HTTP/1.1 40"));
            }
            // Half of the seats are taken by clients that say nothing.
            let silent: Vec<_> =
                (0..MAX_CLIENTS / 2).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            for _ in 0..200 {
                assert!(ask(address, b"GET /healthz HTTP/1.0\r\n\r\n").ends_with("ok\n"));
            }
            drop(silent);
        });
    }

    #[test]
    fn more_silent_clients_than_seats_only_delay() {
        with_server(true, Duration::from_millis(20), |address| {
            let silent: Vec<_> =
                (0..MAX_CLIENTS * 2).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            // Silent clients are turned away in time, and then this one is served.
            assert!(ask(address, b"GET /healthz HTTP/1.0\r\n\r\n").ends_with("ok\n"));
            drop(silent);
        });
    }
}
