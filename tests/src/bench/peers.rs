//! Other programs that read HTTP, or packets at least, off an interface or a capture: what they cost is measured in the
//! same run as ours. They come from Debian's packages, and do less or other things than we do:
//!
//! * tcpdump copies packets and knows nothing of HTTP: the floor of whatever reads packets from an interface;
//! * httpry reads the first line and some fields of heads that begin a segment, and writes a line for each;
//! * ngrep looks for a text in each segment, and prints the segment;
//! * tshark reassembles and dissects, as we do. It is measured offline only: alive it cannot keep up, and queues what
//!   it is behind in a file, which grows by hundreds of megabytes a second.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::process::children_cpu_s;
use crate::clock::Deadline;
use crate::server::find_program;

/// How long one may take to open its socket, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// Another program. In its arguments `@FILE@` is the capture, `@OUT@` what it writes, `@PORT@` the watched port.
#[derive(Debug)]
pub(super) struct Peer {
    /// The program, and the package of the same name.
    pub(super) name: &'static str,
    /// How it reads a capture.
    read: &'static [&'static str],
    /// Whether it is quick enough for the long capture; too quick for a short one, since CPU time is counted in 10 ms.
    pub(super) is_quick: bool,
    /// Which lines of what it wrote stand for a request; none if it writes nothing about them.
    request: Option<fn(&str) -> bool>,
    /// How it watches loopback; empty if that is not measured.
    watch: &'static [&'static str],
    /// Packets that it dropped and packets that came, from what it says at its end.
    dropped: fn(&str) -> Option<(f64, f64)>,
}

/// All of them, quickest first.
pub(super) static PEERS: [Peer; 4] = [
    Peer {
        name: "tcpdump",
        read: &["-Z", "root", "-r", "@FILE@", "-w", "/dev/null"],
        is_quick: true,
        request: None,
        // As root to the end: it would give its output file, the host's /dev/null, to its own user.
        watch: &["-Z", "root", "-i", "lo", "-w", "/dev/null", "tcp", "port", "@PORT@"],
        dropped: |said| {
            let of = |mark| super::number_before(said, mark);
            Some((of("packets dropped by kernel")?, of("packets received by filter")?))
        },
    },
    Peer {
        name: "httpry",
        read: &["-q", "-r", "@FILE@", "-o", "@OUT@"],
        is_quick: true,
        // Time, source, destination, direction.
        request: Some(|line| line.split('\t').nth(3) == Some(">")),
        watch: &["-i", "lo", "-o", "/dev/null", "tcp port @PORT@"],
        dropped: |said| {
            let of = |mark| super::number_before(said, mark);
            Some((of("packets dropped")?, of("packets received")?))
        },
    },
    Peer {
        name: "ngrep",
        read: &["-q", "-I", "@FILE@", "Authorization: Bearer"],
        is_quick: false,
        request: Some(|line| line.starts_with("T ")),
        watch: &["-q", "-d", "lo", "Authorization: Bearer", "tcp port @PORT@"],
        // It does not say.
        dropped: |_| None,
    },
    Peer {
        name: "tshark",
        read: &["-n", "-r", "@FILE@", "-Y", "http.request", "-T", "fields", "-e", "http.authorization"],
        is_quick: false,
        request: Some(|line| line.starts_with("Bearer ")),
        watch: &[],
        dropped: |_| None,
    },
];

/// The peers that are installed; says of the others that they are left out.
pub(super) fn installed() -> Vec<&'static Peer> {
    let there = |peer: &&Peer| {
        let found = find_program(peer.name).is_some();
        if !found {
            super::left_out(&format!("{0} is not installed (apt-get install {0})", peer.name));
        }
        found
    };
    PEERS.iter().filter(there).collect()
}

impl Peer {
    /// Whether it is measured beside a live load.
    pub(super) const fn is_live(&self) -> bool {
        !self.watch.is_empty()
    }

    /// CPU seconds that it takes to read a capture with so many requests, on the first core.
    ///
    /// # Errors
    /// When it fails, or has not seen all of them.
    pub(super) fn read(&self, capture: &Path, requests: u64) -> Result<f64> {
        let dir = tempfile::tempdir()?;
        let out = dir.path().join("out");
        let (file, written) = (text(capture), text(&out));
        let before = children_cpu_s()?;
        let done = Command::new("taskset")
            .args(["-c", "0"])
            .arg(find_program(self.name).context(self.name)?)
            .args(self.read.iter().map(|word| word.replace("@FILE@", &file).replace("@OUT@", &written)))
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(Stdio::piped())
            .output()?;
        let cost = children_cpu_s()? - before;
        ensure!(done.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&done.stderr));
        if let Some(is_request) = self.request {
            let seen = count(&out, is_request)?;
            ensure!(seen == requests, "{} saw {seen} of {requests} requests", self.name);
        }
        Ok(cost)
    }

    /// Starts watching a port of loopback; returns once its socket is open.
    pub(super) fn start(&'static self, port: u16) -> Result<Watcher> {
        let said = tempfile::tempfile()?;
        let child = Command::new(find_program(self.name).context(self.name)?)
            .args(self.watch.iter().map(|word| word.replace("@PORT@", &port.to_string())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone()?)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let mut watcher = Watcher { peer: self, child, said };
        let deadline = Deadline::after(PATIENCE);
        while !has_packet_socket(watcher.child.id())? {
            ensure!(!deadline.is_over(), "{} does not capture", self.name);
            if let Some(status) = watcher.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, watcher.words()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(watcher)
    }
}

/// A peer that watches. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Watcher {
    peer: &'static Peer,
    child: Child,
    /// What it wrote to standard error.
    said: File,
}

impl Watcher {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn words(&mut self) -> Result<String> {
        self.said.rewind()?;
        let mut text = String::new();
        // 1 MiB: a peer says a few lines.
        self.said.by_ref().take(1 << 20).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Ends it as Ctrl-C would. Packets that it says it dropped, of a million; none if it does not say.
    pub(super) fn stop(mut self) -> Result<Option<f64>> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?).context("a process id")?;
        kill_process(pid, Signal::INT)?;
        let deadline = Deadline::after(PATIENCE);
        while self.child.try_wait()?.is_none() {
            ensure!(!deadline.is_over(), "{} does not end", self.peer.name);
            std::thread::sleep(Duration::from_millis(10));
        }
        let words = self.words()?;
        Ok((self.peer.dropped)(&words).map(|(dropped, came)| dropped * 1e6 / came.max(1.0)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of a file that are such.
fn count(file: &Path, is_such: fn(&str) -> bool) -> Result<u64> {
    let (mut reader, mut line, mut count) = (BufReader::new(File::open(file)?), Vec::new(), 0);
    // No line is longer than a head; 1 MiB is far above.
    while reader.by_ref().take(1 << 20).read_until(b'\n', &mut line)? > 0 {
        count += u64::from(is_such(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    Ok(count)
}

/// Whether a process has a packet socket that is bound to an interface (`net/packet/af_packet.c`, `packet_seq_show`).
fn has_packet_socket(pid: u32) -> Result<bool> {
    let running = bound_sockets(&fs::read_to_string("/proc/net/packet")?);
    // It may just have ended, which the caller asks about next.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Ok(false) };
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(targets.into_iter().any(|target| running.contains(&text(&target))))
}

/// The packet sockets that run, as links in `/proc/PID/fd` name them.
fn bound_sockets(table: &str) -> Vec<String> {
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(5) == Some(&"1"))
        .filter_map(|row| row.get(8).map(|inode| format!("socket:[{inode}]")))
        .collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> &'static Peer {
        PEERS.iter().find(|peer| peer.name == name).unwrap()
    }

    #[test]
    fn drops_are_read_from_last_words() {
        let tcpdump = "tcpdump: listening on lo, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n\
                       36 packets captured\n72 packets received by filter\n9 packets dropped by kernel\n";
        assert_eq!((peer("tcpdump").dropped)(tcpdump), Some((9.0, 72.0)));
        let httpry = "Writing output to file: /dev/null\nCaught SIGINT, shutting down...\n\
                      72 packets received, 3 packets dropped, 6 http packets parsed\n";
        assert_eq!((peer("httpry").dropped)(httpry), Some((3.0, 72.0)));
        assert_eq!((peer("httpry").dropped)("killed"), None);
        assert_eq!((peer("ngrep").dropped)(httpry), None);
    }

    #[test]
    fn one_line_stands_for_a_request() {
        let lines = |name: &str, lines: &[&str]| {
            let is_request = peer(name).request.unwrap();
            lines.iter().map(|line| is_request(line)).collect::<Vec<_>>()
        };
        let ask = "2026-11-21 18:00:00\t10.0.3.0\t10.0.0.1\t>\tGET\tshop.test\t/orders/0\tHTTP/1.1\t-\t-\n";
        let answer = "2026-11-21 18:00:00\t10.0.0.1\t10.0.3.0\t<\t-\t-\t-\tHTTP/1.1\t200\tOK\n";
        assert_eq!(lines("httpry", &["# Fields: a,b,c,>\n", ask, answer]), [false, true, false]);
        let head = "T 10.0.3.0:40000 -> 10.0.0.1:8080 [AP] #4\n";
        assert_eq!(lines("ngrep", &["input: a.pcap\n", head, "  T GET /orders/0\n"]), [false, true, false]);
        assert_eq!(lines("tshark", &["Bearer eyJh\n", "\n"]), [true, false]);
    }

    #[test]
    fn only_bound_sockets_capture() {
        let table = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                     00000000e4a6c7ba 3      3    0003   1     1 0      0      3715859\n\
                     00000000e4a6c7bb 3      3    0000   0     0 0      0      3715860\n";
        assert_eq!(bound_sockets(table), ["socket:[3715859]"]);
    }
}
