//! Why a file cannot be read, for people: "permission denied" alone does not say whose fault it is. In containers even
//! root may not read what others have closed, as it lacks `CAP_DAC_OVERRIDE` there.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// What the system said, and if it was "permission denied", whose file it is and what to do.
pub(super) fn why(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let user = rustix::process::geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(about) => owned(error, (about.uid(), about.permissions().mode() & 0o7777), user),
        Err(_) => format!("{error}; user {user} may not enter a directory above it: chmod or chown that"),
    }
}

fn owned(error: &io::Error, (owner, mode): (u32, u32), user: u32) -> String {
    format!(
        "{error}; it belongs to user {owner} with mode {mode:o}, and this is user {user}: chown or chmod it \
         (Kubernetes: defaultMode, runAsUser)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_file_is_told_with_its_owner() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let told = owned(&denied, (1000, 0o600), 0);
        assert!(told.contains("user 1000 with mode 600, and this is user 0"), "{told}");
        assert!(why(Path::new("/nowhere/x"), &denied).contains("a directory above it"));
    }

    #[test]
    fn other_errors_speak_for_themselves() {
        let absent = io::Error::from_raw_os_error(2);
        assert_eq!(why(Path::new("/nowhere"), &absent), absent.to_string());
    }
}
