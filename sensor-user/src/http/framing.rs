//! Where a message ends (RFC 9112 section 6), and every way in which two parties could disagree about that.
//!
//! Requests are read as a careful server does, with the ambiguity noted: chunked wins over a length, the first of
//! several lengths counts, an encoding without `chunked` leaves the length in force.

use super::exchange::{Header, RequestHead, ResponseHead, Suspicions};

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// No body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// Responses only: until the server closes.
    UntilClose,
}

/// What matters of a method for the response's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The response has no body.
    Head,
    /// A 2xx turns the connection into a tunnel.
    Connect,
    /// Everything else.
    Other,
}

/// What follows a request's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestFraming {
    pub(super) body: Body,
    pub(super) kind: Kind,
    /// The client may wait for 100 (Continue) before it sends the body, and may give up.
    pub(super) expects: bool,
}

/// What the framing headers say, before anything is decided.
#[derive(Debug, Default)]
struct Fields {
    length: Option<u64>,
    has_length: bool,
    has_encoding: bool,
    chunked: bool,
    suspicions: Suspicions,
}

/// Reads a request's framing and notes what is ambiguous.
pub(super) fn of_request(head: &RequestHead, suspicions: &mut Suspicions) -> RequestFraming {
    let fields = Fields::read(&head.bytes, &head.headers, head.minor_version);
    suspicions.insert(fields.suspicions);
    let kind = match head.method() {
        b"HEAD" => Kind::Head,
        b"CONNECT" => Kind::Connect,
        _ => Kind::Other,
    };
    let body = match (fields.chunked, fields.length) {
        _ if kind == Kind::Connect => Body::None,
        (true, _) => Body::Chunked,
        (false, Some(length)) if length > 0 => Body::Length(length),
        (false, _) => Body::None,
    };
    let expects = body != Body::None
        && head.value("expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    RequestFraming { body, kind, expects }
}

/// Reads a response's framing (RFC 9112 section 6.3, in its order).
pub(super) fn of_response(head: &ResponseHead, kind: Kind) -> Body {
    if kind == Kind::Head || matches!(head.status, 100..200 | 204 | 304) {
        return Body::None;
    }
    let fields = Fields::read(&head.bytes, &head.headers, head.minor_version);
    match (fields.chunked, fields.length) {
        (true, _) => Body::Chunked,
        (false, Some(length)) if !fields.has_encoding => Body::Length(length),
        (false, _) => Body::UntilClose,
    }
}

impl Fields {
    fn read(bytes: &[u8], headers: &[Header], minor_version: u8) -> Self {
        let mut fields = Self::default();
        for header in headers {
            let slice = |range: &std::ops::Range<u32>| {
                bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
            };
            match header.name.end - header.name.start {
                14 if slice(&header.name).eq_ignore_ascii_case(b"content-length") => {
                    fields.add_length(slice(&header.value));
                }
                17 if slice(&header.name).eq_ignore_ascii_case(b"transfer-encoding") => {
                    fields.add_encoding(slice(&header.value));
                }
                _ => {}
            }
        }
        if fields.has_encoding && fields.has_length {
            fields.suspicions.insert(Suspicions::LENGTH_AND_CHUNKED);
        }
        if fields.has_encoding && minor_version == 0 {
            fields.suspicions.insert(Suspicions::CHUNKED_IN_HTTP10);
        }
        fields
    }

    fn add_length(&mut self, value: &[u8]) {
        self.has_length = true;
        // Nearly all are one number and nothing else.
        let Some(length) = decimal(value).or_else(|| self.first_length(value)) else {
            self.suspicions.insert(Suspicions::BAD_LENGTH);
            return;
        };
        if *self.length.get_or_insert(length) != length {
            self.suspicions.insert(Suspicions::DUPLICATE_LENGTH);
        }
    }

    /// The first of a list.
    #[cold]
    fn first_length(&mut self, value: &[u8]) -> Option<u64> {
        let mut members = value.split(|b| *b == b',');
        let first = members.next().unwrap_or_default();
        if members.next().is_some() {
            self.suspicions.insert(Suspicions::DUPLICATE_LENGTH);
        }
        decimal(first.trim_ascii())
    }

    fn add_encoding(&mut self, value: &[u8]) {
        let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        if self.has_encoding || !value.eq_ignore_ascii_case(b"chunked") {
            self.suspicions.insert(Suspicions::BAD_ENCODING);
        }
        self.has_encoding = true;
        self.chunked |= value.split(|b| *b == b',').any(is_chunked);
    }
}

/// `1*DIGIT` (RFC 9110 section 8.6): no sign, no blanks, no overflow.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head;

    fn framing(lines: &str) -> (Body, Suspicions) {
        let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
        let mut head = RequestHead { bytes: text.into_bytes(), ..RequestHead::default() };
        let mut suspicions = Suspicions::default();
        assert!(head::read_request(&mut head, &mut suspicions));
        let framing = of_request(&head, &mut suspicions);
        (framing.body, suspicions)
    }

    #[test]
    fn chunked_wins_over_a_length() {
        let (body, suspicions) = framing("Content-Length: 5\r\nTransfer-Encoding: Chunked\r\n");
        assert_eq!((body, suspicions), (Body::Chunked, Suspicions::LENGTH_AND_CHUNKED));
    }

    #[test]
    fn equal_lengths_are_one_length() {
        let (body, suspicions) = framing("Content-Length: 5\r\nContent-Length: 5\r\n");
        assert_eq!((body, suspicions), (Body::Length(5), Suspicions::default()));
    }

    #[test]
    fn differing_lengths_and_lists_are_suspect() {
        for lines in ["Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: 5, 5\r\n"] {
            assert_eq!(framing(lines), (Body::Length(5), Suspicions::DUPLICATE_LENGTH), "{lines}");
        }
    }

    #[test]
    fn a_length_that_is_no_number_is_no_length() {
        for value in ["+5", "-5", "0x5", "5 5", "", "5a", "18446744073709551616"] {
            let (body, suspicions) = framing(&format!("Content-Length: {value}\r\n"));
            assert_eq!((body, suspicions), (Body::None, Suspicions::BAD_LENGTH), "{value}");
        }
    }

    #[test]
    fn an_encoding_that_is_not_just_chunked_is_suspect() {
        let cases = [
            ("gzip, chunked", Body::Chunked),
            ("chunked, identity", Body::Chunked),
            ("xchunked", Body::None),
            ("identity", Body::None),
        ];
        for (value, body) in cases {
            let lines = format!("Transfer-Encoding: {value}\r\n");
            assert_eq!(framing(&lines), (body, Suspicions::BAD_ENCODING), "{value}");
        }
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(framing(twice), (Body::Chunked, Suspicions::BAD_ENCODING));
    }

    #[test]
    fn chunked_in_http_1_0_is_suspect() {
        let bytes = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let mut head = RequestHead { bytes, ..RequestHead::default() };
        let mut suspicions = Suspicions::default();
        assert!(head::read_request(&mut head, &mut suspicions));
        assert_eq!(of_request(&head, &mut suspicions).body, Body::Chunked);
        assert_eq!(suspicions, Suspicions::CHUNKED_IN_HTTP10);
    }
}
