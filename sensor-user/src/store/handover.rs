//! Where a sensor that ended in good order stopped, for the one that waits to take over.
//!
//! A line: the kernel's boot id, and nanoseconds since boot. It is taken away by whoever opens the directory next, so that
//! it never speaks of another pair.

use std::io;
use std::path::Path;

use crate::store::files;

/// The file's name in `state.dir`.
const FILE: &str = "handover";

/// Longest file: a UUID and twenty digits.
const MOST: u64 = 64;

/// Leaves word of where this sensor stopped.
///
/// # Errors
/// When it cannot be written.
pub fn leave(dir: &Path, boot_id: &str, boot_ns: u64) -> io::Result<()> {
    files::replace(&dir.join(FILE), format!("{boot_id} {boot_ns}\n").as_bytes())
}

/// Where the sensor before stopped, if it said so since this boot.
#[must_use]
pub fn take(dir: &Path, boot_id: &str) -> Option<u64> {
    let path = dir.join(FILE);
    let bytes = files::read(&path, MOST).ok().flatten();
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8(bytes?).ok()?;
    let (id, boot_ns) = text.trim_end().split_once(' ')?;
    (id == boot_id).then(|| boot_ns.parse().ok())?
}

/// The kernel's id of this boot: `random(4)`.
#[must_use]
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_is_for_one_and_for_this_boot() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(dir.path(), "a"), None);
        leave(dir.path(), "a", 7).unwrap();
        assert_eq!((take(dir.path(), "a"), take(dir.path(), "a")), (Some(7), None));
        leave(dir.path(), "a", 7).unwrap();
        assert_eq!(take(dir.path(), "b"), None);
        for nonsense in ["", "a", "a x\n", "a 1 2\n", &"a".repeat(100)] {
            std::fs::write(dir.path().join(FILE), nonsense).unwrap();
            assert_eq!(take(dir.path(), "a"), None, "{nonsense}");
        }
        assert!(boot_id().len() == 36 && !boot_id().contains(' '));
    }
}
