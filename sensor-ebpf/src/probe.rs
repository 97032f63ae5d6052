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
#[inline]
#[must_use]
pub fn classify(bytes: &[u8; LOOK], len: usize) -> Protocol {
    if len >= 2 && bytes[0] == 0x16 && bytes[1] == 3 {
        return Protocol::Tls;
    }
    if len >= 4 && bytes[0] == b'P' && bytes[1] == b'R' && bytes[2] == b'I' && bytes[3] == b' ' {
        return Protocol::Http2;
    }
    let mut method = false;
    for (at, &byte) in bytes.iter().enumerate() {
        if at >= len {
            break;
        }
        if is_token(byte) {
            method = true;
        } else if method && byte == b' ' {
            return Protocol::Http1;
        } else if method || (byte != b'\r' && byte != b'\n') {
            return lone_start(at, byte);
        }
    }
    Protocol::Http1
}

/// A first byte on its own decides nothing when TLS could go on from it: the segment may be one byte long.
const fn lone_start(at: usize, byte: u8) -> Protocol {
    if at == 0 && byte == 0x16 { Protocol::Tls } else { Protocol::Opaque }
}

/// Whether a byte may stand in a method: `tchar` of RFC 9110 section 5.6.2, as two bit sets.
#[inline]
#[must_use]
pub const fn is_token(byte: u8) -> bool {
    const fn set(chars: &[u8], base: u8) -> u64 {
        let mut bits = 0;
        let mut at = 0;
        while at < chars.len() {
            bits |= 1 << (chars[at] - base);
            at += 1;
        }
        bits
    }
    const LOW: u64 = set(b"!#$%&'*+-.0123456789", 0);
    const HIGH: u64 = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~", 64);
    if byte < 64 {
        LOW >> byte & 1 == 1
    } else if byte < 128 {
        HIGH >> (byte - 64) & 1 == 1
    } else {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let legal = "!#$%&'*+-.^_`|~";
        for byte in 0..=u8::MAX {
            assert_eq!(
                is_token(byte),
                byte.is_ascii_alphanumeric() || legal.as_bytes().contains(&byte),
                "{byte}"
            );
        }
    }
}
