//! Snapshots: what a stage remembers, over a restart. Whole, checked, and set aside if they are not.

use std::fs;
use std::io;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::store::files;

/// Begins every snapshot; the digit is the version of this envelope.
const MAGIC: &[u8; 8] = b"tokscop1";

/// Largest snapshot: ten times what the caps of the stages allow.
const MAX_BYTES: u64 = 4 << 30;

/// Writes a snapshot in place of the one before.
///
/// # Errors
/// When it cannot be written; then the one before is still there.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    files::make_dir(dir)?;
    let mut whole = Vec::with_capacity(MAGIC.len() + SHA256_OUTPUT_LEN + bytes.len());
    whole.extend_from_slice(MAGIC);
    whole.extend_from_slice(digest(&SHA256, bytes).as_ref());
    whole.extend_from_slice(bytes);
    files::replace(&dir.join(name), &whole)
}

/// Reads a snapshot. None if there is none. One that is damaged, or that `take` refuses, is set aside under the name
/// with `.bad` behind it.
///
/// # Errors
/// When it cannot be read, or is set aside: says why.
pub fn read<R, E: std::fmt::Display>(
    dir: &Path,
    name: &str,
    take: impl FnOnce(&[u8]) -> Result<R, E>,
) -> io::Result<Option<R>> {
    let path = dir.join(name);
    let Some(whole) = files::read(&path, MAX_BYTES)? else { return Ok(None) };
    let body = || {
        let rest = whole.strip_prefix(MAGIC)?;
        let (sum, body) = rest.split_at_checked(SHA256_OUTPUT_LEN)?;
        (digest(&SHA256, body).as_ref() == sum).then_some(body)
    };
    let why = match body().map(take) {
        Some(Ok(taken)) => return Ok(Some(taken)),
        Some(Err(why)) => why.to_string(),
        None => "it is damaged".to_owned(),
    };
    let bad = dir.join(format!("{name}.bad"));
    fs::rename(&path, &bad)?;
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{why}; it is now {}", bad.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> Result<Vec<u8>, String> {
        if bytes == b"refused" { Err("not ours".into()) } else { Ok(bytes.to_vec()) }
    }

    #[test]
    fn reads_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("new");
        assert_eq!(read(&state, "s", take).unwrap(), None);
        for bytes in [&b"one"[..], b"", b"three"] {
            write(&state, "s", bytes).unwrap();
            assert_eq!(read(&state, "s", take).unwrap().unwrap(), bytes);
        }
    }

    #[test]
    fn every_damage_is_seen_and_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "s", b"what was known").unwrap();
        let whole = fs::read(dir.path().join("s")).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(dir.path().join("s"), &bad).unwrap();
            assert!(read(dir.path(), "s", take).is_err(), "{at}");
            assert_eq!(fs::read(dir.path().join("s.bad")).unwrap(), bad);
            fs::write(dir.path().join("s"), &whole[..at]).unwrap();
            assert!(read(dir.path(), "s", take).is_err(), "cut at {at}");
        }
        assert_eq!(read(dir.path(), "s", take).unwrap(), None, "and not met again");
    }

    #[test]
    fn what_its_stage_refuses_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "s", b"refused").unwrap();
        assert!(read(dir.path(), "s", take).unwrap_err().to_string().contains("not ours"));
        assert!(dir.path().join("s.bad").exists());
    }
}
