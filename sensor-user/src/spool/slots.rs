//! Small files that are overwritten in place: two slots in turn, each with a generation and a checksum.
//!
//! A write that is cut short leaves the other slot as it was, so the worst case is the state before. Overwriting takes
//! no new block, so it works on a full disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::spool::record::{u32_at, u64_at};

/// Distance of the slots: a sector, so that a torn write never touches both.
const SLOT: u64 = 512;

/// Before what is kept: magic, version, generation, length; behind it a CRC-32 of all.
const MAGIC: &[u8; 8] = b"TSSLOT\x01\n";
const HEADER: usize = 20;

/// Most bytes that are kept.
const MAX: usize = 256;

/// Such a file, open.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    generation: u64,
}

impl Slots {
    /// Opens the file, and makes it if need be. Gives what it holds; none, if it is new or damaged.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Vec<u8>>)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let (generation, kept) = newest(&file)?;
        Ok((Self { file, generation }, kept))
    }

    /// What a file holds, without changing it.
    pub(super) fn peek(path: &Path) -> io::Result<Option<Vec<u8>>> {
        match File::open(path) {
            Ok(file) => Ok(newest(&file)?.1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps these bytes in place of those before.
    pub(super) fn write(&mut self, kept: &[u8]) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut slot = Vec::with_capacity(HEADER + kept.len() + 4);
        slot.extend(MAGIC);
        slot.extend(generation.to_le_bytes());
        slot.extend(u32::try_from(kept.len()).unwrap_or(0).to_le_bytes());
        slot.extend(kept);
        slot.extend(crc32fast::hash(&slot).to_le_bytes());
        self.file.write_all_at(&slot, (generation % 2) * SLOT)?;
        self.generation = generation;
        Ok(())
    }

    /// Makes it last through a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The newest sound slot.
fn newest(file: &File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let mut best = (0, None);
    for at in [0, SLOT] {
        let mut bytes = vec![0; HEADER + MAX + 4];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        if let Some((generation, kept)) = read(&bytes)
            && generation > best.0
        {
            best = (generation, Some(kept.to_vec()));
        }
    }
    Ok(best)
}

fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = u32_at(bytes, 16) as usize;
    let whole = bytes.get(..HEADER.checked_add(length)?)?;
    let sound = whole.starts_with(MAGIC) && bytes.len() >= whole.len() + 4;
    (sound && crc32fast::hash(whole) == u32_at(bytes, whole.len()))
        .then(|| (u64_at(bytes, 8), whole.get(HEADER..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_state_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        let (mut slots, kept) = Slots::open(&path).unwrap();
        assert_eq!(kept, None);
        for round in 1..6_u8 {
            slots.write(&[round; 40]).unwrap();
            assert_eq!(Slots::peek(&path).unwrap(), Some(vec![round; 40]));
            let (mut again, kept) = Slots::open(&path).unwrap();
            assert_eq!(kept, Some(vec![round; 40]));
            // The next write is cut in its middle.
            let before = std::fs::read(&path).unwrap();
            again.write(&[99; 40]).unwrap();
            let mut torn = std::fs::read(&path).unwrap();
            let at = usize::try_from(SLOT).unwrap() * usize::from((round + 1) % 2) + 30;
            torn.truncate(torn.len().max(before.len()));
            for (index, byte) in torn.iter_mut().enumerate().skip(at).take(34) {
                *byte = before.get(index).copied().unwrap_or(0);
            }
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(Slots::peek(&path).unwrap(), Some(vec![round; 40]));
            slots = Slots::open(&path).unwrap().0;
        }
    }

    #[test]
    fn what_is_no_such_file_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        for bytes in [&b""[..], b"nonsense", &[0xff; 2000]] {
            std::fs::write(&path, bytes).unwrap();
            let (mut slots, kept) = Slots::open(&path).unwrap();
            assert_eq!(kept, None);
            slots.write(b"x").unwrap();
            assert_eq!(Slots::peek(&path).unwrap(), Some(b"x".to_vec()));
        }
    }
}
