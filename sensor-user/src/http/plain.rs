//! Heads as nearly everybody sends them, read in one pass: whole in one piece, every line ended by CR LF, no control
//! characters, no tabs, ASCII before the values.
//!
//! Whatever is not so goes the longer way of [`super::head`], which finds the end of a head however it is cut, asks
//! httparse, and then its own lenient reader. What is read here httparse reads alike (a test compares them). A head is
//! walked once and not three times; that saves a third of the instructions of the whole HTTP stage.

use std::ops::Range;

use super::exchange::{Header, MAX_HEADERS, RequestHead, ResponseHead};
use super::head::{MAX_METHOD, is_token};
use super::words::{self, EACH, HIGH};

/// Reads the plain request that `bytes` begin with, if its head takes at most `most` of them. How many it takes; `head`
/// is as it was otherwise, but for its header lines.
#[must_use]
pub fn request(bytes: &[u8], most: usize, head: &mut RequestHead) -> Option<usize> {
    let method = bytes.iter().position(|b| !b.is_ascii_uppercase())?;
    let rest = bytes.get(method..)?.strip_prefix(b" ")?;
    let target = words::first(rest, no_graphics, |b| !b.is_ascii_graphic())?;
    if method == 0 || method > MAX_METHOD || target == 0 {
        return None;
    }
    let minor_version = match rest.get(target..)?.first_chunk()? {
        b" HTTP/1.1\r\n" => 1,
        b" HTTP/1.0\r\n" => 0,
        _ => return None,
    };
    let target = method + 1..method + 1 + target;
    let end = fields(bytes, target.end + 11, &mut head.headers).filter(|end| *end <= most)?;
    head.bytes.extend_from_slice(bytes.get(..end)?);
    head.method = range(0, method);
    head.target = range(target.start, target.end);
    head.minor_version = minor_version;
    Some(end)
}

/// The same for a response. One below 100 is none.
#[must_use]
pub fn response(bytes: &[u8], most: usize, head: &mut ResponseHead) -> Option<usize> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', code @ ..] =
        bytes.first_chunk::<12>()?
    else {
        return None;
    };
    let digit = |b: &u8| b.is_ascii_digit().then(|| u16::from(b - b'0'));
    let status =
        code.iter().try_fold(0, |code, b| Some(code * 10 + digit(b)?)).filter(|code| *code >= 100)?;
    let reason = bytes.get(12..)?;
    let len = first_control(reason)?;
    let ends_well = matches!(reason.first(), Some(b' ' | b'\r')) && reason.get(len..)?.starts_with(b"\r\n");
    let end = fields(bytes, 12 + len + 2, &mut head.headers).filter(|end| ends_well && *end <= most)?;
    head.bytes.extend_from_slice(bytes.get(..end)?);
    (head.status, head.minor_version) = (status, minor - b'0');
    Some(end)
}

/// Reads header lines from `at` on. Where the head ends.
fn fields(bytes: &[u8], mut at: usize, headers: &mut Vec<Header>) -> Option<usize> {
    headers.clear();
    loop {
        let line = bytes.get(at..)?;
        let colon = name_len(line)?;
        let (name, rest) = line.split_at_checked(colon)?;
        let Some(rest) = rest.strip_prefix(b":").filter(|_| !name.is_empty()) else {
            return (name.is_empty() && rest.starts_with(b"\r\n")).then_some(at + 2);
        };
        let len = first_control(rest)?;
        if !rest.get(len..)?.starts_with(b"\r\n") || headers.len() == MAX_HEADERS {
            return None;
        }
        let (blank, kept) = trimmed(rest.get(..len)?);
        let from = at + colon + 1;
        headers.push(Header { name: range(at, at + colon), value: range(from + blank, from + blank + kept) });
        at = from + len + 2;
    }
}

/// Where a value without control characters begins, and how long it is, without the blanks around it. Nearly always one
/// blank comes before it and none after it.
#[inline]
fn trimmed(value: &[u8]) -> (usize, usize) {
    if let [b' ', first, .., last] = value
        && *first != b' '
        && *last != b' '
    {
        return (1, value.len() - 1);
    }
    let blank = value.iter().take_while(|b| **b == b' ').count();
    (blank, value.trim_ascii().len())
}

/// Bytes of a field's name at the start of a line: up to the first that may not be in one.
#[inline]
fn name_len(line: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Most names are of letters and dashes: these by the word, what else may be there one by one.
    while let Some(word) = line.get(at..)?.first_chunk::<8>() {
        let found = no_letters(u64::from_le_bytes(*word));
        if found == 0 {
            at += 8;
            continue;
        }
        at += (found.trailing_zeros() / 8) as usize;
        if !is_name(*line.get(at)?) {
            return Some(at);
        }
        at += 1;
    }
    line.get(at..)?.iter().position(|b| !is_name(*b)).map(|more| at + more)
}

/// The highest bit of each byte that is neither an ASCII letter nor a dash.
const fn no_letters(word: u64) -> u64 {
    // Without their highest bits bytes do not carry into each other.
    let low = word & (EACH * 0x7f);
    let small = low | (EACH * 0x20);
    let from_a = small + EACH * (0x80 - b'a' as u64);
    let beyond_z = small + EACH * (0x80 - b'z' as u64 - 1);
    let no_dash = (low ^ (EACH * b'-' as u64)) + EACH * 0x7f;
    (((!from_a | beyond_z) & no_dash) | word) & HIGH
}

/// The first control character of ASCII: what ends a line, or must not be in it.
#[inline]
fn first_control(bytes: &[u8]) -> Option<usize> {
    /// A token has some nine hundred bytes; other values are shorter than one of these.
    const BLOCK: usize = 64;
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let at = blocks.iter().take_while(|block| is_printable(*block)).count() * BLOCK;
    words::first(bytes.get(at..)?, controls, |b| b.is_ascii_control()).map(|found| at + found)
}

/// Whether there are only printable characters of ASCII. Moved up so that these come last, bytes are compared by their
/// least, for which processors have one instruction a register.
#[inline]
fn is_printable(block: &[u8]) -> bool {
    const MOVED: u8 = 0x81;
    block.iter().fold(u8::MAX, |least, b| least.min(b.wrapping_add(MOVED))) >= b' '.wrapping_add(MOVED)
}

/// Marks control characters, for [`words::first`].
const fn controls(word: u64) -> u64 {
    words::below(word, b' ') | words::equal(word, 0x7f)
}

/// Marks whatever is no visible character of ASCII.
const fn no_graphics(word: u64) -> u64 {
    words::below(word, b'!') | words::equal(word, 0x7f) | (word & HIGH)
}

/// [`is_token`] for every byte.
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        #[allow(clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "below 256")]
        {
            table[byte] = is_token(byte as u8);
        }
        byte += 1;
    }
    table
};

#[inline]
fn is_name(byte: u8) -> bool {
    NAME.get(usize::from(byte)).copied().unwrap_or_default()
}

/// A range within a head, which is far shorter than what 32 bits count.
fn range(from: usize, to: usize) -> Range<u32> {
    u32::try_from(from).unwrap_or(u32::MAX)..u32::try_from(to).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::exchange::Suspicions;
    use super::super::head;
    use super::*;

    const USUAL: &[u8] =
        b"GET /orders/7?x=1 HTTP/1.1\r\nHost: shop.example\r\nX-Empty:\r\nAccept:  */* \r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 2\r\n\r\nok";

    type Line = (Vec<u8>, Vec<u8>);

    fn lines(bytes: &[u8], headers: &[Header]) -> Vec<Line> {
        let slice = |range: &Range<u32>| bytes[range.start as usize..range.end as usize].to_vec();
        headers.iter().map(|h| (slice(&h.name), slice(&h.value))).collect()
    }

    fn same_request(bytes: &[u8]) -> bool {
        let mut quick = RequestHead::default();
        let Some(used) = request(bytes, 65_536, &mut quick) else { return false };
        let mut slow = RequestHead { bytes: bytes[..used].to_vec(), ..RequestHead::default() };
        let mut suspicions = Suspicions::default();
        assert!(head::read_request(&mut slow, &mut suspicions) && suspicions.is_empty());
        assert_eq!(head::EndOfHead::default().feed(bytes), Some(used));
        assert!(head::begins_request(bytes));
        let seen = |head: &RequestHead| {
            let line = (head.method().to_vec(), head.target().to_vec(), head.minor_version);
            (line, lines(&head.bytes, &head.headers))
        };
        assert_eq!(seen(&quick), seen(&slow));
        true
    }

    fn same_response(bytes: &[u8]) -> bool {
        let mut quick = ResponseHead::default();
        let Some(used) = response(bytes, 65_536, &mut quick) else { return false };
        let mut slow = ResponseHead { bytes: bytes[..used].to_vec(), ..ResponseHead::default() };
        assert!(head::read_response(&mut slow));
        assert_eq!(head::EndOfHead::default().feed(bytes), Some(used));
        let seen = |head: &ResponseHead| (head.status, head.minor_version, lines(&head.bytes, &head.headers));
        assert_eq!(seen(&quick), seen(&slow));
        true
    }

    #[test]
    fn usual_heads_are_plain() {
        assert!(same_request(USUAL) && same_response(ANSWER));
        assert!(same_request(b"DELETE http://h/x HTTP/1.0\r\n\r\nbody"));
        assert!(same_response(b"HTTP/1.0 404\r\n\r\n") && same_response(b"HTTP/1.1 999 \r\nA: \xff\r\n\r\n"));
    }

    #[test]
    fn what_is_not_plain_goes_the_longer_way() {
        let unusual: [&[u8]; 14] = [
            b"",
            b"GET",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"get / HTTP/1.1\r\n\r\n",
            b"GET  HTTP/1.1\r\n\r\n",
            b" GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
            b"GET / HTTP/1.1\r\n: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n\rc",
        ];
        assert!(unusual.iter().all(|bytes| !same_request(bytes)));
        let unusual: [&[u8]; 5] = [
            b"HTTP/1.1 99",
            b"HTTP/1.1 2000\r\n\r\n",
            b"HTTP/1.1 099 \r\n\r\n",
            b"HTTP/1.2 200\r\n\r\n",
            b"x",
        ];
        assert!(unusual.iter().all(|bytes| !same_response(bytes)));
        assert_eq!(request(USUAL, USUAL.len() - 1, &mut RequestHead::default()), None);
    }

    proptest! {
        #[test]
        fn reads_what_the_longer_way_reads(at in 0..USUAL.len(), with in prop::collection::vec(any::<u8>(), 0..3), cut in 0..3_usize) {
            for whole in [USUAL, ANSWER] {
                let at = at.min(whole.len());
                let mut bytes = whole.to_vec();
                bytes.splice(at..(at + cut).min(whole.len()), with.iter().copied());
                same_request(&bytes);
                same_response(&bytes);
            }
        }

        #[test]
        fn survives_any_bytes(bytes in prop::collection::vec(prop::sample::select(b"GET /HP1.:\r\nab\x7f\xff\t".to_vec()), 0..80)) {
            same_request(&bytes);
            same_response(&bytes);
        }

        #[test]
        fn names_end_where_another_byte_is(mut line in prop::collection::vec(prop::sample::select(b"aZz-".to_vec()), 0..40), at in 0..40_usize, byte in any::<u8>()) {
            if let Some(place) = line.get_mut(at) {
                *place = byte;
            }
            prop_assert_eq!(name_len(&line), line.iter().position(|b| !is_name(*b)));
        }

        #[test]
        fn blanks_around_values_go(value in prop::collection::vec(prop::sample::select(b" x".to_vec()), 0..8)) {
            let (blank, kept) = trimmed(&value);
            prop_assert_eq!(value.get(blank..blank + kept), Some(value.trim_ascii()));
        }

        #[test]
        fn finds_controls_wherever_they_are(len in 0..200_usize, at in 0..200_usize, byte in any::<u8>()) {
            let mut bytes = vec![b'x'; len];
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            prop_assert_eq!(first_control(&bytes), bytes.iter().position(u8::is_ascii_control));
        }
    }
}
