//! Made traffic: heads as browsers, curl and services send them, and exchanges that are made of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use sensor_user::capture::{Endpoints, Origin, SocketId, Time};
use sensor_user::http::parse::{read_request, read_response};
use sensor_user::http::{Exchange, RequestHead, ResponseHead, Suspicions};
use sensor_user::token::facts::{Carrier, Fingerprint, Policy, Token, TokenUse};

use crate::made;

/// People who are about at the same time, each with a token and an address.
pub(crate) const PEOPLE: u64 = 2_048;

/// Nanoseconds from one exchange to the next: 10,000 a second, so that nobody is faster than five a second.
const APART_NS: u64 = 100_000;

/// An answer as nginx gives it, with a body of two kilobytes.
pub(crate) const ANSWER: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.26.3\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 2048\r\nConnection: keep-alive\r\nVary: Accept-Encoding\r\n\
    X-Request-Id: 0f3c2a1e9b7d4c558f102f6f1c9d7a42\r\n\r\n";

/// What curl sends, and most programs.
pub(crate) fn curl(path: &str, token: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// What a browser sends through a proxy.
pub(crate) fn browser(path: &str, token: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
         sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
         sec-ch-ua-platform: \"Linux\"\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
         Accept: application/json, text/plain, */*\r\nOrigin: https://shop.example\r\nSec-Fetch-Site: same-site\r\n\
         Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: https://shop.example/account\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
         Cookie: consent=yes; theme=dark; _ga=GA1.2.1234567890.1690000000\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// A request's head, read.
pub(crate) fn request(text: &str) -> RequestHead {
    let mut head = RequestHead { bytes: text.into(), ..RequestHead::default() };
    assert!(read_request(&mut head, &mut Suspicions::default()));
    head
}

/// An answer's head, read.
pub(crate) fn response(text: &str) -> ResponseHead {
    let mut head = ResponseHead { bytes: text.into(), ..ResponseHead::default() };
    assert!(read_response(&mut head));
    head
}

/// The time of the nth exchange: ten in the morning, and later.
pub(crate) fn time(n: u64) -> Time {
    Time((made::DAY_S + 36_000) * 1_000_000_000 + n * APART_NS)
}

/// The address of the nth of so many.
pub(crate) fn address(n: u64) -> IpAddr {
    Ipv4Addr::from_bits(0x0a03_0000 + n as u32).into()
}

/// The nth exchange, from this address: answered with this status.
pub(crate) fn exchange(n: u64, client: IpAddr, head: &str, status: u16) -> Exchange {
    let server = SocketAddr::from(([10, 0, 0, 1], 8080));
    let endpoints = Endpoints { client: (client, 50_000).into(), server };
    let origin = Origin { cgroup: 4_711, netns: 1, pid: 100 };
    let mut exchange = Exchange::begun(time(n), SocketId(n), endpoints, origin, request(head));
    exchange.response = Some(ResponseHead { status, ..response(ANSWER) });
    exchange.response_body_bytes = Some(2_048);
    exchange
}

/// The nth token, of this person: verified, and good in every way.
pub(crate) fn token(n: u64, subject: &str) -> TokenUse {
    // Fingerprints are hashes: they differ everywhere.
    let name = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n);
    let policy = Policy {
        issuer_known: true,
        audience_ok: true,
        algorithm_ok: true,
        issuer_asymmetric: true,
        key_url_ok: true,
        embedded_key_ok: true,
        type_ok: true,
    };
    let now = time(0).secs().cast_signed();
    let token = Token {
        fingerprint: Fingerprint(name.to_be_bytes()),
        policy: Some(policy),
        expires: Some(now + 30_000).into(),
        issued: Some(now - 600).into(),
        not_before: Some(now - 600).into(),
        input_hash: n << 1 | 1,
        signature_hash: n << 1 | 1,
        ..Arc::unwrap_or_clone(made::token(name, subject, Some(format!("id-{n}")))).of_profile(|p| {
            p.alg = Some("RS256".into());
            p.audiences = [Arc::from("orders-api")].into_iter().collect();
        })
    };
    TokenUse { token: Arc::new(token), carrier: Carrier::Authorization }
}
