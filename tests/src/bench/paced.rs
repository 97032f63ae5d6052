//! A load at a steady rate: keep-alive connections that ask the bed's nginx as many times a second as they are told, and
//! no more. wrk asks as fast as it is answered, which leaves nobody a core: it shows the worst, this the usual.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::client::get;
use crate::clock;

/// Connections: at 50,000 requests a second each has 640 us for an exchange that takes a tenth of it.
const LINES: usize = 32;

/// How long the load sleeps between two looks at its connections.
const LOOK: Duration = Duration::from_micros(100);

/// How long the first answer may pause before it counts as whole.
const PAUSE: Duration = Duration::from_millis(200);

/// One connection.
struct Line {
    stream: TcpStream,
    /// Bytes of its answer that have not come yet.
    awaited: usize,
}

/// Asks `server` for `/page` with these tokens in turn, `rate` times a second on the second core, until `done`. Gives the
/// rate that came of it.
pub(super) fn ask(server: SocketAddr, tokens: &[String], rate: u32, done: &AtomicBool) -> Result<f64> {
    let mut core = CpuSet::new();
    core.set(1);
    sched_setaffinity(None, &core)?;
    let requests: Vec<Vec<u8>> = tokens.iter().map(|token| get("/page", Some(token))).collect();
    let mut turn = requests.iter().cycle();
    let answer = length_of_answer(server, turn.next().context("no tokens")?)?;
    let mut lines = (0..LINES).map(|_| Line::open(server)).collect::<Result<Vec<Line>>>()?;
    let (began, mut sent, mut buffer) = (clock::instant(), 0_u32, vec![0; answer]);
    while !done.load(Ordering::Relaxed) {
        for line in lines.iter_mut().filter(|line| line.awaited > 0) {
            line.hear(&mut buffer)?;
        }
        for line in lines.iter_mut().filter(|line| line.awaited == 0) {
            if f64::from(sent) >= began.elapsed().as_secs_f64() * f64::from(rate) {
                break;
            }
            if let Some(request) = turn.next() {
                line.stream.write_all(request)?;
                line.awaited = answer;
                sent += 1;
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok(f64::from(sent) / began.elapsed().as_secs_f64())
}

/// How many bytes answer a request: the same each time, as the page is.
fn length_of_answer(server: SocketAddr, request: &[u8]) -> Result<usize> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PAUSE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        other => bail!("nginx hung up: {other:?}"),
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "nginx refused: {}", String::from_utf8_lossy(&answer));
    Ok(answer.len())
}

impl Line {
    fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, awaited: 0 })
    }

    /// Takes what has come.
    fn hear(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.stream.read(buffer) {
            Ok(0) => bail!("nginx hung up"),
            Ok(got) => {
                ensure!(got <= self.awaited, "an answer is longer than the first");
                self.awaited -= got;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
