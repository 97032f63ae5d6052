//! The seats of the user rules in the detector: one for rules that are asked once an exchange, one for those that name a
//! token and wait for its verdict.
//!
//! A rule that names no token is asked once an exchange. One that does is asked once for each token of the request, when
//! its verdict is there, and once for a request without any.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::detect::holder::holder;
use crate::detect::roster::stable_hash;
use crate::detect::user::correlate::Groups;
use crate::detect::user::facts::{Ages, CaseFacts};
use crate::detect::user::field::Use;
use crate::detect::user::guard::Guard;
use crate::detect::user::message::shown;
use crate::detect::user::model::{Figures, UserRule, UserRules};
use crate::detect::user::value::{Counted, Facts, Miss};
use crate::detect::{About, Case, Column, Finding, Memory, Needs, Report, Rule, Severity, scene};
use crate::token::TokenUse;

const fn seat(id: &'static str, needs: Needs) -> About {
    About {
        id,
        title: "The user's own rules",
        version: "1.0.0",
        severity: Severity::Medium,
        accepted: None,
        attack: &[],
        behavioural: true,
        needs,
        doc: "The place of user rules in the detector.",
        cooling_s: 600,
        thresholds: &[],
    }
}

static OF_EXCHANGES: About = seat("user-rules", Needs::Exchange);
static OF_TOKENS: About = seat("user-rules-of-tokens", Needs::Verdict);

/// What a rule says of an exchange.
#[derive(Clone, Debug)]
pub struct Said {
    /// How bad.
    pub severity: Severity,
    /// What was counted; 0 without correlation.
    pub count: u32,
    /// The sentence.
    pub message: String,
}

/// Asks one rule about one exchange.
pub(super) fn ask(rule: &UserRule, groups: &mut Groups, facts: &dyn Facts, at_ms: u64) -> Option<Said> {
    if !holds(rule, &rule.when, facts) || rule.exceptions.iter().any(|not| holds(rule, not, facts)) {
        return None;
    }
    let count = match &rule.correlation {
        None => 0,
        Some(correlation) => {
            let hit = groups.take(correlation, facts, at_ms);
            rule.figures.groups.store(groups.len() as u64, Ordering::Relaxed);
            rule.figures.evicted.store(groups.evicted(), Ordering::Relaxed);
            hit?.count
        }
    };
    Figures::add(&rule.figures.findings);
    let facts = Counted { facts, count };
    Some(Said { severity: rule.severity.of(&facts), count, message: rule.message.fill(&facts) })
}

fn holds(rule: &UserRule, condition: &crate::detect::user::expr::Node, facts: &dyn Facts) -> bool {
    match condition.test(facts) {
        Ok(holds) => holds,
        Err(Miss::Absent) => false,
        Err(Miss::Fault) => {
            Figures::add(&rule.figures.faults);
            false
        }
    }
}

/// Where a principal was lately: its eight latest addresses and countries, by hash.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Haunts {
    addresses: [Haunt; 8],
    countries: [Haunt; 8],
}

/// A place of a principal: about 12 bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Haunt {
    place: u32,
    first_s: u32,
    last_s: u32,
}

/// Notes a visit, and says how long the place is known.
fn visit(haunts: &mut [Haunt; 8], place: u64, at_s: u32) -> u32 {
    let place = u32::try_from(place >> 32).unwrap_or_default();
    if let Some(haunt) = haunts.iter_mut().find(|h| h.place == place && h.last_s != 0) {
        haunt.last_s = haunt.last_s.max(at_s);
        return at_s.saturating_sub(haunt.first_s);
    }
    if let Some(oldest) = haunts.iter_mut().min_by_key(|haunt| haunt.last_s) {
        *oldest = Haunt { place, first_s: at_s, last_s: at_s.max(1) };
    }
    0
}

/// What the rules of one seat remember.
#[derive(Default)]
struct State {
    /// By rule, in the order of the seat, with the hash of its text.
    groups: Vec<(u64, Groups)>,
    /// By actor: about 200 bytes for each place up to the highest used, if a rule asks for it.
    haunts: Column<Haunts>,
}

/// A snapshot names rules by their text: what has changed in between begins anew.
impl Memory for State {
    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(&(&self.groups, &self.haunts))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        let (groups, haunts): (Vec<(u64, Groups)>, Column<Haunts>) = postcard::from_bytes(bytes)?;
        self.haunts = haunts;
        self.take_over(groups);
        Ok(())
    }
}

impl State {
    /// Takes over what an earlier state knew of rules that are the same.
    fn take_over(&mut self, earlier: Vec<(u64, Groups)>) {
        for (hash, groups) in earlier {
            if let Some((_, place)) = self.groups.iter_mut().find(|(h, _)| *h == hash)
                && std::mem::discriminant(place) == std::mem::discriminant(&groups)
            {
                *place = groups;
            }
        }
    }
}

/// A seat.
pub struct Engine {
    about: &'static About,
    rules: Vec<Arc<UserRule>>,
    guards: Vec<Guard>,
    /// Whether a rule asks where principals were.
    asks_haunts: bool,
    /// Rules of both seats that correlate: they share the memory.
    correlating: usize,
    state: State,
}

impl Engine {
    /// Both seats, without rules.
    #[must_use]
    pub fn both() -> [Box<dyn Rule>; 2] {
        [&OF_EXCHANGES, &OF_TOKENS].map(|about| -> Box<dyn Rule> { Box::new(Self::new(about)) })
    }

    fn new(about: &'static About) -> Self {
        Self {
            about,
            rules: Vec::new(),
            guards: Vec::new(),
            asks_haunts: false,
            correlating: 0,
            state: State::default(),
        }
    }

    fn limit(&mut self) {
        for (rule, (_, groups)) in self.rules.iter().zip(&mut self.state.groups) {
            groups.limit(rule.max_groups(self.correlating));
        }
    }

    /// Asks every rule that may match about one token, or about none.
    fn ask_all(
        &mut self,
        case: &Case<'_>,
        token: Option<&TokenUse>,
        place: &OnceCell<crate::detect::knowledge::Place>,
        report: &mut Report,
    ) {
        let exchange = case.exchange;
        let profile = Guard::profile(exchange.status(), case.route.kind, exchange.request.method());
        let mut facts = CaseFacts::new(case, token, place);
        facts.ages = self.ages(case, &facts);
        let at_ms = exchange.at.0 / 1_000_000;
        let asked = self.rules.iter().zip(&self.guards).zip(&mut self.state.groups);
        for ((rule, _), (_, groups)) in asked.filter(|((_, guard), _)| guard.admits(profile)) {
            if let Some(said) = ask(rule, groups, &facts, at_ms) {
                report.push(finding(rule, &facts, said));
            }
        }
    }

    fn ages(&mut self, case: &Case<'_>, facts: &CaseFacts<'_>) -> Ages {
        let named = facts.principal().and(case.who.principal());
        let Some(known) = named else { return Ages::default() };
        let at_s = case.second();
        let mut ages = Ages { principal: Some(at_s.saturating_sub(known.first_s)), ..Ages::default() };
        if self.asks_haunts {
            let haunts = self.state.haunts.of(known.slot);
            let client = stable_hash(&holder(case.exchange.client));
            ages.address = Some(visit(&mut haunts.addresses, client, at_s));
            if let Some(country) = facts.value(crate::detect::user::field::Field::ClientCountry) {
                let country = stable_hash(&format!("{country:?}"));
                ages.country = Some(visit(&mut haunts.countries, country, at_s));
            }
        }
        ages
    }
}

impl Rule for Engine {
    fn about(&self) -> &'static About {
        self.about
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if self.rules.is_empty() {
            return;
        }
        let place = OnceCell::new();
        if self.about.needs == Needs::Exchange || case.all.is_empty() {
            return self.ask_all(case, None, &place, report);
        }
        for held in case.tokens {
            self.ask_all(case, Some(held), &place, report);
        }
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        self.limit();
        Some(&mut self.state)
    }

    fn adopt(&mut self, rules: &UserRules) {
        let earlier = std::mem::take(&mut self.state.groups);
        self.correlating = rules.rules.iter().filter(|rule| rule.correlation.is_some()).count();
        let mine = |rule: &&Arc<UserRule>| rule.about.needs == self.about.needs && rule.enabled;
        self.rules = rules.rules.iter().filter(mine).cloned().collect();
        self.guards = self.rules.iter().map(|rule| rule.guard()).collect();
        self.state.groups = self
            .rules
            .iter()
            .map(|rule| (rule.version_hash, Groups::new(rule.correlation.as_ref())))
            .collect();
        self.state.take_over(earlier);
        self.limit();
        self.asks_haunts = false;
        for rule in &self.rules {
            rule.fields(&mut |field| self.asks_haunts |= field.is_familiarity());
        }
    }
}

fn finding(rule: &UserRule, facts: &CaseFacts<'_>, said: Said) -> Finding {
    let case = facts.case;
    let mut told = Vec::new();
    if let Some(correlation) = &rule.correlation {
        told.push(("count", said.count.into()));
        told.push(("window_s", correlation.window.as_secs().into()));
        for node in &correlation.group_by {
            node.fields(&mut |field| {
                let card = field.card();
                if let (true, Some(value)) = (card.usage != Use::Kept, facts.value(field)) {
                    told.push((card.name, shown(field, &value).into()));
                }
            });
        }
    }
    Finding {
        rule: rule.about,
        at: case.exchange.ended_at,
        severity: said.severity,
        confidence: rule.confidence,
        principal: facts.token.and_then(|held| scene::principal(&held.token)),
        token: facts.token.map(|held| held.token.fingerprint),
        group: None,
        message: said.message,
        brief: rule.about.title.to_owned(),
        facts: told,
        scene: Some(Box::new(scene::of(case))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::user::read;
    use crate::detect::staging::{Play, Stage, token};
    use crate::detect::{DetectSettings, RouteKind};
    use crate::token::{Signature, Token, Unchecked};

    fn rule(text: &str) -> Arc<UserRule> {
        let text = format!("id: my-rule\ntitle: mine\nseverity: {{attempt: low, accepted: high}}\n{text}");
        read::rule(Path::new("my-rule.yaml"), &text).unwrap_or_else(|r| panic!("{}", r.render(false))).rule
    }

    fn rules(rules: &[&Arc<UserRule>]) -> UserRules {
        UserRules { rules: rules.iter().map(|rule| Arc::clone(rule)).collect(), ..UserRules::default() }
    }

    fn seat_for(rule: &Arc<UserRule>) -> Box<dyn Rule> {
        let [exchanges, tokens] = Engine::both();
        let mut seat = if rule.about.needs == Needs::Exchange { exchanges } else { tokens };
        seat.adopt(&rules(&[rule]));
        seat
    }

    fn play(rule: &Arc<UserRule>) -> Play {
        Play::with(seat_for(rule), &DetectSettings::default())
    }

    #[test]
    fn a_condition_fires_and_says_what_it_saw() {
        let rule = rule(
            "when: request.method == 'GET' && response.status < 300\nmessage: '{request.route}: {response.status}'",
        );
        let mut play = play(&rule);
        let found = play.ask(&Stage::new().status(200), []);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rule.id, found[0].severity), ("my-rule", Severity::High));
        assert_eq!(found[0].message, "GET /orders/7: 200");
        assert!(play.ask(&Stage::new().status(404), []).is_empty());
        assert!(play.ask(&Stage::new(), []).is_empty(), "no answer, no match");
        assert_eq!(rule.figures.findings.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn groups_are_counted_apart_and_ipv6_clients_by_network() {
        let rule = rule(
            "when: route.kind == 'login' && response.status == 401\ncorrelate: {kind: event_count, window: 1m, gte: 3, group_by: [client.address]}\nmessage: '{client.address} {count}'",
        );
        let mut play = play(&rule);
        let mut at = |address: &str, s: u64| {
            let stage = Stage::to("POST", "/login").kind(RouteKind::Login).status(401);
            play.ask(&stage.client(address).after_ms(s * 1000), []).into_iter().next()
        };
        assert!(at("10.0.0.1", 0).is_none() && at("10.0.0.2", 1).is_none() && at("10.0.0.1", 2).is_none());
        let found = at("10.0.0.1", 3).unwrap();
        assert_eq!(found.message, "10.0.0.1 3");
        assert_eq!(found.severity, Severity::Low, "refused");
        assert!(found.facts.contains(&("client.address", "10.0.0.1".into())));
        assert!(at("2001:db8::1", 4).is_none() && at("2001:db8::2", 5).is_none());
        assert!(at("2001:db8::3", 6).is_some());
    }

    #[test]
    fn a_restart_and_a_reload_keep_what_was_counted() {
        let text = "when: response.status == 401\ncorrelate: {kind: event_count, window: 1m, gte: 3}";
        let kept = rule(text);
        let mut play = play(&kept);
        let stage = Stage::new().status(401);
        assert!(play.ask(&stage, []).is_empty() && play.ask(&stage, []).is_empty());
        play.restart(seat_for(&kept));
        play.rule.adopt(&rules(&[&rule(text)]));
        assert_eq!(play.ask(&stage, []).len(), 1);
        play.rule.adopt(&rules(&[&rule(&format!("{text}\nconfidence: 7"))]));
        assert!(play.ask(&stage, []).is_empty(), "another text is another rule");
    }

    #[test]
    fn a_snapshot_of_rubbish_changes_nothing() {
        let kept = rule("when: response.status == 401\ncorrelate: {kind: event_count, window: 1m, gte: 2}");
        let mut play = play(&kept);
        let stage = Stage::new().status(401);
        assert!(play.ask(&stage, []).is_empty());
        assert!(play.rule.memory().unwrap().load(&[0xff; 30]).is_err());
        assert_eq!(play.ask(&stage, []).len(), 1);
    }

    #[test]
    fn groups_are_bounded_and_evictions_are_counted() {
        let rule = rule(
            "when: response.status == 401\ncorrelate: {kind: event_count, window: 1h, gte: 2, group_by: [request.path], groups: 50}",
        );
        let mut play = play(&rule);
        for n in 0..500 {
            play.ask(&Stage::to("GET", &format!("/{n}")).status(401), []);
        }
        assert_eq!(rule.figures.groups.load(Ordering::Relaxed), 50);
        assert_eq!(rule.figures.evicted.load(Ordering::Relaxed), 450);
    }

    #[test]
    fn only_verified_tokens_name_a_principal() {
        let rule = rule("when: principal == 'alice'\nmessage: '{principal}'");
        let mut play = play(&rule);
        let found = play.ask(&Stage::new().status(200), [token(1)]);
        assert_eq!((found.len(), found[0].message.as_str()), (1, "alice"));
        assert!(found[0].token.is_some() && found[0].principal.is_some());
        for signature in [Signature::Invalid, Signature::Absent, Signature::Unchecked(Unchecked::NoIssuer)] {
            let forged = Token { signature, ..token(2) };
            assert!(play.ask(&Stage::new().status(200), [forged]).is_empty());
        }
        let expired = Token { expires: Some(1).into(), ..token(3) };
        assert!(play.ask(&Stage::new().status(200), [expired]).is_empty());
    }

    #[test]
    fn a_rule_about_tokens_is_asked_once_a_token_and_once_without() {
        let rule = rule("when: '!has(token.form) || token.verified'");
        let mut play = play(&rule);
        assert_eq!(play.ask(&Stage::new().status(200), []).len(), 1);
        assert_eq!(play.ask(&Stage::new().status(200), [token(1), token(2)]).len(), 2);
    }

    #[test]
    fn a_place_is_new_to_a_principal_for_a_while() {
        let rule = rule("when: principal_age_s > 1000 && principal_address_age_s < 100");
        let mut play = play(&rule);
        let mut at = |address: &str, s: u64| {
            let fresh = Token { expires: None::<i64>.into(), ..token(1) };
            !play.ask(&Stage::new().status(200).client(address).after_ms(s * 1000), [fresh]).is_empty()
        };
        assert!(!at("10.0.0.1", 0), "everybody is new at first");
        assert!(!at("10.0.0.1", 2000));
        assert!(at("10.0.0.2", 2001) && at("10.0.0.2", 2050));
        assert!(!at("10.0.0.2", 2200) && !at("10.0.0.1", 2201));
    }

    #[test]
    fn credentials_are_no_headers() {
        let rule = rule("when: has(request.headers['x-jwt'])");
        let stage = Stage::new().header("X-JWT", "eyJ").status(200);
        let mut play = play(&rule);
        assert_eq!(play.ask(&stage, []).len(), 1);
        let held =
            TokenUse { token: Arc::new(token(1)), carrier: crate::token::Carrier::Header("x-jwt".into()) };
        let who = crate::detect::Who::default();
        let found = stage.ask_as(&mut *play.rule, &[held], &who, &crate::detect::Knowledge::default());
        assert!(found.is_empty());
    }

    #[test]
    fn faults_are_counted_and_do_not_fire() {
        let rule = rule("when: 10 / (response.status - 200) > 0 || false");
        let mut play = play(&rule);
        assert!(play.ask(&Stage::new().status(200), []).is_empty());
        assert_eq!(rule.figures.faults.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_hundred_rules_are_shut_out_before_their_conditions() {
        let text =
            "when: route.kind == 'login' && response.status in [401, 403] && matches(request.path, 'x')";
        let many: Vec<Arc<UserRule>> = (0..100).map(|_| rule(text)).collect();
        let ordinary = Guard::profile(Some(200), RouteKind::Plain, b"GET");
        assert!(many.iter().all(|rule| !rule.guard().admits(ordinary)));
    }
}
