//! Two hosts in one kernel: network namespaces joined by a wire that loses, swaps, repeats and lies.
//!
//! The wire is a program of ours (`tests/services/wire.py`) and not netem: it is the same on every kernel, it is
//! seeded, and it can inject decoys. Offloads are off, so that segments and checksums are as on a real network.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::server::find_program;
use crate::service;

/// The client's address.
pub const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1));
/// The server's address.
pub const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Addresses beyond the client's host (RFC 2544): a [`Network::direct`] swallows what the server sends to them.
pub const ELSEWHERE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(198, 18, 0, 0);

/// A client's host, a server's host, and what is between them. Dropping it takes all of it away.
#[derive(Debug)]
pub struct Network {
    /// Their namespaces: the client's, the server's, and the wire's if it has one.
    names: Vec<String>,
    wire: Option<Child>,
}

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The one with [`CLIENT`].
    Client,
    /// The one with [`SERVER`].
    Server,
}

impl Network {
    /// Why there can be none here; none if there can.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !crate::is_root() {
            return Some("network namespaces need root".into());
        }
        let absent = |program: &&str| find_program(program).is_none();
        let program = ["ip", "ethtool", "python3"].into_iter().find(absent);
        program.map(|name| format!("{name} is not installed (apt-get install iproute2 ethtool python3)"))
    }

    /// Builds both hosts and a wire of this mode (see `tests/services/wire.py`).
    ///
    /// # Errors
    /// When a step fails, with what `ip` said.
    pub fn new(mode: &str) -> Result<Self> {
        let names @ [client, server, wire] = &namespaces(["c", "s", "w"]);
        // Taken away again even when a later step fails.
        let mut guard = Cleanup::made(names)?;
        for (host, end, far, address) in [(client, "c0", "wc", CLIENT), (server, "s0", "ws", SERVER)] {
            ip(&format!("-n {host} link add {end} type veth peer name {far} netns {wire}"))?;
            ip(&format!("-n {host} addr add {address}/24 dev {end}"))?;
            ip(&format!("-n {host} link set {end} up"))?;
            ip(&format!("-n {wire} link set {far} up"))?;
            ip(&format!("netns exec {host} ethtool -K {end} tx off tso off gso off gro off"))?;
        }
        let mut wire_process = Command::new("ip")
            .args(["netns", "exec", wire, "python3"])
            .arg(service("wire.py"))
            .args([mode, "wc", "ws"])
            .stdout(Stdio::piped())
            .spawn()
            .context("start the wire")?;
        let mut line = String::new();
        let pipe = wire_process.stdout.take().context("the wire's stdout")?;
        BufReader::new(pipe).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the wire did not start");
        Ok(Self { names: std::mem::take(&mut guard.0), wire: Some(wire_process) })
    }

    /// Both hosts with nothing between them but a pair of interfaces, for loads that no program could pass on. The
    /// client's host answers nobody at [`ELSEWHERE`].
    ///
    /// # Errors
    /// When a step fails, with what `ip` said.
    pub fn direct() -> Result<Self> {
        let names @ [client, server] = &namespaces(["c", "s"]);
        let mut guard = Cleanup::made(names)?;
        ip(&format!("-n {client} link add c0 type veth peer name s0 netns {server}"))?;
        for (host, end, address) in [(client, "c0", CLIENT), (server, "s0", SERVER)] {
            ip(&format!("-n {host} addr add {address}/24 dev {end}"))?;
            ip(&format!("-n {host} link set {end} up"))?;
        }
        ip(&format!("-n {server} route add {ELSEWHERE}/15 via {CLIENT}"))?;
        Ok(Self { names: std::mem::take(&mut guard.0), wire: None })
    }

    /// Runs something on one of the hosts: its sockets, and the processes it starts, live there.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or what `run` says.
    pub fn on<T: Send>(&self, host: Host, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let name = self.names.get(usize::from(host == Host::Server)).context("the namespaces are gone")?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let space = File::open(format!("/run/netns/{name}"))?;
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
                run()
            });
            inside.join().map_err(|_panic| anyhow!("a thread in {name} panicked"))?
        })
    }

    /// Sets a kernel parameter of one host: `net.ipv4.tcp_syncookies`, `2`.
    ///
    /// # Errors
    /// When the kernel has none of that name.
    pub fn sysctl(&self, host: Host, name: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        self.on(host, || std::fs::write(&file, value).with_context(|| file.clone()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(wire) = &mut self.wire {
            let _ = wire.kill();
            let _ = wire.wait();
        }
        drop(Cleanup(std::mem::take(&mut self.names)));
    }
}

/// Names that no other network of this host has.
fn namespaces<const N: usize>(ends: [&str; N]) -> [String; N] {
    let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    ends.map(|end| format!("lab-{end}-{unique}"))
}

struct Cleanup(Vec<String>);

impl Cleanup {
    /// Makes these namespaces, each with its loopback.
    fn made(names: &[String]) -> Result<Self> {
        let guard = Self(names.to_vec());
        for name in names {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(guard)
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(words: &str) -> Result<()> {
    let done = Command::new("ip").args(words.split(' ')).output().context("run ip")?;
    ensure!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
