//! What happens when the agent does not keep up.

use sensor_user::capture::ebpf::Options;

use super::lab::{ANSWER, ASK, Lab, Pair, What};
use sensor_user::capture::Side;

/// Nothing is read while far more arrives than the ring holds: the rest is counted, by reason, and requests
/// outlast responses.
#[test]
fn counts_what_a_full_ring_loses() {
    let Some(mut lab) = Lab::with(Options { ring_bytes: 64 << 10, ..Options::default() }) else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    for _ in 0..500 {
        pair.ask(ASK);
        pair.answer(ANSWER);
    }
    let (requests, responses) = (lab.counter("ring_full_request"), lab.counter("shed_response"));
    assert!(requests > 0 && responses > requests, "{requests} {responses}");
    lab.watch(|lab| lab.losses.iter().any(|(reason, _)| *reason == "ring_full_request"));
    // Other tests share the cgroup, so there may be more by now.
    let reported: u64 =
        lab.losses.iter().filter(|loss| loss.0 == "ring_full_request").map(|loss| loss.1).sum();
    assert!(reported >= requests, "{:?}", lab.losses);
    lab.seen.clear();
    pair.ask(ASK);
    lab.watch(|lab| !lab.seen.is_empty());
    assert!(!lab.seen.is_empty());
}

/// A ring that fills up: successes go first, failures and answers to POST stay, and the reader hears of it.
#[test]
fn sheds_what_matters_least() {
    const FAILURE: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    const LOGIN: &[u8] = b"POST /login HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n";
    const WELCOME: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
    let Some(mut lab) = Lab::with(Options { ring_bytes: 64 << 10, ..Options::default() }) else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    let mut asked = 0;
    // Filled by half, then by three quarters: a record of a request says nothing of the second, so shed ones are counted.
    for shed in [1, 45] {
        while lab.counter("shed_response") < shed {
            pair.ask(ASK);
            pair.answer(ANSWER);
            asked += 1;
            assert!(asked < 1000, "nothing is shed");
        }
        pair.ask(ASK);
        pair.answer(FAILURE);
        pair.ask(LOGIN);
        pair.answer(WELCOME);
    }
    assert_eq!(lab.counter("ring_full_request"), 0);
    lab.watch(|lab| {
        lab.seen.iter().filter(|seen| seen.is_request(LOGIN)).count() == 2
            && lab.pressed > 0
            && !lab.losses.is_empty()
    });
    let answers = |bytes: &[u8]| {
        let is = |what: &What| matches!(what, What::Bytes { side: Side::Response, payload, .. } if payload == bytes);
        lab.seen.iter().filter(|seen| is(&seen.what)).count()
    };
    assert_eq!((answers(FAILURE), answers(WELCOME), lab.pressed), (2, 2, 1));
    let (told, bare) = (answers(ANSWER), answers(b""));
    assert!(told > 0 && bare > 44 && told + bare >= asked, "{asked} {told} {bare}");
    assert_eq!(lab.losses.iter().map(|loss| loss.0).collect::<Vec<_>>(), ["shed_response"]);
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.seen.clear();
    lab.watch(|lab| lab.records(Side::Response) > 0);
    assert!(lab.stream(Side::Response).ends_with(ANSWER), "read again, nothing is shed any more");
}

/// Every request of a load that the ring can hold arrives.
#[test]
fn loses_nothing_of_many_requests() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    for _ in 0..2000 {
        pair.ask(ASK);
        pair.answer(ANSWER);
    }
    lab.expect_request(&ASK.repeat(2000));
    assert!(lab.losses.is_empty(), "{:?}", lab.losses);
}
