//! The client's address behind proxies: `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! Each proxy appends whom it heard, so the list is read from the right and only as far as its authors are trusted: the
//! first address that is no trusted proxy is the client, and everything left of it is hearsay. Where both headers
//! are present, `X-Forwarded-For` counts: it is what proxies maintain, and the other may have been passed through.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::exchange::RequestHead;

/// The client of a request that came from `peer`.
#[must_use]
pub fn address(peer: IpAddr, head: &RequestHead, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    if !is_trusted(peer) {
        return peer;
    }
    let is_forwarded = head.value("x-forwarded-for").is_none();
    let name = if is_forwarded { "forwarded" } else { "x-forwarded-for" };
    let mut nearest = peer;
    for header in head.headers.iter().rev() {
        if !head.slice(&header.name).eq_ignore_ascii_case(name.as_bytes()) {
            continue;
        }
        for element in elements_from_the_right(head.slice(&header.value)) {
            // "unknown" and hidden names (RFC 7239 section 6) end what can be known.
            let address = if is_forwarded { forwarded_for(element) } else { node(element) };
            let Some(address) = address else { return nearest };
            nearest = address;
            if !is_trusted(address) {
                return nearest;
            }
        }
    }
    nearest
}

/// The elements of a list, last first. Commas inside quotes do not separate.
fn elements_from_the_right(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    list.rsplit(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    })
    .map(<[u8]>::trim_ascii)
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    element.split(|b| *b == b';').find_map(|pair| {
        let (name, value) = pair.trim_ascii().split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then(|| node(value)).flatten()
    })
}

/// An address with or without quotes, brackets and port.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim().trim_matches('"');
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Suspicions, parse};

    fn client(headers: &str) -> String {
        let bytes = format!("GET / HTTP/1.1\r\n{headers}\r\n").into_bytes();
        let mut head = RequestHead { bytes, ..RequestHead::default() };
        assert!(parse::read_request(&mut head, &mut Suspicions::default()));
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        address("10.0.0.1".parse().unwrap(), &head, &trusted).to_string()
    }

    #[test]
    fn the_first_untrusted_from_the_right_is_the_client() {
        let cases = [
            ("", "10.0.0.1"),
            ("X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
            ("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.9.9.9\r\n", "1.2.3.4"),
            ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
            ("X-Forwarded-For: 10.1.1.1, 10.2.2.2\r\n", "10.1.1.1"),
            ("X-Forwarded-For: 1.2.3.4:5678\r\n", "1.2.3.4"),
            ("X-Forwarded-For: ::ffff:1.2.3.4\r\n", "1.2.3.4"),
            ("X-Forwarded-For: 1.2.3.4, unknown\r\n", "10.0.0.1"),
            ("Forwarded: for=6.6.6.6, for=\"[2001:db8::17]:4711\";proto=http\r\n", "2001:db8::17"),
            ("Forwarded: host=\"a,b\";For=1.2.3.4\r\n", "1.2.3.4"),
            ("Forwarded: for=_hidden\r\n", "10.0.0.1"),
            ("Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
        ];
        for (headers, expected) in cases {
            assert_eq!(client(headers), expected, "{headers}");
        }
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client() {
        let bytes = b"GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n".to_vec();
        let mut head = RequestHead { bytes, ..RequestHead::default() };
        assert!(parse::read_request(&mut head, &mut Suspicions::default()));
        let peer = "9.9.9.9".parse().unwrap();
        assert_eq!(address(peer, &head, &["10.0.0.0/8".parse().unwrap()]), peer);
        assert_eq!(address(peer, &head, &[]), peer);
    }
}
