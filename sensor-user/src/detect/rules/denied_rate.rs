//! `denied-rate`: one caller that is refused again and again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::challenge::asks_for_nonce;
use crate::detect::crowd::{DAY_S, FadingCrowd};
use crate::detect::roster::stable_hash;
use crate::detect::sketch::Crowd;
use crate::detect::statement::Statement;
use crate::detect::window::Buckets;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "denied-rate",
    title: "Refused again and again",
    version: "1.1.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1087", "T1069"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Counts answers of 401 and 403 to one principal, or to one token that nobody can check, in a sliding minute. \
More than 5 are medium, more than 20 high.\n\nWho holds a good token and is refused that often asks for what is not \
his: he tries objects, functions or tenants one after the other.\n\nBenign source: a page that asks on every visit \
for what its user may not see. Routes that refused four callers or more within a day or two, and routes that refused \
this caller on an earlier day or hour, do not count towards the lower number, and never towards the higher one alone: \
they need twice as many. Login, logout and token routes do not count, nor does an answer that only asks for a `DPoP` \
nonce; nor do expired and forged tokens, which have rules of their own. It costs 40 bytes an actor and 28 a route.",
    cooling_s: 300,
    thresholds: &[
        Threshold {
            key: "per_minute",
            default: 5.0,
            min: 1.0,
            max: 10_000.0,
            doc: "Refusals within a minute above which it fires.",
        },
        Threshold {
            key: "high_per_minute",
            default: 20.0,
            min: 1.0,
            max: 10_000.0,
            doc: "Refusals within a minute above which it is high.",
        },
    ],
};

/// Seconds of a bucket: six make a minute.
const BUCKET_S: u32 = 10;

/// Callers after whose refusal a route is known to refuse ordinary callers, within this day and the one before: those
/// who try what is not theirs come now and then, and a page that asks too much does so every day.
const COMMON: u32 = 4;

/// Seconds after which a refusal is a habit.
const HABIT_S: u32 = 3600;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(DeniedRate {
        low: settings.count(&ABOUT, "per_minute"),
        high: settings.count(&ABOUT, "high_per_minute"),
        memory: (Column::default(), Column::default()),
    })
}

/// The refusals of one actor.
#[derive(Default, Serialize, Deserialize)]
struct Refusals {
    odd: Buckets<6>,
    common: Buckets<6>,
    /// Routes of the hour at hand, and of those before it.
    now: Crowd,
    habit: Crowd,
    hour: u32,
    told: (u32, bool),
}

struct DeniedRate {
    low: u32,
    high: u32,
    /// Of each actor its refusals, of each route whom it refused.
    memory: (Column<Refusals>, Column<FadingCrowd<DAY_S>>),
}

impl Rule for DeniedRate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::ACTOR.and(When::REFUSED)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.memory)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if !case.exchange.is_refused()
            || matches!(case.route.kind, RouteKind::Login | RouteKind::Logout | RouteKind::Token)
        {
            return;
        }
        let Some(actor) = case.who.actor else { return };
        if asks_for_nonce(case.exchange) {
            return;
        }
        let (second, route) = (case.second(), case.route.slot);
        let crowd = self.memory.1.of(route);
        crowd.note(actor.known.slot, second);
        let refused = self.memory.0.of(actor.known.slot);
        let is_common = crowd.size() >= COMMON || refused.is_habit(stable_hash(&route), second);
        let (bucket, counts) =
            (u64::from(second / BUCKET_S), if is_common { &mut refused.common } else { &mut refused.odd });
        counts.add(bucket);
        let (odd, common) = (refused.odd.sum(bucket, 6), refused.common.sum(bucket, 6));
        let is_high = odd > self.high || odd + common / 2 > self.high;
        if !is_high && odd <= self.low {
            return;
        }
        let (until_s, was_high) = refused.told;
        if second < until_s && (was_high || !is_high) {
            return;
        }
        refused.told = (second.saturating_add(60), is_high);
        let count = odd + common;
        let statement = Statement {
            severity: if is_high { Severity::High } else { ABOUT.severity },
            confidence: if actor.verified { 80 } else { 70 },
            message: format!(
                "One caller was refused {count} times within a minute, the newest time on {}.",
                case.route.name
            ),
            brief: format!("{count} refusals in 1 min"),
            facts: vec![("refusals", count.into()), ("unusual_refusals", odd.into())],
        };
        report.push(statement.into_actor_finding(&ABOUT, case));
    }
}

impl Refusals {
    /// Whether the route refused this actor in an earlier hour. Notes it for later ones.
    fn is_habit(&mut self, route: u64, second: u32) -> bool {
        let hour = second / HABIT_S;
        if hour > self.hour {
            self.hour = hour;
            // Half full, a crowd tells nothing any more.
            let old = if self.habit.size() > 32 { Crowd::default() } else { self.habit };
            self.habit = Crowd(old.0 | self.now.0);
            self.now = Crowd::default();
        }
        self.now.add(route);
        self.habit.has(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, held_by, token};
    use crate::token::{Signature, Token};

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn severities(play: &mut Play, path: impl Fn(u64) -> String, from_s: u64, n: u64) -> Vec<Severity> {
        let ask = |i: u64| {
            let stage = Stage::to("GET", &path(i)).status(403).after_ms((from_s + i) * 1000);
            play.ask(&stage, [held_by("alice")])
        };
        (0..n).flat_map(ask).map(|f| f.severity).collect()
    }

    #[test]
    fn the_sixth_refusal_within_a_minute_fires_and_the_twenty_first_is_high() {
        assert_eq!(severities(&mut play(), |i| format!("/x/{i}"), 0, 5), []);
        assert_eq!(severities(&mut play(), |i| format!("/x/{i}"), 0, 6), [Severity::Medium]);
        assert_eq!(severities(&mut play(), |i| format!("/x/{i}"), 0, 21), [Severity::Medium, Severity::High]);
    }

    #[test]
    fn a_server_that_asks_for_a_nonce_refuses_nobody() {
        let signer = crate::token::forge::Signer::shared(crate::token::settings::Algorithm::ES256);
        let challenge = [("DPoP-Nonce", "n"), ("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\"")];
        let mut play = play();
        for i in 0..40 {
            let proof = crate::token::dpop::tests::proof(signer, &format!("j{i}"), i, &[]);
            let stage = crate::detect::challenge::tests::answered(&proof, 401, &challenge);
            assert!(play.ask(&stage.after_ms(i * 500), [held_by("alice")]).is_empty(), "{i}");
        }
    }

    #[test]
    fn slow_refusals_are_left_alone() {
        let mut play = play();
        for i in 0..100 {
            assert_eq!(severities(&mut play, |_| "/x".into(), i * 13, 1), [], "{i}");
        }
    }

    #[test]
    fn a_page_that_always_asks_too_much_is_left_alone_from_its_second_hour() {
        let mut play = play();
        let page = |i: u64| format!("/widget-{}", ["a", "b", "c", "d", "e", "f", "g", "h"][(i % 8) as usize]);
        assert_eq!(severities(&mut play, page, 0, 8).len(), 1);
        for day in 1..10 {
            assert_eq!(severities(&mut play, page, day * 86_400, 8), []);
        }
    }

    #[test]
    fn routes_that_refuse_everybody_are_left_alone() {
        let mut play = play();
        let mut found = 0;
        for user in 0..50 {
            for i in 0..8 {
                let one = held_by(&format!("user-{user}"));
                let stage = Stage::to("GET", "/widget").status(403).after_ms(user * 100_000 + i);
                found += play.ask(&stage, [one]).len();
            }
        }
        assert!(found <= 3, "{found}");
    }

    #[test]
    fn who_tries_what_others_tried_days_ago_is_told() {
        let mut play = play();
        for user in 0..12_u64 {
            let mut ask = |i: u64| {
                let stage = Stage::to("GET", "/ledger").status(403).after_ms(user * 86_400_000 + i * 1000);
                play.ask(&stage, [held_by(&format!("user-{user}"))]).len()
            };
            assert_eq!((0..10).map(&mut ask).sum::<usize>(), 1, "{user}");
        }
    }

    #[test]
    fn forged_tokens_and_logins_do_not_count() {
        let mut play = play();
        for i in 0..50 {
            let forged = Token { signature: Signature::Invalid, ..token(1) };
            let stage = Stage::new().status(401).after_ms(i);
            assert!(play.ask(&stage, [forged]).is_empty());
            assert!(play.ask(&stage.kind(RouteKind::Login), [token(2)]).is_empty());
        }
    }

    #[test]
    fn a_restart_keeps_the_count() {
        let mut play = play();
        severities(&mut play, |i| format!("/x/{i}"), 0, 5);
        play.restart(rule(&Arc::default()));
        assert_eq!(severities(&mut play, |i| format!("/x/{i}"), 6, 1), [Severity::Medium]);
    }
}
