//! The scene of a finding: the exchange as an alert may show it. Built only when a rule has something to say.

use std::sync::Arc;

use crate::detect::login::shown;
use crate::detect::{Case, Principal, Scene, text};
use crate::http::RequestHead;
use crate::token::facts::MAX_TEXT;
use crate::token::{Form, Token};

/// Longest path, host and user agent shown, in bytes. Longer ones are attacks or accidents; their start tells which.
const MAX_PATH: usize = 256;
const MAX_HOST: usize = 128;
const MAX_AGENT: usize = 256;
/// Longest method shown. The longest registered one has 17 letters (`UPDATEREDIRECTREF`, RFC 4437).
const MAX_METHOD: usize = 32;

/// What a request says of itself: printable, bounded, without its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The method.
    pub method: Box<str>,
    /// The path without query.
    pub path: Box<str>,
    /// The `Host` header.
    pub host: Option<Box<str>>,
    /// The `User-Agent` header.
    pub user_agent: Option<Box<str>>,
}

/// Draws the scene of a case.
#[must_use]
pub fn of(case: &Case<'_>) -> Scene {
    let exchange = case.exchange;
    let said = words(&exchange.request);
    Scene {
        at: exchange.at,
        client: exchange.client,
        endpoints: exchange.endpoints,
        origin: exchange.origin,
        method: said.method,
        path: said.path,
        route: Arc::clone(&case.route.name),
        host: said.host,
        user_agent: said.user_agent,
        status: exchange.status(),
        response_bytes: exchange.response_body_bytes,
        coverage: exchange.coverage,
        names: names(case),
    }
}

/// The names of people in an exchange: whom its tokens claim to be, and the account that it logs in to, in full and as
/// findings show it. No more than [`Scene::MAX_NAMES`]: a request with more tokens is ambiguous, and itself a finding.
fn names(case: &Case<'_>) -> Vec<Box<str>> {
    let account = case.exchange.account();
    let whole = account.map(|name| text::printable(name.as_bytes(), MAX_TEXT));
    let cut = account.map(shown);
    let claimed = case.all.iter().filter_map(|held| held.token.subject.as_deref());
    let claimed = claimed.map(|name| text::printable(name.as_bytes(), MAX_TEXT));
    let mut names: Vec<Box<str>> = Vec::new();
    for name in whole.into_iter().chain(cut).chain(claimed).filter(|name| !name.is_empty()) {
        if names.len() < Scene::MAX_NAMES && names.iter().all(|known| **known != *name) {
            names.push(name.into_boxed_str());
        }
    }
    names
}

/// Reads what a request says of itself.
#[must_use]
pub fn words(request: &RequestHead) -> Words {
    let header = |name, max| request.value(name).map(|v| text::printable(v, max).into_boxed_str());
    Words {
        method: text::printable(request.method(), MAX_METHOD).into_boxed_str(),
        path: text::clean_path(request.path(), MAX_PATH).into_boxed_str(),
        host: header("host", MAX_HOST),
        user_agent: header("user-agent", MAX_AGENT),
    }
}

/// Draws the scene of what is about the service as a whole: nobody stands for the client, and `-` for the route.
#[must_use]
pub fn of_service(case: &Case<'_>) -> Scene {
    let mut scene = of(case);
    scene.endpoints.client = Scene::NOBODY;
    scene.client = Scene::NOBODY.ip();
    scene.route = "-".into();
    scene.user_agent = None;
    scene
}

/// Who a token names, and whether that is more than a claim.
#[must_use]
pub fn principal(token: &Token) -> Option<Principal> {
    if matches!(token.form, Form::Opaque | Form::Jwe) {
        return None;
    }
    let subject = token.subject.as_deref()?;
    Some(Principal {
        subject: text::printable(subject.as_bytes(), MAX_TEXT).into_boxed_str(),
        issuer: token.issuer.as_deref().map(|iss| text::printable(iss.as_bytes(), MAX_TEXT).into_boxed_str()),
        verified: token.is_verified(),
    })
}
