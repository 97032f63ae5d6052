//! Answers that are cut, false, endless, slow or absurd: nothing is lost, nothing hangs, nothing is followed.

use std::sync::Arc;
use std::time::Duration;

use sensor_user::render::Told;
use sensor_user::sink::Outcome;

use crate::receiver::{Receiver, Reply, answer, ok};
use crate::setup::{alert, alerts, deliver, done, later, sink};

fn one() -> Vec<Arc<Told>> {
    alerts(1)
}

/// What a plain webhook makes of a reply.
async fn said(reply: fn() -> Reply) -> Outcome {
    let receiver = Receiver::start(move |_, _| reply()).await;
    let mut sink = sink(&format!("type: http, url: '{}'", receiver.url("/hook")));
    deliver(&mut *sink, &one()).await
}

#[tokio::test]
async fn what_is_no_success_comes_again() {
    for status in [408, 425, 429, 500, 502, 503, 504, 401, 403, 404, 407, 410] {
        let receiver = Receiver::start(move |_, _| answer(status, "", "no\x1b[31m")).await;
        let mut sink = sink(&format!("type: http, url: '{}'", receiver.url("/")));
        let (reason, after) = later(&deliver(&mut *sink, &one()).await);
        assert!(reason.contains(&status.to_string()) && !reason.contains('\x1b'), "{reason}");
        assert_eq!(after, None);
    }
}

#[tokio::test]
async fn retry_after_is_heard_in_both_forms() {
    let seconds = said(|| answer(429, "retry-after: 17\r\n", "")).await;
    assert_eq!(later(&seconds).1, Some(Duration::from_secs(17)));
    let date = said(|| answer(503, "retry-after: Fri, 31 Dec 2199 23:59:59 GMT\r\n", "")).await;
    assert_eq!(later(&date).1, Some(Duration::from_hours(1)), "an hour at most");
    let past = said(|| answer(503, "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")).await;
    assert_eq!(later(&past).1, Some(Duration::ZERO));
    assert_eq!(later(&said(|| answer(503, "retry-after: soon\r\n", "")).await).1, None);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Receiver::start(|_, _| ok("")).await;
    let to = elsewhere.url("/stolen");
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let receiver = Receiver::start(move |_, _| answer(status, &format!("location: {to}\r\n"), "")).await;
        let mut sink = sink(&format!("type: http, url: '{}', auth: {{token: env:KEY}}", receiver.url("/")));
        let (reason, _) = later(&deliver(&mut *sink, &one()).await);
        assert!(reason.contains("not followed"), "{reason}");
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_poison_event_is_found_and_the_rest_arrives() {
    for status in [400, 413, 422] {
        let receiver = Receiver::start(move |_, request| {
            if request.text().contains("poison") { answer(status, "", "cannot take it") } else { ok("") }
        })
        .await;
        let mut sink = sink(&format!("type: http, url: '{}', batch: 8", receiver.url("/")));
        let mut events = alerts(8);
        for place in [2, 7] {
            events[place] = alert(place as u64 + 1, |value| value["message"] = "poison".into());
        }
        let Outcome::Done { refused, .. } = deliver(&mut *sink, &events).await else { panic!() };
        let places: Vec<usize> = refused.iter().map(|refusal| refusal.index).collect();
        assert_eq!(places, [2, 7]);
        assert!(refused[0].reason.as_str().contains("cannot take it"));
        let taken = receiver
            .requests()
            .iter()
            .filter(|request| !request.text().contains("poison"))
            .map(|request| request.json().as_array().unwrap().len())
            .sum::<usize>();
        assert_eq!(taken, 6, "each other event came once");
    }
}

#[tokio::test]
async fn connections_that_break_lose_nothing() {
    assert!(matches!(said(|| Reply::Close(Vec::new())).await, Outcome::Later { .. }));
    assert!(matches!(said(|| Reply::Close(b"HTTP/1.1 20".to_vec())).await, Outcome::Later { .. }));
    assert!(matches!(said(|| Reply::Close(b"garbage\r\n\r\n".to_vec())).await, Outcome::Later { .. }));
    assert!(matches!(said(|| Reply::Close(b"SSH-2.0-x\r\n".to_vec())).await, Outcome::Later { .. }));
    let receiver = Receiver::start(|_, _| ok("")).await;
    let url = receiver.url("/");
    drop(receiver);
    let mut sink = sink(&format!("type: http, url: '{url}'"));
    let (reason, _) = later(&deliver(&mut *sink, &one()).await);
    assert!(!reason.contains("127.0.0.1"), "the URL may be a secret: {reason}");
}

#[tokio::test]
async fn a_body_that_lies_about_its_length_ends() {
    // The status is good, and the status is all that a webhook says.
    done(&said(|| Reply::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\nshort".to_vec())).await);
    done(&said(|| Reply::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\nshort".to_vec())).await);
    done(&said(|| Reply::Endless(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec())).await);
    let (reason, _) = later(&said(|| Reply::Endless(b"HTTP/1.1 500 X\r\n\r\n".to_vec())).await);
    assert!(reason.len() <= 310, "{}", reason.len());
}

#[tokio::test]
async fn what_must_be_read_must_be_whole() {
    let good = r#"{"errors":false,"items":[{"index":{"status":201}}]}"#;
    for reply in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{good}", good.len() + 1),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", &good[..9]),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
    ] {
        let receiver = Receiver::start(move |_, _| Reply::Close(reply.clone().into_bytes())).await;
        let mut sink = sink(&format!("type: http, preset: elasticsearch, url: '{}'", receiver.url("/")));
        assert!(matches!(deliver(&mut *sink, &one()).await, Outcome::Later { .. }));
    }
}

#[tokio::test]
async fn compressed_answers_are_not_inflated() {
    let bomb = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..64 {
            encoder.write_all(&vec![b'0'; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap()
    };
    let receiver = Receiver::start(move |_, request| {
        assert_eq!(request.header("accept-encoding"), None, "it is not asked for");
        let head =
            format!("HTTP/1.1 500 X\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
        Reply::Close([head.as_bytes(), &bomb].concat())
    })
    .await;
    let mut sink = sink(&format!("type: http, url: '{}'", receiver.url("/")));
    let (reason, _) = later(&deliver(&mut *sink, &one()).await);
    assert!(!reason.contains("0000000"), "{reason}");
}

#[tokio::test]
async fn a_head_without_end_is_no_answer() {
    let outcome = said(|| Reply::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec())).await;
    assert!(matches!(outcome, Outcome::Later { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_delivery_that_is_dropped_can_come_again() {
    let receiver = Receiver::start(|number, _| match number {
        0 => Reply::Hang(Vec::new()),
        _ => ok(""),
    })
    .await;
    let mut sink = sink(&format!("type: http, url: '{}'", receiver.url("/")));
    let events = one();
    let dropped = tokio::time::timeout(Duration::from_millis(300), sink.deliver(&events)).await;
    assert!(dropped.is_err(), "nobody answers");
    done(&deliver(&mut *sink, &events).await);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body, requests[1].body, "what comes again is the same");
}
