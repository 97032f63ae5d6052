//! Section C: guessing, spraying, stuffing, and accounts that should not be there.

use anyhow::Result;

use super::Attack;
use crate::lab::places::{self, HOSTING};
use crate::lab::script::{Answer, Call, Caller};
use crate::lab::world::{Job, people_header};
use crate::lab::{DENIED, DEPARTED, S, Service};

/// Service-wide rules that many failures set off as well.
const FAILURES: &[&str] = &["endpoint-recon", "address-rate", "denied-rate", "traffic-spike"];

fn try_login(a: &mut Attack<'_>, who: &Caller, account: &str, succeeds: bool) {
    let body = format!(r#"{{"username":"{account}","password":"guess-{}"}}"#, a.rng.hex(6));
    let status = if succeeds { 200 } else { 401 };
    a.hit(who, Service::Idp, Call::post("/login", body), status);
}

/// An account that exists, or one that might.
fn account(a: &mut Attack<'_>) -> String {
    if a.rng.chance(0.4) {
        let number = a.rng.below(a.world.people.len() as u64) as usize;
        return a.world.name(number);
    }
    format!("{}{}", a.rng.pick(&["jan", "info", "sales", "j.smith", "test", "w.devries"]), a.rng.below(5_000))
}

fn accounts(a: &mut Attack<'_>, count: u64) -> Vec<String> {
    (0..count).map(|n| format!("{}.{n}", account(a))).collect()
}

fn attackers(a: &mut Attack<'_>, count: u64) -> Vec<Caller> {
    (0..count).map(|_| a.attacker()).collect()
}

fn one<T: Clone>(a: &mut Attack<'_>, of: &[T], otherwise: T) -> T {
    of.get(a.rng.below(of.len() as u64) as usize).cloned().unwrap_or(otherwise)
}

pub(super) fn brute_force(a: &mut Attack<'_>) -> Result<()> {
    let who = a.attacker();
    let names = a.rng.between(1, 3);
    let names = accounts(a, names);
    let pace = a.rng.pick(&[300, 2_000, 20_000]);
    for _ in 0..a.rng.between(16, 90).min(800_000 / pace) {
        let name = one(a, &names, String::new());
        try_login(a, &who, &name, false);
        a.wait_ms(pace / 2, pace);
    }
    a.counts();
    a.may(FAILURES);
    Ok(())
}

pub(super) fn password_spray(a: &mut Attack<'_>) -> Result<()> {
    let who = a.attacker();
    let count = a.rng.between(22, 70);
    for name in accounts(a, count) {
        try_login(a, &who, &name, false);
        a.wait_ms(1_000, 24_000);
    }
    a.counts();
    a.may(FAILURES);
    Ok(())
}

pub(super) fn credential_stuffing(a: &mut Attack<'_>) -> Result<()> {
    let (count, hosts) = (a.rng.between(30, 90), a.rng.between(8, 20));
    let hosts = attackers(a, hosts);
    for name in accounts(a, count) {
        let who = one(a, &hosts, a.home(0));
        let hit = a.rng.chance(0.02);
        try_login(a, &who, &name, hit);
        a.wait_ms(300, 5_000);
    }
    a.counts();
    a.may(FAILURES);
    Ok(())
}

pub(super) fn account_guessing(a: &mut Attack<'_>) -> Result<()> {
    let person = a.customer();
    let name = a.world.name(person);
    let hosts = a.rng.between(12, 40);
    for who in attackers(a, hosts) {
        for _ in 0..a.rng.between(1, 2) {
            try_login(a, &who, &name, false);
            a.wait_ms(1_000, 15_000);
        }
    }
    a.counts();
    a.may(FAILURES);
    Ok(())
}

pub(super) fn login_failure_rate(a: &mut Attack<'_>) -> Result<()> {
    let count = a.rng.between(120, 250);
    for name in accounts(a, count) {
        let who = a.attacker();
        try_login(a, &who, &name, false);
        a.wait_ms(500, 4_000);
    }
    a.counts();
    a.may(FAILURES);
    Ok(())
}

pub(super) fn token_failure_rate(a: &mut Attack<'_>) -> Result<()> {
    let hosts = a.rng.between(30, 60);
    let hosts = attackers(a, hosts);
    for _ in 0..a.rng.between(250, 400) {
        let name = account(a);
        let claims = a.claims(&name);
        let token = a.world.mint.attacker_rs256(&people_header(), &claims)?;
        let who = one(a, &hosts, a.home(0));
        a.hit(&who, Service::Orders, Call::get("/orders?page=1").token(&token), 401);
        a.wait_ms(200, 2_000);
    }
    a.counts();
    a.may(FAILURES);
    a.may(&["signature-invalid"]);
    Ok(())
}

pub(super) fn frequent_login(a: &mut Attack<'_>) -> Result<()> {
    let person = a.customer();
    let who = a.home(person);
    let name = a.world.name(person);
    for _ in 0..a.rng.between(8, 24) {
        let token = a.world.token_of(person, a.at)?;
        let body = format!(r#"{{"username":"{name}","password":"Right-{}"}}"#, a.rng.hex(6));
        let answer =
            Answer::of(200, 70).with(format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#));
        a.hit_with(&who, Service::Idp, Call::post("/login", body), &answer);
        a.label.addresses = vec![who.address];
        a.wait_ms(2_000, 22_000);
    }
    a.counts();
    Ok(())
}

pub(super) fn many_failing_accounts(a: &mut Attack<'_>) -> Result<()> {
    let count = (a.world.people.len() as u64).clamp(80, 700);
    let pace = 25_000_000 / count;
    for name in accounts(a, count) {
        let who = a.attacker();
        try_login(a, &who, &name, false);
        a.wait_ms(pace / 2, pace);
    }
    a.counts();
    a.may(FAILURES);
    Ok(())
}

/// A login that succeeds, and what follows.
fn come_in(a: &mut Attack<'_>, who: &Caller, name: &str) -> Result<()> {
    let claims = a.claims(name);
    let token = a.world.sign(&claims)?;
    a.log_in(who, name, &token, (1, 5), 6_000);
    a.may(&["new-country", "impossible-travel", "device-change"]);
    Ok(())
}

pub(super) fn off_hours(a: &mut Attack<'_>) -> Result<()> {
    // The next night.
    let midnight = a.at - a.at % crate::lab::DAY + crate::lab::DAY;
    a.at = midnight + a.rng.between(3_600, 5 * 3_600) * S;
    let person = a.victim(|p| p.job == Job::Admin);
    let who = a.home(person);
    let token = a.world.token_of(person, a.at)?;
    a.hit(&who, Service::Billing, Call::get("/reports/daily").token(&token), 200);
    for page in 1..=a.rng.between(1, 6) {
        a.hit(&who, Service::Accounts, Call::get(format!("/admin/users?page={page}")).token(&token), 200);
        a.wait_ms(500, 9_000);
    }
    Ok(())
}

pub(super) fn dormant_account(a: &mut Attack<'_>) -> Result<()> {
    let sleeper = a.world.people.iter().position(|p| p.dormant && p.busy_until < a.at).unwrap_or_default();
    if let Some(person) = a.world.people.get_mut(sleeper) {
        // Once awake, never dormant again.
        person.busy_until = u64::MAX / 2;
    }
    let name = a.world.name(sleeper);
    a.label.principals.push(name.clone());
    let who = if a.rng.chance(0.5) { a.attacker() } else { a.home(sleeper) };
    a.label.addresses = vec![who.address];
    come_in(a, &who, &name)
}

pub(super) fn departed_account(a: &mut Attack<'_>) -> Result<()> {
    let name = format!("departed.{:04}", a.rng.below(DEPARTED));
    a.label.principals.push(name.clone());
    let who = a.attacker();
    come_in(a, &who, &name)
}

pub(super) fn listed_account(a: &mut Attack<'_>) -> Result<()> {
    let name = format!("denied.{:04}", a.rng.below(DENIED));
    a.label.principals.push(name.clone());
    let who = a.attacker();
    come_in(a, &who, &name)
}

pub(super) fn new_device_sensitive(a: &mut Attack<'_>) -> Result<()> {
    let person = a.customer();
    let mut who = a.home(person);
    who.agent = a.rng.pick(&["python-requests/2.32", "Wget/1.21.4", "Go-http-client/1.1"]).into();
    if a.rng.chance(0.5) {
        who.address = places::address(HOSTING.mobiles, (a.world.attackers % 60_000) as u16);
    }
    let token = a.world.token_of(person, a.at)?;
    let base = a.world.people.get(person).map_or(0, |p| p.base) * 40;
    for id in base..base + a.rng.between(1, 4) {
        a.hit(&who, Service::Billing, Call::get(format!("/invoices/{id}")).token(&token), 200);
        a.wait_ms(500, 6_000);
    }
    a.may(&["new-country", "impossible-travel", "device-change"]);
    Ok(())
}
