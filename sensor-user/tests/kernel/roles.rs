//! Who is recorded, and who is not.

use std::net::TcpListener;

use sensor_user::capture::Side;
use sensor_user::capture::ebpf::Options;

use super::lab::{ANSWER, ASK, Lab, Pair, What, cgroup};

#[test]
fn records_a_connection_between_local_processes_once() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.expect_request(ASK);
    lab.watch(|lab| lab.records(Side::Response) > 0);
    let with_payload = |wanted: Side| {
        lab.seen
            .iter()
            .filter(|seen| matches!(&seen.what, What::Bytes { side, payload, .. } if *side == wanted && !payload.is_empty()))
            .count()
    };
    assert_eq!((with_payload(Side::Request), with_payload(Side::Response)), (1, 1));
}

#[test]
fn sees_sockets_older_than_the_sensor() {
    let mut pair = Pair::v4();
    pair.ask(ASK);
    pair.answer(ANSWER);
    let Some(mut lab) = Lab::new() else { return };
    // The sockets were born outside of the cgroup if this test came first; then there is nothing to see.
    let mut pair_inside = Pair::v4();
    drop(lab.source);
    pair_inside.ask(ASK);
    let Some(fresh) = Lab::new() else { return };
    lab = fresh;
    lab.port = pair_inside.port();
    pair_inside.answer(ANSWER);
    pair_inside.ask(ASK);
    pair_inside.answer(ANSWER);
    lab.expect_request(ASK);
    lab.watch(|lab| lab.stream(Side::Response).len() >= 2 * ANSWER.len());
    assert_eq!(lab.stream(Side::Response), ANSWER.repeat(2));
    assert_eq!(lab.seen.iter().filter(|seen| matches!(seen.what, What::Open { .. })).count(), 0);
}

#[test]
fn mutes_what_is_not_http() {
    let Some(mut lab) = Lab::new() else { return };
    let cases: [(&str, &[u8]); 3] = [
        ("muted_tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00"),
        ("muted_h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("muted_opaque", b"\0\0\0\x08\x04\xd2\x16\x2f-------------"),
    ];
    for (counter, first) in cases {
        let mut pair = Pair::v4();
        lab.port = pair.port();
        let before = lab.counter(counter);
        pair.ask(first);
        pair.answer(b"some answer");
        pair.ask(ASK);
        pair.answer(ANSWER);
        lab.watch(|lab| lab.counter(counter) > before);
        assert!(lab.counter(counter) > before, "{counter}");
        lab.look(std::time::Duration::ZERO);
        assert!(lab.seen.is_empty(), "{counter}: {:?}", lab.seen);
    }
}

/// A scan costs the ring nothing: openings are told with the first byte.
#[test]
fn a_connection_without_a_byte_costs_no_record() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.finish();
    drop(pair);
    let mut next = Pair::v4();
    let (silent, spoken) = (lab.port, next.port());
    lab.port = spoken;
    next.ask(ASK);
    lab.expect_request(ASK);
    assert_ne!(silent, spoken);
    assert!(lab.strangers.iter().all(|port| *port != silent), "{:?}", lab.strangers);
}

/// Nothing stays attached once the source is gone.
#[test]
fn detaches_when_dropped() {
    let Some(lab) = Lab::new() else { return };
    let gauges = lab.source.gauges();
    let before = lab.counter("request_segments");
    drop(lab);
    let mut pair = Pair::v4();
    pair.ask(ASK);
    let segments = gauges.snapshot().into_iter().find(|(label, _)| *label == "request_segments").unwrap().1;
    assert!(segments <= before);
    let Some(mut again) = Lab::new() else { return };
    again.port = pair.port();
    pair.answer(ANSWER);
    pair.ask(ASK);
    again.expect_request(ASK);
}

#[test]
fn mutes_servers_that_speak_first() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.answer(b"220 mail.example ESMTP\r\n");
    pair.ask(b"EHLO client.example\r\n");
    lab.watch(|lab| lab.counter("muted_opaque") > 0);
    lab.look(std::time::Duration::ZERO);
    assert!(lab.seen.is_empty(), "{:?}", lab.seen);
}

#[test]
fn watches_only_the_ports_it_is_told_to() {
    if cgroup().is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let Some(mut lab) = Lab::with(Options { ports: vec![port], ..Options::default() }) else { return };
    let mut other = Pair::v4();
    lab.port = other.port();
    other.ask(ASK);
    other.answer(ANSWER);
    lab.watch(|lab| lab.counter("muted_port") > 0);
    assert!(lab.seen.is_empty());
    let mut pair = Pair::between(&listener);
    lab.port = port;
    pair.ask(ASK);
    lab.expect_request(ASK);
}
