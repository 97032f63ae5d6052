//! The packages that the end-to-end tests, the demo and the benchmarks want besides the build's own.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::step::{say, step};

/// A thing that must be there, the Debian and Ubuntu package that brings it, and what is left out without it.
const WANTED: &[(&str, &str, &str)] = &[
    ("nginx", "nginx-light", "tests on nginx, the live benchmark"),
    ("python3", "python3", "tests on Python, bad networks, the demo"),
    ("node", "nodejs", "tests on Node"),
    ("javac", "default-jdk-headless", "tests on Java"),
    ("go", "golang-go", "tests on Go, a cluster"),
    ("/usr/share/gocode/src/github.com/gin-gonic/gin", "golang-github-gin-gonic-gin-dev", "tests on Gin"),
    ("cc", "gcc libc6-dev", "tests on io_uring"),
    ("/usr/include/liburing.h", "liburing-dev", "tests on io_uring"),
    ("redis-server", "redis-server", "tests on Redis"),
    ("nats-server", "nats-server", "tests on NATS"),
    ("npm", "npm", "tests on S3"),
    ("kcat", "kcat", "tests on a Kafka broker"),
    ("openssl", "openssl", "tests on TLS, a cluster"),
    ("wrk", "wrk", "the live benchmark"),
    ("promtool", "prometheus", "tests of the page, the alert rules and the dashboard"),
    ("rsyslogd", "rsyslog", "tests on rsyslog"),
    ("/usr/share/doc/rsyslog-gnutls", "rsyslog-gnutls", "tests on rsyslog"),
    ("/usr/lib/postfix/sbin/master", "postfix libsasl2-modules", "tests on Postfix"),
    ("saslpasswd2", "sasl2-bin", "tests on Postfix"),
    ("ip", "iproute2", "tests in network namespaces, a cluster"),
    ("ethtool", "ethtool", "tests in network namespaces"),
    ("prometheus-alertmanager", "prometheus-alertmanager", "tests of sinks on Alertmanager"),
    ("qemu-system-x86_64", "qemu-system-x86", "tests in virtual machines"),
    ("/bin/busybox", "busybox-static", "tests in virtual machines, a cluster"),
    ("debootstrap", "debootstrap", "tests in virtual machines, those of a real systemd"),
    (
        "bpftool",
        "bpftool",
        "tests of life on a host, tests in virtual machines, the live benchmark, a cluster",
    ),
    ("/usr/share/doc/python3-venv", "python3-venv", "tests of the manifests, a cluster"),
    ("kubectl", "kubernetes-client", "tests of the manifests, a cluster"),
    ("runc", "runc", "the check of the image, tests of pods, tests of Docker, a cluster"),
    ("containerd", "containerd", "tests of pods, tests of Docker, a cluster"),
    ("dockerd", "docker.io", "tests of Docker"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins", "tests of pods, a cluster"),
    ("iptables", "iptables", "tests of pods, tests of Docker, a cluster"),
    ("etcd", "etcd-server", "a cluster"),
    ("dpkg-source", "dpkg-dev", "a cluster"),
    ("skopeo", "skopeo", "tests of the image"),
    ("/usr/share/ca-certificates/mozilla", "ca-certificates", "the image"),
    ("lintian", "lintian", "tests of the Debian package"),
    ("systemd-analyze", "systemd", "tests of the Debian package, a cluster"),
    ("clickhouse-server", "clickhouse-server", "tests of sinks on ClickHouse"),
];

/// What the benchmark compares the sensor with. No test needs them.
const PEERS: &[(&str, &str, &str)] = &[
    ("tcpdump", "tcpdump", "the comparison with tcpdump"),
    ("httpry", "httpry", "the comparison with httpry"),
    ("ngrep", "ngrep", "the comparison with ngrep"),
    ("tshark", "tshark", "the comparison with tshark"),
];

/// Installs what is missing for a purpose (all of them if it is empty) where that is possible; says what is left out
/// where it is not.
///
/// # Errors
/// When the package manager cannot be started, or the list knows nothing of that purpose.
pub(crate) fn install(purpose: &str) -> Result<()> {
    install_of(WANTED, purpose)
}

/// The same for what the benchmark compares with.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_peers() -> Result<()> {
    install_of(PEERS, "")
}

fn install_of(wanted: &[(&str, &str, &str)], purpose: &str) -> Result<()> {
    let lacking = || wanted.iter().filter(|(thing, _, what)| what.contains(purpose) && !is_there(thing));
    let missing: Vec<_> = lacking().collect();
    ensure!(wanted.iter().any(|(.., what)| what.contains(purpose)), "no package is listed for {purpose}");
    if missing.is_empty() {
        return Ok(());
    }
    if is_there("apt-get") && is_root() {
        let packages: Vec<&str> = missing.iter().flat_map(|(_, package, _)| package.split(' ')).collect();
        let policy = Policy::forbid_services();
        let mut apt = Command::new("sh");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-c").arg(format!(
            "apt-get update -q; apt-get install -y -q --no-install-recommends {}",
            packages.join(" ")
        ));
        step(&format!("install {}", packages.join(" ")), &mut apt)?;
        drop(policy);
    }
    for (thing, package, what) in lacking() {
        say(&format!("  SKIPPED {what}: {thing} is missing (apt-get install {package})"));
    }
    Ok(())
}

/// Whether a program is in the path, or a file is there.
pub(crate) fn is_there(thing: &str) -> bool {
    if thing.starts_with('/') {
        return Path::new(thing).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(thing).is_file())
}

/// Whether this process is root: its status file says so without any library.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

/// While it lives, packages do not start their services (Debian policy section 9.3.3): the tests start their own.
struct Policy(bool);

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl Policy {
    fn forbid_services() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        if Path::new(POLICY).exists() {
            return Self(false);
        }
        let made = std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").is_ok();
        let _ = std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755));
        Self(made)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.0 {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_that_no_package_is_for_is_refused() {
        assert!(install("a purpose of nobody's").is_err());
    }
}
