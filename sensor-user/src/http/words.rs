//! Searches of short texts, eight bytes at a time. They beat a search that must be set up as long as a text has some tens
//! of bytes.

/// A one in each byte of a word.
pub(crate) const EACH: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte.
pub(crate) const HIGH: u64 = EACH << 7;

/// The first byte that is looked for. `in_word` is given eight bytes in the order of addresses, the first as the least: the
/// lowest bit that it sets is the highest of the first such byte; what it sets above means nothing. `is` says the same
/// of a byte.
#[inline]
pub(crate) fn first(bytes: &[u8], in_word: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, last) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let found = in_word(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    last.iter().position(|byte| is(*byte)).map(|found| at + found)
}

/// Whether a byte is somewhere in a text.
#[inline]
pub(crate) fn has(bytes: &[u8], byte: u8) -> bool {
    first(bytes, |word| equal(word, byte), |b| b == byte).is_some()
}

/// Marks, as [`first`] wants it, bytes that are `byte`. Subtracting borrows only above such a byte.
#[inline]
pub(crate) const fn equal(word: u64, byte: u8) -> u64 {
    let other = word ^ (EACH * byte as u64);
    other.wrapping_sub(EACH) & !other & HIGH
}

/// Marks, as [`first`] wants it, bytes of ASCII that are below `byte`, which must be of ASCII too.
#[inline]
pub(crate) const fn below(word: u64, byte: u8) -> u64 {
    word.wrapping_sub(EACH * byte as u64) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_search_byte_by_byte_finds(bytes in prop::collection::vec(any::<u8>(), 0..200), byte: u8) {
            let found = first(&bytes, |word| equal(word, byte), |b| b == byte);
            prop_assert_eq!(found, bytes.iter().position(|b| *b == byte));
            prop_assert_eq!(has(&bytes, byte), found.is_some());
            let limit = byte & 0x7f;
            let found = first(&bytes, |word| below(word, limit), |b| b < limit);
            prop_assert_eq!(found, bytes.iter().position(|b| *b < limit));
        }
    }
}
