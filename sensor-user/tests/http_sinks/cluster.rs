//! Alertmanagers in a cluster: all are told, one is enough.

use sensor_user::sink::Outcome;

use crate::receiver::{Receiver, Reply, answer, ok};
use crate::setup::{alerts, deliver, done, later, sink};

#[tokio::test]
async fn every_member_is_told_in_the_documented_form() {
    let (one, two) = (Receiver::start(|_, _| ok("")).await, Receiver::start(|_, _| ok("")).await);
    let urls = format!("['{}', '{}']", one.url(""), two.url("/prefix/api/v2/alerts"));
    let keys =
        format!("type: alertmanager, urls: {urls}, auth: {{token: env:KEY}}, link: 'https://wiki.example/x'");
    done(&deliver(&mut *sink(&keys), &alerts(2)).await);
    assert_eq!(
        (one.only().target.as_str(), two.only().target.as_str()),
        ("/api/v2/alerts", "/prefix/api/v2/alerts")
    );
    assert_eq!(one.only().header("authorization"), Some("Bearer k3y-of-the-test"));
    let body = one.only().json();
    assert_eq!(body.as_array().unwrap().len(), 2);
    assert_eq!(body, two.only().json());
    assert_eq!(body[0]["generatorURL"], "https://wiki.example/x");
}

#[tokio::test]
async fn a_member_that_is_away_or_hangs_withholds_nothing() {
    let good = Receiver::start(|_, _| ok("")).await;
    let hanging = Receiver::start(|_, _| Reply::Hang(Vec::new())).await;
    let gone = Receiver::start(|_, _| ok("")).await.url("");
    let keys = format!("type: alertmanager, urls: ['{}', '{gone}', '{}']", hanging.url(""), good.url(""));
    let Outcome::Done { refused, answer } = deliver(&mut *sink(&keys), &alerts(1)).await else { panic!() };
    assert!(refused.is_empty() && answer.as_str().contains("2 of 3"), "{answer}");
}

#[tokio::test]
async fn without_any_member_it_comes_again() {
    let busy = Receiver::start(|_, _| answer(503, "retry-after: 9\r\n", "")).await;
    let refusing = Receiver::start(|_, _| answer(400, "", "bad")).await;
    let keys = format!("type: alertmanager, urls: ['{}', '{}']", busy.url(""), refusing.url(""));
    let (_, after) = later(&deliver(&mut *sink(&keys), &alerts(1)).await);
    assert_eq!(after.map(|after| after.as_secs()), Some(9));
}
