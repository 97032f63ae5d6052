//! Machines: probes, scrapers, nightly exports, steady synchronisation, partners with keys, pods with tokens, crawlers.

use std::net::IpAddr;

use anyhow::Result;

use super::script::{Answer, Call, Caller, Script};
use super::world::{CLUSTER, World};
use super::{DAY, MS, S, Service, places};
use crate::mint::set;

/// How much of each machine there is in a day.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Seconds between two probes of one service.
    pub probe_s: u64,
    /// Objects of the nightly export.
    pub export: u64,
    /// Seconds between two calls of the synchronisation.
    pub sync_s: u64,
    /// Calls of partners.
    pub partner: u64,
}

/// An internal caller, which connects to the service itself.
#[must_use]
pub fn internal(address: [u8; 4], agent: &str) -> Caller {
    Caller { address: IpAddr::from(address), ingress: None, agent: agent.to_owned(), lane: 0 }
}

/// Everything that machines do on the day that begins at `from`.
///
/// # Errors
/// When signing fails.
pub fn day(world: &mut World, from: u64, pace: Pace) -> Result<Script> {
    let mut script = Script::benign();
    probes(world, &mut script, from, pace);
    export(world, &mut script, from, pace)?;
    sync(world, &mut script, from, pace)?;
    partners(world, &mut script, from, pace);
    pods(world, &mut script, from, pace)?;
    crawlers(world, &mut script, from);
    Ok(script)
}

fn is_silent(world: &World, service: Service, at: u64) -> bool {
    world.silences.iter().any(|(s, from, to)| *s == service && (*from..*to).contains(&at))
}

fn probes(world: &mut World, script: &mut Script, from: u64, pace: Pace) {
    let (kubelet, prometheus) =
        (internal([10, 0, 8, 1], "kube-probe/1.33"), internal([10, 0, 8, 2], "Prometheus/3.2"));
    for (number, service) in (0_u64..).zip(Service::ALL) {
        let mut at = from + number * 700 * MS;
        while at < from + DAY {
            if !is_silent(world, service, at) {
                let answer = world.answer(service, at, 200);
                script.call(at, &kubelet, service, Call::get("/healthz"), &answer);
                if (at / S / pace.probe_s).is_multiple_of(4) {
                    script.call(
                        at + 300 * MS,
                        &prometheus,
                        service,
                        Call::get("/metrics"),
                        &Answer::of(200, 9),
                    );
                }
            }
            at += pace.probe_s * S;
        }
    }
}

/// Reads thousands of objects a night, one after the other, with few tokens.
fn export(world: &mut World, script: &mut Script, from: u64, pace: Pace) -> Result<()> {
    let caller = internal([10, 0, 7, 10], "export-job/2.1");
    let mut at = from + (2 * 3600 + world.rng.below(600)) * S;
    let (mut token, mut issued) = (world.machine_token("svc-export", at)?, at);
    for id in 0..pace.export {
        if at > issued + 2_500 * S {
            (token, issued) = (world.machine_token("svc-export", at)?, at);
        }
        let call = Call::get(format!("/orders/{}", 100_000 + id * 3)).token(&token);
        let answer = world.answer(Service::Orders, at, 200);
        script.call(at, &caller, Service::Orders, call, &answer);
        at += world.rng.between(900, 1_500) * MS;
    }
    Ok(())
}

/// Asks for stock, day and night.
fn sync(world: &mut World, script: &mut Script, from: u64, pace: Pace) -> Result<()> {
    let caller = internal([10, 0, 7, 11], "stock-sync/0.9");
    let mut at = from + 17 * S;
    let (mut token, mut issued) = (world.machine_token("svc-stock", at)?, at);
    while at < from + DAY {
        if at > issued + 2_500 * S {
            (token, issued) = (world.machine_token("svc-stock", at)?, at);
        }
        if !is_silent(world, Service::Stock, at) {
            let call = Call::get(format!("/stock/{}", world.rng.below(900))).token(&token);
            let answer = world.answer(Service::Stock, at, 200);
            script.call(at, &caller, Service::Stock, call, &answer);
        }
        at += pace.sync_s * S + world.rng.below(2 * S);
    }
    Ok(())
}

/// Partners push news with opaque keys that never change.
fn partners(world: &mut World, script: &mut Script, from: u64, pace: Pace) {
    const KEYS: [&str; 3] = [
        "pk_4fT9sKxQ2mVb7LcWzR1yHnJ8dEgA5uPo",
        "8c1f0c3e-5b7d-4a91-9e26-d30b7f64a2c8",
        "Zm9yIG15IGV5ZXMgb25seSBhbmQgbm8gb3RoZXJz",
    ];
    for n in 0..pace.partner {
        let which = world.rng.below(3) as usize;
        let at = from + world.rng.below(DAY);
        let mut caller =
            super::people::stranger(places::address([91, 11], 40 + which as u16), "partner-hook/1");
        caller.ingress = Some(2);
        let key = KEYS.get(which).copied().unwrap_or_default();
        let call = Call::post("/webhooks/stock", format!(r#"{{"n":{n}}}"#)).token(key);
        let answer = world.answer(Service::Orders, at, 202);
        script.call(at, &caller, Service::Orders, call, &answer);
    }
}

/// A pod asks with its service account's token.
fn pods(world: &mut World, script: &mut Script, from: u64, pace: Pace) -> Result<()> {
    let caller = internal([10, 244, 1, 17], "reports/1.4");
    let token = pod_token(world, from + S)?;
    for n in 0..pace.partner {
        let at = from + 2 * S + (DAY - 10 * S) / pace.partner.max(1) * n;
        let call = Call::get("/invoices?since=yesterday").token(&token);
        let answer = world.answer(Service::Billing, at, 200);
        script.call(at, &caller, Service::Billing, call, &answer);
    }
    Ok(())
}

/// The token of the pod `reports` for a day, as the cluster makes it.
///
/// # Errors
/// When signing fails.
pub fn pod_token(world: &mut World, at: u64) -> Result<String> {
    let mut claims = world.claims(CLUSTER, "system:serviceaccount:shop:reports", at, 86_400 - 60);
    let pod = serde_json::json!({
        "namespace": "shop",
        "pod": {"name": "reports-7d9f", "uid": "0b5cb6f2-6c1d-4d2e-9a53-3b0c56f3c0aa"},
        "serviceaccount": {"name": "reports", "uid": "5f1cbb1e-1a0f-4a5d-bb0b-7f3dd5a0f6f1"},
    });
    set(&mut claims, "kubernetes.io", pod);
    world.sign(&claims)
}

/// Search engines and the like look at the front page.
fn crawlers(world: &mut World, script: &mut Script, from: u64) {
    for _ in 0..world.rng.between(2, 6) {
        let mut at = from + world.rng.below(DAY);
        let agent = "Mozilla/5.0 (compatible; SomeBot/2.0; +https://bot.example/)";
        let caller = super::people::stranger(places::address([66, 109], world.rng.below(200) as u16), agent);
        for path in ["/robots.txt", "/", "/products?category=books&page=1", "/sitemap.xml"] {
            let status = if path == "/sitemap.xml" {
                404
            } else if path.starts_with("/products") {
                401
            } else {
                200
            };
            script.call(at, &caller, Service::Orders, Call::get(path), &Answer::of(status, 12));
            at += world.rng.between(2, 20) * S;
        }
    }
}
