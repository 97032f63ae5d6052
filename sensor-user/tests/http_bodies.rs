//! What request bodies name reaches the right exchange, and costs the kernel half no more than it must forward.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

mod wire;

use sensor_user::capture::Side;
use wire::Wire;

const LOGIN: &str = "POST /login HTTP/1.1\r\nContent-Length: ";
const REFUSED: &[u8] = b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n";

fn login(account: &str) -> String {
    let body = format!(r#"{{"username":"{account}","password":"secret"}}"#);
    format!("{LOGIN}{}\r\n\r\n{body}", body.len())
}

fn accounts(wire: &mut Wire) -> Vec<Option<String>> {
    wire.taken().iter().map(|exchange| exchange.account().map(str::to_owned)).collect()
}

fn some(names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| Some((*name).to_owned())).collect()
}

#[test]
fn pipelined_logins_keep_their_accounts() {
    let mut wire = Wire::new();
    wire.open();
    wire.client(format!("{}{}GET / HTTP/1.1\r\n\r\n", login("a"), login("b")).as_bytes());
    wire.client(login("c").as_bytes());
    wire.server(&[REFUSED, REFUSED, REFUSED, REFUSED].concat());
    assert_eq!(accounts(&mut wire), [some(&["a", "b"]), vec![None], some(&["c"])].concat());
}

#[test]
fn an_answer_before_the_body_does_not_move_it_to_the_next_request() {
    let mut wire = Wire::new();
    wire.open();
    let text = login("late");
    let (head, body) = text.split_at(text.len() - 10);
    wire.client(head.as_bytes());
    wire.server(REFUSED);
    wire.client(format!("{body}{}", login("next")).as_bytes());
    wire.server(REFUSED);
    assert_eq!(accounts(&mut wire), some(&["late", "next"]));
}

#[test]
fn lost_bytes_of_a_body_end_its_reading() {
    let mut wire = Wire::new();
    wire.open();
    let text = login("alice");
    let (head, body) = text.split_at(text.len() - 30);
    wire.client(head.as_bytes());
    wire.lose(Side::Request, body.len());
    wire.server(REFUSED);
    wire.client(login("bob").as_bytes());
    wire.server(REFUSED);
    let found = accounts(&mut wire);
    assert_eq!(found.last().unwrap().as_deref(), Some("bob"));
    assert!(found.iter().all(|name| name.is_none() || matches!(name.as_deref(), Some("alice" | "bob"))));
}

#[test]
fn no_bytes_of_a_body_are_granted_while_they_are_wanted() {
    let mut wire = Wire::new();
    wire.open();
    wire.client(format!("{LOGIN}1000000\r\n\r\n{{\"username\":\"a\",").as_bytes());
    wire.ack();
    wire.client(&[b' '; 4000]);
    wire.ack();
    assert!(wire.grants.is_empty(), "{:?}", wire.grants);
    wire.client(&[b' '; 5000]);
    wire.ack();
    assert_eq!(wire.grants.len(), 1, "what is kept is full");
    wire.server(REFUSED);
    assert_eq!(accounts(&mut wire), some(&["a"]));
}

#[test]
fn other_bodies_are_granted_as_before() {
    let mut wire = Wire::new();
    wire.open();
    wire.client(b"POST /upload HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nx");
    wire.ack();
    assert_eq!(wire.grants.len(), 1);
    wire.server(REFUSED);
    assert!(wire.taken()[0].body.is_none());
}

#[test]
fn a_body_that_never_ends_or_is_answered_gives_its_memory_back() {
    let mut wire = Wire::new();
    wire.open();
    wire.client(format!("{LOGIN}1000000\r\n\r\n{{\"username\":\"a\",").as_bytes());
    wire.ack();
    wire.wait(400);
    wire.close();
    assert_eq!(accounts(&mut wire), some(&["a"]));
    assert_eq!(wire.flows.held_bytes(), 0);
}

#[test]
fn requests_that_wait_in_vain_give_their_memory_back() {
    let mut wire = Wire::new();
    wire.open();
    for _ in 0..20 {
        wire.client(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
        wire.ack();
        wire.wait(40);
    }
    wire.close();
    assert_eq!(wire.flows.held_bytes(), 0);
}
