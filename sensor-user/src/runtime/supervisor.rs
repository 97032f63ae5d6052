//! What systemd is told of this process, in datagrams of `KEY=value` lines (`sd_notify`(3)): that it watches, that it
//! still moves, that it ends.
//!
//! Where nobody asks to be told (`NOTIFY_SOCKET`), or who asked is gone or busy, nothing waits and nothing fails: the
//! sensor's work does not depend on it. Whoever watches the watcher has `WatchdogSec` of the unit for silence.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What the sensor is at; the words are those of `systemctl status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Attached, and judging what it sees.
    Watching,
    /// Attached, and waiting for another sensor to end.
    StandingBy,
    /// Stopping: what is under way is still judged and written.
    Ending,
}

impl Doing {
    const fn words(self) -> &'static str {
        match self {
            Self::Watching => "READY=1\nSTATUS=watching\n",
            Self::StandingBy => {
                "READY=1\nSTATUS=attached; another sensor has the state directory, waiting to take over\n"
            }
            Self::Ending => "STOPPING=1\nSTATUS=ending\n",
        }
    }
}

/// Whom to tell.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    place: Option<(UnixDatagram, SocketAddr)>,
    told: Option<Doing>,
}

impl Supervisor {
    /// The one that the environment names, if it does.
    pub(super) fn of_the_environment() -> Self {
        Self::at(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    fn at(named: Option<&OsStr>) -> Self {
        let place = named.filter(|name| !name.is_empty()).and_then(|name| match reach(name) {
            Ok(place) => Some(place),
            Err(error) => {
                tracing::warn!(
                    "whoever started this sensor is not told how it is: {}: {error}",
                    name.display()
                );
                None
            }
        });
        Self { place, told: None }
    }

    /// Says that the sensor lives, and what it does if that is new.
    pub(super) fn tell(&mut self, doing: Doing) {
        let Some((socket, to)) = &self.place else { return };
        let news = if self.told == Some(doing) { "" } else { doing.words() };
        // Not sent is not told: it is said again with the next sign of life.
        if socket.send_to_addr(format!("{news}WATCHDOG=1\n").as_bytes(), to).is_ok() {
            self.told = Some(doing);
        }
    }
}

/// A path, or with `@` in front a name in the abstract namespace (unix(7)).
fn reach(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // Capture does not wait for systemd.
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn news_is_told_once_and_life_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let mut supervisor = Supervisor::at(Some(path.as_os_str()));
        for doing in [Doing::StandingBy, Doing::StandingBy, Doing::Watching, Doing::Ending] {
            supervisor.tell(doing);
        }
        assert!(read(&systemd).starts_with("READY=1\nSTATUS=attached; "));
        assert_eq!(read(&systemd), "WATCHDOG=1\n");
        assert_eq!(read(&systemd), "READY=1\nSTATUS=watching\nWATCHDOG=1\n");
        assert!(read(&systemd).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_name_without_a_file_is_reached() {
        let name = format!("tokenscope-supervisor-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Supervisor::at(Some(OsStr::new(&format!("@{name}")))).tell(Doing::Watching);
        assert!(read(&systemd).starts_with("READY=1\n"));
    }

    #[test]
    fn news_that_nobody_took_is_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let mut supervisor = Supervisor::at(Some(path.as_os_str()));
        supervisor.tell(Doing::Watching);
        let systemd = UnixDatagram::bind(&path).unwrap();
        supervisor.tell(Doing::Watching);
        assert!(read(&systemd).starts_with("READY=1\n"));
    }

    #[test]
    fn nobody_to_tell_is_no_trouble() {
        let long = "x".repeat(200);
        for named in [None, Some(OsStr::new("")), Some(OsStr::new(&long))] {
            let mut supervisor = Supervisor::at(named);
            assert!(supervisor.place.is_none());
            supervisor.tell(Doing::Watching);
        }
    }
}
