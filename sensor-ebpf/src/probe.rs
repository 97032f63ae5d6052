//! What a connection speaks, judged by its first bytes.
//!
//! The kernel half asks this once, about the first segment of an accepted connection, and forwards
//! whatever could still be an HTTP/1 request: an unknown method, leading blank lines (RFC 9112
//! section 2.2), a first segment of one byte. Only what cannot be HTTP/1 is muted. The verdict never
//! spans segments, because a forged segment that TCP is going to refuse could then poison it.

/// Bytes of the first segment that are looked at. The longest registered method has 17
/// (`UPDATEREDIRECTREF`), and one that long is given the benefit of the doubt.
pub const LOOK: usize = 16;

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// A request line, or too little to rule one out.
    Http1,
    /// The connection preface of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
    Http2,
    /// A TLS handshake record (RFC 8446 section 5.1).
    Tls,
    /// Bytes that start no request.
    Opaque,
}

/// Judges the first `len` bytes of `bytes`.
///
/// Byte by byte, with a branch each, the verifier would walk hundreds of thousands of paths. So every byte only
/// sets bits, one a position, and the verdict is taken from the sets.
#[inline]
#[must_use]
#[allow(clippy::indexing_slicing, reason = "a byte indexes a table of 256")]
pub fn classify(bytes: &[u8; LOOK], len: usize) -> Protocol {
    let [first, second, third, fourth, ..] = *bytes;
    // A first segment of one byte, 0x16, starts no request either.
    if first == 0x16 && (second == 3 || len == 1) {
        return Protocol::Tls;
    }
    if [first, second, third, fourth] == *b"PRI " {
        return Protocol::Http2;
    }
    let (mut tokens, mut blanks, mut breaks) = (0_u32, 0_u32, 0_u32);
    for (at, byte) in bytes.iter().enumerate() {
        let class = u32::from(CLASSES[*byte as usize]);
        tokens |= (class & 1) << at;
        blanks |= (class >> 1 & 1) << at;
        breaks |= (class >> 2 & 1) << at;
    }
    let beyond = 1_u32 << len;
    // The lowest position that is no line break, then the end of the run of token characters from there: adding
    // a bit to a run of ones carries to the first zero.
    let start = !breaks & (breaks + 1);
    let run = (tokens + start) ^ tokens;
    let end = (run + start) >> 1;
    let method = tokens & start != 0 && (end >= beyond || blanks & end != 0);
    if start >= beyond || method { Protocol::Http1 } else { Protocol::Opaque }
}

/// [`CLASSES`]: may stand in a method, `tchar` of RFC 9110 section 5.6.2.
const TOKEN: u8 = 1;
/// [`CLASSES`]: a space.
const BLANK: u8 = 2;
/// [`CLASSES`]: part of a line break.
const BREAK: u8 = 4;

/// What each byte may be at the start of a request.
#[allow(
    clippy::indexing_slicing,
    reason = "computed by the compiler, which would refuse to go out of bounds"
)]
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let tokens = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    while at < tokens.len() {
        classes[tokens[at] as usize] = TOKEN;
        at += 1;
    }
    classes[b' ' as usize] = BLANK;
    classes[b'\r' as usize] = BREAK;
    classes[b'\n' as usize] = BREAK;
    classes
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The same verdict, taken byte by byte.
    fn read(first: &[u8]) -> Protocol {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        match first {
            [0x16] | [0x16, 3, ..] => return Protocol::Tls,
            [b'P', b'R', b'I', b' ', ..] => return Protocol::Http2,
            _ => {}
        }
        let line =
            first.iter().position(|byte| !b"\r\n".contains(byte)).map_or(&first[..0], |at| &first[at..]);
        let method = line.iter().position(|byte| !is_token(byte));
        match method {
            Some(0) => Protocol::Opaque,
            Some(end) if line[end] != b' ' => Protocol::Opaque,
            _ => Protocol::Http1,
        }
    }

    #[test]
    fn sets_of_bits_judge_as_a_reader_would() {
        let alphabet = b"\r\n GP\x16\x03\0R";
        let base = alphabet.len();
        for number in 0..base.pow(5) {
            let digits = [0, 1, 2, 3, 4].map(|place| alphabet[number / base.pow(place) % base]);
            for len in 0..=digits.len() {
                assert_eq!(judge(&digits[..len]), read(&digits[..len]), "{:?}", &digits[..len]);
            }
        }
    }

    fn judge(first: &[u8]) -> Protocol {
        let mut bytes = [0; LOOK];
        let len = first.len().min(LOOK);
        bytes[..len].copy_from_slice(&first[..len]);
        classify(&bytes, len)
    }

    #[test]
    fn knows_http1_by_any_method() {
        for start in
            ["GET / HTTP/1.1", "BREW /pot", "a b", "M-SEARCH *", "UPDATEREDIRECTREF /", "\r\n\r\nPOST /x"]
        {
            assert_eq!(judge(start.as_bytes()), Protocol::Http1, "{start}");
        }
    }

    #[test]
    fn too_little_stays_http1() {
        for start in ["", "G", "GE", "\r", "\r\n", "P", "PRI"] {
            assert_eq!(judge(start.as_bytes()), Protocol::Http1, "{start}");
        }
    }

    #[test]
    fn mutes_what_cannot_be_a_request() {
        assert_eq!(judge(b"\x16\x03\x01\x02\x00\x01"), Protocol::Tls);
        assert_eq!(judge(b"\x16"), Protocol::Tls);
        assert_eq!(judge(b"PRI * HTTP/2.0\r\n\r\n"), Protocol::Http2);
        assert_eq!(judge(b"\0\0\0\x08\x04\xd2\x16\x2f"), Protocol::Opaque);
        assert_eq!(judge(b"*1\r\n$4\r\nPING"), Protocol::Opaque);
        assert_eq!(judge(b"SSH-2.0\r\n"), Protocol::Opaque);
        assert_eq!(judge(" GET / HTTP/1.1".as_bytes()), Protocol::Opaque);
    }

    #[test]
    fn token_characters_are_those_of_the_rfc() {
        for byte in 0..=u8::MAX {
            let legal = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(judge(&[b'G', byte, b'T', b' ']) == Protocol::Http1, legal || byte == b' ', "{byte}");
        }
    }
}
