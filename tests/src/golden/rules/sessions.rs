//! Section B: stolen sessions, impossible places, subjects and roles that change.

use anyhow::Result;
use serde_json::json;

use super::{Scene, at_home, client, tool};
use crate::lab::places::{DISALLOWED, FAR, HOMES};
use crate::lab::script::Caller;
use crate::mint::set;

/// Half an hour after the owner: sooner would be two clients at a time.
pub(super) fn device_change(scene: &mut Scene) -> Result<()> {
    let token = scene.token("alice")?;
    scene.get(&client([77, 160, 0, 7]), "/orders/7", &token, 200);
    scene.wait(1800);
    scene.get(&tool([45, 131, 0, 9]), "/orders/7", &token, 200);
    Ok(())
}

/// Two continents within five minutes are told of anybody.
pub(super) fn impossible_travel(scene: &mut Scene) -> Result<()> {
    scene.with_places()?;
    let (home, far) = (at_home(HOMES[0]), at_home(FAR[0]));
    let token = scene.token("alice")?;
    scene.get(&home, "/orders/7", &token, 200);
    scene.wait(120);
    let token = scene.token("alice")?;
    scene.get(&far, "/orders/7", &token, 200);
    Ok(())
}

pub(super) fn new_country(scene: &mut Scene) -> Result<()> {
    scene.with_places()?;
    for (day, who) in [(0, at_home(HOMES[0])), (15, at_home(HOMES[0])), (16, at_home(FAR[0]))] {
        scene.go_to(1 + day, 10);
        let token = scene.token("alice")?;
        scene.get(&who, "/orders/7", &token, 200);
    }
    Ok(())
}

pub(super) fn disallowed_region(scene: &mut Scene) -> Result<()> {
    scene.with_places()?;
    scene.set("/geo/allowed_countries", json!(["NL"]));
    let token = scene.token("alice")?;
    scene.accepted(&at_home(DISALLOWED), &token);
    Ok(())
}

pub(super) fn workload_token_abroad(scene: &mut Scene) -> Result<()> {
    let token = scene.token("system:serviceaccount:shop:reports")?;
    scene.accepted(&tool([45, 131, 0, 9]), &token);
    Ok(())
}

/// A desk that is known for one person, and then brings a token that was there all the time.
pub(super) fn subject_switch(scene: &mut Scene) -> Result<()> {
    let desk = Caller { ingress: None, ..client([10, 0, 6, 11]) };
    let (alice, bob) = (scene.token("alice")?, scene.token("bob")?);
    for page in 0..26 {
        scene.get(&desk, format!("/orders?page={}", page % 4), &alice, 200);
        scene.wait(27);
    }
    scene.get(&desk, "/orders?page=1", &alice, 200);
    scene.wait(2);
    scene.get(&desk, "/orders?page=1", &bob, 200);
    Ok(())
}

pub(super) fn privilege_change(scene: &mut Scene) -> Result<()> {
    let who = client([10, 0, 3, 7]);
    for role in ["USER", "USER", "USER", "ADMIN"] {
        let mut claims = scene.claims("alice");
        set(&mut claims, "roles", json!([role]));
        let token = scene.sign(&claims)?;
        scene.get(&who, "/orders/7", &token, 200);
        scene.wait(600);
    }
    Ok(())
}

pub(super) fn known_bad_address(scene: &mut Scene) -> Result<()> {
    scene.set("/lists/bad_addresses", json!(["203.0.113.0/24"]));
    let token = scene.token("alice")?;
    scene.accepted(&client([203, 0, 113, 66]), &token);
    Ok(())
}
