//! Exchanges made up for tests and measurements of the store.

#![allow(unreachable_pub, reason = "shared with an example")]

use std::net::IpAddr;
use std::sync::Arc;

use sensor_user::capture::{Endpoints, Origin, Time};
use sensor_user::detect::RouteKind;
use sensor_user::http::Coverage;
use sensor_user::seen::Seen;
use sensor_user::token::facts::{Fingerprint, Flaws, Form, Seat, Signature, Standing, Token};

/// Midnight, as every part begins.
pub const DAY_S: u64 = 1_795_219_200;

/// A verified token with this name.
pub fn token(fingerprint: u128, subject: &str, id: Option<String>) -> Arc<Token> {
    Arc::new(Token {
        fingerprint: Fingerprint(fingerprint.to_be_bytes()),
        form: Form::Jws,
        length: 900,
        alg: None,
        kid: None,
        typ: None,
        key_url: None,
        issuer: Some("https://idp.example/".into()),
        subject: Some(subject.into()),
        audiences: smallvec::SmallVec::default(),
        id: id.map(Into::into),
        roles: Arc::default(),
        session: 0,
        purpose: None,
        bound: None,
        opaque: None,
        status: None,
        standing: Standing::Unknown,
        was_good: false,
        asked_s: 0,
        expires: None,
        not_before: None,
        issued: None,
        flaws: Flaws::default(),
        flaw_detail: None,
        signature: Signature::Verified,
        policy: None,
        proof: None,
        key_asked: None,
        input_hash: 0,
        signature_hash: 0,
        seat: Seat::default(),
    })
}

/// A use of it, so many milliseconds after [`DAY_S`].
pub fn seen(ms: u64, token: Option<&Arc<Token>>, client: IpAddr, route: &Arc<str>, service: u16) -> Seen {
    Seen {
        at: Time(DAY_S * 1_000_000_000 + ms * 1_000_000),
        endpoints: Endpoints {
            client: (client, 50_000).into(),
            server: (IpAddr::from([10, 0, 0, 1]), service).into(),
        },
        client,
        origin: Origin::default(),
        route: Arc::clone(route),
        kind: RouteKind::Plain,
        status: Some(200),
        request_bytes: Some(100),
        response_bytes: Some(2000),
        latency: None,
        coverage: Coverage::Whole,
        tokens: token.map(Arc::clone).into_iter().collect(),
        words: None,
    }
}
