//! The detector: asks every rule about every exchange.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::capture::{Loss, Time};
use crate::detect::atlas::Atlas;
use crate::detect::climate::Climate;
use crate::detect::plan::Plan;
use crate::detect::roster::Roster;
use crate::detect::routes::Routes;
use crate::detect::user::{Engine, UserRules};
use crate::detect::{
    Case, DetectSettings, Finding, Issue, Knowledge, Lineage, Needs, Report, Route, Rule, Severity, Slot,
    When, Who, object, rules,
};
use crate::http::Exchange;
use crate::token::{Fingerprint, IssuedToken, TokenUse};

/// A rule as it runs here.
pub(super) struct Seat {
    when: When,
    needs: Needs,
    rule: Box<dyn Rule>,
    severity: Option<Severity>,
    findings: u64,
}

/// Every enabled rule, and the routes that they share.
pub struct Detector {
    seats: Vec<Seat>,
    /// Those that [glance](Rule::glance), and those that glance [beyond](Rule::glance_beyond).
    glancing: [Box<[u16]>; 2],
    plan: Plan,
    routes: Routes,
    roster: Roster,
    lineage: Lineage,
    knowledge: Arc<Knowledge>,
    atlas: Atlas,
    climate: Climate,
    who: Who,
    user: Arc<UserRules>,
    ticked_s: u64,
    /// Where the route of the newest exchange is.
    newest: Slot,
}

impl Detector {
    /// Seats the enabled rules.
    #[must_use]
    pub fn new(settings: DetectSettings) -> Self {
        let settings = Arc::new(settings);
        let configured = |id: &str| settings.rules.get(id).cloned().unwrap_or_default();
        let every = rules::build(&settings).into_iter().chain(Engine::both());
        let seats = every.filter_map(|rule| {
            let about = rule.about();
            let own = configured(about.id);
            let when = rule.when();
            let seat = Seat { when, needs: about.needs, rule, severity: own.severity, findings: 0 };
            own.enabled.then_some(seat)
        });
        let seats: Vec<Seat> = seats.collect();
        let those = |glance: fn(&dyn Rule) -> bool| {
            seats.iter().zip(0..=u16::MAX).filter(|(seat, _)| glance(&*seat.rule)).map(|(_, at)| at).collect()
        };
        Self {
            glancing: [those(|rule| rule.glance(0, 0)), those(|rule| rule.glance_beyond(0))],
            seats,
            plan: Plan::default(),
            routes: Routes::new(&settings),
            roster: Roster::new(&settings),
            lineage: Lineage::new(settings.max_tokens),
            knowledge: Arc::default(),
            atlas: Atlas::default(),
            climate: Climate::default(),
            who: Who::default(),
            user: Arc::default(),
            ticked_s: 0,
            newest: Slot::default(),
        }
    }

    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    pub(super) fn seats_mut(&mut self) -> &mut [Seat] {
        &mut self.seats
    }

    pub(super) const fn roster_mut(&mut self) -> &mut Roster {
        &mut self.roster
    }

    pub(super) const fn lineage_mut(&mut self) -> &mut Lineage {
        &mut self.lineage
    }

    pub(super) const fn routes_mut(&mut self) -> &mut Routes {
        &mut self.routes
    }

    pub(super) const fn climate_mut(&mut self) -> &mut Climate {
        &mut self.climate
    }

    /// Judges by other outside knowledge from now on.
    pub fn know(&mut self, knowledge: Arc<Knowledge>) {
        self.knowledge = knowledge;
        self.atlas.clear();
    }

    /// What is known from outside.
    #[must_use]
    pub fn knowledge(&self) -> Arc<Knowledge> {
        Arc::clone(&self.knowledge)
    }

    /// Asks these rules of the user's from now on; those that are the same keep what they remember.
    pub fn adopt(&mut self, rules: Arc<UserRules>) {
        for seat in &mut self.seats {
            seat.rule.adopt(&rules);
        }
        self.user = rules;
    }

    /// The user's rules that are asked.
    #[must_use]
    pub const fn user_rules(&self) -> &Arc<UserRules> {
        &self.user
    }

    /// Reads the first of what is kept of those who used these tokens, ahead of the judgement, and concludes nothing.
    pub fn glance<'a>(&self, uses: impl Iterator<Item = &'a [TokenUse]> + Clone) {
        let [near, beyond] = self.glancing.each_ref().map(|those| {
            those.iter().filter_map(|at| self.seats.get(usize::from(*at))).map(|seat| &seat.rule)
        });
        for (token, actor) in uses.clone().filter_map(|tokens| self.roster.glance(tokens)) {
            near.clone().for_each(|rule| _ = rule.glance(token, actor));
        }
        for (_, actor) in uses.filter_map(|tokens| self.roster.glance(tokens)) {
            beyond.clone().for_each(|rule| _ = rule.glance_beyond(actor));
        }
    }

    /// Judges a new exchange with its tokens as they are now. Rules that need a verdict see the settled ones;
    /// [`Self::judge_late`] shows them the others.
    pub fn judge(&mut self, exchange: &Exchange, tokens: &[TokenUse], now: Time, out: &mut Report) {
        self.judge_issuing(exchange, tokens, &[], now, out);
    }

    /// The same for an exchange that issued tokens.
    pub fn judge_issuing(
        &mut self,
        exchange: &Exchange,
        tokens: &[TokenUse],
        issued: &[IssuedToken],
        now: Time,
        out: &mut Report,
    ) {
        let Self { seats, plan, routes, roster, lineage, knowledge, atlas, climate, who, newest, .. } = self;
        let before = out.len();
        let route = routes.look_up(exchange, tokens);
        *newest = route.slot;
        roster.see(exchange, tokens, route, knowledge.revision, who);
        lineage.learn_owners(tokens, who);
        let issue = lineage.see(exchange, issued, who, roster);
        atlas.show(knowledge, exchange.client, who);
        let login = climate.see(exchange, route.kind, who.service.slot);
        let login = login.as_ref();
        let object = object::of(&route.name, &exchange.request);
        let every = Case {
            exchange,
            tokens,
            all: tokens,
            route,
            login,
            object,
            who,
            knowledge,
            lineage,
            issue,
            now,
            again: false,
        };
        if tokens.iter().all(|held| held.token.is_settled()) {
            match plan.of(When::of(&every), seats.iter().map(|seat| seat.when)) {
                Some(asked) => {
                    for at in asked {
                        if let Some(seat) = seats.get_mut(usize::from(*at)) {
                            seat.ask(&every, out);
                        }
                    }
                }
                None => seats.iter_mut().for_each(|seat| seat.ask(&every, out)),
            }
            drop_explained(before, out);
            return;
        }
        let settled: SmallVec<[TokenUse; 2]> =
            tokens.iter().filter(|held| held.token.is_settled()).cloned().collect();
        let known = Case { tokens: &settled, ..every };
        for seat in seats {
            seat.ask(if seat.needs == Needs::Verdict { &known } else { &every }, out);
        }
        drop_explained(before, out);
    }

    /// The route of the exchange that was judged last.
    #[must_use]
    pub fn newest_route(&self) -> &Route {
        self.routes.in_place(self.newest)
    }

    /// Judges an exchange again when the verdict on `settled` has come, or will not come any more. `tokens` are all
    /// tokens of the exchange as they are now.
    pub fn judge_late(
        &mut self,
        exchange: &Exchange,
        tokens: &[TokenUse],
        settled: Fingerprint,
        now: Time,
        out: &mut Report,
    ) {
        let before = out.len();
        self.ask_again(exchange, tokens, settled, now, |seat, case| {
            if seat.needs == Needs::Verdict {
                seat.ask(case, out);
            }
        });
        drop_explained(before, out);
    }

    /// Judges an exchange again when the answer has come how `token` stands with those who can revoke it.
    pub fn judge_standing(
        &mut self,
        exchange: &Exchange,
        tokens: &[TokenUse],
        token: Fingerprint,
        now: Time,
        out: &mut Report,
    ) {
        self.ask_again(exchange, tokens, token, now, |seat, case| {
            let before = out.len();
            seat.rule.judge_standing(case, out);
            seat.settle(before, out);
        });
    }

    /// Puts an exchange before every seat again, for what is known of one of its tokens now.
    fn ask_again(
        &mut self,
        exchange: &Exchange,
        tokens: &[TokenUse],
        about: Fingerprint,
        now: Time,
        mut ask: impl FnMut(&mut Seat, &Case<'_>),
    ) {
        let asked: SmallVec<[TokenUse; 2]> =
            tokens.iter().filter(|held| held.token.fingerprint == about).cloned().collect();
        let Self { seats, routes, roster, lineage, knowledge, atlas, who, .. } = self;
        let route = routes.look_up_late(exchange, tokens);
        roster.see_late(exchange, tokens, &asked, who);
        lineage.learn_owners(&asked, who);
        atlas.show(knowledge, exchange.client, who);
        let object = object::of(&route.name, &exchange.request);
        let case = Case {
            exchange,
            tokens: &asked,
            all: tokens,
            route,
            login: None,
            object,
            who,
            knowledge,
            lineage,
            issue: Issue::default(),
            now,
            again: true,
        };
        for seat in seats {
            ask(seat, &case);
        }
    }

    /// Tells the rules of a loss.
    pub fn lost(&mut self, loss: &Loss, out: &mut Report) {
        for seat in &mut self.seats {
            let before = out.len();
            seat.rule.lost(loss, out);
            seat.settle(before, out);
        }
    }

    /// Tells the rules that time has passed, at most once a second of data.
    pub fn tick(&mut self, now: Time, out: &mut Report) {
        if now.secs() <= self.ticked_s {
            return;
        }
        self.ticked_s = now.secs();
        self.tell_time(now, out);
    }

    /// Nothing more will come: rules that aggregate say what they hold.
    pub fn finish(&mut self, now: Time, out: &mut Report) {
        self.tell_time(now.plus(rules::LONGEST_WAIT), out);
    }

    /// Findings of each rule so far, in the order of the catalogue.
    pub fn findings(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.seats.iter().map(|seat| (seat.rule.about().id, seat.findings))
    }

    /// Participants and routes known now, and how many had to be forgotten, by kind.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize, u64); 5] {
        let [addresses, services, tokens, actors] = self.roster.sizes();
        [addresses, services, tokens, actors, ("routes", self.routes.len(), self.routes.evicted())]
    }

    /// The routes learned.
    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    fn tell_time(&mut self, now: Time, out: &mut Report) {
        for seat in &mut self.seats {
            let before = out.len();
            seat.rule.tick(now, out);
            seat.settle(before, out);
        }
    }
}

/// Drops what another finding of the same judgement about the same token says better.
fn drop_explained(before: usize, out: &mut Report) {
    if out.len() < before + 2 {
        return;
    }
    let said: SmallVec<[(&str, Option<Fingerprint>); 8]> =
        out.iter().skip(before).map(|f| (f.rule.id, f.token)).collect();
    let mut at = 0;
    out.retain(|finding| {
        let old = at < before;
        at += 1;
        let better =
            rules::EXPLAINED_BY.iter().find(|(less, _)| *less == finding.rule.id).map(|(_, more)| *more);
        old || !better.is_some_and(|more| said.contains(&(more, finding.token)))
    });
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector")
            .field("rules", &self.seats.len())
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

impl Seat {
    pub(super) fn rule_mut(&mut self) -> &mut dyn Rule {
        &mut *self.rule
    }

    fn ask(&mut self, case: &Case<'_>, out: &mut Vec<Finding>) {
        let before = out.len();
        self.rule.judge(case, out);
        if out.len() != before {
            self.settle(before, out);
        }
    }

    /// Applies the configured severity to what the rule has added, and counts it.
    #[cold]
    fn settle(&mut self, before: usize, out: &mut [Finding]) {
        let Some(added) = out.get_mut(before..) else { return };
        self.findings += added.len() as u64;
        if let Some(severity) = self.severity {
            for finding in added {
                finding.severity = severity;
            }
        }
    }
}

#[cfg(test)]
mod tests;
