//! Old files: counted up, packed, and removed when there are too many. A failure here loses nothing that is written.

use std::cmp::Reverse;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::name::{Old, Pattern, Stamp};
use super::{Packing, nofollow};

/// Every file of the pattern but the one that is written, newest first.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn list(pattern: &Pattern, current: Stamp) -> io::Result<Vec<Old>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(pattern.dir())? {
        let name = entry?.file_name();
        let old = name.to_str().and_then(|name| pattern.read(name));
        all.extend(old.filter(|old| (old.at, old.number, old.packed) != (current, 0, "")));
    }
    all.sort_by_key(|old| (Reverse(old.at), old.number));
    Ok(all)
}

/// Gives the file that was written the number 1, after counting up those that are older.
///
/// # Errors
/// When a file cannot be renamed.
pub(super) fn count_up(pattern: &Pattern, current: Stamp) -> io::Result<()> {
    let same = list(pattern, current)?.into_iter().filter(|old| old.at == current);
    for old in same.collect::<Vec<_>>().into_iter().rev() {
        let next = Old { number: old.number.saturating_add(1), ..old };
        fs::rename(pattern.old_path(&old), pattern.old_path(&next))?;
    }
    let first = Old { at: current, number: 1, packed: "" };
    fs::rename(pattern.path(current), pattern.old_path(&first))
}

/// Removes what is too much, and packs the rest but the newest: somebody may be reading that one still.
///
/// # Errors
/// When a file cannot be removed or packed.
pub(super) fn tidy(pattern: &Pattern, current: Stamp, keep: usize, packing: Packing) -> io::Result<()> {
    for (place, old) in list(pattern, current)?.into_iter().enumerate() {
        let path = pattern.old_path(&old);
        if place >= keep {
            fs::remove_file(path)?;
        } else if place > 0 && old.packed.is_empty() && packing != Packing::None {
            pack(&path, packing)?;
        }
    }
    Ok(())
}

fn pack(path: &Path, packing: Packing) -> io::Result<()> {
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        std::path::PathBuf::from(name)
    };
    let (target, making) = (named(packing.ending()), named(".tmp"));
    let mut source = OpenOptions::new().read(true).custom_flags(nofollow()).open(path)?;
    match fs::remove_file(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let packed = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making)?;
    let packed = compress(&mut source, packed, packing)?;
    packed.sync_data()?;
    fs::rename(&making, &target)?;
    fs::remove_file(path)
}

fn compress(source: &mut File, target: File, packing: Packing) -> io::Result<File> {
    match packing {
        Packing::None => Ok(target),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::default());
            io::copy(source, &mut encoder)?;
            encoder.finish()
        }
        Packing::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(target, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            io::copy(source, &mut encoder)?;
            encoder.finish()
        }
    }
}
