//! Responses to POST: captured in part, or as far as a token response goes if that is asked for.

use sensor_user::capture::Side;
use sensor_user::capture::ebpf::Options;

use super::lab::{ASK, Lab, Pair};

const POST: &[u8] = b"POST /oauth/token HTTP/1.1\r\nHost: idp\r\nContent-Length: 2\r\n\r\n{}";

/// As much as is captured of one answer.
const MOST: usize = 8 << 10;

fn answer(body: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n").into_bytes();
    answer.extend((0..body).map(|at| b'a' + u8::try_from(at % 26).unwrap()));
    answer
}

/// What is captured of the answer to the second of two requests, sent in pieces of this length.
fn captured(answers: bool, ask: &[u8], reply: &[u8], piece: usize) -> Option<Vec<u8>> {
    let mut lab = Lab::with(Options { answers, ..Options::default() })?;
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(ASK);
    pair.answer(b"HTTP/1.1 204 No Content\r\n\r\n");
    pair.ask(ask);
    for part in reply.chunks(piece) {
        pair.answer(part);
    }
    pair.ask(ASK);
    lab.watch(|lab| lab.records(Side::Request) >= 3);
    let before = b"HTTP/1.1 204 No Content\r\n\r\n".len();
    Some(lab.stream(Side::Response).split_off(before))
}

#[test]
fn a_token_response_is_captured_whole_however_it_is_cut() {
    let reply = answer(5_000);
    for piece in [7_000, 1_448, 37] {
        let Some(seen) = captured(true, POST, &reply, piece) else { return };
        assert_eq!(seen, reply, "in pieces of {piece}");
    }
}

#[test]
fn of_a_longer_answer_the_start_is_captured() {
    let reply = answer(100_000);
    for piece in [200_000, 4_000] {
        let Some(seen) = captured(true, POST, &reply, piece) else { return };
        assert_eq!((seen.len(), &seen[..]), (MOST, &reply[..MOST]), "in pieces of {piece}");
    }
}

#[test]
fn without_the_option_and_of_other_methods_the_head_is_captured() {
    let reply = answer(5_000);
    for (answers, ask) in [(false, POST), (true, ASK)] {
        let Some(seen) = captured(answers, ask, &reply, 7_000) else { return };
        assert_eq!(seen, reply[..512], "{answers}");
    }
}

#[test]
fn a_body_that_waited_to_be_asked_for_is_the_same_request() {
    let Some(mut lab) = Lab::with(Options { answers: true, ..Options::default() }) else { return };
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(b"POST /oauth/token HTTP/1.1\r\nHost: idp\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    pair.answer(go_on);
    pair.ask(b"a=bc");
    let reply = answer(3_000);
    pair.answer(&reply);
    pair.ask(ASK);
    lab.watch(|lab| lab.records(Side::Request) >= 3);
    assert_eq!(lab.stream(Side::Response), [go_on, &reply[..]].concat());
}
