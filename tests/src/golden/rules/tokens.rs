//! Section A: what is wrong with the token itself.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Scene, client, tool};
use crate::lab::Service;
use crate::lab::script::{Answer, Call, Caller};
use crate::mint::{base64url, set};

fn without(claims: &mut Value, member: &str) {
    if let Some(members) = claims.as_object_mut() {
        members.remove(member);
    }
}

fn now_s(scene: &Scene) -> i64 {
    i64::try_from(scene.at / super::SECOND).unwrap_or_default()
}

pub(super) fn alg_not_allowed(scene: &mut Scene) -> Result<()> {
    scene.set(
        "/issuers",
        json!([{"issuer": crate::mint::ISSUER, "jwks": "file:jwks.json", "algorithms": ["RS256"]}]),
    );
    let token = scene.mint.eddsa("mallory");
    scene.refused(&token);
    Ok(())
}

pub(super) fn unknown_critical(scene: &mut Scene) -> Result<()> {
    let claims = scene.claims("mallory");
    let header =
        json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1", "crit": ["x-scope"], "x-scope": "read"});
    let token = scene.mint.rs256(&header, &claims)?;
    scene.refused(&token);
    Ok(())
}

pub(super) fn costly_token(scene: &mut Scene) -> Result<()> {
    let header =
        json!({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2s": "c2FsdHNhbHQ", "p2c": 10_000_000});
    let part = |letter: &str, length: usize| base64url(letter.repeat(length).as_bytes());
    let parts = [base64url(header.to_string().as_bytes()), part("k", 40), part("i", 12), part("c", 90)];
    scene.refused(&format!("{}.{}", parts.join("."), part("t", 16)));
    Ok(())
}

pub(super) fn type_confusion(scene: &mut Scene) -> Result<()> {
    let mut claims = scene.claims("mallory");
    without(&mut claims, "scope");
    set(&mut claims, "nonce", json!("n-0S6_WzA2Mj"));
    set(&mut claims, "at_hash", json!("77QmUPtjPfzWtF2AnpK9RQ"));
    let token = scene.sign(&claims)?;
    scene.refused(&token);
    Ok(())
}

pub(super) fn issued_in_future(scene: &mut Scene) -> Result<()> {
    let mut claims = scene.claims("mallory");
    let ahead = now_s(scene) + 600;
    set(&mut claims, "iat", json!(ahead));
    let token = scene.sign(&claims)?;
    scene.accepted(&client([10, 0, 3, 7]), &token);
    Ok(())
}

pub(super) fn missing_expiry(scene: &mut Scene) -> Result<()> {
    let mut claims = scene.claims("mallory");
    without(&mut claims, "exp");
    let token = scene.sign(&claims)?;
    scene.accepted(&client([10, 0, 3, 7]), &token);
    Ok(())
}

pub(super) fn missing_id(scene: &mut Scene) -> Result<()> {
    let mut claims = scene.claims("mallory");
    without(&mut claims, "jti");
    let token = scene.sign(&claims)?;
    scene.accepted(&client([10, 0, 3, 7]), &token);
    Ok(())
}

/// A week, from an issuer of which nothing is known yet.
pub(super) fn lifetime_unusual(scene: &mut Scene) -> Result<()> {
    let claims = scene.claims_for("mallory", 7 * 86_400);
    let token = scene.sign(&claims)?;
    scene.accepted(&client([10, 0, 3, 7]), &token);
    Ok(())
}

pub(super) fn token_in_url(scene: &mut Scene) -> Result<()> {
    let token = scene.token("alice")?;
    let call = Call::get(format!("/orders?page=1&access_token={token}"));
    scene.call(&client([10, 0, 3, 7]), call, 200);
    Ok(())
}

/// Straight from the internet to the service's port.
pub(super) fn token_in_clear(scene: &mut Scene) -> Result<()> {
    let token = scene.token("alice")?;
    let direct = Caller { ingress: None, ..client([45, 131, 0, 7]) };
    scene.get(&direct, "/orders/7", &token, 200);
    Ok(())
}

pub(super) fn proof_missing(scene: &mut Scene) -> Result<()> {
    let mut claims = scene.claims("alice");
    set(&mut claims, "cnf", json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}));
    let token = scene.sign(&claims)?;
    scene.accepted(&client([10, 0, 3, 7]), &token);
    Ok(())
}

pub(super) fn guessable_token(scene: &mut Scene) -> Result<()> {
    scene.accepted(&client([10, 0, 3, 7]), "100042");
    Ok(())
}

pub(super) fn revoked_token(scene: &mut Scene) -> Result<()> {
    scene.set("/lists/revoked_ids", json!(["id-1"]));
    let token = scene.token("alice")?;
    scene.accepted(&client([10, 0, 3, 7]), &token);
    Ok(())
}

/// Told before anything is known of the issuer: another network, another program.
pub(super) fn refresh_reuse(scene: &mut Scene) -> Result<()> {
    let form = "grant_type=refresh_token&client_id=shop&refresh_token=rt_8f14e45fceea167a5a36dedd4bea2543";
    let answer = Answer::of(200, 50).with(r#"{"token_type":"Bearer"}"#.to_owned());
    scene.call_at(Service::Idp, &client([77, 160, 0, 7]), Call::form("/oauth/token", form), &answer);
    scene.wait(400);
    scene.call_at(Service::Idp, &tool([45, 131, 0, 9]), Call::form("/oauth/token", form), &answer);
    Ok(())
}
