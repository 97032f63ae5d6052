//! What happens when the agent does not keep up.

use sensor_user::capture::Side;
use sensor_user::capture::ebpf::Options;

use super::lab::{ANSWER, ASK, Lab, Pair, Seen, What};

/// What is told however full the ring is: a POST and what answers it.
const LOGIN: &[u8] = b"POST /login HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n";
const WELCOME: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

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
    assert_eq!((answers(FAILURE), answers(WELCOME)), (2, 2));
    let (told, bare) = (answers(ANSWER), answers(b""));
    // On a slow machine TCP sends some answers twice, which are shed twice and acknowledge nothing new.
    assert!(told > 0 && bare > 0 && told + bare >= asked, "{asked} {told} {bare}");
    assert_eq!(lab.losses.iter().map(|loss| loss.0).collect::<Vec<_>>(), ["shed_response"]);
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.seen.clear();
    lab.watch(|lab| lab.records(Side::Response) > 0);
    assert!(lab.stream(Side::Response).ends_with(ANSWER), "read again, nothing is shed any more");
}

/// A ring with room for the newest request and none for its acknowledgement. Which mixture of long answers, which are
/// told, and short ones leads there depends on the sizes of records, so some are tried.
fn brimful() -> Option<(Lab, Pair)> {
    for long in 0_usize..32 {
        let mut lab = Lab::with(Options { ring_bytes: 64 << 10, ..Options::default() })?;
        let mut pair = Pair::v4();
        lab.port = pair.port();
        let mut left = long;
        loop {
            // Before half of the ring is full all answers are told.
            let (request, answer) =
                if left > 0 && lab.counter("shed_response") > 0 { (LOGIN, WELCOME) } else { (ASK, ANSWER) };
            left -= usize::from(request == LOGIN);
            pair.ask(request);
            pair.answer(answer);
            if lab.counter("ring_full_response") > 0 {
                return Some((lab, pair));
            }
            if lab.counter("ring_full_request") > 0 {
                break;
            }
        }
    }
    panic!("no mixture fills the ring to the brim");
}

/// The acknowledgement that found no room is made up for by the client's next segment, be it its own acknowledgement of
/// the answer.
#[test]
fn what_the_client_acknowledges_commits_what_was_owed() {
    let Some((mut lab, _pair)) = brimful() else { return };
    let committing = |lab: &Lab| {
        let mut requests = lab.seen.iter().filter_map(|seen| match &seen.what {
            What::Bytes { side: Side::Request, seq, payload, .. } if payload == ASK => Some(*seq),
            _ => None,
        });
        let end = requests.next_back()?.wrapping_add(u32::try_from(ASK.len()).ok()?);
        let commits = |seen: &Seen| match &seen.what {
            What::Bytes { side, rcv_nxt, .. } if *rcv_nxt == Some(end) => Some(*side),
            _ => None,
        };
        lab.seen.iter().find_map(commits)
    };
    lab.watch(|lab| committing(lab).is_some());
    assert_eq!(committing(&lab), Some(Side::Request), "not by an answer: none found room");
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
