//! Who listens where: /proc/PID/net/tcp of every network namespace, joined with processes by the inodes of their
//! sockets (`proc_pid_net(5)`, `proc_pid_fd(5)`).
//!
//! The kernel prints listening sockets before all others (`tcp_get_idx` in `net/ipv4/tcp_ipv4.c`), so reading stops at
//! the first that does not listen, and a million connections cost nothing. Not seen: processes whose descriptors the
//! sensor may not read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::telemetry::printable;

/// Most processes that are looked at: the usual `pid_max` of small hosts; a full node runs a few thousand.
const MAX_PROCESSES: usize = 32_768;
/// Most network namespaces that are looked at: a node is said to hold 110 pods, and twice as many happen.
const MAX_NAMESPACES: usize = 1_024;
/// Most listening sockets of one namespace.
const MAX_LISTENERS: usize = 8_192;
/// Most descriptors of one process: servers open their listeners first, and /proc lists low numbers first.
const MAX_DESCRIPTORS: usize = 4_096;
/// Most processes of one cgroup that are looked at: parents come first, and they hold the listeners.
const MAX_MEMBERS: usize = 256;
/// A process id and its line break have eight bytes at most.
const MAX_MEMBERS_BYTES: u64 = 64 << 10;
/// Longest line of /proc/PID/net/tcp6 is 172 bytes, its last field aside.
const MAX_LINE: u64 = 512;

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name, printable.
    pub comm: Arc<str>,
    /// Its program.
    pub exe: Option<PathBuf>,
    /// The id of its cgroup; 0 if it is not known.
    pub cgroup: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Every listening address and one of its processes.
    pub listeners: Vec<(SocketAddr, u32)>,
    /// The processes that listen.
    pub processes: HashMap<u32, Process>,
}

/// Looks at every process below `procfs`; their cgroups are directories below `cgroups`.
#[must_use]
pub fn scan(procfs: &Path, cgroups: &Path) -> Found {
    look(procfs, cgroups, pids(procfs))
}

/// Processes of a cgroup, in rising order; 0 stands for those of other namespaces. None that can be seen: none.
#[must_use]
pub fn members(cgroup: &Path) -> Vec<u32> {
    let mut text = String::new();
    if let Ok(file) = File::open(cgroup.join("cgroup.procs")) {
        let _ = file.take(MAX_MEMBERS_BYTES).read_to_string(&mut text);
    }
    let mut pids: Vec<u32> =
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect();
    pids.sort_unstable();
    pids.truncate(MAX_MEMBERS);
    pids
}

/// Looks at these processes below `procfs`.
#[must_use]
pub fn look(procfs: &Path, cgroups: &Path, pids: Vec<u32>) -> Found {
    let mut found = Found::default();
    let mut namespaces: HashMap<PathBuf, HashMap<u64, SocketAddr>> = HashMap::new();
    for pid in pids {
        let dir = procfs.join(pid.to_string());
        let Ok(namespace) = std::fs::read_link(dir.join("ns/net")) else { continue };
        if namespaces.len() >= MAX_NAMESPACES && !namespaces.contains_key(&namespace) {
            continue;
        }
        let sockets = namespaces.entry(namespace).or_insert_with(|| listening(&dir));
        if sockets.is_empty() {
            continue;
        }
        let mine = owned(&dir, sockets);
        if !mine.is_empty() {
            found.listeners.extend(mine.into_iter().map(|address| (address, pid)));
            found.processes.insert(pid, describe(&dir, cgroups));
        }
    }
    found
}

/// Process ids in rising order, so that parents come before the children that share their sockets.
fn pids(procfs: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(procfs) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = numbers.take(MAX_PROCESSES).collect();
    pids.sort_unstable();
    pids
}

/// The listening sockets of a process's network namespace, by inode.
fn listening(dir: &Path) -> HashMap<u64, SocketAddr> {
    let mut sockets = HashMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let Ok(file) = File::open(dir.join(table)) else { continue };
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        while sockets.len() < MAX_LISTENERS {
            line.clear();
            match reader.by_ref().take(MAX_LINE).read_line(&mut line) {
                Ok(1..) if line.trim_start().starts_with("sl") => {}
                Ok(1..) => {
                    let Some((address, inode)) = parse_line(&line) else { break };
                    sockets.insert(inode, address);
                }
                Ok(0) | Err(_) => break,
            }
        }
    }
    sockets
}

/// One line of the table, if its socket listens: `0: 0100007F:1F90 00000000:0000 0A ...  uid timeout inode`.
fn parse_line(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    // include/net/tcp_states.h: 10 is TCP_LISTEN.
    if fields.nth(1)? != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some((parse_address(local)?, inode))
}

/// Addresses are printed as 32-bit words in the host's byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at..at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (chunk, at) in bytes.chunks_exact_mut(4).zip((0..).step_by(8)) {
                chunk.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Which of these sockets a process holds.
fn owned(dir: &Path, sockets: &HashMap<u64, SocketAddr>) -> HashSet<SocketAddr> {
    let Ok(entries) = std::fs::read_dir(dir.join("fd")) else { return HashSet::new() };
    let links =
        entries.flatten().take(MAX_DESCRIPTORS).filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inodes = links.filter_map(|link| {
        let text = link.to_str()?;
        text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    });
    inodes.filter_map(|inode| sockets.get(&inode).copied()).collect()
}

fn describe(dir: &Path, cgroups: &Path) -> Process {
    let comm = read_start(&dir.join("comm"));
    // The unified hierarchy is the line that starts with `0::` (cgroups(7)).
    let groups = read_start(&dir.join("cgroup"));
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.map(|path| cgroups.join(path.trim_start_matches('/')));
    Process {
        comm: printable(comm.trim_end()).into(),
        exe: std::fs::read_link(dir.join("exe")).ok(),
        cgroup: path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |meta| meta.ino()),
    }
}

/// The first 8 KiB of a file: a path of 4 KiB, and the other hierarchies before it.
fn read_start(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(8_192).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_listening_sockets_and_nothing_else() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0\n";
        assert_eq!(parse_line(v4), Some(("127.0.0.1:8080".parse().unwrap(), 12345)));
        let v6 = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0\n";
        assert_eq!(parse_line(v6), Some(("[::1]:80".parse().unwrap(), 99)));
        assert_eq!(parse_line(&v4.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse_line("  sl  local_address rem_address   st tx_queue rx_queue\n"), None);
    }

    #[test]
    fn a_fake_host_is_read_like_a_real_one() {
        let host = tempfile::tempdir().unwrap();
        let cgroups = host.path().join("cgroup");
        std::fs::create_dir_all(cgroups.join("system.slice/web.service")).unwrap();
        let process = host.path().join("42");
        for dir in ["ns", "net", "fd"] {
            std::fs::create_dir_all(process.join(dir)).unwrap();
        }
        std::os::unix::fs::symlink("net:[1]", process.join("ns/net")).unwrap();
        std::os::unix::fs::symlink("socket:[7]", process.join("fd/3")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/web", process.join("exe")).unwrap();
        std::fs::write(process.join("comm"), "we\x1bb\n").unwrap();
        std::fs::write(process.join("cgroup"), "1:cpu:/x\n0::/system.slice/web.service\n").unwrap();
        let table = "  sl  local_address\n   0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 7 1\n   1: 00000000:0051 0:0 01 0:0 0:0 0 0 0 8 1\n";
        std::fs::write(process.join("net/tcp"), table).unwrap();
        let found = scan(host.path(), &cgroups);
        assert_eq!(found.listeners, [("0.0.0.0:80".parse().unwrap(), 42)]);
        let process = &found.processes[&42];
        assert_eq!(
            (&*process.comm, process.exe.as_deref()),
            ("we\u{fffd}b", Some(Path::new("/usr/bin/web")))
        );
        assert_eq!(
            process.cgroup,
            std::fs::metadata(cgroups.join("system.slice/web.service")).unwrap().ino()
        );
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "[ 0-9A-F:]{0,120}|\\PC{0,40}") {
            parse_line(&line);
        }
    }
}
