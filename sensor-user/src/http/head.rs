//! Heads: where they end, and what they say.
//!
//! A head that is well formed is read by httparse. One that is not is read again by a lenient splitter of our own: a
//! server may take what httparse refuses, and whatever it takes may carry a token. The oddity becomes a suspicion.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::exchange::{Header, MAX_HEADERS, RequestHead, ResponseHead, Suspicions};

/// Of [`MAX_HEADERS`] places, those kept for headers that decide something, so that a flood of others cannot push the
/// `Authorization` out.
const RESERVED: usize = 16;

/// Longest method that is believed; the longest registered one has 17 characters (RFC 9110 section 16.1).
pub(super) const MAX_METHOD: usize = 32;

/// Finds the empty line that ends a head, however the head is cut into pieces. Line feeds count with or without a
/// carriage return, as most servers read them.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndOfHead {
    state: Line,
    /// The last byte was a CR.
    cr: bool,
    /// Some line feed had no CR before it.
    bare: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Line {
    /// Inside a line: a head begins with one that is not empty.
    #[default]
    Inside,
    /// At the start of a line.
    Start,
    /// After a CR at the start of a line.
    Cr,
}

impl EndOfHead {
    /// Reads on. The result is how many of `bytes` belong to the head, once it has ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            match (self.state, rest.first()) {
                (Line::Inside, _) => {
                    let found = memchr::memchr(b'\n', rest);
                    let before = found.unwrap_or(rest.len()).checked_sub(1).and_then(|last| rest.get(last));
                    let cr = before.map_or(self.cr, |last| *last == b'\r');
                    self.cr = cr;
                    at += found? + 1;
                    self.bare |= !cr;
                    self.state = Line::Start;
                    continue;
                }
                (Line::Start | Line::Cr, Some(b'\n')) => {
                    self.bare |= matches!(self.state, Line::Start);
                    return Some(at + 1);
                }
                (Line::Start, Some(b'\r')) => self.state = Line::Cr,
                (Line::Start | Line::Cr, byte) => {
                    self.cr = byte == Some(&b'\r');
                    self.state = Line::Inside;
                }
            }
            at += 1;
        }
    }

    /// Whether some line ended with a line feed alone.
    #[must_use]
    pub fn has_bare_line_feed(&self) -> bool {
        self.bare
    }
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2): methods and field names.
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

/// Whether bytes could be the start of a request: the first line, or as much of it as there is.
pub(super) fn begins_request(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let whole = line.len() < bytes.len();
    let method = line.iter().take_while(|b| is_token(**b)).count();
    if method == 0 || method > MAX_METHOD {
        return false;
    }
    match line.get(method) {
        None => !whole,
        Some(b' ' | b'\t') => !whole || is_request_line(line),
        Some(_) => false,
    }
}

/// Whether bytes begin with a whole request line beyond doubt: a known method and this version.
pub(super) fn begins_request_surely(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let method = line.split(|b| *b == b' ').next().unwrap_or_default();
    KNOWN.contains(&method) && line.trim_ascii_end().ends_with(b" HTTP/1.1")
}

/// Methods that everybody knows. None ends with another, so that a request cut after its first bytes is not mistaken
/// for another request.
const KNOWN: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// Whether a whole first line is a request's: it names the protocol, or at least a method that everybody knows.
fn is_request_line(line: &[u8]) -> bool {
    let method = line.split(|b| matches!(b, b' ' | b'\t')).next().unwrap_or_default();
    KNOWN.contains(&method) || memchr::memmem::find(line, b"HTTP/").is_some()
}

/// Reads `head.bytes` into the rest of `head`. False if this is no request at all.
///
/// httparse takes bare line feeds, so those are told by [`EndOfHead::has_bare_line_feed`] alone.
pub fn read_request(head: &mut RequestHead, suspicions: &mut Suspicions) -> bool {
    read_request_strictly(head) || read_request_leniently(head, suspicions)
}

fn read_request_strictly(head: &mut RequestHead) -> bool {
    let RequestHead { bytes, method, target, minor_version, headers } = head;
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(_)) = parsed.parse_with_uninit_headers(bytes, &mut fields) else {
        return false;
    };
    *method = range_in(bytes, parsed.method.unwrap_or_default().as_bytes());
    *target = range_in(bytes, parsed.path.unwrap_or_default().as_bytes());
    *minor_version = parsed.version.unwrap_or(1);
    headers.clear();
    headers.extend(parsed.headers.iter().map(|field| header(bytes, field)));
    true
}

/// Reads `head.bytes` into the rest of `head`, whether they end with the empty line or not. False if there is not even
/// a status line.
pub fn read_response(head: &mut ResponseHead) -> bool {
    let ResponseHead { bytes, status, minor_version, headers } = head;
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let result = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields);
    if let Ok(httparse::Status::Complete(_)) = result {
        *status = parsed.code.unwrap_or(0);
        *minor_version = parsed.version.unwrap_or(1);
        headers.clear();
        headers.extend(parsed.headers.iter().map(|field| header(bytes, field)));
        return (100..1000).contains(status);
    }
    let line_end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let Some((minor, code)) = bytes.get(..line_end).and_then(status_line) else { return false };
    (*minor_version, *status) = (minor, code);
    headers.clear();
    let mut ignored = Suspicions::default();
    // A header line that was cut off is not read: half a value is worse than none.
    let whole = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
    split_headers(bytes, line_end + 1..whole, headers, &mut ignored);
    true
}

/// `HTTP/1.x NNN`, with any number of blanks between.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let (minor, rest) = line.strip_prefix(b"HTTP/1.")?.split_first()?;
    let rest = rest.strip_prefix(b" ")?.trim_ascii_start();
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    if rest.get(3).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    (code >= 100).then_some((u8::from(*minor != b'0'), code))
}

fn read_request_leniently(head: &mut RequestHead, suspicions: &mut Suspicions) -> bool {
    let RequestHead { bytes, method, target, minor_version, headers } = head;
    headers.clear();
    let line_end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes.get(..line_end).unwrap_or_default();
    note_controls(line.strip_suffix(b"\r").unwrap_or(line), suspicions);
    let line = line.trim_ascii_end();
    let name = line.iter().take_while(|b| is_token(**b)).count();
    if name == 0 || name > MAX_METHOD || !is_request_line(line) {
        return false;
    }
    let rest = line.get(name..).unwrap_or_default();
    let (rest, minor) = split_version(rest);
    if !rest.first().is_some_and(u8::is_ascii_whitespace) || rest.trim_ascii().is_empty() {
        return false;
    }
    *method = 0..to_u32(name);
    *target = range_in(bytes, rest.trim_ascii());
    *minor_version = minor;
    // A header line that was cut off is not read: half a token is another token.
    let whole = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
    split_headers(bytes, line_end + 1..whole, headers, suspicions);
    true
}

/// Takes `HTTP/x.y` off the end of a request line. HTTP/0.9 has none and counts as 1.0.
fn split_version(rest: &[u8]) -> (&[u8], u8) {
    let at = rest.iter().rposition(u8::is_ascii_whitespace).unwrap_or(0);
    let (before, last) = rest.split_at_checked(at).unwrap_or((rest, &[]));
    match last.trim_ascii_start() {
        version if version.len() >= 5 && version.get(..5) == Some(b"HTTP/") => {
            (before, u8::from(version != b"HTTP/1.0"))
        }
        // A head that was cut off inside the protocol's name.
        version if !version.is_empty() && b"HTTP/".starts_with(version) => (before, 1),
        _ => (rest, 0),
    }
}

/// Splits lines into headers and notes what a strict parser would not take.
fn split_headers(bytes: &[u8], within: Range<usize>, headers: &mut Vec<Header>, suspicions: &mut Suspicions) {
    let mut at = within.start;
    while at < within.end {
        let rest = bytes.get(at..within.end).unwrap_or_default();
        let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..len).unwrap_or_default();
        at += len + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        note_controls(line, suspicions);
        if line.is_empty() {
            continue;
        }
        if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            suspicions.insert(Suspicions::FOLDED_HEADER);
            if let Some(previous) = headers.last_mut() {
                previous.value.end = range_in(bytes, line.trim_ascii_end()).end.max(previous.value.end);
                continue;
            }
        }
        match header_of(bytes, line, suspicions) {
            Some(header) => keep(bytes, header, headers),
            None => suspicions.insert(Suspicions::BAD_FIELD_NAME),
        }
    }
}

fn header_of(bytes: &[u8], line: &[u8], suspicions: &mut Suspicions) -> Option<Header> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        suspicions.insert(Suspicions::BAD_FIELD_NAME);
    }
    let value = value.strip_prefix(b":").unwrap_or(value);
    Some(Header { name: range_in(bytes, name.trim_ascii()), value: range_in(bytes, value.trim_ascii()) })
}

/// Keeps a header while there is room; the last places are for those that decide something.
fn keep(bytes: &[u8], header: Header, headers: &mut Vec<Header>) {
    const DECIDING: [&[u8]; 8] = [
        b"authorization",
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"cookie",
        b"x-forwarded-for",
        b"forwarded",
        b"dpop",
    ];
    let name = bytes.get(header.name.start as usize..header.name.end as usize).unwrap_or_default();
    let decides = || DECIDING.iter().any(|known| name.eq_ignore_ascii_case(known));
    if headers.len() < MAX_HEADERS - RESERVED || (headers.len() < MAX_HEADERS && decides()) {
        headers.push(header);
    }
}

fn note_controls(line: &[u8], suspicions: &mut Suspicions) {
    if memchr::memchr2(b'\r', b'\0', line).is_some() {
        suspicions.insert(Suspicions::BARE_CONTROL);
    }
}

fn header(bytes: &[u8], field: &httparse::Header<'_>) -> Header {
    Header { name: range_in(bytes, field.name.as_bytes()), value: range_in(bytes, field.value.trim_ascii()) }
}

/// Where `part` lies in `whole`; empty if it does not.
fn range_in(whole: &[u8], part: &[u8]) -> Range<u32> {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    if start > whole.len() || part.len() > whole.len() - start {
        return 0..0;
    }
    to_u32(start)..to_u32(start + part.len())
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: &[u8]) -> (RequestHead, Suspicions) {
        let mut head = RequestHead { bytes: bytes.to_vec(), ..RequestHead::default() };
        let mut suspicions = Suspicions::default();
        let mut end = EndOfHead::default();
        end.feed(bytes);
        if end.has_bare_line_feed() {
            suspicions.insert(Suspicions::BARE_CONTROL);
        }
        assert!(read_request(&mut head, &mut suspicions), "{}", String::from_utf8_lossy(bytes));
        (head, suspicions)
    }

    #[test]
    fn the_end_is_found_wherever_the_head_is_cut() {
        for head in ["G / HTTP/1.1\r\nA: b\r\n\r\n", "G / HTTP/1.1\nA: b\n\n", "G / HTTP/1.1\r\nA: b\n\r\n"] {
            for cut in 0..head.len() {
                let bytes = format!("{head}tail").into_bytes();
                let mut end = EndOfHead::default();
                let found = end.feed(&bytes[..cut]).or_else(|| end.feed(&bytes[cut..]).map(|n| n + cut));
                assert_eq!(found, Some(head.len()), "{head:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn bare_line_feeds_are_noticed_wherever_the_head_is_cut() {
        for (head, bare) in
            [("G / H\r\nA: b\r\n\r\n", false), ("G / H\nA: b\r\n\r\n", true), ("G / H\r\n\n", true)]
        {
            for cut in 0..head.len() {
                let mut end = EndOfHead::default();
                end.feed(&head.as_bytes()[..cut]);
                end.feed(&head.as_bytes()[cut..]);
                assert_eq!(end.has_bare_line_feed(), bare, "{head:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn reads_a_plain_head() {
        let (head, suspicions) =
            request(b"GET /a?b HTTP/1.1\r\nHost: x\r\nAuthorization:  Bearer t \r\n\r\n");
        assert_eq!((head.method(), head.target(), head.minor_version), (&b"GET"[..], &b"/a?b"[..], 1));
        assert_eq!(head.value("authorization"), Some(&b"Bearer t"[..]));
        assert!(suspicions.is_empty());
    }

    #[test]
    fn finds_the_token_in_heads_that_strict_parsers_refuse() {
        let cases: [(&[u8], Suspicions); 8] = [
            (b"GET / HTTP/1.1\nAuthorization: Bearer t\n\n", Suspicions::BARE_CONTROL),
            (b"GET / HTTP/1.1\r\nAuthorization : Bearer t\r\n\r\n", Suspicions::BAD_FIELD_NAME),
            (b"GET / HTTP/1.1\r\nX: a\r\n b\r\nAuthorization: Bearer t\r\n\r\n", Suspicions::FOLDED_HEADER),
            (b"GET / HTTP/1.1\r\nX: a\0b\r\nAuthorization: Bearer t\r\n\r\n", Suspicions::BARE_CONTROL),
            (b"GET / HTTP/1.1\r\nX: a\rb\r\nAuthorization: Bearer t\r\n\r\n", Suspicions::BARE_CONTROL),
            (b"GET / HTTP/1.1\r\nno colon\r\nAuthorization: Bearer t\r\n\r\n", Suspicions::BAD_FIELD_NAME),
            (b"GET   /  HTTP/1.1\r\nAuthorization: Bearer t\r\n\r\n", Suspicions(0)),
            (b"GET / HTTP/3.7\r\nAuthorization: Bearer t\r\n\r\n", Suspicions(0)),
        ];
        for (bytes, expected) in cases {
            let (head, suspicions) = request(bytes);
            assert_eq!(
                head.value("authorization"),
                Some(&b"Bearer t"[..]),
                "{}",
                String::from_utf8_lossy(bytes)
            );
            assert_eq!(suspicions, expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_folded_value_is_kept_whole() {
        let (head, _) = request(b"GET / HTTP/1.1\r\nAuthorization: Bearer\r\n  t\r\nA: b\r\n\r\n");
        assert_eq!(head.value("authorization"), Some(&b"Bearer\r\n  t"[..]));
    }

    #[test]
    fn a_flood_of_headers_does_not_hide_the_token() {
        let mut text = "GET / HTTP/1.1\r\n".to_owned();
        text.push_str(&"X: y\r\n".repeat(1000));
        text.push_str("Authorization: Bearer t\r\n\r\n");
        let (head, _) = request(text.as_bytes());
        assert_eq!(head.value("authorization"), Some(&b"Bearer t"[..]));
        assert!(head.headers.len() <= MAX_HEADERS);
    }

    #[test]
    fn reads_a_request_line_without_version() {
        let (head, _) = request(b"GET /?access_token=t\r\n");
        assert_eq!((head.query(), head.minor_version), (&b"access_token=t"[..], 0));
    }

    #[test]
    fn other_protocols_are_no_requests() {
        for bytes in [
            &b"SSH-2.0-OpenSSH_9\r\n"[..],
            b"EHLO mail\r\n",
            b"\x16\x03\x01",
            b"{\"a\": 1}",
            b"*1\r\n",
            b" GET",
        ] {
            assert!(!begins_request(bytes), "{}", String::from_utf8_lossy(bytes));
        }
        for bytes in [&b"G"[..], b"GET", b"GET /", b"PROPFIND /x HTTP/1.1\r\n", b"GET /\n"] {
            assert!(begins_request(bytes), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn reads_what_there_is_of_a_response() {
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, Some("5")),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nX-Cut-O", 404, Some("5")),
            ("HTTP/1.0 302\r\nContent-Len", 302, None),
            ("HTTP/1.1 503", 503, None),
        ];
        for (bytes, status, length) in cases {
            let mut head = ResponseHead { bytes: bytes.into(), ..ResponseHead::default() };
            assert!(read_response(&mut head));
            assert_eq!((head.status, head.value("content-length")), (status, length.map(str::as_bytes)));
        }
    }
}
