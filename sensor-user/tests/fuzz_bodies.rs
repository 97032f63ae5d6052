//! The fuzz targets' assertions as ordinary tests, on random bytes and on seeds that reach deep.
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "fuzz bodies panic to report")]
#![allow(unreachable_pub, reason = "a module of two crates")]

#[path = "../../fuzz/src/wire.rs"]
mod wire;

use proptest::prelude::*;

const HEADS: &[u8] = b"GET /a HTTP/1.1\r\nAuthorization: Bearer t\r\n\r\nPOST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\xffHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 x\r\n\r\n";

const TOKENS: &[u8] = b"POST /oauth/token HTTP/1.1\r\nContent-Length: 16\r\n\r\nrefresh_token=r1GET /a HTTP/1.1\r\n\r\n\xffHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f\r\n{\"access_token\":\"a\\u0062\",\"expir\r\n9\r\nes_in\":9}\r\n0\r\n\r\nHTTP/1.1 204 x\r\n\r\n";

/// A seed with a few bytes changed, cut out or repeated.
fn mutated(seed: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let change = (0..seed.len(), any::<u8>(), 0_u8..3);
    proptest::collection::vec(change, 0..6).prop_map(|changes| {
        let mut out = seed.to_vec();
        for (at, byte, how) in changes {
            let at = at.min(out.len().saturating_sub(1));
            match how {
                0 => out[at] = byte,
                1 => out.insert(at, byte),
                _ => drop(out.remove(at)),
            }
        }
        out
    })
}

proptest! {
    #[test]
    fn packets_hold(data in proptest::collection::vec(any::<u8>(), 0..500)) {
        wire::packet(&data);
    }

    #[test]
    fn heads_hold(cuts in any::<[u8; 2]>(), data in mutated(HEADS)) {
        wire::head(&[&cuts[..], &data].concat());
    }

    #[test]
    fn answers_hold(cuts in any::<[u8; 2]>(), data in mutated(TOKENS)) {
        wire::head(&[&cuts[..], &data].concat());
    }

    #[test]
    fn chunks_hold(cut in any::<u8>(), data in mutated(b"5;a=b\r\nhello\r\n00A \r\n0123456789\r\n0\r\nX: y\r\n\r\n")) {
        wire::chunk(&[&[cut][..], &data].concat());
    }
}
