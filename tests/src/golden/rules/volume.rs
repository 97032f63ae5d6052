//! Section E: too much, too slow, too broken, too quiet, requests that two parties read differently, and what adds up.

use anyhow::Result;
use serde_json::json;

use super::{MINUTE, SECOND, Scene, client, tool};
use crate::attack::Attack;
use crate::lab::Service;
use crate::lab::script::{Answer, Call};

pub(super) fn address_rate(scene: &mut Scene) -> Result<()> {
    for _ in 0..120 {
        scene.stranger(&tool([45, 131, 0, 9]), "/", 200);
        scene.at += SECOND / 3;
    }
    Ok(())
}

/// So many requests, evenly over five minutes, by callers that take turns.
fn five_minutes(scene: &mut Scene, requests: u64) {
    let end = scene.at + 300 * SECOND;
    for number in 0..requests {
        let host = u8::try_from(number % 50).unwrap_or_default();
        scene.stranger(&client([77, 160, host, 7]), "/", 200);
        scene.at += 270 * SECOND / requests;
    }
    scene.at = end;
}

/// A day of learning instead of a week, and a twentieth of the least number.
pub(super) fn traffic_spike(scene: &mut Scene) -> Result<()> {
    scene.set("/rules/traffic-spike", json!({"least": 50, "learn_days": 1}));
    for _ in 0..300 {
        five_minutes(scene, 3);
    }
    for _ in 0..3 {
        five_minutes(scene, 100);
    }
    five_minutes(scene, 3);
    Ok(())
}

/// An answer a second for eight minutes; every tenth is bad.
fn ill(scene: &mut Scene, bad: &Answer) {
    for second in 0..480_u64 {
        let host = u8::try_from(second % 50).unwrap_or_default();
        let answer = if second % 10 == 9 { bad.clone() } else { Answer::of(200, 20) };
        let at = scene.at;
        scene.call_at(Service::Orders, &client([77, 160, host, 7]), Call::get("/"), &answer);
        scene.at = at + SECOND;
    }
}

pub(super) fn error_rate(scene: &mut Scene) -> Result<()> {
    ill(scene, &Answer::of(500, 20));
    Ok(())
}

pub(super) fn slow_responses(scene: &mut Scene) -> Result<()> {
    ill(scene, &Answer::of(200, 3000));
    Ok(())
}

/// Two services ask to be seen every ten minutes; after three days one of them does not. A tenth of the requests that
/// make a service steady.
pub(super) fn signal_missing(scene: &mut Scene) -> Result<()> {
    scene.set("/rules/signal-missing/requests_per_day", json!(100));
    for turn in 0..450 {
        let at = scene.at;
        for service in [Service::Orders, Service::Stock] {
            if service == Service::Orders || turn < 432 {
                scene.call_at(service, &client([10, 0, 3, 7]), Call::get("/"), &Answer::of(200, 20));
            }
        }
        scene.at = at + 10 * MINUTE * SECOND;
    }
    Ok(())
}

pub(super) fn request_smuggling(scene: &mut Scene) -> Result<()> {
    let raw = "POST / HTTP/1.1\r\nHost: orders.shop.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
               0\r\n\r\nG";
    scene.call(&tool([10, 0, 3, 7]), Call::raw(raw), 400);
    Ok(())
}

/// Four different forgeries from one address, each an alert of its own.
pub(super) fn entity_risk(scene: &mut Scene) -> Result<()> {
    scene.set("/rules/entity-risk/enabled", json!(true));
    let who = tool([45, 131, 0, 9]);
    for attack in [Attack::AlgNone, Attack::BadSignature, Attack::KidTraversal, Attack::KeyUrl] {
        let token = attack.token(&scene.mint, "mallory")?;
        scene.get(&who, "/orders/7", &token, 401);
        scene.wait(20);
    }
    Ok(())
}
