//! What happens when the agent does not keep up.

use sensor_user::capture::ebpf::Options;

use super::lab::{ANSWER, ASK, Lab, Pair};

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
    let (requests, responses) = (lab.counter("ring_full_request"), lab.counter("ring_full_response"));
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
