//! Section B: stolen sessions, impossible places, subjects and roles that change.

use anyhow::Result;
use serde_json::json;

use super::Attack;
use crate::lab::places::{DISALLOWED, FAR};
use crate::lab::script::{Call, Caller};
use crate::lab::world::{Job, LIFE_S, PEOPLE, Person};
use crate::lab::{S, Service, machines};
use crate::mint::set;

const THEFT: &[&str] = &["new-device-sensitive", "off-hours", "frequent-login", "unusual-endpoint"];

fn owner_looks_around(a: &mut Attack<'_>, who: &Caller, token: &str, calls: u64) {
    for _ in 0..calls {
        let page = a.rng.between(1, 4);
        a.prepare(who, Service::Orders, Call::get(format!("/orders?page={page}")).token(token), 200);
        a.wait_ms(2_000, 12_000);
    }
}

/// The password was stolen: a login and calls, each answered.
fn enter(a: &mut Attack<'_>, who: &Caller, person: usize) -> Result<()> {
    let name = a.world.name(person);
    let token = a.world.token_of(person, a.at)?;
    a.log_in(who, &name, &token, (3, 9), 9_000);
    a.counts();
    a.may(THEFT);
    Ok(())
}

pub(super) fn token_many_sources(a: &mut Attack<'_>) -> Result<()> {
    let person = a.customer();
    let owner = a.home(person);
    let token = a.world.token_of(person, a.at)?;
    owner_looks_around(a, &owner, &token, 3);
    let thief = a.attacker();
    for _ in 0..a.rng.between(2, 6) {
        a.hit(&thief, Service::Orders, Call::get("/orders?page=1").token(&token), 200);
        a.wait_ms(500, 9_000);
        owner_looks_around(a, &owner, &token, 1);
    }
    a.counts();
    a.may(THEFT);
    Ok(())
}

pub(super) fn device_change(a: &mut Attack<'_>) -> Result<()> {
    let person = a.customer();
    let owner = a.home(person);
    let token = a.world.token_of(person, a.at)?;
    owner_looks_around(a, &owner, &token, 4);
    // Later than within five minutes, which would be one token in two clients: another rule.
    a.wait_ms(320_000, 700_000);
    // Malware on the same network, or the next seat in the café.
    let thief = Caller { agent: a.rng.pick(&["curl/8.11.1", "python-requests/2.32"]).into(), ..owner };
    for page in 1..=a.rng.between(2, 6) {
        a.hit(&thief, Service::Orders, Call::get(format!("/orders?page={page}")).token(&token), 200);
        a.wait_ms(300, 3_000);
    }
    a.may(THEFT);
    Ok(())
}

pub(super) fn impossible_travel(a: &mut Attack<'_>) -> Result<()> {
    // The lab's places are of IPv4: of others nobody can say where they are.
    let person = a.victim(|p| p.job == Job::Customer && p.home.is_ipv4());
    let owner = a.home(person);
    let token = a.world.token_of(person, a.at)?;
    owner_looks_around(a, &owner, &token, 4);
    a.wait_ms(120_000, 3_000_000);
    let far = a.rng.below(FAR.len() as u64) as usize;
    let mut thief = a.attacker_from(FAR.get(far).copied().unwrap_or_default());
    thief.agent = owner.agent;
    enter(a, &thief, person)
}

pub(super) fn new_country(a: &mut Attack<'_>) -> Result<()> {
    // Hours after the owner was seen: he could have travelled.
    let at = a.at;
    let rested = move |p: &Person| p.busy_until + 16 * 3600 * S < at && p.sessions > 0;
    let person = a.victim(move |p| p.job == Job::Customer && p.home.is_ipv4() && rested(p));
    let thief = a.attacker_from(FAR[0]);
    enter(a, &thief, person)
}

pub(super) fn disallowed_region(a: &mut Attack<'_>) -> Result<()> {
    let at = a.at;
    let person = a.victim(move |p| p.job == Job::Customer && p.busy_until + 20 * 3600 * S < at);
    let thief = a.attacker_from(DISALLOWED);
    enter(a, &thief, person)
}

pub(super) fn workload_token_abroad(a: &mut Attack<'_>) -> Result<()> {
    let token = machines::pod_token(a.world, a.at - 60 * S)?;
    a.label.principals.push("system:serviceaccount:shop:reports".into());
    let thief = a.attacker();
    for _ in 0..a.rng.between(1, 6) {
        a.hit(&thief, Service::Billing, Call::get("/invoices?since=yesterday").token(&token), 200);
        a.wait_ms(500, 20_000);
    }
    a.may(THEFT);
    Ok(())
}

pub(super) fn subject_switch(a: &mut Attack<'_>) -> Result<()> {
    match a.rng.below(3) {
        0 => desk(a),
        1 => cookie(a),
        _ => family(a),
    }
}

/// A session whose cookie a thief took over, and brings a token of his own.
fn cookie(a: &mut Attack<'_>) -> Result<()> {
    let session = format!("JSESSIONID={}", a.rng.hex(32));
    let (first, second) = (a.own_token()?, a.own_token()?);
    let call = |page: u64, token: &str| {
        Call::get(format!("/orders?page={page}")).header("Cookie", session.clone()).token(token)
    };
    let who = a.attacker();
    for page in 0..a.rng.between(4, 9) {
        a.prepare(&who, Service::Orders, call(page, &first), 200);
        a.wait_ms(2_000, 20_000);
    }
    let thief = a.attacker();
    for page in 0..a.rng.between(1, 4) {
        a.hit(&thief, Service::Orders, call(page, &second), 200);
        a.wait_ms(500, 5_000);
    }
    a.may(THEFT);
    Ok(())
}

/// One login of an issuer (`sid`) whose tokens name two people.
fn family(a: &mut Attack<'_>) -> Result<()> {
    let sid = json!(a.rng.hex(32));
    let mut token = || {
        let name = a.mallory();
        let mut claims = a.claims(&name);
        set(&mut claims, "sid", sid.clone());
        a.world.sign(&claims)
    };
    let (first, second) = (token()?, token()?);
    let who = a.attacker();
    for page in 0..a.rng.between(4, 9) {
        a.prepare(&who, Service::Orders, Call::get(format!("/orders?page={page}")).token(&first), 200);
        a.wait_ms(2_000, 20_000);
    }
    for page in 0..a.rng.between(1, 4) {
        a.hit(&who, Service::Orders, Call::get(format!("/orders?page={page}")).token(&second), 200);
        a.wait_ms(500, 5_000);
    }
    a.may(THEFT);
    Ok(())
}

/// A desk that is known for one person, and then uses a token that was there all the time.
fn desk(a: &mut Attack<'_>) -> Result<()> {
    a.world.attackers += 1;
    // A desk of its own: an address that has carried several people is silent for good.
    let (floor, host) = (a.world.attackers / 200 % 200, a.world.attackers % 200 + 10);
    let who = Caller { lane: 7, ..machines::internal([10, 6, floor as u8, host as u8], "tool/1") };
    a.label.addresses.push(who.address);
    let (first, second) = (a.own_token()?, a.own_token()?);
    for page in 0..26 {
        a.prepare(&who, Service::Orders, Call::get(format!("/orders?page={}", page % 4)).token(&first), 200);
        a.wait_ms(25_000, 29_000);
    }
    a.prepare(&who, Service::Orders, Call::get("/orders?page=9").token(&first), 200);
    a.wait_ms(300, 3_500);
    for page in 1..=a.rng.between(2, 5) {
        a.hit(&who, Service::Orders, Call::get(format!("/orders?page={page}")).token(&second), 200);
        a.wait_ms(500, 5_000);
    }
    a.may(THEFT);
    Ok(())
}

pub(super) fn privilege_change(a: &mut Attack<'_>) -> Result<()> {
    let person = a.customer();
    let who = a.home(person);
    let name = a.world.name(person);
    let mut claims = a.world.claims(PEOPLE, &name, a.at, LIFE_S);
    let power = if a.rng.chance(0.5) { "ADMIN" } else { "SUPER_ADMIN" };
    set(&mut claims, "roles", json!(["USER", power]));
    let token = a.world.sign(&claims)?;
    for page in 1..=a.rng.between(1, 4) {
        a.hit(&who, Service::Orders, Call::get(format!("/orders?page={page}")).token(&token), 200);
        a.wait_ms(500, 5_000);
    }
    a.may(THEFT);
    Ok(())
}

pub(super) fn known_bad_address(a: &mut Attack<'_>) -> Result<()> {
    let mut who = a.attacker();
    who.address = std::net::IpAddr::from([203, 0, 113, a.rng.between(1, 250) as u8]);
    a.label.addresses = vec![who.address];
    let token = a.own_token()?;
    for page in 1..=a.rng.between(1, 4) {
        a.hit(&who, Service::Orders, Call::get(format!("/orders?page={page}")).token(&token), 200);
        a.wait_ms(500, 5_000);
    }
    Ok(())
}
