//! The Unix socket: mode 0600 from its first moment on, taken over only from the dead, and removed at the end.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Connections that wait to be accepted: the kernel's own bound is 4096.
const BACKLOG: i32 = 128;

/// A socket that listens. Dropping it removes its file.
#[derive(Debug)]
pub struct Bound {
    /// The listener, which does not block.
    pub listener: std::os::unix::net::UnixListener,
    /// Its file.
    pub file: File,
}

/// The file of a socket, removed when dropped unless it is somebody else's by then.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another sensor has it.
    #[error("another sensor answers at {0}")]
    Answered(PathBuf),
    /// Something else is there.
    #[error("{0} is there and is no socket")]
    NoSocket(PathBuf),
    /// The system says no.
    #[error("{0}: {1}")]
    System(PathBuf, io::Error),
}

/// Listens there. The directory is made if it is not there, for its owner alone.
///
/// # Errors
/// When somebody answers there, when something else is there, and when the system says no.
pub fn open(path: &Path) -> Result<Bound, SocketError> {
    let failed = |error: io::Error| SocketError::System(path.to_owned(), error);
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    clear(path)?;
    let listener = listen_at(path).map_err(|error| failed(error.into()))?;
    let there = fs::symlink_metadata(path).map_err(failed)?;
    let file = File { path: path.to_owned(), device: there.dev(), inode: there.ino() };
    Ok(Bound { listener, file })
}

/// Removes what a sensor that has died left behind.
fn clear(path: &Path) -> Result<(), SocketError> {
    let failed = |error: io::Error| SocketError::System(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) if answers(path).map_err(|error| failed(error.into()))? => {
            Err(SocketError::Answered(path.to_owned()))
        }
        Ok(_) => fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Whether somebody listens there. Who has no room to answer at once listens too.
fn answers(path: &Path) -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn listen_at(path: &Path) -> Result<std::os::unix::net::UnixListener, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file gets the mode of the socket when it is bound (unix(7)): there is no moment in which others may connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

impl Drop for File {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (self.device, self.inode));
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn it_is_for_its_owner_alone_and_goes_away_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/deep/control.sock");
        let bound = open(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn it_is_taken_over_from_the_dead_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "what a killed sensor leaves");
        let bound = open(&path).unwrap();
        assert!(matches!(open(&path), Err(SocketError::Answered(_))));
        drop(bound);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(open(&path), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn the_file_of_another_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = open(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(200));
        assert!(matches!(open(&path), Err(SocketError::System(..))));
    }
}
