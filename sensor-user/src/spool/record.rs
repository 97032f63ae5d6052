//! The form of one event in a segment, and how damage is told from data.
//!
//! Little-endian: magic (4), length of the JSON (4), CRC-32 of all that follows and of the length (4), kind (1), zero
//! (3), sequence number (8), number of the event before it in its lane (8), its ordinal in the lane (8), time in
//! milliseconds (8), the JSON. Numbers are consecutive over all lanes and ordinals within one, so a lane by itself
//! proves how many of its events are missing, and which was the last of them.

use crate::render::Kind;
use crate::render::told::Shared;

/// Bytes before the JSON.
pub(super) const HEADER: usize = 48;

/// Largest JSON: a hundred times the largest event that we write. What claims to be longer is damage.
pub(super) const MAX_JSON: usize = 16 << 20;

/// 0xF5 never occurs in UTF-8, so no event's text looks like the start of a record.
const MAGIC: [u8; 4] = [0xF5, b'T', b'S', 0xF5];

/// An event on its way to a segment.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The event.
    pub told: Shared,
    /// Number of the event before it in its lane; 0 for the first.
    pub before: u64,
    /// Its place in the lane, from 1.
    pub ordinal: u64,
}

impl Entry {
    /// Bytes that it takes in a segment.
    pub(super) fn size(&self) -> u64 {
        (HEADER + self.told.json().len()) as u64
    }
}

/// What stands before the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the event.
    pub sequence: u64,
    /// Number of the event before it in its lane.
    pub before: u64,
    /// Its place in the lane.
    pub ordinal: u64,
    /// Its time.
    pub time_ms: u64,
    /// What it is.
    pub kind: Kind,
    /// Bytes of JSON.
    pub length: usize,
}

impl Header {
    /// Bytes of the whole record.
    pub(super) fn size(&self) -> usize {
        HEADER + self.length
    }
}

/// What some bytes start with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A whole record.
    Record(Header),
    /// What may be the start of a record of this many bytes.
    Short(usize),
    /// No record.
    Damaged,
}

/// Appends a record.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let told = &entry.told;
    let kind: u32 = match told.kind {
        Kind::Alert => 0,
        Kind::Incident => 1,
    };
    let length = u32::try_from(told.json().len()).unwrap_or(u32::MAX).to_le_bytes();
    out.extend(MAGIC);
    out.extend(length);
    let sum_at = out.len();
    out.extend([0; 4]);
    out.extend(kind.to_le_bytes());
    for word in [told.sequence, entry.before, entry.ordinal, told.time_ms] {
        out.extend(word.to_le_bytes());
    }
    out.extend(told.json().as_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(out.get(sum_at + 4..).unwrap_or_default());
    if let Some(sum) = out.get_mut(sum_at..sum_at + 4) {
        sum.copy_from_slice(&hasher.finalize().to_le_bytes());
    }
}

/// Reads what bytes start with.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return if MAGIC.iter().zip(bytes).all(|(a, b)| a == b) {
            Parsed::Short(HEADER)
        } else {
            Parsed::Damaged
        };
    };
    if !head.starts_with(&MAGIC) {
        return Parsed::Damaged;
    }
    let length = u32_at(head, 4) as usize;
    if length > MAX_JSON {
        return Parsed::Damaged;
    }
    let Some(json) = rest.get(..length) else { return Parsed::Short(HEADER + length) };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head.get(4..8).unwrap_or_default());
    hasher.update(head.get(12..).unwrap_or_default());
    hasher.update(json);
    let kind = match head.get(12) {
        Some(0) => Kind::Alert,
        Some(1) => Kind::Incident,
        _ => return Parsed::Damaged,
    };
    if hasher.finalize() != u32_at(head, 8) {
        return Parsed::Damaged;
    }
    let [sequence, before, ordinal, time_ms] = [16, 24, 32, 40].map(|at| u64_at(head, at));
    Parsed::Record(Header { sequence, before, ordinal, time_ms, kind, length })
}

/// Where the next record may start, behind the first byte.
pub(super) fn resume(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes.get(1..)?, &MAGIC).map(|at| at + 1)
}

/// The 4 bytes at this place; 0 if they are not there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_le_bytes(*word))
}

/// The 8 bytes at this place; 0 if they are not there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::detect::Severity;
    use crate::render::Told;

    fn entry(sequence: u64, json: &str) -> Entry {
        let told = Told::new(sequence, 17, Severity::High, Kind::Incident, json.into());
        Entry { told: Arc::new(told), before: sequence - 1, ordinal: 3 }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sequence in 1_u64.., json in ".{0,300}") {
            let mut bytes = Vec::new();
            encode(&entry(sequence, &json), &mut bytes);
            let header = Header { sequence, before: sequence - 1, ordinal: 3, time_ms: 17, kind: Kind::Incident, length: json.len() };
            prop_assert_eq!(parse(&bytes), Parsed::Record(header));
            prop_assert_eq!(bytes.len() as u64, entry(sequence, &json).size());
            for cut in 0..bytes.len() {
                prop_assert!(matches!(parse(&bytes[..cut]), Parsed::Short(_)));
            }
        }

        #[test]
        fn damage_anywhere_is_noticed(json in ".{1,200}", at in any::<prop::sample::Index>(), by in 1_u8..) {
            let mut bytes = Vec::new();
            encode(&entry(5, &json), &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert!(!matches!(parse(&bytes), Parsed::Record(_)), "byte {}", at);
        }

        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200), record in any::<bool>()) {
            let bytes = if record { [&MAGIC[..], &bytes].concat() } else { bytes };
            prop_assert!(!matches!(parse(&bytes), Parsed::Record(_)));
            prop_assert!(resume(&bytes).is_none_or(|at| at > 0 && bytes[at..].starts_with(&MAGIC)));
        }
    }
}
