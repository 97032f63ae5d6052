//! A service to be watched, as a process of its own: in a cgroup, and as a user, of the caller's choice.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{print, raw};

/// What `lab serve` does: enters the cgroup, becomes the user, listens, says where, and refuses everybody until its
/// standard input ends.
///
/// # Errors
/// When one of these cannot be done.
pub fn serve(cgroup: &Path, user: u32) -> Result<()> {
    if cgroup.as_os_str() != NONE {
        fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("enter {}", cgroup.display()))?;
    }
    if user != 0 {
        let mut again = Command::new(std::env::current_exe()?);
        again.args(["serve", NONE, "0"]).uid(user).gid(user);
        bail!("run as {user}: {}", again.exec());
    }
    print(&raw::listen(raw::refuse_in_chunks)?.to_string());
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}

/// In place of a cgroup: stay where you are.
const NONE: &str = "-";

/// A running service. Dropping it ends it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Service {
    /// Starts one by the lab, `lab`. The cgroup is made if it is not there.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn start(lab: &Path, cgroup: &Path, user: u32) -> Result<Self> {
        fs::create_dir_all(cgroup)?;
        let mut child = Command::new(lab)
            .arg("serve")
            .arg(cgroup)
            .arg(user.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("the service said {line:?}"))?;
        Ok(Self { child, address })
    }

    /// The name of its process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn name(&self) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/comm", self.child.id()))?.trim().to_owned())
    }

    /// Ends it.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}
