//! What the kernel half forwards of requests and responses.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::thread;

use rustix::net::{AddressFamily, SendFlags, SocketType, connect, ipproto, sendto, socket, sockopt};
use sensor_user::capture::{Grant, Side, SocketId, Source};

use super::lab::{ANSWER, ASK, Lab, Pair, What, listen};

#[test]
fn sees_requests_and_responses_of_a_kept_connection() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    for _ in 0..3 {
        pair.ask(ASK);
        pair.answer(ANSWER);
    }
    pair.finish();
    drop(pair);
    lab.watch(|lab| lab.seen.iter().any(|seen| seen.what == What::Close));
    assert_eq!(lab.stream(Side::Request), ASK.repeat(3));
    assert_eq!(lab.stream(Side::Response), ANSWER.repeat(3));
    let (first, last) = (&lab.seen[0], &lab.seen[lab.seen.len() - 1]);
    assert!(matches!(first.what, What::Open { .. }), "{first:?}");
    assert_eq!(last.what, What::Close);
    assert!(lab.seen.iter().all(|seen| seen.socket == first.socket && seen.client == first.client));
    assert!(lab.seen.iter().all(|seen| seen.cgroup == first.cgroup && seen.cgroup != 0));
}

#[test]
fn opens_with_the_first_sequence_number_of_the_client() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(ASK);
    lab.expect_request(ASK);
    let What::Open { first_seq } = lab.seen[0].what else { panic!("{:?}", lab.seen[0]) };
    let What::Bytes { seq, .. } = lab.seen[1].what else { panic!("{:?}", lab.seen[1]) };
    assert_eq!(first_seq, seq);
}

#[test]
fn sees_a_request_that_comes_byte_by_byte() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    for byte in ASK {
        pair.ask(&[*byte]);
    }
    pair.answer(ANSWER);
    lab.expect_request(ASK);
}

#[test]
fn tolerates_blank_lines_and_unknown_methods() {
    let Some(mut lab) = Lab::new() else { return };
    let ask = b"\r\n\r\nFROBNICATE /x HTTP/1.1\r\nHost: shop\r\n\r\n";
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(ask);
    lab.expect_request(ask);
}

#[test]
fn sees_ipv6() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::between(&listen(Ipv6Addr::LOCALHOST.into()));
    lab.port = pair.port();
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.expect_request(ASK);
    assert_eq!(lab.seen[0].client, pair.client.local_addr().unwrap());
    assert_eq!(lab.seen[0].server, pair.server.local_addr().unwrap());
    pair.finish();
    drop(pair);
    lab.watch(|lab| lab.seen.iter().any(|seen| seen.what == What::Close));
    assert!(
        lab.seen.iter().all(|seen| seen.client == lab.seen[0].client && seen.server == lab.seen[0].server)
    );
}

#[test]
fn unmaps_ipv4_on_a_socket_of_ipv6() {
    let Some(mut lab) = Lab::new() else { return };
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    let mut pair = Pair { client, server };
    lab.port = port;
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.expect_request(ASK);
    pair.finish();
    let client = pair.client.local_addr().unwrap();
    drop(pair);
    lab.watch(|lab| lab.seen.iter().any(|seen| seen.what == What::Close));
    for seen in &lab.seen {
        assert_eq!(
            (seen.client, seen.server),
            (client, SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            "{seen:?}"
        );
    }
}

#[test]
fn sees_a_hundred_pipelined_requests() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    let asks: Vec<u8> = (0..100)
        .flat_map(|n| format!("GET /{n} HTTP/1.1\r\nX: {}\r\n\r\n", "p".repeat(900)).into_bytes())
        .collect();
    let sent = asks.clone();
    let mut client = pair.client.try_clone().unwrap();
    let writer = thread::spawn(move || client.write_all(&sent).unwrap());
    pair.server.read_exact(&mut vec![0; asks.len()]).unwrap();
    writer.join().unwrap();
    lab.expect_request(&asks);
}

#[test]
fn sees_a_head_of_64_kib() {
    let Some(mut lab) = Lab::new() else { return };
    let ask = format!("GET / HTTP/1.1\r\nX: {}\r\nAuthorization: Bearer a.b.c\r\n\r\n", "h".repeat(65_000));
    let mut pair = Pair::v4();
    lab.port = pair.port();
    let sent = ask.clone();
    let mut client = pair.client.try_clone().unwrap();
    let writer = thread::spawn(move || client.write_all(sent.as_bytes()).unwrap());
    pair.server.read_exact(&mut vec![0; ask.len()]).unwrap();
    writer.join().unwrap();
    lab.expect_request(ask.as_bytes());
}

/// A body of 100 MB costs a few records once the agent has said where it ends, and the request behind it is seen although
/// its first bytes share a segment with the body's last. In an emulated machine, where that many take half a minute, it is
/// one of 8 MB.
#[test]
fn a_grant_makes_an_upload_cheap_and_loses_nothing_behind_it() {
    let length = if std::env::var_os("TOKENSCOPE_TEST_EMULATED").is_some() { 8 << 20 } else { 100 << 20 };
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    let head = format!("POST /upload HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    pair.ask(head.as_bytes());
    lab.expect_request(head.as_bytes());
    let (socket, first) = lab
        .seen
        .iter()
        .find_map(|seen| match seen.what {
            What::Open { first_seq } => Some((seen.socket, first_seq)),
            _ => None,
        })
        .unwrap();
    let skip_until = first.wrapping_add(u32::try_from(head.len() + length).unwrap());
    lab.source.grant(Grant { socket: SocketId(socket), side: Side::Request, skip_until });
    let mut client = pair.client.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let mut bytes = vec![b'x'; length];
        bytes.extend_from_slice(ASK);
        client.write_all(&bytes).unwrap();
    });
    pair.server.read_exact(&mut vec![0; length + ASK.len()]).unwrap();
    writer.join().unwrap();
    pair.answer(ANSWER);
    lab.watch(|lab| {
        lab.records(Side::Response) > 0 && lab.seen.iter().any(|seen| is_request(&seen.what, skip_until))
    });
    let behind = lab.seen.iter().find(|seen| is_request(&seen.what, skip_until));
    let Some(What::Bytes { payload, .. }) = behind.map(|seen| &seen.what) else {
        panic!("{:?}", lab.seen.len())
    };
    assert_eq!(payload, ASK);
    assert!(lab.records(Side::Request) < 10, "{} records", lab.records(Side::Request));
    assert!(lab.counter("granted_bytes") >= length as u64 - 200_000, "{}", lab.counter("granted_bytes"));
}

fn is_request(what: &What, from: u32) -> bool {
    matches!(what, What::Bytes { side: Side::Request, seq, .. } if *seq == from)
}

/// Without a grant an upload stops at the credit of its turn, and the next turn is seen again.
#[test]
fn a_turn_has_a_credit() {
    const BODY: usize = 8 << 20;
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    let mut client = pair.client.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let mut bytes = b"POST / HTTP/1.1\r\n\r\n".to_vec();
        bytes.resize(BODY, b'x');
        client.write_all(&bytes).unwrap();
    });
    pair.server.read_exact(&mut vec![0; BODY]).unwrap();
    writer.join().unwrap();
    pair.answer(ANSWER);
    pair.ask(ASK);
    lab.watch(|lab| {
        lab.seen.iter().any(|seen| matches!(&seen.what, What::Bytes { payload, .. } if payload == ASK))
    });
    assert!(lab.seen.iter().any(|seen| matches!(&seen.what, What::Bytes { payload, .. } if payload == ASK)));
    let captured = lab.stream(Side::Request).len();
    // Beyond the credit a quarter of the ring of 16 MiB may be used, which nobody empties meanwhile.
    assert!((128 << 10..5 << 20).contains(&captured), "{captured}");
    assert!(lab.counter("credit_bytes") > 0);
}

/// A request that no response follows soon is committed by the acknowledgement that TCP sends alone.
#[test]
fn a_bare_acknowledgement_commits_a_request() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(ASK);
    lab.watch(|lab| lab.records(Side::Response) > 0);
    let request = lab.seen.iter().find_map(|seen| match &seen.what {
        What::Bytes { side: Side::Request, seq, payload, .. } => {
            Some(seq.wrapping_add(u32::try_from(payload.len()).unwrap()))
        }
        _ => None,
    });
    let committed = lab.seen.iter().find_map(|seen| match &seen.what {
        What::Bytes { side: Side::Response, payload, ack, .. } if payload.is_empty() => *ack,
        _ => None,
    });
    assert!(request.is_some() && request == committed, "{request:?} {committed:?}");
}

#[test]
fn takes_the_head_of_a_long_response_and_no_more() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(ASK);
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec();
    answer.resize(answer.len() + 1_000_000, b'y');
    let sent = answer.clone();
    let mut server = pair.server.try_clone().unwrap();
    let writer = thread::spawn(move || server.write_all(&sent).unwrap());
    pair.client.read_exact(&mut vec![0; answer.len()]).unwrap();
    writer.join().unwrap();
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.watch(|lab| {
        lab.seen.iter().any(|seen| matches!(&seen.what, What::Bytes { side: Side::Response, payload, .. } if payload == ANSWER))
    });
    assert_eq!(lab.stream(Side::Response), &answer[..512]);
    assert_eq!(lab.stream(Side::Request), ASK.repeat(2));
}

/// The client holds its last segment of the handshake back until it has data: the request comes with the
/// listener's socket, and is shown as the connection's own.
#[test]
fn joins_a_request_on_the_handshake_to_its_connection() {
    let Some(mut lab) = Lab::new() else { return };
    let listener = listen(Ipv4Addr::LOCALHOST.into());
    let address = listener.local_addr().unwrap();
    lab.port = address.port();
    let client = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).unwrap();
    sockopt::set_tcp_quickack(&client, false).unwrap();
    connect(&client, &address).unwrap();
    let mut client = std::net::TcpStream::from(client);
    client.write_all(ASK).unwrap();
    let (server, _) = listener.accept().unwrap();
    let mut pair = Pair { client, server };
    pair.server.read_exact(&mut vec![0; ASK.len()]).unwrap();
    pair.answer(ANSWER);
    lab.watch(|lab| lab.records(Side::Response) > 0);
    assert_eq!(lab.stream(Side::Request), ASK);
    let opened = lab.seen.iter().find(|seen| matches!(seen.what, What::Open { .. })).unwrap().clone();
    assert!(
        lab.seen.iter().all(|seen| seen.socket == opened.socket && seen.cgroup == opened.cgroup),
        "{:?}",
        lab.seen
    );
}

/// TCP Fast Open: the request comes with the SYN, before there is any connection.
#[test]
fn joins_a_request_on_the_syn_to_its_connection() {
    /// Client and server, without cookies, for every listener (ip-sysctl.rst).
    const OPEN_TO_ALL: &str = "1543";
    /// `MSG_FASTOPEN`.
    const FAST: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
    const SWITCH: &str = "/proc/sys/net/ipv4/tcp_fastopen";
    let Some(mut lab) = Lab::new() else { return };
    let before = std::fs::read_to_string(SWITCH).unwrap();
    std::fs::write(SWITCH, OPEN_TO_ALL).unwrap();
    let listener = listen(Ipv4Addr::LOCALHOST.into());
    lab.port = listener.local_addr().unwrap().port();
    let client = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).unwrap();
    let sent = sendto(&client, ASK, FAST, &listener.local_addr().unwrap());
    std::fs::write(SWITCH, before).unwrap();
    assert_eq!(sent.unwrap(), ASK.len());
    let (server, _) = listener.accept().unwrap();
    let mut pair = Pair { client: client.into(), server };
    pair.server.read_exact(&mut vec![0; ASK.len()]).unwrap();
    pair.answer(ANSWER);
    lab.watch(|lab| lab.records(Side::Response) > 0);
    assert_eq!(lab.stream(Side::Request), ASK, "{:?}", lab.seen);
    let opened = lab.seen.iter().find(|seen| matches!(seen.what, What::Open { .. })).unwrap().clone();
    assert!(lab.seen.iter().all(|seen| seen.socket == opened.socket), "{:?}", lab.seen);
}

/// The end of the client's stream is told even where its last bytes were not wanted.
#[test]
fn tells_the_end_behind_bytes_that_were_not_wanted() {
    let Some(mut lab) = Lab::new() else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    let head = b"POST / HTTP/1.0\r\n\r\n";
    pair.ask(head);
    lab.expect_request(head);
    let (socket, What::Open { first_seq }) = (lab.seen[0].socket, &lab.seen[0].what) else { panic!() };
    lab.source.grant(Grant {
        socket: SocketId(socket),
        side: Side::Request,
        skip_until: first_seq.wrapping_add(1 << 20),
    });
    pair.ask(&[b'x'; 1000]);
    pair.finish();
    let ended = |lab: &Lab| {
        lab.seen.iter().any(|seen| matches!(seen.what, What::Bytes { side: Side::Request, fin: true, .. }))
    };
    lab.watch(ended);
    assert!(ended(&lab), "{:?}", lab.seen);
    assert_eq!(lab.stream(Side::Request), head);
}
