//! The file of the history: named parts, a version, and a hash over all of it.
//!
//! `TOKENSCOPE HISTORY`, a line feed, the version (4 bytes, little-endian), the length of what is packed (8 bytes), the
//! parts (postcard, packed with zstd), SHA-256 of everything before it.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The file's name.
pub const FILE: &str = "history.bin";

/// Raised when the file's layout changes. Parts have versions of their own.
const VERSION: u32 = 1;

const MAGIC: &[u8] = b"TOKENSCOPE HISTORY\n";

/// Largest file: what a million tokens and all their histories take, packed, fits several times.
pub const MAX_FILE: u64 = 2 << 30;

/// Most bytes that a file may unpack to.
const MAX_UNPACKED: u64 = 4 << 30;

const HASH: usize = 32;

/// What one stage or rule remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whose it is.
    pub name: String,
    /// Version of its layout.
    pub version: u32,
    /// In a form that only its owner knows.
    pub bytes: Vec<u8>,
}

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Tells which key named the tokens in it, without telling the key.
    pub key: u64,
    /// The parts.
    pub parts: Vec<Part>,
}

impl Snapshot {
    /// The file.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let unpacked = postcard::to_allocvec(self).unwrap_or_default();
        // Level 1: the history is written beside capture, and is packed to a third already.
        let packed = zstd::bulk::compress(&unpacked, 1).unwrap_or_default();
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((unpacked.len() as u64).to_le_bytes());
        out.extend(packed);
        let hash = digest(&SHA256, &out);
        out.extend(hash.as_ref());
        out
    }

    /// Reads a file.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("is not a history of this program")?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or("is cut short")?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err("was written by another version");
        }
        let (text, hash) = bytes.split_at_checked(bytes.len().saturating_sub(HASH)).ok_or("is cut short")?;
        if digest(&SHA256, text).as_ref() != hash {
            return Err("is damaged");
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or("is cut short")?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_UNPACKED {
            return Err("claims to be larger than any history");
        }
        let packed = rest.get(..rest.len().saturating_sub(HASH)).unwrap_or_default();
        let unpacked = unpack(packed, length).ok_or("cannot be unpacked")?;
        postcard::from_bytes(&unpacked).map_err(|_unreadable| "holds what this version cannot read")
    }
}

/// Unpacks as it comes: nothing is reserved because the file says so.
fn unpack(packed: &[u8], length: u64) -> Option<Vec<u8>> {
    use std::io::Read as _;

    let mut unpacked = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed).ok()?;
    decoder.take(length + 1).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() as u64 == length).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot() -> Snapshot {
        let part = |name: &str, bytes: &[u8]| Part { name: name.into(), version: 3, bytes: bytes.into() };
        Snapshot { key: 42, parts: vec![part("roster", &[0; 5000]), part("brute-force", b"abc")] }
    }

    #[test]
    fn another_version_is_named_as_such() {
        let mut bytes = snapshot().write();
        bytes[MAGIC.len()] = 9;
        assert_eq!(Snapshot::read(&bytes), Err("was written by another version"));
        assert_eq!(Snapshot::read(b""), Err("is not a history of this program"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in prop::collection::vec((".{0,20}", any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..10)) {
            let parts = parts.into_iter().map(|(name, version, bytes)| Part { name, version, bytes }).collect();
            let snapshot = Snapshot { key: 1, parts };
            prop_assert_eq!(Snapshot::read(&snapshot.write()), Ok(snapshot));
        }

        #[test]
        fn damage_anywhere_is_noticed(at in any::<prop::sample::Index>(), by in 1_u8.., cut in any::<bool>()) {
            let mut bytes = snapshot().write();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= by }
            prop_assert!(Snapshot::read(&bytes).is_err());
        }
    }
}
