//! Section D: objects and functions that are not the caller's, scans, injections, the unusual.

use anyhow::Result;
use serde_json::json;

use super::{MINUTE, Scene, client, tool};
use crate::lab::script::Call;
use crate::mint::set;

pub(super) fn denied_rate(scene: &mut Scene) -> Result<()> {
    let who = client([10, 0, 3, 7]);
    let token = scene.token("mallory")?;
    for tenant in ["acme", "globex", "initech", "umbrella", "hooli", "stark"] {
        scene.get(&who, format!("/reports/{tenant}"), &token, 403);
        scene.wait(5);
    }
    Ok(())
}

/// A route of which nothing is known, on which half of the objects are missing.
pub(super) fn object_enumeration(scene: &mut Scene) -> Result<()> {
    let who = client([10, 0, 3, 7]);
    let token = scene.token("mallory")?;
    for id in 0..80 {
        scene.get(&who, format!("/orders/{}", 1000 + id), &token, if id % 2 == 0 { 200 } else { 404 });
        scene.wait(4);
    }
    Ok(())
}

/// Ten people look at four orders of their own in each of four hours; then one of them looks at another's.
pub(super) fn foreign_object(scene: &mut Scene) -> Result<()> {
    let people: Vec<String> =
        (0..10).map(|n| scene.long_token(&format!("user{n}"))).collect::<Result<_>>()?;
    let home = |user: u8| client([77, 160, user, 7]);
    for _ in 0..4 {
        for (user, token) in (0_u8..).zip(&people) {
            for order in 0..4 {
                scene.get(&home(user), format!("/orders/{}", u32::from(user) * 10 + order), token, 200);
                scene.wait(2);
            }
        }
        scene.wait(60 * MINUTE);
    }
    let thief = people.get(3).cloned().unwrap_or_default();
    scene.get(&home(3), "/orders/70", &thief, 200);
    Ok(())
}

/// Refused three times, and then not.
pub(super) fn function_escalation(scene: &mut Scene) -> Result<()> {
    let who = client([10, 0, 3, 7]);
    let token = scene.token("mallory")?;
    for status in [403, 403, 403, 200] {
        scene.get(&who, "/admin/users", &token, status);
        scene.wait(20);
    }
    Ok(())
}

/// Page after page, by two machines of one caller: one alone would ask too fast for an address.
pub(super) fn bulk_access(scene: &mut Scene) -> Result<()> {
    let token = scene.token("mallory")?;
    for page in 0..560_u32 {
        let who = client([10, 0, 3, u8::from(page % 2 == 0)]);
        scene.get(&who, format!("/orders?page={page}"), &token, 200);
        scene.at += 450_000_000;
    }
    Ok(())
}

/// A tenth of the shipped number, which `bulk-access` would tell of on the way.
pub(super) fn data_exfiltration(scene: &mut Scene) -> Result<()> {
    scene.tag("/patients/**", "pii");
    scene.set("/rules/data-exfiltration/per_10_minutes", json!(100));
    let token = scene.token("alice")?;
    scene.get(&client([77, 160, 0, 7]), "/patients/1", &token, 200);
    scene.wait(30 * MINUTE);
    let token = scene.token("alice")?;
    for patient in 0..110 {
        scene.get(&client([77, 161, 0, 9]), format!("/patients/{}", 5000 + patient * 3), &token, 200);
        scene.wait(4);
    }
    Ok(())
}

pub(super) fn endpoint_recon(scene: &mut Scene) -> Result<()> {
    let who = tool([45, 131, 0, 9]);
    for product in [
        ".env",
        ".git/config",
        "wp-login.php",
        "actuator/env",
        "jenkins",
        "solr",
        "dump.sql",
        "id_rsa",
        "manager/html",
        "server-status",
        ".aws/credentials",
        "phpinfo.php",
        "graphql",
        "old",
        "backup",
        "console",
        "swagger.json",
        "metrics",
        "debug/vars",
        "cgi-bin/test",
        "xmlrpc.php",
        "vendor",
    ] {
        scene.stranger(&who, &format!("/{product}"), 404);
        scene.wait(3);
    }
    Ok(())
}

pub(super) fn injection(scene: &mut Scene) -> Result<()> {
    scene.call(&tool([45, 131, 0, 9]), Call::get("/search?q=1%27%20OR%20%271%27%3D%271%27--%20"), 500);
    Ok(())
}

/// Nothing has to be a week old here; a thousand requests are as ever.
pub(super) fn unusual_endpoint(scene: &mut Scene) -> Result<()> {
    scene.set("/rules/unusual-endpoint/learn_days", json!(0));
    let (mut of, roles) = (Vec::new(), ["CLERK", "ACCOUNTANT"]);
    for role in roles {
        let mut claims = scene.claims_for(&role.to_lowercase(), 12 * 3600);
        set(&mut claims, "roles", json!([role]));
        of.push((client([10, 0, 3, 7 + u8::from(role == "CLERK")]), scene.sign(&claims)?));
    }
    let [(clerk, orders), (accountant, ledger)] = of.as_slice() else { return Ok(()) };
    for turn in 0..1001 {
        scene.get(clerk, "/orders", orders, 200);
        if turn % 16 == 0 {
            scene.get(accountant, "/ledger", ledger, 200);
        }
        scene.wait(5);
    }
    scene.get(clerk, "/ledger", orders, 200);
    Ok(())
}

/// Eight people go from page to page in order; then somebody jumps about. Nothing has to be a week old here.
pub(super) fn unusual_sequence(scene: &mut Scene) -> Result<()> {
    const PAGES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    scene.set("/rules/unusual-sequence/learn_days", json!(0));
    scene.set("/rules/unusual-sequence/learn_steps", json!(9000));
    let people: Vec<String> = (0..8).map(|n| scene.long_token(&format!("user{n}"))).collect::<Result<_>>()?;
    let page = |at: usize| format!("/shop/{}", PAGES.get(at % 12).copied().unwrap_or_default());
    for step in 0..1300 {
        for (user, token) in (0_u8..).zip(&people) {
            scene.get(&client([77, 160, user, 7]), page(if step % 9 == 8 { 0 } else { step }), token, 200);
        }
        scene.wait(20);
    }
    let stray = scene.token("mallory")?;
    for step in 0..40 {
        scene.get(&client([77, 160, 9, 9]), page(step * 7 + step * step * 5), &stray, 200);
        scene.wait(2);
    }
    Ok(())
}
