//! `bulk-access`: one caller that takes very many objects in a short time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::object::mix;
use crate::detect::roster::stable_hash;
use crate::detect::sketch::{Sliding, get_used};
use crate::detect::statement::Statement;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "bulk-access",
    title: "Objects are taken in bulk",
    version: "1.2.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1119", "T1530"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Fires when one principal, or one token that nobody can check, got more than 500 distinct objects with 2xx \
within five minutes, on all routes together. A request that names no object counts as one for each different query, \
so that the pages of a list count; what is in a list does not.\n\nNobody reads a hundred objects a minute: a program \
takes them along. From 2000 it is high.\n\nBenign sources: batch jobs, exports, service accounts. What a caller is \
used to within five minutes is learned, and it takes twice that; what is too much becomes a habit only if it goes on \
for half an hour of the caller's time. \
The count is a sketch, within 5 %, over the last four to five minutes. It costs 64 bytes an actor, and 24 to 760 \
for those that get objects.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "per_5_minutes",
            default: 500.0,
            min: 10.0,
            max: 5000.0,
            doc: "Distinct objects within five minutes above which it fires.",
        },
        Threshold {
            key: "high_per_5_minutes",
            default: 2000.0,
            min: 10.0,
            max: 6000.0,
            doc: "Distinct objects within five minutes above which it is high.",
        },
    ],
};

/// Minutes of the window.
const PARTS: u32 = 5;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(BulkAccess {
        limit: settings.count(&ABOUT, "per_5_minutes"),
        high: settings.count(&ABOUT, "high_per_5_minutes"),
        actors: Column::default(),
    })
}

#[derive(Default, Serialize, Deserialize)]
struct Taken {
    objects: Sliding<PARTS>,
    /// The five minutes at hand, the most objects in them, and what is usual.
    window: u32,
    most: u32,
    usual: u32,
    /// The most objects in the five minutes before, while these adjoin them.
    before: u32,
    /// The newest minute with too much.
    beyond: u32,
    quiet_until_s: u32,
    told_high: bool,
}

struct BulkAccess {
    limit: u32,
    high: u32,
    actors: Column<Taken>,
}

impl Taken {
    /// Learns what is usual from windows that are over, and not from the newest if this one adjoins it: a theft must
    /// not raise its own limit on the way.
    fn learn(&mut self, minute: u32) {
        let window = minute / 5;
        if window <= self.window {
            return;
        }
        // What was too much stays in the count for the length of the window.
        if self.beyond + 5 > self.window * 5 {
            self.usual += self.most.max(self.before).saturating_sub(self.usual) / 8;
            self.most = 0;
        } else if self.before > 0 {
            get_used(&mut self.usual, self.before);
        }
        self.before = self.most;
        if window > self.window + 1 && self.before > 0 {
            get_used(&mut self.usual, self.before);
            self.before = 0;
        }
        (self.window, self.most) = (window, 0);
    }
}

impl Rule for BulkAccess {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::ACTOR.and(When::SUCCESS)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.actors)
    }

    fn glance(&self, _token: u32, actor: u32) -> bool {
        if let Some(taken) = self.actors.glance(actor) {
            taken.objects.glance();
        }
        true
    }

    fn glance_beyond(&self, actor: u32) -> bool {
        if let Some(taken) = self.actors.glance(actor) {
            taken.objects.glance_beyond();
        }
        true
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(actor) = case.who.actor else { return };
        if !case.exchange.is_success() || case.route.kind == RouteKind::Health {
            return;
        }
        let request = &case.exchange.request;
        // What names neither an object nor a page is the same thing every time.
        let object = match case.object {
            Some(object) => object.id,
            None if request.query().is_empty() => return,
            None => stable_hash(request.query()),
        };
        let (second, minute) = (case.second(), case.second() / 60);
        let taken = self.actors.of(actor.known.slot);
        taken.learn(minute);
        if !taken.objects.add(minute, mix(stable_hash(&case.route.slot), object)) {
            return;
        }
        let at_most = taken.objects.at_most();
        let limit = self.limit.max(taken.usual.saturating_mul(2));
        if at_most <= limit {
            taken.most = taken.most.max(at_most);
            return;
        }
        let count = taken.objects.count();
        taken.most = taken.most.max(count);
        let is_high = count > self.high;
        if count > limit {
            taken.beyond = minute;
        }
        if count <= limit || (second < taken.quiet_until_s && (taken.told_high || !is_high)) {
            return;
        }
        taken.told_high = is_high;
        taken.quiet_until_s = second.saturating_add(300);
        let statement = Statement {
            severity: if is_high { Severity::High } else { ABOUT.severity },
            confidence: 75,
            message: format!(
                "One caller got about {count} different objects within five minutes, the newest from {}.",
                case.route.name
            ),
            brief: format!("about {count} objects in 5 min"),
            facts: vec![("objects", count.into()), ("limit", limit.into())],
        };
        report.push(statement.into_actor_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, held_by};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    /// Takes `n` objects at one moment each `gap_ms`; the numbers at which it spoke.
    fn take(play: &mut Play, n: u64, gap_ms: u64, from_s: u64) -> Vec<(u64, Severity)> {
        let ask = |i: u64| {
            let stage = Stage::to("GET", &format!("/orders/{i}")).route("GET /orders/{id}").status(200);
            play.ask(&stage.after_ms(from_s * 1000 + i * gap_ms), [held_by("alice")])
        };
        (0..n).map(ask).zip(1..).flat_map(|(f, i)| f.into_iter().map(move |f| (i, f.severity))).collect()
    }

    #[test]
    fn fires_above_five_hundred_and_is_high_above_two_thousand() {
        let found = take(&mut play(), 2300, 10, 0);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!((470..540).contains(&found[0].0) && found[0].1 == Severity::Medium, "{found:?}");
        assert!((1850..2250).contains(&found[1].0) && found[1].1 == Severity::High, "{found:?}");
    }

    #[test]
    fn slower_callers_are_left_alone() {
        assert_eq!(take(&mut play(), 3000, 1000, 0), []);
        assert_eq!(take(&mut play(), 450, 1, 0), []);
    }

    #[test]
    fn the_same_object_and_what_names_none_count_once() {
        let mut play = play();
        for i in 0..2000 {
            let stage =
                Stage::to("GET", ["/orders/7", "/me"][i % 2]).route(["GET /orders/{id}", "GET /me"][i % 2]);
            assert!(play.ask(&stage.status(200).after_ms(i as u64), [held_by("alice")]).is_empty());
        }
    }

    #[test]
    fn pages_of_a_list_count() {
        let mut play = play();
        let ask = |i: u64| {
            let stage = Stage::to("GET", &format!("/orders?page={i}")).route("GET /orders").status(200);
            play.ask(&stage.after_ms(i * 10), [held_by("alice")]).len()
        };
        assert_eq!((0..700).map(ask).sum::<usize>(), 1);
    }

    #[test]
    fn a_theft_does_not_raise_its_own_limit() {
        // Wherever the five minutes that are learned from begin.
        for begin in (0..300).step_by(20) {
            let mut play = play();
            take(&mut play, 40, 400, 0);
            assert_eq!(take(&mut play, 620, 400, 3600 + begin).len(), 1, "{begin}");
        }
    }

    #[test]
    fn a_job_that_runs_each_night_becomes_a_habit() {
        let mut play = play();
        let nights: Vec<usize> =
            (1..12).map(|night| take(&mut play, 1500, 20, night * 86_400).len()).collect();
        assert!(nights[0] > 0 && nights[6..].iter().all(|n| *n == 0), "{nights:?}");
    }

    #[test]
    fn what_was_told_is_no_habit_the_day_after() {
        let mut play = play();
        for day in 1..4 {
            let mut found = take(&mut play, 700, 350, day * 86_400).len();
            found += take(&mut play, 20, 1000, day * 86_400 + 300).len();
            assert_eq!(found, 1, "{day}");
        }
    }

    #[test]
    fn a_restart_keeps_the_count() {
        let mut play = play();
        take(&mut play, 450, 1, 1000);
        play.restart(rule(&Arc::default()));
        assert_eq!(take(&mut play, 600, 1, 1000).len(), 1);
    }
}
