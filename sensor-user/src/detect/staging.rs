//! What the tests of rules are made of: exchanges and tokens in one line each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::capture::{Endpoints, Origin, SocketId, Time};
use crate::detect::atlas::Atlas;
use crate::detect::climate::Climate;
use crate::detect::holder::holder;
use crate::detect::roster::{Roster, stable_hash};
use crate::detect::{
    Case, DetectSettings, Finding, Guard, Issue, Knowledge, Known, Lineage, Route, RouteKind, Rule, Severity,
    Slot, Who,
};
use crate::http::{Exchange, Header, Issued, RequestHead, ResponseHead};
use crate::token::{Carrier, Fingerprint, Form, IssuedToken, Policy, Signature, Token, TokenUse};

/// The second at which everything happens unless said otherwise.
pub(crate) const NOW_S: u64 = 1_795_284_245;

/// A token that is good in every way, with this number as its name.
pub(crate) fn token(number: u64) -> Token {
    let now = i64::try_from(NOW_S).unwrap();
    let mut fingerprint = [0; 16];
    fingerprint[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    fingerprint[8..].copy_from_slice(&number.to_le_bytes());
    Token {
        fingerprint: Fingerprint(fingerprint),
        length: 900,
        subject: Some("alice".into()),
        id: Some(format!("id-{number}").into()),
        expires: Some(now + 3000).into(),
        not_before: Some(now - 600).into(),
        issued: Some(now - 600).into(),
        signature: Signature::Verified,
        policy: Some(policy()),
        input_hash: number.wrapping_mul(31) | 1,
        signature_hash: number.wrapping_mul(37) | 1,
        ..Token::blank(Form::Jws).of_profile(|p| {
            p.alg = Some("RS256".into());
            p.kid = Some("k1".into());
            p.issuer = Some("https://idp.example/".into());
            p.audiences = SmallVec::from_iter(["orders-api".into()]);
        })
    }
}

/// A good token of somebody that is good for years: for histories.
pub(crate) fn held_by(subject: &str) -> Token {
    let years = Some(i64::try_from(NOW_S).unwrap() + 1_000_000_000);
    Token { subject: Some(subject.into()), expires: years.into(), ..token(stable_hash(subject) >> 8) }
}

/// A policy that is kept in every way.
pub(crate) fn policy() -> Policy {
    Policy {
        issuer_known: true,
        audience_ok: true,
        algorithm_ok: true,
        issuer_asymmetric: true,
        key_url_ok: true,
        embedded_key_ok: true,
        type_ok: true,
    }
}

/// One exchange in the making.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) exchange: Exchange,
    route: Route,
}

impl Stage {
    /// `GET /orders/7`, not answered.
    pub(crate) fn new() -> Self {
        Self::to("GET", "/orders/7")
    }

    pub(crate) fn to(method: &str, path: &str) -> Self {
        let client: SocketAddr = "10.0.3.7:50000".parse().unwrap();
        let at = Time::from_secs(NOW_S);
        let endpoints = Endpoints { client, server: "10.0.0.1:8080".parse().unwrap() };
        let exchange = Exchange::begun(at, SocketId(1), endpoints, Origin::default(), RequestHead::default());
        let route = Route {
            name: format!("{method} {path}").into(),
            kind: RouteKind::Plain,
            guard: Guard::Unknown,
            slot: Slot {
                at: u32::try_from(stable_hash(&format!("{method} {path}")) % 1000).unwrap(),
                life: 1,
            },
            uses: 0,
            first_s: 0,
        };
        Self { exchange, route }.head(method, path, &[("Host", "orders.example")])
    }

    pub(crate) fn head(mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut head = RequestHead { minor_version: 1, ..RequestHead::default() };
        let put = |bytes: &mut Vec<u8>, text: &str| {
            let start = u32::try_from(bytes.len()).unwrap();
            bytes.extend(text.as_bytes());
            start..u32::try_from(bytes.len()).unwrap()
        };
        head.method = put(&mut head.bytes, method);
        put(&mut head.bytes, " ");
        head.target = put(&mut head.bytes, path);
        put(&mut head.bytes, " HTTP/1.1\r\n");
        for (name, value) in headers {
            let name = put(&mut head.bytes, name);
            put(&mut head.bytes, ": ");
            let value = put(&mut head.bytes, value);
            put(&mut head.bytes, "\r\n");
            head.headers.push(Header { name, value });
        }
        self.exchange.request = head;
        self
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        let request = &self.exchange.request;
        let text = |range| String::from_utf8(request.slice(range).to_vec()).unwrap();
        let mut headers: Vec<(String, String)> =
            request.headers.iter().map(|h| (text(&h.name), text(&h.value))).collect();
        headers.push((name.into(), value.into()));
        let (method, path) = (text(&request.method), text(&request.target));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        self.head(&method, &path, &headers)
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.exchange.response = Some(ResponseHead { status, minor_version: 1, ..ResponseHead::default() });
        self
    }

    /// With these headers of the response.
    pub(crate) fn answer_headers(mut self, headers: &[(&str, &str)]) -> Self {
        let answer = self.exchange.response.get_or_insert_default();
        let mut put = |text: &str| {
            let start = u32::try_from(answer.bytes.len()).unwrap();
            answer.bytes.extend(text.as_bytes());
            start..u32::try_from(answer.bytes.len()).unwrap()
        };
        let lines: Vec<Header> =
            headers.iter().map(|(name, value)| Header { name: put(name), value: put(value) }).collect();
        answer.headers.extend(lines);
        self
    }

    /// A token request with this refresh token, and an answer that issues that one.
    pub(crate) fn issuing(mut self, given: Option<u128>, gained: Option<u128>) -> Self {
        let body = self.exchange.body.get_or_insert_default();
        body.refresh_token = given;
        body.issued = Some(Box::new(Issued { refresh_token: gained, ..Issued::default() }));
        self
    }

    /// A login that names this account.
    pub(crate) fn account(mut self, name: &str) -> Self {
        self.exchange.body.get_or_insert_default().account = Some(name.into());
        self
    }

    pub(crate) fn client(mut self, address: &str) -> Self {
        let ip: IpAddr = address.parse().unwrap();
        self.exchange.client = ip;
        self.exchange.endpoints.client.set_ip(ip);
        self
    }

    /// So many milliseconds after [`NOW_S`].
    pub(crate) fn after_ms(mut self, ms: u64) -> Self {
        let at = Time(NOW_S * 1_000_000_000 + ms * 1_000_000);
        self.exchange.at = at;
        self.exchange.ended_at = at;
        self
    }

    pub(crate) fn guard(mut self, guard: Guard) -> Self {
        self.route.guard = guard;
        self
    }

    /// Names the route, as templates do.
    pub(crate) fn route(mut self, name: &str) -> Self {
        self.route.name = name.into();
        self.route.slot.at = u32::try_from(stable_hash(name) % 1000).unwrap();
        self
    }

    /// So many earlier requests to the route, the first so many seconds before [`NOW_S`].
    pub(crate) fn route_known(mut self, uses: u32, for_s: u32) -> Self {
        self.route.uses = uses;
        self.route.first_s = u32::try_from(NOW_S).unwrap() - for_s;
        self
    }

    pub(crate) fn kind(mut self, kind: RouteKind) -> Self {
        self.route.kind = kind;
        self
    }

    /// Asks one rule about this exchange with these tokens. Everybody is new to it, and has a place of its own that
    /// is the same each time; [`Play`] remembers when who was seen.
    pub(crate) fn ask(&self, rule: &mut dyn Rule, tokens: impl IntoIterator<Item = Token>) -> Vec<Finding> {
        let tokens = uses(tokens);
        let place = |name: u64, kind: u64| Known {
            slot: Slot {
                at: u32::try_from(stable_hash(&(name, kind)) % 100_000).unwrap(),
                life: u32::try_from(stable_hash(&name) >> 32).unwrap() | 1,
            },
            first_s: u32::try_from(NOW_S).unwrap(),
            last_s: u32::try_from(NOW_S).unwrap(),
            uses: 1,
        };
        let mut who = Who::default();
        Roster::new(&DetectSettings::default()).see(&self.exchange, &tokens, &Route::default(), 0, &mut who);
        who.address = place(stable_hash(&holder(self.exchange.client)), 1);
        who.service = place(stable_hash(&self.exchange.endpoints.server), 2);
        for (name, known) in &mut who.tokens {
            *known = place(stable_hash(name), 3);
        }
        if let Some(actor) = &mut who.actor {
            let subject = tokens.iter().find_map(|held| held.token.subject.as_ref());
            let name = subject.map_or_else(|| stable_hash(&who.tokens.first().map(|t| t.0)), stable_hash);
            actor.known = place(name, 4);
        }
        self.ask_as(rule, &tokens, &who, &Knowledge::default())
    }

    /// Asks one rule about this exchange, these participants and this knowledge.
    pub(crate) fn ask_as(
        &self,
        rule: &mut dyn Rule,
        tokens: &[TokenUse],
        who: &Who,
        knowledge: &Knowledge,
    ) -> Vec<Finding> {
        let (climate, lineage) = (&mut Climate::default(), &Lineage::new(1));
        self.ask_in(rule, tokens, who, knowledge, climate, (lineage, Issue::default()))
    }

    fn ask_in(
        &self,
        rule: &mut dyn Rule,
        tokens: &[TokenUse],
        who: &Who,
        knowledge: &Knowledge,
        climate: &mut Climate,
        (lineage, issue): (&Lineage, Issue<'_>),
    ) -> Vec<Finding> {
        let login = climate.see(&self.exchange, self.route.kind, who.service.slot);
        let mut report = Vec::new();
        let case = Case {
            exchange: &self.exchange,
            tokens,
            all: tokens,
            route: &self.route,
            login: login.as_ref(),
            object: crate::detect::object::of(&self.route.name, &self.exchange.request),
            who,
            knowledge,
            lineage,
            issue,
            now: self.exchange.ended_at,
            again: false,
        };
        rule.judge(&case, &mut report);
        report
    }
}

/// A rule with a roster that remembers, and with outside knowledge: for histories.
pub(crate) struct Play {
    pub(crate) rule: Box<dyn Rule>,
    pub(crate) knowledge: Knowledge,
    roster: Roster,
    climate: Climate,
    lineage: Lineage,
}

impl Play {
    pub(crate) fn new(rule: Box<dyn Rule>) -> Self {
        Self::with(rule, &DetectSettings::default())
    }

    pub(crate) fn with(rule: Box<dyn Rule>, settings: &DetectSettings) -> Self {
        Self {
            rule,
            knowledge: Knowledge::default(),
            roster: Roster::new(settings),
            climate: Climate::default(),
            lineage: Lineage::new(settings.max_tokens),
        }
    }

    /// What the rule says of the next exchange.
    pub(crate) fn ask(&mut self, stage: &Stage, tokens: impl IntoIterator<Item = Token>) -> Vec<Finding> {
        self.ask_issuing(stage, tokens, [])
    }

    /// The same for an exchange that issues tokens: those that will come with these.
    pub(crate) fn ask_issuing(
        &mut self,
        stage: &Stage,
        tokens: impl IntoIterator<Item = Token>,
        issued: impl IntoIterator<Item = Token>,
    ) -> Vec<Finding> {
        let tokens = uses(tokens);
        let name =
            |token: Token| IssuedToken { fingerprint: token.fingerprint, opaque: token.opaque().copied() };
        let issued: Vec<IssuedToken> = issued.into_iter().map(name).collect();
        let mut who = Who::default();
        self.roster.see(&stage.exchange, &tokens, &Route::default(), 0, &mut who);
        Atlas::default().show(&self.knowledge, stage.exchange.client, &mut who);
        self.lineage.learn_owners(&tokens, &who);
        let issue = self.lineage.see(&stage.exchange, &issued, &who, &mut self.roster);
        let Self { rule, knowledge, climate, lineage, .. } = self;
        stage.ask_in(&mut **rule, &tokens, &who, knowledge, climate, (lineage, issue))
    }

    /// Saves and restores the rule's memory, as a restart does.
    pub(crate) fn restart(&mut self, mut fresh: Box<dyn Rule>) {
        let saved = self.rule.memory().expect("a memory").save().unwrap();
        fresh.memory().expect("a memory").load(&saved).unwrap();
        self.rule = fresh;
    }
}

/// Tokens as they are found in `Authorization`.
pub(crate) fn uses(tokens: impl IntoIterator<Item = Token>) -> Vec<TokenUse> {
    let held = |token| TokenUse { token: Arc::new(token), carrier: Carrier::Authorization };
    tokens.into_iter().map(held).collect()
}

/// What rules about `exp` and `nbf` keep to: a leeway of 60 seconds, no forgeries, and caution with what was accepted.
/// `off_by` makes a token that is wrong by so many seconds.
pub(crate) fn judges_times_with_care(
    rule: fn(&Arc<DetectSettings>) -> Box<dyn Rule>,
    off_by: fn(i64) -> Token,
) {
    let ask = |stage: Stage, token| stage.ask(&mut *rule(&Arc::default()), [token]);
    for (seconds, found) in [(-10, 0), (0, 0), (60, 0), (61, 1), (1_000_000, 1)] {
        assert_eq!(ask(Stage::new().status(401), off_by(seconds)).len(), found, "{seconds}");
    }
    for (guard, severity) in [
        (Guard::Unknown, Severity::Medium),
        (Guard::Open, Severity::Low),
        (Guard::Refuses, Severity::Critical),
    ] {
        let found = ask(Stage::new().status(200).guard(guard), off_by(3600));
        assert_eq!(found[0].severity, severity, "{guard:?}");
    }
    assert_eq!(ask(Stage::new().status(401), off_by(3600))[0].severity, Severity::Low);
    let forged = Token { signature: Signature::Invalid, ..off_by(3600) };
    assert!(ask(Stage::new().status(401), forged).is_empty(), "left to the rule that names forgeries");
    for time in [i64::MIN, i64::MAX] {
        ask(
            Stage::new().status(200),
            Token { expires: Some(time).into(), not_before: Some(time).into(), ..token(1) },
        );
    }
}
