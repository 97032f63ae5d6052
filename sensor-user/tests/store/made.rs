//! Exchanges made up for tests and measurements of the store.

#![allow(unreachable_pub, reason = "shared with an example")]

use std::net::IpAddr;
use std::sync::Arc;

use sensor_user::capture::{Endpoints, Origin, Time};
use sensor_user::detect::RouteKind;
use sensor_user::http::Coverage;
use sensor_user::seen::Seen;
use sensor_user::token::facts::{Fingerprint, Form, Signature, Token};

/// Midnight, as every part begins.
pub const DAY_S: u64 = 1_795_219_200;

/// A verified token with this name.
pub fn token(fingerprint: u128, subject: &str, id: Option<String>) -> Arc<Token> {
    Arc::new(Token {
        fingerprint: Fingerprint(fingerprint.to_be_bytes()),
        length: 900,
        subject: Some(subject.into()),
        id: id.map(Into::into),
        signature: Signature::Verified,
        ..Token::blank(Form::Jws).of_profile(|profile| profile.issuer = Some("https://idp.example/".into()))
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
