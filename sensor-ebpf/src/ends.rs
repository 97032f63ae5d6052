//! Ends of heads in the bytes that a client sends: a turn with two of them holds two requests, and their responses may
//! come in one segment.
//!
//! A head ends with an empty line, so with LF CR or, for lenient servers, LF LF (RFC 9112 section 2.2). Bodies may hold
//! that too, and then a connection is taken for one that pipelines: it costs copies and nothing else. Nothing is
//! parsed. Tokens, most of a request's bytes, hold no control characters, so a block of 32 bytes mostly costs four
//! subtractions.

/// Bytes looked at together.
pub const BLOCK: usize = 32;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;
const LF: u64 = ONES * 0x0a;
const CR: u64 = ONES * 0x0d;
/// The first byte above the control characters that end lines.
const ABOVE: u64 = ONES * 0x0e;

/// What is known after some blocks of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// 1 if a block held the end of a head.
    pub one: u64,
    /// 1 if a second block did.
    pub two: u64,
    /// 0x80 if the last byte was LF, else 0.
    pub feed: u64,
}

impl Ends {
    /// Reads on: the next [`BLOCK`] bytes as little-endian words, zero where there are no more.
    ///
    /// Two ends in one block count once: no request of so few bytes carries a token. A byte 0x0b or 0x0c after LF may
    /// be taken for a line break.
    #[inline]
    #[must_use]
    pub const fn then(self, words: [u64; BLOCK / 8]) -> Self {
        let [a, b, c, d] = words;
        let low =
            a.wrapping_sub(ABOVE) | b.wrapping_sub(ABOVE) | c.wrapping_sub(ABOVE) | d.wrapping_sub(ABOVE);
        if low & HIGH == 0 {
            return Self { feed: 0, ..self };
        }
        let (at_a, feed) = pairs(a, self.feed);
        let (at_b, feed) = pairs(b, feed);
        let (at_c, feed) = pairs(c, feed);
        let (at_d, feed) = pairs(d, feed);
        let any = at_a | at_b | at_c | at_d;
        let any = (any | any.wrapping_neg()) >> 63;
        Self { one: self.one | any, two: self.two | (self.one & any), feed }
    }
}

/// Where LF is followed by CR or LF in eight bytes, and whether the last is LF.
#[inline]
const fn pairs(word: u64, feed: u64) -> (u64, u64) {
    let feeds = zero_bytes(word ^ LF);
    let breaks = feeds | zero_bytes(word ^ CR);
    ((feeds << 8 | feed) & breaks, feeds >> 56)
}

/// The high bit of every byte that is zero; of the byte above one, too, if it is one.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::format;

    use super::*;

    fn ends(bytes: &[u8]) -> u64 {
        let blocks = bytes.chunks(BLOCK).map(|chunk| {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            let word = |at: usize| u64::from_le_bytes(block[at * 8..at * 8 + 8].try_into().unwrap());
            [word(0), word(1), word(2), word(3)]
        });
        let ends = blocks.fold(Ends::default(), Ends::then);
        ends.one + ends.two
    }

    #[test]
    fn finds_the_end_of_a_head_at_every_place() {
        for start in 0..100 {
            for end in [b"\r\n\r\n".as_slice(), b"\n\n", b"\n\r\n"] {
                for after in [0, 1, 50] {
                    let bytes =
                        [alloc::vec![b'x'; start].as_slice(), end, &alloc::vec![b'y'; after]].concat();
                    assert_eq!(ends(&bytes), 1, "{start} {end:?} {after}");
                }
            }
        }
    }

    #[test]
    fn lines_are_no_ends() {
        let head = b"GET /orders/42 HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer eyJh.eyJz.c2ln\r\nX: \xff\xfe\x0b\r\n";
        for start in 0..40 {
            assert_eq!(ends(&[alloc::vec![b' '; start].as_slice(), head].concat()), 0);
        }
    }

    #[test]
    fn counts_requests_of_any_size() {
        let request = |pad: usize| format!("GET /{} HTTP/1.1\r\nHost: an.example\r\n\r\n", "p".repeat(pad));
        for pad in 0..80 {
            assert_eq!(ends([request(pad), request(9), request(90)].concat().as_bytes()), 2, "{pad}");
        }
    }
}
