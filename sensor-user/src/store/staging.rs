//! What the tests of the store are made of: exchanges in one line each.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::capture::{Endpoints, Origin, Time};
use crate::detect::RouteKind;
use crate::detect::staging;
use crate::http::Coverage;
use crate::render::Privacy;
use crate::seen::Seen;
use crate::store::keeper::Keeper;
use crate::store::parts::Bounds;
use crate::store::uses::Gathering;
use crate::store::veil::Veil;
use crate::token::{Signature, Token, Unchecked};

/// Midnight, as every part begins.
pub(crate) const DAY_S: u64 = 1_795_219_200;

pub(crate) fn veil() -> Veil {
    Veil::new(b"0123456789abcdef", Privacy::default(), false)
}

pub(crate) fn bounds() -> Bounds {
    let day = Duration::from_hours(24);
    Bounds { max_bytes: 1 << 30, uses_for: 14 * day, alerts_for: 365 * day }
}

/// A verified token of somebody.
pub(crate) fn token(number: u64, subject: &str) -> Arc<Token> {
    Arc::new(Token { subject: Some(subject.into()), ..staging::token(number) })
}

/// A token that merely claims to be somebody's.
pub(crate) fn claim(number: u64, subject: &str) -> Arc<Token> {
    let signature = Signature::Unchecked(Unchecked::NoIssuer);
    Arc::new(Token { subject: Some(subject.into()), signature, policy: None, ..staging::token(number) })
}

/// So many seconds after [`DAY_S`].
pub(crate) fn seen(second: u64, tokens: &[&Arc<Token>], client: &str, route: &str, status: u16) -> Seen {
    let client: IpAddr = client.parse().unwrap();
    Seen {
        at: Time::from_secs(DAY_S + second),
        endpoints: Endpoints { client: (client, 50_000).into(), server: "10.0.0.1:8080".parse().unwrap() },
        client,
        origin: Origin::default(),
        route: route.into(),
        kind: RouteKind::Plain,
        status: Some(status).filter(|status| *status != 0),
        request_bytes: Some(100),
        response_bytes: Some(1000),
        latency: None,
        coverage: Coverage::Whole,
        tokens: tokens.iter().map(|token| Arc::clone(token)).collect(),
        words: None,
    }
}

/// Stores exchanges as the runtime does, so many at once.
pub(crate) fn keep(dir: &Path, exchanges: &[Seen], at_once: usize, veil: &Veil) {
    let mut keeper = Keeper::open(dir, bounds()).unwrap();
    keep_by(&mut keeper, exchanges, at_once, veil);
    keeper.close();
}

pub(crate) fn keep_by(keeper: &mut Keeper, exchanges: &[Seen], at_once: usize, veil: &Veil) {
    let mut gathering = Gathering::default();
    for some in exchanges.chunks(at_once) {
        for seen in some {
            gathering.add(seen, veil);
        }
        let now = some.last().unwrap().at;
        if let Some(gathered) = gathering.take() {
            let names = gathered.services.iter().map(|(service, _)| service.address.to_string());
            let names: Vec<String> = names.collect();
            keeper.keep_uses(&gathered, &names, veil, now);
        }
        keeper.tend(now);
    }
}
