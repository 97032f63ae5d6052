//! The detector: asks every rule about every exchange.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::capture::{Loss, Time};
use crate::detect::routes::Routes;
use crate::detect::{Case, DetectSettings, Finding, Needs, Report, Rule, Severity, rules};
use crate::http::Exchange;
use crate::token::{Fingerprint, TokenUse};

/// A rule as it runs here.
struct Seat {
    rule: Box<dyn Rule>,
    needs: Needs,
    severity: Option<Severity>,
    findings: u64,
}

/// Every enabled rule, and the routes that they share.
pub struct Detector {
    seats: Vec<Seat>,
    routes: Routes,
    ticked_s: u64,
}

impl Detector {
    /// Seats the enabled rules.
    #[must_use]
    pub fn new(settings: DetectSettings) -> Self {
        let settings = Arc::new(settings);
        let configured = |id: &str| settings.rules.get(id).cloned().unwrap_or_default();
        let seats = rules::build(&settings).into_iter().filter_map(|rule| {
            let about = rule.about();
            let own = configured(about.id);
            let seat = Seat { rule, needs: about.needs, severity: own.severity, findings: 0 };
            own.enabled.then_some(seat)
        });
        Self { seats: seats.collect(), routes: Routes::new(&settings), ticked_s: 0 }
    }

    /// Judges a new exchange with its tokens as they are now. Rules that need a verdict see the settled ones;
    /// [`Self::judge_late`] shows them the others.
    pub fn judge(&mut self, exchange: &Exchange, tokens: &[TokenUse], now: Time, out: &mut Report) {
        let Self { seats, routes, .. } = self;
        let before = out.len();
        let route = routes.look_up(exchange, tokens);
        let every = Case { exchange, tokens, all: tokens, route, now };
        if tokens.iter().all(|held| held.token.is_settled()) {
            for seat in seats {
                seat.ask(&every, out);
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
        let asked: SmallVec<[TokenUse; 2]> =
            tokens.iter().filter(|held| held.token.fingerprint == settled).cloned().collect();
        let before = out.len();
        let Self { seats, routes, .. } = self;
        let route = routes.look_up(exchange, tokens);
        let case = Case { exchange, tokens: &asked, all: tokens, route, now };
        for seat in seats.iter_mut().filter(|seat| seat.needs == Needs::Verdict) {
            seat.ask(&case, out);
        }
        drop_explained(before, out);
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
    fn ask(&mut self, case: &Case<'_>, out: &mut Vec<Finding>) {
        let before = out.len();
        self.rule.judge(case, out);
        self.settle(before, out);
    }

    /// Applies the configured severity to what the rule has added, and counts it.
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
