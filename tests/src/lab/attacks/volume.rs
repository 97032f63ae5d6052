//! Section E: too much, too slow, too broken, too quiet, and requests that two parties read differently.

use anyhow::Result;

use super::Attack;
use crate::lab::script::{Answer, Call, Caller, Trick};
use crate::lab::{MS, S, Service, machines};

/// What a flood sets off as well.
const FLOOD: &[&str] = &["object-enumeration", "bulk-access", "endpoint-recon", "denied-rate"];

pub(super) fn token_rate(a: &mut Attack<'_>) -> Result<()> {
    let token = a.own_token()?;
    let who = a.attacker();
    let per_second = a.rng.between(16, 40);
    for n in 0..per_second * a.rng.between(8, 20) {
        let who = Caller { lane: (n % 8) as u32, ..who.clone() };
        let at = a.at;
        a.hit(&who, Service::Orders, Call::get("/products?category=books&page=1").token(&token), 200);
        a.at = at + S / per_second;
    }
    a.counts();
    a.may(FLOOD);
    Ok(())
}

pub(super) fn address_rate(a: &mut Attack<'_>) -> Result<()> {
    let who = a.attacker();
    let per_minute = a.rng.between(150, 420);
    for _ in 0..per_minute * 2 {
        let at = a.at;
        a.hit(&who, Service::Orders, Call::get("/"), 200);
        a.at = at + 60 * S / per_minute;
    }
    a.counts();
    a.may(FLOOD);
    Ok(())
}

pub(super) fn traffic_spike(a: &mut Attack<'_>) -> Result<()> {
    let hosts: Vec<Caller> = (0..60).map(|_| a.attacker()).collect();
    let calls = a.rng.between(6_000, 9_000);
    for n in 0..calls {
        let Some(who) = hosts.get((n % 60) as usize) else { continue };
        let at = a.at;
        a.hit(who, Service::Orders, Call::get("/"), 200);
        a.at = at + 900 * S / calls;
    }
    a.counts();
    a.may(FLOOD);
    Ok(())
}

/// A machine of the shop that works through a queue while the service is ill.
fn through_illness(
    a: &mut Attack<'_>,
    service: Service,
    calls: u64,
    answer: impl Fn(&mut Attack<'_>) -> Answer,
) -> Result<()> {
    let worker = machines::internal([10, 0, 7, 12], "queue-worker/3");
    a.label.addresses.push(worker.address);
    a.label.principals.push("svc-queue".into());
    let token = a.world.machine_token("svc-queue", a.at)?;
    for n in 0..calls {
        let who = Caller { lane: (n % 32) as u32, ..worker.clone() };
        let (at, answer) = (a.at, answer(a));
        a.hit_with(&who, service, Call::post("/jobs", format!(r#"{{"n":{n}}}"#)).token(&token), &answer);
        a.at = at + 900 * S / calls;
    }
    a.counts();
    Ok(())
}

pub(super) fn error_rate(a: &mut Attack<'_>) -> Result<()> {
    let calls = a.rng.between(800, 1_300);
    let share = 0.15 + a.rng.unit() * 0.5;
    through_illness(a, Service::Billing, calls, |a| {
        Answer::of(if a.rng.chance(share) { 500 } else { 202 }, 30)
    })
}

pub(super) fn slow_responses(a: &mut Attack<'_>) -> Result<()> {
    let calls = a.rng.between(800, 1_300);
    // Not all are slow: that would be a route that is meant to wait.
    let share = 0.06 + a.rng.unit() * 0.3;
    through_illness(a, Service::Accounts, calls, |a| {
        let slow = a.rng.chance(share);
        Answer::of(202, if slow { a.rng.between(3_000, 9_000) } else { a.rng.between(20, 200) })
    })
}

/// Nothing is sent: the world keeps the machines of that service silent.
pub(super) fn signal_missing(a: &mut Attack<'_>) -> Result<()> {
    a.label.first = a.at;
    a.label.last = a.at + 6 * 3600 * S;
    a.label.service = Some(Service::Stock.address());
    Ok(())
}

pub(super) fn request_smuggling(a: &mut Attack<'_>) -> Result<()> {
    let mut who = a.attacker();
    who.ingress = None;
    let inner = "GET /admin/users HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nHost: orders.shop.test\r\nUser-Agent: s/1\r\n";
    let raw = match a.rng.below(5) {
        0 => format!("{head}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        1 => format!("{head}Content-Length: 5\r\nContent-Length: {}\r\n\r\nhello{inner}", 5 + inner.len()),
        2 => format!("{head}Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        3 => format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{inner}"),
        _ => format!("{head}Content-Length: +5\r\n\r\nhello"),
    };
    let status = a.rng.pick(&[200, 400]);
    a.hit(&who, Service::Orders, Call::raw(raw), status);
    a.script.trick(Trick::None);
    Ok(())
}

pub(super) fn coverage_gap(a: &mut Attack<'_>) -> Result<()> {
    let token = a.own_token()?;
    let who = a.attacker();
    for page in 1..=a.rng.between(1, 4) {
        a.hit(&who, Service::Orders, Call::get(format!("/orders?page={page}")).token(&token), 200);
        a.script.trick(Trick::Lost);
        a.at += 200 * MS;
    }
    a.counts();
    Ok(())
}
