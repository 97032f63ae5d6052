//! Section C: guessing, spraying, stuffing, and accounts that should not be there.

use anyhow::Result;
use serde_json::json;

use super::{MINUTE, Scene, client, tool};
use crate::lab::script::Caller;

/// Ten days at the office, then a night.
pub(super) fn off_hours(scene: &mut Scene) -> Result<()> {
    scene.tag("/admin/**", "admin");
    scene.set("/time_zone", json!("UTC"));
    let who = client([10, 0, 3, 7]);
    for day in 1..=10 {
        scene.go_to(day, 10);
        let token = scene.token("anna")?;
        scene.get(&who, "/admin/users", &token, 200);
    }
    scene.go_to(11, 3);
    let token = scene.token("anna")?;
    scene.get(&who, "/admin/users", &token, 200);
    Ok(())
}

/// The service is in use every day; one account is not.
pub(super) fn dormant_account(scene: &mut Scene) -> Result<()> {
    let who = client([10, 0, 3, 7]);
    for day in 1..=62 {
        scene.go_to(day, 10);
        if day == 1 || day == 62 {
            scene.login(&who, "alice", 200);
        }
        scene.stranger(&who, "/", 200);
    }
    Ok(())
}

pub(super) fn departed_account(scene: &mut Scene) -> Result<()> {
    scene.set("/lists/departed_accounts", json!(["bob"]));
    scene.login(&client([10, 0, 3, 7]), "bob", 200);
    Ok(())
}

pub(super) fn listed_account(scene: &mut Scene) -> Result<()> {
    scene.set("/lists/denied_accounts", json!(["bait"]));
    scene.login(&client([10, 0, 3, 7]), "bait", 200);
    Ok(())
}

pub(super) fn new_device_sensitive(scene: &mut Scene) -> Result<()> {
    scene.tag("/invoices/**", "financial");
    for (day, who) in [(1, client([10, 0, 3, 7])), (16, client([10, 0, 3, 7])), (17, tool([10, 0, 3, 7]))] {
        scene.go_to(day, 10);
        let token = scene.token("alice")?;
        scene.get(&who, "/invoices/7", &token, 200);
    }
    Ok(())
}

/// Slowly enough for what counts failures of an address.
pub(super) fn password_spray(scene: &mut Scene) -> Result<()> {
    let who = tool([45, 131, 0, 9]);
    for number in 0..15 {
        scene.login(&who, &format!("user{number}"), 401);
        scene.wait(110);
    }
    Ok(())
}

pub(super) fn credential_stuffing(scene: &mut Scene) -> Result<()> {
    for number in 0..10_u8 {
        scene.login(&tool([45, 131, number % 5, 9]), &format!("user{number}"), 401);
        scene.wait(20);
    }
    Ok(())
}

pub(super) fn account_guessing(scene: &mut Scene) -> Result<()> {
    scene.login(&client([10, 0, 3, 7]), "alice", 200);
    for number in 0..8_u8 {
        scene.wait(5 * MINUTE);
        scene.login(&tool([45, 131, number % 5, 9]), "alice", 401);
    }
    Ok(())
}

/// A program of each one's own: one for all would be a spray.
fn someone(number: u8) -> Caller {
    Caller { agent: format!("shop-{number}/1"), ..client([77, 160, number, 7]) }
}

/// A third fails within five minutes.
pub(super) fn login_failure_rate(scene: &mut Scene) -> Result<()> {
    for number in 0..60_u8 {
        let status = if number % 3 == 0 { 401 } else { 200 };
        scene.login(&someone(number), &format!("user{number}"), status);
        scene.wait(4);
    }
    Ok(())
}

/// Good tokens that the service refuses, each of somebody else.
pub(super) fn token_failure_rate(scene: &mut Scene) -> Result<()> {
    for number in 0..210_u8 {
        let who = someone(number);
        let token = scene.token(&format!("user{number}"))?;
        scene.get(&who, "/orders", &token, if number % 4 == 0 { 401 } else { 200 });
        scene.wait(1);
    }
    Ok(())
}

pub(super) fn frequent_login(scene: &mut Scene) -> Result<()> {
    let who = client([10, 0, 3, 7]);
    for _ in 0..6 {
        scene.login(&who, "alice", 200);
        scene.wait(MINUTE);
    }
    Ok(())
}

/// One every half hour, never twice from one address.
pub(super) fn many_failing_accounts(scene: &mut Scene) -> Result<()> {
    for number in 0..21_u8 {
        scene.login(&someone(number), &format!("user{number}"), 401);
        scene.wait(30 * MINUTE);
    }
    Ok(())
}
