//! Routes: the name, purpose and guard of every place that requests go to, learned from traffic.
//!
//! A route is told apart by server address, `Host`, method and path template. Its guard says whether a 2xx there means
//! that a credential was accepted: it is learned from callers who have none, and from refusals of tokens that every
//! correct verifier refuses. `Host` is the caller's to choose, so a guard is also learned for all hosts of a server
//! together: a made-up host must not make a guarded route look unknown.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::detect::cause::must_refuse;
use crate::detect::roster::LATER_LIVES;
use crate::detect::settings::Kinds;
use crate::detect::statement::VERIFIERS_LEEWAY_S;
use crate::detect::table::Table;
use crate::detect::templates::{self, Taught, Templates};
use crate::detect::{DetectSettings, Guard, Route, RouteKind, Slot};
use crate::http::Exchange;
use crate::token::TokenUse;

/// Refusals in a row that overrule an earlier sight of an open route: it was deployed anew, with a guard.
const REFUSALS_TO_CLOSE: u8 = 3;

/// Longest host kept, in bytes: RFC 1035 allows 253; real ones are far shorter.
const MAX_HOST: usize = 128;

/// The host under which all hosts of a server are learned together. No `Host` header is this: `*` is no host.
const ANY_HOST: &[u8] = b"*";

/// Request headers that carry a credential which is not a token of ours.
const CREDENTIAL_HEADERS: [&str; 5] = ["authorization", "cookie", "x-api-key", "api-key", "apikey"];

/// Longest GraphQL operation in a route's name, in bytes.
const MAX_OPERATION: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    server: SocketAddr,
    host: Box<[u8]>,
    name: Box<str>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    route: Route,
    /// Refusals since the route was last seen open; saturates.
    refusals: u8,
    /// Whether it was answered, and told the templates so.
    taught: bool,
}

/// Everything that was learned of routes: what a snapshot keeps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Learned {
    table: Table<Key, Entry>,
    lives: u32,
    templates: templates::Learned,
}

/// What one exchange says of its route's guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// A caller without any credential got a 2xx.
    Open,
    /// A caller without a good token got a 401 or 403.
    Refused,
}

/// The known routes.
#[derive(Debug)]
pub struct Routes {
    table: Table<Key, Entry>,
    templates: Templates,
    kinds: Kinds,
    name: String,
    host: Vec<u8>,
    nowhere: Route,
    lives: u32,
}

impl Routes {
    /// Knows nothing yet but what the configuration says.
    #[must_use]
    pub fn new(settings: &DetectSettings) -> Self {
        Self {
            table: Table::new(settings.max_routes),
            templates: Templates::new(&settings.routes),
            kinds: Kinds::new(&settings.routes),
            name: String::new(),
            host: Vec::new(),
            nowhere: Route {
                name: "-".into(),
                kind: RouteKind::Plain,
                guard: Guard::Unknown,
                slot: Slot::default(),
                uses: 0,
                first_s: 0,
            },
            lives: 0,
        }
    }

    /// What was learned, as a snapshot keeps it.
    ///
    /// # Errors
    /// When it cannot be written as it is.
    pub fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(&(&self.table, self.lives, self.templates.learned()))
    }

    /// Takes over what an earlier run learned, within the caps of this one. Kinds are those configured now.
    pub fn resume(&mut self, earlier: Learned) {
        let cap = self.table.cap();
        self.table = earlier.table;
        self.table.limit(cap);
        self.lives = earlier.lives.wrapping_add(LATER_LIVES);
        self.templates.resume(earlier.templates);
        let names: Vec<Box<str>> = self.table.iter().map(|(key, _)| key.name.clone()).collect();
        for (at, name) in names.iter().enumerate() {
            let Some(entry) = self.table.at(at) else { continue };
            entry.route.name = shown(name).into();
            entry.route.kind = kind_of(&self.kinds, name);
        }
    }

    /// Routes that had to be forgotten.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    /// Routes known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none are known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The route of an exchange, after learning what the exchange says of it. Allocates for new routes only.
    pub fn look_up(&mut self, exchange: &Exchange, tokens: &[TokenUse]) -> &Route {
        self.see(exchange, tokens, true)
    }

    /// The route of an exchange that was looked up before.
    pub fn look_up_late(&mut self, exchange: &Exchange, tokens: &[TokenUse]) -> &Route {
        self.see(exchange, tokens, false)
    }

    /// The route in this place, while it is there; the one that stands for none otherwise.
    #[must_use]
    pub fn in_place(&self, slot: Slot) -> &Route {
        let route = self.table.peek(slot.at as usize).map(|entry| &entry.route);
        route.filter(|route| route.slot == slot).unwrap_or(&self.nowhere)
    }

    fn see(&mut self, exchange: &Exchange, tokens: &[TokenUse], is_new: bool) -> &Route {
        self.read_names(exchange);
        let server = exchange.endpoints.server;
        let evidence = evidence(exchange, tokens);
        let at_s = u32::try_from(exchange.at.secs()).unwrap_or(u32::MAX);
        let slot = self.learn((server, at_s), false, evidence);
        let mut known = true;
        if let Some(entry) = self.table.at(slot) {
            known = entry.route.guard != Guard::Unknown;
            entry.route.uses = entry.route.uses.saturating_add(u32::from(is_new));
            if !entry.taught && (exchange.is_success() || exchange.status() == Some(304)) {
                entry.taught = true;
                self.teach(server, slot, exchange);
            }
        }
        let doubtful = exchange.is_success() && tokens.iter().any(|held| !held.token.is_verified());
        if evidence.is_some() || (doubtful && !known) {
            return self.look_up_any((server, at_s), slot, evidence);
        }
        self.table.at(slot).map_or(&self.nowhere, |entry| &entry.route)
    }

    /// Tells the templates of a route that was answered. The words of GraphQL operations are no paths.
    fn teach(&mut self, server: SocketAddr, slot: usize, exchange: &Exchange) {
        if operation_of(exchange).is_some() {
            return;
        }
        let Self { table, templates, name, .. } = self;
        let Some(taught) = table.at(slot).map(|entry| entry.route.slot) else { return };
        let table = &*table;
        let known = |slot: Slot| {
            let route = &table.peek(slot.at as usize)?.route;
            (route.slot == slot).then_some(Taught { uses: route.uses, guard: route.guard })
        };
        templates.teach(server, name, taught, known);
    }

    /// The same, with all hosts of the server taken together where this one tells nothing.
    fn look_up_any(&mut self, at: (SocketAddr, u32), slot: usize, evidence: Option<Evidence>) -> &Route {
        let any = self.learn(at, true, evidence);
        let refuses = self.table.at(any).is_some_and(|entry| entry.route.guard == Guard::Refuses);
        // Making the entry for all hosts may have evicted this one: then make it again.
        let slot = if any == slot { self.learn(at, false, None) } else { slot };
        let Some(entry) = self.table.at(slot) else { return &self.nowhere };
        if entry.route.guard == Guard::Unknown && refuses {
            entry.route.guard = Guard::Refuses;
        }
        &entry.route
    }

    /// Makes the entry if it is missing, and lets the evidence change its guard. Its slot.
    fn learn(&mut self, (server, at_s): (SocketAddr, u32), any: bool, evidence: Option<Evidence>) -> usize {
        let host = if any { ANY_HOST } else { self.host.as_slice() };
        let name = self.name.as_str();
        let hash = self.table.hash_of(&(server, host, name));
        let same = |k: &Key| *k.name == *name && *k.host == *host && k.server == server;
        if let Some(slot) = self.table.position(hash, same) {
            if let Some(entry) = self.table.at(slot) {
                entry.learn(evidence);
            }
            return slot;
        }
        let route = Route {
            name: shown(name).into(),
            kind: kind_of(&self.kinds, name),
            guard: self.templates.guard(server, name),
            slot: Slot::default(),
            uses: 0,
            first_s: at_s,
        };
        let mut entry = Entry { route, refusals: 0, taught: any };
        entry.learn(evidence);
        let key = Key { server, host: host.into(), name: name.into() };
        let hash = self.table.hash_of(&key);
        let at = self.table.place(hash, key, entry).0;
        self.lives = self.lives.wrapping_add(1).max(1);
        if let Some(entry) = self.table.at(at) {
            entry.route.slot = Slot { at: u32::try_from(at).unwrap_or(u32::MAX), life: self.lives };
        }
        at
    }

    /// Reads method, template and host into the reused buffers.
    fn read_names(&mut self, exchange: &Exchange) {
        let request = &exchange.request;
        self.name.clear();
        self.templates.operation(exchange.endpoints.server, request.method(), request.path(), &mut self.name);
        if let Some(operation) = operation_of(exchange) {
            self.name.push(' ');
            let shown = operation.bytes().take(MAX_OPERATION);
            self.name
                .extend(shown.map(|b| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' }));
        }
        self.host.clear();
        let host = request.value("host").unwrap_or_default();
        let host = host.get(..MAX_HOST).unwrap_or(host);
        self.host.extend(host.iter().map(u8::to_ascii_lowercase));
    }
}

fn operation_of(exchange: &Exchange) -> Option<&str> {
    exchange.body.as_ref()?.operation.as_deref()
}

/// What a route is for, by `METHOD /template` and what may follow.
fn kind_of(kinds: &Kinds, name: &str) -> RouteKind {
    let mut parts = name.split(' ');
    kinds.of(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

impl Entry {
    const fn learn(&mut self, evidence: Option<Evidence>) {
        match evidence {
            None => {}
            Some(Evidence::Open) => {
                // One answer that nobody can explain (a credential where none is looked for) does not undo many
                // refusals: of 255, four do.
                self.refusals /= 4;
                if self.refusals < REFUSALS_TO_CLOSE {
                    self.refusals = 0;
                    self.route.guard = Guard::Open;
                }
            }
            Some(Evidence::Refused) => {
                self.refusals = self.refusals.saturating_add(1);
                let settled = matches!(self.route.guard, Guard::Open) && self.refusals < REFUSALS_TO_CLOSE;
                if !settled {
                    self.route.guard = Guard::Refuses;
                }
            }
        }
    }
}

fn evidence(exchange: &Exchange, tokens: &[TokenUse]) -> Option<Evidence> {
    if exchange.is_refused() {
        let no_good_token =
            tokens.iter().all(|held| must_refuse(&held.token, exchange.at, VERIFIERS_LEEWAY_S).is_some());
        return no_good_token.then_some(Evidence::Refused);
    }
    if !tokens.is_empty() || !exchange.is_success() {
        return None;
    }
    let anonymous = CREDENTIAL_HEADERS.iter().all(|name| exchange.request.value(name).is_none());
    anonymous.then_some(Evidence::Open)
}

/// The name as it may be shown: a percent-encoded `@` is an address as well.
fn shown(name: &str) -> String {
    if !name.contains("%40") {
        return name.to_owned();
    }
    let segments: Vec<&str> = name.split('/').map(|s| if s.contains("%40") { "{id}" } else { s }).collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::detect::staging::{Stage, token, uses};
    use crate::token::{Signature, Token};

    fn routes() -> Routes {
        Routes::new(&DetectSettings::default())
    }

    fn guard(routes: &mut Routes, stage: &Stage, tokens: &[Token]) -> Guard {
        routes.look_up(&stage.exchange, &uses(tokens.iter().cloned())).guard
    }

    fn forged() -> Token {
        Token { signature: Signature::Invalid, ..token(9) }
    }

    #[test]
    fn names_and_kinds_follow_the_template() {
        let mut routes = routes();
        let name = |routes: &mut Routes, method: &str, path: &str| {
            let route = routes.look_up(&Stage::to(method, path).exchange, &[]);
            (route.name.to_string(), route.kind)
        };
        assert_eq!(name(&mut routes, "GET", "/orders/7?x=1"), ("GET /orders/{id}".into(), RouteKind::Plain));
        assert_eq!(name(&mut routes, "POST", "/api/login"), ("POST /api/login".into(), RouteKind::Login));
        assert_eq!(
            name(&mut routes, "GET", "/u/a%40b.example/x"),
            ("GET /u/{id}/x".into(), RouteKind::Plain)
        );
        name(&mut routes, "GET", "/orders/8");
        assert_eq!(routes.len(), 3);
    }

    #[test]
    fn guards_are_learned_from_strangers() {
        let mut routes = routes();
        let stage = Stage::new();
        assert_eq!(guard(&mut routes, &stage.clone().status(200), &[token(1)]), Guard::Unknown);
        assert_eq!(guard(&mut routes, &stage.clone().status(401), &[token(1)]), Guard::Unknown, "good token");
        assert_eq!(guard(&mut routes, &stage.clone().status(404), &[]), Guard::Unknown);
        assert_eq!(guard(&mut routes, &stage.clone().status(401), &[]), Guard::Refuses);
        assert_eq!(guard(&mut routes, &stage.clone().status(200), &[]), Guard::Open);
    }

    #[test]
    fn refusing_a_forgery_is_a_guard_too() {
        assert_eq!(guard(&mut routes(), &Stage::new().status(403), &[forged()]), Guard::Refuses);
        assert_eq!(guard(&mut routes(), &Stage::new().status(403), &[forged(), token(1)]), Guard::Unknown);
    }

    #[test]
    fn callers_with_other_credentials_are_no_strangers() {
        for header in ["Authorization", "Cookie", "X-API-Key"] {
            let stage = Stage::new().header(header, "x").status(200);
            assert_eq!(guard(&mut routes(), &stage, &[]), Guard::Unknown, "{header}");
        }
    }

    #[test]
    fn one_odd_answer_does_not_open_a_guarded_route_but_a_few_do() {
        let mut routes = routes();
        let stage = Stage::new();
        for _ in 0..300 {
            guard(&mut routes, &stage.clone().status(401), &[]);
        }
        let answered = stage.status(200);
        let [refuses, open] = [Guard::Refuses, Guard::Open];
        assert_eq!([(); 4].map(|()| guard(&mut routes, &answered, &[])), [refuses, refuses, refuses, open]);
    }

    #[test]
    fn one_refusal_does_not_close_an_open_route_but_three_do() {
        let mut routes = routes();
        let stage = Stage::new();
        guard(&mut routes, &stage.clone().status(200), &[]);
        let refused = stage.status(403);
        assert_eq!(
            [(); 3].map(|()| guard(&mut routes, &refused, &[])),
            [Guard::Open, Guard::Open, Guard::Refuses]
        );
    }

    #[test]
    fn a_made_up_host_does_not_hide_a_guard() {
        let mut routes = routes();
        guard(&mut routes, &Stage::new().status(401), &[]);
        let elsewhere = Stage::new().head("GET", "/orders/7", &[("Host", "made-up")]).status(200);
        assert_eq!(guard(&mut routes, &elsewhere, &[forged()]), Guard::Refuses);
        let other_server = {
            let mut stage = elsewhere.clone();
            stage.exchange.endpoints.server = "10.0.0.2:8080".parse().unwrap();
            stage
        };
        assert_eq!(guard(&mut routes, &other_server, &[forged()]), Guard::Unknown);
    }

    #[test]
    fn routes_are_bounded_and_busy_ones_stay() {
        let mut routes = Routes::new(&DetectSettings { max_routes: 50, ..DetectSettings::default() });
        guard(&mut routes, &Stage::new().status(401), &[]);
        for n in 0..2000 {
            let scan = Stage::to("GET", &format!("/x{n}y")).status(404);
            routes.look_up(&scan.exchange, &[]);
            let used = guard(&mut routes, &Stage::new().status(200), &[token(1)]);
            assert_eq!(used, Guard::Refuses, "{n}");
        }
        assert_eq!(routes.len(), 50);
    }

    #[test]
    fn words_that_vary_become_names_and_scans_teach_nothing() {
        let mut routes = routes();
        let word = |n: u32| {
            char::from(b'a' + u8::try_from(n % 26).unwrap()).to_string().repeat((n / 26 + 2) as usize)
        };
        for (root, status) in [("scanned", 404), ("moved", 302), ("users", 200)] {
            for n in 0..200 {
                let stage = Stage::to("GET", &format!("/{root}/{}", word(n))).status(status);
                routes.look_up(&stage.exchange, &uses([token(1)]));
            }
        }
        let mut name = |root: &str| {
            let stage = Stage::to("GET", &format!("/{root}/zoe"));
            routes.look_up(&stage.exchange, &uses([token(1)])).name.to_string()
        };
        let names = ["scanned", "moved", "users"].map(&mut name);
        assert_eq!(names, ["GET /scanned/zoe", "GET /moved/zoe", "GET /users/{name}"]);
    }

    #[test]
    fn a_guard_outlives_the_words_it_was_learned_by() {
        let mut routes = routes();
        for n in 0..40_u8 {
            let word = char::from(b'a' + n % 26).to_string().repeat(usize::from(n / 26 + 2));
            let stage = Stage::to("GET", &format!("/users/{word}/orders"));
            guard(&mut routes, &stage.clone().status(401), &[]);
            guard(&mut routes, &stage.status(200), &[token(1)]);
        }
        let new = Stage::to("GET", "/users/zoe/orders").status(200);
        assert_eq!(guard(&mut routes, &new, &[forged()]), Guard::Refuses);
    }

    #[test]
    fn graphql_operations_are_routes() {
        let mut routes = routes();
        let mut stage = Stage::to("POST", "/graphql").status(200);
        stage.exchange.body.get_or_insert_default().operation = Some("query Orders".into());
        assert_eq!(&*routes.look_up(&stage.exchange, &[]).name, "POST /graphql query Orders");
    }

    #[test]
    fn a_restart_keeps_guards_places_and_templates() {
        let mut old = routes();
        let before = old.look_up(&Stage::new().status(401).exchange, &[]).clone();
        let mut fresh = routes();
        fresh.resume(postcard::from_bytes(&old.save().unwrap()).unwrap());
        let after = fresh.look_up(&Stage::new().exchange, &uses([token(1)]));
        assert_eq!((&after.name, after.guard, after.slot), (&before.name, Guard::Refuses, before.slot));
    }

    proptest! {
        #[test]
        fn any_path_gives_a_short_printable_name(path in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut stage = Stage::new();
            let request = &mut stage.exchange.request;
            request.bytes = [b"GET ".as_slice(), &path].concat();
            request.target = 4..u32::try_from(request.bytes.len()).unwrap();
            request.method = 0..3;
            let mut routes = routes();
            let name = routes.look_up(&stage.exchange, &[]).name.clone();
            prop_assert!(name.len() <= 300 && !name.chars().any(crate::detect::text::is_unprintable));
        }
    }
}
